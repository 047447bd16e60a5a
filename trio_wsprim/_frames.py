"""The words of the wire: opcodes, close codes, and how a frame is written (RFC 6455, 5.2). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

from trio_wsprim._mask import apply_mask

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA
OPCODES: Final = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})

FIN: Final = 0x80
MASKED: Final = 0x80
CONTROL: Final = 0x08
COMPRESSED: Final = 0x40  # the first reserved bit, as RFC 7692 uses it
RESERVED_BITS: Final = 0x70
OPCODE: Final = 0x0F
MAX_CONTROL_PAYLOAD: Final = 125

PROTOCOL_ERROR: Final = 1002
NO_CODE: Final = 1005
INVALID_DATA: Final = 1007
TOO_BIG: Final = 1009
# What a peer may close with: RFC 6455, 7.4, and what IANA has registered since (1012 to 1014). wsproto would take
# a gateway's 1014 for a breach.
_CLOSE_CODES: Final = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})

# The whole header of a small masked frame but for its mask, by payload size: most messages need no arithmetic.
_SMALL_HEADS: Final = {
    opcode: tuple(bytes((FIN | opcode, MASKED | size)) for size in range(126)) for opcode in (TEXT, BINARY, PING)
}
SMALL_TEXT_HEADS: Final = _SMALL_HEADS[TEXT]
SMALL_BINARY_HEADS: Final = _SMALL_HEADS[BINARY]
SMALL_PING_HEADS: Final = _SMALL_HEADS[PING]
# The same of a server's, which masks nothing.
BARE_TEXT_HEADS: Final = tuple(bytes((FIN | TEXT, size)) for size in range(126))
BARE_BINARY_HEADS: Final = tuple(bytes((FIN | BINARY, size)) for size in range(126))


def encode_head(opcode: int, size: int, *, masked: bool = True) -> bytes:
    """Serialise the header of one whole frame, but for its mask.

    Args:
        opcode: One of those above.
        size: Of the payload; takes the shortest form, as 5.2 demands.
        masked: As every frame of a client, and none of a server (5.1).
    """
    flag = MASKED if masked else 0
    if size < 126:
        return bytes((FIN | opcode, flag | size))
    if size < 1 << 16:
        return bytes((FIN | opcode, flag | 126)) + size.to_bytes(2, "big")
    return bytes((FIN | opcode, flag | 127)) + size.to_bytes(8, "big")


def encode_frame(opcode: int, payload: bytes, mask: bytes | None) -> bytes:
    """Serialise one whole frame.

    Args:
        opcode: One of those above.
        payload: Unmasked.
        mask: Four unpredictable bytes from a client (5.3), `None` from a server.
    """
    if mask is None:
        return encode_head(opcode, len(payload), masked=False) + payload
    return encode_head(opcode, len(payload)) + mask + apply_mask(payload, mask)


@final
class SharedText(str):
    """A text that goes to many, with the frame that a server sends of it, which is made once."""

    __slots__ = ("frame",)
    frame: bytes


@final
class SharedBytes(bytes):
    """Likewise, for bytes."""

    frame: bytes


def share(message: str | bytes) -> SharedText | SharedBytes:
    """Make the frame of a message, for all servers' connections that do not compress."""
    shared: SharedText | SharedBytes
    if isinstance(message, str):
        shared = SharedText(message)
        shared.frame = encode_frame(TEXT, message.encode(), None)
    else:
        shared = SharedBytes(message)
        shared.frame = encode_frame(BINARY, message, None)
    return shared


def encode_close(code: int, reason: str, mask: bytes | None) -> bytes:
    """Serialise a close frame; a reason too long for it is cut at a character (5.5.1)."""
    room = MAX_CONTROL_PAYLOAD - 2
    cut = reason.encode()[:room].decode(errors="ignore").encode()
    return encode_frame(CLOSE, code.to_bytes(2, "big") + cut, mask)


@dataclass(frozen=True, slots=True)
class Close:
    """What a close frame says.

    Attributes:
        code: The peer's, or 1005 if it gave none; of a malformed frame, the code that answers it.
        reason: The peer's words; of a malformed frame, what is wrong with it.
        malformed: Whether it breaks RFC 6455, 5.5.1 or 7.4.
    """

    code: int
    reason: str
    malformed: bool = False


def read_close(payload: bytes) -> Close:
    """Read the payload of a close frame."""
    if not payload:
        return Close(NO_CODE, "")
    if len(payload) == 1:
        return Close(PROTOCOL_ERROR, "close frame with half a code", malformed=True)
    code = int.from_bytes(payload[:2], "big")
    if code not in _CLOSE_CODES:
        return Close(PROTOCOL_ERROR, f"close frame with code {code}", malformed=True)
    try:
        return Close(code, str(payload[2:], "utf-8"))
    except UnicodeDecodeError:
        return Close(INVALID_DATA, "close frame with a reason that is not UTF-8", malformed=True)
