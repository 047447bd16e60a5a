"""`create_reconnecting_ws`: a socket that dials again, for the time of a block."""

import trio

from trio_wsprim import Backoff, create_reconnecting_ws


async def main(url: str = "ws://localhost:5000") -> None:
    messages: list[str | bytes] = []
    backoff = Backoff(first=0.5, maximum=30)
    async with create_reconnecting_ws(url, delay=backoff, retries=10) as ws:
        for text in ("one", "two", "three"):
            await ws.send(text)
        async for message in ws:
            messages.append(message)
            if len(messages) == 3:
                break
    print(messages)


if __name__ == "__main__":
    trio.run(main)
