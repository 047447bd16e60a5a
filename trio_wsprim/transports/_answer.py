"""The head of the server's answer to an opening handshake, read before anybody else sees it.

trio-websocket tells of a rejection only when its body is complete, which may be never. Here status and headers
are known with the head, whatever the body does, and what is no HTTP at all is known by its first line.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import h11
import trio

from trio_wsprim._errors import ConnectionFailed, ConnectionRejected
from trio_wsprim._retry import parse_retry_after
from trio_wsprim._wire import Wire
from trio_wsprim.transports._http import OURS, Headers, decode_headers, has_member, members

_SWITCHING: Final = 101
# The field's servers and proxies stop at 8 to 64 KiB of head.
_MAX_HEAD_BYTES: Final = 64 * 1024
_MAX_BODY_BYTES: Final = 64 * 1024
# A body explains; it is not worth waiting for longer than a user would notice.
_BODY_TIMEOUT: Final = 0.5
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] [1-9][0-9][0-9][ \r\n]")
_HTTP: Final = b"HTTP/1."

# h11 understands 101 only as an answer to a request that asked for it; this one goes nowhere.
_REQUEST: Final = h11.Request(
    method="GET", target="/", headers=[("Host", "-"), ("Connection", "Upgrade"), ("Upgrade", "websocket")]
)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of 101.

    Attributes:
        head: Its bytes, up to and with the empty line.
        rest: What came in behind it already: frames.
        headers: Names in lower case.
        http_version: Such as `b"1.1"`.
    """

    head: bytes
    rest: bytes
    headers: Headers
    http_version: bytes

    @property
    def plain_head(self) -> bytes:
        """The head again, for a core: what it has to judge, and nothing that it could stumble over.

        Cores are stricter than h11 about line ends, lengths and words, each about others; `fault` has judged the rest.
        """
        ours = (f"{name}: {value}" for name, value in self.headers if name.startswith(OURS))
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", *ours, "\r\n"]
        return "\r\n".join(lines).encode("latin-1")

    def fault(self, subprotocols: Sequence[str], *, has_extensions: bool = False) -> str | None:
        """Say what the server has chosen that it had no choice of, in words that quote nothing of it.

        The core judges the rest; of headers that come twice, it would look at the last only.

        Args:
            subprotocols: Those that were asked for.
            has_extensions: Whether any were; the core knows which.
        """
        names = [name for name, _ in self.headers if name.startswith(OURS)]
        chosen = {value for name, value in self.headers if name == "sec-websocket-protocol"}
        if self.http_version != b"1.1":
            return "it speaks HTTP/1.0, which has no upgrades"
        if "sec-websocket-extensions" in names and not has_extensions:
            return "it chose an extension, none was asked for"
        if len(names) > len(set(names)):
            return "it says one thing twice"
        if not chosen.issubset(subprotocols):
            return "it chose a subprotocol that was not asked for"
        if {word.lower() for word in members(self.headers, "upgrade")} != {"websocket"}:
            return "its Upgrade is not websocket"
        if not has_member(self.headers, "connection", "upgrade"):
            return "its Connection has no Upgrade"
        return None


async def read_answer(wire: Wire) -> Answer:
    """Wait for the server's answer.

    Raises:
        ConnectionRejected: It is HTTP, but not 101.
        ConnectionFailed: It is not HTTP, or the server hung up before its head was complete.
        trio.BrokenResourceError: The network lost the connection.

    Cancellation: may be partial; the wire is fit only for `abort`.
    """
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
    parser.send(_REQUEST)
    came = b""
    while True:
        event = _next_event(parser)
        if isinstance(event, h11.Response):
            raise await _rejection(wire, parser, event)
        if isinstance(event, h11.InformationalResponse):
            rest = parser.trailing_data[0]
            if event.status_code == _SWITCHING:
                return Answer(came[: len(came) - len(rest)], rest, decode_headers(event.headers), event.http_version)
            came = rest  # 103 and its like may come first (RFC 9110, 15.2)
            if came:
                _check_first_line(came)
            continue
        data = await wire.receive_some()
        if not data:
            ended = EOFError("the stream has ended")
            raise ConnectionFailed("the server hung up before it had answered the handshake") from ended
        came += data
        _check_first_line(came)
        parser.receive_data(data)


def _next_event(parser: h11.Connection) -> object:
    try:
        return parser.next_event()
    except h11.RemoteProtocolError as error:
        raise ConnectionFailed("the server answered the handshake with malformed HTTP") from error


def _check_first_line(came: bytes) -> None:
    """Refuse what can no longer become HTTP/1, without waiting for a line's or a head's end."""
    if came.startswith(_HTTP):
        if len(came) >= 13 and not _STATUS_LINE.match(came):
            raise ConnectionFailed("the server answered the handshake with malformed HTTP")
    elif not _HTTP.startswith(came[: len(_HTTP)]):
        raise ConnectionFailed("the server answered the handshake with something other than HTTP/1")


async def _rejection(wire: Wire, parser: h11.Connection, response: h11.Response) -> ConnectionRejected:
    """Make the error that a whole answer of another status is, with as much body as comes soon."""
    body = bytearray()
    # Halve what is left of the attempt's time, so that a body that never ends cannot turn a
    # rejection into a timeout.
    left = trio.current_effective_deadline() - trio.current_time()
    with trio.move_on_after(min(_BODY_TIMEOUT, max(left, 0) / 2)):
        await _read_body(wire, parser, body)
    headers = decode_headers(response.headers)
    waits = (parse_retry_after(value, time.time()) for name, value in headers if name == "retry-after")
    return ConnectionRejected(response.status_code, headers, bytes(body[:_MAX_BODY_BYTES]), next(waits, None))


async def _read_body(wire: Wire, parser: h11.Connection, body: bytearray) -> None:
    """Append what comes of the body, until its end, its limit or its first fault."""
    while len(body) < _MAX_BODY_BYTES:
        try:
            event = parser.next_event()
            if isinstance(event, h11.Data):
                body += event.data
            elif event is h11.NEED_DATA:
                parser.receive_data(await wire.receive_some())
            else:
                return
        except (h11.RemoteProtocolError, trio.BrokenResourceError):
            return
