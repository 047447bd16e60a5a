"""A log that peers cannot flood: what they can cause at will is told some times, and then counted."""

from __future__ import annotations

import logging
from math import inf
from typing import Final, final

import trio

_BURST: Final = 10
_PERIOD: Final = 10.0


@final
class ThrottledLog:
    """Lets ten records through in ten seconds; the next after that says how many it kept back.

    Args:
        log: Where they go.
    """

    __slots__ = ("_began", "_count", "_log")

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._began = -inf
        self._count = 0

    def tell(self, level: int, sentence: str, *facts: object, error: BaseException | None = None) -> None:
        """Log a sentence with its facts, as `logging` does; with the traceback of an error, if there is one."""
        if not self._log.isEnabledFor(level):
            return
        now = trio.current_time()
        if now - self._began >= _PERIOD:
            if self._count > _BURST:
                self._log.warning("%s more in the last %g s", self._count - _BURST, now - self._began)
            self._began, self._count = now, 0
        self._count += 1
        if self._count <= _BURST:
            self._log.log(level, sentence, *facts, exc_info=error)
