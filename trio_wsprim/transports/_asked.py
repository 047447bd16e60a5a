"""A client's opening handshake as a server reads it: checked to the last word before a core, or the user, sees it."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, NamedTuple, NoReturn, cast, final

import h11
import trio

from trio_wsprim._request import Rejection, Request
from trio_wsprim._seam import Refused
from trio_wsprim._wire import Wire
from trio_wsprim.transports._http import Headers, decode_headers, has_member, members

# Browsers send less than 8 KiB, cookies included; servers of the field stop at 8 to 32 KiB, and at 100 headers.
_MAX_HEAD_BYTES: Final = 16 * 1024
_MAX_HEADERS: Final = 100
_KEY_BYTES: Final = 16
# What may stand in `Host` (RFC 3986, 3.2.2 and 3.2.3); an empty one is allowed (RFC 9112, 3.2).
_HOST: Final = re.compile(r"[!$&-.0-;=A-Z\[\]_a-z~%]*")
# What a proxy is asked for, and a server must understand, too (RFC 9112, 3.2.2); what follows the place is the path.
_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*(.*)")
# A client that is turned away should read why before the socket is closed over what it may still send.
_LINGER: Final = 0.25

Extra = tuple[tuple[str, str], ...]
_UPGRADE: Final[Extra] = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"))


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that is a handshake.

    Attributes:
        request: For the user.
        rest: What came in behind it already: frames.
    """

    request: Request
    rest: bytes

    def plain_head(self, subprotocol: str | None, *, has_extensions: bool) -> bytes:
        """Write the head again, for a core: what it has to answer, and nothing that it could stumble over.

        Cores are stricter than h11 about line ends, lengths and words, each about others.

        Args:
            subprotocol: The one that is chosen.
            has_extensions: Whether the core is to look at those that are offered.
        """
        lines = [
            "GET / HTTP/1.1",
            "Host: localhost",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {self.request.header('sec-websocket-key')}",
        ]
        if subprotocol is not None:
            lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
        if has_extensions:
            lines += [f"{name}: {value}" for name, value in self.request.headers if name == "sec-websocket-extensions"]
        return "\r\n".join([*lines, "\r\n"]).encode("latin-1")

    def subprotocol(self, ours: Sequence[str]) -> str | None:
        """Choose the first of ours that the client speaks, too (RFC 6455, 4.2.2); `None` if there is none."""
        return next((name for name in ours if name in self.request.subprotocols), None)


@final
class Doorway:
    """Reads one request, and answers it if it is to be turned away.

    Args:
        wire: To the client.
    """

    __slots__ = ("_has_body", "_parser", "_wire")

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)
        # Whether an answer has one: not to HEAD, as health checks ask (RFC 9110, 9.3.2).
        self._has_body = True

    async def read(self, remote: tuple[str, int] | None) -> Asked:
        """Wait for a handshake.

        Raises:
            Refused: It is none, and the client was told so; or it has gone.

        Cancellation: may be partial; the wire is fit only for `abort`.
        """
        try:
            head = await self._read_head()
        except h11.RemoteProtocolError as error:
            await self.turn_away("malformed HTTP", error.error_status_hint)
        except trio.BrokenResourceError as error:
            raise Refused("the client went away before its request was complete") from error
        self._has_body = head.method != b"HEAD"
        fault = _fault(head)
        if fault is not None:
            await self.turn_away(fault.sentence, fault.status, fault.extra)
        headers = decode_headers(head.headers)
        request = Request(
            path=_path_of(head.target),
            headers=headers,
            subprotocols=tuple(dict.fromkeys(members(headers, "sec-websocket-protocol"))),
            remote=remote,
        )
        return Asked(request, self._parser.trailing_data[0])

    async def _read_head(self) -> h11.Request:
        size = 0
        while True:
            event = self._parser.next_event()
            if isinstance(event, h11.Request):
                # h11 counts only what is incomplete.
                if size - len(self._parser.trailing_data[0]) > _MAX_HEAD_BYTES:
                    raise h11.RemoteProtocolError("head too large", error_status_hint=431)
                return event
            data = await self._wire.receive_some()
            if not data:
                raise Refused("the client went away before its request was complete")
            size += len(data)
            self._parser.receive_data(data)

    async def turn_away(self, sentence: str, status: int, extra: Extra = ()) -> NoReturn:
        """Answer that this is no handshake.

        Raises:
            Refused: Always.
        """
        body = f"{sentence}\n".encode()
        headers = (*extra, ("Content-Type", "text/plain; charset=utf-8"))
        await self.reject(Rejection(status, (), body), sentence, headers)

    async def reject(self, rejection: Rejection, sentence: str, extra: Extra = ()) -> NoReturn:
        """Answer with a rejection.

        Raises:
            Refused: Always.

        Cancellation: may be partial; the wire is fit only for `abort`.
        """
        answer = _write_answer(rejection, extra, has_body=self._has_body)
        try:
            while answer:
                answer = answer[await self._wire.write(answer) :]
            with trio.move_on_after(_LINGER):
                while await self._wire.receive_some():
                    pass
        except trio.BrokenResourceError:
            pass  # it did not stay to hear it
        raise Refused(sentence, rejection.status)


def _write_answer(rejection: Rejection, extra: Extra, *, has_body: bool) -> bytes:
    writer = h11.Connection(h11.SERVER)
    body = rejection.body
    headers = [
        *extra,
        *cast("Extra", rejection.headers),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    response = h11.Response(
        status_code=rejection.status,
        headers=[(name.encode(), value.encode()) for name, value in headers],
        reason=_reason(rejection.status),
    )
    head, data = writer.send(response), writer.send(h11.Data(data=body))
    assert head is not None, "h11 writes what it is given"
    return head + data if has_body and data else head


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


def _path_of(target: bytes) -> str:
    """Give path and query of a target; empty if it has none."""
    text = target.decode("latin-1")
    if text.startswith("/"):
        return text
    absolute = _ABSOLUTE.fullmatch(text)
    if absolute is None:
        return ""
    path = absolute.group(1)
    return path if path.startswith("/") else f"/{path}"


class _Fault(NamedTuple):
    """Why a request is turned away, and how."""

    sentence: str
    status: int
    extra: Extra = ()


def _fault(head: h11.Request) -> _Fault | None:
    """Say what keeps a request from being a handshake (RFC 6455, 4.2.1), in words that quote nothing of it."""
    headers = decode_headers(head.headers)
    keys = [value for name, value in headers if name == "sec-websocket-key"]
    if len(headers) > _MAX_HEADERS:
        return _Fault(f"more than {_MAX_HEADERS} headers", 431)
    if head.method != b"GET":
        return _Fault("a WebSocket handshake is a GET", 405, (("Allow", "GET"),))
    if head.http_version != b"1.1":
        return _Fault("a WebSocket handshake needs HTTP/1.1", 505)
    if not _path_of(head.target):
        return _Fault("the request names no path", 400)
    if any(name == "host" and not _HOST.fullmatch(value) for name, value in headers):
        return _Fault("the Host header is malformed", 400)
    if _has_body(headers):
        return _Fault("a WebSocket handshake has no body", 400)
    if not (has_member(headers, "upgrade", "websocket") and has_member(headers, "connection", "upgrade")):
        return _Fault("this is a WebSocket server", 426, _UPGRADE)
    if [value for name, value in headers if name == "sec-websocket-version"] != ["13"]:
        return _Fault("the WebSocket version must be 13", 426, _UPGRADE)
    if len(keys) != 1 or not _is_key(keys[0]):
        return _Fault("the request needs one Sec-WebSocket-Key of 16 bytes", 400)
    return None


def _has_body(headers: Headers) -> bool:
    return any(
        name == "transfer-encoding" or (name == "content-length" and value.strip("0")) for name, value in headers
    )


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == _KEY_BYTES
    except (binascii.Error, ValueError):
        return False
