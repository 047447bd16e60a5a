"""What a run prints, and what it writes down as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from benchmarks._scale_rounds import Plan
from benchmarks._scale_words import CONTENDERS, METRICS, SCENARIOS, Scenario
from benchmarks._speed_figures import Book, Spread
from benchmarks._speed_report import as_record as as_speed_record
from benchmarks._speed_rounds import QUIET, Findings
from benchmarks._speed_rounds import Plan as SpeedPlan
from benchmarks._speed_verdicts import Requirement, Verdict

TITLES: Final[Mapping[str, str]] = {each.name: each.title for each in CONTENDERS}
# What the last column compares with.
_BASE: Final = "websockets-asyncio"
_OURS: Final = frozenset(each.name for each in CONTENDERS if each.is_ours)

REQUIREMENTS: Final[Sequence[Requirement]] = tuple(
    Requirement(scenario=scenario.name, subject=subject, peer=peer, bound=bound, metric=metric)
    for scenario in SCENARIOS
    if scenario.kind == "echo"
    # The second is what the first comes to where a server has a core to itself, and other programs disturb it less.
    for metric in ("wall", "cpu")
    for subject, peer, bound in (
        ("ours-trio-websocket", "trio-websocket", 1.5),
        ("ours-websockets", "websockets-asyncio", 1.0),
    )
)

# For each metric a heading, a factor and a format.
Column = tuple[str, float, str]
COLUMNS: Final[Mapping[str, Mapping[str, Column]]] = {
    "echo": {"wall": ("us each", 1e6, "{:,.2f}"), "cpu": ("cpu, us", 1e6, "{:,.2f}")},
    "broadcast": {"wall": ("to last, ms", 1e3, "{:,.2f}"), "cpu": ("cpu, ms", 1e3, "{:,.2f}")},
    "idle": {
        "memory": ("KiB each", 1.0, "{:.1f}"),
        "private": ("private", 1.0, "{:.1f}"),
        "load": ("load, %", 1e2, "{:.2f}"),
        "beats": ("beats", 1.0, "{:.2f}"),
        "open": ("open, ms", 1e3, "{:,.0f}"),
    },
}
_DONE: Final[Mapping[str, str]] = {
    "echo": "{clients} clients, {window} messages under way for each",
    "broadcast": "one message to {clients} clients",
    "idle": "{clients} idle connections, one beat a second each",
}


def describe(scenario: Scenario) -> str:
    """Say what is done in a scenario."""
    return _DONE[scenario.kind].format(clients=scenario.clients, window=scenario.window)


def as_text(plan: Plan, findings: Findings, verdicts: Sequence[Verdict]) -> str:
    """Give the tables for a terminal."""
    book = Book(findings.samples)
    lines: list[str] = []
    for scenario in plan.scenarios:
        if book.has(scenario.name):
            lines += [*_table(book, scenario), ""]
    lines += [_verdict(each) for each in verdicts]
    lines += [f"left out: {name}: {why}" for name, why in findings.left_out.items()]
    lines += [f"FAILED: {failure}" for failure in findings.failures]
    disturbed = sum(each.others >= QUIET for each in findings.samples)
    lines.append(f"other programs disturbed {disturbed} of {len(findings.samples)} measurements")
    return "\n".join(lines)


def _table(book: Book, scenario: Scenario) -> Iterator[str]:
    """Give the table of one scenario, the best first."""
    columns = COLUMNS[scenario.kind]
    first = next(iter(columns))
    yield f"{scenario.name}: {describe(scenario)}"
    heads = "".join(f"{head:>12}{'spread':>8}" for head, _, _ in columns.values())
    yield f"  {'':<32}{heads}{'x ws-asyncio':>14}{'server':>8}{'load':>6}"
    for name in ranked(book, scenario.name, first):
        cells = "".join(_cell(book.spread(scenario.name, name, metric), column) for metric, column in columns.items())
        ratio = book.times_as_good(scenario.name, name, _BASE, first)
        load = book.spread(scenario.name, name, "generator")
        yield (
            f"{'*' if name in _OURS else ' '} {TITLES[name]:<32}{cells}"
            f"{'' if ratio is None else f'{ratio.middle:.2f}':>14}"
            f"{book.server_share(scenario.name, name):>8.0%}{'' if load is None else f'{load.middle:.0%}':>6}"
        )


def ranked(book: Book, scenario: str, metric: str) -> Sequence[str]:
    """Give those who took part, the best first."""

    def middle(name: str) -> float:
        found = book.spread(scenario, name, metric)
        return float("inf") if found is None else found.middle

    return sorted(book.contenders(scenario), key=middle)


def _cell(found: Spread | None, column: Column) -> str:
    """Give a median, and by how much of it the rounds lie apart."""
    if found is None:
        return f"{'':>20}"
    _, factor, form = column
    apart = (found.most - found.least) / found.middle if found.middle else 0.0
    return f"{form.format(found.middle * factor):>12}{f'{apart:.0%}':>8}"


def _verdict(verdict: Verdict) -> str:
    wanted, found = verdict.requirement, verdict.found
    told = "" if found is None else f"{found.middle:.2f} ({found.least:.2f} to {found.most:.2f})"
    return (
        f"{f'{wanted.scenario}, {wanted.metric}':<16}{wanted.subject:<22}{wanted.peer:<22}"
        f"{f'>= {wanted.bound:g}':>8}{told:>24}  {verdict.outcome}"
    )


def as_record(plan: Plan, findings: Findings, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Give everything, for JSON."""
    names = {"rounds": plan.rounds, "seconds": plan.seconds, "seed": plan.seed, "cores": plan.cores}
    alike = SpeedPlan(scenarios=(), contenders=(), rounds=plan.rounds, seconds=plan.seconds)
    clients = {each.name: each.clients for each in plan.scenarios}
    record = as_speed_record(alike, findings, verdicts)
    return {**record, "plan": {**names, "clients": clients}, "metrics": dict(METRICS)}
