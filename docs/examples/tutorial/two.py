"""A loop that reads, beside one that writes."""

import trio

from trio_wsprim import WebSocket, create_ws


async def count(ws: WebSocket) -> None:
    for number in range(3):
        await ws.send(str(number))
        await trio.sleep(0.1)
    await ws.aclose()


async def main(url: str = "ws://localhost:5000") -> None:
    async with create_ws(url) as ws, trio.open_nursery() as nursery:
        nursery.start_soon(count, ws)
        try:
            async for message in ws:
                print("got", message)
        except trio.ClosedResourceError:
            print("we have closed")


if __name__ == "__main__":
    trio.run(main)
