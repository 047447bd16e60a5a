"""The two ends of a connection in memory, with nothing but what fuzzing needs: a thousand are made in a second."""

from __future__ import annotations

from typing import Final, Self, final

import trio

from trio_wsprim._scopes import Bell


@final
class _Way:
    """One direction: what was written and not yet read."""

    __slots__ = ("bell", "data", "has_ended", "is_broken")

    def __init__(self) -> None:
        self.data = bytearray()
        self.has_ended = False
        self.is_broken = False
        self.bell: Final = Bell()

    def end(self) -> None:
        self.has_ended = True
        self.bell.ring()

    def break_off(self) -> None:
        self.is_broken = True
        self.data.clear()
        self.bell.ring()


@final
class End(trio.abc.HalfCloseableStream):
    """One end. What is written waits without bounds, so writing never does."""

    __slots__ = ("_incoming", "_outgoing", "is_closed")

    def __init__(self, incoming: _Way, outgoing: _Way) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self.is_closed = False

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        there, back = _Way(), _Way()
        return cls(back, there), cls(there, back)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self._check()
        if self._outgoing.is_broken:
            raise trio.BrokenResourceError("the other end is gone")
        self._outgoing.data += data
        self._outgoing.bell.ring()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self._check()
        self._outgoing.end()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        way = self._incoming
        while True:
            self._check()
            if way.is_broken:
                raise trio.BrokenResourceError("the other end has reset the connection")
            if way.data or way.has_ended:
                data = bytes(way.data[:max_bytes])
                del way.data[:max_bytes]
                return data
            await way.bell.wait()

    async def aclose(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._outgoing.end()
            self._incoming.break_off()
        await trio.lowlevel.checkpoint()

    def reset(self) -> None:
        """Break the connection; what the other end has not read is gone."""
        self.is_closed = True
        self._outgoing.break_off()
        self._incoming.break_off()

    def _check(self) -> None:
        if self.is_closed:
            raise trio.ClosedResourceError("this end is closed")
