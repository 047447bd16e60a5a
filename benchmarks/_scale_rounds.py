"""The rounds: which server is measured when, each in a process of its own that nothing else runs beside."""

from __future__ import annotations

import json
import os
import random
import select
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks._scale_load import PATIENCE, LoadFailed, crowd, play
from benchmarks._scale_words import BEAT, Contender, Scenario
from benchmarks._speed_cores import Bystanders, Placement, has_core_to_spare, pin, share_out
from benchmarks._speed_rounds import QUIET, Findings
from benchmarks._speed_words import Sample

_ROOT: Final = Path(__file__).resolve().parent.parent
# Memory hardly spreads, and takes the longest to measure.
_IDLE_ROUNDS: Final = 3

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure.

    Attributes:
        rounds: How often; each contender once in each.
        seconds: How long each measurement is to take, about.
        seed: Of the order within a round, and of masks.
        cores: Where the servers and the load run.
        tries: How often at most a measurement is made that other programs disturb.
    """

    scenarios: Sequence[Scenario]
    contenders: Sequence[Contender]
    rounds: int = 5
    seconds: float = 1.0
    seed: int = 1
    cores: Placement = "apart"
    tries: int = 3

    def turns(self, scenario: Scenario) -> int:
        """Tell in how many rounds a scenario is played."""
        return min(self.rounds, _IDLE_ROUNDS) if scenario.kind == "idle" else self.rounds


class Missing(Exception):
    """A contender lacks a package."""


@contextmanager
def running_server(contender: Contender, beat: float | None, cores: AbstractSet[int]) -> Generator[tuple[int, int]]:
    """Run a contender's server for the time of a block; give its process and its port.

    Raises:
        Missing: If a package is not installed.
        LoadFailed: If it does not start.
    """
    command = [sys.executable, "-m", "benchmarks._scale_worker", contender.name]
    command += [] if beat is None else [str(beat)]
    process = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE)
    try:
        pin(process.pid, cores)
        assert process.stdout is not None
        is_there, _, _ = select.select([process.stdout], [], [], PATIENCE)
        line = process.stdout.readline() if is_there else b""
        if not line:
            raise LoadFailed("the server did not start")
        words = json.loads(line)
        if "missing" in words:
            raise Missing(words["missing"])
        yield process.pid, words["port"]
    finally:
        process.kill()
        process.communicate()


def run_rounds(plan: Plan, say: Say) -> Findings:
    """Measure everybody in everything, round by round.

    In each round and scenario all servers have their turn one after the other, in an order that chance gives, so that
    what the machine does meanwhile meets all alike.
    """
    available = os.sched_getaffinity(0)
    cores = share_out(plan.cores, available)
    findings, rng = Findings(), random.Random(plan.seed)
    pin(0, cores.clients)
    try:
        for turn in range(plan.rounds):
            for scenario in plan.scenarios:
                if turn < plan.turns(scenario):
                    say(f"round {turn + 1} of {plan.turns(scenario)}: {scenario.name}")
                    for contender in rng.sample(plan.contenders, len(plan.contenders)):
                        _take_turn(plan, findings, contender, scenario, turn, cores.server)
    finally:
        os.sched_setaffinity(0, available)
    return findings


def _take_turn(
    plan: Plan, findings: Findings, contender: Contender, scenario: Scenario, turn: int, cores: AbstractSet[int]
) -> None:
    """Measure one server, again if other programs disturbed it, and note how it went when they did least."""
    if contender.name in findings.left_out or scenario.kind not in contender.kinds:
        return
    tries: list[Sample] = []
    try:
        while len(tries) < plan.tries and not any(each.others < QUIET for each in tries):
            tries.append(_measure(plan, contender, scenario, turn, cores))
    except Missing as error:
        findings.left_out[contender.name] = str(error)
    # A server that ends breaks whatever was being said to it.
    except (LoadFailed, OSError) as error:
        findings.failures.append(f"{contender.name}, {scenario.name}, round {turn + 1}: {error}")
    else:
        findings.samples.append(min(tries, key=lambda each: each.others))


def _measure(plan: Plan, contender: Contender, scenario: Scenario, turn: int, cores: AbstractSet[int]) -> Sample:
    """Measure one server once, in a new process."""
    is_awake = has_core_to_spare(plan.cores, os.sched_getaffinity(0) | cores)
    beat = BEAT if scenario.kind == "idle" else None
    with running_server(contender, beat, cores) as (pid, port), crowd(port, plan.seed + turn) as made:
        began, used, bystanders = time.perf_counter(), made.ask("usage")["cpu"], Bystanders(pid)
        figures = dict(play(scenario, made, plan.seconds, is_awake=is_awake))
        others, used = bystanders.cores(), made.ask("usage")["cpu"] - used
        took = time.perf_counter() - began
    messages = int(figures.pop("messages", scenario.clients))
    return Sample(
        scenario=scenario.name,
        contender=contender.name,
        turn=turn,
        figures=figures,
        messages=messages,
        server=used / took,
        others=others,
    )
