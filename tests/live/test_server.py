"""The server over real sockets, against clients that we have not written."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from pathlib import Path

import pytest
import trio
import websockets.asyncio.client
import websockets.exceptions
import websockets.sync.client
from websockets.typing import Origin, Subprotocol

from tests import tls
from tests.listeners import Answer, ask, call, hear_close, read_answer, say
from tests.live.servers import PATIENCE
from trio_wsprim import (
    ConnectionFailed,
    ConnectionRejected,
    Server,
    ServerWebSocket,
    WebsocketsTransport,
    create_reconnecting_ws,
    create_ws,
    create_ws_server,
    make_heartbeat_ws,
    serve_ws,
)
from trio_wsprim.testing import Peer

MESSAGES: list[str | bytes] = ["hello", b"\x00\xff", "é" * 1000, b"x" * 500_000, "", b""]


async def echo(ws: ServerWebSocket) -> None:
    async for message in ws:
        await ws.send(message)


@pytest.fixture
def certificate() -> ssl.SSLContext:
    return tls.server_context("localhost", "127.0.0.1")


# ------------------------------------------------------------------------------------ our own client


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", None])
async def test_it_is_reached_by_its_url(host: str | None) -> None:
    with trio.fail_after(PATIENCE):
        async with create_ws_server(echo, host) as server, create_ws(server.url) as ws:
            for message in MESSAGES:
                await ws.send(message)
            assert [await ws.receive() for _ in MESSAGES] == MESSAGES


async def test_it_is_reached_over_tls(certificate: ssl.SSLContext) -> None:
    with trio.fail_after(PATIENCE):
        async with create_ws_server(echo, ssl_context=certificate) as server:
            assert server.url == f"wss://127.0.0.1:{server.port}/"
            async with create_ws(server.url, ssl_context=tls.client_context()) as ws:
                for message in MESSAGES:
                    await ws.send(message)
                assert [await ws.receive() for _ in MESSAGES] == MESSAGES
                (theirs,) = server.connections
                assert theirs.url == server.url
                await ws.aclose()
                assert (await ws.wait_closed()).clean


async def test_who_speaks_plainly_to_a_tls_server_is_hung_up_on_and_others_are_not(
    certificate: ssl.SSLContext,
) -> None:
    with trio.fail_after(PATIENCE):
        async with create_ws_server(echo, ssl_context=certificate) as server:
            with pytest.raises(ConnectionFailed):
                async with create_ws(f"ws://127.0.0.1:{server.port}/") as ws:
                    await ws.wait_open()
            async with create_ws(server.url, ssl_context=tls.client_context()) as ws:
                await ws.send("hello")
                assert await ws.receive() == "hello"


async def test_the_remote_address_is_the_client_s() -> None:
    seen: list[tuple[str, int] | None] = []

    async def handle(ws: ServerWebSocket) -> None:
        seen.append(ws.request.remote)

    with trio.fail_after(PATIENCE):
        async with create_ws_server(handle) as server:
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            assert (
                await hear_close(await call(stream, "/", [("Host", f"127.0.0.1:{server.port}")]), answer=False) == 1000
            )
            assert seen == [stream.socket.getsockname()]
            await stream.aclose()


async def test_it_listens_on_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    seen: list[tuple[str, int] | None] = []

    async def handle(ws: ServerWebSocket) -> None:
        seen.append(ws.request.remote)
        await echo(ws)

    async def open_stream(_host: str, _port: int) -> trio.abc.Stream:
        return await trio.open_unix_socket(path)

    listening = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    await listening.bind(path)
    listening.listen()
    with trio.fail_after(PATIENCE):
        async with (
            create_ws_server(handle, listeners=[trio.SocketListener(listening)]) as server,
            create_ws("ws://localhost/", open_stream=open_stream) as ws,
        ):
            assert (server.port, server.url) == (0, "")
            for message in MESSAGES:
                await ws.send(message)
            assert [await ws.receive() for _ in MESSAGES] == MESSAGES
    assert seen == [None]
    assert listening.fileno() == -1


async def test_a_listener_with_tls_of_its_own_will_do(certificate: ssl.SSLContext) -> None:
    (tcp,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    listener = trio.SSLListener(tcp, certificate, https_compatible=True)
    with trio.fail_after(PATIENCE):
        async with (
            create_ws_server(echo, listeners=[listener]) as server,
            create_ws(f"wss://127.0.0.1:{server.port}/", ssl_context=tls.client_context()) as ws,
        ):
            await ws.send("hello")
            assert await ws.receive() == "hello"
            (theirs,) = server.connections
            assert theirs.request.remote is not None


async def test_compression_is_spoken_where_both_want_it() -> None:
    transport = WebsocketsTransport(compression="deflate")
    with trio.fail_after(PATIENCE):
        async with (
            create_ws_server(echo, transport=transport) as server,
            create_ws(server.url, transport=transport) as squeezed,
            create_ws(server.url) as plain,
        ):
            for ws in (squeezed, plain):
                await ws.send("x" * 10_000)
                assert await ws.receive() == "x" * 10_000
            assert await server.broadcast("y" * 10_000) == frozenset()
            for ws in (squeezed, plain):
                assert await ws.receive() == "y" * 10_000


async def test_a_server_that_is_closed_refuses_to_be_dialled_and_its_clients_know_why() -> None:
    with trio.fail_after(PATIENCE):
        async with create_ws_server(echo) as server, create_ws(server.url) as ws:
            await ws.wait_open()
            await server.aclose()
            end = await ws.wait_closed()
            assert (end.code, end.clean) == (1001, True)
            with pytest.raises(ConnectionFailed) as caught:
                async with create_ws(server.url) as late:
                    await late.wait_open()
            assert isinstance(caught.value.__cause__, OSError)


async def test_a_reconnecting_client_finds_its_server_again_after_a_restart() -> None:
    with trio.fail_after(PATIENCE):
        async with create_ws_server(echo) as server:
            port, url = server.port, server.url
            async with create_reconnecting_ws(url, delay=0.05) as ws:
                await ws.send("one")
                assert await ws.receive() == "one"
                await server.aclose()
                async with create_ws_server(echo, port=port):
                    await ws.send("two")
                    assert await ws.receive() == "two"
                    await ws.aclose()


async def test_many_clients_are_served_and_each_gets_every_broadcast() -> None:
    count = 100
    got: list[list[str | bytes]] = []

    async def listen(server: Server) -> None:
        async with create_ws(server.url) as ws:
            await ws.wait_open()
            got.append([await ws.receive() for _ in range(20)])

    async def stay(ws: ServerWebSocket) -> None:
        make_heartbeat_ws(ws, message=None)
        if len(server.connections) == count:
            all_there.set()
        await ws.wait_closed()

    all_there = trio.Event()
    with trio.fail_after(3 * PATIENCE):
        async with create_ws_server(stay) as server, trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(listen, server)
            await all_there.wait()
            for number in range(20):
                assert await server.broadcast(f"{number}") == frozenset()
    assert got == [[f"{number}" for number in range(20)]] * count


async def test_serve_ws_is_started_in_a_nursery_and_cancelled_with_it() -> None:
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_ws, echo)
            async with create_ws(server.url) as ws:
                await ws.send("hello")
                assert await ws.receive() == "hello"
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    assert (await ws.wait_closed()).code == 1001
        assert nursery.cancel_scope.cancelled_caught


# ------------------------------------------------------------------------------------ other people's clients


async def test_the_sync_client_of_websockets_is_served() -> None:
    def talk(url: str) -> list[str | bytes]:
        with websockets.sync.client.connect(url, subprotocols=[Subprotocol("v1")]) as ws:
            assert ws.subprotocol == "v1"
            for message in MESSAGES:
                ws.send(message)
            got = [ws.recv() for _ in MESSAGES]
            assert ws.ping().wait(PATIENCE)
            return got

    with trio.fail_after(PATIENCE):
        async with create_ws_server(echo, subprotocols="v1") as server:
            assert await trio.to_thread.run_sync(talk, server.url) == MESSAGES


async def test_the_asyncio_client_of_websockets_is_served_over_tls(certificate: ssl.SSLContext) -> None:
    async def talk(url: str) -> list[str | bytes]:
        async with websockets.asyncio.client.connect(url, ssl=tls.client_context()) as ws:
            for message in MESSAGES:
                await ws.send(message)
            await ws.send([b"in ", b"three ", b"fragments"])
            got = [await ws.recv() for _ in MESSAGES]
            assert await ws.recv() == b"in three fragments"
            await (await ws.ping())
            return got

    with trio.fail_after(PATIENCE):
        async with create_ws_server(echo, ssl_context=certificate) as server:
            url = server.url
            assert await trio.to_thread.run_sync(lambda: asyncio.run(talk(url))) == MESSAGES


async def test_what_their_clients_are_told_when_they_are_refused_or_closed() -> None:
    async def handle(ws: ServerWebSocket) -> None:
        if ws.request.path == "/raise":
            raise ValueError

    def refused(url: str) -> int:
        with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
            websockets.sync.client.connect(url, origin=Origin("http://evil.test")).close()
        return caught.value.response.status_code

    def closed(url: str) -> int:
        with websockets.sync.client.connect(url) as ws:
            with pytest.raises(websockets.exceptions.ConnectionClosed) as caught:
                ws.recv()
            assert caught.value.rcvd is not None
            return caught.value.rcvd.code

    with trio.fail_after(PATIENCE):
        async with create_ws_server(handle) as server:
            assert await trio.to_thread.run_sync(refused, server.url) == 403
            assert await trio.to_thread.run_sync(closed, server.url) == 1000
            assert await trio.to_thread.run_sync(closed, f"{server.url}raise") == 1011


# ------------------------------------------------------------------------------------ a browser, by hand

BROWSER = """\
GET /chat?room=1 HTTP/1.1\r
Host: 127.0.0.1:{port}\r
Connection: keep-alive, Upgrade\r
Pragma: no-cache\r
Cache-Control: no-cache\r
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36\r
Upgrade: websocket\r
Origin: {origin}\r
Sec-WebSocket-Version: 13\r
Accept-Encoding: gzip, deflate, br, zstd\r
Accept-Language: en-US,en;q=0.9\r
Cookie: session=secret; theme=dark\r
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r
Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r
Sec-WebSocket-Protocol: v2, v1\r
\r
"""


async def browse(server: Server, origin: str) -> tuple[trio.SocketStream, Answer]:
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    await stream.send_all(BROWSER.format(port=server.port, origin=origin).encode())
    return stream, await read_answer(stream)


async def test_a_page_of_the_server_s_own_host_is_let_in() -> None:
    seen: list[ServerWebSocket] = []

    async def handle(ws: ServerWebSocket) -> None:
        seen.append(ws)
        await echo(ws)

    with trio.fail_after(PATIENCE):
        async with create_ws_server(handle, subprotocols="v1") as server:
            stream, answer = await browse(server, f"http://127.0.0.1:{server.port}")
            assert answer.status == 101
            assert answer.headers["upgrade"].lower() == "websocket"
            assert answer.headers["connection"].lower() == "upgrade"
            assert answer.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
            assert answer.headers["sec-websocket-protocol"] == "v1"
            assert "sec-websocket-extensions" not in answer.headers
            client = Peer(stream)
            await say(client, "hello")
            assert (await client.receive_frame()).payload == b"hello"
            await client.send_frame(8, b"\x03\xe9", masked=True)  # as it does when the page is left
            assert (await client.receive_frame()).payload == b"\x03\xe9"
            assert await stream.receive_some() == b""
            await stream.aclose()
    (ws,) = seen
    assert ws.request.path == "/chat?room=1"
    assert ws.request.query == {"room": ("1",)}
    assert ws.request.subprotocols == ("v2", "v1")
    assert ws.request.header("cookie") == "session=secret; theme=dark"
    assert "secret" not in repr(ws) + repr(ws.request)


async def test_a_page_of_another_host_is_not(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with trio.fail_after(PATIENCE):
        async with create_ws_server(echo) as server:
            stream, answer = await browse(server, "https://evil.test")
            assert answer.status == 403
            await stream.aclose()
            async with create_ws(server.url, headers=[("Origin", "https://evil.test")]) as ws:
                with pytest.raises(ConnectionRejected):
                    await ws.wait_open()
    assert "secret" not in caplog.text


async def test_a_plain_request_is_told_that_this_is_no_web_server() -> None:
    with trio.fail_after(PATIENCE):
        async with create_ws_server(echo) as server:
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            answer = await ask(stream, headers=[("Upgrade", "h2c")])
            assert answer.status == 426
            assert answer.headers["upgrade"].lower() == "websocket"
            assert answer.headers["connection"].lower() == "close"
