"""Frames and heads as bytes: RFC 6455 by hand, so that a test can break every rule of it. Pure."""

from __future__ import annotations

import enum
import http
import struct
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha1
from typing import Final

from trio_wsprim._values import Message

_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
# A mask need not be random here, and a constant one keeps runs alike (RFC 6455, section 5.7).
_MASK: Final = b"\x37\xfa\x21\x3d"


class Opcode(enum.IntEnum):
    """The opcodes that RFC 6455 defines; all others are reserved."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it came from the client, its payload unmasked.

    Attributes:
        opcode: Usually one of `Opcode`, but a misbehaving client may send any up to 15.
        rsv: The three reserved bits as a number; 4 is RSV1, the mark of a compressed message.
    """

    opcode: int
    payload: bytes
    fin: bool = True
    masked: bool = True
    rsv: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """The head of an HTTP request.

    Attributes:
        path: As sent, with its query.
        headers: Pairs of lower-case name and value, in the order sent.
        raw: The head as it came, with the empty line that ends it.
    """

    method: str
    path: str
    headers: list[tuple[str, str]]
    raw: bytes

    def header(self, name: str) -> str | None:
        """Give the first value of a header, whose name is in lower case; `None` without one."""
        return next((value for given, value in self.headers if given == name), None)


def encode_frame(opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0, masked: bool = False) -> bytes:
    """Write a frame as bytes, to send as they are, in pieces, or garbled.

    Args:
        opcode: One of `Opcode`, or any other up to 15.
        payload: Unmasked.
        fin: Whether it is the last fragment of its message.
        rsv: The three reserved bits as a number, 0 to 7; 4 is RSV1.
        masked: Whether to mask it, as servers must not and clients must.
    """
    first = fin << 7 | rsv << 4 | opcode
    size = len(payload)
    mask_bit = masked << 7
    if size < 126:
        head = bytes([first, mask_bit | size])
    elif size < 2**16:
        head = struct.pack("!BBH", first, mask_bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, mask_bit | 127, size)
    return head + (_MASK + _apply_mask(payload, _MASK) if masked else payload)


def _apply_mask(payload: bytes, mask: bytes) -> bytes:
    # One big exclusive-or: byte by byte, a megabyte would take a tenth of a second.
    size = len(payload)
    keys = (mask * (size // 4 + 1))[:size]
    mixed = int.from_bytes(payload, "little") ^ int.from_bytes(keys, "little")
    return mixed.to_bytes(size, "little")


def decode_frame(data: bytearray) -> tuple[Frame, int] | None:
    """Read the first frame of `data` and its whole size; `None` if it is not all there."""
    # Zeros for what is missing: the size that comes out is then at least the
    # size of the head, and that alone tells that more has to come.
    head = bytes(data[:14]).ljust(14, b"\0")
    masked = bool(head[1] & 0x80)
    size = head[1] & 0x7F
    start = 2
    if size == 126:
        size, start = int.from_bytes(head[2:4]), 4
    elif size == 127:
        size, start = int.from_bytes(head[2:10]), 10
    mask = head[start : start + 4] if masked else bytes(4)
    start += 4 * masked
    if len(data) < start + size:
        return None
    payload = bytes(data[start : start + size])
    if masked:
        payload = _apply_mask(payload, mask)
    frame = Frame(head[0] & 0x0F, payload, bool(head[0] & 0x80), masked, head[0] >> 4 & 0x07)
    return frame, start + size


def parse_request(raw: bytes) -> Request:
    """Read the head of a request, whatever it is."""
    line, *fields = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    method, path, *_ = *line.split(" "), ""
    pairs = (field.partition(":") for field in fields)
    return Request(method, path, [(name.lower(), value.strip()) for name, _, value in pairs], raw)


def encode_request(path: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Write the head of a request."""
    return _encode_head(f"GET {path} HTTP/1.1", headers)


def encode_response(status: int, reason: str | None, headers: Iterable[tuple[str, str]]) -> bytes:
    """Write the head of an answer; `None` for the usual reason."""
    if reason is None:
        known = {item.value: item.phrase for item in http.HTTPStatus}
        reason = known.get(status, "")
    return _encode_head(f"HTTP/1.1 {status} {reason}", headers)


def encode_rejection(status: int, reason: str | None, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
    """Write a whole answer, with a `Content-Length` unless its headers say something about that."""
    answer = list(headers)
    if not {"content-length", "transfer-encoding"} & {name.lower() for name, _ in answer}:
        answer.append(("Content-Length", str(len(body))))
    return encode_response(status, reason, answer) + body


def _encode_head(first_line: str, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = [first_line, *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def accept_key_for(key: str) -> str:
    """Give the `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key` (RFC 6455, 4.2.2)."""
    return b64encode(sha1((key + _GUID).encode(), usedforsecurity=False).digest()).decode()


def to_payload(message: Message) -> bytes:
    """Give the payload of a message."""
    return message.encode() if isinstance(message, str) else message


def opcode_of(message: Message) -> Opcode:
    """Tell text from binary."""
    return Opcode.TEXT if isinstance(message, str) else Opcode.BINARY
