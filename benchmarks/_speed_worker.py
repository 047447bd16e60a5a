"""A contender's process: it makes its client once, and then plays a scenario for each line that it reads.

Run as `python -m benchmarks._speed_worker NAME`. Between two lines it waits for input and does nothing at all, so that
it does not disturb the others. It ends when its input does.
"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks._speed_client import Client
from benchmarks._speed_contenders import Contender, pick_contenders
from benchmarks._speed_crowd import allow_many_files, idle, storm
from benchmarks._speed_exchange import measure, play
from benchmarks._speed_words import Scenario, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a worker is told to do.

    Attributes:
        seconds: How long to measure, about.
    """

    scenario: Scenario
    target: Target
    seconds: float

    def as_line(self) -> str:
        """Write it down, for `read_job`."""
        scenario, target = self.scenario, self.target
        words = {
            "scenario": [scenario.kind, scenario.size, scenario.is_tls, scenario.count],
            "target": [target.port, target.raw_port, target.authority],
            "seconds": self.seconds,
        }
        return json.dumps(words)


def read_job(line: str) -> Job:
    words = json.loads(line)
    kind, size, is_tls, count = words["scenario"]
    scenario = Scenario(kind=kind, size=size, is_tls=is_tls, count=count)
    return Job(scenario=scenario, target=Target(*words["target"]), seconds=words["seconds"])


async def _exchange(client: Client, job: Job) -> Mapping[str, float]:
    """Play a scenario of messages: seconds for each of them."""
    scenario = job.scenario
    async with client.talk(job.target, scenario) as talk:
        if scenario.path == "/echo":
            await talk.check(scenario.message)
        timing = await measure(play(talk, scenario), job.seconds)
    await client.aclose()
    return {
        "wall": timing.wall / timing.messages,
        "cpu": timing.cpu / timing.messages,
        "messages": timing.messages,
    }


async def _crowd(client: Client, job: Job) -> Mapping[str, float]:
    count = job.scenario.count
    if job.scenario.kind == "idle":
        figures = await idle(client, job.target, count, max(2.0, 4 * job.seconds))
    else:
        figures = await storm(client, job.target, count)
    await client.aclose()
    return {**figures, "messages": count}


def time_import(contender: Contender, target: Target) -> Mapping[str, float]:
    """Import it in a new process that has imported its runtime, and in another one go on until the first echo."""
    base = "trio" if contender.runtime == "trio" else "asyncio"
    program = (
        f"import {base}, time; t = time.perf_counter(); import {contender.imports}; print(time.perf_counter() - t)"
    )
    ports = (str(target.port), str(target.raw_port))
    return {
        "wall": _seconds_of("-c", program),
        "first": _seconds_of("-m", "benchmarks._speed_first", contender.name, *ports),
        "messages": 1,
    }


def _seconds_of(*arguments: str) -> float:
    """Run a Python program that prints seconds."""
    done = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True, timeout=60)
    return float(done.stdout)


def carry_out(contender: Contender, job: Job) -> Mapping[str, float]:
    """Do a job, and give its figures."""
    if job.scenario.kind == "import":
        return time_import(contender, job.target)
    client = contender.client()
    work = _exchange if job.scenario.kind not in ("idle", "storm") else _crowd
    return client.runtime.run(partial(work, client, job))


def _answer(words: Mapping[str, Any]) -> None:
    print(json.dumps(words), flush=True)


def main(name: str) -> None:
    logging.getLogger().setLevel(logging.CRITICAL)
    allow_many_files()
    (contender,) = pick_contenders([name])
    try:
        contender.client()
    except ImportError as error:
        _answer({"missing": str(error)})
        return
    _answer({})
    for line in sys.stdin:
        try:
            _answer(carry_out(contender, read_job(line)))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - a contender may fail in any way of its own
            _answer({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main(sys.argv[1])
