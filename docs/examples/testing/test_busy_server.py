"""Your behaviour at 503 with `Retry-After`."""

from collections.abc import Callable

import trio
from trio.testing import MockClock

from trio_wsprim import ConnectionRejected, OpenEvent, RetryEvent, create_reconnecting_ws
from trio_wsprim.testing import MemoryNetwork, Peer


async def connect(url: str, tell: Callable[[str], object]) -> None:
    """Your code: tells its user why nothing happens."""
    async with create_reconnecting_ws(url) as ws, ws.events() as events:
        async for event in events:
            if isinstance(event, RetryEvent) and isinstance(event.error, ConnectionRejected):
                tell(f"the server is busy; I try again in {event.delay:.0f} s")
            elif isinstance(event, OpenEvent):
                tell("connected")
                break


async def test_it_waits_as_long_as_the_server_asks(ws_network: MemoryNetwork, autojump_clock: MockClock) -> None:
    told: list[str] = []
    ws_network.reject(503, [("Retry-After", "120")], b"come back later", count=2)

    with ws_network.replacing_tcp():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws_network.serve, Peer.accept)
            await connect("wss://busy.example/", told.append)
            nursery.cancel_scope.cancel()

    assert told == ["the server is busy; I try again in 120 s"] * 2 + ["connected"]
    assert [dial.time for dial in ws_network.dials] == [0, 120, 240]
    assert [entry.status for entry in ws_network.log.select(kind="answer")] == [503, 503, 101]
