"""The demo in colour, with a line at the bottom that is always up to date."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import Final, final

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from trio_wsprim._demo._verdict import HEADINGS, LEGEND, Check
from trio_wsprim._demo._views import in_words, is_text, mark

_STYLES: Final = MappingProxyType(
    {
        "CONNECTING": "yellow",
        "OPEN": "bold green",
        "CLOSED": "red",
        "FAULT": "bold magenta",
        "healed": "bold green",
        "in doubt": "yellow",
        "waiting": "yellow",
        "ok": "green",
        "FAILED": "bold red",
    }
)


@final
class LiveView:
    """See `View`.

    Args:
        console: Where to; `None` for standard output.
    """

    status_interval = 0.1

    def __init__(self, console: Console | None = None) -> None:
        # Without the thread that would repaint it: every change comes from us, in trio's own thread.
        self._live = Live(console=console or Console(highlight=False), auto_refresh=False, transient=True)
        self._live.start()

    def tell(self, moment: float, label: str, text: str) -> None:
        """See `View`."""
        parts = ((f"{moment:7.3f}  ", "dim"), (f"{label:<10}", _STYLES.get(label, "")), f"  {text}")
        self._live.console.print(Text.assemble(*parts), no_wrap=True, overflow="ellipsis")

    def show_status(self, moment: float, status: str) -> None:
        """See `View`."""
        self._live.update(Text(f"{moment:7.3f}  {status}", style="reverse", no_wrap=True), refresh=True)

    def show_table(self, rows: Iterable[tuple[str, ...]], summary: Sequence[str]) -> None:
        """See `View`."""
        # No wider than the plain one: 80 columns are what every terminal has.
        table = Table(box=None, header_style="bold underline", padding=(0, 2, 0, 0), pad_edge=False)
        for heading in HEADINGS:
            table.add_column(heading, justify="left" if is_text(heading) else "right")
        for row in rows:
            table.add_row(*map(Text, row))
        self.close()
        self._live.console.print(table)
        self._print(("\n".join(LEGEND), "dim"))
        self._print("\n" + "\n".join(summary) + "\n")

    def show_checks(self, checks: Sequence[Check]) -> None:
        """See `View`."""
        for check in checks:
            self._print((f"{mark(check):<6}", _STYLES[mark(check)]), f"  {in_words(check)}")

    def close(self) -> None:
        """See `View`."""
        self._live.stop()

    def _print(self, *parts: str | tuple[str, str]) -> None:
        self._live.console.print(Text.assemble(*parts), soft_wrap=True)
