from collections.abc import Awaitable, Callable
from typing import cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim._errors import HeartbeatTimeout
from trio_wsprim._heart import Heart
from trio_wsprim._options import Heartbeat
from trio_wsprim._seam import Link, Outgoing, Ping
from trio_wsprim._values import Message

Beat = Message | Callable[[], Message] | None


class Kit:
    """A heart that beats, the link that it listens to, and what it did."""

    def __init__(self, message: Beat = None, interval: float = 10, wait: float = 3, is_quick: bool = True) -> None:
        self.heard_at = self.moved_at = trio.current_time()
        self.beats: list[tuple[float, Outgoing]] = []
        self.leaves: list[Callable[[], None]] = []
        self.ends: list[tuple[float, Exception]] = []
        self.started: list[Callable[[], Awaitable[None]]] = []
        self.is_quick = is_quick
        heartbeat = Heartbeat(message=message, interval=interval, wait=wait, reply=None)
        self.heart = Heart(heartbeat, cast(Link, self), self.send_now, self.end, self.started.append)

    def send_now(self, item: Outgoing, leave: Callable[[], None]) -> None:
        self.beats.append((trio.current_time(), item))
        self.leaves.append(leave)
        if self.is_quick:
            leave()

    def end(self, error: Exception) -> None:
        self.ends.append((trio.current_time(), error))

    def hear(self) -> None:
        self.heard_at = trio.current_time()

    @property
    def beat_times(self) -> list[float]:
        return [at for at, _ in self.beats]

    @property
    def died_at(self) -> float:
        """When the peer was found dead, which happens once."""
        [(at, error)] = self.ends
        assert isinstance(error, HeartbeatTimeout)
        return at


async def test_a_silent_peer_gets_one_beat_and_is_then_found_dead_once(autojump_clock: MockClock) -> None:
    kit = Kit()

    await trio.sleep(100)

    assert kit.beats == [(10, Ping(b"heartbeat"))]
    [(at, error)] = kit.ends
    assert at == 13
    assert isinstance(error, HeartbeatTimeout)
    assert error.wait == 3
    assert "within 3 seconds" in str(error)


async def test_a_peer_that_answers_is_asked_again_and_again(autojump_clock: MockClock) -> None:
    kit = Kit(message="ping")

    for _ in range(3):
        await trio.sleep(11)
        kit.hear()
        await trio.sleep(0.5)

    assert [message for _, message in kit.beats] == ["ping"] * 3
    assert kit.beat_times == [10, 21, 32.5]
    assert kit.ends == []


async def test_a_patient_heart_asks_as_often_as_any(autojump_clock: MockClock) -> None:
    kit = Kit(interval=2, wait=60)

    for _ in range(3):
        await trio.sleep(2.25)
        kit.hear()

    assert kit.beat_times == [2, 4.25, 6.5]


async def test_an_answer_that_came_while_trio_was_kept_waiting_counts(mock_clock: MockClock) -> None:
    kit = Kit(interval=1, wait=1)

    async def read_late() -> None:
        """Be the reader that wakes in the same turn as the clock, perhaps after it, with the answer in its hands."""
        await trio.sleep_until(30)
        for _ in range(3):  # tasks that a byte passes
            await trio.lowlevel.checkpoint()
        kit.hear()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_late)
        await wait_all_tasks_blocked()
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        assert len(kit.beats) == 1
        mock_clock.jump(29)  # somebody computed for so long
        await wait_all_tasks_blocked()

    assert kit.ends == []
    kit.heart.stop()


async def test_a_verdict_that_was_doubted_once_is_doubted_as_long_the_next_time(mock_clock: MockClock) -> None:
    kit = Kit(interval=1, wait=1)

    for _ in range(20):
        await wait_all_tasks_blocked()
        mock_clock.jump(1)  # a beat
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear_soon, kit, trio.current_time() + 5)
            await wait_all_tasks_blocked()
            mock_clock.jump(5)  # too late, were it not for the computation
            await wait_all_tasks_blocked()

    assert kit.ends == []
    kit.heart.stop()


async def hear_soon(kit: Kit, when: float) -> None:
    await trio.sleep_until(when)
    for _ in range(2):
        await trio.lowlevel.checkpoint()
    kit.hear()


async def test_a_peer_that_talks_is_not_asked(autojump_clock: MockClock) -> None:
    kit = Kit()

    for _ in range(20):
        await trio.sleep(9)
        kit.hear()

    assert kit.beats == []


# ------------------------------------------------------------------------------------ functions


async def test_a_function_is_asked_for_each_beat_in_a_task_that_is_started_for_it(autojump_clock: MockClock) -> None:
    messages = iter(tuple[Message, ...](("first", b"second")))
    kit = Kit(message=lambda: next(messages))

    for number in (1, 2):
        await trio.sleep(11)
        assert len(kit.started) == number
        assert len(kit.beats) == number - 1  # the clock has asked nobody
        await kit.started[-1]()
        kit.hear()

    assert [message for _, message in kit.beats] == ["first", b"second"]


@pytest.mark.parametrize(
    ("function", "error"),
    [(lambda: 1 // 0, ZeroDivisionError), (lambda: 7, TypeError), (lambda: "\ud800", UnicodeEncodeError)],
)
async def test_what_a_function_raises_or_should_not_have_returned_comes_out_of_that_task(
    function: Callable[[], Message], error: type[Exception], autojump_clock: MockClock
) -> None:
    kit = Kit(message=function)
    await trio.sleep(11)
    [work] = kit.started

    with pytest.raises(error):
        await work()

    assert kit.beats == []
    kit.heart.stop()


async def test_a_function_that_is_not_come_to_does_not_hide_a_dead_peer(autojump_clock: MockClock) -> None:
    kit = Kit(message=lambda: "never sent")

    await trio.sleep(50)

    assert kit.died_at == 13


# ------------------------------------------------------------------------------------ while we do not read


async def test_while_we_do_not_read_nobody_is_found_dead(autojump_clock: MockClock) -> None:
    kit = Kit()
    await trio.sleep(4)

    kit.heart.stand()
    await trio.sleep(1000)
    kit.heart.go()
    await trio.sleep(5.5)
    assert kit.beats == []
    await trio.sleep(1)

    assert kit.beats == [(1010, Ping(b"heartbeat"))]
    await trio.sleep(10)
    assert kit.died_at == 1013


async def test_a_stand_with_a_beat_out_leaves_the_rest_of_its_wait_for_later(autojump_clock: MockClock) -> None:
    kit = Kit()
    await trio.sleep(11)

    kit.heart.stand()
    await trio.sleep(1000)
    assert kit.ends == []
    kit.heart.go()
    await trio.sleep(10)

    assert kit.beat_times == [10]
    assert kit.died_at == 1013


async def test_while_we_do_not_read_no_task_is_kept_for_it(autojump_clock: MockClock) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    kit = Kit()
    await trio.sleep(4)

    kit.heart.stand()
    await trio.sleep(20)

    assert trio.lowlevel.current_statistics().tasks_living == before
    kit.heart.stop()


async def test_a_stand_that_is_over_before_anything_was_due_changes_nothing_but_the_time(
    autojump_clock: MockClock,
) -> None:
    kit = Kit()
    await trio.sleep(4)

    kit.heart.stand()
    await trio.sleep(2)
    kit.heart.go()
    await trio.sleep(20)

    assert kit.beat_times == [12]
    assert kit.died_at == 15


async def test_many_short_stands_do_not_confuse_it(autojump_clock: MockClock) -> None:
    kit = Kit()

    for _ in range(8):
        await trio.sleep(1)
        kit.heart.stand()
        await trio.sleep(1)
        kit.heart.go()
    await trio.sleep(20)

    assert kit.died_at == 8 + 13


# ------------------------------------------------------------------------------------ writes


async def test_a_beat_that_waits_behind_a_write_that_gets_on_counts_from_when_it_leaves(
    autojump_clock: MockClock,
) -> None:
    kit = Kit(is_quick=False)

    for _ in range(10):
        await trio.sleep(2)
        kit.moved_at = trio.current_time()
    kit.leaves[0]()
    await trio.sleep(20)

    assert kit.beat_times == [10]
    assert kit.died_at == 23


async def test_a_blocked_write_does_not_hide_a_dead_peer(autojump_clock: MockClock) -> None:
    kit = Kit(is_quick=False)

    await trio.sleep(50)

    assert kit.died_at == 13


# ------------------------------------------------------------------------------------ the end


@pytest.mark.parametrize("stands", [False, True])
@pytest.mark.parametrize("is_early", [False, True])
async def test_when_it_is_stopped_it_beats_no_more_and_leaves_no_task(
    stands: bool, is_early: bool, autojump_clock: MockClock
) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    kit = Kit()
    if stands:
        kit.heart.stand()
    if not is_early:
        await trio.sleep(12)

    kit.heart.stop()
    kit.heart.stop()
    await wait_all_tasks_blocked()

    assert trio.lowlevel.current_statistics().tasks_living == before
    if stands:
        kit.heart.go()
    await trio.sleep(100)
    assert kit.ends == []
    assert len(kit.beats) == (not stands and not is_early)
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_it_may_be_stopped_by_what_it_causes(autojump_clock: MockClock) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    beating, dying = Kit(message="ping", is_quick=False), Kit()

    def stop_beating(_item: Outgoing, _leave: Callable[[], None]) -> None:
        beating.heart.stop()

    def stop_dying(error: Exception) -> None:
        dying.heart.stop()
        dying.ends.append((trio.current_time(), error))

    beating.heart.stop()
    heartbeat = Heartbeat(message="ping", interval=10, wait=3, reply=None)
    beating.heart = Heart(heartbeat, cast(Link, beating), stop_beating, beating.end, beating.started.append)
    dying.heart.stop()
    dying.heart = Heart(heartbeat, cast(Link, dying), dying.send_now, stop_dying, dying.started.append)

    await trio.sleep(100)

    assert beating.ends == []
    assert dying.died_at == 13
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_many_hearts_keep_one_task(autojump_clock: MockClock) -> None:
    before = trio.lowlevel.current_statistics().tasks_living

    kits = [Kit() for _ in range(500)]
    await trio.sleep(11)

    assert trio.lowlevel.current_statistics().tasks_living == before + 1
    assert all(len(kit.beats) == 1 for kit in kits)
    await trio.sleep(3)
    assert all(len(kit.ends) == 1 for kit in kits)
    assert trio.lowlevel.current_statistics().tasks_living == before
