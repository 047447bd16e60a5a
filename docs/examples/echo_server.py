"""An echo server to try the other examples against: start it in a terminal of its own."""

import trio

from trio_wsprim import ServerWebSocket, serve_ws


async def echo(ws: ServerWebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def main(port: int = 5000) -> None:
    print(f"echoing on ws://localhost:{port}; Ctrl-C ends it")
    await serve_ws(echo, port=port)


if __name__ == "__main__":
    trio.run(main)
