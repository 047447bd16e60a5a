import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim._expiry import Expiry
from trio_wsprim._ledger import Entry


def waiting(seconds: float | None, name: str = "m") -> Entry:
    """Make a message that waits, for so long."""
    entry = Entry(name, len(name))
    entry.ttl = seconds
    entry.waits = True
    if seconds is not None:
        entry.deadline = trio.current_time() + seconds
    return entry


class Watch:
    """A list of deadlines under watch, and when what expired."""

    def __init__(self) -> None:
        self.expiry = Expiry(self.note)
        self.expired: list[tuple[float, object]] = []

    def note(self, entry: Entry) -> None:
        self.expired.append((trio.current_time(), entry.message))


async def test_each_expires_at_its_deadline_whatever_the_order_of_sending(autojump_clock: MockClock) -> None:
    watch = Watch()
    for name, seconds in (("late", 3.0), ("soon", 1.0), ("between", 2.0)):
        watch.expiry.watch(waiting(seconds, name))
        await wait_all_tasks_blocked()
    await trio.sleep(5)

    assert watch.expired == [(1, "soon"), (2, "between"), (3, "late")]


async def test_two_of_one_deadline_expire_in_the_order_in_which_they_came(autojump_clock: MockClock) -> None:
    watch = Watch()
    for name in ("a", "b"):
        watch.expiry.watch(waiting(1.0, name))
    await trio.sleep(2)

    assert watch.expired == [(1, "a"), (1, "b")]


async def test_the_list_can_be_used_again_when_all_of_it_has_expired(autojump_clock: MockClock) -> None:
    watch = Watch()
    watch.expiry.watch(waiting(1.0, "a"))
    await trio.sleep(2)

    watch.expiry.watch(waiting(1.0, "b"))
    await trio.sleep(2)

    assert watch.expired == [(1, "a"), (3, "b")]


async def test_what_may_wait_for_ever_is_not_watched(autojump_clock: MockClock) -> None:
    watch = Watch()
    entry = waiting(None)

    watch.expiry.watch(entry)

    assert not entry.is_watched


async def test_one_that_comes_back_is_watched_once(autojump_clock: MockClock) -> None:
    watch = Watch()
    entry = waiting(1.0)
    for _ in range(3):
        watch.expiry.watch(entry)
    await trio.sleep(2)

    assert watch.expired == [(1, "m")]


async def test_one_that_comes_back_after_its_deadline_expires_at_once(autojump_clock: MockClock) -> None:
    watch = Watch()
    entry = waiting(1.0)
    await trio.sleep(4)

    watch.expiry.watch(entry)
    await wait_all_tasks_blocked()

    assert watch.expired == [(4, "m")]
    assert not entry.is_watched


async def test_what_no_longer_waits_is_sorted_out_before_the_list_grows_long(autojump_clock: MockClock) -> None:
    watch = Watch()
    stays = waiting(50.0, "stays")
    watch.expiry.watch(stays)
    for _ in range(500):
        gone = waiting(100.0)
        watch.expiry.watch(gone)
        gone.waits = False

    assert len(watch.expiry._heap) <= 2 * 64
    await trio.sleep(60)
    assert watch.expired == [(50, "stays")]


async def test_a_list_that_was_sorted_out_to_nothing_expires_nothing(autojump_clock: MockClock) -> None:
    watch = Watch()
    for _ in range(65):
        gone = waiting(1.0)
        watch.expiry.watch(gone)
        gone.waits = False
    watch.expiry.watch(waiting(30.0, "stays"))

    await trio.sleep(40)

    assert [name for _, name in watch.expired if name != "m"] == ["stays"]


async def test_after_a_computation_that_kept_trio_waiting_the_writer_goes_first(mock_clock: MockClock) -> None:
    entries = [waiting(1.0, "taken"), waiting(1.0, "left")]
    watch = Watch()
    for entry in entries:
        watch.expiry.watch(entry)

    async def take_late() -> None:
        """Be the writer, which wakes in the same turn as the clock."""
        await trio.sleep_until(1)
        entries[0].waits = False
        watched.append([name for _, name in watch.expired])

    watched: list[list[object]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_late)
        await wait_all_tasks_blocked()
        mock_clock.jump(2)
        await wait_all_tasks_blocked()

    assert watched == [[]]
    assert watch.expired == [(2, "taken"), (2, "left")]  # what no longer waits is the outbox's to tell


@pytest.mark.parametrize("seconds", [None, 1.0])
async def test_when_it_has_stopped_nothing_expires_and_no_task_is_left(
    seconds: float | None, autojump_clock: MockClock
) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    watch = Watch()
    watch.expiry.watch(waiting(seconds))

    watch.expiry.stop()
    await wait_all_tasks_blocked()

    assert trio.lowlevel.current_statistics().tasks_living == before
    await trio.sleep(3)
    assert watch.expired == []
