"""The examples of `docs/server.md` run, and its tables say what is so."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import trustme

from tests.test_examples import EXAMPLES, ROOT, body_of, load_file
from trio_wsprim import (
    Buffer,
    ConnectionRejected,
    Options,
    ServerOptions,
    WebSocket,
    create_reconnecting_ws,
    create_ws,
)
from trio_wsprim._server_options import read_server_settings

PAGE: Final = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
FOLDER: Final = EXAMPLES / "server"
# `| name | default | … |`
ROW: Final = re.compile(r"^\| `(\w+)` \| (.+?) \| .+ \|$", re.MULTILINE)


def main_of(name: str) -> Callable[..., Awaitable[None]]:
    main: Callable[..., Awaitable[None]] = load_file(FOLDER / f"{name}.py").main
    return main


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@asynccontextmanager
async def running(name: str, *arguments: object) -> AsyncGenerator[None]:
    """Run an example for the time of a block."""
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(main_of(name), *arguments)
            yield
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def dialing(url: str, **options: Any) -> AsyncGenerator[WebSocket]:
    """Dial until the server is there."""
    async with create_reconnecting_ws(url, delay=0.02, **options) as ws:
        await ws.wait_open()
        yield ws
        await ws.aclose()


async def test_a_request_is_read() -> None:
    port = free_port()
    async with running("read_request", port):
        url = f"ws://127.0.0.1:{port}/garden?name=Zo%C3%AB"
        async with dialing(url, headers=[("Accept-Language", "nl")]) as ws:
            assert await ws.receive() == "Zoë is in garden, and speaks nl"
        async with dialing(f"ws://127.0.0.1:{port}") as ws:
            assert await ws.receive() == "somebody is in lobby, and speaks any language"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("Authorization", "Bearer let-me-in")], 101),
        ([("Authorization", "Bearer let-me-in"), ("Origin", "https://app.example.com")], 101),
        ([("Authorization", "Bearer let-me-in"), ("Origin", "https://evil.example.com")], 403),
        ([("Authorization", "Bearer wrong")], 401),
        ([], 401),
    ],
)
async def test_only_those_with_a_token_and_from_one_site_are_let_in(
    headers: list[tuple[str, str]], status: int
) -> None:
    port = free_port()
    url = f"ws://127.0.0.1:{port}"
    async with running("authorize", port):
        async with dialing(url, headers=[("Authorization", "Bearer let-me-in")]) as ws:
            assert await ws.receive() == "welcome"
        if status == 101:
            async with create_ws(url, headers=headers) as ws:
                assert await ws.receive() == "welcome"
        else:
            with pytest.raises(ConnectionRejected) as caught:
                async with create_ws(url, headers=headers) as ws:
                    await ws.wait_open()
            assert caught.value.status == status


async def test_ticks_are_broadcast() -> None:
    port = free_port()
    async with running("broadcast", port), dialing(f"ws://127.0.0.1:{port}") as ws:
        first = str(await ws.receive())
        assert re.fullmatch(r"tick \d+", first)
        assert await ws.receive() == f"tick {int(first.split()[1]) + 1}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_shuts_it_down_in_good_order(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(main_of("shut_down"), port)
            async with create_ws(await first_url(port)) as ws:
                await ws.send("hello")
                assert await ws.receive() == "hello"
                os.kill(os.getpid(), number)
                assert (await ws.wait_closed()).code == 1001
    assert capsys.readouterr().out == "up\ndown\n"


async def first_url(port: int) -> str:
    """Wait until somebody listens there."""
    url = f"ws://127.0.0.1:{port}"
    async with dialing(url):
        return url


async def test_tls_is_served(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    chain, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(str(key))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    port = free_port()
    async with (
        running("serve_tls", str(chain), str(key), port),
        dialing(f"wss://localhost:{port}", ssl_context=context) as ws,
    ):
        await ws.send("hello")
        assert await ws.receive() == "hello"


async def test_a_unix_socket_is_served(tmp_path: Path) -> None:
    path = str(tmp_path / "server.sock")

    async def open_stream(_host: str, _port: int) -> trio.abc.Stream:
        return await trio.open_unix_socket(path)

    async with running("serve_unix", path), dialing("ws://localhost", open_stream=open_stream) as ws:
        await ws.send("hello")
        assert await ws.receive() == "hello"


def test_every_example_is_shown_on_the_page_and_tried_here() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    for path in FOLDER.glob("*.py"):
        assert body_of(path) in PAGE
        assert f'"{path.stem}"' in tests


def shown_default(name: str) -> object:
    settings = read_server_settings({})
    where = settings if hasattr(settings, name) and name != "socket" else settings.socket
    return getattr(where, name)


def test_the_table_of_limits_has_each_option_with_its_default() -> None:
    rows = dict(ROW.findall(PAGE))
    assert set(ServerOptions.__annotations__) <= set(rows)
    for name in ServerOptions.__annotations__:
        default = shown_default(name)
        if isinstance(default, Buffer):
            assert rows[name] == "`Buffer()`: 1024 messages, 16 MiB"
            assert (default.max_messages, default.max_bytes) == (1024, 16 * 2**20)
        elif name == "max_message_bytes":
            assert (rows[name], default) == ("1 MiB", 2**20)
        elif isinstance(default, float):
            assert rows[name] == f"{default:g} s"
        else:
            assert rows[name] == f"`{default!r}`"


def test_what_clients_and_servers_have_in_common_has_one_default() -> None:
    for name in set(ServerOptions.__annotations__) & set(Options.__annotations__) - {"transport", "ssl_context"}:
        assert name in {"close_timeout", "max_message_bytes", "outbox", "inbox"}
