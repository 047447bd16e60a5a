from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim._errors import BufferFull, ConnectionClosed, MessageTooBig
from trio_wsprim._ledger import Entry
from trio_wsprim._outbox import Outbox
from trio_wsprim._proof import Account
from trio_wsprim._scopes import Bell
from trio_wsprim._values import Buffer, DropEvent, Message, Undelivered, WhenFull

ALL = 2**20


class Kit:
    """An outbox, and what it said."""

    def __init__(
        self,
        max_messages: int | None = 2,
        max_bytes: int | None = None,
        when_full: WhenFull = "wait",
        flows: bool = True,
        tracks: bool = False,
        resends: bool = False,
    ) -> None:
        self.drops: list[DropEvent] = []
        self.outbox = Outbox(
            Buffer(max_messages, max_bytes, when_full), self.drops.append, tracks=tracks, resends=resends
        )
        self.nudges = 0
        if flows:
            self.outbox.nudge = self.count_nudge

    def count_nudge(self) -> None:
        self.nudges += 1

    def put(self, *messages: Message, ttl: float | None = None) -> None:
        for message in messages:
            self.outbox.put_nowait(message, ttl)

    def send_all(self) -> list[Message]:
        """Take everything, and have the network take it too."""
        taken = self.outbox.take(ALL)
        self.outbox.settle(len(taken))
        return bodies(taken)

    async def flush(self) -> None:
        await self.outbox.flush(self.outbox.mark())

    @property
    def left(self) -> list[Message]:
        return [each.message for each in self.outbox.leftovers()]


def bodies(entries: list[Entry]) -> list[Message]:
    return [entry.message for entry in entries]


def we_closed() -> BaseException:
    return trio.ClosedResourceError("we closed")


def they_closed() -> BaseException:
    return ConnectionClosed(1011)


async def note(work: Callable[[], Awaitable[None]], done: list[object], name: object) -> None:
    """Do some work, and note its name, or what it raised."""
    try:
        await work()
    except (trio.ClosedResourceError, ConnectionClosed) as error:
        done.append(error)
    else:
        done.append(name)


# ------------------------------------------------------------------------------------ order and bounds


async def test_messages_leave_in_the_order_in_which_they_came() -> None:
    kit = Kit(max_messages=None)

    kit.put("a", b"b", "c")

    assert kit.send_all() == ["a", b"b", "c"]
    assert kit.outbox.is_empty
    assert (kit.outbox.messages_sent, kit.outbox.bytes_sent) == (3, 3)


async def test_text_counts_as_utf8() -> None:
    kit = Kit(max_messages=None, max_bytes=4)

    kit.put("é", "ß")

    assert kit.outbox.room.bytes == 4
    with pytest.raises(BufferFull, match="max_bytes=4"):
        kit.put("x")


async def test_a_full_outbox_names_the_limit_that_is_reached() -> None:
    kit = Kit(max_messages=1)
    kit.put("a")

    with pytest.raises(trio.WouldBlock, match="max_messages=1"):
        kit.put("b")


@pytest.mark.parametrize("when_full", ["wait", "error", "drop_oldest", "drop_newest"])
async def test_a_message_larger_than_the_whole_outbox_is_refused_by_every_policy(when_full: WhenFull) -> None:
    kit = Kit(max_bytes=3, when_full=when_full)
    kit.put("a")

    with pytest.raises(MessageTooBig, match="4 bytes is over the limit of 3"):
        await kit.outbox.put("four", None)

    assert kit.left == ["a"]
    assert kit.drops == []


async def test_a_lone_surrogate_is_refused_before_anything_happens() -> None:
    kit = Kit()

    with pytest.raises(UnicodeEncodeError):
        await kit.outbox.put("\ud800", None)

    assert kit.outbox.is_empty


async def test_with_error_a_full_outbox_raises_at_once_from_both_calls() -> None:
    kit = Kit(max_messages=1, when_full="error")
    kit.put("a")

    with pytest.raises(BufferFull):
        await kit.outbox.put("b", None)
    with pytest.raises(BufferFull):
        kit.put("c")

    assert kit.left == ["a"]
    assert kit.drops == []


async def test_with_drop_newest_the_one_that_finds_no_room_is_dropped_and_reported() -> None:
    kit = Kit(max_messages=1, when_full="drop_newest")
    kit.put("a")

    await kit.outbox.put("b", None)

    assert kit.left == ["a"]
    assert kit.drops == [DropEvent("b", "full")]


async def test_with_drop_oldest_as_many_go_as_the_new_one_needs() -> None:
    kit = Kit(max_messages=3, max_bytes=6, when_full="drop_oldest")
    kit.put("aa", "bb", "c")

    await kit.outbox.put("four", None)

    assert kit.left == ["c", "four"]
    assert kit.drops == [DropEvent("aa", "full"), DropEvent("bb", "full")]


async def test_with_drop_oldest_what_the_writer_has_taken_is_not_dropped() -> None:
    kit = Kit(max_messages=1, when_full="drop_oldest")
    kit.put("under way")
    kit.outbox.take(ALL)

    kit.put("old", "new")

    assert kit.left == ["under way", "new"]
    assert kit.drops == [DropEvent("old", "full")]


# ------------------------------------------------------------------------------------ taking and settling


async def test_a_batch_takes_at_least_one_message_and_no_more_than_it_may() -> None:
    kit = Kit(max_messages=None)
    kit.put("three", "a", "b", "c")

    first = bodies(kit.outbox.take(2))
    kit.outbox.settle(1)
    second = bodies(kit.outbox.take(2))

    assert first == ["three"]
    assert second == ["a", "b"]
    assert kit.outbox.has_waiting


async def test_what_was_taken_counts_until_the_network_has_it() -> None:
    kit = Kit(max_messages=2)
    kit.put("a", "b")
    kit.outbox.take(ALL)

    assert kit.outbox.room.messages == 2
    assert not kit.outbox.has_waiting
    assert not kit.outbox.is_empty
    with pytest.raises(trio.WouldBlock):
        kit.put("c")


async def test_what_did_not_go_out_comes_back_to_where_it_was() -> None:
    kit = Kit(max_messages=4)
    kit.put("a", "b", "c")
    kit.outbox.take(ALL)
    kit.put("d")

    kit.outbox.settle(1)

    assert kit.send_all() == ["b", "c", "d"]
    assert kit.outbox.messages_sent == 4


async def test_what_is_left_at_the_end_is_told_in_order_also_if_it_was_under_way() -> None:
    kit = Kit(max_messages=3)
    kit.put("a", "b")
    kit.outbox.take(1)

    assert kit.outbox.leftovers() == (Undelivered("a", "unsent"), Undelivered("b", "unsent"))


async def test_the_connection_is_nudged_for_each_message_that_gets_in(nursery: trio.Nursery) -> None:
    kit = Kit(max_messages=1, when_full="wait")

    kit.put("a")
    assert kit.nudges == 1
    with pytest.raises(BufferFull):
        kit.put("b")
    nursery.start_soon(kit.outbox.put, "c", None)
    await wait_all_tasks_blocked()
    assert kit.nudges == 1
    kit.send_all()
    assert kit.nudges == 2
    kit.send_all()
    assert kit.outbox.put_quick("d", 1)

    assert kit.nudges == 3


async def test_who_is_nudged_may_take_and_settle_at_once(nursery: trio.Nursery) -> None:
    kit = Kit(max_messages=1)
    sent: list[Message] = []
    done: list[object] = []
    kit.outbox.nudge = lambda: sent.extend(kit.send_all())
    kit.put("a")
    kit.outbox.nudge = None
    kit.put("b")
    for name in "cde":
        nursery.start_soon(note, partial(kit.outbox.put, name, None), done, name)
        await wait_all_tasks_blocked()
    kit.outbox.nudge = lambda: sent.extend(kit.send_all())

    sent.extend(kit.send_all())
    assert kit.outbox.put_quick("f", 1)
    await wait_all_tasks_blocked()

    assert sorted(map(str, sent)) == ["a", "b", "c", "d", "e", "f"]
    assert sorted(map(str, done)) == ["c", "d", "e"]
    assert kit.outbox.is_empty
    assert (kit.outbox.room.messages, kit.outbox.room.bytes, kit.outbox.messages_sent) == (0, 0, 6)


# ------------------------------------------------------------------------------------ the quick way in


async def test_what_comes_in_quickly_is_counted_ordered_and_marked_like_anything_else() -> None:
    kit = Kit(max_messages=None)
    kit.put("a")

    assert kit.outbox.put_quick("é", 2)
    mark = kit.outbox.mark()
    kit.put("c")

    assert (kit.outbox.room.messages, kit.outbox.room.bytes) == (3, 4)
    assert mark.serial == 2
    assert kit.left == ["a", "é", "c"]
    assert kit.send_all() == ["a", "é", "c"]
    assert (kit.outbox.messages_sent, kit.outbox.bytes_sent) == (3, 4)


@pytest.mark.parametrize("when_full", ["wait", "error", "drop_oldest", "drop_newest"])
@pytest.mark.parametrize(("max_messages", "max_bytes"), [(1, None), (None, 3)])
async def test_there_is_no_quick_way_into_a_full_outbox(
    max_messages: int | None, max_bytes: int | None, when_full: WhenFull
) -> None:
    kit = Kit(max_messages, max_bytes, when_full)
    kit.put("aaa")

    assert not kit.outbox.put_quick("b", 1)

    assert kit.left == ["aaa"]
    assert kit.nudges == 1
    assert kit.drops == []


async def test_the_quick_way_does_not_overtake_who_waits(nursery: trio.Nursery) -> None:
    kit = Kit(max_messages=None, max_bytes=10)
    kit.put("12345678")
    nursery.start_soon(kit.outbox.put, "large", None)
    await wait_all_tasks_blocked()

    assert not kit.outbox.put_quick("s", 1)


async def test_there_is_no_quick_way_in_after_the_end() -> None:
    kit = Kit()
    kit.outbox.close(we_closed)

    assert not kit.outbox.put_quick("a", 1)

    assert kit.outbox.is_empty


# ------------------------------------------------------------------------------------ past the queue


def pushes(kit: Kit, *verdicts: bool | None) -> list[Message]:
    """Be a connection that takes lone messages past the queue, and says those verdicts; give what it was shown."""
    shown: list[Message] = []
    rest = iter(verdicts)

    def push(message: Message) -> bool | None:
        shown.append(message)
        return next(rest)

    kit.outbox.push = push
    return shown


@pytest.mark.parametrize("tracks", [False, True])
async def test_what_goes_past_the_queue_is_counted_as_sent(tracks: bool) -> None:
    kit = Kit(tracks=tracks)
    shown = pushes(kit, True, True)

    assert kit.outbox.put_quick("a", 1)
    assert kit.outbox.put_quick("é", 2)

    assert shown == ["a", "é"]
    assert kit.nudges == 0
    assert (kit.outbox.messages_sent, kit.outbox.bytes_sent) == (2, 3)
    assert (kit.outbox.messages_buffered, kit.outbox.bytes_buffered) == (0, 0)
    assert kit.outbox.messages_unconfirmed == 2 * tracks
    assert kit.outbox.newest_sent == kit.outbox.mark().serial == 2
    assert kit.outbox.is_empty
    kit.outbox.confirm(2)
    assert kit.outbox.room.messages == kit.outbox.messages_unconfirmed == 0


async def test_what_is_under_way_past_the_queue_is_as_if_it_had_been_taken(nursery: trio.Nursery) -> None:
    kit = Kit(max_messages=2)
    pushes(kit, False)
    assert kit.outbox.put_quick("a", 1)
    done: list[object] = []
    nursery.start_soon(note, kit.flush, done, "flushed")
    await wait_all_tasks_blocked()

    assert (kit.outbox.room.messages, kit.outbox.messages_sent, done) == (1, 0, [])
    assert not kit.outbox.has_waiting
    assert kit.left == ["a"]
    kit.outbox.settle(1)
    await wait_all_tasks_blocked()

    assert (kit.outbox.room.messages, kit.outbox.messages_sent, done) == (0, 1, ["flushed"])


async def test_what_did_not_get_through_past_the_queue_comes_back_before_what_waits() -> None:
    kit = Kit(max_messages=None)
    pushes(kit, False)
    assert kit.outbox.put_quick("a", 1)
    kit.put("b")

    kit.outbox.settle(0)

    assert kit.send_all() == ["a", "b"]


async def test_what_comes_back_to_an_outbox_that_had_nothing_waiting_yet_comes_to_no_other() -> None:
    kit, other = Kit(), Kit()
    pushes(kit, False)
    assert kit.outbox.put_quick("a secret", 8)

    kit.outbox.settle(0)

    assert other.send_all() == []
    assert kit.send_all() == ["a secret"]


async def test_what_is_to_go_out_again_comes_to_no_other_outbox_either() -> None:
    kit, other = Kit(**RESENDING), Kit(**RESENDING)
    pushes(kit, True)
    assert kit.outbox.put_quick("a secret", 8)

    assert lose_connection(kit) == Account(("a secret",), rejected=False)

    assert other.send_all() == []
    assert kit.send_all() == ["a secret"]


async def test_what_a_connection_does_not_want_past_the_queue_goes_into_it_and_so_does_all_behind_it() -> None:
    kit = Kit(max_messages=None)
    shown = pushes(kit, None)

    for name in "abc":
        assert kit.outbox.put_quick(name, 1)

    assert shown == ["a"]
    assert kit.nudges == 3
    assert kit.send_all() == ["a", "b", "c"]


async def test_nothing_goes_past_a_full_outbox() -> None:
    kit = Kit(max_messages=1, tracks=True)
    shown = pushes(kit, True)
    assert kit.outbox.put_quick("a", 1)

    assert not kit.outbox.put_quick("b", 1)

    assert shown == ["a"]


# ------------------------------------------------------------------------------------ waiting for room


async def test_waiting_senders_get_in_one_by_one_in_order(nursery: trio.Nursery) -> None:
    kit = Kit(max_messages=1)
    kit.put("first")
    done: list[object] = []
    for name in "abc":
        nursery.start_soon(note, partial(kit.outbox.put, name, None), done, name)
        await wait_all_tasks_blocked()

    assert kit.send_all() == ["first"]
    await wait_all_tasks_blocked()
    assert done == ["a"]
    assert kit.send_all() == ["a"]
    assert kit.send_all() == ["b"]
    assert kit.send_all() == ["c"]
    await wait_all_tasks_blocked()

    assert set(done) == {"a", "b", "c"}


async def test_a_newcomer_that_would_fit_does_not_overtake_a_larger_one_that_waits(nursery: trio.Nursery) -> None:
    kit = Kit(max_messages=None, max_bytes=10)
    kit.put("12345678")
    nursery.start_soon(kit.outbox.put, "large", None)
    await wait_all_tasks_blocked()

    with pytest.raises(BufferFull):
        kit.put("s")
    nursery.start_soon(kit.outbox.put, "small", None)
    await wait_all_tasks_blocked()

    assert kit.send_all() == ["12345678"]
    assert kit.left == ["large", "small"]


async def test_when_a_large_one_gives_up_the_small_ones_behind_it_get_in(nursery: trio.Nursery) -> None:
    kit = Kit(max_messages=None, max_bytes=10)
    kit.put("12345678")
    scope = trio.CancelScope()

    async def send_large() -> None:
        with scope:
            await kit.outbox.put("large", None)

    done: list[object] = []
    nursery.start_soon(send_large)
    await wait_all_tasks_blocked()
    nursery.start_soon(note, partial(kit.outbox.put, "s", None), done, "s")
    await wait_all_tasks_blocked()
    scope.cancel()
    await wait_all_tasks_blocked()

    assert done == ["s"]
    assert kit.left == ["12345678", "s"]


async def test_a_sender_that_was_cancelled_before_leaves_nothing() -> None:
    kit = Kit(max_messages=1)
    kit.put("a")

    with trio.CancelScope() as scope:
        scope.cancel()
        await kit.outbox.put("b", None)

    assert scope.cancelled_caught
    assert kit.send_all() == ["a"]
    assert kit.outbox.is_empty


async def test_a_sender_that_is_cancelled_while_waiting_leaves_nothing(nursery: trio.Nursery) -> None:
    kit = Kit(max_messages=1)
    kit.put("a")
    with trio.CancelScope() as scope:
        nursery.start_soon(cancel_when_settled, scope)
        await kit.outbox.put("b", None)

    assert scope.cancelled_caught
    assert kit.send_all() == ["a"]
    assert kit.outbox.is_empty


async def cancel_when_settled(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_a_sender_cancelled_in_the_moment_in_which_room_came_has_sent_its_message(nursery: trio.Nursery) -> None:
    kit = Kit(max_messages=1)
    kit.put("a")
    scope = trio.CancelScope()
    outcome: list[object] = []

    async def send() -> None:
        with scope:
            await note(partial(kit.outbox.put, "b", None), outcome, "b")

    nursery.start_soon(send)
    await wait_all_tasks_blocked()
    kit.send_all()
    scope.cancel()
    await wait_all_tasks_blocked()

    assert outcome == ["b"]
    assert kit.left == ["b"]


async def test_a_sender_for_whom_room_came_in_the_moment_after_its_cancellation_has_sent_nothing(
    nursery: trio.Nursery,
) -> None:
    kit = Kit(max_messages=1)
    kit.put("a")
    scope = trio.CancelScope()
    outcome: list[object] = []

    async def send() -> None:
        with scope:
            await note(partial(kit.outbox.put, "b", None), outcome, "b")

    nursery.start_soon(send)
    await wait_all_tasks_blocked()
    scope.cancel()
    await wait_all_tasks_blocked()
    kit.send_all()
    await wait_all_tasks_blocked()

    assert outcome == []
    assert kit.left == []


@pytest.mark.parametrize("refusal", [we_closed, they_closed])
async def test_the_end_wakes_every_waiting_sender_with_an_error_of_its_own(
    refusal: Callable[[], BaseException], nursery: trio.Nursery
) -> None:
    kit = Kit(max_messages=1)
    kit.put("a")
    done: list[object] = []
    for name in "bc":
        nursery.start_soon(note, partial(kit.outbox.put, name, None), done, name)
    await wait_all_tasks_blocked()

    kit.outbox.close(refusal)
    await wait_all_tasks_blocked()

    assert [type(each) for each in done] == [type(refusal())] * 2
    assert done[0] is not done[1]
    assert kit.left == ["a"]


async def test_after_the_end_nothing_gets_in() -> None:
    kit = Kit()
    kit.outbox.close(we_closed)

    with pytest.raises(trio.ClosedResourceError):
        await kit.outbox.put("a", None)
    with pytest.raises(trio.ClosedResourceError):
        kit.put("b")

    assert kit.outbox.is_empty


# ------------------------------------------------------------------------------------ ttl


async def test_a_message_expires_in_the_very_moment_and_makes_room_for_who_waits(autojump_clock: MockClock) -> None:
    kit = Kit(max_messages=1)
    kit.put("old", ttl=2.5)
    started = trio.current_time()

    await kit.outbox.put("new", None)

    assert trio.current_time() - started == pytest.approx(2.5)
    assert kit.drops == [DropEvent("old", "expired")]
    assert kit.left == ["new"]


async def test_expiry_follows_deadlines_and_not_the_order_of_sending(autojump_clock: MockClock) -> None:
    kit = Kit(max_messages=None)
    kit.put("late", ttl=30)
    await wait_all_tasks_blocked()
    kit.put("soon", ttl=1)
    kit.put("also soon", ttl=1)
    kit.put("never")

    await trio.sleep(1.5)
    early = list(kit.drops)
    await trio.sleep(30)

    assert early == [DropEvent("soon", "expired"), DropEvent("also soon", "expired")]
    assert kit.drops[2:] == [DropEvent("late", "expired")]
    assert kit.left == ["never"]


async def test_a_message_that_expired_is_not_taken_even_before_anybody_noticed(autojump_clock: MockClock) -> None:
    kit = Kit()
    kit.put("old", ttl=1)
    kit.put("new")
    await trio.sleep(1)

    assert kit.send_all() == ["new"]
    assert kit.drops == [DropEvent("old", "expired")]


async def test_what_the_writer_has_taken_does_not_expire_unless_it_comes_back(autojump_clock: MockClock) -> None:
    kit = Kit()
    kit.put("a", "b", ttl=1)
    kit.outbox.take(ALL)

    await trio.sleep(2)
    assert kit.drops == []
    kit.outbox.settle(1)
    await wait_all_tasks_blocked()

    assert kit.drops == [DropEvent("b", "expired")]
    assert kit.outbox.is_empty


async def test_what_came_back_in_time_still_expires_when_it_should(autojump_clock: MockClock) -> None:
    kit = Kit()
    kit.put("a", ttl=2)
    kit.outbox.take(ALL)
    await trio.sleep(1)
    kit.outbox.settle(0)

    await trio.sleep(1.5)

    assert kit.drops == [DropEvent("a", "expired")]


async def test_a_ttl_counts_from_when_the_message_got_in(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    kit = Kit(max_messages=1)
    kit.put("first")
    nursery.start_soon(kit.outbox.put, "second", 2)
    await trio.sleep(5)

    kit.send_all()
    await trio.sleep(1)

    assert kit.left == ["second"]


async def test_a_ttl_of_zero_is_dropped_where_nothing_flows() -> None:
    kit = Kit(flows=False)

    await kit.outbox.put("now", 0)
    kit.put("never", ttl=0)

    assert kit.drops == [DropEvent("now", "expired"), DropEvent("never", "expired")]
    assert kit.outbox.is_empty


async def test_a_ttl_of_zero_goes_out_with_the_writers_next_turn() -> None:
    kit = Kit()

    kit.put("now", ttl=0)

    assert kit.send_all() == ["now"]


async def test_a_ttl_of_zero_does_not_wait_for_room() -> None:
    kit = Kit(max_messages=1)
    kit.put("a")

    await kit.outbox.put("now", 0)

    assert kit.drops == [DropEvent("now", "expired")]
    assert kit.left == ["a"]


async def test_a_ttl_of_zero_is_dropped_where_the_network_is_busy(autojump_clock: MockClock) -> None:
    kit = Kit()
    kit.put("now", ttl=0)

    await trio.sleep(0.1)

    assert kit.drops == [DropEvent("now", "expired")]


async def test_a_program_that_computes_for_long_does_not_cost_a_ttl_of_zero_its_turn(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    kit = Kit(max_messages=None)
    bell = Bell()
    kit.outbox.nudge = bell.ring
    sent: list[Message] = []

    async def write() -> None:
        while True:
            await bell.wait()
            sent.extend(kit.send_all())

    nursery.start_soon(write)
    for number in range(20):  # trio draws lots who of several comes first
        await wait_all_tasks_blocked()
        kit.put(str(number), ttl=0)
        mock_clock.jump(1)
    await wait_all_tasks_blocked()

    assert sent == [str(number) for number in range(20)]
    assert kit.drops == []


async def test_the_list_of_deadlines_does_not_grow_with_fast_sends_and_long_ttls() -> None:
    kit = Kit(max_messages=None)

    for _ in range(2000):
        kit.put("a", ttl=3600)
        kit.send_all()

    assert len(kit.outbox._expiry._heap) < 100


async def test_the_list_of_deadlines_does_not_grow_with_a_message_that_comes_back_again_and_again() -> None:
    kit = Kit(max_messages=None)
    kit.put("a", ttl=3600)

    for _ in range(2000):
        kit.outbox.take(ALL)
        kit.outbox.settle(0)

    assert len(kit.outbox._expiry._heap) < 100


async def test_a_message_under_way_while_the_list_is_sorted_out_expires_all_the_same(autojump_clock: MockClock) -> None:
    kit = Kit(max_messages=None)
    kit.put("a", ttl=5)
    kit.outbox.take(1)
    for _ in range(100):
        kit.put("b", ttl=0.5)
        await trio.lowlevel.checkpoint()
    await trio.sleep(1)
    kit.outbox.settle(0)

    await trio.sleep(5)

    assert kit.drops[-1] == DropEvent("a", "expired")


async def test_at_the_end_nothing_expires_any_more_and_no_task_is_left(autojump_clock: MockClock) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    kit = Kit()
    kit.put("a", ttl=1)

    kit.outbox.end(we_closed)
    await wait_all_tasks_blocked()

    assert trio.lowlevel.current_statistics().tasks_living == before
    await trio.sleep(2)
    assert kit.drops == []
    assert kit.left == ["a"]


# ------------------------------------------------------------------------------------ flush


async def test_flushing_an_empty_outbox_returns_at_once() -> None:
    await Kit(flows=False).flush()


async def test_a_flush_waits_for_what_was_sent_before_and_for_nothing_later(nursery: trio.Nursery) -> None:
    kit = Kit(max_messages=None)
    kit.put("a", "b")
    done: list[object] = []
    nursery.start_soon(note, kit.flush, done, "flushed")
    await wait_all_tasks_blocked()
    kit.put("later")

    kit.outbox.take(1)
    kit.outbox.settle(1)
    await wait_all_tasks_blocked()
    assert done == []
    kit.outbox.take(1)
    await wait_all_tasks_blocked()
    assert done == []
    kit.outbox.settle(1)
    await wait_all_tasks_blocked()

    assert done == ["flushed"]
    assert kit.left == ["later"]


async def test_a_flush_waits_for_what_is_under_way_already(nursery: trio.Nursery) -> None:
    kit = Kit()
    kit.put("a")
    kit.outbox.take(ALL)
    done: list[object] = []
    nursery.start_soon(note, kit.flush, done, "flushed")
    await wait_all_tasks_blocked()
    assert done == []

    kit.outbox.settle(1)
    await wait_all_tasks_blocked()

    assert done == ["flushed"]


async def test_two_tasks_may_flush_at_once(nursery: trio.Nursery) -> None:
    kit = Kit()
    kit.put("a")
    done: list[object] = []
    nursery.start_soon(note, kit.flush, done, 1)
    nursery.start_soon(note, kit.flush, done, 2)
    await wait_all_tasks_blocked()

    kit.send_all()
    await wait_all_tasks_blocked()

    assert sorted(map(str, done)) == ["1", "2"]


async def test_a_flush_does_not_wait_for_what_expired(autojump_clock: MockClock) -> None:
    kit = Kit()
    kit.put("a", ttl=3)

    with trio.fail_after(4):
        await kit.flush()


async def test_a_flush_does_not_wait_for_what_was_dropped(nursery: trio.Nursery) -> None:
    kit = Kit(max_messages=1, when_full="drop_oldest")
    kit.put("a")
    done: list[object] = []
    nursery.start_soon(note, kit.flush, done, "flushed")
    await wait_all_tasks_blocked()

    kit.put("b")
    await wait_all_tasks_blocked()

    assert done == ["flushed"]
    assert kit.left == ["b"]


@pytest.mark.parametrize("is_early", [True, False])
async def test_a_cancelled_flush_leaves_everything_as_it_was(is_early: bool, nursery: trio.Nursery) -> None:
    kit = Kit()
    kit.put("a")

    with trio.CancelScope() as scope:
        if is_early:
            scope.cancel()
        else:
            nursery.start_soon(cancel_when_settled, scope)
        await kit.flush()

    assert scope.cancelled_caught
    assert kit.left == ["a"]


async def test_a_flush_raises_when_the_connection_ends_and_a_later_one_does_not(nursery: trio.Nursery) -> None:
    kit = Kit()
    kit.put("a")
    done: list[object] = []
    nursery.start_soon(note, kit.flush, done, "flushed")
    await wait_all_tasks_blocked()

    kit.outbox.break_off(ConnectionClosed(1006))
    await wait_all_tasks_blocked()
    nursery.start_soon(note, kit.flush, done, "flushed later")
    await wait_all_tasks_blocked()
    kit.send_all()
    await wait_all_tasks_blocked()

    assert isinstance(done[0], ConnectionClosed)
    assert done[1:] == ["flushed later"]


@pytest.mark.parametrize("refusal", [we_closed, they_closed])
async def test_a_flush_raises_at_the_end_of_the_socket_while_it_waits_and_later(
    refusal: Callable[[], BaseException], nursery: trio.Nursery
) -> None:
    kit = Kit()
    kit.put("a")
    done: list[object] = []
    nursery.start_soon(note, kit.flush, done, "flushed")
    await wait_all_tasks_blocked()

    kit.outbox.end(refusal)
    await wait_all_tasks_blocked()

    assert [type(each) for each in done] == [type(refusal())]
    with pytest.raises(type(refusal())):
        await kit.flush()


async def test_a_flush_goes_on_while_a_closed_outbox_drains(nursery: trio.Nursery) -> None:
    kit = Kit()
    kit.put("a")
    done: list[object] = []
    nursery.start_soon(note, kit.flush, done, "flushed")
    await wait_all_tasks_blocked()

    kit.outbox.close(we_closed)
    kit.send_all()
    await wait_all_tasks_blocked()

    assert done == ["flushed"]


# ------------------------------------------------------------------------------------ proof

TRACKING: Any = {"max_messages": 4, "tracks": True}
RESENDING: Any = TRACKING | {"resends": True}


def lose_connection(kit: Kit, *, is_proved: bool = False, code: int | None = None, lasted: bool = False) -> Account:
    kit.outbox.break_off(ConnectionClosed(1006))
    return kit.outbox.settle_account(is_proved=is_proved, peers_code=code, lasted=lasted)


async def test_without_tracking_nothing_is_kept_and_nothing_told() -> None:
    kit = Kit()
    kit.put("a")
    kit.send_all()
    kit.outbox.confirm(1)

    assert lose_connection(kit) == Account(None, rejected=False)
    assert not kit.outbox.tracks
    assert kit.outbox.messages_unconfirmed == kit.outbox.messages_buffered == kit.outbox.bytes_buffered == 0
    assert not kit.outbox.is_proved(kit.outbox.mark())


async def test_what_is_proved_makes_room(nursery: trio.Nursery) -> None:
    kit = Kit(max_messages=2, tracks=True)
    kit.put("a", "b")
    kit.send_all()
    done: list[object] = []
    nursery.start_soon(note, partial(kit.outbox.put, "c", None), done, "c")
    await wait_all_tasks_blocked()
    assert (kit.outbox.messages_unconfirmed, kit.outbox.messages_buffered, done) == (2, 0, [])

    kit.outbox.confirm(1)
    await wait_all_tasks_blocked()

    assert (kit.outbox.messages_unconfirmed, kit.outbox.messages_buffered, done) == (1, 1, ["c"])
    assert kit.outbox.bytes_buffered == 1


async def test_a_mark_is_proved_when_all_before_it_is() -> None:
    kit = Kit(**TRACKING)
    kit.put("a", "b")
    mark = kit.outbox.mark()
    kit.put("later")
    kit.send_all()

    kit.outbox.confirm(1)
    assert not kit.outbox.is_proved(mark)
    kit.outbox.confirm(2)

    assert kit.outbox.is_proved(mark)
    assert not kit.outbox.is_proved(kit.outbox.mark())


async def test_who_asks_for_proof_is_told_when_some_is_wanting(nursery: trio.Nursery) -> None:
    kit = Kit(**TRACKING)
    done: list[object] = []
    nursery.start_soon(note, kit.outbox.wait_unproved, done, "unproved")
    await wait_all_tasks_blocked()
    kit.put("a")
    await wait_all_tasks_blocked()
    assert done == []

    kit.send_all()
    await wait_all_tasks_blocked()

    assert done == ["unproved"]


async def test_what_was_in_doubt_at_the_end_of_a_connection_is_told_and_not_sent_again() -> None:
    kit = Kit(**TRACKING)
    kit.put("a", "b")
    kit.send_all()
    kit.put("c")
    kit.outbox.confirm(1)

    assert lose_connection(kit) == Account(("b",), rejected=False)
    assert kit.send_all() == ["c"]
    assert kit.outbox.leftovers() == (Undelivered("b", "unconfirmed"),)
    assert kit.outbox.room.messages == 1


async def test_what_was_in_doubt_goes_out_again_first_where_that_is_wanted() -> None:
    kit = Kit(**RESENDING)
    kit.put("a", "b")
    kit.send_all()
    kit.put("c")
    kit.outbox.confirm(1)

    assert lose_connection(kit) == Account(("b",), rejected=False)
    assert kit.outbox.leftovers() == (Undelivered("b", "unconfirmed"), Undelivered("c", "unsent"))
    assert kit.send_all() == ["b", "c"]
    assert kit.outbox.messages_sent == 3


async def test_a_closing_handshake_proves_everything() -> None:
    kit = Kit(**TRACKING)
    kit.put("a", "b")
    kit.send_all()

    assert lose_connection(kit, is_proved=True) == Account((), rejected=False)
    assert kit.outbox.is_empty
    kit.outbox.check_doubt()


async def test_a_doubt_is_told_once_to_who_asks_for_proof() -> None:
    kit = Kit(**TRACKING)
    kit.put("a")
    kit.send_all()
    lose_connection(kit)

    with pytest.raises(ConnectionClosed):
        kit.outbox.check_doubt()
    kit.outbox.check_doubt()


async def test_a_flush_goes_on_over_the_end_of_a_connection_where_things_go_out_again(nursery: trio.Nursery) -> None:
    kit = Kit(**RESENDING)
    kit.put("a")
    done: list[object] = []
    nursery.start_soon(note, kit.flush, done, "flushed")
    await wait_all_tasks_blocked()

    lose_connection(kit)
    await wait_all_tasks_blocked()
    assert done == []
    kit.send_all()
    await wait_all_tasks_blocked()

    assert done == ["flushed"]


async def test_the_largest_message_that_a_peer_may_have_found_too_big_is_set_aside() -> None:
    kit = Kit(**RESENDING)
    kit.put("a", "large", "b")
    kit.send_all()

    assert lose_connection(kit, code=1009) == Account(("a", "large", "b"), rejected=True)
    assert kit.drops == [DropEvent("large", "rejected")]
    assert kit.send_all() == ["a", "b"]


async def test_a_message_that_is_too_big_to_be_written_out_is_set_aside_too() -> None:
    kit = Kit(**RESENDING)
    kit.put("a", "large", "b")
    kit.outbox.take(ALL)
    kit.outbox.settle(1)

    assert lose_connection(kit, code=1009).rejected
    assert kit.drops == [DropEvent("large", "rejected")]
    assert kit.send_all() == ["a", "b"]


async def test_with_drop_oldest_what_is_without_proof_goes_first() -> None:
    kit = Kit(max_messages=2, when_full="drop_oldest", tracks=True)
    kit.put("a")
    kit.send_all()
    kit.put("b")

    kit.put("c")

    assert kit.drops == [DropEvent("a", "full")]
    assert kit.left == ["b", "c"]


async def test_what_went_out_once_may_still_expire_before_it_goes_out_again(autojump_clock: MockClock) -> None:
    kit = Kit(**RESENDING)
    kit.put("a", ttl=2)
    kit.send_all()
    await trio.sleep(1)
    lose_connection(kit)

    await trio.sleep(1.5)

    assert kit.drops == [DropEvent("a", "expired")]
    assert kit.outbox.is_empty
    assert kit.outbox.messages_unconfirmed == 0


def test_what_goes_wrong_where_nobody_owns_an_outbox_is_raised() -> None:
    kit = Kit()

    with pytest.raises(ZeroDivisionError):
        kit.outbox.fail(ZeroDivisionError())
