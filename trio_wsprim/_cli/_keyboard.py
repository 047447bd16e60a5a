"""A terminal that is read key by key for a while."""

from __future__ import annotations

# Only systems that have terminals of this kind have these; who imports this has looked.
import termios
import tty
from typing import final


@final
class Keyboard:
    """Has a terminal hand over keys as they are pressed, and not show them; Ctrl-C and Ctrl-Z still do what they do.

    Args:
        descriptor: The terminal.
    """

    __slots__ = ("_before", "_descriptor")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._before = termios.tcgetattr(descriptor)
        # At once, and without flushing: what was typed ahead is meant for us.
        tty.setcbreak(descriptor, termios.TCSANOW)

    def close(self) -> None:
        """Leave the terminal as it was."""
        termios.tcsetattr(self._descriptor, termios.TCSANOW, self._before)
