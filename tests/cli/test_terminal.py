"""Real runs: programs of their own, in pipes and on pseudo-terminals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import pytest

from tests.cli.tools import LIMIT, PROGRAM, ROOT, Terminal, server_program, started

NO_RICH = "sys.modules['rich'] = None"
STATUS = re.compile(r"OPEN  attempt 1  latency \d+\.\d\d ms  sent 1  received 1")


def run(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (*PROGRAM, *arguments), input=text, capture_output=True, text=True, timeout=LIMIT, check=False, cwd=ROOT
    )


# --- pipes ---


def test_an_echo_server_and_its_client_in_pipes() -> None:
    with server_program() as (server, url):
        client = run("connect", url, text="hello\nwörld\n")

        assert (client.returncode, client.stdout) == (0, "hello\nwörld\n")
        assert client.stderr == f"connecting to {url} (attempt 1)\nopen\nclosed with code 1000\nended\n"
        server.send_signal(signal.SIGTERM)
        assert server.wait(LIMIT) == 143


def test_events_come_as_they_happen_and_ctrl_c_ends_them() -> None:
    with server_program("chat") as (_, url), started("connect", "--json", url) as client:
        assert client.stdout is not None
        assert client.stdin is not None
        assert json.loads(client.stdout.readline())["event"] == "connect"
        assert json.loads(client.stdout.readline())["event"] == "open"
        run("connect", "--linger", "0", url, text="hello\n")
        texts = [json.loads(client.stdout.readline())["text"] for _ in range(3)]
        client.send_signal(signal.SIGINT)

        assert client.wait(LIMIT) == 130
        rest = [json.loads(line) for line in client.stdout]
        assert texts == ["* guest 2 came", "guest 2: hello", "* guest 2 went"]
        assert [event["event"] for event in rest] == ["close", "end"]
        assert client.stderr is not None
        assert client.stderr.read() == b""


def test_a_broadcast_from_a_pipe_to_a_pipe() -> None:
    with (
        server_program("broadcast") as (server, url),
        started("connect", "--once", "--linger", "inf", url, stdin=subprocess.DEVNULL) as client,
    ):
        assert server.stdin is not None
        assert server.stderr is not None
        assert client.stdout is not None
        assert b"guest 1 came" in server.stderr.readline()
        # More than an outbox holds, faster than it can go.
        lines = b"".join(b"%d\n" % number for number in range(30_000))
        feeder = threading.Thread(target=feed, args=(server.stdin, lines))
        feeder.start()

        assert client.stdout.read() == lines
        feeder.join(LIMIT)
        assert server.wait(LIMIT) == 0
        # The server has closed with 1001, which is a normal end.
        assert client.wait(LIMIT) == 0


def feed(pipe: IO[bytes], data: bytes) -> None:
    with pipe:
        pipe.write(data)


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    with server_program() as (_, url), started("connect", url) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stderr is not None
        client.stdin.write(b"one\n")
        client.stdin.flush()
        assert client.stdout.readline() == b"one\n"
        client.stdout.close()
        client.stdin.write(b"two\n")
        client.stdin.flush()

        assert client.wait(LIMIT) == 141
        assert client.stderr.read() == f"connecting to {url} (attempt 1)\nopen\n".encode()


def test_without_any_standard_stream_it_still_works() -> None:
    with server_program() as (server, url):
        command = f'"$0" -m trio_wsprim connect --linger 0 {url} <&- >&- 2>&-'
        process = subprocess.run(("sh", "-c", command, sys.executable), timeout=LIMIT, check=False, cwd=ROOT)

        assert process.returncode == 0
        assert server.stderr is not None
        assert b"guest 1 came" in server.stderr.readline()


def test_who_stops_the_server_stops_it_with_its_clients() -> None:
    with server_program() as (server, url), started("connect", "--once", url) as client:
        assert server.stderr is not None
        assert client.stderr is not None
        assert b"guest 1 came" in server.stderr.readline()
        server.send_signal(signal.SIGINT)

        assert server.wait(LIMIT) == 130
        assert client.wait(LIMIT) == 0
        assert b"closed with code 1001\n" in client.stderr.read()


def test_nothing_that_a_command_does_not_need_is_imported() -> None:
    names = ("rich", "trio_wsprim._demo", "trio_wsprim.testing", "trio_wsprim._cli._serve", "trio_wsprim._cli._connect")
    code = f"""
import sys
from trio_wsprim.__main__ import main
try:
    main(["connect", "--help"])
except SystemExit:
    print([name for name in {names!r} if name in sys.modules])
"""
    found = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, timeout=LIMIT, cwd=ROOT)

    assert found.stdout.splitlines()[-1] == "[]"


def test_the_script_is_the_same_program() -> None:
    script = Path(sys.executable).with_name("trio-wsprim")
    found = subprocess.run((script, "--help"), capture_output=True, text=True, timeout=LIMIT)

    assert found.returncode == 0
    assert found.stdout.startswith("usage: trio-wsprim ")


# --- terminals ---


def test_on_a_terminal_there_is_a_live_line_and_ones_own_typing() -> None:
    with server_program() as (_, url), Terminal("connect", url) as terminal:
        terminal.wait_for("OPEN  attempt 1")
        assert not terminal.is_restored
        terminal.type("helx\x7flo")
        terminal.wait_for("> hello")
        terminal.type("\n")
        terminal.wait_for("< hello")
        terminal.wait_for("sent 1  received 1")
        terminal.type("\x04")

        assert terminal.end() == 0
        assert terminal.is_restored
        assert STATUS.search(terminal.text)
        assert "\x1b[7m" in terminal.output
        assert terminal.output.rindex("\x1b[?25h") > terminal.output.rindex("\x1b[?25l")
        assert "closed with code 1000\r\n" in terminal.text


def test_ctrl_c_on_a_terminal_is_130_and_leaves_it_as_it_was() -> None:
    with server_program() as (_, url), Terminal("connect", url) as terminal:
        terminal.wait_for("OPEN  attempt 1")
        terminal.type("half a line\x03")

        assert terminal.end() == 130
        assert terminal.is_restored
        assert terminal.output.rindex("\x1b[?25h") > terminal.output.rindex("\x1b[?25l")
        assert "Traceback" not in terminal.text


def test_the_next_dial_is_counted_down() -> None:
    with server_program() as (server, url), Terminal("connect", url) as terminal:
        terminal.wait_for("OPEN  attempt 1")
        server.kill()
        terminal.wait_for("  next dial in ")
        terminal.wait_for("cannot be reached: ")
        terminal.type("kept\n")
        terminal.wait_for("waiting 1")
        terminal.type("\x03")

        assert terminal.end() == 130
        assert "not known to have arrived: 1 message" in terminal.text


def test_a_terminal_that_only_shows() -> None:
    ours, theirs = os.pipe()
    with server_program() as (_, url), Terminal("connect", url, stdin=ours) as terminal:
        os.close(ours)
        os.write(theirs, b"hello\n")
        terminal.wait_for("< hello")
        assert terminal.is_restored
        os.close(theirs)

        assert terminal.end() == 0
        assert "\x1b[7m" in terminal.output


@pytest.mark.parametrize(("option", "prelude"), [("--once", NO_RICH), ("--plain", "")])
def test_without_rich_there_are_plain_lines_and_the_terminals_own_editing(option: str, prelude: str) -> None:
    with server_program() as (_, url), Terminal("connect", option, url, prelude=prelude) as terminal:
        terminal.wait_for("latency ")
        assert terminal.is_restored
        terminal.type("hello\n")
        # Once as it is typed, and once as it comes back.
        terminal.wait_for("hello\r\nhello\r\n")
        terminal.type("\x04")

        assert terminal.end() == 0
        assert "\x1b" not in terminal.output
        assert re.search(r"open\r\nlatency \d+\.\d\d ms\r\n", terminal.text)


def test_typing_goes_into_a_pipe() -> None:
    ours, theirs = os.pipe()
    with server_program() as (_, url), Terminal("connect", url, stdout=theirs) as terminal, os.fdopen(ours) as output:
        os.close(theirs)
        terminal.wait_for("open")
        terminal.type("hello\n")
        assert output.readline() == "hello\n"
        terminal.type("\x03")

        assert terminal.end() == 130
        assert output.read() == ""


def test_a_peer_cannot_paint_the_terminal() -> None:
    with server_program("chat") as (_, url), Terminal("connect", "--plain", url) as terminal:
        terminal.wait_for("open")
        run("connect", "--linger", "0", url, text="\x1b[2Jboo\n")
        terminal.wait_for("guest 2: \\x1b[2Jboo")
        terminal.type("\x03")

        assert terminal.end() == 130
        assert "\x1b" not in terminal.output


def test_a_server_on_a_terminal_ends_with_ctrl_c() -> None:
    with Terminal("serve", "--port", "0") as terminal:
        terminal.wait_for("ws://127.0.0.1:")
        terminal.type("\x03")

        assert terminal.end() == 130
        assert "closing" in terminal.text
