"""What is said of events."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from trio_wsprim import (
    CloseEvent,
    ConnectEvent,
    ConnectionClosed,
    ConnectionFailed,
    ConnectionRejected,
    DropEvent,
    EndEvent,
    ErrorEvent,
    Event,
    MessageEvent,
    OpenEvent,
    ReadyState,
    RetryEvent,
    Statistics,
)
from trio_wsprim._cli._words import count, json_line, note, safe, show_message, status

URL = "ws://example.test/"
LOST = ConnectionClosed(1006)
NUMBERS = Statistics(
    messages_sent=3,
    bytes_sent=30,
    messages_received=4,
    bytes_received=40,
    messages_buffered=0,
    bytes_buffered=0,
    messages_unconfirmed=0,
    messages_dropped=0,
    attempts=1,
    connections=1,
    uptime=1.0,
    latency=None,
    last_error=None,
)


@pytest.mark.parametrize(
    ("event", "fields", "words"),
    [
        (ConnectEvent(2, URL), {"attempt": 2, "url": URL}, f"connecting to {URL} (attempt 2)"),
        (OpenEvent(2, None), {"attempt": 2, "subprotocol": None}, "open"),
        (OpenEvent(2, "chat"), {"attempt": 2, "subprotocol": "chat"}, "open, subprotocol chat"),
        (MessageEvent("ü"), {"text": "ü"}, ""),
        (MessageEvent(b"\x00\xff"), {"base64": "AP8="}, ""),
        (
            ErrorEvent(ConnectionFailed("no way")),
            {"error": {"type": "ConnectionFailed", "message": "no way"}},
            "no connection: no way",
        ),
        (
            ErrorEvent(ConnectionRejected(503)),
            {"error": {"type": "ConnectionRejected", "message": str(ConnectionRejected(503)), "status": 503}},
            f"no connection: {ConnectionRejected(503)}",
        ),
        (
            CloseEvent(1000, "bye", clean=True),
            {"code": 1000, "reason": "bye", "clean": True, "error": None, "unconfirmed": None},
            "closed with code 1000, reason 'bye'",
        ),
        (
            CloseEvent(1006, "", clean=False, error=LOST, unconfirmed=("a", b"b")),
            {
                "code": 1006,
                "reason": "",
                "clean": False,
                "error": {"type": "ConnectionClosed", "message": str(LOST)},
                "unconfirmed": 2,
            },
            f"closed: {LOST}; without proof that they arrived: 2 messages",
        ),
        (
            RetryEvent(3, 0.51234, None),
            {"attempt": 3, "delay": 0.512, "error": None},
            "next dial in 0.5 s (attempt 3)",
        ),
        (DropEvent("a", "full"), {"why": "full", "text": "a"}, "dropped (full): a text message of 1 bytes"),
        (EndEvent(None), {"error": None}, "ended"),
        (EndEvent(LOST), {"error": {"type": "ConnectionClosed", "message": str(LOST)}}, "gave up"),
    ],
)
def test_an_event_is_a_line_of_json_and_a_note(event: Event, fields: dict[str, object], words: str) -> None:
    line = json_line(event, 1.23456)

    name = type(event).__name__.removesuffix("Event").lower()
    assert json.loads(line) == {"event": name, "time": 1.235, **fields}
    assert line.isascii()
    assert "\n" not in line
    assert note(event) == words


def test_control_characters_are_written_out() -> None:
    assert safe("a\tb\nc\x1b[2Jd\re\x9bf\u202eg é€") == "a\tb\nc\\x1b[2Jd\\re\\x9bf\\u202eg é€"


def test_of_a_binary_message_the_beginning_is_shown() -> None:
    assert show_message("text") == "text"
    assert show_message(b"\x01\xff") == "(binary message of 2 bytes: 01 ff)"
    assert show_message(bytes(33)).endswith("00…)")


def test_the_status_tells_state_attempt_next_dial_and_latency() -> None:
    measured = replace(NUMBERS, latency=0.00123, messages_buffered=2)

    assert status(ReadyState.OPEN, 1, None, NUMBERS) == "OPEN  attempt 1  latency …  sent 3  received 4"
    assert status(ReadyState.OPEN, 1, None, measured) == (
        "OPEN  attempt 1  latency 1.23 ms  sent 3  received 4  waiting 2"
    )
    assert status(ReadyState.CLOSED, 2, 2.34, measured) == (
        "CLOSED  attempt 2  next dial in 2.3 s  sent 3  received 4  waiting 2"
    )
    assert "next dial in 0.0 s" in status(ReadyState.CLOSED, 2, -1.0, NUMBERS)


def test_one_of_a_thing_is_not_several() -> None:
    assert (count(1, "line"), count(2, "line")) == ("1 line", "2 lines")
