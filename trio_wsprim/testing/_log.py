"""What went over a network in memory: every dial, handshake and frame, to look at, to filter, and to assert on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Literal, Self, TypeAlias, final, get_args, overload

import trio

from trio_wsprim._values import Message

from ._codec import Frame, Opcode, Request, decode_frame, parse_request
from ._memory import Chunk, Parcel

Sender: TypeAlias = Literal["client", "server"]
"""Who did it."""

EntryKind: TypeAlias = Literal[
    "dial", "refused", "given up", "request", "answer", "body", "text", "binary", "continuation", "close", "ping",
    "pong", "reserved", "bytes", "torn", "FIN", "RST",
]  # fmt: skip
"""What an entry of the log is about."""

_KINDS: Final[frozenset[str]] = frozenset(get_args(EntryKind))
_DATA: Final = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION})
_KIND_OF: Final[dict[int, EntryKind]] = {
    Opcode.TEXT: "text",
    Opcode.BINARY: "binary",
    Opcode.CONTINUATION: "continuation",
    Opcode.CLOSE: "close",
    Opcode.PING: "ping",
    Opcode.PONG: "pong",
}
_SWITCHING: Final = 101
_HEAD_END: Final = b"\r\n\r\n"
# Of a long message the transcript shows so much.
_SHOWN: Final = 60
# Lines of the transcript around the one at which an assertion fails.
_AROUND: Final = 5
# What is written is looked at when somebody asks for it, or when so many bytes have come together.
_PENDING_BYTES: Final = 8 * 2**20
ANYTHING: Final = "..."


@final
@dataclass(frozen=True, slots=True, repr=False)
class LogEntry:
    """One thing that happened on a network.

    Attributes:
        time: When all of it was written, on trio's clock.
        connection: The number of the dial that it belongs to, from 1.
        sender: Who did it; what the network itself did counts as the server's.
        kind: What it was.
        words: What was said of it, for who reads; empty for a frame, which says that itself.
        frame: If it was a frame.
        request: If it was one.
        status: Of an answer; `None` for all else.
        data: The bytes of a head, a body, or of what could not be read.
    """

    time: float
    connection: int
    sender: Sender
    kind: EntryKind
    words: str = ""
    frame: Frame | None = None
    request: Request | None = None
    status: int | None = None
    data: bytes = b""

    @property
    def line(self) -> str:
        """Say it in a few words, without time and number: `client TEXT 'hello'`. Shows no query and no header."""
        # Made when it is asked for: of most frames, nobody ever reads.
        return f"{self.sender} {self.words if self.frame is None else _describe(self.frame, self.kind)}"

    def __repr__(self) -> str:
        """Show a line of the transcript."""
        return f"{self.time:10.3f}  #{self.connection}  {self.line}"


@final
class FrameLog(Sequence[LogEntry]):
    """The entries of a log, in order. Its repr reads like a transcript.

    That of a network grows as things happen, and forgets the oldest when it holds more than 16 MiB of payload; what
    `select` gives stays as it is.
    """

    __slots__ = ("_entries", "_update")

    def __init__(
        self, entries: Iterable[LogEntry] = (), update: Callable[[], Sequence[LogEntry]] | None = None
    ) -> None:
        self._entries: Sequence[LogEntry] = tuple(entries)
        self._update = update

    # -------------------------------------------------------------------------------- looking

    @property
    def _all(self) -> Sequence[LogEntry]:
        return self._entries if self._update is None else self._update()

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[LogEntry]:
        return iter(tuple(self._all))

    @overload
    def __getitem__(self, index: int) -> LogEntry: ...

    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: int | slice) -> LogEntry | FrameLog:
        entries = tuple(self._all)
        return FrameLog(entries[index]) if isinstance(index, slice) else entries[index]

    def __repr__(self) -> str:
        """Give the transcript."""
        return "\n".join(map(repr, self)) or "(nothing happened)"

    def select(
        self,
        *,
        kind: EntryKind | Collection[EntryKind] | None = None,
        sender: Sender | None = None,
        connection: int | None = None,
        since: float | None = None,
        until: float | None = None,
        where: Callable[[LogEntry], object] | None = None,
    ) -> FrameLog:
        """Give the entries that are all of this.

        Args:
            kind: One kind or several; `None` for all.
            sender: Who did it; `None` for both.
            connection: The number of the dial; `None` for all.
            since: Not before that time, in seconds on trio's clock; `None` from the beginning.
            until: Not after that time; `None` to the end.
            where: Whatever else.

        Raises:
            ValueError: If there is no such kind.
        """
        kinds: frozenset[str] = _KINDS if kind is None else frozenset({kind} if isinstance(kind, str) else kind)
        if not kinds <= _KINDS:
            raise ValueError(f"kind must be of {', '.join(get_args(EntryKind))}, got {sorted(kinds - _KINDS)}")
        return FrameLog(
            entry
            for entry in self
            if entry.kind in kinds
            and sender in {None, entry.sender}
            and connection in {None, entry.connection}
            and (since is None or entry.time >= since)
            and (until is None or entry.time <= until)
            and (where is None or where(entry))
        )

    def messages(self, *, sender: Sender | None = None, connection: int | None = None) -> list[Message]:
        """Give the messages that are complete, fragments joined, in the order in which they were."""
        found: list[Message] = []
        open_ones: dict[tuple[int, Sender], list[Frame]] = {}
        for entry in self.select(sender=sender, connection=connection):
            frame = entry.frame
            if frame is None or frame.opcode not in _DATA:
                continue
            parts = open_ones.setdefault((entry.connection, entry.sender), [])
            parts.append(frame)
            if frame.fin:
                payload = b"".join(part.payload for part in parts)
                is_text = parts[0].opcode == Opcode.TEXT
                found.append(payload.decode(errors="backslashreplace") if is_text else payload)
                parts.clear()
        return found

    # -------------------------------------------------------------------------------- asserting

    def assert_lines(self, *expected: str) -> None:
        """Assert that these lines, and no others, are what happened.

        Args:
            expected: Each as in `LogEntry.line`, with or without the connection's number in front of it: `"client TEXT
                'hello'"`, `"#2 server FIN"`. The line `"..."` stands for any number of lines, none included.

        Raises:
            AssertionError: If not; it shows the transcript around the first difference.
        """
        entries = tuple(self)
        states = _skip_wildcards({0}, expected)
        for number, entry in enumerate(entries):
            following = {
                state if expected[state] == ANYTHING else state + 1
                for state in states
                if state < len(expected) and expected[state] in _names_of(entry)
            }
            if not following:
                raise AssertionError(_tell_difference(entries, number, entry.line, _wanted(states, expected)))
            states = _skip_wildcards(following, expected)
        if len(expected) not in states:
            raise AssertionError(_tell_difference(entries, len(entries), "the end", _wanted(states, expected)))

    def assert_messages(self, *expected: Message, sender: Sender | None = None, connection: int | None = None) -> None:
        """Assert that these are all the messages that were sent, in this order.

        Args:
            expected: Text and binary messages.
            sender: Whose; `None` for both sides' together.
            connection: Over which connection; `None` for all.

        Raises:
            AssertionError: If not; it shows the transcript around the first difference.
        """
        entries = self.select(sender=sender, connection=connection, where=_ends_message)
        found = self.messages(sender=sender, connection=connection)
        for number in range(max(len(found), len(expected))):
            got = _shorten(found[number]) if number < len(found) else "no more"
            wanted = _shorten(expected[number]) if number < len(expected) else "no more"
            if found[number : number + 1] != list(expected[number : number + 1]):
                everything = tuple(self)
                place = everything.index(entries[number]) if number < len(found) else len(everything)
                raise AssertionError(_tell_difference(everything, place, got, wanted, f"message {number + 1}"))


def _ends_message(entry: LogEntry) -> bool:
    return entry.frame is not None and entry.frame.opcode in _DATA and entry.frame.fin


def _names_of(entry: LogEntry) -> tuple[str, str, str]:
    return entry.line, f"#{entry.connection} {entry.line}", ANYTHING


def _skip_wildcards(states: set[int], expected: Sequence[str]) -> set[int]:
    """Add the places that are reached by letting `"..."` stand for nothing."""
    reached = set(states)
    for state in sorted(states):
        place = state
        while place < len(expected) and expected[place] == ANYTHING:
            place += 1
            reached.add(place)
    return reached


def _wanted(states: set[int], expected: Sequence[str]) -> str:
    lines = [expected[state] if state < len(expected) else "the end" for state in sorted(states)]
    return " or ".join(line for line in lines if line != ANYTHING)


def _tell_difference(entries: Sequence[LogEntry], number: int, found: str, wanted: str, what: str | None = None) -> str:
    """Say what is different, and show what happened around it."""
    first = max(0, number - _AROUND)
    shown = [f"  ({first} before)"] if first else []
    around = entries[first : number + _AROUND + 1]
    shown += [f"{'>' if place == number else ' '} {entry!r}" for place, entry in enumerate(around, first)]
    if number >= len(entries):
        shown.append("> (the end)")
    elif left := len(entries) - first - len(around):
        shown.append(f"  ({left} after)")
    where = what or f"line {number + 1}"
    return "\n".join([f"{where} is another", f"  expected: {wanted}", f"  found:    {found}", *shown])


def _shorten(value: Message) -> str:
    shown = repr(value[: _SHOWN + 1])
    if len(value) <= _SHOWN:
        return shown
    return f"{value[:_SHOWN]!r}… ({len(value)} {'bytes' if isinstance(value, bytes) else 'characters'})"


# ------------------------------------------------------------------------------------ recording


@final
class Recorder:
    """Writes down what happens, and reads it when asked.

    Args:
        most_bytes: Of payload, to keep.
    """

    __slots__ = ("_entries", "_held", "_most_bytes", "_pending", "_pending_bytes", "_readers")

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._entries: deque[LogEntry] = deque()
        self._held = 0
        # What nobody has looked at yet: most networks' logs are never read.
        self._pending: list[tuple[float, _Reader, Chunk | str]] = []
        self._pending_bytes = 0
        self._readers: dict[int, tuple[_Reader, _Reader]] = {}

    def log(self) -> FrameLog:
        """Give what is seen from outside."""
        return FrameLog(update=self._read_all)

    def note(self, connection: int, sender: Sender, kind: EntryKind, words: str = "") -> None:
        """Write down what is neither bytes nor their end."""
        self._read_all()
        self._add(LogEntry(trio.current_time(), connection, sender, kind, f"{kind.upper()} {words}".rstrip()))

    def taps(self, connection: int) -> tuple[_Tap, _Tap]:
        """Give what listens to both ends of a new connection, the client's first."""
        client, server = _Reader(connection, "client"), _Reader(connection, "server")
        client.other, server.other = server, client
        return _Tap(self, client), _Tap(self, server)

    def add_pending(self, reader: _Reader, what: Chunk | str, size: int) -> None:
        """Keep for later."""
        self._pending.append((trio.current_time(), reader, what))
        self._pending_bytes += size
        if self._pending_bytes > _PENDING_BYTES:
            self._read_all()

    def _read_all(self) -> Sequence[LogEntry]:
        pending, self._pending = self._pending, []
        self._pending_bytes = 0
        for time, reader, what in pending:
            for entry in reader.read(time, what):
                self._add(entry)
        return self._entries

    def _add(self, entry: LogEntry) -> None:
        self._entries.append(entry)
        self._held += _size_of(entry)
        while self._held > self._most_bytes:
            self._held -= _size_of(self._entries.popleft())


def _size_of(entry: LogEntry) -> int:
    return len(entry.data) + (0 if entry.frame is None else len(entry.frame.payload))


@final
class _Tap:
    """See `Tap`."""

    __slots__ = ("_reader", "_recorder")

    def __init__(self, recorder: Recorder, reader: _Reader) -> None:
        self._recorder = recorder
        self._reader = reader

    def wrote(self, chunk: Chunk) -> None:
        self._recorder.add_pending(self._reader, chunk, chunk.size if isinstance(chunk, Parcel) else len(chunk))

    def ended(self, how: str) -> None:
        self._recorder.add_pending(self._reader, how, 0)


@final
class _Reader:
    """Makes entries of what one end writes.

    Args:
        connection: Its number.
        sender: Which end.

    Attributes:
        other: That of the other end.
    """

    __slots__ = ("_connection", "_is_over", "_read_more", "_sender", "_time", "_unread", "other")

    def __init__(self, connection: int, sender: Sender) -> None:
        self._connection = connection
        self._sender: Sender = sender
        self._time = 0.0
        self._unread = bytearray()
        self._is_over = False
        # What the bytes to come are; gives `None` when it needs more of them.
        self._read_more: Callable[[], LogEntry | None] = self._read_request if sender == "client" else self._read_answer
        self.other: _Reader | None = None

    def read(self, time: float, what: Chunk | str) -> Iterator[LogEntry]:
        """Give the entries that are complete with this."""
        self._time = time
        if isinstance(what, Parcel) and not self._unread:
            yield self._frame_entry(what.as_frame())
        elif isinstance(what, Parcel):
            yield from self._read_bytes(what.encode())
        elif isinstance(what, bytes):
            yield from self._read_bytes(what)
        elif not self._is_over:
            yield from self._read_end("FIN" if what == "FIN" else "RST")

    def _read_bytes(self, data: bytes) -> Iterator[LogEntry]:
        self._unread += data
        while self._unread and (entry := self._read_more()) is not None:
            yield entry

    def _read_end(self, how: Literal["FIN", "RST"]) -> Iterator[LogEntry]:
        if self._unread:
            size = len(self._unread)
            yield self._entry("torn", f"TORN after {size} {'byte' if size == 1 else 'bytes'}", data=self._take(size))
        yield self._entry(how, how)
        self._is_over = True
        if how == "RST" and self.other is not None:
            self.other._is_over = True  # what is said after that, nobody hears

    # -------------------------------------------------------------------------------- what bytes can be

    def _read_request(self) -> LogEntry | None:
        if not self._unread[:1].isupper():
            return self._give_up()
        head = self._take_head()
        if head is None:
            return None
        request = parse_request(head)
        if request.method != "CONNECT":  # a proxy's tunnel, in which the same begins anew
            self._read_more = self._read_frame
        path, question, _ = request.path.partition("?")
        shown = f"{request.method} {path}{question and '?…'}"
        return self._entry("request", shown, request=request, data=head)

    def _read_answer(self) -> LogEntry | None:
        start = bytes(self._unread[:7])
        if not b"HTTP/1.".startswith(start):
            return self._give_up()
        head = self._take_head()
        if head is None:
            return None
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        status = int(words[1]) if len(words) > 1 and words[1].isdecimal() else 0
        if status == _SWITCHING:
            self._read_more = self._read_frame
        elif status >= HTTPStatus.MULTIPLE_CHOICES:
            self._read_more = self._read_body
        return self._entry("answer", " ".join(words[1:]), status=status, data=head)

    def _read_body(self) -> LogEntry | None:
        size = len(self._unread)
        return self._entry("body", f"BODY of {size} {'byte' if size == 1 else 'bytes'}", data=self._take(size))

    def _read_frame(self) -> LogEntry | None:
        decoded = decode_frame(self._unread)
        if decoded is None:
            return None
        frame, size = decoded
        del self._unread[:size]
        return self._frame_entry(frame)

    def _give_up(self) -> LogEntry:
        """It is TLS, or nonsense: from here on, only how much of it there is can be told."""
        self._read_more = self._read_anything
        return self._read_anything()

    def _read_anything(self) -> LogEntry:
        size = len(self._unread)
        return self._entry("bytes", f"{size} {'BYTE' if size == 1 else 'BYTES'}", data=self._take(size))

    # -------------------------------------------------------------------------------- helpers

    def _take(self, size: int) -> bytes:
        data = bytes(self._unread[:size])
        del self._unread[:size]
        return data

    def _take_head(self) -> bytes | None:
        end = self._unread.find(_HEAD_END)
        return None if end < 0 else self._take(end + len(_HEAD_END))

    def _frame_entry(self, frame: Frame) -> LogEntry:
        kind = _KIND_OF.get(frame.opcode, "reserved")
        return self._entry(kind, frame=frame)

    def _entry(
        self,
        kind: EntryKind,
        words: str = "",
        *,
        frame: Frame | None = None,
        request: Request | None = None,
        status: int | None = None,
        data: bytes = b"",
    ) -> LogEntry:
        return LogEntry(self._time, self._connection, self._sender, kind, words, frame, request, status, data)


def _describe(frame: Frame, kind: EntryKind) -> str:
    words = [f"OPCODE {frame.opcode}" if kind == "reserved" else kind.upper()]
    if kind == "close" and len(frame.payload) >= 2:
        words.append(str(int.from_bytes(frame.payload[:2])))
        reason = frame.payload[2:].decode(errors="backslashreplace")
        words += [repr(reason)] if reason else []
    elif kind == "text":
        words.append(_shorten(frame.payload.decode(errors="backslashreplace")))
    elif frame.payload or kind in {"binary", "continuation"}:
        words.append(_shorten(frame.payload))
    if frame.rsv:
        words.append(f"rsv={frame.rsv}")
    if not frame.fin:
        words.append("(more follows)")
    return " ".join(words)
