"""Direct links over real sockets: who sends and reads for himself, what that must not lose, whom it must not starve.

No test here measures time. Where time matters it is virtual, and the peer is a bare socket that the test itself
writes to and reads from: loopback delivers at once, so a few turns of the scheduler are all there is to wait for.
"""

from __future__ import annotations

import os
import random
import socket
import ssl
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count, pairwise
from typing import Literal, Unpack

import pytest
import trio
import trustme
from trio.testing import MockClock

from tests.live.servers import GONE, listening, over_tls
from tests.sockets import opened
from trio_wsprim import (
    Buffer,
    ConnectionClosed,
    HeartbeatTimeout,
    Options,
    ReadyState,
    ReconnectingWebSocket,
    WebSocket,
    create_reconnecting_ws,
    create_ws,
    make_heartbeat_ws,
)
from trio_wsprim._values import Message
from trio_wsprim.testing import MemoryNetwork, Opcode, Peer, PeerClosed, encode_frame, peer_over

# More than enough turns for a byte to come from the kernel to whoever waits for it.
TURNS = 12
# In which our task leaves the reading to a user; twice that at most.
GRACE = 0.02
CALLS_PER_TURN = 64

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture(scope="module")
def tls() -> Contexts:
    """The server's context and the client's."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


SECURE = pytest.mark.parametrize("is_secure", [False, True], ids=["tcp", "tls"])


@dataclass
class Ends:
    """Both ends of one connection; the peer's is bare."""

    ws: WebSocket
    peer: Peer
    raw: socket.socket

    def come_in(self, *frames: bytes) -> None:
        """Have the kernel deliver these now, in one piece."""
        data = b"".join(frames)
        assert self.raw.send(data, socket.MSG_DONTWAIT) == len(data)

    def waiting(self) -> bytes:
        """Look at what the kernel has for the peer, and leave it there."""
        return self._read(socket.MSG_PEEK)

    def take(self) -> list[tuple[int, bytes]]:
        """Take what the kernel has for the peer: small frames, as opcode and payload."""
        data, frames = self._read(0), list[tuple[int, bytes]]()
        while data:
            size, mask = data[1] & 0x7F, data[2:6]
            payload = bytes(byte ^ mask[place % 4] for place, byte in enumerate(data[6 : 6 + size]))
            frames.append((data[0] & 0x0F, payload))
            data = data[6 + size :]
        return frames

    def _read(self, flags: int) -> bytes:
        try:
            return self.raw.recv(65536, flags | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""


@asynccontextmanager
async def connected(contexts: Contexts | None = None, **options: Unpack[Options]) -> AsyncGenerator[Ends]:
    """Open a socket over loopback to a server that does nothing after its handshake."""
    sender, receiver = trio.open_memory_channel[tuple[Peer, socket.socket]](1)

    async def serve(stream: trio.SocketStream) -> None:
        peer = peer_over(over_tls(stream, contexts and contexts[0]))
        await peer.accept()
        await sender.send((peer, socket.socket(fileno=os.dup(stream.socket.fileno()))))
        await trio.sleep_forever()

    options.setdefault("close_timeout", 0.0)  # nobody would answer
    if contexts is not None:
        options["ssl_context"] = contexts[1]
    scheme = "ws" if contexts is None else "wss"
    async with listening(serve) as port, create_ws(f"{scheme}://127.0.0.1:{port}/", **options) as ws:
        await ws.wait_open()
        peer, raw = await receiver.receive()
        with raw:
            await turns()
            yield Ends(ws, peer, raw)
        await ws.aclose()


async def turns(number: int = TURNS) -> None:
    for _ in range(number):
        await trio.lowlevel.checkpoint()


def text(message: str) -> bytes:
    return encode_frame(Opcode.TEXT, message.encode())


async def read_alone(ends: Ends) -> None:
    """Make the user one who reads for himself: he has been woken once, and is between two calls."""
    ends.come_in(text("first"))
    assert await ends.ws.receive() == "first"


# ------------------------------------------------------------------------------------ sending for oneself


@SECURE
@pytest.mark.parametrize("tracks", [False, True])
async def test_a_lone_message_is_the_kernel_s_when_send_returns_and_no_other_task_has_run(
    tracks: bool, is_secure: bool, tls: Contexts, mock_clock: MockClock
) -> None:
    seen = 0

    async def watch() -> None:
        nonlocal seen
        while True:
            seen += 1
            await trio.lowlevel.checkpoint()

    async with connected(tls if is_secure else None, track=tracks) as ends, trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await turns()
        before, tasks = seen, trio.lowlevel.current_statistics().tasks_living
        assert ends.waiting() == b""

        await ends.ws.send("hello")

        assert seen == before
        assert ends.waiting()
        assert ends.ws.statistics().messages_sent == 1
        assert ends.ws.statistics().messages_buffered == 0
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        if not is_secure:
            assert ends.take()[0] == (Opcode.TEXT, b"hello")
        nursery.cancel_scope.cancel()


async def test_a_ping_is_the_kernel_s_before_its_task_waits_and_a_heartbeat_when_it_is_due(
    mock_clock: MockClock,
) -> None:
    async with connected() as ends, trio.open_nursery() as nursery:
        make_heartbeat_ws(ends.ws, message="beat", interval=1, wait=1)
        nursery.start_soon(ends.ws.ping)
        await turns(3)  # its own start, and its look whether the connection is open
        [(opcode, _)] = ends.take()
        assert opcode == Opcode.PING

        mock_clock.jump(1)
        await turns(4)  # that of the clock
        assert ends.take() == [(Opcode.TEXT, b"beat")]
        nursery.cancel_scope.cancel()


@SECURE
async def test_what_the_kernel_takes_in_part_follows_and_what_is_behind_it_keeps_its_place(
    is_secure: bool, tls: Contexts
) -> None:
    large = bytes(range(256)) * 4 * 8192
    async with connected(tls if is_secure else None, outbox=Buffer(None, None)) as ends:
        await ends.ws.send(large)
        await ends.ws.send("next")
        assert ends.waiting()
        assert ends.ws.statistics().messages_sent == 0
        assert ends.ws.statistics().bytes_buffered == len(large) + 4

        assert await ends.peer.receive() == large
        assert await ends.peer.receive() == "next"

        assert ends.ws.statistics().messages_sent == 2


async def test_what_is_sent_right_after_a_reconnect_is_for_the_next_connection() -> None:
    received: list[list[Message]] = []

    async def serve(stream: trio.SocketStream) -> None:
        received.append([])
        mine, peer = received[-1], peer_over(stream)
        await peer.accept()
        while True:
            mine.append(await peer.receive())

    async with listening(serve) as port, create_reconnecting_ws(f"ws://127.0.0.1:{port}/", delay=0) as ws:
        for number in range(5):
            await ws.wait_open()
            await turns()
            ws.reconnect()
            await ws.send(f"{number}")
            await ws.state.wait_value(lambda state: state is not ReadyState.OPEN)
            await ws.wait_open()
            await ws.flush(confirm=True)

    assert received == [[], ["0"], ["1"], ["2"], ["3"], ["4"]]


# ------------------------------------------------------------------------------------ reading for oneself


async def test_what_comes_together_is_received_in_order_whoever_reads(mock_clock: MockClock) -> None:
    async with connected() as ends:
        await read_alone(ends)
        for number in range(0, 30, 3):
            ends.come_in(*(text(str(number + each)) for each in range(3)))
            if number % 2:
                mock_clock.jump(2 * GRACE)  # he has been away for so long that our task has taken over
                await turns()
            for each in range(3):
                assert await ends.ws.receive() == str(number + each)


async def test_the_peer_s_ping_is_answered_within_two_graces_while_the_user_is_away(mock_clock: MockClock) -> None:
    async with connected() as ends:
        await read_alone(ends)
        ends.come_in(encode_frame(Opcode.PING, b"?"))
        for _ in range(2):
            mock_clock.jump(GRACE)
            await turns()

        assert ends.take() == [(Opcode.PONG, b"?")]


async def test_a_ping_is_timed_without_the_grace_while_the_user_is_away(mock_clock: MockClock) -> None:
    async with connected() as ends, trio.open_nursery() as nursery:
        for _ in range(10):
            await read_alone(ends)
            nursery.start_soon(ends.ws.ping)
            await turns()
            [(_, payload)] = ends.take()
            mock_clock.jump(0.001)
            ends.come_in(encode_frame(Opcode.PONG, payload))
            await turns()

            assert not nursery.child_tasks
            assert ends.ws.latency == pytest.approx(0.001)


async def test_a_heartbeat_quicker_than_the_grace_finds_a_live_peer_alive_while_the_user_is_away(
    mock_clock: MockClock,
) -> None:
    async with connected() as ends:
        await read_alone(ends)
        make_heartbeat_ws(ends.ws, message=None, interval=0.004, wait=0.002)
        for _ in range(30):
            mock_clock.jump(0.004)
            await turns()
            [(opcode, payload)] = ends.take()
            assert opcode == Opcode.PING
            mock_clock.jump(0.001)
            ends.come_in(encode_frame(Opcode.PONG, payload), text("first"))
            await turns()
            mock_clock.jump(0.0015)
            await turns()
            assert ends.ws.state.value is ReadyState.OPEN
            assert await ends.ws.receive() == "first"


async def test_a_heartbeat_quicker_than_the_grace_finds_a_dead_peer_dead_while_the_user_is_away(
    mock_clock: MockClock,
) -> None:
    async with connected() as ends:
        await read_alone(ends)
        make_heartbeat_ws(ends.ws, message=None, interval=0.004, wait=0.002)
        for _ in range(4):
            mock_clock.jump(0.002)
            await turns()

        with pytest.raises(HeartbeatTimeout):
            await ends.ws.receive()


async def receive(ws: WebSocket) -> list[str | bytes]:
    return [await ws.receive()]


async def receive_many(ws: WebSocket) -> list[str | bytes]:
    return await ws.receive_many()


async def receive_next(ws: WebSocket) -> list[str | bytes]:
    return [await anext(ws)]


CALLS = pytest.mark.parametrize("call", [receive, receive_many, receive_next])
Receive = Callable[[WebSocket], Awaitable[list[str | bytes]]]


@CALLS
@pytest.mark.parametrize("where", ["in the inbox", "in the kernel", "nowhere"])
async def test_a_call_in_a_cancelled_scope_is_cancelled_at_once_and_loses_nothing(
    where: str, call: Receive, mock_clock: MockClock
) -> None:
    async with connected() as ends:
        await read_alone(ends)
        expected: list[str | bytes] = []
        if where == "in the inbox":
            ends.come_in(text("head"), *map(text, "abc"))
            assert await ends.ws.receive() == "head"
            expected = ["a", "b", "c"]

        for number in range(2 * CALLS_PER_TURN):
            if where == "in the kernel" and number % 50 == 0:
                ends.come_in(text(str(number)))
                expected.append(str(number))
            with trio.CancelScope() as scope:
                scope.cancel()
                await call(ends.ws)
            assert scope.cancelled_caught

        if where == "nowhere":
            ends.come_in(text("a"))
            expected = ["a"]
        got: list[str | bytes] = []
        while len(got) < len(expected):
            got += await call(ends.ws)
        assert got == expected


async def test_a_send_in_a_cancelled_scope_is_cancelled_at_once_and_sends_nothing(mock_clock: MockClock) -> None:
    async with connected() as ends:
        for _ in range(2 * CALLS_PER_TURN):
            with trio.CancelScope() as scope:
                scope.cancel()
                await ends.ws.send("never")
            assert scope.cancelled_caught

        await turns()
        assert ends.take() == []
        assert ends.ws.statistics().messages_sent == 0


# ------------------------------------------------------------------------------------ the end


async def receive_until_the_end(ws: WebSocket, ends: list[BaseException]) -> None:
    try:
        while True:
            await ws.receive()
    except (trio.EndOfChannel, trio.ClosedResourceError, ConnectionClosed) as error:
        ends.append(error)


@SECURE
@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("closes", "EndOfChannel()"),
        ("kicks", "ConnectionClosed: code 4000"),
        ("drops", "ConnectionClosed: code 1006"),
        ("resets", "ConnectionClosed: code 1006"),
        ("we", "ClosedResourceError"),
        ("we leave", "ClosedResourceError"),
    ],
)
async def test_who_reads_for_himself_finds_the_end_as_anybody_would(
    how: str, expected: str, is_secure: bool, tls: Contexts
) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        peer = peer_over(over_tls(stream, tls[0] if is_secure else None))
        await peer.accept()
        for _ in range(2):
            await peer.send("a")
            await peer.receive()
        match how:
            case "closes":
                await peer.send_close(1000)
            case "kicks":
                await peer.send_close(4000, "kicked")
            case "drops":
                peer.drop()
            case "resets":
                peer.reset()
            case _:
                pass
        while True:
            await peer.receive()

    raised: list[BaseException] = []
    with suppress(ConnectionClosed):
        async with (
            listening(serve) as port,
            create_ws(
                f"{'wss' if is_secure else 'ws'}://127.0.0.1:{port}/", ssl_context=tls[1] if is_secure else None
            ) as ws,
            trio.open_nursery() as nursery,
        ):
            for _ in range(2):
                await ws.receive()
                await ws.send("go on")
            nursery.start_soon(receive_until_the_end, ws, raised)
            await turns()
            if how == "we":
                await ws.aclose()
            elif how == "we leave":
                nursery.cancel_scope.cancel()
                raised.append(trio.ClosedResourceError())
    [error] = raised
    assert type(error).__name__ == expected.split("(")[0].split(":")[0]
    if isinstance(error, ConnectionClosed):
        assert f"code {error.code}" == expected.split(": ")[1]


async def test_a_close_that_crosses_the_peer_s_is_clean_also_while_a_user_reads() -> None:
    endings: Counter[tuple[int, bool]] = Counter()

    for passes in [*range(6)] * 8:  # trio draws lots who of several comes first
        async with connected(close_timeout=5) as ends, trio.open_nursery() as nursery:
            await read_alone(ends)
            nursery.start_soon(receive_until_the_end, ends.ws, list[BaseException]())
            nursery.start_soon(close_after, ends, passes)
            await turns(1)
            await ends.ws.aclose()
            event = await ends.ws.wait_closed()
            endings[event.code, event.clean] += 1

    assert endings == {(1000, True): 48}


async def close_after(ends: Ends, passes: int) -> None:
    """Say goodbye after so many turns, and hang up when the other side has said it too."""
    await turns(passes)
    ends.come_in(encode_frame(Opcode.CLOSE, (1000).to_bytes(2)))
    while not ends.waiting():
        await trio.lowlevel.checkpoint()
    await turns()
    ends.raw.shutdown(socket.SHUT_WR)


def begins_with(start: str, message: Message | None) -> bool:
    return str(message).startswith(start)


async def test_who_reads_for_himself_reads_on_after_a_reconnect() -> None:
    connections, received = count(), list[tuple[int, int]]()

    async def serve(stream: trio.SocketStream) -> None:
        peer, connection = peer_over(stream), next(connections)
        await peer.accept()
        for number in count():
            await peer.send(f"{connection} {number}")
            await turns(number % 3)

    async def read(ws: WebSocket) -> None:
        async for message in ws:
            connection, number = str(message).split()
            received.append((int(connection), int(number)))

    async with (
        listening(serve) as port,
        create_reconnecting_ws(f"ws://127.0.0.1:{port}/", delay=0) as ws,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(read, ws)
        for number in range(30):
            await ws.message.wait_value(partial(begins_with, f"{number} "))
            await turns(number)
            ws.reconnect()
        nursery.cancel_scope.cancel()

    assert received == sorted(received)
    assert {connection for connection, _ in received} == set(range(30))
    for (connection, number), (later, next_number) in pairwise(received):
        assert next_number == (number + 1 if later == connection else 0)


async def test_right_after_a_direct_socket_has_been_left_no_task_is_there() -> None:
    before = trio.lowlevel.current_statistics().tasks_living

    async def serve(stream: trio.SocketStream) -> None:
        peer = peer_over(stream)
        await peer.accept()
        await peer.serve_echo()

    async with listening(serve) as port:
        inside = trio.lowlevel.current_statistics().tasks_living
        async with create_ws(f"ws://127.0.0.1:{port}/") as ws:
            make_heartbeat_ws(ws, interval=100, wait=100)
            for _ in range(3):
                await ws.send("a", ttl=1000)
                await ws.receive()
        await turns()  # in which the server's side of it ends
        assert trio.lowlevel.current_statistics().tasks_living == inside

    assert trio.lowlevel.current_statistics().tasks_living == before


# ------------------------------------------------------------------------------------ nothing lost, nothing twice

MESSAGES = 20_000


@dataclass
class Storm:
    """Sends and receives that are cancelled at random, and what became of them."""

    seed: int
    sent: list[str] = field(default_factory=list)
    received: list[str | bytes] = field(default_factory=list)
    arrived: list[Message] = field(default_factory=list)

    def patience(self, chance: random.Random) -> trio.CancelScope:
        return trio.move_on_after(chance.choice([0.1, 1e-3, 1e-4, 1e-5, 0]))

    async def send(self, ws: WebSocket) -> None:
        chance = random.Random(self.seed)
        for number in range(MESSAGES):
            with trio.CancelScope() as scope:
                if chance.random() < 0.05:
                    scope.cancel()
                elif chance.random() < 0.05:
                    scope.deadline = trio.current_time() + chance.random() * 1e-4
                await ws.send(str(number))
                self.sent.append(str(number))
            if chance.random() < 0.02:
                await trio.lowlevel.checkpoint()
        await ws.send("end")

    async def receive(self, ws: WebSocket) -> None:
        chance = random.Random(-self.seed)
        calls = [receive, receive, receive_many, receive_next]
        while len(self.received) < MESSAGES:
            with self.patience(chance):
                self.received += await chance.choice(calls)(ws)
            if chance.random() < 0.0005:
                await trio.sleep(2 * GRACE)  # until our task has taken over

    async def serve(self, stream: trio.abc.Stream) -> None:
        peer = peer_over(stream)
        await peer.accept()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.flood, peer)
            with suppress(PeerClosed):
                while True:
                    self.arrived.append(await peer.receive())

    async def flood(self, peer: Peer) -> None:
        """Send everything in pieces that respect no frame."""
        chance = random.Random(self.seed + 1)
        data = b"".join(text(str(number)) for number in range(MESSAGES))
        while data:
            size = chance.choice([1, 7, 50, 300, 5000])
            await peer.send_raw(data[:size])
            data = data[size:]
            if chance.random() < 0.3:
                await turns(chance.randint(1, 5))


@SECURE
@pytest.mark.parametrize("receivers", [1, 3])
async def test_of_messages_whose_sends_and_receives_are_cancelled_at_random_none_is_lost_and_none_comes_twice(
    receivers: int, is_secure: bool, tls: Contexts
) -> None:
    storm = Storm(seed=receivers)

    async def serve(stream: trio.SocketStream) -> None:
        await storm.serve(over_tls(stream, tls[0] if is_secure else None))

    async with (
        listening(serve) as port,
        create_ws(
            f"{'wss' if is_secure else 'ws'}://127.0.0.1:{port}/", ssl_context=tls[1] if is_secure else None
        ) as ws,
    ):
        async with trio.open_nursery() as nursery:
            for _ in range(receivers):
                nursery.start_soon(storm.receive, ws)
            await storm.send(ws)
        await ws.aclose()
        assert (await ws.wait_closed()).clean

    assert storm.received == [str(number) for number in range(MESSAGES)]
    assert storm.arrived == [*storm.sent, "end"]
    numbers = ws.statistics()
    assert (numbers.messages_sent, numbers.messages_received) == (len(storm.arrived), MESSAGES)


@SECURE
async def test_statistics_are_exact_over_batches_of_every_kind(is_secure: bool, tls: Contexts) -> None:
    chance = random.Random(5)
    kinds: list[Message] = ["a" * 10, "é" * 10, "€😀", "", b"", b"\xff" * 7, "x" * 200, b"y" * 5000]
    messages = [chance.choice(kinds) for _ in range(3000)]
    size = sum(len(message.encode() if isinstance(message, str) else message) for message in messages)

    async with connected(tls if is_secure else None, inbox=Buffer(None, None), outbox=Buffer(None, None)) as ends:

        async def answer() -> None:
            for message in messages:
                await ends.peer.send(message)
                assert await ends.peer.receive() == message

        got: list[Message] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            for message in messages:
                await ends.ws.send(message)
            while len(got) < len(messages):
                got += await ends.ws.receive_many(chance.choice([None, 1, 7]))
        reading = ends.ws.statistics()

    assert got == messages
    assert (reading.messages_sent, reading.bytes_sent) == (len(messages), size)
    assert (reading.messages_received, reading.bytes_received) == (len(messages), size)
    assert (reading.messages_buffered, reading.bytes_buffered, reading.messages_dropped) == (0, 0, 0)


@SECURE
async def test_large_messages_whose_receives_are_cancelled_at_random_come_whole_and_in_order(
    is_secure: bool, tls: Contexts
) -> None:
    chance = random.Random(6)
    messages = [chance.randbytes(chance.choice([0, 10, 40_000, 100_000, 300_000])) for _ in range(60)]
    received: list[str | bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        peer = peer_over(over_tls(stream, tls[0] if is_secure else None))
        await peer.accept()
        data = memoryview(b"".join(encode_frame(Opcode.BINARY, message) for message in messages))
        while data:
            size = chance.choice([1, 5000, 70_000])
            await peer.send_raw(bytes(data[:size]))
            data = data[size:]
            await turns(chance.randint(0, 2))
        await peer.receive()

    async with (
        listening(serve) as port,
        create_ws(
            f"{'wss' if is_secure else 'ws'}://127.0.0.1:{port}/", ssl_context=tls[1] if is_secure else None
        ) as ws,
    ):
        while len(received) < len(messages):
            with trio.move_on_after(chance.choice([0.1, 1e-3, 1e-5, 0])):
                received.append(await ws.receive())

    assert received == messages


@SECURE
async def test_what_is_being_written_goes_out_whole_though_a_user_who_reads_is_told_of_our_close_at_once(
    is_secure: bool, tls: Contexts
) -> None:
    large = [bytes([number]) * 3_000_000 for number in range(4)]
    raised: list[BaseException] = []
    async with (
        connected(tls if is_secure else None, outbox=Buffer(None, None), close_timeout=8) as ends,
        trio.open_nursery() as nursery,
    ):
        await ends.peer.send("first")
        assert await ends.ws.receive() == "first"
        nursery.start_soon(receive_until_the_end, ends.ws, raised)
        for message in large:
            await ends.ws.send(message)
        await turns()

        nursery.start_soon(ends.ws.aclose)
        await turns()
        assert [type(error) for error in raised] == [trio.ClosedResourceError]
        assert ends.ws.state.value is ReadyState.CLOSING
        for message in large:
            assert await ends.peer.receive() == message
        with pytest.raises(PeerClosed):
            await ends.peer.receive()

        assert (await ends.ws.wait_closed()).clean
    assert ends.ws.undelivered == ()


RESEND = pytest.mark.parametrize("resend", ["unsent", "unconfirmed"])


@SECURE
@RESEND
async def test_over_connections_that_break_and_are_replaced_at_random_order_is_kept_and_promises_too(
    resend: Literal["unsent", "unconfirmed"], is_secure: bool, tls: Contexts
) -> None:
    chance, total = random.Random(7), 1500
    connections: list[list[int]] = []
    peers: list[Peer] = []

    async def serve(stream: trio.SocketStream) -> None:
        mine = list[int]()
        connections.append(mine)
        peer = peer_over(over_tls(stream, tls[0] if is_secure else None))
        await peer.accept()
        peers.append(peer)
        while True:
            mine.append(int(await peer.receive()))
            if chance.random() < 0.5:
                await peer.send(str(mine[-1]))

    async def consume(ws: WebSocket) -> None:
        while True:
            with trio.move_on_after(chance.choice([0.1, 1e-3, 1e-5])):
                await ws.receive()

    async def ping(ws: WebSocket) -> None:
        while True:
            with suppress(ConnectionClosed):
                await ws.ping()
            await turns()

    def disturb(ws: ReconnectingWebSocket) -> None:
        if chance.random() < 0.5:
            ws.reconnect()
        else:
            with suppress(OSError):  # it is gone already
                peers[-1].reset() if chance.random() < 0.5 else peers[-1].drop()

    async with (
        listening(serve) as port,
        create_reconnecting_ws(
            f"{'wss' if is_secure else 'ws'}://127.0.0.1:{port}/",
            ssl_context=tls[1] if is_secure else None,
            delay=0,
            min_uptime=0,
            resend=resend,
            track=True,
            confirm_interval=0.001,
        ) as ws,
        trio.open_nursery() as nursery,
    ):
        await ws.wait_open()
        nursery.start_soon(consume, ws)
        nursery.start_soon(ping, ws)
        for number in range(total):
            await ws.send(str(number))
            if number % 100 == 50:
                disturb(ws)
            elif chance.random() < 0.3:
                await turns(chance.randint(1, 3))
        if resend == "unconfirmed":
            await ws.flush(confirm=True)
        nursery.cancel_scope.cancel()
        await ws.aclose()  # and what was in doubt when a connection broke may stay so

    arrived = [number for connection in connections for number in connection]
    first_arrivals = list(dict.fromkeys(arrived))
    assert all(connection == sorted(set(connection)) for connection in connections)
    assert first_arrivals == sorted(first_arrivals)
    if resend == "unconfirmed":
        assert first_arrivals == list(range(total))
    else:
        assert len(arrived) == len(first_arrivals)


# ------------------------------------------------------------------------------------ nobody starves

FLOOD = 8_000


@dataclass
class Fairness:
    """Counts a busy task's calls, and looks at each turn of another task how many there were."""

    calls: int = 0
    seen: list[int] = field(default_factory=lambda: [0])

    async def watch(self) -> None:
        while True:
            self.seen.append(self.calls)
            await trio.lowlevel.checkpoint()

    def check(self) -> None:
        assert self.calls == FLOOD
        assert len(self.seen) >= FLOOD // CALLS_PER_TURN
        # Who goes first in a turn is trio's to say: so there may be the calls of two turns between two looks.
        assert max(later - earlier for earlier, later in pairwise([*self.seen, self.calls])) <= 2 * CALLS_PER_TURN


@asynccontextmanager
async def in_memory() -> AsyncGenerator[tuple[WebSocket, Peer]]:
    async with opened(MemoryNetwork()) as (ws, peer):
        yield ws, peer
        with trio.move_on_after(0):
            await ws.aclose()


@asynccontextmanager
async def over_loopback() -> AsyncGenerator[tuple[WebSocket, Peer]]:
    async with connected() as ends:
        yield ends.ws, ends.peer


PLACES = pytest.mark.parametrize("place", [in_memory, over_loopback])
Place = Callable[[], AbstractAsyncContextManager[tuple[WebSocket, Peer]]]


async def flood(peer: Peer) -> None:
    with suppress(*GONE):
        for _ in range(FLOOD // 2000):
            await peer.send_raw(text("flood") * 2000)


async def iterate(ws: WebSocket, fairness: Fairness) -> None:
    async for _ in ws:
        fairness.calls += 1
        if fairness.calls == FLOOD:
            return


async def receive_again_and_again(ws: WebSocket, fairness: Fairness) -> None:
    while fairness.calls < FLOOD:
        await ws.receive()
        fairness.calls += 1


async def receive_few_again_and_again(ws: WebSocket, fairness: Fairness) -> None:
    left = FLOOD
    while left:
        left -= len(await ws.receive_many(1))
        fairness.calls += 1


@PLACES
@pytest.mark.parametrize("consume", [iterate, receive_again_and_again, receive_few_again_and_again])
async def test_who_receives_what_a_peer_floods_him_with_starves_nobody(
    consume: Callable[[WebSocket, Fairness], Awaitable[None]], place: Place
) -> None:
    fairness = Fairness()
    async with place() as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(flood, peer)
        nursery.start_soon(fairness.watch)
        await consume(ws, fairness)
        fairness.check()
        nursery.cancel_scope.cancel()


@PLACES
@pytest.mark.parametrize("tracks", [False, True])
async def test_who_sends_in_a_tight_loop_starves_nobody(tracks: bool, place: Place) -> None:
    fairness = Fairness()
    async with place() as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(peer.run_silent)
        nursery.start_soon(fairness.watch)
        for _ in range(FLOOD):
            await ws.send("flood")
            fairness.calls += 1
        fairness.check()
        nursery.cancel_scope.cancel()


@PLACES
async def test_who_sends_what_comes_back_at_once_starves_nobody(place: Place) -> None:
    fairness = Fairness()
    async with place() as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(partial(suppressing, peer.serve_echo))
        nursery.start_soon(fairness.watch)

        async def send() -> None:
            for _ in range(FLOOD):
                await ws.send("flood")

        nursery.start_soon(send)
        await iterate(ws, fairness)
        fairness.check()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG])
@pytest.mark.parametrize("is_woken", [False, True])
async def test_a_flood_of_pings_or_pongs_starves_nobody(is_woken: bool, opcode: Opcode) -> None:
    turns_taken = 0

    async def watch() -> None:
        nonlocal turns_taken
        while True:
            turns_taken += 1
            await trio.lowlevel.checkpoint()

    async with connected() as ends, trio.open_nursery() as nursery:
        if not is_woken:
            await read_alone(ends)
        nursery.start_soon(discard, ends.peer)
        nursery.start_soon(ends.peer.send_raw, encode_frame(opcode, b"") * FLOOD + text("end"))
        nursery.start_soon(watch)
        assert await ends.ws.receive() == "end"
        nursery.cancel_scope.cancel()

    assert turns_taken >= FLOOD // CALLS_PER_TURN


async def discard(peer: Peer) -> None:
    with suppress(*GONE):
        while await peer.stream.receive_some():
            pass


async def suppressing(work: Callable[[], Awaitable[None]]) -> None:
    with suppress(*GONE):
        await work()
