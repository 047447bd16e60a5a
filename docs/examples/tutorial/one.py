"""The first message."""

import trio

from trio_wsprim import create_ws


async def main(url: str = "ws://localhost:5000") -> None:
    async with create_ws(url) as ws:
        await ws.send("hello")
        print(await ws.receive())


if __name__ == "__main__":
    trio.run(main)
