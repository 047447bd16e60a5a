"""`serve`, with real clients: its three modes, who may come, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import trio
import trustme

from tests.cli.tools import LIMIT, end, interrupt, replaced, typed
from trio_wsprim import Buffer, ConnectionRejected, WebSocket, create_ws, create_ws_server
from trio_wsprim.__main__ import main
from trio_wsprim._cli import _serve

Talk = Callable[[str], Awaitable[None]]
TIMEOUT: Final = 30.0
# For clients that do then nothing of what a socket of ours does.
HANDSHAKE: Final = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@contextmanager
def talking(talk: Talk, *, stops: bool = True) -> Generator[None]:
    """Have clients talk to the server that the block runs, in a thread, and then press Ctrl-C.

    The server's url is the first line of standard output.
    """
    ours, theirs = os.pipe()
    errors: list[BaseException] = []

    async def run(url: str) -> None:
        with trio.fail_after(TIMEOUT):
            await talk(url)

    def work() -> None:
        try:
            with os.fdopen(ours) as lines:
                trio.run(run, lines.readline().strip())
        except BaseException as error:  # noqa: BLE001 - told by the block
            errors.append(error)
        if stops or errors:
            interrupt()

    thread = threading.Thread(target=work)
    thread.start()
    with replaced(1, theirs):
        os.close(theirs)
        yield
    thread.join(LIMIT)
    assert not errors, errors


def serve(*options: str) -> int:
    return main(["serve", "--port", "0", *options]) or 0


async def take(ws: WebSocket, number: int) -> list[str | bytes]:
    return [await ws.receive() for _ in range(number)]


def test_echo_gives_back_what_it_gets(capfd: pytest.CaptureFixture[str]) -> None:
    async def talk(url: str) -> None:
        async with create_ws(f"{url}path?SECRET") as ws:
            await ws.send("hello")
            await ws.send(b"\x00")
            assert await take(ws, 2) == ["hello", b"\x00"]

    with talking(talk):
        assert serve() == 130

    errors = capfd.readouterr().err
    assert errors.startswith("guest 1 came from 127.0.0.1:")
    assert " for /path\n" in errors
    assert "guest 1 went\n" in errors
    assert "closing\n" in errors
    assert "SECRET" not in errors


def test_in_a_chat_everybody_gets_what_the_others_say() -> None:
    async def talk(url: str) -> None:
        async with create_ws(url) as ann:
            await ann.wait_open()
            await ann.ping()
            async with create_ws(url) as bob:
                assert await ann.receive() == "* guest 2 came"
                await bob.send("hello")
                await bob.send(b"\x00")
                assert await take(ann, 2) == ["guest 2: hello", b"\x00"]
                await ann.send("bye")
                assert await bob.receive() == "guest 1: bye"
            assert await ann.receive() == "* guest 2 went"

    with talking(talk):
        assert serve("chat") == 130


def test_a_broadcast_hands_all_lines_to_all_and_ends_with_them(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_serve, "_LINES_AT_ONCE", 4)
    lines = [f"line {number}" for number in range(10)]
    with typed() as keys:

        async def talk(url: str) -> None:
            async with create_ws(url) as ann, create_ws(url) as bob:
                for ws in (ann, bob):
                    await ws.send("what clients say goes nowhere")
                    await ws.ping()
                os.write(keys, "\n".join(lines).encode())
                end(keys)
                for ws in (ann, bob):
                    assert await take(ws, 10) == lines
                    with pytest.raises(trio.EndOfChannel):
                        await ws.receive()

        with talking(talk, stops=False):
            assert serve("broadcast") == 0

    assert "closing" not in capfd.readouterr().err


def test_a_line_that_cannot_be_sent_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    async def talk(_url: str) -> None:
        pass

    with typed(b"good\n\xff\nlast"), talking(talk, stops=False):
        assert serve("broadcast") == 1

    assert "a line was not sent: not UTF-8\n" in capfd.readouterr().err


def test_who_is_too_slow_misses_lines_and_holds_nobody_up_for_long(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One does not read: the network's buffers fill up, and then its outbox, which is small here."""
    monkeypatch.setattr(_serve, "_PATIENCE", 0.01)
    monkeypatch.setattr(_serve, "create_ws_server", partial(create_ws_server, outbox=Buffer(max_messages=8)))
    line, number = "x" * 65_000, 150
    with typed() as keys:

        async def talk(url: str) -> None:
            host, port = url.removeprefix("ws://").removesuffix("/").split(":")
            slow = await trio.open_tcp_stream(host, int(port))
            slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await slow.send_all(HANDSHAKE)
            assert b"101" in await slow.receive_some(1000)
            async with create_ws(url) as ws:
                await ws.ping()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(type_all)
                    for _ in range(number):
                        assert await ws.receive() == line
                await slow.aclose()

        async def type_all() -> None:
            data = f"{line}\n".encode()
            for _ in range(number):
                await trio.to_thread.run_sync(write_all_to, keys, data)
            end(keys)

        with talking(talk, stops=False):
            assert serve("broadcast") == 1

    assert "some clients were too slow: " in capfd.readouterr().err


def write_all_to(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def test_a_heartbeat_ends_what_is_dead(capfd: pytest.CaptureFixture[str]) -> None:
    async def talk(url: str) -> None:
        host, port = url.removeprefix("ws://").removesuffix("/").split(":")
        async with await trio.open_tcp_stream(host, int(port)) as dead:
            await dead.send_all(HANDSHAKE)
            while await dead.receive_some(1000):
                pass

    with talking(talk):
        assert serve("--heartbeat", "0.2") == 130

    assert "guest 1 went\n" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("allowed", "is_welcome"),
    [((), False), (("--origin", "https://a.test"), True), (("--origin", "*"), True), (("--origin", "null"), False)],
)
def test_whose_pages_may_come_can_be_said(allowed: tuple[str, ...], is_welcome: bool) -> None:
    async def talk(url: str) -> None:
        async with create_ws(url, headers={"Origin": "https://a.test"}) as ws:
            if is_welcome:
                await ws.wait_open()
            else:
                with pytest.raises(ConnectionRejected, match="403"):
                    await ws.wait_open()

    with talking(talk):
        assert serve(*allowed) == 130


def test_it_speaks_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "me.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)

    async def talk(url: str) -> None:
        assert url.startswith("wss://")
        async with create_ws(url, ssl_context=context) as ws:
            await ws.send("hello")
            assert await ws.receive() == "hello"

    with talking(talk):
        assert serve("--cert", str(tmp_path / "me.pem")) == 130


def test_a_certificate_that_will_not_do_is_2(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert serve("--cert", str(tmp_path / "missing")) == 2

    assert "missing: No such file or directory\n" in capfd.readouterr().err


@pytest.mark.parametrize("host", ["192.0.2.1", "a" * 70])
def test_where_it_cannot_listen_it_says_so(host: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert serve("--host", host) == 1

    assert f"cannot listen on {host}, port 0: " in capfd.readouterr().err


def test_a_signal_closes_the_clients_with_1001(capfd: pytest.CaptureFixture[str]) -> None:
    async def talk(url: str) -> None:
        async with create_ws(url) as ws:
            await ws.wait_open()
            interrupt(signal.SIGTERM)
            assert (await ws.wait_closed()).code == 1001

    with talking(talk, stops=False):
        assert serve() == 143


def test_a_client_that_does_not_answer_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_serve, "_STOP_TIMEOUT", 0.1)

    async def talk(url: str) -> None:
        host, port = url.removeprefix("ws://").removesuffix("/").split(":")
        async with await trio.open_tcp_stream(host, int(port)) as dead:
            await dead.send_all(HANDSHAKE)
            assert b"101" in await dead.receive_some(1000)
            interrupt()
            assert await dead.receive_some(1000)  # the close frame, which is not answered
            while await dead.receive_some(1000):
                pass

    with talking(talk, stops=False):
        assert serve() == 130


def test_nobody_who_reads_its_url_is_141() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with replaced(1, theirs):
        os.close(theirs)
        assert serve() == 141
