"""The pytest plugin: fixtures for who tests code that uses trio_wsprim, with pytest-trio or with anyio's plugin.

A module of its own, since pytest imports it in every run, whatever is tested: to find it inside of the package would
import the package, which takes time, and which hides its first lines from who measures coverage.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from trio_wsprim import Server, ServerWebSocket
    from trio_wsprim.testing import MemoryNetwork

_PINNED: Final = pytest.StashKey[ExitStack]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--ws-transport`."""
    parser.getgroup("trio_wsprim").addoption(
        "--ws-transport",
        choices=("websockets", "trio-websocket", "memory"),
        help="what transport=None means for trio_wsprim: one of the real ones, or the one of a MemoryNetwork",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Pin the transport, if one is named."""
    name = config.getoption("--ws-transport")
    if name is not None:
        from trio_wsprim.testing._pinning import pinned_transport

        pinned = ExitStack()
        try:
            pinned.enter_context(pinned_transport(name))
        except ImportError as error:
            raise pytest.UsageError(f"--ws-transport={name}: {error}") from error
        config.stash[_PINNED] = pinned


def pytest_unconfigure(config: pytest.Config) -> None:
    """Undo that."""
    if _PINNED in config.stash:
        config.stash[_PINNED].close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what went over the network of a test that has failed."""
    report = yield
    network = getattr(item, "funcargs", {}).get("ws_network")
    if network is not None and report.when == "call" and report.failed:
        report.sections.append(("trio_wsprim transcript", repr(network.log)))
    return report


@pytest.fixture
def ws_network() -> MemoryNetwork:
    """Give a network in memory; a test that fails shows its transcript."""
    from trio_wsprim.testing import MemoryNetwork

    return MemoryNetwork()


@pytest.fixture
async def ws_server() -> AsyncGenerator[Server]:
    """Run a real echo server on loopback, and give it: `ws_server.url`."""
    from trio_wsprim import create_ws_server

    async with create_ws_server(_echo) as server:
        yield server


async def _echo(ws: ServerWebSocket) -> None:
    async for message in ws:
        await ws.send(message)
