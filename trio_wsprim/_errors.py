"""Everything that can go wrong, as one tree.

Floor 0. Each error keeps its facts as attributes and says a sentence; neither a message body nor a
header value is ever in that sentence, since it ends up in logs.
"""

import copy
import http
from types import MappingProxyType
from typing import Any, Final, TypeVar

import trio

from ._values import Undelivered

E = TypeVar("E", bound=BaseException)

# The IANA "WebSocket Close Code Number Registry", in lower case.
_CODE_NAMES: Final = MappingProxyType(
    {
        1000: "normal closure",
        1001: "going away",
        1002: "protocol error",
        1003: "unsupported data",
        1005: "no code given",
        1006: "connection lost",
        1007: "invalid data",
        1008: "policy violation",
        1009: "message too big",
        1010: "extension required",
        1011: "internal error",
        1012: "service restart",
        1013: "try again later",
        1014: "bad gateway",
        1015: "TLS failure",
    }
)


class WebSocketError(Exception):
    """The base of every error that this library names.

    Subclasses call `super().__init__` with their sentence and keep facts as attributes.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # The default calls the class with `args`, which fits only constructors that take just the
        # sentence. To put all facts into `args` instead would show header values in the repr.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[E], args: tuple[object, ...], facts: dict[str, object]) -> E:
    """Restore a pickled or copied error without going through its constructor."""
    error = cls.__new__(cls, *args)
    error.__dict__.update(facts)
    return error


def fresh(error: E) -> E:
    """Copy a `WebSocketError` for raising: same facts, same `__cause__`, no traceback.

    One end is told to many tasks, and to the same task many times. Raising one object each time
    would pile the tracebacks of all of them up on it. Any other exception, such as a user's own,
    is returned as it is: it need not survive copying.
    """
    if not isinstance(error, WebSocketError):
        return error
    copied = copy.copy(error)
    if hasattr(copied, "__notes__"):
        copied.__notes__ = list(copied.__notes__)  # or each note would land on every copy
    copied.__cause__ = error.__cause__
    copied.__suppress_context__ = error.__suppress_context__  # which setting a cause set
    return copied


class ConnectionFailed(WebSocketError):
    """No connection came about; `__cause__` says why.

    Args:
        message: The sentence.
        permanent: Trying again cannot help, as after a wrong `Sec-WebSocket-Accept`.
    """

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class ConnectionRejected(ConnectionFailed):
    """The server answered plain HTTP instead of opening a WebSocket.

    Args:
        status: The HTTP status code.
        headers: The answer's headers, names in lower case.
        body: The first 64 KiB of the answer's body.
        retry_after: How many seconds the server asked to wait; `None` if it did not say.
    """

    def __init__(
        self,
        status: int,
        headers: tuple[tuple[str, str], ...] = (),
        body: bytes = b"",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"the server answered HTTP {_status_words(status)}, not a WebSocket")
        self.status = status
        self.headers = headers
        self.body = body
        self.retry_after = retry_after


def _status_words(status: int) -> str:
    # The server's own phrase is left out: it is the peer's text, and may be anything.
    try:
        return f"{status} {http.HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


class RetriesExhausted(ConnectionFailed):
    """The last of the permitted dials failed too; `__cause__` is the last failure or close.

    Args:
        attempts: How many dials failed in a row.
    """

    def __init__(self, attempts: int) -> None:
        # None has failed where connections came about, and ended.
        so_far = f"after {_count(attempts, 'failed attempt')} in a row" if attempts else "with no retries left"
        super().__init__(f"gave up {so_far}")
        self.attempts = attempts


class ConnectionClosed(WebSocketError, trio.BrokenResourceError):
    """The connection was open, and the peer, the network or the heartbeat ended it.

    Args:
        code: The close code; 1006 for a lost connection, 1005 where the peer gave none.
        reason: The peer's words, or "".
        clean: Whether the closing handshake was completed.
        message: The sentence; `None` makes one of the facts.
    """

    def __init__(self, code: int, reason: str = "", clean: bool = False, *, message: str | None = None) -> None:
        super().__init__(_close_sentence(code, reason, clean) if message is None else message)
        self.code = code
        self.reason = reason
        self.clean = clean


def _close_sentence(code: int, reason: str, clean: bool) -> str:
    name = _CODE_NAMES.get(code)
    sentence = f"the connection ended {'cleanly' if clean else 'abruptly'} with code {code}"
    sentence += f" ({name})" if name else ""
    # The reason is the peer's text: its repr keeps line breaks out of logs.
    return sentence + (f", reason {reason!r}" if reason else "")


class HeartbeatTimeout(ConnectionClosed):
    """The peer did not answer a heartbeat in time.

    Args:
        wait: How many seconds it had.
    """

    def __init__(self, wait: float) -> None:
        sentence = f"the peer did not answer the heartbeat within {wait:g} seconds"
        super().__init__(1006, message=sentence)
        self.wait = wait


class MessageTooBig(WebSocketError, ValueError):
    """A message is over a limit on its own, so waiting for room would not help.

    Args:
        size: The message's size in bytes.
        limit: The most it may have, in bytes.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"a message of {size} bytes is over the limit of {limit} bytes")
        self.size = size
        self.limit = limit


class BufferFull(WebSocketError, trio.WouldBlock):
    """There is no room for one more message now.

    Args:
        limit: The limit that is reached, such as "max_messages=1024".
    """

    def __init__(self, limit: str) -> None:
        super().__init__(f"the buffer is full ({limit})")
        self.limit = limit


class UndeliveredError(WebSocketError):
    """The socket ended without proof that all messages arrived.

    Args:
        messages: Those messages, in the order in which they were sent.
    """

    def __init__(self, messages: tuple[Undelivered, ...]) -> None:
        unsent = sum(each.fate == "unsent" for each in messages)
        super().__init__(
            f"{_count(len(messages), 'message')} not delivered: {unsent} unsent, {len(messages) - unsent} unconfirmed"
        )
        self.messages = messages


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
