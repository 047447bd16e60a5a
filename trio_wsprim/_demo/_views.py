"""How the demo shows what happens: plain lines here, colour and a live line in `_rich`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, final

from trio_wsprim._demo._verdict import HEADINGS, LEGEND, Check


class View(Protocol):
    """Somewhere to show things. Plain ASCII goes in, so that any pipe and any terminal can show it.

    Attributes:
        status_interval: How often it wants to know how things stand, in seconds.
    """

    status_interval: float

    def tell(self, moment: float, label: str, text: str) -> None:
        """Show that something happened, `moment` seconds after the start."""
        ...

    def show_status(self, moment: float, status: str) -> None:
        """Show how things stand."""
        ...

    def show_table(self, rows: Iterable[tuple[str, ...]], summary: Sequence[str]) -> None:
        """Show what the faults did, and what was sent, received and lost."""
        ...

    def show_checks(self, checks: Sequence[Check]) -> None:
        """Show what held and what did not."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


@final
class PlainView:
    """Lines without any control code. Flushed one by one, so that a pipe sees them when they happen."""

    status_interval = 1.0

    def tell(self, moment: float, label: str, text: str) -> None:
        """See `View`."""
        print(f"{moment:7.3f}  {label:<10}  {text}", flush=True)

    def show_status(self, moment: float, status: str) -> None:
        """See `View`."""
        self.tell(moment, "", status)

    def show_table(self, rows: Iterable[tuple[str, ...]], summary: Sequence[str]) -> None:
        """See `View`."""
        table = [HEADINGS, *rows]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        print()
        for row in table:
            cells = [
                cell.ljust(width) if is_text(heading) else cell.rjust(width)
                for heading, cell, width in zip(HEADINGS, row, widths, strict=True)
            ]
            print("  ".join(cells).rstrip())
        print("\n" + "\n".join((*LEGEND, "", *summary, "")), flush=True)

    def show_checks(self, checks: Sequence[Check]) -> None:
        """See `View`."""
        for check in checks:
            print(f"{mark(check):<6}  {in_words(check)}", flush=True)

    def close(self) -> None:
        """See `View`."""


def is_text(heading: str) -> bool:
    """Whether a column holds words, not numbers."""
    return heading in {"fault", "how"}


def mark(check: Check) -> str:
    """Give the word at the head of a check's line."""
    return "FAILED" if check.trouble else "ok"


def in_words(check: Check) -> str:
    """Say what held, or what did not and why."""
    return f"{check.claim}: {check.trouble}" if check.trouble else check.claim
