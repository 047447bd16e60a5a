"""Through an HTTP or SOCKS proxy: needs the extra `proxy`."""

import trio

from trio_wsprim import create_ws


async def main(url: str = "ws://localhost:5000", proxy: str = "http://localhost:3128") -> None:
    async with create_ws(url, proxy=proxy) as ws:
        await ws.send("through the proxy")
        print(await ws.receive())


if __name__ == "__main__":
    trio.run(main)
