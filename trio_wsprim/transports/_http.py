"""What the heads of request and answer have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

Headers = tuple[tuple[str, str], ...]

# Names that every handshake has, so that a thousand connections hold them once.
_COMMON: Final = {
    name.encode(): name
    for name in (
        "upgrade",
        "connection",
        "host",
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
        "server",
        "date",
    )
}

OURS: Final = "sec-websocket-"


def decode_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Give what h11 has parsed as text; its names are in lower case already."""
    return tuple((_COMMON.get(name) or name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)


def members(headers: Headers, name: str) -> list[str]:
    """Give the members of a list that may be spread over several headers (RFC 9110, 5.6.1)."""
    words = ",".join(value for header, value in headers if header == name).split(",")
    return [word.strip(" \t") for word in words if word.strip(" \t")]


def has_member(headers: Headers, name: str, wanted: str) -> bool:
    """Whether a list has a member, whatever its case."""
    return wanted in {word.lower() for word in members(headers, name)}
