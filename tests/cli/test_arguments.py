"""The command line itself: what it takes, what it refuses, and that it repeats no secret."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version
from typing import Final, get_args

import pytest

from tests.cli.tools import ROOT
from trio_wsprim import _demo
from trio_wsprim._cli import _arguments
from trio_wsprim._cli._arguments import ConnectOrder, DemoOrder, ServeOrder, complain, read_arguments

URL: Final = "ws://example.test/"
PAGE: Final = (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8")


def test_what_is_not_asked_for_is_as_the_help_says() -> None:
    assert read_arguments(["connect", URL]) == ConnectOrder(url=URL)
    assert read_arguments(["serve"]) == ServeOrder(port=8765)
    assert read_arguments(["demo"]) == DemoOrder()


def test_connect_takes_all_its_options() -> None:
    order = read_arguments(
        [
            *("connect", "wss://example.test/", "-H", "A: 1", "--header", "b:2", "--subprotocol", "x"),
            *("--subprotocol", "y", "--heartbeat", "2.5", "--json", "--plain", "--resend", "unconfirmed"),
            *("--linger", "inf", "--ca", "ca", "--cert", "cert", "--key", "key"),
        ]
    )

    assert order == ConnectOrder(
        url="wss://example.test/",
        headers=(("A", "1"), ("b", "2")),
        subprotocols=("x", "y"),
        heartbeat=2.5,
        json=True,
        plain=True,
        resend="unconfirmed",
        linger=float("inf"),
        ca="ca",
        cert="cert",
        key="key",
    )


def test_serve_takes_all_its_options() -> None:
    order = read_arguments(
        [
            *("serve", "chat", "--host", "::1", "--port", "0", "--heartbeat", "3", "--cert", "c", "--key", "k"),
            *("--origin", "https://a.test", "--origin", "null"),
        ]
    )

    assert order == ServeOrder(
        mode="chat", host="::1", port=0, heartbeat=3.0, cert="c", key="k", origins=("https://a.test", "null")
    )
    assert read_arguments(["serve", "--origin", "*"]) == ServeOrder(port=8765, origins=("*",))


def test_the_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        read_arguments(["--version"])

    assert capsys.readouterr() == (f"trio-wsprim {version('trio-wsprim')}\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["wss://tom:SECRET@example.test/?SECRET"], "the first argument must be one of connect, serve, demo"),
        (["connect"], "required: URL"),
        (["connect", "http://tom:SECRET@example.test/"], "must begin with ws:// or wss://"),
        (["connect", URL, "wss://tom:SECRET@example.test/"], "connect: it takes 1 arguments fewer"),
        (["connect", URL, "--hea", "X-Token: SECRET"], "connect: it does not know --hea "),
        (["connect", URL, "--token=SECRET", "-XSECRET"], "connect: it does not know --token, -X "),
        (["connect", URL, "--header", "SECRET"], "must be like 'Name: value', got no colon"),
        (["connect", URL, "--header", "X: SECRET\n"], "must have a value of visible ASCII"),
        (["connect", URL, "--header", "X Y: SECRET"], "must be a token"),
        (["connect", URL, "--header", "Host: SECRET"], "belongs to the handshake"),
        (["connect", URL, "--subprotocol", "SECRET TOO"], "subprotocol number 1 must be a token"),
        (["connect", URL, "--heartbeat", "0"], "more than 0, got '0'"),
        (["connect", URL, "--heartbeat", "inf"], "more than 0, got 'inf'"),
        (["connect", URL, "--linger", "soon"], "0 or more, or inf, got 'soon'"),
        (["connect", URL, "--linger", "-1"], "0 or more, or inf, got '-1'"),
        (["connect", URL, "--once", "--resend", "unsent"], "--once says not to"),
        (["connect", URL, "--ca", "file"], "are for wss: urls"),
        (["connect", URL, "--cert", "file"], "are for wss: urls"),
        (["connect", "wss://example.test", "--key", "file"], "--key needs --cert"),
        (["connect", URL, "--insecure"], "connect: it does not know --insecure "),
        (["serve", "wss://tom:SECRET@example.test/"], "must be one of echo, chat, broadcast"),
        (["serve", "--port", "65536"], "a port from 0 to 65535, got '65536'"),
        (["serve", "--port", "-1"], "a port from 0 to 65535, got '-1'"),
        (["serve", "--port", "http"], "a port from 0 to 65535, got 'http'"),
        (["serve", "--origin", "example.com"], "must be like 'https://example.com'"),
        (["serve", "--origin", "https://example.com/"], "without a slash"),
        (["serve", "--origin", "*", "--origin", "null"], "leave out the others"),
        (["serve", "--key", "file"], "--key needs --cert"),
        (["demo", "--speed", "fast"], "must be from 0.9 to 5, got 'fast'"),
    ],
)
def test_what_is_wrong_is_told_with_2_and_without_secrets(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        read_arguments(arguments)

    output, errors = capsys.readouterr()
    assert words in errors
    assert "SECRET" not in errors
    assert output == ""


def test_an_order_keeps_secrets_out_of_its_repr() -> None:
    order = read_arguments(["connect", "ws://tom:SECRET@example.test/?SECRET", "-H", "X: SECRET"])

    assert "SECRET" not in repr(order)


@pytest.mark.parametrize("command", [[], ["connect"], ["serve"], ["demo"]])
@pytest.mark.parametrize(
    ("script", "program"),
    [("bin/trio-wsprim", "trio-wsprim"), ("lib/trio_wsprim/__main__.py", "python -m trio_wsprim")],
)
def test_help_has_examples_that_can_be_copied(
    command: list[str], script: str, program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [script, *command, "--help"])
    with pytest.raises(SystemExit, match="0"):
        read_arguments(None)

    output = capsys.readouterr().out
    assert f"usage: {program}" in output
    _, examples = output.split("examples:\n")
    assert f"\n  {program} {command[0] if command else 'connect'}" in "\n" + examples
    assert max(map(len, output.splitlines())) <= 120


@pytest.mark.parametrize("command", ["connect", "serve"])
def test_help_tells_the_exit_codes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        read_arguments([command, "--help"])

    _, codes = capsys.readouterr().out.split("exit codes:\n")
    for code in ("0 ", "1 ", "2 ", "130 ", "143 "):
        assert code in codes


@pytest.mark.parametrize("command", ["connect", "serve", "demo"])
def test_the_page_has_every_option(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        read_arguments([command, "--help"])
    options = capsys.readouterr().out.split("examples:")[0]

    section = PAGE.split(f"\n## {command}\n")[1].split("\n## ")[0]
    names = set(re.findall(r"--[a-z]+", options)) - {"--help"}
    assert set(re.findall(r"--[a-z]+", options_of(section))) == names


def options_of(section: str) -> str:
    """Give the first column of the tables."""
    return "\n".join(re.findall(r"^\|(.*?)\|", section, re.MULTILINE))


def test_the_demo_has_the_same_limits_as_its_options() -> None:
    assert _arguments.MAX_DEMO_SPEED == _demo.MAX_SPEED
    assert get_args(_arguments.Resend) == get_args(_demo.Resend)


def test_a_complaint_names_the_program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["bin/trio-wsprim"])

    complain("too late")

    assert capsys.readouterr().err == "trio-wsprim: error: too late\n"
