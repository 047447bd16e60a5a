import math
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_wsprim._errors import (
    ConnectionClosed,
    ConnectionFailed,
    ConnectionRejected,
    HeartbeatTimeout,
)
from trio_wsprim._retry import parse_retry_after, should_retry

NOW = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the RFC's own example


def failed_by(cause: BaseException) -> ConnectionFailed:
    error = ConnectionFailed("the attempt failed")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        ConnectionFailed("the host was not found"),
        failed_by(OSError("refused")),
        failed_by(ssl.SSLError("wrong version number")),
        failed_by(ConnectionClosed(1012)),
        HeartbeatTimeout(1.5),
        OSError("a url function failed"),
    ],
    ids=repr,
)
def test_what_may_pass_is_retried(error: BaseException) -> None:
    assert should_retry(error)


@pytest.mark.parametrize("status", [100, 408, 425, 429, 500, 502, 503, 504, 599])
def test_statuses_that_may_pass_are_retried(status: int) -> None:
    assert should_retry(ConnectionRejected(status))


@pytest.mark.parametrize("status", [200, 204, 301, 308, 400, 401, 403, 404, 426, 499])
def test_statuses_that_blame_the_request_are_not_retried(status: int) -> None:
    assert not should_retry(ConnectionRejected(status))


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 1011, 1012, 1013, 3000, 3999])
def test_closes_that_blame_nobody_are_retried(code: int) -> None:
    assert should_retry(ConnectionClosed(code))


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009, 1010, 4000, 4999])
def test_closes_that_blame_us_are_not_retried(code: int) -> None:
    assert not should_retry(ConnectionClosed(code))
    assert not should_retry(failed_by(ConnectionClosed(code)))


def test_permanent_failures_are_not_retried() -> None:
    assert not should_retry(ConnectionFailed("wrong accept key", permanent=True))


def test_a_rejection_marked_as_permanent_is_not_retried() -> None:
    error = ConnectionRejected(503)
    error.permanent = True

    assert not should_retry(error)


def test_a_bad_certificate_is_found_under_its_wrappings() -> None:
    assert not should_retry(failed_by(failed_by(ssl.SSLCertVerificationError("expired"))))


def test_a_bad_certificate_is_found_as_a_mere_context() -> None:
    error = failed_by(OSError("no TLS"))
    assert error.__cause__ is not None
    error.__cause__.__context__ = ssl.SSLCertVerificationError("wrong host name")

    assert not should_retry(error)


def test_a_context_that_was_hidden_does_not_count() -> None:
    error = ConnectionFailed("the second address did not answer either")
    error.__context__ = ssl.SSLCertVerificationError("expired")
    error.__suppress_context__ = True

    assert should_retry(error)


def test_causes_in_a_circle_come_to_an_end() -> None:
    error = failed_by(OSError("first"))
    assert error.__cause__ is not None
    error.__cause__.__cause__ = error

    assert should_retry(error)


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("120", 120.0),
        (" 0\t", 0.0),
        ("007", 7.0),
        ("Sun, 06 Nov 1994 08:49:47 GMT", 10.0),
        ("Sunday, 06-Nov-94 08:49:47 GMT", 10.0),
        ("Sun Nov  6 08:49:47 1994", 10.0),
        ("Sun, 06 Nov 1994 08:49:27 GMT", 0.0),
    ],
)
def test_both_forms_of_retry_after_are_read(value: str, wait: float) -> None:
    assert parse_retry_after(value, NOW) == wait


@pytest.mark.parametrize(
    "value",
    [
        "",
        "-5",
        "1.5",
        "1e3",
        "0x10",
        "120 s",
        "٣",
        "soon",
        "Sun, 99 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 +9999",
        "Sun, 06 Nov 99999999999999999999 08:49:37 GMT",
    ],
)
def test_nonsense_in_retry_after_is_ignored(value: str) -> None:
    assert parse_retry_after(value, NOW) is None


def test_an_enormous_retry_after_stays_finite() -> None:
    wait = parse_retry_after("9" * 10_000, NOW)

    assert wait is not None
    assert math.isfinite(wait)


date_parts = st.sampled_from(["Sun", "Sun,", "06", "Nov", "1994", "08:49:37", "GMT", "-", ":", "9"])
dates = st.lists(date_parts | st.text(max_size=3), max_size=9).map(" ".join)


@given(value=st.text() | dates | st.integers().map(str))
def test_whatever_the_server_says_is_a_finite_wait_or_nothing(value: str) -> None:
    wait = parse_retry_after(value, NOW)

    assert wait is None or 0 <= wait < math.inf
