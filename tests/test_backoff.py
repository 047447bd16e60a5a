import math
import random
from itertools import islice
from typing import Any

import pytest

from trio_wsprim._backoff import Backoff, as_backoff


def test_a_backoff_has_the_documented_defaults() -> None:
    assert Backoff() == Backoff(0.5, 2.0, 30.0, 0.5, None)


def test_waits_double_up_to_the_maximum() -> None:
    backoff = Backoff(first=1, factor=2, maximum=10, jitter=0)

    assert list(islice(backoff.delays(), 6)) == [1, 2, 4, 8, 10, 10]


def test_a_short_maximum_caps_the_first_wait_too() -> None:
    assert next(Backoff(first=5, maximum=2, jitter=0).delays()) == 2


@pytest.mark.parametrize("factor", [2, 1e308])
def test_waits_go_on_where_the_factor_overflows(factor: float) -> None:
    backoff = Backoff(factor=factor, jitter=0)

    assert next(islice(backoff.delays(), 2000, None)) == 30


def test_no_factor_lengthens_a_wait_of_nothing() -> None:
    assert set(islice(Backoff(first=0).delays(), 2000)) == {0}


def test_without_a_generator_waits_differ_from_one_another() -> None:
    backoff = Backoff(factor=1)

    assert len(set(islice(backoff.delays(), 20))) > 1


def test_a_generator_is_drawn_from_by_all_iterators_together() -> None:
    shared = Backoff(factor=1, rng=random.Random(7))
    alone = Backoff(factor=1, rng=random.Random(7))

    drawn = [next(shared.delays()), next(shared.delays())]

    assert drawn == list(islice(alone.delays(), 2))


def test_the_repr_leaves_out_the_generator() -> None:
    assert repr(Backoff(rng=random.Random(0))) == ("Backoff(first=0.5, factor=2.0, maximum=30.0, jitter=0.5)")


@pytest.mark.parametrize("name", ["first", "factor", "maximum", "jitter"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1])
def test_numbers_out_of_range_are_refused(name: str, value: float) -> None:
    given: dict[str, Any] = {name: value}

    with pytest.raises(ValueError, match=f"{name} must be .*, got {value}"):
        Backoff(**given)


@pytest.mark.parametrize(("name", "value"), [("factor", 0.9), ("jitter", 1.1)])
def test_numbers_with_narrower_ranges_are_held_to_them(name: str, value: float) -> None:
    given: dict[str, Any] = {name: value}

    with pytest.raises(ValueError, match=f"{name} must be .*, got {value}"):
        Backoff(**given)


@pytest.mark.parametrize("name", ["first", "factor", "maximum", "jitter", "rng"])
@pytest.mark.parametrize("value", ["1", True])
def test_values_of_other_types_are_refused(name: str, value: object) -> None:
    given: dict[str, Any] = {name: value}

    with pytest.raises(TypeError, match=f"{name} must be"):
        Backoff(**given)


def test_a_number_is_short_for_a_fixed_wait() -> None:
    assert list(islice(as_backoff(60).delays(), 3)) == [60, 60, 60]
    assert next(as_backoff(0).delays()) == 0


def test_a_backoff_stays_what_it_is() -> None:
    backoff = Backoff(first=3)

    assert as_backoff(backoff) is backoff


@pytest.mark.parametrize("delay", [math.nan, math.inf, -1])
def test_fixed_waits_out_of_range_are_refused(delay: float) -> None:
    with pytest.raises(ValueError, match=f"delay must be .*, got {delay}"):
        as_backoff(delay)


def test_waits_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(TypeError, match=r"delay must be .*, got NoneType"):
        as_backoff(None)  # type: ignore[arg-type]
