"""How long a program takes from importing a library to its first echo, beyond trio and asyncio.

Run as `python -m benchmarks._speed_first NAME PORT RAW_PORT`; prints the seconds. Some libraries import the better part
of themselves only when they connect, of which the time of a bare `import` tells nothing.
"""

from __future__ import annotations

import sys
import time
from functools import partial

from benchmarks._speed_client import Client
from benchmarks._speed_contenders import pick_contenders
from benchmarks._speed_words import Scenario, Target


async def _connect(client: Client, target: Target) -> float:
    """Connect, await an echo, and give the time."""
    scenario = Scenario(kind="rtt", size=32)
    async with client.talk(target, scenario) as talk:
        await talk.check(scenario.message)
        done = time.perf_counter()
    await client.aclose()
    return done


def main(name: str, port: int, raw_port: int) -> None:
    (contender,) = pick_contenders([name])
    begun = time.perf_counter()
    client = contender.client()
    print(client.runtime.run(partial(_connect, client, Target(port, raw_port))) - begun)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
