"""The tables and charts of `docs/performance.md`, drawn from the record of a run.

`python -m benchmarks._speed_page` draws them anew from `benchmarks/results/speed.json`, which is what `--json` wrote;
the charts only where matplotlib is installed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from benchmarks._speed_charts import draw_all
from benchmarks._speed_contenders import CONTENDERS
from benchmarks._speed_figures import Book
from benchmarks._speed_verdicts import Verdict, judge
from benchmarks._speed_words import Sample

_ROOT: Final = Path(__file__).resolve().parent.parent
RECORD: Final = _ROOT / "benchmarks" / "results" / "speed.json"
PAGE: Final = _ROOT / "docs" / "performance.md"
CHARTS: Final = _ROOT / "docs" / "charts"
_TITLES: Final[Mapping[str, str]] = {each.name: each.title for each in CONTENDERS}
_SHOWN: Final = ("rtt", "pipe", "burst", "flood", "flood-1k", "big-256k", "big-4m")
_METRICS: Final[Mapping[str, str]] = {
    "memory": "idle: KiB a connection",
    "load": "idle: processor time",
    "open": "opening 1000",
}


def draw(record: Mapping[str, Any]) -> Mapping[str, str]:
    """Draw every table, by the name of its place in the page."""
    book = Book([Sample(**each) for each in record["samples"]])
    return {
        "made": _made(record),
        "rates": "\n".join(_rates(book, _SHOWN)),
        "rates over TLS": "\n".join(_rates(book, [f"{name}/tls" for name in _SHOWN])),
        "required": "\n".join(_required(judge(book))),
    }


def _made(record: Mapping[str, Any]) -> str:
    made, plan = record["made"], record["plan"]
    packages = ", ".join(f"{name} {version}" for name, version in made["packages"].items() if name != "trio-wsprim")
    return (
        f"Measured on {made['date']} with CPython {made['python']} on {made['cores']} cores ({made['processor']}), "
        f"{plan['rounds']} rounds: {packages}."
    )


def _rates(book: Book, scenarios: Sequence[str]) -> Iterator[str]:
    """Give messages a second, in thousands; the first column's best first."""
    names = list(dict.fromkeys(name for scenario in scenarios for name in book.contenders(scenario)))
    names = [name for name in names if not name.endswith(("-wide", "-loaded"))]
    yield "| thousand messages a second | " + " | ".join(f"`{scenario}`" for scenario in scenarios) + " |"
    yield "|---|" + "---:|" * len(scenarios)
    for name in sorted(names, key=lambda name: -_rate(book, "pipe" if "pipe" in scenarios else "pipe/tls", name)):
        cells = [_cell(_rate(book, scenario, name)) for scenario in scenarios]
        title = _TITLES.get(name, name)
        yield f"| {f'**{title}**' if name.startswith('ours') else title} | " + " | ".join(cells) + " |"


def _rate(book: Book, scenario: str, name: str) -> float:
    found = book.spread(scenario, name, "wall")
    return 0.0 if found is None else 1e-3 / found.middle


def _cell(rate: float) -> str:
    return "" if not rate else f"{rate:,.0f}" if rate >= 100 else f"{rate:,.1f}" if rate >= 1 else f"{rate:,.2f}"


def _required(verdicts: Sequence[Verdict]) -> Iterator[str]:
    yield "| what | of | against | wanted | found | least to most | |"
    yield "|---|---|---|---:|---:|---:|---|"
    for verdict in verdicts:
        if verdict.found is None:
            continue
        wanted, found = verdict.requirement, verdict.found
        sign = "≤" if wanted.peer is None else "≥"
        what = f"`{wanted.scenario}`" if wanted.metric == "wall" else _METRICS[wanted.metric]
        against = "" if wanted.peer is None else _TITLES.get(wanted.peer, wanted.peer)
        yield (
            f"| {what} | {_TITLES.get(wanted.subject, wanted.subject)} | {against} | {sign} {wanted.bound:g} "
            f"| {found.middle:.2f} | {found.least:.2f} to {found.most:.2f} | {verdict.outcome} |"
        )


def fill(page: str, tables: Mapping[str, str]) -> str:
    """Put each table between its two marks."""
    for name, table in tables.items():
        before, mark, behind = page.partition(f"<!-- {name} -->\n")
        _, end, rest = behind.partition("<!-- end -->")
        if not (mark and end):
            raise ValueError(f"the page has no place for {name!r}")
        page = f"{before}{mark}{table}\n{end}{rest}"
    return page


def main() -> int:
    """Draw the tables into the page, and the charts beside it."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), draw(record)), encoding="utf-8")
    if find_spec("matplotlib") is not None:
        draw_all(Book([Sample(**each) for each in record["samples"]]), CHARTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
