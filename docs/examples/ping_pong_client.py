"""Talking JSON: the client's side of the origin's ping-pong."""

import json
import time

import trio

from trio_wsprim import create_ws


async def main(url: str = "ws://localhost:5000") -> None:
    async with create_ws(url) as ws:
        await ws.send(json.dumps({"type": "ping", "data": {"id": 1, "time": time.time()}}))
        answer = json.loads(await ws.receive())
        print(answer["type"], answer["data"]["id"])
        await ws.send("not JSON")
        print(json.loads(await ws.receive())["error"])


if __name__ == "__main__":
    trio.run(main)
