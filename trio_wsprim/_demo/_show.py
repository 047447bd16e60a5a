"""One run of the demo: a socket of ours, a server that goes wrong, and what is seen of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from math import inf
from types import MappingProxyType
from typing import Final, final

import trio

from trio_wsprim._backoff import Backoff
from trio_wsprim._demo._books import Books, Fault, spans
from trio_wsprim._demo._script import Pace, Stroke, strokes
from trio_wsprim._demo._server import HOST, RETRY_AFTER, FaultyServer
from trio_wsprim._demo._verdict import Check, Outcome, Resend, fault_rows, judge, summary
from trio_wsprim._demo._views import View
from trio_wsprim._errors import ConnectionClosed, HeartbeatTimeout, WebSocketError
from trio_wsprim._heartbeat import make_heartbeat_ws
from trio_wsprim._make import create_reconnecting_ws
from trio_wsprim._values import CloseEvent, ConnectEvent, ErrorEvent, Event, OpenEvent, RetryEvent
from trio_wsprim._websocket import ReconnectingWebSocket

_EARLY: Final = 5
# The whole must be over within 20 s, whatever happens.
_LIMIT: Final = 18.0
_HEALING_LIMIT: Final = 4.0
# Over loopback the last echo takes a millisecond; who waits for longer waits in vain.
_LAST_ECHO_LIMIT: Final = 1.0
_PROSPECTS: Final[Mapping[Resend, str]] = MappingProxyType(
    {"unsent": "told as what may be lost", "unconfirmed": "sent again, before anything newer"}
)


@final
class Show:
    """Runs the demo once.

    Args:
        view: Where it is shown.
        pace: How fast it goes.
        resend: What the socket sends again.
    """

    __slots__ = ("_books", "_echo_came", "_healed", "_pace", "_resend", "_start", "_surprises", "_view")

    def __init__(self, view: View, pace: Pace, resend: Resend) -> None:
        self._view = view
        self._pace = pace
        self._resend: Resend = resend
        self._start = trio.current_time()
        self._books = Books()
        self._surprises: list[str] = []
        self._healed = trio.Event()
        # The next echo: replaced as often as one comes.
        self._echo_came = trio.Event()

    def _now(self) -> float:
        return trio.current_time() - self._start

    def _tell(self, label: str, text: str) -> None:
        self._view.tell(self._now(), label, text)

    # -------------------------------------------------------------------------------- the frame

    async def run(self) -> bool:
        """Run everything, show the table, and tell whether all held that must hold."""
        sockets: list[ReconnectingWebSocket] = []
        returned: list[float] = []
        try:
            with trio.move_on_after(_LIMIT) as limit:
                async with trio.open_nursery() as nursery:
                    server = FaultyServer(nursery, self._note_arrival, returned)
                    await server.listen()
                    async with create_reconnecting_ws(
                        f"ws://{HOST}:{server.port}/",
                        delay=Backoff(first=self._pace.take(0.2), maximum=self._pace.take(1.0), rng=self._pace.rng),
                        min_uptime=self._pace.take(0.5),
                        close_timeout=self._pace.take(2.0),
                        track=True,
                        confirm_interval=self._pace.take(0.1),
                        resend=self._resend,
                    ) as ws:
                        sockets.append(ws)
                        await self._use(ws, server)
                    nursery.cancel_scope.cancel()
            if limit.cancelled_caught:
                self._surprises.append(f"the demo was not over within {_LIMIT:g} s")
        except* BrokenPipeError:
            raise  # who read us has gone: nothing to do with the sockets
        except* (WebSocketError, OSError) as group:
            self._surprises.extend(dict.fromkeys(map(str, _leaves(group))))
        return await self._conclude(sockets, returned)

    async def _use(self, ws: ReconnectingWebSocket, server: FaultyServer) -> None:
        make_heartbeat_ws(ws, message=None, interval=self._pace.take(0.5), wait=self._pace.take(0.5))
        # Both tasks of the outer nursery end with the socket.
        async with ws.events(inf) as events, trio.open_nursery() as nursery:
            numbers = count(1)
            self._send_early(ws, numbers)
            nursery.start_soon(self._watch, events)
            nursery.start_soon(self._receive, ws)
            async with trio.open_nursery() as busy:
                busy.start_soon(self._send, ws, numbers)
                busy.start_soon(self._measure, ws)
                busy.start_soon(self._report, ws)
                await self._strike(server)
                busy.cancel_scope.cancel()
            await self._close(ws)

    async def _close(self, ws: ReconnectingWebSocket) -> None:
        last = max(self._books.sent)
        with trio.move_on_after(_LAST_ECHO_LIMIT):
            while last not in self._books.echoed:
                await self._echo_came.wait()
        self._tell("CLOSING", "done: we say goodbye")
        await ws.aclose()

    async def _conclude(self, sockets: list[ReconnectingWebSocket], returned: list[float]) -> bool:
        seconds = self._now()
        outcome = Outcome(
            resend=self._resend,
            closed=await sockets[0].wait_closed() if sockets else None,
            undelivered=sockets[0].undelivered if sockets else (),
            surprises=self._surprises,
            returned=returned,
            retry_after=RETRY_AFTER,
        )
        checks = judge(self._books, outcome)
        self._view.show_table(list(fault_rows(self._books)), summary(self._books))
        self._view.show_checks([*checks, _overall(checks, seconds)])
        return not any(check.trouble for check in checks)

    # -------------------------------------------------------------------------------- the client's tasks

    def _send_early(self, ws: ReconnectingWebSocket, numbers: Iterator[int]) -> None:
        for number in range(1, 1 + _EARLY):
            ws.send_nowait(str(next(numbers)))
            self._books.sent[number] = self._now()
            self._books.early.append(number)
        self._tell(ws.state.value.name, f"messages 1-{_EARLY} are sent before there is a connection")

    async def _send(self, ws: ReconnectingWebSocket, numbers: Iterator[int]) -> None:
        next_at = trio.current_time()
        while True:
            number = next(numbers)
            # Noted first: what is noted and not sent would show as lost, what is sent and not noted would not.
            self._books.sent[number] = self._now()
            try:
                await ws.send(str(number))
            except trio.Cancelled:
                del self._books.sent[number]
                raise
            next_at += self._pace.take(0.05)
            await trio.sleep_until(next_at)

    async def _receive(self, ws: ReconnectingWebSocket) -> None:
        with suppress(trio.ClosedResourceError):
            async for message in ws:
                self._note_echo(int(message))

    async def _measure(self, ws: ReconnectingWebSocket) -> None:
        while True:
            with suppress(ConnectionClosed):
                await ws.ping()
            await trio.sleep(self._pace.take(0.25))

    async def _report(self, ws: ReconnectingWebSocket) -> None:
        while True:
            await trio.sleep(self._view.status_interval)
            numbers = ws.statistics()
            latency = "unknown" if numbers.latency is None else f"{1000 * numbers.latency:.2f} ms"
            self._view.show_status(
                self._now(),
                f"{ws.state.value.name}: sent {numbers.messages_sent}, waiting {numbers.messages_buffered}, "
                f"received {numbers.messages_received}, latency {latency}",
            )

    async def _watch(self, events: trio.MemoryReceiveChannel[Event]) -> None:
        async for event in events:
            self._note_event(event)

    # -------------------------------------------------------------------------------- the faults

    async def _strike(self, server: FaultyServer) -> None:
        """Let all go well for a while, do the next fault, and wait until it has healed."""
        for stroke in strokes(server, self._pace):
            await trio.sleep(self._pace.lull())
            await self._strike_once(server, stroke)
        await trio.sleep(self._pace.lull())

    async def _strike_once(self, server: FaultyServer, stroke: Stroke) -> None:
        self._healed = trio.Event()
        fault = Fault(name=stroke.name, connection=server.connection, began=self._now(), away=stroke.away)
        self._books.faults.append(fault)
        self._tell("FAULT", stroke.text)
        with trio.move_on_after(_HEALING_LIMIT):
            await stroke.strike()
            await self._healed.wait()

    def _open_fault(self) -> Fault | None:
        """Give the fault that is not healed yet, if there is one."""
        faults = self._books.faults
        return faults[-1] if faults and faults[-1].healed is None else None

    def _note_arrival(self, number: int, connection: int) -> None:
        self._books.arrived.append((number, connection))

    def _note_echo(self, number: int) -> None:
        self._books.echoed.append(number)
        self._echo_came.set()
        self._echo_came = trio.Event()
        fault = self._open_fault()
        connection = self._books.connection_of(number) or 0
        if fault is not None and fault.noticed is not None and connection > fault.connection:
            fault.healed = self._now()
            self._tell("healed", f"{fault.name}: first echo after {1000 * (fault.healed - fault.began):.0f} ms")
            self._healed.set()

    def _note_event(self, event: Event) -> None:
        fault = self._open_fault()
        match event:
            case ConnectEvent(attempt, url):
                if fault is not None:
                    fault.dials += 1
                self._tell("CONNECTING", f"dial {attempt} to {url}")
            case OpenEvent(attempt):
                self._tell("OPEN", f"by dial {attempt}")
            case ErrorEvent(error):
                self._tell("CLOSED", str(error))
            case RetryEvent(attempt, delay):
                self._tell("waiting", f"{delay:.2f} s before dial {attempt}")
            case CloseEvent():
                self._note_close(event, fault)
            case _:
                pass

    def _note_close(self, event: CloseEvent, fault: Fault | None) -> None:
        told = str(event.error or f"cleanly, with code {event.code}")
        self._tell("CLOSED", told)
        doubtful = [int(message) for message in event.unconfirmed or ()]
        self._books.told.update(doubtful)
        if doubtful:
            self._tell("in doubt", f"{spans(doubtful)}: {_PROSPECTS[self._resend]}")
        if fault is not None and fault.noticed is None:
            fault.noticed = self._now()
            fault.told = doubtful
            fault.how = "heartbeat" if isinstance(event.error, HeartbeatTimeout) else "TCP ended"
        elif event.error is not None:
            self._surprises.append(told)


def _leaves(group: BaseExceptionGroup[Exception]) -> Iterator[Exception]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _overall(checks: Sequence[Check], seconds: float) -> Check:
    failed = sum(bool(check.trouble) for check in checks)
    return Check(f"{len(checks)} checks in {seconds:.1f} s", f"{failed} failed" if failed else "")
