import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim._expiry import Expiry
from trio_wsprim._ledger import Entry


def waiting(seconds: float | None, name: str = "m") -> Entry:
    """Make a message that waits, for so long."""
    entry = Entry(name, len(name), seconds)
    entry.waits = True
    if seconds is not None:
        entry.deadline = trio.current_time() + seconds
    return entry


class Watch:
    """A list of deadlines under watch, and when what expired."""

    def __init__(self) -> None:
        self.expiry = Expiry()
        self.expired: list[tuple[float, object]] = []

    def note(self, entry: Entry) -> None:
        self.expired.append((trio.current_time(), entry.message))


async def watching(nursery: trio.Nursery) -> Watch:
    watch = Watch()
    nursery.start_soon(watch.expiry.run, watch.note)
    await wait_all_tasks_blocked()
    return watch


async def test_each_expires_at_its_deadline_whatever_the_order_of_sending(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    watch = await watching(nursery)
    for name, seconds in (("late", 3.0), ("soon", 1.0), ("between", 2.0)):
        watch.expiry.watch(waiting(seconds, name))
        await wait_all_tasks_blocked()
    await trio.sleep(5)

    assert watch.expired == [(1, "soon"), (2, "between"), (3, "late")]


async def test_two_of_one_deadline_expire_in_the_order_in_which_they_came(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    watch = await watching(nursery)
    for name in ("a", "b"):
        watch.expiry.watch(waiting(1.0, name))
    await trio.sleep(2)

    assert watch.expired == [(1, "a"), (1, "b")]


async def test_what_may_wait_for_ever_is_not_watched(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    watch = await watching(nursery)
    entry = waiting(None)

    watch.expiry.watch(entry)

    assert not entry.is_watched


async def test_one_that_comes_back_is_watched_once(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    watch = await watching(nursery)
    entry = waiting(1.0)
    for _ in range(3):
        watch.expiry.watch(entry)
    await trio.sleep(2)

    assert watch.expired == [(1, "m")]


async def test_one_that_comes_back_after_its_deadline_expires_at_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    watch = await watching(nursery)
    entry = waiting(1.0)
    await trio.sleep(4)

    watch.expiry.watch(entry)
    await wait_all_tasks_blocked()

    assert watch.expired == [(4, "m")]
    assert not entry.is_watched


async def test_what_no_longer_waits_is_sorted_out_before_the_list_grows_long(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    watch = await watching(nursery)
    stays = waiting(50.0, "stays")
    watch.expiry.watch(stays)
    for _ in range(500):
        gone = waiting(100.0)
        watch.expiry.watch(gone)
        gone.waits = False

    assert len(watch.expiry._heap) <= 2 * 64
    await trio.sleep(60)
    assert watch.expired == [(50, "stays")]
