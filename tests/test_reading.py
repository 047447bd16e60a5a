"""Who reads: a user's task or ours, over a direct link that does exactly what a test says."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trio_wsprim  # by its name, since a module that knows an opener is run on each transport, and the link is ours
from trio_wsprim import Buffer, CloseEvent, ConnectionClosed, WebSocket, make_heartbeat_ws
from trio_wsprim._events_hub import EventsHub
from trio_wsprim._incoming import Incoming as IncomingMessages
from trio_wsprim._reading import Reading
from trio_wsprim._scopes import OneAtATime
from trio_wsprim._seam import Ending, Incoming, Link, Outgoing, Ping, Pong, Upgrade
from trio_wsprim._values import Message
from trio_wsprim.testing import MemoryNetwork

from .sockets import URL

GRACE = 0.02
USER = "user"


class DirectLink:
    """A direct link, and the transport that gives it. It notes which task took what, and takes all that is sent."""

    is_direct = True

    def __init__(self) -> None:
        self.subprotocol = None
        self.response_headers = ()
        self.items_sent = 0
        self.heard_at = self.moved_at = 0.0
        self.ending = Ending(1006, "", clean=False)
        self.sent: list[Outgoing] = []
        self.readers: list[str] = []
        self.when_sent: Callable[[Outgoing], None] | None = None
        self._receiving = OneAtATime("receiving")
        self._coming: deque[Sequence[Incoming]] = deque()
        self._changed = trio.lowlevel.ParkingLot()
        self._error: Exception | None = None
        self._is_interrupted = False

    async def connect(self, nursery: trio.Nursery, stream: trio.abc.Stream, upgrade: Upgrade) -> DirectLink:
        await trio.aclose_forcefully(stream)
        self.heard_at = self.moved_at = trio.current_time()
        return self

    def come_in(self, *batch: Incoming) -> None:
        """Let these be there to be read, together."""
        self._coming.append(batch)
        self._changed.unpark_all()

    def fail(self, error: Exception) -> None:
        """Let this be found behind what is there."""
        self._error = error
        self._changed.unpark_all()

    @property
    def unread(self) -> int:
        return len(self._coming)

    @property
    def is_being_read(self) -> bool:
        return self._receiving.is_busy

    def send_nowait(self, batch: Sequence[Outgoing]) -> bool:
        if self._error is not None:
            raise self._error
        self.moved_at = trio.current_time()
        for item in batch:
            self.sent.append(item)
            self.items_sent += 1
            if self.when_sent is not None:
                self.when_sent(item)
        return True

    async def send(self, batch: Sequence[Outgoing]) -> None:
        assert not batch, "a direct link is asked without waiting"
        await trio.lowlevel.checkpoint()

    async def receive(self) -> Sequence[Incoming]:
        with self._receiving:
            await trio.lowlevel.checkpoint_if_cancelled()
            while not self._coming:
                if self._error is not None:
                    self._note(self._error)
                    raise self._error
                await self._changed.park()
                if self._is_interrupted:
                    self._is_interrupted = False
                    raise trio.ClosedResourceError
            self._note(None)
            return self._coming.popleft()

    def interrupt(self) -> None:
        """Have who reads leave."""
        self._is_interrupted = self.is_being_read
        self._changed.unpark_all()

    def _note(self, error: Exception | None) -> None:
        self.readers.append(trio.lowlevel.current_task().name)
        self.heard_at = trio.current_time()
        if isinstance(error, ConnectionClosed):
            self.ending = Ending(error.code, error.reason, clean=False)

    async def aclose(self, code: int, reason: str) -> None:
        self.ending = Ending(code if self.ending.code == 1006 else self.ending.code, self.ending.reason, clean=True)
        await self.abort()

    async def abort(self) -> None:
        self._coming.clear()
        self.fail(trio.ClosedResourceError("this link was closed on our side"))
        await trio.lowlevel.cancel_shielded_checkpoint()


class Kit:
    """The reading side of a life, with real messages behind it and a link of the test's before it."""

    def __init__(self, buffer: Buffer | None = Buffer(), is_direct: bool = True) -> None:  # noqa: B008 - frozen
        self.link = DirectLink()
        self.link.is_direct = is_direct
        self.incoming = IncomingMessages(buffer, EventsHub(), lambda event: None)
        self.pongs: list[tuple[float, Incoming]] = []
        self.stands: list[tuple[float, bool]] = []
        self.ends: list[BaseException] = []
        self.got: list[Message] = []
        self.reading = self.make_reading()

    def make_reading(self) -> Reading:
        return Reading(cast(Link, self.link), self.incoming, self._deliver, self._stand, lambda: False)

    def _deliver(self, batch: Sequence[Incoming]) -> None:
        for item in batch:
            if isinstance(item, Pong):
                self.pongs.append((trio.current_time(), item))
            else:
                self.incoming.deliver([item])

    def _stand(self, stands: bool) -> None:
        self.stands.append((trio.current_time(), stands))

    async def run(self) -> None:
        """Be our task."""
        self.incoming.lend(self.reading)
        try:
            await self.reading.run()
        except (ConnectionClosed, LookupError, ZeroDivisionError) as error:
            self.ends.append(error)
        finally:
            self.incoming.lend(None)

    async def receive(self) -> None:
        """Be a user who receives once."""
        assert self.incoming.inbox is not None
        self.got.append(await self.incoming.inbox.receive())

    async def receive_all(self) -> None:
        """Be a user who receives again and again."""
        while True:
            await self.receive()

    @property
    def readers(self) -> list[str]:
        """Who has read, in order."""
        return [USER if name == USER else "ours" for name in self.link.readers]


@asynccontextmanager
async def reading(
    buffer: Buffer | None = Buffer(),  # noqa: B008 - frozen
    is_direct: bool = True,
) -> AsyncGenerator[tuple[Kit, trio.Nursery]]:
    """Run our task beside a test, in a nursery for its users."""
    kit = Kit(buffer, is_direct)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kit.run)
        await wait_all_tasks_blocked()
        yield kit, nursery
        nursery.cancel_scope.cancel()


async def start(nursery: trio.Nursery, work: Callable[[], Awaitable[None]]) -> trio.CancelScope:
    """Start a user, and wait until he waits."""
    scope = trio.CancelScope()

    async def run() -> None:
        with scope:
            await work()

    nursery.start_soon(run, name=USER)
    await wait_all_tasks_blocked()
    return scope


async def come_in(kit: Kit, *batch: Incoming) -> None:
    kit.link.come_in(*batch)
    await wait_all_tasks_blocked()


# ------------------------------------------------------------------------------------ who reads


async def test_from_the_second_message_on_the_user_reads_for_himself(autojump_clock: MockClock) -> None:
    async with reading() as (kit, nursery):
        await start(nursery, kit.receive_all)

        for name in "abcd":
            await come_in(kit, name)

        assert kit.got == ["a", "b", "c", "d"]
        assert kit.readers == ["ours", USER, USER, USER]


async def test_what_comes_together_is_read_once(autojump_clock: MockClock) -> None:
    async with reading() as (kit, nursery):
        await start(nursery, kit.receive_all)

        await come_in(kit, "a", "b")
        await come_in(kit, "c", "d", "e")

        assert kit.got == ["a", "b", "c", "d", "e"]
        assert kit.readers == ["ours", USER]


async def test_over_a_link_that_is_not_direct_only_our_task_reads(autojump_clock: MockClock) -> None:
    async with reading(is_direct=False) as (kit, nursery):
        await start(nursery, kit.receive_all)

        for name in "abc":
            await come_in(kit, name)

        assert kit.got == ["a", "b", "c"]
        assert kit.readers == ["ours"] * 3


async def test_where_nobody_receives_our_task_reads_without_a_pause(autojump_clock: MockClock) -> None:
    async with reading(None) as (kit, _), kit.incoming.subscribe(10, "wait") as receiver:
        for name in "abc":
            await come_in(kit, name)
            assert receiver.receive_nowait() == name

        assert kit.readers == ["ours"] * 3
        assert trio.current_time() == 0


async def test_who_only_looks_without_waiting_is_read_for_without_a_pause(autojump_clock: MockClock) -> None:
    async with reading() as (kit, _):
        assert kit.incoming.inbox is not None
        for name in "abc":
            await come_in(kit, name)
            assert kit.incoming.inbox.receive_nowait() == name

        assert kit.readers == ["ours"] * 3


async def test_a_pong_that_a_user_reads_is_delivered_and_he_reads_on(autojump_clock: MockClock) -> None:
    async with reading() as (kit, nursery):
        await start(nursery, kit.receive_all)
        await come_in(kit, "a")

        await come_in(kit, Pong(b"1"))
        await come_in(kit, Pong(b"2"), "b")

        assert kit.pongs == [(0, Pong(b"1")), (0, Pong(b"2"))]
        assert kit.got == ["a", "b"]
        assert kit.readers == ["ours", USER, USER]


async def test_where_two_receive_at_once_each_message_goes_to_exactly_one(autojump_clock: MockClock) -> None:
    async with reading(Buffer(None, None)) as (kit, nursery):
        for _ in range(2):
            await start(nursery, kit.receive_all)

        expected = [str(number) for number in range(200)]
        chance = random.Random(4)
        rest = list(expected)
        while rest:
            size = chance.randint(1, 4)
            kit.link.come_in(*rest[:size])
            del rest[:size]
            if chance.random() < 0.5:
                await wait_all_tasks_blocked()
            elif chance.random() < 0.5:
                await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()

        assert sorted(map(str, kit.got)) == sorted(expected)
        assert kit.link.unread == 0


async def test_who_comes_while_another_reads_waits_and_both_are_served(autojump_clock: MockClock) -> None:
    async with reading() as (kit, nursery):
        await start(nursery, kit.receive)
        await come_in(kit, "a")
        for _ in range(3):
            await start(nursery, kit.receive)
        assert kit.link.is_being_read

        await come_in(kit, "b")
        await come_in(kit, "c", "d")

        assert sorted(map(str, kit.got)) == ["a", "b", "c", "d"]
        assert kit.readers == ["ours", USER, "ours"]  # the first of them read; who waited behind him is woken


# ------------------------------------------------------------------------------------ giving up


async def test_a_user_who_is_cancelled_while_he_reads_loses_nothing(autojump_clock: MockClock) -> None:
    async with reading() as (kit, nursery):
        await start(nursery, kit.receive)
        await come_in(kit, "a")
        scope = await start(nursery, kit.receive)
        assert kit.link.is_being_read

        scope.cancel()
        await wait_all_tasks_blocked()
        assert not kit.link.is_being_read
        kit.link.come_in("b")
        await start(nursery, kit.receive)

        assert kit.got == ["a", "b"]
        assert kit.readers == ["ours", USER]


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_user_who_is_cancelled_in_the_moment_in_which_something_comes_loses_nothing(
    is_first: bool, autojump_clock: MockClock
) -> None:
    async with reading() as (kit, nursery):
        await start(nursery, kit.receive)
        await come_in(kit, "a")
        for number in range(20):
            scope = await start(nursery, kit.receive)
            if is_first:
                scope.cancel()
            kit.link.come_in(str(number))
            scope.cancel()
            await wait_all_tasks_blocked()
            if len(kit.got) < number + 2:
                await start(nursery, kit.receive)

        assert kit.got == ["a", *map(str, range(20))]


async def test_when_the_one_who_reads_gives_up_another_who_waits_is_served(autojump_clock: MockClock) -> None:
    async with reading() as (kit, nursery):
        await start(nursery, kit.receive)
        await come_in(kit, "a")
        scope = await start(nursery, kit.receive)
        await start(nursery, kit.receive)

        scope.cancel()
        await wait_all_tasks_blocked()
        assert kit.link.is_being_read
        await come_in(kit, "b")

        assert kit.got == ["a", "b"]
        assert trio.current_time() == 0


# ------------------------------------------------------------------------------------ the grace


async def test_a_user_who_was_woken_and_does_not_come_back_is_read_for_after_the_grace(
    autojump_clock: MockClock,
) -> None:
    async with reading() as (kit, nursery):
        await start(nursery, kit.receive)
        await come_in(kit, "a")
        kit.link.come_in(Pong(b"1"))

        await trio.sleep(GRACE - 0.001)
        assert kit.pongs == []
        await trio.sleep(0.002)

        assert [at for at, _ in kit.pongs] == pytest.approx([GRACE])
        assert kit.readers == ["ours", "ours"]


@pytest.mark.parametrize("gap", [0.0, 0.001, 0.01, 0.0199, 0.0201, 0.03])
@pytest.mark.parametrize("reads", [1, 2, 5])
async def test_when_a_user_stops_reading_our_task_takes_over_within_one_or_two_graces(
    reads: int, gap: float, autojump_clock: MockClock
) -> None:
    async with reading() as (kit, nursery):
        await start(nursery, kit.receive)
        await come_in(kit, "a")
        last = trio.current_time()
        for number in range(reads):
            await trio.sleep(gap)
            kit.link.come_in(str(number))
            await start(nursery, kit.receive)
            last = trio.current_time()

        await trio.sleep(0.0005)
        kit.link.come_in(Pong(b"1"))
        await trio.sleep(1)

        [(at, _)] = kit.pongs
        taken_over = gap >= GRACE  # then it was our task that had read, and goes on doing so
        assert at - last <= 2 * GRACE + 1e-9
        assert taken_over or at - last >= GRACE - 0.0005
        assert kit.link.unread == 0


async def test_a_user_who_keeps_reading_keeps_it(autojump_clock: MockClock) -> None:
    async with reading(Buffer(None, None)) as (kit, nursery):
        await start(nursery, kit.receive_all)

        for number in range(300):
            await trio.sleep(0.001 * (number % 30))
            kit.link.come_in(str(number))
        await wait_all_tasks_blocked()

        assert kit.got == list(map(str, range(300)))
        assert kit.readers == ["ours"] + [USER] * 299


async def test_a_user_who_reads_for_a_long_time_is_not_disturbed_and_given_the_grace_when_he_leaves(
    autojump_clock: MockClock,
) -> None:
    async with reading() as (kit, nursery):
        await start(nursery, kit.receive)
        await come_in(kit, "a")
        await start(nursery, kit.receive)

        await trio.sleep(10)
        await come_in(kit, "b")
        kit.link.come_in(Pong(b"1"))
        await trio.sleep(1)

        assert kit.got == ["a", "b"]
        assert kit.readers == ["ours", USER, "ours"]
        assert [at for at, _ in kit.pongs] == pytest.approx([10 + GRACE])


async def test_who_expects_an_answer_is_read_for_at_once(autojump_clock: MockClock) -> None:
    async with reading() as (kit, nursery):
        await start(nursery, kit.receive)
        await come_in(kit, "a")
        kit.link.come_in(Pong(b"1"))
        await wait_all_tasks_blocked()
        assert kit.pongs == []

        kit.reading.go_on()
        await wait_all_tasks_blocked()

        assert kit.pongs == [(0, Pong(b"1"))]
        await start(nursery, kit.receive_all)
        await come_in(kit, "b")
        await come_in(kit, "c")
        assert kit.got == ["a", "b", "c"]
        assert kit.readers == ["ours", "ours", "ours", USER]


async def test_who_expects_an_answer_where_our_task_reads_changes_nothing(autojump_clock: MockClock) -> None:
    async with reading() as (kit, nursery):
        kit.reading.go_on()
        await start(nursery, kit.receive_all)
        kit.reading.go_on()
        await come_in(kit, "a")
        kit.reading.go_on()
        kit.reading.go_on()
        await come_in(kit, Pong(b"1"))

        assert kit.pongs == [(0, Pong(b"1"))]


@pytest.mark.parametrize("leaves", ["with a message", "cancelled"])
async def test_who_expects_an_answer_while_a_user_reads_is_read_for_when_that_user_leaves(
    leaves: str, autojump_clock: MockClock
) -> None:
    async with reading() as (kit, nursery):
        await start(nursery, kit.receive)
        await come_in(kit, "a")
        scope = await start(nursery, kit.receive)
        assert kit.link.is_being_read

        kit.reading.go_on()
        if leaves == "cancelled":
            scope.cancel()
        else:
            kit.link.come_in("b")
        await wait_all_tasks_blocked()
        await come_in(kit, Pong(b"1"))

        assert kit.pongs == [(0, Pong(b"1"))]


# ------------------------------------------------------------------------------------ others who wait


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_subscriber_is_served_at_once_beside_a_user_who_takes_one_message_and_leaves(
    is_first: bool, autojump_clock: MockClock
) -> None:
    async with reading() as (kit, nursery), AsyncExitStack() as stack:
        subscription = kit.incoming.subscribe(10, "wait")
        if not is_first:
            await start(nursery, kit.receive)
            await come_in(kit, "a")
        receiver = await stack.enter_async_context(subscription)
        if is_first:
            await start(nursery, kit.receive)
            await come_in(kit, "a")
        await wait_all_tasks_blocked()

        await come_in(kit, "b")
        assert [receiver.receive_nowait() for _ in range(1 + is_first)][-1] == "b"
        await start(nursery, kit.receive)  # takes what is there
        await start(nursery, kit.receive)
        await come_in(kit, "c")
        await come_in(kit, "d")

        assert [receiver.receive_nowait() for _ in range(2)] == ["c", "d"]
        assert trio.current_time() == 0


async def test_a_subscriber_who_comes_while_a_user_reads_is_served_when_that_one_leaves(
    autojump_clock: MockClock,
) -> None:
    async with reading() as (kit, nursery):
        await start(nursery, kit.receive)
        await come_in(kit, "a")
        scope = await start(nursery, kit.receive)
        async with kit.incoming.subscribe(10, "wait") as receiver:
            assert kit.link.is_being_read
            scope.cancel()
            await wait_all_tasks_blocked()

            await come_in(kit, "b")

            assert receiver.receive_nowait() == "b"
            assert kit.readers == ["ours", "ours"]
            assert trio.current_time() == 0


async def test_who_waits_for_the_message_signal_is_told_at_once(autojump_clock: MockClock) -> None:
    async with reading() as (kit, nursery):
        seen: list[object] = []

        async def watch() -> None:
            async for message in kit.incoming.message.signal.values():
                seen.append(message)

        async def wait() -> None:
            seen.append(await kit.incoming.message.signal.wait_value("b"))

        await start(nursery, kit.receive)
        await come_in(kit, "a")
        await start(nursery, wait)
        await come_in(kit, "b")
        assert seen == ["b"]

        await start(nursery, watch)
        for name in "cd":
            await come_in(kit, name)
        assert seen == ["b", "b", "c", "d"]
        assert trio.current_time() == 0


# ------------------------------------------------------------------------------------ somebody is behind


async def test_a_subscriber_who_is_behind_stops_the_user_from_reading_too(autojump_clock: MockClock) -> None:
    async with reading() as (kit, nursery), kit.incoming.subscribe(1, "wait") as slow:
        await start(nursery, kit.receive)
        await come_in(kit, "a")
        assert not kit.reading.is_behind
        await start(nursery, kit.receive)
        await come_in(kit, "b")
        assert kit.got == ["a", "b"]

        kit.link.come_in("c")
        await start(nursery, kit.receive)
        await trio.sleep(1)
        assert kit.link.unread == 1
        assert kit.reading.is_behind
        assert [stands for _, stands in kit.stands] == [True]
        assert kit.stands[0][0] <= 2 * GRACE
        assert slow.receive_nowait() == "a"
        assert slow.receive_nowait() == "b"
        await wait_all_tasks_blocked()

        assert kit.got == ["a", "b", "c"]
        assert kit.stands[1:] == [(1, False)]
        assert not kit.reading.is_behind


async def test_a_full_inbox_stops_our_task_and_a_user_who_takes_from_it_sets_it_going(
    autojump_clock: MockClock,
) -> None:
    async with reading(Buffer(max_messages=2)) as (kit, nursery):
        await come_in(kit, "a", "b", "c")
        kit.link.come_in("d")
        await trio.sleep(1)
        assert kit.reading.is_behind
        assert kit.link.unread == 1

        await start(nursery, kit.receive)
        assert kit.link.unread == 1
        await start(nursery, kit.receive)

        assert kit.link.unread == 0
        await start(nursery, kit.receive_all)
        assert kit.got == ["a", "b", "c", "d"]
        assert kit.stands == [(0, True), (1, False), (1, True), (1, False)]  # full again with what was read


# ------------------------------------------------------------------------------------ what a user's task finds

CLOSES = [
    ConnectionClosed(1000),
    ConnectionClosed(1001, "going away"),
    ConnectionClosed(1005),
    ConnectionClosed(1006),
    ConnectionClosed(1009, "too big"),
    ConnectionClosed(4000, "kicked"),
]


@pytest.mark.parametrize("error", [*CLOSES, LookupError("none of the seam's")], ids=repr)
async def test_what_a_user_s_task_finds_is_raised_by_ours_and_not_by_his(
    error: Exception, autojump_clock: MockClock
) -> None:
    async with reading() as (kit, nursery):
        await start(nursery, kit.receive_all)
        await come_in(kit, "a")

        kit.link.fail(error)
        await wait_all_tasks_blocked()

        assert kit.readers == ["ours", USER]
        assert kit.ends == [error]
        assert kit.incoming.has_receivers  # who learns of the end by the inbox


async def test_what_a_reply_predicate_raises_in_a_user_s_task_is_raised_by_ours(autojump_clock: MockClock) -> None:
    async with reading() as (kit, nursery):
        kit.incoming.reply = lambda message: 1 // len(message) > 1
        await start(nursery, kit.receive_all)
        await come_in(kit, "a")

        await come_in(kit, "b", "", "c")

        assert kit.got == ["a", "b"]
        assert [type(error) for error in kit.ends] == [ZeroDivisionError]
        assert kit.incoming.has_receivers


async def test_two_who_read_and_wait_when_the_end_is_found_both_wait_for_it(autojump_clock: MockClock) -> None:
    async with reading() as (kit, nursery):
        await start(nursery, kit.receive_all)
        await come_in(kit, "a")
        await start(nursery, kit.receive_all)

        kit.link.fail(ConnectionClosed(1011))
        await wait_all_tasks_blocked()

        assert [type(error) for error in kit.ends] == [ConnectionClosed]
        assert kit.link.readers.count(USER) == 1


# ------------------------------------------------------------------------------------ the end of a life


async def test_a_user_who_reads_when_the_life_ends_waits_for_the_next_one(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    kit = Kit()
    async with trio.open_nursery() as life:
        life.start_soon(kit.run)
        await start(nursery, kit.receive_all)
        await come_in(kit, "a")
        assert kit.link.is_being_read
        life.cancel_scope.cancel()
    await kit.link.abort()
    await wait_all_tasks_blocked()
    assert not kit.link.is_being_read
    assert kit.incoming.has_receivers

    kit.link = DirectLink()
    kit.reading = kit.make_reading()
    nursery.start_soon(kit.run)
    for name in "bc":
        await wait_all_tasks_blocked()
        await come_in(kit, name)

    assert kit.got == ["a", "b", "c"]
    assert kit.readers == ["ours", USER]


@pytest.mark.parametrize("is_lent", [False, True])
async def test_when_our_task_ends_nothing_of_it_stays_behind(is_lent: bool, autojump_clock: MockClock) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    kit = Kit()
    async with trio.open_nursery() as users:
        async with trio.open_nursery() as life:
            life.start_soon(kit.run)
            await start(users, kit.receive)
            await come_in(kit, "a")
            if is_lent:
                await start(users, kit.receive)
            life.cancel_scope.cancel()
        assert not kit.reading.is_free
        users.cancel_scope.cancel()
    await wait_all_tasks_blocked()

    assert not kit.reading.is_free
    assert trio.lowlevel.current_statistics().tasks_living == before


# ------------------------------------------------------------------------------------ a law


@pytest.mark.parametrize("seed", range(12))
async def test_whoever_reads_waits_gives_up_and_comes_back_each_message_is_received_once_and_in_order(
    seed: int, autojump_clock: MockClock
) -> None:
    chance = random.Random(seed)
    total, number = 400, 0
    async with reading(Buffer(max_messages=chance.choice([3, None]), max_bytes=None)) as (kit, nursery):
        assert kit.incoming.inbox is not None

        async def receive_in_turns(patience: list[float]) -> None:
            while True:
                with trio.move_on_after(chance.choice(patience)):
                    assert kit.incoming.inbox is not None
                    if chance.random() < 0.3:
                        kit.got.extend(await kit.incoming.inbox.receive_many(chance.choice([None, 2])))
                    else:
                        await kit.receive()
                await trio.sleep(chance.choice([0, 0, 0.0005, 0.005, 0.05]))

        for _ in range(chance.choice([1, 1, 3])):
            nursery.start_soon(receive_in_turns, [0, 0.001, 0.01, 1], name=USER)
        while number < total:
            size = chance.randint(1, 4)
            kit.link.come_in(*map(str, range(number, min(number + size, total))), *[Pong(b"")] * chance.randint(0, 1))
            number += size
            if chance.random() < 0.2:
                kit.reading.go_on()
            await trio.sleep(chance.choice([0, 0, 0.0005, 0.002, 0.03]))
        await trio.sleep(100)

        assert kit.got == list(map(str, range(total)))
        assert kit.ends == []


# ------------------------------------------------------------------------------------ whole sockets


@asynccontextmanager
async def over(link: DirectLink) -> AsyncGenerator[WebSocket]:
    """Open a socket over a link, and leave it without complaint."""
    async with trio_wsprim.create_ws(URL, open_stream=MemoryNetwork().open_stream, transport=link) as ws:
        await ws.wait_open()
        yield ws
        await ws.aclose()


class Outcome:
    """What a user's task got, and how that ended."""

    def __init__(self) -> None:
        self.got: list[object] = []
        self.error: BaseException | None = None
        self.at = -1.0

    async def receive_all(self, ws: WebSocket) -> None:
        try:
            while True:
                self.got.append(await ws.receive())
        except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
            self.error = error
            self.at = trio.current_time()


async def end_by(ws: WebSocket, link: DirectLink, how: Exception, *, lends: bool) -> tuple[Outcome, CloseEvent]:
    outcome = Outcome()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outcome.receive_all, ws, name=USER)
        await wait_all_tasks_blocked()
        if lends:
            link.come_in("a")
            await wait_all_tasks_blocked()
        link.fail(how)
        event = await ws.wait_closed()
    assert (link.readers[-1] == USER) == lends
    return outcome, event


@pytest.mark.parametrize("how", CLOSES, ids=repr)
async def test_an_end_that_a_user_s_task_finds_is_the_same_for_everybody_as_one_that_ours_does(
    how: ConnectionClosed, autojump_clock: MockClock
) -> None:
    outcomes: list[Outcome] = []
    events: list[CloseEvent] = []

    for lends in (True, False):
        link = DirectLink()
        async with over(link) as ws:
            outcome, event = await end_by(ws, link, how, lends=lends)
            outcomes.append(outcome)
            events.append(event)

    theirs, ours = outcomes
    assert theirs.got == ["a"]
    assert type(theirs.error) is type(ours.error)
    assert repr(theirs.error) == repr(ours.error)
    assert [(event.code, event.reason, event.clean, repr(event.error)) for event in events[:1]] == [
        (event.code, event.reason, event.clean, repr(event.error)) for event in events[1:]
    ]
    expected = trio.EndOfChannel if how.code in {1000, 1001, 1005} else ConnectionClosed
    assert type(theirs.error) is expected


@pytest.mark.parametrize("lends", [True, False])
async def test_what_a_reply_predicate_raises_comes_out_of_receive_whoever_reads(
    lends: bool, autojump_clock: MockClock
) -> None:
    link, outcome = DirectLink(), Outcome()
    async with over(link) as ws, trio.open_nursery() as nursery:
        make_heartbeat_ws(ws, interval=100, wait=100, reply=lambda message: 1 // len(message) > 1)
        nursery.start_soon(outcome.receive_all, ws, name=USER)
        await wait_all_tasks_blocked()
        if lends:
            link.come_in("a")
            await wait_all_tasks_blocked()
        link.come_in("b", "", "c")

    assert outcome.got == ["a", "b"] if lends else ["b"]
    assert isinstance(outcome.error, ZeroDivisionError)


async def test_a_user_who_reads_when_we_reconnect_reads_on_from_the_next_connection(
    autojump_clock: MockClock,
) -> None:
    links = [DirectLink(), DirectLink()]

    class Transport:
        async def connect(self, nursery: trio.Nursery, stream: trio.abc.Stream, upgrade: Upgrade) -> DirectLink:
            return await next(dials).connect(nursery, stream, upgrade)

    dials = iter(links)
    outcome = Outcome()
    async with (
        trio_wsprim.create_reconnecting_ws(
            URL, open_stream=MemoryNetwork().open_stream, transport=Transport(), delay=1
        ) as ws,
        trio.open_nursery() as nursery,
    ):
        await ws.wait_open()
        nursery.start_soon(outcome.receive_all, ws, name=USER)
        await wait_all_tasks_blocked()
        links[0].come_in("a")
        await wait_all_tasks_blocked()
        assert links[0].is_being_read

        ws.reconnect()
        links[0].come_in("of a connection that is gone")
        await wait_all_tasks_blocked()
        assert outcome.error is None
        links[1].come_in("b")
        await wait_all_tasks_blocked()
        links[1].come_in("c")
        await wait_all_tasks_blocked()
        await ws.aclose()

    assert outcome.got == ["a", "b", "c"]
    assert isinstance(outcome.error, trio.ClosedResourceError)
    assert links[1].readers[1:] == [USER]


@pytest.mark.parametrize("lends", [True, False])
async def test_messages_and_pongs_that_come_together_are_each_delivered_in_order(
    lends: bool, autojump_clock: MockClock
) -> None:
    link, outcome = DirectLink(), Outcome()
    async with over(link) as ws, trio.open_nursery() as nursery:
        nursery.start_soon(outcome.receive_all, ws, name=USER)
        await wait_all_tasks_blocked()
        if lends:
            link.come_in("first")
            await wait_all_tasks_blocked()

        link.come_in("a", Pong(b"nobody asked"), "é")
        await wait_all_tasks_blocked()

        assert outcome.got[-2:] == ["a", "é"]
        assert ws.statistics().messages_received == 2 + lends
        assert ws.statistics().bytes_received == 3 + 5 * lends
        await ws.aclose()


async def test_who_reconnects_at_a_message_is_not_given_what_came_together_with_it(autojump_clock: MockClock) -> None:
    links = [DirectLink(), DirectLink()]
    dials = iter(links)

    class Transport:
        async def connect(self, nursery: trio.Nursery, stream: trio.abc.Stream, upgrade: Upgrade) -> DirectLink:
            return await next(dials).connect(nursery, stream, upgrade)

    async with trio_wsprim.create_reconnecting_ws(
        URL, open_stream=MemoryNetwork().open_stream, transport=Transport(), delay=1
    ) as ws:
        await ws.wait_open()

        def reconnect_at(message: Message) -> bool:
            if message == "go":
                ws.reconnect()
            return False

        make_heartbeat_ws(ws, interval=100, wait=100, reply=reconnect_at)
        links[0].come_in("go", Pong(b""), "of a connection that is gone")
        assert await ws.receive() == "go"
        await trio.sleep(2)
        links[1].come_in("of the next")

        assert await ws.receive() == "of the next"
        await ws.aclose()


async def test_a_user_who_reads_when_we_close_is_told(autojump_clock: MockClock) -> None:
    link, outcome = DirectLink(), Outcome()
    async with over(link) as ws, trio.open_nursery() as nursery:
        nursery.start_soon(outcome.receive_all, ws, name=USER)
        await wait_all_tasks_blocked()
        link.come_in("a")
        await wait_all_tasks_blocked()

        await ws.aclose()

    assert outcome.got == ["a"]
    assert isinstance(outcome.error, trio.ClosedResourceError)
    assert outcome.at == 0


class StuckLink(DirectLink):
    """One whose network takes nothing."""

    def send_nowait(self, batch: Sequence[Outgoing]) -> bool:
        return False

    async def send(self, batch: Sequence[Outgoing]) -> None:
        await trio.sleep_forever()


async def test_a_user_who_reads_when_we_close_is_told_before_the_outbox_has_drained(
    autojump_clock: MockClock,
) -> None:
    link, outcome = StuckLink(), Outcome()
    async with over(link) as ws, trio.open_nursery() as nursery:
        nursery.start_soon(outcome.receive_all, ws, name=USER)
        await wait_all_tasks_blocked()
        link.come_in("a")
        await wait_all_tasks_blocked()
        await ws.send("never leaves")

        await ws.aclose()

    assert isinstance(outcome.error, trio.ClosedResourceError)
    assert outcome.at == 0


# ------------------------------------------------------------------------------------ heartbeats and pings


def answering(link: DirectLink, after: float, nursery: trio.Nursery) -> None:
    """Have a link's peer answer pings, each after so long."""

    async def answer(ping: Ping) -> None:
        await trio.sleep(after)
        link.come_in(Pong(ping.payload))

    def note(item: Outgoing) -> None:
        if isinstance(item, Ping):
            nursery.start_soon(answer, item)

    link.when_sent = note


async def test_a_quick_heartbeat_does_not_take_a_live_peer_for_dead_while_the_user_is_between_two_receives(
    autojump_clock: MockClock,
) -> None:
    link = DirectLink()
    async with over(link) as ws, trio.open_nursery() as nursery:
        answering(link, 0.001, nursery)
        make_heartbeat_ws(ws, message=None, interval=0.003, wait=0.002)

        for number in range(100):
            nursery.start_soon(ws.receive, name=USER)
            await wait_all_tasks_blocked()
            link.come_in(str(number))
            await trio.sleep(0.0007 * (number % 40))  # less than the grace, and more

        assert ws.state.value.name == "OPEN"
        nursery.cancel_scope.cancel()


async def test_a_quick_heartbeat_does_not_take_a_live_peer_for_dead_when_the_user_gives_up_before_the_answer(
    autojump_clock: MockClock,
) -> None:
    link = DirectLink()
    async with over(link) as ws, trio.open_nursery() as nursery:
        answering(link, 0.002, nursery)
        make_heartbeat_ws(ws, message=None, interval=0.005, wait=0.004)

        for _ in range(10):
            link.come_in("a")
            await ws.receive()
            link.come_in("b")
            await ws.receive()
            with trio.move_on_after(0.006):  # the beat goes after 0.005, its answer comes after 0.007
                await ws.receive()
            await trio.sleep(0.05)

        nursery.cancel_scope.cancel()


async def test_a_ping_is_timed_without_the_grace(autojump_clock: MockClock) -> None:
    link = DirectLink()
    async with over(link) as ws, trio.open_nursery() as nursery:
        answering(link, 0.001, nursery)
        nursery.start_soon(ws.receive, name=USER)
        await wait_all_tasks_blocked()
        link.come_in("a")
        await wait_all_tasks_blocked()

        assert await ws.ping() == pytest.approx(0.001)
        assert ws.latency == pytest.approx(0.001)
        assert trio.current_time() == pytest.approx(0.001)
        nursery.cancel_scope.cancel()


async def test_a_ping_is_timed_without_the_grace_also_when_a_message_comes_before_its_pong(
    autojump_clock: MockClock,
) -> None:
    link = DirectLink()
    async with over(link) as ws, trio.open_nursery() as nursery:
        answering(link, 0.002, nursery)

        async def read_slowly() -> None:
            async for _ in ws:
                await trio.sleep(1)

        async def talk() -> None:
            await trio.sleep(0.001)
            link.come_in("b")

        nursery.start_soon(read_slowly, name=USER)
        await wait_all_tasks_blocked()
        link.come_in("a")
        await trio.sleep(1 + GRACE / 2)
        link.come_in("still read by ours")
        await trio.sleep(1 + GRACE / 2)
        link.come_in("c")
        nursery.start_soon(ws.receive, name=USER)
        await wait_all_tasks_blocked()
        nursery.start_soon(talk)

        assert await ws.ping() == pytest.approx(0.002)
        nursery.cancel_scope.cancel()
