"""The handle that users hold: every call looks, puts or takes; none touches the network."""

# pyright: reportPrivateUsage=false
# The functions at the end are friends of the class, which other modules of ours may call and users need not see.

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from math import inf
from types import TracebackType
from typing import Final, Literal, TypeAlias, TypeVar, final

import trio

from trio_wsprim._attempt import attempt
from trio_wsprim._channels import Dropping, check_dropping
from trio_wsprim._endpoint import Endpoint
from trio_wsprim._errors import ConnectionClosed, UndeliveredError, fresh
from trio_wsprim._inbox import Inbox
from trio_wsprim._life import Farewell
from trio_wsprim._lifecycle import check_close
from trio_wsprim._options import Heartbeat, RetryRule, Settings, as_message
from trio_wsprim._patience import Patience
from trio_wsprim._proof import Mark
from trio_wsprim._request import Request
from trio_wsprim._room import message_size
from trio_wsprim._scopes import Pace, serving
from trio_wsprim._seam import Incoming, Link
from trio_wsprim._signal import Signal
from trio_wsprim._supervisor import Connect, Supervisor
from trio_wsprim._values import (
    CloseEvent,
    Event,
    Message,
    ReadyState,
    Statistics,
    Undelivered,
    check_count,
    check_seconds,
)

S = TypeVar("S", bound="WebSocket")
E = TypeVar("E", bound=Event)

# Does all that comes before a connection of a server is open.
Welcome: TypeAlias = "Callable[[ServerWebSocket, trio.Nursery], Awaitable[Link]]"

# What an exception that leaves the block tells the peer: we are going away, done or not (RFC 6455, 7.4.1).
_GOING_AWAY: Final = 1001
_NORMAL: Final = 1000
# Closing by force waits for nobody, unless a user's stream does; then no longer than this.
_FORCE_TIMEOUT: Final = 1.0


class WebSocket(trio.abc.Channel[Message]):
    """A WebSocket whose sends and receives are buffered, and whose connection a nursery owns.

    `create_ws` and `make_ws` make it. Any number of tasks may use it at once.
    """

    __slots__ = ("__weakref__", "_endpoint", "_outbox", "_pace", "_supervisor", "_told", "_was_closed")

    def __init__(self, settings: Settings, rule: RetryRule | None = None, connect: Connect = attempt) -> None:
        resends = rule is not None and rule.resend == "unconfirmed"
        self._endpoint = Endpoint(settings, resends=resends)
        self._supervisor = Supervisor(self._endpoint, Patience(rule), connect)
        self._outbox = self._endpoint.outbox
        self._pace = Pace()
        # Whether the user has called `aclose`, and so takes care of `undelivered`.
        self._was_closed = False
        # The end of a connection that a call has raised; if that ends the socket too, the block need not raise it.
        self._told: BaseException | None = None

    def __repr__(self) -> str:
        """Show state and url, without secrets."""
        return f"<{type(self).__name__} {self.state.value.name} {self.url}>"

    # -------------------------------------------------------------------------------- sending

    async def send(  # pyright: ignore[reportIncompatibleMethodOverride] - a channel's parameter is `value`
        self, message: str | bytes | bytearray | memoryview, *, ttl: float | None = None
    ) -> None:
        """Put one message into the outbox; wait only while that is full.

        Args:
            message: Text goes as text, anything else as binary, copied now.
            ttl: Seconds that it may wait in the outbox; `None` for any time, 0 for now or never.

        Raises:
            TypeError: If it is neither text nor binary.
            ValueError: If `ttl` is negative or no finite number.
            UnicodeEncodeError: If the text has a lone surrogate.
            MessageTooBig: If it is larger than the outbox.
            BufferFull: If the outbox is full, and its policy `"error"`.
            trio.ClosedResourceError: If we have closed.
            ConnectionClosed: If the peer, the network or the heartbeat has ended it for good.
            ConnectionFailed: If no connection came about, for good.

        Cancellation: atomic. The message is in the outbox, or nothing has happened.
        """
        # The common case is told by its type alone, and is one plain call.
        if type(message) is bytes or (type(message) is str and message.isascii()):
            checked, size = message, len(message)
        else:
            checked = as_message(message)
            size = message_size(checked)
        if ttl is not None:
            check_seconds("ttl", ttl)
        await self._pace.step()
        if ttl is not None or not self._outbox.put_quick(checked, size):
            await self._outbox.put(checked, ttl)

    def send_nowait(self, message: str | bytes | bytearray | memoryview, *, ttl: float | None = None) -> None:
        """Put one message into the outbox; as `send`, but never waits.

        Raises:
            trio.WouldBlock: If the outbox is full (a `BufferFull`); and all that `send` raises.
        """
        self._endpoint.outbox.put_nowait(_check(message, ttl), ttl)

    async def flush(self, *, confirm: bool = False) -> None:
        """Wait until all that was sent before has been handed to the network, or has been dropped.

        Args:
            confirm: Wait also until a pong proves that the peer's WebSocket layer has it.

        Raises:
            ConnectionClosed: If a connection ended meanwhile, unless `resend="unconfirmed"` goes on waiting; with
                `confirm`, if one ended before that had handed over something without proof (told once); or if the
                socket has ended for good.
            ConnectionFailed: If no connection comes about, for good.
            trio.ClosedResourceError: If we close meanwhile, and something did not go out.

        Cancellation: atomic.
        """
        outbox = self._endpoint.outbox
        mark = outbox.mark()
        await trio.lowlevel.checkpoint()
        with self._telling():
            if confirm:
                outbox.check_doubt()
            await outbox.flush(mark)
            if confirm:
                await (self._wait_proof(mark) if outbox.tracks else self._prove(mark))

    async def _wait_proof(self, mark: Mark) -> None:
        """Wait until there is proof for each message; over the end of a connection if what is in doubt goes again."""
        # The ping that comes anyway may be a whole interval away. This one only hurries: any pong is welcome.
        hurry = None if self._endpoint.outbox.is_proved(mark) else self._supervisor.ping()
        try:
            await self._endpoint.outbox.wait_proof(mark)
        finally:
            if hurry is not None:
                life, pending = hurry
                life.forget(pending)

    async def _prove(self, mark: Mark) -> None:
        """Wait for one pong: where no account is kept, it has to be the one of a ping that was sent after it all."""
        outbox = self._endpoint.outbox
        try:
            await self._ping()
        except ConnectionClosed:
            outbox.forget_doubt()
            raise
        outbox.check_breaks(mark)

    async def ping(self) -> float:
        """Send a ping frame, ahead of what is buffered, and wait for its pong; wait for an open connection first.

        Returns:
            The round-trip time in seconds; also kept as `latency`.

        Raises:
            ConnectionClosed: If the connection ends first.
            ConnectionFailed: If no connection comes about, for good.
            trio.ClosedResourceError: If we close, or have closed.

        Cancellation: atomic. Nothing is left behind.
        """
        with self._telling():
            return await self._ping()

    async def _ping(self) -> float:
        started = None
        while started is None:
            await self.wait_open()
            started = self._supervisor.ping()
        life, pending = started
        try:
            return await pending.wait()
        finally:
            life.forget(pending)

    @contextmanager
    def _telling(self) -> Generator[None]:
        """Remember that the end of a connection was told by a call which waited for it."""
        try:
            yield
        except Exception:
            self._told = self._endpoint.facts.last_error
            raise

    # -------------------------------------------------------------------------------- receiving

    async def receive(self) -> str | bytes:
        """Take the next message; each goes to exactly one receiver.

        Raises:
            trio.EndOfChannel: After a normal close by the peer (1000, 1001, no code), when all is read.
            trio.ClosedResourceError: If we have closed; what was unread is gone.
            ConnectionClosed: If the peer, the network or the heartbeat has ended it for good otherwise.
            ConnectionFailed: If no connection came about, for good.
            RuntimeError: If the socket was opened with `inbox=None`.

        Cancellation: atomic. No message is lost.
        """
        return await self._inbox().receive()

    async def __anext__(self) -> str | bytes:
        """Take the next message; iteration ends after a normal close by the peer, and raises as `receive` otherwise.

        Cancellation: atomic. No message is lost.
        """
        # What `Inbox.receive` does, once more: here, a coroutine inside a coroutine is felt.
        inbox = self._inbox()
        if inbox.queue:
            await inbox.pace.step()
        if not inbox.queue:
            try:
                await inbox.wait_any()
            except trio.EndOfChannel:
                raise StopAsyncIteration from None
        return inbox.pop()

    def receive_nowait(self) -> str | bytes:
        """Take the next message; as `receive`, but never waits.

        Raises:
            trio.WouldBlock: If no message is there; and all that `receive` raises.
        """
        return self._inbox().receive_nowait()

    async def receive_many(self, max_messages: int | None = None) -> list[str | bytes]:
        """Take all the messages that are there, at least one; otherwise as `receive`.

        Args:
            max_messages: At most so many, at least 1; `None` for no limit.

        Cancellation: atomic. No message is lost.
        """
        check_count("max_messages", max_messages, least=1, none=True)
        return await self._inbox().receive_many(max_messages)

    def _inbox(self) -> Inbox:
        inbox = self._endpoint.incoming.inbox
        if inbox is None:
            raise RuntimeError("this WebSocket has inbox=None: use message, subscribe() or events()")
        return inbox

    def subscribe(
        self,
        max_buffer_size: float = 1024,
        *,
        when_full: Literal["wait", "drop_oldest", "drop_newest"] = "wait",
    ) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[str | bytes]]:
        """Open a channel with a copy of every message from now on, for the time of an `async with` block.

        Args:
            max_buffer_size: Messages that may wait in it; `math.inf` for no limit; at least 1 if it drops.
            when_full: `"wait"` stops reading, as a full inbox does; or drop without a word.

        Raises:
            ValueError: If an argument is out of range.
        """
        if when_full == "wait":
            check_count("max_buffer_size", max_buffer_size, inf=True)
        else:
            check_dropping(max_buffer_size, when_full)
        return self._endpoint.incoming.subscribe(max_buffer_size, when_full)

    def events(
        self, max_buffer_size: float = 1024, *, when_full: Dropping = "drop_oldest"
    ) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[Event]]:
        """Open a channel of everything that happens from now on, for the time of an `async with` block.

        Entered first thing after opening, it misses nothing. It never slows the socket down.

        Args:
            max_buffer_size: Events that may wait in it, at least 1; `math.inf` for no limit.
            when_full: Which event goes when its reader is too slow.

        Raises:
            ValueError: If an argument is out of range.
        """
        check_dropping(max_buffer_size, when_full)
        return self._endpoint.hub.watch(max_buffer_size, when_full)

    # -------------------------------------------------------------------------------- looking

    @property
    def state(self) -> Signal[ReadyState]:
        """The ready state."""
        return self._endpoint.state.signal

    @property
    def message(self) -> Signal[str | bytes | None]:
        """The last message received; `None` before the first."""
        return self._endpoint.incoming.message.signal

    @property
    def url(self) -> str:
        """Of the present or latest connection, without user, password and query; empty before a function said it."""
        return self._endpoint.facts.url

    @property
    def subprotocol(self) -> str | None:
        """What the server of the present or latest connection chose; `None` if nothing."""
        return self._endpoint.facts.subprotocol

    @property
    def response_headers(self) -> tuple[tuple[str, str], ...]:
        """Of the present or latest connection, names in lower case; empty before the first."""
        return self._endpoint.facts.response_headers

    @property
    def latency(self) -> float | None:
        """Round-trip time of the last answered ping, in seconds; `None` before the first.

        The pings of a heartbeat are not timed.
        """
        return self._endpoint.facts.latency

    @property
    def undelivered(self) -> tuple[Undelivered, ...]:
        """After the end: what is not known to have arrived, in the order sent. Empty before."""
        return self._endpoint.undelivered()

    def statistics(self) -> Statistics:
        """Take a reading of the counters, over all connections so far."""
        return self._endpoint.statistics()

    async def wait_open(self) -> None:
        """Wait until the connection is open; at once if it is.

        Raises:
            ConnectionFailed: If no connection comes about, for good.
            ConnectionClosed: If it was open, and has ended for good.
            trio.ClosedResourceError: If we have closed.

        Cancellation: atomic.
        """
        with suppress(trio.EndOfChannel):
            await self.state.wait_value(ReadyState.OPEN)
            return
        end = self._endpoint.end
        assert end is not None
        raise end.for_sender()

    async def wait_closed(self) -> CloseEvent:
        """Wait until it has ended for good; a pause between two connections does not count.

        Returns:
            How: code 1006, and the error, where no connection came about.

        Cancellation: atomic.
        """
        return (await self._endpoint.wait_end()).event

    # -------------------------------------------------------------------------------- closing

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Close for good: let the outbox drain, do the closing handshake, all within `close_timeout`.

        It drains if the connection is open, or being opened with something to send; it never dials anew. Nothing
        can be sent from now on, and what is unread is gone. Closing twice is fine.

        Args:
            code: 1000 to 1003, 1007 to 1011 or 3000 to 4999.
            reason: At most 123 bytes of UTF-8.

        Raises:
            ValueError: If code or reason will not do; nothing is closed.

        Cancellation: always closes; at once, and without the rest of the handshake.
        """
        check_close(code, reason)
        self._was_closed = True
        await self._close(code, reason, drain=True)

    async def _close(self, code: int, reason: str, *, drain: bool) -> None:
        timeout = self._endpoint.settings.close_timeout
        deadline = inf if timeout is None else trio.current_time() + timeout
        self._supervisor.say_goodbye(Farewell(code, reason, deadline, drain))
        try:
            await self._endpoint.wait_end()
        except trio.Cancelled:
            self._supervisor.kill()
            with trio.move_on_after(_FORCE_TIMEOUT, shield=True):
                await self._endpoint.wait_end()
            raise

    def _raise_the_rest(self) -> None:
        """Raise what nobody was told: the error that ended the socket, or that messages stay undelivered."""
        end = self._endpoint.end
        assert end is not None
        if not (end.error is None or end.was_told or end.error is self._told):
            raise fresh(end.error)
        if self.undelivered and not self._was_closed:
            raise UndeliveredError(self.undelivered) from self._endpoint.facts.trouble


@final
class ReconnectingWebSocket(WebSocket):
    """A `WebSocket` that dials again whenever its connection ends, until we close it or its rules say stop."""

    __slots__ = ()

    def reconnect(self) -> None:
        """Drop the present connection, or cut short the present attempt or wait, and dial now.

        Without a closing handshake; once for any number of calls in a row.

        Raises:
            trio.ClosedResourceError: After the end, whatever ended it.
        """
        self._supervisor.reconnect()


@final
class ServerWebSocket(WebSocket):
    """A connection of a server, as its handler gets it; otherwise as any `WebSocket`."""

    __slots__ = ("_request", "_welcome")

    def __init__(self, settings: Settings, welcome: Welcome) -> None:
        super().__init__(settings, connect=self._connect)
        self._welcome = welcome
        self._request: Request | None = None

    async def _connect(
        self, nursery: trio.Nursery, _endpoint: Endpoint, _number: int
    ) -> tuple[Link, Sequence[Incoming]]:
        return await self._welcome(self, nursery), ()

    @property
    def request(self) -> Request:
        """What the client has asked for."""
        assert self._request is not None, "a handler is called when there is one"
        return self._request

    # What follows is for the server alone.

    def _introduce(self, request: Request, scheme: str) -> None:
        """Say who has come."""
        self._request = request
        self._endpoint.facts.url = f"{scheme}://{request.header('host') or ''}{request.shown_path}"

    @property
    def _shown(self) -> str:
        """Who it is, for logs, without secrets."""
        return "a client" if self._request is None else repr(self._request)

    @property
    def _is_ended_by_us(self) -> bool:
        return self._endpoint.end is not None and self._endpoint.end.ours

    def _say_goodbye(self, code: int, deadline: float = inf) -> None:
        """Begin to close, after draining; by that deadline, or else within `close_timeout`."""
        timeout = self._endpoint.settings.close_timeout
        if deadline == inf and timeout is not None:
            deadline = trio.current_time() + timeout
        self._supervisor.say_goodbye(Farewell(code, "", deadline, drain=True))


def start(ws: WebSocket, nursery: trio.Nursery) -> None:
    """Start a socket's one task in a nursery."""
    nursery.start_soon(ws._supervisor.run, name=repr(ws))


@final
class owned(AbstractAsyncContextManager[S]):  # noqa: N801 - reads as a statement: `async with owned(ws):`
    """Run a socket for the time of a block, and close it after it, in the way in which the block was left."""

    # A class, since a generator takes a KiB more for each socket.
    __slots__ = ("_is_used", "_serving", "_ws")

    def __init__(self, ws: S) -> None:
        self._ws = ws
        self._serving = serving(ws._supervisor.run, ws._supervisor.scope)
        self._is_used = False

    async def __aenter__(self) -> S:
        """Start it."""
        if self._is_used:
            raise RuntimeError("this socket had its block already; open another one")
        self._is_used = True
        await self._serving.__aenter__()
        return self._ws

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Close it, and raise what nobody was told, unless the user's own error leaves."""
        try:
            await self._leave(error)
        except BaseException as raised:
            await self._serving.__aexit__(type(raised), raised, raised.__traceback__)
            raise
        return await self._serving.__aexit__(kind, error, traceback)

    async def _leave(self, error: BaseException | None) -> None:
        if error is None:
            await self._ws._close(_NORMAL, "", drain=True)
            self._ws._raise_the_rest()
        else:
            # The error that leaves is the user's; a cancellation that comes on top has had its effect.
            with suppress(trio.Cancelled):
                await self._ws._close(_GOING_AWAY, "", drain=False)


def start_heartbeat(ws: WebSocket, heartbeat: Heartbeat) -> None:
    """Give a socket a heartbeat, instead of any that it had."""
    ws._supervisor.start_heartbeat(heartbeat)


def latest_event(ws: WebSocket, kind: type[E]) -> Signal[E | None]:
    """Give the signal of a socket's latest event of a kind."""
    return ws._endpoint.hub.latest(kind)


def _check(message: object, ttl: float | None) -> Message:
    """Check what `send` was given; nothing has happened yet when this raises."""
    checked = as_message(message)
    if ttl is not None:
        check_seconds("ttl", ttl)
    return checked
