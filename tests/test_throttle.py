"""What peers can cause at will is told ten times in ten seconds, and then counted."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import MockClock

from trio_wsprim._throttle import ThrottledLog


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> ThrottledLog:
    caplog.set_level(logging.INFO, "test.throttle")
    return ThrottledLog(logging.getLogger("test.throttle"))


async def test_ten_records_go_through_and_no_more(
    log: ThrottledLog, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    for number in range(1000):
        log.tell(logging.INFO, "number %s", number)
    assert caplog.messages == [f"number {number}" for number in range(10)]


async def test_the_next_after_ten_seconds_tells_how_many_were_kept_back(
    log: ThrottledLog, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    for number in range(25):
        log.tell(logging.ERROR, "number %s", number)
        await trio.sleep(0.25)
    await trio.sleep(10)
    caplog.clear()

    log.tell(logging.INFO, "again")

    assert [(each.levelno, each.getMessage()) for each in caplog.records] == [
        (logging.WARNING, "15 more in the last 16.25 s"),
        (logging.INFO, "again"),
    ]
    for number in range(20):
        log.tell(logging.INFO, "number %s", number)
    assert caplog.messages[2:] == [f"number {number}" for number in range(9)]


async def test_nothing_is_told_of_none_kept_back(
    log: ThrottledLog, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    for _ in range(3):
        for number in range(10):
            log.tell(logging.INFO, "number %s", number)
        await trio.sleep(10)
    assert caplog.messages == [f"number {number}" for number in range(10)] * 3


async def test_just_below_ten_seconds_is_too_early(
    log: ThrottledLog, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    for _ in range(11):
        log.tell(logging.INFO, "x")
    await trio.sleep(9.75)
    log.tell(logging.INFO, "too early")
    await trio.sleep(0.25)
    log.tell(logging.INFO, "in time")
    assert caplog.messages[10:] == ["2 more in the last 10 s", "in time"]


async def test_what_nobody_listens_to_does_not_count(
    log: ThrottledLog, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    for _ in range(1000):
        log.tell(logging.DEBUG, "unheard")
    log.tell(logging.INFO, "heard")
    assert caplog.messages == ["heard"]


async def test_an_error_comes_with_its_traceback(
    log: ThrottledLog, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    error = ValueError("why")
    log.tell(logging.ERROR, "it %s", "failed", error=error)
    log.tell(logging.ERROR, "it failed without one")
    first, second = caplog.records
    assert first.getMessage() == "it failed"
    assert first.exc_info == (ValueError, error, error.__traceback__)
    assert not second.exc_info
