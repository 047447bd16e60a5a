"""Talking JSON: the origin's ping-pong, from the client's side."""

import json
import time

import trio

from trio_wsprim import create_ws


async def main(url: str = "ws://localhost:5000") -> None:
    async with create_ws(url) as ws:
        await ws.send(json.dumps({"type": "ping", "data": {"id": 1, "time": time.time()}}))
        answer = json.loads(await ws.receive())
        print(answer["type"], answer["data"]["id"])


if __name__ == "__main__":
    trio.run(main)
