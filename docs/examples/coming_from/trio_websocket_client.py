"""With trio-websocket: one connection."""

import trio
from trio_websocket import ConnectionClosed, open_websocket_url


async def main(url: str = "ws://localhost:5000") -> None:
    async with open_websocket_url(url) as ws:
        try:
            await ws.send_message("hello")
            print(await ws.get_message())
        except ConnectionClosed as error:
            print("closed:", error.reason)


if __name__ == "__main__":
    trio.run(main)
