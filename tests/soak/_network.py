"""The bad network of a soak: each of its proxies has faults of its own, by seeded chance."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Final, Literal, TypeAlias, final, get_args

import trio

from trio_wsprim.testing import FaultProxy

Kind: TypeAlias = Literal["reset", "fin", "freeze", "refuse", "slice", "slow"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

# Seconds of a good network, at least and at most; then of a bad one. Half of the freezes outlast a heartbeat.
_GOOD: Final = (0.5, 4.0)
_BAD: Final = (0.1, 2.0)


@final
class Weather:
    """Faults, one after the other, until cancelled.

    Args:
        proxy: That has them.
        seed: Of their chance.
        pace: Multiplies all times.

    Attributes:
        faults: How many there were of each kind.
    """

    def __init__(self, proxy: FaultProxy, seed: int, pace: float) -> None:
        self._proxy = proxy
        self._rng = Random(seed)
        self._pace = pace
        self.faults = Counter[Kind]()

    async def run(self) -> None:
        """Go on until cancelled; the network is good again then."""
        while True:
            await trio.sleep(self._pace * self._rng.uniform(*_GOOD))
            kind, hold = self._rng.choice(KINDS), self._pace * self._rng.uniform(*_BAD)
            self.faults[kind] += 1
            try:
                self._strike(kind)
                await trio.sleep(hold)
            finally:
                self._clear_up()

    def _strike(self, kind: Kind) -> None:
        proxy = self._proxy
        match kind:
            case "reset":
                proxy.reset()
            case "fin":
                proxy.fin()
            case "freeze":
                proxy.freeze()
            case "refuse":
                proxy.refuse()
                proxy.reset()
            case "slice":
                proxy.slice_bytes = self._rng.choice((1, 7, 50))
            case "slow":
                proxy.latency, proxy.jitter, proxy.bandwidth = 0.05, 0.1, 64 * 1024

    def _clear_up(self) -> None:
        proxy = self._proxy
        proxy.thaw()
        proxy.accept()
        proxy.slice_bytes = proxy.bandwidth = None
        proxy.latency = proxy.jitter = 0.0
