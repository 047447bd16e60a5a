"""Bytes in and out of one stream: coalesced writes that know what left, reads that know when they came.

The only room that looks at sockets. Two wires with the same promises: one over a TCP socket, which learns from
the kernel how much it took, and one over any other trio stream (TLS, tunnels, unix sockets, memory), which
writes frame by frame, since `send_all` does not tell how much went out before it failed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Final, Protocol, final

import trio

# More than a kernel's read usually returns; twice that much per read loses half the throughput (malloc
# turns to mmap), a quarter of it loses a fifth.
READ_BYTES: Final = 64 * 1024
# Frames are joined up to this size; beyond, another system call costs less than the copy.
_JOIN_BYTES: Final = 64 * 1024
_ABORT_TIMEOUT: Final = 1.0


class Wire(Protocol):
    """A byte stream that counts. Any failure of the stream comes out as `trio.BrokenResourceError`.

    Attributes:
        frames_written: How many frames the network has taken to their last byte.
        heard_at: When the last byte came in, on trio's clock.
        moved_at: When the network last took a byte, on trio's clock.
    """

    frames_written: int
    heard_at: float
    moved_at: float

    async def receive_some(self) -> bytes:
        """Wait for bytes; `b""` at the end of the stream.

        Cancellation: atomic.
        """
        ...

    async def write(self, frames: Sequence[bytes]) -> None:
        """Write whole frames, in order, in few system calls.

        Cancellation: may be partial; `frames_written` tells what went out whole.
        """
        ...

    async def abort(self) -> None:
        """Close the stream without waiting for anybody. Never raises, and is no cancellation point."""
        ...


def open_wire(stream: trio.abc.Stream) -> Wire:
    """Choose the wire for a stream, which becomes its own."""
    if isinstance(stream, trio.SocketStream):
        return SocketWire(stream)
    return StreamWire(stream)


class StreamWire:
    """A wire over any trio stream.

    A write that fails or is cancelled is taken to have cut short the frame that it was about: that is what
    trio asks of `send_all`. So each frame is a write of its own.
    """

    __slots__ = ("_stream", "frames_written", "heard_at", "moved_at")

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.frames_written = 0
        self.heard_at = self.moved_at = trio.current_time()

    async def receive_some(self) -> bytes:
        """See `Wire`."""
        try:
            data = await self._stream.receive_some(READ_BYTES)
        except Exception as error:
            raise trio.BrokenResourceError("the network has lost the connection") from error
        if data:
            self.heard_at = trio.current_time()
        return bytes(data)

    async def write(self, frames: Sequence[bytes]) -> None:
        """See `Wire`."""
        for frame in frames:
            try:
                await self._stream.send_all(frame)
            except Exception as error:
                raise trio.BrokenResourceError("the network takes nothing more") from error
            self.frames_written += 1
            self.moved_at = trio.current_time()

    async def abort(self) -> None:
        """See `Wire`."""
        # Shielded, since a cancellation from outside would come out here and skip what the caller does next; closing
        # by force does not wait, and a user's stream that does is not waited for long. One that was broken before
        # may complain, to nobody's use: it is closed, or we are out of means.
        with suppress(Exception), trio.move_on_after(_ABORT_TIMEOUT, shield=True):
            await trio.aclose_forcefully(self._stream)


@final
class SocketWire(StreamWire):
    """A wire over a TCP socket: joined writes, and exact knowledge of what the kernel took."""

    __slots__ = ("_socket",)

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream)
        self._socket = stream.socket

    async def write(self, frames: Sequence[bytes]) -> None:
        """See `Wire`."""
        for group in _groups(frames):
            await self._write_joined(group)

    async def _write_joined(self, group: Sequence[bytes]) -> None:
        """Send a few frames as one piece, and count those that are through."""
        ends = list(accumulate(map(len, group)))
        data = memoryview(group[0] if len(group) == 1 else b"".join(group))
        before, sent = self.frames_written, 0
        while sent < len(data):
            try:
                # Not `SocketStream.send_all`, which does not tell how much of it went out.
                sent += await self._socket.send(data[sent:])
            except (OSError, trio.ClosedResourceError) as error:
                raise trio.BrokenResourceError("the network takes nothing more") from error
            self.frames_written = before + bisect_right(ends, sent)
            self.moved_at = trio.current_time()


def _groups(frames: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Cut a batch into runs worth joining; a large frame stays alone."""
    group: list[bytes] = []
    size = 0
    for frame in frames:
        if group and size + len(frame) > _JOIN_BYTES:
            yield group
            group, size = [], 0
        group.append(frame)
        size += len(frame)
    if group:
        yield group
