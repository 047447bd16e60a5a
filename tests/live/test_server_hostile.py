"""What strangers from the open internet do to a server: each time, another connection goes on undisturbed."""

from __future__ import annotations

import errno
import gc
import logging
import os
import socket
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Unpack

import pytest
import trio

from tests import tls
from tests.listeners import ask, call, handshake, hear_close, read_answer, say
from trio_wsprim import (
    ConnectionClosed,
    Server,
    ServerOptions,
    ServerWebSocket,
    create_ws,
    create_ws_server,
)
from trio_wsprim.testing import Opcode, encode_frame

# What takes this long hangs; an echo takes a millisecond.
PATIENCE: Final = 30
GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)
DESCRIPTORS: Final = Path("/proc/self/fd")

ends: list[BaseException | None] = []


@pytest.fixture(autouse=True)
def _fresh_ends() -> None:
    ends.clear()


async def handle(ws: ServerWebSocket) -> None:
    """Echo; or, for `/flood`, send without end; note how strangers end."""
    try:
        while ws.request.path == "/flood":
            await ws.send(b"x" * 100_000)
        async for message in ws:
            await ws.send(message)
    except Exception as error:
        ends.append(error)
        raise
    ends.append(None)


def count_descriptors() -> int:
    gc.collect()
    return len(os.listdir(DESCRIPTORS)) if DESCRIPTORS.exists() else 0  # noqa: PTH208 - a path each is not wanted


@asynccontextmanager
async def undisturbed(**options: Unpack[ServerOptions]) -> AsyncGenerator[Server]:
    """A server with one good client whose messages come back all the time, before, meanwhile and after."""
    echoes = 0
    has_echoed = trio.Event()

    async def beat() -> None:
        nonlocal echoes, has_echoed
        while True:
            await ws.send(f"{echoes}")
            assert await ws.receive() == f"{echoes}"
            echoes += 1
            has_echoed.set()
            await trio.sleep(0.002)

    async def wait_echoes(count: int) -> None:
        nonlocal has_echoed
        until = echoes + count
        while echoes < until:
            has_echoed = trio.Event()
            await has_echoed.wait()

    secure = options.get("ssl_context") is not None
    before = count_descriptors()
    with trio.fail_after(PATIENCE):
        async with (
            create_ws_server(handle, **options) as server,
            create_ws(server.url, ssl_context=tls.client_context() if secure else None) as ws,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(beat)
            await wait_echoes(1)
            yield server
            await wait_echoes(3)
            assert {each for each in server.connections if each.statistics().messages_received} != set()
            nursery.cancel_scope.cancel()
        await trio.lowlevel.checkpoint()
    assert count_descriptors() == before


async def dial(server: Server) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", server.port)


def reset(stream: trio.SocketStream) -> None:
    """Hang up with an RST."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


async def hear_nothing_more(stream: trio.abc.Stream) -> None:
    """Read until the server hangs up, in whatever way."""
    with suppress(*GONE):
        while await stream.receive_some():
            pass
    await trio.aclose_forcefully(stream)


# ------------------------------------------------------------------------------------ slow ones


async def drip(stream: trio.abc.Stream, data: bytes) -> None:
    with suppress(*GONE):
        for byte in data:
            await stream.send_all(bytes([byte]))
            await trio.sleep(0.02)
    await hear_nothing_more(stream)


async def test_slow_handshakes_are_cut_off() -> None:
    async with undisturbed(handshake_timeout=0.5) as server, trio.open_nursery() as nursery:
        for number in range(60):
            data = (b"", b"GET", handshake())[number % 3]
            nursery.start_soon(drip, await dial(server), data)
    assert ends == [None]


async def test_slow_tls_handshakes_are_cut_off() -> None:
    hello = client_hello()
    async with (
        undisturbed(handshake_timeout=0.5, ssl_context=tls.server_context("127.0.0.1")) as server,
        trio.open_nursery() as nursery,
    ):
        for number in range(60):
            data = (b"", hello[:3], hello)[number % 3]
            nursery.start_soon(drip, await dial(server), data)
    assert ends == [None]


def client_hello() -> bytes:
    from trio_wsprim._tls import TlsSession

    session = TlsSession(tls.client_context(), "127.0.0.1")
    assert not session.shake_hands()
    return bytes(session.cipher)


# ------------------------------------------------------------------------------------ those who vanish

SESSION: Final = b"".join(
    [
        handshake("/stranger", [("User-Agent", "hostile")]),
        encode_frame(Opcode.PING, b"ping", masked=True),
        encode_frame(Opcode.TEXT, b"hello", masked=True),
        encode_frame(Opcode.BINARY, b"in two ", fin=False, masked=True),
        encode_frame(Opcode.CONTINUATION, b"parts", masked=True),
        encode_frame(Opcode.CLOSE, b"\x03\xe8bye", masked=True),
    ]
)


@pytest.mark.parametrize("hang_up", [reset, lambda stream: stream.socket.close()], ids=["RST", "FIN"])
async def test_who_vanishes_at_any_byte_harms_nobody(
    hang_up: Callable[[trio.SocketStream], None], caplog: pytest.LogCaptureFixture
) -> None:
    async with undisturbed() as server:
        for cut in range(len(SESSION) + 1):
            stream = await dial(server)
            await stream.send_all(SESSION[:cut])
            if cut % 3 == 0:
                await trio.lowlevel.checkpoint()
            hang_up(stream)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_who_vanishes_at_any_byte_of_the_tls_handshake_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    hello = client_hello()
    async with undisturbed(ssl_context=tls.server_context("127.0.0.1")) as server:
        for cut in range(0, len(hello) + 1, 3):
            stream = await dial(server)
            await stream.send_all(hello[:cut])
            reset(stream)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_who_resets_in_the_middle_of_an_answer_harms_nobody() -> None:
    async with undisturbed() as server:
        for _ in range(20):
            client = await call(await dial(server), "/flood")
            await client.stream.receive_some(1000)
            client.reset()


# ------------------------------------------------------------------------------------ those who talk nonsense


@pytest.mark.parametrize(
    ("headers", "statuses"),
    [
        ([("Host", "a b")], {400}),
        ([("Host", "a/b")], {400}),
        ([("Host", "user@example.test")], {400}),
        ([("Host", "\xe9xample.test")], {400}),
        ([("Host", "[::1")], {101, 400}),
        ([("Host", ":::")], {101, 400}),
        ([("Host", "")], {101, 400}),
        ([("Host", "one.test"), ("Host", "two.test")], {400}),
        ([("Host", "x" * 300)], {101, 400}),
        ([("X-Name", "Zo\xeb \xff\x80")], {101}),
        ([("Origin", "\xff\xfe")], {403}),
        ([("Origin", "http://[")], {403}),
        ([("Cookie", "x" * 12_000)], {101}),
        ([("Cookie", "x" * 20_000)], {431}),
        ([(f"X-{number}", "y") for number in range(500)], {431}),
        ([("Content-Length", "5")], {400}),
        ([("Content-Length", "-1")], {400}),
        ([("Transfer-Encoding", "chunked")], {400}),
        ([("Sec-WebSocket-Key", "short")], {400}),
        ([("Sec-WebSocket-Version", "8")], {426}),
        ([("Upgrade", "h2c")], {426}),
    ],
    ids=lambda each: repr(each)[:40],
)
async def test_nonsense_in_headers_is_answered(headers: list[tuple[str, str]], statuses: set[int]) -> None:
    async with undisturbed() as server:
        stream = await dial(server)
        assert (await ask(stream, headers=headers)).status in statuses
        await trio.aclose_forcefully(stream)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x00" * 1000,
        b"\xff" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"x" * 100_000,
        b"GET / HTTP/1.1\r\n" + b": x\r\n" * 1000 + b"\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000,
    ],
    ids=lambda each: repr(each)[:30],
)
async def test_what_is_no_handshake_is_turned_away(nonsense: bytes) -> None:
    async with undisturbed(handshake_timeout=0.5) as server:
        stream = await dial(server)
        with suppress(*GONE):
            await stream.send_all(nonsense)
        await hear_nothing_more(stream)
    assert ends == [None]


async def test_a_message_over_the_limit_ends_with_1009() -> None:
    async with undisturbed(max_message_bytes=1000) as server:
        client = await call(await dial(server), "/stranger")
        await say(client, "x" * 1001)
        assert await hear_close(client) == 1009
        client = await call(await dial(server), "/stranger")
        for _ in range(3):
            await client.send_frame(Opcode.CONTINUATION if _ else Opcode.TEXT, b"x" * 400, fin=False, masked=True)
        assert await hear_close(client) == 1009
        client = await call(await dial(server), "/stranger")
        await client.send_raw(b"\x82\xff\x00\x00\x00\x7f\xff\xff\xff\xff" + b"mask" + b"x" * 100)  # half a terabyte
        assert await hear_close(client) == 1009
    assert [error.code for error in ends if isinstance(error, ConnectionClosed)] == [1009] * 3


async def test_text_that_is_none_ends_with_1007() -> None:
    async with undisturbed() as server:
        for payload in (b"\xc3\x28", b"\xff", b"\xed\xa0\x80", b"ok \xf0\x9f"):
            client = await call(await dial(server), "/stranger")
            await client.send_frame(Opcode.TEXT, payload, masked=True)
            assert await hear_close(client) == 1007
        client = await call(await dial(server), "/stranger")
        await client.send_frame(Opcode.TEXT, b"\xc3", fin=False, masked=True)
        await client.send_frame(Opcode.CONTINUATION, b"\x28", masked=True)
        assert await hear_close(client) == 1007
    assert [error.code for error in ends if isinstance(error, ConnectionClosed)] == [1007] * 5


@pytest.mark.parametrize(
    "breach",
    [
        encode_frame(Opcode.TEXT, b"bare"),
        encode_frame(Opcode.TEXT, b"", rsv=4, masked=True),
        encode_frame(3, b"", masked=True),
        encode_frame(11, b"", masked=True),
        encode_frame(Opcode.PING, b"x" * 126, masked=True),
        encode_frame(Opcode.PING, b"", fin=False, masked=True),
        encode_frame(Opcode.CONTINUATION, b"of what", masked=True),
        encode_frame(Opcode.CLOSE, b"\x03", masked=True),
        encode_frame(Opcode.CLOSE, b"\x03\xed", masked=True),
        encode_frame(Opcode.TEXT, b"a", fin=False, masked=True) + encode_frame(Opcode.TEXT, b"b", masked=True),
    ],
    ids=lambda each: each.hex(),
)
async def test_a_breach_of_the_protocol_ends_with_1002(breach: bytes) -> None:
    async with undisturbed() as server:
        client = await call(await dial(server), "/stranger")
        await client.send_raw(breach)
        assert await hear_close(client) == 1002


async def test_a_ping_after_the_close_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with undisturbed() as server:
        client = await call(await dial(server), "/stranger")
        await client.send_frame(Opcode.CLOSE, b"\x03\xe8", masked=True)
        with suppress(*GONE):
            for _ in range(100):
                await client.send_frame(Opcode.PING, b"late", masked=True)
        await hear_nothing_more(client.stream)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_flood_of_pings_is_answered_or_passed_over() -> None:
    async with undisturbed() as server:
        client = await call(await dial(server), "/stranger")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear_nothing_more, client.stream)
            with suppress(*GONE):
                for _ in range(50):
                    await client.send_raw(encode_frame(Opcode.PING, b"x" * 125, masked=True) * 100)
            client.reset()


# ------------------------------------------------------------------------------------ too many, and too few means


async def test_a_flood_of_connections_finds_no_place_and_places_are_there_again_after_it() -> None:
    async with undisturbed(max_connections=5) as server, trio.open_nursery() as nursery:
        statuses: list[int] = []
        done = 0
        all_done = trio.Event()

        async def come() -> None:
            stream = await dial(server)
            with suppress(*GONE, AssertionError):  # hung up on without an answer
                await stream.send_all(handshake("/stranger"))
                statuses.append((await read_answer(stream)).status)
            nonlocal done
            done += 1
            if done == 300:
                all_done.set()
            await all_done.wait()
            reset(stream)

        for _ in range(300):
            nursery.start_soon(come)
        await all_done.wait()
        assert statuses.count(101) == 4
        assert set(statuses) == {101, 503}
        for _ in range(100):
            stream = await dial(server)
            if (await ask(stream, "/stranger")).status == 101:
                break
            await trio.sleep(0.05)
        else:
            raise AssertionError("no place is ever free again")
        reset(stream)


async def test_silent_strangers_by_the_hundred_leave_after_their_time() -> None:
    async with undisturbed(max_connections=5, handshake_timeout=0.5) as server:
        strangers = [await dial(server) for _ in range(250)]
        for stranger in strangers:
            await hear_nothing_more(stranger)


class Exhausted(trio.abc.Listener[trio.SocketStream]):
    """A listener in a process that has no file descriptors left, for some time."""

    def __init__(self, listener: trio.SocketListener, failures: int) -> None:
        self.listener = listener
        self.left = failures

    async def accept(self) -> trio.SocketStream:
        stream = await self.listener.accept()
        if self.left and stream.socket.getpeername()[1] in strangers:
            self.left -= 1
            reset(stream)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return stream

    async def aclose(self) -> None:
        await self.listener.aclose()


strangers: set[int] = set()


async def test_without_file_descriptors_it_waits_and_accepts_again(caplog: pytest.LogCaptureFixture) -> None:
    strangers.clear()
    (tcp,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    listener = Exhausted(tcp, 3)
    port = tcp.socket.getsockname()[1]
    server_url = f"ws://127.0.0.1:{port}/"
    with trio.fail_after(PATIENCE):
        async with create_ws_server(handle, listeners=[listener]), create_ws(server_url) as ws:
            await ws.send("before")
            assert await ws.receive() == "before"
            for _ in range(3):
                raw = trio.socket.socket()
                await raw.bind(("127.0.0.1", 0))
                strangers.add(raw.getsockname()[1])
                with suppress(ConnectionResetError):  # which may come before trio has looked
                    await raw.connect(("127.0.0.1", port))
                await ws.send("meanwhile")
                assert await ws.receive() == "meanwhile"
                raw.close()
            async with create_ws(server_url) as another:
                await another.send("after")
                assert await another.receive() == "after"
    told = [record.getMessage() for record in caplog.records if record.name == "trio_wsprim.server"]
    assert len(told) == 3
    assert all("cannot accept" in each for each in told)
    assert listener.left == 0


# ------------------------------------------------------------------------------------ those who do not read


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_who_never_reads_is_dropped(secure: bool, caplog: pytest.LogCaptureFixture) -> None:
    context = tls.server_context("127.0.0.1") if secure else None
    async with undisturbed(write_timeout=0.5, ssl_context=context) as server:
        streams: list[trio.abc.Stream] = []
        for _ in range(3):
            stream: trio.abc.Stream = await dial(server)
            if secure:
                stream = trio.SSLStream(stream, tls.client_context(), server_hostname="127.0.0.1")
            await call(stream, "/flood")
            streams.append(stream)
        while len(server.connections) > 1:  # noqa: ASYNC110 - they end when they end
            await trio.sleep(0.02)
        for stream in streams:
            await trio.aclose_forcefully(stream)
    lost = [error for error in ends if error is not None]
    assert len(lost) == 3
    for error in lost:
        assert isinstance(error, ConnectionClosed)
        assert error.code == 1006
        assert isinstance(error.__cause__, trio.TooSlowError)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_who_never_reads_does_not_keep_a_server_from_closing() -> None:
    with trio.fail_after(PATIENCE):
        async with create_ws_server(handle) as server:
            clients = [await call(await dial(server), "/flood") for _ in range(3)]
            await server.aclose(grace=0.3)
            assert server.connections == frozenset()
        for client in clients:
            client.reset()


async def test_who_never_reads_misses_broadcasts_and_keeps_none_from_others() -> None:
    async with undisturbed() as server:
        deaf = await call(await dial(server), "/stranger")
        listener = await call(await dial(server), "/stranger")
        got = 0

        async def listen() -> None:
            nonlocal got
            while got < 100:
                got += len((await listener.receive_frame()).payload) // 1_000_000

        (slow,) = (ws for ws in server.connections if ws.request.remote == deaf_address(deaf.stream))
        others = frozenset(ws for ws in server.connections if ws.request.path == "/stranger")
        full: set[ServerWebSocket] = set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            for number in range(100):
                full |= await server.broadcast(b"x" * 1_000_000, to=others)
                while got < number + 1:  # noqa: ASYNC110 - the listener has no other way to tell
                    await trio.sleep(0.001)
        assert full == {slow}
        deaf.reset()
        listener.reset()


def deaf_address(stream: trio.abc.Stream) -> tuple[str, int]:
    assert isinstance(stream, trio.SocketStream)
    host, port = stream.socket.getsockname()
    return host, port
