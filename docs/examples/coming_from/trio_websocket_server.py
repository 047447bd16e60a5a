"""An echo server with trio-websocket."""

import trio
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket


async def echo(request: WebSocketRequest) -> None:
    ws = await request.accept()
    while True:
        try:
            await ws.send_message(await ws.get_message())
        except ConnectionClosed:
            break


async def main(port: int = 5000) -> None:
    await serve_websocket(echo, "127.0.0.1", port, ssl_context=None)


if __name__ == "__main__":
    trio.run(main)
