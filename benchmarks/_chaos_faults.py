"""The faults of a chaos run: a seeded schedule, and who carries it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Literal, Protocol, TypeAlias, get_args

import trio

from trio_wsprim.testing import FaultProxy

Kind: TypeAlias = Literal["reset", "fin", "freeze", "refuse", "slice", "delay"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

# A freeze that no heartbeat has noticed, or a connection that has not come back, after so many seconds is a fault.
_PATIENCE: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One fault.

    Attributes:
        kind: What is done to every connection that is open.
        gap: Seconds of a good network before it.
        hold: Seconds for which the network then stays bad.
        size: Bytes of a slice, at most.
    """

    kind: Kind
    gap: float
    hold: float
    size: int


class Watch(Protocol):
    """What the saboteur needs to know of the client."""

    @property
    def is_open(self) -> bool:
        """Whether it believes in its connection."""
        ...

    async def wait_not_open(self) -> None:
        """Wait until it does not."""
        ...

    async def wait_opened_after(self, moment: float) -> float:
        """Wait until a connection has opened after that moment; tell when the first did, on trio's clock."""
        ...


def plan(count: int, seed: int) -> Sequence[Kill]:
    """Draw a schedule: all kinds equally often, 30 to 120 ms apart. The same seed gives the same."""
    rng = Random(seed)
    kinds: list[Kind] = []
    while len(kinds) < count:
        kinds += rng.sample(KINDS, len(KINDS))
    return [
        Kill(kind=kind, gap=rng.uniform(0.03, 0.12), hold=rng.uniform(0.0, 0.06), size=rng.choice((1, 7, 50, 300)))
        for kind in kinds[:count]
    ]


class Saboteur:
    """Carries out a schedule.

    Args:
        proxy: Through which the client's connections go.
        watch: Of the client.

    Attributes:
        recoveries: Seconds from when the network was usable again to the next open connection, for each kill.
        unnoticed: How many freezes the client sat through.
    """

    def __init__(self, proxy: FaultProxy, watch: Watch) -> None:
        self._proxy = proxy
        self._watch = watch
        self.recoveries: list[float] = []
        self.unnoticed = 0

    async def carry_out(self, kills: Sequence[Kill]) -> None:
        """Strike, wait until the client is back, and so on.

        The next strike waits for the client: if it did not, it would hide a slow recovery behind the next kill.
        """
        for kill in kills:
            await trio.sleep(kill.gap)
            await self._strike(kill)
            usable_at = trio.current_time()
            self.recoveries.append(await self._wait_back(usable_at) - usable_at)

    async def _wait_back(self, moment: float) -> float:
        with trio.move_on_after(_PATIENCE):
            return await self._watch.wait_opened_after(moment)
        return trio.current_time()

    async def _strike(self, kill: Kill) -> None:
        proxy = self._proxy
        match kill.kind:
            case "reset" | "fin":
                # Twice, for the second one may find the client dialling, or in the middle of the upgrade.
                strike = proxy.reset if kill.kind == "reset" else proxy.fin
                strike()
                await trio.sleep(kill.hold)
                strike()
            case "refuse":
                proxy.refuse()
                proxy.reset()
                await trio.sleep(kill.hold)
                proxy.accept()
            case "slice":
                proxy.slice_bytes = kill.size
                await trio.sleep(kill.hold)
                proxy.reset()
                proxy.slice_bytes = None
            case "delay":
                proxy.latency, proxy.jitter = kill.hold / 4, kill.hold / 4
                await trio.sleep(kill.hold)
                proxy.reset()
                proxy.latency, proxy.jitter = 0.0, 0.0
            case "freeze":
                await self._freeze(kill.hold)

    async def _freeze(self, hold: float) -> None:
        """Freeze until the client has noticed, and then for as long as it dials in vain."""
        proxy, watch = self._proxy, self._watch
        was_open = watch.is_open
        proxy.freeze()
        with trio.move_on_after(_PATIENCE) as patience:
            await watch.wait_not_open()
        if was_open and patience.cancelled_caught:
            self.unnoticed += 1
            proxy.reset()
        await trio.sleep(hold)
        proxy.thaw()
