"""The sending side of a link: batches of messages, and control frames that wait for nobody."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from struct import Struct
from typing import Final, cast, final

import trio

from trio_wsprim._frames import (
    BARE_BINARY_HEADS,
    BARE_TEXT_HEADS,
    BINARY,
    CLOSE,
    FIN,
    NO_CODE,
    PING,
    PONG,
    SMALL_BINARY_HEADS,
    SMALL_PING_HEADS,
    SMALL_TEXT_HEADS,
    TEXT,
    SharedBytes,
    SharedText,
    encode_close,
    encode_frame,
    encode_head,
)
from trio_wsprim._mask import apply_mask
from trio_wsprim._scopes import Bell
from trio_wsprim._seam import Outgoing, Ping
from trio_wsprim._values import Message
from trio_wsprim._wire import Wire

_CLOSE_FRAME: Final = FIN | CLOSE
_PONG_FRAME: Final = FIN | PONG
# Frames are joined up to this size; beyond, another system call costs less than the copy.
_JOIN_BYTES: Final = 64 * 1024
# A larger message is masked and sent in pieces, so that the network works while we mask; a multiple of 4.
_PIECE_BYTES: Final = 128 * 1024
# One call for random bytes serves so many messages.
_JOIN_FRAMES: Final = 4096
_KEYS: Final = Struct("4s")
# Lone messages take theirs from a stock, since a system call for four bytes costs more than all else that is done here.
_KEYS_BYTES: Final = 4 * 64
# A larger message is no matter of microseconds.
_LONE: Final = 8 * 1024

Encode = Callable[[Message], bytes]


@final
class OutgoingSide:
    """Writes to a wire from two sides: the user's batches, and what the protocol owes the peer.

    Control frames are queued without waiting, so that whoever reads never waits for a peer that does not. They
    cannot pile up: of many pongs only the newest is owed (RFC 6455, 5.5.3), and there is one close. They go out
    between two pieces of what else there is to send, never inside a frame.

    Args:
        wire: Nobody else may write on it.
        nursery: Where a task is started for control frames that the network does not take at once.
        masks: Whether we are the client, which masks all its frames (RFC 6455, 5.1).

    Attributes:
        encode: Makes the frame of a message instead of ours, such as a compressed one.
        close_queued: Whether a close frame has been queued; nothing may follow it.
        torn: Whether a write was cut short, so that nothing can follow.
    """

    __slots__ = (
        "_controls",
        "_flushed",
        "_frames",
        "_is_draining",
        "_is_flushing",
        "_is_inside",
        "_items",
        "_keys",
        "_large",
        "_masks",
        "_nursery",
        "_piece",
        "_position",
        "_sent",
        "_wire",
        "close_queued",
        "encode",
        "torn",
    )

    def __init__(self, wire: Wire, nursery: trio.Nursery, *, masks: bool = True) -> None:
        self._wire = wire
        self._masks = masks
        self._nursery = nursery
        self._controls: list[bytes] = []
        self._items: list[Outgoing] = []
        # A message that is too large for one piece, and whether a piece of it has gone out.
        self._large: _LargeFrame | None = None
        self._is_inside = False
        # What is being written, how far that is, and which frames of items end in it.
        self._piece = b""
        self._position = 0
        self._frames: Sequence[bytes] = ()
        self._sent = 0
        # Whether somebody writes, and whether there is a task of ours to write control frames.
        self._is_flushing = False
        self._is_draining = False
        self._flushed = Bell()
        self._keys: list[tuple[bytes]] = []
        self.encode: Encode | None = None
        self.close_queued = False
        self.torn = False

    @property
    def items_sent(self) -> int:
        """How many items of batches the network has to their last byte."""
        return self._sent + self._through

    @property
    def _through(self) -> int:
        """How many frames of the present piece are through."""
        return bisect_right(list(accumulate(map(len, self._frames))), self._position) if self._position else 0

    # -------------------------------------------------------------------------------- from both sides

    def send_now(self, batch: Sequence[Outgoing]) -> bool:
        """Take a batch, and write what goes without waiting; whether that was all. If not, `flush`."""
        if len(batch) == 1 and self._is_idle and not isinstance(batch[0], Ping) and len(batch[0]) <= _LONE:
            return self._send_lone(batch[0])
        self._items.extend(batch)
        return self._push() and not self._items

    @property
    def _is_idle(self) -> bool:
        """Whether the next thing to be written is what comes next."""
        return not (
            self._piece
            or self._items
            or self._controls
            or self._large
            or self._is_flushing
            or self.torn
            or self.close_queued
            or self.encode
        )

    def _send_lone(self, item: Message) -> bool:
        """Write one small message without queueing it: half of what a round trip costs us is saved so."""
        if not self._masks:
            frame = _bare_frame(item)
        else:
            if isinstance(item, str):
                payload, opcode, heads = item.encode(), TEXT, SMALL_TEXT_HEADS
            else:
                payload, opcode, heads = item, BINARY, SMALL_BINARY_HEADS
            size = len(payload)
            head = heads[size] if size < 126 else encode_head(opcode, size)
            if not self._keys:
                self._keys = list(_KEYS.iter_unpack(os.urandom(_KEYS_BYTES)))
            (key,) = self._keys.pop()
            frame = head + key + apply_mask(payload, key)
        self._piece, self._frames = frame, (frame,)
        if not self._wire.is_direct:
            return False
        try:
            return self._advance(self._wire.write_now(frame))
        except trio.BrokenResourceError:  # as in `_push`
            self._break()
            return False

    def queue(self, frame: bytes) -> None:
        """Let a control frame go out as soon as the wire is free; never waits. After a close frame, nothing does."""
        if self.close_queued:
            return
        if frame[0] == _PONG_FRAME and self._controls and self._controls[-1][0] == _PONG_FRAME:
            self._controls.pop()
        self._controls.append(frame)
        self.close_queued = frame[0] == _CLOSE_FRAME
        if not self._push():
            self._see_to_controls()

    def queue_close(self, code: int, reason: str) -> None:
        """Let a close frame go out, last of all; 1005 is said by saying nothing (RFC 6455, 7.4.1)."""
        mask = os.urandom(4) if self._masks else None
        self.queue(encode_frame(CLOSE, b"", mask) if code == NO_CODE else encode_close(code, reason, mask))

    async def flush(self) -> None:
        """Write all there is.

        Raises:
            trio.BrokenResourceError: The network does not take it, or a close frame went before it.

        Cancellation: may be partial; what has not gone out will not, and `items_sent` is exact.
        """
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            while self._has_more:
                if self._is_flushing:
                    await self._flushed.wait()
                else:
                    await self._write(controls_only=False)
            self._check_whole()
            if self._items:
                raise trio.BrokenResourceError("nothing may follow a close frame")
        except BaseException:
            self._abandon()
            self._see_to_controls()
            raise

    # -------------------------------------------------------------------------------- writing

    @property
    def _has_more(self) -> bool:
        """Whether something is to be written; behind a close frame, nothing is."""
        return bool(self._piece or self._large or self._controls or (self._items and not self.close_queued))

    def _push(self) -> bool:
        """Write what goes without waiting, unless somebody is at it; whether nothing is left."""
        if self._is_flushing or self.torn or not self._wire.is_direct:
            return False
        try:
            while self._piece or self._next_piece():
                if not self._advance(self._wire.write_now(self._rest())):
                    return False
        except trio.BrokenResourceError:  # whoever flushes is told, and whoever reads finds out by himself
            self._break()
            return False
        return True

    def _see_to_controls(self) -> None:
        """Have the control frames go out that are owed, if nobody is at it."""
        is_owed = self._controls or (self._piece and not self._frames)
        if is_owed and not (self._is_flushing or self._is_draining or self.torn):
            self._is_draining = True
            self._nursery.start_soon(self._drain)

    async def _drain(self) -> None:
        try:
            while self._has_control and not self._is_flushing:
                await self._write(controls_only=True)
        except trio.BrokenResourceError:
            pass  # as in `_push`
        finally:
            self._is_draining = False

    @property
    def _has_control(self) -> bool:
        """Whether a control frame is under way, or may be: not inside a message."""
        if self._large is not None or self._is_inside:
            return False
        return not self._frames if self._piece else bool(self._controls)

    async def _write(self, *, controls_only: bool) -> None:
        """Write until nothing is left.

        Messages are written by those who sent them, in `flush`, so that a cancelled one can say how far they came.
        """
        self._check_whole()
        self._is_flushing = True
        try:
            while (not controls_only or self._has_control) and (self._piece or self._next_piece()):
                self._advance(await self._wire.write(self._rest()))
        except BaseException as error:
            # What a stream's cancelled write leaves behind is not known; a direct wire has taken nothing.
            if not (self._wire.is_direct and isinstance(error, trio.Cancelled)):
                self._break()
            raise
        finally:
            self._is_flushing = False
            self._flushed.ring()

    def _rest(self) -> bytes | memoryview:
        return memoryview(self._piece)[self._position :] if self._position else self._piece

    def _advance(self, count: int) -> bool:
        """The network has taken so much more of the piece; whether that was the rest of it."""
        self._position += count
        if self._position < len(self._piece):
            return False
        self._sent += len(self._frames)
        self._is_inside = self._large is not None
        self._piece, self._position, self._frames = b"", 0, ()
        return True

    def _abandon(self) -> None:
        """Write no more of the present batch: whoever sent it is about to be told how far it came."""
        self._items.clear()
        is_cut = self._is_inside
        if self._frames or self._large is not None:
            through = self._through
            is_cut |= self._position > sum(map(len, self._frames[:through])) or self._wire.holds
            self._sent += through
            self._piece, self._position, self._frames = b"", 0, ()
        self._large, self._is_inside = None, False
        self.torn |= is_cut

    def _break(self) -> None:
        self._abandon()
        self._controls.clear()
        self._piece, self._position = b"", 0
        self.torn = True

    def _check_whole(self) -> None:
        if self.torn:
            raise trio.BrokenResourceError("an earlier write was cut short")

    # -------------------------------------------------------------------------------- making pieces

    def _next_piece(self) -> bool:
        """Make what is written next; whether there is anything."""
        if self._large is not None:
            self._piece = self._large.next_piece()
            if self._large.is_done:
                self._frames, self._large = (self._piece,), None
        elif self._controls:
            self._piece = b"".join(self._controls)
            self._controls.clear()
        elif self._items and not self.close_queued:
            if self._masks:
                self._encode_items()
            else:
                self._encode_bare_items()
        else:
            return False
        return True

    def _encode_items(self) -> None:
        """Encode as many items as are worth one write; the loop that runs for every message."""
        items, frames = self._items, list[bytes]()
        room = _JOIN_BYTES if self._wire.is_direct else 0
        count = 0
        for (key,), item in zip(_KEYS.iter_unpack(os.urandom(4 * min(len(items), _JOIN_FRAMES))), items, strict=False):
            count += 1
            if isinstance(item, str):
                payload, opcode, heads = item.encode(), TEXT, SMALL_TEXT_HEADS
            elif isinstance(item, bytes):
                payload, opcode, heads = item, BINARY, SMALL_BINARY_HEADS
            else:
                payload, opcode, heads = item.payload, PING, SMALL_PING_HEADS
            size = len(payload)
            if self.encode is not None and opcode != PING:
                frames.append(self.encode(cast("Message", item)))
            elif size < 126:
                frames.append(heads[size] + key + apply_mask(payload, key))
            elif size <= _PIECE_BYTES:
                frames.append(encode_head(opcode, size) + key + apply_mask(payload, key))
            elif frames:
                count -= 1  # it is the next piece
                break
            else:
                del items[:1]
                self._large = _LargeFrame(encode_head(opcode, size), payload, key)
                self._piece = self._large.next_piece()
                return
            room -= size
            if room <= 0:
                break
        del items[:count]
        self._frames = frames
        self._piece = frames[0] if len(frames) == 1 else b"".join(frames)

    def _encode_bare_items(self) -> None:
        """Do the same for a server, whose large messages need no pieces: nothing is done to them."""
        items, frames = self._items, list[bytes]()
        room = _JOIN_BYTES if self._wire.is_direct else 0
        for item in items:
            if isinstance(item, Ping):
                frame = encode_frame(PING, item.payload, None)
            elif self.encode is not None:
                frame = self.encode(item)
            else:
                frame = _bare_frame(item)
            frames.append(frame)
            room -= len(frame)
            if room <= 0:
                break
        del items[: len(frames)]
        self._frames = frames
        self._piece = frames[0] if len(frames) == 1 else b"".join(frames)


def _bare_frame(item: Message) -> bytes:
    """Make the frame of a message as a server sends it."""
    if isinstance(item, SharedText | SharedBytes):
        return item.frame
    if isinstance(item, str):
        payload, opcode, heads = item.encode(), TEXT, BARE_TEXT_HEADS
    else:
        payload, opcode, heads = item, BINARY, BARE_BINARY_HEADS
    size = len(payload)
    return (heads[size] if size < 126 else encode_head(opcode, size, masked=False)) + payload


@final
class _LargeFrame:
    """A frame that is masked piece by piece, as it goes out."""

    __slots__ = ("_head", "_key", "_payload", "_position")

    def __init__(self, head: bytes, payload: bytes, key: bytes) -> None:
        self._head = head + key
        self._payload = memoryview(payload)
        self._key = key
        self._position = 0

    def next_piece(self) -> bytes:
        start = self._position
        self._position += _PIECE_BYTES
        masked = apply_mask(self._payload[start : self._position], self._key)
        return masked if start else self._head + masked

    @property
    def is_done(self) -> bool:
        return self._position >= len(self._payload)
