import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim._errors import ConnectionClosed
from trio_wsprim._pings import PendingPing, Pings


class Notes:
    """What was said about answered pings."""

    def __init__(self) -> None:
        self.pings: list[PendingPing] = []
        self.latencies: list[float] = []

    def take(self, pending: PendingPing, latency: float) -> None:
        self.pings.append(pending)
        self.latencies.append(latency)


def sent(pings: Pings) -> PendingPing:
    pending = pings.add()
    pending.leave(7)
    return pending


async def test_a_pong_tells_how_long_its_ping_took(autojump_clock: MockClock) -> None:
    pings, notes = Pings(), Notes()
    pending = pings.add()
    await trio.sleep(5)
    assert not pending.has_left
    pending.leave(7)
    assert pending.has_left

    await trio.sleep(0.25)
    pings.answer(pending.ping.payload, notes.take)

    assert await pending.wait() == 0.25
    assert notes.pings == [pending]
    assert pending.covers == 7
    assert notes.latencies == [0.25]


def test_each_ping_has_a_payload_of_its_own() -> None:
    pings = Pings()

    assert len({pings.add().ping.payload for _ in range(100)}) == 100


async def test_a_pong_answers_the_pings_before_its_own_too(autojump_clock: MockClock) -> None:
    pings, notes = Pings(), Notes()
    first = sent(pings)
    await trio.sleep(1)
    second, third = sent(pings), sent(pings)

    await trio.sleep(1)
    pings.answer(second.ping.payload, notes.take)

    assert (await first.wait(), await second.wait()) == (2, 1)
    assert notes.latencies == [2, 1]
    with trio.move_on_after(1) as scope:
        await third.wait()
    assert scope.cancelled_caught


@pytest.mark.parametrize("payload", [b"", b"99", b"heartbeat"])
async def test_a_pong_that_nobody_asked_for_is_no_answer(payload: bytes, autojump_clock: MockClock) -> None:
    pings, notes = Pings(), Notes()
    pending = sent(pings)

    pings.answer(payload, notes.take)

    assert notes.latencies == []
    with trio.move_on_after(1) as scope:
        await pending.wait()
    assert scope.cancelled_caught


async def test_a_pong_that_comes_before_its_ping_has_left_is_no_answer() -> None:
    pings, notes = Pings(), Notes()
    pending = pings.add()

    pings.answer(pending.ping.payload, notes.take)

    assert notes.latencies == []


async def test_a_ping_that_was_forgotten_is_answered_in_vain() -> None:
    pings, notes = Pings(), Notes()
    pending = sent(pings)

    pings.forget(pending)
    pings.forget(pending)
    pings.answer(pending.ping.payload, notes.take)

    assert notes.latencies == []


async def test_the_end_of_the_connection_fails_every_ping_with_an_error_of_its_own(nursery: trio.Nursery) -> None:
    pings, raised = Pings(), list[BaseException]()
    end = ConnectionClosed(1011, "bye")

    async def wait(pending: PendingPing) -> None:
        try:
            await pending.wait()
        except ConnectionClosed as error:
            raised.append(error)

    nursery.start_soon(wait, sent(pings))
    nursery.start_soon(wait, pings.add())
    await wait_all_tasks_blocked()
    pings.fail(end)
    await wait_all_tasks_blocked()

    assert [str(each) for each in raised] == [str(end)] * 2
    assert len({id(each) for each in (end, *raised)}) == 3


async def test_a_wait_can_be_cancelled_before_and_while_it_lasts(autojump_clock: MockClock) -> None:
    pending = sent(Pings())

    for timeout in (0, 1):
        with trio.move_on_after(timeout) as scope:
            await pending.wait()
        assert scope.cancelled_caught
