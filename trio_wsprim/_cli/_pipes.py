"""Standard input and output without ever blocking the run: sockets go on while a reader is slow or a writer silent."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import Final, Protocol, final

import trio

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2

_CHUNK: Final = 65536


class Source(Protocol):
    """Where input comes from."""

    async def read(self) -> bytes:
        """Wait for some bytes; none at the end. Cancellation: atomic, except that a thread may still take some."""
        ...

    async def aclose(self) -> None:
        """Leave it as it was."""
        ...


def open_source(descriptor: int) -> Source:
    """Read a file descriptor: by epoll and its like where it is a terminal or a pipe, in a thread otherwise.

    Non-blocking is a property of what was opened, not of our descriptor, and a terminal is usually one with the
    shell's and with our own output: to set it there makes others fail, and outlives us if we are killed. So it
    is opened once more, and only that is set; where this cannot be had, as for sockets and files, a thread waits.
    """
    own = _reopen(descriptor)
    return ThreadSource(descriptor) if own is None else WatchedSource(own)


def _reopen(descriptor: int) -> int | None:
    # Neither terminal names nor `/proc` are everywhere.
    with suppress(OSError, AttributeError):
        if os.isatty(descriptor):
            return os.open(os.ttyname(descriptor), os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_NONBLOCK)
    return None


@final
class WatchedSource:
    """See `Source`; owns its descriptor."""

    __slots__ = ("_stream",)

    def __init__(self, descriptor: int) -> None:
        self._stream = trio.lowlevel.FdStream(descriptor)

    async def read(self) -> bytes:
        """See `Source`."""
        try:
            return bytes(await self._stream.receive_some(_CHUNK))
        except trio.BrokenResourceError:  # a terminal that has gone
            return b""

    async def aclose(self) -> None:
        """See `Source`."""
        await self._stream.aclose()


@final
class ThreadSource:
    """See `Source`. A cancelled read leaves its thread behind, which ends with the next input or with the process."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def read(self) -> bytes:
        """See `Source`."""
        try:
            return await trio.to_thread.run_sync(os.read, self._descriptor, _CHUNK, abandon_on_cancel=True)
        except OSError:  # as for a terminal that has gone; whatever it is, nothing more will come
            return b""

    async def aclose(self) -> None:
        """See `Source`."""
        await trio.lowlevel.checkpoint()


@final
class Sink:
    """Writes to file descriptors, in order, by a thread: who reads us may be slow.

    Past Python's own buffers: a thread that is left behind in one of those would hold its lock when the interpreter
    wants to flush it at exit.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = trio.Lock()

    async def write(self, descriptor: int, text: str) -> None:
        """Write text as UTF-8.

        Raises:
            BrokenPipeError: If nobody reads it any more.

        Cancellation: may be partial, and the thread may go on writing.
        """
        async with self._lock:
            await trio.to_thread.run_sync(write_all, descriptor, text.encode(), abandon_on_cancel=True)


def write_all(descriptor: int, data: bytes) -> None:
    """Write bytes, however many calls it takes."""
    while data:
        data = data[os.write(descriptor, data) :]


def fill_standard_descriptors() -> None:
    """Put the null device where 0, 1 or 2 is closed, or the next socket to be opened would be our output."""
    for descriptor in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which takes the lowest number that is free
