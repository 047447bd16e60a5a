"""A network in memory: dials, bounded byte pipes, and the faults of real ones.

Nothing here knows WebSockets, and nothing reads any clock but trio's.
"""

import errno
import math
import operator
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Self, final

import trio

from ._peer import Peer

_BUFFER_SIZE: Final = 65536


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
class _Pipe:
    """One direction of a connection: what was written and not yet read."""

    __slots__ = ("_changed", "_size", "_unread", "finished", "severed")

    def __init__(self, size: int) -> None:
        self._changed = trio.lowlevel.ParkingLot()
        self._size = size
        self._unread = bytearray()
        # The writer is done: what is unread can be read, and then comes EOF.
        self.finished = False
        # The reader went away, or the connection was reset: nothing can be
        # written or read. A reader that went away itself finds its own stream
        # closed before it looks here, so one flag does for both.
        self.severed = False

    @property
    def has_room(self) -> bool:
        return len(self._unread) < self._size

    @property
    def is_readable(self) -> bool:
        return bool(self._unread) or self.finished

    def write(self, data: memoryview) -> int:
        """Take as much of `data` as there is room for; tell how much that was."""
        taken = data[: self._size - len(self._unread)]
        self._unread += taken
        self.wake()
        return len(taken)

    def read(self, max_bytes: int | None) -> bytes:
        data = bytes(self._unread[:max_bytes])
        del self._unread[:max_bytes]
        self.wake()
        return data

    def finish(self) -> None:
        self.finished = True
        self.wake()

    def sever(self) -> None:
        self.severed = True
        self._unread.clear()
        self.wake()

    def wake(self) -> None:
        self._changed.unpark_all()

    async def wait_changed(self) -> None:
        await self._changed.park()


@final
class MemoryStream(trio.abc.HalfCloseableStream):
    """One end of a connection in memory, with the manners of a TCP socket.

    What is written waits in a bounded buffer, so a reader that does not read
    pushes back on its writer. `close` is a FIN, `reset` an RST.

    One thing is kinder than TCP: a write to an end that has closed fails at
    once, not from the second write on.
    """

    __slots__ = ("_closed", "_incoming", "_on_close", "_outgoing", "_receiving", "_sending")

    def __init__(self, outgoing: _Pipe, incoming: _Pipe, on_close: Callable[[], None] = lambda: None) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._on_close = on_close
        self._sending = _OneAtATime("sending on")
        self._receiving = _OneAtATime("receiving from")
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
            sent = self._write(rest)
            while sent < len(rest):
                await self._outgoing.wait_changed()
                sent += self._write(rest[sent:])

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
                await self._outgoing.wait_changed()
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
            self._check_whole()
            while not self._incoming.is_readable:
                await self._incoming.wait_changed()
                self._check_whole()
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
        self._end(self._outgoing.sever)

    async def aclose(self) -> None:
        """Close both directions, as `close` does.

        Cancellation: always closes.
        """
        self.close()
        await trio.lowlevel.checkpoint()

    def _end(self, end_outgoing: Callable[[], None]) -> None:
        if self._closed:
            return
        self._closed = True
        end_outgoing()
        self._incoming.sever()
        self._on_close()

    def _write(self, data: memoryview) -> int:
        self._check_writable()
        return self._outgoing.write(data)

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


def memory_stream_pair(buffer_size: int = _BUFFER_SIZE) -> tuple[MemoryStream, MemoryStream]:
    """Give the two ends of a new connection in memory.

    Args:
        buffer_size: How many bytes each direction holds unread, at least 1.
    """
    there, back = _Pipe(buffer_size), _Pipe(buffer_size)
    return MemoryStream(there, back), MemoryStream(back, there)


@dataclass(frozen=True, slots=True)
class Dial:
    """One call of `MemoryNetwork.open_stream`, however it ended.

    Attributes:
        time: On trio's clock, in seconds.
    """

    host: str
    port: int
    time: float


@final
class MemoryNetwork:
    """A network without wires: give its `open_stream` to what is to be tested.

    `accept` then tells each connection's other end, as a scripted `Peer`.
    Faults take the coming dials in the order in which they were asked for.

    Args:
        buffer_size: How many bytes each direction of a connection holds unread, at
            least 1. A writer waits for room beyond that.

    Attributes:
        dials: Every dial, refused and stalled ones too, in order.
        live: How many connections the client has open now. One that the peer
            dropped or reset counts until the client closes its own end.
        most_live: The most that ever were live at once.
    """

    __slots__ = ("_arrive", "_arrived", "_buffer_size", "_faults", "dials", "live", "most_live")

    def __init__(self, *, buffer_size: int = _BUFFER_SIZE) -> None:
        if buffer_size < 1:
            raise ValueError(f"buffer_size must be at least 1, got {buffer_size!r}")
        self._buffer_size = buffer_size
        self._faults: deque[Callable[[], Awaitable[None]]] = deque()
        self._arrive, self._arrived = trio.open_memory_channel[Peer](math.inf)
        self.dials: list[Dial] = []
        self.live = 0
        self.most_live = 0

    async def open_stream(self, host: str, port: int) -> MemoryStream:
        """Dial: record it in `dials`, suffer the next fault if there is one, connect.

        Nobody needs to be in `accept`, as with the backlog of a listening socket.

        Raises:
            OSError: If a fault says so.

        Cancellation: atomic, but that the dial may be recorded and its fault used up.
        """
        await trio.lowlevel.checkpoint()
        self.dials.append(Dial(host, port, trio.current_time()))
        if self._faults:
            suffer = self._faults.popleft()
            await suffer()
        return self._connect()

    async def accept(self) -> Peer:
        """Wait for the next connection, and give the server's side of it.

        Connections come in the order in which they came about, and also when
        the client has closed its end already.

        Cancellation: atomic.
        """
        return await self._arrived.receive()

    def refuse(self, count: int = 1, error: OSError | None = None) -> None:
        """Let `count` dials fail at once.

        Args:
            error: What they raise; `None` for a new `ConnectionRefusedError` each.
        """

        async def fail() -> None:
            raise error or ConnectionRefusedError(errno.ECONNREFUSED, "connection refused")

        self._faults.extend([fail] * count)

    def stall(self, count: int = 1) -> None:
        """Let `count` dials hang until they are cancelled."""
        self._faults.extend([trio.sleep_forever] * count)

    def delay(self, seconds: float, count: int = 1) -> None:
        """Let `count` dials take that many seconds before they connect."""

        async def wait() -> None:
            await trio.sleep(seconds)

        self._faults.extend([wait] * count)

    def _connect(self) -> MemoryStream:
        there, back = _Pipe(self._buffer_size), _Pipe(self._buffer_size)
        self._arrive.send_nowait(Peer(MemoryStream(back, there)))
        self.live += 1
        self.most_live = max(self.most_live, self.live)
        return MemoryStream(there, back, self._hang_up)

    def _hang_up(self) -> None:
        self.live -= 1
