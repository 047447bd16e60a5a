import gc
import warnings
from typing import Literal

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim._events_hub import EventsHub
from trio_wsprim._incoming import Incoming
from trio_wsprim._values import Buffer, DropEvent, Message, MessageEvent

BUFFER = Buffer()
Policy = Literal["wait", "drop_oldest", "drop_newest"]
POLICIES = pytest.mark.parametrize("when_full", ["wait", "drop_oldest", "drop_newest"])


class Kit:
    """The incoming side of a socket, and what it said."""

    def __init__(self, inbox: Buffer | None = BUFFER) -> None:
        self.drops: list[DropEvent] = []
        self.hub = EventsHub()
        self.incoming = Incoming(inbox, self.hub, self.drops.append)

    def deliver(self, *messages: Message) -> None:
        """Deliver messages that have come together."""
        self.incoming.deliver(messages)

    def unread(self) -> list[Message]:
        assert self.incoming.inbox is not None
        messages: list[Message] = []
        while self.incoming.inbox.queue:
            messages.append(self.incoming.inbox.receive_nowait())
        return messages


def over() -> BaseException:
    return trio.EndOfChannel()


async def collect(receiver: trio.MemoryReceiveChannel[Message], into: list[Message]) -> None:
    async for message in receiver:
        into.append(message)


# ------------------------------------------------------------------------------------ delivering


async def test_a_message_goes_to_everybody() -> None:
    kit = Kit()
    signal = kit.hub.latest(MessageEvent)

    async with kit.incoming.subscribe(5, "wait") as one, kit.incoming.subscribe(5, "drop_oldest") as two:
        kit.deliver("é")

        assert await one.receive() == await two.receive() == "é"
    assert kit.unread() == ["é"]
    assert kit.incoming.message.value == "é"
    assert signal.value == MessageEvent("é")
    assert (kit.incoming.messages_received, kit.incoming.bytes_received) == (1, 2)


async def test_a_batch_goes_to_everybody_message_by_message_in_order() -> None:
    kit = Kit()
    batch: list[Message] = ["a", b"b", "é"]

    async with (
        kit.incoming.subscribe(5, "wait") as one,
        kit.incoming.subscribe(2, "drop_oldest") as two,
        kit.incoming.subscribe(2, "drop_newest") as three,
        kit.hub.watch(5, "drop_oldest") as events,
    ):
        kit.incoming.deliver(batch)

        assert [one.receive_nowait() for _ in range(3)] == batch
        assert [two.receive_nowait() for _ in range(2)] == batch[1:]
        assert [three.receive_nowait() for _ in range(2)] == batch[:2]
        assert [events.receive_nowait() for _ in range(3)] == [MessageEvent(message) for message in batch]
    assert kit.unread() == batch
    assert kit.incoming.message.value == "é"
    assert (kit.incoming.messages_received, kit.incoming.bytes_received) == (3, 4)


async def test_who_waits_for_a_message_sees_each_of_a_batch(nursery: trio.Nursery) -> None:
    kit = Kit(inbox=None)
    got = list[Message | None]()

    async def wait() -> None:
        got.append(await kit.incoming.message.signal.wait_value("b"))

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    kit.deliver("a", "b", "c")
    await wait_all_tasks_blocked()

    assert got == ["b"]
    assert kit.incoming.message.value == "c"


async def test_a_batch_of_nothing_is_nothing() -> None:
    kit = Kit()

    kit.deliver()

    assert kit.incoming.message.value is None
    assert kit.unread() == []
    assert (kit.incoming.messages_received, kit.incoming.bytes_received) == (0, 0)


async def test_without_an_inbox_the_others_are_fed_all_the_same() -> None:
    kit = Kit(inbox=None)

    kit.deliver("a")

    assert kit.incoming.inbox is None
    assert kit.incoming.message.value == "a"
    assert kit.incoming.has_room()


def test_drops_of_the_inbox_are_reported() -> None:
    kit = Kit(Buffer(max_messages=1, when_full="drop_newest"))

    kit.deliver("a", "b")

    assert kit.drops == [DropEvent("b", "full")]


@pytest.mark.parametrize("reply", ["pong", lambda message: message == "pong"])
def test_replies_to_a_heartbeat_are_shown_to_nobody(reply: Message) -> None:
    kit = Kit()
    kit.incoming.reply = reply

    kit.deliver("a", "pong", b"pong")

    assert kit.unread() == ["a", b"pong"]
    assert kit.incoming.messages_received == 2


def test_a_batch_of_replies_changes_nothing() -> None:
    kit = Kit()
    kit.incoming.reply = "pong"

    kit.deliver("pong", "pong")

    assert kit.incoming.message.value is None
    assert (kit.incoming.messages_received, kit.incoming.bytes_received) == (0, 0)


def test_what_a_reply_predicate_raises_comes_out_behind_what_it_has_let_pass() -> None:
    kit = Kit()
    kit.incoming.reply = lambda message: 1 // len(message) > 1

    with pytest.raises(ZeroDivisionError):
        kit.deliver("a", "b", "", "c")

    assert kit.unread() == ["a", "b"]
    assert kit.incoming.messages_received == 2


class Shelf:
    """A reader that receivers may read from."""

    is_free = True

    async def read_here(self) -> None:
        raise AssertionError("nobody receives")

    def go_on(self) -> None:
        raise AssertionError("nobody listens")


def test_a_reader_is_lent_to_receivers_until_it_is_taken_back() -> None:
    kit, shelf = Kit(), Shelf()
    assert kit.incoming.inbox is not None

    kit.incoming.lend(shelf)
    assert kit.incoming.inbox.reader is shelf
    kit.incoming.lend(None)

    assert kit.incoming.inbox.reader is None
    Kit(inbox=None).incoming.lend(shelf)  # to nobody


async def test_it_tells_whether_somebody_waits_to_be_woken(nursery: trio.Nursery) -> None:
    kit = Kit()
    assert kit.incoming.inbox is not None
    assert not kit.incoming.has_receivers

    nursery.start_soon(kit.incoming.inbox.receive)
    await wait_all_tasks_blocked()
    assert kit.incoming.has_receivers
    kit.deliver("a")

    assert not kit.incoming.has_receivers
    assert not Kit(inbox=None).incoming.has_receivers


# ------------------------------------------------------------------------------------ when to stop reading


async def test_reading_stops_at_a_full_inbox_and_goes_on_when_it_is_read(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    kit = Kit(Buffer(max_messages=2))
    kit.deliver("a")
    await kit.incoming.wait_room()
    kit.deliver("b")
    assert not kit.incoming.has_room()
    assert kit.incoming.inbox is not None

    nursery.start_soon(kit.incoming.inbox.receive)
    with trio.fail_after(1):
        await kit.incoming.wait_room()

    assert kit.incoming.has_room()


async def test_reading_goes_on_when_as_many_bytes_have_left_as_there_were_too_many(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    kit = Kit(Buffer(max_messages=None, max_bytes=8))
    kit.deliver("é" * 3, "é", "a")
    assert kit.incoming.inbox is not None
    done: list[int] = []

    async def wait() -> None:
        await kit.incoming.wait_room()
        done.append(len(kit.unread()))

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    assert done == []
    await kit.incoming.inbox.receive()
    await wait_all_tasks_blocked()

    assert done == [2]


async def test_who_gives_up_waiting_for_room_leaves_the_count_as_it_should_be(autojump_clock: MockClock) -> None:
    kit = Kit(Buffer(max_messages=None, max_bytes=2))
    kit.deliver("é")

    with trio.move_on_after(1) as scope:
        await kit.incoming.wait_room()
    assert scope.cancelled_caught
    assert kit.unread() == ["é"]

    assert kit.incoming.has_room()
    kit.deliver("a")
    assert kit.incoming.has_room()


async def test_reading_stops_for_the_slowest_subscriber(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    kit = Kit(inbox=None)

    async with kit.incoming.subscribe(1, "wait") as slow, kit.incoming.subscribe(1, "drop_oldest"):
        kit.deliver("a", "b")
        assert not kit.incoming.has_room()
        with trio.move_on_after(1) as scope:
            await kit.incoming.wait_room()
        assert scope.cancelled_caught

        assert await slow.receive() == "a"
        with trio.fail_after(1):
            await kit.incoming.wait_room()
        assert await slow.receive() == "b"


async def test_a_slow_subscriber_misses_nothing_over_many_stops(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    kit = Kit(inbox=None)
    got = list[Message]()
    expected = [str(number) for number in range(30)]

    async def read_from_network() -> None:
        for start in range(0, 30, 3):
            await kit.incoming.wait_room()
            kit.deliver(*expected[start : start + 3])
        kit.incoming.end(over)

    async with kit.incoming.subscribe(2, "wait") as receiver:
        nursery.start_soon(read_from_network)
        async for message in receiver:
            got.append(message)
            await trio.sleep(1)

    assert got == expected


async def test_a_subscriber_that_leaves_no_longer_holds_up_reading(autojump_clock: MockClock) -> None:
    kit = Kit(inbox=None)

    async with kit.incoming.subscribe(1, "wait"):
        kit.deliver("a", "b")
        assert not kit.incoming.has_room()

    with trio.fail_after(1):
        await kit.incoming.wait_room()


@POLICIES
async def test_a_subscriber_that_closes_its_channel_inside_the_block_disturbs_nobody(
    when_full: Policy, autojump_clock: MockClock
) -> None:
    kit = Kit()

    async with kit.incoming.subscribe(1, when_full) as receiver:
        kit.deliver("a", "b")
        await wait_all_tasks_blocked()
        receiver.close()
        with trio.fail_after(1):
            await kit.incoming.wait_room()
        kit.deliver("c")
        assert kit.incoming.has_room()

    assert kit.unread() == ["a", "b", "c"]


# ------------------------------------------------------------------------------------ subscribing


@POLICIES
async def test_a_subscriber_sees_what_comes_from_then_on_only(when_full: Policy) -> None:
    kit = Kit()
    kit.deliver("before")

    async with kit.incoming.subscribe(5, when_full) as receiver:
        kit.deliver("a", "b")

        assert [receiver.receive_nowait(), receiver.receive_nowait()] == ["a", "b"]
    kit.deliver("after")

    with pytest.raises(trio.ClosedResourceError):
        receiver.receive_nowait()


@POLICIES
async def test_the_end_of_the_socket_ends_each_subscription_behind_what_is_there(when_full: Policy) -> None:
    kit = Kit()
    got = list[Message]()

    async with kit.incoming.subscribe(5, when_full) as receiver:
        kit.deliver("a")
        kit.incoming.end(over)
        await collect(receiver, got)

    assert got == ["a"]


@POLICIES
async def test_who_subscribes_after_the_end_finds_the_end(when_full: Policy) -> None:
    kit = Kit()
    kit.incoming.end(over)

    async with kit.incoming.subscribe(5, when_full) as receiver:
        with pytest.raises(trio.EndOfChannel):
            await receiver.receive()


@POLICIES
@pytest.mark.parametrize("error", [ValueError("theirs"), ExceptionGroup("theirs", [KeyError("a")])], ids=repr)
async def test_a_users_error_in_the_block_comes_out_as_it_is(when_full: Policy, error: Exception) -> None:
    kit = Kit()

    with pytest.raises(type(error)) as caught:
        async with kit.incoming.subscribe(5, when_full):
            raise error

    assert caught.value is error
    assert error.__cause__ is error.__context__ is None


@POLICIES
async def test_a_cancelled_subscriber_leaves_quietly(when_full: Policy, autojump_clock: MockClock) -> None:
    kit = Kit()

    with trio.move_on_after(1) as scope:
        async with kit.incoming.subscribe(5, when_full) as receiver:
            await receiver.receive()
    kit.deliver("a")

    assert scope.cancelled_caught


@POLICIES
async def test_a_subscription_in_whatever_way_it_is_left_leaves_nothing_open(when_full: Policy) -> None:
    kit = Kit()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kit.incoming.subscribe(5, when_full)  # never entered
        async with kit.incoming.subscribe(1, when_full):
            kit.deliver("a", "b")
        for _ in range(2):
            async with kit.incoming.subscribe(1, when_full) as receiver:
                kit.deliver("a", "b")
                await receiver.receive()
                break
        gc.collect()

    assert caught == []
    assert kit.incoming.has_room()


# ------------------------------------------------------------------------------------ the end


async def test_at_the_end_the_message_signal_ends() -> None:
    kit = Kit(inbox=None)
    kit.deliver("a")

    kit.incoming.end(over)

    with pytest.raises(trio.EndOfChannel):
        await kit.incoming.message.signal.wait_value("b")


async def test_at_the_end_what_is_unread_can_still_be_received() -> None:
    kit = Kit()
    kit.deliver("a")

    kit.incoming.end(over)

    assert kit.incoming.inbox is not None
    assert await kit.incoming.inbox.receive() == "a"
    with pytest.raises(trio.EndOfChannel):
        await kit.incoming.inbox.receive()


@pytest.mark.parametrize("inbox", [None, Buffer(max_messages=1)])
async def test_when_we_hang_up_everything_is_discarded(inbox: Buffer | None, autojump_clock: MockClock) -> None:
    kit = Kit(inbox)
    async with kit.incoming.subscribe(1, "wait"):
        kit.deliver("a", "b")
        assert not kit.incoming.has_room()

        kit.incoming.close(over)
        kit.deliver("c")

        with trio.fail_after(1):
            await kit.incoming.wait_room()
        assert kit.incoming.messages_received == 2
        assert kit.incoming.message.value == "b"
