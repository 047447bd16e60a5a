"""Several endpoints: each dial takes the next one, and the first that answers keeps us until it fails."""

from itertools import cycle

import trio

from trio_wsprim import Backoff, create_reconnecting_ws


async def main(*urls: str) -> None:
    turns = cycle(urls or ("ws://localhost:5001", "ws://localhost:5000"))
    backoff = Backoff(first=0.1, maximum=30)
    async with create_reconnecting_ws(lambda: next(turns), delay=backoff) as ws:
        await ws.send("who is there?")
        print(await ws.receive())


if __name__ == "__main__":
    trio.run(main)
