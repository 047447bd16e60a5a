"""How long to wait before dialling again. Pure arithmetic; chance comes from outside."""

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from ._values import check_number, check_seconds


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that grow from `first` by `factor` up to `maximum`, each shortened by chance.

    The n-th wait, from 0, is drawn evenly from `[c * (1 - jitter), c]`, where
    `c = min(maximum, first * factor**n)`. Chance is what keeps a thousand clients that lost the
    same server from all coming back in the same second.

    Args:
        first: The longest first wait, in seconds.
        factor: What each wait is longer than the one before; 1 or more.
        maximum: The longest wait of all, in seconds.
        jitter: The share of a wait that is left to chance, from 0 (none) to 1 (all of it).
        rng: Where chance comes from; a seeded one repeats its waits. `None` for a new, unseeded
            one.

    Raises:
        TypeError: If a number is none, or `rng` no `random.Random`.
        ValueError: If a number is out of range, infinite or NaN.
    """

    first: float = 0.5
    factor: float = 2.0
    maximum: float = 30.0
    jitter: float = 0.5
    rng: random.Random | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_seconds("first", self.first)
        check_number("factor", self.factor, least=1)
        check_seconds("maximum", self.maximum)
        check_number("jitter", self.jitter, least=0, most=1)
        _check_rng(self.rng)

    def delays(self) -> Iterator[float]:
        """Draw one wait after the other, in seconds, without end."""
        rng = random.Random() if self.rng is None else self.rng
        return (self._draw(n, rng) for n in itertools.count())

    def _draw(self, n: int, rng: random.Random) -> float:
        ceiling = self._ceiling(n)
        # `uniform` may round past its upper end by the last bit.
        return min(ceiling, rng.uniform(ceiling * (1 - self.jitter), ceiling))

    def _ceiling(self, n: int) -> float:
        if self.first == 0:
            return 0.0  # which no factor makes longer, not even an overflowing one
        try:
            grown = self.first * float(self.factor) ** n
        except OverflowError:  # a socket that has been down for weeks gets here
            grown = math.inf
        return min(float(self.maximum), grown)


def _check_rng(rng: object) -> None:
    if rng is not None and not isinstance(rng, random.Random):
        raise TypeError(f"rng must be a random.Random or None, got {type(rng).__name__}")


def as_backoff(delay: Backoff | float) -> Backoff:
    """Turn a plain number of seconds into the fixed wait that it is short for.

    Raises:
        TypeError: If it is neither a `Backoff` nor a number.
        ValueError: If the number is negative, infinite or NaN.
    """
    if isinstance(delay, Backoff):
        return delay
    check_seconds("delay", delay)
    return Backoff(first=delay, factor=1.0, maximum=delay, jitter=0.0)
