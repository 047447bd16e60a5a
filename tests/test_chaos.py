"""The chaos proof runs in small, and its arithmetic can tell a kept promise from a broken one."""

import json
from collections.abc import Sequence
from dataclasses import replace
from math import isnan
from pathlib import Path

import pytest
import trio

from benchmarks import chaos
from benchmarks._chaos_accounting import (
    MODES,
    Account,
    DownMessage,
    Evidence,
    Mode,
    as_table,
    count_reordered,
    count_wrong_downs,
    find_faults,
    make_down,
    make_message,
    percentile,
    read_down,
    read_message,
    settle,
)
from benchmarks._chaos_faults import KINDS, plan

# Far above the 150 ms that `python -m benchmarks.chaos` demands: a test must not fail since its machine is busy.
PATIENT = 5.0

# What a connection that broke after 3, of which 2 and 3 were not confirmed, leaves behind.
UNSENT = Evidence(
    mode="unsent",
    accepted=[1, 2, 3, 4],
    arrivals=[1, 2, 4],
    reported=[2, 3],
    downs=[(1, 1), (1, 2), (2, 1)],
    kills={"reset": 1},
    recoveries=[0.02],
    unnoticed=0,
    connections=2,
    heartbeats=0,
)
UNCONFIRMED = replace(UNSENT, mode="unconfirmed", arrivals=[1, 2, 2, 3, 4])


# --- the whole ---


@pytest.mark.parametrize("mode", MODES)
async def test_every_message_is_accounted_for_after_twenty_kills(mode: Mode) -> None:
    with trio.fail_after(chaos.time_limit(20)):
        evidence = await chaos.run(mode, kills=20, seed=7)

    account = settle(evidence)
    assert find_faults(account, max_recovery=PATIENT) == []
    assert sum(account.kills.values()) == len(evidence.recoveries) == 20
    assert account.connections > 20
    assert account.heartbeats >= account.kills["freeze"]


# --- the arithmetic ---


def test_a_message_is_read_as_its_number_only_if_it_is_whole() -> None:
    for number in range(1, 101):
        assert read_message(make_message(number)) == number
        assert read_message(make_message(number).encode()) == number
    assert read_message(make_message(5)[:-1]) == -1
    assert read_message("five:") == -1
    assert read_message(b"\xff") == -1
    assert read_down(make_down((3, 14))) == (3, 14)


def test_evidence_is_counted() -> None:
    account = settle(UNSENT)

    assert (account.accepted, account.received, account.lost) == (4, 3, 1)
    assert (account.duplicated, account.reordered, account.foreign) == (0, 0, 0)
    assert (account.reported, account.unexplained, account.needless) == (2, 0, 1)
    assert (account.down_received, account.down_wrong) == (3, 0)
    assert (account.recovery_p50, account.recovery_p99) == (0.02, 0.02)


def test_a_second_arrival_is_a_duplicate_and_no_reordering() -> None:
    account = settle(UNCONFIRMED)

    assert (account.received, account.duplicated, account.reordered, account.lost) == (4, 1, 0, 0)


@pytest.mark.parametrize(
    ("arrivals", "reordered"),
    [
        ([], 0),
        ([1, 2, 3], 0),
        ([1, 3], 0),
        ([1, 2, 3, 2, 3, 4], 0),  # sent again on the next connection
        ([1, 2, 1, 3, 2, 4], 0),  # the rest of a replaced connection comes in late
        ([2, 1], 1),
        ([1, 3, 2, 4], 1),
        ([4, 1, 2, 3], 3),
        ([1, 3, 1, 2, 3], 1),  # a gap that the next connection fills: 2 came after 3
    ],
)
def test_reordered_are_first_arrivals_behind_one_that_was_sent_later(arrivals: Sequence[int], reordered: int) -> None:
    assert count_reordered(arrivals, [1, 2, 3, 4]) == reordered


def test_the_order_is_that_of_sending_whatever_the_numbers() -> None:
    assert count_reordered([4, 2], [4, 3, 2, 1]) == 0
    assert count_reordered([2, 4], [4, 3, 2, 1]) == 1


@pytest.mark.parametrize(
    ("downs", "wrong"),
    [
        ([], 0),
        ([(1, 1), (1, 2), (3, 1), (2, 1)], 0),
        ([(1, 2)], 1),
        ([(1, 1), (1, 3), (1, 4)], 1),
        ([(1, 1), (1, 1)], 1),
        ([(1, 1), (2, 1), (1, 2)], 1),
    ],
)
def test_messages_from_the_server_must_come_one_by_one_and_on_one_connection_at_a_time(
    downs: Sequence[DownMessage], wrong: int
) -> None:
    assert count_wrong_downs(downs) == wrong


def test_percentiles_are_values_that_were_seen() -> None:
    values = [float(value) for value in range(200, 0, -1)]

    assert percentile(values, 50) == 100
    assert percentile(values, 99) == 198
    assert percentile([3.0, 1.0], 99) == 3
    assert isnan(percentile([], 50))


# --- each promise can be broken ---


@pytest.mark.parametrize("evidence", [UNSENT, UNCONFIRMED])
def test_kept_promises_are_no_faults(evidence: Evidence) -> None:
    assert find_faults(settle(evidence), max_recovery=0.15) == []


@pytest.mark.parametrize(
    ("evidence", "fault"),
    [
        (replace(UNSENT, arrivals=[1, 2, 2, 4]), "unsent: 1 duplicated, wanted 0"),
        (replace(UNSENT, reported=[2]), "unsent: 1 unexplained, wanted 0"),
        (replace(UNSENT, arrivals=[1, 2, 4, 9]), "unsent: 1 foreign, wanted 0"),
        (replace(UNSENT, downs=[(1, 2)]), "unsent: 1 messages from the server out of order, wanted 0"),
        (replace(UNSENT, unnoticed=1), "unsent: 1 freezes unnoticed, wanted 0"),
        (replace(UNSENT, recoveries=[0.2]), "unsent: recovery p99 200 ms, wanted at most 150"),
        (replace(UNSENT, downs=[]), "unsent: no traffic, so nothing was proved"),
        (replace(UNSENT, arrivals=[], reported=[1, 2, 3, 4]), "unsent: no traffic, so nothing was proved"),
        (replace(UNCONFIRMED, arrivals=[1, 2, 3]), "unconfirmed: 1 lost, wanted 0"),
        (replace(UNCONFIRMED, arrivals=[1, 3, 2, 4]), "unconfirmed: 1 reordered, wanted 0"),
        (replace(UNCONFIRMED, arrivals=[1, 2, 3], reported=[]), "unconfirmed: 1 unexplained, wanted 0"),
    ],
)
def test_a_broken_promise_is_named(evidence: Evidence, fault: str) -> None:
    assert fault in find_faults(settle(evidence), max_recovery=0.15)


def test_what_a_mode_does_not_promise_is_no_fault() -> None:
    late = replace(UNSENT, arrivals=[4, 1, 2])
    again = replace(UNCONFIRMED, arrivals=[1, 2, 2, 2, 3, 4])

    assert find_faults(settle(late), max_recovery=0.15) == []
    assert find_faults(settle(again), max_recovery=0.15) == []


# --- the schedule ---


def test_a_schedule_is_the_same_for_the_same_seed_and_has_all_kinds() -> None:
    kills = plan(200, seed=3)

    assert len(kills) == 200
    assert kills == plan(200, seed=3) != plan(200, seed=4)
    assert {kill.kind for kill in kills[: len(KINDS)]} == set(KINDS)
    assert all(0.03 <= kill.gap <= 0.12 for kill in kills)


# --- the command ---


@pytest.fixture
def evidence_of_each_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(mode: Mode, *, kills: int, seed: int) -> Evidence:
        assert (kills, seed) == (3, 5)
        return UNSENT if mode == "unsent" else UNCONFIRMED

    monkeypatch.setattr(chaos, "run", run)


@pytest.mark.usefixtures("evidence_of_each_mode")
def test_the_command_prints_a_table_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "chaos.json"

    assert chaos.main(["--kills", "3", "--seed", "5", "--resend", "unsent", "--json", str(file)]) == 0

    assert "unexplained" in capsys.readouterr().out
    found = json.loads(file.read_text())
    assert found["faults"] == []
    assert found["accounts"][0]["lost"] == 1


@pytest.mark.usefixtures("evidence_of_each_mode")
def test_the_command_fails_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert chaos.main(["--kills", "3", "--seed", "5", "--max-recovery", "0.01"]) == 1

    assert "FAILED: unsent: recovery p99 20 ms, wanted at most 10" in capsys.readouterr().out


def test_a_run_that_hangs_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async def run(mode: Mode, *, kills: int, seed: int) -> Evidence:
        await trio.sleep_forever()
        raise AssertionError(mode, kills, seed)

    monkeypatch.setattr(chaos, "run", run)
    monkeypatch.setattr(chaos, "time_limit", lambda kills: 0.01 * kills)

    assert chaos.main(["--kills", "1"]) == 1

    assert "did not end in time" in capsys.readouterr().out


def test_the_table_has_a_column_for_each_account() -> None:
    accounts: list[Account] = [settle(UNSENT), settle(UNCONFIRMED)]

    lines = {line[:18].strip(): line[18:].split() for line in as_table(accounts).splitlines()}

    assert lines["resend"] == ["unsent", "unconfirmed"]
    assert lines["lost"] == ["1", "0"]
    assert lines["kills: reset"] == ["1", "1"]
    assert lines["recovery p99, ms"] == ["20.0", "20.0"]
