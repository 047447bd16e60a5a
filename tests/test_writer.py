"""Who sends, and how much at a time: the sender's task or ours, over a link that counts batches."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import count
from math import inf
from typing import cast

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

import trio_wsprim  # by its name, since a module that knows an opener is run on each transport, and the link is ours
from trio_wsprim import Buffer, ConnectionClosed, Undelivered, UndeliveredError, make_heartbeat_ws
from trio_wsprim._outbox import Outbox
from trio_wsprim._seam import Ending, Incoming, Link, Outgoing, Ping, Pong, Upgrade
from trio_wsprim._values import DropEvent, Message
from trio_wsprim._writer import LAST_WORDS, Writer
from trio_wsprim.testing import MemoryNetwork

from .sockets import URL

QUIET = 60e-6
LULL = 1e-3
FEW = 8


class Stopwatch:
    """The processor's clock, which a message's loneliness is told by; it stands unless a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def stopwatch(monkeypatch: pytest.MonkeyPatch) -> Stopwatch:
    watch = Stopwatch()
    monkeypatch.setattr("trio_wsprim._writer.perf_counter", watch)
    return watch


class FakeLink:
    """A link, and the transport that gives it: it takes what there is room for, and notes whose task gave it what."""

    def __init__(self, *, is_direct: bool = True, room: float = inf) -> None:
        self.is_direct = is_direct
        self.room = room
        self.subprotocol = None
        self.response_headers = ()
        self.items_sent = 0
        self.heard_at = self.moved_at = 0.0
        self.ending = Ending(1006, "", clean=False)
        self.sent: list[Outgoing] = []
        self.batches: list[list[Outgoing]] = []
        self.writers: list[str] = []
        self.error: Exception | None = None
        self._rest: deque[Outgoing] = deque()
        self._changed = trio.lowlevel.ParkingLot()
        self._coming: deque[Sequence[Incoming]] = deque()

    def interrupt(self) -> None:
        raise AssertionError("no task of a user's reads here")

    async def connect(self, nursery: trio.Nursery, stream: trio.abc.Stream, upgrade: Upgrade) -> FakeLink:
        await trio.aclose_forcefully(stream)
        self.heard_at = self.moved_at = trio.current_time()
        return self

    def make_room(self, items: float) -> None:
        """Let the network take so many more."""
        self.room += items
        self._changed.unpark_all()

    def fail(self, error: Exception) -> None:
        """Let it be found that the link has ended."""
        self.error = error
        self._changed.unpark_all()

    def come_in(self, *batch: Incoming) -> None:
        self._coming.append(batch)
        self._changed.unpark_all()

    def send_nowait(self, batch: Sequence[Outgoing]) -> bool:
        if self.error is not None:
            raise self.error
        assert not self._rest, "the batch before is not through"
        self.batches.append(list(batch))
        self.writers.append(trio.lowlevel.current_task().name)
        self._rest.extend(batch)
        if self.is_direct:
            self._take()
        return not self._rest

    def _take(self) -> None:
        while self._rest and self.room:
            self.room -= 1
            self.items_sent += 1
            self.sent.append(self._rest.popleft())
            self.moved_at = trio.current_time()

    async def send(self, batch: Sequence[Outgoing]) -> None:
        assert not batch, "what is sent has been taken already"
        await trio.lowlevel.checkpoint()
        try:
            self._take()
            while self._rest:
                if self.error is not None:
                    raise self.error
                await self._changed.park()
                self._take()
        finally:
            self._rest.clear()

    async def receive(self) -> Sequence[Incoming]:
        while not self._coming:
            if self.error is not None:
                raise self.error
            await self._changed.park()
        return self._coming.popleft()

    async def aclose(self, code: int, reason: str) -> None:
        self.ending = Ending(code, "", clean=True)
        await self.abort()

    async def abort(self) -> None:
        self.fail(trio.ClosedResourceError("this link was closed on our side"))
        await trio.lowlevel.cancel_shielded_checkpoint()


class Kit:
    """A writer between an outbox and a link, and what became of its tasks."""

    def __init__(
        self,
        nursery: trio.Nursery,
        link: FakeLink,
        *,
        buffer: Buffer | None = None,
        tracks: bool = False,
        resends: bool = False,
    ) -> None:
        self.nursery = nursery
        self.link = link
        self.drops: list[DropEvent] = []
        self.outbox = Outbox(buffer or Buffer(None, None), self.drops.append, tracks=tracks, resends=resends)
        self.writer = Writer(cast(Link, link), self.outbox, self._start)
        self.outbox.nudge = self.writer.nudge
        self.outbox.push = self.writer.push if link.is_direct else None
        self.tasks = 0
        self.is_close_due = False
        self.ends: list[object] = []
        self.scope: trio.CancelScope | None = None

    def _start(self) -> None:
        self.tasks += 1
        self.nursery.start_soon(self._run, name="ours")

    async def _run(self) -> None:
        with trio.CancelScope() as self.scope:
            try:
                self.ends.append(await self.writer.run_until(lambda: self.is_close_due))
            except ConnectionClosed as error:
                self.ends.append((trio.current_time(), error.code))

    def put(self, *messages: Message) -> None:
        for message in messages:
            if not self.outbox.put_quick(message, len(message)):
                self.outbox.put_nowait(message, None)

    @property
    def left(self) -> list[Message]:
        return [each.message for each in self.outbox.leftovers()]


@asynccontextmanager
async def writing(
    *, is_direct: bool = True, room: float = inf, tracks: bool = False, resends: bool = False
) -> AsyncGenerator[Kit]:
    """Open a writer over a link of which nothing is known yet."""
    async with trio.open_nursery() as nursery:
        kit = Kit(nursery, FakeLink(is_direct=is_direct, room=room), tracks=tracks, resends=resends)
        kit.writer.open()
        yield kit
        nursery.cancel_scope.cancel()


def names(number: int, start: int = 0) -> list[Message]:
    return [str(each) for each in range(start, start + number)]


# ------------------------------------------------------------------------------------ a lone message


async def put_quick(kit: Kit, message: str) -> None:
    assert kit.outbox.put_quick(message, len(message))


async def put(kit: Kit, message: str) -> None:
    await kit.outbox.put(message, None)


async def put_with_ttl(kit: Kit, message: str) -> None:
    await kit.outbox.put(message, 0.0)


async def put_nowait(kit: Kit, message: str) -> None:
    kit.outbox.put_nowait(message, 5.0)


PUTS = pytest.mark.parametrize("call", [put_quick, put, put_with_ttl, put_nowait])
Put = Callable[[Kit, str], Awaitable[None]]


@PUTS
@pytest.mark.parametrize("tracks", [False, True])
async def test_a_lone_message_goes_out_in_the_sender_s_own_task_before_the_call_returns(
    tracks: bool, call: Put, stopwatch: Stopwatch
) -> None:
    async with writing(tracks=tracks) as kit:
        for number in range(3):
            await call(kit, str(number))
            assert kit.link.sent == names(number + 1)
            stopwatch.now += 2 * QUIET

        assert kit.link.writers == [trio.lowlevel.current_task().name] * 3
        assert kit.tasks == 0
        assert (kit.outbox.messages_sent, kit.outbox.bytes_sent) == (3, 3)
        assert kit.outbox.messages_buffered == 0
        assert kit.outbox.messages_unconfirmed == (3 if tracks else 0)
        assert kit.outbox.is_empty


async def test_who_flushes_right_after_a_lone_message_need_not_wait(stopwatch: Stopwatch) -> None:
    async with writing() as kit:
        kit.put("a")

        await kit.outbox.flush(kit.outbox.mark())

        assert kit.outbox.newest_sent == 1


async def test_a_message_soon_after_another_waits_for_the_next_pass_and_one_after_something_came_in_does_not(
    stopwatch: Stopwatch,
) -> None:
    async with writing() as kit:
        kit.put("0")
        kit.writer.note_read()
        kit.put("1")
        assert kit.link.sent == names(2)

        stopwatch.now += QUIET / 2
        kit.put("2")
        assert kit.link.sent == names(2)
        await wait_all_tasks_blocked()
        assert kit.link.sent == names(3)

        assert kit.ends == [False]
        stopwatch.now += QUIET * 2
        kit.put("3")
        assert kit.link.sent == names(4)


# ------------------------------------------------------------------------------------ several


@pytest.mark.parametrize("number", [2, 5, 100])
async def test_several_before_the_next_pass_leave_together(number: int) -> None:
    async with writing() as kit:
        kit.put(*names(number))
        assert kit.link.sent == ["0"]
        await wait_all_tasks_blocked()

        assert kit.link.batches == [["0"], names(number - 1, 1)]
        assert kit.link.writers[1] == "ours"
        assert kit.tasks == 1
        assert kit.ends == [False]


async def test_while_there_is_the_task_it_is_the_one(stopwatch: Stopwatch) -> None:
    async with writing() as kit:
        kit.put("0", "1")
        stopwatch.now += 1
        kit.put("2")
        assert kit.link.sent == ["0"]
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        stopwatch.now += 1
        kit.put("3")
        await wait_all_tasks_blocked()

        assert kit.link.sent == names(4)
        assert kit.link.writers[1:] == ["ours"] * (len(kit.link.writers) - 1)


async def test_after_a_write_of_many_the_next_is_one_of_many_until_there_is_a_lull(stopwatch: Stopwatch) -> None:
    async with writing() as kit:
        kit.put(*names(2 + FEW))
        await wait_all_tasks_blocked()
        assert len(kit.link.batches) == 2

        kit.writer.note_read()
        stopwatch.now += LULL / 2
        kit.put("x")
        assert kit.link.sent[-1] != "x"
        await wait_all_tasks_blocked()
        stopwatch.now += QUIET * 2
        kit.put("y")

        assert kit.link.sent[-1] == "y"
        kit.put(*names(2 + FEW))
        await wait_all_tasks_blocked()
        stopwatch.now += LULL * 2
        kit.put("z")
        assert kit.link.sent[-1] == "z"


async def test_many_large_messages_leave_in_batches_of_a_bounded_size(stopwatch: Stopwatch) -> None:
    large: list[Message] = [bytes([number]) * 30_000 for number in range(10)]
    async with writing() as kit:
        kit.put("first", *large)
        await wait_all_tasks_blocked()

        assert kit.link.sent == ["first", *large]
        assert all(len(batch) <= 2 for batch in kit.link.batches)


async def test_what_came_before_it_was_opened_is_sent_when_it_is() -> None:
    async with trio.open_nursery() as nursery:
        kit = Kit(nursery, FakeLink())
        kit.put(*names(3))
        kit.writer.wake()
        assert kit.tasks == 0

        kit.writer.open()
        await wait_all_tasks_blocked()

        assert kit.link.batches == [names(3)]
        assert kit.ends == [False]


async def test_opened_with_nothing_to_send_it_starts_no_task() -> None:
    async with writing() as kit:
        await wait_all_tasks_blocked()

        assert kit.tasks == 0


async def test_over_a_link_that_is_not_direct_the_task_sends(stopwatch: Stopwatch) -> None:
    async with writing(is_direct=False) as kit:
        for number in range(3):
            kit.put(str(number))
            assert kit.link.batches == [[name] for name in names(number)]
            await wait_all_tasks_blocked()
            stopwatch.now += 1

        assert kit.link.sent == names(3)
        assert kit.link.writers == ["ours"] * 3
        assert kit.tasks == 3


# ------------------------------------------------------------------------------------ what does not go at once


@PUTS
@pytest.mark.parametrize("tracks", [False, True])
async def test_what_the_network_does_not_take_at_once_the_task_finishes(
    tracks: bool, call: Put, stopwatch: Stopwatch
) -> None:
    async with writing(room=0, tracks=tracks) as kit:
        await call(kit, "0")
        assert kit.link.sent == []
        assert kit.tasks == 1
        stopwatch.now += 1
        kit.put("1", "2")
        await wait_all_tasks_blocked()
        assert (kit.outbox.messages_buffered, kit.outbox.bytes_buffered) == (3, 3)
        assert kit.left == names(3)

        kit.link.make_room(1)
        await wait_all_tasks_blocked()
        assert kit.link.sent == ["0"]
        assert kit.outbox.messages_sent == 1
        kit.link.make_room(9)
        await wait_all_tasks_blocked()

        assert kit.link.sent == names(3)
        assert kit.ends == [False]
        assert kit.outbox.is_empty
        assert (kit.outbox.messages_sent, kit.outbox.bytes_sent) == (3, 3)
        assert kit.drops == []


async def test_what_a_full_outbox_kept_waiting_follows_in_order(stopwatch: Stopwatch) -> None:
    async with trio.open_nursery() as nursery:
        kit = Kit(nursery, FakeLink(room=1), buffer=Buffer(max_messages=2))
        kit.writer.open()
        for number in range(8):
            nursery.start_soon(kit.outbox.put, str(number), None)
            await wait_all_tasks_blocked()
            stopwatch.now += 1
        assert kit.link.sent == ["0"]

        for _ in range(7):
            kit.link.make_room(1)
            await wait_all_tasks_blocked()

        assert kit.link.sent == names(8)


# ------------------------------------------------------------------------------------ failures

LOST = ConnectionClosed(1006)


@PUTS
@pytest.mark.parametrize("error", [LOST, ConnectionClosed(4000, "kicked")], ids=repr)
async def test_a_direct_write_that_fails_does_not_raise_and_the_message_is_put_back(
    error: ConnectionClosed, call: Put, autojump_clock: MockClock
) -> None:
    async with writing() as kit:
        kit.link.fail(error)

        await call(kit, "a")
        assert kit.left == ["a"]
        await wait_all_tasks_blocked()

        assert kit.left == ["a"] or call is put_with_ttl
        assert kit.tasks == 1
        await trio.sleep(2 * LAST_WORDS)
        assert kit.ends == [(LAST_WORDS, error.code)]
        assert kit.outbox.messages_sent == 0


async def test_a_link_that_we_have_closed_takes_nothing_and_sends_nothing_back(autojump_clock: MockClock) -> None:
    async with writing() as kit:
        kit.link.fail(trio.ClosedResourceError())
        kit.is_close_due = True

        kit.put("a", "b")
        await wait_all_tasks_blocked()

        assert kit.left == ["a", "b"]
        assert kit.ends == [True]


@pytest.mark.parametrize("tracks", [False, True])
async def test_a_direct_write_that_fails_half_way_tells_what_became_of_each_message(
    tracks: bool, autojump_clock: MockClock
) -> None:
    async with writing(room=0, tracks=tracks) as kit:
        kit.put("a")
        await wait_all_tasks_blocked()
        kit.put("b")
        kit.link.fail(LOST)
        await trio.sleep(2 * LAST_WORDS)

        assert kit.ends == [(LAST_WORDS, 1006)]
        assert kit.outbox.leftovers() == (Undelivered("a", "unsent"), Undelivered("b", "unsent"))
        assert kit.outbox.room.messages == 2


async def test_of_a_batch_that_fails_half_way_the_first_half_is_told_as_sent(autojump_clock: MockClock) -> None:
    async with writing(room=3, tracks=True) as kit:
        kit.put(*names(6))
        await wait_all_tasks_blocked()
        kit.link.fail(LOST)
        await trio.sleep(2 * LAST_WORDS)

        assert kit.outbox.messages_unconfirmed == 3
        assert kit.left == names(3, 3)


async def test_when_a_write_fails_it_waits_for_the_reader_to_find_out_why(autojump_clock: MockClock) -> None:
    async with writing() as kit:
        kit.link.fail(LOST)
        kit.put("a")
        await trio.sleep(LAST_WORDS / 2)

        kit.is_close_due = True
        kit.writer.wake()
        await wait_all_tasks_blocked()

        assert kit.ends == [True]
        assert kit.tasks == 1


# ------------------------------------------------------------------------------------ pings


async def test_a_ping_goes_directly_too_and_covers_what_was_sent_before_it(stopwatch: Stopwatch) -> None:
    async with writing() as kit:
        kit.put("a")
        covers: list[int] = []
        stopwatch.now += 1

        kit.writer.send_now(Ping(b"1"), lambda: covers.append(kit.outbox.newest_sent))

        assert kit.link.sent == ["a", Ping(b"1")]
        assert covers == [1]
        assert kit.tasks == 0
        assert kit.outbox.messages_sent == 1


async def test_pings_leave_ahead_of_what_waits_and_are_not_counted(stopwatch: Stopwatch) -> None:
    async with writing(room=1) as kit:
        covers: list[int] = []
        kit.put("a", "b", "c")
        await wait_all_tasks_blocked()
        for number in range(2):
            kit.writer.send_now(Ping(b"%d" % number), lambda: covers.append(kit.outbox.newest_sent))
        kit.put("d")

        assert covers == []
        kit.link.make_room(9)
        await wait_all_tasks_blocked()

        assert kit.link.sent == ["a", "b", "c", Ping(b"0"), Ping(b"1"), "d"]
        assert covers == [3, 3]
        assert kit.outbox.messages_sent == 4


async def test_a_ping_that_is_forgotten_before_it_leaves_does_not_leave(stopwatch: Stopwatch) -> None:
    async with writing(room=0) as kit:
        left: list[str] = []
        pings = [Ping(b"first"), Ping(b"forgotten"), Ping(b"last")]
        kit.put("a")
        for ping in pings:
            kit.writer.send_now(ping, partial(left.append, str(ping.payload)))
        kit.writer.forget(pings[1])
        kit.link.make_room(9)
        await wait_all_tasks_blocked()

        assert kit.link.sent == ["a", pings[0], pings[2]]
        assert left == ["b'first'", "b'last'"]


async def test_a_ping_that_is_cut_off_with_a_message_behind_it_leaves_that_unsent_and_whole(
    autojump_clock: MockClock,
) -> None:
    async with writing(room=0, resends=True, tracks=True) as kit:
        kit.writer.send_now(Ping(b"1"), lambda: None)
        kit.put("a", "b")
        await wait_all_tasks_blocked()
        kit.link.fail(LOST)
        await trio.sleep(2 * LAST_WORDS)
        kit.outbox.break_off(LOST)

        # Nothing of a message can have been what the peer found too big.
        account = kit.outbox.settle_account(is_proved=False, peers_code=1009, lasted=True)
        assert not account.rejected
        assert kit.left == ["a", "b"]


async def test_a_message_that_came_past_a_ping_that_waits_does_not_overtake_it(stopwatch: Stopwatch) -> None:
    async with writing() as kit:
        kit.put("a")
        kit.writer.send_now(Ping(b"soon after"), lambda: None)
        stopwatch.now += 1

        kit.put("b")
        await wait_all_tasks_blocked()

        assert kit.link.sent == ["a", Ping(b"soon after"), "b"]


# ------------------------------------------------------------------------------------ closing


async def test_when_a_close_is_due_it_stops_between_two_batches(autojump_clock: MockClock) -> None:
    async with writing(room=0) as kit:
        kit.put("a")
        await wait_all_tasks_blocked()
        kit.put("b")
        kit.is_close_due = True
        kit.writer.wake()
        await wait_all_tasks_blocked()
        assert kit.ends == []

        kit.link.make_room(9)
        await wait_all_tasks_blocked()

        assert kit.ends == [True]
        assert kit.link.sent == ["a"]
        assert kit.left == ["b"]


async def test_a_close_that_is_due_with_nothing_to_send_is_told_at_once() -> None:
    async with writing() as kit:
        kit.is_close_due = True
        kit.writer.wake()
        await wait_all_tasks_blocked()

        assert kit.ends == [True]
        assert kit.tasks == 1


async def test_after_the_close_nothing_is_sent_directly_any_more(stopwatch: Stopwatch) -> None:
    async with writing() as kit:
        kit.is_close_due = True
        kit.writer.wake()
        await wait_all_tasks_blocked()
        stopwatch.now += 1

        kit.put("a")
        kit.writer.send_now(Ping(b"1"), lambda: None)
        await wait_all_tasks_blocked()

        assert kit.link.sent == []
        assert kit.tasks == 1


async def test_what_a_cancelled_task_had_under_way_is_put_back(stopwatch: Stopwatch) -> None:
    async with writing(room=1) as kit:
        kit.put("a", "b", "c")
        await wait_all_tasks_blocked()
        assert kit.link.batches == [["a"], ["b", "c"]]

        assert kit.scope is not None
        kit.scope.cancel()
        await wait_all_tasks_blocked()

        assert kit.ends == []
        assert kit.left == ["b", "c"]
        assert kit.outbox.messages_sent == 1


# ------------------------------------------------------------------------------------ a law

deeds = st.one_of(
    st.tuples(st.just("put"), st.integers(1, 12), st.sampled_from(["quick", "nowait", "ttl"])),
    st.tuples(st.just("put"), st.just(1), st.sampled_from(["quick", "nowait", "ttl"])),
    st.tuples(st.just("wait_for_room")),
    st.tuples(st.just("ping")),
    st.tuples(st.just("tick"), st.sampled_from([QUIET / 3, 2 * QUIET, 2 * LULL])),
    st.tuples(st.just("read")),
    st.tuples(st.just("passes"), st.integers(1, 4)),
    st.tuples(st.just("make_room"), st.integers(1, 8)),
    st.tuples(st.just("stall")),
)


class Program:
    """Does to a writer what a program says, and keeps the order in which it was asked."""

    def __init__(self, kit: Kit, stopwatch: Stopwatch) -> None:
        self.kit = kit
        self.stopwatch = stopwatch
        self.numbers = count()
        self.asked: list[Message] = []
        self.pings: list[Ping] = []

    def put(self, number: int, how: str) -> None:
        for _ in range(number):
            message = str(next(self.numbers))
            if self.kit.outbox._senders:
                return
            if how == "quick" and self.kit.outbox.put_quick(message, len(message)):
                self.asked.append(message)
            elif self.kit.outbox.room.fits(len(message)):
                self.kit.outbox.put_nowait(message, 1e6 if how == "ttl" else None)
                self.asked.append(message)

    def wait_for_room(self) -> None:
        self.asked.append(str(next(self.numbers)))
        self.kit.nursery.start_soon(self.kit.outbox.put, self.asked[-1], None)

    def ping(self) -> None:
        self.pings.append(Ping(b"%d" % len(self.pings)))
        self.kit.writer.send_now(self.pings[-1], lambda: None)

    def tick(self, seconds: float) -> None:
        self.stopwatch.now += seconds

    def read(self) -> None:
        self.kit.writer.note_read()

    def make_room(self, items: int) -> None:
        self.kit.link.make_room(items)

    def stall(self) -> None:
        self.kit.link.room = 0


@given(
    program=st.lists(deeds, max_size=40),
    is_direct=st.booleans(),
    tracks=st.booleans(),
    max_messages=st.sampled_from([None, 3, 20]),
)
def test_whatever_is_sent_directly_or_by_the_task_leaves_once_and_in_order(
    program: list[tuple[object, ...]], is_direct: bool, tracks: bool, max_messages: int | None
) -> None:
    async def main(watch: Stopwatch) -> None:
        async with trio.open_nursery() as nursery:
            link = FakeLink(is_direct=is_direct, room=3)
            kit = Kit(nursery, link, buffer=Buffer(max_messages, None), tracks=tracks)
            kit.writer.open()
            work = Program(kit, watch)
            for name, *arguments in program:
                if name == "passes":
                    for _ in range(cast(int, arguments[0])):
                        await trio.lowlevel.checkpoint()
                elif name == "wait_for_room":  # who sends next must not come before it
                    work.wait_for_room()
                    await wait_all_tasks_blocked()
                else:
                    getattr(work, str(name))(*arguments)
                sent = [item for item in link.sent if isinstance(item, str)]
                assert sent == work.asked[: len(sent)]
                assert kit.outbox.messages_sent <= len(sent)
                kit.outbox.confirm(kit.outbox.newest_sent)
            link.make_room(inf)
            await wait_all_tasks_blocked()
            kit.outbox.confirm(kit.outbox.newest_sent)
            await wait_all_tasks_blocked()

            assert [item for item in link.sent if isinstance(item, str)] == work.asked
            assert [item for item in link.sent if isinstance(item, Ping)] == work.pings
            assert kit.outbox.is_empty
            assert (kit.outbox.room.messages, kit.outbox.room.bytes) == (0, 0)
            assert kit.outbox.messages_sent == len(work.asked)
            assert kit.outbox.bytes_sent == sum(map(len, work.asked))
            assert kit.drops == []

    watch = Stopwatch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trio_wsprim._writer.perf_counter", watch)
        trio.run(main, watch, clock=MockClock(autojump_threshold=0))


# ------------------------------------------------------------------------------------ whole sockets


class Dials:
    """A transport that gives one link after another."""

    def __init__(self, *links: FakeLink) -> None:
        self._links = iter(links)

    async def connect(self, nursery: trio.Nursery, stream: trio.abc.Stream, upgrade: Upgrade) -> FakeLink:
        return await next(self._links).connect(nursery, stream, upgrade)


@pytest.mark.parametrize("before", [0, 1, 2])
@pytest.mark.parametrize("after", [1, 3])
async def test_what_is_sent_right_after_a_reconnect_goes_to_the_next_connection(
    after: int, before: int, autojump_clock: MockClock
) -> None:
    links = [FakeLink(), FakeLink()]
    async with trio_wsprim.create_reconnecting_ws(
        URL, open_stream=MemoryNetwork().open_stream, transport=Dials(*links), delay=1
    ) as ws:
        await ws.wait_open()
        await wait_all_tasks_blocked()

        for number in range(before):
            await ws.send(f"before {number}")
        ws.reconnect()
        for number in range(after):
            await ws.send(f"after {number}")
        await trio.sleep(2)

        assert not [item for item in links[0].sent if str(item).startswith("after")]
        assert [item for item in links[1].sent if str(item).startswith("after")] == [
            f"after {number}" for number in range(after)
        ]


async def test_a_ping_that_was_asked_for_right_before_a_reconnect_takes_nothing_to_the_old_connection(
    autojump_clock: MockClock,
) -> None:
    for passes in range(4):
        links = [FakeLink(), FakeLink()]
        async with (
            trio_wsprim.create_reconnecting_ws(
                URL, open_stream=MemoryNetwork().open_stream, transport=Dials(*links), delay=1
            ) as ws,
            trio.open_nursery() as nursery,
        ):
            await ws.wait_open()
            await wait_all_tasks_blocked()

            nursery.start_soon(ping_in_vain, ws)
            for _ in range(passes):
                await trio.lowlevel.checkpoint()
            ws.reconnect()
            await ws.send("after")
            await trio.sleep(2)
            nursery.cancel_scope.cancel()

        assert "after" not in links[0].sent
        assert "after" in links[1].sent


async def ping_in_vain(ws: trio_wsprim.WebSocket) -> None:
    with suppress(ConnectionClosed):
        await ws.ping()


async def test_a_direct_write_that_fails_is_told_by_the_socket_and_not_by_send(autojump_clock: MockClock) -> None:
    link = FakeLink()
    with pytest.raises(ConnectionClosed):
        async with trio_wsprim.create_ws(URL, open_stream=MemoryNetwork().open_stream, transport=link) as ws:
            await ws.wait_open()
            await wait_all_tasks_blocked()
            await ws.send("arrives")
            link.fail(LOST)

            await ws.send("fails")
            event = await ws.wait_closed()

    assert (event.code, event.clean) == (1006, False)
    assert ws.undelivered == (Undelivered("fails", "unsent"),)
    assert ws.statistics().messages_sent == 1


async def test_a_message_that_the_network_took_in_part_is_undelivered(autojump_clock: MockClock) -> None:
    link = FakeLink(room=1)
    with pytest.raises(UndeliveredError) as caught:
        async with trio_wsprim.create_ws(
            URL, open_stream=MemoryNetwork().open_stream, transport=link, close_timeout=1
        ) as ws:
            await ws.wait_open()
            await ws.send("arrives")
            await wait_all_tasks_blocked()
            await ws.send("stuck")

    assert caught.value.messages == (Undelivered("stuck", "unsent"),)
    assert trio.current_time() == 1


async def test_the_ping_of_a_user_goes_out_in_his_own_task_and_a_heartbeat_in_none_of_its_own(
    autojump_clock: MockClock,
) -> None:
    link = FakeLink()
    async with (
        trio_wsprim.create_ws(URL, open_stream=MemoryNetwork().open_stream, transport=link) as ws,
        trio.open_nursery() as nursery,
    ):
        await ws.wait_open()
        make_heartbeat_ws(ws, message="beat", interval=2, wait=2)
        nursery.start_soon(ws.ping, name="user")
        await wait_all_tasks_blocked()
        assert link.writers == ["user"]
        [ping] = link.sent
        assert isinstance(ping, Ping)
        link.come_in(Pong(ping.payload))
        await trio.sleep(3)

        assert link.sent[1:] == ["beat"]
        assert link.writers[1:] == ["trio_wsprim clock"]
        await ws.aclose()


async def test_a_message_with_no_time_to_wait_goes_out_directly_while_the_socket_is_open(
    autojump_clock: MockClock,
) -> None:
    link = FakeLink()
    async with trio_wsprim.create_ws(URL, open_stream=MemoryNetwork().open_stream, transport=link) as ws:
        await ws.send("too early", ttl=0)
        await ws.wait_open()
        await wait_all_tasks_blocked()

        ws.send_nowait("now", ttl=0)
        assert link.sent == ["now"]

    assert ws.statistics().messages_dropped == 1
