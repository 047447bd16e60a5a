import math
from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim._signal import Signal, Variable


class Waiting:
    """A task in `wait_value`."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.outcome: object = "waiting"

    @property
    def waits(self) -> bool:
        return self.outcome == "waiting"

    async def run(self, signal: Signal[int], wanted: object, held_for: float = 0.0) -> None:
        with self.scope:
            try:
                self.outcome = await signal.wait_value(wanted, held_for=held_for)  # type: ignore[arg-type]
            except (trio.EndOfChannel, ZeroDivisionError) as error:
                self.outcome = type(error)


async def start_waiting(nursery: trio.Nursery, variable: Variable[int], wanted: object, held_for: float = 0) -> Waiting:
    waiting = Waiting()
    nursery.start_soon(waiting.run, variable.signal, wanted, held_for)
    await wait_all_tasks_blocked()
    return waiting


def is_big(value: int) -> bool:
    return value >= 10


# ------------------------------------------------------------------------------------ looking


def test_a_signal_shows_its_value() -> None:
    variable = Variable(1)
    signal = variable.signal

    variable.set(2)

    assert signal.value == 2
    assert repr(signal) == "<Signal 2>"
    variable.end()
    assert repr(signal) == "<Signal 2, ended>"


# ------------------------------------------------------------------------------------ many changes at once


async def test_of_many_values_at_once_the_last_stays(autojump_clock: MockClock) -> None:
    variable = Variable(0)

    variable.set_each([3, 2, 1])
    assert variable.signal.value == 1
    variable.set_each([4])

    assert variable.signal.value == 4


async def test_who_waits_is_shown_each_of_many_values_in_order(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    variable = Variable(0)
    seen: list[int] = []
    waiting = await start_waiting(nursery, variable, 11)
    await start_waiting(nursery, variable, seen.append)

    variable.set_each([10, 11, 12])
    await wait_all_tasks_blocked()

    assert waiting.outcome == 11
    assert seen == [0, 10, 11, 12]
    assert variable.signal.value == 12


async def test_a_value_among_many_breaks_how_long_another_was_held(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    variable = Variable(10)
    waiting = await start_waiting(nursery, variable, is_big, held_for=2)
    await trio.sleep(1)

    variable.set_each([10, 1, 10])
    await trio.sleep(1.5)
    assert waiting.waits
    await trio.sleep(1)

    assert waiting.outcome == 10


async def test_many_values_at_once_wake_who_iterates_for_the_last(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    variable = Variable(0)
    seen: list[int] = []

    async def iterate() -> None:
        seen.extend([value async for value in variable.signal.values()])

    nursery.start_soon(iterate)
    await wait_all_tasks_blocked()
    variable.set_each([1, 2, 3])
    await wait_all_tasks_blocked()
    variable.end()
    await wait_all_tasks_blocked()

    assert seen == [0, 3]


# ------------------------------------------------------------------------------------ wait_value


async def test_a_value_that_is_there_already_is_returned_at_once(autojump_clock: MockClock) -> None:
    variable = Variable(10)

    assert await variable.signal.wait_value(10) == 10
    assert await variable.signal.wait_value(is_big) == 10
    assert trio.current_time() == 0


async def test_a_value_that_comes_later_is_waited_for(nursery: trio.Nursery) -> None:
    variable = Variable(0)
    by_value = await start_waiting(nursery, variable, 10)
    by_predicate = await start_waiting(nursery, variable, is_big)

    variable.set(5)
    await wait_all_tasks_blocked()
    assert by_value.waits
    assert by_predicate.waits
    variable.set(10)
    await wait_all_tasks_blocked()

    assert by_value.outcome == by_predicate.outcome == 10


async def test_a_value_that_lasts_less_than_a_turn_of_the_scheduler_is_seen(nursery: trio.Nursery) -> None:
    variable = Variable(0)
    waiting = await start_waiting(nursery, variable, is_big)

    variable.set(11)
    variable.set(12)
    variable.set(0)
    await wait_all_tasks_blocked()

    assert waiting.outcome == 11


async def test_none_can_be_waited_for() -> None:
    variable: Variable[int | None] = Variable(None)

    assert await variable.signal.wait_value(None) is None


async def test_each_wait_that_is_met_at_once_lets_others_run(nursery: trio.Nursery) -> None:
    variable, turns = Variable(1), 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    nursery.start_soon(count)
    for _ in range(100):
        await variable.signal.wait_value(1)

    assert turns > 50


async def test_what_a_predicate_raises_comes_out_of_its_own_call_only(nursery: trio.Nursery) -> None:
    variable = Variable(1)
    failing = await start_waiting(nursery, variable, lambda value: 1 // value == 5)
    other = await start_waiting(nursery, variable, 7)

    variable.set(0)
    variable.set(7)
    await wait_all_tasks_blocked()

    assert failing.outcome is ZeroDivisionError
    assert other.outcome == 7


async def test_what_a_predicate_raises_for_the_present_value_comes_out_too() -> None:
    with pytest.raises(ZeroDivisionError):
        await Variable(0).signal.wait_value(lambda value: 1 // value == 1)


async def test_a_wait_that_can_no_more_come_true_raises(nursery: trio.Nursery) -> None:
    variable = Variable(0)
    waiting = await start_waiting(nursery, variable, is_big)

    variable.end()
    await wait_all_tasks_blocked()

    assert waiting.outcome is trio.EndOfChannel
    with pytest.raises(trio.EndOfChannel, match="the socket has ended"):
        await variable.signal.wait_value(is_big)


async def test_after_the_end_the_last_value_still_matches() -> None:
    variable = Variable(10)

    variable.end()

    assert await variable.signal.wait_value(10) == 10


async def test_a_last_value_that_matches_is_not_lost_to_the_end(nursery: trio.Nursery) -> None:
    variable = Variable(0)
    waiting = await start_waiting(nursery, variable, is_big)

    variable.set(10)
    variable.end()
    await wait_all_tasks_blocked()

    assert waiting.outcome == 10


async def test_a_wait_that_was_cancelled_before_raises_even_if_it_is_met() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await Variable(1).signal.wait_value(1)

    assert scope.cancelled_caught


async def test_a_cancelled_wait_leaves_nothing_behind(nursery: trio.Nursery) -> None:
    asked: list[int] = []
    variable = Variable(0)
    waiting = await start_waiting(nursery, variable, asked.append)

    waiting.scope.cancel()
    await wait_all_tasks_blocked()
    variable.set(1)

    assert waiting.scope.cancelled_caught
    assert asked == [0]


async def test_a_wait_that_is_cancelled_as_it_comes_true_has_its_value(nursery: trio.Nursery) -> None:
    variable = Variable(0)
    waiting = await start_waiting(nursery, variable, is_big)

    variable.set(10)
    waiting.scope.cancel()
    await wait_all_tasks_blocked()

    assert waiting.outcome == 10


# ------------------------------------------------------------------------------------ held_for


@pytest.mark.parametrize("held_for", [-1, math.nan, math.inf])
async def test_times_out_of_range_are_refused(held_for: float) -> None:
    with pytest.raises(ValueError, match=f"held_for must be .*, got {held_for}"):
        await Variable(0).signal.wait_value(0, held_for=held_for)


async def test_a_value_must_hold_for_the_whole_time(autojump_clock: MockClock) -> None:
    assert await Variable(1).signal.wait_value(1, held_for=5) == 1
    assert trio.current_time() == 5


async def test_a_break_makes_the_time_start_over(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    variable = Variable(10)
    waiting = await start_waiting(nursery, variable, is_big, held_for=5)

    await trio.sleep(4)
    variable.set(0)
    variable.set(11)  # a break too short for any task to see
    await trio.sleep(4)
    assert waiting.waits
    await trio.sleep(1.5)

    assert waiting.outcome == 11


async def test_a_change_between_matching_values_is_no_break(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    variable = Variable(10)
    waiting = await start_waiting(nursery, variable, is_big, held_for=5)

    await trio.sleep(3)
    variable.set(12)
    await trio.sleep(2.5)

    assert waiting.outcome == 12


async def test_a_value_that_breaks_as_the_time_is_up_is_never_returned(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    for _ in range(20):  # trio draws lots which of the two comes first
        variable = Variable(10)
        waiting = Waiting()
        nursery.start_soon(waiting.run, variable.signal, is_big, 5)
        await trio.sleep(5)
        variable.set(0)
        await wait_all_tasks_blocked()

        assert waiting.waits or waiting.outcome == 10


async def test_a_last_value_may_be_held_beyond_the_end(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    variable = Variable(10)
    waiting = await start_waiting(nursery, variable, 10, held_for=5)

    await trio.sleep(1)
    variable.end()
    await trio.sleep(3)
    assert waiting.waits
    await trio.sleep(1.5)

    assert waiting.outcome == 10
    assert await variable.signal.wait_value(10, held_for=1) == 10


async def test_a_value_that_breaks_with_the_end_raises(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    variable = Variable(10)
    waiting = await start_waiting(nursery, variable, 10, held_for=5)

    variable.set(0)
    variable.end()
    await wait_all_tasks_blocked()

    assert waiting.outcome is trio.EndOfChannel


async def test_what_a_predicate_raises_while_it_is_held_comes_out(nursery: trio.Nursery) -> None:
    variable = Variable(1)
    waiting = await start_waiting(nursery, variable, lambda value: 1 // value, held_for=5)

    variable.set(0)
    await wait_all_tasks_blocked()

    assert waiting.outcome is ZeroDivisionError


async def test_a_wait_can_be_cancelled_while_it_is_held(nursery: trio.Nursery) -> None:
    waiting = await start_waiting(nursery, Variable(1), 1, held_for=5)

    waiting.scope.cancel()
    await wait_all_tasks_blocked()

    assert waiting.scope.cancelled_caught


# ------------------------------------------------------------------------------------ values


async def read_into(values: AsyncIterator[int], into: list[int]) -> None:
    async for value in values:
        into.append(value)


async def test_values_start_with_the_present_one_and_end_with_the_last(nursery: trio.Nursery) -> None:
    variable, got = Variable(1), list[int]()
    nursery.start_soon(read_into, variable.signal.values(), got)
    await wait_all_tasks_blocked()

    variable.set(2)
    await wait_all_tasks_blocked()
    variable.set(3)
    variable.end()
    await wait_all_tasks_blocked()

    assert got == [1, 2, 3]


async def test_a_slow_reader_skips_values_but_never_the_latest(nursery: trio.Nursery) -> None:
    variable, got = Variable(1), list[int]()
    nursery.start_soon(read_into, variable.signal.values(), got)
    await wait_all_tasks_blocked()

    for value in range(2, 50):
        variable.set(value)
    await wait_all_tasks_blocked()

    assert got == [1, 49]


async def test_an_equal_value_set_again_is_a_value_too(nursery: trio.Nursery) -> None:
    variable, got = Variable(1), list[int]()
    nursery.start_soon(read_into, variable.signal.values(), got)
    await wait_all_tasks_blocked()

    variable.set(1)
    await wait_all_tasks_blocked()

    assert got == [1, 1]


async def test_values_after_the_end_are_the_last_one_only() -> None:
    variable, got = Variable(1), list[int]()
    variable.set(2)
    variable.end()
    values = variable.signal.values()

    await read_into(values, got)
    await read_into(values, got)

    assert got == [2]


async def test_two_readers_do_not_take_from_each_other(nursery: trio.Nursery) -> None:
    variable, first, second = Variable(1), list[int](), list[int]()
    nursery.start_soon(read_into, variable.signal.values(), first)
    nursery.start_soon(read_into, variable.signal.values(), second)
    await wait_all_tasks_blocked()

    variable.set(2)
    await wait_all_tasks_blocked()

    assert first == second == [1, 2]


@pytest.mark.parametrize("is_early", [True, False])
async def test_a_cancelled_reader_may_go_on_reading(is_early: bool, autojump_clock: MockClock) -> None:
    variable = Variable(1)
    values = variable.signal.values()
    if not is_early:
        assert await anext(values) == 1

    with trio.move_on_after(0 if is_early else 1) as scope:
        await anext(values)
    variable.set(2)

    assert scope.cancelled_caught
    assert await anext(values) == 2
