"""JSON: a few lines around the socket, with one place for what is malformed."""

import json
from typing import Any

import trio

from trio_wsprim import WebSocket, create_ws


async def send_json(ws: WebSocket, value: object) -> None:
    await ws.send(json.dumps(value, separators=(",", ":")))


async def receive_json(ws: WebSocket) -> Any:
    while True:
        message = await ws.receive()
        try:
            return json.loads(message)
        except ValueError as error:
            print("not JSON:", error)


async def main(url: str = "ws://localhost:5000") -> None:
    async with create_ws(url) as ws:
        await ws.send("{")
        await send_json(ws, {"price": 42, "currency": "EUR"})
        value = await receive_json(ws)
        print(value["price"], value["currency"])


if __name__ == "__main__":
    trio.run(main)
