from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim._clock import Alarm, Clock, the_clock

CROWD = 32
GRAIN = 0.02


class Bells:
    """Alarms, and when each of them rang."""

    def __init__(self) -> None:
        self.rung: list[tuple[float, object]] = []

    def set(self, when: float, name: object = None, *agains: float) -> Alarm:
        """Set an alarm that asks to ring again at those times."""
        again = iter(agains)

        def ring() -> float | None:
            self.rung.append((trio.current_time(), name))
            return next(again, None)

        return the_clock().set_alarm(when, ring)

    @property
    def times(self) -> list[float]:
        return [at for at, _ in self.rung]

    @property
    def names(self) -> list[object]:
        return [name for _, name in self.rung]


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


# ------------------------------------------------------------------------------------ when it rings


async def test_each_alarm_rings_once_and_exactly_when_it_is_due(autojump_clock: MockClock) -> None:
    bells = Bells()

    for name, when in (("late", 3.25), ("soon", 1.5), ("between", 2.0)):
        bells.set(when, name)
    await trio.sleep(10)

    assert bells.rung == [(1.5, "soon"), (2, "between"), (3.25, "late")]


async def test_a_full_crowd_but_one_is_rung_exactly(autojump_clock: MockClock) -> None:
    bells = Bells()
    times = [1 + number / 1000 for number in range(CROWD)]

    for when in random.Random(1).sample(times, CROWD):
        bells.set(when)
    await trio.sleep(3)

    assert bells.times == pytest.approx(times, abs=1e-12)


async def test_alarms_of_one_moment_ring_in_the_order_in_which_they_were_set(autojump_clock: MockClock) -> None:
    bells = Bells()

    for name in range(20):
        bells.set(1, name)
    await trio.sleep(2)

    assert bells.names == list(range(20))


async def test_an_alarm_rings_again_when_it_says(autojump_clock: MockClock) -> None:
    bells = Bells()

    bells.set(1, "a", 2, 2.5, 7)
    bells.set(3, "b")
    await trio.sleep(10)

    assert bells.rung == [(1, "a"), (2, "a"), (2.5, "a"), (3, "b"), (7, "a")]


async def test_an_alarm_that_is_set_before_the_others_does_not_wait_for_them(autojump_clock: MockClock) -> None:
    bells = Bells()
    bells.set(100, "late")
    await wait_all_tasks_blocked()

    bells.set(1, "soon")
    await trio.sleep(0.5)
    bells.set(50, "between")
    await trio.sleep(150)

    assert bells.rung == [(1, "soon"), (50, "between"), (100, "late")]


async def test_an_alarm_may_be_set_by_one_that_rings(autojump_clock: MockClock) -> None:
    bells = Bells()

    def ring() -> None:
        bells.set(2, "later")
        bells.set(1, "now")
        bells.set(-5, "past")

    the_clock().set_alarm(1, ring)
    await trio.sleep(5)

    assert bells.rung == [(1, "past"), (1, "now"), (2, "later")]


async def test_a_time_that_has_passed_rings_soon_and_never_within_the_call(autojump_clock: MockClock) -> None:
    await trio.sleep(7)
    bells = Bells()

    bells.set(3, "past", 2, 7)
    assert bells.rung == []
    await wait_all_tasks_blocked()

    assert bells.rung == [(7, "past")] * 3


async def test_whoever_wakes_together_with_an_alarm_has_had_a_turn_before_it_rings_again(mock_clock: MockClock) -> None:
    seen: list[list[str]] = []
    woken: list[str] = []

    async def wake(name: str) -> None:
        await trio.sleep_until(1)
        woken.append(name)

    def ring() -> float | None:
        seen.append(sorted(woken))
        return -1.0 if len(seen) == 1 else None

    for _ in range(20):  # trio draws lots who of several comes first
        seen.clear()
        woken.clear()
        async with trio.open_nursery() as nursery:
            start = trio.current_time()
            for name in "abcde":
                nursery.start_soon(wake, name)
            the_clock().set_alarm(start + 1, ring)
            await wait_all_tasks_blocked()
            mock_clock.jump(1)
            await wait_all_tasks_blocked()
        assert seen[1] == list("abcde")


async def test_an_alarm_that_rings_again_at_once_does_so_after_everybody_s_next_turn() -> None:
    for _ in range(100):  # trio draws lots who of several comes first
        assert all(later > earlier for earlier, later in await turns_between_rings(None))


async def turns_between_rings(when: float | None) -> list[tuple[int, int]]:
    """Tell how often each of some tasks had had its turn when an alarm was set, or first rang, and when it next did."""
    turns = [0] * 8
    seen: list[list[int]] = []

    async def take_turns(number: int) -> None:
        while True:
            turns[number] += 1
            await trio.lowlevel.checkpoint()

    def ring() -> float | None:
        seen.append(list(turns))
        return -1.0 if len(seen) < 2 else None

    async with trio.open_nursery() as nursery:
        for number in range(len(turns)):
            nursery.start_soon(take_turns, number)
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        if when is not None:
            seen.append(list(turns))
        the_clock().set_alarm(trio.current_time(), ring)
        while len(seen) < 2:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    return list(zip(*seen, strict=True))


# ------------------------------------------------------------------------------------ crowds


async def test_a_crowd_is_rung_together_never_early_and_never_more_than_a_grain_late(
    autojump_clock: MockClock,
) -> None:
    late: list[float] = []
    wakes: set[float] = set()
    times = [1 + number / 1000 for number in range(1000)]

    def set_alarm(due: float) -> None:
        def ring() -> None:
            wakes.add(trio.current_time())
            late.append(trio.current_time() - due)

        the_clock().set_alarm(due, ring)

    for due in random.Random(2).sample(times, len(times)):
        set_alarm(due)
    await trio.sleep(3)

    assert len(late) == 1000
    assert min(late) >= 0
    assert max(late) <= GRAIN + 1e-9
    # The last of them are few, and rung each on its own.
    assert len(wakes) <= 1 / GRAIN + CROWD + 2


async def test_in_a_crowd_an_alarm_that_is_set_late_is_no_more_than_a_grain_late_either(
    autojump_clock: MockClock,
) -> None:
    late: list[float] = []

    def set_alarm(due: float) -> None:
        the_clock().set_alarm(due, lambda: late.append(trio.current_time() - due))

    keep = [the_clock().set_alarm(1000, lambda: None) for _ in range(2 * CROWD)]
    chance = random.Random(3)
    for _ in range(500):
        set_alarm(trio.current_time() + chance.choice([0.0005, 0.003, 0.05]))
        await trio.sleep(chance.choice([0, 0.001, 0.03]))
    await trio.sleep(1)

    assert len(late) == 500
    assert min(late) >= 0
    assert max(late) <= GRAIN + 1e-9
    for alarm in keep:
        alarm.cancel()


async def test_many_rings_do_not_starve_other_tasks() -> None:
    rings = 0
    seen: list[int] = []

    def ring() -> None:
        nonlocal rings
        rings += 1

    async def watch() -> None:
        while rings < 2000:
            seen.append(rings)
            await trio.lowlevel.checkpoint()

    for _ in range(2000):
        the_clock().set_alarm(-1, ring)
    await watch()

    # Who goes first in a turn is trio's to say, so between two turns of a task the clock may have two.
    assert max(later - earlier for earlier, later in pairwise([*seen, rings])) <= 2 * 64


async def test_alarms_that_ring_again_and_again_without_time_passing_do_not_starve_other_tasks(
    mock_clock: MockClock,
) -> None:
    rings = 0

    def ring() -> float | None:
        nonlocal rings
        rings += 1
        return 0.0 if rings < 1000 else None

    for _ in range(3):
        the_clock().set_alarm(0, ring)
    turns = 0
    while rings < 1000:
        turns += 1
        await trio.lowlevel.checkpoint()

    assert turns >= 1000 / 3 - 1


# ------------------------------------------------------------------------------------ cancelling


async def test_an_alarm_that_is_cancelled_before_it_is_due_does_not_ring(autojump_clock: MockClock) -> None:
    bells = Bells()
    alarm = bells.set(1, "cancelled")
    bells.set(2, "stays")

    alarm.cancel()
    alarm.cancel()
    await trio.sleep(5)

    assert bells.names == ["stays"]


async def test_an_alarm_that_is_cancelled_by_one_of_its_moment_does_not_ring(autojump_clock: MockClock) -> None:
    bells = Bells()
    alarms: list[Alarm] = []
    the_clock().set_alarm(1, lambda: alarms[0].cancel())
    alarms.append(bells.set(1, "cancelled"))
    bells.set(1, "stays")

    await trio.sleep(5)

    assert bells.names == ["stays"]
    assert tasks() == tasks_without_clock()


@pytest.mark.parametrize("again", [None, 1.0, 2.0])
async def test_an_alarm_that_cancels_itself_while_it_rings_does_not_ring_again(
    again: float | None, autojump_clock: MockClock
) -> None:
    alarms: list[Alarm] = []
    rung: list[float] = []

    def ring() -> float | None:
        rung.append(trio.current_time())
        alarms[0].cancel()
        return again

    alarms.append(the_clock().set_alarm(1, ring))
    await trio.sleep(5)

    assert rung == [1]
    assert tasks() == tasks_without_clock()


async def test_to_cancel_an_alarm_that_has_rung_changes_nothing(autojump_clock: MockClock) -> None:
    bells = Bells()
    rung = bells.set(1, "rung")
    bells.set(3, "other")
    await trio.sleep(2)

    rung.cancel()
    await trio.sleep(5)

    assert bells.rung == [(1, "rung"), (3, "other")]


async def test_an_alarm_that_is_to_ring_again_at_once_can_be_cancelled_before(autojump_clock: MockClock) -> None:
    bells = Bells()
    alarm = bells.set(1, "again", -1, -1, -1)
    the_clock().set_alarm(1, alarm.cancel)

    await trio.sleep(5)

    assert bells.rung == [(1, "again")]


async def test_an_alarm_that_will_ring_again_later_can_be_cancelled_before(autojump_clock: MockClock) -> None:
    bells = Bells()
    alarm = bells.set(1, "again", 3, 5)
    await trio.sleep(4)

    alarm.cancel()
    await trio.sleep(5)

    assert bells.times == [1, 3]


async def test_cancelled_alarms_do_not_pile_up(autojump_clock: MockClock) -> None:
    clock = the_clock()
    keep = [clock.set_alarm(10, lambda: None) for _ in range(10)]

    for number in range(2000):
        clock.set_alarm(3600 + number, lambda: None).cancel()
        assert len(clock._alarms) <= 21

    assert len(keep) == 10


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_is_set_cancelled_and_set_again_all_others_ring_once_and_in_time(
    seed: int, autojump_clock: MockClock
) -> None:
    chance = random.Random(seed)
    rung: dict[int, float] = {}
    wanted: dict[int, float] = {}
    alarms: dict[int, Alarm] = {}

    def note(number: int) -> Callable[[], None]:
        def ring() -> None:
            assert number not in rung, "rang twice"
            rung[number] = trio.current_time()

        return ring

    for number in range(2000):
        due = trio.current_time() + chance.choice([-1, 0, 0.001, 0.01, 0.3, 2])
        wanted[number] = max(due, trio.current_time())
        alarms[number] = the_clock().set_alarm(due, note(number))
        if chance.random() < 0.4:
            other = chance.choice(list(alarms))
            alarms.pop(other).cancel()
            if other not in rung:
                del wanted[other]
        if chance.random() < 0.3:
            await trio.sleep(chance.choice([0, 0.001, 0.02, 0.1]))
    await trio.sleep(5)

    assert rung.keys() == wanted.keys()
    assert all(0 <= rung[number] - due <= GRAIN + 1e-9 for number, due in wanted.items())
    assert tasks() == tasks_without_clock()


# ------------------------------------------------------------------------------------ its task


def tasks_without_clock() -> int:
    """Count the tasks of a run in which nothing is due; called where the test's own task is the only other one."""
    names = [str(task.name) for task in all_tasks()]
    return len(names) - names.count("trio_wsprim clock")


def all_tasks() -> list[trio.lowlevel.Task]:
    root = trio.lowlevel.current_root_task()
    assert root is not None
    found = [root]
    for task in found:
        found.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
    return found


async def test_its_task_is_there_only_while_something_is_due(autojump_clock: MockClock) -> None:
    before = tasks()

    the_clock().set_alarm(1, lambda: None)
    the_clock().set_alarm(2, lambda: None)
    assert tasks() == before + 1
    await trio.sleep(1.5)
    assert tasks() == before + 1
    await trio.sleep(1)
    assert tasks() == before
    the_clock().set_alarm(4, lambda: None)
    assert tasks() == before + 1
    await trio.sleep(5)

    assert tasks() == before


async def test_its_task_ends_when_the_last_alarm_is_cancelled(autojump_clock: MockClock) -> None:
    before = tasks()
    alarms = [the_clock().set_alarm(when, lambda: None) for when in (5, 6, 7)]
    await wait_all_tasks_blocked()

    for alarm in alarms:
        alarm.cancel()
    await wait_all_tasks_blocked()

    assert tasks() == before


async def test_an_alarm_that_is_set_as_the_task_ends_rings(autojump_clock: MockClock) -> None:
    bells = Bells()

    for number in range(10):
        bells.set(trio.current_time() + 1).cancel()
        for _ in range(number % 4):
            await trio.lowlevel.checkpoint()
        due = trio.current_time() + 1
        bells.set(due)
        await trio.sleep(3)
        assert bells.times[number:] == [due]


# ------------------------------------------------------------------------------------ its run


def test_each_run_has_a_clock_of_its_own() -> None:
    clocks: list[Clock] = []
    rung: list[float] = []

    async def main(number: int) -> None:
        clocks.append(the_clock())
        assert the_clock() is clocks[-1]
        the_clock().set_alarm(1, lambda: rung.append(trio.current_time()))
        the_clock().set_alarm(1000, lambda: rung.append(-1))
        await trio.sleep(2 + number)

    for number in range(3):
        trio.run(main, number, clock=MockClock(autojump_threshold=0))

    assert len({id(clock) for clock in clocks}) == 3
    assert rung == [1, 1, 1]


def test_a_run_ends_though_alarms_are_set() -> None:
    rung: list[float] = []

    async def main() -> None:
        for when in range(1, 100):
            the_clock().set_alarm(when, lambda: rung.append(trio.current_time()))
        await trio.sleep(10.5)

    trio.run(main, clock=MockClock(autojump_threshold=0))

    assert rung == list(range(1, 11))


def test_an_alarm_that_is_set_after_the_main_task_has_ended_harms_nobody() -> None:
    rung: list[str] = []
    survived: list[str] = []

    async def outlive() -> None:
        try:
            await trio.sleep_forever()
        finally:
            alarm = the_clock().set_alarm(trio.current_time(), lambda: rung.append("late"))
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            the_clock().set_alarm(trio.current_time(), lambda: rung.append("later"))
            alarm.cancel()
            survived.append("yes")

    async def main() -> None:
        the_clock().set_alarm(1000, lambda: rung.append("never"))
        trio.lowlevel.spawn_system_task(outlive)
        await trio.sleep(1)

    trio.run(main, clock=MockClock(autojump_threshold=0))

    assert survived == ["yes"]
    assert rung == []
