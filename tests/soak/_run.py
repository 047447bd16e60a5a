"""A soak: reconnecting clients with a heartbeat, a bad network and our own servers, all in one process."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import resource
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final, final

import trio

from tests.soak._books import Client, Evidence, Holdings, make_text, read_text
from tests.soak._network import Weather
from trio_wsprim import (
    Backoff,
    CloseEvent,
    ConnectionClosed,
    DropEvent,
    ReadyState,
    ReconnectingWebSocket,
    ServerWebSocket,
    TrioWebsocketTransport,
    WebsocketsTransport,
    create_reconnecting_ws,
    create_ws_server,
    make_heartbeat_ws,
)
from trio_wsprim.testing import FaultProxy

_LOOPBACK: Final = "127.0.0.1"
# Clients that suffer the same faults at the same time.
_CLIENTS_PER_PROXY: Final = 10
# Seconds between two messages of a client, at least and at most.
_PACE: Final = (0.1, 0.3)
# Seconds for what has been broken to be found out, made anew and torn down; a quiet machine needs one or two.
_PATIENCE: Final = 30.0
_LOOK_INTERVAL: Final = 0.1
_MEASURE_INTERVAL: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do.

    Attributes:
        seconds: Of bad network.
        connections: How many clients.
        seed: Of all chance.
        pace: Multiplies the times between faults, and between messages.
    """

    seconds: float
    connections: int
    seed: int
    pace: float = 1.0


@final
class Soak:
    """A run under way.

    Args:
        plan: What to do.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.clients = [Client() for _ in range(plan.connections)]
        self.memory: list[tuple[float, float]] = []
        self._started = math.inf
        self._weathers: list[Weather] = []
        self._connections = 0
        # How many echoes were sent on each connection that is open at a server.
        self._echoed: dict[int, int] = {}
        self._sockets: list[ReconnectingWebSocket] = []
        self._is_talking = True
        self._is_over = trio.Event()
        self._resting = 0

    # -------------------------------------------------------------------------------- the whole

    async def run(self, report: Callable[[Soak], None], report_interval: float) -> Evidence:
        """Open everything, let it suffer, let it come to rest, and close everything.

        Args:
            report: Is called now and then while it suffers.
            report_interval: Seconds between two calls.
        """
        bare = hold()
        async with self._network() as urls, trio.open_nursery() as nursery:
            for number, client in enumerate(self.clients):
                await nursery.start(self._live, number, client, urls[number // _CLIENTS_PER_PROXY])
            opened = await self._settle(lambda: self.open_count == len(self.clients))
            await self._suffer(report, report_interval)
            self._is_talking = False
            calm = await self._settle(lambda: not self._count_restless() and not hold().exceeds(opened))
            restless = self._count_restless()
            self._is_over.set()
        closed = await self._settle(lambda: not hold().exceeds(bare))
        return Evidence(
            clients=self.clients,
            memory=self.memory,
            bare=bare,
            closed=closed,
            opened=opened,
            calm=calm,
            faults=self.fault_count,
            restless=restless,
        )

    @asynccontextmanager
    async def _network(self) -> AsyncGenerator[Sequence[str]]:
        """Open the servers, one over each transport, and the proxies before them; give the proxies' urls."""
        plan = self._plan
        async with AsyncExitStack() as stack:
            servers = [
                await stack.enter_async_context(create_ws_server(self._serve, transport=transport))
                for transport in (WebsocketsTransport(), TrioWebsocketTransport())
            ]
            urls: list[str] = []
            for number in range(math.ceil(plan.connections / _CLIENTS_PER_PROXY)):
                port = servers[number % len(servers)].port
                seed = plan.seed + number
                proxy = await stack.enter_async_context(FaultProxy(_LOOPBACK, port, seed=seed))
                self._weathers.append(Weather(proxy, seed, plan.pace))
                urls.append(f"ws://{proxy.host}:{proxy.port}/")
            yield urls

    async def _suffer(self, report: Callable[[Soak], None], report_interval: float) -> None:
        """Have faults, and measure."""
        self._started = trio.current_time()
        with trio.move_on_after(self._plan.seconds):
            async with trio.open_nursery() as nursery:
                for weather in self._weathers:
                    nursery.start_soon(weather.run)
                nursery.start_soon(self._measure)
                while True:
                    await trio.sleep(report_interval)
                    report(self)

    async def _measure(self) -> None:
        while True:
            await trio.sleep(min(_MEASURE_INTERVAL, self._plan.seconds / 10))
            discard_garbage()
            self.memory.append((self.seconds, resident_bytes()))

    async def _settle(self, is_settled: Callable[[], bool]) -> Holdings:
        """Wait until it is, or patience ends; give what is held then."""
        with trio.move_on_after(_PATIENCE):
            while not is_settled():  # noqa: ASYNC110 - no event tells of a file descriptor that is closed
                await trio.sleep(_LOOK_INTERVAL)
        return hold()

    # -------------------------------------------------------------------------------- looking

    @property
    def seconds(self) -> float:
        """Since the faults began."""
        return max(0.0, trio.current_time() - self._started)

    @property
    def open_count(self) -> int:
        return sum(ws.state.value is ReadyState.OPEN for ws in self._sockets)

    @property
    def fault_count(self) -> int:
        return sum(weather.faults.total() for weather in self._weathers)

    def _count_restless(self) -> int:
        """Count clients for whom not all is proved to have arrived, and connections on which echoes are under way."""
        got = {client.echoes.connection: client.echoes.index for client in self.clients}
        waiting = sum(count != got.get(connection, 0) for connection, count in self._echoed.items())
        return len(self.clients) - self._resting + waiting

    # -------------------------------------------------------------------------------- a client

    async def _live(
        self, number: int, client: Client, url: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        rng = Random(self._plan.seed * 1000 + number)
        async with create_reconnecting_ws(
            url,
            delay=Backoff(first=0.05, maximum=0.5, rng=rng),
            resend="unconfirmed",
            transport=TrioWebsocketTransport() if number % 2 else WebsocketsTransport(),
        ) as ws:
            make_heartbeat_ws(ws, message=None, interval=0.5, wait=0.5)
            self._sockets.append(ws)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, client, ws)
                nursery.start_soon(self._listen, number, client, ws)
                task_status.started()
                await self._talk(number, client, ws, rng)
                await self._is_over.wait()
                await ws.aclose()
            client.dropped.update(read_text(each.message)[1] for each in ws.undelivered)

    async def _talk(self, number: int, client: Client, ws: ReconnectingWebSocket, rng: Random) -> None:
        while self._is_talking:
            await ws.send(make_text(number, client.sent + 1))
            client.sent += 1
            await trio.sleep(self._plan.pace * rng.uniform(*_PACE))
        with (
            trio.move_on_after(_PATIENCE),
            suppress(ConnectionClosed),
        ):  # which it should not raise; then it never rests
            await ws.flush(confirm=True)
            self._resting += 1

    async def _listen(self, number: int, client: Client, ws: ReconnectingWebSocket) -> None:
        with suppress(trio.ClosedResourceError):
            async for message in ws:
                connection, index, text = str(message).split(" ", 2)
                sender, serial = read_text(text)
                client.echoes.note(int(connection), int(index))
                client.echoes.faults += sender != number or serial > client.sent

    async def _watch(self, client: Client, ws: ReconnectingWebSocket) -> None:
        async with ws.events(math.inf) as events:
            async for event in events:
                if isinstance(event, CloseEvent):
                    client.closes += 1
                    client.in_doubt += len(event.unconfirmed or ())
                elif isinstance(event, DropEvent):
                    client.dropped.add(read_text(event.message)[1])

    # -------------------------------------------------------------------------------- the servers

    async def _serve(self, ws: ServerWebSocket) -> None:
        self._connections += 1
        connection = self._connections
        self._echoed[connection] = 0
        try:
            async for message in ws:
                number, serial = read_text(message)
                self.clients[number].arrivals.note(serial)
                # What came before the connection broke is read all the same: it has been confirmed.
                with suppress(ConnectionClosed):
                    await ws.send(f"{connection} {self._echoed[connection] + 1} {message!s}")
                    self._echoed[connection] += 1
        finally:
            del self._echoed[connection]


def hold() -> Holdings:
    """Count what the process holds now."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    tasks, found = [root], 0
    while tasks:
        task = tasks.pop()
        found += 1
        for nursery in task.child_nurseries:
            tasks += nursery.child_tasks
    # The folder is a file itself while it is listed, each time.
    return Holdings(found, len(os.listdir("/dev/fd")))  # noqa: PTH208 - only names, as fast as can be


def discard_garbage() -> None:
    """Give back to the system what is free already, so that what is measured next is what is held.

    Rings of dead objects wait for a collection, and glibc keeps freed memory, in ever more pieces; both level off only
    after many minutes, and would look like a leak until then.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def resident_bytes() -> float:
    """Give the memory that the process has now, or, where the system does not tell, the most that it has had."""
    statistics = Path("/proc/self/statm")
    if statistics.exists():
        return float(statistics.read_text().split()[1]) * resource.getpagesize()
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024
