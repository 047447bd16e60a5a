"""The parts that decide about bytes, alone: no network, no tasks, a thousand times as often as whole sockets."""

from __future__ import annotations

import re
import zlib
from typing import final

import trio

from trio_wsprim import ConnectionFailed
from trio_wsprim._frames import CLOSE
from trio_wsprim._lane import FrameDecoder, TooBig
from trio_wsprim._seam import Refused
from trio_wsprim._values import Message
from trio_wsprim.transports._answer import read_answer
from trio_wsprim.transports._asked import Doorway
from trio_wsprim.transports._inflate import Inflater, TooLarge

from .meetings import Outcome, Speech, Trouble, check_is_ours
from .recordings import LIMIT


async def decode_frames(speech: Speech, *, masked: bool, compressed: bool) -> Outcome:
    """Cut into frames what comes after the handshake."""
    decoder = FrameDecoder(LIMIT, masked=masked, compressed=compressed)
    messages: list[Message] = []
    for begin, end in speech.pieces():
        decoder.feed(speech.data[begin:end])
        while not decoder.is_empty:
            before = len(messages)
            frame = decoder.decode(messages)
            if isinstance(frame, TooBig):
                return Outcome(tuple(messages), "too big")
            if frame is not None:
                messages.append(f"{frame.opcode} {frame.ends_message} {frame.raw!r}" if not frame.malformed else "bad")
            if frame is not None and (frame.malformed or frame.opcode == CLOSE):
                return Outcome(tuple(messages), "over")
            if len(messages) == before:
                break
    return Outcome(tuple(messages), "more")


async def inflate(speech: Speech) -> Outcome:
    """Inflate it as the fragments of one message, one after the other."""
    inflater = Inflater(15, keeps_context=True)
    inflater.begin()
    parts: list[bytes] = []
    left = LIMIT
    pieces = speech.pieces()
    try:
        for number, (begin, end) in enumerate(pieces, 1):
            parts.append(inflater.inflate(speech.data[begin:end], is_last=number == len(pieces), most=left))
            left -= len(parts[-1])
            if left < 0:
                raise Trouble("more came out than was allowed")
    except TooLarge:
        return Outcome(error="too large")
    except zlib.error:
        return Outcome(error="bad")
    return Outcome((b"".join(parts),))


@final
class PiecesWire:
    """Reads come in the pieces of a speech, and then the end; whatever is written goes."""

    is_direct = holds = False
    heard_at = moved_at = 0.0

    def __init__(self, speech: Speech) -> None:
        self._pieces = [speech.data[begin:end] for begin, end in reversed(speech.pieces()) if begin < end]
        self.read = b""
        self.written = bytearray()

    async def receive_some(self) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        piece = self._pieces.pop() if self._pieces else b""
        self.read += piece
        return piece

    async def receive_into(self, room: memoryview) -> int | None:
        return None

    def write_now(self, data: bytes | memoryview) -> int:
        self.written += data
        return len(data)

    async def write(self, data: bytes | memoryview) -> int:
        await trio.lowlevel.checkpoint_if_cancelled()
        return self.write_now(data)

    def interrupt(self) -> None:
        pass

    async def abort(self) -> None:
        pass


async def read_servers_head(speech: Speech) -> Outcome:
    """Read a server's answer."""
    wire = PiecesWire(speech)
    try:
        answer = await read_answer(wire)
    except ConnectionFailed as error:
        check_is_ours(error)
        return Outcome(error=type(error).__name__)
    if not wire.read.endswith(answer.head + answer.rest):
        raise Trouble("an answer that was not said")
    if answer.fault(("chat",)) is not None:
        return Outcome(error=ConnectionFailed.__name__)  # as for what is refused sooner, if it comes in other pieces
    return Outcome((repr(answer.headers),))


async def read_clients_head(speech: Speech) -> Outcome:
    """Read a client's request, and turn away what is none."""
    wire = PiecesWire(speech)
    try:
        asked = await Doorway(wire).read(None)
    except Refused as refusal:
        if wire.written and not re.match(rb"HTTP/1\.1 (4..|501|505) ", wire.written):
            raise Trouble(f"answered {bytes(wire.written[:100])!r}") from refusal
        return Outcome(error=str(refusal), code=refusal.status)
    if not wire.read.endswith(asked.rest):
        raise Trouble("a request that was not said")
    return Outcome((repr(asked.request.headers), asked.request.path))
