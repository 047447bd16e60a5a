"""Lives in a row: dial, live, decide, wait. A plain socket is the same with the rule "never again"."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias, final

import trio

from trio_wsprim._endpoint import End, Endpoint, closed_by_us
from trio_wsprim._errors import ConnectionClosed, ConnectionFailed, WebSocketError
from trio_wsprim._life import Farewell, Life
from trio_wsprim._lifecycle import is_normal
from trio_wsprim._options import Heartbeat
from trio_wsprim._patience import GiveUp, Patience
from trio_wsprim._pings import PendingPing
from trio_wsprim._scopes import peeled_nursery
from trio_wsprim._seam import Ending, Incoming, Link
from trio_wsprim._values import CloseEvent, ErrorEvent, OpenEvent, ReadyState, RetryEvent

_log: Final = logging.getLogger("trio_wsprim.reconnect")
_LOST: Final = 1006

# Makes one connection in a nursery, for an endpoint, and gives what was left unread; the number counts from 1.
Connect: TypeAlias = Callable[[trio.Nursery, Endpoint, int], Awaitable[tuple[Link, Sequence[Incoming]]]]


@final
class Supervisor:
    """The one task that owns a socket's connections.

    Args:
        endpoint: Whose.
        patience: Whether and when to dial again.
        connect: Makes each connection, or raises `ConnectionFailed`.

    Attributes:
        scope: That `run` runs all of itself in.
    """

    __slots__ = (
        "_again",
        "_close_event",
        "_connect_once",
        "_endpoint",
        "_farewell",
        "_fault",
        "_is_dialing",
        "_is_mended",
        "_life",
        "_patience",
        "_present",
        "scope",
    )

    def __init__(self, endpoint: Endpoint, patience: Patience, connect: Connect) -> None:
        self._connect_once = connect
        self._endpoint = endpoint
        self._patience = patience
        self.scope = trio.CancelScope()
        # Around the present attempt or wait, which others may cut short.
        self._present: trio.CancelScope | None = None
        self._life: Life | None = None
        self._farewell: Farewell | None = None
        self._is_dialing = True  # the opener's promise: the task that keeps it is about to start
        self._again = False
        # Whether the message that was the last connection's death has been set aside.
        self._is_mended = False
        self._close_event: CloseEvent | None = None
        # What went wrong outside any task.
        self._fault: BaseException | None = None
        endpoint.outbox.fail = self._fail

    # -------------------------------------------------------------------------------- from outside

    def say_goodbye(self, farewell: Farewell) -> None:
        """Close for good, by the farewell's deadline; the first farewell counts.

        An attempt in flight may go on if something waits to be sent; no other is begun.
        """
        if self._farewell is not None or self._endpoint.end is not None:
            return
        self._farewell = farewell
        endpoint = self._endpoint
        endpoint.outbox.close(closed_by_us)
        endpoint.incoming.close(closed_by_us)
        if endpoint.state.value is not ReadyState.CLOSED:
            endpoint.move(ReadyState.CLOSING)
        if self._life is not None:
            self._life.say_goodbye(farewell)
        elif self._present is None:
            return  # nothing is under way: what comes next asks for the farewell first
        elif self._is_dialing and farewell.drain and endpoint.outbox.has_waiting:
            self._present.deadline = farewell.deadline
        else:
            self._present.cancel()

    def reconnect(self) -> None:
        """Drop the connection, the attempt or the wait, and dial now.

        Raises:
            trio.ClosedResourceError: After the end, or after `say_goodbye`.
        """
        if self._farewell is not None or self._endpoint.end is not None:
            raise trio.ClosedResourceError("this WebSocket has ended, and does not dial again")
        self._again = True
        if self._life is not None:
            self._life.drop()
        if self._present is not None:
            self._present.cancel()

    def kill(self) -> None:
        """End at once, without a word to anybody."""
        self.scope.cancel()

    def _fail(self, error: BaseException) -> None:
        """End at once for what a user's function raised while none of our tasks ran; the first counts."""
        self._fault = self._fault or error
        self.scope.cancel()

    def start_heartbeat(self, heartbeat: Heartbeat) -> None:
        """Beat on the present connection, if there is one, and on all to come."""
        self._endpoint.heartbeat = heartbeat
        self._endpoint.incoming.reply = heartbeat.reply
        if self._life is not None and self._farewell is None:
            self._life.start_heartbeat(heartbeat)

    def ping(self) -> tuple[Life, PendingPing] | None:
        """Send a ping frame now; `None` if no connection is open."""
        return None if self._life is None else (self._life, self._life.ping())

    # -------------------------------------------------------------------------------- the task

    async def run(self) -> None:
        """Own the socket until it ends; raises nothing but a cancellation from outside."""
        error: BaseException | None = None
        try:
            with self.scope:
                error = await self._live_on()
            if self._fault is not None:
                raise self._fault
        except Exception as raised:  # noqa: BLE001 - a user's `retry_if` may raise anything
            error = raised
        finally:
            self._finish(error)

    def _finish(self, error: BaseException | None) -> None:
        told = None if isinstance(error, ConnectionClosed) and is_normal(error.code) else error
        nothing = () if self._endpoint.outbox.tracks else None
        event = self._close_event or CloseEvent(_LOST, "", clean=False, error=told, unconfirmed=nothing)
        self._endpoint.finish(End(event, told, ours=error is None))

    async def _live_on(self) -> Exception | None:
        """Connect again and again; return what ended it, `None` if we did."""
        while self._may_dial():
            self._again = self._is_mended = False
            error = await self._connect()
            if not (error is None or isinstance(error, WebSocketError)):
                return error
            if error is None or self._again:
                continue
            verdict = self._patience.decide(error, is_mended=self._is_mended)
            if isinstance(verdict, GiveUp):
                return verdict.error
            if self._farewell is None:
                await self._pause(verdict, error)
        return None

    def _may_dial(self) -> bool:
        """Whether another attempt may begin: none after our close, but for the first if that has something to send."""
        farewell = self._farewell
        if farewell is None:
            return True
        is_first = self._endpoint.facts.attempts == 0
        return is_first and farewell.drain and self._endpoint.outbox.has_waiting

    async def _pause(self, delay: float, error: Exception) -> None:
        """Wait before the next dial, unless somebody is in a hurry."""
        coming = self._patience.attempt + 1
        _log.info("%s: %s; next dial in %.3g s", self._endpoint.facts.url, error, delay)
        self._endpoint.emit(RetryEvent(coming, delay, error))
        with trio.CancelScope() as self._present:
            await trio.sleep(delay)

    async def _connect(self) -> Exception | None:
        """Dial once and live on the connection; return what went wrong, `None` if it was cut short on purpose."""
        number = self._patience.begin()
        self._endpoint.facts.attempts += 1
        self._close_event = None
        if self._farewell is None:
            self._endpoint.move(ReadyState.CONNECTING)
        error = None
        async with peeled_nursery() as nursery:
            error = await self._connect_in(nursery, number)
            nursery.cancel_scope.cancel()
        return error

    async def _connect_in(self, nursery: trio.Nursery, number: int) -> Exception | None:
        made: tuple[Link, Sequence[Incoming]] | None = None
        self._is_dialing = True
        try:
            with trio.CancelScope() as self._present:
                if self._farewell is not None:
                    self._present.deadline = self._farewell.deadline
                made = await self._connect_once(nursery, self._endpoint, number)
        except ConnectionFailed as error:
            return self._note_failure(error)
        finally:
            self._is_dialing = False
        is_late = self._present.cancel_called
        self._present = None
        if made is None:
            self._rest()
            return None
        link, unread = made
        if is_late:  # cancelled in the very moment in which it opened
            await link.abort()
            self._rest()
            return None
        return await self._live(link, unread, number)

    def _note_failure(self, error: ConnectionFailed) -> ConnectionFailed | None:
        self._rest()
        self._endpoint.emit(ErrorEvent(error))
        return error if self._farewell is None else None

    def _rest(self) -> None:
        """No connection stands. A farewell keeps CLOSING until all is over."""
        if self._farewell is None:
            self._endpoint.move(ReadyState.CLOSED)

    async def _live(self, link: Link, unread: Sequence[Incoming], number: int) -> Exception | None:
        endpoint, facts = self._endpoint, self._endpoint.facts
        facts.connections += 1
        facts.trouble = None
        facts.opened_at = opened_at = trio.current_time()
        facts.subprotocol, facts.response_headers, facts.latency = link.subprotocol, link.response_headers, None
        self._life = life = Life(endpoint, link, unread)
        if self._farewell is not None:
            life.say_goodbye(self._farewell)
        else:
            endpoint.move(ReadyState.OPEN)
        endpoint.emit(OpenEvent(number, link.subprotocol))
        try:
            await life.run()
        finally:
            self._life = None
            facts.opened_at = None
            lasted = self._patience.note_end(trio.current_time() - opened_at)
            self._note_close(link.ending, life, lasted)
        return life.error

    def _note_close(self, ending: Ending, life: Life, lasted: bool) -> None:
        """Tell how a connection ended, and settle what was under way on it."""
        error = self._fault if isinstance(self._fault, Exception) else life.error
        account = self._endpoint.outbox.settle_account(
            is_proved=life.is_proved,
            peers_code=None if ending.is_breach else ending.code,
            lasted=lasted or error is None,  # what we end ourselves has not died
        )
        self._is_mended = account.rejected
        is_quiet = isinstance(error, ConnectionClosed) and is_normal(error.code)
        self._close_event = CloseEvent(
            ending.code, ending.reason, ending.clean, None if is_quiet else error, account.unconfirmed
        )
        self._endpoint.move(ReadyState.CLOSED)
        self._endpoint.emit(self._close_event)
