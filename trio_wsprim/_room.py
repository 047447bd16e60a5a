"""Counts what a buffer holds against its limits. Pure."""

from __future__ import annotations

from collections.abc import Collection
from math import inf
from typing import cast, final

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


def batch_size(messages: Collection[Message]) -> int:
    """Add up the sizes of messages; most batches are of one kind, and are added up by the interpreter itself."""
    if len(messages) == 1:
        return sum(map(message_size, messages))
    kinds = set(map(type, messages))
    if kinds == {bytes} or (kinds == {str} and all(map(str.isascii, cast("Collection[str]", messages)))):
        return sum(map(len, messages))
    return sum(map(message_size, messages))


@final
class Room:
    """How much of a `Buffer` is taken.

    Attributes:
        max_messages: The first limit; infinite for none.
        max_bytes: The second.
        messages: How many messages are in it.
        bytes: How many bytes they have together.
    """

    __slots__ = ("max_messages", "max_bytes", "messages", "bytes")

    def __init__(self, buffer: Buffer) -> None:
        self.max_messages: float = inf if buffer.max_messages is None else buffer.max_messages
        self.max_bytes: float = inf if buffer.max_bytes is None else buffer.max_bytes
        self.messages = 0
        self.bytes = 0

    def add(self, size: int, count: int = 1) -> None:
        """Count messages in, of so many bytes together."""
        self.messages += count
        self.bytes += size

    def remove(self, size: int, count: int = 1) -> None:
        """Count messages out, of so many bytes together."""
        self.messages -= count
        self.bytes -= size

    def fits(self, size: int) -> bool:
        """Whether one more message of that size keeps both limits."""
        return self.messages < self.max_messages and self.bytes + size <= self.max_bytes

    def is_full(self) -> bool:
        """Whether a limit is reached, so that nothing more should be fetched."""
        return not self.fits(1)

    def check_size(self, size: int) -> None:
        """Refuse a message that would not even fit into an empty buffer.

        Raises:
            MessageTooBig: It is larger than `max_bytes` alone.
        """
        if size > self.max_bytes:
            raise MessageTooBig(size, int(self.max_bytes))

    def error(self) -> BufferFull:
        """Make the error for a message that does not fit, naming the limit that is reached."""
        if self.messages >= self.max_messages:
            return BufferFull(f"max_messages={self.max_messages}")
        return BufferFull(f"max_bytes={self.max_bytes}")
