"""Counts what a buffer holds against its limits. Pure."""

from __future__ import annotations

from typing import final

from trio_wsprim._errors import BufferFull, MessageTooBig
from trio_wsprim._values import Buffer, Message


def message_size(message: Message) -> int:
    """Tell a message's size in bytes on the wire, without encoding it where that is not needed.

    Raises:
        UnicodeEncodeError: If the text has a lone surrogate.
    """
    if isinstance(message, bytes) or message.isascii():
        return len(message)
    return len(message.encode())


@final
class Room:
    """How much of a `Buffer` is taken.

    Attributes:
        messages: How many messages are in it.
        bytes: How many bytes they have together.
    """

    __slots__ = ("_max_bytes", "_max_messages", "bytes", "messages")

    def __init__(self, buffer: Buffer) -> None:
        self._max_messages = buffer.max_messages
        self._max_bytes = buffer.max_bytes
        self.messages = 0
        self.bytes = 0

    def add(self, size: int) -> None:
        """Count one message in."""
        self.messages += 1
        self.bytes += size

    def remove(self, size: int) -> None:
        """Count one message out."""
        self.messages -= 1
        self.bytes -= size

    def fits(self, size: int) -> bool:
        """Whether one more message of that size keeps both limits."""
        return (self._max_messages is None or self.messages < self._max_messages) and (
            self._max_bytes is None or self.bytes + size <= self._max_bytes
        )

    def is_full(self) -> bool:
        """Whether a limit is reached, so that nothing more should be fetched."""
        return not self.fits(1)

    def check_size(self, size: int) -> None:
        """Refuse a message that would not even fit into an empty buffer.

        Raises:
            MessageTooBig: It is larger than `max_bytes` alone.
        """
        if self._max_bytes is not None and size > self._max_bytes:
            raise MessageTooBig(size, self._max_bytes)

    def error(self) -> BufferFull:
        """Make the error for a message that does not fit, naming the limit that is reached."""
        if self._max_messages is not None and self.messages >= self._max_messages:
            return BufferFull(f"max_messages={self._max_messages}")
        return BufferFull(f"max_bytes={self._max_bytes}")
