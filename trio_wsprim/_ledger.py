"""What the network has taken, until it is proved to have arrived."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import inf
from typing import final

from trio_wsprim._room import Room
from trio_wsprim._values import Buffer, Message


@final
class Entry:
    """One message on its way.

    Attributes:
        message: What the user sent.
        size: Its bytes on the wire.
        ttl: Seconds that it may wait in the outbox; `None` for ever.
        deadline: When it expires, on trio's clock; counted from when it got in.
        serial: Its place among all that were ever accepted, from 1; 0 before that.
        waits: Whether it is in the queue: neither taken nor dropped.
        is_watched: Whether its deadline is on the list.
        was_sent: Whether the network has ever taken all of it, so that it may have arrived.
    """

    # No slots: what most entries never set stays with the class, which makes them in half the time.
    ttl: float | None = None
    deadline = inf
    waits = True
    is_watched = False
    was_sent = False

    def __init__(self, message: Message, size: int, serial: int = 0) -> None:
        self.message = message
        self.size = size
        self.serial = serial


@final
class Ledger:
    """Messages that were handed over without proof that they arrived.

    Those of the present connection are `open`: a pong may prove them yet. When it ends, the outbox takes them back to
    send them again, or they are `lost` from sight: told, and kept within bounds of their own, which are the outbox's.

    Args:
        buffer: The bounds.

    Attributes:
        open: Those of the present connection, in order.
        unproved: How much was handed over without proof, and may still get it: those, and those taken back.
        lost: Those of connections that have ended, in order; the oldest are forgotten when they become too many.
        lost_count: How many were lost in all, forgotten ones too.
    """

    __slots__ = ("_lost_room", "lost", "lost_count", "open", "unproved")

    def __init__(self, buffer: Buffer) -> None:
        self.open: deque[Entry] = deque()
        self.unproved = Room(buffer)
        self.lost: deque[Entry] = deque()
        self.lost_count = 0
        self._lost_room = Room(buffer)

    @property
    def oldest(self) -> float:
        """The serial of the first open one; infinite if there is none."""
        return self.open[0].serial if self.open else inf

    def add(self, entries: Sequence[Entry]) -> None:
        """The network has taken them, each for the first time or once more."""
        self.open.extend(entries)
        fresh = [entry for entry in entries if not entry.was_sent]
        for entry in fresh:
            entry.was_sent = True
        self.unproved.add(sum([entry.size for entry in fresh]), len(fresh))

    def confirm(self, serial: int) -> Sequence[Entry]:
        """Everything up to that serial is proved to have arrived; give what is done with."""
        opened, done = self.open, list[Entry]()
        while opened and opened[0].serial <= serial:
            done.append(opened.popleft())
        self.unproved.remove(sum([entry.size for entry in done]), len(done))
        return done

    def forget(self, entry: Entry) -> None:
        """It is dropped, wherever it was."""
        if not entry.was_sent:
            return
        self.unproved.remove(entry.size)
        if entry in self.open:
            self.open.remove(entry)

    def take_back(self) -> Sequence[Entry]:
        """Give up the open ones, to be sent again."""
        entries = tuple(self.open)
        self.open.clear()
        return entries

    def lose(self) -> Sequence[Entry]:
        """Give up the open ones, which must not be sent again, since they may have arrived."""
        entries = self.take_back()
        for entry in entries:
            self.unproved.remove(entry.size)
            while self.lost and not self._lost_room.fits(entry.size):
                self._lost_room.remove(self.lost.popleft().size)
            self.lost.append(entry)
            self._lost_room.add(entry.size)
        self.lost_count += len(entries)
        return entries


def messages(entries: Sequence[Entry]) -> tuple[Message, ...]:
    """Give what the user sent."""
    return tuple(entry.message for entry in entries)
