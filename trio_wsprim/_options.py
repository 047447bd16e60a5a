"""The options of every opener: written down once, checked at the call, frozen inside."""

from __future__ import annotations

import importlib.util
import inspect
import ssl
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, TypedDict, TypeVar, cast
from urllib.parse import urlsplit

import trio

from trio_wsprim._backoff import Backoff, as_backoff
from trio_wsprim._seam import Transport
from trio_wsprim._urls import Headers, Target, check_headers, check_subprotocols, parse_url
from trio_wsprim._values import Buffer, Message, check_choice, check_count, check_seconds

T = TypeVar("T")
# A value, or a function that is asked anew for every attempt.
Source: TypeAlias = T | Callable[[], T] | Callable[[], Awaitable[T]]
Subprotocols: TypeAlias = str | Iterable[str]
OpenStream: TypeAlias = Callable[[str, int], Awaitable[trio.abc.Stream]]


class Session(Protocol):
    """A new connection in the hands of `setup`, before it counts as open."""

    @property
    def attempt(self) -> int:
        """Which dial in a row this is, from 1."""
        ...

    @property
    def reconnecting(self) -> bool:
        """Whether the socket was open before."""
        ...

    @property
    def subprotocol(self) -> str | None:
        """What the server chose; `None` if it chose none."""
        ...

    @property
    def response_headers(self) -> tuple[tuple[str, str], ...]:
        """Headers of the server's answer, names in lower case."""
        ...

    async def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send a message now, ahead of all that is buffered.

        Raises:
            ConnectionClosed: If the connection ends.
            TypeError: If it is neither text nor binary.

        Cancellation: may be partial; the attempt is over then.
        """
        ...

    async def receive(self) -> str | bytes:
        """Receive the next message. What `setup` leaves unread goes to the inbox.

        Raises:
            ConnectionClosed: If the connection ends.

        Cancellation: atomic.
        """
        ...


Setup: TypeAlias = Callable[[Session], Awaitable[object]]


class Options(TypedDict, total=False):
    """What every opener takes by keyword.

    Attributes:
        headers: Further headers for the upgrade request, or a function (sync or async) that gives them.
        ssl_context: For `wss:`; `None` for the system's certificates.
        proxy: `http://…` or `socks5://…`, by the extra `proxy`; `None` for none. The environment is never asked.
        open_stream: Gives the byte stream to a host and port; `None` for TCP. TLS and the upgrade run over it.
        connect_timeout: Seconds for a whole attempt, from the first function to the end of `setup`; `None` for
            no limit.
        close_timeout: Seconds for draining and the closing handshake together; `None` for no limit.
        max_message_bytes: The largest message that may come in; `None` for what the inbox can hold.
        outbox: Bounds of what waits to be sent.
        inbox: Bounds of what waits for `receive`; `None` to feed only `message`, `subscribe` and `events`.
        track: Keep what was handed over until a pong proves that it arrived, within the outbox's bounds, and tell what
            may be lost.
        confirm_interval: Seconds between two pings that ask for such proof, at least.
        setup: Runs on each new connection before it counts as open.
        transport: What speaks WebSocket; `None` for the best that is installed.
    """

    headers: Source[Headers]
    ssl_context: ssl.SSLContext | None
    proxy: str | None
    open_stream: OpenStream | None
    connect_timeout: float | None
    close_timeout: float | None
    max_message_bytes: int | None
    outbox: Buffer
    inbox: Buffer | None
    track: bool
    confirm_interval: float
    setup: Setup | None
    transport: Transport | None


RetryIf: TypeAlias = Callable[[Exception], bool | None]


class ReconnectingOptions(Options, total=False):
    """What openers of reconnecting sockets take besides.

    Attributes:
        delay: Waits between dials: a `Backoff`, or seconds for a fixed wait.
        retries: Dials in a row after a failure or a drop; 0 for none, `None` for no limit.
        min_uptime: Seconds for which a connection must stay up, for `retries` and `delay` to start over.
        retry_if: Decides over each failure and end: `True` retry, `False` stop, `None` the default rule.
        max_retry_after: The longest that a server's `Retry-After` may make us wait, in seconds; `None` for no limit.
        resend: What goes out again on the next connection: only what was `"unsent"`, so at most once; or also what is
            `"unconfirmed"`, so at least once to the peer's WebSocket layer (implies `track`).
    """

    delay: Backoff | float
    retries: int | None
    min_uptime: float
    retry_if: RetryIf | None
    max_retry_after: float | None
    resend: Literal["unsent", "unconfirmed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of one socket, checked. Its repr leaves out what may hold secrets.

    Attributes:
        write_timeout: Seconds for which the network may take nothing of what is being sent, before the connection is
            lost; `None` for no limit, as for all that we open ourselves. The others are as in `Options`.
    """

    url: Target | Callable[[], str] | Callable[[], Awaitable[str]] = field(repr=False)
    subprotocols: Source[Subprotocols] = field(default=(), repr=False)
    headers: Source[Headers] = field(default=(), repr=False)
    ssl_context: ssl.SSLContext | None = None
    proxy: str | None = field(default=None, repr=False)
    open_stream: OpenStream | None = None
    connect_timeout: float | None = 10.0
    close_timeout: float | None = 5.0
    write_timeout: float | None = None
    max_message_bytes: int | None = 2**20
    outbox: Buffer = field(default_factory=Buffer)
    inbox: Buffer | None = field(default_factory=Buffer)
    track: bool = False
    confirm_interval: float = 0.1
    setup: Setup | None = None
    transport: Transport | None = None

    def __post_init__(self) -> None:
        check_seconds("connect_timeout", self.connect_timeout, zero=False, none=True)
        check_seconds("close_timeout", self.close_timeout, none=True)
        check_seconds("write_timeout", self.write_timeout, zero=False, none=True)
        check_seconds("confirm_interval", self.confirm_interval)
        check_type("track", self.track, bool)
        check_count("max_message_bytes", self.max_message_bytes, none=True)
        for name in ("open_stream", "setup"):
            _check_function(name, getattr(self, name))
        if self.ssl_context is not None:
            check_type("ssl_context", self.ssl_context, ssl.SSLContext)
        _check_buffers(self.outbox, self.inbox, self.max_message_bytes)
        _check_proxy(self.proxy, self.open_stream)
        if self.transport is not None:
            check_transport_has("connect", self.transport)

    @property
    def message_limit(self) -> int | None:
        """The largest message that may come in: the explicit limit, or else what the inbox can hold."""
        if self.max_message_bytes is None and self.inbox is not None:
            return self.inbox.max_bytes
        return self.max_message_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRule:
    """The options of a socket that dials again, checked."""

    delay: Backoff | float = field(default_factory=Backoff)
    retries: int | None = None
    min_uptime: float = 5.0
    retry_if: RetryIf | None = None
    max_retry_after: float | None = 300.0
    resend: Literal["unsent", "unconfirmed"] = "unsent"

    def __post_init__(self) -> None:
        as_backoff(self.delay)
        check_count("retries", self.retries, none=True)
        check_seconds("min_uptime", self.min_uptime)
        check_seconds("max_retry_after", self.max_retry_after, none=True)
        check_choice("resend", self.resend, ("unsent", "unconfirmed"))
        _check_function("retry_if", self.retry_if)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """The options of a heartbeat, checked.

    Attributes:
        message: What to send: a message, a function that gives one, or `None` for a ping frame.
        interval: Seconds of silence before it.
        wait: Seconds of silence after it that end the connection.
        reply: Answers that the user is not shown: a message, or a predicate.
    """

    message: Message | Callable[[], Message] | None
    interval: float
    wait: float
    reply: Message | Callable[[Message], object] | None

    def __post_init__(self) -> None:
        check_seconds("interval", self.interval, zero=False)
        check_seconds("wait", self.wait, zero=False)
        for name, value in (("message", self.message), ("reply", self.reply)):
            if not (value is None or isinstance(value, str | bytes) or callable(value)):
                raise TypeError(f"{name} must be str, bytes, a function or None, got {type(value).__name__}")
        if isinstance(self.message, str):
            as_message(self.message)


def read_settings(url: Source[str], subprotocols: Source[Subprotocols], options: Options) -> Settings:
    """Check everything that an opener was given, before anything has happened.

    Values are kept as they are once checked; functions are asked, and their answers checked, at each attempt.
    """
    given = dict(options)
    unknown = sorted(given.keys() - Options.__annotations__.keys())
    if unknown:
        raise TypeError(f"unknown option {', '.join(unknown)}{_hint(unknown)}")
    target = url if callable(url) else parse_url(url)
    if isinstance(target, Target) and options.get("ssl_context") is not None and not target.secure:
        raise ValueError(f"ssl_context is for wss: urls, got {target.shown!r}")
    if not callable(subprotocols):
        subprotocols = check_subprotocols(subprotocols)
    headers = options.get("headers", ())
    if not callable(headers):
        given["headers"] = check_headers(headers)
    return Settings(url=target, subprotocols=subprotocols, **cast("dict[str, Any]", given))


def _hint(unknown: Iterable[str]) -> str:
    """Say where an option belongs that is known elsewhere."""
    is_elsewhere = ReconnectingOptions.__annotations__.keys() >= set(unknown)
    return " (only a socket that reconnects has it: create_reconnecting_ws)" if is_elsewhere else ""


async def ask(source: Source[T]) -> T:
    """Give a source's value: itself, or what the function says this time."""
    answer: object = source
    if callable(source):
        answer = source()
        if inspect.isawaitable(answer):
            answer = await cast("Awaitable[object]", answer)
    return cast("T", answer)


def as_message(message: object) -> Message:
    """Check a message that a user sends; binary ones are copied.

    Raises:
        TypeError: If it is neither text nor binary.
        UnicodeEncodeError: If the text has a lone surrogate.
    """
    if isinstance(message, str):
        if not message.isascii():
            message.encode()
        return message
    if isinstance(message, bytes | bytearray | memoryview):
        return bytes(cast("bytes | bytearray | memoryview[int]", message))
    raise TypeError(f"a message must be str, bytes, bytearray or memoryview, got {type(message).__name__}")


def _check_function(name: str, value: object) -> None:
    if not (value is None or callable(value)):
        raise TypeError(f"{name} must be a function or None, got {type(value).__name__}")


def check_type(name: str, value: object, wanted: type) -> None:
    """Refuse what is not of a type, as a `TypeError` that names both."""
    if not isinstance(value, wanted):
        raise TypeError(f"{name} must be a {wanted.__name__}, got {type(value).__name__}")


def check_transport_has(method: str, transport: object) -> None:
    """Refuse what is no transport, and a transport's class, of which no instance was made."""
    if isinstance(transport, type):
        raise TypeError(f"transport must be an instance, got the class {transport.__name__}")
    if not callable(getattr(transport, method, None)):
        raise TypeError(f"transport must have {method}(), got {type(transport).__name__}")


def check_class(name: str, value: object, base: type) -> None:
    """Refuse what is not a class below `base`, as a `TypeError`."""
    if not (isinstance(value, type) and issubclass(value, base)):
        raise TypeError(f"{name} must be a class of {base.__name__}, got {value!r}")


def _check_buffers(outbox: Buffer, inbox: Buffer | None, max_message_bytes: int | None) -> None:
    check_type("outbox", outbox, Buffer)
    if inbox is None:
        return
    check_type("inbox", inbox, Buffer)
    if inbox.when_full == "error":
        raise ValueError("inbox must not have when_full='error': a peer cannot be raised at")
    room = inbox.max_bytes
    if room is not None and max_message_bytes is not None and max_message_bytes > room:
        raise ValueError(f"max_message_bytes must fit into the inbox's {room} bytes, got {max_message_bytes}")


def _check_proxy(proxy: object, open_stream: object) -> None:
    """Refuse a proxy that cannot work; its url may hold a password, so none of it is quoted."""
    if proxy is None:
        return
    if not isinstance(proxy, str):
        raise TypeError(f"proxy must be a str or None, got {type(proxy).__name__}")
    if open_stream is not None:
        raise ValueError("proxy and open_stream exclude each other: both say how to reach the host")
    try:
        parts = urlsplit(proxy)
        is_usable = parts.scheme in {"http", "socks5"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable:
        raise ValueError("proxy must be http://host:port or socks5://host:port, got another url")
    if importlib.util.find_spec("python_socks") is None:
        raise ImportError("proxy needs python-socks: pip install 'trio-wsprim[proxy]'")
