"""The sending side of a link: batches of messages, and control frames that wait for nobody."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, final

import trio

from trio_wsprim._lane import CLOSE, NO_CODE, PING, PONG, encode_close, encode_frame, encode_message
from trio_wsprim._scopes import Bell
from trio_wsprim._seam import Outgoing, Ping
from trio_wsprim._wire import Wire

_CLOSE_FRAME: Final = 0x80 | CLOSE
_PONG_FRAME: Final = 0x80 | PONG


@final
class OutgoingSide:
    """Writes to a wire from two sides: the user's batches, and what the protocol owes the peer.

    Control frames are queued without waiting, so that whoever reads never waits for a peer that does not. They
    cannot pile up: of many pongs only the newest is owed (RFC 6455, 5.5.3), and there is one close.
    """

    __slots__ = ("_bell", "_controls", "_lock", "_wire", "close_queued", "items_sent", "torn")

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._lock = trio.Lock()
        self._controls: deque[bytes] = deque()
        self._bell = Bell()
        self.items_sent = 0
        self.close_queued = False
        # A write was cut short: nothing may follow the torn frame.
        self.torn = False

    async def send(self, batch: Sequence[Outgoing]) -> None:
        """Write a batch.

        Raises:
            trio.BrokenResourceError: The network does not take it, or a close frame went before it.

        Cancellation: may be partial; `items_sent` is exact then too.
        """
        keys = os.urandom(4 * len(batch))
        frames = [_encode(item, keys[4 * i : 4 * i + 4]) for i, item in enumerate(batch)]
        async with self._lock:
            if self.close_queued:  # while we waited for our turn
                raise trio.BrokenResourceError("nothing may follow a close frame")
            before = self._wire.frames_written
            try:
                await self._write(frames)
            finally:
                self.items_sent += self._wire.frames_written - before

    def queue(self, frame: bytes) -> None:
        """Let a control frame go out as soon as the wire is free; never waits. After a close frame, nothing does."""
        if self.close_queued:
            return
        if frame[0] == _PONG_FRAME and self._controls and self._controls[-1][0] == _PONG_FRAME:
            self._controls.pop()
        self._controls.append(frame)
        self.close_queued = frame[0] == _CLOSE_FRAME
        self._bell.ring()

    def queue_close(self, code: int, reason: str) -> None:
        """Let a close frame go out, last of all; 1005 is said by saying nothing (RFC 6455, 7.4.1)."""
        mask = os.urandom(4)
        self.queue(encode_frame(CLOSE, b"", mask) if code == NO_CODE else encode_close(code, reason, mask))

    async def flush(self) -> None:
        """Write the control frames that are queued.

        Raises:
            trio.BrokenResourceError: The network does not take them.

        Cancellation: may be partial; the wire is fit only for `abort`.
        """
        async with self._lock:
            self._check_whole()  # also with nothing queued: `run` may have tried in vain before
            while self._controls:
                await self._write([self._controls.popleft()])

    async def run(self) -> None:
        """Write control frames as they come, until cancelled or the network is gone."""
        with suppress(trio.BrokenResourceError):  # whoever reads finds out, or whoever sends
            while True:
                await self._bell.wait()
                await self.flush()

    async def _write(self, frames: Sequence[bytes]) -> None:
        self._check_whole()
        try:
            await self._wire.write(frames)
        except BaseException:
            self.torn = True
            raise

    def _check_whole(self) -> None:
        if self.torn:
            raise trio.BrokenResourceError("an earlier write was cut short")


def _encode(item: Outgoing, mask: bytes) -> bytes:
    if isinstance(item, Ping):
        return encode_frame(PING, item.payload, mask)
    return encode_message(item, mask)
