"""What one socket consists of, over all its connections: its buffers, its signals, its numbers and its end."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final, final

import trio

from trio_wsprim._errors import ConnectionClosed, fresh
from trio_wsprim._events_hub import EventsHub
from trio_wsprim._incoming import Incoming
from trio_wsprim._lifecycle import check_move
from trio_wsprim._options import Heartbeat, Settings
from trio_wsprim._outbox import Outbox
from trio_wsprim._signal import Variable
from trio_wsprim._urls import Target
from trio_wsprim._values import (
    CloseEvent,
    DropEvent,
    EndEvent,
    ErrorEvent,
    Event,
    ReadyState,
    Statistics,
    Undelivered,
    describe_message,
)

_log: Final = logging.getLogger("trio_wsprim.buffer")


@dataclass(slots=True)
class Facts:
    """What is known of the present or latest connection, and counted over all of them.

    Attributes:
        url: Shown without secrets; empty before a url function first said one.
        opened_at: When the present connection opened, on trio's clock; `None` without one.
        dropped: Messages dropped, in and out.
        trouble: Why there is no connection; `None` if nothing has failed since the latest one opened.
    """

    url: str = ""
    subprotocol: str | None = None
    response_headers: tuple[tuple[str, str], ...] = ()
    latency: float | None = None
    opened_at: float | None = None
    attempts: int = 0
    connections: int = 0
    dropped: int = 0
    last_error: BaseException | None = None
    trouble: BaseException | None = None


@final
class End:
    """How a socket ended for good.

    Args:
        event: The close that ended it.
        error: What went wrong; `None` if nothing did.
        ours: Whether we closed it.
    """

    __slots__ = ("error", "event", "ours", "was_told")

    def __init__(self, event: CloseEvent, error: BaseException | None, ours: bool) -> None:
        self.event = event
        self.error = error
        self.ours = ours
        # Whether some call has raised the error, so that the end of the block need not.
        self.was_told = False

    def for_receiver(self) -> BaseException:
        """Make the error that `receive` raises."""
        if self.error is None and not self.ours:
            return trio.EndOfChannel("the peer closed the connection normally")
        return self.for_sender()

    def for_sender(self) -> BaseException:
        """Make the error that `send` and all other calls raise."""
        if self.ours:
            return closed_by_us()
        if self.error is None:
            return ConnectionClosed(self.event.code, self.event.reason, self.event.clean)
        self.was_told = True
        return fresh(self.error)


def closed_by_us() -> BaseException:
    """Make the error of a call after our own close."""
    return trio.ClosedResourceError("this WebSocket has been closed on our side")


@final
class Endpoint:
    """The parts of one socket, in one place for the tasks that work on them."""

    __slots__ = (
        "_ended",
        "end",
        "facts",
        "heartbeat",
        "hub",
        "incoming",
        "outbox",
        "settings",
        "state",
    )

    def __init__(self, settings: Settings, *, resends: bool) -> None:
        self.settings = settings
        self.hub = EventsHub()
        self.outbox = Outbox(settings.outbox, self._drop, tracks=settings.track or resends, resends=resends)
        self.incoming = Incoming(settings.inbox, self.hub, self._drop)
        self.state = Variable(ReadyState.CONNECTING)
        self.facts = Facts(url=settings.url.shown if isinstance(settings.url, Target) else "")
        self.heartbeat: Heartbeat | None = None
        self.end: End | None = None
        # There only when somebody waits for it, since it takes 300 bytes.
        self._ended: trio.Event | None = None

    def move(self, state: ReadyState) -> None:
        """Change the state, if it is another."""
        if state is not self.state.value:
            check_move(self.state.value, state)
            self.state.set(state)

    def emit(self, event: Event) -> None:
        """Tell those who watch, and remember what went wrong."""
        if isinstance(event, ErrorEvent | CloseEvent) and event.error is not None:
            self.facts.last_error = self.facts.trouble = event.error
        self.hub.emit(event)

    def _drop(self, event: DropEvent) -> None:
        self.facts.dropped += 1
        if self.facts.dropped.bit_count() == 1:  # the 1st, 2nd, 4th, 8th …: a flood must not flood the log
            _log.warning(
                "%s: %s dropped (%s), %s so far",
                self.facts.url,
                describe_message(event.message),
                event.why,
                self.facts.dropped,
            )
        self.emit(event)

    def finish(self, end: End) -> None:
        """End everything, once and for all; whoever waits wakes."""
        self.end = end
        self.outbox.end(end.for_sender)
        if end.ours:
            self.incoming.close(end.for_receiver)
        self.incoming.end(end.for_receiver)
        self.move(ReadyState.CLOSED)
        self.state.end()
        self.emit(EndEvent(end.error))
        self.hub.end()
        if self._ended is not None:
            self._ended.set()

    async def wait_end(self) -> End:
        """Wait until it has ended for good. Cancellation: atomic."""
        if self.end is None:
            if self._ended is None:
                self._ended = trio.Event()
            await self._ended.wait()
        else:
            await trio.lowlevel.checkpoint()
        assert self.end is not None
        return self.end

    def undelivered(self) -> tuple[Undelivered, ...]:
        """What is left of the outbox after the end; nothing before."""
        return () if self.end is None else self.outbox.leftovers()

    def statistics(self) -> Statistics:
        """Take a reading."""
        outbox, incoming, facts = self.outbox, self.incoming, self.facts
        return Statistics(
            messages_sent=outbox.messages_sent,
            bytes_sent=outbox.bytes_sent,
            messages_received=incoming.messages_received,
            bytes_received=incoming.bytes_received,
            messages_buffered=outbox.messages_buffered,
            bytes_buffered=outbox.bytes_buffered,
            messages_unconfirmed=outbox.messages_unconfirmed,
            messages_dropped=facts.dropped,
            attempts=facts.attempts,
            connections=facts.connections,
            uptime=None if facts.opened_at is None else trio.current_time() - facts.opened_at,
            latency=facts.latency,
            last_error=facts.last_error,
        )
