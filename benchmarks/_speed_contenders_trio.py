"""The peers on trio: raw TCP, trio-websocket, `websockets`, httpx-ws."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from functools import partial
from itertools import repeat
from typing import Any, Final, cast

import trio

from benchmarks._speed_client import BEAT, MAX_BYTES, Client, Opened
from benchmarks._speed_exchange import Exchange, Talk, check_echo
from benchmarks._speed_runtimes import Runtime
from benchmarks._speed_words import Message, Scenario, Target


class RawTrio(Client):
    """TCP as trio gives it: no frames, no masks, and no messages, only as many bytes."""

    @asynccontextmanager
    async def talk(self, target: Target, scenario: Scenario) -> AsyncGenerator[Talk]:
        stream: trio.abc.Stream = await trio.open_tcp_stream(target.host, target.raw_port)
        if target.ssl_context is not None:
            stream = trio.SSLStream(stream, target.ssl_context, server_hostname=target.host, https_compatible=True)
        async with stream:
            yield RawTalk(stream)


class RawTalk:
    """The scenarios on a byte stream; those in which the server must know messages are not for it."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def check(self, message: Message) -> None:
        data = _as_bytes(message)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stream.send_all, data)
            answer = bytearray()
            while len(answer) < len(data):
                answer += await self._stream.receive_some()
        check_echo(data, bytes(answer))

    async def rtt(self, message: Message, count: int) -> None:
        data = _as_bytes(message)
        # What the kernel may not hold until we read again has to be read while we write.
        exchange = self._exchange if len(data) < 2**14 else self._exchange_side_by_side
        for _ in range(count):
            await exchange(data)

    async def _exchange(self, data: bytes) -> None:
        await self._stream.send_all(data)
        await self._receive(len(data))

    async def _exchange_side_by_side(self, data: bytes) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stream.send_all, data)
            await self._receive(len(data))

    async def pipe(self, message: Message, count: int) -> None:
        data = _as_bytes(message)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_all, data, count)
            await self._receive(len(data) * count)

    async def _send_all(self, data: bytes, count: int) -> None:
        send_all = self._stream.send_all
        for _ in range(count):
            await send_all(data)

    async def _receive(self, size: int) -> None:
        receive_some = self._stream.receive_some
        while size > 0:
            data = await receive_some()
            if not data:
                raise RuntimeError("the server hung up")
            size -= len(data)

    async def burst(self, message: Message, count: int) -> None:
        raise NotImplementedError

    async def flood(self, count: int) -> None:
        raise NotImplementedError


def _as_bytes(message: Message) -> bytes:
    return message.encode() if isinstance(message, str) else message


class TrioWebsocket(Client):
    """trio-websocket.

    Args:
        options: What to give to `open_websocket_url` besides.
    """

    def __init__(self, runtime: Runtime, options: dict[str, Any] | None = None) -> None:
        super().__init__(runtime)
        import trio_websocket

        self._open: Callable[..., AbstractAsyncContextManager[Any]] = partial(
            trio_websocket.open_websocket_url, max_message_size=MAX_BYTES, **(options or {})
        )

    @asynccontextmanager
    async def talk(self, target: Target, scenario: Scenario) -> AsyncGenerator[Talk]:
        async with self._open(target.url(scenario.path), ssl_context=target.ssl_context) as ws:
            yield Exchange(self.runtime, ws.send_message, ws.get_message)

    async def sit(self, target: Target, opened: Opened) -> None:
        async with self._open(target.url("/echo")) as ws, trio.open_nursery() as nursery:
            opened()
            nursery.start_soon(_beat, ws)
            while True:
                await ws.get_message()


async def _beat(ws: Any) -> None:
    """Do what the documentation of trio-websocket recommends as a heartbeat."""
    while True:
        with trio.fail_after(BEAT):
            await ws.ping()
        await trio.sleep(BEAT)


class WebsocketsTrio(Client):
    """The trio client of `websockets`."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        from websockets.exceptions import ConnectionClosed
        from websockets.trio.client import connect

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
        connected = aiter(self._connect(target.url("/echo"), reconnect_delays=no_delays))
        # It yields inside of a nursery, so that a cancelled loop which just left it behind would corrupt trio.
        async with aclosing(cast("AsyncGenerator[Any]", connected)) as sockets:
            async for ws in sockets:
                opened()
                try:
                    async for _ in ws:
                        pass
                except self._closed:
                    continue


def no_delays() -> Generator[float]:
    """Give the waits between dials that fail; after a connection that was open, `websockets` never waits."""
    yield from repeat(0.0)


# What httpx-ws reads at a time, for all that the name of the option says.
_HTTPX_READ: Final = 256 * 1024


class HttpxWs(Client):
    """httpx-ws, with one client for all connections."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        import httpx
        import httpx_ws

        # By default it would ask the environment for proxies, and have 100 connections at most.
        limits = httpx.Limits(max_connections=None)
        self._make_client = partial(httpx.AsyncClient, trust_env=False, limits=limits)
        self._connect = partial(httpx_ws.aconnect_ws, max_message_size_bytes=_HTTPX_READ)
        self._shared: Any = None

    @asynccontextmanager
    async def talk(self, target: Target, scenario: Scenario) -> AsyncGenerator[Talk]:
        url = target.url(scenario.path)
        make_client = partial(self._make_client, verify=target.ssl_context or False)
        async with make_client() as client, self._connect(url, client) as ws:
            if scenario.is_binary:
                yield Exchange(self.runtime, ws.send_bytes, ws.receive_bytes)
            else:
                yield Exchange(self.runtime, ws.send_text, ws.receive_text)

    async def sit(self, target: Target, opened: Opened) -> None:
        if self._shared is None:
            self._shared = self._make_client(verify=False)
        async with self._connect(target.url("/echo"), self._shared, keepalive_ping_interval_seconds=BEAT) as ws:
            opened()
            while True:
                await ws.receive()

    async def aclose(self) -> None:
        if self._shared is not None:
            await self._shared.aclose()
