"""Whether to dial again, and when: counts, and nothing else. Pure but for a user's `retry_if`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

from trio_wsprim._backoff import as_backoff
from trio_wsprim._errors import ConnectionFailed, ConnectionRejected, RetriesExhausted
from trio_wsprim._options import RetryRule
from trio_wsprim._retry import should_retry

# The two that RFC 9110, 10.2.3 and RFC 6585, 4 name `Retry-After` for.
_BUSY: Final = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No further dial.

    Attributes:
        error: Why: what happened, or that the retries have run out.
    """

    error: Exception


@final
class Patience:
    """Counts dials and waits in a row.

    Args:
        rule: The user's; `None` for a socket that never dials again.

    Attributes:
        attempt: The number of the latest dial in a row, from 1.
    """

    __slots__ = ("_failed", "_rule", "_used", "_waits", "attempt")

    def __init__(self, rule: RetryRule | None) -> None:
        self._rule = rule
        # Dials that failed since a connection was last open, whether that lasted or not.
        self._failed = 0
        self._start_over()

    def _start_over(self) -> None:
        self.attempt = 0
        self._used = 0
        self._waits: Iterator[float] = iter(())
        if self._rule is not None:
            self._waits = as_backoff(self._rule.delay).delays()

    def begin(self) -> int:
        """Count a dial, and give its number."""
        self.attempt += 1
        return self.attempt

    def note_end(self, uptime: float) -> bool:
        """A connection has ended after `uptime` seconds; a lasting one makes everything start over.

        Returns:
            Whether it lasted.
        """
        self._failed = 0
        lasted = self._rule is not None and uptime >= self._rule.min_uptime
        if lasted:
            self._start_over()
        return lasted

    def decide(self, error: Exception, *, is_mended: bool = False) -> float | GiveUp:
        """Tell how many seconds to wait before the next dial, or to give up.

        Args:
            error: What happened.
            is_mended: Whether its cause is out of the way, so that by default it need not stop us.

        Raises:
            Exception: What `retry_if` raised.
        """
        rule = self._rule
        self._failed += isinstance(error, ConnectionFailed)
        if rule is None or not _wants_retry(rule, error, is_mended):
            return GiveUp(error)
        if rule.retries is not None and self._used >= rule.retries:
            exhausted = RetriesExhausted(self._failed)
            exhausted.__cause__ = error
            return GiveUp(exhausted)
        self._used += 1
        return max(next(self._waits), _asked_wait(rule, error))


def _wants_retry(rule: RetryRule, error: Exception, is_mended: bool) -> bool:
    verdict = None if rule.retry_if is None else rule.retry_if(error)
    return is_mended or should_retry(error) if verdict is None else bool(verdict)


def _asked_wait(rule: RetryRule, error: Exception) -> float:
    """How long the server asked us to stay away, as far as it may."""
    if not isinstance(error, ConnectionRejected) or error.status not in _BUSY:
        return 0.0
    asked = error.retry_after or 0.0
    return asked if rule.max_retry_after is None else min(asked, rule.max_retry_after)
