"""Your resubscription after a drop."""

from collections.abc import Callable, Sequence

import trio
from trio.testing import MockClock

from trio_wsprim import create_reconnecting_ws
from trio_wsprim.abc import Session
from trio_wsprim.testing import MemoryNetwork, Peer


async def follow(url: str, topics: Sequence[str], show: Callable[[str | bytes], object]) -> None:
    """Your code: knows nothing of tests."""

    async def subscribe(session: Session) -> None:
        for topic in topics:
            await session.send(f"subscribe {topic}")

    async with create_reconnecting_ws(url, setup=subscribe) as ws:
        async for message in ws:
            show(message)


async def welcome(network: MemoryNetwork) -> Peer:
    """Accept the next connection, and expect it to subscribe."""
    peer = await network.accept()
    await peer.accept()
    assert await peer.receive() == "subscribe weather"
    return peer


async def test_it_subscribes_again_after_a_drop(ws_network: MemoryNetwork, autojump_clock: MockClock) -> None:
    shown: list[str | bytes] = []

    with ws_network.replacing_tcp():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow, "wss://news.example/feed", ["weather"], shown.append)
            peer = await welcome(ws_network)
            await peer.send("sun")
            peer.drop()  # EOF without a close frame: the server has died
            ws_network.refuse(10)  # and takes some minutes to come back
            peer = await welcome(ws_network)
            await peer.send("rain")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    assert shown == ["sun", "rain"]
    assert trio.current_time() > 60
    ws_network.log.select(connection=1).assert_lines(
        "client DIAL news.example:443",
        "client GET /feed",
        "server 101 Switching Protocols",
        "client TEXT 'subscribe weather'",
        "server TEXT 'sun'",
        "server FIN",
        "...",
    )
    ws_network.log.assert_messages("subscribe weather", connection=12, sender="client")
