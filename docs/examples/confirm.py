"""`resend="unconfirmed"` and `flush(confirm=True)`: proof that what was sent has arrived."""

import trio

from trio_wsprim import create_reconnecting_ws


async def main(url: str = "ws://localhost:5000") -> None:
    async with create_reconnecting_ws(url, resend="unconfirmed") as ws:
        await ws.send("an order")
        await ws.flush(confirm=True)  # the peer's WebSocket layer has it
        print("arrived, after", ws.statistics().connections, "connection")


if __name__ == "__main__":
    trio.run(main)
