"""What goes wrong on the way, or is meant: part by part, and byte by byte. Chance is seeded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from trio_wsprim.testing import encode_frame

from .recordings import Parts

# Bytes at which parsers turn: header bytes, lengths, flags, ends of lines.
_TURNS: Final = (0, 1, 2, 8, 9, 10, 13, 0x7D, 0x7E, 0x7F, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A, 0xC1, 0xFE, 0xFF)
_SIZES: Final = (0, 125, 126, 2**15, 2**16 - 1, 2**16, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1)
_LINES: Final = (
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\0",
    b"\xff\xfe",
    b"Sec-WebSocket-Protocol: chat\r\n",
    b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=8\r\n",
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=x\r\n",
    b"Sec-WebSocket-Version: 8\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Content-Length: -1\r\n",
    b"Host: \xc3\xa9[:\r\n",
    b"Connection: close\r\n",
    b"Upgrade: h2c\r\n",
    b" folded\r\n",
    b"X: " + b"a" * 9000 + b"\r\n",
    b"HTTP/1.1 103 x\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\n",
)

Mutation = Callable[[Random, bytearray], None]


def mutate(rng: Random, parts: Parts, others: Sequence[Parts]) -> bytes:
    """Give a mutation of what was said, in which mostly little is different.

    Args:
        others: From which something may be mixed in.
    """
    # Mostly the head stays as it is: whoever stumbles over that comes no further.
    kept = 1 if len(parts) > 1 and rng.random() < 0.7 else 0
    mixed = list(parts[kept:])
    for _ in range(rng.choice((0, 0, 1, 2))):
        _mutate_parts(rng, mixed, others)
    data = bytearray(b"".join(mixed))
    for _ in range(rng.choice((0, 1, 1, 2, 5))):
        rng.choice(_MUTATIONS)(rng, data)
    return b"".join((*parts[:kept], data))


def cut(rng: Random, size: int) -> tuple[int, ...]:
    """Say where to split so many bytes: nowhere, in few places, or at each of the first."""
    if rng.random() < 0.1:
        return tuple(range(1, min(size, 300)))
    return tuple(sorted(rng.sample(range(1, size), min(size - 1, rng.randrange(5))))) if size > 1 else ()


def _mutate_parts(rng: Random, parts: list[bytes], others: Sequence[Parts]) -> None:
    place = rng.randrange(len(parts) + 1)
    match rng.randrange(6):
        case 0:  # once more
            parts.insert(place, rng.choice(parts) if parts else b"")
        case 1:
            del parts[place : place + 1]
        case 2:
            parts.insert(place, rng.choice(rng.choice(others)))
        case 3:
            rest = rng.choice(others)
            parts[place:] = rest[rng.randrange(len(rest)) :]
        case 4:  # in another order, but for the head
            rest = parts[1:]
            rng.shuffle(rest)
            parts[1:] = rest
        case _:
            parts.insert(place, _any_frame(rng))


def _any_frame(rng: Random) -> bytes:
    """A frame that may break any rule, but is written as one."""
    payload = rng.randbytes(rng.choice((0, 1, 2, 5, 125, 126, 300)))
    return encode_frame(
        rng.randrange(16),
        payload if rng.random() < 0.5 else bytes(len(payload)),
        fin=rng.random() < 0.7,
        rsv=rng.choice((0, 0, 0, 4, 1, 7)),
        masked=rng.random() < 0.5,
    )


def _flip_bit(rng: Random, data: bytearray) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set_byte(rng: Random, data: bytearray) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice(_TURNS)


def _truncate(rng: Random, data: bytearray) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _remove(rng: Random, data: bytearray) -> None:
    place = rng.randrange(len(data) + 1)
    del data[place : place + rng.choice((1, 2, 4, 20))]


def _insert(rng: Random, data: bytearray) -> None:
    place = rng.randrange(len(data) + 1)
    data[place:place] = rng.randbytes(rng.choice((1, 2, 4, 20)))


def _insert_line(rng: Random, data: bytearray) -> None:
    # Mostly where a line begins; after the head there are none.
    place = data.find(b"\r\n", rng.randrange(len(data) + 1)) + 2
    data[place:place] = rng.choice(_LINES)


def _repeat(rng: Random, data: bytearray) -> None:
    place = rng.randrange(len(data) + 1)
    data[place:place] = data[place : place + rng.choice((1, 2, 8, 64))] * rng.choice((1, 1, 3, 50))


def _set_length(rng: Random, data: bytearray) -> None:
    size = rng.choice((2, 8))
    place = rng.randrange(len(data) + 1)
    data[place : place + size] = (rng.choice(_SIZES) % 256**size).to_bytes(size)


def _set_long_length(rng: Random, data: bytearray) -> None:
    """Where a frame's length stands, or looks as if it did."""
    places = [place for place, byte in enumerate(data) if byte & 0x70 == 0 and byte & 0x0F <= 10 and byte & 0x80]
    if places:
        place = rng.choice(places) + 1
        form = rng.choice((126, 127))
        size = 2 if form == 126 else 8
        flag = rng.choice((0, 0x80))
        data[place : place + 1] = bytes([flag | form]) + (rng.choice(_SIZES) % 256**size).to_bytes(size)


_MUTATIONS: Final[Sequence[Mutation]] = (
    _flip_bit,
    _flip_bit,
    _set_byte,
    _set_byte,
    _truncate,
    _remove,
    _insert,
    _insert_line,
    _repeat,
    _set_length,
    _set_long_length,
)
