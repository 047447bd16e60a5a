"""The chat of the examples, as a server that can be ended and started again."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final, final

import trio

from tests.peers import free_ports
from tests.test_examples import EXAMPLES, load_file

SERVER: Final = load_file(EXAMPLES / "chat" / "server.py")


@final
class Chat:
    """A chat at two ports of its own, which it gets back each time."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._ports = free_ports(2)

    @property
    def page(self) -> str:
        return f"http://127.0.0.1:{self._ports[0]}/"

    @property
    def sockets(self) -> str:
        return f"ws://127.0.0.1:{self._ports[1]}"

    async def start(self) -> None:
        self._scope, self._ended = trio.CancelScope(), trio.Event()
        await self._nursery.start(self._run)

    async def end(self) -> None:
        self._scope.cancel()
        await self._ended.wait()

    async def _run(self, *, task_status: trio.TaskStatus[list[str]]) -> None:
        with self._scope:
            await SERVER.main("127.0.0.1", *self._ports, task_status=task_status)
        self._ended.set()


@asynccontextmanager
async def chatting() -> AsyncGenerator[Chat]:
    async with trio.open_nursery() as nursery:
        chat = Chat(nursery)
        await chat.start()
        yield chat
        await chat.end()
