"""Which message kills the connections that it is sent on, so that it must be set aside. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

from trio_wsprim._ledger import Entry

TOO_BIG: Final = 1009
# A network that breaks all connections young may do so this often with the same message first, without any proof of
# an earlier one, by chance alone: with a chance of one in two, once in a thousand.
MOST_LIVES: Final = 10


@final
class Suspicion:
    """Remembers with which message first connections have died."""

    __slots__ = ("_deaths", "_first")

    def __init__(self) -> None:
        self._first: Entry | None = None
        self._deaths = 0

    def judge(self, doubtful: Sequence[Entry], peers_code: int | None, lasted: bool) -> Entry | None:
        """Tell which message to set aside after a connection has ended, if any.

        Args:
            doubtful: What was handed over without proof, and what was being written, in order.
            peers_code: The code of the peer's close frame; `None` if it sent none.
            lasted: Whether the connection was up long enough not to have died of a message.
        """
        if not doubtful:
            return None
        if peers_code == TOO_BIG:
            return max(doubtful, key=lambda entry: entry.size)
        if lasted or doubtful[0] is not self._first:
            self._first, self._deaths = doubtful[0], 0
        if not lasted:
            self._deaths += 1
        return self._first if self._deaths >= MOST_LIVES else None
