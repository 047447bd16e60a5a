import copy
import pickle
import traceback

import pytest
import trio

from trio_wsprim._errors import (
    BufferFull,
    ConnectionClosed,
    ConnectionFailed,
    ConnectionRejected,
    HeartbeatTimeout,
    MessageTooBig,
    RetriesExhausted,
    UndeliveredError,
    WebSocketError,
    fresh,
)
from trio_wsprim._values import Undelivered

UNDELIVERED = (Undelivered("s3cret", "unsent"), Undelivered(b"s3cret", "unconfirmed"))

CASES: list[tuple[WebSocketError, str]] = [
    (ConnectionFailed("the host was not found"), "the host was not found"),
    (ConnectionFailed("wrong accept key", permanent=True), "wrong accept key"),
    (
        ConnectionRejected(503, (("set-cookie", "s3cret"),), b"s3cret", 1.5),
        "the server answered HTTP 503 Service Unavailable, not a WebSocket",
    ),
    (ConnectionRejected(499), "the server answered HTTP 499, not a WebSocket"),
    (RetriesExhausted(0), "gave up with no retries left"),
    (RetriesExhausted(1), "gave up after 1 failed attempt in a row"),
    (RetriesExhausted(3), "gave up after 3 failed attempts in a row"),
    (
        ConnectionClosed(1008, "no\nway", True),
        r"the connection ended cleanly with code 1008 (policy violation), reason 'no\nway'",
    ),
    (ConnectionClosed(4001), "the connection ended abruptly with code 4001"),
    (ConnectionClosed(1006, message="the peer reset it"), "the peer reset it"),
    (HeartbeatTimeout(1.5), "the peer did not answer the heartbeat within 1.5 seconds"),
    (MessageTooBig(70, 64), "a message of 70 bytes is over the limit of 64 bytes"),
    (BufferFull("max_messages=8"), "the buffer is full (max_messages=8)"),
    (UndeliveredError(UNDELIVERED[:1]), "1 message not delivered: 1 unsent, 0 unconfirmed"),
    (UndeliveredError(UNDELIVERED), "2 messages not delivered: 1 unsent, 1 unconfirmed"),
]
each_error = pytest.mark.parametrize("error", [error for error, _ in CASES], ids=str)


@pytest.mark.parametrize(("error", "sentence"), CASES)
def test_each_error_says_a_sentence(error: WebSocketError, sentence: str) -> None:
    assert str(error) == sentence


@each_error
def test_no_error_tells_bodies_or_header_values(error: WebSocketError) -> None:
    assert "s3cret" not in f"{error} {error!r}"


@each_error
def test_each_error_pickles_with_its_facts(error: WebSocketError) -> None:
    restored = pickle.loads(pickle.dumps(error))

    assert type(restored) is type(error)
    assert str(restored) == str(error)
    assert vars(restored) == vars(error)


@each_error
def test_each_error_copies_with_its_facts(error: WebSocketError) -> None:
    copied = copy.copy(error)

    assert copied is not error
    assert type(copied) is type(error)
    assert (copied.args, vars(copied)) == (error.args, vars(error))


@pytest.mark.parametrize(
    ("child", "parent"),
    [
        (ConnectionFailed, WebSocketError),
        (ConnectionRejected, ConnectionFailed),
        (RetriesExhausted, ConnectionFailed),
        (ConnectionClosed, WebSocketError),
        (ConnectionClosed, trio.BrokenResourceError),
        (HeartbeatTimeout, ConnectionClosed),
        (MessageTooBig, WebSocketError),
        (MessageTooBig, ValueError),
        (BufferFull, WebSocketError),
        (BufferFull, trio.WouldBlock),
        (UndeliveredError, WebSocketError),
    ],
)
def test_errors_stand_where_the_contract_has_them(child: type, parent: type) -> None:
    assert issubclass(child, parent)


def test_errors_tell_their_facts() -> None:
    rejected = ConnectionRejected(429, (("retry-after", "3"),), b"slow down", 3.0)
    closed = ConnectionClosed(1001, "bye", True)
    timeout = HeartbeatTimeout(1.5)
    too_big = MessageTooBig(70, 64)

    assert (rejected.status, rejected.headers) == (429, (("retry-after", "3"),))
    assert (rejected.body, rejected.retry_after, rejected.permanent) == (b"slow down", 3.0, False)
    assert (closed.code, closed.reason, closed.clean) == (1001, "bye", True)
    assert (timeout.code, timeout.reason, timeout.clean, timeout.wait) == (1006, "", False, 1.5)
    assert (too_big.size, too_big.limit) == (70, 64)
    assert BufferFull("max_bytes=9").limit == "max_bytes=9"
    assert RetriesExhausted(3).attempts == 3
    assert ConnectionFailed("no", permanent=True).permanent
    assert UndeliveredError(UNDELIVERED).messages == UNDELIVERED


def raised(error: BaseException, cause: BaseException | None) -> None:
    with pytest.raises(type(error)):
        raise error from cause


def test_a_fresh_error_keeps_its_cause_but_no_traceback() -> None:
    stored = ConnectionFailed("no way in", permanent=True)
    cause = OSError("refused")
    raised(stored, cause)

    again = fresh(stored)

    assert again is not stored
    assert (again.args, again.permanent) == (("no way in",), True)
    assert again.__cause__ is cause
    assert again.__traceback__ is None


def test_raising_fresh_errors_leaves_the_stored_one_alone() -> None:
    stored = HeartbeatTimeout(1.5)

    for _ in range(3):
        raised(fresh(stored), None)

    assert traceback.extract_tb(stored.__traceback__) == []


@pytest.mark.parametrize("is_hidden", [True, False])
def test_a_fresh_error_hides_its_context_only_if_the_stored_one_does(is_hidden: bool) -> None:
    stored = ConnectionClosed(1006)
    stored.__suppress_context__ = is_hidden

    assert fresh(stored).__suppress_context__ is is_hidden


def test_notes_on_a_fresh_error_do_not_reach_the_stored_one() -> None:
    stored = ConnectionClosed(1006)
    stored.add_note("first")

    again = fresh(stored)
    again.add_note("second")

    assert again.__notes__ == ["first", "second"]
    assert stored.__notes__ == ["first"]


def test_errors_of_others_are_raised_as_they_are() -> None:
    error = KeyError("token")

    assert fresh(error) is error
