"""`create_ws`: a socket for the time of a block."""

import trio

from trio_wsprim import create_ws


async def main(url: str = "ws://localhost:5000") -> None:
    async with create_ws(url) as ws:
        await ws.send("it works")
        print(await ws.receive())


if __name__ == "__main__":
    trio.run(main)
