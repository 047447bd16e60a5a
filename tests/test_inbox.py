from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim._errors import ConnectionClosed
from trio_wsprim._inbox import Inbox
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
        for message in messages:
            self.inbox.put(message)

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


async def test_leaving_messages_ring_for_the_reader(autojump_clock: MockClock) -> None:
    kit = Kit()
    kit.put("a")

    await kit.inbox.receive()

    with trio.fail_after(1):
        await kit.freed.wait()


async def test_with_drop_oldest_as_many_go_as_the_new_one_needs() -> None:
    kit = Kit(max_messages=3, max_bytes=5, when_full="drop_oldest")

    kit.put("aa", "b", "cc", "dddd")

    assert kit.drops == [DropEvent("aa", "full"), DropEvent("b", "full"), DropEvent("cc", "full")]
    assert kit.inbox.has_room()
    assert kit.rest() == ["dddd"]


async def test_with_drop_newest_the_one_that_finds_no_room_goes() -> None:
    kit = Kit(max_messages=1, when_full="drop_newest")

    kit.put("a", "b")

    assert kit.drops == [DropEvent("b", "full")]
    assert kit.inbox.has_room()
    assert kit.rest() == ["a"]


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


async def test_a_busy_receiver_does_not_starve_other_tasks(nursery: trio.Nursery) -> None:
    kit = Kit(max_messages=None)
    kit.put(*["x"] * 1000)
    seen: list[int] = []

    async def watch() -> None:
        while True:
            seen.append(kit.inbox.room.messages)
            await trio.lowlevel.checkpoint()

    nursery.start_soon(watch)
    for _ in range(1000):
        await kit.inbox.receive()

    assert len(seen) > 10  # of the 15 times in which the receiver gave way


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

    kit.inbox.close(we_closed)

    with pytest.raises(trio.ClosedResourceError):
        await kit.inbox.receive()
    with trio.fail_after(1):
        await kit.freed.wait()
    assert kit.inbox.room.messages == 0
    assert kit.drops == []
