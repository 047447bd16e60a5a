"""Whether trying again can help, and how long the server asks us to wait. Pure."""

import email.utils
import ssl
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from ._errors import ConnectionClosed, ConnectionFailed, ConnectionRejected

# Timeout, too early, too many: of all that is the client's fault, what passes by waiting.
_PASSING_STATUSES: Final = frozenset({408, 425, 429})

# The peer finds fault with what we say or are, and will again.
_FATAL_CODES: Final = frozenset({1002, 1003, 1007, 1008, 1009, 1010})


def should_retry(error: BaseException) -> bool:
    """Decide by the default rule whether to dial again after `error`.

    Everything is retried but what cannot change by itself: bad certificates and host names, wrong
    handshakes, HTTP answers that blame the request, and close codes that blame us or that the
    application chose.
    """
    return not (_has_bad_certificate(error) or _is_fatal(error))


def _is_fatal(error: BaseException) -> bool:
    match error:
        case ConnectionRejected():
            return error.permanent or _is_fatal_status(error.status)
        case ConnectionFailed():
            # During `setup` a close is a failed attempt, but means what it always means.
            cause = error.__cause__
            return error.permanent or (isinstance(cause, ConnectionClosed) and _is_fatal_code(cause.code))
        case ConnectionClosed():
            return _is_fatal_code(error.code)
        case _:
            return False


def _is_fatal_status(status: int) -> bool:
    return 200 <= status <= 499 and status not in _PASSING_STATUSES


def _is_fatal_code(code: int) -> bool:
    return code in _FATAL_CODES or 4000 <= code <= 4999


def _has_bad_certificate(error: BaseException) -> bool:
    # A wrong host name is the same class; `ssl.CertificateError` is its old name.
    return any(isinstance(each, ssl.SSLCertVerificationError) for each in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Walk the causes that a traceback of `error` would show, each once."""
    link: BaseException | None = error
    seen = set[int]()  # a cause may lead back to itself
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        hidden = link.__cause__ is not None or link.__suppress_context__
        link = link.__cause__ if hidden else link.__context__


def parse_retry_after(value: str, now: float) -> float | None:
    """Read a `Retry-After` header, as RFC 9110, 10.2.3 has it. Never raises.

    Args:
        value: The header's value: a whole number of seconds, or a date.
        now: The present time in seconds since 1970, for the date.

    Returns:
        How many seconds to wait, finite; 0.0 for a date that has passed; `None` for nonsense.
    """
    value = value.strip(" \t")
    if value.isascii() and value.isdigit():
        # Not `int`, which refuses thousands of digits; `float` takes them for infinity.
        return min(float(value), sys.float_info.max)
    timestamp = _parse_date(value)
    return None if timestamp is None else max(0.0, timestamp - now)


def _parse_date(value: str) -> float | None:
    """Read any of the three forms of an HTTP date, as seconds since 1970."""
    try:
        date = email.utils.parsedate_to_datetime(value)
        return _in_utc(date).timestamp()
    # `email` is not written for hostile input; its parser has let all of these out over the years.
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError):
        return None


def _in_utc(date: datetime) -> datetime:
    # The oldest form, of C's `asctime`, has no zone; HTTP dates are UTC whatever their form.
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
