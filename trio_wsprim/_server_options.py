"""The options of a server: written down once, checked at the call."""

from __future__ import annotations

import re
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, TypedDict, cast

import trio

from trio_wsprim._options import Settings, check_transport_has, check_type
from trio_wsprim._request import Rejection, Request
from trio_wsprim._seam import ServerTransport
from trio_wsprim._urls import check_subprotocols
from trio_wsprim._values import Buffer, check_count, check_seconds

Listener: TypeAlias = trio.abc.Listener[trio.abc.Stream]
Authorize: TypeAlias = Callable[[Request], Awaitable[Rejection | None]]


class ServerOptions(TypedDict, total=False):
    """What a server takes by keyword.

    Attributes:
        ssl_context: For TLS, with a certificate; `None` for none.
        listeners: Any trio listeners to accept from, instead of TCP ones on `host` and `port`; the server's from then
            on. With `ssl_context`, TLS is spoken over their streams.
        subprotocols: Those that we speak, the most wanted first; the first that the client speaks too is chosen.
        origins: Whose web pages may connect, as browsers say it: `None` for those from the host and port of the
            request's own `Host`, a sequence of origins such as `"https://example.com"`, or `"*"` for all. A request
            without `Origin`, as programs send it, is always fine.
        authorize: An async function that is asked about each request, within `handshake_timeout`: `None` accepts, a
            `Rejection` refuses.
        max_connections: How many may be open at once; more are answered 503 with `Retry-After`. `None` for no limit.
        handshake_timeout: Seconds for a whole handshake, TLS and `authorize` included; `None` for no limit.
        close_timeout: Seconds for draining and the closing handshake together; `None` for no limit.
        write_timeout: Seconds for which a client may take nothing of what is being sent to it, before it is dropped;
            `None` for no limit.
        max_message_bytes: The largest message that may come in; `None` for what the inbox can hold.
        outbox: Bounds of what waits to be sent, for each connection.
        inbox: Bounds of what waits for `receive`, for each; `None` to feed only `message`, `subscribe`, `events`.
        transport: What speaks WebSocket; `None` for the best that is installed.
    """

    ssl_context: ssl.SSLContext | None
    listeners: Sequence[Listener] | None
    subprotocols: str | Iterable[str]
    origins: Iterable[str] | Literal["*"] | None
    authorize: Authorize | None
    max_connections: int | None
    handshake_timeout: float | None
    close_timeout: float | None
    write_timeout: float | None
    max_message_bytes: int | None
    outbox: Buffer
    inbox: Buffer | None
    transport: ServerTransport | None


# Scheme, host and port, as browsers say them (RFC 6454, 6.2), also for those of programs that are web pages inside.
_ORIGIN: Final = re.compile(r"([a-z][a-z0-9+.-]*)://([^\s/?#@]+)", re.IGNORECASE)
# Browsers leave out a scheme's own port, so an origin that has it would never match.
_OWN_PORTS: Final = {"http": ":80", "https": ":443"}

# Those that each connection has as a socket of any other kind has them.
_OF_SOCKETS = ("close_timeout", "write_timeout", "max_message_bytes", "outbox", "inbox")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """The options of one server, checked.

    Attributes:
        socket: Those of each of its connections.
        origins: In lower case; `None` and `"*"` as given.
    """

    socket: Settings
    ssl_context: ssl.SSLContext | None = None
    listeners: Sequence[Listener] | None = None
    subprotocols: tuple[str, ...] = field(default=(), repr=False)
    origins: frozenset[str] | Literal["*"] | None = None
    authorize: Authorize | None = None
    max_connections: int | None = None
    handshake_timeout: float | None = 10.0
    transport: ServerTransport | None = None

    def __post_init__(self) -> None:
        check_seconds("handshake_timeout", self.handshake_timeout, zero=False, none=True)
        check_count("max_connections", self.max_connections, least=1, none=True)
        if self.ssl_context is not None:
            check_type("ssl_context", self.ssl_context, ssl.SSLContext)
            if self.ssl_context.protocol is ssl.PROTOCOL_TLS_CLIENT:
                raise ValueError("ssl_context must be one for servers, such as ssl.Purpose.CLIENT_AUTH makes")
        if not (self.authorize is None or callable(self.authorize)):
            raise TypeError(f"authorize must be a function or None, got {type(self.authorize).__name__}")
        if self.transport is not None:
            check_transport_has("accept", self.transport)


def read_server_settings(options: ServerOptions) -> ServerSettings:
    """Check everything that a server was given, before anything has happened."""
    given = cast("dict[str, Any]", dict(options))
    unknown = sorted(given.keys() - ServerOptions.__annotations__.keys())
    if unknown:
        raise TypeError(f"unknown option {', '.join(unknown)}")
    of_sockets = {name: given.pop(name) for name in _OF_SOCKETS if name in given}
    given["subprotocols"] = check_subprotocols(given.get("subprotocols", ()))
    given["origins"] = _read_origins(given.get("origins"))
    given["listeners"] = _read_listeners(given.get("listeners"))
    of_sockets.setdefault("write_timeout", 30.0)
    return ServerSettings(socket=Settings(url=_no_url, **of_sockets), **given)


def _no_url() -> str:
    raise AssertionError("a server dials nobody")


def _read_origins(origins: object) -> frozenset[str] | Literal["*"] | None:
    if origins is None:
        return None
    if origins == "*":
        return "*"
    if isinstance(origins, str | bytes) or not isinstance(origins, Iterable):
        raise TypeError(f"origins must be several str, '*' or None, got {type(origins).__name__}")
    found = list(cast("Iterable[object]", origins))
    return frozenset(map(_read_origin, found))


def _read_origin(origin: object) -> str:
    if not isinstance(origin, str):
        raise TypeError(f"origins must be str, got {type(origin).__name__} among them")
    if origin == "null":  # what browsers say for a page that has none
        return origin
    parts = _ORIGIN.fullmatch(origin)
    if parts is None:
        raise ValueError(f"an origin must be like 'https://example.com', got {origin!r}")
    return origin.lower().removesuffix(_OWN_PORTS.get(parts[1].lower(), ""))


def _read_listeners(listeners: object) -> Sequence[Listener] | None:
    if listeners is None:
        return None
    if not isinstance(listeners, Iterable):
        raise TypeError(f"listeners must be several trio listeners or None, got {type(listeners).__name__}")
    found = list(cast("Iterable[object]", listeners))
    if not found:
        raise ValueError("listeners must be at least one, got none")
    for listener in found:
        check_type("each of listeners", listener, trio.abc.Listener)
    return cast("list[Listener]", found)
