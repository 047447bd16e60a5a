"""One life of one link: read, write, beat, until it ends or we say goodbye."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, cast, final

import trio

from trio_wsprim._clock import Alarm, the_clock
from trio_wsprim._endpoint import Endpoint, closed_by_us
from trio_wsprim._errors import ConnectionClosed
from trio_wsprim._heart import Heart
from trio_wsprim._options import Heartbeat
from trio_wsprim._pings import PendingPing, Pings
from trio_wsprim._reading import Reading
from trio_wsprim._scopes import peeled_nursery
from trio_wsprim._seam import Ending, Incoming, Link, Outgoing, Pong
from trio_wsprim._values import Message, ReadyState
from trio_wsprim._writer import LAST_WORDS, Writer

# At 64 KiB a turn this is what a kernel keeps for us at most (Linux: 6 MiB by default).
_MOST_READS: Final = 96
_NORMAL: Final = 1000
_NO_CODE: Final = 1005
_LOST: Final = 1006


@dataclass(frozen=True, slots=True)
class Farewell:
    """Our own close.

    Attributes:
        code: Close code.
        reason: Close reason.
        deadline: When it is over at the latest, on trio's clock.
        drain: Whether what is buffered goes out first.
    """

    code: int
    reason: str
    deadline: float
    drain: bool


@final
class Life:
    """Runs a link for an endpoint.

    Args:
        endpoint: Whose outbox it empties, and whom it tells what comes in.
        link: Its own from now on.
        unread: What `setup` has left unread.

    Attributes:
        error: What ended it: `ConnectionClosed`, what a user's function raised, or `None` if we did.
    """

    __slots__ = (
        "_closing",
        "_deadline",
        "_endpoint",
        "_farewell",
        "_heart",
        "_is_dropped",
        "_is_left",
        "_is_over",
        "_link",
        "_nursery",
        "_peers_close",
        "_pings",
        "_reading",
        "_unread",
        "_was_behind",
        "_writer",
        "error",
    )

    def __init__(self, endpoint: Endpoint, link: Link, unread: Sequence[Incoming]) -> None:
        self._endpoint = endpoint
        self._link = link
        self._unread = unread
        self._nursery: trio.Nursery | None = None
        # Around the closing handshake; and when that, or all before it, is over at the latest.
        self._closing: trio.CancelScope | None = None
        self._deadline = inf
        watch = None if endpoint.settings.write_timeout is None else self._watch_write
        self._writer = Writer(link, endpoint.outbox, self._start_writing, watch)
        self._pings = Pings()
        self._reading = Reading(link, endpoint.incoming, self._deliver, self._stand, self._pings.are_waiting)
        self._heart: Heart | None = None
        self._farewell: Farewell | None = None
        # Whether we did not read when we said goodbye, since somebody had not read what we had.
        self._was_behind = False
        self._is_over = False
        # Whether it is over without any closing handshake.
        self._is_dropped = False
        self._is_left = False
        # What the reader found, while a write may still be under way.
        self._peers_close: ConnectionClosed | None = None
        self.error: Exception | None = None

    # -------------------------------------------------------------------------------- from outside

    async def run(self) -> Ending:
        """Live until the link ends, `drop` or `say_goodbye`; then close it, and tell how it ended.

        Cancellation: always closes.
        """
        try:
            await self._run_tasks()
            await self._close()
        finally:
            await self._link.abort()
            self._settle()
        return self._link.ending

    async def _run_tasks(self) -> None:
        if self._is_dropped:
            return
        async with peeled_nursery() as self._nursery:
            try:
                await self._serve_users()
            finally:
                # Before the nursery closes: from now on nobody starts anything in it.
                self._leave_users()

    async def _serve_users(self) -> None:
        outbox, incoming = self._endpoint.outbox, self._endpoint.incoming
        assert self._nursery is not None
        outbox.nudge = self._writer.nudge
        outbox.push = self._writer.push if self._link.is_direct else None
        incoming.lend(self._reading)
        self._nursery.cancel_scope.deadline = self._deadline
        self._writer.open()
        if self._farewell is not None:
            self._writer.wake()
        if outbox.tracks:
            self._start(self._confirm)
        if self._endpoint.heartbeat is not None and self._farewell is None:
            self.start_heartbeat(self._endpoint.heartbeat)
        # Here and not in a task of its own, since a task costs some 4 KiB.
        await self._run_task(self._read)

    def _leave_users(self) -> None:
        """Nobody's task but ours has anything to do with the link any more."""
        self._is_left = True
        self._endpoint.outbox.nudge = self._endpoint.outbox.push = None
        self._endpoint.incoming.lend(None)
        self._writer.stop()
        self._stop_heartbeat()

    def start_heartbeat(self, heartbeat: Heartbeat) -> None:
        """Beat from now on, instead of any heartbeat before."""
        self._stop_heartbeat()
        if self._is_over or self._is_left:
            return
        self._heart = Heart(heartbeat, self._link, self._send_expecting, self._stop, self._start)
        if self._reading.is_behind:
            self._heart.stand()

    def ping(self) -> PendingPing:
        """Send a ping frame ahead of what is buffered."""
        pending = self._pings.add()
        self._send_expecting(pending.ping, lambda: pending.leave(self._endpoint.outbox.newest_sent))
        return pending

    def _send_expecting(self, item: Outgoing, leave: Callable[[], None]) -> None:
        """Send ahead of what is buffered something that the peer will answer."""
        self._writer.send_now(item, leave)
        self._reading.go_on()

    def forget(self, pending: PendingPing) -> None:
        """Nobody waits for that ping any more; if it has not left, it will not."""
        self._pings.forget(pending)
        self._writer.forget(pending.ping)

    def drop(self) -> None:
        """End at once, without a word to the peer; nothing that comes in from now on is delivered."""
        self._is_over = self._is_dropped = True
        self._leave_users()  # now, since what is sent next is for the next connection
        for scope in self._scopes():
            scope.cancel()

    def say_goodbye(self, farewell: Farewell) -> None:
        """End with a closing handshake, by its deadline; what has ended already only hurries."""
        self._hurry(farewell.deadline)
        if self._is_over or self._peers_close is not None:
            return
        self._farewell = farewell
        self._was_behind = self._reading.is_behind
        self._reading.reclaim()
        self._stop_heartbeat()
        self._writer.wake()

    def _scopes(self) -> Iterator[trio.CancelScope]:
        """Give what is under way."""
        if self._nursery is not None:
            yield self._nursery.cancel_scope
        if self._closing is not None:
            yield self._closing

    def _hurry(self, deadline: float) -> None:
        self._deadline = min(self._deadline, deadline)
        for scope in self._scopes():
            scope.deadline = self._deadline

    # -------------------------------------------------------------------------------- tasks

    def _start_writing(self) -> None:
        self._start(self._write)

    def _start(self, task: Callable[[], Awaitable[None]]) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self._run_task, task)

    async def _run_task(self, task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except Exception as error:  # noqa: BLE001 - a user's function may raise anything; it ends the socket
            self._stop(error)

    def _stop(self, error: Exception | None) -> None:
        """End the tasks; the first reason is the reason."""
        assert self._nursery is not None
        if not self._is_over:
            self._is_over = True
            self.error = error
            self._leave_users()
            self._nursery.cancel_scope.cancel()

    async def _read(self) -> None:
        self._deliver(self._unread)
        self._unread = ()
        try:
            await self._reading.run()
        except ConnectionClosed as error:
            if error.code != _LOST:
                await self._let_write_end(error)
            raise

    async def _let_write_end(self, error: ConnectionClosed) -> None:
        """Give a write under way some time, since the close frame that we owe must not follow a torn one."""
        self._stop_heartbeat()
        self._peers_close = error
        self._writer.wake()
        await trio.sleep(LAST_WORDS)

    def _deliver(self, batch: Sequence[Incoming]) -> None:
        self._writer.note_read()
        is_plain = type(batch[0]) is not Pong if len(batch) == 1 else Pong not in set(map(type, batch))
        if is_plain:
            if not self._is_over:
                self._endpoint.incoming.deliver(cast("Sequence[Message]", batch))
            return
        for item in batch:
            if self._is_over:
                return
            if isinstance(item, Pong):
                self._pings.answer(item.payload, self._note_pong)
            else:
                self._endpoint.incoming.deliver([item])

    def _stand(self, stands: bool) -> None:
        """Reading has stopped, or goes on."""
        if self._heart is not None:
            self._heart.stand() if stands else self._heart.go()

    def _note_pong(self, pending: PendingPing, latency: float) -> None:
        """Frames keep their order, so a pong proves that all before its ping arrived."""
        self._endpoint.facts.latency = latency
        self._endpoint.outbox.confirm(pending.covers)

    async def _confirm(self) -> None:
        """Ask for proof while some is wanting: one ping at a time, and not too often."""
        while True:
            await self._endpoint.outbox.wait_unproved()
            latency = await self.ping().wait()
            # Counted from when the ping left: it may have waited behind a long write.
            await trio.sleep(max(0.0, self._endpoint.settings.confirm_interval - latency))

    async def _write(self) -> None:
        """Send what there is to send; when a close is due, stop everything, between two frames."""
        if await self._writer.run_until(self._is_close_due):
            if self._was_behind:
                await self._catch_up()
            self._stop(self._peers_close)

    def _watch_write(self) -> Alarm:
        """Have the connection count as lost when a write that begins now gets no further for too long."""
        timeout = self._endpoint.settings.write_timeout
        assert timeout is not None, "nobody watches"
        began = trio.current_time()

        def ring() -> float | None:
            due = max(began, self._link.moved_at) + timeout
            if trio.current_time() < due:
                return due
            lost = ConnectionClosed(_LOST)
            lost.__cause__ = trio.TooSlowError(f"the peer took nothing for {timeout} s")
            self._stop(lost)
            return None

        return the_clock().set_alarm(began + timeout, ring)

    async def _catch_up(self) -> None:
        """Have read what came while nobody read: if the peer's close is in it, then ours only answers it."""
        for _ in range(_MOST_READS):
            await trio.lowlevel.checkpoint()

    def _is_close_due(self) -> bool:
        """Whether nothing of the user's is to go out any more: the peer closes, or we do and have drained."""
        farewell = self._farewell
        if farewell is None:
            return self._peers_close is not None
        return self._peers_close is not None or not farewell.drain or self._endpoint.outbox.is_empty

    def _stop_heartbeat(self) -> None:
        if self._heart is not None:
            self._heart.stop()
            self._heart = None

    # -------------------------------------------------------------------------------- closing

    async def _close(self) -> None:
        """Do the closing handshake, or the rest of it, if there is anybody to do it with."""
        farewell = self._farewell
        lost = isinstance(self.error, ConnectionClosed) and self.error.code == _LOST
        if lost or not (farewell or isinstance(self.error, ConnectionClosed)):
            return
        now = trio.current_time()
        if self._is_dropped or now >= self._deadline:
            return
        self._endpoint.move(ReadyState.CLOSING)
        timeout = self._endpoint.settings.close_timeout
        if farewell is None and timeout is not None:
            self._hurry(now + timeout)
        with trio.CancelScope(deadline=self._deadline) as self._closing:
            if farewell is None:
                await self._link.aclose(_NORMAL, "")
            else:
                await self._link.aclose(farewell.code, farewell.reason)

    @property
    def is_proved(self) -> bool:
        """Whether everything that was handed over has arrived, since our close was answered.

        An answer of another code than ours is none: the peer has begun a close of its own, and reads no more.
        """
        farewell, ending = self._farewell, self._link.ending
        if farewell is None or self._peers_close is not None:
            return False
        return ending.clean and ending.code in {farewell.code, _NO_CODE}

    def _settle(self) -> None:
        """Say in `error` how it ended, now that it is known, and tell those who counted on the connection."""
        ending = self._link.ending
        if self._farewell is not None:
            self.error = None
        elif type(self.error) is ConnectionClosed:
            cause = self.error.__cause__
            self.error = ConnectionClosed(ending.code, ending.reason, ending.clean)
            self.error.__cause__ = cause
        # Neither over nor a farewell said: the nursery that we live in has been cancelled.
        is_ours = self._farewell is not None or not self._is_over
        self._is_over = True
        gone = closed_by_us() if is_ours else self.error or ConnectionClosed(_LOST)
        self._pings.fail(gone)
        self._endpoint.outbox.break_off(gone)
