"""Fresh credentials and subscriptions on every connection."""

import itertools

import trio

from trio_wsprim import create_reconnecting_ws
from trio_wsprim.abc import Session

serials = itertools.count(1)


def headers() -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer token-{next(serials)}")]  # asked anew for every attempt


async def set_up(session: Session) -> None:
    await session.send("subscribe: weather")  # before anything that is buffered
    print("server says:", await session.receive())


async def main(url: str = "ws://localhost:5000") -> None:
    async with create_reconnecting_ws(url, headers=headers, setup=set_up) as ws:
        await ws.send("hello")
        print(await ws.receive())


if __name__ == "__main__":
    trio.run(main)
