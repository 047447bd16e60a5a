"""The command around the Autobahn TestSuite: its reports become verdicts, and these are judged."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trio

import trio_wsprim
from tests.autobahn import __main__ as command
from tests.autobahn import _peers, _report
from tests.autobahn._report import Account, Verdict
from tests.autobahn._suite import NoSuiteError, find_python27
from trio_wsprim import ServerWebSocket
from trio_wsprim._lane import FrameDecoder, OtherFrame
from trio_wsprim._values import Message
from trio_wsprim.testing import encode_frame
from trio_wsprim.transports import _handshake

# As the suite wrote them, but for their logs and texts.
BREACH: dict[str, Any] = {
    "agent": "websockets",
    "behavior": "OK",
    "behaviorClose": "OK",
    "closedByMe": False,
    "duration": 253,
    "failedByMe": False,
    "id": "3.2",
    "localCloseCode": 1000,
    "remoteCloseCode": 1002,
    "remoteCloseReason": "reserved bits must be 0",
    "wasClean": True,
}
# The suite closes with 1002, and we answer.
ANSWER = {**BREACH, "id": "7.7.3", "closedByMe": True, "localCloseCode": 1002}
# The suite closes with a code that nobody may send.
BAD_CODE = {**BREACH, "id": "7.9.1", "closedByMe": True, "localCloseCode": 0}
NO_CLOSE = {**BREACH, "id": "7.1.5", "behavior": "FAILED", "behaviorClose": "UNCLEAN", "remoteCloseCode": None}


def account(*reports: dict[str, Any], too_big: Sequence[dict[str, Any]] = ()) -> Account:
    return Account(
        role="server",
        transport="websockets",
        seconds=33.4,
        verdicts=[_report.read_verdict(report) for report in reports],
        too_big=[_report.read_verdict(report) for report in too_big],
    )


# --- verdicts ---


def test_a_report_is_read() -> None:
    assert _report.read_verdict(BREACH) == Verdict(case="3.2", behavior="OK", close="OK", code=1002, is_answer=False)


def test_a_close_that_only_answers_the_suites_own_is_no_breach() -> None:
    codes = {report["id"]: _report.read_verdict(report).breach_code for report in (BREACH, ANSWER, BAD_CODE, NO_CLOSE)}

    assert codes == {"3.2": 1002, "7.7.3": None, "7.9.1": 1002, "7.1.5": None}


def test_breaches_are_counted_by_code() -> None:
    too_big = {**BREACH, "remoteCloseCode": 1009}
    found = account(BREACH, ANSWER, BAD_CODE, {**BREACH, "remoteCloseCode": 1007}, too_big=[too_big])

    assert found.breaches() == {1002: 2, 1007: 1, 1009: 1}


def test_the_best_verdict_of_several_runs_stands() -> None:
    lax, other = {**BREACH, "behavior": "NON-STRICT"}, {**BREACH, "id": "7.13.1", "behavior": "INFORMATIONAL"}
    first = account(lax, other)

    assert first.doubtful == ["3.2"]
    assert first.bettered(account({**lax, "remoteCloseCode": None})) == first
    assert first.bettered(account(BREACH)) == account(BREACH, other)
    assert first.bettered(account({**BREACH, "behaviorClose": "UNCLEAN"})) == first
    assert account(BREACH).bettered(account(lax)) == account(BREACH)


def test_a_case_that_passes_only_when_it_is_run_again_is_told() -> None:
    late = {**BREACH, "behaviorClose": "FAILED BY CLIENT"}
    failed = account(late, NO_CLOSE)

    assert failed.doubtful == ["3.2", "7.1.5"]
    second = failed.bettered(account(late, NO_CLOSE))
    assert second == failed
    third = second.bettered(account(BREACH, NO_CLOSE))
    assert third.failed_first == ("3.2",)
    assert third.bettered(account(NO_CLOSE)) == third
    assert _report.find_faults(third, ["3.2", "7.1.5"], counts_breaches=False) == [
        "server over websockets: 7.1.5: FAILED, close UNCLEAN with None"
    ]


# --- faults ---


def test_what_passed_is_no_fault() -> None:
    reports = [{**BREACH, "id": f"6.1.{number}"} for number in range(1, _report.LEAST_BREACHES + 1)]
    for word in ("NON-STRICT", "INFORMATIONAL"):
        reports.append({**BREACH, "id": f"7.{len(word)}", "behavior": word, "behaviorClose": word})
    cases = [report["id"] for report in reports]

    assert _report.find_faults(account(*reports), cases, counts_breaches=True) == []


@pytest.mark.parametrize("word", ["FAILED", "WRONG CODE", "UNCLEAN", "FAILED BY CLIENT", "UNIMPLEMENTED", "NO_CLOSE"])
@pytest.mark.parametrize("key", ["behavior", "behaviorClose"])
def test_any_other_word_is_a_fault(key: str, word: str) -> None:
    (fault,) = _report.find_faults(account({**BREACH, key: word}), ["3.2"], counts_breaches=False)

    assert fault.startswith("server over websockets: 3.2: ")
    assert word in fault


def test_a_case_that_was_not_reported_is_a_fault() -> None:
    faults = _report.find_faults(account(BREACH), ["3.2", "3.3"], counts_breaches=False)

    assert faults == ["server over websockets: 3.3: the suite did not report it"]


def test_too_few_breaches_are_a_fault() -> None:
    faults = _report.find_faults(account(BREACH), ["3.2"], counts_breaches=True)

    assert faults == [
        "server over websockets: only 1 cases got 1002, 1007, 1009 for the peer's fault; it should be 120"
    ]


def test_a_message_too_big_must_be_answered_with_1009() -> None:
    found = account(BREACH, too_big=[{**BREACH, "id": "9.1.1", "behavior": "FAILED", "remoteCloseCode": None}])

    (fault,) = _report.find_faults(found, ["3.2"], counts_breaches=False)

    assert "9.1.1 with a message too big for us: close with None instead of 1009" in fault


# --- two runs beside each other ---


def test_two_runs_are_the_same_if_all_verdicts_are() -> None:
    found = account(BREACH, ANSWER, too_big=[BREACH])

    assert _report.find_differences([found], [replace(found, seconds=1.0)]) == []


def test_each_difference_of_two_runs_is_told() -> None:
    here = account(BREACH, ANSWER, too_big=[BREACH])
    there = account({**BREACH, "remoteCloseCode": 1007}, BAD_CODE, too_big=[NO_CLOSE])

    differences = _report.find_differences([here], [there, replace(there, role="client", too_big=[])])

    assert [difference.rpartition(" here, ")[0] for difference in differences] == [
        "client over websockets: 3.2: not run",
        "client over websockets: 7.9.1: not run",
        "server over websockets: 3.2, too big: OK, close OK with 1002",
        "server over websockets: 3.2: OK, close OK with 1002",
        "server over websockets: 7.1.5, too big: not run",
        "server over websockets: 7.7.3: OK, close OK with 1002",
        "server over websockets: 7.9.1: not run",
    ]


def test_accounts_survive_json() -> None:
    found = [replace(account(BREACH, NO_CLOSE, too_big=[ANSWER]), failed_first=("3.2",))]

    assert _report.from_json(json.loads(json.dumps(_report.as_json(found)))) == found


def test_the_table_counts_verdicts_and_codes() -> None:
    lax = {**BREACH, "id": "6.4.3", "behavior": "NON-STRICT", "remoteCloseCode": 1007}

    assert _report.as_table([account(BREACH, lax, NO_CLOSE, ANSWER)]).splitlines() == [
        "ours                    cases  OK  non-strict  informational  failed  1002  1007  1009  seconds",
        "server over websockets      4   2           1              0       1     1     1     0       33",
    ]


# --- our ends ---


def test_cases_are_parted_by_how_they_would_disturb_each_other() -> None:
    cases = ["1.1.1", "6.1.1", "7.1", "9.1.1", "9.10.1", "12.1.1", "10.1.1", "6.2.1"]

    assert _peers.split(cases) == [
        ["1.1.1", "7.1", "10.1.1"],
        ["6.1.1", "6.2.1"],
        ["9.1.1", "9.10.1"],
        ["12.1.1"],
    ]


@pytest.mark.parametrize("is_open", [True, False])
def test_the_lane_can_be_shut(is_open: bool) -> None:
    messages: list[Message] = []
    with _peers.lane(is_open=is_open):
        decoder: FrameDecoder = vars(_handshake)["FrameDecoder"](None)
    decoder.feed(encode_frame(1, b"hello"))
    other = decoder.decode(messages)

    assert messages == (["hello"] if is_open else [])
    assert isinstance(other, OtherFrame) is not is_open
    assert vars(_handshake)["FrameDecoder"] is FrameDecoder


class FakeSuite:
    """What is asked of the suite, done with our own ends: each case is one message of 32 KiB, and its echo.

    Args:
        behavior: Its verdict on each case.
    """

    def __init__(self, behavior: str = "OK") -> None:
        self._behavior = behavior

    async def list_cases(self, patterns: Sequence[str]) -> Sequence[str]:
        await trio.lowlevel.checkpoint()
        return [pattern.replace("*", "1") for pattern in patterns]

    async def fuzz_server(self, agent: str, url: str, cases: Iterable[str], reports: Path) -> None:
        for case in cases:
            async with trio_wsprim.create_ws(url) as ws:
                await self._fuzz(ws, agent, case, reports)

    @asynccontextmanager
    async def fuzzing_server(self, cases: Iterable[str], reports: Path) -> AsyncGenerator[str]:
        async def serve(ws: ServerWebSocket) -> None:
            assert ws.request is not None
            asked = parse_qs(urlsplit(ws.request.path).query)
            if "casetuple" in asked:
                assert asked["casetuple"][0] in cases
                await self._fuzz(ws, asked["agent"][0], asked["casetuple"][0], reports)

        async with trio_wsprim.create_ws_server(serve) as server:
            yield server.url.rstrip("/")

    async def _fuzz(self, ws: trio_wsprim.WebSocket, agent: str, case: str, reports: Path) -> None:
        await ws.send("x" * 2**15)
        try:
            assert await ws.receive() == "x" * 2**15
            await ws.aclose()
        except trio_wsprim.ConnectionClosed:
            pass
        code = (await ws.wait_closed()).code
        report = {**BREACH, "id": case, "behavior": self._behavior, "remoteCloseCode": code, "localCloseCode": None}
        write_report(reports / f"{agent}_case_{case}.json", report)


def write_report(path: Path, report: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report))


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_python27", lambda wanted: Path(wanted or "python2.7"))
    monkeypatch.setattr(command, "install", lambda folder, python27: FakeSuite())
    # One case takes the place of the nine sections.
    monkeypatch.setattr(_report, "LEAST_BREACHES", 2)


@pytest.mark.usefixtures("suite")
def test_the_command_tries_both_roles_over_each_transport(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results" / "autobahn.json"

    code = command.main(["--json", str(results), "--compression"])

    printed = capsys.readouterr().out
    assert printed.endswith("no fault\n")
    assert code == 0
    accounts = _report.from_json(json.loads(results.read_text())["accounts"])
    assert [found.name for found in accounts] == [
        "client over websockets",
        "client over trio-websocket",
        "client over websockets-deflate",
        "server over websockets",
        "server over trio-websocket",
        "server over websockets-deflate",
    ]
    assert [len(found.verdicts) for found in accounts] == [9, 9, 2] * 2
    assert [found.breaches() for found in accounts] == [{1009: 2}, {1009: 2}, {}] * 2
    assert all(line.split()[0] in {"ours", "client", "server"} for line in printed.splitlines()[-9:-2])


@pytest.mark.usefixtures("suite")
def test_the_command_compares_with_an_earlier_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    on, off = str(tmp_path / "on.json"), str(tmp_path / "off.json")
    narrow = ["--role", "server", "--transport", "websockets", "--cases", "1.*", "3.*"]

    assert command.main([*narrow, "--json", on]) == 0
    assert command.main([*narrow, "--json", off, "--no-lane", "--against", on]) == 0
    capsys.readouterr()
    assert command.main([*narrow[:-1], "--json", off, "--against", on]) == 1

    told = f"FAILED: not as in {on}: server over websockets: 3.1: not run here, OK, close OK with 1000 there"
    assert told in capsys.readouterr().out
    assert json.loads(Path(on).read_text())["lane"] is True


def test_the_command_fails_where_a_case_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], suite: None
) -> None:
    monkeypatch.setattr(command, "install", lambda folder, python27: FakeSuite("FAILED"))

    code = command.main(["--role", "client", "--cases", "1.*", "--json", str(tmp_path / "found.json")])

    assert "FAILED: client over websockets: 1.1: FAILED, close OK with 1000" in capsys.readouterr().out
    assert code == 1


# --- where there is no Python 2.7 ---


def test_without_python_27_the_command_says_so_and_exits_with_3(capsys: pytest.CaptureFixture[str]) -> None:
    code = command.main(["--python", "no-such-python2.7"])

    assert capsys.readouterr().out == (
        "NOT RUN: no Python 2.7 is to be had, on which the Autobahn TestSuite runs; looked at no-such-python2.7\n"
    )
    assert code == 3


def test_python_27_is_looked_for_on_path_and_among_pyenvs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(path: Path, script: str) -> Path:
        path.parent.mkdir(parents=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    monkeypatch.setenv("PATH", str(tmp_path / "shims"), prepend=":")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    stub = make(tmp_path / "shims" / "python2.7", "echo 'pyenv: command not found' >&2; exit 127")

    with pytest.raises(NoSuiteError, match="looked at"):
        find_python27()

    real = make(tmp_path / "pyenv" / "versions" / "2.7.18" / "bin" / "python2.7", "echo 'Python 2.7.18' >&2")
    assert find_python27() == real

    with pytest.raises(NoSuiteError):
        find_python27(str(stub))
