"""Which processor cores the server and the contenders run on, and who else does."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

Placement: TypeAlias = Literal["apart", "same", "any"]
PLACEMENTS: Final[tuple[Placement, ...]] = get_args(Placement)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """Cores for either side; empty for whichever the system chooses."""

    server: AbstractSet[int]
    clients: AbstractSet[int]


def share_out(placement: Placement, available: AbstractSet[int]) -> Cores:
    """Share out the cores: the server gets the last one for itself, or the first together with the contenders.

    Left to itself, the system puts both on one core in some rounds, where a round trip takes a quarter of the time.
    """
    first, last = min(available), max(available)
    if placement == "any" or (placement == "apart" and first == last):
        return Cores(server=frozenset(), clients=frozenset())
    if placement == "same":
        return Cores(server={first}, clients={first})
    return Cores(server={last}, clients=available - {last})


def has_core_to_spare(placement: Placement, available: AbstractSet[int]) -> bool:
    """Tell whether the server can stay awake without taking the core from who is measured."""
    return placement != "same" and len(available) > 1


def pin(pid: int, cores: AbstractSet[int]) -> None:
    """Keep a process of ours to some cores."""
    if cores:
        os.sched_setaffinity(pid, cores)


class Bystanders:
    """Knows how busy others have kept this machine since it was made.

    Args:
        ours: Numbers of the processes that are not meant.
    """

    def __init__(self, *ours: int) -> None:
        self._ours = (os.getpid(), *ours)
        self._began = time.perf_counter()
        self._before = self._theirs()

    def _theirs(self) -> float:
        return _busy() - sum(map(_used, self._ours))

    def cores(self) -> float:
        """Give how many cores others kept busy, on average."""
        return max(0.0, self._theirs() - self._before) / (time.perf_counter() - self._began)


def _busy() -> float:
    """Give the seconds that all processes have used since the machine started."""
    user, nice, system, _idle, _wait, _irq, _softirq, stolen = _numbers("/proc/stat", 1, 9)
    # What a host gives to its other guests is lost to us in the same way.
    return (user + nice + system + stolen) / os.sysconf("SC_CLK_TCK")


def _used(pid: int) -> float:
    """Give the seconds that a process has used, and its children that have ended; 0 if it has ended itself."""
    try:
        # `utime`, `stime`, `cutime` and `cstime`, counted from behind the name, which may have spaces.
        return sum(_numbers(f"/proc/{pid}/stat", 11, 15)) / os.sysconf("SC_CLK_TCK")
    except FileNotFoundError:
        return 0.0


def _numbers(path: str, start: int, end: int) -> Sequence[int]:
    return [int(word) for word in Path(path).read_text().rpartition(")")[2].split()[start:end]]
