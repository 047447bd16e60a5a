"""How a command's outcome becomes an exit code."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trio_wsprim.__main__ import main
from trio_wsprim._cli import _connect
from trio_wsprim._cli._contexts import BadFile

CONNECT = ["connect", "ws://example.test/"]


def raising(error: BaseException) -> Callable[[object], int]:
    def run(_order: object) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (BaseExceptionGroup("", [KeyboardInterrupt()]), 130, "interrupted\n"),
        (BadFile("no such file"), 2, "error: no such file\n"),
    ],
)
def test_what_a_command_raises_is_an_exit_code(
    error: BaseException,
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(_connect, "run_connect", raising(error))

    assert main(CONNECT) == code
    assert capsys.readouterr().err.endswith(words)


def test_a_pipe_that_breaks_is_141(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_connect, "run_connect", raising(ExceptionGroup("", [BrokenPipeError()])))
    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)

        assert main(CONNECT) == 141


def test_a_fault_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_connect, "run_connect", raising(ZeroDivisionError()))

    with pytest.raises(ZeroDivisionError):
        main(CONNECT)


@pytest.mark.parametrize(("held", "code"), [(True, None), (False, 1)])
def test_the_demo_tells_whether_all_held(held: bool, code: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def run_demo(**options: object) -> bool:
        seen.append(options)
        return held

    monkeypatch.setattr("trio_wsprim._demo.run_demo", run_demo)

    assert main(["demo", "--plain", "--seed", "7", "--speed", "2", "--resend", "unconfirmed"]) == code
    assert main(["demo"]) == code
    assert seen[0] == {"plain": True, "seed": 7, "speed": 2.0, "resend": "unconfirmed"}


def test_it_runs_as_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "trio_wsprim.__main__")
    monkeypatch.setattr(sys, "argv", ["trio-wsprim", "--help"])

    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("trio_wsprim", run_name="__main__")
