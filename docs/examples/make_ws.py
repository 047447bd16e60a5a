"""`make_ws`: a socket in a nursery of yours."""

import trio

from trio_wsprim import make_ws


async def main(url: str = "ws://localhost:5000") -> None:
    async with trio.open_nursery() as nursery:
        ws = make_ws(nursery, url)
        await ws.send("it works")
        print(await ws.receive())
        await ws.aclose()


if __name__ == "__main__":
    trio.run(main)
