"""Our own contenders: the public API and default options, on each of our transports."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import trio

from benchmarks._speed_client import BEAT, MAX_BYTES, Client, Opened
from benchmarks._speed_exchange import Exchange, Talk
from benchmarks._speed_runtimes import Runtime
from benchmarks._speed_words import Scenario, Target
from trio_wsprim import (
    Buffer,
    OpenEvent,
    TrioWebsocketTransport,
    WebSocket,
    WebsocketsTransport,
    create_reconnecting_ws,
    create_ws,
    make_heartbeat_ws,
)
from trio_wsprim.abc import Transport

# What is unconfirmed counts against the outbox, and proof is asked for ten times a second: without room for what goes
# out in a tenth of a second, it would be that room that is measured.
WIDE: Final = Buffer(max_messages=2**17, max_bytes=2**28)


_TRANSPORTS: Final[dict[str, Callable[[], Transport]]] = {
    "websockets": WebsocketsTransport,
    "trio-websocket": TrioWebsocketTransport,
}


class Ours(Client):
    """`create_ws`, as it comes.

    Args:
        transport: What the transport stands on.
        outbox: Another one than the default.
    """

    def __init__(self, runtime: Runtime, transport: str, outbox: Buffer | None = None) -> None:
        super().__init__(runtime)
        self._transport = _TRANSPORTS[transport]()
        self._outbox = outbox or Buffer()

    @asynccontextmanager
    async def talk(self, target: Target, scenario: Scenario) -> AsyncGenerator[Talk]:
        async with self._create(target.url(scenario.path), target) as ws:
            await ws.wait_open()
            yield self._exchange(ws)

    def _create(self, url: str, target: Target) -> AbstractAsyncContextManager[WebSocket]:
        return create_ws(
            url,
            ssl_context=target.ssl_context,
            max_message_bytes=MAX_BYTES,
            outbox=self._outbox,
            transport=self._transport,
        )

    def _exchange(self, ws: WebSocket) -> Talk:
        return Exchange(self.runtime, ws.send, ws.receive, aiter(ws))

    async def sit(self, target: Target, opened: Opened) -> None:
        async with create_ws(target.url("/echo"), transport=self._transport) as ws:
            make_heartbeat_ws(ws, message=None, interval=BEAT)
            await ws.wait_open()
            opened()
            async for _ in ws:
                pass

    async def stay(self, target: Target, opened: Opened) -> None:
        url = target.url("/echo")
        async with create_reconnecting_ws(url, delay=0.0, transport=self._transport) as ws, ws.events() as events:
            async for event in events:
                if isinstance(event, OpenEvent):
                    opened()


class OursMany(Ours):
    """The same, where a flood is received with `receive_many`."""

    def _exchange(self, ws: WebSocket) -> Talk:
        return ManyExchange(self.runtime, ws)


class ManyExchange(Exchange):
    """Takes all messages that are there at once."""

    def __init__(self, runtime: Runtime, ws: WebSocket) -> None:
        super().__init__(runtime, ws.send, ws.receive)
        self._ws = ws

    async def _receive_all(self, count: int) -> None:
        receive_many = self._ws.receive_many
        while count > 0:
            count -= len(await receive_many())


class OursWide(Ours):
    """The same with a wide outbox: what the next one is compared with."""

    def __init__(self, runtime: Runtime, transport: str) -> None:
        super().__init__(runtime, transport, WIDE)


class OursLoaded(OursWide):
    """A reconnecting socket with everything on: heartbeat, state, events, and proof that each message arrived."""

    @asynccontextmanager
    async def talk(self, target: Target, scenario: Scenario) -> AsyncGenerator[Talk]:
        socket = create_reconnecting_ws(
            target.url(scenario.path),
            ssl_context=target.ssl_context,
            max_message_bytes=MAX_BYTES,
            outbox=self._outbox,
            transport=self._transport,
            resend="unconfirmed",
        )
        async with socket as ws, trio.open_nursery() as nursery:
            make_heartbeat_ws(ws, message=None)
            nursery.start_soon(_watch_state, ws)
            nursery.start_soon(_watch_events, ws)
            await ws.wait_open()
            yield self._exchange(ws)
            nursery.cancel_scope.cancel()


async def _watch_state(ws: WebSocket) -> None:
    async for _ in ws.state.values():
        pass


async def _watch_events(ws: WebSocket) -> None:
    async with ws.events(math.inf) as events:
        async for _ in events:
            pass
