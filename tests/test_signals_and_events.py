"""SPEC, sections 2 to 4: signals and events, and their exact sequences."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim import (
    Buffer,
    CloseEvent,
    ConnectEvent,
    ConnectionClosed,
    ConnectionFailed,
    DropEvent,
    EndEvent,
    ErrorEvent,
    MessageEvent,
    OpenEvent,
    ReadyState,
    RetriesExhausted,
    RetryEvent,
    Signal,
    WebSocket,
    create_event_signal,
    create_reconnecting_ws,
    create_ws,
    create_ws_state,
    make_reconnecting_ws,
    make_ws,
)
from trio_wsprim.testing import MemoryNetwork

from .sockets import URL, accept, drain, kinds, reopening, taken


async def watch_states(ws: WebSocket, into: list[ReadyState]) -> None:
    """Note every state, also one that lasts for less than a turn."""
    async for state in ws.state.values():
        into.append(state)


# --- events ---


async def test_open_and_close(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        ws = make_ws(nursery, URL, "chat", open_stream=network.open_stream)
        async with ws.events() as channel:
            peer = await accept(network, ws, "chat")
            await peer.send("hello")
            assert await ws.receive() == "hello"
            nursery.start_soon(peer.serve_echo)
            await ws.aclose()
            assert await drain(channel) == [
                ConnectEvent(1, URL),
                OpenEvent(1, "chat"),
                MessageEvent("hello"),
                CloseEvent(1000, "", clean=True),
                EndEvent(None),
            ]


async def test_a_close_by_the_peer(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        for code in (1000, 4000):
            ws = make_ws(nursery, URL, open_stream=network.open_stream)
            async with ws.events() as channel:
                peer = await accept(network, ws)
                await peer.send_close(code, "why")
                events = await drain(channel)
            assert kinds(events) == ["Connect", "Open", "Close", "End"]
            close, end = cast("CloseEvent", events[2]), cast("EndEvent", events[3])
            assert (close.code, close.reason, close.clean, close.unconfirmed) == (code, "why", True, None)
            assert (await ws.wait_closed()) == close
            if code == 1000:
                assert close.error is end.error is None
            else:
                assert isinstance(close.error, ConnectionClosed)
                assert isinstance(end.error, ConnectionClosed)


async def test_a_failed_attempt(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse()
    async with trio.open_nursery() as nursery:
        ws = make_ws(nursery, URL, open_stream=network.open_stream)
        async with ws.events() as channel:
            events = await drain(channel)
    assert kinds(events) == ["Connect", "Error", "End"]
    assert isinstance(cast("ErrorEvent", events[1]).error, ConnectionFailed)
    assert cast("EndEvent", events[2]).error is cast("ErrorEvent", events[1]).error


async def test_a_reconnection_after_a_drop(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        ws = make_reconnecting_ws(nursery, URL, open_stream=network.open_stream, delay=2.0)
        async with ws.events() as channel:
            peer = await accept(network, ws)
            network.refuse()
            peer.drop()
            await ws.state.wait_value(ReadyState.CLOSED)
            peer = await accept(network, ws)
            nursery.start_soon(peer.serve_echo)
            await ws.aclose()
            events = await drain(channel)
    assert kinds(events) == [
        *("Connect", "Open", "Close", "Retry"),
        *("Connect", "Error", "Retry"),
        *("Connect", "Open", "Close", "End"),
    ]
    assert [event.attempt for event in events if isinstance(event, ConnectEvent)] == [1, 2, 3]
    assert [event.attempt for event in events if isinstance(event, OpenEvent)] == [1, 3]
    assert [(event.attempt, event.delay) for event in events if isinstance(event, RetryEvent)] == [(2, 2.0), (3, 2.0)]
    assert isinstance(cast("RetryEvent", events[3]).error, ConnectionClosed)
    assert cast("CloseEvent", events[2]).code == 1006
    assert isinstance(cast("RetryEvent", events[6]).error, ConnectionFailed)
    assert cast("EndEvent", events[-1]).error is None


async def test_attempts_start_over_when_the_retries_do(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse()
    async with trio.open_nursery() as nursery:
        ws = make_reconnecting_ws(nursery, URL, open_stream=network.open_stream, delay=2.0, min_uptime=5)
        async with ws.events() as channel:
            peer = await accept(network, ws)
            await trio.sleep(5)
            peer.drop()
            await ws.state.wait_value(ReadyState.CLOSED)
            peer = await accept(network, ws)
            nursery.start_soon(peer.serve_echo)
            await ws.aclose()
            events = await drain(channel)
    numbers = [
        (kind, cast("Any", event).attempt)
        for kind, event in zip(kinds(events), events, strict=True)
        if hasattr(event, "attempt")
    ]
    assert numbers == [
        *(("Connect", 1), ("Retry", 2)),
        *(("Connect", 2), ("Open", 2), ("Retry", 1)),
        *(("Connect", 1), ("Open", 1)),
    ]


async def test_a_fatal_close_of_a_reconnecting_socket(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        ws = make_reconnecting_ws(nursery, URL, open_stream=network.open_stream)
        async with ws.events() as channel:
            peer = await accept(network, ws)
            await peer.send_close(4000)
            assert kinds(await drain(channel)) == ["Connect", "Open", "Close", "End"]


async def test_retries_that_run_out(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse(2)
    async with trio.open_nursery() as nursery:
        ws = make_reconnecting_ws(nursery, URL, open_stream=network.open_stream, retries=1)
        async with ws.events() as channel:
            events = await drain(channel)
    assert kinds(events) == ["Connect", "Error", "Retry", "Connect", "Error", "End"]
    error = cast("EndEvent", events[-1]).error
    assert isinstance(error, RetriesExhausted)
    assert error.__cause__ is cast("ErrorEvent", events[4]).error
    assert (await ws.wait_closed()).error is error


async def test_closing_in_a_pause(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse()
    async with trio.open_nursery() as nursery:
        ws = make_reconnecting_ws(nursery, URL, open_stream=network.open_stream, delay=9.0)
        async with ws.events() as channel:
            await trio.sleep(1)
            await ws.aclose()
            events = await drain(channel)
    assert kinds(events) == ["Connect", "Error", "Retry", "End"]
    assert events[-1] == EndEvent(None)


async def test_entered_first_thing_it_misses_none_and_ends_with_the_socket(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with create_ws(URL, open_stream=network.open_stream) as ws:
        async with ws.events() as one, ws.events(2) as newest, ws.events(2, when_full="drop_newest") as oldest:
            peer = await accept(network, ws)
            for number in range(3):
                await peer.send(str(number))
            await peer.send_close()
            await ws.wait_closed()
            assert kinds(await drain(one)) == ["Connect", "Open", *["Message"] * 3, "Close", "End"]
            assert kinds(await drain(newest)) == ["Close", "End"]
            assert kinds(await drain(oldest)) == ["Connect", "Open"]
        async with ws.events() as late:
            assert await drain(late) == []


async def test_watching_does_not_slow_the_watched(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with create_ws(URL, open_stream=network.open_stream, inbox=None) as ws, ws.events():
        peer = await accept(network, ws)
        for number in range(3000):
            await peer.send(str(number))
        await wait_all_tasks_blocked()
        assert ws.statistics().messages_received == 3000


async def end_by_us(ws: WebSocket, nursery: trio.Nursery, network: MemoryNetwork) -> None:
    await accept(network, ws)
    await ws.aclose()


async def end_by_cancellation(ws: WebSocket, nursery: trio.Nursery, network: MemoryNetwork) -> None:
    await accept(network, ws)
    nursery.cancel_scope.cancel()


async def end_by_the_peer(ws: WebSocket, nursery: trio.Nursery, network: MemoryNetwork) -> None:
    (await accept(network, ws)).drop()


async def never_begin(ws: WebSocket, nursery: trio.Nursery, network: MemoryNetwork) -> None:
    (await network.accept()).drop()


@pytest.mark.parametrize("end", [end_by_us, end_by_cancellation, end_by_the_peer, never_begin])
async def test_there_is_exactly_one_end_and_it_is_the_last(end: Any, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as outer, trio.open_nursery() as nursery:
        ws = make_ws(nursery, URL, open_stream=network.open_stream, close_timeout=1)
        seen = await _watch(outer, ws)
        await end(ws, nursery, network)
    assert seen.count("End") == 1
    assert seen[-1] == "End"


async def _watch(nursery: trio.Nursery, ws: WebSocket) -> list[str]:
    seen: list[str] = []

    async def watch(*, task_status: trio.TaskStatus[None]) -> None:
        async with ws.events() as channel:
            task_status.started()
            seen.extend(kinds(await drain(channel)))

    await nursery.start(watch)
    return seen


async def test_drops_are_events(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.stall()
    async with trio.open_nursery() as nursery:
        ws = make_ws(
            nursery, URL, open_stream=network.open_stream, outbox=Buffer(1, when_full="drop_oldest"), close_timeout=0
        )
        async with ws.events() as channel:
            await ws.send("1", ttl=5)
            await ws.send("2", ttl=5)
            await trio.sleep(6)
            drops = [event for event in taken(channel) if isinstance(event, DropEvent)]
            assert drops == [DropEvent("1", "full"), DropEvent("2", "expired")]
            await ws.aclose()


@pytest.mark.parametrize(
    ("event_class", "fields"),
    [
        (ConnectEvent, ["attempt", "url"]),
        (OpenEvent, ["attempt", "subprotocol"]),
        (MessageEvent, ["data"]),
        (ErrorEvent, ["error"]),
        (CloseEvent, ["code", "reason", "clean", "error", "unconfirmed"]),
        (RetryEvent, ["attempt", "delay", "error"]),
        (DropEvent, ["message", "why"]),
        (EndEvent, ["error"]),
    ],
)
def test_events_are_frozen_dataclasses_with_these_fields(event_class: Any, fields: list[str]) -> None:
    assert [field.name for field in dataclasses.fields(event_class)] == fields
    event = event_class(*[None] * len(fields))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(event, fields[0], 1)


# --- signals of events ---


async def test_a_signal_of_the_latest_event_of_each_class(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse()
    async with create_reconnecting_ws(
        URL, open_stream=network.open_stream, delay=1.0, retry_if=lambda error: True, close_timeout=0
    ) as ws:
        classes: list[Any] = [ConnectEvent, OpenEvent, MessageEvent, ErrorEvent, CloseEvent, RetryEvent, DropEvent]
        signals: dict[Any, Signal[Any]] = {each: create_event_signal(ws, each) for each in [*classes, EndEvent]}
        assert all(signal.value is None for signal in signals.values())
        peer = await accept(network, ws)
        assert signals[ConnectEvent].value == ConnectEvent(2, URL)
        assert signals[OpenEvent].value == OpenEvent(2, None)
        assert isinstance(signals[ErrorEvent].value.error, ConnectionFailed)
        assert signals[RetryEvent].value.attempt == 2
        await peer.send("hello")
        assert await signals[MessageEvent].wait_value(lambda event: event is not None) == MessageEvent("hello")
        peer.drop()
        await ws.state.wait_value(ReadyState.CLOSED)
        assert signals[CloseEvent].value.code == 1006
        await ws.send("x", ttl=0)
        assert signals[DropEvent].value == DropEvent("x", "expired")
        assert signals[EndEvent].value is None
        await ws.aclose()
        assert signals[EndEvent].value == EndEvent(None)
        with pytest.raises(trio.EndOfChannel):
            await signals[MessageEvent].wait_value(MessageEvent("other"))
        assert [value async for value in signals[MessageEvent].values()] == [MessageEvent("hello")]
        late = create_event_signal(ws, OpenEvent)
        assert late.value == signals[OpenEvent].value


async def test_an_event_signal_wants_an_event_class(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        ws = make_ws(nursery, URL, open_stream=network.open_stream)
        for wrong in ("message", str, 5):
            with pytest.raises(TypeError, match="event_class"):
                create_event_signal(ws, cast("Any", wrong))
        nursery.cancel_scope.cancel()


# --- the state ---


async def test_the_state_signal(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    seen: list[ReadyState] = []
    async with trio.open_nursery() as nursery:
        ws = make_ws(nursery, URL, open_stream=network.open_stream)
        state = create_ws_state(ws)
        assert state.value == ws.state.value == 0
        nursery.start_soon(watch_states, ws, seen)
        peer = await accept(network, ws)
        await wait_all_tasks_blocked()
        nursery.start_soon(ws.aclose)
        await wait_all_tasks_blocked()
        nursery.start_soon(peer.serve_echo)
        assert await state.wait_value(ReadyState.CLOSED) == 3
    assert seen == [0, 1, 2, 3]


async def test_wait_value_sees_a_state_that_lasts_no_turn(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with reopening(network) as (ws, _), trio.open_nursery() as nursery:
        nursery.start_soon(ws.state.wait_value, ReadyState.CLOSED)
        nursery.start_soon(ws.state.wait_value, lambda state: state is ReadyState.CONNECTING)
        await wait_all_tasks_blocked()
        ws.reconnect()
        await accept(network, ws)


async def test_wait_value_held_for(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with reopening(network) as (ws, peer), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def wait() -> None:
            assert await ws.state.wait_value(ReadyState.OPEN, held_for=5) is ReadyState.OPEN
            assert trio.current_time() == pytest.approx(3 + 1 + 5)

        await trio.sleep(3)
        peer.drop()
        await ws.state.wait_value(ReadyState.CLOSED)
        await accept(network, ws)


async def test_wait_value_and_values_end_with_the_socket(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        ws = make_ws(nursery, URL, open_stream=network.open_stream)

        @nursery.start_soon
        async def wait() -> None:
            with pytest.raises(trio.EndOfChannel):
                await ws.message.wait_value("never")

        peer = await accept(network, ws)
        await wait_all_tasks_blocked()
        peer.drop()
        await ws.wait_closed()
        with pytest.raises(trio.EndOfChannel):
            await ws.state.wait_value(ReadyState.OPEN)
        assert await ws.state.wait_value(ReadyState.CLOSED) is ReadyState.CLOSED
        assert [value async for value in ws.state.values()] == [ReadyState.CLOSED]


async def test_a_predicate_that_raises_hurts_only_its_own_task(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()

    def fail(state: ReadyState) -> bool:
        if state is ReadyState.OPEN:
            raise ValueError("mine")
        return False

    async with create_ws(URL, open_stream=network.open_stream) as ws, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def wait() -> None:
            with pytest.raises(ValueError, match="mine"):
                await ws.state.wait_value(fail)

        await accept(network, ws)
        assert ws.state.value is ReadyState.OPEN


async def test_the_repr_tells_state_and_url(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with reopening(network) as (ws, _):
        assert repr(ws) == f"<ReconnectingWebSocket OPEN {URL}>"
        assert repr(ws.state).startswith("<Signal")


def test_ready_states_have_the_numbers_of_the_dom() -> None:
    assert [(state.name, int(state)) for state in ReadyState] == [
        ("CONNECTING", 0),
        ("OPEN", 1),
        ("CLOSING", 2),
        ("CLOSED", 3),
    ]
