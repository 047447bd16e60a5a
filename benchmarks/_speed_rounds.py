"""The rounds: who is measured when, each in a process of its own."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast, final

import trio

from benchmarks._speed_contenders import Contender
from benchmarks._speed_cores import Bystanders, Placement, has_core_to_spare, pin, share_out
from benchmarks._speed_lines import LineReader
from benchmarks._speed_server import Server
from benchmarks._speed_words import Sample, Scenario
from benchmarks._speed_worker import Job

_ROOT: Final = Path(__file__).resolve().parent.parent
# Seconds after which a measurement hangs: so many, and so many times what it should take.
_PATIENCE: Final = (60.0, 20.0)
_IDLE_ROUNDS: Final = 3
# Cores that others may keep busy on a quiet machine, and how often a measurement is made in which they were busier.
QUIET: Final = 0.1
_TRIES: Final = 3

Say = Callable[[str], None]
Wakefulness: TypeAlias = Literal["auto", "awake", "asleep"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure.

    Attributes:
        rounds: How often; each contender once in each.
        seconds: How long each measurement is to take, about.
        seed: Of the order within a round.
        cores: Where the server and the contenders run.
        server: Whether the server stays awake when it has nothing to do.
    """

    scenarios: Sequence[Scenario]
    contenders: Sequence[Contender]
    rounds: int = 5
    seconds: float = 0.5
    seed: int = 1
    cores: Placement = "apart"
    server: Wakefulness = "auto"

    def wants_awake(self, scenario: Scenario) -> bool:
        """Tell whether the server is to stay awake in a scenario; never where it would take the core from its client.

        If not told, it does in `rtt` only: there every message would find it asleep, and to wake it takes twice as
        long as the rest.
        """
        if not has_core_to_spare(self.cores, os.sched_getaffinity(0)):
            return False
        return scenario.kind == "rtt" if self.server == "auto" else self.server == "awake"

    def groups(self, turn: int) -> Sequence[Sequence[Scenario]]:
        """Give the scenarios of a round, those together that the same processes play.

        Crowds have processes of their own: memory that an earlier scenario has given back would be used again, and so
        not be seen. It hardly spreads, so that it need not be measured in all rounds.
        """
        crowds = [each for each in self.scenarios if each.count > 1]
        others = [each for each in self.scenarios if each.count == 1]
        return [others, *([each] for each in crowds if each.kind != "idle" or turn < _IDLE_ROUNDS)]


@dataclass(slots=True)
class Findings:
    """What a run has found.

    Attributes:
        left_out: Contenders that cannot run here, each with the reason.
        failures: What went wrong, in sentences.
    """

    samples: list[Sample] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


class MeasurementFailed(Exception):
    """A contender did not do what it was told."""


class Worker:
    """A contender's process."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self.pid = process.pid
        self._stdin = process.stdin
        self._lines = LineReader(process.stdout)

    async def read_answer(self, patience: float = _PATIENCE[0]) -> Mapping[str, Any]:
        """Wait for what it says next; it has failed if that takes too long, and is killed."""
        try:
            with trio.fail_after(patience):
                return cast("Mapping[str, Any]", json.loads(await self._lines.read_line()))
        except trio.TooSlowError:
            self._process.kill()
            return {"error": f"no answer in {patience:g} s"}
        except EOFError as error:
            return {"error": str(error)}

    async def ask(self, job: Job) -> Mapping[str, Any]:
        """Have it do a job."""
        try:
            await self._stdin.send_all(job.as_line().encode() + b"\n")
        except trio.BrokenResourceError:
            return {"error": "it has ended before"}
        least, factor = _PATIENCE
        return await self.read_answer(least + factor * job.seconds)


@asynccontextmanager
async def running_workers(
    contenders: Sequence[Contender], cores: AbstractSet[int], findings: Findings
) -> AsyncGenerator[Mapping[str, Worker]]:
    """Start a process for each contender, and end them all after the block; leave out those that lack a package."""
    run = partial(trio.run_process, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_ROOT, check=False)
    async with trio.open_nursery() as nursery:
        workers: dict[str, Worker] = {}
        for contender in contenders:
            command = [sys.executable, "-m", "benchmarks._speed_worker", contender.name]
            process = cast("trio.Process", await nursery.start(run, command))
            pin(process.pid, cores)
            workers[contender.name] = Worker(process)
        for name, worker in list(workers.items()):
            answer = await worker.read_answer()
            if answer:
                findings.left_out[name] = answer.get("missing") or answer["error"]
                del workers[name]
        yield workers
        # `run_process` kills what is cancelled.
        nursery.cancel_scope.cancel()


async def run_rounds(plan: Plan, server: Server, say: Say) -> Findings:
    """Measure everybody in everything, round by round."""
    return await _Run(plan, server, say).run()


@final
class _Run:
    """One run of a plan.

    In each round and scenario all contenders have their turn one after the other, in an order that chance gives, so
    that what the machine does meanwhile meets all alike. Their processes are new in each round: where memory happens
    to lie is part of the spread.
    """

    def __init__(self, plan: Plan, server: Server, say: Say) -> None:
        self._plan = plan
        self._server = server
        self._say = say
        self._rng = random.Random(plan.seed)
        self._cores = share_out(plan.cores, os.sched_getaffinity(0))
        self._findings = Findings()

    async def run(self) -> Findings:
        pin(self._server.pid, self._cores.server)
        for turn in range(self._plan.rounds):
            for group in self._plan.groups(turn):
                await self._play_group(group, turn)
        return self._findings

    async def _play_group(self, group: Sequence[Scenario], turn: int) -> None:
        """Play some scenarios with the same processes."""
        able = [each for each in self._plan.contenders if each.name not in self._findings.left_out]
        able = [each for each in able if any(each.plays(scenario) for scenario in group)]
        async with running_workers(able, self._cores.clients, self._findings) as workers:
            for scenario in group:
                self._say(f"round {turn + 1} of {self._plan.rounds}: {scenario.name}")
                players = [each.name for each in able if each.name in workers and each.plays(scenario)]
                self._rng.shuffle(players)
                for player in players:
                    await self._take_turn(workers[player], player, scenario, turn)

    async def _take_turn(self, worker: Worker, player: str, scenario: Scenario, turn: int) -> None:
        """Let one contender play, again if other programs disturbed it, and note how it went when they did least."""
        tries: list[Sample] = []
        while len(tries) < _TRIES and not any(each.others < QUIET for each in tries):
            try:
                tries.append(await self._measure(worker, player, scenario, turn))
            except MeasurementFailed as error:
                self._findings.failures.append(f"{player}, {scenario.name}, round {turn + 1}: {error}")
                return
        self._findings.samples.append(min(tries, key=lambda each: each.others))

    async def _measure(self, worker: Worker, player: str, scenario: Scenario, turn: int) -> Sample:
        """Let one contender play once."""
        server = self._server
        job = Job(scenario=scenario, target=server.tls if scenario.is_tls else server.plain, seconds=self._plan.seconds)
        busy, begun = await server.be(awake=self._plan.wants_awake(scenario)), time.perf_counter()
        bystanders = Bystanders(server.pid, worker.pid)
        answer = dict(await worker.ask(job))
        others, took = bystanders.cores(), time.perf_counter() - begun
        share = (await server.be(awake=False) - busy) / took
        if "error" in answer:
            raise MeasurementFailed(answer["error"])
        return Sample(
            scenario=scenario.name,
            contender=player,
            turn=turn,
            messages=int(answer.pop("messages")),
            figures=answer,
            server=share,
            others=others,
        )
