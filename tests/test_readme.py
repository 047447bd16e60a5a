"""The README's commands and its table say what is so."""

import re
from pathlib import Path
from typing import Final

import pytest

import trio_wsprim
from tests.test_examples import README

ROOT: Final = Path(__file__).resolve().parent.parent
CONSOLE_BLOCK: Final = re.compile(r"```console\n(.*?)```", re.DOTALL)


def setup_commands() -> list[str]:
    blocks = CONSOLE_BLOCK.findall(README.read_text(encoding="utf-8"))
    return [block.strip() for block in blocks if "venv .venv" in block]


def test_there_are_two_commands_for_a_fresh_machine_each_in_one_line() -> None:
    demo, tests = setup_commands()

    assert demo.endswith("-m trio_wsprim demo")
    assert tests.endswith("-m tests.gate")
    for command in (demo, tests):
        assert "\n" not in command
        assert command.startswith("python3 -m venv .venv && .venv/bin/python -m pip install ")


def test_ci_runs_exactly_the_readmes_test_command() -> None:
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    commands = [line for line in lines if line and not line.startswith(("#", "set ", "cd "))]

    assert commands == setup_commands()[1:]


@pytest.mark.parametrize(
    ("origin", "ours"),
    [
        ("makeWS", "make_ws"),
        ("createWS", "create_ws"),
        ("createWSState", "create_ws_state"),
        ("makeReconnectingWS", "make_reconnecting_ws"),
        ("createReconnectingWS", "create_reconnecting_ws"),
        ("makeHeartbeatWS", "make_heartbeat_ws"),
        ("createEventSignal", "create_event_signal"),
    ],
)
def test_each_primitive_has_an_example_beside_its_original_and_a_row_in_the_table(origin: str, ours: str) -> None:
    text = README.read_text(encoding="utf-8")
    section = re.search(rf"^### `{ours}`.*?(?=^##)", text, re.DOTALL | re.MULTILINE)

    assert section is not None
    assert re.search(rf"```js\n[^`]*?{origin}\(.*?```python\n.*?{ours}\(", section[0], re.DOTALL)
    assert re.search(rf"^\| `{origin}\(.*?\| .*?`[^|]*{ours}\(", text, re.MULTILINE)
    assert hasattr(trio_wsprim, ours)
