"""The tables of `docs/scaling.md`, drawn from the record of a run.

`python -m benchmarks._scale_page` draws them anew from `benchmarks/results/server_scale.json`, which is what `--json`
wrote.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks._scale_report import REQUIREMENTS, TITLES
from benchmarks._scale_words import CONTENDERS
from benchmarks._speed_figures import Book, Spread
from benchmarks._speed_page import draw as draw_speed
from benchmarks._speed_page import fill
from benchmarks._speed_verdicts import Verdict, judge
from benchmarks._speed_words import Sample

_ROOT: Final = Path(__file__).resolve().parent.parent
RECORD: Final = _ROOT / "benchmarks" / "results" / "server_scale.json"
PAGE: Final = _ROOT / "docs" / "scaling.md"
# For each column a heading, with the number of clients; where it is from; and what a figure of it says.
_COLUMNS: Final[Sequence[tuple[str, str, str, Callable[[float], str]]]] = (
    ("`echo`, {echo} clients: thousand a second", "echo", "wall", lambda wall: f"{1e-3 / wall:,.1f}"),
    ("`echo-16`: thousand a second", "echo-16", "wall", lambda wall: f"{1e-3 / wall:,.1f}"),
    ("`broadcast` to {broadcast}: ms to the last", "broadcast", "wall", lambda wall: f"{wall * 1e3:,.1f}"),
    ("its processor time, ms", "broadcast", "cpu", lambda cpu: f"{cpu * 1e3:,.1f}"),
    ("{idle} `idle`: KiB each", "idle", "memory", lambda memory: f"{memory:,.1f}"),
    ("a core's share", "idle", "load", lambda load: f"{load:.0%}"),
    ("seconds to open", "idle", "open", lambda seconds: f"{seconds:,.1f}"),
)

_METRICS: Final[Mapping[str, str]] = {"wall": "", "cpu": ", processor time"}


def draw(record: Mapping[str, Any]) -> Mapping[str, str]:
    """Draw every table, by the name of its place in the page."""
    book = Book([Sample(**each) for each in record["samples"]])
    return {
        "server: made": draw_speed({**record, "samples": []})["made"],
        "server: figures": "\n".join(_figures(book, record["plan"]["clients"])),
        "server: required": "\n".join(_required(judge(book, REQUIREMENTS))),
    }


def _figures(book: Book, clients: Mapping[str, int]) -> Iterator[str]:
    """Give medians, a row for each server."""
    columns = [column for column in _COLUMNS if book.has(column[1])]
    yield "| server | " + " | ".join(head.format(**clients) for head, *_ in columns) + " |"
    yield "|---|" + "---:|" * len(columns)
    for contender in CONTENDERS:
        found = [(book.spread(scenario, contender.name, metric), show) for _, scenario, metric, show in columns]
        if any(spread for spread, _ in found):
            title = f"**{contender.title}**" if contender.is_ours else contender.title
            yield f"| {title} | " + " | ".join("" if each is None else show(each.middle) for each, show in found) + " |"


def _required(verdicts: Sequence[Verdict]) -> Iterator[str]:
    yield "| what | of | against | wanted | found | least to most | |"
    yield "|---|---|---|---:|---:|---:|---|"
    for verdict in verdicts:
        wanted = verdict.requirement
        if verdict.found is not None and wanted.peer is not None:
            what = f"`{wanted.scenario}`{_METRICS[wanted.metric]}"
            sides = f"{TITLES[wanted.subject]} | {TITLES[wanted.peer]}"
            yield f"| {what} | {sides} | ≥ {wanted.bound:g} | {_ratio(verdict.found)} | {verdict.outcome} |"


def _ratio(found: Spread) -> str:
    return f"{found.middle:.2f} | {found.least:.2f} to {found.most:.2f}"


def main() -> int:
    """Draw the tables into the page."""
    tables = draw(json.loads(RECORD.read_text(encoding="utf-8")))
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), tables), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
