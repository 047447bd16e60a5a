"""What the tests of writing share: a wire that takes what it is told to, and an eye on what a server would read."""

from __future__ import annotations

from contextlib import suppress
from typing import final

import trio

from trio_wsprim.testing import Frame, Opcode, Peer, memory_stream_pair


@final
class ScriptedWire:
    """A direct wire over a network that takes so many bytes, and no more.

    Args:
        record_bytes: `None` if each byte counts as it goes, as over TCP. Else all that is given is taken at once, and
            counts when the record of so many bytes that it is in is through, as over TLS.

    Attributes:
        taken: All that counted, which is all that the peer can read.
    """

    is_direct = True

    def __init__(self, record_bytes: int | None = None) -> None:
        self._record_bytes = record_bytes
        self._room = 0
        self._changed = trio.lowlevel.ParkingLot()
        self._held = b""
        self._gone = 0  # of what is held
        self._is_broken = False
        self.taken = bytearray()
        self.writes = 0
        self.heard_at = self.moved_at = 0.0

    # --- the script ---

    def allow(self, size: int) -> None:
        """Let the network take so many bytes more."""
        self._room += size
        self._changed.unpark_all()

    def break_off(self) -> None:
        """Let every write fail from now on."""
        self._is_broken = True
        self._changed.unpark_all()

    # --- the wire ---

    @property
    def holds(self) -> bool:
        return bool(self._held)

    def write_now(self, data: bytes | memoryview) -> int:
        self.writes += 1
        if self._is_broken:
            raise trio.BrokenResourceError("the script says so")
        assert data, "nothing to write"
        if self._record_bytes is None:
            size = min(self._room, len(data))
            self._room -= size
            self.taken += data[:size]
            return size
        if self._held:
            assert self._held == data, "not the rest of what was given before"
        self._held = bytes(data)
        size = min(self._room, len(data) - self._gone)
        self._room -= size
        self._gone += size
        through = self._gone if self._gone == len(data) else self._gone // self._record_bytes * self._record_bytes
        self.taken += self._held[:through]
        self._held = self._held[through:]
        self._gone -= through
        return through

    async def write(self, data: bytes | memoryview) -> int:
        while not (size := self.write_now(data)):
            await self._changed.park()
        return size

    async def receive_some(self) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    async def receive_into(self, room: memoryview) -> int | None:
        return None

    def interrupt(self) -> None:
        pass

    async def abort(self) -> None:
        self.break_off()


async def read_frames(data: bytes | bytearray) -> tuple[list[Frame], bytes]:
    """Read what was written as who reads it would: whole frames, and what is left of one that was torn."""
    near, far = memory_stream_pair(len(data) + 1)
    peer = Peer(far)
    if data:
        await near.send_all(data)
    near.close()
    with suppress(trio.EndOfChannel):
        while True:
            await peer.receive_frame()
    return peer.frames, peer.unparsed


def is_item(frame: Frame) -> bool:
    """Whether a frame was an item of a batch: a message, or a ping. Nobody else sends those."""
    return frame.opcode in {Opcode.TEXT, Opcode.BINARY, Opcode.PING}


def wire_size(frame: Frame) -> int:
    """How many bytes a frame took on the network."""
    size = len(frame.payload)
    return (6 if frame.masked else 2) + size + (0 if size < 126 else 2 if size < 2**16 else 8)
