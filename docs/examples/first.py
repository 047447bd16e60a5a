"""The first example."""

import trio

from trio_wsprim import create_reconnecting_ws, make_heartbeat_ws


async def main(url: str = "ws://localhost:5000") -> None:
    async with create_reconnecting_ws(url) as ws:
        make_heartbeat_ws(ws, message=None)  # ping frames find a dead peer
        await ws.send("hello")  # buffered until it is open, kept when the network goes
        async for message in ws:
            print(message)
            break  # leaving the block closes the connection


if __name__ == "__main__":
    trio.run(main)
