"""What the samples say: medians, spreads and ratios. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import final

from benchmarks._speed_words import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A median, and how far the rounds lie from it."""

    middle: float
    least: float
    most: float
    rounds: int


def spread(values: Sequence[float]) -> Spread:
    """Give the spread of values, at least one."""
    return Spread(middle=median(values), least=min(values), most=max(values), rounds=len(values))


@final
class Book:
    """All samples of a run, to be looked up."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples

    def contenders(self, scenario: str) -> Sequence[str]:
        """Name those that took part in a scenario, in the order of the samples."""
        return list(dict.fromkeys(each.contender for each in self._samples if each.scenario == scenario))

    def has(self, scenario: str) -> bool:
        return any(each.scenario == scenario for each in self._samples)

    def figures(self, scenario: str, contender: str, metric: str) -> dict[int, float]:
        """Give a contender's figures by the number of the round; none if it took no part."""
        return {
            each.turn: each.figures[metric]
            for each in self._samples
            if each.scenario == scenario and each.contender == contender and metric in each.figures
        }

    def spread(self, scenario: str, contender: str, metric: str) -> Spread | None:
        """Give the median of a contender's figures; `None` if there are none."""
        found = self.figures(scenario, contender, metric)
        return spread(list(found.values())) if found else None

    def times_as_good(self, scenario: str, subject: str, peer: str, metric: str) -> Spread | None:
        """Tell how many times as good the subject is as the peer; `None` if they never met.

        Less is better of all metrics, so that this is the peer's figure by the subject's. It is taken in each round
        by itself, where both were measured within some seconds; the median is that of the ratios.
        """
        ours, theirs = self.figures(scenario, subject, metric), self.figures(scenario, peer, metric)
        met = [theirs[turn] / ours[turn] for turn in ours if turn in theirs]
        return spread(met) if met else None

    def server_share(self, scenario: str, contender: str) -> float:
        """Give the median of the share of the time in which the server was busy."""
        return median(each.server for each in self._samples if (each.scenario, each.contender) == (scenario, contender))
