import math
from collections.abc import AsyncIterable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim._channels import Dropping, DroppingChannel, WaitingChannel, check_dropping
from trio_wsprim._scopes import Bell


async def collect(source: AsyncIterable[int], into: list[int]) -> None:
    async for item in source:
        into.append(item)


def read_now(receiver: trio.MemoryReceiveChannel[int]) -> list[int]:
    items: list[int] = []
    while True:
        try:
            items.append(receiver.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel):
            return items


# ------------------------------------------------------------------------------------ DroppingChannel


@pytest.mark.parametrize(("when_full", "kept"), [("drop_oldest", [2, 3]), ("drop_newest", [1, 2])])
async def test_a_full_channel_drops_by_its_rule(when_full: Dropping, kept: list[int]) -> None:
    channel = DroppingChannel[int](2, when_full)

    for item in (1, 2, 3):
        channel.offer(item)

    assert not channel.is_behind
    assert read_now(channel.receiver) == kept
    channel.close()


async def test_a_channel_without_a_limit_drops_nothing() -> None:
    channel = DroppingChannel[int](math.inf, "drop_oldest")

    for item in range(5000):
        channel.offer(item)

    assert read_now(channel.receiver) == list(range(5000))
    channel.close()


@pytest.mark.parametrize("when_full", ["drop_oldest", "drop_newest"])
async def test_a_reader_that_has_closed_its_end_is_offered_things_in_vain(when_full: Dropping) -> None:
    channel = DroppingChannel[int](1, when_full)
    channel.offer(1)
    channel.receiver.close()

    channel.offer(2)

    channel.close()


async def test_the_end_comes_behind_what_is_there() -> None:
    channel = DroppingChannel[int](2, "drop_oldest")
    channel.offer(1)

    channel.end()

    assert await channel.receiver.receive() == 1
    with pytest.raises(trio.EndOfChannel):
        await channel.receiver.receive()
    channel.close()


@pytest.mark.parametrize("size", [0, -1, 1.5, math.nan, True])
def test_sizes_that_cannot_drop_are_refused(size: float) -> None:
    with pytest.raises((ValueError, TypeError), match="max_buffer_size must be"):
        check_dropping(size, "drop_oldest")


@pytest.mark.parametrize("when_full", ["wait", "error", ""])
def test_other_words_than_the_dropping_ones_are_refused(when_full: str) -> None:
    with pytest.raises(ValueError, match="when_full must be one of 'drop_oldest', 'drop_newest'"):
        check_dropping(1, when_full)


def test_good_sizes_and_words_pass() -> None:
    check_dropping(1, "drop_oldest")
    check_dropping(math.inf, "drop_newest")


# ------------------------------------------------------------------------------------ WaitingChannel


async def test_a_quick_reader_is_never_behind(nursery: trio.Nursery) -> None:
    channel, got = WaitingChannel[int](1, Bell()), list[int]()

    async with channel.open() as receiver:
        nursery.start_soon(collect, receiver.clone(), got)
        for item in range(5):
            await wait_all_tasks_blocked()
            channel.offer(item)
            assert not channel.is_behind
        await wait_all_tasks_blocked()

    assert got == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("size", [0, 1, 3, math.inf])
async def test_a_slow_reader_gets_everything_in_order(
    size: float, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    channel, got = WaitingChannel[int](size, Bell()), list[int]()

    async with channel.open() as receiver:
        for item in range(6):
            channel.offer(item)
        assert channel.is_behind == (size < 6)
        for _ in range(6):
            await trio.sleep(1)
            got.append(await receiver.receive())
        await wait_all_tasks_blocked()

        assert got == list(range(6))
        assert not channel.is_behind


async def test_the_bell_rings_when_the_reader_has_come_along(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    freed = Bell()
    channel = WaitingChannel[int](1, freed)
    async with channel.open() as receiver:
        channel.offer(1)
        channel.offer(2)
        nursery.start_soon(receiver.receive)

        with trio.fail_after(1):
            await freed.wait()

        assert not channel.is_behind


async def test_the_end_comes_behind_the_backlog(nursery: trio.Nursery) -> None:
    channel, got = WaitingChannel[int](1, Bell()), list[int]()

    async with channel.open() as receiver:
        for item in range(4):
            channel.offer(item)
        channel.end()
        await collect(receiver, got)

    assert got == [0, 1, 2, 3]


async def test_the_end_comes_at_once_without_a_backlog() -> None:
    channel = WaitingChannel[int](1, Bell())

    async with channel.open() as receiver:
        channel.offer(1)
        channel.end()

        assert await receiver.receive() == 1
        with pytest.raises(trio.EndOfChannel):
            await receiver.receive()


async def test_what_the_pump_is_about_to_hand_over_is_not_handed_over_twice() -> None:
    channel = WaitingChannel[int](1, Bell())
    async with channel.open() as receiver:
        for item in (1, 2, 3):
            channel.offer(item)
        await wait_all_tasks_blocked()

        # All in one turn of the scheduler: the pump's item moves into the channel, and out of it, before it knows.
        got = [receiver.receive_nowait(), receiver.receive_nowait()]
        channel.offer(4)
        channel.end()
        await collect(receiver, got)

        assert got == [1, 2, 3, 4]


async def test_a_reader_that_has_closed_its_end_is_no_longer_waited_for(autojump_clock: MockClock) -> None:
    freed = Bell()
    channel = WaitingChannel[int](1, freed)
    async with channel.open() as receiver:
        channel.offer(1)
        channel.offer(2)
        await wait_all_tasks_blocked()

        receiver.close()
        with trio.fail_after(1):
            await freed.wait()
        channel.offer(3)

        assert not channel.is_behind


async def test_a_reader_that_leaves_the_block_while_behind_is_no_longer_waited_for(autojump_clock: MockClock) -> None:
    freed = Bell()
    channel = WaitingChannel[int](1, freed)

    async with channel.open():
        channel.offer(1)
        channel.offer(2)

    assert not channel.is_behind
    with trio.fail_after(1):
        await freed.wait()


async def test_leaving_the_block_ends_it_for_clones_too() -> None:
    channel = WaitingChannel[int](1, Bell())

    async with channel.open() as receiver:
        clone = receiver.clone()

    with pytest.raises(trio.EndOfChannel):
        await clone.receive()
    clone.close()


async def test_a_users_error_in_the_block_comes_out_as_it_is() -> None:
    error = ExceptionGroup("theirs", [ValueError("a")])

    with pytest.raises(ExceptionGroup) as caught:
        async with WaitingChannel[int](1, Bell()).open():
            raise error

    assert caught.value is error


async def test_a_cancelled_block_ends_quietly(autojump_clock: MockClock) -> None:
    channel = WaitingChannel[int](1, Bell())

    with trio.move_on_after(1) as scope:
        async with channel.open() as receiver:
            await receiver.receive()

    assert scope.cancelled_caught
