"""What waits to be sent. It outlives connections: each one takes from it, and gives back what it did not send."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Final, cast, final

import trio

from trio_wsprim._errors import fresh
from trio_wsprim._expiry import Expiry
from trio_wsprim._ledger import Entry
from trio_wsprim._proof import Account, Mark, Proof, is_rejection
from trio_wsprim._room import Room, message_size
from trio_wsprim._scopes import Bell
from trio_wsprim._values import Buffer, DropEvent, DropReason, Message, Undelivered

# `ttl=0` allows the writer its next turn, and no more: a write that takes longer than this is "not now".
_NOW: Final = 0.01


# What every outbox has until its first message: an empty deque takes 760 bytes, and many a socket only listens.
# No deque at all, so that nothing can get into what all of them share.
_EMPTY: Final = cast("deque[Entry]", ())


def _raise(error: BaseException) -> None:
    raise error


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

    A message counts against the bounds until the network has it; where proof is wanted, until that is there. What the
    writer has taken is no longer dropped, so `"drop_oldest"` may exceed the bounds by one batch.

    Args:
        buffer: The bounds, and what happens at them.
        report: Is told each drop.
        tracks: Whether to keep what was handed over until it is proved to have arrived.
        resends: Whether to send that again on the next connection.
    """

    __slots__ = (
        "_break",
        "_buffer",
        "_departed",
        "_end",
        "_expiry",
        "_handed",
        "_proof",
        "_queue",
        "_refusal",
        "_report",
        "_senders",
        "_serial",
        "_taken",
        "breaks",
        "bytes_sent",
        "fail",
        "messages_sent",
        "nudge",
        "push",
        "resends",
        "room",
    )

    def __init__(
        self,
        buffer: Buffer,
        report: Callable[[DropEvent], None],
        *,
        tracks: bool = False,
        resends: bool = False,
    ) -> None:
        self._buffer = buffer
        self._report = report
        self._queue: deque[Entry] = _EMPTY
        self._taken: list[Entry] = []
        self._senders: list[_Sender] = []
        self._refusal: Callable[[], BaseException] | None = None
        self._end: Callable[[], BaseException] | None = None
        self._serial = 0
        self._proof = Proof(buffer, tracks=tracks, resends=resends)
        self._handed = Bell()
        self.resends = resends
        self._expiry = Expiry(self._expire)
        self._departed = Bell()
        self.room = Room(buffer)
        # Tells the connection that takes from it that there is something; `None` while there is none.
        self.nudge: Callable[[], None] | None = None
        # Has a lone message written at once, if the connection can and finds it worthwhile: whether it is out, or under
        # way; `None` if neither.
        self.push: Callable[[Message], bool | None] | None = None
        # Is given what telling of a message that expires has raised: nobody has called then who could be told.
        self.fail: Callable[[BaseException], None] = _raise
        # How many connections have ended, and how the last one did.
        self.breaks = 0
        self._break: BaseException | None = None
        self.messages_sent = 0
        self.bytes_sent = 0

    # -------------------------------------------------------------------------------- putting in

    def put_quick(self, message: Message, size: int) -> bool:
        """Accept a message of that size, if nothing has to be asked but whether there is room."""
        room = self.room
        if self._refusal is not None or self._senders:
            return False
        if room.messages >= room.max_messages or room.bytes + size > room.max_bytes:
            return False
        self._serial = serial = self._serial + 1
        if self.push is not None and not self._queue:
            is_through = self.push(message)
            if is_through is not None:
                self._note_pushed(message, size, is_through)
                return True
        if self._queue is _EMPTY:
            self._queue = deque()
        self._queue.append(Entry(message, size, serial))
        room.messages += 1
        room.bytes += size
        if self.nudge is not None:
            self.nudge()
        return True

    def _note_pushed(self, message: Message, size: int, is_through: bool) -> None:
        """A message went past the queue: it is out, or under way, as if it had been taken."""
        if is_through and not self.tracks:
            self.messages_sent += 1
            self.bytes_sent += size
            self._proof.newest_sent = self._serial
            return
        entry = Entry(message, size, self._serial)
        entry.waits = False
        self.room.add(size)
        self._taken.append(entry)
        if is_through:
            self.settle(1)

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
        finally:
            self._leave_line(sender)
        if sender.error is not None:
            raise sender.error

    def put_nowait(self, message: Message, ttl: float | None) -> None:
        """Accept a message, or raise `BufferFull`."""
        entry = self._entry(message, ttl)
        if not self._offer(entry):
            raise self.room.error()

    def offer(self, message: Message, size: int) -> bool:
        """Accept a message of that size by the rules, but drop it where those would have its sender wait or raise.

        Returns:
            Whether there was room, or made.
        """
        if self._refusal is not None or self.put_quick(message, size):
            return True
        entry = self._entry(message, None)
        if self._buffer.when_full == "drop_oldest":
            return self._offer(entry)
        self._drop(entry, "full")
        return False

    def _entry(self, message: Message, ttl: float | None) -> Entry:
        """Check a message; nothing has happened yet when this raises."""
        size = message_size(message)
        if self._refusal is not None:
            raise self._refusal()
        self.room.check_size(size)
        entry = Entry(message, size)
        entry.ttl = ttl
        entry.waits = False
        return entry

    def _offer(self, entry: Entry) -> bool:
        """Settle an entry by the rules; `False` if it has to wait."""
        if entry.ttl == 0 and self.nudge is None:
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
            case _:  # "drop_oldest"
                self._make_room(entry.size)
                self._accept(entry)
        return True

    def _make_room(self, size: int) -> None:
        """Drop the oldest, those without proof first; what the writer has taken stays."""
        handed = self._proof.ledger.open if self._proof.ledger else deque[Entry]()
        while not self.room.fits(size) and (handed or self._queue):
            self._drop((handed or self._queue)[0], "full")

    def _leave_line(self, sender: _Sender) -> None:
        """Forget a sender who does not wait any longer; a smaller message behind it may fit."""
        if not sender.event.is_set():
            self._senders.remove(sender)
            self._admit()

    def _admit(self) -> None:
        """Let in those who wait for room, in order."""
        while self._senders and self.room.fits(self._senders[0].entry.size):
            sender = self._senders.pop(0)
            self._accept(sender.entry)
            sender.event.set()

    def _accept(self, entry: Entry) -> None:
        self._serial += 1
        entry.serial = self._serial
        entry.waits = True
        if entry.ttl is not None:
            entry.deadline = trio.current_time() + (entry.ttl or _NOW)
        if self._queue is _EMPTY:
            self._queue = deque()
        self._queue.append(entry)
        self.room.add(entry.size)
        self._expiry.watch(entry)
        if self.nudge is not None:
            self.nudge()

    # -------------------------------------------------------------------------------- taking out

    def take(self, max_bytes: int) -> list[Entry]:
        """Take what waits, in order: at least one message, and no more than `max_bytes` beyond it.

        They stay counted until `settle`.
        """
        queue, taken = self._queue, self._taken
        size = 0
        while queue:
            entry = queue[0]
            # What has `ttl=0` may go: this turn is the one that it is allowed.
            if entry.ttl and entry.deadline <= trio.current_time():
                self._drop(entry, "expired")
                continue
            size += entry.size
            if size > max_bytes and taken:
                break
            queue.popleft()
            entry.waits = False
            taken.append(entry)
        return taken

    def settle(self, sent: int, *, is_torn: bool = True) -> None:
        """Say that the first `sent` of those taken went out; the others come back to where they were.

        Args:
            sent: How many the network has to their last byte.
            is_torn: Whether the peer may have got the beginning of the next one.
        """
        taken, self._taken = self._taken, []
        left: Sequence[Entry] = ()
        if sent < len(taken):
            taken, left = taken[:sent], taken[sent:]
            self._put_back(left)
        if taken:
            self._hand_over(taken)
        self._proof.begin(left[0] if left and is_torn else None)
        if self._senders:
            self._admit()
        self._departed.ring()

    def _hand_over(self, entries: Sequence[Entry]) -> None:
        fresh = entries
        if self.tracks:
            fresh = [entry for entry in entries if not entry.was_sent]
            self._handed.ring()
        size = sum([entry.size for entry in fresh])
        self.messages_sent += len(fresh)
        self.bytes_sent += size
        self._proof.hand_over(entries)
        if not self.tracks:
            self.room.remove(size, len(fresh))

    def _put_back(self, entries: Sequence[Entry]) -> None:
        """Put entries where they were: before all that waits."""
        if entries and self._queue is _EMPTY:
            self._queue = deque()
        for entry in reversed(entries):
            entry.waits = True
            self._queue.appendleft(entry)
            self._expiry.watch(entry)

    # -------------------------------------------------------------------------------- proof

    @property
    def tracks(self) -> bool:
        """Whether proof is kept count of."""
        return self._proof.ledger is not None

    @property
    def newest_sent(self) -> int:
        """The serial of what was last handed over on the present connection; 0 for nothing."""
        return self._proof.newest_sent

    @property
    def messages_unconfirmed(self) -> int:
        """How many were handed over without proof, on connections that have ended too."""
        return 0 if self._proof.ledger is None else self._proof.ledger.unproved.messages + self._proof.ledger.lost_count

    @property
    def messages_buffered(self) -> int:
        """How many have never been handed over."""
        return self.room.messages - (self._proof.ledger.unproved.messages if self._proof.ledger else 0)

    @property
    def bytes_buffered(self) -> int:
        """How many bytes those have."""
        return self.room.bytes - (self._proof.ledger.unproved.bytes if self._proof.ledger else 0)

    async def wait_unproved(self) -> None:
        """Wait until something handed over on this connection lacks proof. Cancellation: atomic."""
        assert self._proof.ledger is not None
        while not self._proof.ledger.open:
            await self._handed.wait()

    def confirm(self, serial: int) -> None:
        """All that was handed over on this connection, up to that serial, is proved to have arrived."""
        done = self._proof.confirm(serial)
        if done:
            self._free(done)

    def _free(self, entries: Sequence[Entry]) -> None:
        """Give back the room of entries that are done with."""
        self.room.remove(sum([entry.size for entry in entries]), len(entries))
        self._admit()
        self._departed.ring()

    def is_proved(self, mark: Mark) -> bool:
        """Whether all that was accepted before the mark is proved to have arrived, or has been dropped."""
        ledger = self._proof.ledger
        if ledger is None or self._proof.leaves_doubt(mark):
            return False
        if self._end is not None and ledger.lost:
            return False  # told before, but nothing will come any more that could make it good
        return min(ledger.oldest, self._oldest()) > mark.serial

    async def wait_proof(self, mark: Mark) -> None:
        """Wait until `is_proved`.

        Raises:
            ConnectionClosed: If a connection ended that left something in doubt, unless that is sent again.
            Exception: How the socket ended, if it has.

        Cancellation: atomic.
        """
        while not self.is_proved(mark):
            self.check_breaks(mark)
            if self._end is not None:
                raise self._end()
            await self._departed.wait()

    def settle_account(self, *, is_proved: bool, peers_code: int | None, lasted: bool) -> Account:
        """The connection has ended: decide what becomes of what was under way on it.

        Args:
            is_proved: Whether a closing handshake has proved that all of it arrived.
            peers_code: The code of the peer's close frame; `None` if it sent none.
            lasted: Whether the connection's end cannot have been the fault of a message.
        """
        if is_proved:
            self.confirm(self.newest_sent)
        unconfirmed = self._proof.note_break(self.breaks, self._break)
        ledger = self._proof.ledger
        if ledger is None:
            return Account()
        if not self.resends:
            self._free(ledger.lose())
            return Account(unconfirmed)
        poison = self._proof.find_poison(peers_code, lasted)
        if poison is not None:
            self._drop(poison, "rejected")
        self._put_back(ledger.take_back())
        self._free(())
        # An end of any other kind means what it always means, whatever was set aside.
        return Account(unconfirmed, rejected=poison is not None and is_rejection(peers_code))

    # -------------------------------------------------------------------------------- leaving

    def leftovers(self) -> tuple[Undelivered, ...]:
        """Tell what is still here, in order."""
        lost = self._proof.ledger.lost if self._proof.ledger else ()
        return tuple(
            Undelivered(entry.message, "unconfirmed" if entry.was_sent else "unsent")
            for entry in (*lost, *self._taken, *self._queue)
        )

    @property
    def has_waiting(self) -> bool:
        """Whether there is something to take."""
        return bool(self._queue)

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not (self._queue or self._taken)

    def mark(self) -> Mark:
        """Mark this moment."""
        return Mark(self._serial, self.breaks)

    async def flush(self, mark: Mark) -> None:
        """Wait until what was accepted before the mark has left.

        Raises:
            ConnectionClosed: If a connection ended meanwhile, unless what it leaves in doubt is sent again.

        Cancellation: atomic.
        """
        while self._oldest() <= mark.serial:
            if self._end is not None:
                raise self._end()
            await self._departed.wait()
            self.check_breaks(mark)

    def check_breaks(self, mark: Mark) -> None:
        """Raise how the last connection ended, if any has since the mark, unless that does not matter."""
        if self.breaks > mark.breaks and self._break is not None and not self.resends:
            self.forget_doubt()
            raise fresh(self._break)

    def check_doubt(self) -> None:
        """Raise, once, how a connection ended that left something without proof."""
        doubt = self._proof.doubt
        if doubt is not None:
            self.forget_doubt()
            raise fresh(doubt)

    def forget_doubt(self) -> None:
        """Somebody who asked for proof has been told."""
        self._proof.doubt = None

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
        senders, self._senders = self._senders, list[_Sender]()
        for sender in senders:
            sender.error = refusal()
            sender.event.set()

    def end(self, refusal: Callable[[], BaseException]) -> None:
        """Nothing more will leave; who flushes gets the error that `refusal` makes."""
        self._end = refusal
        self._expiry.stop()
        self.close(refusal)
        self._departed.ring()

    # -------------------------------------------------------------------------------- expiry

    def _expire(self, entry: Entry) -> None:
        if not entry.waits:
            return
        try:
            self._drop(entry, "expired")
        except BaseException as error:  # noqa: BLE001 - a user's logging filter may raise anything
            self.fail(error)
        self._admit()

    def _drop(self, entry: Entry, why: DropReason) -> None:
        """Forget a message, and say so; one that never got in is not counted out."""
        if entry.waits:
            entry.waits = False
            self._queue.remove(entry)
        if entry.serial:
            self.room.remove(entry.size)
            self._departed.ring()
        if self._proof.ledger is not None:
            self._proof.ledger.forget(entry)
        self._report(DropEvent(entry.message, why))
