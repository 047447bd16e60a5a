"""Bytes in and out of one stream, which know what left and when the last came.

The only room that looks at sockets. Over a TCP socket, with or without TLS, a wire is *direct*: its socket is asked
by whoever has something to send or wants something to read, without a task in between, and it knows byte for
byte what the kernel took. Over any other trio stream (tunnels, unix sockets, memory) it does what streams can do.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import Final, Protocol, final

import trio
from trio.lowlevel import checkpoint, notify_closing, wait_readable, wait_writable

from trio_wsprim._tls import TlsStream

# More than a kernel's read usually returns; four times that much per read loses half the throughput (malloc
# turns to mmap), a quarter of it loses a fifth.
READ_BYTES: Final = 64 * 1024
_ABORT_TIMEOUT: Final = 1.0


class Wire(Protocol):
    """A byte stream. Any failure of it comes out as `trio.BrokenResourceError`.

    Attributes:
        heard_at: When the last byte came in, on trio's clock.
        moved_at: When the network last took a byte, on trio's clock.
    """

    heard_at: float
    moved_at: float

    @property
    def is_direct(self) -> bool:
        """Whether `write_now` writes, and whether a cancelled `receive_some` or a strange task's costs nothing."""
        ...

    async def receive_some(self) -> bytes:
        """Wait for bytes; `b""` at the end of the stream.

        Raises:
            trio.ClosedResourceError: By `interrupt`, or since `abort`.

        Cancellation: atomic.
        """
        ...

    async def receive_into(self, room: memoryview) -> int | None:
        """Wait for bytes, and put them into memory that is there already; 0 at the end of the stream.

        Returns:
            How many; `None`, at once, if this wire's bytes have memory of their own: use `receive_some`.

        Cancellation: atomic.
        """
        ...

    def write_now(self, data: bytes | memoryview) -> int:
        """Write as much as goes without waiting; of what is left, call again with all of it.

        Returns:
            How many bytes of `data` the network has.
        """
        ...

    @property
    def holds(self) -> bool:
        """Whether a part of what `write_now` was given has been taken beyond what it counted."""
        ...

    async def write(self, data: bytes | memoryview) -> int:
        """Write some, at least a byte, waiting for the network; otherwise as `write_now`.

        Cancellation: may be partial; a wire that is direct has taken nothing.
        """
        ...

    def interrupt(self) -> None:
        """Make whoever waits for bytes stop waiting."""
        ...

    async def abort(self) -> None:
        """Close the stream without waiting for anybody. Never raises, and is no cancellation point."""
        ...


def open_wire(stream: trio.abc.Stream) -> Wire:
    """Choose the wire for a stream, which becomes its own."""
    if isinstance(stream, trio.SocketStream):
        return SocketWire(stream)
    if isinstance(stream, TlsStream):
        return TlsWire(stream)
    return StreamWire(stream)


@final
class StreamWire:
    """A wire over any trio stream.

    A write that fails or is cancelled is taken to have cut short what it was about: that is what trio asks of
    `send_all`.
    """

    __slots__ = ("_stream", "heard_at", "holds", "is_direct", "moved_at")

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.is_direct = False
        self.holds = False
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

    async def receive_into(self, room: memoryview) -> int | None:
        """See `Wire`."""
        return None

    def write_now(self, data: bytes | memoryview) -> int:
        """See `Wire`."""
        return 0

    async def write(self, data: bytes | memoryview) -> int:
        """See `Wire`. All of it, as `send_all` does."""
        try:
            await self._stream.send_all(data)
        except Exception as error:
            raise trio.BrokenResourceError("the network takes nothing more") from error
        self.moved_at = trio.current_time()
        return len(data)

    def interrupt(self) -> None:
        """See `Wire`. Nobody but the one task that reads waits here, and that is cancelled instead."""

    async def abort(self) -> None:
        """See `Wire`."""
        await _close(self._stream)


class SocketWire:
    """A wire over a TCP socket."""

    __slots__ = ("_has_more", "_is_interrupted", "_socket", "_stream", "heard_at", "is_direct", "moved_at")

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        # A second handle of the same descriptor, for system calls that are not trio's checkpoints. trio's own stays
        # the owner; this one lets go of it before that is closed.
        theirs = stream.socket
        self._socket = socket.socket(theirs.family, theirs.type, theirs.proto, fileno=theirs.fileno())
        self._socket.setblocking(False)
        # Whether the last read filled its memory, so that there is more to be had without waiting.
        self._has_more = False
        self._is_interrupted = False
        self.is_direct = True
        self.heard_at = self.moved_at = trio.current_time()

    def __del__(self) -> None:
        """Leave the descriptor to its owner."""
        with suppress(AttributeError):  # where there never was one
            self._socket.detach()

    @property
    def holds(self) -> bool:
        """See `Wire`."""
        return False

    async def receive_some(self) -> bytes:
        """See `Wire`."""
        while True:
            await self._wait_readable()
            try:
                data = self._socket.recv(READ_BYTES)
            except BlockingIOError:
                self._has_more = False
                continue
            except OSError as error:
                raise self._lost(error) from error
            self._has_more = len(data) == READ_BYTES
            if data:
                self.heard_at = trio.current_time()
            return data

    async def receive_into(self, room: memoryview) -> int | None:
        """See `Wire`."""
        while True:
            await self._wait_readable()
            try:
                size = self._socket.recv_into(room)
            except BlockingIOError:
                self._has_more = False
                continue
            except OSError as error:
                raise self._lost(error) from error
            self._has_more = False
            if size:
                self.heard_at = trio.current_time()
            return size

    async def _wait_readable(self) -> None:
        if self._has_more:
            self._is_interrupted = False
            await checkpoint()
            if self._is_interrupted:
                raise trio.ClosedResourceError("the wait for bytes was interrupted")
        elif self._socket.fileno() < 0:
            raise trio.ClosedResourceError("this wire was closed on our side")
        else:
            await wait_readable(self._socket)

    def _lost(self, error: OSError) -> Exception:
        if self._socket.fileno() < 0:
            return trio.ClosedResourceError("this wire was closed on our side")
        return trio.BrokenResourceError("the network has lost the connection")

    def write_now(self, data: bytes | memoryview) -> int:
        """See `Wire`."""
        try:
            size = self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError("the network takes nothing more") from error
        self.moved_at = trio.current_time()
        return size

    async def write(self, data: bytes | memoryview) -> int:
        """See `Wire`."""
        while not (size := self.write_now(data)):
            # By `interrupt`, which does not mean us; or by `abort`, of which `write_now` will tell.
            with suppress(trio.ClosedResourceError):
                await wait_writable(self._socket)
        return size

    def interrupt(self) -> None:
        """See `Wire`."""
        self._is_interrupted = True
        # What trio has for a descriptor about to be closed; one that lives on can be waited for again.
        notify_closing(self._socket)

    async def abort(self) -> None:
        """See `Wire`."""
        self._has_more = False
        if self._socket.fileno() >= 0:
            notify_closing(self._socket)
            self._socket.detach()
        await _close(self._stream)


@final
class TlsWire(SocketWire):
    """A wire over TLS over a TCP socket.

    What TLS has once encrypted must go out, or nothing more can: it is kept here until the network has it, and counts
    when the record that it is in is through.
    """

    __slots__ = ("_encrypted", "_session")

    def __init__(self, stream: TlsStream) -> None:
        super().__init__(stream.stream)
        self._session = stream.session
        # How much of what the next write brings is encrypted already.
        self._encrypted = 0

    @property
    def holds(self) -> bool:
        """See `Wire`."""
        return self._encrypted > 0

    async def receive_some(self) -> bytes:
        """See `Wire`."""
        while True:
            try:
                data = self._session.read()
            except ssl.SSLError as error:
                raise trio.BrokenResourceError("the network has lost the connection") from error
            if self._session.cipher and not self._encrypted:
                # An answer of TLS's own, which no write of ours would carry soon. If nobody is there to hear it, what
                # is read next will tell.
                with suppress(trio.BrokenResourceError):
                    self._send_cipher()
            if data is not None:
                return data
            self._session.feed(await super().receive_some())

    async def receive_into(self, room: memoryview) -> int | None:
        """See `Wire`."""
        return None

    def write_now(self, data: bytes | memoryview) -> int:
        """See `Wire`."""
        if not self._encrypted:
            try:
                self._session.encrypt(data)
            except ssl.SSLError as error:
                raise trio.BrokenResourceError("the network takes nothing more") from error
            self._encrypted = len(data)
        size = self._send_cipher()
        self._encrypted -= size
        return size

    def _send_cipher(self) -> int:
        """Send what is encrypted; give how much plain text is through by that."""
        size = super().write_now(self._session.cipher)
        return self._session.sent(size)


async def _close(stream: trio.abc.Stream) -> None:
    # Shielded, since a cancellation from outside would come out here and skip what the caller does next; closing
    # by force does not wait, and a user's stream that does is not waited for long. One that was broken before
    # may complain, to nobody's use: it is closed, or we are out of means.
    with suppress(Exception), trio.move_on_after(_ABORT_TIMEOUT, shield=True):
        await trio.aclose_forcefully(stream)
