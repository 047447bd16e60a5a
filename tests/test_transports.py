"""Which transport is taken where none is named, and what is needed for each."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from trio.testing import MockClock

from trio_wsprim import ConnectionRejected, TrioWebsocketTransport, WebsocketsTransport, _attempt, create_ws
from trio_wsprim.abc import Transport
from trio_wsprim.testing import MemoryNetwork
from trio_wsprim.transports import default_transport

VERSION = "websockets.version"


def take_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no websockets be installed."""
    monkeypatch.setitem(sys.modules, VERSION, None)


def age(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """Let another version of websockets be installed."""
    module = ModuleType(VERSION)
    module.__dict__["version"] = version
    monkeypatch.setitem(sys.modules, VERSION, module)


# --- which one ---


def test_websockets_is_taken_where_it_is_installed() -> None:
    assert default_transport() == WebsocketsTransport(compression=None)


@pytest.mark.parametrize("version", ["15.0", "15.0.1", "16.0.dev1+gabc", "100.0"])
def test_websockets_is_taken_from_15_on(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    age(monkeypatch, version)
    assert default_transport() == WebsocketsTransport()


@pytest.mark.parametrize("version", ["14.2", "9.1", "3.4"])
def test_an_older_websockets_is_passed_over(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    age(monkeypatch, version)
    assert default_transport() == TrioWebsocketTransport()


def test_without_websockets_trio_websocket_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    take_away(monkeypatch)
    assert default_transport() == TrioWebsocketTransport()


def test_without_the_whole_package_trio_websocket_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, VERSION, raising=False)
    monkeypatch.setitem(sys.modules, "websockets", None)
    assert default_transport() == TrioWebsocketTransport()


@pytest.mark.parametrize(("named", "taken"), [(None, "default"), ("named", "named")])
async def test_a_socket_takes_the_transport_that_it_is_given_or_the_default(
    named: str | None, taken: str, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    asked: list[str] = []

    class Recording:
        def __init__(self, name: str) -> None:
            self._name = name

        async def connect(self, *arguments: Any) -> Any:
            asked.append(self._name)
            return await TrioWebsocketTransport().connect(*arguments)

    monkeypatch.setattr(_attempt, "default_transport", lambda: Recording("default"))
    network = MemoryNetwork()
    transport = Recording(named) if named else None
    async with create_ws("ws://example.test/", open_stream=network.open_stream, transport=transport) as ws:
        peer = await network.accept()
        await peer.accept()
        await ws.wait_open()
    assert asked == [taken]


@pytest.mark.parametrize("make", [TrioWebsocketTransport, WebsocketsTransport])
async def test_each_can_be_named(make: Callable[[], Transport], autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    with pytest.raises(ConnectionRejected):
        async with create_ws("ws://example.test/", open_stream=network.open_stream, transport=make()) as ws:
            await (await network.accept()).reject(404)
            await ws.wait_open()


# --- what is needed ---


@pytest.mark.parametrize("how", [take_away, lambda monkeypatch: age(monkeypatch, "14.2")], ids=["absent", "too old"])
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_without_websockets_its_transport_says_what_to_install(
    compression: Any, how: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    how(monkeypatch)
    with pytest.raises(ImportError, match=r"^WebsocketsTransport needs websockets 15 or newer: .*trio-wsprim\[fast\]"):
        WebsocketsTransport(compression=compression)


def test_trio_websocket_s_transport_needs_no_websockets(monkeypatch: pytest.MonkeyPatch) -> None:
    take_away(monkeypatch)
    TrioWebsocketTransport()


@pytest.mark.parametrize("compression", ["gzip", "", "DEFLATE", True, 1, b"deflate", []])
def test_another_compression_is_refused(compression: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"compression must be .*deflate"):
        WebsocketsTransport(compression=compression)


def test_a_wrong_word_is_told_before_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    take_away(monkeypatch)
    with pytest.raises(ValueError, match="compression"):
        WebsocketsTransport(compression="gzip")  # type: ignore[arg-type]


# --- transports are values ---


def test_transports_are_values_that_say_what_they_are() -> None:
    plain, deflate = WebsocketsTransport(), WebsocketsTransport(compression="deflate")
    assert plain == WebsocketsTransport(compression=None) != deflate
    assert len({plain, deflate, WebsocketsTransport(), TrioWebsocketTransport(), TrioWebsocketTransport()}) == 3
    assert repr(deflate) == "WebsocketsTransport(compression='deflate')"
    assert repr(TrioWebsocketTransport()) == "TrioWebsocketTransport()"
    assert pickle.loads(pickle.dumps(deflate)) == deflate
    with pytest.raises(AttributeError):
        plain.compression = "deflate"  # type: ignore[misc]


# --- what importing costs ---


def modules_after(code: str) -> set[str]:
    """What another Python has loaded after that."""
    program = f"import sys\n{code}\nprint(*sys.modules, sep='\\n')"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return set(run.stdout.split())


LIBRARIES = {"trio_websocket", "wsproto", "websockets.client", "websockets.protocol", "websockets.asyncio"}


@pytest.mark.parametrize(
    ("code", "loaded"),
    [
        ("import trio_wsprim, trio_wsprim.abc, trio_wsprim.transports", set()),
        ("import trio_wsprim; trio_wsprim.WebsocketsTransport()", set()),
        ("from trio_wsprim.transports import default_transport as it; it()", set()),
    ],
)
def test_nothing_is_loaded_before_it_is_needed(code: str, loaded: set[str]) -> None:
    assert modules_after(code) & LIBRARIES == loaded


ATTEMPT = """
import trio, trio.testing
from trio_wsprim import *
from trio_wsprim.testing import MemoryNetwork
async def main():
    network = MemoryNetwork()
    async with create_ws("ws://a/", open_stream=network.open_stream, transport={0}()) as ws:
        peer = await network.accept()
        await peer.accept()
        await ws.wait_open()
trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
"""


def test_each_transport_loads_its_own_library_alone() -> None:
    assert modules_after(ATTEMPT.format("TrioWebsocketTransport")) & LIBRARIES == {"trio_websocket", "wsproto"}
    assert modules_after(ATTEMPT.format("WebsocketsTransport")) & LIBRARIES == {
        "websockets.client",
        "websockets.protocol",
    }


def test_it_all_works_where_there_is_no_websockets_at_all() -> None:
    code = "sys.modules['websockets'] = None\n" + ATTEMPT.replace("{0}()", "None")
    assert "trio_websocket" in modules_after(code)
