"""What goes wrong in the demo, in which order and when."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, final

import trio

from trio_wsprim._demo._server import RETRY_AFTER, FaultyServer

_DOWN: Final = 1.5


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast the demo goes.

    Attributes:
        speed: So many times as fast as usual.
        rng: Spreads the waits between dials and the moments of the faults.
    """

    speed: float
    rng: random.Random

    def take(self, usual: float) -> float:
        """Tell how many seconds something takes that usually takes `usual`."""
        return usual / self.speed

    def lull(self) -> float:
        """Draw for how many seconds all goes well."""
        return self.take(self.rng.uniform(1.0, 1.3))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Stroke:
    """One fault to come.

    Attributes:
        name: For the table.
        text: What the server does.
        strike: Does it; returns when it is over for the server.
        away: For how many seconds no dial can succeed.
    """

    name: str
    text: str
    strike: Callable[[], Awaitable[None]]
    away: float = 0.0


def strokes(server: FaultyServer, pace: Pace) -> Sequence[Stroke]:
    """Give all the faults, in order."""
    down = pace.take(_DOWN)
    return (
        Stroke(
            name="TCP reset",
            text="the server resets the connection (RST)",
            strike=_at_once(server.reset),
        ),
        Stroke(
            name="silent peer",
            text="the server falls silent; TCP stays open",
            strike=_at_once(server.freeze),
        ),
        Stroke(
            name="server down",
            text=f"the server drops the connection and is down for {down:.1f} s",
            strike=partial(server.go_away, down),
            away=down,
        ),
        Stroke(
            name="server busy",
            text=f"the server drops it, then says 503, Retry-After: {RETRY_AFTER}",
            strike=_at_once(server.be_busy),
            away=RETRY_AFTER,
        ),
    )


def _at_once(act: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def strike() -> None:
        act()
        await trio.lowlevel.checkpoint()

    return strike
