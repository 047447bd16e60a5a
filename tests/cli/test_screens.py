"""Which screen is taken, and what the live one draws."""

from __future__ import annotations

import importlib.util
import io
import os
import pty
import re
import termios
from collections.abc import Generator

import pytest
from rich.console import Console

from tests.cli.tools import replaced
from trio_wsprim import ConnectEvent, EndEvent, MessageEvent, OpenEvent
from trio_wsprim._cli._keyboard import Keyboard
from trio_wsprim._cli._lines import LineEditor, LineSplitter
from trio_wsprim._cli._rich import LiveScreen
from trio_wsprim._cli._screens import JsonScreen, PlainScreen, choose_screen

CONTROL_CODE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def terminal() -> Generator[int]:
    ours, theirs = pty.openpty()
    yield theirs
    os.close(theirs)
    os.close(ours)


def made(keyboard: int | None = None, width: int = 40) -> tuple[LiveScreen, io.StringIO]:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=width, color_system=None)
    return LiveScreen(keyboard=keyboard, console=console), file


def text_of(file: io.StringIO) -> str:
    return CONTROL_CODE.sub("", file.getvalue())


def test_a_pipe_gets_plain_lines_or_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = os.pipe()
    with replaced(1, theirs):
        assert isinstance(choose_screen(json=False, plain=False), PlainScreen)
        assert isinstance(choose_screen(json=True, plain=False), JsonScreen)
    os.close(ours)
    os.close(theirs)


def test_a_terminal_gets_the_live_screen_if_it_can_show_it(terminal: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with replaced(1, terminal), replaced(0, terminal):
        live = choose_screen(json=False, plain=False)
        live.close()
        assert isinstance(live, LiveScreen)
        assert isinstance(live.intake, LineEditor)
        assert isinstance(choose_screen(json=False, plain=True), PlainScreen)
        assert isinstance(choose_screen(json=True, plain=False), JsonScreen)
        monkeypatch.setenv("TERM", "dumb")
        assert isinstance(choose_screen(json=False, plain=False), PlainScreen)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
        assert isinstance(choose_screen(json=False, plain=False), PlainScreen)


def test_input_from_elsewhere_is_not_edited(terminal: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    nothing = os.open(os.devnull, os.O_RDONLY)
    with replaced(1, terminal), replaced(0, nothing):
        live = choose_screen(json=False, plain=False)
        live.close()
    os.close(nothing)

    assert isinstance(live.intake, LineSplitter)


def test_a_keyboard_leaves_the_terminal_as_it_was(terminal: int) -> None:
    before = termios.tcgetattr(terminal)
    keyboard = Keyboard(terminal)

    flags = termios.tcgetattr(terminal)[3]
    assert not flags & (termios.ICANON | termios.ECHO)
    assert flags & termios.ISIG
    keyboard.close()
    assert termios.tcgetattr(terminal) == before


async def test_events_scroll_above_status_and_typing(terminal: int) -> None:
    screen, file = made(terminal)

    await screen.show([ConnectEvent(1, "ws://example.test/"), OpenEvent(1, None), MessageEvent("a\x1b[2J")])
    await screen.tell("a note")
    await screen.show_latency(0.001)
    screen.show_status("OPEN  attempt 1  and so much more that it does not fit")
    screen.intake.feed("hello\tü".encode())
    screen.show_typing()
    screen.show_sent("hello")
    await screen.show([EndEvent(None)])
    screen.close()

    lines = [line.rstrip() for line in re.split(r"[\r\n]+", text_of(file)) if line.strip()]
    assert lines[:4] == ["connecting to ws://example.test/ (attempt 1)", "open", "< a\\x1b[2J", "a note"]
    assert "OPEN  attempt 1  and so much more that …" in lines
    assert "> hello ü" in lines
    assert "> hello" in lines
    assert "ended" in lines


async def test_of_a_long_line_its_end_is_shown(terminal: int) -> None:
    screen, file = made(terminal, width=12)

    screen.intake.feed(b"0123456789abcdef")
    screen.show_typing()
    screen.intake.feed("\x15ü漢字漢字漢字".encode())
    screen.show_typing()
    screen.close()

    lines = [line.rstrip() for line in re.split(r"[\r\n]+", text_of(file))]
    # Twelve columns, of which the prompt takes two, and the cursor one.
    assert "> 789abcdef" in lines
    assert "> 漢字漢字" in lines


async def test_plain_lines_tell_the_latency_once_for_each_connection(
    terminal: int, capfd: pytest.CaptureFixture[str]
) -> None:
    with replaced(2, terminal):
        screen = PlainScreen()
    assert screen.is_watched

    for latency in (0.001, 0.002):
        await screen.show([OpenEvent(1, None), MessageEvent("a\x1b")])
        await screen.show_latency(latency)
        await screen.show_latency(0.003)

    assert capfd.readouterr() == ("a\x1b\na\x1b\n", "open\nlatency 1.00 ms\nopen\nlatency 2.00 ms\n")


def test_without_a_keyboard_there_is_no_line_for_typing() -> None:
    screen, file = made()

    screen.show_status("OPEN")
    screen.show_typing()
    screen.close()

    assert "OPEN" in text_of(file)
    assert "> " not in text_of(file)
