"""What a caller may ask for: url, headers, subprotocols. Pure.

Parsed by hand, since `urllib.parse` silently repairs what should be refused (it drops line breaks
and takes backslashes), and its errors quote what may be secret. No error here ever quotes user
information, a query string or a header's value.
"""

import base64
import ipaddress
import re
import string
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeAlias, cast

Headers: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]
"""Headers as a caller may give them."""

_DEFAULT_PORTS: Final = MappingProxyType({"ws": 80, "wss": 443})

# What a token, the grammar's word for a name, may consist of (RFC 9110, 5.6.2).
_NAME_CHARACTERS: Final = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}")
# Narrower than RFC 3986, whose percent and punctuation no resolver takes; wider than DNS, since
# underscores are everyday names in container networks.
_HOST: Final = re.compile(r"[0-9A-Za-z._~-]+")
_LABEL_LENGTH: Final = range(1, 64)  # RFC 1035, 2.3.4, as is the next
_MAX_HOST_LENGTH: Final = 253

_OWNED_HEADERS: Final = frozenset({"host", "connection", "upgrade", "content-length", "transfer-encoding"})
_OWNED_PREFIX: Final = "sec-websocket-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to dial, and what to say there.

    Args:
        host: Host name or address, lower case, without brackets.
        port: TCP port.
        secure: Whether TLS is spoken.
        resource: Path and query for the request line, at least "/".
        host_header: Value of `Host`: IPv6 in brackets, no default port.
        shown: The url without user information and query, for reprs, logs and errors.
        authorization: Value of `Authorization`; `None` if the url names no user.
    """

    host: str = field(repr=False)
    port: int = field(repr=False)
    secure: bool = field(repr=False)
    resource: str = field(repr=False)
    host_header: str = field(repr=False)
    shown: str
    authorization: str | None = field(repr=False)


def parse_url(url: str) -> Target:
    """Take a WebSocket url apart.

    Raises:
        TypeError: If it is no `str`.
        ValueError: If it is none that can be dialled; the sentence tells no secrets.
    """
    _check_url_text(url)
    scheme, rest = _split_scheme(url)
    authority = re.split("[/?]", rest, maxsplit=1)[0]
    resource = rest.removeprefix(authority)
    path, mark, _ = resource.partition("?")
    # The last "@", as browsers do: a bare one in a password stays in the password.
    userinfo, _, place = authority.rpartition("@")
    default_port = _DEFAULT_PORTS[scheme.lower()]
    host, port = _parse_place(place, default_port)
    bracketed = f"[{host}]" if ":" in host else host
    return Target(
        host=host,
        port=port,
        secure=scheme.lower() == "wss",
        resource=resource if path else f"/{resource}",
        host_header=bracketed if port == default_port else f"{bracketed}:{port}",
        shown=f"{scheme}://{place}{path}{'?…' if mark else ''}",
        authorization=_basic_auth(userinfo) if userinfo else None,
    )


def _check_url_text(url: object) -> None:
    if not isinstance(url, str):
        raise TypeError(f"url must be a str, got {type(url).__name__}")
    bad = re.search(r"[^!-~]|\\", url)
    if bad is not None:
        raise ValueError(
            "url must be visible ASCII without backslashes (percent-encode the rest; a host's name has an xn-- form), "
            f"got {_kind(bad.group())} at index {bad.start()}"
        )


def _kind(character: str) -> str:
    """Name a kind of character, where the character itself may be part of a secret."""
    if character in {" ", "\\"}:
        return "a space" if character == " " else "a backslash"
    return "a control character" if character <= "\x7f" else "a non-ASCII character"


def _split_scheme(url: str) -> tuple[str, str]:
    scheme, separator, rest = url.partition("://")
    if not separator or not _SCHEME.fullmatch(scheme):
        raise ValueError("url must begin with ws:// or wss://, got no scheme")
    if scheme.lower() not in _DEFAULT_PORTS:
        raise ValueError(f"url must begin with ws:// or wss://, got {scheme}://")
    if "#" in rest:
        raise ValueError("url must have no fragment, got a '#' (write %23 for the character)")
    return scheme, rest


def _parse_place(place: str, default_port: int) -> tuple[str, int]:
    """Split `host[:port]`."""
    if place.startswith("["):
        address, bracket, rest = place[1:].partition("]")
        host = _check_ipv6(address if bracket else "")
    else:
        name, colon, digits = place.partition(":")
        host, rest = _check_host(name), colon + digits
    return host, _parse_port(rest) if rest else default_port


def _check_host(host: str) -> str:
    if not host:
        raise ValueError("url must name a host, got none")
    # Not quoted: with a slash in a password, this is half of the secret.
    if not _HOST.fullmatch(host):
        raise ValueError("url must have a host of letters, digits, '-', '_', '~' and '.', got others")
    labels = host.removesuffix(".").split(".")
    if len(host) > _MAX_HOST_LENGTH or any(len(each) not in _LABEL_LENGTH for each in labels):
        raise ValueError(
            f"url must have a host of at most {_MAX_HOST_LENGTH} characters, 1 to 63 between dots, "
            f"got {len(host)} characters, the longest part {max(map(len, labels))}, "
            f"the shortest {min(map(len, labels))}"
        )
    return host.lower()


def _check_ipv6(address: str) -> str:
    # A zone ("%eth0") is refused too: it means nothing to the server, and TLS cannot check it.
    if "%" not in address and _is_ipv6(address):
        return address.lower()
    raise ValueError("url must have an IPv6 address between brackets, got something else")


def _is_ipv6(address: str) -> bool:
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return True


def _parse_port(text: str) -> int:
    if not re.fullmatch(r":[0-9]{1,5}", text):
        # Not quoted, for the same reason as the host.
        raise ValueError("url must have a port from 1 to 65535 after its ':', got none")
    port = int(text[1:])
    if not 1 <= port <= 65535:
        raise ValueError(f"url must have a port from 1 to 65535, got {port}")
    return port


def _basic_auth(userinfo: str) -> str:
    """Encode user and password as RFC 7617 has it, in UTF-8."""
    user, _, password = userinfo.partition(":")
    user, password = _decode_secret(user), _decode_secret(password)
    if ":" in user:
        raise ValueError("url must name a user without ':', which Basic auth cannot tell, got one")
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")


def _decode_secret(text: str) -> str:
    # Undecodable bytes become lone surrogates, which are no characters; a UnicodeDecodeError
    # would carry the secret in its context.
    decoded = urllib.parse.unquote(text, errors="surrogateescape")
    if re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", decoded):
        raise ValueError(
            "url must have user and password that are UTF-8 without control characters once percent-decoded, got others"
        )
    return decoded


def check_headers(headers: Headers) -> tuple[tuple[str, str], ...]:
    """Check headers for an upgrade request, and strip white space around their values.

    Raises:
        TypeError: If they are neither pairs of `str` nor a mapping of `str` to `str`.
        ValueError: If a name is no token or belongs to the handshake, or a value has characters
            other than visible ASCII, space and tab; the sentence never tells a value.
    """
    if isinstance(headers, Mapping):
        headers = tuple(cast("Mapping[str, str]", headers).items())
    return tuple(_check_header(pair) for pair in _elements("headers", headers, "pairs of str"))


def _elements(name: str, given: object, wanted: str) -> Iterable[object]:
    # Strings are iterable, and never what is meant by several of something.
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise TypeError(f"{name} must be {wanted}, got {type(given).__name__}")
    return cast("Iterable[object]", given)


def _check_header(pair: object) -> tuple[str, str]:
    match pair:
        case (str(name), str(value)):
            _check_header_name(name)
            return name, _check_header_value(name, value)
        case _:
            raise TypeError(f"headers must be pairs of str, got a {type(pair).__name__} of others")


def _check_header_name(name: str) -> None:
    fault = _token_fault(name)
    if fault is not None:
        # Only what comes before the fault is quoted: after a colon may stand the value.
        shown = name[: _token_length(name)]
        raise ValueError(f"header name {shown!r}… must be a token (RFC 9110, 5.6.2), got {fault}")
    if name.lower() in _OWNED_HEADERS or name.lower().startswith(_OWNED_PREFIX):
        raise ValueError(f"header {name!r} belongs to the handshake and must not be given")


def _check_header_value(name: str, value: str) -> str:
    # Latin-1 would be legal on the wire, but servers disagree on what it means.
    bad = re.search(r"[^\t -~]", value)
    if bad is not None:
        raise ValueError(
            f"header {name!r} must have a value of visible ASCII, spaces and tabs, "
            f"got {_kind(bad.group())} at index {bad.start()}"
        )
    return value.strip(" \t")


def check_subprotocols(subprotocols: str | Iterable[str]) -> tuple[str, ...]:
    """Check subprotocols to offer, the most wanted first. One may be given as a plain `str`.

    Raises:
        TypeError: If they are not `str`.
        ValueError: If one is no token, or there twice. They are not quoted: some services take
            credentials that way.
    """
    given = (subprotocols,) if isinstance(subprotocols, str) else subprotocols
    names = list[str]()
    for number, each in enumerate(_elements("subprotocols", given, "several str"), 1):
        name = _check_subprotocol(number, each)
        if name in names:
            raise ValueError(f"subprotocols must differ, got number {number} twice")
        names.append(name)
    return tuple(names)


def _check_subprotocol(number: int, name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"subprotocols must be str, got {type(name).__name__} among them")
    fault = _token_fault(name)
    if fault is not None:
        raise ValueError(f"subprotocol number {number} must be a token (RFC 9110, 5.6.2), got {fault}")
    return name


def _token_length(text: str) -> int:
    """Count the characters at the beginning that may stand in a token."""
    return len(text) - len(text.lstrip(_NAME_CHARACTERS))


def _token_fault(text: str) -> str | None:
    """Say what keeps `text` from being a token; `None` if nothing does."""
    if not text:
        return "an empty one"
    length = _token_length(text)
    return None if length == len(text) else f"{text[length]!a} at index {length}"
