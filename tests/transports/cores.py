"""What the tests of cores share: a server's answer, frames as a link would cut them, and what a core had sent."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha1

from trio_wsprim import Request as ServerRequest
from trio_wsprim._lane import FrameDecoder, OtherFrame
from trio_wsprim._seam import Reception
from trio_wsprim.testing import Frame, Peer, Request, memory_stream_pair
from trio_wsprim.transports._answer import Answer
from trio_wsprim.transports._asked import Asked


async def read_request(data: bytes) -> Request:
    """Read a request as a server would."""
    near, far = memory_stream_pair()
    await near.send_all(data)
    return await Peer(far).read_request()


async def read_frames(written: Sequence[bytes], *, masked: bool = True) -> list[Frame]:
    """Read the frames that a core wants sent, each of which it must have queued alone; `masked` by a client."""
    frames: list[Frame] = []
    for data in written:
        near, far = memory_stream_pair(len(data))
        await near.send_all(data)
        peer = Peer(far)
        frames.append(await peer.receive_frame())
        assert peer.unparsed == b""
        assert frames[-1].masked is masked
    return frames


async def answer_to(request: bytes, *headers: str, accept_key: str | None = None) -> Answer:
    """The answer of a server that accepts.

    Args:
        headers: Whole lines, in addition.
        accept_key: Another than the right one.
    """
    key = (await read_request(request)).header("sec-websocket-key") or ""
    digest = sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
    return an_answer(
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_key or b64encode(digest).decode()}",
        *headers,
    )


def an_answer(*headers: str) -> Answer:
    """An answer of just those headers."""
    lines = ("HTTP/1.1 101 Switching Protocols", *headers, "", "")
    pairs = [line.split(": ", 1) for line in headers]
    return Answer("\r\n".join(lines).encode(), b"", tuple((name.lower(), value) for name, value in pairs), b"1.1")


KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # the sample of RFC 6455, 1.3, as is the answer to it
ACCEPT_KEY = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def asked(
    *headers: tuple[str, str],
    ours: tuple[str, ...] = (),
    theirs: tuple[str, ...] = (),
    max_message_bytes: int | None = None,
) -> tuple[Asked, Reception]:
    """A client's request, and what a server makes of it.

    Args:
        headers: In addition.
        ours: The subprotocols that the server speaks.
        theirs: Those that the client speaks.
    """

    async def judge(_: ServerRequest) -> None:
        return None

    request = ServerRequest("/", (("sec-websocket-key", KEY), *headers), theirs)
    reception = Reception(remote=None, judge=judge, subprotocols=ours, max_message_bytes=max_message_bytes)
    return Asked(request, b""), reception


def cut(*data: bytes, compressed: bool = False, masked: bool = False) -> list[OtherFrame]:
    """Cut what a peer sends into frames, as a link does, but keep none from the core."""
    decoder = FrameDecoder(None, compressed=compressed, has_lane=False, masked=masked)
    decoder.feed(b"".join(data))
    frames: list[OtherFrame] = []
    while (frame := decoder.decode([])) is not None:
        assert isinstance(frame, OtherFrame)
        frames.append(frame)
    return frames
