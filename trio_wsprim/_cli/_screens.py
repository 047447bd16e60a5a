"""Where `connect` shows things: plain lines and JSON here, colour and a live line in `_rich`."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Sequence
from itertools import groupby
from typing import Protocol, final

from trio_wsprim._cli._lines import Intake, LineSplitter
from trio_wsprim._cli._pipes import STDERR, STDIN, STDOUT, Sink
from trio_wsprim._cli._words import json_line, milliseconds, note, safe, show_message
from trio_wsprim._values import Event, MessageEvent, OpenEvent


class Screen(Protocol):
    """Somewhere to show things.

    Attributes:
        is_watched: Whether a person looks at it, who wants to know how things stand.
        intake: What makes lines of standard input.
    """

    is_watched: bool
    intake: Intake

    async def show(self, events: Sequence[Event]) -> None:
        """Show what happened. Cancellation: may be partial."""
        ...

    async def tell(self, text: str) -> None:
        """Show a note that belongs to no event. Cancellation: may be partial."""
        ...

    async def show_latency(self, latency: float) -> None:
        """Show a round-trip time, in seconds. Cancellation: may be partial."""
        ...

    def show_typing(self) -> None:
        """Show what is being typed."""
        ...

    def show_sent(self, line: str) -> None:
        """Show what was typed, now that it is sent."""
        ...

    def show_status(self, text: str) -> None:
        """Show how things stand."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


class Plain:
    """What is common to screens without control codes: who types sees it by the terminal's own doing."""

    is_watched = False

    def __init__(self) -> None:
        self.intake: Intake = LineSplitter()
        self._sink = Sink()

    async def tell(self, text: str) -> None:
        """See `Screen`."""
        await self._sink.write(STDERR, f"{safe(text)}\n")

    async def show_latency(self, latency: float) -> None:
        """See `Screen`."""

    def show_typing(self) -> None:
        """See `Screen`."""

    def show_sent(self, line: str) -> None:
        """See `Screen`."""

    def show_status(self, text: str) -> None:
        """See `Screen`."""

    def close(self) -> None:
        """See `Screen`."""


@final
class PlainScreen(Plain):
    """Messages on standard output, as they are unless that is a terminal; everything else on standard error."""

    def __init__(self) -> None:
        super().__init__()
        self.is_watched = os.isatty(STDERR)
        self._is_terminal = os.isatty(STDOUT)
        self._knows_latency = False

    async def show(self, events: Sequence[Event]) -> None:
        """See `Screen`."""
        if any(isinstance(event, OpenEvent) for event in events):
            self._knows_latency = False
        for descriptor, parts in groupby(map(self._line, events), key=lambda part: part[0]):
            await self._sink.write(descriptor, "".join(line for _, line in parts))

    def _line(self, event: Event) -> tuple[int, str]:
        if not isinstance(event, MessageEvent):
            return STDERR, f"{safe(note(event))}\n"
        text = show_message(event.data)
        return STDOUT, f"{safe(text) if self._is_terminal else text}\n"

    async def show_latency(self, latency: float) -> None:
        """See `Screen`: once for each connection, since a line cannot be overwritten here."""
        if not self._knows_latency:
            self._knows_latency = True
            await self.tell(milliseconds(latency))


@final
class JsonScreen(Plain):
    """One line of JSON for each event, on standard output."""

    async def show(self, events: Sequence[Event]) -> None:
        """See `Screen`."""
        moment = time.time()
        await self._sink.write(STDOUT, "".join(f"{json_line(event, moment)}\n" for event in events))


def choose_screen(*, json: bool, plain: bool) -> Screen:
    """Give the live screen if there is a terminal that can show it, and `rich`; a plain one otherwise."""
    if json:
        return JsonScreen()
    is_able = os.isatty(STDOUT) and os.environ.get("TERM") != "dumb"
    is_missing = any(importlib.util.find_spec(name) is None for name in ("rich", "termios"))
    if plain or not is_able or is_missing:
        return PlainScreen()
    # Imported here, since the extra `cli` may be missing, as on Windows are terminals of this kind.
    from trio_wsprim._cli._rich import LiveScreen

    return LiveScreen(keyboard=STDIN if os.isatty(STDIN) else None)
