"""Through proxies by python-socks: what they are told, what comes of their refusals, and no password anywhere."""

import base64
import importlib.util
import logging
import ssl
import traceback
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trustme

from tests.live.servers import PATIENCE, echo, listening
from trio_wsprim import ConnectionFailed, RetriesExhausted, create_reconnecting_ws, create_ws
from trio_wsprim.testing import peer_over

PASSWORD = "s3cr3t-w0rd"
USER = "me"


class TinyProxy:
    """Speaks just enough of HTTP `CONNECT` and SOCKS5 to connect to loopback.

    Attributes:
        asked: Hosts and ports, as they were named.
        credentials: What the client proved itself with.
    """

    def __init__(self, target_port: int, *, refuses: bool = False, is_silent: bool = False) -> None:
        self.target_port = target_port
        self.refuses = refuses
        self.is_silent = is_silent
        self.asked: list[str] = []
        self.credentials: list[str] = []

    async def serve(self, stream: trio.SocketStream) -> None:
        if self.is_silent:
            while await stream.receive_some():
                pass
        else:
            await self._serve(stream)

    async def _serve(self, stream: trio.SocketStream) -> None:
        raise NotImplementedError

    async def _relay(self, stream: trio.SocketStream) -> None:
        other = await trio.open_tcp_stream("127.0.0.1", self.target_port)
        async with other, trio.open_nursery() as nursery:
            nursery.start_soon(pump, stream, other)
            await pump(other, stream)
            nursery.cancel_scope.cancel()


async def pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    try:
        async for data in source:
            await sink.send_all(data)
        await sink.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


class HttpProxy(TinyProxy):
    scheme = "http"

    async def _serve(self, stream: trio.SocketStream) -> None:
        request = await peer_over(stream).read_request()
        assert request.method == "CONNECT"
        self.asked.append(request.path)
        if given := request.header("proxy-authorization"):
            self.credentials.append(base64.b64decode(given.removeprefix("Basic ")).decode())
        if self.refuses:
            await stream.send_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        await stream.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await self._relay(stream)


class SocksProxy(TinyProxy):
    scheme = "socks5"

    async def _serve(self, stream: trio.SocketStream) -> None:
        methods = (await read(stream, 2))[1]
        offered = await read(stream, methods)
        if 2 in offered:
            await stream.send_all(b"\x05\x02")
            user = await read(stream, (await read(stream, 2))[1])
            password = await read(stream, (await read(stream, 1))[0])
            self.credentials.append(f"{user.decode()}:{password.decode()}")
            await stream.send_all(b"\x01\x01" if self.refuses else b"\x01\x00")
        else:
            await stream.send_all(b"\x05\xff" if self.refuses else b"\x05\x00")
        if self.refuses:
            return
        kind = (await read(stream, 4))[3]
        if kind == 3:
            host = (await read(stream, (await read(stream, 1))[0])).decode()
        else:
            host = ".".join(map(str, await read(stream, 4)))
        port = int.from_bytes(await read(stream, 2))
        self.asked.append(f"{host}:{port}")
        await stream.send_all(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        await self._relay(stream)


async def read(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        got = await stream.receive_some(size - len(data))
        if not got:
            raise trio.EndOfChannel
        data += got
    return data


PROXIES = [HttpProxy, SocksProxy]


@asynccontextmanager
async def proxied(
    kind: type[HttpProxy] | type[SocksProxy], context: ssl.SSLContext | None = None, **flags: Any
) -> AsyncGenerator[tuple[TinyProxy, str]]:
    """A proxy before an echo server, and the proxy's url, with credentials."""
    async with listening(echo(context)) as target_port:
        proxy = kind(target_port, **flags)
        async with listening(proxy.serve) as port:
            yield proxy, f"{kind.scheme}://{USER}:{PASSWORD}@127.0.0.1:{port}"


def everything_about(error: BaseException, *others: object) -> str:
    """All that a log or a crash report could show."""
    shown = "".join(traceback.format_exception(error))
    return shown + repr(error) + "".join(map(repr, others)) + "".join(map(str, others))


@pytest.mark.parametrize("kind", PROXIES)
async def test_messages_go_through_a_proxy_that_resolves_the_name(
    kind: type[HttpProxy] | type[SocksProxy], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="trio_wsprim")
    async with proxied(kind) as (proxy, url):
        async with create_ws("ws://only.the.proxy.knows.test:1234/", proxy=url) as ws:
            await ws.send("through")
            assert await ws.receive() == "through"
            assert PASSWORD not in repr(ws) + ws.url
        assert proxy.asked == ["only.the.proxy.knows.test:1234"]
        assert proxy.credentials == [f"{USER}:{PASSWORD}"]
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize("kind", PROXIES)
async def test_a_proxy_without_credentials_is_asked_without(kind: type[HttpProxy] | type[SocksProxy]) -> None:
    async with proxied(kind) as (proxy, url):
        async with create_ws("ws://127.0.0.1:1234/", proxy=url.replace(f"{USER}:{PASSWORD}@", "")) as ws:
            await ws.send("through")
            assert await ws.receive() == "through"
        assert proxy.asked == ["127.0.0.1:1234"]
        assert proxy.credentials == []


@pytest.mark.parametrize("kind", PROXIES)
async def test_tls_goes_through_a_proxy_to_the_server(kind: type[HttpProxy] | type[SocksProxy]) -> None:
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("example.test").configure_cert(server)
    authority.configure_trust(client)
    async with (
        proxied(kind, server) as (proxy, url),
        create_ws("wss://example.test/", proxy=url, ssl_context=client) as ws,
    ):
        await ws.send("through")
        assert await ws.receive() == "through"
    assert proxy.asked == ["example.test:443"]


@pytest.mark.parametrize("kind", PROXIES)
async def test_a_refusal_is_a_failure_without_the_password(
    kind: type[HttpProxy] | type[SocksProxy], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="trio_wsprim")
    async with proxied(kind, refuses=True) as (_, url):
        with pytest.raises(ConnectionFailed) as caught:
            async with create_ws("ws://example.test/", proxy=url) as ws:
                await ws.wait_open()
        assert type(caught.value) is ConnectionFailed
        assert caught.value.__cause__ is not None
        assert str(caught.value) == "ws://example.test/ cannot be reached: ProxyError"
        assert PASSWORD not in everything_about(caught.value, ws, ws.statistics())

        with pytest.raises(RetriesExhausted) as again:
            async with create_reconnecting_ws("ws://example.test/", proxy=url, delay=0.01, retries=2) as other:
                await other.wait_open()
        assert PASSWORD not in everything_about(again.value, other, other.statistics())
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize("kind", PROXIES)
async def test_a_silent_proxy_is_bounded_by_the_attempts_time(kind: type[HttpProxy] | type[SocksProxy]) -> None:
    async with proxied(kind, is_silent=True) as (_, url):
        with pytest.raises(ConnectionFailed) as caught:
            async with create_ws("ws://example.test/", proxy=url, connect_timeout=0.2) as ws:
                await ws.wait_open()
    assert isinstance(caught.value.__cause__, trio.TooSlowError)


async def test_a_proxy_that_is_not_there_is_a_failure() -> None:
    url = f"http://{USER}:{PASSWORD}@127.0.0.1:1"
    with trio.fail_after(PATIENCE), pytest.raises(ConnectionFailed) as caught:
        async with create_ws("ws://example.test/", proxy=url) as ws:
            await ws.wait_open()
    assert isinstance(caught.value.__cause__, OSError)
    assert PASSWORD not in everything_about(caught.value, ws)


async def test_the_environment_is_not_asked_for_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "ALL_PROXY", "ws_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with listening(echo()) as port, create_ws(f"ws://127.0.0.1:{port}/") as ws:
        await ws.send("direct")
        assert await ws.receive() == "direct"


@pytest.mark.parametrize("proxy", [f"https://{USER}:{PASSWORD}@x", f"socks4://{PASSWORD}@x:1", f"http://{PASSWORD}:x"])
def test_a_proxy_url_that_will_not_do_is_refused_without_quoting_it(proxy: str) -> None:
    with pytest.raises(ValueError, match="proxy must be") as caught:
        create_ws("ws://example.test/", proxy=proxy)
    assert PASSWORD not in everything_about(caught.value)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ImportError, match="pip install"):
        create_ws("ws://example.test/", proxy="http://127.0.0.1:1")
