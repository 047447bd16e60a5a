"""A server on a unix socket, for a proxy on the same machine."""

import socket

import trio

from trio_wsprim import ServerWebSocket, serve_ws


async def echo(ws: ServerWebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def main(path: str = "server.sock") -> None:
    listening = trio.socket.socket(socket.AF_UNIX)
    await listening.bind(path)
    listening.listen()
    await serve_ws(echo, listeners=[trio.SocketListener(listening)])


if __name__ == "__main__":
    trio.run(main)
