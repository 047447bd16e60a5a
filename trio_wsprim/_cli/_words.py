"""What is said of events: as JSON for scripts, in words for people. Pure; no secret comes in, so none goes out.

Urls come without user information and query, and errors are sentences that quote no header's value.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Final

from trio_wsprim._errors import ConnectionRejected
from trio_wsprim._values import (
    CloseEvent,
    ConnectEvent,
    DropEvent,
    EndEvent,
    ErrorEvent,
    Event,
    Message,
    MessageEvent,
    OpenEvent,
    ReadyState,
    RetryEvent,
    Statistics,
    describe_message,
)

# What moves the cursor, changes colours, or turns the direction of writing: a peer must not paint our terminal.
_UNSAFE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_SHOWN_BYTES: Final = 32


def safe(text: str) -> str:
    """Make a text safe for a terminal: control characters are written out."""
    return _UNSAFE.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def show_message(message: Message) -> str:
    """Give a message as a line for people; of a binary one, its size and its first bytes."""
    if isinstance(message, str):
        return message
    dots = "…" if len(message) > _SHOWN_BYTES else ""
    return f"({describe_message(message)}: {message[:_SHOWN_BYTES].hex(' ')}{dots})"


def json_line(event: Event, moment: float) -> str:
    """Give an event as one line of JSON, in ASCII.

    Args:
        event: What happened.
        moment: When, in seconds since 1970.
    """
    name = type(event).__name__.removesuffix("Event").lower()
    return json.dumps({"event": name, "time": round(moment, 3), **_fields(event)})


def _fields(event: Event) -> dict[str, object]:
    match event:
        case ConnectEvent(attempt, url):
            return {"attempt": attempt, "url": url}
        case OpenEvent(attempt, subprotocol):
            return {"attempt": attempt, "subprotocol": subprotocol}
        case MessageEvent(data):
            return _body(data)
        case ErrorEvent(error) | EndEvent(error):
            return {"error": _error(error)}
        case CloseEvent(code, reason, clean, error, unconfirmed):
            facts = {"code": code, "reason": reason, "clean": clean, "error": _error(error)}
            return {**facts, "unconfirmed": None if unconfirmed is None else len(unconfirmed)}
        case RetryEvent(attempt, delay, error):
            return {"attempt": attempt, "delay": round(delay, 3), "error": _error(error)}
        case DropEvent(message, why):
            return {"why": why, **_body(message)}
        case _:
            raise AssertionError(f"an event of a kind that there is not: {event!r}")


def _body(message: Message) -> dict[str, object]:
    return {"text": message} if isinstance(message, str) else {"base64": base64.b64encode(message).decode()}


def _error(error: BaseException | None) -> dict[str, object] | None:
    if error is None:
        return None
    facts: dict[str, object] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, ConnectionRejected):
        facts["status"] = error.status
    return facts


def note(event: Event) -> str:
    """Say in words what happened; empty for a message, which speaks for itself."""
    match event:
        case ConnectEvent(attempt, url):
            return f"connecting to {url} (attempt {attempt})"
        case OpenEvent(_, subprotocol):
            return "open" if subprotocol is None else f"open, subprotocol {subprotocol}"
        case MessageEvent():
            return ""
        case ErrorEvent(error):
            return f"no connection: {error}"
        case CloseEvent():
            return _note_close(event)
        case RetryEvent(attempt, delay, _):
            return f"next dial in {delay:.1f} s (attempt {attempt})"
        case DropEvent(message, why):
            return f"dropped ({why}): a {describe_message(message)}"
        case EndEvent(error):
            # What it was has been told, as a failed attempt or as a close.
            return "ended" if error is None else "gave up"
        case _:
            raise AssertionError(f"an event of a kind that there is not: {event!r}")


def _note_close(event: CloseEvent) -> str:
    # The reason is the peer's text: its repr keeps line breaks out.
    reason = f", reason {event.reason!r}" if event.reason else ""
    words = f"closed with code {event.code}{reason}" if event.error is None else f"closed: {event.error}"
    if event.unconfirmed:
        words += f"; without proof that they arrived: {count(len(event.unconfirmed), 'message')}"
    return words


def count(number: int, noun: str) -> str:
    """Write a number of things."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def milliseconds(latency: float) -> str:
    """Write a latency."""
    return f"latency {1000 * latency:.2f} ms"


def status(state: ReadyState, attempt: int, until_dial: float | None, numbers: Statistics) -> str:
    """Say how things stand, in one line.

    Args:
        state: Of the socket.
        attempt: Which dial in a row the present one is, or the coming one, while one is waited for.
        until_dial: Seconds until then; `None` if no dial is waited for.
        numbers: Of the socket.
    """
    parts = [state.name, f"attempt {attempt}"]
    if until_dial is not None:
        parts.append(f"next dial in {max(0.0, until_dial):.1f} s")
    if state is ReadyState.OPEN:
        parts.append("latency …" if numbers.latency is None else milliseconds(numbers.latency))
    parts.append(f"sent {numbers.messages_sent}")
    parts.append(f"received {numbers.messages_received}")
    if numbers.messages_buffered:
        parts.append(f"waiting {numbers.messages_buffered}")
    return "  ".join(parts)
