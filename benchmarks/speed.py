"""Measure how fast we are, side by side with the others, in one run.

A server in C, a process for each contender, and rounds in which they take turns; see the README beside this. Run it as
`python -m benchmarks.speed`. With `--check` it exits with 1 if something required was missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import trio

from benchmarks._speed_charts import draw_all
from benchmarks._speed_contenders import pick_contenders
from benchmarks._speed_cores import PLACEMENTS
from benchmarks._speed_figures import Book
from benchmarks._speed_report import as_record, as_text
from benchmarks._speed_rounds import Findings, Plan, run_rounds
from benchmarks._speed_server import CannotBuild, build, running_server
from benchmarks._speed_verdicts import judge
from benchmarks._speed_words import pick_scenarios


async def run(plan: Plan) -> Findings:
    """Start the server, and carry out a plan.

    Raises:
        CannotBuild: If the server cannot be compiled.
    """
    with tempfile.TemporaryDirectory() as folder:
        async with running_server(build(Path(folder)), Path(folder)) as server:
            return await run_rounds(plan, server, lambda words: print(words, file=sys.stderr, flush=True))


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each contender is measured in each scenario")
    parser.add_argument("--seconds", type=float, default=0.5, help="about how long each measurement takes")
    parser.add_argument("--scenarios", type=_words, default=[], metavar="A,B", help="all, by default")
    parser.add_argument("--contenders", type=_words, default=[], metavar="A,B", help="all that can run, by default")
    parser.add_argument("--tls", choices=("both", "off", "only"), default="both", help="with TLS, without, or both")
    parser.add_argument("--cores", choices=PLACEMENTS, default="apart", help="of the server and the contenders")
    parser.add_argument("--server", choices=("auto", "awake", "asleep"), default="auto", help="when it is idle")
    parser.add_argument("--seed", type=int, default=1, help="of the order within a round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--charts", type=Path, metavar="FOLDER", help="draw them there, as SVG; needs matplotlib")
    parser.add_argument("--check", action="store_true", help="exit with 1 if something required was missed")
    return parser


def _read_plan(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Plan:
    try:
        return Plan(
            scenarios=pick_scenarios(options.scenarios, plain=options.tls != "only", tls=options.tls != "off"),
            contenders=pick_contenders(options.contenders),
            rounds=options.rounds,
            seconds=options.seconds,
            seed=options.seed,
            cores=options.cores,
            server=options.server,
        )
    except ValueError as error:
        parser.error(str(error))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments say; return the exit code."""
    parser = _make_parser()
    options = parser.parse_args(arguments)
    plan = _read_plan(parser, options)
    if options.charts is not None and find_spec("matplotlib") is None:
        parser.error("--charts needs matplotlib, which the extra `bench` brings")
    try:
        findings = trio.run(run, plan)
    except CannotBuild as error:
        print(f"FAILED: {error}")
        return 1
    book = Book(findings.samples)
    verdicts = judge(book)
    print(as_text(findings, verdicts))
    if options.json is not None:
        options.json.write_text(json.dumps(as_record(plan, findings, verdicts), indent=1) + "\n")
    if options.charts is not None:
        draw_all(book, options.charts)
    is_missed = any(verdict.outcome == "missed" for verdict in verdicts) or bool(findings.failures)
    return int(options.check and is_missed)


if __name__ == "__main__":
    sys.exit(main())
