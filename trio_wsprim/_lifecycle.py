"""Which state may follow which, and what close codes mean. Pure."""

from types import MappingProxyType
from typing import Final

from ._values import ReadyState

MOVES: Final = MappingProxyType(
    {
        # The handshake may fail, or the owner may lose patience first.
        ReadyState.CONNECTING: frozenset({ReadyState.OPEN, ReadyState.CLOSING, ReadyState.CLOSED}),
        # Straight to CLOSED when the network takes the peer without a word.
        ReadyState.OPEN: frozenset({ReadyState.CLOSING, ReadyState.CLOSED}),
        ReadyState.CLOSING: frozenset({ReadyState.CLOSED}),
        # Only a pause, for a socket that dials again; whose end is final asks elsewhere.
        ReadyState.CLOSED: frozenset({ReadyState.CONNECTING}),
    }
)
"""For each state, those that may follow it."""

NORMAL_CODES: Final = frozenset({1000, 1001, 1005})
"""Closes that are no error: done, going away, and no code given."""

MAX_REASON_BYTES: Final = 123
"""RFC 6455, 5.5: a control frame carries 125 bytes, and the code takes two."""


def check_move(old: ReadyState, new: ReadyState) -> None:
    """Assert that `old` may become `new`; a failure is our bug, never the caller's."""
    assert new in MOVES[old], f"illegal move: {old.name} -> {new.name}"


def is_normal(code: int) -> bool:
    """Tell whether a close with `code` ends an `async for` quietly instead of raising."""
    return code in NORMAL_CODES


def check_close(code: int, reason: str) -> None:
    """Refuse what may not go into a close frame of ours.

    Raises:
        TypeError: If `code` is no `int`, or `reason` no `str`.
        ValueError: If `code` is reserved or unknown, or `reason` is over 123 bytes of UTF-8 or
            cannot be encoded.
    """
    _check_code(code)
    _check_reason(reason)


def _check_code(code: object) -> None:
    if isinstance(code, bool) or not isinstance(code, int):
        raise TypeError(f"code must be an int, got {type(code).__name__}")
    # 1004 to 1006 and 1015 must not be sent (RFC 6455, 7.4.1); 1012 to 1014 are younger than the
    # RFC, and implementations that go by its letter fail the connection over them.
    if not (1000 <= code <= 1003 or 1007 <= code <= 1011 or 3000 <= code <= 4999):
        raise ValueError(f"code must be 1000-1003, 1007-1011 or 3000-4999, got {code!r}")


def _check_reason(reason: object) -> None:
    if not isinstance(reason, str):
        raise TypeError(f"reason must be a str, got {type(reason).__name__}")
    try:
        size = len(reason.encode())
    except UnicodeEncodeError as error:
        raise ValueError("reason must be encodable as UTF-8, got a lone surrogate") from error
    if size > MAX_REASON_BYTES:
        raise ValueError(f"reason must be at most {MAX_REASON_BYTES} bytes of UTF-8, got {size}")
