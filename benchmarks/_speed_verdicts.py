"""What is required, and whether it is met."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from benchmarks._speed_figures import Book, Spread

Outcome: TypeAlias = Literal["ok", "missed", "not measured"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One thing that a contender of ours must reach.

    Attributes:
        scenario: The name of it.
        subject: Our contender.
        peer: Whom it is compared with; `None` for a figure that counts by itself.
        bound: The least number of times as good as the peer; without a peer, the most that the figure may be.
        metric: What is compared.
    """

    scenario: str
    subject: str
    peer: str | None
    bound: float
    metric: str = "wall"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A requirement, and what was found; `found` is `None` if somebody did not take part."""

    requirement: Requirement
    found: Spread | None

    @property
    def outcome(self) -> Outcome:
        if self.found is None:
            return "not measured"
        is_met = self.found.middle <= self.requirement.bound
        if self.requirement.peer is not None:
            is_met = self.found.middle >= self.requirement.bound
        return "ok" if is_met else "missed"


# Scenario, and the least ratio to each peer. What is measured besides, as 1 KiB floods, is told and not judged.
_RATIOS: Final[Sequence[tuple[str, dict[str, float]]]] = (
    ("rtt", {"websockets-trio": 2.5, "picows-uvloop": 0.9, "raw-trio": 0.85}),
    ("pipe", {"websockets-trio": 18.0, "picows-uvloop": 1.5}),
    ("burst", {"websockets-trio": 16.0, "picows-uvloop": 3.0}),
    ("flood", {"websockets-trio": 9.0, "aiohttp-uvloop": 1.0, "picows-uvloop": 0.35}),
    ("big-256k", {"websockets-trio": 2.0, "picows-uvloop": 0.9}),
    ("big-4m", {"websockets-trio": 2.0, "picows-uvloop": 0.9}),
)
_MANY: Final = {"websockets-trio": 20.0, "picows-uvloop": 0.75}
_TLS: Final = {"rtt/tls": 2.2, "pipe/tls": 18.0, "flood/tls": 8.0}
# What is left of a plain socket's figures with everything on.
_LOADED: Final = 0.8
_LOADED_SCENARIOS: Final = ("rtt", "pipe", "burst", "flood", "flood-1k", "big-256k", "big-4m")
# KiB a connection, by transport.
_MEMORY: Final = {"ours-websockets": 24.0, "ours-trio-websocket": 36.0}


def _requirements() -> Iterator[Requirement]:
    for ours, memory in _MEMORY.items():
        for scenario, ratios in _RATIOS:
            yield from _against(scenario, ours, ratios)
            if scenario == "flood":
                yield from _against(scenario, f"{ours}-many", _MANY)
        for scenario in _LOADED_SCENARIOS:
            yield from _against(scenario, f"{ours}-loaded", {f"{ours}-wide": _LOADED})
        yield Requirement(scenario="idle", subject=ours, peer=None, bound=memory, metric="memory")
        yield Requirement(scenario="idle", subject=ours, peer="websockets-trio", bound=3.0, metric="load")
        yield Requirement(scenario="idle", subject=ours, peer="trio-websocket", bound=1.0, metric="open")
        yield Requirement(scenario="storm", subject=ours, peer="websockets-trio", bound=1.0)
    for scenario, bound in _TLS.items():
        yield from _against(scenario, "ours-websockets", {"websockets-trio": bound})


def _against(scenario: str, subject: str, ratios: dict[str, float]) -> Iterator[Requirement]:
    for peer, bound in ratios.items():
        yield Requirement(scenario=scenario, subject=subject, peer=peer, bound=bound)


REQUIREMENTS: Final[Sequence[Requirement]] = tuple(_requirements())


def judge(book: Book, requirements: Sequence[Requirement] = REQUIREMENTS) -> Sequence[Verdict]:
    """Judge the requirements of whose scenario there are samples."""
    return [Verdict(requirement=each, found=_find(book, each)) for each in requirements if book.has(each.scenario)]


def _find(book: Book, requirement: Requirement) -> Spread | None:
    scenario, subject, metric = requirement.scenario, requirement.subject, requirement.metric
    if requirement.peer is None:
        return book.spread(scenario, subject, metric)
    return book.times_as_good(scenario, subject, requirement.peer, metric)
