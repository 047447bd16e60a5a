"""What the adapter rests on in trio-websocket, and how it keeps its faults inside.

The first two tests are about trio-websocket alone: when they fail, the adapter's ground has moved.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked
from trio_websocket import WebSocketConnection, wrap_client_stream, wrap_server_stream

from trio_wsprim._seam import Upgrade
from trio_wsprim.testing import Frame, Opcode, encode_frame
from trio_wsprim.transports._handshake import HandshakeFault
from trio_wsprim.transports._link import Breach
from trio_wsprim.transports._trio_websocket_core import TrioWebsocketCore

from .cores import an_answer, answer_to, cut, read_frames, read_request

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


# --- our own use of it: the handshake ---


@asynccontextmanager
async def asked(upgrade: Upgrade = UPGRADE) -> AsyncGenerator[tuple[TrioWebsocketCore, list[bytes]]]:
    """A core that has asked, and what it wants sent."""
    written: list[bytes] = []
    core = TrioWebsocketCore(written.append)
    async with trio.open_nursery() as nursery:
        await core.ask(nursery, upgrade)
        yield core, written
        core.stop()


@asynccontextmanager
async def opened() -> AsyncGenerator[tuple[TrioWebsocketCore, list[bytes]]]:
    """A core after the handshake."""
    async with asked() as (core, written):
        await core.check(await answer_to(written.pop()))
        yield core, written


async def test_a_core_asks_for_what_it_was_told() -> None:
    upgrade = Upgrade(
        host="[::1]:8080", resource="/chat?room=1", headers=(("X-One", "1"),), subprotocols=("first", "second")
    )
    async with asked(upgrade) as (core, written):
        assert len(written) == 1
        request = await read_request(written[0])
        assert not core.compresses
    assert (request.method, request.path) == ("GET", "/chat?room=1")
    assert request.header("host") == "[::1]:8080"
    assert request.header("x-one") == "1"
    assert request.header("sec-websocket-protocol") == "first, second"
    assert request.header("sec-websocket-extensions") is None


async def test_a_request_that_http_cannot_say_is_a_fault_at_once() -> None:
    written: list[bytes] = []
    core = TrioWebsocketCore(written.append)
    async with trio.open_nursery() as nursery:
        with pytest.raises(HandshakeFault, match="the request cannot be put into HTTP") as caught:
            # A legal label, to which wsproto counts the port as well.
            await core.ask(nursery, Upgrade(host="a" * 63 + ":8080", resource="/"))
    assert isinstance(caught.value.__cause__, UnicodeError)
    assert written == []


@pytest.mark.parametrize("subprotocol", [None, "second"])
async def test_an_answer_tells_the_subprotocol(subprotocol: str | None) -> None:
    async with asked(Upgrade(host="example.test", resource="/", subprotocols=("first", "second"))) as (core, written):
        headers = [] if subprotocol is None else [f"Sec-WebSocket-Protocol: {subprotocol}"]
        await core.check(await answer_to(written[0], *headers))
        assert core.subprotocol == subprotocol
        assert not core.is_compressed
        assert core.encode is None


async def test_a_wrong_key_is_a_fault() -> None:
    async with asked() as (core, written):
        with pytest.raises(HandshakeFault) as caught:
            await core.check(await answer_to(written[0], accept_key="c2VjcmV0"))
        assert str(caught.value) == "the server's 101 is no WebSocket handshake: Bad accept token"
        assert caught.value.__cause__ is core.failure
        assert core.over


async def test_a_fault_is_the_first_and_alone() -> None:
    async with asked() as (core, _):
        with pytest.raises(HandshakeFault) as caught:
            await core.check(an_answer("Upgrade: websocket"))
        assert str(caught.value) == "the server's 101 is no WebSocket handshake: Bad accept token"
        assert not isinstance(caught.value.__cause__, BaseExceptionGroup)


# --- our own use of it: frames ---


async def test_pings_are_answered_and_fragments_put_together() -> None:
    async with opened() as (core, written):
        ping, first, rest = cut(
            encode_frame(Opcode.PING, b"payload"),
            encode_frame(Opcode.TEXT, b"\xc3", fin=False),
            encode_frame(Opcode.CONTINUATION, b"\xa9"),
        )
        assert await core.judge(ping) is None
        assert await read_frames(written) == [Frame(Opcode.PONG, b"payload")]
        assert await core.judge(first) is None
        assert await core.judge(rest) == "é"
        assert len(written) == 1


async def test_whole_messages_are_its_own_too() -> None:
    async with opened() as (core, _):
        for frame, message in zip(
            cut(encode_frame(Opcode.TEXT, b""), encode_frame(Opcode.BINARY, b"x")), ["", b"x"], strict=True
        ):
            assert await core.judge(frame) == message


async def test_a_judgement_that_is_cancelled_can_be_asked_for_again() -> None:
    async with opened() as (core, written):
        messages: list[str | bytes | None] = []
        for frame in cut(
            encode_frame(Opcode.PING, b"once"),
            encode_frame(Opcode.BINARY, b"a", fin=False),
            encode_frame(Opcode.CONTINUATION, b"b"),
        ):
            with trio.CancelScope() as scope:
                scope.cancel()
                await core.judge(frame)
            assert scope.cancelled_caught
            messages.append(await core.judge(frame))
        assert messages == [None, None, b"ab"]
        assert await read_frames(written) == [Frame(Opcode.PONG, b"once")]


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (encode_frame(Opcode.TEXT, b"\xff"), 1007),
        (encode_frame(Opcode.TEXT, b"\xff", fin=False), 1007),
        (encode_frame(3, b""), 1002),
        (encode_frame(Opcode.TEXT, b"", rsv=4), 1002),
        (encode_frame(Opcode.CONTINUATION, b"x"), 1002),
    ],
)
async def test_a_breach_is_judged_and_nothing_said_about_it(raw: bytes, code: int) -> None:
    async with opened() as (core, written):
        (frame,) = cut(raw)
        with pytest.raises(Breach) as caught:
            await core.judge(frame)
        assert caught.value.code == code
        assert caught.value.sentence != ""
        assert written == []


async def test_nothing_of_a_core_is_left_when_it_is_stopped(autojump_clock: MockClock) -> None:
    with trio.fail_after(1):
        async with opened() as (core, written):
            core.stop()
            core.stop()
            await wait_all_tasks_blocked()
            assert core.over
            assert core.failure is None
            (frame,) = cut(encode_frame(Opcode.PING, b""))
            with pytest.raises(Breach) as caught:
                await core.judge(frame)
            assert (caught.value.code, caught.value.sentence) == (1002, "")
            assert written == []


async def test_its_stream_never_makes_it_wait() -> None:
    async with asked() as (core, _):
        await core._guard.wait_send_all_might_not_block()
        await core._guard.aclose()
