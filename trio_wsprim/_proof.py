"""What is known of the messages that the network has taken: proved, in doubt, to be sent again, or poison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from trio_wsprim._ledger import Entry, Ledger, messages
from trio_wsprim._poison import TOO_BIG, Suspicion
from trio_wsprim._values import Buffer, Message


@dataclass(frozen=True, slots=True)
class Account:
    """What the end of a connection means for the messages that were under way on it.

    Attributes:
        unconfirmed: Those without proof; `None` where nothing is tracked.
        rejected: Whether the one that the peer rejected was set aside, so that the others may be sent again.
    """

    unconfirmed: tuple[Message, ...] | None = None
    rejected: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment, for those who wait until all that was sent before has left.

    Attributes:
        serial: Of the last message that was accepted before it.
        breaks: How many connections had ended before it.
    """

    serial: int
    breaks: int


@final
class Proof:
    """Follows messages from the moment at which the network has taken them.

    Args:
        buffer: The outbox's bounds.
        tracks: Whether to keep them until they are proved to have arrived.
        resends: Whether those without proof are sent again on the next connection.

    Attributes:
        ledger: Those that are kept; `None` where nothing is tracked.
        newest_sent: The serial of the last on the present connection; 0 for none.
        doubt: How a connection ended that left something without proof, until somebody who asks for proof is told.
    """

    __slots__ = ("_begun", "_doubted", "_proved", "_resends", "_suspicion", "doubt", "ledger", "newest_sent")

    def __init__(self, buffer: Buffer, *, tracks: bool, resends: bool) -> None:
        self._resends = resends
        self._suspicion = Suspicion()
        # Begun on the present connection, and cut short.
        self._begun: Entry | None = None
        self._proved = 0
        # Which connection's end left the doubt, counted as a mark's `breaks` are.
        self._doubted = 0
        self.ledger = Ledger(buffer) if tracks else None
        self.newest_sent = 0
        self.doubt: BaseException | None = None

    def hand_over(self, entries: Sequence[Entry]) -> None:
        """The network has taken them, to their last byte; at least one."""
        self.newest_sent = entries[-1].serial
        if self.ledger is not None:
            self.ledger.add(entries)

    def begin(self, entry: Entry | None) -> None:
        """The network may have taken the beginning of it, and takes no more; `None` if of none."""
        self._begun = entry

    def confirm(self, serial: int) -> Sequence[Entry]:
        """All up to that serial is proved to have arrived; give those that need not be kept any longer."""
        self._proved = max(self._proved, serial)
        return () if self.ledger is None else self.ledger.confirm(serial)

    def leaves_doubt(self, mark: Mark) -> bool:
        """Whether a connection has ended since the mark that left something without proof, which is not sent again."""
        return self.ledger is None or self._doubted > mark.breaks

    def note_break(self, breaks: int, error: BaseException | None) -> tuple[Message, ...] | None:
        """The connection has ended; tell what stays without proof on it, `None` where nothing is tracked.

        Args:
            breaks: How many have ended now.
            error: How this one did.
        """
        if self.newest_sent > self._proved and not self._resends:
            self.doubt = error
            self._doubted = breaks
        self.newest_sent = self._proved = 0
        return None if self.ledger is None else messages(self.ledger.open)

    def find_poison(self, peers_code: int | None, lasted: bool) -> Entry | None:
        """Tell which message to set aside, since it kills connections; see `Suspicion.judge`."""
        begun, self._begun = self._begun, None
        handed = self.ledger.open if self.ledger else ()
        torn = (begun,) if begun is not None and begun.waits else ()
        return self._suspicion.judge([*handed, *torn], peers_code, lasted)


def is_rejection(peers_code: int | None) -> bool:
    """Whether the peer closed because of a message, so that without that message all is well."""
    return peers_code == TOO_BIG
