"""A server behind a unix socket: the url says what to ask for, `open_stream` how to get there."""

import trio

from trio_wsprim import create_ws


async def main(path: str = "server.sock") -> None:
    async def open_stream(_host: str, _port: int) -> trio.abc.Stream:
        return await trio.open_unix_socket(path)

    async with create_ws("ws://localhost/", open_stream=open_stream) as ws:
        await ws.send("no TCP")
        print(await ws.receive())


if __name__ == "__main__":
    trio.run(main)
