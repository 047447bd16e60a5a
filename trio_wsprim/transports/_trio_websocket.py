"""The transport over trio-websocket."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, NoReturn, final

import trio

from trio_wsprim._errors import ConnectionClosed, ConnectionFailed, fresh
from trio_wsprim._lane import CLOSE, PONG, PROTOCOL_ERROR, Close, FrameDecoder, OtherFrame, TooBig, read_close
from trio_wsprim._scopes import OneAtATime
from trio_wsprim._seam import Ending, Incoming, Outgoing, Pong, Upgrade
from trio_wsprim._values import Message
from trio_wsprim._wire import Wire, open_wire
from trio_wsprim.transports._answer import Answer, Headers, read_answer
from trio_wsprim.transports._core import Core
from trio_wsprim.transports._outgoing import OutgoingSide

_TOO_BIG: Final = 1009
_LOST: Final = Ending(1006, "", clean=False)

# After the closing handshake the server should hang up first (RFC 6455, 7.1.1), and a socket closed over unread
# bytes resets, which destroys what the peer has not read. Servers need a round trip; sloppy ones never do it.
_LINGER: Final = 0.25


@final
@dataclass(frozen=True, slots=True)
class TrioWebsocketTransport:
    """WebSocket by `trio-websocket` and `wsproto`, the default dependency. Without compression.

    Plain data frames and close frames pass it by, in a lane of our own; the rest of the protocol is its own.
    """

    async def connect(self, nursery: trio.Nursery, stream: trio.abc.Stream, upgrade: Upgrade) -> _Link:
        """See `trio_wsprim.abc.Transport`."""
        wire = open_wire(stream)
        outgoing = OutgoingSide(wire)
        core = Core(outgoing.queue)
        nursery.start_soon(core.run, upgrade)
        try:
            answer = await _shake_hands(wire, core, outgoing, upgrade)
        except BaseException:
            core.stop()
            await wire.abort()
            raise
        nursery.start_soon(outgoing.run)
        return _Link(wire, core, outgoing, answer, upgrade.max_message_bytes)


async def _shake_hands(wire: Wire, core: Core, outgoing: OutgoingSide, upgrade: Upgrade) -> Answer:
    """Send the core's request, read the answer's head, and have it judged."""
    await core.wait_hungry()
    if core.over:
        raise ConnectionFailed("the request cannot be put into HTTP", permanent=True) from core.failure
    try:
        await outgoing.flush()
        answer = await read_answer(wire)
    except trio.BrokenResourceError as error:
        raise ConnectionFailed("the connection broke during the handshake") from error
    fault = answer.fault(upgrade.subprotocols) or await _ask_core(core, answer)
    if fault is not None:
        raise ConnectionFailed(f"the server's 101 is no WebSocket handshake: {fault}", permanent=True) from core.failure
    return answer


async def _ask_core(core: Core, answer: Answer) -> str | None:
    """Have the core judge an answer; say what is wrong with it."""
    core.feed(answer.head)
    await core.wait_settled()
    return str(core.failure) if core.over else None


@final
class _Link:
    """See `trio_wsprim.abc.Link`."""

    __slots__ = (
        "_answer",
        "_core",
        "_decoder",
        "_error",
        "_fed",
        "_held",
        "_is_closed",
        "_is_peers_close",
        "_outgoing",
        "_receiving",
        "_sending",
        "_wire",
        "ending",
    )

    def __init__(
        self,
        wire: Wire,
        core: Core,
        outgoing: OutgoingSide,
        answer: Answer,
        max_message_bytes: int | None,
    ) -> None:
        self._wire = wire
        self._core = core
        self._outgoing = outgoing
        self._answer = answer
        self._decoder = FrameDecoder(max_message_bytes)
        if answer.rest:
            self._decoder.feed(answer.rest)
        # A frame that is not done with yet, and whether the core has it: a cancelled `receive` goes on from there.
        self._held: OtherFrame | TooBig | None = None
        self._fed = False
        self._error: ConnectionClosed | None = None
        self._is_peers_close = False
        self._is_closed = False
        self._sending = OneAtATime("sending")
        self._receiving = OneAtATime("receiving")
        self.ending = _LOST

    @property
    def subprotocol(self) -> str | None:
        """See `Link`."""
        return self._core.subprotocol

    @property
    def response_headers(self) -> Headers:
        """See `Link`."""
        return self._answer.headers

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

    async def send(self, batch: Sequence[Outgoing]) -> None:
        """See `Link`."""
        with self._sending:
            self._check()
            try:
                await self._outgoing.send(batch)
            except trio.BrokenResourceError as error:
                self._check()
                raise ConnectionClosed(_LOST.code) from error

    async def receive(self) -> Sequence[Incoming]:
        """See `Link`."""
        with self._receiving:
            await trio.lowlevel.checkpoint_if_cancelled()
            while True:
                self._check()
                messages: list[Message] = []
                if self._held is None:
                    self._held = self._decoder.decode(messages)
                if messages:
                    return messages
                if self._held is None:
                    await self._read()
                    continue
                item = await self._settle(self._held)
                self._held, self._fed = None, False
                if item is not None:
                    return [item]

    def _check(self) -> None:
        """Raise what every call raises once the link has ended."""
        if self._is_closed:
            raise trio.ClosedResourceError("this link was closed on our side")
        if self._error is not None:
            raise fresh(self._error)

    async def _read(self) -> None:
        try:
            data = await self._wire.receive_some()
        except trio.BrokenResourceError as error:
            self._check()
            self._end(_LOST, cause=error)
        if not data:
            self._end(_LOST)
        self._decoder.feed(data)

    async def _settle(self, frame: OtherFrame | TooBig) -> Incoming | None:
        """Deal with a frame that is no plain message. Cancellation: atomic; call again with the same frame."""
        if isinstance(frame, TooBig):
            self._fail(_TOO_BIG, frame.sentence)
        if frame.opcode == PONG and not frame.malformed:
            return Pong(frame.payload)
        if frame.opcode == CLOSE and not frame.malformed:
            self._answer_close(frame.payload)
        if not self._fed:
            self._fed = True
            self._core.feed(frame.raw)
        await self._core.wait_hungry()
        if self._core.verdict is not None:
            self._fail(*self._core.verdict)  # which it says to us alone, not to the peer
        if frame.malformed:
            self._fail(PROTOCOL_ERROR, "malformed frame")
        return await self._core.take_message() if frame.ends_message else None

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

    async def aclose(self, code: int, reason: str) -> None:
        """See `Link`."""
        if self._is_closed:
            await trio.lowlevel.checkpoint()
            return
        self._is_closed = True
        with suppress(trio.BrokenResourceError):
            if self._error is None:
                await self._begin_close(code, reason)
            else:
                await self._finish_close()
            with trio.move_on_after(_LINGER):
                while await self._wire.receive_some():
                    pass

    async def _begin_close(self, code: int, reason: str) -> None:
        """Say goodbye first, and hear the peer say it too.

        It is written by `OutgoingSide.run`, while we read: a peer that is stuck in a write of its own will not
        read before we do.
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

        Without the core, which would want to hear of it all, and fails over a ping that comes late: nothing is
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
