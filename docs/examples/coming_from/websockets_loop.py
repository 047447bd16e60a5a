"""With `websockets`, on asyncio: reconnecting by iterating over `connect`."""

import asyncio

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


async def main(url: str = "ws://localhost:5000") -> None:
    async for ws in connect(url):
        try:
            await ws.send("hello")
            print(await ws.recv())
            break
        except ConnectionClosed:
            continue  # what was under way is lost


if __name__ == "__main__":
    asyncio.run(main())
