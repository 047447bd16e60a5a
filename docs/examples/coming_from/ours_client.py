"""The same here."""

import trio

from trio_wsprim import ConnectionClosed, create_ws


async def main(url: str = "ws://localhost:5000") -> None:
    try:
        async with create_ws(url) as ws:
            await ws.send("hello")
            print(await ws.receive())
    except ConnectionClosed as error:
        print("closed:", error)


if __name__ == "__main__":
    trio.run(main)
