"""The demo: its accounts, what it shows, and that it comes out right, in a pipe and on a terminal."""

import fcntl
import importlib.util
import io
import os
import pty
import re
import runpy
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import trio
from rich.console import Console

from trio_wsprim import CloseEvent, ReconnectingWebSocket, Undelivered
from trio_wsprim.__main__ import main
from trio_wsprim._demo import Resend, _show, choose_view
from trio_wsprim._demo._books import Books, Fault, firsts, is_rising, spans
from trio_wsprim._demo._rich import LiveView
from trio_wsprim._demo._script import Pace, Stroke, strokes
from trio_wsprim._demo._server import FaultyServer
from trio_wsprim._demo._verdict import Outcome, fault_rows, judge, summary
from trio_wsprim._demo._views import PlainView
from trio_wsprim.testing import Peer

ROOT = Path(__file__).resolve().parent.parent
DEMO = (sys.executable, "-m", "trio_wsprim", "demo")
FAULTS = ("TCP reset", "silent peer", "server down", "server busy")
FAST = ("demo", "--plain", "--speed", "5", "--seed", "1")
ESCAPE = "\x1b"
CONTROL_CODE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

CLEAN = Outcome(
    resend="unsent",
    closed=CloseEvent(1000, "", clean=True, unconfirmed=()),
    undelivered=tuple(Undelivered(number, "unconfirmed") for number in "234"),
    surprises=(),
    returned=(1.1,),
    retry_after=1.0,
)
RESENT = replace(CLEAN, resend="unconfirmed", undelivered=())


def healthy_books() -> Books:
    """Eight messages: 3 and 4 lost to a fault, 2 not echoed because of it; all three were told."""
    books = Books(early=[1])
    books.sent = {number: number / 10 for number in range(1, 9)}
    books.arrived = [(1, 1), (2, 1), *((number, 2) for number in range(5, 9))]
    books.echoed = [1, 5, 6, 7, 8]
    books.faults = [
        Fault(
            name="silent peer",
            connection=1,
            began=0.25,
            noticed=0.45,
            how="heartbeat",
            healed=0.5,
            dials=1,
            told=[2, 3, 4],
        )
    ]
    books.told = {2, 3, 4}
    return books


def resent_books() -> Books:
    """The same fault where what was told is sent again: nothing is lost, and 2 comes twice."""
    books = healthy_books()
    books.arrived = [(1, 1), (2, 1), *((number, 2) for number in range(2, 9))]
    books.echoed = [1, 2, 3, 4, 5, 6, 7, 8]
    return books


def troubles(books: Books, outcome: Outcome = CLEAN) -> Mapping[str, str]:
    return {check.claim: check.trouble for check in judge(books, outcome) if check.trouble}


# --- the accounts ---


def test_what_is_missing_between_two_connections_is_blamed_on_the_fault_between_them() -> None:
    books = healthy_books()

    assert books.lost() == {3: books.faults[0], 4: books.faults[0]}
    assert books.unanswered() == {2: books.faults[0]}
    assert not troubles(books)


def test_a_message_lost_though_sent_after_the_fault_was_noticed_is_not_explained() -> None:
    books = healthy_books()
    books.sent[4] = 0.46

    assert books.lost()[4] is None
    assert list(troubles(books).values()) == ["4"]


def test_a_message_lost_amid_a_connection_is_not_explained() -> None:
    books = healthy_books()
    books.arrived.remove((6, 2))
    books.echoed.remove(6)

    assert troubles(books)["what is lost was on its way when a fault struck"] == "6"


def test_a_message_lost_without_a_word_is_named() -> None:
    books = healthy_books()
    books.told = {2, 4}
    outcome = replace(CLEAN, undelivered=CLEAN.undelivered[:2])

    assert troubles(books, outcome) == {
        "every lost message was told of": "not in CloseEvent.unconfirmed: 3; not in undelivered: 4"
    }


def test_a_message_lost_before_the_first_arrival_is_not_explained() -> None:
    books = healthy_books()
    books.sent[0] = 0.0

    assert books.lost()[0] is None


def test_messages_lost_with_nothing_after_them_are_blamed_on_the_last_fault() -> None:
    books = healthy_books()
    books.arrived = books.arrived[:2]

    assert set(books.lost()) == {3, 4, 5, 6, 7, 8}
    assert [number for number, fault in books.lost().items() if fault is None] == [5, 6, 7, 8]


def test_an_echo_missing_amid_a_connection_is_not_explained() -> None:
    books = healthy_books()
    books.echoed.remove(6)

    assert books.unanswered()[6] is None


@pytest.mark.parametrize("end", ["server", "client"])
def test_a_message_that_comes_twice_is_told(end: str) -> None:
    books = healthy_books()
    if end == "server":
        books.arrived.append((8, 2))
    else:
        books.echoed.append(8)

    assert list(troubles(books).values()) == [f"at the {end}"]


def test_a_fault_that_was_not_noticed_or_healed_is_named() -> None:
    books = healthy_books()
    books.faults.append(Fault(name="server down", connection=2, began=1.0))

    assert list(troubles(books).values()) == ["not server down", "not server down"]
    assert list(fault_rows(books))[1] == ("server down", "never", "-", "never", "-", "0", "0", "0", "0")


def test_a_run_without_faults_proves_nothing() -> None:
    books = Books()

    assert troubles(books)["every fault was noticed"] == "there was no fault"


def test_an_early_message_that_was_lost_is_told() -> None:
    books = healthy_books()
    books.echoed.remove(1)

    assert troubles(books)["what was sent before the first open came back"] == "1"


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (replace(CLEAN, closed=None), "it has not ended, 0 undelivered"),
        (replace(CLEAN, undelivered=(*CLEAN.undelivered, Undelivered("8", "unsent"))), "1 undelivered"),
        (replace(RESENT, undelivered=(Undelivered("8", "unconfirmed"),)), "1 undelivered"),
        (replace(CLEAN, surprises=("oh", "no")), "oh; no"),
        (replace(CLEAN, returned=(0.9,)), "after 0.900 s of 1"),
    ],
)
def test_an_end_that_should_not_be_is_told(outcome: Outcome, words: str) -> None:
    books = healthy_books() if outcome.resend == "unsent" else resent_books()
    (trouble,) = troubles(books, outcome).values()

    assert words in trouble


def test_what_comes_once_more_is_blamed_on_the_fault_that_left_it_in_doubt() -> None:
    books = resent_books()

    assert list(books.repeats()) == [(2, books.faults[0])]
    assert not books.lost()
    assert not books.unanswered()
    assert not troubles(books, RESENT)
    assert list(troubles(books)) == ["nothing came twice or out of order, at either end"]


def test_an_echo_may_come_as_often_as_its_message() -> None:
    books = resent_books()

    books.echoed.insert(1, 2)
    assert not troubles(books, RESENT)

    books.echoed.insert(1, 2)
    assert list(troubles(books, RESENT).values()) == ["2 at the client"]


@pytest.mark.parametrize(
    "arrival",
    [
        pytest.param((8, 3), id="that was never in doubt"),
        pytest.param((4, 2), id="on the same connection"),
        pytest.param((1, 2), id="that was in doubt before, and confirmed"),
    ],
)
def test_a_message_that_comes_twice_though_it_was_not_in_doubt_is_named(arrival: tuple[int, int]) -> None:
    books = resent_books()
    books.arrived.append(arrival)

    assert list(books.repeats())[-1] == (arrival[0], None)
    assert list(troubles(books, RESENT).values()) == [f"{arrival[0]} at the server"]
    assert "                unexplained: " + str(arrival[0]) in summary(books)


def test_a_message_that_is_lost_though_it_is_to_be_sent_again_is_named() -> None:
    books = resent_books()
    books.arrived.remove((3, 2))
    books.echoed.remove(3)

    assert list(troubles(books, RESENT).values()) == ["3", "3"]


def test_a_message_that_is_overtaken_is_told_where() -> None:
    books = resent_books()
    books.arrived[-2:] = reversed(books.arrived[-2:])

    assert list(troubles(books, RESENT).values()) == ["at the server"]


def test_the_summary_counts_both_ends() -> None:
    books = healthy_books()
    books.sent[9] = 0.9

    assert summary(books) == (
        "sent         9  by the client, 1 of them before it was open",
        "received     6  by the server, and 5 echoes by the client",
        "lost         3  never came to the server, CloseEvent.unconfirmed told of 2",
        "                silent peer: 3-4",
        "                unexplained: 9",
        "twice        0  came to the server once more",
        "no echo      1  came to the server, but not back",
        "                silent peer: 2",
    )


def test_the_summary_names_what_came_twice() -> None:
    assert summary(resent_books())[1:] == (
        "received     9  by the server, and 8 echoes by the client",
        "lost         0  never came to the server",
        "twice        1  came to the server once more",
        "                silent peer: 2",
        "no echo      0  came to the server, but not back",
    )


def test_a_table_row_tells_times_and_what_became_of_what_was_under_way() -> None:
    times = ("silent peer", "200 ms", "heartbeat", "250 ms", "-", "1")

    assert list(fault_rows(healthy_books())) == [(*times, "3", "2", "0")]
    assert list(fault_rows(resent_books())) == [(*times, "3", "0", "1")]


@pytest.mark.parametrize(
    ("numbers", "words"), [([], ""), ([1], "1"), ([1, 2, 3], "1-3"), ([1, 2, 4, 6, 7], "1-2, 4, 6-7")]
)
def test_numbers_are_written_in_spans(numbers: list[int], words: str) -> None:
    assert spans(numbers) == words


def test_rising_means_neither_twice_nor_backwards() -> None:
    assert is_rising([1, 3, 4])
    assert not is_rising([1, 1])
    assert not is_rising([2, 1])


def test_only_the_first_of_each_is_a_first() -> None:
    assert firsts([2, 1, 2, 3, 1]) == [2, 1, 3]


# --- real runs ---


def check_table(text: str, resend: Resend = "unsent") -> None:
    for fault in FAULTS:
        assert re.search(rf"^{fault} +\d+ ms +(heartbeat|TCP ended) +\d+ ms ", text, re.MULTILINE), fault
    numbers = {label: int(number) for label, number in re.findall(r"^(\w+) +(\d+)  ", text, re.MULTILINE)}
    assert numbers["sent"] + numbers["twice"] == numbers["received"] + numbers["lost"]
    if resend == "unsent":
        # While the peer is silent, and nobody knows, some are sent in vain.
        assert numbers["lost"] > 0
        assert f"CloseEvent.unconfirmed told of {numbers['lost']}\n" in text
        assert numbers["twice"] == 0
    else:
        assert numbers["lost"] == 0
        assert re.search(r"^no echo +0  ", text, re.MULTILINE)
    assert "FAILED" not in text


def test_in_a_pipe_it_ends_within_20_seconds_with_a_table_and_plain_lines() -> None:
    begin = time.monotonic()
    run = subprocess.run(DEMO, capture_output=True, text=True, timeout=30, check=False, cwd=ROOT)

    assert (run.returncode, run.stderr) == (0, "")
    assert time.monotonic() - begin < 20
    check_table(run.stdout)
    assert run.stdout.isascii()
    assert ESCAPE not in run.stdout
    assert "CONNECTING" in run.stdout
    assert "latency" in run.stdout
    assert "waiting" in run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 140


def on_a_terminal(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run the demo on a pseudo-terminal of 80 columns; give the process and its output so far, again and again."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    command = (*DEMO, *arguments)
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=ROOT) as process:
        os.close(theirs)
        output = b""
        try:
            while select.select([ours], [], [], 30)[0]:
                output += os.read(ours, 65536)
                yield process, output.decode(errors="replace")
        except OSError:  # how Linux says that the other end of a terminal is closed
            pass
        finally:
            os.close(ours)
            process.kill()


def test_on_a_terminal_it_shows_colour_and_a_live_line_and_leaves_the_cursor_on() -> None:
    process, text = list(on_a_terminal("--speed", "5", "--resend", "unconfirmed"))[-1]

    assert process.wait() == 0
    assert "\x1b[1;32mOPEN" in text
    assert "\x1b[7m" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    check_table(CONTROL_CODE.sub("", text).replace("\r", "\n"), "unconfirmed")


def interrupt_when_open(*arguments: str) -> str:
    text, interrupted = "", False
    for process, text in on_a_terminal(*arguments):
        if not interrupted and "OPEN" in text:
            interrupted = True
            process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    return text


def test_plain_lines_can_be_had_on_a_terminal() -> None:
    assert ESCAPE not in interrupt_when_open("--plain")


def test_ctrl_c_ends_it_at_once_with_130_and_the_cursor_on() -> None:
    text = interrupt_when_open()

    assert text.endswith("interrupted\r\n")
    assert "Traceback" not in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()

        assert process.wait(timeout=10) == 141
        assert process.stderr.read() == b""


def test_ctrl_c_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(FaultyServer, "reset", lambda _self: signal.raise_signal(signal.SIGINT))

    assert main([*FAST]) == 130

    assert capsys.readouterr().err == "interrupted\n"


def test_it_runs_as_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "trio_wsprim.__main__")
    monkeypatch.setattr(sys, "argv", ["trio-wsprim", "--help"])

    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("trio_wsprim", run_name="__main__")


@pytest.mark.parametrize("resend", get_args(Resend))
def test_a_good_run_returns_none(resend: Resend, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FAST, "--resend", resend]) is None

    check_table(capsys.readouterr().out, resend)


def leave_only_the_first_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what one fault shows as well as four; a second each is what the others take."""
    monkeypatch.setattr(_show, "strokes", lambda server, pace: strokes(server, pace)[:1])


def test_what_arrived_though_its_proof_did_not_is_counted_as_come_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build = Peer.__init__

    def be_silent(self: Peer, stream: trio.abc.Stream) -> None:
        build(self, stream)
        self.answer_pings = False

    leave_only_the_first_fault(monkeypatch)
    monkeypatch.setattr(Peer, "__init__", be_silent)

    assert main([*FAST, "--resend", "unconfirmed"]) is None

    output = capsys.readouterr().out
    told, lost, twice = re.findall(r"^TCP reset .* (\d+) +(\d+) +(\d+)$", output, re.MULTILINE)[0]
    assert int(told) >= int(twice) > 5
    assert lost == "0"
    (again,) = re.findall(r"1-(\d+): sent again, before anything newer", output)
    assert int(again) >= int(twice)  # the reset may have destroyed the last of them on its way


def test_a_message_that_is_not_sent_since_all_is_over_is_not_counted_as_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    send = ReconnectingWebSocket.send

    async def send_some(self: ReconnectingWebSocket, message: str) -> None:
        if int(message) > 10:
            await trio.sleep_forever()
        await send(self, message)

    leave_only_the_first_fault(monkeypatch)
    monkeypatch.setattr(ReconnectingWebSocket, "send", send_some)
    monkeypatch.setattr(_show, "_HEALING_LIMIT", 0.2)

    main([*FAST])

    assert re.search(r"^sent +10  ", capsys.readouterr().out, re.MULTILINE)


def test_a_server_that_echoes_twice_makes_it_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_only_the_first_fault(monkeypatch)
    send = Peer.send

    async def send_twice(self: Peer, message: str | bytes) -> None:
        await send(self, message)
        await send(self, message)

    monkeypatch.setattr(Peer, "send", send_twice)
    monkeypatch.setattr(Pace, "lull", lambda _self: 0.1)

    assert main([*FAST]) == 1

    assert "FAILED  nothing came twice or out of order, at either end: at the client" in capsys.readouterr().out


def test_a_server_that_never_comes_back_makes_it_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def stay_away(self: FaultyServer, _seconds: float) -> None:
        monkeypatch.setattr(Peer, "accept", hang)
        self.reset()
        await trio.lowlevel.checkpoint()

    async def hang(_self: Peer) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(FaultyServer, "go_away", stay_away)
    monkeypatch.setattr(_show, "_HEALING_LIMIT", 0.5)
    monkeypatch.setattr(_show, "_LIMIT", 1.2)

    assert main([*FAST]) == 1

    output = capsys.readouterr().out
    assert "FAILED  every fault was healed: not server down" in output
    assert "the demo was not over within 1.2 s" in output


def test_a_last_echo_that_does_not_come_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    strike = _show.Show._strike_once

    async def strike_once(self: _show.Show, server: FaultyServer, stroke: Stroke) -> None:
        if stroke.name == "TCP reset":
            await strike(self, server, stroke)
        elif stroke.name == "server busy":
            server.freeze()

    monkeypatch.setattr(_show.Show, "_strike_once", strike_once)
    monkeypatch.setattr(Pace, "lull", lambda _self: 0.05)
    monkeypatch.setattr(_show, "_LAST_ECHO_LIMIT", 0.02)

    assert main([*FAST]) == 1

    assert "FAILED  the socket closed cleanly, with nothing left to send" in capsys.readouterr().out


def test_a_socket_that_gives_up_makes_it_fail_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def reject(self: Peer) -> None:
        await self.reject(403)

    monkeypatch.setattr(Peer, "accept", reject)

    assert main([*FAST]) == 1

    output = capsys.readouterr().out
    assert "HTTP 403" in output
    assert "FAILED  no connection ended but by these faults: the server answered HTTP 403 Forbidden" in output


def test_a_port_that_cannot_be_had_makes_it_fail_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(_self: FaultyServer) -> None:
        raise OSError("no loopback here")

    monkeypatch.setattr(FaultyServer, "listen", fail)

    assert main([*FAST]) == 1

    assert "no loopback here" in capsys.readouterr().out


def test_an_end_that_no_fault_caused_makes_it_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_only_the_first_fault(monkeypatch)
    reset = FaultyServer.reset

    def reset_later_too(self: FaultyServer) -> None:
        reset(self)

        async def again() -> None:
            await trio.sleep(0.18)
            reset(self)

        trio.lowlevel.spawn_system_task(again)

    monkeypatch.setattr(FaultyServer, "reset", reset_later_too)
    monkeypatch.setattr(Pace, "lull", lambda _self: 0.3)

    assert main([*FAST]) == 1

    assert "FAILED  no connection ended but by these faults" in capsys.readouterr().out


# --- the command line ---


@pytest.mark.parametrize(
    "arguments",
    [[], ["connect"], ["demo", "--speed", "6"], ["demo", "--speed", "nan"], ["demo", "--resend", "everything"]],
)
def test_what_it_does_not_know_is_refused_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"]])
def test_help_has_examples(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(arguments)

    output = capsys.readouterr().out
    assert "python -m trio_wsprim demo --seed 7" in output
    assert "python -m trio_wsprim demo --resend unconfirmed" in output


def test_ctrl_c_is_130_and_a_broken_pipe_141(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupt(**_: object) -> bool:
        raise BaseExceptionGroup("", [KeyboardInterrupt()])

    def break_pipe(**_: object) -> bool:
        raise BrokenPipeError

    monkeypatch.setattr("trio_wsprim.__main__.run_demo", interrupt)
    assert main(["demo"]) == 130

    monkeypatch.setattr("trio_wsprim.__main__.run_demo", break_pipe)
    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert main(["demo"]) == 141


def test_a_pipe_that_breaks_amid_the_run_is_no_failed_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def break_when_open(_self: PlainView, _moment: float, label: str, _text: str) -> None:
        if label == "OPEN":
            raise BrokenPipeError

    monkeypatch.setattr(PlainView, "tell", break_when_open)
    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert main([*FAST]) == 141


# --- the views ---


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_live_view_is_for_terminals_with_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(choose_view(plain=False), PlainView)

    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    live = choose_view(plain=False)
    live.close()
    assert isinstance(live, LiveView)
    assert isinstance(choose_view(plain=True), PlainView)

    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert isinstance(choose_view(plain=False), PlainView)


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "dumb")

    assert isinstance(choose_view(plain=False), PlainView)


def test_the_live_view_shows_everything_that_the_plain_one_does() -> None:
    screen = io.StringIO()
    view = LiveView(Console(file=screen, force_terminal=True, width=80, color_system=None))
    books = healthy_books()

    view.tell(1.5, "OPEN", "by dial 1")
    view.show_status(2.0, "OPEN: sent 3")
    view.show_table(list(fault_rows(books)), summary(books))
    view.show_checks(judge(books, CLEAN))
    view.close()

    text = screen.getvalue()
    assert "  1.500  OPEN        by dial 1" in text
    assert "  2.000  OPEN: sent 3" in text
    assert "silent peer" in text
    assert "lost         2  never came to the server, CloseEvent.unconfirmed told of 2" in text
    assert max(map(len, CONTROL_CODE.sub("", text).splitlines())) <= 80
    assert "ok      every fault was noticed" in text
