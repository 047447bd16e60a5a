"""What the adapter rests on in trio-websocket, and how it keeps its faults inside.

The first two tests are about trio-websocket alone: when they fail, the adapter's ground has moved.
"""

from base64 import b64encode
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from hashlib import sha1

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked
from trio_websocket import WebSocketConnection, wrap_client_stream, wrap_server_stream

from trio_wsprim._seam import Upgrade
from trio_wsprim.testing import Opcode, Peer, encode_frame
from trio_wsprim.transports._core import Core

UPGRADE = Upgrade(host="example.test", resource="/")


class Recording(trio.abc.Stream):
    """Passes everything on, notes each write, and hands out what it reads in pieces of one size."""

    def __init__(self, stream: trio.abc.Stream, piece: int) -> None:
        self._stream = stream
        self._piece = piece
        self.writes: list[bytes] = []

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(self._piece))

    async def aclose(self) -> None:
        await self._stream.aclose()


@asynccontextmanager
async def pair(piece: int) -> AsyncGenerator[tuple[WebSocketConnection, WebSocketConnection, Recording]]:
    """A client and a server of trio-websocket, and the stream under the client."""
    near, far = memory_stream_pair()
    stream = Recording(near, piece)
    async with trio.open_nursery() as nursery:
        servers: list[WebSocketConnection] = []

        async def serve() -> None:
            request = await wrap_server_stream(nursery, far)
            servers.append(await request.accept())

        nursery.start_soon(serve)
        client = await wrap_client_stream(nursery, stream, "example.test", "/")  # type: ignore[arg-type]
        await wait_all_tasks_blocked()
        yield client, servers[0], stream
        nursery.cancel_scope.cancel()


def frame_sizes(data: bytes) -> list[int]:
    """Sizes of masked frames shorter than 126 bytes."""
    sizes: list[int] = []
    while data:
        size = 6 + (data[1] & 0x7F)
        sizes.append(size)
        data = data[size:]
    return sizes


async def test_trio_websocket_writes_each_frame_with_one_send_all() -> None:
    async with pair(piece=65536) as (client, server, stream):
        before = len(stream.writes)
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(client.send_message, f"message {number}")
            nursery.start_soon(client.ping, b"ping")
            nursery.start_soon(server.ping, b"from the server")  # answered by a frame of its own
            for _ in range(5):
                await server.get_message()
        await client.aclose(1000, "done")

        writes = stream.writes[before:]

    assert len(writes) == 8
    assert all(frame_sizes(each) == [len(each)] for each in writes)


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 65536])
async def test_trio_websocket_takes_what_it_reads_in_pieces_of_any_size(piece: int) -> None:
    async with pair(piece) as (client, server, _):
        for message in ("text", b"binary", "é" * 100, b""):
            await server.send_message(message)
            assert await client.get_message() == message
        await server.ping(b"answered")


# --- our own use of it ---


def accept_for(request: bytes) -> bytes:
    key = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
    digest = sha1(key.split(b": ")[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
    return (
        b"HTTP/1.1 101 \r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + b64encode(digest) + b"\r\n\r\n"
    )


@asynccontextmanager
async def running(upgrade: Upgrade = UPGRADE) -> AsyncGenerator[tuple[Core, list[bytes]]]:
    """A core, and what it wrote."""
    written: list[bytes] = []
    core = Core(written.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(core.run, upgrade)
        await core.wait_hungry()
        yield core, written
        core.stop()


@asynccontextmanager
async def opened() -> AsyncGenerator[tuple[Core, list[bytes]]]:
    async with running() as (core, written):
        core.feed(accept_for(written.pop()))
        await core.wait_settled()
        assert not core.over
        yield core, written


async def test_a_core_asks_for_what_it_was_told() -> None:
    upgrade = Upgrade(
        host="[::1]:8080", resource="/chat?room=1", headers=(("X-One", "1"),), subprotocols=("first", "second")
    )
    async with running(upgrade) as (_, written):
        assert len(written) == 1
        peer = Peer(memory_stream_pair()[0])
        near, far = memory_stream_pair()
        await near.send_all(written[0])
        peer = Peer(far)
        request = await peer.read_request()
    assert (request.method, request.path) == ("GET", "/chat?room=1")
    assert request.header("host") == "[::1]:8080"
    assert request.header("x-one") == "1"
    assert request.header("sec-websocket-protocol") == "first, second"
    assert request.header("sec-websocket-extensions") is None


async def test_a_request_that_http_cannot_say_ends_the_core_at_once() -> None:
    # A legal label, to which wsproto counts the port as well.
    async with running(Upgrade(host="a" * 63 + ":8080", resource="/")) as (core, written):
        assert core.over
        assert isinstance(core.failure, UnicodeError)
        assert core.verdict == (1002, str(core.failure))
        assert written == []


async def test_a_wrong_answer_ends_the_core_with_the_first_fault() -> None:
    async with running() as (core, written):
        core.feed(accept_for(written[0]).replace(b"Accept: ", b"Accept: x"))
        await core.wait_settled()
        assert core.over
        assert str(core.failure) == "Bad accept token"


async def test_pings_are_answered_and_fragments_put_together() -> None:
    async with opened() as (core, written):
        core.feed(encode_frame(Opcode.PING, b"payload"))
        await core.wait_hungry()
        assert len(written) == 1
        assert written[0][:2] == b"\x8a\x87"

        core.feed(encode_frame(Opcode.TEXT, b"\xc3", fin=False))
        await core.wait_hungry()
        core.feed(encode_frame(Opcode.CONTINUATION, b"\xa9"))
        await core.wait_hungry()
        assert await core.take_message() == "é"
        assert core.verdict is None


async def test_a_core_that_is_fed_in_one_go_is_hungry_when_it_has_dealt_with_all() -> None:
    async with opened() as (core, written):
        for number in range(20):
            core.feed(encode_frame(Opcode.PING, b"%d" % number))
        await core.wait_hungry()
        assert len(written) == 20


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (encode_frame(Opcode.TEXT, b"\xff"), 1007),
        (encode_frame(3, b""), 1002),
        (encode_frame(Opcode.TEXT, b"", rsv=4), 1002),
        (encode_frame(Opcode.CONTINUATION, b"x"), 1002),
    ],
)
async def test_a_breach_is_judged(raw: bytes, code: int) -> None:
    async with opened() as (core, written):
        core.feed(raw)
        await core.wait_hungry()
        assert core.verdict is not None
        assert core.verdict[0] == code
        assert core.verdict[1] != ""
        assert written == []


async def test_nothing_of_a_core_is_left_when_it_is_stopped(autojump_clock: MockClock) -> None:
    with trio.fail_after(1):
        async with opened() as (core, _):
            core.stop()
            core.stop()
            await wait_all_tasks_blocked()
            await core.wait_hungry()
            assert core.over
            assert core.failure is None
            assert core.verdict == (1002, "")


async def cancelled_at_once(work: Callable[[], object]) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await work()  # type: ignore[misc]
    assert scope.cancelled_caught


async def test_waiting_for_a_core_can_be_cancelled() -> None:
    async with opened() as (core, _):
        core.feed(encode_frame(Opcode.PING, b""))
        await cancelled_at_once(core.wait_hungry)
        await core.wait_hungry()
        await cancelled_at_once(core.take_message)


async def test_its_stream_never_makes_it_wait() -> None:
    async with running() as (core, _):
        await core._guard.wait_send_all_might_not_block()
        await core._guard.aclose()
