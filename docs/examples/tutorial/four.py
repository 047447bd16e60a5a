"""It survives the night."""

import trio

from trio_wsprim import Backoff, RetriesExhausted, create_reconnecting_ws, make_heartbeat_ws
from trio_wsprim.abc import Session


async def set_up(session: Session) -> None:
    await session.send("subscribe prices")


async def main(url: str = "ws://localhost:5000") -> None:
    try:
        async with create_reconnecting_ws(
            url,
            setup=set_up,  # on every new connection, before what is buffered
            delay=Backoff(first=0.1, maximum=60),  # 0.1 s, 0.2 s, … a minute, and never two clients at once
            resend="unconfirmed",  # what a broken connection has swallowed goes out again
            retries=100,
        ) as ws:
            make_heartbeat_ws(ws, message=None, interval=20, wait=10)  # finds a peer that has gone without a word
            await ws.send("an order")
            await ws.flush(confirm=True)  # it has arrived
            async for message in ws:
                print("got", message)
                if message == "an order":
                    break
    except RetriesExhausted as error:
        print("giving up:", error)


if __name__ == "__main__":
    trio.run(main)
