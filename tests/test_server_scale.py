"""The server comparison runs in small, its load knows a wrong answer, and its page has a place for what it finds."""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pytest
from wsproto.frame_protocol import FrameProtocol, Opcode

from benchmarks import _scale_load, _scale_rounds, server_scale
from benchmarks._scale_load import LoadFailed, crowd, masked, unmasked
from benchmarks._scale_page import PAGE, draw
from benchmarks._scale_report import REQUIREMENTS, as_text
from benchmarks._scale_rounds import Plan, run_rounds
from benchmarks._scale_words import CONTENDERS, METRICS, SCENARIOS, Contender, Scenario, fit, pick
from benchmarks._speed_figures import Book
from benchmarks._speed_page import fill
from benchmarks._speed_rounds import Findings
from benchmarks._speed_verdicts import judge
from benchmarks._speed_words import Sample

# Those that the gate's packages are enough for.
SERVERS: Final = [each for each in CONTENDERS if each.runtime != "uvloop"]
HELLO: Final = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the load stands on epoll")


# --- the load ---


@pytest.mark.parametrize("size", [0, 1, 125, 126, 2**16 - 1, 2**16])
def test_frames_are_what_another_library_reads(size: int) -> None:
    body = b"x" * size
    for data, is_client in ((masked(0x81, body, b"\x12\x34\x56\x78"), False), (unmasked(0x81, body), True)):
        reader = FrameProtocol(client=is_client, extensions=[])
        reader.receive_bytes(data)
        frames = list(reader.received_frames())
        assert {frame.opcode for frame in frames} == {Opcode.TEXT}
        assert "".join(str(frame.payload) for frame in frames) == body.decode()


@contextmanager
def scripted(*answers: bytes, hangs_up: bool = True) -> Generator[int]:
    """Run a server that answers each thing that it reads, on each connection, with the next of these."""
    threads: list[threading.Thread] = []

    def serve(listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                threads.append(threading.Thread(target=answer, args=listening.accept()[:1]))
                threads[-1].start()

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            for words in answers:
                connection.recv(2**16)
                connection.sendall(words)
            if hangs_up:
                connection.shutdown(socket.SHUT_WR)
            while connection.recv(2**16):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threads.append(threading.Thread(target=serve, args=(listening,)))
        threads[-1].start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(10)


ECHO: Final = replace(SCENARIOS[0], clients=2)


@pytest.mark.parametrize(
    ("answers", "complaint"),
    [
        ((b"HTTP/1.1 503 Busy\r\n\r\n",), "no upgrade: HTTP/1.1 503 Busy"),
        ((b"HTTP/1.1 101 ",), "the server hung up"),
        ((HELLO,), "the server hung up"),
        ((HELLO, unmasked(0x81, b"something")), "an echo of something else"),
        ((HELLO, unmasked(0x81, b"x" * 126)), "a frame with the length 0x7e"),
        ((HELLO, unmasked(0x88, b"")), "a frame of the kind 0x88"),
    ],
)
def test_a_server_that_does_something_else_is_found_out(answers: tuple[bytes, ...], complaint: str) -> None:
    with scripted(*answers) as port, pytest.raises(LoadFailed, match=complaint), crowd(port, 1) as made:
        made.echo(ECHO, 0.05, is_awake=False)


def test_a_server_that_stays_silent_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_scale_load, "PATIENCE", 0.2)
    with scripted(HELLO, hangs_up=False) as port, crowd(port, 1) as made:
        with pytest.raises(LoadFailed, match="2 of 2 clients have no echo"):
            made.echo(ECHO, 0.05, is_awake=False)
        with pytest.raises(LoadFailed, match="no answer to 'usage'"):
            made.ask("usage")


# --- all together ---


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have hearts beat faster, so that a few beats take less time; not so fast that a busy machine misses them."""
    monkeypatch.setattr(_scale_load, "BEAT", 0.2)
    monkeypatch.setattr(_scale_rounds, "BEAT", 0.2)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("contender", SERVERS, ids=lambda each: each.name)
def test_a_server_plays_every_scenario(contender: Contender) -> None:
    cores = os.sched_getaffinity(0)
    plan = Plan(
        scenarios=[replace(each, clients=7) for each in SCENARIOS],
        contenders=[contender],
        rounds=1,
        seconds=0.05,
        tries=1,
    )

    findings = run_rounds(plan, lambda words: None)

    assert findings.failures == []
    assert [each.scenario for each in findings.samples] == [
        each.name for each in SCENARIOS if each.kind in contender.kinds
    ]
    for sample in findings.samples:
        assert sample.figures.keys() <= METRICS.keys()
        assert sample.server > 0
        assert sample.messages >= 7
        assert all(sample.figures[metric] > 0 for metric in {"wall", "open"} & sample.figures.keys())
    assert os.sched_getaffinity(0) == cores


def test_a_run_prints_tables_and_writes_a_record_of_which_the_page_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = "ours-websockets,websockets-asyncio,websockets-asyncio-uvloop"
    file = tmp_path / "record.json"
    small = ["--rounds", "1", "--seconds", "0.05", "--tries", "1", "--clients", "5", "--cores", "any"]

    code = server_scale.main([*small, "--scenarios", "echo,broadcast", "--contenders", names, "--json", str(file)])

    record = json.loads(file.read_text())
    told = capsys.readouterr()
    assert code == 0
    assert "broadcast has 5 clients instead of 1000" in told.err
    assert "* trio_wsprim on websockets" in told.out
    assert "broadcast: one message to 5 clients" in told.out
    assert ("left out: websockets-asyncio-uvloop" in told.out) == (find_spec("uvloop") is None)
    assert record["failures"] == []
    assert record["plan"]["clients"] == {"echo": 5, "broadcast": 5}
    page = fill(PAGE.read_text(encoding="utf-8"), draw(record))
    assert "| server | `echo`, 5 clients: thousand a second | `broadcast` to 5: ms to the last | its processor" in page
    assert "| `echo` | trio_wsprim on websockets | websockets, asyncio | ≥ 1 |" in page


def test_a_server_that_does_not_start_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    plan = Plan(scenarios=[ECHO], contenders=[CONTENDERS[0]], rounds=1)

    findings = run_rounds(plan, lambda words: None)

    assert findings.failures == ["ours-websockets, echo, round 1: the server did not start"]


# --- words and figures ---


def test_a_scenario_has_no_more_clients_than_files_nor_than_wanted() -> None:
    idle = SCENARIOS[-1]
    assert fit(idle, 10_000) == idle
    assert fit(idle, 1024).clients == 974
    assert fit(idle, resource.RLIM_INFINITY) == idle
    assert fit(idle, 1024, 10).clients == 10


def test_a_name_that_nothing_has_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert [each.name for each in pick(["idle", "echo"], SCENARIOS)] == ["echo", "idle"]
    with pytest.raises(SystemExit):
        server_scale.main(["--scenarios", "echo,ehco"])
    assert "nothing is called 'ehco'; there are echo, echo-16, broadcast, idle" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--seconds", "11"], ["--seconds", "0"], ["--rounds", "0"], ["--tries", "0"]])
def test_figures_out_of_range_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        server_scale.main(arguments)
    assert "must be" in capsys.readouterr().err


def sample(contender: str, wall: float, scenario: str = "echo") -> Sample:
    return Sample(
        scenario=scenario,
        contender=contender,
        turn=0,
        figures={"wall": wall, "cpu": 1.0},
        messages=1,
        server=0.5,
        others=0.0,
    )


def test_what_is_required_is_judged_by_the_ratio() -> None:
    samples = [sample("ours-websockets", 2.0), sample("websockets-asyncio", 2.2)]
    samples += [sample("ours-trio-websocket", 2.0), sample("trio-websocket", 2.9)]

    verdicts = judge(Book(samples), REQUIREMENTS)

    assert {(each.requirement.subject, each.requirement.metric): each.outcome for each in verdicts} == {
        ("ours-websockets", "wall"): "ok",
        ("ours-websockets", "cpu"): "ok",
        ("ours-trio-websocket", "wall"): "missed",
        ("ours-trio-websocket", "cpu"): "missed",
    }
    told = as_text(Plan(scenarios=SCENARIOS, contenders=CONTENDERS), Findings(samples=samples), verdicts)
    assert "1.45 (1.45 to 1.45)  missed" in told


def test_what_was_missed_is_the_exit_code_of_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Any] = {"samples": [sample("ours-websockets", 2.0), sample("websockets-asyncio", 1.0)]}
    monkeypatch.setattr(server_scale, "run_rounds", lambda plan, say: Findings(**found))

    assert server_scale.main([]) == 0
    assert server_scale.main(["--check"]) == 1
    found["samples"] = []
    assert server_scale.main(["--check"]) == 0
    found["failures"] = ["somebody fell"]
    assert server_scale.main(["--check"]) == 1


def test_every_scenario_and_every_contender_stands_in_the_readme() -> None:
    readme = (Path(server_scale.__file__).parent / "README.md").read_text(encoding="utf-8")

    def is_told(name: str) -> bool:
        return f"| `{name}`" in readme or f", `{name}`" in readme or name.endswith("-uvloop")

    assert all(is_told(name) for name in [*(each.name for each in SCENARIOS), *(each.name for each in CONTENDERS)])


def test_a_scenario_describes_itself() -> None:
    scenario = Scenario(name="some", kind="echo", clients=3, window=4)
    told = as_text(
        Plan(scenarios=[scenario], contenders=[]), Findings(samples=[sample("ours-websockets", 1.0, "some")]), []
    )
    assert told.startswith("some: 3 clients, 4 messages under way for each")
