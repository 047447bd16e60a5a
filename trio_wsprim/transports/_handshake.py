"""The client's opening handshake (RFC 6455, 4.1), the same over every core: it asks, and judges the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import trio

from trio_wsprim._errors import ConnectionFailed
from trio_wsprim._lane import FrameDecoder
from trio_wsprim._seam import Upgrade
from trio_wsprim._wire import Wire, open_wire
from trio_wsprim.transports._answer import Answer, read_answer
from trio_wsprim.transports._link import Core, LaneLink
from trio_wsprim.transports._outgoing import OutgoingSide

# Gives a core what it may queue control frames with, and at first the request; that never waits.
MakeCore = Callable[[Callable[[bytes], None]], "HandshakeCore"]


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
