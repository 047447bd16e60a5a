"""Kill a connection again and again under load, and account for every message.

A server process, a fault proxy and a reconnecting client; see the README beside this. Run it as
`python -m benchmarks.chaos`; it exits with 1, and says why, if a promise was not kept.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Final

import trio

from benchmarks._chaos_accounting import (
    MODES,
    DownMessage,
    Evidence,
    Mode,
    as_table,
    find_faults,
    make_message,
    read_down,
    read_message,
    settle,
)
from benchmarks._chaos_faults import Kill, Saboteur, plan
from benchmarks._chaos_server import recording_server
from trio_wsprim import (
    Backoff,
    CloseEvent,
    ConnectionClosed,
    DropEvent,
    HeartbeatTimeout,
    OpenEvent,
    ReadyState,
    ReconnectingWebSocket,
    create_reconnecting_ws,
    make_heartbeat_ws,
)
from trio_wsprim.testing import FaultProxy

# Seconds between two messages of the client.
_PACE: Final = 0.001
_MAX_RECOVERY: Final = 0.150


class Client:
    """What one run does with its socket, and what it sees.

    Args:
        ws: The socket, just opened.
    """

    def __init__(self, ws: ReconnectingWebSocket) -> None:
        self._ws = ws
        self._is_loading = True
        self._is_silent = trio.Event()
        self._opened = trio.lowlevel.ParkingLot()
        self.opened_at: list[float] = []
        self.heartbeats = 0
        self.accepted: list[int] = []
        self.reported: list[int] = []
        self.downs: list[DownMessage] = []

    # What the saboteur asks.

    @property
    def is_open(self) -> bool:
        return self._ws.state.value is ReadyState.OPEN

    async def wait_not_open(self) -> None:
        await self._ws.state.wait_value(lambda state: state is not ReadyState.OPEN)

    async def wait_opened_after(self, moment: float) -> float:
        while not self.opened_at or self.opened_at[-1] <= moment:
            await self._opened.park()
        return next(at for at in self.opened_at if at > moment)

    # The traffic.

    async def talk(self) -> None:
        """Send numbered messages until `hush`."""
        for number in count(1):
            if not self._is_loading:
                break
            await self._ws.send(make_message(number))
            self.accepted.append(number)
            await trio.sleep(_PACE)
        self._is_silent.set()

    async def listen(self) -> None:
        """Receive until the end."""
        with suppress(trio.ClosedResourceError):
            async for message in self._ws:
                self.downs.append(read_down(message))

    async def watch(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Note all events until the end."""
        async with self._ws.events(math.inf) as events:
            task_status.started()
            async for event in events:
                if isinstance(event, OpenEvent):
                    self.opened_at.append(trio.current_time())
                    self._opened.unpark_all()
                elif isinstance(event, CloseEvent):
                    self.heartbeats += isinstance(event.error, HeartbeatTimeout)
                    self._report(event.unconfirmed or ())
                elif isinstance(event, DropEvent):
                    self._report([event.message])

    def _report(self, messages: Iterable[str | bytes]) -> None:
        self.reported += map(read_message, messages)

    async def finish(self) -> None:
        """Stop sending, let what waits go out and be confirmed, and close."""
        self._is_loading = False
        await self._is_silent.wait()
        # A slow machine may still lose a connection to its own heartbeat.
        for _ in range(20):
            with suppress(ConnectionClosed):
                await self._ws.flush(confirm=True)
                break
        await self._ws.aclose()
        self._report(each.message for each in self._ws.undelivered)


async def run(mode: Mode, *, kills: int, seed: int) -> Evidence:
    """Kill so many connections, and give the evidence of what became of the messages."""
    schedule = plan(kills, seed)
    async with recording_server() as server:
        async with FaultProxy("127.0.0.1", server.port, seed=seed) as proxy:
            url = f"ws://{proxy.host}:{proxy.port}/"
            backoff = Backoff(first=0.01, maximum=0.05)
            socket = create_reconnecting_ws(url, delay=backoff, resend=mode, track=True, confirm_interval=0.02)
            async with socket as ws:
                client, saboteur = await _torment(ws, proxy, schedule)
        arrivals = await server.stop()
    return Evidence(
        mode=mode,
        accepted=client.accepted,
        arrivals=arrivals,
        reported=client.reported,
        downs=client.downs,
        kills=Counter(kill.kind for kill in schedule),
        recoveries=saboteur.recoveries,
        unnoticed=saboteur.unnoticed,
        connections=len(client.opened_at),
        heartbeats=client.heartbeats,
    )


async def _torment(ws: ReconnectingWebSocket, proxy: FaultProxy, schedule: Sequence[Kill]) -> tuple[Client, Saboteur]:
    make_heartbeat_ws(ws, message=None, interval=0.03, wait=0.05)
    client = Client(ws)
    saboteur = Saboteur(proxy, client)
    async with trio.open_nursery() as nursery:
        await nursery.start(client.watch)
        nursery.start_soon(client.listen)
        nursery.start_soon(client.talk)
        await ws.wait_open()
        await saboteur.carry_out(schedule)
        await client.finish()
    return client, saboteur


def time_limit(kills: int) -> float:
    """Seconds after which a run of so many kills hangs: ten times what it takes."""
    return 30.0 + kills * 2.0


async def _run_all(modes: Sequence[Mode], kills: int, seed: int) -> Sequence[Evidence]:
    found: list[Evidence] = []
    for mode in modes:
        with trio.fail_after(time_limit(kills)):
            found.append(await run(mode, kills=kills, seed=seed))
    return found


def _read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="faults for each mode")
    parser.add_argument("--seed", type=int, default=1, help="of the schedule of faults")
    parser.add_argument("--resend", choices=(*MODES, "both"), default="both", help="the mode to prove")
    parser.add_argument("--max-recovery", type=float, default=_MAX_RECOVERY, metavar="SECONDS", help="for the p99")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the accounts there, too")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments say; return the exit code."""
    options = _read_arguments(arguments)
    modes: Sequence[Mode] = MODES if options.resend == "both" else (options.resend,)
    # The runs bound themselves; this is for a loop that never gives trio its turn. The server sees its input end.
    patience = len(modes) * time_limit(options.kills) + 30
    faulthandler.dump_traceback_later(patience, exit=True, file=sys.__stderr__ or sys.stderr)
    try:
        evidence = trio.run(_run_all, modes, options.kills, options.seed)
    except trio.TooSlowError:
        print("FAILED: a run did not end in time")
        return 1
    finally:
        faulthandler.cancel_dump_traceback_later()
    accounts = [settle(each) for each in evidence]
    faults = [fault for account in accounts for fault in find_faults(account, max_recovery=options.max_recovery)]
    print(as_table(accounts))
    if options.json is not None:
        found = {"seed": options.seed, "accounts": [asdict(account) for account in accounts], "faults": faults}
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    for fault in faults:
        print(f"FAILED: {fault}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
