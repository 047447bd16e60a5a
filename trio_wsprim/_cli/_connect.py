"""`connect`: lines go out, messages come in, and somebody is told how it goes."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager, suppress
from functools import partial
from math import inf
from typing import Final, final

import trio

from trio_wsprim._cli._arguments import ConnectOrder
from trio_wsprim._cli._contexts import client_context
from trio_wsprim._cli._lines import BadLine, Line
from trio_wsprim._cli._pipes import STDIN, open_source
from trio_wsprim._cli._screens import Screen, choose_screen
from trio_wsprim._cli._signals import Stop, run_until_stopped
from trio_wsprim._cli._words import count, status
from trio_wsprim._errors import ConnectionClosed, WebSocketError
from trio_wsprim._heartbeat import make_heartbeat_ws
from trio_wsprim._make import create_reconnecting_ws, create_ws
from trio_wsprim._options import Options
from trio_wsprim._values import ConnectEvent, EndEvent, Event, MessageEvent, OpenEvent, RetryEvent
from trio_wsprim._websocket import WebSocket

_FAILED: Final = 1
# A peer that never pongs proves nothing. By its answer to our close it still may.
_PROOF_TIMEOUT: Final = 15.0
# Who pressed Ctrl-C does not want to wait for a peer that does not answer.
_STOP_TIMEOUT: Final = 1.0
_STATUS_INTERVAL: Final = 0.25
_LATENCY_INTERVAL: Final = 5.0
_EVENTS_AT_ONCE: Final = 256


def run_connect(order: ConnectOrder) -> int:
    """Run `connect`; give the exit code.

    Raises:
        BadFile: If a file for TLS will not do.
        BrokenPipeError: If nobody reads the output any more, in a group.
    """
    opener = _open(order)
    screen = choose_screen(json=order.json, plain=order.plain)
    try:
        with _quiet_logs():
            return trio.run(run_until_stopped, partial(_converse, order, opener, screen))
    finally:
        screen.close()


async def _converse(
    order: ConnectOrder, opener: AbstractAsyncContextManager[WebSocket], screen: Screen, stop: Stop
) -> int:
    return await Conversation(order, screen, stop).run(opener)


def _open(order: ConnectOrder) -> AbstractAsyncContextManager[WebSocket]:
    options: Options = {
        "headers": order.headers,
        "ssl_context": client_context(order.ca, order.cert, order.key),
        # So that it can be told what may be lost.
        "track": True,
        # As large as the inbox: a person can be shown more than a program wants to be sent.
        "max_message_bytes": None,
    }
    if order.once:
        return create_ws(order.url, order.subprotocols, **options)
    return create_reconnecting_ws(order.url, order.subprotocols, resend=order.resend, **options)


@contextmanager
def _quiet_logs() -> Generator[None]:
    """Keep our logs from standard error, where Python would write those that nobody handles: events tell the same."""
    logger, handler = logging.getLogger("trio_wsprim"), logging.NullHandler()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@final
class Conversation:
    """One run of `connect`.

    Args:
        order: What was asked for.
        screen: Where it is shown, and how lines are read.
        stop: Says when to end.
    """

    __slots__ = ("_attempt", "_dial_at", "_has_failed", "_number", "_order", "_screen", "_stop")

    def __init__(self, order: ConnectOrder, screen: Screen, stop: Stop) -> None:
        self._order = order
        self._screen = screen
        self._stop = stop
        # Which line was read last, and whether one could not be sent, or the socket ended in an error.
        self._number = 0
        self._has_failed = False
        # Which dial in a row it is, and when the next one is due.
        self._attempt = 1
        self._dial_at: float | None = None

    async def run(self, opener: AbstractAsyncContextManager[WebSocket]) -> int:
        """Talk until either side has had enough; give the exit code."""
        # What ended it has been told as an event; the block says it once more.
        with suppress(WebSocketError):
            async with opener as ws:
                await self._talk(ws)
                # It has ended: the last event has come, or a cancelled close has ended it by force.
                if ws.undelivered:
                    self._has_failed = True
                    with trio.move_on_after(_STOP_TIMEOUT):
                        await self._screen.tell(f"not known to have arrived: {count(len(ws.undelivered), 'message')}")
        return _FAILED if self._has_failed else 0

    async def _talk(self, ws: WebSocket) -> None:
        # Without a bound of its own: the inbox, which is emptied as events are shown, holds back the peer.
        async with ws.events(inf) as events:
            if self._order.heartbeat is not None:
                beat = self._order.heartbeat
                make_heartbeat_ws(ws, message=None, interval=beat, wait=beat)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._obey, ws, nursery.cancel_scope)
                nursery.start_soon(self._say_all, ws)
                if self._screen.is_watched:
                    nursery.start_soon(self._measure, ws)
                    nursery.start_soon(self._show_status, ws)
                await self._watch(ws, events)
                nursery.cancel_scope.cancel()

    async def _obey(self, ws: WebSocket, scope: trio.CancelScope) -> None:
        """End when we are asked to: well, if that is quick."""
        await self._stop.wait()
        with trio.move_on_after(_STOP_TIMEOUT):
            await ws.aclose()
            await trio.sleep_forever()  # until all is shown
        scope.cancel()

    # -------------------------------------------------------------------------------- what comes in

    async def _watch(self, ws: WebSocket, events: trio.MemoryReceiveChannel[Event]) -> None:
        """Show all that happens, until the end."""
        while batch := await _take(events):
            for event in batch:
                self._note(event)
            await self._screen.show(batch)
            for event in batch:
                if isinstance(event, MessageEvent):
                    # Its copy in the inbox makes room for another; once we have closed, there is none.
                    with suppress(trio.ClosedResourceError):
                        ws.receive_nowait()

    def _note(self, event: Event) -> None:
        match event:
            case ConnectEvent(attempt, _) | OpenEvent(attempt, _):
                self._attempt, self._dial_at = attempt, None
            case RetryEvent(attempt, delay, _):
                self._attempt, self._dial_at = attempt, trio.current_time() + delay
            case EndEvent(error):
                self._has_failed = self._has_failed or error is not None
            case _:
                pass

    # -------------------------------------------------------------------------------- what goes out

    async def _say_all(self, ws: WebSocket) -> None:
        """Send all lines, see that they arrive, wait for answers, and close."""
        # If the socket ends before that, an event tells it.
        with suppress(WebSocketError, trio.ClosedResourceError):
            await self._read(ws)
            await self._wait_arrival(ws)
            await trio.sleep(self._order.linger)
            await ws.aclose()

    async def _read(self, ws: WebSocket) -> None:
        intake = self._screen.intake
        async with aclosing(open_source(STDIN)) as source:
            while not intake.is_done and (data := await source.read()):
                for line in intake.feed(data):
                    await self._say(ws, line)
                self._screen.show_typing()
        for line in intake.end():
            await self._say(ws, line)

    async def _say(self, ws: WebSocket, line: Line) -> None:
        self._number += 1
        if isinstance(line, BadLine):
            self._has_failed = True
            await self._screen.tell(f"line {self._number} was not sent: {line.why}")
        else:
            self._screen.show_sent(line)
            await ws.send(line)

    async def _wait_arrival(self, ws: WebSocket) -> None:
        """Wait until all has arrived, over any number of connections; what a drop has destroyed is counted at the end.

        Raises:
            WebSocketError: If the socket has ended.
        """
        while True:
            await ws.wait_open()
            with suppress(ConnectionClosed):
                await ws.flush()
                with trio.move_on_after(_PROOF_TIMEOUT):
                    await ws.flush(confirm=True)
                return

    # -------------------------------------------------------------------------------- how it goes

    async def _measure(self, ws: WebSocket) -> None:
        """Take the latency now and then, for who looks on."""
        with suppress(WebSocketError, trio.ClosedResourceError):
            while True:
                await ws.wait_open()
                with suppress(ConnectionClosed):
                    await self._screen.show_latency(await ws.ping())
                    await trio.sleep(_LATENCY_INTERVAL)

    async def _show_status(self, ws: WebSocket) -> None:
        while True:
            until_dial = None if self._dial_at is None else self._dial_at - trio.current_time()
            self._screen.show_status(status(ws.state.value, self._attempt, until_dial, ws.statistics()))
            await trio.sleep(_STATUS_INTERVAL)


async def _take(events: trio.MemoryReceiveChannel[Event]) -> list[Event]:
    """Take the events that are there, at least one; none at the end."""
    batch = list[Event]()
    try:
        batch.append(await events.receive())
        while len(batch) < _EVENTS_AT_ONCE:
            batch.append(events.receive_nowait())
    except (trio.EndOfChannel, trio.WouldBlock):
        pass
    return batch
