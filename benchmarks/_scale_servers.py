"""The servers of the comparison, each as its users write it: an echo, a room that is told things, and a door for us."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import trio

from benchmarks._speed_crowd import resident_kib

Send = Callable[[Any], Awaitable[object]]
Ready = Callable[[int], None]

_HOST: Final = "127.0.0.1"
# Seconds that a client has for the answer to a beat, of all contenders; the default of `websockets`.
_BEAT_TIMEOUT: Final = 20.0


class House:
    """One library's server, with its defaults but for the beat.

    Args:
        beat: Seconds between two beats of a connection; `None` for what the library does by itself.
    """

    def __init__(self, beat: float | None) -> None:
        self.beat = beat
        self.room: set[Any] = set()

    async def run(self, ready: Ready) -> None:
        """Serve until cancelled; tell the port."""
        raise NotImplementedError

    async def broadcast(self, message: str) -> None:
        """Tell everybody in the room, as this library does it."""
        raise NotImplementedError

    async def attend(self, ws: Any, path: str, messages: AsyncIterator[Any], send: Send) -> None:
        """Do for a connection what its path asks for."""
        if path == "/echo":
            async for message in messages:
                await send(message)
        elif path == "/room":
            self.room.add(ws)
            try:
                async for _ in messages:
                    pass
            finally:
                self.room.discard(ws)
        else:
            async for command in messages:
                await send(json.dumps(await self._obey(*command.split())))

    async def _obey(self, command: str, *arguments: str) -> dict[str, float]:
        if command == "broadcast":
            await self.broadcast("x" * int(arguments[0]))
            return {}
        if command == "count":
            return {"clients": len(self.room)}
        if command == "usage":
            return {"cpu": time.process_time()}
        gc.collect()
        return dict(resident_kib())


class Ours(House):
    """Ours.

    Args:
        beat: As for all.
        transport: Its name.
    """

    def __init__(self, beat: float | None, transport: str) -> None:
        super().__init__(beat)
        from trio_wsprim.transports import TrioWebsocketTransport, WebsocketsTransport

        self._transport = {"websockets": WebsocketsTransport, "trio-websocket": TrioWebsocketTransport}[transport]()
        self._server: Any = None

    async def run(self, ready: Ready) -> None:
        from trio_wsprim import create_ws_server

        async with create_ws_server(self._handle, _HOST, transport=self._transport) as self._server:
            ready(self._server.port)
            await trio.sleep_forever()

    async def _handle(self, ws: Any) -> None:
        from trio_wsprim import make_heartbeat_ws

        if self.beat is not None:
            make_heartbeat_ws(ws, message=None, interval=self.beat, wait=_BEAT_TIMEOUT)
        await self.attend(ws, ws.request.path, aiter(ws), ws.send)

    async def broadcast(self, message: str) -> None:
        await self._server.broadcast(message, to=self.room)


class TrioWebsocket(House):
    """The server of trio-websocket.

    Args:
        beat: As for all.
        sizes: What it offers for speed: messages in a queue, and bytes in a read; none for its defaults.
    """

    def __init__(self, beat: float | None, *sizes: int) -> None:
        super().__init__(beat)
        import trio_websocket

        self._closed = trio_websocket.ConnectionClosed
        names = ("message_queue_size", "receive_buffer_size")
        options: dict[str, Any] = dict(zip(names, sizes, strict=False))
        self._serve = partial(trio_websocket.serve_websocket, **options)

    async def run(self, ready: Ready) -> None:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(self._serve, self._handle, _HOST, 0, ssl_context=None))
            ready(server.port)

    async def _handle(self, request: Any) -> None:
        ws = await request.accept()
        # What a handler of its raises ends the server, so one that means to go on catches this.
        with suppress(self._closed):
            if self.beat is None:
                await self.attend(ws, ws.path, self._messages(ws), ws.send_message)
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._beat, ws, self.beat)
                with suppress(self._closed):
                    await self.attend(ws, ws.path, self._messages(ws), ws.send_message)
                nursery.cancel_scope.cancel()

    async def _messages(self, ws: Any) -> AsyncIterator[Any]:
        while True:
            yield await ws.get_message()

    async def _beat(self, ws: Any, seconds: float) -> None:
        """Do what its documentation recommends as a heartbeat."""
        with suppress(self._closed):
            while True:
                with trio.fail_after(_BEAT_TIMEOUT):
                    await ws.ping()
                await trio.sleep(seconds)

    async def broadcast(self, message: str) -> None:
        """It has no call for this; one task for each client is how none holds up the others."""
        async with trio.open_nursery() as nursery:
            for ws in self.room:
                nursery.start_soon(self._tell, ws, message)

    async def _tell(self, ws: Any, message: str) -> None:
        with suppress(self._closed):
            await ws.send_message(message)


class WebsocketsTrio(House):
    """The trio server of `websockets`."""

    def __init__(self, beat: float | None) -> None:
        super().__init__(beat)
        from websockets.trio import server

        self._library: Any = server

    async def run(self, ready: Ready) -> None:
        options = {} if self.beat is None else {"ping_interval": self.beat}
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(self._library.serve, self._handle, 0, host=_HOST, **options))
            ready(server.listeners[0].socket.getsockname()[1])

    async def _handle(self, ws: Any) -> None:
        await self.attend(ws, ws.request.path, aiter(ws), ws.send)

    async def broadcast(self, message: str) -> None:
        await self._library.broadcast(self.room, message)


class WebsocketsAsyncio(House):
    """The asyncio server of `websockets`."""

    def __init__(self, beat: float | None) -> None:
        super().__init__(beat)
        from websockets.asyncio import server

        self._library: Any = server

    async def run(self, ready: Ready) -> None:
        options = {} if self.beat is None else {"ping_interval": self.beat}
        async with self._library.serve(self._handle, _HOST, 0, **options) as server:
            ready(server.sockets[0].getsockname()[1])
            await asyncio.get_running_loop().create_future()

    async def _handle(self, ws: Any) -> None:
        await self.attend(ws, ws.request.path, aiter(ws), ws.send)

    async def broadcast(self, message: str) -> None:
        self._library.broadcast(self.room, message)
