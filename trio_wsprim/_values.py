"""The plain words of the library: what a message is, what can happen to it, and what is counted.

Floor 0: the standard library only, so that every other module may use these.
"""

import enum
import math
import sys
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

Message: TypeAlias = str | bytes
"""One WebSocket message: `str` is text, `bytes` is binary."""

WhenFull: TypeAlias = Literal["wait", "error", "drop_oldest", "drop_newest"]
"""What a full buffer does with the next message."""

Fate: TypeAlias = Literal["unsent", "unconfirmed"]
"""`"unsent"`: never handed to the network. `"unconfirmed"`: handed over, arrival not proved."""

DropReason: TypeAlias = Literal["full", "expired", "rejected"]
"""Why a message was dropped: no room, its `ttl` ran out, or the peer found it too big."""


class ReadyState(enum.IntEnum):
    """Where a connection stands, with the numbers of the DOM's `readyState`."""

    CONNECTING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


def _check_number(name: str, value: object, *, least: float, most: float, above: bool, wanted: str) -> None:
    # A bool is an int to Python, but `connect_timeout=True` is a slip, not one second.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be {wanted}, got {type(value).__name__}")
    # NaN compares false, so it fails here too; so does an int too large for a float.
    if not (least < value if above else least <= value) or not value <= most:
        raise ValueError(f"{name} must be {wanted}, got {value!r}")


def check_number(name: str, value: object, *, least: float, most: float | None = None) -> None:
    """Refuse what is not a finite number in range.

    Args:
        name: The parameter, for the sentence.
        value: What the caller gave.
        least: The smallest good value.
        most: The largest good value; `None` for any finite number.

    Raises:
        TypeError: If it is neither `int` nor `float`, or a `bool`.
        ValueError: If it is out of range, infinite or NaN.
    """
    wanted = f"a finite number, at least {least:g}" if most is None else f"a number from {least:g} to {most:g}"
    top = sys.float_info.max if most is None else most
    _check_number(name, value, least=least, most=top, above=False, wanted=wanted)


def check_seconds(name: str, value: object, *, zero: bool = True, none: bool = False) -> None:
    """Refuse what is not a duration.

    Args:
        name: The parameter, for the sentence.
        value: What the caller gave, in seconds.
        zero: Whether 0 is a good value.
        none: Whether `None` is, for "no limit". Infinity never is: one way to say it is enough.

    Raises:
        TypeError: If it is neither `int` nor `float`, or a `bool`, or `None` unasked for.
        ValueError: If it is negative, infinite, NaN, or an unwanted zero.
    """
    if value is None and none:
        return
    wanted = f"a finite number of seconds, {'0 or more' if zero else 'more than 0'}"
    if none:
        wanted += ", or None"
    _check_number(name, value, least=0, most=sys.float_info.max, above=not zero, wanted=wanted)


def check_count(name: str, value: object, *, least: int = 0, none: bool = False, inf: bool = False) -> None:
    """Refuse what is not a number of things.

    Args:
        name: The parameter, for the sentence.
        value: What the caller gave.
        least: The smallest good value.
        none: Whether `None` is a good value, for "no limit".
        inf: Whether `math.inf` is, as for the size of a trio memory channel.

    Raises:
        TypeError: If it is no `int`, or a `bool`, or `None` or infinite unasked for.
        ValueError: If it is below `least`.
    """
    if (none and value is None) or (inf and value == math.inf):
        return
    wanted = f"a whole number, at least {least}"
    wanted += ", or math.inf" if inf else ""
    wanted += ", or None" if none else ""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be {wanted}, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be {wanted}, got {value!r}")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse what is not one of a few words.

    Raises:
        ValueError: If it is none of them.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


WHEN_FULL: Final[tuple[WhenFull, ...]] = get_args(WhenFull)
"""Every `when_full` there is, for `check_choice`."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """How much may wait, and what happens to the next message when it is too much.

    Both limits hold at once.

    Args:
        max_messages: How many messages may wait, at least 1; `None` for no limit.
        max_bytes: How many bytes they may have together, at least 1; `None` for no limit.
            Text counts as UTF-8.
        when_full: `"wait"` for room, raise an `"error"` (`BufferFull`), or `"drop_oldest"` or
            `"drop_newest"`.

    Raises:
        TypeError: If a limit is neither an `int` nor `None`.
        ValueError: If a limit is below 1, or `when_full` another word.
    """

    max_messages: int | None = 1024
    max_bytes: int | None = 16 * 2**20
    when_full: WhenFull = "wait"

    def __post_init__(self) -> None:
        check_count("max_messages", self.max_messages, least=1, none=True)
        check_count("max_bytes", self.max_bytes, least=1, none=True)
        check_choice("when_full", self.when_full, WHEN_FULL)


def describe_message(message: Message) -> str:
    """Tell kind and size of a message, for logs and reprs that must not tell its body."""
    if isinstance(message, bytes):
        return f"binary message of {len(message)} bytes"
    # `surrogatepass`, since a description must not raise, whatever it describes.
    return f"text message of {len(message.encode(errors='surrogatepass'))} bytes"


@dataclass(frozen=True, slots=True, repr=False)
class Undelivered:
    """A message that is not known to have arrived when the socket ended.

    Its repr tells kind and size only: bodies may be secret, and long.
    """

    message: Message
    fate: Fate

    def __repr__(self) -> str:
        return f"<Undelivered {describe_message(self.message)}, {self.fate}>"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a socket; the base of all events."""


@dataclass(frozen=True, slots=True)
class ConnectEvent(Event):
    """A dial begins: the `attempt`-th in a row, from 1, to `url`, shown without secrets."""

    attempt: int
    url: str


@dataclass(frozen=True, slots=True)
class OpenEvent(Event):
    """The connection is open; `subprotocol` is `None` where none was agreed on."""

    attempt: int
    subprotocol: str | None


@dataclass(frozen=True, slots=True)
class MessageEvent(Event):
    """A message arrived."""

    data: Message


@dataclass(frozen=True, slots=True)
class ErrorEvent(Event):
    """An attempt failed."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class CloseEvent(Event):
    """A connection ended.

    `code` is 1006 for a lost connection and 1005 where the peer gave none. `clean` says that the
    closing handshake was completed, and `error` what went wrong, if anything did. `unconfirmed`
    tells the messages that were handed to the network without proof that they arrived; `None`
    where nothing was tracked.
    """

    code: int
    reason: str
    clean: bool
    error: BaseException | None = None
    unconfirmed: tuple[Message, ...] | None = None


@dataclass(frozen=True, slots=True)
class RetryEvent(Event):
    """A wait of `delay` seconds before the `attempt`-th dial begins, because of `error`."""

    attempt: int
    delay: float
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class DropEvent(Event):
    """A message was dropped, and will not be sent or received."""

    message: Message
    why: DropReason


@dataclass(frozen=True, slots=True)
class EndEvent(Event):
    """The socket ended for good; `error` is `None` after a normal close. Exactly one, the last."""

    error: BaseException | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What a socket has done so far, over all its connections.

    Sizes are bytes of message bodies. `uptime` is the age of the present connection in seconds,
    `None` without one; `latency` the last round-trip time in seconds, `None` before the first;
    `last_error` the latest failure or abnormal end, `None` if there was none.
    """

    messages_sent: int
    bytes_sent: int
    messages_received: int
    bytes_received: int
    messages_buffered: int
    bytes_buffered: int
    messages_unconfirmed: int
    messages_dropped: int
    attempts: int
    connections: int
    uptime: float | None
    latency: float | None
    last_error: BaseException | None
