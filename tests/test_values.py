import copy
import dataclasses
import math
import pickle

import pytest

from trio_wsprim._values import (
    Buffer,
    CloseEvent,
    ConnectEvent,
    DropEvent,
    EndEvent,
    ErrorEvent,
    Event,
    MessageEvent,
    OpenEvent,
    ReadyState,
    RetryEvent,
    Statistics,
    Undelivered,
    check_choice,
    check_count,
    check_number,
    check_seconds,
    describe_message,
)

ERROR = OSError("refused")
EVENTS = [
    ConnectEvent(1, "ws://host/"),
    OpenEvent(1, None),
    MessageEvent("hello"),
    ErrorEvent(ERROR),
    CloseEvent(1006, "", False, ERROR, ("lost",)),
    RetryEvent(2, 0.5, ERROR),
    DropEvent(b"\x00", "expired"),
    EndEvent(None),
]


def test_ready_states_have_the_numbers_of_the_dom() -> None:
    assert [(state.name, state) for state in ReadyState] == [
        ("CONNECTING", 0),
        ("OPEN", 1),
        ("CLOSING", 2),
        ("CLOSED", 3),
    ]


def test_a_buffer_has_the_documented_defaults() -> None:
    assert Buffer() == Buffer(1024, 16 * 2**20, "wait")


def test_a_buffer_may_have_no_limits() -> None:
    assert Buffer(None, None, "drop_oldest").max_bytes is None


@pytest.mark.parametrize("value", [True, 1.5, "8", math.inf])
def test_a_buffer_refuses_limits_that_are_no_counts(value: object) -> None:
    with pytest.raises(TypeError, match="max_messages must be a whole number, at least 1, or None"):
        Buffer(value)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="max_bytes must be"):
        Buffer(max_bytes=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, -1])
def test_a_buffer_refuses_to_hold_nothing(value: int) -> None:
    with pytest.raises(ValueError, match=f"max_messages must be .*, got {value}"):
        Buffer(value)
    with pytest.raises(ValueError, match=f"max_bytes must be .*, got {value}"):
        Buffer(max_bytes=value)


@pytest.mark.parametrize("word", ["block", "", None, ["wait"]])
def test_a_buffer_refuses_unknown_policies(word: object) -> None:
    with pytest.raises(ValueError, match="when_full must be one of 'wait', 'error'"):
        Buffer(when_full=word)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("größe", "text message of 7 bytes"),
        ("\ud800", "text message of 3 bytes"),
        (b"\x00\xff", "binary message of 2 bytes"),
    ],
)
def test_a_message_is_described_by_kind_and_size(message: str | bytes, words: str) -> None:
    assert describe_message(message) == words


def test_the_repr_of_an_undelivered_message_does_not_tell_its_body() -> None:
    assert repr(Undelivered("secret", "unsent")) == ("<Undelivered text message of 6 bytes, unsent>")


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_are_frozen_and_can_be_copied(event: Event) -> None:
    field = dataclasses.fields(event)[0].name

    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(event, field, None)

    assert copy.copy(event) == event
    assert not hasattr(event, "__dict__")


def test_events_without_errors_pickle() -> None:
    event = CloseEvent(1000, "bye", True)

    assert pickle.loads(pickle.dumps(event)) == event
    assert (event.error, event.unconfirmed) == (None, None)


def test_statistics_hold_what_the_contract_lists() -> None:
    assert [field.name for field in dataclasses.fields(Statistics)] == [
        "messages_sent",
        "bytes_sent",
        "messages_received",
        "bytes_received",
        "messages_buffered",
        "bytes_buffered",
        "messages_unconfirmed",
        "messages_dropped",
        "attempts",
        "connections",
        "uptime",
        "latency",
        "last_error",
    ]


@pytest.mark.parametrize("value", [0, 0.0, 5e-324, 3, 1e308])
def test_finite_seconds_are_good(value: float) -> None:
    check_seconds("wait", value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, -0.001, 10**400])
def test_seconds_out_of_range_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="wait must be a finite number of seconds, 0 or more, got"):
        check_seconds("wait", value)


@pytest.mark.parametrize("value", [0, 0.0, -0.0, math.nan])
def test_zero_seconds_are_refused_where_they_make_no_sense(value: float) -> None:
    with pytest.raises(ValueError, match=r"interval must be .*, more than 0, got"):
        check_seconds("interval", value, zero=False)


def test_no_limit_on_seconds_is_good_only_where_asked_for() -> None:
    check_seconds("wait", None, none=True)

    with pytest.raises(TypeError, match=r"wait must be .*, got NoneType"):
        check_seconds("wait", None)


@pytest.mark.parametrize("value", [True, "1", 1j])
def test_seconds_that_are_no_numbers_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match="or None, got"):
        check_seconds("wait", value, none=True)


@pytest.mark.parametrize("value", [0, 0.5, 1])
def test_numbers_in_range_are_good(value: float) -> None:
    check_number("jitter", value, least=0, most=1)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_numbers_out_of_range_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="jitter must be a number from 0 to 1, got"):
        check_number("jitter", value, least=0, most=1)


@pytest.mark.parametrize("value", [0.9, math.inf])
def test_numbers_without_an_upper_end_must_still_be_finite(value: float) -> None:
    with pytest.raises(ValueError, match="factor must be a finite number, at least 1, got"):
        check_number("factor", value, least=1)


def test_special_counts_are_good_only_where_asked_for() -> None:
    check_count("retries", None, none=True)
    check_count("max_buffer_size", math.inf, inf=True)

    with pytest.raises(TypeError, match="retries must be a whole number, at least 0, got NoneType"):
        check_count("retries", None)
    with pytest.raises(TypeError, match=r"size must be .*, or math.inf, or None, got float"):
        check_count("size", -math.inf, none=True, inf=True)


def test_counts_below_the_least_are_refused() -> None:
    check_count("retries", 0)

    with pytest.raises(ValueError, match="retries must be a whole number, at least 0, got -1"):
        check_count("retries", -1)


def test_words_that_are_no_choice_are_refused() -> None:
    check_choice("resend", "unsent", ("unsent", "unconfirmed"))

    with pytest.raises(ValueError, match="resend must be one of 'unsent', 'unconfirmed', got 'x'"):
        check_choice("resend", "x", ("unsent", "unconfirmed"))
