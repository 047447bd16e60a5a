"""Subscriptions that survive: said again on each connection, before anything that is buffered."""

import trio

from trio_wsprim import ReconnectingWebSocket, create_reconnecting_ws
from trio_wsprim.abc import Session


class Feed:
    def __init__(self) -> None:
        self.topics: set[str] = set()

    async def set_up(self, session: Session) -> None:
        for topic in sorted(self.topics):
            await session.send(f"subscribe {topic}")

    async def subscribe(self, ws: ReconnectingWebSocket, topic: str) -> None:
        self.topics.add(topic)
        await ws.send(f"subscribe {topic}", ttl=0)  # now or never: without a connection, `set_up` says it


async def main(url: str = "ws://localhost:5000") -> None:
    feed = Feed()
    feed.topics.add("weather")
    async with create_reconnecting_ws(url, setup=feed.set_up, delay=0.1) as ws:
        print(await ws.receive())
        await feed.subscribe(ws, "traffic")
        print(await ws.receive())
        ws.reconnect()  # as when the network drops it
        print(await ws.receive())
        print(await ws.receive())


if __name__ == "__main__":
    trio.run(main)
