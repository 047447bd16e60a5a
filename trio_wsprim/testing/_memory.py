"""Streams in memory: bounded pipes, and what the way between the two ends does to them.

A pipe carries bytes. Between a `MemoryTransport` and a `Peer` it carries whole messages too, as parcels, which
nobody has to encode, mask and decode. A parcel is as large as its frame would be, and a reader of bytes gets that
frame, so neither end needs to know what the other one speaks.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable, Iterator
from math import inf
from random import Random
from typing import Final, NamedTuple, Protocol, Self, TypeAlias, final

import trio

from trio_wsprim._scopes import Pace
from trio_wsprim._values import Message, check_number, check_seconds

from ._codec import Frame, Opcode, encode_frame, opcode_of, to_payload

BUFFER_SIZE: Final = 65536
# A limited bandwidth is dealt out in portions of that many seconds, so that a slow message is heard while it comes.
_PORTION: Final = 0.02


class Parcel(NamedTuple):
    """A message, or a ping, that travels without being bytes."""

    opcode: Opcode
    item: Message
    payload_size: int
    masked: bool

    @property
    def size(self) -> int:
        """Of the frame that it stands for."""
        size = self.payload_size
        return size + (2 if size < 126 else 4 if size < 2**16 else 10) + 4 * self.masked

    def encode(self) -> bytes:
        """Make that frame."""
        return encode_frame(self.opcode, to_payload(self.item), masked=self.masked)

    def as_frame(self) -> Frame:
        """Say it as a frame, without any bytes of one."""
        return Frame(self.opcode, to_payload(self.item), masked=self.masked)


def parcel_of(message: Message, *, masked: bool) -> Parcel:
    """Wrap a message up."""
    size = len(message) if isinstance(message, bytes) or message.isascii() else len(message.encode())
    return Parcel(opcode_of(message), message, size, masked)


Chunk: TypeAlias = bytes | Parcel


class Tap(Protocol):
    """Is told what one end of a connection does."""

    def wrote(self, chunk: Chunk) -> None:
        """It has written that."""
        ...

    def ended(self, how: str) -> None:
        """It has sent a FIN or an RST."""
        ...


@final
class Way:
    """How the network is in one direction, for all connections; it may change at any time.

    What a change means for what is under way already: nothing. Order is always kept. A reset overtakes what is under
    way, and destroys it.
    """

    __slots__ = ("_bandwidth", "_jitter", "_latency", "_rng")

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._latency = 0.0
        self._jitter = 0.0
        self._bandwidth: float | None = None

    def __repr__(self) -> str:
        """Show what it is like now."""
        return f"<Way latency={self._latency} jitter={self._jitter} bandwidth={self._bandwidth}>"

    @property
    def latency(self) -> float:
        """Seconds that everything takes, an end's EOF too; 0 at first."""
        return self._latency

    @latency.setter
    def latency(self, seconds: float) -> None:
        check_seconds("latency", seconds)
        self._latency = seconds

    @property
    def jitter(self) -> float:
        """At most so many seconds on top of `latency`, drawn by the network's seed; 0 at first."""
        return self._jitter

    @jitter.setter
    def jitter(self, seconds: float) -> None:
        check_seconds("jitter", seconds)
        self._jitter = seconds

    @property
    def bandwidth(self) -> float | None:
        """Bytes per second, for each connection; `None`, at first, for no limit."""
        return self._bandwidth

    @bandwidth.setter
    def bandwidth(self, bytes_per_second: float | None) -> None:
        if bytes_per_second is not None:
            check_number("bandwidth", bytes_per_second, least=1)
        self._bandwidth = bytes_per_second

    @property
    def is_instant(self) -> bool:
        """Whether what is written can be read at once."""
        return not (self._latency or self._jitter or self._bandwidth)

    def delay(self) -> float:
        """Say how long the next piece is under way, in seconds."""
        return self._latency + (self._rng.uniform(0, self._jitter) if self._jitter else 0.0)

    def portions(self, chunk: Chunk) -> Iterator[tuple[float, Chunk]]:
        """Cut a chunk into pieces, each with the seconds that the bandwidth makes it take."""
        if self._bandwidth is None or isinstance(chunk, Parcel):
            yield 0.0, chunk
            return
        most = max(1, int(self._bandwidth * _PORTION))
        for start in range(0, len(chunk), most):
            part = chunk[start : start + most]
            yield len(part) / self._bandwidth, part


_EOF: Final = b""


@final
class Pipe:
    """One direction of a connection: what was written and not yet read.

    Args:
        size: How many bytes it holds unread, those that are under way included.
        way: What the network is like; `None` for one that is instant.
        tap: Is told what is written.
    """

    __slots__ = (
        "_changed",
        "_flying",
        "_free_at",
        "_held",
        "_is_awaited",
        "_is_over",
        "_landed",
        "_severed",
        "_size",
        "_tap",
        "_way",
        "finished",
        "is_frozen",
        "takes_parcels",
    )

    def __init__(self, size: int, way: Way | None = None, tap: Tap | None = None) -> None:
        self._changed = trio.lowlevel.ParkingLot()
        self._size = size
        self._way = way or Way(Random(0))
        self._tap = tap
        # What is under way, with the time at which it is there, in order; what is there; and how much both are.
        self._flying: deque[tuple[float, Chunk]] = deque()
        self._landed: deque[bytearray | Parcel] = deque()
        self._held = 0
        # When the bandwidth is free for what comes next.
        self._free_at = -inf
        # Whether a reader waits for whatever comes.
        self._is_awaited = False
        # The writer is done: what is unread can be read, and then comes EOF.
        self.finished: bool = False
        # Whether the reader has seen that.
        self._is_over = False
        # The reader went away, or the connection was reset: nothing can be
        # written or read. A reader that went away itself finds its own stream
        # closed before it looks here, so one flag does for both.
        self._severed = False
        self.is_frozen: bool = False
        # Whether the reader knows what to do with them; else they would only be encoded later.
        self.takes_parcels: bool = False

    # -------------------------------------------------------------------------------- writing

    @property
    def severed(self) -> bool:
        """Whether that is known: of a frozen network, nothing is."""
        return self._severed and not self.is_frozen

    @property
    def has_room(self) -> bool:
        return self._held < self._size

    def write(self, data: memoryview) -> int:
        """Take as much of `data` as there is room for; tell how much that was."""
        taken = bytes(data[: max(0, self._size - self._held)])
        if taken:
            self._take(taken, len(taken))
        return len(taken)

    def put(self, parcel: Parcel) -> bool:
        """Take a parcel if there is room for all of it, or a reader who waits for it; tell whether."""
        size = parcel.size
        has_room = size <= self._size - self._held or (self._is_awaited and not self._held)
        if not has_room or self._way.bandwidth is not None:
            return False
        self._take(parcel, size)
        return True

    def finish(self) -> None:
        if not self.finished:
            self.finished = True
            if self._tap is not None:
                self._tap.ended("FIN")
            self._send_off(_EOF)

    def sever(self) -> None:
        self._severed = True
        self._landed.clear()
        self._flying.clear()
        self._held = 0
        self.wake()

    def break_off(self) -> None:
        if self._tap is not None:
            self._tap.ended("RST")
        self.sever()

    def _take(self, chunk: Chunk, size: int) -> None:
        self._held += size
        if self._tap is not None:
            self._tap.wrote(chunk)
        self._send_off(chunk)

    def _send_off(self, chunk: Chunk) -> None:
        if self._way.is_instant and not self._flying:
            self._land(chunk)
        else:
            self._fly(chunk)
        self.wake()

    def _fly(self, chunk: Chunk) -> None:
        now = trio.current_time()
        for duration, part in self._way.portions(chunk) if chunk else [(0.0, chunk)]:
            self._free_at = max(now, self._free_at) + duration
            before = self._flying[-1][0] if self._flying else -inf
            self._flying.append((max(before, self._free_at + self._way.delay()), part))

    # -------------------------------------------------------------------------------- reading

    @property
    def is_readable(self) -> bool:
        if self.is_frozen:
            return False
        if self._flying:
            now = trio.current_time()
            while self._flying and self._flying[0][0] <= now:
                self._land(self._flying.popleft()[1])
        return bool(self._landed) or self._is_over

    def _land(self, chunk: Chunk) -> None:
        if isinstance(chunk, Parcel):
            self._landed.append(chunk)
        elif not chunk:
            self._is_over = True
        elif self._landed and isinstance(last := self._landed[-1], bytearray):
            last += chunk
        else:
            self._landed.append(bytearray(chunk))

    def read(self, max_bytes: int | None) -> bytes:
        """Give what is there as bytes; `b""` at the end."""
        if not self._landed:
            return _EOF
        if len(self._landed) > 1 or isinstance(self._landed[0], Parcel):
            joined = bytearray().join(each.encode() if isinstance(each, Parcel) else each for each in self._landed)
            self._landed = deque([joined])
        first = self._landed[0]
        assert isinstance(first, bytearray)
        data = bytes(first[:max_bytes])
        del first[:max_bytes]
        if not first:
            self._landed.clear()
        self._held -= len(data)
        self.wake()
        return data

    def take(self) -> Chunk:
        """Give what is there up to the next change between bytes and parcels; `b""` at the end."""
        if not self._landed:
            return _EOF
        first = self._landed.popleft()
        chunk = first if isinstance(first, Parcel) else bytes(first)
        self._held -= chunk.size if isinstance(chunk, Parcel) else len(chunk)
        self.wake()
        return chunk

    # -------------------------------------------------------------------------------- waiting

    def wake(self) -> None:
        self._changed.unpark_all()

    async def wait_room(self) -> None:
        """Wait until something has changed."""
        await self._changed.park()

    async def wait_arrival(self) -> None:
        """Wait until something has changed, or what is under way is there."""
        if self.is_frozen or self._flying:
            with trio.move_on_at(inf if self.is_frozen else self._flying[0][0]):
                await self._changed.park()
        else:
            self._is_awaited = True
            try:
                await self._changed.park()
            finally:
                self._is_awaited = False


@final
class _OneAtATime:
    """Refuses the second of two tasks that do the same to one stream."""

    __slots__ = ("_busy", "_doing")

    def __init__(self, doing: str) -> None:
        self._busy = False
        self._doing = doing

    def __enter__(self) -> Self:
        if self._busy:
            raise trio.BusyResourceError(f"another task is {self._doing} this stream")
        self._busy = True
        return self

    def __exit__(self, *_: object) -> None:
        self._busy = False


@final
class MemoryStream(trio.abc.HalfCloseableStream):
    """One end of a connection in memory, with the manners of a TCP socket.

    What is written waits in a bounded buffer, so a reader that does not read
    pushes back on its writer. `close` is a FIN, `reset` an RST.

    One thing is kinder than TCP: a write to an end that has closed fails at
    once, not from the second write on.
    """

    __slots__ = ("_closed", "_incoming", "_on_close", "_outgoing", "_pace", "_receiving", "_sending")

    def __init__(self, outgoing: Pipe, incoming: Pipe, on_close: Callable[[MemoryStream], None] | None = None) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._on_close = on_close
        self._sending = _OneAtATime("sending on")
        self._receiving = _OneAtATime("receiving from")
        self._pace = Pace()
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all the bytes, and wait while the other end's buffer is full.

        Raises:
            trio.BrokenResourceError: If the other end closed or reset the connection.
            trio.ClosedResourceError: If this end is closed or has sent its EOF.
            trio.BusyResourceError: If another task is sending.

        Cancellation: may be partial. Some of the bytes may have been sent, and
        nobody can tell how many.
        """
        with self._sending, memoryview(data).cast("B") as rest:
            await trio.lowlevel.checkpoint()
            await self._send(rest)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the other end's buffer has room.

        Raises:
            trio.BrokenResourceError: If the other end closed or reset the connection.
            trio.ClosedResourceError: If this end is closed or has sent its EOF.
            trio.BusyResourceError: If another task is sending.

        Cancellation: atomic.
        """
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._check_writable()
            while not self._outgoing.has_room:
                await self._outgoing.wait_room()
                self._check_writable()

    async def send_eof(self) -> None:
        """Send EOF, and keep receiving. Twice is fine.

        Raises:
            trio.BrokenResourceError: If the other end reset the connection.
            trio.ClosedResourceError: If this end is closed.
            trio.BusyResourceError: If another task is sending.

        Cancellation: atomic.
        """
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._check_whole()
            self._outgoing.finish()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive at least one byte, or `b""` when the other end has sent its EOF.

        Args:
            max_bytes: At least 1; `None` for everything that has come.

        Raises:
            trio.BrokenResourceError: If the other end reset the connection.
            trio.ClosedResourceError: If this end is closed.
            trio.BusyResourceError: If another task is receiving.

        Cancellation: atomic.
        """
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError(f"max_bytes must be at least 1, got {max_bytes!r}")
        with self._receiving:
            await trio.lowlevel.checkpoint()
            await self.wait_readable()
            return self._incoming.read(max_bytes)

    def close(self) -> None:
        """Close both directions. The other end reads what was sent, then EOF.

        What came and was not read is gone. Twice is fine.
        """
        self._end(self._outgoing.finish)

    def reset(self) -> None:
        """Break the connection: what either end has not read yet is destroyed.

        On the other end everything raises `trio.BrokenResourceError` from then
        on. After `close` it does nothing, as with a socket.
        """
        self._end(self._outgoing.break_off)

    async def aclose(self) -> None:
        """Close both directions, as `close` does.

        Cancellation: always closes.
        """
        self.close()
        await trio.lowlevel.checkpoint()

    def freeze(self) -> None:
        """Let nothing through from now on, not even a FIN or an RST, and keep the connection: a black hole.

        Both ends may write on, until the buffers are full.
        """
        for pipe in (self._outgoing, self._incoming):
            pipe.is_frozen = True

    def thaw(self) -> None:
        """Let through again, first of all what was held."""
        for pipe in (self._outgoing, self._incoming):
            pipe.is_frozen = False
            pipe.wake()

    @property
    def is_closed(self) -> bool:
        """Whether this end was closed or reset."""
        return self._closed

    # -------------------------------------------------------------------------------- parcels

    @property
    def sends_parcels(self) -> bool:
        """Whether the other end can do with parcels."""
        return self._outgoing.takes_parcels

    def take_parcels(self) -> None:
        """Let the other end send parcels."""
        self._incoming.takes_parcels = True

    async def send_parcel(self, parcel: Parcel) -> None:
        """Send a parcel; what there is no room for goes as bytes, so that it can be cut.

        Raises and cancellation: as `send_all`.
        """
        with self._sending:
            await self._pace.step()
            if not self.put(parcel):
                await self._send(memoryview(parcel.encode()))

    def put(self, parcel: Parcel) -> bool:
        """Send a parcel if there is room for all of it; tell whether."""
        self._check_writable()
        return self._outgoing.put(parcel)

    def write(self, data: memoryview) -> int:
        """Send as many bytes as there is room for; tell how many."""
        self._check_writable()
        return self._outgoing.write(data)

    async def receive_chunk(self) -> Chunk:
        """Receive what is there up to the next change between bytes and parcels; `b""` at the end.

        Raises and cancellation: as `receive_some`.
        """
        with self._receiving:
            await self._pace.step()
            await self.wait_readable()
            return self._incoming.take()

    async def wait_room(self) -> None:
        """Wait until something has changed for who writes. Cancellation: atomic."""
        await self._outgoing.wait_room()

    async def wait_readable(self) -> None:
        """Wait until `take` has something to give, and be no checkpoint if it has.

        Raises: as `receive_some`. Cancellation: atomic.
        """
        self._check_whole()
        while not self._incoming.is_readable:
            await self._incoming.wait_arrival()
            self._check_whole()

    def take(self) -> Chunk | None:
        """Give what is there up to the next change between bytes and parcels.

        Returns:
            `b""` at the end; `None` if there is nothing now.

        Raises: as `receive_some`.
        """
        self._check_whole()
        return self._incoming.take() if self._incoming.is_readable else None

    # -------------------------------------------------------------------------------- inside

    def _end(self, end_outgoing: Callable[[], None]) -> None:
        if self._closed:
            return
        self._closed = True
        end_outgoing()
        self._incoming.sever()
        if self._on_close is not None:
            self._on_close(self)

    async def _send(self, rest: memoryview) -> None:
        sent = self.write(rest)
        while sent < len(rest):
            await self._outgoing.wait_room()
            sent += self.write(rest[sent:])

    def _check_writable(self) -> None:
        if self._closed or self._outgoing.finished:
            raise trio.ClosedResourceError("this end is closed for sending")
        if self._outgoing.severed:
            raise trio.BrokenResourceError("the other end is gone")

    def _check_whole(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this end is closed")
        if self._incoming.severed:
            raise trio.BrokenResourceError("the other end reset the connection")


def memory_stream_pair(buffer_size: int = BUFFER_SIZE) -> tuple[MemoryStream, MemoryStream]:
    """Give the two ends of a new connection in memory.

    Args:
        buffer_size: How many bytes each direction holds unread, at least 1.
    """
    there, back = Pipe(buffer_size), Pipe(buffer_size)
    return MemoryStream(there, back), MemoryStream(back, there)
