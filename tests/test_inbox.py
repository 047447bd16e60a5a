from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim._errors import ConnectionClosed
from trio_wsprim._inbox import Inbox
from trio_wsprim._room import batch_size
from trio_wsprim._scopes import Bell
from trio_wsprim._values import Buffer, DropEvent, Message, WhenFull


class Kit:
    """An inbox, and what it said."""

    def __init__(
        self, max_messages: int | None = 2, max_bytes: int | None = None, when_full: WhenFull = "wait"
    ) -> None:
        self.drops: list[DropEvent] = []
        self.freed = Bell()
        self.inbox = Inbox(Buffer(max_messages, max_bytes, when_full), self.drops.append, self.freed)

    def put(self, *messages: Message) -> None:
        """Put messages in one by one."""
        for message in messages:
            self.put_batch(message)

    def put_batch(self, *messages: Message) -> None:
        """Put messages in that have come together."""
        self.inbox.put(messages, batch_size(messages))

    def rest(self) -> list[Message]:
        messages: list[Message] = []
        while True:
            try:
                messages.append(self.inbox.receive_nowait())
            except trio.WouldBlock:
                return messages


def end_of_channel() -> BaseException:
    return trio.EndOfChannel()


def we_closed() -> BaseException:
    return trio.ClosedResourceError()


def they_closed() -> BaseException:
    return ConnectionClosed(1011)


ENDS = pytest.mark.parametrize("end", [end_of_channel, we_closed, they_closed])


async def test_messages_come_out_in_the_order_in_which_they_came_in() -> None:
    kit = Kit(max_messages=None)
    kit.put("a", b"b", "c")

    assert [await kit.inbox.receive(), await kit.inbox.receive(), kit.inbox.receive_nowait()] == ["a", b"b", "c"]


async def test_without_waiting_an_empty_inbox_would_block() -> None:
    with pytest.raises(trio.WouldBlock):
        Kit().inbox.receive_nowait()


async def test_what_comes_together_is_received_one_by_one_in_order() -> None:
    kit = Kit(max_messages=None)
    kit.put_batch("a", b"b")
    kit.put("c")
    kit.put_batch("d", "e")

    assert [await kit.inbox.receive() for _ in range(5)] == ["a", b"b", "c", "d", "e"]


async def test_a_batch_is_all_there_is_or_as_many_as_wanted() -> None:
    kit = Kit(max_messages=None)
    kit.put("a", "b", "c", "d", "e")

    assert await kit.inbox.receive_many(2) == ["a", "b"]
    assert await kit.inbox.receive_many(1) == ["c"]
    assert await kit.inbox.receive_many(None) == ["d", "e"]


async def test_a_batch_waits_for_at_least_one(nursery: trio.Nursery) -> None:
    kit = Kit()
    got: list[list[Message]] = []

    async def receive() -> None:
        got.append(await kit.inbox.receive_many(None))

    nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    kit.put("a", "b")
    await wait_all_tasks_blocked()

    assert got == [["a", "b"]]


# ------------------------------------------------------------------------------------ bounds


async def test_with_wait_it_takes_what_was_read_and_asks_for_a_stop() -> None:
    kit = Kit(max_messages=2)

    kit.put("a")
    assert kit.inbox.has_room()
    kit.put("b", "c")
    assert not kit.inbox.has_room()
    await kit.inbox.receive_many(2)

    assert kit.inbox.has_room()
    assert kit.drops == []


async def test_a_limit_of_bytes_asks_for_a_stop_too() -> None:
    kit = Kit(max_messages=None, max_bytes=3)

    kit.put("abc")

    assert not kit.inbox.has_room()


@pytest.mark.parametrize("batch", [("abc",), ("a", "b", "c"), ("é", "a"), (b"a", "bc")])
async def test_a_limit_of_bytes_is_one_of_bytes_on_the_wire_however_messages_come_and_go(
    batch: tuple[Message, ...],
) -> None:
    kit = Kit(max_messages=None, max_bytes=6)

    for _ in range(100):
        kit.put_batch(*batch)
        assert kit.inbox.has_room()
        kit.put_batch(*batch)
        assert not kit.inbox.has_room()
        await kit.inbox.receive()
        assert kit.inbox.has_room()
        kit.rest()


async def test_a_limit_of_bytes_does_not_count_what_has_left_long_ago() -> None:
    kit = Kit(max_messages=None, max_bytes=6)
    kit.put("abc")

    for _ in range(100):
        kit.put("def")
        await kit.inbox.receive()

    assert kit.inbox.has_room()


@pytest.mark.parametrize("many", [False, True])
async def test_leaving_messages_ring_for_who_waits_for_room(many: bool, autojump_clock: MockClock) -> None:
    kit = Kit(max_messages=None, max_bytes=2)
    kit.put("a", "b")
    kit.inbox.await_room(True)

    await (kit.inbox.receive_many(None) if many else kit.inbox.receive())

    with trio.fail_after(1):
        await kit.freed.wait()
    assert kit.inbox.has_room()
    kit.inbox.await_room(False)
    kit.put("é")
    assert not kit.inbox.has_room()


async def test_with_drop_oldest_as_many_go_as_the_new_one_needs() -> None:
    kit = Kit(max_messages=3, max_bytes=5, when_full="drop_oldest")

    kit.put("aa", "b", "cc", "dddd")

    assert kit.drops == [DropEvent("aa", "full"), DropEvent("b", "full"), DropEvent("cc", "full")]
    assert kit.inbox.has_room()
    assert kit.rest() == ["dddd"]


async def test_with_drop_oldest_the_first_of_what_comes_together_may_go_for_the_last() -> None:
    kit = Kit(max_messages=2, when_full="drop_oldest")
    kit.put("a")

    kit.put_batch("b", "c", "d")

    assert kit.drops == [DropEvent("a", "full"), DropEvent("b", "full")]
    assert kit.rest() == ["c", "d"]


async def test_with_drop_oldest_one_that_is_larger_than_all_the_inbox_is_kept_alone() -> None:
    kit = Kit(max_messages=3, max_bytes=5, when_full="drop_oldest")

    kit.put("a", "larger")

    assert kit.drops == [DropEvent("a", "full")]
    assert kit.rest() == ["larger"]


async def test_with_drop_newest_the_one_that_finds_no_room_goes() -> None:
    kit = Kit(max_messages=1, when_full="drop_newest")

    kit.put("a", "b")

    assert kit.drops == [DropEvent("b", "full")]
    assert kit.inbox.has_room()
    assert kit.rest() == ["a"]


async def test_with_drop_newest_a_smaller_one_behind_it_may_still_find_room() -> None:
    kit = Kit(max_messages=None, max_bytes=4, when_full="drop_newest")

    kit.put_batch("aa", "bbb", "cc", "d")

    assert kit.drops == [DropEvent("bbb", "full"), DropEvent("d", "full")]
    assert kit.rest() == ["aa", "cc"]


# ------------------------------------------------------------------------------------ many receivers


async def test_each_message_goes_to_exactly_one_receiver(nursery: trio.Nursery) -> None:
    kit = Kit(max_messages=None)
    got: list[Message] = []

    async def receive() -> None:
        while True:
            got.append(await kit.inbox.receive())

    for _ in range(3):
        nursery.start_soon(receive)
    expected = [str(number) for number in range(50)]
    for number in expected:
        kit.put(number)
        if number.endswith("7"):
            await wait_all_tasks_blocked()
    await wait_all_tasks_blocked()

    assert sorted(got) == sorted(expected)


async def test_a_receiver_that_comes_between_loses_nothing_for_the_one_that_waits(nursery: trio.Nursery) -> None:
    kit = Kit()
    got: list[Message] = []

    async def receive() -> None:
        got.append(await kit.inbox.receive())

    nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    kit.put("a")
    assert kit.inbox.receive_nowait() == "a"
    await wait_all_tasks_blocked()
    assert got == []
    kit.put("b")
    await wait_all_tasks_blocked()

    assert got == ["b"]


async def test_as_many_receivers_wake_as_messages_come_together(nursery: trio.Nursery) -> None:
    kit = Kit(max_messages=None)
    got: list[Message] = []

    async def receive() -> None:
        got.append(await kit.inbox.receive())

    for _ in range(5):
        nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    kit.put_batch("a", "b", "c")
    await wait_all_tasks_blocked()
    assert sorted(map(str, got)) == ["a", "b", "c"]
    assert kit.inbox.has_receivers
    kit.put_batch("d", "e", "f")
    await wait_all_tasks_blocked()

    assert sorted(map(str, got)) == ["a", "b", "c", "d", "e"]
    assert not kit.inbox.has_receivers
    assert kit.rest() == ["f"]


@pytest.mark.parametrize("many", [False, True])
async def test_a_busy_receiver_does_not_starve_other_tasks(many: bool, nursery: trio.Nursery) -> None:
    kit = Kit(max_messages=None)
    kit.put_batch(*["x"] * 1000)
    turns = 0

    async def watch() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    nursery.start_soon(watch)
    for _ in range(1000):
        await (kit.inbox.receive_many(1) if many else kit.inbox.receive())

    assert turns >= 14  # of the 15 times in which the receiver gave way


# ------------------------------------------------------------------------------------ reading for oneself


class Shelf:
    """What a receiver may read from itself, if a test lets it; each read brings a batch."""

    def __init__(self, kit: Kit, *batches: tuple[Message, ...]) -> None:
        self._kit = kit
        self._batches = list(batches)
        self.is_free = True
        self.reads = 0

    async def read_here(self) -> None:
        self.is_free = False
        try:
            await trio.lowlevel.checkpoint()
        finally:
            self.is_free = True
        self.reads += 1
        self._kit.put_batch(*self._batches.pop(0))

    def go_on(self) -> None:
        raise AssertionError("nobody listens")


async def test_a_receiver_that_finds_nothing_reads_for_himself_until_there_is_something() -> None:
    kit = Kit(max_messages=None)
    shelf = kit.inbox.reader = Shelf(kit, (), (), ("a", "b"), ("c",))

    assert await kit.inbox.receive() == "a"
    assert shelf.reads == 3
    assert await kit.inbox.receive_many(None) == ["b"]
    assert shelf.reads == 3
    assert await kit.inbox.receive_many(None) == ["c"]

    assert shelf.reads == 4


async def test_a_receiver_is_woken_where_he_may_not_read(nursery: trio.Nursery) -> None:
    kit = Kit(max_messages=None)
    shelf = kit.inbox.reader = Shelf(kit)
    shelf.is_free = False
    got: list[Message] = []

    async def receive() -> None:
        got.append(await kit.inbox.receive())

    nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    assert kit.inbox.has_receivers
    kit.put("a")
    await wait_all_tasks_blocked()

    assert got == ["a"]
    assert shelf.reads == 0


async def test_a_receiver_does_not_read_past_one_who_waits(nursery: trio.Nursery) -> None:
    kit = Kit(max_messages=None)
    shelf = kit.inbox.reader = Shelf(kit, ("c",))
    shelf.is_free = False
    got: list[Message] = []

    async def receive() -> None:
        got.append(await kit.inbox.receive())

    nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    shelf.is_free = True
    nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    assert shelf.reads == 0
    kit.put_batch("a", "b")
    await wait_all_tasks_blocked()

    assert got == ["a", "b"]


async def test_who_reads_for_himself_when_the_end_comes_finds_it() -> None:
    kit = Kit(max_messages=None)
    shelf = kit.inbox.reader = Shelf(kit, ())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(shelf.read_here)
        kit.inbox.end(they_closed)
        with pytest.raises(ConnectionClosed):
            await kit.inbox.receive()


# ------------------------------------------------------------------------------------ cancellation


async def test_a_receiver_that_was_cancelled_before_takes_nothing() -> None:
    kit = Kit()
    kit.put("a")

    for _ in range(64):  # one of them is a schedule point too
        with trio.CancelScope() as scope:
            scope.cancel()
            await kit.inbox.receive()
        assert scope.cancelled_caught
        with trio.CancelScope() as scope:
            scope.cancel()
            await kit.inbox.receive_many(None)
        assert scope.cancelled_caught

    assert kit.rest() == ["a"]


async def test_a_receiver_that_is_cancelled_while_waiting_takes_nothing(nursery: trio.Nursery) -> None:
    kit = Kit()
    scope = trio.CancelScope()

    async def receive() -> None:
        with scope:
            await kit.inbox.receive()

    nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    scope.cancel()
    kit.put("a")
    await wait_all_tasks_blocked()

    assert scope.cancelled_caught
    assert kit.rest() == ["a"]


async def test_a_receiver_cancelled_in_the_moment_in_which_a_message_came_has_it(nursery: trio.Nursery) -> None:
    kit = Kit()
    scope = trio.CancelScope()
    got: list[Message] = []

    async def receive() -> None:
        with scope:
            got.append(await kit.inbox.receive())

    nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    kit.put("a")
    scope.cancel()
    await wait_all_tasks_blocked()

    assert got + kit.rest() == ["a"]


async def test_a_receiver_that_was_cancelled_before_reads_nothing_for_himself_either() -> None:
    kit = Kit()
    shelf = kit.inbox.reader = Shelf(kit, ("a",))

    with trio.CancelScope() as scope:
        scope.cancel()
        await kit.inbox.receive()

    assert scope.cancelled_caught
    assert shelf.reads == 0


# ------------------------------------------------------------------------------------ the end


@ENDS
async def test_after_the_end_what_is_left_comes_first(end: Callable[[], BaseException]) -> None:
    kit = Kit()
    kit.put("a", "b")

    kit.inbox.end(end)

    assert [await kit.inbox.receive(), kit.inbox.receive_nowait()] == ["a", "b"]
    with pytest.raises(type(end())):
        await kit.inbox.receive()
    with pytest.raises(type(end())):
        await kit.inbox.receive_many(None)
    with pytest.raises(type(end())):
        kit.inbox.receive_nowait()


@ENDS
async def test_the_end_wakes_every_receiver(end: Callable[[], BaseException], nursery: trio.Nursery) -> None:
    kit = Kit()
    raised: list[BaseException] = []

    async def receive() -> None:
        try:
            await kit.inbox.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError, ConnectionClosed) as error:
            raised.append(error)

    nursery.start_soon(receive)
    nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    kit.inbox.end(end)
    await wait_all_tasks_blocked()

    assert [type(each) for each in raised] == [type(end())] * 2


async def test_when_we_close_what_is_unread_is_gone(autojump_clock: MockClock) -> None:
    kit = Kit()
    kit.put("a", "b")
    assert not kit.inbox.has_room()

    kit.inbox.close(we_closed)

    with pytest.raises(trio.ClosedResourceError):
        await kit.inbox.receive()
    with trio.fail_after(1):
        await kit.freed.wait()
    assert kit.inbox.has_room()
    assert list(kit.inbox.queue) == []
    assert kit.drops == []


async def test_an_inbox_that_nothing_came_into_shares_nothing_with_others() -> None:
    one, other = Kit(), Kit()

    one.put("a")

    assert one.rest() == ["a"]
    with pytest.raises(trio.WouldBlock):
        other.inbox.receive_nowait()
