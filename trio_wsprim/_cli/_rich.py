"""`connect` in colour: what happened scrolls above two lines that are always up to date, status and typing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, final

import trio
from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from trio_wsprim._cli._keyboard import Keyboard
from trio_wsprim._cli._lines import Intake, LineEditor, LineSplitter
from trio_wsprim._cli._words import note, safe, show_message
from trio_wsprim._values import CloseEvent, EndEvent, ErrorEvent, Event, MessageEvent, OpenEvent

_STYLES: Final[Mapping[type[Event], str]] = MappingProxyType(
    {OpenEvent: "green", ErrorEvent: "red", CloseEvent: "yellow", EndEvent: "yellow"}
)
_PROMPT: Final = "> "


@final
class LiveScreen:
    """See `Screen`.

    Args:
        keyboard: The terminal to read keys from; `None` if input comes from elsewhere.
        console: Where to; `None` for standard output.
    """

    is_watched = True

    def __init__(self, *, keyboard: int | None, console: Console | None = None) -> None:
        self._keyboard = None if keyboard is None else Keyboard(keyboard)
        self.intake: Intake = LineSplitter() if keyboard is None else LineEditor()
        self._console = console or Console(highlight=False)
        # Without the thread that would repaint it: every change comes from us, in trio's own thread.
        self._live = Live(
            console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._status = ""
        self._live.start()

    async def show(self, events: Sequence[Event]) -> None:
        """See `Screen`."""
        # In one go: to repaint the live lines costs more than the lines above them.
        self._print(Text("\n").join(map(_paint, events)))
        await trio.lowlevel.checkpoint()

    async def tell(self, text: str) -> None:
        """See `Screen`."""
        self._print(Text(safe(text), style="red"))
        await trio.lowlevel.checkpoint()

    async def show_latency(self, latency: float) -> None:
        """See `Screen`: the status tells it."""

    def show_typing(self) -> None:
        """See `Screen`."""
        self._live.update(self._bottom(), refresh=True)

    def show_sent(self, line: str) -> None:
        """See `Screen`."""
        self._print(Text(f"{_PROMPT}{safe(line)}", style="dim"))

    def show_status(self, text: str) -> None:
        """See `Screen`."""
        self._status = text
        self._live.update(self._bottom(), refresh=True)

    def close(self) -> None:
        """See `Screen`."""
        self._live.stop()
        if self._keyboard is not None:
            self._keyboard.close()

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)

    def _bottom(self) -> Text | Group:
        status = Text(self._status, style="reverse", no_wrap=True, overflow="ellipsis")
        if self._keyboard is None:
            return status
        # The end of what is typed is what its writer looks at. Room for the prompt, and for the cursor behind it.
        room = max(1, self._console.width - len(_PROMPT) - 1)
        text = safe(self.intake.typing(room)).replace("\t", " ")
        while cell_len(text) > room:
            text = text[1:]
        # The terminal's own cursor is off while lines are repainted, so this draws one.
        return Group(status, Text.assemble((_PROMPT, "bold"), text, (" ", "reverse"), no_wrap=True, overflow="crop"))


def _paint(event: Event) -> Text:
    if isinstance(event, MessageEvent):
        return Text.assemble(("< ", "bold cyan"), safe(show_message(event.data)))
    return Text(safe(note(event)), style=_STYLES.get(type(event), "dim"))
