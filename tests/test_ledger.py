from trio_wsprim._ledger import Entry, Ledger, messages
from trio_wsprim._values import Buffer


def handed(ledger: Ledger, *sizes: int) -> list[Entry]:
    """Hand over messages of those sizes, with serials from 1, as an outbox does."""
    entries: list[Entry] = []
    for serial, size in enumerate(sizes, 1):
        entry = Entry("x" * size, size)
        entry.serial = serial
        entries.append(entry)
    ledger.add(entries)
    return entries


def test_a_proof_is_for_all_up_to_its_serial_and_for_none_later() -> None:
    ledger = Ledger(Buffer())
    first, second, third = handed(ledger, 1, 2, 3)

    assert ledger.oldest == 1
    assert list(ledger.confirm(2)) == [first, second]
    assert list(ledger.open) == [third]
    assert ledger.oldest == 3
    assert (ledger.unproved.messages, ledger.unproved.bytes) == (1, 3)
    assert list(ledger.confirm(2)) == []


def test_a_proof_of_everything_leaves_nothing() -> None:
    ledger = Ledger(Buffer())
    handed(ledger, 1, 2)

    ledger.confirm(99)

    assert ledger.oldest == float("inf")
    assert (ledger.unproved.messages, ledger.unproved.bytes) == (0, 0)


def test_what_is_handed_over_once_more_counts_once() -> None:
    ledger = Ledger(Buffer())
    entries = handed(ledger, 5)

    assert list(ledger.take_back()) == entries
    assert not ledger.open
    assert ledger.unproved.messages == 1
    ledger.add(entries)

    assert ledger.unproved.messages == 1
    assert list(ledger.open) == entries


def test_a_batch_may_hold_what_was_handed_over_before_beside_what_was_not() -> None:
    ledger = Ledger(Buffer())
    again = handed(ledger, 5)
    ledger.take_back()
    fresh = Entry("fresh", 3)
    fresh.serial = 2

    ledger.add([*again, fresh])

    assert fresh.was_sent
    assert list(ledger.open) == [*again, fresh]
    assert (ledger.unproved.messages, ledger.unproved.bytes) == (2, 8)


def test_what_is_dropped_is_forgotten_wherever_it_was() -> None:
    ledger = Ledger(Buffer())
    taken_back, _ = handed(ledger, 1, 2)
    ledger.take_back()
    opened, other = handed(ledger, 4, 8)
    never_sent = Entry("n", 1)

    for entry in (taken_back, opened, never_sent):
        ledger.forget(entry)

    assert list(ledger.open) == [other]
    assert (ledger.unproved.messages, ledger.unproved.bytes) == (2, 10)


def test_what_is_lost_is_kept_in_order_within_the_bounds_and_counted_beyond() -> None:
    ledger = Ledger(Buffer(max_messages=3, max_bytes=9))
    handed(ledger, 1, 2)
    ledger.lose()
    third, fourth = handed(ledger, 3, 5)

    assert list(ledger.lose()) == [third, fourth]

    assert [entry.size for entry in ledger.lost] == [3, 5]
    assert ledger.lost_count == 4
    assert (ledger.unproved.messages, ledger.unproved.bytes) == (0, 0)


def test_messages_are_what_the_user_sent() -> None:
    assert messages([Entry("a", 1), Entry(b"b", 1)]) == ("a", b"b")
