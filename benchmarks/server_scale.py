"""Measure how our server bears many clients, beside the others, in one run.

A process for each server, one loop over bare sockets as the clients of all, and rounds in which they take turns; see
the README beside this. Run it as `python -m benchmarks.server_scale`. With `--check` it exits with 1 if something
required was missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks._scale_report import REQUIREMENTS, as_record, as_text
from benchmarks._scale_rounds import Plan, run_rounds
from benchmarks._scale_words import CONTENDERS, SCENARIOS, files_allowed, fit, pick
from benchmarks._speed_cores import PLACEMENTS
from benchmarks._speed_crowd import allow_many_files
from benchmarks._speed_figures import Book
from benchmarks._speed_verdicts import judge

# Servers that ping by themselves begin after 20 seconds, and an echo that is counted in bytes would count that too.
_MOST_SECONDS = 10.0


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server_scale", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each server is measured in each scenario")
    parser.add_argument("--seconds", type=float, default=1.0, help="about how long each measurement takes; 10 at most")
    parser.add_argument("--scenarios", type=_words, default=[], metavar="A,B", help="all, by default")
    parser.add_argument("--contenders", type=_words, default=[], metavar="A,B", help="all that can run, by default")
    parser.add_argument("--clients", type=int, metavar="N", help="at most so many in each scenario, for a first idea")
    parser.add_argument("--cores", choices=PLACEMENTS, default="apart", help="of the servers and the load")
    parser.add_argument("--tries", type=int, default=3, help="how often what other programs disturb is measured")
    parser.add_argument("--seed", type=int, default=1, help="of the order within a round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--check", action="store_true", help="exit with 1 if something required was missed")
    return parser


def _read_plan(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Plan:
    if not 0 < options.seconds <= _MOST_SECONDS:
        parser.error(f"--seconds must be from 0 to {_MOST_SECONDS:g}, got {options.seconds:g}")
    if min(options.rounds, options.tries, options.clients or 1) < 1:
        parser.error("--rounds, --tries and --clients must be at least 1")
    try:
        wanted, contenders = pick(options.scenarios, SCENARIOS), pick(options.contenders, CONTENDERS)
    except ValueError as error:
        parser.error(str(error))
    scenarios = [fit(each, files_allowed(), options.clients) for each in wanted]
    for before, after in zip(wanted, scenarios, strict=True):
        if after != before:
            _say(f"{after.name} has {after.clients} clients instead of {before.clients}")
    return Plan(
        scenarios=scenarios,
        contenders=contenders,
        rounds=options.rounds,
        seconds=options.seconds,
        seed=options.seed,
        cores=options.cores,
        tries=options.tries,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments say; return the exit code."""
    parser = _make_parser()
    options = parser.parse_args(arguments)
    plan = _read_plan(parser, options)
    allow_many_files()
    findings = run_rounds(plan, _say)
    verdicts = judge(Book(findings.samples), REQUIREMENTS)
    print(as_text(plan, findings, verdicts))
    if options.json is not None:
        options.json.write_text(json.dumps(as_record(plan, findings, verdicts), indent=1) + "\n")
    is_missed = any(verdict.outcome == "missed" for verdict in verdicts) or bool(findings.failures)
    return int(options.check and is_missed)


if __name__ == "__main__":
    sys.exit(main())
