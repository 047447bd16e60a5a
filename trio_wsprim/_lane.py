"""The lane of the common frame: whole, unfragmented data frames are decoded without a state machine.

Pure: bytes in, messages and other frames out (RFC 6455, 5.2). Every frame that is not a plain data message
(control, fragment, compressed, malformed) is handed to the protocol core underneath, one whole frame at
a time and in order, and the core judges it. So the core keeps the state, and the lane the speed.
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from typing import Final, final

from trio_wsprim._frames import (
    BINARY,
    COMPRESSED,
    CONTINUATION,
    CONTROL,
    FIN,
    MASKED,
    MAX_CONTROL_PAYLOAD,
    OPCODE,
    OPCODES,
    RESERVED_BITS,
    TEXT,
)
from trio_wsprim._mask import apply_mask
from trio_wsprim._values import Message

_PLAIN_TEXT: Final = FIN | TEXT
_PLAIN_BINARY: Final = FIN | BINARY
_PLAIN: Final = frozenset({_PLAIN_TEXT, _PLAIN_BINARY})
# Bytes of a header by its second byte but for the flag; a client's has a key of four more.
_HEADER_SIZES: Final = (2,) * 126 + (4, 10)
_LENGTH: Final = 0x7F

# Joining what came in pieces at least this often keeps a frame that drips in byte by byte from costing a
# Python object for each byte.
_MOST_PARTS: Final = 1024
# From this size on a message gets memory of its own, into which the network is read: no copy is made of it.
_LARGE: Final = 32 * 1024
# Above this it has to come in before it is believed.
_HUGE: Final = 64 * 2**20


@dataclass(slots=True)  # not frozen: that would take a pong three times as long to make
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
class _Large:
    """A large plain message on its way in. Its memory is the operating system's zeros until something comes.

    Args:
        opcode: Text or binary.
        head: The frame's header.
        size: Of the payload.
        key: What it is masked with, the last bytes of the header; `None` from a server.
    """

    __slots__ = ("_file", "_head", "_key", "_opcode", "missing", "view")

    def __init__(self, opcode: int, head: bytes, size: int, key: bytes | None) -> None:
        self._opcode = opcode
        self._head = head
        self._key = key
        # `BytesIO` gives its buffer out for writing, and later as `bytes` without a copy.
        self._file = io.BytesIO(bytes(size))
        self.view = self._file.getbuffer()
        self.missing = size

    def room(self) -> memoryview:
        """Give the memory that is still to be filled."""
        return self.view[len(self.view) - self.missing :]

    def fill(self, data: bytes | memoryview) -> None:
        """Take some of what is missing."""
        start = len(self.view) - self.missing
        self.view[start : start + len(data)] = data
        self.missing -= len(data)

    def finish(self, messages: list[Message]) -> OtherFrame | None:
        """Append the message; one that is no UTF-8 is the core's to judge."""
        self.view.release()
        came = self._file.getvalue()
        payload = came if self._key is None else apply_mask(came, self._key)
        try:
            messages.append(payload if self._opcode == BINARY else str(payload, "utf-8"))
        except UnicodeDecodeError:
            return OtherFrame(TEXT, self._head + came, ends_message=True)
        return None


@final
class FrameDecoder:
    """Cuts what a peer sends into messages and other frames.

    Args:
        max_message_bytes: The largest message, in bytes of payload over all its fragments; `None` for no limit.
        compressed: Whether messages may be marked as compressed (RFC 7692); they are the core's then.
        has_lane: Whether plain messages are decoded here; else they are other frames too, for the core to judge.
        masked: Whether the peer is a client, all of whose frames are masked (5.1).
    """

    __slots__ = (
        "_buffer",
        "_compressed",
        "_fragments",
        "_fragments_bytes",
        "_has_lane",
        "_large",
        "_limit",
        "_masked",
        "_missing",
        "_most_fragments",
        "_other_limit",
        "_parts",
        "_position",
    )

    def __init__(
        self,
        max_message_bytes: int | None,
        *,
        compressed: bool = False,
        has_lane: bool = True,
        masked: bool = False,
    ) -> None:
        self._masked = masked
        self._limit = sys.maxsize if max_message_bytes is None else max_message_bytes
        # Of a frame that is not plain; what it inflates to is for the core to judge.
        self._other_limit = with_slack(self._limit) if compressed else self._limit
        # Empty fragments cost memory that no limit on bytes sees. 64 bytes a fragment is as small as any
        # real sender's get (Autobahn 9.3 and 9.4 send 4 MiB in such pieces).
        self._most_fragments = max(4096, self._limit // 64)
        self._compressed = compressed
        self._has_lane = has_lane
        self._buffer = b""
        self._position = 0
        self._parts: list[bytes] = []
        self._missing = 0
        self._large: _Large | None = None
        self._fragments = 0
        self._fragments_bytes = 0

    # -------------------------------------------------------------------------------- bytes in

    def feed(self, data: bytes) -> None:
        """Take what came in; `decode` says what is in it."""
        if self._large is not None:
            size = min(self._large.missing, len(data))
            self._large.fill(memoryview(data)[:size])
            data = data[size:]
        if not (self._parts or self._missing) and self._position == len(self._buffer):
            self._buffer, self._position = data, 0
            return
        self._parts.append(data)
        self._missing -= len(data)
        if self._missing <= 0 or len(self._parts) >= _MOST_PARTS:
            self._buffer = b"".join((self._buffer[self._position :], *self._parts))
            self._position = 0
            self._parts.clear()

    def room(self) -> memoryview | None:
        """Give the memory that the network may be read into next, instead of `feed`; `None` if none is waiting."""
        return self._large.room() if self._large is not None and self._large.missing else None

    def filled(self, size: int) -> None:
        """So many bytes were read into `room`."""
        assert self._large is not None, "no room was given"
        self._large.missing -= size

    @property
    def is_empty(self) -> bool:
        """Whether nothing has come in that `decode` could still say anything of."""
        return self._position == len(self._buffer) and self._large is None

    # -------------------------------------------------------------------------------- frames out

    def decode(self, messages: list[Message]) -> OtherFrame | TooBig | None:
        """Append the messages that are complete, up to the first frame that is not one.

        Returns:
            That frame, if it is complete, or wrong already (then it is the last); `None` if more bytes are
            needed.
        """
        if self._large is not None:
            if self._large.missing:
                return None
            large, self._large = self._large, None
            fault = large.finish(messages)
            if fault is not None:
                return fault
        if self._missing > 0:
            return None
        self._missing = 0
        other = None
        while self._position < len(self._buffer):
            if self._has_lane and not self._fragments:
                if self._masked:
                    self._decode_masked(messages)
                else:
                    self._decode_plain(messages)
            before = self._position
            other = self._decode_other(messages)
            if other is not None or self._position == before:
                break
        if self._position == len(self._buffer):
            self._buffer, self._position = b"", 0
        return other

    def _decode_plain(self, messages: list[Message]) -> None:
        """Decode the run of small plain messages that comes next. What is anything else ends it, untouched.

        The one loop that runs for every message, so it calls nothing of ours.
        """
        buffer, position, limit = self._buffer, self._position, self._limit
        end, add = len(buffer), messages.append
        try:
            while end - position >= 4:
                size = buffer[position + 1]
                start = position + 2
                if size > 125:
                    if size != 126:
                        break
                    size = buffer[start] << 8 | buffer[start + 1]
                    if size < 126:
                        break
                    start += 2
                stop = start + size
                if stop > end or size > limit:
                    break
                first = buffer[position]
                if first == _PLAIN_TEXT:
                    add(buffer[start:stop].decode())
                elif first == _PLAIN_BINARY:
                    add(buffer[start:stop])
                else:
                    break
                position = stop
        except UnicodeDecodeError:
            pass
        self._position = position

    def _decode_masked(self, messages: list[Message]) -> None:
        """Do the same with what a client sends: a second loop, since to ask in each turn of one would be felt."""
        buffer, position, limit = self._buffer, self._position, self._limit
        end, add = len(buffer), messages.append
        try:
            while end - position >= 8:
                size = buffer[position + 1] - MASKED
                start = position + 6
                if size > 125:
                    if size != 126:
                        break
                    size = buffer[position + 2] << 8 | buffer[position + 3]
                    if size < 126:
                        break
                    start += 2
                stop = start + size
                if size < 0 or stop > end or size > limit:
                    break
                first = buffer[position]
                if first == _PLAIN_TEXT:
                    add(apply_mask(buffer[start:stop], buffer[start - 4 : start]).decode())
                elif first == _PLAIN_BINARY:
                    add(apply_mask(buffer[start:stop], buffer[start - 4 : start]))
                else:
                    break
                position = stop
        except UnicodeDecodeError:
            pass
        self._position = position

    def _decode_other(self, messages: list[Message]) -> OtherFrame | TooBig | None:
        """Deal with the frame that comes next, whatever it is; nothing has moved if it is not complete."""
        buffer, begin = self._buffer, self._position
        if len(buffer) - begin < 2:
            return None
        first, second = buffer[begin], buffer[begin + 1]
        if self._breaks_rules(first, second):
            return self._malformed()
        length = second & _LENGTH
        start = begin + _HEADER_SIZES[length]
        if start > len(buffer):
            return None
        size = length if length < 126 else int.from_bytes(buffer[begin + 2 : start], "big")
        if not _is_shortest(length, size):
            return self._malformed()
        is_plain = self._has_lane and first in _PLAIN
        if not first & CONTROL and (excess := self._excess(size, self._limit if is_plain else self._other_limit)):
            self._position = len(buffer)
            return TooBig(excess)
        key = None
        if self._masked:
            start += 4
            if start > len(buffer):
                return None
            key = buffer[start - 4 : start]
        end = start + size
        if end > len(buffer):
            if is_plain and _LARGE < size <= _HUGE:
                self._large = _Large(first & OPCODE, buffer[begin:start], size, key)
                self._large.fill(memoryview(buffer)[start:])
                self._position = len(buffer)
            else:
                self._missing = end - len(buffer)
            return None
        # The rest is not cut off here: a flood of tiny control frames would have it copied once for each.
        self._position = end
        payload = buffer[start:end] if key is None else apply_mask(buffer[start:end], key)
        if is_plain:
            try:
                messages.append(payload if first == _PLAIN_BINARY else str(payload, "utf-8"))
            except UnicodeDecodeError:
                return OtherFrame(TEXT, buffer[begin:end], ends_message=True)
            return None
        return self._other(first, size, buffer[begin:end], payload)

    def _malformed(self) -> OtherFrame:
        begin, self._position = self._position, len(self._buffer)
        return OtherFrame(self._buffer[begin] & OPCODE, self._buffer[begin:], malformed=True)

    def _breaks_rules(self, first: int, second: int) -> bool:
        """Tell from the first two bytes of a header whether they break RFC 6455, 5.1, 5.2, 5.4 or 5.5."""
        opcode = first & OPCODE
        if bool(second & MASKED) != self._masked or opcode not in OPCODES:
            return True
        reserved = first & RESERVED_BITS
        if reserved and not (self._compressed and reserved == COMPRESSED and opcode in {TEXT, BINARY}):
            return True
        if opcode & CONTROL:
            return not first & FIN or second & _LENGTH > MAX_CONTROL_PAYLOAD
        return (opcode == CONTINUATION) != (self._fragments > 0)

    def _excess(self, size: int, limit: int) -> str | None:
        """Say how a data frame of that size goes over a limit, if it does."""
        total = self._fragments_bytes + size
        if total > limit:
            return f"message of at least {total} bytes, at most {self._limit} are allowed"
        if self._fragments >= self._most_fragments:
            return f"message in more than {self._most_fragments} fragments"
        return None

    def _other(self, first: int, size: int, raw: bytes, payload: bytes) -> OtherFrame:
        """Note what a well-formed control frame or fragment means for the frames to come."""
        opcode = first & OPCODE
        if opcode & CONTROL:
            return OtherFrame(opcode, raw, payload=payload)
        ends = bool(first & FIN)
        self._fragments = 0 if ends else self._fragments + 1
        self._fragments_bytes = 0 if ends else self._fragments_bytes + size
        return OtherFrame(opcode, raw, ends_message=ends, payload=payload)


def with_slack(limit: int | None) -> int:
    """Tell how many bytes a message within a limit may have when deflate could not make it smaller, but larger.

    Five bytes for every block of 16 KiB or more that is stored as it is (RFC 1951, 3.2.4), and to spare as much as
    a control frame may have, since `websockets` holds those against the limit too.
    """
    return sys.maxsize if limit is None else limit + limit // 1024 + MAX_CONTROL_PAYLOAD


def _is_shortest(length: int, size: int) -> bool:
    """Whether a size is in the shortest form and below 2**63 (5.2); `length` is what the second byte says."""
    if length == 126:
        return size > MAX_CONTROL_PAYLOAD
    return length < 126 or 1 << 16 <= size < 1 << 63
