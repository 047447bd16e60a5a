"""Every example in README and docs is a file that runs, here against a server on loopback, and is type-checked."""

import ast
import importlib.util
import re
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest
import trio

import trio_wsprim
from trio_wsprim.testing import peer_over

ROOT: Final = Path(__file__).resolve().parent.parent
README: Final = ROOT / "README.md"
EXAMPLES: Final = ROOT / "docs" / "examples"
PAGES: Final = [README, *sorted((ROOT / "docs").rglob("*.md"))]
PYTHON_BLOCK: Final = re.compile(r"(?:<!-- (?P<file>\S+) -->\n)?```python\n(?P<code>.*?)```", re.DOTALL)

# What each example prints that is a client.
OUTPUTS: Final = {
    "first": "hello\n",
    "make_ws": "it works\n",
    "create_ws": "it works\n",
    "create_ws_state": "now: CONNECTING\nnow: OPEN\nnow: CLOSED\n",
    "make_reconnecting_ws": "this will reconnect if connection fails\nstill here\n",
    "create_reconnecting_ws": "['one', 'two', 'three']\n",
    "make_heartbeat_ws": "this will reconnect if connection fails\n",
    "create_event_signal": (
        "MessageEvent(data='it works')\nCloseEvent(code=1000, reason='', clean=True, error=None, unconfirmed=None)\n"
    ),
    "message": "open\nmessage: it works\nlast message: it works\n",
    "ping_pong_client": "pong 1\nExpecting value: line 1 column 1 (char 0)\n",
    "confirm": "arrived, after 1 connection\n",
    "log_in": "server says: subscribe: weather\nhello\n",
}

# What each server among them prints together with the first example, which says hello to it. Those that
# need more (`chat`, `fanout_redis`) are tested in `tests/peers`, with what they need.
SERVERS: Final = {
    "echo_server": "echoing on ws://localhost:{port}; Ctrl-C ends it\nhello\n",
    "ping_pong": (
        'ping-pong on ws://localhost:{port}; Ctrl-C ends it\n{{"error": "Expecting value: line 1 column 1 (char 0)"}}\n'
    ),
}


async def echo(stream: trio.SocketStream) -> None:
    await peer_over(stream).serve_echo()


@asynccontextmanager
async def serving(name: str) -> AsyncGenerator[str]:
    async with trio.open_nursery() as nursery:
        if name == "ping_pong_client":
            server = await nursery.start(trio_wsprim.serve_ws, load("ping_pong").ping_pong)
            yield f"ws://localhost:{server.port}"
        else:
            listeners = await nursery.start(trio.serve_tcp, echo, 0)
            yield f"ws://localhost:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


def load(name: str) -> ModuleType:
    return load_file(EXAMPLES / f"{name}.py")


def load_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", OUTPUTS)
async def test_an_example_runs_and_prints_what_it_should(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with trio.fail_after(20):
        async with serving(name) as url:
            await load(name).main(url)

    assert capsys.readouterr().out == OUTPUTS[name]


def test_no_example_is_forgotten() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*OUTPUTS, *SERVERS, "fanout_redis"}


@pytest.mark.parametrize("name", SERVERS)
async def test_an_example_runs_against_the_servers_of_the_examples(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load(name).main, port)
            await load("first").main(f"ws://localhost:{port}")  # which tries again until the server is there
            nursery.cancel_scope.cancel()

    assert capsys.readouterr().out == SERVERS[name].format(port=port)


def code_blocks() -> Iterator[tuple[Path, str | None, str]]:
    for page in PAGES:
        for block in PYTHON_BLOCK.finditer(page.read_text(encoding="utf-8")):
            yield page, block["file"], block["code"]


def body_of(path: Path) -> str:
    """Give an example without its docstring and the two lines that start it."""
    source = path.read_text(encoding="utf-8")
    docstring = ast.parse(source).body[0]
    assert docstring.end_lineno is not None
    lines = source.splitlines(keepends=True)[docstring.end_lineno :]
    return "".join(lines).split("\n\nif __name__ ==")[0].strip() + "\n"


def test_every_block_of_python_in_the_pages_is_one_of_the_files() -> None:
    blocks = list(code_blocks())

    assert blocks
    for page, file, code in blocks:
        assert file is not None, f"{page.name} has an example that is no file:\n{code}"
        assert code == body_of(ROOT / file), f"{page.name} differs from {file}"
