"""When to beat, and when to give up on the peer. Pure arithmetic on times that it is told."""

from __future__ import annotations

from enum import Enum, auto
from typing import final


class Verdict(Enum):
    """What is to be done now."""

    WAIT = auto()
    BEAT = auto()
    DEAD = auto()


@final
class Pulse:
    """Silence for `interval`: beat. Silence for `wait` after the beat: dead.

    The clock stands while we do not read, since what we do not read we cannot count as silence.

    Args:
        interval: Seconds of silence before a beat.
        wait: Seconds of silence after it.
        now: When the connection opened.
    """

    __slots__ = ("_beat_at", "_heard_at", "_interval", "_is_beat_out", "_stands_since", "_wait")

    def __init__(self, interval: float, wait: float, now: float) -> None:
        self._interval = interval
        self._wait = wait
        self._heard_at = now
        # When the unanswered beat was due, or last could hope: its `wait` counts from here.
        self._beat_at: float | None = None
        self._is_beat_out = False
        self._stands_since: float | None = None

    @property
    def stands(self) -> bool:
        """Whether the clock stands."""
        return self._stands_since is not None

    def stand(self, now: float, heard_at: float, moved_at: float) -> None:
        """Stop the clock: we do not read. As for the other times, see `judge`."""
        self._hear(heard_at)
        self._move(moved_at)
        self._stands_since = now

    def go(self, now: float, moved_at: float) -> None:
        """Let the clock go on from where it stood."""
        assert self._stands_since is not None, "the clock does not stand"
        self._move(moved_at)
        stood = now - self._stands_since
        self._stands_since = None
        self._heard_at += stood
        if self._beat_at is not None:
            self._beat_at += stood

    def sent(self, now: float) -> None:
        """The beat has gone out: its `wait` begins, or will once the clock goes on."""
        if self._beat_at is not None:
            self._beat_at = self._on_clock(now)
            self._is_beat_out = True

    def judge(self, now: float, heard_at: float, moved_at: float) -> tuple[Verdict, float]:
        """Tell what to do, and when to ask again at the latest.

        Args:
            now: The present.
            heard_at: When the last byte came in.
            moved_at: When the network last took a byte of ours. A beat that waits behind a write which gets on is not
                the peer's fault; one behind a write that does not is.
        """
        self._hear(heard_at)
        if self._beat_at is None:
            due = self._heard_at + self._interval
            if now < due:
                return Verdict.WAIT, due
            self._beat_at = now
            self._is_beat_out = False
            return Verdict.BEAT, self._ask_again(now, now + self._wait)
        self._move(moved_at)
        due = self._beat_at + self._wait
        return (Verdict.WAIT, self._ask_again(now, due)) if now < due else (Verdict.DEAD, due)

    def _ask_again(self, now: float, due: float) -> float:
        """Tell when to look for an answer: the silence after it may be over before this beat's `wait` is."""
        return min(due, now + self._interval)

    def _hear(self, heard_at: float) -> None:
        """Count a byte as life, whatever phase we are in."""
        if heard_at > self._heard_at:
            self._heard_at = heard_at
            self._beat_at = None

    def _move(self, moved_at: float) -> None:
        """Put off the end for a beat that has not left, while the write before it gets on."""
        if self._beat_at is not None and not self._is_beat_out:
            self._beat_at = max(self._beat_at, self._on_clock(moved_at))

    def _on_clock(self, moment: float) -> float:
        """Tell when a moment is by a clock that may stand."""
        return moment if self._stands_since is None else min(moment, self._stands_since)
