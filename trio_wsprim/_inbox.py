"""What has come in and waits for `receive`: a bounded queue that outlives connections."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import final

import trio

from trio_wsprim._room import Room, message_size
from trio_wsprim._scopes import Bell, Pace
from trio_wsprim._values import Buffer, DropEvent, Message


@final
class Inbox:
    """A queue of messages, each for exactly one receiver.

    With `"wait"` it takes what it is given, since that has been read already, and tells by `has_room` when to
    stop reading: so it may exceed its bounds by what one read brought.

    Args:
        buffer: The bounds, and what happens at them.
        report: Is told each drop.
        freed: Rings when a message leaves.
    """

    __slots__ = ("_buffer", "_end", "_freed", "_lot", "_pace", "_queue", "_report", "room")

    def __init__(self, buffer: Buffer, report: Callable[[DropEvent], None], freed: Bell) -> None:
        self._buffer = buffer
        self._report = report
        self._queue: deque[Message] = deque()
        self._lot = trio.lowlevel.ParkingLot()
        self._freed = freed
        self._pace = Pace()
        self._end: Callable[[], BaseException] | None = None
        self.room = Room(buffer)

    # -------------------------------------------------------------------------------- putting in

    def put(self, message: Message) -> None:
        """Take a message in, or drop one by the rules."""
        size = message_size(message)
        if self._buffer.when_full != "wait" and not self.room.fits(size):
            if self._buffer.when_full == "drop_newest":
                self._report(DropEvent(message, "full"))
                return
            while self._queue and not self.room.fits(size):
                self._report(DropEvent(self._pop(), "full"))
        self._queue.append(message)
        self.room.add(size)
        self._lot.unpark()

    def has_room(self) -> bool:
        """Whether reading should go on."""
        return self._buffer.when_full != "wait" or not self.room.is_full()

    # -------------------------------------------------------------------------------- taking out

    async def receive(self) -> Message:
        """Take the next message. Cancellation: atomic."""
        await self._wait_any()
        return self._pop()

    async def receive_many(self, max_messages: int | None) -> list[Message]:
        """Take all that is there, at least one. Cancellation: atomic."""
        await self._wait_any()
        count = len(self._queue) if max_messages is None else min(max_messages, len(self._queue))
        return [self._pop() for _ in range(count)]

    def receive_nowait(self) -> Message:
        """Take the next message, or raise `trio.WouldBlock`."""
        if self._queue:
            return self._pop()
        if self._end is not None:
            raise self._end()
        raise trio.WouldBlock

    async def _wait_any(self) -> None:
        await self._pace.step()
        while not self._queue:
            if self._end is not None:
                raise self._end()
            await self._lot.park()

    def _pop(self) -> Message:
        message = self._queue.popleft()
        self.room.remove(message_size(message))
        self._freed.ring()
        return message

    # -------------------------------------------------------------------------------- the end

    def end(self, error: Callable[[], BaseException]) -> None:
        """Nothing more will come: after what is left, receivers get the error that `error` makes."""
        self._end = error
        self._lot.unpark_all()
        self._freed.ring()

    def close(self, error: Callable[[], BaseException]) -> None:
        """We hang up: what is unread is gone, and receivers get the error that `error` makes."""
        while self._queue:
            self._pop()
        self.end(error)
