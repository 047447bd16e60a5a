"""The lane of the common frame: whole, unfragmented data frames, encoded and decoded without a state machine.

Pure: bytes in, messages and other frames out (RFC 6455, 5.2). Every frame that is not a plain data message
(control, fragment, reserved bits, malformed) is handed to the protocol core underneath, one whole frame at
a time and in order, and the core judges it. So the core keeps the state, and the lane the speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

from trio_wsprim._values import Message

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_FIN: Final = 0x80
_MASKED: Final = 0x80
_CONTROL: Final = 0x08
_RESERVED_BITS: Final = 0x70
_OPCODE: Final = 0x0F
_OPCODES: Final = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})
MAX_CONTROL_PAYLOAD: Final = 125

PROTOCOL_ERROR: Final = 1002
NO_CODE: Final = 1005
INVALID_DATA: Final = 1007
# What a peer may close with: RFC 6455, 7.4, and what IANA has registered since (1012 to 1014). wsproto would take
# a gateway's 1014 for a breach.
_CLOSE_CODES: Final = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})

_PLAIN_TEXT: Final = _FIN | TEXT
_PLAIN_BINARY: Final = _FIN | BINARY
_PLAIN: Final = frozenset({_PLAIN_TEXT, _PLAIN_BINARY})
# Bytes of a header by its second byte; a mask's four are not counted, a server sends none.
_HEADER_SIZES: Final = (2,) * 126 + (4, 10)

# Joining what came in pieces at least this often keeps a message that drips in byte by byte from costing a
# Python object for each byte.
_MOST_PARTS: Final = 1024


def encode_frame(opcode: int, payload: bytes, mask: bytes | None) -> bytes:
    """Serialise one whole frame.

    Args:
        opcode: One of those above.
        payload: Unmasked; its length takes the shortest form, as 5.2 demands.
        mask: Four unpredictable bytes from a client (5.3), `None` from a server.
    """
    size = len(payload)
    flag = 0 if mask is None else _MASKED
    if size < 126:
        head = bytes((_FIN | opcode, flag | size))
    elif size < 1 << 16:
        head = bytes((_FIN | opcode, flag | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((_FIN | opcode, flag | 127)) + size.to_bytes(8, "big")
    return head + payload if mask is None else head + mask + apply_mask(payload, mask)


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


def apply_mask(payload: bytes, mask: bytes) -> bytes:
    """XOR the payload with the repeated mask (5.3): both directions are the same.

    One wide integer operation, since a loop over bytes costs some hundred times as much.
    """
    size = len(payload)
    repeated = (mask * (size // 4 + 1))[:size]
    wide = int.from_bytes(payload, "little") ^ int.from_bytes(repeated, "little")
    return wide.to_bytes(size, "little")


def encode_message(message: Message, mask: bytes | None) -> bytes:
    """Serialise one data message as one frame."""
    if isinstance(message, str):
        return encode_frame(TEXT, message.encode(), mask)
    return encode_frame(BINARY, message, mask)


@dataclass(frozen=True, slots=True)
class OtherFrame:
    """A frame for the core.

    Attributes:
        opcode: The frame's, known or not.
        raw: The whole frame as it came, header included. Of one whose header is wrong already, all that came.
        malformed: Whether the header breaks RFC 6455, 5, so that waiting for the payload would be pointless.
        ends_message: Whether it is the last fragment of a message.
        payload: Without the header.
    """

    opcode: int
    raw: bytes
    malformed: bool = False
    ends_message: bool = False
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class TooBig:
    """A frame that would make a message larger than allowed, known from its header alone.

    Attributes:
        sentence: What was got and what is allowed, for a close reason.
    """

    sentence: str


@final
class FrameDecoder:
    """Cuts what a server sends into messages and other frames.

    Args:
        max_message_bytes: The largest message, in bytes of payload over all its fragments; `None` for no limit.
    """

    __slots__ = (
        "_buffer",
        "_fragments",
        "_fragments_bytes",
        "_limit",
        "_missing",
        "_most_fragments",
        "_parts",
        "_position",
    )

    def __init__(self, max_message_bytes: int | None) -> None:
        self._limit = max_message_bytes
        # Empty fragments cost memory that no limit on bytes sees. 64 bytes a fragment is as small as any
        # real sender's get (Autobahn 9.3 and 9.4 send 4 MiB in such pieces).
        self._most_fragments = None if max_message_bytes is None else max(4096, max_message_bytes // 64)
        self._buffer = b""
        self._position = 0
        self._parts: list[bytes] = []
        self._missing = 0
        self._fragments = 0
        self._fragments_bytes = 0

    def feed(self, data: bytes) -> None:
        """Take what came in; `decode` says what is in it."""
        self._parts.append(data)
        self._missing -= len(data)
        if self._missing <= 0 or len(self._parts) >= _MOST_PARTS:
            self._buffer = b"".join((self._buffer[self._position :], *self._parts))
            self._position = 0
            self._parts.clear()

    def decode(self, messages: list[Message]) -> OtherFrame | TooBig | None:
        """Append the messages that are complete, up to the first frame that is not one.

        Returns:
            That frame, if it is complete, or wrong already (then it is the last); `None` if more bytes are
            needed.
        """
        if self._missing > 0:
            return None
        self._missing = 0
        buffer, position = self._buffer, self._position
        try:
            while len(buffer) - position >= 2:
                first, second = buffer[position], buffer[position + 1]
                if self._breaks_rules(first, second):
                    break
                start = position + _HEADER_SIZES[second]
                if start > len(buffer):
                    return None
                size = second if second < 126 else int.from_bytes(buffer[position + 2 : start], "big")
                if not _is_shortest(second, size):
                    break
                if not first & _CONTROL and (excess := self._excess(size)):
                    position = len(buffer)
                    return TooBig(excess)
                end = start + size
                if end > len(buffer):
                    self._missing = end - len(buffer)
                    return None
                begin, position = position, end
                if first in _PLAIN and not self._fragments:
                    payload = buffer[start:end]
                    try:
                        messages.append(payload if first == _PLAIN_BINARY else str(payload, "utf-8"))
                    except UnicodeDecodeError:
                        return OtherFrame(TEXT, buffer[begin:end], ends_message=True)
                else:
                    return self._other(first, size, buffer[begin:end], buffer[start:end])
            else:
                return None
            begin, position = position, len(buffer)
            return OtherFrame(buffer[begin] & _OPCODE, buffer[begin:], malformed=True)
        finally:
            # The rest is not cut off here: a flood of tiny control frames would have it copied once for each.
            self._buffer, self._position = (buffer, position) if position < len(buffer) else (b"", 0)

    def _breaks_rules(self, first: int, second: int) -> bool:
        """Tell from the first two bytes of a header whether they break RFC 6455, 5.1, 5.2, 5.4 or 5.5."""
        opcode = first & _OPCODE
        if first & _RESERVED_BITS or second & _MASKED or opcode not in _OPCODES:
            return True
        if opcode & _CONTROL:
            return not first & _FIN or second > MAX_CONTROL_PAYLOAD
        return (opcode == CONTINUATION) != (self._fragments > 0)

    def _excess(self, size: int) -> str | None:
        """Say how a data frame of that size goes over a limit, if it does."""
        total = self._fragments_bytes + size
        if self._limit is not None and total > self._limit:
            return f"message of at least {total} bytes, at most {self._limit} are allowed"
        if self._most_fragments is not None and self._fragments >= self._most_fragments:
            return f"message in more than {self._most_fragments} fragments"
        return None

    def _other(self, first: int, size: int, raw: bytes, payload: bytes) -> OtherFrame:
        """Note what a well-formed control frame or fragment means for the frames to come."""
        opcode = first & _OPCODE
        if opcode & _CONTROL:
            return OtherFrame(opcode, raw, payload=payload)
        ends = bool(first & _FIN)
        self._fragments = 0 if ends else self._fragments + 1
        self._fragments_bytes = 0 if ends else self._fragments_bytes + size
        return OtherFrame(opcode, raw, ends_message=ends, payload=payload)


def _is_shortest(second: int, size: int) -> bool:
    """Whether a length is in the shortest form and below 2**63 (5.2)."""
    if second == 126:
        return size > MAX_CONTROL_PAYLOAD
    return second < 126 or 1 << 16 <= size < 1 << 63
