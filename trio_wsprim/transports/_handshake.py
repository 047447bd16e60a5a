"""Opening handshakes (RFC 6455, 4), the same over every core: a client asks and judges, a server reads and answers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import trio

from trio_wsprim._errors import ConnectionFailed
from trio_wsprim._lane import FrameDecoder
from trio_wsprim._request import Request
from trio_wsprim._seam import Reception, Refused, Upgrade
from trio_wsprim._wire import Wire, open_wire
from trio_wsprim.transports._answer import Answer, read_answer
from trio_wsprim.transports._asked import Asked, Doorway
from trio_wsprim.transports._link import Core, LaneLink
from trio_wsprim.transports._outgoing import OutgoingSide

# Gives a core what it may queue control frames with, and at first the request; that never waits.
MakeCore = Callable[[Callable[[bytes], None]], "HandshakeCore"]
MakeServerCore = Callable[[Callable[[bytes], None]], "ServerCore"]


class HandshakeFault(Exception):
    """No WebSocket can come of this, now or later. The message says why, and quotes nothing of the peer."""


class HandshakeCore(Core, Protocol):
    """A core that shakes hands too."""

    @property
    def compresses(self) -> bool:
        """Whether it asks for compression; known before the handshake."""
        ...

    @property
    def is_compressed(self) -> bool:
        """Whether messages may come in compressed; known after it."""
        ...

    async def ask(self, nursery: trio.Nursery, upgrade: Upgrade) -> None:
        """Queue the request; its tasks, if it has any, go into `nursery`.

        Raises:
            HandshakeFault: That cannot be asked.
        """
        ...

    async def check(self, answer: Answer) -> None:
        """Judge an answer.

        Raises:
            HandshakeFault: It is none to what was asked.
        """
        ...


class ServerCore(Core, Protocol):
    """A core that is a server's."""

    @property
    def is_compressed(self) -> bool:
        """Whether messages may come in compressed; known after the handshake."""
        ...

    async def welcome(self, nursery: trio.Nursery, asked: Asked, reception: Reception) -> None:
        """Queue the answer to a handshake that is accepted; its tasks, if it has any, go into `nursery`.

        Raises:
            HandshakeFault: There is something wrong with it after all.
        """
        ...


async def open_link(nursery: trio.Nursery, stream: trio.abc.Stream, upgrade: Upgrade, make_core: MakeCore) -> LaneLink:
    """Do the handshake over a stream, which is closed if that fails; see `trio_wsprim.abc.Transport.connect`."""
    wire = open_wire(stream)
    outgoing = OutgoingSide(wire, nursery)
    try:
        core = make_core(outgoing.queue)
        try:
            answer = await _shake_hands(nursery, wire, outgoing, upgrade, core)
        except BaseException:
            core.stop()
            raise
    except BaseException:
        await wire.abort()
        raise
    decoder = FrameDecoder(upgrade.max_message_bytes, compressed=core.is_compressed)
    if answer.rest:
        decoder.feed(answer.rest)
    return LaneLink(wire, core, outgoing, answer.headers, decoder)


async def _shake_hands(
    nursery: trio.Nursery, wire: Wire, outgoing: OutgoingSide, upgrade: Upgrade, core: HandshakeCore
) -> Answer:
    """Send the core's request, read the answer's head, and have it judged."""
    try:
        await core.ask(nursery, upgrade)
        await outgoing.flush()
        answer = await read_answer(wire)
        fault = answer.fault(upgrade.subprotocols, has_extensions=core.compresses)
        if fault is not None:
            raise HandshakeFault(f"the server's 101 is no WebSocket handshake: {fault}")
        await core.check(answer)
    except HandshakeFault as error:
        raise ConnectionFailed(str(error), permanent=True) from error.__cause__
    except trio.BrokenResourceError as error:
        raise ConnectionFailed("the connection broke during the handshake") from error
    return answer


async def accept_link(
    nursery: trio.Nursery, stream: trio.abc.Stream, reception: Reception, make_core: MakeServerCore
) -> LaneLink:
    """Answer the handshake of a client, and close the stream if that fails; see `ServerTransport.accept`."""
    wire = open_wire(stream)
    outgoing = OutgoingSide(wire, nursery, masks=False)
    try:
        doorway = Doorway(wire)
        asked = await doorway.read(reception.remote)
        await _ask(doorway, asked.request, reception)
        core = make_core(outgoing.queue)
        try:
            await core.welcome(nursery, asked, reception)
            await outgoing.flush()
        except BaseException as error:
            core.stop()
            if isinstance(error, HandshakeFault):
                await doorway.turn_away(str(error), 400)
            if isinstance(error, trio.BrokenResourceError):
                raise Refused("the client went away before it was answered") from error
            raise
    except BaseException:
        await wire.abort()
        raise
    decoder = FrameDecoder(reception.max_message_bytes, compressed=core.is_compressed, masked=True)
    if asked.rest:
        decoder.feed(asked.rest)
    return LaneLink(wire, core, outgoing, (), decoder, is_server=True)


async def _ask(doorway: Doorway, request: Request, reception: Reception) -> None:
    """Have the user judge a request, and turn the client away if that is the verdict."""
    try:
        rejection = await reception.judge(request)
    except Exception:
        with suppress(Refused):
            await doorway.turn_away("something went wrong here", 500)
        raise
    if rejection is not None:
        await doorway.reject(rejection, "it was not let in")
