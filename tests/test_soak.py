"""The soak runs in small, and its arithmetic can tell a leak and a loss from a clean run."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace

import pytest
import trio

from tests.soak import __main__ as command
from tests.soak._books import Arrivals, Client, Echoes, Evidence, Holdings, make_text, read_text, slope
from tests.soak._network import KINDS, Weather
from tests.soak._run import Plan, Soak, hold
from trio_wsprim.testing import FaultProxy

HELD = Holdings(tasks=5, files=9)


def client(sent: int, arrivals: Sequence[int], *, in_doubt: int = 0, dropped: Sequence[int] = ()) -> Client:
    account = Client(sent=sent, in_doubt=in_doubt, dropped=set(dropped), closes=1)
    for serial in arrivals:
        account.arrivals.note(serial)
    return account


GOOD = Evidence(
    clients=[client(3, [1, 2, 2, 3], in_doubt=1)],
    memory=[(second, 5e7) for second in range(120)],
    bare=HELD,
    closed=HELD,
    opened=HELD,
    calm=HELD,
    faults=1,
    restless=0,
)


# --- the whole ---


async def test_a_short_soak_loses_and_leaks_nothing() -> None:
    soak, reports = Soak(Plan(seconds=2.0, connections=12, seed=5, pace=0.2)), list[int]()

    with trio.fail_after(90):
        evidence = await soak.run(lambda soak: reports.append(soak.open_count), 0.5)

    assert evidence.find_faults() == []
    assert evidence.growth() is None
    assert len(evidence.clients) == 12
    assert all(client.sent and client.echoes.count for client in evidence.clients)
    assert reports
    assert evidence.memory[-1][1] > 2**20


async def test_a_soak_notices_a_message_that_never_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    note = Arrivals.note

    def forget_the_third(arrivals: Arrivals, serial: int) -> None:
        if serial != 3:
            note(arrivals, serial)

    monkeypatch.setattr(Arrivals, "note", forget_the_third)
    with trio.fail_after(90):
        evidence = await Soak(Plan(seconds=1.0, connections=1, seed=5, pace=0.1)).run(lambda _: None, math.inf)

    assert any("lost without a word, the first is 3 " in fault for fault in evidence.find_faults())


async def test_a_soak_notices_a_file_that_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.soak._run._PATIENCE", 0.5)
    leaked: list[int] = []
    try:
        with trio.fail_after(90):
            soak = Soak(Plan(seconds=1.0, connections=1, seed=5, pace=0.1))
            evidence = await soak.run(lambda _: leaked.append(os.dup(0)), 0.6)
    finally:
        for file in leaked:
            os.close(file)

    assert any(fault.startswith("with all closed there are") for fault in evidence.find_faults())


async def test_every_kind_of_fault_is_done_and_undone_again() -> None:
    async with FaultProxy("127.0.0.1", 9) as proxy:
        weather = Weather(proxy, seed=1, pace=0.001)
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(weather.run)
                while weather.faults.keys() != set(KINDS):  # noqa: ASYNC110 - a weather tells nobody of its faults
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()

        assert (proxy.latency, proxy.jitter, proxy.slice_bytes, proxy.bandwidth) == (0.0, 0.0, None, None)


# --- the arithmetic ---


def test_a_text_is_read_back_only_if_it_is_whole() -> None:
    for serial in range(1, 101):
        assert read_text(make_text(7, serial)) == (7, serial)
    for broken in (make_text(7, 5)[:-1], make_text(7, 5) * 2, "7", b"7:0:"):
        with pytest.raises(ValueError, match=r"."):
            read_text(broken)


def test_arrivals_are_counted_in_whatever_order_connections_bring_them() -> None:
    arrivals = Arrivals()
    for serial in (1, 4, 2, 4, 1, 5, 3):
        arrivals.note(serial)

    assert (arrivals.following, arrivals.early, arrivals.repeats, arrivals.count) == (6, set[int](), 2, 5)
    arrivals.note(8)
    assert arrivals.missing(8) == [6, 7]
    assert arrivals.count == 6


@pytest.mark.parametrize(
    ("notes", "faults"),
    [
        ([(1, 1), (1, 2), (4, 1), (4, 2)], 0),
        ([(1, 1), (1, 3)], 1),
        ([(1, 1), (1, 1)], 1),
        ([(2, 2)], 1),
        ([(2, 1), (1, 1)], 1),
    ],
)
def test_an_echo_that_is_not_the_next_one_is_a_fault(notes: Sequence[tuple[int, int]], faults: int) -> None:
    echoes = Echoes()
    for connection, index in notes:
        echoes.note(connection, index)

    assert (echoes.faults, echoes.count) == (faults, len(notes))


def test_a_clean_run_has_no_fault() -> None:
    assert GOOD.find_faults() == []
    assert GOOD.growth() == 0


@pytest.mark.parametrize(
    ("evidence", "fault"),
    [
        (replace(GOOD, clients=[client(3, [1, 3])]), "client 0: 1 messages are lost without a word, the first is 2"),
        (replace(GOOD, clients=[client(1, [1, 2])]), "messages arrived that were never sent"),
        (replace(GOOD, clients=[client(1, [1, 3])]), "messages arrived that were never sent"),
        (replace(GOOD, clients=[client(1, [1, 1])]), "1 came again, but only 0 were in doubt"),
        (replace(GOOD, clients=[Client(closes=1, echoes=Echoes(faults=2))]), "2 echoes were lost"),
        (replace(GOOD, restless=1), "1 clients or connections did not come to rest"),
        (replace(GOOD, faults=0), "nothing was proved"),
        (replace(GOOD, clients=[Client()]), "nothing was proved"),
        (replace(GOOD, calm=Holdings(6, 9)), "with all connected there are 6 tasks and 9 file descriptors"),
        (replace(GOOD, closed=Holdings(5, 10)), "with all closed there are 5 tasks and 10 file descriptors"),
        (
            replace(GOOD, memory=[(second, second * 2**20 / 59) for second in range(120)]),
            "memory grows by 1.02 MiB a minute",
        ),
    ],
)
def test_each_broken_promise_is_found(evidence: Evidence, fault: str) -> None:
    (found,) = evidence.find_faults()
    assert fault in found


def test_a_message_that_was_told_to_be_dropped_is_accounted_for() -> None:
    assert replace(GOOD, clients=[client(3, [1, 3], dropped=[2])]).find_faults() == []


def test_memory_is_judged_after_a_warm_up_and_not_in_less_than_a_minute() -> None:
    warming = [(second, min(second, 30) * 1e6) for second in range(100)]

    assert replace(GOOD, memory=warming).growth() == 0
    assert replace(GOOD, memory=warming[:50]).growth() is None
    assert replace(GOOD, memory=[]).growth() is None


def test_a_line_is_fitted_by_least_squares() -> None:
    assert slope([(0, 1), (1, 3), (2, 5)]) == 2
    assert slope([(0, 0), (1, 2), (2, 1), (3, 3)]) == pytest.approx(0.8)


async def test_holdings_count_tasks_and_files() -> None:
    before = hold()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        with open(os.devnull, "rb"):  # noqa: ASYNC230, PTH123 - it is the descriptor that counts
            during = hold()
        nursery.cancel_scope.cancel()

    assert during == Holdings(before.tasks + 1, before.files + 1)
    assert during.exceeds(before)
    assert not before.exceeds(during)


# --- the command ---


def test_the_command_prints_how_it_goes_and_a_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "_REPORT_INTERVAL", 1.0)
    monkeypatch.setattr("tests.soak._network._GOOD", (0.1, 0.2))

    code = command.main(["--minutes", "0.03", "--connections", "3", "--seed", "2"])

    printed = capsys.readouterr().out
    assert printed.startswith("3 connections for 0.03 minutes, seed 2\n")
    assert " open " in printed
    assert "too short to judge memory" in printed
    assert printed.endswith("no fault\n")
    assert code == 0


def test_the_command_fails_where_a_promise_was_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tests.soak._network._GOOD", (1000.0, 1000.0))

    code = command.main(["--minutes", "0.003", "--connections", "1"])

    assert "FAILED: no connection was ever broken, so nothing was proved" in capsys.readouterr().out
    assert code == 1


@pytest.mark.parametrize("arguments", [["--minutes", "0"], ["--minutes", "nan"], ["--connections", "0"]])
def test_the_command_refuses_what_makes_no_sense(arguments: Sequence[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(arguments)
