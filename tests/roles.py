"""Frames in the other role: what a server says as a client would say it, masked, and what a client says, bare.

So a scripted peer, which is a server, and streams of frames made for clients test servers, too.
"""

from __future__ import annotations

from random import Random
from typing import final

import trio

from trio_wsprim._mask import mask_wide
from trio_wsprim.testing import Peer

_LENGTHS = {126: 2, 127: 8}


@final
class Swap:
    """Turns frames into those of the other role, as they come, in pieces of any size.

    Each gets the mask that it lacks, or loses the one that it has; what else is wrong with it stays wrong.
    """

    def __init__(self) -> None:
        self._rng = Random(0)
        # Of the frame under way: its header as far as it came, its mask, and what is to come of its payload.
        self._head = bytearray()
        self._key = b""
        self._left = 0

    def __call__(self, data: bytes | bytearray | memoryview) -> bytes:
        given, swapped, at = bytes(data), bytearray(), 0
        while at < len(given):
            if self._left:
                part = given[at : at + self._left]
                swapped += mask_wide(part, self._key)
                at += len(part)
                self._left -= len(part)
                turned = len(part) % 4
                self._key = self._key[turned:] + self._key[:turned]
            else:
                swapped += self._take_of_head(given[at])
                at += 1
        return bytes(swapped)

    def _take_of_head(self, byte: int) -> bytes:
        head = self._head
        head.append(byte)
        if len(head) == 1:
            return bytes([byte])
        had_mask, size = bool(head[1] & 0x80), head[1] & 0x7F
        start = 2 + _LENGTHS.get(size, 0)
        swapped = b""
        if len(head) <= start:
            swapped = bytes([byte ^ 0x80 if len(head) == 2 else byte])
        if len(head) == start + 4 * had_mask:
            self._left = size if start == 2 else int.from_bytes(head[2:start])
            self._key = bytes(head[start:]) if had_mask else self._rng.randbytes(4)
            if not had_mask:
                swapped += self._key
            head.clear()
        return swapped


class StreamOfPeer(trio.abc.HalfCloseableStream):
    """The stream of a peer that has been wrapped, as far as nothing is done to it: subclasses say how it is read."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._peer.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._peer.stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._peer.half_close()

    async def aclose(self) -> None:
        await self._peer.aclose()

    def close(self) -> None:
        self._peer.drop()

    def reset(self) -> None:
        self._peer.reset()


@final
class SwappedStream(StreamOfPeer):
    """The stream of a peer who is to be a client: what it says as a server goes out as a client's, and back.

    Args:
        peer: Has shaken hands, and is spoken to by nobody else from now on.

    Attributes:
        outgoing: Swaps what goes out.
    """

    def __init__(self, peer: Peer) -> None:
        super().__init__(peer)
        self._incoming = Swap()
        self.outgoing = Swap()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while data := await self._peer.stream.receive_some():
            if swapped := self._incoming(data):
                return swapped
        return b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await super().send_all(self.outgoing(data))
