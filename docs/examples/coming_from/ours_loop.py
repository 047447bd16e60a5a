"""The same here: the socket is one object, however many connections it takes."""

import trio

from trio_wsprim import create_reconnecting_ws


async def main(url: str = "ws://localhost:5000") -> None:
    async with create_reconnecting_ws(url) as ws:
        await ws.send("hello")
        print(await ws.receive())


if __name__ == "__main__":
    trio.run(main)
