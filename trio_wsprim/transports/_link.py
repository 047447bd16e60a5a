"""The link that every transport gives: our lane for what is common, a core for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, NoReturn, Protocol, final

import trio

from trio_wsprim._errors import ConnectionClosed, fresh
from trio_wsprim._frames import CLOSE, PONG, PROTOCOL_ERROR, TOO_BIG, Close, read_close
from trio_wsprim._lane import FrameDecoder, OtherFrame, TooBig
from trio_wsprim._scopes import OneAtATime, Pace
from trio_wsprim._seam import Ending, Incoming, Outgoing, Pong
from trio_wsprim._values import Message
from trio_wsprim._wire import Wire
from trio_wsprim.transports._http import Headers
from trio_wsprim.transports._outgoing import Encode, OutgoingSide

_LOST: Final = Ending(1006, "", clean=False)

# After the closing handshake the server hangs up first (RFC 6455, 7.1.1). Before it, a socket closed over unread bytes
# resets, which destroys what the peer has not read: our close frame. Peers need a round trip; sloppy ones never do it.
_LINGER: Final = 0.25


class Breach(Exception):
    """What the peer has sent breaks the protocol.

    Args:
        code: The close code that says so (RFC 6455, 7.4.1).
        sentence: What was wrong, for the close frame's reason.
    """

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(code, sentence)
        self.code = code
        self.sentence = sentence


class Core(Protocol):
    """A library that judges what the lane leaves to it: fragments, pings, compressed and malformed frames.

    Attributes:
        encode: Makes the frame of a message where an extension was agreed on; `None` where ours will do.
    """

    encode: Encode | None

    @property
    def subprotocol(self) -> str | None:
        """What the server chose."""
        ...

    async def judge(self, frame: OtherFrame) -> Message | None:
        """Deal with a frame; give the message that it completes, if it does.

        What it owes the peer in return, such as a pong, it queues.

        Raises:
            Breach: The frame breaks the protocol.

        Cancellation: atomic; call again with the same frame.
        """
        ...

    def stop(self) -> None:
        """End its tasks, if it has any."""
        ...


@final
class LaneLink:
    """See `trio_wsprim.abc.Link`.

    Args:
        wire: Its own from now on.
        core: Judges what is not common.
        outgoing: Writes to the wire.
        headers: Of the server's answer; none if that is us.
        decoder: Has been fed what came with the handshake.
        is_server: Whether we are.
    """

    __slots__ = (
        "_core",
        "_decoder",
        "_error",
        "_held",
        "_is_closed",
        "_is_peers_close",
        "_is_server",
        "_outgoing",
        "_pace",
        "_receiving",
        "_sending",
        "_wire",
        "ending",
        "response_headers",
    )

    def __init__(
        self,
        wire: Wire,
        core: Core,
        outgoing: OutgoingSide,
        headers: Headers,
        decoder: FrameDecoder,
        *,
        is_server: bool = False,
    ) -> None:
        self._wire = wire
        self._is_server = is_server
        self._core = core
        self._outgoing = outgoing
        self._outgoing.encode = core.encode
        self._decoder = decoder
        # A frame that is not done with yet: a cancelled `receive` goes on from there.
        self._held: OtherFrame | TooBig | None = None
        self._error: ConnectionClosed | None = None
        self._is_peers_close = False
        self._is_closed = False
        self._sending = OneAtATime("sending")
        self._receiving = OneAtATime("receiving")
        self._pace = Pace()
        self.response_headers = headers
        self.ending = _LOST

    @property
    def subprotocol(self) -> str | None:
        """See `Link`."""
        return self._core.subprotocol

    @property
    def is_direct(self) -> bool:
        """See `Link`."""
        return self._wire.is_direct

    @property
    def items_sent(self) -> int:
        """See `Link`."""
        return self._outgoing.items_sent

    @property
    def heard_at(self) -> float:
        """See `Link`."""
        return self._wire.heard_at

    @property
    def moved_at(self) -> float:
        """See `Link`."""
        return self._wire.moved_at

    # -------------------------------------------------------------------------------- sending

    def send_nowait(self, batch: Sequence[Outgoing]) -> bool:
        """See `Link`."""
        if self._sending.is_busy or self._is_closed or self._error is not None:
            with self._sending:
                self._check()
        return self._outgoing.send_now(batch)

    async def send(self, batch: Sequence[Outgoing]) -> None:
        """See `Link`."""
        with self._sending:
            self._check()
            if batch:
                await trio.lowlevel.checkpoint_if_cancelled()  # a rest that is cancelled is for `flush` to account for
                if self._outgoing.send_now(batch):
                    return
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
            if self._held is not None or not self._decoder.is_empty:
                await self._pace.step()  # what follows may not have to wait: a read may bring ten thousand pings
            while True:
                if self._held is None and self._decoder.is_empty:
                    await self._read()
                    self._check()  # `aclose` may have been called meanwhile, and wants to hear what came itself
                messages: list[Message] = []
                if self._held is None:
                    self._held = self._decoder.decode(messages)
                if messages:
                    return messages
                if self._held is None:
                    await self._read()
                    self._check()
                    continue
                item = await self._settle(self._held)
                self._held = None
                if item is not None:
                    return [item]
                await self._pace.step()
                self._check()

    def _check(self) -> None:
        """Raise what every call raises once the link has ended."""
        if self._is_closed:
            raise trio.ClosedResourceError("this link was closed on our side")
        if self._error is not None:
            raise fresh(self._error)

    async def _read(self) -> None:
        """Read from the network, what is large into its own memory."""
        room = self._decoder.room()
        try:
            size = None if room is None else await self._wire.receive_into(room)
            data = await self._wire.receive_some() if size is None else b""
        except trio.BrokenResourceError as error:
            self._check()
            self._end(_LOST, cause=error)
        if size:
            self._decoder.filled(size)
        elif data:
            self._decoder.feed(data)
        else:
            self._end(_LOST)

    async def _settle(self, frame: OtherFrame | TooBig) -> Incoming | None:
        """Deal with a frame that is no plain message. Cancellation: atomic; call again with the same frame."""
        if isinstance(frame, TooBig):
            self._fail(TOO_BIG, frame.sentence)
        if frame.opcode == PONG and not frame.malformed:
            return Pong(frame.payload)
        if frame.opcode == CLOSE and not frame.malformed:
            self._answer_close(frame.payload)
        message = None
        try:
            message = await self._core.judge(frame)
        except Breach as breach:
            self._check()  # a core that was stopped has nothing to say
            if breach.code == PROTOCOL_ERROR or not frame.malformed:
                self._fail(breach.code, breach.sentence)
        if frame.malformed:  # which a core may see later, or call too big
            self._fail(PROTOCOL_ERROR, "malformed frame")
        return message

    def _answer_close(self, payload: bytes) -> NoReturn:
        """End the link as the peer wishes, and owe it the same close frame in return (RFC 6455, 5.5.1)."""
        close = read_close(payload)
        if close.malformed:
            self._fail(close.code, close.reason)
        self._outgoing.queue_close(close.code, close.reason)
        self._is_peers_close = True
        self._end(Ending(close.code, close.reason, clean=False))

    def _fail(self, code: int, sentence: str) -> NoReturn:
        """End the link for the peer's fault, and owe it a close frame that says so (RFC 6455, 7.1.7)."""
        self._outgoing.queue_close(code, sentence)
        self._end(Ending(code, sentence, clean=False, is_breach=True))

    def _end(self, ending: Ending, cause: BaseException | None = None) -> NoReturn:
        self.ending = ending
        self._error = ConnectionClosed(ending.code, ending.reason)
        self._error.__cause__ = cause
        raise fresh(self._error)

    def interrupt(self) -> None:
        """See `Link`."""
        if self._receiving.is_busy:
            self._wire.interrupt()

    # -------------------------------------------------------------------------------- closing

    async def aclose(self, code: int, reason: str) -> None:
        """See `Link`."""
        if self._is_closed:
            await trio.lowlevel.checkpoint()
            return
        self._is_closed = True
        while self._receiving.is_busy and self._wire.is_direct:
            self._wire.interrupt()
            await trio.lowlevel.checkpoint()
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            if self._error is None:
                await self._begin_close(code, reason)
            else:
                await self._finish_close()
            if self._is_server and self.ending.clean:
                return
            with trio.move_on_after(_LINGER):
                close = await self._hear_close() if self._is_server else None
                if close is not None and not close.malformed:
                    return  # the client has read why, and says no more
                while await self._wire.receive_some():
                    pass

    async def _begin_close(self, code: int, reason: str) -> None:
        """Say goodbye first, and hear the peer say it too.

        It is written while we read: a peer that is stuck in a write of its own will not read before we do.
        """
        self._outgoing.queue_close(code, reason)
        if self._outgoing.torn:
            return  # nothing can follow a torn frame, so nobody will answer
        close = await self._hear_close()
        if close is not None and not close.malformed:
            await self._outgoing.flush()  # theirs may have crossed ours on its way
            self.ending = Ending(close.code, close.reason, clean=True)

    async def _hear_close(self) -> Close | None:
        """Discard what comes until the peer's close frame; `None` if that can no longer come.

        Without the core, which would want to hear of it all, and may fail over a ping that comes late: nothing is
        left for it to judge.
        """
        while True:
            frame, self._held = self._held or self._decoder.decode([]), None
            if frame is None:
                data = await self._wire.receive_some()
                if not data:
                    return None
                self._decoder.feed(data)
            elif isinstance(frame, TooBig) or frame.malformed:
                return None
            elif frame.opcode == CLOSE:
                return read_close(frame.payload)

    async def _finish_close(self) -> None:
        """Deliver the close frame that is owed: the answer to the peer's, or what says that it was at fault."""
        await self._outgoing.flush()
        self.ending = replace(self.ending, clean=self._is_peers_close)

    async def abort(self) -> None:
        """See `Link`."""
        self._is_closed = True
        self._core.stop()
        await self._wire.abort()
