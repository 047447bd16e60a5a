"""From bytes to lines: of a pipe, which come as they are, and of a keyboard, which are edited on their way. Pure."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias, final

MAX_LINE: Final = 2**20
"""The longest line that is sent, in bytes. Most servers take no larger message, and memory stays bounded."""

_BACKSPACE: Final = frozenset("\x7f\b")
_ENTER: Final = frozenset("\r\n")
_END_OF_INPUT: Final = "\x04"  # Ctrl-D
_KILL_LINE: Final = "\x15"  # Ctrl-U
_KILL_WORD: Final = "\x17"  # Ctrl-W
_ESCAPE: Final = "\x1b"


@final
@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that cannot be sent, and why."""

    why: str


Line: TypeAlias = str | BadLine

_TOO_LONG: Final = BadLine(f"longer than {MAX_LINE} bytes")
_NO_TEXT: Final = BadLine("not UTF-8")


class Intake(Protocol):
    """What makes lines of bytes.

    Attributes:
        is_done: Whether the input has said that it ends.
    """

    is_done: bool

    def typing(self, most: int) -> str:
        """Give the end of the line that is being typed, where it must be shown: so many characters at most."""
        ...

    def feed(self, data: bytes) -> list[Line]:
        """Take bytes; give the lines that are complete."""
        ...

    def end(self) -> list[Line]:
        """Take the end; give the last line, if it had no end of its own."""
        ...


@final
class LineSplitter:
    """Lines of a pipe: each ends with a line feed, a carriage return before it belongs to the end."""

    __slots__ = ("_is_too_long", "_rest", "is_done")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._is_too_long = False
        self.is_done = False

    def typing(self, most: int) -> str:
        """See `Intake`: nothing, since a pipe is no keyboard."""
        return ""

    def feed(self, data: bytes) -> list[Line]:
        """See `Intake`."""
        *heads, rest = data.split(b"\n")
        lines = list[Line]()
        for head in heads:
            self._keep(head)
            lines.append(self._take())
        self._keep(rest)
        return lines

    def end(self) -> list[Line]:
        """See `Intake`."""
        return [self._take()] if self._rest or self._is_too_long else []

    def _keep(self, part: bytes) -> None:
        # What is too long is thrown away as it comes. One byte more than a line may have: a carriage return.
        if self._is_too_long or len(self._rest) + len(part) > MAX_LINE + 1:
            self._rest.clear()
            self._is_too_long = True
        else:
            self._rest += part

    def _take(self) -> Line:
        line = bytes(self._rest).removesuffix(b"\r")
        is_too_long = self._is_too_long or len(line) > MAX_LINE
        self._rest.clear()
        self._is_too_long = False
        if is_too_long:
            return _TOO_LONG
        try:
            return line.decode()
        except UnicodeDecodeError:
            return _NO_TEXT


@final
class LineEditor:
    """Lines of a keyboard that is read key by key, since the terminal's own editing would write into our status line.

    Backspace, Ctrl-U and Ctrl-W delete; Enter ends a line, which is left out if it is empty; Ctrl-D on an empty line
    ends the input. Arrow keys and their like do nothing.
    """

    __slots__ = ("_decoder", "_escape", "_keys", "is_done")

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        # What has come of an escape sequence; empty outside of one.
        self._escape = ""
        self._keys: list[str] = []
        self.is_done = False

    def typing(self, most: int) -> str:
        """See `Intake`."""
        return "".join(self._keys[-most:])

    def feed(self, data: bytes) -> list[Line]:
        """See `Intake`."""
        lines = list[Line]()
        for key in self._decoder.decode(data):
            if self._escape or key == _ESCAPE:
                self._pass_over(key)
            elif key in _ENTER:
                lines.extend(self.end())
            elif key == _END_OF_INPUT:
                self.is_done = self.is_done or not self._keys
            else:
                self._edit(key)
        return lines

    def end(self) -> list[Line]:
        """See `Intake`."""
        text = "".join(self._keys)
        self._keys.clear()
        if not text:
            return []
        return [_TOO_LONG if len(text.encode()) > MAX_LINE else text]

    def _edit(self, key: str) -> None:
        if key in _BACKSPACE:
            del self._keys[-1:]
        elif key == _KILL_LINE:
            self._keys.clear()
        elif key == _KILL_WORD:
            head, space, _ = "".join(self._keys).rstrip().rpartition(" ")
            self._keys[:] = head + space
        elif (key == "\t" or key >= " ") and len(self._keys) <= MAX_LINE:
            self._keys.append(key)

    def _pass_over(self, key: str) -> None:
        """Swallow an escape sequence: `ESC [ … letter`, `ESC O letter` or `ESC key`."""
        self._escape += key
        is_begun = self._escape in {_ESCAPE, _ESCAPE + "[", _ESCAPE + "O"}
        is_open = self._escape.startswith(_ESCAPE + "[") and not "@" <= key <= "~"
        # None is longer than this; what pretends to be must not swallow what is typed.
        if not (is_begun or is_open) or len(self._escape) > 32:
            self._escape = ""
