"""What has come in and waits for `receive`: a bounded queue that outlives connections."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Final, Protocol, cast, final

import trio
from trio.lowlevel import checkpoint_if_cancelled

from trio_wsprim._room import batch_size, message_size
from trio_wsprim._scopes import Bell, Pace
from trio_wsprim._values import Buffer, DropEvent, Message

# What every inbox has until its first message: an empty deque takes 760 bytes, and many a socket waits for long.
# No deque at all, so that nothing can get into what all of them share.
_EMPTY: Final = cast("deque[Message]", ())


class Reader(Protocol):
    """What a receiver may read from itself instead of being woken."""

    @property
    def is_free(self) -> bool:
        """Whether it may."""
        ...

    async def read_here(self) -> None:
        """Read once; what comes has been put into the inbox then. Cancellation: atomic."""
        ...

    def go_on(self) -> None:
        """See that what comes is read, whether there is a receiver or not."""
        ...


@final
class Inbox:
    """A queue of messages, each for exactly one receiver.

    With `"wait"` it takes what it is given, since that has been read already, and tells by `has_room` when to
    stop reading: so it may exceed its bounds by what one read brought.

    Args:
        buffer: The bounds, and what happens at them.
        report: Is told each drop.
        freed: Rings when a message leaves that somebody waits for.

    Attributes:
        queue: The messages, to be looked at.
        pace: What a call waits for that has nothing to wait for.
        reader: What there is to be read from, if that may be done by a receiver.
    """

    __slots__ = (
        "_bytes",
        "_counts_each",
        "_end",
        "_freed",
        "_lot",
        "_max_bytes",
        "_max_messages",
        "_report",
        "_when_full",
        "pace",
        "queue",
        "reader",
    )

    def __init__(self, buffer: Buffer, report: Callable[[DropEvent], None], freed: Bell) -> None:
        self._max_messages = inf if buffer.max_messages is None else buffer.max_messages
        self._max_bytes = inf if buffer.max_bytes is None else buffer.max_bytes
        self._when_full = buffer.when_full
        self._report = report
        self.queue: deque[Message] = _EMPTY
        # At least the bytes in the queue; exactly, where each that leaves is counted: that costs a sixth
        # of the flood, so it is done only while somebody waits for room, or where a new message may drop one.
        self._bytes = 0
        self._counts_each = buffer.when_full != "wait"
        self._lot = trio.lowlevel.ParkingLot()
        self._freed = freed
        self.pace = Pace()
        self._end: Callable[[], BaseException] | None = None
        self.reader: Reader | None = None

    # -------------------------------------------------------------------------------- putting in

    def put(self, messages: Sequence[Message], size: int) -> None:
        """Take messages in, which have so many bytes together, or drop some by the rules."""
        if self.queue is _EMPTY:
            self.queue = deque()
        if self._when_full == "wait":
            if not self.queue:
                self._bytes = 0
            self.queue.extend(messages)
            self._bytes += size
        else:
            for message in messages:
                self._put_or_drop(message, message_size(message))
        if self._lot:
            self._lot.unpark(count=len(messages))

    def _put_or_drop(self, message: Message, size: int) -> None:
        if not self._fits(size):
            if self._when_full == "drop_newest":
                self._report(DropEvent(message, "full"))
                return
            while self.queue and not self._fits(size):
                self._report(DropEvent(self.pop(), "full"))
        self.queue.append(message)
        self._bytes += size

    def _fits(self, size: int) -> bool:
        return len(self.queue) < self._max_messages and self._bytes + size <= self._max_bytes

    def has_room(self) -> bool:
        """Whether reading should go on."""
        if self._when_full != "wait" or not self.queue or self._fits(1):
            return True
        if not self._counts_each:
            self._bytes = batch_size(self.queue)
        return self._fits(1)

    def await_room(self, is_awaited: bool) -> None:
        """Ring when a message leaves, from now on, or no more."""
        self._counts_each = is_awaited or self._when_full != "wait"
        if is_awaited:
            self._bytes = batch_size(self.queue)

    @property
    def has_receivers(self) -> bool:
        """Whether somebody waits for a message to be put in."""
        return bool(self._lot)

    # -------------------------------------------------------------------------------- taking out

    async def receive(self) -> Message:
        """Take the next message. Cancellation: atomic."""
        if self.queue:
            await self.pace.step()
        if not self.queue:
            await self.wait_any()
        return self.pop()

    async def receive_many(self, max_messages: int | None) -> list[Message]:
        """Take all that is there, at least one. Cancellation: atomic."""
        if self.queue:
            await self.pace.step()
        if not self.queue:
            await self.wait_any()
        if max_messages is not None and max_messages < len(self.queue):
            return [self.pop() for _ in range(max_messages)]
        messages = list(self.queue)
        self._empty()
        return messages

    def receive_nowait(self) -> Message:
        """Take the next message, or raise `trio.WouldBlock`."""
        if self.queue:
            return self.pop()
        if self._end is not None:
            raise self._end()
        raise trio.WouldBlock

    async def wait_any(self) -> None:
        """Wait until a message is there: read it here, if nobody else reads or waits, or else be woken.

        Cancellation: atomic.
        """
        while not self.queue:
            if self._end is not None:
                await checkpoint_if_cancelled()
                raise self._end()
            if self.reader is not None and not self._lot and self.reader.is_free:
                await self.reader.read_here()
            else:
                await self._lot.park()

    def pop(self) -> Message:
        """Take the next message, which is there."""
        message = self.queue.popleft()
        if self._counts_each:
            self._bytes -= message_size(message)
            self._freed.ring()
        return message

    def _empty(self) -> None:
        if self.queue:
            self.queue.clear()
        self._bytes = 0
        self._freed.ring()

    # -------------------------------------------------------------------------------- the end

    def end(self, error: Callable[[], BaseException]) -> None:
        """Nothing more will come: after what is left, receivers get the error that `error` makes."""
        self._end = error
        self._lot.unpark_all()

    def close(self, error: Callable[[], BaseException]) -> None:
        """We hang up: what is unread is gone, and receivers get the error that `error` makes."""
        self._empty()
        self.end(error)
