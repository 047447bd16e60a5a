"""Requests that wait for their own answer, by id; any number at once."""

import json
from itertools import count
from typing import Any

import trio

from trio_wsprim import WebSocket, create_reconnecting_ws


class Calls:
    def __init__(self, ws: WebSocket, patience: float = 10) -> None:
        self._ws = ws
        self._patience = patience
        self._numbers = count(1)
        self._answers: dict[int, trio.MemorySendChannel[Any]] = {}

    async def run(self) -> None:
        async for message in self._ws:
            answer = json.loads(message)
            channel = self._answers.get(answer["id"])
            if channel is not None:  # else nobody waits any longer
                channel.send_nowait(answer["result"])

    async def call(self, method: str, *parameters: object) -> Any:
        number = next(self._numbers)
        sender, receiver = trio.open_memory_channel[Any](1)
        self._answers[number] = sender
        try:
            with trio.fail_after(self._patience):
                request = {"id": number, "method": method, "params": parameters}
                await self._ws.send(json.dumps(request), ttl=self._patience)
                return await receiver.receive()
        finally:
            del self._answers[number]


async def main(url: str = "ws://localhost:5000") -> None:
    # An answer that a broken connection has swallowed is waited for in vain; sent again, the request gets another.
    async with create_reconnecting_ws(url, resend="unconfirmed") as ws, trio.open_nursery() as nursery:
        calls = Calls(ws)
        nursery.start_soon(calls.run)
        print(await calls.call("add", 1, 2), await calls.call("add", 20, 22))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
