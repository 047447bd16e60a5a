import logging

import pytest
import trio
from trio.testing import MockClock

from trio_wsprim._endpoint import End, Endpoint, closed_by_us
from trio_wsprim._errors import ConnectionClosed, ConnectionFailed
from trio_wsprim._options import Settings
from trio_wsprim._room import message_size
from trio_wsprim._urls import parse_url
from trio_wsprim._values import (
    Buffer,
    CloseEvent,
    DropEvent,
    EndEvent,
    ErrorEvent,
    Event,
    Message,
    OpenEvent,
    ReadyState,
    Undelivered,
)

BUFFER = Buffer()
LOST = ConnectionClosed(1006)
FAILED = ConnectionFailed("refused")


def endpoint(url: str = "ws://me:secret@example.test/?token", inbox: Buffer | None = BUFFER) -> Endpoint:
    return Endpoint(
        Settings(url=parse_url(url), inbox=inbox, outbox=Buffer(max_messages=2, when_full="drop_oldest")), resends=False
    )


def end(error: BaseException | None = None, *, code: int = 1006, ours: bool = False) -> End:
    return End(CloseEvent(code, "", clean=code != 1006, error=error), error, ours)


# ------------------------------------------------------------------------------------ the end


def test_after_our_close_every_call_says_so() -> None:
    ours = end(ours=True)

    assert type(ours.for_sender()) is type(ours.for_receiver()) is trio.ClosedResourceError
    assert type(closed_by_us()) is trio.ClosedResourceError
    assert not ours.was_told


def test_after_a_normal_close_receivers_find_the_end_and_senders_an_error() -> None:
    normal = end(code=1001)

    assert type(normal.for_receiver()) is trio.EndOfChannel
    error = normal.for_sender()
    assert isinstance(error, ConnectionClosed)
    assert (error.code, error.clean) == (1001, True)


@pytest.mark.parametrize("error", [LOST, FAILED])
def test_after_any_other_end_both_get_a_copy_of_its_error(error: Exception) -> None:
    lost = end(error)
    assert not lost.was_told

    told = [lost.for_receiver(), lost.for_sender()]

    assert [type(each) for each in told] == [type(error)] * 2
    assert len({id(each) for each in (error, *told)}) == 3
    assert lost.was_told


def test_a_users_own_error_is_told_as_it_is() -> None:
    error = KeyError("theirs")

    assert end(error).for_sender() is error


async def test_finishing_ends_everything_and_says_so_once() -> None:
    parts = endpoint()
    opened = parts.hub.latest(OpenEvent)
    parts.outbox.put_nowait("left", None)
    parts.incoming.deliver(["unread"])
    assert parts.undelivered() == ()

    async with parts.hub.watch(10, "drop_oldest") as events:
        parts.finish(end(LOST))

        assert [event async for event in events] == [EndEvent(LOST)]

    assert parts.state.value is ReadyState.CLOSED
    assert await parts.wait_end() is parts.end
    assert parts.undelivered() == (Undelivered("left", "unsent"),)
    assert parts.incoming.inbox is not None
    assert await parts.incoming.inbox.receive() == "unread"
    with pytest.raises(ConnectionClosed):
        await parts.incoming.inbox.receive()
    with pytest.raises(ConnectionClosed):
        parts.outbox.put_nowait("a", None)
    with pytest.raises(trio.EndOfChannel):
        await parts.state.signal.wait_value(ReadyState.OPEN)
    with pytest.raises(trio.EndOfChannel):
        await opened.wait_value(OpenEvent(1, None))


async def test_when_we_close_what_is_unread_is_gone() -> None:
    parts = endpoint()
    parts.incoming.deliver(["unread"])

    parts.finish(end(ours=True))

    assert parts.incoming.inbox is not None
    with pytest.raises(trio.ClosedResourceError):
        await parts.incoming.inbox.receive()


def test_finishing_works_without_an_inbox_too() -> None:
    parts = endpoint(inbox=None)

    parts.finish(end(ours=True))

    assert parts.end is not None


# ------------------------------------------------------------------------------------ state and events


def test_a_socket_begins_as_connecting_and_shows_its_url_without_secrets() -> None:
    parts = endpoint()

    assert parts.state.value is ReadyState.CONNECTING
    assert parts.facts.url == "ws://example.test/?…"


def test_a_url_that_a_function_will_say_is_empty_at_first() -> None:
    assert Endpoint(Settings(url=lambda: "ws://example.test/"), resends=False).facts.url == ""


def test_moving_to_the_present_state_is_no_change() -> None:
    parts = endpoint()
    before = parts.state.version

    parts.move(ReadyState.CONNECTING)
    assert parts.state.version == before
    parts.move(ReadyState.OPEN)

    assert parts.state.version == before + 1


def test_an_illegal_move_is_our_bug() -> None:
    parts = endpoint()
    parts.move(ReadyState.CLOSED)

    with pytest.raises(AssertionError, match="illegal move: CLOSED -> OPEN"):
        parts.move(ReadyState.OPEN)


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (ErrorEvent(FAILED), FAILED),
        (CloseEvent(1006, "", clean=False, error=LOST), LOST),
        (CloseEvent(1000, "", clean=True), None),
        (OpenEvent(1, None), None),
    ],
)
def test_events_that_tell_of_errors_are_remembered(event: Event, error: Exception | None) -> None:
    parts = endpoint()

    parts.emit(event)

    assert parts.statistics().last_error is error


# ------------------------------------------------------------------------------------ drops and numbers


async def test_drops_are_counted_reported_and_logged_but_never_quoted(caplog: pytest.LogCaptureFixture) -> None:
    parts = endpoint()
    caplog.set_level(logging.WARNING, "trio_wsprim.buffer")

    async with parts.hub.watch(10, "drop_oldest") as events:
        for message in ("body", b"body", "c"):
            parts.outbox.put_nowait(message, None)

        assert events.receive_nowait() == DropEvent("body", "full")

    assert parts.statistics().messages_dropped == 1
    assert "text message of 4 bytes dropped (full), 1 so far" in caplog.text
    assert "body" not in caplog.text.replace("bodies", "")
    assert "secret" not in caplog.text


async def test_a_flood_of_drops_does_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    parts = endpoint()
    caplog.set_level(logging.WARNING, "trio_wsprim.buffer")

    for number in range(1002):
        parts.outbox.put_nowait(str(number), None)

    assert parts.statistics().messages_dropped == 1000
    assert len(caplog.records) == 10


async def test_statistics_are_a_reading_of_all_parts(autojump_clock: MockClock) -> None:
    parts = endpoint()
    assert parts.statistics().uptime is None
    parts.facts.opened_at = trio.current_time()
    parts.facts.latency = 0.5
    parts.facts.attempts, parts.facts.connections = 3, 2
    parts.outbox.put_nowait("é", None)
    parts.outbox.take(10)
    parts.outbox.settle(1)
    parts.outbox.put_nowait("abc", None)
    parts.incoming.deliver([b"12345"])
    await trio.sleep(4)

    reading = parts.statistics()

    assert (reading.messages_sent, reading.bytes_sent) == (1, 2)
    assert (reading.messages_received, reading.bytes_received) == (1, 5)
    assert (reading.messages_buffered, reading.bytes_buffered) == (1, 3)
    assert (reading.attempts, reading.connections) == (3, 2)
    assert (reading.uptime, reading.latency) == (4, 0.5)
    assert (reading.messages_unconfirmed, reading.messages_dropped, reading.last_error) == (0, 0, None)


@pytest.mark.parametrize(
    "messages", [["a"] * 7, [b"\xff" * 3] * 5, ["é", "€", "a"] * 1000, ["é", b"\x00\x01"], ["", b""]]
)
async def test_statistics_of_batches_are_as_exact_as_of_single_messages(messages: list[Message]) -> None:
    size = sum(len(message.encode() if isinstance(message, str) else message) for message in messages)
    parts = Endpoint(
        Settings(url=parse_url("ws://example.test/"), inbox=Buffer(None, None), outbox=Buffer(None, None)),
        resends=False,
    )

    for message in messages:
        if not parts.outbox.put_quick(message, message_size(message)):
            parts.outbox.put_nowait(message, None)
    buffered = parts.statistics()
    while parts.outbox.has_waiting:
        parts.outbox.settle(len(parts.outbox.take(64 * 1024)))
    parts.incoming.deliver(messages)
    parts.incoming.deliver(messages)

    reading = parts.statistics()
    assert (buffered.messages_buffered, buffered.bytes_buffered) == (len(messages), size)
    assert (reading.messages_buffered, reading.bytes_buffered) == (0, 0)
    assert (reading.messages_sent, reading.bytes_sent) == (len(messages), size)
    assert (reading.messages_received, reading.bytes_received) == (2 * len(messages), 2 * size)
