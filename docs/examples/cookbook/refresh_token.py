"""A token that expires: fetched anew for each dial, and at once when the server refuses the old one."""

from itertools import count

import trio

from trio_wsprim import ConnectionRejected, create_reconnecting_ws

serials = count(1)


async def authorize() -> dict[str, str]:
    await trio.lowlevel.checkpoint()  # here your identity provider is asked
    return {"Authorization": f"Bearer token-{next(serials)}"}


def should_retry(error: Exception) -> bool | None:
    if isinstance(error, ConnectionRejected) and error.status == 401:
        return True  # which is final by default; here the next attempt brings another token
    return None  # the default rule


async def main(url: str = "ws://localhost:5000") -> None:
    async with create_reconnecting_ws(url, headers=authorize, retry_if=should_retry, delay=0.1) as ws:
        print(await ws.receive())


if __name__ == "__main__":
    trio.run(main)
