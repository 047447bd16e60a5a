"""The peers on asyncio that have coroutines: `websockets` and aiohttp, each also on uvloop."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any, cast

from benchmarks._speed_client import BEAT, MAX_BYTES, Client, Opened
from benchmarks._speed_contenders_trio import no_delays
from benchmarks._speed_exchange import Exchange, Talk
from benchmarks._speed_runtimes import Runtime
from benchmarks._speed_words import Scenario, Target


class WebsocketsAsyncio(Client):
    """The asyncio client of `websockets`."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        from websockets.asyncio.client import connect
        from websockets.exceptions import ConnectionClosed

        self._connect = partial(connect, compression=None, max_size=MAX_BYTES, proxy=None)
        self._closed = ConnectionClosed

    @asynccontextmanager
    async def talk(self, target: Target, scenario: Scenario) -> AsyncGenerator[Talk]:
        connect = self._connect(target.url(scenario.path), ssl=target.ssl_context)
        async with connect as ws, aclosing(cast("AsyncGenerator[Any]", aiter(ws))) as messages:
            yield Exchange(self.runtime, ws.send, ws.recv, messages)

    async def sit(self, target: Target, opened: Opened) -> None:
        async with self._connect(target.url("/echo"), ping_interval=BEAT) as ws:
            opened()
            async for _ in ws:
                pass

    async def stay(self, target: Target, opened: Opened) -> None:
        async for ws in self._connect(target.url("/echo"), reconnect_delays=no_delays):
            opened()
            try:
                async for _ in ws:
                    pass
            except self._closed:
                continue


class Aiohttp(Client):
    """aiohttp, with one session for all connections, as its documentation demands."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        import aiohttp

        self._aiohttp = aiohttp
        self._session: Any = None

    def _shared(self) -> Any:
        if self._session is None:
            self._session = self._aiohttp.ClientSession(connector=self._aiohttp.TCPConnector(limit=0))
        return self._session

    @asynccontextmanager
    async def talk(self, target: Target, scenario: Scenario) -> AsyncGenerator[Talk]:
        tls = target.ssl_context or True
        async with self._shared().ws_connect(target.url(scenario.path), ssl=tls, max_msg_size=MAX_BYTES) as ws:
            yield Exchange(self.runtime, ws.send_bytes if scenario.is_binary else ws.send_str, ws.receive, aiter(ws))

    async def sit(self, target: Target, opened: Opened) -> None:
        async with self._shared().ws_connect(target.url("/echo"), heartbeat=BEAT) as ws:
            opened()
            async for _ in ws:
                pass

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
