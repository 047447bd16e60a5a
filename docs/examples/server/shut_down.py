"""Shutting down in good order, when the system or Ctrl-C says so."""

import signal

import trio

from trio_wsprim import ServerWebSocket, create_ws_server


async def echo(ws: ServerWebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def main(port: int = 5000) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with create_ws_server(echo, port=port) as server:
            print("up")
            await anext(signals)
            await server.aclose(grace=10)  # leaving the block alone would give them five seconds
            print("down")


if __name__ == "__main__":
    trio.run(main)
