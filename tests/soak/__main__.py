"""Let many reconnecting clients suffer a bad network for minutes, and look for what leaks and what is lost.

Clients, with a heartbeat and `resend="unconfirmed"`, the proxies that do the faults and the echo servers are one
process; half of the clients and of the servers are on either transport. Each ten seconds it says how it goes. At the
end: is every message accounted for, are all tasks and file descriptors gone, and does memory stay (less than 1 MiB a
minute by least squares; in less than a minute that cannot be told)?

Exit codes: 0 for no fault, 1 for faults, 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from random import Random

import trio

from tests.quiet import quiet
from tests.soak._books import Evidence
from tests.soak._run import Plan, Soak, hold, resident_bytes

_REPORT_INTERVAL = 10.0


def _report(soak: Soak) -> None:
    clients = soak.clients
    print(
        f"{soak.seconds:6.0f} s  {soak.open_count:3} open"
        f"  {soak.fault_count:5} faults  {sum(client.closes for client in clients):6} closes"
        f"  {sum(client.sent for client in clients):7} sent"
        f"  {sum(client.arrivals.count for client in clients):7} arrived"
        f"  {sum(client.echoes.count for client in clients):7} echoes"
        f"  {hold()}  {resident_bytes() / 2**20:.1f} MiB",
        flush=True,
    )


def _verdict(evidence: Evidence) -> str:
    growth = evidence.growth()
    return (
        f"{sum(client.sent for client in evidence.clients)} messages over"
        f" {sum(client.closes for client in evidence.clients)} connections,"
        f" {sum(client.arrivals.repeats for client in evidence.clients)} of them came again,"
        f" {sum(len(client.dropped) for client in evidence.clients)} were told to be dropped; "
        + ("too short to judge memory" if growth is None else f"memory grows by {growth / 2**20:.2f} MiB a minute")
    )


def _read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="of bad network")
    parser.add_argument("--connections", type=int, default=50, help="clients, ten behind each proxy")
    parser.add_argument("--seed", type=int, help="of all chance; real sockets keep two runs from being the same")
    options = parser.parse_args(arguments)
    if not options.minutes > 0:
        parser.error(f"--minutes must be above 0, got {options.minutes}")
    if not 1 <= options.connections <= 1000:
        parser.error(f"--connections must be from 1 to 1000, got {options.connections}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments say; return the exit code."""
    options = _read_arguments(arguments)
    seed = Random().randrange(10**6) if options.seed is None else options.seed
    print(f"{options.connections} connections for {options.minutes:g} minutes, seed {seed}", flush=True)
    plan = Plan(seconds=options.minutes * 60, connections=options.connections, seed=seed)
    with quiet():
        evidence = trio.run(Soak(plan).run, _report, _REPORT_INTERVAL)
    print(_verdict(evidence))
    faults = evidence.find_faults()
    for fault in faults:
        print(f"FAILED: {fault}")
    print("no fault" if not faults else f"{len(faults)} faults")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
