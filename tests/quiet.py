"""Silence where connections are broken on purpose, by the thousand."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def quiet() -> Generator[None]:
    """Let the package log nothing for the time of a block."""
    log = logging.getLogger("trio_wsprim")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(before)
