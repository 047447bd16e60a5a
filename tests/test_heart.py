from collections.abc import Callable
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from trio_wsprim._errors import HeartbeatTimeout
from trio_wsprim._heart import Heart
from trio_wsprim._options import Heartbeat
from trio_wsprim._seam import Link, Outgoing, Ping
from trio_wsprim._values import Message

Beat = Message | Callable[[], Message] | None


class Kit:
    """A heart, the link that it listens to, and what it sent."""

    def __init__(self, message: Beat = None, interval: float = 10, wait: float = 3, is_quick: bool = True) -> None:
        self.heard_at = self.moved_at = trio.current_time()
        self.beats: list[tuple[float, Outgoing]] = []
        self.leaves: list[Callable[[], None]] = []
        self.is_quick = is_quick
        heartbeat = Heartbeat(message=message, interval=interval, wait=wait, reply=None)
        self.heart = Heart(heartbeat, cast(Link, self), self.send_now)

    def send_now(self, item: Outgoing, leave: Callable[[], None]) -> None:
        self.beats.append((trio.current_time(), item))
        self.leaves.append(leave)
        if self.is_quick:
            leave()

    def hear(self) -> None:
        self.heard_at = trio.current_time()


async def test_a_silent_peer_gets_one_beat_and_is_then_found_dead(autojump_clock: MockClock) -> None:
    kit = Kit()

    with pytest.raises(HeartbeatTimeout, match="within 3 seconds") as caught:
        await kit.heart.run()

    assert trio.current_time() == 13
    assert kit.beats == [(10, Ping(b"heartbeat"))]
    assert caught.value.wait == 3


async def test_a_peer_that_answers_is_asked_again_and_again(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    kit = Kit(message="ping")
    nursery.start_soon(kit.heart.run)

    for _ in range(3):
        await trio.sleep(11)
        kit.hear()
        await trio.sleep(0.5)

    assert [message for _, message in kit.beats] == ["ping"] * 3
    assert [at for at, _ in kit.beats] == [10, 21, 32.5]


async def test_a_patient_heart_asks_as_often_as_any(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    kit = Kit(interval=2, wait=60)
    nursery.start_soon(kit.heart.run)

    for _ in range(3):
        await trio.sleep(2.25)
        kit.hear()

    assert [at for at, _ in kit.beats] == [2, 4.25, 6.5]


async def test_an_answer_that_came_while_trio_was_kept_waiting_counts(mock_clock: MockClock) -> None:
    kit = Kit(interval=1, wait=1)

    async def read_late() -> None:
        """Be the reader that wakes in the same turn as the heart, perhaps after it, with the answer in its hands."""
        await trio.sleep_until(30)
        await trio.lowlevel.checkpoint()
        kit.hear()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kit.heart.run)
        nursery.start_soon(read_late)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(1)
        await trio.testing.wait_all_tasks_blocked()
        assert len(kit.beats) == 1
        mock_clock.jump(29)  # somebody computed for so long
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_a_peer_that_talks_is_not_asked(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    kit = Kit()
    nursery.start_soon(kit.heart.run)

    for _ in range(20):
        await trio.sleep(9)
        kit.hear()

    assert kit.beats == []


async def test_a_function_is_asked_for_each_beat(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    messages = iter(tuple[Message, ...](("first", b"second")))
    kit = Kit(message=lambda: next(messages))
    nursery.start_soon(kit.heart.run)

    await trio.sleep(11)
    kit.hear()
    await trio.sleep(11)

    assert [message for _, message in kit.beats] == ["first", b"second"]


@pytest.mark.parametrize(
    ("function", "error"),
    [(lambda: 1 // 0, ZeroDivisionError), (lambda: 7, TypeError), (lambda: "\ud800", UnicodeEncodeError)],
)
async def test_what_a_function_raises_or_should_not_have_returned_comes_out(
    function: Callable[[], Message], error: type[Exception], autojump_clock: MockClock
) -> None:
    kit = Kit(message=function)

    with pytest.raises(error):
        await kit.heart.run()

    assert kit.beats == []


async def test_while_we_do_not_read_nobody_is_found_dead(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    kit = Kit()
    nursery.start_soon(kit.heart.run)
    await trio.sleep(4)

    kit.heart.stand()
    await trio.sleep(1000)
    kit.heart.go()
    await trio.sleep(5.5)
    assert kit.beats == []
    await trio.sleep(1)

    assert kit.beats == [(1010, Ping(b"heartbeat"))]
    kit.heart.scope.cancel()


async def test_many_short_stands_do_not_confuse_it(autojump_clock: MockClock) -> None:
    kit = Kit()

    async def read_in_turns() -> None:
        for _ in range(8):
            await trio.sleep(1)
            kit.heart.stand()
            await trio.sleep(1)
            kit.heart.go()

    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kit.heart.run)
            nursery.start_soon(read_in_turns)

    assert caught.group_contains(HeartbeatTimeout)
    assert trio.current_time() == 8 + 13


async def test_a_beat_that_waits_behind_a_write_that_gets_on_counts_from_when_it_leaves(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    kit = Kit(is_quick=False)

    async def write() -> None:
        for _ in range(10):
            await trio.sleep(2)
            kit.moved_at = trio.current_time()
        kit.leaves[0]()

    nursery.start_soon(write)
    with pytest.raises(HeartbeatTimeout):
        await kit.heart.run()

    assert trio.current_time() == 23


async def test_a_blocked_write_does_not_hide_a_dead_peer(autojump_clock: MockClock) -> None:
    kit = Kit(is_quick=False)

    with pytest.raises(HeartbeatTimeout):
        await kit.heart.run()

    assert trio.current_time() == 13


@pytest.mark.parametrize("stands", [False, True])
@pytest.mark.parametrize("is_early", [False, True])
async def test_it_ends_when_its_scope_is_cancelled(
    stands: bool, is_early: bool, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    kit = Kit()
    if stands:
        kit.heart.stand()
    if is_early:
        kit.heart.scope.cancel()
    else:
        kit.heart.scope.deadline = 5

    await kit.heart.run()

    assert trio.current_time() == (0 if is_early else 5)
