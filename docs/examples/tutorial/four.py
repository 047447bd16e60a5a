"""It survives the night."""

import trio

from trio_wsprim import Backoff, RetriesExhausted, WebSocket, create_reconnecting_ws, make_heartbeat_ws
from trio_wsprim.abc import Session


async def set_up(session: Session) -> None:
    await session.send("subscribe prices")


async def show(ws: WebSocket) -> None:
    async for message in ws:
        print("got", message)


async def main(url: str = "ws://localhost:5000", orders: int = 1000, pause: float = 1.0) -> None:
    try:
        async with (
            create_reconnecting_ws(
                url,
                setup=set_up,  # on every new connection, before what is buffered
                delay=Backoff(first=0.1, maximum=60),  # up to 0.1 s, 0.2 s, … a minute, spread by chance
                resend="unconfirmed",  # what a broken connection has swallowed goes out again
                retries=100,
            ) as ws,
            trio.open_nursery() as nursery,
        ):
            make_heartbeat_ws(ws, message=None, interval=20, wait=10)  # finds a peer that has gone without a word
            nursery.start_soon(show, ws)
            for number in range(orders):
                await ws.send(f"order {number}")
                await ws.flush(confirm=True)  # it has arrived
                print("order", number, "has arrived")
                await trio.sleep(pause)
            nursery.cancel_scope.cancel()  # nothing more is waited for
    except* RetriesExhausted as group:
        print("giving up:", group.exceptions[0])


if __name__ == "__main__":
    trio.run(main)
