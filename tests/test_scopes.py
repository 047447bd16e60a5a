from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim._scopes import Bell, OneAtATime, Pace, peeled, peeled_nursery, serving

# ------------------------------------------------------------------------------------ Pace


async def test_each_64th_step_lets_others_run(nursery: trio.Nursery) -> None:
    pace, turns = Pace(), 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    nursery.start_soon(count)
    await trio.lowlevel.checkpoint()
    before = turns
    for _ in range(640):
        await pace.step()

    assert 8 <= turns - before <= 12


async def test_others_have_a_turn_in_each_64_steps(nursery: trio.Nursery) -> None:
    pace, steps, seen = Pace(), 0, [0]

    async def watch() -> None:
        while True:
            seen.append(steps)
            await trio.lowlevel.checkpoint()

    nursery.start_soon(watch)
    for _ in range(1000):
        await pace.step()
        steps += 1

    assert len(seen) >= 1000 // 64
    # Who goes first in a turn is trio's to say: so two turns may be 64 steps apart, or none, or twice as many.
    assert max(later - earlier for earlier, later in pairwise(seen)) <= 128


async def test_every_step_is_a_cancellation_point() -> None:
    pace = Pace()

    for _ in range(130):
        with trio.CancelScope() as scope:
            scope.cancel()
            await pace.step()
        assert scope.cancelled_caught


# ------------------------------------------------------------------------------------ Bell


async def test_a_ring_that_nobody_waited_for_is_remembered_once(autojump_clock: MockClock) -> None:
    bell = Bell()

    bell.ring()
    bell.ring()
    await bell.wait()

    with trio.move_on_after(1) as scope:
        await bell.wait()
    assert scope.cancelled_caught


async def test_a_ring_wakes_all_who_wait_and_is_not_kept_for_later(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bell = Bell()
    woken: list[int] = []

    async def wait(number: int) -> None:
        await bell.wait()
        woken.append(number)

    nursery.start_soon(wait, 1)
    nursery.start_soon(wait, 2)
    await wait_all_tasks_blocked()
    bell.ring()
    await wait_all_tasks_blocked()

    assert sorted(woken) == [1, 2]
    with trio.move_on_after(1) as scope:
        await bell.wait()
    assert scope.cancelled_caught


async def test_a_cancelled_wait_leaves_the_ring_to_others() -> None:
    bell = Bell()
    bell.ring()

    with trio.CancelScope() as scope:
        scope.cancel()
        await bell.wait()

    assert scope.cancelled_caught
    await bell.wait()


async def test_a_wait_that_is_cancelled_leaves_nothing(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    bell = Bell()

    with trio.move_on_after(1) as scope:
        await bell.wait()
    bell.ring()

    assert scope.cancelled_caught
    await bell.wait()


async def test_a_ring_after_one_of_two_gave_up_wakes_the_other(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bell = Bell()
    woken: list[int] = []

    async def wait(number: int, patience: float) -> None:
        with trio.move_on_after(patience):
            await bell.wait()
            woken.append(number)

    nursery.start_soon(wait, 1, 1)
    nursery.start_soon(wait, 2, 9)
    await trio.sleep(2)
    bell.ring()
    await wait_all_tasks_blocked()

    assert woken == [2]
    with trio.move_on_after(1) as scope:
        await bell.wait()
    assert scope.cancelled_caught


# ------------------------------------------------------------------------------------ OneAtATime


def test_a_second_task_is_refused_until_the_first_is_done() -> None:
    sending = OneAtATime("sending")

    with sending, pytest.raises(trio.BusyResourceError, match="another task is sending already"), sending:
        pass

    with sending:
        pass


# ------------------------------------------------------------------------------------ peeled


def with_past(error: BaseException) -> BaseException:
    """Give an error a cause and a context, as if it had seen something of life."""
    error.__context__ = KeyError("context")
    error.__cause__ = OSError("cause")
    error.__suppress_context__ = False
    return error


async def test_without_an_error_nothing_happens() -> None:
    async with peeled_nursery() as nursery:
        nursery.start_soon(trio.lowlevel.checkpoint)


def test_an_error_without_a_group_stays_as_it_is() -> None:
    with pytest.raises(ValueError, match="bare"), peeled():
        raise ValueError("bare")


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, StopIteration, StopAsyncIteration, SystemExit])
async def test_a_users_error_comes_out_alone_and_as_it_was(kind: type[BaseException]) -> None:
    error = with_past(kind("theirs"))
    cause, context = error.__cause__, error.__context__

    with pytest.raises(kind) as caught:
        async with peeled_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise error

    assert caught.value is error
    assert error.__cause__ is cause
    assert error.__context__ is context
    assert not error.__suppress_context__


async def test_an_error_without_a_past_gets_none() -> None:
    error = ValueError("theirs")

    with pytest.raises(ValueError, match="theirs"):
        async with peeled_nursery():
            raise error

    assert error.__cause__ is None
    assert error.__context__ is None


class TheirGroup(ExceptionGroup[Exception]):
    """A group of the user's own, which a nursery that splits it would turn into a plain one."""


@pytest.mark.parametrize(
    "group",
    [
        ExceptionGroup("theirs", [ValueError("a")]),
        ExceptionGroup("theirs", [ValueError("a"), ExceptionGroup("inner", [KeyError("b")])]),
        TheirGroup("theirs", [ValueError("a")]),
        BaseExceptionGroup("theirs", [KeyboardInterrupt()]),
    ],
    ids=repr,
)
async def test_a_group_that_the_caller_raised_comes_out_as_it_is(group: BaseException) -> None:
    with pytest.raises(type(group)) as caught:
        async with peeled_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise group

    assert caught.value is group
    assert group.__context__ is None


def test_without_knowing_the_bodys_error_a_group_keeps_its_shape() -> None:
    group = ExceptionGroup("theirs", [ValueError("a")])

    with pytest.raises(ExceptionGroup) as caught, peeled():
        raise ExceptionGroup("ours", [group])

    assert caught.value is group


async def test_a_group_with_a_cancellation_in_it_leaves_that_to_its_scope() -> None:
    with pytest.raises(ExceptionGroup) as caught, trio.CancelScope() as scope:
        async with peeled_nursery():
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as cancelled:
                raise BaseExceptionGroup("theirs", [cancelled, ValueError("a")]) from None

    assert caught.value.message == "theirs"
    assert [type(each) for each in caught.value.exceptions] == [ValueError]


async def test_two_errors_stay_together() -> None:
    async def fail() -> None:
        raise KeyError("ours")

    with pytest.raises(ExceptionGroup) as caught:
        async with peeled_nursery() as nursery:
            nursery.start_soon(fail)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("theirs")

    assert {type(each) for each in caught.value.exceptions} == {KeyError, ValueError}


async def test_a_cancellation_of_the_caller_comes_out_as_a_cancellation() -> None:
    with trio.CancelScope() as scope:
        async with peeled_nursery():
            scope.cancel()
            await trio.sleep_forever()

    assert scope.cancelled_caught


async def test_an_error_that_leaves_beside_a_cancellation_is_the_one_to_tell() -> None:
    with pytest.raises(ValueError, match="theirs"), trio.CancelScope() as scope:
        async with peeled_nursery():
            scope.cancel()
            raise ValueError("theirs")


async def test_an_error_that_leaves_beside_a_whole_group_of_cancellations_comes_out_alone() -> None:
    async def sleep_in_a_nursery() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(trio.sleep_forever)

    with pytest.raises(ValueError, match="theirs"), trio.CancelScope() as scope:
        async with peeled_nursery() as nursery:
            nursery.start_soon(sleep_in_a_nursery)
            await wait_all_tasks_blocked()
            scope.cancel()
            raise ValueError("theirs")


# ------------------------------------------------------------------------------------ serving


class Pump:
    """Work that must outlive the body, and says when it ended."""

    def __init__(self) -> None:
        self.moved: list[str] = []
        self.ended = trio.Event()
        self.stop = trio.Event()
        self._sender, self._receiver = trio.open_memory_channel[tuple[str, trio.Event]](0)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._move)
            try:
                await self.stop.wait()
            finally:
                self.ended.set()
            nursery.cancel_scope.cancel()

    async def move(self, item: str) -> None:
        """Hand over an item, and wait until it has been moved."""
        done = trio.Event()
        await self._sender.send((item, done))
        await done.wait()

    async def _move(self) -> None:
        async for item, done in self._receiver:
            self.moved.append(item)
            done.set()


async def test_the_work_runs_beside_the_body() -> None:
    pump = Pump()

    async with serving(pump.run):
        await pump.move("a")
        pump.stop.set()

    assert pump.moved == ["a"]


async def test_the_bodys_end_waits_for_the_work_to_end(autojump_clock: MockClock) -> None:
    async def work() -> None:
        await trio.sleep(5)

    started = trio.current_time()
    async with serving(work):
        pass

    assert trio.current_time() - started == 5


async def test_a_cancelled_body_may_still_use_the_pump_in_its_finally(autojump_clock: MockClock) -> None:
    pump = Pump()

    with trio.move_on_after(1) as scope:
        async with serving(pump.run):
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(1, shield=True):
                    await pump.move("goodbye")

    assert scope.cancelled_caught
    assert pump.moved == ["goodbye"]
    assert pump.ended.is_set()


async def test_a_body_that_was_cancelled_from_the_start_may_use_the_pump_too(autojump_clock: MockClock) -> None:
    pump = Pump()

    with trio.CancelScope() as scope:
        scope.cancel()
        async with serving(pump.run):
            with trio.move_on_after(1, shield=True):
                await pump.move("goodbye")
            await trio.lowlevel.checkpoint()

    assert scope.cancelled_caught
    assert pump.moved == ["goodbye"]


async def test_a_failed_body_may_use_the_pump_and_then_ends_it(autojump_clock: MockClock) -> None:
    pump = Pump()

    with pytest.raises(ValueError, match="theirs"):
        async with serving(pump.run):
            try:
                raise ValueError("theirs")
            finally:
                await pump.move("goodbye")

    assert pump.moved == ["goodbye"]
    assert pump.ended.is_set()


async def test_work_that_brings_its_scope_is_shielded_and_can_be_ended_by_it(autojump_clock: MockClock) -> None:
    scope = trio.CancelScope()
    ended: list[float] = []

    async def work() -> None:
        with scope:
            try:
                await trio.sleep_forever()
            finally:
                ended.append(trio.current_time())

    with trio.move_on_after(2) as outer:
        async with serving(work, scope):
            try:
                await trio.sleep(4)
            finally:
                with trio.move_on_after(1, shield=True):
                    await trio.sleep(10)
                assert ended == []
    assert outer.cancelled_caught
    assert ended == [3]

    scope = trio.CancelScope()
    async with serving(work, scope):
        await trio.sleep(1)
        scope.cancel()
        await trio.sleep(1)
    assert ended == [3, 4]


async def test_an_error_of_the_work_ends_the_body_and_comes_out_alone(autojump_clock: MockClock) -> None:
    async def work() -> None:
        await trio.sleep(1)
        raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        async with serving(work):
            await trio.sleep_forever()


async def test_an_error_raised_under_a_cancellation_comes_out_alone(autojump_clock: MockClock) -> None:
    pump = Pump()

    with pytest.raises(ValueError, match="theirs"), trio.CancelScope() as scope:
        async with serving(pump.run):
            await wait_all_tasks_blocked()
            scope.cancel()
            raise ValueError("theirs")


@pytest.mark.filterwarnings("ignore::trio.TrioDeprecationWarning")
def test_a_run_that_is_not_strict_about_groups_changes_nothing() -> None:
    group = ExceptionGroup("theirs", [ValueError("a")])

    async def main() -> None:
        async with serving(trio.sleep_forever):
            raise group

    with pytest.raises(ExceptionGroup) as caught:
        trio.run(main, strict_exception_groups=False)

    assert caught.value is group
