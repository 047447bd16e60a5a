import pytest

from trio_wsprim._ledger import Entry
from trio_wsprim._poison import MOST_LIVES, TOO_BIG, Suspicion


def entry(size: int) -> Entry:
    return Entry("x" * size, size)


FIRST, LARGE, LAST = entry(2), entry(9), entry(3)
DOUBTFUL = [FIRST, LARGE, LAST]


def die(suspicion: Suspicion, times: int = 1, doubtful: list[Entry] = DOUBTFUL, lasted: bool = False) -> Entry | None:
    """Let connections die without a word; give what the last of them said."""
    verdict = None
    for _ in range(times):
        verdict = suspicion.judge(doubtful, None, lasted)
    return verdict


def test_too_big_means_the_largest_at_the_first_time() -> None:
    assert Suspicion().judge(DOUBTFUL, TOO_BIG, lasted=False) is LARGE


def test_too_big_means_the_largest_also_after_a_long_life() -> None:
    assert Suspicion().judge(DOUBTFUL, TOO_BIG, lasted=True) is LARGE


def test_of_two_that_are_equally_large_the_first_is_meant() -> None:
    one, other = entry(5), entry(5)

    assert Suspicion().judge([one, other], TOO_BIG, lasted=False) is one


@pytest.mark.parametrize("code", [TOO_BIG, 1011, None])
def test_where_nothing_is_in_doubt_nothing_is_to_blame(code: int | None) -> None:
    assert Suspicion().judge([], code, lasted=False) is None


def test_a_message_that_was_first_at_ten_deaths_in_a_row_is_to_blame() -> None:
    suspicion = Suspicion()

    assert die(suspicion, MOST_LIVES - 1) is None
    assert die(suspicion) is FIRST
    assert MOST_LIVES == 10  # docs/what_arrives.md says so


def test_a_connection_that_lasted_starts_the_count_over() -> None:
    suspicion = Suspicion()
    die(suspicion, MOST_LIVES - 1)

    assert die(suspicion, lasted=True) is None

    assert die(suspicion, MOST_LIVES - 1) is None
    assert die(suspicion) is FIRST


def test_another_first_message_starts_the_count_over() -> None:
    suspicion = Suspicion()
    die(suspicion, MOST_LIVES - 1)

    assert die(suspicion, doubtful=[LARGE, LAST]) is None

    assert die(suspicion, MOST_LIVES - 2, doubtful=[LARGE, LAST]) is None
    assert die(suspicion, doubtful=[LARGE, LAST]) is LARGE


def test_after_one_was_set_aside_the_next_has_all_its_lives() -> None:
    suspicion = Suspicion()
    assert die(suspicion, MOST_LIVES) is FIRST

    assert die(suspicion, MOST_LIVES - 1, doubtful=[LARGE, LAST]) is None
    assert die(suspicion, doubtful=[LARGE, LAST]) is LARGE
