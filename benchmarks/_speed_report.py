"""What a run prints, and what it writes down as JSON."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from benchmarks._speed_contenders import CONTENDERS
from benchmarks._speed_figures import Book, Spread
from benchmarks._speed_rounds import QUIET, Findings, Plan
from benchmarks._speed_verdicts import Verdict
from benchmarks._speed_words import METRICS

# What the last column but one compares with.
_BASE: Final = "websockets-trio"
_TITLES: Final[Mapping[str, str]] = {each.name: each.title for each in CONTENDERS}
_OURS: Final = frozenset(each.name for each in CONTENDERS if each.is_ours)
# For each metric a heading, a factor and a format.
_COLUMNS: Final[Mapping[str, tuple[str, float, str]]] = {
    "wall": ("wall", 1e6, "{:,.2f}"),
    "cpu": ("cpu", 1e6, "{:,.2f}"),
    "first": ("first echo", 1e3, "{:,.2f}"),
    "open": ("open, ms", 1e3, "{:,.0f}"),
    "load": ("load, %", 1e2, "{:.2f}"),
    "memory": ("KiB each", 1.0, "{:.1f}"),
    "private": ("private", 1.0, "{:.1f}"),
}
# Of those that do not count messages; their times are milliseconds.
_HEADINGS: Final[Mapping[str, str]] = {
    "idle": "what 1000 connections take, one beat a second each",
    "storm": "ms until 500 connections that were dropped at once are back",
    "import": "ms to import it, and from there to the first echo",
}
_PACKAGES: Final = (
    *("trio-wsprim", "trio", "trio-websocket", "wsproto", "websockets"),
    *("aiohttp", "picows", "aiofastnet", "uvloop", "httpx-ws"),
)


def as_text(findings: Findings, verdicts: Sequence[Verdict]) -> str:
    """Give the tables for a terminal."""
    book = Book(findings.samples)
    lines: list[str] = []
    for scenario in dict.fromkeys(each.scenario for each in findings.samples):
        lines += [*_scenario_table(book, scenario), ""]
    lines += _verdict_table(verdicts)
    lines += [f"left out: {name}: {why}" for name, why in findings.left_out.items()]
    lines += [f"FAILED: {failure}" for failure in findings.failures]
    disturbed = sum(each.others >= QUIET for each in findings.samples)
    lines.append(f"other programs disturbed {disturbed} of {len(findings.samples)} measurements")
    return "\n".join(lines)


def _scenario_table(book: Book, scenario: str) -> Iterator[str]:
    """Give the table of one scenario, the best first."""
    contenders = book.contenders(scenario)
    metrics = [name for name in _COLUMNS if any(book.figures(scenario, each, name) for each in contenders)]
    first, is_rate = metrics[0], scenario not in _HEADINGS
    yield f"{scenario}: {_HEADINGS.get(scenario, 'microseconds a message')}"
    heads = "".join(f"{_COLUMNS[name][0]:>12}{'spread':>9}" for name in metrics)
    yield f"  {'':<40}{heads}{'per second':>13}{'x ws-trio':>11}{'server':>8}"
    ranked = sorted(contenders, key=lambda name: _middle(book.spread(scenario, name, first)))
    for name in ranked:
        cells = "".join(_cells(book.spread(scenario, name, metric), metric, is_rate=is_rate) for metric in metrics)
        rate = f"{1 / _middle(book.spread(scenario, name, 'wall')):,.0f}" if is_rate else ""
        ratio = book.times_as_good(scenario, name, _BASE, first)
        times = "" if ratio is None else f"{ratio.middle:.2f}"
        mark = "*" if name in _OURS else " "
        share = f"{book.server_share(scenario, name):.0%}"
        yield f"{mark} {_TITLES.get(name, name):<40}{cells}{rate:>13}{times:>11}{share:>8}"


def _middle(found: Spread | None) -> float:
    return float("inf") if found is None else found.middle


def _cells(found: Spread | None, metric: str, *, is_rate: bool) -> str:
    """Give a median, and by how much of it the rounds lie apart."""
    if found is None:
        return f"{'':>21}"
    _, factor, form = _COLUMNS[metric]
    if metric == "wall" and not is_rate:
        factor = 1e3
    apart = (found.most - found.least) / found.middle if found.middle else 0.0
    return f"{form.format(found.middle * factor):>12}{f'{apart:.0%}':>9}"


def _verdict_table(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Give the required figures, and whether they were reached."""
    if not verdicts:
        return
    yield f"{'required':<12}{'of':<30}{'against':<22}{'wanted':>10}{'found':>9}  {'least to most':<18}"
    for verdict in verdicts:
        wanted = verdict.requirement
        sign, peer = (">=", wanted.peer) if wanted.peer is not None else ("<=", f"{wanted.metric}, KiB")
        what = wanted.scenario if wanted.metric == "wall" else wanted.metric
        found, between = "", ""
        if verdict.found is not None:
            found = f"{verdict.found.middle:.2f}"
            between = f"{verdict.found.least:.2f} to {verdict.found.most:.2f}"
        bound = f"{sign} {wanted.bound:g}"
        yield f"{what:<12}{wanted.subject:<30}{peer:<22}{bound:>10}{found:>9}  {between:<18}{verdict.outcome}"
    yield ""


def as_record(plan: Plan, findings: Findings, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Give everything, for JSON."""
    return {
        "made": {
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "machine": platform.machine(),
            "system": f"{platform.system()} {platform.release()}",
            "processor": _processor(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "packages": dict(_versions()),
        },
        "plan": {name: getattr(plan, name) for name in ("rounds", "seconds", "seed", "cores", "server")},
        "samples": [asdict(each) for each in findings.samples],
        "verdicts": [{**asdict(each), "outcome": each.outcome} for each in verdicts],
        "left_out": findings.left_out,
        "failures": findings.failures,
        "metrics": dict(METRICS),
    }


def _versions() -> Iterator[tuple[str, str]]:
    for name in _PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def _processor() -> str:
    with open("/proc/cpuinfo") as lines:  # noqa: PTH123 - a path adds nothing to a file that is read line by line
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
