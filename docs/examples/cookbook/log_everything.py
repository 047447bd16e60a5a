"""What happens to a socket, in one log: everything but messages, as events; the library's own loggers beside it."""

import logging

import trio

from trio_wsprim import MessageEvent, WebSocket, create_reconnecting_ws

log = logging.getLogger("feed")


async def log_events(ws: WebSocket) -> None:
    async with ws.events() as events:
        async for event in events:
            if not isinstance(event, MessageEvent):
                log.info("%s", event)


async def main(url: str = "ws://localhost:5000") -> None:
    async with trio.open_nursery() as nursery, create_reconnecting_ws(url) as ws:
        nursery.start_soon(log_events, ws)
        await ws.send("hello")
        print(await ws.receive())


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    trio.run(main)
