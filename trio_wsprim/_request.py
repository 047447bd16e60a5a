"""What a client asks a server for, and how it is turned away. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, cast, final
from urllib.parse import parse_qs

from trio_wsprim._urls import Headers, check_headers
from trio_wsprim._values import check_count

# Host and port, as `Host` and `Origin` say them; brackets around IPv6.
_PLACE: Final = re.compile(r"(\[[0-9a-f:.%]+\]|[^\s:/?#@\[\]\\]+)(?::([0-9]{1,5}))?", re.IGNORECASE)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}


@final
@dataclass(frozen=True, slots=True)
class Request:
    """An opening handshake (RFC 6455, 4.2.1).

    Attributes:
        path: With its query, as sent; begins with a slash.
        headers: Names in lower case, in the order sent; a name may be there several times.
        subprotocols: Those that the client speaks, its favourite first.
        remote: The client's address, as the socket tells it: host and port over TCP; `None` if it has none. Behind a
            proxy this is the proxy's.
    """

    path: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    subprotocols: tuple[str, ...] = field(default=(), repr=False)
    remote: tuple[str, int] | None = None

    def __repr__(self) -> str:
        """Show what holds no secrets."""
        return f"<Request {self.shown_path!r} from {self.shown_remote}>"

    @property
    def shown_path(self) -> str:
        """The path without its query, for logs."""
        return self.path.partition("?")[0]

    @property
    def shown_remote(self) -> str:
        """The address, for logs."""
        if self.remote is None:
            return "nowhere"
        host, port = self.remote
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def query(self) -> Mapping[str, tuple[str, ...]]:
        """The query, parsed now: all values of each name, decoded."""
        query = self.path.partition("?")[2]
        return {name: tuple(values) for name, values in parse_qs(query, keep_blank_values=True).items()}

    def header(self, name: str) -> str | None:
        """Give the first header of a name, whatever its case; `None` if there is none."""
        wanted = name.lower()
        return next((value for each, value in self.headers if each == wanted), None)


@final
@dataclass(frozen=True, slots=True)
class Rejection:
    """The answer to a client that is turned away.

    Args:
        status: HTTP status, 300 to 599.
        headers: Further headers.
        body: What the client may show.

    Raises:
        TypeError: If a value is of the wrong type.
        ValueError: If one is out of range, or cannot be sent.
    """

    status: int
    headers: Headers = ()
    body: bytes = b""

    def __post_init__(self) -> None:
        check_count("status", self.status, least=300)
        if self.status > 599:
            raise ValueError(f"status must be 300 to 599, got {self.status}")
        body = cast("object", self.body)
        if not isinstance(body, bytes):
            raise TypeError(f"body must be bytes, got {type(body).__name__}")
        if body and self.status == 304:
            raise ValueError("a 304 has no body (RFC 9110, 15.4.5), got one")
        object.__setattr__(self, "headers", check_headers(self.headers))


def is_same_origin(origin: str, host: str) -> bool:
    """Whether an `Origin` (RFC 6454, 7) is the host and port of a `Host` header.

    Whether TLS is spoken is not compared: a proxy may have taken it off.
    """
    scheme, separator, place = origin.partition("://")
    default = _DEFAULT_PORTS.get(scheme.lower())
    theirs, ours = _PLACE.fullmatch(place), _PLACE.fullmatch(host)
    if not separator or default is None or theirs is None or ours is None:
        return False
    return _named(theirs, default) == _named(ours, default)


def _named(place: re.Match[str], default_port: int) -> tuple[str, int]:
    host, port = place.groups()
    return host.lower(), default_port if port is None else int(port)
