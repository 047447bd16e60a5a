"""Hold client and server against the Autobahn TestSuite, over each transport.

The suite runs on CPython 2.7 only. It is installed by package name in a temporary folder, or in one that you name and
that is used again. Sections 1 to 10 are run (there are no others but 12 and 13, on compression, which `--compression`
adds), and some of section 9 once more with messages that are too big for us, to see 1009 on the wire.

Exit codes: 0 for no fault, 1 for faults, 2 for wrong arguments, 3 if the suite cannot be had on this machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import trio

from tests.autobahn import _peers, _report
from tests.autobahn._report import Account, Role
from tests.autobahn._suite import NoSuiteError, Suite, find_python27, install
from tests.quiet import quiet

_ROLES: Final[tuple[Role, ...]] = ("client", "server")
_TRANSPORTS: Final = ("websockets", "trio-websocket")
_DEFLATE: Final = "websockets-deflate"
_SECTIONS: Final = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*")
_COMPRESSION: Final = ("12.*", "13.*")
_COMPRESSED: Final = ("12.", "13.")
# Their messages are whole, or come in 64 to 4 Mi bytes a fragment; all are larger than this.
_TOO_BIG: Final = ("9.1.*", "9.3.*")
_SMALL: Final = 16 * 1024
# Cases of one client at the same time. Large ones keep the suite busy for seconds, and are done one by one.
_AT_ONCE: Final = 4
_LARGE: Final = ("9.", *_COMPRESSED)
# A case that is NON-STRICT, or failed, is run so often again.
_MOST_REPEATS: Final = 3


class Trial:
    """Everything that is tried, one role over one transport after the other.

    Args:
        suite: That tries us.
        folder: For its reports.
    """

    def __init__(self, suite: Suite, folder: Path) -> None:
        self._suite = suite
        self._folder = folder

    async def run(self, role: Role, transport: str, cases: Sequence[str], too_big: Sequence[str]) -> Account:
        """Run cases, and again those that did not end as well as they could, which may be chance."""
        account = await self._run(role, transport, cases, too_big)
        for _ in range(_MOST_REPEATS):
            if account.doubtful:
                account = account.bettered(await self._run(role, transport, account.doubtful, []))
        return account

    async def _run(self, role: Role, transport: str, cases: Sequence[str], too_big: Sequence[str]) -> Account:
        print(f"{role} over {transport}: {len(cases)} cases …", flush=True)
        reports = Path(tempfile.mkdtemp(dir=self._folder))
        start = time.perf_counter()
        run = self._run_client if role == "client" else self._run_server
        await run(transport, _peers.split(cases), reports / "all", _peers.MAX_MESSAGE_BYTES)
        seconds = time.perf_counter() - start
        if too_big:
            await run(transport, [too_big], reports / "too-big", _SMALL)
        return Account(
            role=role,
            transport=transport,
            seconds=round(seconds, 1),
            verdicts=_read_reports(reports / "all"),
            too_big=_read_reports(reports / "too-big"),
        )

    async def _run_client(self, transport: str, lots: Sequence[Sequence[str]], reports: Path, limit: int) -> None:
        cases = [case for lot in lots for case in lot]
        made = _peers.TRANSPORTS[transport]()
        async with self._suite.fuzzing_server(cases, reports) as url:
            for lot in lots:
                at_once = 1 if lot[0].startswith(_LARGE) else _AT_ONCE
                await _peers.run_cases(url, lot, transport, made, at_once=at_once, max_message_bytes=limit)
            await _peers.write_reports(url, transport)

    async def _run_server(self, transport: str, lots: Sequence[Sequence[str]], reports: Path, limit: int) -> None:
        async with AsyncExitStack() as stack:
            url = await stack.enter_async_context(_peers.echo_server(_peers.TRANSPORTS[transport](), limit))
            nursery = await stack.enter_async_context(trio.open_nursery())
            for lot in lots:
                nursery.start_soon(self._suite.fuzz_server, transport, url, lot, reports)


def _read_reports(folder: Path) -> Sequence[_report.Verdict]:
    reports = (json.loads(path.read_text()) for path in folder.glob("*_case_*.json"))
    return sorted(map(_report.read_verdict, reports), key=_report.sort_key)


async def _try_all(suite: Suite, folder: Path, options: argparse.Namespace) -> tuple[list[Account], list[str]]:
    """Run what the options say; give the accounts, and what is wrong with them."""
    trial = Trial(suite, folder)
    cases = await suite.list_cases(options.cases or (*_SECTIONS, *(_COMPRESSION if options.compression else ())))
    compressed = [case for case in cases if case.startswith(_COMPRESSED)]
    plain = [case for case in cases if not case.startswith(_COMPRESSED)]
    too_big = [] if options.cases else await suite.list_cases(_TOO_BIG)
    accounts: list[Account] = []
    faults: list[str] = []
    for role in options.role:
        for transport in options.transport if plain else ():
            account = await trial.run(role, transport, plain, too_big)
            accounts.append(account)
            faults += _report.find_faults(account, plain, counts_breaches=not options.cases)
        if compressed:
            account = await trial.run(role, _DEFLATE, compressed, [])
            accounts.append(account)
            faults += _report.find_faults(account, compressed, counts_breaches=False)
    if options.against is not None:
        others = _report.from_json(json.loads(options.against.read_text())["accounts"])
        faults += (f"not as in {options.against}: {d}" for d in _report.find_differences(accounts, others))
    return accounts, faults


def _read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.autobahn", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--role", action="append", choices=_ROLES, help="only this one")
    parser.add_argument("--transport", action="append", choices=_TRANSPORTS, help="only this one")
    parser.add_argument("--compression", action="store_true", help="sections 12 and 13 too; takes many minutes")
    parser.add_argument("--cases", nargs="+", metavar="PATTERN", help='such as "7.*"; then no breaches are counted')
    parser.add_argument("--no-lane", action="store_true", help="let the cores underneath judge every frame")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the verdicts")
    parser.add_argument("--against", type=Path, metavar="FILE", help="the JSON of a run that must have found the same")
    parser.add_argument("--folder", type=Path, help="keep the suite and its reports there, and use them again")
    parser.add_argument("--python", metavar="FILE", help="a Python 2.7; else one of PATH or of pyenv's is found")
    options = parser.parse_args(arguments)
    options.role = options.role or _ROLES
    options.transport = options.transport or _TRANSPORTS
    options.json = options.json or Path("build") / f"autobahn{'-no-lane' if options.no_lane else ''}.json"
    return options


def _run(folder: Path, options: argparse.Namespace) -> Sequence[str]:
    """Install, try, write the JSON, print the table; give what is wrong."""
    python27 = find_python27(options.python)
    print(f"installing the suite for {python27} …", flush=True)
    suite = install(folder, python27)
    with (
        tempfile.TemporaryDirectory(prefix="reports-", dir=folder) as reports,
        _peers.lane(is_open=not options.no_lane),
        quiet(),
    ):
        accounts, faults = trio.run(_try_all, suite, Path(reports), options)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    found = {"lane": not options.no_lane, "accounts": _report.as_json(accounts), "faults": faults}
    options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(_report.as_table(accounts))
    for account in accounts:
        if account.failed_first:
            print(f"{account.name}: passed only when run again: {', '.join(account.failed_first)}")
    print(f"each verdict is in {options.json}")
    return faults


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments say; return the exit code."""
    options = _read_arguments(arguments)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder: Path = options.folder or Path(scratch)
            folder.mkdir(parents=True, exist_ok=True)
            faults = _run(folder.resolve(), options)
    except NoSuiteError as error:
        print(f"NOT RUN: {error}")
        return 3
    for fault in faults:
        print(f"FAILED: {fault}")
    print("no fault" if not faults else f"{len(faults)} faults")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
