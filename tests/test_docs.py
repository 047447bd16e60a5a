"""The pages in `docs` say what is so."""

import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import pytest

import trio_wsprim
from tests.test_examples import load_file
from trio_wsprim import ReadyState, ReconnectingWebSocket, Server, ServerWebSocket, Signal, WebSocket
from trio_wsprim.abc import Link, ServerTransport, Session, Transport

ROOT: Final = Path(__file__).resolve().parent.parent
DESIGN: Final = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
CANCELLATION: Final = (ROOT / "docs" / "cancellation.md").read_text(encoding="utf-8")
OUTCOMES: Final = {"atomic", "may be partial", "always closes"}
ROW: Final = re.compile(r"^\| `(\S+?)`[^|]* \| ([^|]+) \| [^|]+ \|$", re.MULTILINE)


def test_the_state_diagram_is_the_one_that_the_table_draws() -> None:
    drawn = load_file(ROOT / "docs" / "state_diagram.py").draw()

    assert f"<!-- state diagram -->\n```text\n{drawn}\n```" in DESIGN


def test_the_pictures_are_those_that_the_code_draws() -> None:
    pictures = load_file(ROOT / "docs" / "draw_pictures.py")

    states = (pictures.PICTURES / "states.svg").read_text(encoding="utf-8")
    assert states == pictures.draw_states(pictures.moves())
    assert (pictures.PICTURES / "backoff.svg").read_text(encoding="utf-8") == pictures.draw_backoff()


def test_the_timeline_shows_each_fault_dial_and_heal() -> None:
    pictures = load_file(ROOT / "docs" / "draw_pictures.py")
    moments = [
        pictures.Moment(0.0, "CONNECTING", "dial 1 to ws://localhost/"),
        pictures.Moment(0.1, "OPEN", "by dial 1"),
        pictures.Moment(1.0, "FAULT", "a < b & c"),
        pictures.Moment(1.1, "CLOSED", "lost"),
        pictures.Moment(2.0, "CONNECTING", "dial 1 to ws://localhost/"),
        pictures.Moment(2.1, "OPEN", "by dial 1"),
        pictures.Moment(2.2, "healed", "after 1200 ms"),
        pictures.Moment(3.0, "CLOSED", "cleanly"),
    ]

    root = ElementTree.fromstring(pictures.draw_timeline(moments))
    names = [element.tag.rpartition("}")[2] for element in root.iter()]
    assert "a < b & c" in [element.text for element in root.iter()]
    assert names.count("circle") == 1
    assert names.count("rect") == 6 + len(ReadyState)  # a bar for each state that it was in, and the legend
    assert names.count("line") == 1 + 2 + 1  # the fault, the dials, the axis


def test_every_module_has_its_floor_in_the_design_as_in_the_contract() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    depths = {name: depth for depth, layer in enumerate(layers) for name in re.findall(r"\w+", layer)}
    floors = re.search(r"## Floors.*?```text\n(.*?)```", DESIGN, re.DOTALL)

    assert floors is not None
    drawn = [name for name in re.findall(r"\w+", floors[1]) if name in depths]
    assert sorted(drawn) == sorted(filter(is_built, depths))
    assert [depths[name] for name in drawn] == sorted(depths[name] for name in drawn)


def is_built(module: str) -> bool:
    return (ROOT / "trio_wsprim" / module).is_dir() or (ROOT / "trio_wsprim" / f"{module}.py").is_file()


def async_members(kind: type[Any]) -> Iterator[str]:
    for name, member in inspect.getmembers(kind, inspect.iscoroutinefunction):
        if not name.startswith("_") or name in {"__anext__", "__aenter__", "__aexit__"}:
            assert member is not None
            yield name


def async_calls() -> Iterator[str]:
    for socket in (WebSocket, ReconnectingWebSocket, ServerWebSocket):
        yield from async_members(socket)
    yield from async_members(Signal)
    yield "values().__anext__"
    for seam in (Session, Link, Transport, ServerTransport, Server):
        yield from (f"{seam.__name__}.{name}" for name in async_members(seam))
    yield from ("create_ws", "create_reconnecting_ws", "make_ws", "make_reconnecting_ws", "subscribe", "events")
    yield from ("create_ws_server", "serve_ws")


@pytest.mark.parametrize("call", sorted(set(async_calls())))
def test_every_async_call_has_one_row_that_says_what_a_cancelled_one_leaves(call: str) -> None:
    outcomes = [outcome for name, outcome in ROW.findall(CANCELLATION) if name == call]

    assert len(outcomes) == 1
    assert outcomes[0] in OUTCOMES


def test_no_row_is_about_a_call_that_there_is_not() -> None:
    assert {name for name, _ in ROW.findall(CANCELLATION)} == set(async_calls())


def test_every_opener_that_is_public_has_a_row() -> None:
    openers = {
        name
        for name in trio_wsprim.__all__
        if re.fullmatch(r"(make|create)(_reconnecting)?_ws|create_ws_server|serve_ws", name)
    }

    assert openers <= {name for name, _ in ROW.findall(CANCELLATION)}
