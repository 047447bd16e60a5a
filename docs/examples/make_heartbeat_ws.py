"""`make_heartbeat_ws`: silence, a message, and silence again end the connection."""

import trio

from trio_wsprim import make_heartbeat_ws, make_reconnecting_ws


async def main(url: str = "ws://localhost:5000") -> None:
    async with trio.open_nursery() as nursery:
        ws = make_heartbeat_ws(
            make_reconnecting_ws(nursery, url, delay=0.5),
            message="👍",
            interval=1.0,
            wait=1.5,
            reply="👍",  # what an echo server answers: nobody is shown it
        )
        await ws.send("this will reconnect if connection fails")
        print(await ws.receive())
        await ws.aclose()


if __name__ == "__main__":
    trio.run(main)
