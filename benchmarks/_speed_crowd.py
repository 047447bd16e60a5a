"""The scenarios of many connections: how much they take while nothing happens, and how fast they come back."""

from __future__ import annotations

import gc
import resource
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from benchmarks._speed_client import Client, Opened
from benchmarks._speed_runtimes import bounded
from benchmarks._speed_words import Figures, Target

# Connections that are being opened at the same time, of every contender.
AT_A_TIME: Final = 50
# Seconds of beats before any are measured: at first, all beat at the times at which they were opened.
_SETTLE: Final = 1.5
# Storms in one measurement.
_STORMS: Final = 3
# Connections that come and go before: what is made once, and not for each, is there then. Few, since what they leave
# behind is used again and so not seen.
_SCOUTS: Final = 5


class Gauge:
    """Counts openings, and knows when there were enough."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._left = 0
        self._done = client.runtime.event()
        self._begun = 0.0
        self._took = 0.0

    def expect(self, count: int) -> None:
        """Start the clock, and count down from so many openings."""
        self._left = count
        self._done = self._client.runtime.event()
        self._begun = time.perf_counter()

    def note(self) -> None:
        """Count one."""
        self._left -= 1
        if self._left == 0:
            self._took = time.perf_counter() - self._begun
            self._done.set()

    async def wait(self) -> float:
        """Wait for the last one, and give the seconds from `expect` to it."""
        await bounded(self._client.runtime, self._wait)
        return self._took

    async def _wait(self) -> None:
        await self._done.wait()


Join = Callable[[Target, Opened], Awaitable[None]]


async def _open_all(
    client: Client, join: Join, target: Target, count: int, inside: Callable[[Gauge], Awaitable[None]]
) -> None:
    """Open so many connections, `AT_A_TIME`; do something when all are open, and end them."""
    gauge = Gauge(client)
    turns = client.runtime.semaphore(AT_A_TIME)

    async def member() -> None:
        await turns.acquire()
        is_first = True

        def opened() -> None:
            nonlocal is_first
            if is_first:
                turns.release()
            is_first = False
            gauge.note()

        await join(target, opened)

    async def body() -> None:
        await inside(gauge)

    gauge.expect(count)
    await client.runtime.crowd(member, count, body)


async def idle(client: Client, target: Target, count: int, seconds: float) -> Figures:
    """Open so many connections with a beat a second each, and tell what they take."""
    figures: dict[str, float] = {}
    await _open_all(client, client.sit, target, _SCOUTS, _wait_open)
    gc.collect()
    before = resident_kib()

    async def watch(gauge: Gauge) -> None:
        figures["open"] = await gauge.wait()
        await client.runtime.sleep(_SETTLE)
        wall, cpu = time.perf_counter(), time.process_time()
        await client.runtime.sleep(seconds)
        figures["load"] = (time.process_time() - cpu) / (time.perf_counter() - wall)
        gc.collect()
        after = resident_kib()
        figures["memory"] = (after["Rss"] - before["Rss"]) / count
        figures["private"] = (after["Private"] - before["Private"]) / count

    await _open_all(client, client.sit, target, count, watch)
    return figures


async def _wait_open(gauge: Gauge) -> None:
    await gauge.wait()


async def storm(client: Client, target: Target, count: int) -> Figures:
    """Open so many connections, have the server drop them all at once, and tell how long until all are back."""
    took: list[float] = []

    async def endure(gauge: Gauge) -> None:
        await gauge.wait()
        for _ in range(_STORMS):
            gauge.expect(count)
            tell_to_drop(target)
            took.append(await gauge.wait())

    await _open_all(client, client.stay, target, count, endure)
    return {"wall": sum(took) / len(took)}


def tell_to_drop(target: Target) -> None:
    """Have the server reset all WebSockets. It takes some microseconds, so that no event loop need wait for it."""
    with socket.create_connection((target.host, target.port)) as connection:
        connection.sendall(b"GET /drop/rst HTTP/1.1\r\nHost: localhost\r\n\r\n")


def resident_kib() -> dict[str, int]:
    """Read how much memory this process has, in KiB: all of it, and what it shares with no other."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    rows = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return {"Rss": rows["Rss"], "Private": rows["Private_Clean"] + rows["Private_Dirty"]}


def allow_many_files() -> None:
    """Let this process have as many sockets as it may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
