"""What waits to be sent. It outlives connections: each one takes from it, and gives back what it did not send."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from itertools import count
from math import inf
from typing import Final, final

import trio

from trio_wsprim._errors import fresh
from trio_wsprim._room import Room, message_size
from trio_wsprim._scopes import Bell
from trio_wsprim._values import Buffer, DropEvent, DropReason, Message, Undelivered

# `ttl=0` allows the writer its next turn, and no more.
_NOW: Final = 0.01
# Sorting out what is no longer there costs a pass over the heap; worth it when most of it is.
_STALE_ENTRIES: Final = 64


@final
class Entry:
    """One message on its way.

    Attributes:
        message: What the user sent.
        size: Its bytes on the wire.
        ttl: Seconds that it may wait here; `None` for ever.
        deadline: When it expires, on trio's clock; counted from when it got in.
        serial: Its place among all that were ever accepted, from 1.
        waits: Whether it is in the queue: neither taken nor dropped.
    """

    __slots__ = ("deadline", "message", "serial", "size", "ttl", "waits")

    def __init__(self, message: Message, size: int, ttl: float | None) -> None:
        self.message = message
        self.size = size
        self.ttl = ttl
        self.deadline = inf
        self.serial = 0
        self.waits = False


@final
class _Sender:
    """A task that waits for room. Its message is put in for it, so that a cancelled one never half-sent."""

    __slots__ = ("entry", "error", "event")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.event = trio.Event()
        self.error: BaseException | None = None


@final
class Outbox:
    """A bounded queue of messages with four ways to be full, expiry, and exact knowledge of what left.

    A message counts against the bounds until the network has it. What the writer has taken is no longer dropped,
    so `"drop_oldest"` may exceed the bounds by one batch.

    Args:
        buffer: The bounds, and what happens at them.
        report: Is told each drop.
    """

    __slots__ = (
        "_break",
        "_buffer",
        "_departed",
        "_expiries",
        "_expiry",
        "_is_over",
        "_queue",
        "_refusal",
        "_report",
        "_senders",
        "_serial",
        "_taken",
        "_ticket",
        "bell",
        "breaks",
        "bytes_sent",
        "flows",
        "messages_sent",
        "room",
    )

    def __init__(self, buffer: Buffer, report: Callable[[DropEvent], None]) -> None:
        self._buffer = buffer
        self._report = report
        self._queue: deque[Entry] = deque()
        self._taken: list[Entry] = []
        self._senders: deque[_Sender] = deque()
        self._refusal: Callable[[], BaseException] | None = None
        self._is_over = False
        self._serial = 0
        self._expiries: list[tuple[float, int, Entry]] = []
        self._ticket = count()  # two entries of one deadline must not be compared themselves
        self._expiry = Bell()
        self._departed = Bell()
        # Rings when there is something for the writer.
        self.bell = Bell()
        self.room = Room(buffer)
        # Whether a connection takes from it.
        self.flows = False
        # How many connections have ended, and how the last one did.
        self.breaks = 0
        self._break: BaseException | None = None
        self.messages_sent = 0
        self.bytes_sent = 0

    # -------------------------------------------------------------------------------- putting in

    async def put(self, message: Message, ttl: float | None) -> None:
        """Accept a message, waiting for room if the policy says so.

        Cancellation: atomic.
        """
        entry = self._entry(message, ttl)
        if self._offer(entry):
            return
        sender = _Sender(entry)
        self._senders.append(sender)
        try:
            await sender.event.wait()
        except trio.Cancelled:
            self._senders.remove(sender)
            raise
        if sender.error is not None:
            raise sender.error

    def put_nowait(self, message: Message, ttl: float | None) -> None:
        """Accept a message, or raise `BufferFull`."""
        entry = self._entry(message, ttl)
        if not self._offer(entry):
            raise self.room.error()

    def _entry(self, message: Message, ttl: float | None) -> Entry:
        """Check a message; nothing has happened yet when this raises."""
        size = message_size(message)
        if self._refusal is not None:
            raise self._refusal()
        self.room.check_size(size)
        return Entry(message, size, ttl)

    def _offer(self, entry: Entry) -> bool:
        """Settle an entry by the rules; `False` if it has to wait."""
        if entry.ttl == 0 and not self.flows:
            self._drop(entry, "expired")
            return True
        if self.room.fits(entry.size) and not self._senders:
            self._accept(entry)
            return True
        match self._buffer.when_full:
            case "wait":
                if entry.ttl != 0:
                    return False
                self._drop(entry, "expired")
            case "error":
                raise self.room.error()
            case "drop_newest":
                self._drop(entry, "full")
            case "drop_oldest":
                while self._queue and not self.room.fits(entry.size):
                    self._drop(self._queue[0], "full")
                self._accept(entry)
        return True

    def _accept(self, entry: Entry) -> None:
        self._serial += 1
        entry.serial = self._serial
        entry.waits = True
        if entry.ttl is not None:
            entry.deadline = trio.current_time() + (entry.ttl or _NOW)
        self._queue.append(entry)
        self.room.add(entry.size)
        self.bell.ring()
        self._arm(entry)

    # -------------------------------------------------------------------------------- taking out

    def take(self, max_bytes: int) -> list[Entry]:
        """Take what waits, in order: at least one message, and no more than `max_bytes` beyond it.

        They stay counted until `settle`.
        """
        now = trio.current_time()
        size = 0
        while self._queue and (not self._taken or size + self._queue[0].size <= max_bytes):
            entry = self._queue[0]
            if entry.deadline <= now:
                self._drop(entry, "expired")
                continue
            self._queue.popleft()
            entry.waits = False
            size += entry.size
            self._taken.append(entry)
        return self._taken

    def settle(self, sent: int) -> None:
        """Say that the first `sent` of those taken went out; the others come back to where they were."""
        taken, self._taken = self._taken, []
        for entry in taken[:sent]:
            self.room.remove(entry.size)
            self.messages_sent += 1
            self.bytes_sent += entry.size
        for entry in reversed(taken[sent:]):
            entry.waits = True
            self._queue.appendleft(entry)
            self._arm(entry)
        self._depart()

    def leftovers(self) -> tuple[Undelivered, ...]:
        """Tell what is still here, in order."""
        return tuple(Undelivered(entry.message, "unsent") for entry in (*self._taken, *self._queue))

    @property
    def has_waiting(self) -> bool:
        """Whether there is something to take."""
        return bool(self._queue)

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not (self._queue or self._taken)

    async def wait_empty(self) -> None:
        """Wait until nothing waits and nothing is under way. Cancellation: atomic."""
        while not self.is_empty:
            await self._departed.wait()

    async def wait_settled(self) -> None:
        """Wait until nothing is under way. Cancellation: atomic."""
        while self._taken:
            await self._departed.wait()

    async def flush(self) -> None:
        """Wait until what was accepted so far has left.

        Raises:
            ConnectionClosed: If a connection ended meanwhile.

        Cancellation: atomic.
        """
        last, breaks = self._serial, self.breaks
        while self._oldest() <= last:
            if self._refusal is not None and self._is_over:
                raise self._refusal()
            await self._departed.wait()
            self.check_breaks(breaks)

    def check_breaks(self, breaks: int) -> None:
        """Raise how the last connection ended, if any has since `breaks` was read."""
        if self.breaks > breaks and self._break is not None:
            raise fresh(self._break)

    def _oldest(self) -> float:
        """The serial of the first message that is still here; infinite if none is."""
        if self._taken:
            return self._taken[0].serial
        return self._queue[0].serial if self._queue else inf

    # -------------------------------------------------------------------------------- the end

    def break_off(self, error: BaseException) -> None:
        """Tell those who flush that the connection which they counted on has ended."""
        self.breaks += 1
        self._break = error
        self._departed.ring()

    def close(self, refusal: Callable[[], BaseException]) -> None:
        """Accept nothing more; who waits for room, or comes later, gets the error that `refusal` makes."""
        self._refusal = refusal
        senders, self._senders = self._senders, deque[_Sender]()
        for sender in senders:
            sender.error = refusal()
            sender.event.set()

    def end(self, refusal: Callable[[], BaseException]) -> None:
        """Nothing more will leave; who flushes gets the error that `refusal` makes."""
        self._is_over = True
        self.close(refusal)
        self._departed.ring()

    # -------------------------------------------------------------------------------- expiry

    async def run_expiry(self) -> None:
        """Drop what expires when it does, until cancelled."""
        while True:
            next_deadline = self._expiries[0][0] if self._expiries else inf
            with trio.move_on_at(next_deadline):
                await self._expiry.wait()
            self._expire(trio.current_time())

    def _expire(self, now: float) -> None:
        while self._expiries and self._expiries[0][0] <= now:
            entry = heapq.heappop(self._expiries)[-1]
            if entry.waits:
                self._drop(entry, "expired")
        self._depart()

    def _arm(self, entry: Entry) -> None:
        """Have a message's deadline watched."""
        if entry.deadline == inf:
            return
        if len(self._expiries) > 2 * len(self._queue) + _STALE_ENTRIES:
            self._expiries = [item for item in self._expiries if item[-1].waits]
            heapq.heapify(self._expiries)
        heapq.heappush(self._expiries, (entry.deadline, next(self._ticket), entry))
        self._expiry.ring()

    def _drop(self, entry: Entry, why: DropReason) -> None:
        """Forget a message, and say so; one that never got in is not counted out."""
        if entry.waits:
            entry.waits = False
            self._queue.remove(entry)
            self.room.remove(entry.size)
            self._departed.ring()
        self._report(DropEvent(entry.message, why))

    def _depart(self) -> None:
        """Let in those who wait for room, in order, and tell those who wait for departures."""
        while self._senders and self.room.fits(self._senders[0].entry.size):
            sender = self._senders.popleft()
            self._accept(sender.entry)
            sender.event.set()
        self._departed.ring()
