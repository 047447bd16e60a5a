import math
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from trio_wsprim._backoff import Backoff
from trio_wsprim._errors import (
    ConnectionClosed,
    ConnectionFailed,
    ConnectionRejected,
    HeartbeatTimeout,
    RetriesExhausted,
)
from trio_wsprim._options import RetryRule
from trio_wsprim._patience import GiveUp, Patience

DOUBLING = Backoff(first=1, factor=2, maximum=100, jitter=0)
REFUSED = ConnectionFailed("refused")
FATAL = ConnectionRejected(404)


def patience(**options: Any) -> Patience:
    return Patience(RetryRule(**{"delay": DOUBLING, **options}))


def given_up(verdict: float | GiveUp) -> Exception:
    assert isinstance(verdict, GiveUp)
    return verdict.error


def test_a_plain_socket_gives_up_at_once_with_what_happened() -> None:
    plain = Patience(None)
    plain.begin()
    plain.note_end(1000)

    assert given_up(plain.decide(REFUSED)) is REFUSED
    assert plain.attempt == 1


def test_dials_are_counted_from_one_and_waits_grow() -> None:
    retrying = patience()

    waits = []
    for number in range(1, 5):
        assert retrying.begin() == number
        waits.append(retrying.decide(REFUSED))

    assert waits == [1, 2, 4, 8]
    assert retrying.attempt == 4


def test_a_number_is_a_fixed_wait() -> None:
    retrying = patience(delay=3)

    assert [retrying.decide(REFUSED) for _ in range(3)] == [3, 3, 3]


def test_a_seeded_generator_is_used_on_when_the_backoff_starts_over() -> None:
    retrying = patience(delay=Backoff(rng=Random(1)), min_uptime=0)

    waits = []
    for _ in range(5):
        waits.append(retrying.decide(REFUSED))
        retrying.note_end(1)

    assert all(one != other for one, other in pairwise(waits))


# ------------------------------------------------------------------------------------ retries


def test_without_retries_the_first_failure_is_the_last() -> None:
    once = patience(retries=0)
    once.begin()

    error = given_up(once.decide(REFUSED))

    assert isinstance(error, RetriesExhausted)
    assert error.attempts == 1
    assert error.__cause__ is REFUSED


def test_only_dials_that_failed_since_a_connection_was_open_are_counted_as_failed() -> None:
    impatient = patience(retries=2, min_uptime=5.0)
    impatient.begin()
    impatient.note_end(1.0)
    impatient.decide(ConnectionClosed(1006))
    impatient.begin()
    impatient.decide(REFUSED)
    impatient.begin()

    error = given_up(impatient.decide(REFUSED))
    assert isinstance(error, RetriesExhausted)
    assert error.attempts == 2


def test_retries_are_the_dials_after_the_first() -> None:
    twice_more = patience(retries=2)
    verdicts = []
    for _ in range(3):
        twice_more.begin()
        verdicts.append(twice_more.decide(REFUSED))

    assert verdicts[:2] == [1, 2]
    error = given_up(verdicts[2])
    assert isinstance(error, RetriesExhausted)
    assert error.attempts == 3


def test_a_drop_counts_as_a_failure_does() -> None:
    once_more = patience(retries=1)
    once_more.begin()
    assert once_more.decide(REFUSED) == 1
    once_more.begin()
    once_more.note_end(0.5)
    last = ConnectionClosed(1006)

    error = given_up(once_more.decide(last))

    assert isinstance(error, RetriesExhausted)
    assert error.__cause__ is last


def test_without_a_limit_it_never_gives_up() -> None:
    retrying = patience()

    assert all(isinstance(retrying.decide(REFUSED), float) for _ in range(5000))


@pytest.mark.parametrize(("uptime", "wait", "attempt"), [(4.999, 4, 3), (5, 1, 1), (6, 1, 1)])
def test_retries_and_waits_start_over_after_a_connection_that_lasted(uptime: float, wait: float, attempt: int) -> None:
    retrying = patience(retries=5, min_uptime=5)
    for _ in range(2):
        retrying.begin()
        retrying.decide(REFUSED)

    lasted = retrying.note_end(uptime)

    assert lasted == (uptime >= 5)
    assert retrying.decide(ConnectionClosed(1006)) == wait
    assert retrying.begin() == attempt


def test_with_a_minimum_of_zero_every_connection_lasts() -> None:
    retrying = patience(retries=1, min_uptime=0)

    for _ in range(10):
        retrying.begin()
        retrying.note_end(0)
        assert retrying.decide(ConnectionClosed(1006)) == 1


def test_a_drop_of_a_lasting_connection_without_retries_is_the_end_too() -> None:
    once = patience(retries=0)
    once.begin()
    once.note_end(100)

    assert isinstance(given_up(once.decide(ConnectionClosed(1000))), RetriesExhausted)


# ------------------------------------------------------------------------------------ retry_if


@pytest.mark.parametrize("error", [REFUSED, ConnectionClosed(1000), ConnectionClosed(1006), HeartbeatTimeout(1)])
@pytest.mark.parametrize("options", [{}, {"retry_if": lambda error: None}])
def test_the_default_rule_retries_what_may_pass(options: dict[str, Any], error: Exception) -> None:
    assert patience(**options).decide(error) == 1


@pytest.mark.parametrize("error", [FATAL, ConnectionClosed(1008), ConnectionFailed("wrong", permanent=True)])
@pytest.mark.parametrize("options", [{}, {"retry_if": lambda error: None}])
def test_the_default_rule_gives_up_on_what_cannot(options: dict[str, Any], error: Exception) -> None:
    assert given_up(patience(**options).decide(error)) is error


def test_a_rule_that_says_true_retries_whatever_it_is() -> None:
    assert patience(retry_if=lambda error: True).decide(FATAL) == 1


def test_a_rule_that_says_false_gives_up_whatever_it_is() -> None:
    assert given_up(patience(retry_if=lambda error: False).decide(REFUSED)) is REFUSED


def test_a_rule_that_says_true_still_has_only_so_many_retries() -> None:
    error = given_up(patience(retry_if=lambda error: True, retries=0).decide(FATAL))

    assert isinstance(error, RetriesExhausted)


@pytest.mark.parametrize("options", [{}, {"retry_if": lambda error: None}])
def test_what_is_mended_is_retried_by_default_whatever_it_was(options: dict[str, Any]) -> None:
    assert patience(**options).decide(ConnectionClosed(1009), is_mended=True) == 1


def test_a_rule_that_says_false_gives_up_also_on_what_is_mended() -> None:
    error = ConnectionClosed(1009)

    assert given_up(patience(retry_if=lambda error: False).decide(error, is_mended=True)) is error


def test_a_rule_is_told_what_happened() -> None:
    seen: list[Exception] = []

    patience(retry_if=seen.append).decide(REFUSED)

    assert seen == [REFUSED]


def test_what_a_rule_raises_comes_out() -> None:
    def fail(error: Exception) -> bool:
        raise KeyError("theirs")

    with pytest.raises(KeyError, match="theirs"):
        patience(retry_if=fail).decide(REFUSED)


# ------------------------------------------------------------------------------------ Retry-After


def rejected(status: int, retry_after: float | None) -> ConnectionRejected:
    return ConnectionRejected(status, retry_after=retry_after)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("retry_after", "limit", "wait"),
    [
        (20, 300, 20),
        (300, 300, 300),
        (301, 300, 300),
        (20, None, 20),
        (1e300, None, 1e300),
        (20, 0, 1),
        (0, 300, 1),
        (0.5, 300, 1),
        (None, 300, 1),
        (None, None, 1),
    ],
)
def test_the_servers_wish_is_heard_as_far_as_it_may(
    status: int, retry_after: float | None, limit: float | None, wait: float
) -> None:
    assert patience(max_retry_after=limit).decide(rejected(status, retry_after)) == wait


@pytest.mark.parametrize("status", [408, 425, 500, 502, 504])
def test_other_answers_have_no_say_in_it(status: int) -> None:
    assert patience().decide(rejected(status, 20)) == 1


def test_a_limit_of_the_servers_wish_is_no_limit_of_our_own_wait() -> None:
    assert patience(delay=60, max_retry_after=10).decide(rejected(503, 20)) == 60


def test_a_wish_uses_up_a_wait_as_any_other_failure_does() -> None:
    retrying = patience()

    assert [retrying.decide(rejected(503, 2)), retrying.decide(REFUSED), retrying.decide(rejected(503, 2))] == [2, 2, 4]


# ------------------------------------------------------------------------------------ the rule itself


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("delay", -1),
        ("delay", math.nan),
        ("delay", math.inf),
        ("retries", -1),
        ("min_uptime", -1),
        ("min_uptime", math.nan),
        ("max_retry_after", -1),
        ("max_retry_after", math.nan),
        ("max_retry_after", math.inf),
        ("resend", "all"),
    ],
)
def test_values_out_of_range_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} must be .*, got "):
        patience(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("delay", None), ("retries", 1.5), ("retries", True), ("min_uptime", None), ("retry_if", 1)]
)
def test_values_of_another_type_are_refused(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"{name} must be"):
        patience(**{name: value})
