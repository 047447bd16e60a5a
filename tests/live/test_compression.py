"""Compressed messages (RFC 7692), over sockets with the server of `websockets` and with one that follows a script."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import trio
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed as ConnectionClosedThere
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

from tests.live.servers import PATIENCE, listening
from trio_wsprim import ConnectionClosed, WebSocket, WebsocketsTransport, create_ws
from trio_wsprim.testing import FaultProxy, Opcode, Peer, encode_frame, peer_over

DEFLATE = WebsocketsTransport(compression="deflate")
TAIL = b"\x00\x00\xff\xff"

Handler = Callable[[ServerConnection], Awaitable[None]]


# ------------------------------------------------------------------------------------ servers


@asynccontextmanager
async def foreign(handler: Handler, **options: Any) -> AsyncGenerator[int]:
    """Run the server of `websockets`, which wants asyncio, in a thread of its own; give the port."""
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            run = partial(run_foreign, handler, options)
            port, stop = await nursery.start(run)
            try:
                yield port
            finally:
                stop()


async def run_foreign(
    handler: Handler, options: dict[str, Any], *, task_status: trio.TaskStatus[tuple[int, Callable[[], object]]]
) -> None:
    token = trio.lowlevel.current_trio_token()

    async def main() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        async with serve(handler, "127.0.0.1", 0, **options) as server:
            port = server.sockets[0].getsockname()[1]
            token.run_sync_soon(task_status.started, (port, lambda: loop.call_soon_threadsafe(stop.set)))
            await stop.wait()

    await trio.to_thread.run_sync(asyncio.run, main())


async def echo(connection: ServerConnection) -> None:
    with suppress(ConnectionClosedThere):
        async for message in connection:
            await connection.send(message)


@asynccontextmanager
async def scripted(script: Callable[[Peer], Awaitable[None]], **options: Any) -> AsyncGenerator[WebSocket]:
    """A socket whose server agrees on compression, and then follows the script until the client is gone."""

    async def serve_one(stream: trio.SocketStream) -> None:
        peer = peer_over(stream)
        await peer.accept(None, [("Sec-WebSocket-Extensions", "permessage-deflate")])
        await script(peer)
        await peer.run_silent()

    async with (
        listening(serve_one) as port,
        create_ws(f"ws://127.0.0.1:{port}/", transport=DEFLATE, close_timeout=0.1, **options) as ws,
    ):
        yield ws


def deflate(*parts: bytes) -> bytes:
    """Compress a message (RFC 7692, 7.2.1)."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    data = b"".join(map(compressor.compress, parts)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return data.removesuffix(TAIL)


async def ended(ws: WebSocket) -> ConnectionClosed:
    """How it ends for who receives."""
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            await ws.receive()
    return caught.value


# ------------------------------------------------------------------------------------ with the server of websockets


MESSAGES: Sequence[str | bytes] = [
    "",
    b"",
    "a",
    b"\x00",
    "€" * 42,
    "all the same " * 50_000,
    random.Random(1).randbytes(500_000),
    bytes(900_000),
    "after",
]


@pytest.mark.parametrize(
    "factory",
    [
        ServerPerMessageDeflateFactory(),
        ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True),
        ServerPerMessageDeflateFactory(server_max_window_bits=9, client_max_window_bits=9),
        ServerPerMessageDeflateFactory(server_max_window_bits=12, client_no_context_takeover=True),
    ],
    ids=["context kept", "no context", "windows of 512", "of each something"],
)
async def test_messages_of_all_kinds_come_back(factory: ServerPerMessageDeflateFactory) -> None:
    agreed: list[str] = []

    async def note_and_echo(connection: ServerConnection) -> None:
        agreed.extend(type(each).__name__ for each in connection.protocol.extensions)
        await echo(connection)

    async with (
        foreign(note_and_echo, compression=None, extensions=[factory]) as port,
        create_ws(f"ws://127.0.0.1:{port}/", transport=DEFLATE) as ws,
    ):
        for message in MESSAGES:
            await ws.send(message)
        assert [await ws.receive() for _ in MESSAGES] == MESSAGES
        await ws.aclose()
        assert (await ws.wait_closed()).clean
    assert agreed == ["PerMessageDeflate"]


async def test_many_messages_at_once_keep_their_order_and_the_context() -> None:
    messages: list[str | bytes] = [f"number {number} of many" for number in range(5000)]
    messages[::3] = [f"{number}".encode() * 40 for number in range(len(messages[::3]))]
    async with (
        foreign(echo) as port,
        create_ws(f"ws://127.0.0.1:{port}/", transport=DEFLATE) as ws,
        trio.open_nursery() as nursery,
    ):

        async def send() -> None:
            for message in messages:
                await ws.send(message)
            await ws.flush(confirm=True)

        nursery.start_soon(send)
        assert [await ws.receive() for _ in messages] == messages


async def test_pings_of_both_sides_go_between_compressed_messages() -> None:
    async def ping_and_echo(connection: ServerConnection) -> None:
        for number in range(100):
            await (await connection.ping(str(number)))
            await connection.send(f"ping {number} was answered")
        await echo(connection)

    async with foreign(ping_and_echo) as port, create_ws(f"ws://127.0.0.1:{port}/", transport=DEFLATE) as ws:
        for number in range(100):
            assert await ws.receive() == f"ping {number} was answered"
            assert await ws.ping() > 0
        await ws.send("x")
        assert await ws.receive() == "x"


async def test_messages_in_fragments_come_in_empty_ones_too() -> None:
    async def say(connection: ServerConnection) -> None:
        for parts in (["", ""], [""], ["a", "", "b" * 5000], [b"", b"x"], [b"", b""]):
            await connection.send(parts)
        await connection.wait_closed()

    async with foreign(say) as port, create_ws(f"ws://127.0.0.1:{port}/", transport=DEFLATE) as ws:
        assert [await ws.receive() for _ in range(5)] == ["", "", "a" + "b" * 5000, b"x", b""]


async def test_compression_saves_bytes_both_ways_and_the_more_the_context_is_kept() -> None:
    message = "".join(random.Random(1).choices("0123456789abcdef", k=2000))
    assert await bytes_of_an_echo(message, WebsocketsTransport()) > 2 * 20 * 2000
    without = await bytes_of_an_echo(message, DEFLATE, no_context=True)
    kept = await bytes_of_an_echo(message, DEFLATE)
    assert without < 0.7 * 2 * 20 * 2000
    assert kept < without / 5


async def bytes_of_an_echo(message: str, transport: WebsocketsTransport, *, no_context: bool = False) -> int:
    """How much goes over the network for twenty echoes of the message."""
    factory = ServerPerMessageDeflateFactory(
        server_no_context_takeover=no_context, client_no_context_takeover=no_context
    )
    async with (
        foreign(echo, compression=None, extensions=[factory]) as port,
        FaultProxy("127.0.0.1", port) as proxy,
    ):
        async with create_ws(f"ws://127.0.0.1:{proxy.port}/", transport=transport) as ws:
            for _ in range(20):
                await ws.send(message)
                assert await ws.receive() == message
        statistics = proxy.statistics()
    return statistics.bytes_to_target + statistics.bytes_to_clients


async def test_a_server_that_wants_none_is_talked_to_all_the_same() -> None:
    async with foreign(echo, compression=None) as port, create_ws(f"ws://127.0.0.1:{port}/", transport=DEFLATE) as ws:
        for message in MESSAGES:
            await ws.send(message)
        assert [await ws.receive() for _ in MESSAGES] == MESSAGES


async def test_a_server_that_wants_some_is_talked_to_all_the_same() -> None:
    async with foreign(echo) as port, create_ws(f"ws://127.0.0.1:{port}/", transport=WebsocketsTransport()) as ws:
        for message in MESSAGES:
            await ws.send(message)
        assert [await ws.receive() for _ in MESSAGES] == MESSAGES


async def test_setup_speaks_compressed_too() -> None:
    async def set_up(session: Any) -> None:
        for message in ("login", b"\x00" * 1000):
            await session.send(message)
            assert await session.receive() == message

    async with (
        foreign(echo) as port,
        create_ws(f"ws://127.0.0.1:{port}/", transport=DEFLATE, setup=set_up) as ws,
    ):
        await ws.send("after")
        assert await ws.receive() == "after"


async def test_what_the_peer_finds_too_big_is_its_1009() -> None:
    async with (
        foreign(echo, max_size=1000) as port,
        create_ws(f"ws://127.0.0.1:{port}/", transport=DEFLATE) as ws,
    ):
        await ws.send(bytes(1001))
        error = await ended(ws)
    assert error.code == 1009


async def test_a_message_larger_than_allowed_when_it_is_whole_again_is_a_1009() -> None:
    async def say(connection: ServerConnection) -> None:
        await connection.send(bytes(1000))
        await connection.send(bytes(1001))
        await connection.wait_closed()
        codes.append(connection.close_code)

    codes: list[int | None] = []
    async with (
        foreign(say) as port,
        create_ws(f"ws://127.0.0.1:{port}/", transport=DEFLATE, max_message_bytes=1000) as ws,
    ):
        assert await ws.receive() == bytes(1000)
        assert (await ended(ws)).code == 1009
    assert codes == [1009]


async def test_a_message_of_just_the_limit_comes_in_however_little_it_can_be_compressed() -> None:
    message = random.Random(1).randbytes(1000)

    async def say(connection: ServerConnection) -> None:
        await connection.send(message)
        await connection.wait_closed()

    async with (
        foreign(say) as port,
        create_ws(f"ws://127.0.0.1:{port}/", transport=DEFLATE, max_message_bytes=1000) as ws,
    ):
        assert await ws.receive() == message


# ------------------------------------------------------------------------------------ with one that breaks rules


@pytest.mark.parametrize("fragments", [False, True])
async def test_a_hundred_megabytes_of_zeros_are_refused_before_they_are_there(fragments: bool) -> None:
    bomb = deflate(*[bytes(2**20)] * 100)
    assert len(bomb) < 110_000

    async def explode(peer: Peer) -> None:
        await peer.send_frame(Opcode.BINARY, deflate(b"good"), rsv=4)
        if fragments:
            half = len(bomb) // 2
            await peer.send_frame(Opcode.BINARY, bomb[:half], rsv=4, fin=False)
            await peer.send_frame(Opcode.CONTINUATION, bomb[half:])
        else:
            await peer.send_frame(Opcode.BINARY, bomb, rsv=4)

    async with scripted(explode, max_message_bytes=2**20) as ws:
        assert await ws.receive() == b"good"
        tracemalloc.start()
        try:
            error = await ended(ws)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert error.code == 1009
    assert most < 4 * 2**20


SECRET = b"known to one side alone"
AHEAD = zlib.compressobj(wbits=-zlib.MAX_WBITS, zdict=SECRET)
CORRUPT = {
    "no block of that type": b"\xff\xff\xff",
    "a distance too far back": AHEAD.compress(SECRET) + AHEAD.flush(zlib.Z_SYNC_FLUSH),
    "stored, and the length wrong": b"\x00\x01\x00\x00\x00",
    "noise": random.Random(4).randbytes(3000),
}


@pytest.mark.parametrize("payload", CORRUPT.values(), ids=CORRUPT.keys())
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
async def test_what_is_no_deflate_is_a_breach(payload: bytes, opcode: Opcode) -> None:
    async def say(peer: Peer) -> None:
        await peer.send_frame(Opcode.TEXT, b"good")
        await peer.send_frame(opcode, payload, rsv=4)

    async with scripted(say) as ws:
        assert await ws.receive() == "good"
        error = await ended(ws)
    assert type(error) is ConnectionClosed
    assert error.code in {1002, 1007}
    assert error.reason


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (encode_frame(Opcode.TEXT, deflate(b"\xff"), rsv=4), 1007),
        (encode_frame(Opcode.TEXT, b"", rsv=6), 1002),
        (encode_frame(Opcode.PING, b"", rsv=4), 1002),
        (encode_frame(Opcode.TEXT, b"", rsv=4, fin=False) + encode_frame(Opcode.CONTINUATION, b"", rsv=4), 1002),
        (encode_frame(Opcode.TEXT, b"", rsv=4, fin=False) + encode_frame(Opcode.TEXT, b"", rsv=4), 1002),
    ],
    ids=["UTF-8", "RSV2 too", "a ping", "a later fragment", "a message in another"],
)
async def test_what_may_not_be_compressed_so_is_a_breach(data: bytes, code: int) -> None:
    async with scripted(lambda peer: peer.send_raw(data)) as ws:
        assert (await ended(ws)).code == code


async def test_fragments_are_put_together_around_control_frames() -> None:
    message = "€ and more of it " * 300
    payload = deflate(message.encode())

    async def say(peer: Peer) -> None:
        for _ in range(2):
            at = [0, 1, 2, 2, 50, len(payload)]
            for number, (start, stop) in enumerate(pairwise(at)):
                await peer.send_frame(
                    Opcode.CONTINUATION if number else Opcode.TEXT,
                    payload[start:stop],
                    fin=False,
                    rsv=0 if number else 4,
                )
                await peer.ping(b"%d" % number)
            await peer.send_frame(Opcode.CONTINUATION, b"")
            await peer.send("plain")

    async with scripted(say) as ws:
        assert [await ws.receive() for _ in range(2)] == [message, "plain"]
        await ws.aclose()


async def test_what_is_sent_and_pinged_goes_out_in_order() -> None:
    seen: list[tuple[int, int]] = []
    inflated: list[bytes] = []
    is_over = trio.Event()

    async def listen(peer: Peer) -> None:
        inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        while b"last" not in inflated:
            frame = await peer.receive_frame()
            seen.append((frame.opcode, frame.rsv))
            if frame.opcode == Opcode.PING:
                await peer.pong(frame.payload)
            else:
                inflated.append(inflater.decompress(frame.payload + TAIL))
        is_over.set()

    async with scripted(listen) as ws:
        for number in range(2):
            await ws.send(f"text {number}")
            await ws.send(b"binary %d" % number)
            await ws.flush()
            await ws.ping()
        await ws.send(b"last")
        await is_over.wait()
        await ws.aclose()
    assert seen == [(1, 4), (2, 4), (9, 0), (1, 4), (2, 4), (9, 0), (2, 4)]
    assert inflated == [b"text 0", b"binary 0", b"text 1", b"binary 1", b"last"]


async def test_what_comes_after_a_final_block_comes_in_too() -> None:
    messages = ("the first", "the second", "the third")

    async def say(peer: Peer) -> None:
        for message in messages:
            compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
            payload = compressor.compress(message.encode()) + compressor.flush(zlib.Z_FINISH) + b"\x00"
            await peer.send_frame(Opcode.TEXT, payload, rsv=4)

    async with scripted(say) as ws:
        assert [await ws.receive() for _ in messages] == list(messages)
