"""`serve`: a server for trying things out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from functools import partial
from typing import Final, final

import trio

from trio_wsprim._cli._arguments import ServeOrder
from trio_wsprim._cli._contexts import server_context
from trio_wsprim._cli._lines import BadLine, Line, LineSplitter
from trio_wsprim._cli._pipes import STDERR, STDIN, STDOUT, Sink, open_source
from trio_wsprim._cli._signals import Stop, run_until_stopped
from trio_wsprim._cli._words import count, safe
from trio_wsprim._errors import ConnectionClosed, WebSocketError
from trio_wsprim._heartbeat import make_heartbeat_ws
from trio_wsprim._server import Server, create_ws_server
from trio_wsprim._server_options import ServerOptions
from trio_wsprim._websocket import ServerWebSocket

_FAILED: Final = 1
# After so many lines of `broadcast`, or a long one, we look whether the clients keep up: well within the 1024 messages
# and 16 MiB that each may have waiting.
_LINES_AT_ONCE: Final = 256
_LONG_LINE: Final = 32_768
# Who pressed Ctrl-C waits so many seconds for clients that do not answer; nobody who is asked to leave takes longer.
_STOP_TIMEOUT: Final = 2.0
# Seconds for which all wait for a slow client, each time.
_PATIENCE: Final = 1.0


def run_serve(order: ServeOrder) -> int:
    """Run `serve`; give the exit code.

    Raises:
        BadFile: If a file for TLS will not do.
        BrokenPipeError: If nobody reads the output any more, in a group.
    """
    options: ServerOptions = {"ssl_context": server_context(order.cert, order.key)}
    if order.origins:
        options["origins"] = "*" if "*" in order.origins else order.origins
    return trio.run(run_until_stopped, partial(_serve, order, options))


async def _serve(order: ServeOrder, options: ServerOptions, stop: Stop) -> int:
    return await Service(order, stop).run(options)


@final
class Service:
    """One run of `serve`.

    Args:
        order: What was asked for.
        stop: Says when to end.
    """

    __slots__ = (
        "_guests",
        "_has_bad_lines",
        "_is_up",
        "_missed",
        "_number",
        "_order",
        "_server",
        "_since_wait",
        "_sink",
        "_slow",
        "_stop",
    )

    def __init__(self, order: ServeOrder, stop: Stop) -> None:
        self._order = order
        self._stop = stop
        self._sink = Sink()
        self._server: Server | None = None
        self._is_up = trio.Event()
        # The name of everybody in the chat, and how many have come.
        self._guests: dict[ServerWebSocket, str] = {}
        self._number = 0
        # Lines of `broadcast` that somebody has not got, and whether there were some that cannot be sent.
        self._missed = 0
        self._has_bad_lines = False
        # Who has missed one is not waited for again.
        self._slow: set[ServerWebSocket] = set()
        self._since_wait = 0

    async def run(self, options: ServerOptions) -> int:
        """Serve until somebody wants us to end; give the exit code."""
        host, port = self._order.host, self._order.port
        try:
            options["listeners"] = await trio.open_tcp_listeners(port, host=host)
        except (OSError, UnicodeError) as error:  # the latter for what can be no name of a host
            await self._tell(f"cannot listen on {host}, port {port}: {error}")
            return _FAILED
        async with create_ws_server(self._host, **options) as server:
            self._server = server
            await self._sink.write(STDOUT, f"{server.url}\n")
            self._is_up.set()
            await self._work()
            if self._stop.code is not None:
                await self._tell("closing")
                await server.aclose(_STOP_TIMEOUT)
        if self._missed:
            await self._tell(f"some clients were too slow: {count(self._missed, 'line')} did not go to everybody")
        return _FAILED if self._missed or self._has_bad_lines else 0

    async def _work(self) -> None:
        async with trio.open_nursery() as nursery:
            if self._order.mode == "broadcast":
                nursery.start_soon(self._broadcast, nursery.cancel_scope)
            await self._stop.wait()
            nursery.cancel_scope.cancel()

    async def _tell(self, text: str) -> None:
        await self._sink.write(STDERR, f"{safe(text)}\n")

    # -------------------------------------------------------------------------------- the input

    async def _broadcast(self, scope: trio.CancelScope) -> None:
        """Hand all lines to all clients, and end."""
        intake = LineSplitter()
        async with aclosing(open_source(STDIN)) as source:
            while data := await source.read():
                for line in intake.feed(data):
                    await self._send_all(line)
                await self._wait_for_slow()
        for line in intake.end():
            await self._send_all(line)
        scope.cancel()

    async def _send_all(self, line: Line) -> None:
        if isinstance(line, BadLine):
            self._has_bad_lines = True
            await self._tell(f"a line was not sent: {line.why}")
        else:
            assert self._server is not None
            full = await self._server.broadcast(line)
            self._missed += bool(full)
            self._slow |= full
            self._since_wait += 1
            if self._since_wait >= _LINES_AT_ONCE or len(line) > _LONG_LINE:
                await self._wait_for_slow()

    async def _wait_for_slow(self) -> None:
        """Let the clients take what they have got, so that a file of any length can be sent; nobody for long."""
        assert self._server is not None
        self._since_wait = 0
        with trio.move_on_after(_PATIENCE):
            async with trio.open_nursery() as nursery:
                for ws in self._server.connections - self._slow:
                    nursery.start_soon(_wait_drained, ws)

    # -------------------------------------------------------------------------------- the clients

    async def _host(self, ws: ServerWebSocket) -> None:
        await self._is_up.wait()
        beat = self._order.heartbeat
        if beat is not None:
            make_heartbeat_ws(ws, message=None, interval=beat, wait=beat)
        self._number += 1
        name = f"guest {self._number}"
        await self._tell(f"{name} came from {ws.request.shown_remote} for {ws.request.shown_path}")
        handle: Callable[[ServerWebSocket, str], Awaitable[None]] = {
            "echo": self._echo,
            "chat": self._chat,
            "broadcast": self._be_quiet,
        }[self._order.mode]
        # Who goes without a word has gone, too.
        with suppress(ConnectionClosed, trio.ClosedResourceError):
            await handle(ws, name)
        self._slow.discard(ws)
        await self._tell(f"{name} went")

    async def _echo(self, ws: ServerWebSocket, _name: str) -> None:
        async for message in ws:
            await ws.send(message)

    async def _be_quiet(self, ws: ServerWebSocket, _name: str) -> None:
        async for _ in ws:
            pass  # what clients say is read, so that their pings and closes are, and goes nowhere

    async def _chat(self, ws: ServerWebSocket, name: str) -> None:
        self._guests[ws] = name
        await self._send_others(ws, f"* {name} came")
        try:
            async for message in ws:
                await self._send_others(ws, f"{name}: {message}" if isinstance(message, str) else message)
        finally:
            del self._guests[ws]
        await self._send_others(ws, f"* {name} went")

    async def _send_others(self, ws: ServerWebSocket, message: str | bytes) -> None:
        assert self._server is not None
        await self._server.broadcast(message, to=[guest for guest in self._guests if guest is not ws])


async def _wait_drained(ws: ServerWebSocket) -> None:
    # One that ends meanwhile keeps nobody waiting.
    with suppress(WebSocketError, trio.ClosedResourceError):
        await ws.flush()
