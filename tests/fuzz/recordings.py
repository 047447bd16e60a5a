"""What a well-behaved peer says, part by part: a head, then frames. The seeds of everything else."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final, TypeAlias

from trio_wsprim.testing import Opcode, encode_frame

Parts: TypeAlias = Sequence[bytes]

# Stands in a server's answer for what only the client's request can tell.
ACCEPT: Final = b"$" * 28
# The largest message that may come in: less than two bytes of length can say.
LIMIT: Final = 50_000
DEFLATE: Final = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
_COMPRESSED: Final = 4  # RSV1


def answer(*lines: bytes) -> bytes:
    """A server's head."""
    return b"".join(
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
            b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n",
            *lines,
            b"\r\n",
        )
    )


def request(*lines: bytes) -> bytes:
    """A client's head."""
    return b"".join(
        (
            b"GET /chat?room=1 HTTP/1.1\r\nHost: example.test\r\n",
            b"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n",
            *lines,
            b"\r\n",
        )
    )


# Opcode, payload, whether it is the last of its message, reserved bits.
_Frame: TypeAlias = tuple[int, bytes, bool, int]


def _plain(opcode: int, payload: bytes, fin: bool = True) -> _Frame:
    return opcode, payload, fin, 0


def _deflated(*texts: str) -> list[_Frame]:
    """Messages that refer to those before them, as RFC 7692, 7.2.3.2 has it."""
    press = zlib.compressobj(wbits=-15)
    frames: list[_Frame] = []
    for text in texts:
        data = press.compress(text.encode()) + press.flush(zlib.Z_SYNC_FLUSH)
        frames.append((Opcode.TEXT, data[:-4], True, _COMPRESSED))
    return frames


def _in_pieces(frame: _Frame, *places: int) -> list[_Frame]:
    opcode, payload, _, rsv = frame
    spans = list(pairwise((0, *places, len(payload))))
    return [
        (Opcode.CONTINUATION if begin else opcode, payload[begin:end], end == len(payload), 0 if begin else rsv)
        for begin, end in spans
    ]


_PING: Final = _plain(Opcode.PING, b"are you there?")
_CLOSE: Final = _plain(Opcode.CLOSE, b"\x03\xe8done")
FRAMES: Final[Mapping[str, Sequence[_Frame]]] = {
    "messages": [
        _plain(Opcode.TEXT, "grüß dich".encode()),
        _plain(Opcode.BINARY, bytes(range(20))),
        _plain(Opcode.TEXT, b""),
        _plain(Opcode.TEXT, b"0123456789" * 13),
        _CLOSE,
    ],
    "fragments": [
        *_in_pieces(_plain(Opcode.TEXT, "aé€😀z".encode()), 2, 5, 8),
        _plain(Opcode.BINARY, b"one", False),
        _PING,
        _plain(Opcode.CONTINUATION, b"", False),
        _plain(Opcode.CONTINUATION, b"two"),
        _plain(Opcode.CLOSE, b""),
    ],
    "controls": [_PING, _plain(Opcode.PONG, b"unasked"), _plain(Opcode.PING, b""), _plain(Opcode.CLOSE, b"\x0f\xa0")],
}
COMPRESSED_FRAMES: Final[Mapping[str, Sequence[_Frame]]] = {
    "compressed": [
        *_deflated("the same words", "the same words again", ""),
        _plain(Opcode.TEXT, b"not compressed"),
        _CLOSE,
    ],
    "compressed pieces": [*_in_pieces(_deflated("in pieces, in pieces")[0], 3, 9), _PING, _CLOSE],
}
# Too long to be split at every offset.
LONG_FRAMES: Final[Mapping[str, Sequence[_Frame]]] = {
    "large": [_plain(Opcode.BINARY, bytes(40_000)), _plain(Opcode.TEXT, b"x" * LIMIT), _CLOSE],
    "one byte too many": [_plain(Opcode.TEXT, bytes(LIMIT + 1)), _CLOSE],
    "too large in all": [_plain(Opcode.BINARY, bytes(10), False), _plain(Opcode.CONTINUATION, bytes(LIMIT))],
    "many": [_plain(Opcode.PING, b"")] * 200 + [_plain(Opcode.TEXT, b"", False)] + [_plain(0, b"", False)] * 200,
}
LONG_COMPRESSED_FRAMES: Final[Mapping[str, Sequence[_Frame]]] = {
    "bomb": [*_deflated("0" * 20_000_000), _CLOSE],
    "bomb in pieces": [*_in_pieces(_deflated("0" * 20_000_000)[0], 50, 5000), _CLOSE],
}
REJECTIONS: Final[Mapping[str, Parts]] = {
    "busy": [b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 4\r\n\r\n", b"busy"],
    "elsewhere": [
        b"HTTP/1.1 302 Found\r\nLocation: /x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"3\r\nfoo\r\n",
        b"0\r\n\r\n",
    ],
    "hints": [b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", answer(), encode_frame(Opcode.CLOSE, b"")],
}


def _encode(frames: Sequence[_Frame], *, masked: bool) -> list[bytes]:
    return [encode_frame(opcode, data, fin=fin, rsv=rsv, masked=masked) for opcode, data, fin, rsv in frames]


def of_server(*, compressed: bool, long: bool) -> dict[str, Parts]:
    """What servers say to a client.

    Args:
        compressed: Whether compression is agreed on.
        long: Give those that are too long to be split everywhere, instead of the others.
    """
    head = answer(DEFLATE) if compressed else answer()
    frames = _frames(compressed=compressed, long=long)
    return {name: [head, *_encode(each, masked=False)] for name, each in frames.items()} | (
        {} if long else dict(REJECTIONS)
    )


def of_client(*, compressed: bool, long: bool) -> dict[str, Parts]:
    """What clients say to a server; see `of_server`."""
    head = request(DEFLATE) if compressed else request(b"Origin: http://example.test\r\n")
    return {
        name: [head, *_encode(each, masked=True)] for name, each in _frames(compressed=compressed, long=long).items()
    }


def _frames(*, compressed: bool, long: bool) -> dict[str, Sequence[_Frame]]:
    if long:
        return {**LONG_FRAMES, **(LONG_COMPRESSED_FRAMES if compressed else {})}
    return {**FRAMES, **(COMPRESSED_FRAMES if compressed else {})}
