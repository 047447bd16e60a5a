"""Messages in fragments (RFC 6455, 5.4), put together where the layer below does not."""

from __future__ import annotations

import codecs
from typing import cast, final

from trio_wsprim._values import Message


@final
class Fragments:
    """A message that comes in pieces; text is decoded as it comes, so that what is no UTF-8 is found at once.

    Args:
        is_text: Whether it is text, and no bytes.

    Attributes:
        size: Bytes of payload so far.
    """

    __slots__ = ("_decoder", "_parts", "size")

    def __init__(self, *, is_text: bool) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")() if is_text else None
        self._parts: list[str] | list[bytes] = []
        self.size = 0

    def add(self, data: bytes, *, is_last: bool) -> None:
        """Take a piece, or raise `UnicodeDecodeError`."""
        self.size += len(data)
        part = data if self._decoder is None else self._decoder.decode(data, is_last)
        if part:
            cast("list[str | bytes]", self._parts).append(part)

    def message(self) -> Message:
        """Join them."""
        if self._decoder is None:
            return b"".join(cast("list[bytes]", self._parts))
        return "".join(cast("list[str]", self._parts))
