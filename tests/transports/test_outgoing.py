"""The sending side: two writers, whole frames, and nothing after a close or a torn frame."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.tls import narrow_pair
from tests.wires import ScriptedWire, is_item, read_frames, wire_size
from trio_wsprim._frames import PONG, encode_frame
from trio_wsprim._seam import Outgoing, Ping
from trio_wsprim._values import Message
from trio_wsprim._wire import open_wire
from trio_wsprim.testing import Frame, Opcode, Peer, memory_stream_pair
from trio_wsprim.transports._outgoing import OutgoingSide

MASK = b"\x01\x02\x03\x04"
KIB = 1024


def pong(payload: bytes) -> bytes:
    return encode_frame(PONG, payload, MASK)


def text(payload: str) -> Frame:
    return Frame(Opcode.TEXT, payload.encode())


@dataclass(frozen=True, slots=True)
class Side:
    """A sending side, the nursery of its tasks, and whoever reads at the other end."""

    outgoing: OutgoingSide
    nursery: trio.Nursery
    peer: Peer

    async def send(self, batch: Sequence[Outgoing]) -> None:
        await send(self.outgoing, batch)

    @property
    def tasks(self) -> int:
        return len(self.nursery.child_tasks)


async def send(outgoing: OutgoingSide, batch: Sequence[Outgoing]) -> None:
    """Do as a link does."""
    if not outgoing.send_now(batch):
        await outgoing.flush()


async def fail_to_send(outgoing: OutgoingSide) -> None:
    with pytest.raises(trio.BrokenResourceError):
        await send(outgoing, ["late"])


@asynccontextmanager
async def streaming(buffer_size: int = 2**20) -> AsyncGenerator[Side]:
    """Over a stream of which nobody knows what it has taken."""
    ours, theirs = memory_stream_pair(buffer_size)
    async with trio.open_nursery() as nursery:
        wire = open_wire(ours)
        yield Side(OutgoingSide(wire, nursery), nursery, Peer(theirs))
        nursery.cancel_scope.cancel()
        await wire.abort()


@asynccontextmanager
async def direct(buffer_size: int = 2**20) -> AsyncGenerator[Side]:
    """Over a socket."""
    ends = trio.socket.socketpair()
    ends[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_size)
    async with trio.open_nursery() as nursery:
        wire = open_wire(trio.SocketStream(ends[0]))
        yield Side(OutgoingSide(wire, nursery), nursery, Peer(trio.SocketStream(ends[1])))
        nursery.cancel_scope.cancel()
        await wire.abort()
        ends[1].close()


@pytest.fixture(params=[streaming, direct])
async def side(request: pytest.FixtureRequest) -> AsyncGenerator[Side]:
    async with request.param() as given:
        yield given


@dataclass(frozen=True, slots=True)
class Scripted:
    """A sending side over a network that takes what it is told to."""

    wire: ScriptedWire
    outgoing: OutgoingSide
    nursery: trio.Nursery

    async def allow(self, size: int = 2**30) -> None:
        self.wire.allow(size)
        await wait_all_tasks_blocked()

    async def frames(self) -> list[Frame]:
        """What the peer can read; it must be whole."""
        frames, rest = await read_frames(self.wire.taken)
        assert rest == b""
        return frames

    @asynccontextmanager
    async def sending(self, batch: Sequence[Outgoing]) -> AsyncGenerator[None]:
        """Send in a task of its own, which is waiting now if it must, and is cancelled at the end."""

        async def send_while_it_goes() -> None:
            with suppress(trio.BrokenResourceError):
                await send(self.outgoing, batch)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_while_it_goes)
            await wait_all_tasks_blocked()
            yield
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def scripted(record_bytes: int | None = None, allowed: int = 0) -> AsyncGenerator[Scripted]:
    wire = ScriptedWire(record_bytes)
    wire.allow(allowed)
    async with trio.open_nursery() as nursery:
        yield Scripted(wire, OutgoingSide(wire, nursery), nursery)
        nursery.cancel_scope.cancel()


# --- batches, over streams and over sockets ---


async def test_a_batch_goes_out_in_order_each_frame_with_a_mask_of_its_own(side: Side) -> None:
    await side.send(["text", b"binary", Ping(b"ping"), "é", b"\xff"])
    assert [await side.peer.receive_frame() for _ in range(5)] == [
        Frame(Opcode.TEXT, b"text"),
        Frame(Opcode.BINARY, b"binary"),
        Frame(Opcode.PING, b"ping"),
        Frame(Opcode.TEXT, b"\xc3\xa9"),
        Frame(Opcode.BINARY, b"\xff"),
    ]
    assert side.outgoing.items_sent == 5

    await side.send([b"\0" * 100] * 50)
    frames: list[Frame] = []
    masks: set[bytes] = set()
    while len(frames) < 50:
        frames.append(await side.peer.receive_frame())
        rest = side.peer.unparsed
        masks |= {rest[at + 2 : at + 6] for at in range(0, len(rest) - 5, 106)}
    assert len(masks) >= 49


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 2**16 - 1, 2**16, 2**16 + 1, 128 * KIB])
async def test_messages_of_all_sizes_are_frames_of_the_shortest_form(size: int, side: Side) -> None:
    for message in ("x" * size, b"x" * size):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(side.send, [message])
            frame = await side.peer.receive_frame()
            assert frame == Frame(Opcode.TEXT if isinstance(message, str) else Opcode.BINARY, b"x" * size)
    assert side.outgoing.items_sent == 2
    assert side.peer.unparsed == b""


@pytest.mark.parametrize("size", [128 * KIB - 1, 128 * KIB + 1, 256 * KIB, 256 * KIB + 1, 300 * KIB, 1000 * KIB + 3])
async def test_a_large_message_is_one_frame_whose_pieces_nobody_sees(size: int, side: Side) -> None:
    batch: list[Message] = ["first", b"".join(b"%07d " % at for at in range(size // 8 + 1))[:size], "€" * size, "last"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(side.send, batch)
        assert await side.peer.receive_all(4) == batch
    assert side.outgoing.items_sent == 4


async def test_an_empty_batch_is_nothing(side: Side) -> None:
    await side.send([])
    assert side.outgoing.items_sent == 0
    assert side.tasks == 0


async def test_a_batch_of_very_many_is_sent_whole(side: Side) -> None:
    batch = [str(number) for number in range(10_000)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(side.send, batch)
        assert await side.peer.receive_all(len(batch)) == batch
    assert side.outgoing.items_sent == len(batch)


async def test_what_makes_frames_instead_of_ours_makes_those_of_messages_and_of_nothing_else(side: Side) -> None:
    seen: list[Message] = []

    def encode(message: Message) -> bytes:
        seen.append(message)
        return encode_frame(Opcode.BINARY, b"encoded", MASK)

    side.outgoing.encode = encode
    batch: list[Outgoing] = ["text", b"binary", Ping(b"ping"), b"x" * 300 * KIB]
    await side.send(batch)
    side.outgoing.queue(pong(b"pong"))
    side.outgoing.queue_close(1000, "")
    frames = [await side.peer.receive_frame() for _ in range(6)]
    assert seen == ["text", b"binary", b"x" * 300 * KIB]
    assert [each.payload for each in frames] == [
        b"encoded",
        b"encoded",
        b"ping",
        b"encoded",
        b"pong",
        b"\x03\xe8",
    ]
    assert side.outgoing.items_sent == 4


# --- control frames ---


async def test_control_frames_go_out_by_themselves_and_are_no_items(side: Side) -> None:
    for payload in (b"a", b"b"):
        side.outgoing.queue(pong(payload))
        assert await side.peer.receive_frame() == Frame(Opcode.PONG, payload)
    assert side.outgoing.items_sent == 0
    await wait_all_tasks_blocked()
    assert side.tasks == 0


async def test_where_the_network_takes_them_at_once_control_frames_cost_no_task() -> None:
    async with scripted(allowed=1000) as side:
        for _ in range(10):
            side.outgoing.queue(pong(b""))
        assert len(side.wire.taken) == 60
        side.outgoing.queue_close(1000, "bye")
        assert not side.nursery.child_tasks


async def test_while_somebody_flushes_control_frames_cost_no_task() -> None:
    async with scripted() as side:
        async with side.sending(["in the way"]):
            for number in range(3):
                side.outgoing.queue(pong(b"%d" % number))
            assert not side.nursery.child_tasks
            await side.allow()
        assert [each.payload for each in await side.frames()] == [b"in the way", b"2"]


@pytest.mark.parametrize("seed", range(20))
async def test_whoever_writes_first_control_frames_go_on(seed: int, side: Side) -> None:
    # The order in which trio runs two tasks that are ready is random, so once is not enough.
    side.outgoing.queue(pong(b"first thing after opening"))
    await side.send(["first message"])
    side.outgoing.queue(pong(b"still answered"))
    frames = [await side.peer.receive_frame() for _ in range(3)]
    assert [each.payload for each in frames[:2]] == [b"first thing after opening", b"first message"]
    assert frames[2] == Frame(Opcode.PONG, b"still answered")


async def test_of_many_pongs_only_the_newest_is_owed() -> None:
    async with scripted() as side:
        for number in range(1000):
            side.outgoing.queue(pong(b"%d" % number))
        assert sum(map(len, side.outgoing._controls)) < 20
        await side.allow()
        frames = await side.frames()
        assert len(frames) <= 2  # one may have been under way
        assert frames[-1] == Frame(Opcode.PONG, b"999")


@pytest.mark.parametrize("count", [1, 2, 1000])
async def test_a_flood_of_pings_while_the_network_takes_nothing_starts_one_task(count: int) -> None:
    async with scripted() as side:
        for number in range(count):
            side.outgoing.queue(pong(b"%d" % number))
        assert len(side.nursery.child_tasks) <= 2


async def test_pongs_of_which_none_is_last_are_all_sent() -> None:
    async with scripted() as side:
        side.outgoing.queue(pong(b"a"))
        side.outgoing.queue(encode_frame(Opcode.PING, b"of the core", MASK))
        side.outgoing.queue(pong(b"b"))
        await side.allow()
        assert [each.payload for each in await side.frames()] == [b"a", b"of the core", b"b"]


async def test_control_frames_go_before_what_waits_but_never_inside_a_frame() -> None:
    async with scripted(allowed=100) as side:
        async with side.sending(["x" * 100, b"y" * 70_000, "z" * 70_000, "last"]):
            side.outgoing.queue(pong(b"1"))
            await side.allow(30_000)
            side.outgoing.queue(pong(b"2"))
            await side.allow()
        frames = await side.frames()
    assert [each.opcode for each in frames] == [
        Opcode.TEXT,
        Opcode.BINARY,
        Opcode.PONG,
        Opcode.TEXT,
        Opcode.TEXT,
    ]
    assert frames[2].payload == b"2"


async def test_a_control_frame_waits_for_the_last_piece_of_a_large_message() -> None:
    async with scripted() as side:
        async with side.sending([b"x" * 400 * KIB, "behind"]):
            for number in range(9):
                side.outgoing.queue(pong(b"%d" % number))
                await side.allow(50 * KIB)
        frames = await side.frames()
    assert [each.opcode for each in frames] == [Opcode.BINARY, Opcode.PONG, Opcode.TEXT]
    assert len(frames[0].payload) == 400 * KIB


async def test_a_control_frame_that_the_network_does_not_take_goes_when_it_does() -> None:
    async with direct(buffer_size=4096) as side:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(side.send, [bytes(100_000)])
            await wait_all_tasks_blocked()
            side.outgoing.queue(pong(b"in time"))
            frames = [await side.peer.receive_frame() for _ in range(2)]
        assert [each.opcode for each in frames] == [Opcode.BINARY, Opcode.PONG]
        for number in range(10_000):
            side.outgoing.queue(pong(b"%d" % number * 20))
            if number == 9_999:
                await wait_all_tasks_blocked()
        while (await side.peer.receive_frame()).payload != b"9999" * 20:
            pass


# --- closing ---


async def test_nothing_is_queued_behind_a_close(side: Side) -> None:
    side.outgoing.queue(pong(b"before"))
    side.outgoing.queue_close(1001, "bye")
    side.outgoing.queue(pong(b"after"))
    side.outgoing.queue_close(1000, "")
    assert side.outgoing.close_queued
    await side.outgoing.flush()
    await fail_to_send(side.outgoing)
    assert side.outgoing.items_sent == 0

    assert await side.peer.receive_frame() == Frame(Opcode.PONG, b"before")
    assert await side.peer.receive_frame() == Frame(Opcode.CLOSE, b"\x03\xe9bye")
    assert side.peer.unparsed == b""
    assert not side.outgoing.torn


async def test_a_close_without_a_code_is_empty(side: Side) -> None:
    side.outgoing.queue_close(1005, "")
    await side.outgoing.flush()
    assert await side.peer.receive_frame() == Frame(Opcode.CLOSE, b"")


async def test_a_batch_that_waits_its_turn_does_not_follow_a_close(autojump_clock: MockClock) -> None:
    async with streaming(buffer_size=4) as side:
        side.outgoing.queue(pong(b"fills the buffer"))
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_to_send, side.outgoing)
            await wait_all_tasks_blocked()
            side.outgoing.queue_close(1000, "")
            assert (await side.peer.receive_frame()).opcode == Opcode.PONG
            assert (await side.peer.receive_frame()).opcode == Opcode.CLOSE
        await wait_all_tasks_blocked()
        assert side.peer.unparsed == b""
        assert side.outgoing.items_sent == 0


@pytest.mark.parametrize("record_bytes", [None, 1, 1000])
async def test_a_close_comes_between_what_has_begun_and_what_has_not(record_bytes: int | None) -> None:
    async with scripted(record_bytes, allowed=10) as side, trio.open_nursery() as nursery:

        async def send_in_vain() -> None:
            with pytest.raises(trio.BrokenResourceError, match="nothing may follow a close frame"):
                await send(side.outgoing, [b"x" * 64 * KIB, "not begun"])

        nursery.start_soon(send_in_vain)
        await wait_all_tasks_blocked()
        side.outgoing.queue_close(1000, "")
        await side.allow()
        assert [each.opcode for each in await side.frames()] == [Opcode.BINARY, Opcode.CLOSE]
        assert side.outgoing.items_sent == 1
        assert not side.outgoing.torn
    await fail_to_send(side.outgoing)


# --- what goes at once, and what must wait ---


async def test_what_the_network_takes_at_once_needs_no_flush() -> None:
    async with scripted(allowed=100) as side:
        assert side.outgoing.send_now(["now"])
        assert side.outgoing.items_sent == 1
        assert await side.frames() == [text("now")]
        await side.outgoing.flush()
        await side.outgoing.flush()


async def test_what_it_does_not_take_is_left_to_a_flush() -> None:
    async with scripted(allowed=12) as side:
        assert not side.outgoing.send_now(["one", "two", "three"])
        assert side.outgoing.items_sent == 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(side.outgoing.flush)
            await side.allow()
        assert await side.frames() == [text("one"), text("two"), text("three")]
        assert side.outgoing.items_sent == 3


async def test_a_stream_takes_nothing_at_once() -> None:
    async with streaming() as side:
        assert not side.outgoing.send_now(["later"])
        assert side.outgoing.items_sent == 0
        await side.outgoing.flush()
        assert side.outgoing.items_sent == 1


@pytest.mark.parametrize("batch", [["one"], ["one", "two"], [b"x" * 300 * KIB], [b"x" * 70_000, "two"]])
async def test_what_was_not_taken_at_once_is_the_senders_to_write_and_no_task_of_ours(batch: list[Outgoing]) -> None:
    # Or he could not be told how far it came, when he loses patience.
    async with scripted(allowed=3) as side:
        assert not side.outgoing.send_now(batch)
        side.outgoing.queue(pong(b"waits"))
        await side.allow()
        assert len(side.wire.taken) == 3
        await side.outgoing.flush()
        assert side.outgoing.items_sent == len(batch)
        assert sorted(each.opcode for each in await side.frames())[-1] == Opcode.PONG


async def test_batches_taken_one_by_one_are_flushed_in_order(side: Side) -> None:
    side.outgoing.queue(pong(b"first"))
    batches: list[list[Outgoing]] = [["a", "b"], ["c"], [b"d" * 70_000], ["e"], ["f", Ping(b"g")], ["h"]]
    for batch in batches:
        side.outgoing.send_now(batch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(side.outgoing.flush)
        frames = [await side.peer.receive_frame() for _ in range(9)]
    assert [each.payload[:1] for each in frames] == [b"f", b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h"]
    assert side.outgoing.items_sent == 8


async def test_one_control_frame_can_carry_on_with_what_was_not_taken_at_once() -> None:
    async with scripted(allowed=5) as side:
        assert not side.outgoing.send_now(["one", "two"])
        side.wire.allow(10**6)
        side.outgoing.queue(pong(b""))
        assert side.outgoing.items_sent == 2
        assert [each.opcode for each in await side.frames()] == [Opcode.TEXT, Opcode.TEXT, Opcode.PONG]
        await side.outgoing.flush()


async def test_who_finds_a_control_frame_under_way_waits_for_it_and_is_sent_behind_it() -> None:
    async with scripted() as side:
        side.outgoing.queue(pong(b"1"))
        await wait_all_tasks_blocked()
        batch: list[Outgoing] = ["one", "x" * 300 * KIB, "two"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, side.outgoing, batch)
            await wait_all_tasks_blocked()
            assert side.outgoing.items_sent == 0
            side.outgoing.queue(pong(b"2"))
            await side.allow(20)
            await side.allow()
        frames = await side.frames()
        assert side.outgoing.items_sent == 3
    assert [each.payload[:3] for each in frames] == [b"1", b"2", b"one", b"xxx", b"two"]


@pytest.mark.parametrize("size", [0, 1, 100, 125, 126, 5000, 8 * KIB, 8 * KIB + 1])
async def test_lone_messages_are_frames_like_any_others_each_with_a_mask_of_its_own(size: int) -> None:
    async with scripted(allowed=2**30) as side:
        batch: list[Outgoing] = ["x" * size, b"y" * size, "é" * size]
        batch = [*batch * 100, Ping(b"")]
        for number, item in enumerate(batch):
            assert side.outgoing.send_now([item])
            assert side.outgoing.items_sent == number + 1
        assert side.wire.writes == len(batch)
        frames = await side.frames()
        assert [each.payload for each in frames[:3]] == [b"x" * size, b"y" * size, "é".encode() * size]
        assert [each.opcode for each in frames[:3]] == [Opcode.TEXT, Opcode.BINARY, Opcode.TEXT]
        ends = accumulate(map(wire_size, frames))
        masks = {
            bytes(side.wire.taken[end - len(frame.payload) - 4 : end - len(frame.payload)])
            for end, frame in zip(ends, frames, strict=True)
        }
        assert len(masks) >= len(frames) - 1


@pytest.mark.parametrize("allowed", range(10))
@pytest.mark.parametrize("record_bytes", [None, 4, 1000])
async def test_a_lone_message_that_is_cut_anywhere_is_counted_and_torn_like_others(
    record_bytes: int | None, allowed: int
) -> None:
    async with scripted(record_bytes, allowed) as side:
        async with side.sending(["abcd"]):  # of ten bytes
            assert side.outgoing.items_sent == 0
        assert side.outgoing.items_sent == 0
        assert side.outgoing.torn == (allowed > 0 or record_bytes is not None)


async def test_a_lone_message_is_encoded_by_what_encodes_all() -> None:
    async with scripted(allowed=100) as side:
        side.outgoing.encode = lambda message: encode_frame(Opcode.BINARY, b"encoded", MASK)
        assert side.outgoing.send_now(["lone"])
        assert await side.frames() == [Frame(Opcode.BINARY, b"encoded")]


async def test_small_messages_share_a_write_where_it_is_known_what_has_gone() -> None:
    async with scripted(allowed=10**6) as side:
        side.outgoing.send_now([b"x" * 100] * 100)
        assert side.wire.writes == 1
        side.outgoing.send_now([b"x" * 40_000] * 4)  # joined up to a size where that still pays
        assert side.wire.writes == 3
        assert side.outgoing.items_sent == 104


class Counting(trio.abc.Stream):
    """Notes each write, and waits in one of them for ever."""

    def __init__(self, hangs_at: int | None = None) -> None:
        self.writes: list[bytes] = []
        self._hangs_at = hangs_at

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))
        if len(self.writes) == self._hangs_at:
            await trio.sleep_forever()

    async def wait_send_all_might_not_block(self) -> None:
        raise AssertionError

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise AssertionError

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize(
    "batch",
    [
        ["one", b"", "", b"x" * 70_000, "last"],
        [Ping(b"1"), "one"],
    ],
)
async def test_where_that_is_not_known_each_frame_is_a_write_of_its_own(batch: list[Outgoing]) -> None:
    # Or else of a write that fails nobody could say which of its frames the peer has: at most one may be in doubt.
    stream = Counting()
    async with trio.open_nursery() as nursery:
        await send(OutgoingSide(open_wire(stream), nursery), batch)
    assert len(stream.writes) == len(batch)


# --- exactness ---

ONE_OF_EACH: list[Outgoing] = ["", b"x" * 125, b"y" * 126, Ping(b"p"), "é" * 100, b"z" * 300, Ping(b""), "end"]


async def sizes_of(batch: Sequence[Outgoing]) -> list[int]:
    async with scripted(allowed=2**30) as side:
        await send(side.outgoing, batch)
        return [wire_size(each) for each in await side.frames()]


@pytest.mark.parametrize("record_bytes", [None, 7, 250])
async def test_a_frame_counts_when_its_last_byte_is_out_and_not_before(record_bytes: int | None) -> None:
    sizes = await sizes_of(ONE_OF_EACH)
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    async with scripted(record_bytes) as side, side.sending(ONE_OF_EACH):
        for _ in range(sum(sizes)):
            await side.allow(1)
            assert side.outgoing.items_sent == sum(end <= len(side.wire.taken) for end in ends)
        assert side.outgoing.items_sent == len(sizes)


@pytest.mark.parametrize("how", ["cancelled", "failed"])
@pytest.mark.parametrize("record_bytes", [None, 7, 250])
async def test_what_is_cut_anywhere_is_counted_exactly_and_torn_only_inside_a_frame(
    record_bytes: int | None, how: str
) -> None:
    sizes = await sizes_of(ONE_OF_EACH)
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    for allowed in range(sum(sizes)):
        async with scripted(record_bytes, allowed) as side:
            async with side.sending(ONE_OF_EACH):
                if how == "failed":
                    side.wire.break_off()
                    await wait_all_tasks_blocked()
            frames, rest = await read_frames(side.wire.taken)
            assert side.outgoing.items_sent == len(frames) == sum(end <= len(side.wire.taken) for end in ends)
            if how == "cancelled":
                assert side.outgoing.torn == (bool(rest) or side.wire.holds)
            else:
                assert side.outgoing.torn
            before = bytes(side.wire.taken)
            side.outgoing.queue_close(1000, "")
            if side.outgoing.torn:
                assert not side.nursery.child_tasks
                with pytest.raises(trio.BrokenResourceError):
                    await side.outgoing.flush()
                await side.allow()
                assert side.wire.taken == before
            else:
                await side.allow()
                frames = await side.frames()
                assert frames[-1] == Frame(Opcode.CLOSE, b"\x03\xe8")
                assert len(frames) == side.outgoing.items_sent + 1


@pytest.mark.parametrize("record_bytes", [None, 1000, 16 * KIB])
@pytest.mark.parametrize(
    "allowed",
    [0, 1, 13, 14, 100_000, 128 * KIB + 13, 128 * KIB + 14, 128 * KIB + 15, 300_000, 300 * KIB + 13],
)
async def test_a_large_message_that_is_cut_anywhere_is_torn_unless_it_has_not_begun(
    allowed: int, record_bytes: int | None
) -> None:
    async with scripted(record_bytes, allowed) as side:
        async with side.sending([b"x" * 300 * KIB, "behind"]):
            pass
        assert side.outgoing.items_sent == 0
        assert side.outgoing.torn == (allowed > 0 or record_bytes is not None)
        before = len(side.wire.taken)
        await fail_to_send(side.outgoing) if side.outgoing.torn else side.outgoing.queue_close(1000, "")
        await side.allow()
        assert len(side.wire.taken) == (before if side.outgoing.torn else 8)


async def test_a_large_message_that_is_through_is_counted_and_not_torn() -> None:
    async with scripted(None, 300 * KIB + 14) as side:
        async with side.sending([b"x" * 300 * KIB, "behind"]):
            pass
        assert side.outgoing.items_sent == 1
        assert not side.outgoing.torn


async def test_a_batch_cut_between_frames_leaves_room_for_a_close_and_for_another_batch() -> None:
    async with scripted(None, 18) as side:
        async with side.sending(["one", "two", "three"]):
            side.outgoing.queue(pong(b"between"))
        assert side.outgoing.items_sent == 2
        async with side.sending(["next"]):
            await side.allow()
            assert side.outgoing.items_sent == 3
        side.outgoing.queue_close(1000, "")
        frames = await side.frames()
    assert [each.payload for each in frames] == [b"one", b"two", b"between", b"next", b"\x03\xe8"]


async def test_a_batch_cut_behind_half_a_control_frame_leaves_the_other_half() -> None:
    async with scripted(None, 3) as side:
        side.outgoing.queue(pong(b"half"))
        assert len(side.wire.taken) == 3
        async with side.sending(["in vain"]):
            pass
        assert not side.outgoing.torn
        assert side.outgoing.items_sent == 0
        side.outgoing.queue_close(1000, "")
        await side.allow()
        assert [each.opcode for each in await side.frames()] == [Opcode.PONG, Opcode.CLOSE]


async def test_sockets_are_counted_to_the_byte_too() -> None:
    batch = [b"%024d" % number for number in range(2000)]  # frames of 30 bytes
    ours, theirs = narrow_pair()
    wire = open_wire(ours)
    async with theirs, trio.open_nursery() as nursery:
        outgoing = OutgoingSide(wire, nursery)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as sender:
                sender.start_soon(send, outgoing, batch)
                await wait_all_tasks_blocked()
                scope.cancel()
        await wire.abort()
        came = b""
        while data := await theirs.receive_some():
            came += data
    frames, rest = await read_frames(came)
    assert [each.payload for each in frames] == batch[: outgoing.items_sent]
    assert len(frames) < 2000
    assert outgoing.torn == bool(rest)


# --- who else is writing ---


async def test_a_cancelled_batch_goes_no_further_also_when_a_task_of_ours_was_writing_it() -> None:
    async with scripted() as side:
        side.outgoing.queue(pong(b""))  # which the network does not take, so that a task of ours will go on from there
        await wait_all_tasks_blocked()
        async with side.sending(["one", "two"]):
            await side.allow(6)
        assert (side.outgoing.items_sent, side.outgoing.torn) == (0, False)
        await side.allow(13)
        side.outgoing.queue_close(1000, "")
        await side.allow()
        frames = await side.frames()
        assert side.outgoing.items_sent == sum(map(is_item, frames)) == 0
        assert [each.opcode for each in frames] == [Opcode.PONG, Opcode.CLOSE]


async def test_a_batch_cut_inside_a_frame_goes_no_further_also_when_a_task_of_ours_was_writing_it() -> None:
    async with scripted() as side:
        side.outgoing.queue(pong(b""))
        await wait_all_tasks_blocked()
        async with side.sending(["one", "two", "three"]):
            await side.allow(6 + 9 + 4)
        assert (side.outgoing.items_sent, side.outgoing.torn) == (1, True)
        await side.allow()
        frames, _ = await read_frames(side.wire.taken)
        assert sum(map(is_item, frames)) == side.outgoing.items_sent


async def test_a_flush_whose_batch_a_cancelled_task_of_ours_was_writing_goes_on_with_it() -> None:
    async with trio.open_nursery() as users, scripted() as side:
        side.outgoing.queue(pong(b""))
        await wait_all_tasks_blocked()
        users.start_soon(send, side.outgoing, ["one"])
        await wait_all_tasks_blocked()
        await side.allow(6)
        side.nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await wait_all_tasks_blocked()
            await side.allow()
            assert side.outgoing.items_sent == 1
            assert await side.frames() == [Frame(Opcode.PONG, b""), text("one")]


async def test_a_control_frame_that_a_cancelled_flush_would_have_sent_goes_all_the_same() -> None:
    async with scripted() as side:
        async with side.sending(["one"]):
            side.outgoing.queue(pong(b"owed"))
        assert not side.outgoing.torn
        await side.allow()
        assert await side.frames() == [Frame(Opcode.PONG, b"owed")]


async def test_a_task_of_ours_that_is_cancelled_leaves_its_control_frame_to_a_flush() -> None:
    async with scripted(allowed=3) as side:
        side.outgoing.queue(pong(b""))
        await wait_all_tasks_blocked()
        side.nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await wait_all_tasks_blocked()
            side.wire.allow(100)
            await side.outgoing.flush()
            assert await side.frames() == [Frame(Opcode.PONG, b"")]


async def test_a_cancelled_wait_for_the_turn_tears_nothing(autojump_clock: MockClock) -> None:
    async with streaming(buffer_size=4) as side:
        side.outgoing.queue(pong(b"fills the buffer"))
        await wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await side.send(["in vain"])
        assert (await side.peer.receive_frame()).opcode == Opcode.PONG
        assert not side.outgoing.torn
        async with trio.open_nursery() as nursery:
            nursery.start_soon(side.send, ["good"])
            assert await side.peer.receive() == "good"
        assert side.outgoing.items_sent == 1


# --- streams, which do not tell what they took ---


async def test_after_a_torn_frame_nothing_follows(autojump_clock: MockClock) -> None:
    async with streaming(buffer_size=4) as side:
        with trio.move_on_after(1):
            await side.send(["does not fit"])
        assert side.outgoing.items_sent == 0
        assert side.outgoing.torn
        await fail_to_send(side.outgoing)
        side.outgoing.queue_close(1000, "")
        assert side.tasks == 0
        with pytest.raises(trio.BrokenResourceError, match="cut short"):
            await side.outgoing.flush()
        with trio.move_on_after(1), pytest.raises(trio.EndOfChannel):
            await side.peer.receive_frame()
        assert len(side.peer.unparsed) == 4


async def test_a_control_frame_is_torn_like_any_other(autojump_clock: MockClock) -> None:
    async with streaming(buffer_size=4) as side:
        side.outgoing.queue(pong(b"does not fit"))
        with trio.move_on_after(1):
            await side.outgoing.flush()  # before any task of ours has run
        assert side.outgoing.torn
        side.outgoing.queue_close(1000, "")
        await fail_to_send(side.outgoing)
        with trio.move_on_after(1):
            await side.peer.receive_frame()
        assert len(side.peer.unparsed) == 4


async def test_what_went_out_before_the_tear_is_counted(autojump_clock: MockClock) -> None:
    async with streaming(buffer_size=100) as side:
        with trio.move_on_after(1):
            await side.send([bytes(24)] * 10)  # frames of 30 bytes
        assert side.outgoing.items_sent == 3
        assert side.outgoing.torn


async def test_a_stream_that_was_writing_for_a_cancelled_flush_is_given_nothing_more(
    autojump_clock: MockClock,
) -> None:
    async with streaming(buffer_size=10) as side:
        side.outgoing.queue(pong(b"fills the buffer"))
        await wait_all_tasks_blocked()
        with trio.move_on_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(side.send, ["a frame that does not fit", "another"])
                await wait_all_tasks_blocked()
                assert (await side.peer.receive_frame()).opcode == Opcode.PONG
        assert side.outgoing.torn  # since nobody knows how much of the first frame is out
        assert side.outgoing.items_sent == 0
        side.outgoing.queue_close(1000, "")
        with trio.move_on_after(1):
            while True:  # it may come whole, if a task of ours was at it
                assert await side.peer.receive_frame() == text("a frame that does not fit")
        assert side.tasks == 0
        assert sum(map(is_item, side.peer.frames)) <= 1


@pytest.mark.parametrize("hangs_at", [1, 2, 3])
async def test_of_a_stream_at_most_one_frame_is_in_doubt(hangs_at: int) -> None:
    stream, batch = Counting(hangs_at), list[Outgoing](["one", b"two", "three", "four"])
    async with trio.open_nursery() as nursery:
        outgoing = OutgoingSide(open_wire(stream), nursery)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as sender:
                sender.start_soon(send, outgoing, batch)
                await wait_all_tasks_blocked()
                scope.cancel()
    assert outgoing.items_sent == hangs_at - 1
    assert len((await read_frames(b"".join(stream.writes)))[0]) == hangs_at
    assert outgoing.torn


# --- when the network is gone ---


async def test_a_network_that_is_gone_fails_who_sends_and_not_who_queues(side: Side) -> None:
    side.peer.drop()
    side.outgoing.queue(pong(b""))
    await wait_all_tasks_blocked()
    assert side.tasks == 0
    assert side.outgoing.torn
    side.outgoing.queue_close(1000, "")
    await fail_to_send(side.outgoing)
    with pytest.raises(trio.BrokenResourceError):
        await side.outgoing.flush()
    assert side.outgoing.items_sent == 0


async def test_who_sends_first_is_failed_too(side: Side) -> None:
    side.peer.drop()
    await fail_to_send(side.outgoing)
    assert side.outgoing.torn
    assert side.outgoing.items_sent == 0
    side.outgoing.queue(pong(b""))
    assert side.tasks == 0


async def test_a_failure_wakes_who_waits_for_his_turn() -> None:
    async with scripted() as side:
        side.outgoing.queue(pong(b""))
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_to_send, side.outgoing)
            await wait_all_tasks_blocked()
            side.wire.break_off()
        assert not side.nursery.child_tasks


async def test_a_failure_at_once_leaves_the_telling_to_the_flush() -> None:
    async with scripted(allowed=15) as side:
        assert side.outgoing.send_now(["one"])
        side.wire.break_off()
        assert not side.outgoing.send_now(["two"])
        assert side.outgoing.torn
        with pytest.raises(trio.BrokenResourceError, match="cut short"):
            await side.outgoing.flush()
        assert side.outgoing.items_sent == 1


async def test_a_task_of_ours_that_waits_for_the_network_does_not_mind_an_abort() -> None:
    ours, theirs = narrow_pair()
    wire = open_wire(ours)
    async with theirs, trio.open_nursery() as nursery:
        while wire.write_now(bytes(1000)):
            pass
        OutgoingSide(wire, nursery).queue(pong(b""))
        await wait_all_tasks_blocked()
        assert nursery.child_tasks
        await wire.abort()
