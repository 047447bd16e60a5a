"""The link of `MemoryTransport`: parcels out and in, and a reader of RFC 6455 for a peer that says it in bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, NoReturn, final

import trio

from trio_wsprim._errors import ConnectionClosed, fresh
from trio_wsprim._frames import INVALID_DATA, NO_CODE, PROTOCOL_ERROR, TOO_BIG, Close, encode_close, read_close
from trio_wsprim._lane import FrameDecoder, OtherFrame, TooBig
from trio_wsprim._scopes import Bell, OneAtATime, Pace
from trio_wsprim._seam import Ending, Incoming, Outgoing, Ping, Pong
from trio_wsprim._values import Message
from trio_wsprim.transports._answer import Answer
from trio_wsprim.transports._fragments import Fragments
from trio_wsprim.transports._link import Breach

from ._codec import Opcode
from ._memory import MemoryStream, Parcel, parcel_of

_LOST: Final = Ending(1006, "", clean=False)
# How long a peer may take to hang up after the closing handshake; as with the real transports.
_LINGER: Final = 0.25
# Bytes of a frame's header and mask, before the payload of a close frame.
_CLOSE_HEAD: Final = 6


@final
class _Outgoing:
    """Writes batches, and between two of their items what the protocol owes the peer.

    Args:
        stream: Nobody else may write on it.
        nursery: For a task that writes what is owed when there is no room for it.

    Attributes:
        close_queued: Whether a close frame has been queued; nothing may follow it.
        torn: Whether a write was cut short, so that nothing can follow.
    """

    __slots__ = (
        "_controls",
        "_is_draining",
        "_is_writing",
        "_items",
        "_nursery",
        "_pace",
        "_stream",
        "_written",
        "close_queued",
        "items_sent",
        "moved_at",
        "torn",
    )

    def __init__(self, stream: MemoryStream, nursery: trio.Nursery) -> None:
        self._stream = stream
        self._nursery = nursery
        self._items: deque[Outgoing] = deque()
        self._controls: list[Parcel] = []
        self._is_writing = False
        self._is_draining = False
        self._written = Bell()
        self._pace = Pace()
        self.items_sent = 0
        self.moved_at = trio.current_time()
        self.close_queued = False
        self.torn = False

    def add(self, batch: Sequence[Outgoing]) -> None:
        self._items.extend(batch)

    async def flush(self) -> None:
        """Write all there is; what a failed or cancelled one has not written will not be."""
        try:
            await self._pace.step()
            while self._is_writing or self._controls or (self._items and not self.close_queued):
                if self._is_writing:
                    await self._written.wait()
                else:
                    await self._write(controls_only=False)
            self._check_whole()
            if self._items:
                raise trio.BrokenResourceError("nothing may follow a close frame")
        except BaseException:
            self._items.clear()
            self._see_to_controls()
            raise

    def queue(self, opcode: Opcode, payload: bytes) -> None:
        """Let a control frame go out as soon as there is room; never waits. Of many pongs, the newest is owed."""
        if opcode == Opcode.PONG and self._controls:
            self._controls.pop()
        self._controls.append(Parcel(opcode, payload, len(payload), masked=True))
        self.close_queued = opcode == Opcode.CLOSE
        self._see_to_controls()

    def _see_to_controls(self) -> None:
        if self._is_writing or self.torn:
            return
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # whoever reads finds out by himself
            while self._controls and self._stream.put(self._controls[0]):
                self._note_written()
                del self._controls[0]
        if self._controls and not self._is_draining:
            self._is_draining = True
            self._nursery.start_soon(self._drain)

    async def _drain(self) -> None:
        try:
            while self._controls and not self._is_writing:
                await self._write(controls_only=True)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # likewise
        finally:
            self._is_draining = False

    async def _write(self, *, controls_only: bool) -> None:
        self._check_whole()
        self._is_writing = True
        try:
            while self._controls or (self._items and not (controls_only or self.close_queued)):
                if self._controls:
                    await self._write_parcel(self._controls.pop(0))
                else:
                    await self._write_parcel(_wrap(self._items.popleft()))
                    self.items_sent += 1
        finally:
            self._is_writing = False
            self._written.ring()

    async def _write_parcel(self, parcel: Parcel) -> None:
        if self._stream.put(parcel):
            self._note_written()
            return
        data = memoryview(parcel.encode())
        rest = data
        try:
            while rest:
                size = self._stream.write(rest)
                if size:
                    self._note_written()
                    rest = rest[size:]
                else:
                    await self._stream.wait_room()
        except BaseException:
            if len(rest) < len(data):
                self.torn = True
                self._controls.clear()
            raise

    def _note_written(self) -> None:
        self.moved_at = trio.current_time()

    def _check_whole(self) -> None:
        if self.torn:
            raise trio.BrokenResourceError("an earlier write was cut short")


def _wrap(item: Outgoing) -> Parcel:
    if isinstance(item, Ping):
        return Parcel(Opcode.PING, item.payload, len(item.payload), masked=True)
    return parcel_of(item, masked=True)


@final
class MemoryLink:
    """See `trio_wsprim.abc.Link`.

    Args:
        nursery: For the one task that it may need.
        stream: Its own from now on.
        answer: The server's.
        max_message_bytes: The largest message that may come in; `None` for no limit.
    """

    __slots__ = (
        "_decoder",
        "_error",
        "_fragments",
        "_held",
        "_is_closed",
        "_is_peers_close",
        "_limit",
        "_outgoing",
        "_pace",
        "_receiving",
        "_sending",
        "_stream",
        "ending",
        "heard_at",
        "response_headers",
        "subprotocol",
    )

    def __init__(
        self, nursery: trio.Nursery, stream: MemoryStream, answer: Answer, max_message_bytes: int | None
    ) -> None:
        self._stream = stream
        self._outgoing = _Outgoing(stream, nursery)
        self._limit = max_message_bytes
        self._decoder = FrameDecoder(max_message_bytes)
        if answer.rest:
            self._decoder.feed(answer.rest)
        self._fragments: Fragments | None = None
        # What was found behind messages, and is not dealt with yet.
        self._held: OtherFrame | TooBig | None = None
        self._error: ConnectionClosed | None = None
        self._is_peers_close = False
        self._is_closed = False
        self._sending = OneAtATime("sending")
        self._receiving = OneAtATime("receiving")
        self._pace = Pace()
        self.heard_at = trio.current_time()
        self.ending = _LOST
        self.response_headers = answer.headers
        self.subprotocol = next((value for name, value in answer.headers if name == "sec-websocket-protocol"), None)

    @property
    def items_sent(self) -> int:
        """See `Link`."""
        return self._outgoing.items_sent

    @property
    def moved_at(self) -> float:
        """See `Link`."""
        return self._outgoing.moved_at

    @property
    def is_direct(self) -> bool:
        """See `Link`: it would need timers, which virtual time should be free of."""
        return False

    # -------------------------------------------------------------------------------- sending

    def send_nowait(self, batch: Sequence[Outgoing]) -> bool:
        """See `Link`."""
        with self._sending:
            self._check()
            self._outgoing.add(batch)
            return False

    async def send(self, batch: Sequence[Outgoing]) -> None:
        """See `Link`."""
        with self._sending:
            self._check()
            await trio.lowlevel.checkpoint_if_cancelled()
            self._outgoing.add(batch)
            try:
                await self._outgoing.flush()
            except trio.BrokenResourceError as error:
                self._check()
                raise ConnectionClosed(_LOST.code) from error

    # -------------------------------------------------------------------------------- receiving

    async def receive(self) -> Sequence[Incoming]:
        """See `Link`."""
        with self._receiving:
            self._check()
            await self._pace.step()
            while True:
                messages: list[Message] = []
                if self._held is None:
                    self._held = self._collect(messages)
                if messages:
                    return messages
                if self._held is None:
                    await self._wait_readable()
                    self._check()  # `aclose` may have been called meanwhile, and wants to hear what came itself
                    continue
                frame, self._held = self._held, None
                item = self._settle(frame)
                if item is not None:
                    return [item]
                await self._pace.step()
                self._check()

    def interrupt(self) -> None:
        """See `Link`: it is not direct."""

    def _check(self) -> None:
        """Raise what every call raises once the link has ended."""
        if self._is_closed:
            raise trio.ClosedResourceError("this link was closed on our side")
        if self._error is not None:
            raise fresh(self._error)

    async def _wait_readable(self) -> None:
        try:
            await self._stream.wait_readable()
        except trio.BrokenResourceError as error:
            self._end(_LOST, cause=error)

    def _collect(self, messages: list[Message]) -> OtherFrame | TooBig | None:
        """Append the messages that are there, up to the first frame that is something else; that, if there is one."""
        frame = self._decoder.decode(messages)
        while frame is None:
            try:
                chunk = self._stream.take()
            except trio.BrokenResourceError as error:
                if not messages:
                    self._end(_LOST, cause=error)
                return None  # it will be found again
            if chunk is None:
                return None
            self.heard_at = trio.current_time()
            if isinstance(chunk, Parcel):
                if self._is_plain(chunk):
                    messages.append(chunk.item)
                    continue
                chunk = chunk.encode()
            if not chunk:
                if not messages:
                    self._end(_LOST)
                return None  # likewise
            self._decoder.feed(chunk)
            frame = self._decoder.decode(messages)
        return frame

    def _is_plain(self, parcel: Parcel) -> bool:
        """Whether a parcel is a message: not inside of something else, and not too large."""
        is_between = self._decoder.is_empty and self._fragments is None
        return is_between and (self._limit is None or parcel.payload_size <= self._limit)

    def _settle(self, frame: OtherFrame | TooBig) -> Incoming | None:
        """Deal with a frame that is no plain message."""
        try:
            return self._judge(frame)
        except Breach as breach:
            self._outgoing.queue(Opcode.CLOSE, _close_payload(breach.code, breach.sentence))
            self._end(Ending(breach.code, breach.sentence, clean=False, is_breach=True))

    def _judge(self, frame: OtherFrame | TooBig) -> Incoming | None:
        if isinstance(frame, TooBig):
            raise Breach(TOO_BIG, frame.sentence)
        if frame.malformed:
            raise Breach(PROTOCOL_ERROR, "malformed frame")
        if frame.opcode == Opcode.PONG:
            return Pong(frame.payload)
        if frame.opcode == Opcode.PING:
            self._outgoing.queue(Opcode.PONG, frame.payload)
            return None
        if frame.opcode == Opcode.CLOSE:
            self._answer_close(frame.payload)
        return self._join(frame)

    def _join(self, frame: OtherFrame) -> Message | None:
        """Put fragments together; give the message that is complete."""
        if frame.opcode != Opcode.CONTINUATION:
            if frame.ends_message:  # whole, and not left to us but for this
                raise Breach(INVALID_DATA, "text that is not UTF-8")
            self._fragments = Fragments(is_text=frame.opcode == Opcode.TEXT)
        fragments = self._fragments
        assert fragments is not None, "the decoder lets no fragment pass that continues nothing"
        try:
            fragments.add(frame.payload, is_last=frame.ends_message)
        except UnicodeDecodeError:
            raise Breach(INVALID_DATA, "text that is not UTF-8") from None
        if not frame.ends_message:
            return None
        self._fragments = None
        return fragments.message()

    def _answer_close(self, payload: bytes) -> NoReturn:
        """End the link as the peer wishes, and owe it the same close frame in return (RFC 6455, 5.5.1)."""
        close = read_close(payload)
        if close.malformed:
            raise Breach(close.code, close.reason)
        self._outgoing.queue(Opcode.CLOSE, payload)
        self._is_peers_close = True
        self._end(Ending(close.code, close.reason, clean=False))

    def _end(self, ending: Ending, cause: BaseException | None = None) -> NoReturn:
        self.ending = ending
        self._error = ConnectionClosed(ending.code, ending.reason)
        self._error.__cause__ = cause
        raise fresh(self._error)

    # -------------------------------------------------------------------------------- closing

    async def aclose(self, code: int, reason: str) -> None:
        """See `Link`."""
        if self._is_closed:
            await trio.lowlevel.checkpoint()
            return
        self._is_closed = True
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            if self._error is None:
                await self._begin_close(code, reason)
            else:
                await self._outgoing.flush()
                self.ending = replace(self.ending, clean=self._is_peers_close)
            with trio.move_on_after(_LINGER):
                while await self._discard():
                    pass

    async def _begin_close(self, code: int, reason: str) -> None:
        """Say goodbye first, and hear the peer say it too."""
        self._outgoing.queue(Opcode.CLOSE, _close_payload(code, reason))
        if self._outgoing.torn:
            return  # nothing can follow a torn frame, so nobody will answer
        close = await self._hear_close()
        if close is not None and not close.malformed:
            await self._outgoing.flush()  # theirs may have crossed ours on its way
            self.ending = Ending(close.code, close.reason, clean=True)

    async def _hear_close(self) -> Close | None:
        """Discard what comes until the peer's close frame; `None` if that can no longer come."""
        while True:
            frame, self._held = self._held or self._decoder.decode([]), None
            if frame is None:
                chunk = await self._take()
                if not chunk:
                    return None
                if isinstance(chunk, bytes) or not self._decoder.is_empty:
                    self._decoder.feed(chunk if isinstance(chunk, bytes) else chunk.encode())
            elif isinstance(frame, TooBig) or frame.malformed:
                return None
            elif frame.opcode == Opcode.CLOSE:
                return read_close(frame.payload)

    async def _discard(self) -> bool:
        return bool(await self._take())

    async def _take(self) -> bytes | Parcel | None:
        await trio.lowlevel.checkpoint()
        await self._stream.wait_readable()
        return self._stream.take()

    async def abort(self) -> None:
        """See `Link`."""
        self._is_closed = True
        await self._stream.aclose()


def _close_payload(code: int, reason: str) -> bytes:
    """Write what a close frame says; 1005 is said by saying nothing (RFC 6455, 7.4.1)."""
    return b"" if code == NO_CODE else encode_close(code, reason, bytes(4))[_CLOSE_HEAD:]
