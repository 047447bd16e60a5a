"""Whatever the network takes, and whenever it fails or somebody loses patience: whole frames, exactly counted."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate, count

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from tests.tls import HOST, TlsServer, client_context, narrow_pair, serve_handshake
from tests.wires import ScriptedWire, is_item, read_frames, wire_size
from trio_wsprim._frames import PONG, encode_frame, share
from trio_wsprim._seam import Outgoing, Ping
from trio_wsprim._tls import TlsStream
from trio_wsprim._wire import open_wire
from trio_wsprim.testing import Frame, Opcode
from trio_wsprim.transports._outgoing import OutgoingSide

KIB = 1024
PONG_START = encode_frame(PONG, b"", None)[:1]
SIZES = [0, 1, 125, 126, 1000, 2**16 - 1, 2**16, 128 * KIB - 1, 128 * KIB, 128 * KIB + 1, 256 * KIB, 300 * KIB]

small = st.sampled_from([0, 1, 125, 126])
plans = st.lists(
    st.tuples(
        st.sampled_from(["text", "bytes", "ping", "shared text", "shared bytes"]),
        small | small | st.sampled_from(SIZES),
    ),
    min_size=1,
    max_size=5,
)
amounts = st.integers(1, 300) | st.sampled_from([2**13, 2**16, 2**17, 2**18, 2**20])
deeds = st.one_of(
    st.tuples(st.just("send"), plans),
    st.tuples(st.just("allow"), amounts),
    st.tuples(st.just("allow_frames"), st.integers(1, 3)),
    st.tuples(st.just("pong")),
    st.tuples(st.just("cancel")),
)
# An end that comes early would keep all the rest from happening.
ends = st.none() | st.tuples(st.sampled_from(["close", "fail"]), st.integers(0, 5))


@st.composite
def programs(draw: st.DrawFn) -> list[tuple[object, ...]]:
    program: list[tuple[object, ...]] = draw(st.lists(deeds, min_size=4, max_size=25))
    end = draw(ends)
    if end is not None:
        program.insert(len(program) - min(end[1], len(program)), end[:1])
    return program


@dataclass(slots=True)
class Sent:
    """One batch, and what was said of it when the call that sent it ended."""

    batch: list[Outgoing]
    before: int
    after: int | None = None
    error: BaseException | None = None


@dataclass(slots=True)
class Book:
    """A sending side, and a second book of all that became of each item."""

    wire: ScriptedWire
    nursery: trio.Nursery
    users: trio.Nursery
    masks: bool
    outgoing: OutgoingSide = field(init=False)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    numbers: count[int] = field(default_factory=count)
    sent: list[Sent] = field(default_factory=list)
    pongs: list[bytes] = field(default_factory=list)
    has_failed: bool = False
    # How much was out, and how many items were counted, whenever all was quiet; and how much was out at a tear.
    notes: list[tuple[int, int]] = field(default_factory=list)
    torn_at: int | None = None

    def __post_init__(self) -> None:
        self.outgoing = OutgoingSide(self.wire, self.nursery, masks=self.masks)

    # --- deeds ---

    def send(self, plan: list[tuple[str, int]]) -> None:
        if self.users.child_tasks:
            return  # one at a time, as a link has it
        self.scope = trio.CancelScope()
        batch = [self._item(kind, size) for kind, size in plan]
        self.sent.append(Sent(batch, self.outgoing.items_sent))
        self.users.start_soon(self._send, self.sent[-1], self.scope)

    def _item(self, kind: str, size: int) -> Outgoing:
        name = b"%d," % next(self.numbers)
        payload = (name * (size // 2 + 1))[:size]
        if kind == "ping":
            return Ping(payload[:125])
        message = payload.decode() if kind.endswith("text") else payload
        return share(message) if kind.startswith("shared") else message

    async def _send(self, sent: Sent, scope: trio.CancelScope) -> None:
        with scope:
            try:
                if not self.outgoing.send_now(sent.batch):
                    await self.outgoing.flush()
            except BaseException as error:
                sent.error = error
                if not isinstance(error, trio.BrokenResourceError):
                    raise
            finally:
                sent.after = self.outgoing.items_sent
                if self.outgoing.torn and self.torn_at is None:
                    self.torn_at = len(self.wire.taken)

    def allow(self, size: int) -> None:
        self.wire.allow(size)

    def allow_frames(self, number: int) -> None:
        """Let just so much go that some frames are out, and nothing of the next."""
        outgoing = self.outgoing
        ends = list(accumulate(map(len, outgoing._frames))) or [len(outgoing._piece)]
        left = [end - outgoing._position for end in ends if end > outgoing._position]
        self.wire.allow(left[:number][-1] if left else 0)

    def pong(self) -> None:
        self.pongs.append(b"pong %d" % next(self.numbers))
        self.outgoing.queue(encode_frame(PONG, self.pongs[-1], b"mask" if self.masks else None))

    def cancel(self) -> None:
        self.scope.cancel()

    def close(self) -> None:
        self.outgoing.queue_close(1000, "bye")

    def fail(self) -> None:
        self.has_failed = True
        self.wire.break_off()

    def note(self) -> None:
        self.notes.append((len(self.wire.taken), self.outgoing.items_sent))

    # --- the end ---

    async def finish(self) -> None:
        """Let go what can, and say goodbye."""
        await wait_all_tasks_blocked()
        self.cancel()
        await wait_all_tasks_blocked()
        self.close()
        self.allow(2**40)
        with suppress(trio.BrokenResourceError):
            await self.outgoing.flush()
        await wait_all_tasks_blocked()
        assert not self.users.child_tasks
        assert not self.nursery.child_tasks

    async def check(self) -> None:
        frames, rest = await read_frames(self.wire.taken)
        items = [frame for frame in frames if is_item(frame)]
        self._check_frames(frames, rest)
        self._check_counts(frames)
        # In order, and of each batch a beginning.
        expected: list[Frame] = []
        for sent in self.sent:
            assert sent.after is not None
            expected += map(as_frame, sent.batch[: sent.after - sent.before])
            if sent.error is None and not sent.batch[sent.after - sent.before :]:
                continue
            assert sent.error is not None, "a call that sent a part of its batch said nothing"
        assert [(each.opcode, each.payload) for each in items] == [(each.opcode, each.payload) for each in expected]
        assert self.outgoing.items_sent == len(items)

    def _check_frames(self, frames: list[Frame], rest: bytes) -> None:
        assert all(frame.masked is self.masks and frame.fin and not frame.rsv for frame in frames)
        opcodes = [frame.opcode for frame in frames]
        if Opcode.CLOSE in opcodes:
            assert opcodes.index(Opcode.CLOSE) == len(frames) - 1
            assert rest == b""
        pongs = [frame.payload for frame in frames if frame.opcode == Opcode.PONG]
        assert pongs == [each for each in self.pongs if each in set(pongs)]
        assert set(opcodes) <= {Opcode.TEXT, Opcode.BINARY, Opcode.PING, Opcode.PONG, Opcode.CLOSE}
        if not self.has_failed:
            is_torn = bool(rest) or self.wire.holds
            assert self.outgoing.torn == is_torn
            assert is_torn or opcodes[-1] == Opcode.CLOSE
        if self.torn_at is not None:
            assert self.torn_at == len(self.wire.taken), "something followed a torn frame"

    def _check_counts(self, frames: list[Frame]) -> None:
        ends = list(accumulate(map(wire_size, frames)))
        for size, counted in self.notes:
            out = sum(end <= size and is_item(frame) for end, frame in zip(ends, frames, strict=True))
            assert counted == out


def as_frame(item: Outgoing) -> Frame:
    if isinstance(item, Ping):
        return Frame(Opcode.PING, item.payload)
    if isinstance(item, str):
        return Frame(Opcode.TEXT, item.encode())
    return Frame(Opcode.BINARY, item)


async def play(program: list[tuple[object, ...]], settles: list[bool], record_bytes: int | None, masks: bool) -> None:
    async with trio.open_nursery() as users, trio.open_nursery() as nursery:
        book = Book(ScriptedWire(record_bytes), nursery, users, masks)
        for number, (name, *arguments) in enumerate(program):
            getattr(book, str(name))(*arguments)
            if settles[number % len(settles)]:  # else both happen in one turn of the scheduler
                await wait_all_tasks_blocked()
                book.note()
        await book.finish()
        await book.check()


@pytest.mark.parametrize("masks", [True, False], ids=["client", "server"])
@settings(max_examples=200)
@given(
    program=programs(),
    settles=st.lists(st.sampled_from([True, True, False]), min_size=1, max_size=10),
    record_bytes=st.sampled_from([None, 1, 100, 16 * KIB]),
)
def test_what_the_peer_reads_is_whole_frames_in_order_and_their_number_is_known(
    masks: bool, program: list[tuple[object, ...]], settles: list[bool], record_bytes: int | None
) -> None:
    trio.run(play, program, settles, record_bytes, masks)


# --- over real sockets, with as little room as the kernel allows ---


async def cut_short(
    batches: Sequence[Sequence[Outgoing]], reads: list[int], pongs: list[bool], is_secure: bool
) -> None:
    """Send while the peer reads now and then; cut it short, and read what the kernel has."""
    near, far = narrow_pair()
    server = TlsServer()
    stream: trio.abc.Stream = near
    if is_secure:
        stream = secure = TlsStream(near, client_context(), HOST)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_handshake, far, server)
            await secure.do_handshake()
        # What is left unread when a socket is closed makes the kernel throw away what the peer has not read.
        await far.send_all(server.write(b"."))
        await secure.receive_some()
    wire = open_wire(stream)
    came = bytearray()

    async def read(size: int) -> int:
        data = await far.receive_some(size)
        if is_secure and data:
            server.feed(data)
            came.extend(server.read())
        else:
            came.extend(data)
        return len(data)

    async with far, trio.open_nursery() as nursery:
        outgoing = OutgoingSide(wire, nursery)
        items: list[Outgoing] = []
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as users:

                async def send() -> None:
                    for batch in batches:
                        items.extend(batch)
                        if not outgoing.send_now(batch):
                            await outgoing.flush()

                users.start_soon(send)
                for size, is_pong in zip(reads, pongs, strict=False):
                    await wait_all_tasks_blocked()
                    if not users.child_tasks:
                        break
                    if is_pong:
                        outgoing.queue(encode_frame(PONG, b"pong", b"mask"))
                    await read(size)
                await wait_all_tasks_blocked()
                scope.cancel()
        counted, is_torn = outgoing.items_sent, outgoing.torn
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await wire.abort()
            while await read(2**20):
                pass
            frames, rest = await read_frames(came)
    assert [frame for frame in frames if is_item(frame)] == list(map(as_frame, items[:counted]))
    assert counted == outgoing.items_sent
    assert is_torn or rest[:1] in {b"", PONG_START}  # a pong is nobody's item


@settings(max_examples=100)
@given(
    plans=st.lists(
        st.lists(st.sampled_from([0, 1, 125, 126, 1000, 2**16, 128 * KIB + 1]), min_size=1, max_size=4),
        min_size=1,
        max_size=4,
    ),
    reads=st.lists(st.sampled_from([1, 100, 3000, 2**16]), max_size=20),
    pongs=st.lists(st.booleans(), min_size=20, max_size=20),
    is_secure=st.booleans(),
)
def test_what_a_kernel_has_taken_is_known_to_the_frame(
    plans: list[list[int]], reads: list[int], pongs: list[bool], is_secure: bool
) -> None:
    batches = [[b"%d" % number * size for number, size in enumerate(plan)] for plan in plans]
    trio.run(cut_short, batches, reads, pongs, is_secure)
