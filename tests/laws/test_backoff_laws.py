import math
import random
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from trio_wsprim._backoff import Backoff

seconds = st.floats(0, 1e300)
factors = st.floats(1, 1e300)
shares = st.floats(0, 1)


def ceiling(backoff: Backoff, n: int) -> float:
    """The contract's formula, where it does not overflow."""
    try:
        return min(backoff.maximum, backoff.first * backoff.factor**n)
    except OverflowError:
        return backoff.maximum if backoff.first else 0.0


@given(first=seconds, factor=factors, maximum=seconds, jitter=shares, seed=st.integers())
def test_every_wait_lies_between_its_ceiling_and_what_jitter_leaves_of_it(
    first: float, factor: float, maximum: float, jitter: float, seed: int
) -> None:
    backoff = Backoff(first, factor, maximum, jitter, random.Random(seed))

    for n, delay in enumerate(islice(backoff.delays(), 20)):
        c = ceiling(backoff, n)
        assert math.isfinite(delay)
        assert c * (1 - jitter) <= delay <= c


@given(first=seconds, factor=factors, maximum=seconds, jitter=shares, seed=st.integers())
def test_the_same_seed_gives_the_same_waits(
    first: float, factor: float, maximum: float, jitter: float, seed: int
) -> None:
    one = Backoff(first, factor, maximum, jitter, random.Random(seed))
    other = Backoff(first, factor, maximum, jitter, random.Random(seed))

    assert list(islice(one.delays(), 20)) == list(islice(other.delays(), 20))


@given(first=seconds, factor=factors, maximum=seconds)
def test_without_jitter_waits_never_shrink(first: float, factor: float, maximum: float) -> None:
    delays = list(islice(Backoff(first, factor, maximum, jitter=0).delays(), 20))

    assert delays == sorted(delays)
