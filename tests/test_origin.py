"""Issue 2, point 10: what the origin's tests check, written anew, and its bugs, not carried over.

The origin is `@solid-primitives/websocket`.
"""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim import (
    Backoff,
    HeartbeatTimeout,
    MessageEvent,
    ReadyState,
    RetriesExhausted,
    create_event_signal,
    create_reconnecting_ws,
    create_ws,
    create_ws_state,
    make_heartbeat_ws,
    make_reconnecting_ws,
    make_ws,
)
from trio_wsprim.testing import MemoryNetwork, PeerClosed

from .sockets import URL, accept, reopening

# --- what its tests check ---


async def test_it_opens_and_goes_from_connecting_to_open(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        ws = make_ws(nursery, URL, open_stream=network.open_stream)
        assert ws.state.value == 0
        await accept(network, ws)
        assert ws.state.value == 1
        nursery.cancel_scope.cancel()


async def test_a_send_before_open_does_not_raise_and_arrives(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with create_ws(URL, open_stream=network.open_stream) as ws:
        await ws.send("it works")
        peer = await network.accept()
        await peer.accept()
        assert await peer.receive() == "it works"


async def test_leaving_the_scope_closes(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    for create in (create_ws, create_reconnecting_ws):
        async with trio.open_nursery() as nursery:
            async with create(URL, open_stream=network.open_stream) as ws:
                peer = await accept(network, ws)

                @nursery.start_soon
                async def hear() -> None:
                    with pytest.raises(PeerClosed):
                        await peer.receive()  # noqa: B023 - awaited before the next round

            assert ws.state.value == 3
    assert network.live == 0


async def test_the_state_signal_shows_0_1_2_3_in_turn(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    seen: list[int] = []
    async with trio.open_nursery() as nursery:
        ws = make_ws(nursery, URL, open_stream=network.open_stream)
        state = create_ws_state(ws)

        @nursery.start_soon
        async def watch() -> None:
            async for value in state.values():
                seen.append(int(value))

        peer = await accept(network, ws)
        await wait_all_tasks_blocked()
        nursery.start_soon(ws.aclose)
        await wait_all_tasks_blocked()
        nursery.start_soon(peer.serve_echo)
    assert seen == [0, 1, 2, 3]


async def test_it_reconnects_after_an_involuntary_end(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with reopening(network) as (ws, peer):
        peer.drop()
        await ws.state.wait_value(ReadyState.CLOSED)
        await accept(network, ws)


async def test_it_does_not_reconnect_after_our_own_close(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with reopening(network) as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(peer.serve_echo)
        await ws.aclose()
        await trio.sleep(1000)
    assert len(network.dials) == 1


async def test_the_heartbeat_message_goes_out_and_the_socket_stays_open(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        ws = make_heartbeat_ws(make_reconnecting_ws(nursery, URL, open_stream=network.open_stream))
        peer = await accept(network, ws)
        for _ in range(10):
            assert await peer.receive() == "ping"
            await peer.send("pong")
        assert ws.state.value is ReadyState.OPEN
        nursery.cancel_scope.cancel()
    assert len(network.dials) == 1


async def test_a_missing_answer_makes_it_reconnect(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        ws = make_heartbeat_ws(make_reconnecting_ws(nursery, URL, open_stream=network.open_stream))
        peer = await accept(network, ws)
        assert await peer.receive() == "ping"
        await ws.state.wait_value(ReadyState.CLOSED)
        assert isinstance(ws.statistics().last_error, HeartbeatTimeout)
        await accept(network, ws)
        nursery.cancel_scope.cancel()


async def test_the_last_message_and_an_event_signal(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with create_ws(URL, open_stream=network.open_stream) as ws:
        signal = create_event_signal(ws, MessageEvent)
        peer = await accept(network, ws)
        await peer.send("hello")
        await ws.message.wait_value("hello")
        assert signal.value is not None
        assert signal.value.data == "hello"


# --- its bugs ---


async def test_closing_during_a_wait_sticks(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with reopening(network, delay=5.0) as (ws, peer):
        peer.drop()
        await ws.state.wait_value(ReadyState.CLOSED)
        await ws.aclose()
        await trio.sleep(1000)
        assert ws.state.value is ReadyState.CLOSED
    assert len(network.dials) == 1


async def test_retries_0_means_none(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with reopening(network, retries=0) as (ws, peer):
        peer.drop()
        with pytest.raises(RetriesExhausted):
            await ws.receive()
        await trio.sleep(1000)
    assert len(network.dials) == 1


async def test_the_retry_count_starts_over_after_a_healthy_uptime(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with reopening(network, retries=1, delay=Backoff(first=1, jitter=0)) as (ws, peer):
        for _ in range(10):
            await trio.sleep(6)
            peer.drop()
            await ws.state.wait_value(ReadyState.CLOSED)
            peer = await accept(network, ws)
    assert len(network.dials) == 11


async def test_an_unanswered_ordinary_send_does_not_reconnect(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with reopening(network) as (ws, peer):
        make_heartbeat_ws(ws, interval=100, wait=1)
        await ws.send("no answer to this")
        await trio.sleep(50)
        assert ws.state.value is ReadyState.OPEN
        assert await peer.receive() == "no answer to this"
    assert len(network.dials) == 1


async def test_the_state_never_lies_while_reconnecting(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with reopening(network, delay=5.0) as (ws, peer):
        network.delay(5)
        peer.drop()
        seen = {}
        for second in range(12):
            await wait_all_tasks_blocked()
            seen[second] = ws.state.value
            if second == 10:
                await accept(network, ws)
            await trio.sleep(1)
    assert [seen[second] for second in range(5)] == [ReadyState.CLOSED] * 5
    assert [seen[second] for second in range(6, 10)] == [ReadyState.CONNECTING] * 4
    assert seen[11] is ReadyState.OPEN


async def test_a_send_after_the_end_raises(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with reopening(network) as (ws, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.serve_echo)
            await ws.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await ws.send("x")
        with pytest.raises(trio.ClosedResourceError):
            ws.reconnect()
