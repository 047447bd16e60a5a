"""`make_reconnecting_ws`: a socket that dials again, in a nursery of yours."""

import trio

from trio_wsprim import make_reconnecting_ws


async def main(url: str = "ws://localhost:5000") -> None:
    async with trio.open_nursery() as nursery:
        ws = make_reconnecting_ws(nursery, url, delay=0.5)
        await ws.send("this will reconnect if connection fails")
        print(await ws.receive())
        ws.reconnect()  # on demand, too: drop this connection and dial now
        await ws.send("still here")
        print(await ws.receive())
        await ws.aclose()


if __name__ == "__main__":
    trio.run(main)
