"""The origin's ping-pong server: JSON in, JSON out, and errors answered as JSON too."""

import json
import time

import trio

from trio_wsprim import ServerWebSocket, serve_ws


def answer(message: str | bytes) -> dict[str, object]:
    match json.loads(message):
        case {"type": "ping", "data": {"id": number}}:
            return {"type": "pong", "data": {"id": number, "time": time.time()}}
        case _:
            raise ValueError('only {"type": "ping", "data": {"id": …}} is understood')


async def ping_pong(ws: ServerWebSocket) -> None:
    async for message in ws:
        try:
            reply = answer(message)
        except (ValueError, RecursionError) as error:  # the second from very deep JSON
            reply = {"error": str(error)}  # the reason, not the stack: a stranger reads it
        await ws.send(json.dumps(reply))


async def main(port: int = 5000) -> None:
    print(f"ping-pong on ws://localhost:{port}; Ctrl-C ends it")
    await serve_ws(ping_pong, port=port)


if __name__ == "__main__":
    trio.run(main)
