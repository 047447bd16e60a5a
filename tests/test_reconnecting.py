"""SPEC, section 6: when a reconnecting socket dials again, and what its user sees of it."""

from __future__ import annotations

import email.utils
import logging
import time
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice, pairwise
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim import (
    Backoff,
    Buffer,
    CloseEvent,
    ConnectionClosed,
    ConnectionFailed,
    ConnectionRejected,
    ErrorEvent,
    Event,
    HeartbeatTimeout,
    OpenEvent,
    ReadyState,
    RetriesExhausted,
    RetryEvent,
    create_reconnecting_ws,
    make_heartbeat_ws,
    make_reconnecting_ws,
)
from trio_wsprim.testing import MemoryNetwork, Peer, PeerClosed

from .sockets import URL, accept, drain, kinds, reopening, taken


async def test_it_dials_again_after_a_drop(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with reopening(network) as (ws, peer):
        for end in (Peer.drop, Peer.reset, Peer.drop):
            end(peer)
            await ws.state.wait_value(ReadyState.CLOSED)
            peer = await accept(network, ws)
        await ws.send("there")
        assert await peer.receive() == "there"
    assert [dial.time for dial in network.dials] == [0, 1, 2, 3]
    assert network.most_live == 1
    assert network.live == 0


async def test_waits_are_those_of_the_backoff(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse(6)
    backoff = Backoff(first=1, factor=3, maximum=40, jitter=0.5, rng=Random(5))
    waits = list(islice(Backoff(first=1, factor=3, maximum=40, jitter=0.5, rng=Random(5)).delays(), 6))
    async with create_reconnecting_ws(URL, open_stream=network.open_stream, delay=backoff) as ws:
        await accept(network, ws)
    times = [dial.time for dial in network.dials]
    assert [b - a for a, b in pairwise(times)] == pytest.approx(waits)


async def test_the_default_waits_are_those_of_a_default_backoff(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse(12)
    async with create_reconnecting_ws(URL, open_stream=network.open_stream) as ws:
        await accept(network, ws)
    times = [dial.time for dial in network.dials]
    for n, (a, b) in enumerate(pairwise(times)):
        ceiling = min(30.0, 0.5 * 2.0**n)
        assert ceiling / 2 - 1e-9 <= b - a <= ceiling + 1e-9


@pytest.mark.parametrize("code", [1000, 1001, None, 1011, 1012, 1013, 1014, 3000, 3999])
async def test_these_closes_are_a_reason_to_reconnect(code: int | None, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with reopening(network) as (ws, peer):
        await peer.send_close(code)
        await ws.state.wait_value(ReadyState.CLOSED)
        await accept(network, ws)


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009, 1010, 4000, 4999])
async def test_these_closes_are_the_end(code: int, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with reopening(network) as (ws, peer):
        await peer.send_close(code, "no")
        with pytest.raises(ConnectionClosed) as caught:
            await ws.receive()
        assert (caught.value.code, caught.value.reason) == (code, "no")
    assert len(network.dials) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_these_answers_are_retried(status: int, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with create_reconnecting_ws(URL, open_stream=network.open_stream, delay=1.0) as ws:
        peer = await network.accept()
        await peer.reject(status)
        await accept(network, ws)


@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 403, 404, 410])
async def test_these_answers_are_the_end(status: int, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with create_reconnecting_ws(URL, open_stream=network.open_stream) as ws:
        peer = await network.accept()
        await peer.reject(status, body=b"" if status == 204 else b"because")
        with pytest.raises(ConnectionRejected) as caught:
            await ws.wait_open()
        assert caught.value.status == status
        assert caught.value.body == (b"" if status == 204 else b"because")
    assert len(network.dials) == 1


async def test_wrong_handshakes_are_the_end(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    wrongs: tuple[dict[str, Any], ...] = ({"accept_key": "wrong"}, {"subprotocol": "unrequested"})
    for wrong in wrongs:
        async with create_reconnecting_ws(URL, open_stream=network.open_stream) as ws:
            peer = await network.accept()
            await peer.accept(**wrong)
            with pytest.raises(ConnectionFailed):
                await ws.wait_open()


# --- counting ---


async def test_retries_0_means_none(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse()
    async with create_reconnecting_ws(URL, open_stream=network.open_stream, retries=0) as ws:
        with pytest.raises(RetriesExhausted) as caught:
            await ws.wait_open()
        assert caught.value.attempts == 1
        assert isinstance(caught.value.__cause__, ConnectionFailed)
        assert isinstance(caught.value.__cause__.__cause__, ConnectionRefusedError)
    async with reopening(network, retries=0) as (ws, peer):
        peer.drop()
        with pytest.raises(RetriesExhausted) as caught:
            await ws.receive()
        assert isinstance(caught.value.__cause__, ConnectionClosed)
    await trio.sleep(1000)
    assert len(network.dials) == 2


async def test_retries_is_the_number_of_dials_in_a_row_after_a_failure(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse(3, OSError("always the same"))
    async with create_reconnecting_ws(URL, open_stream=network.open_stream, retries=2, delay=1.0) as ws:
        with pytest.raises(RetriesExhausted) as caught:
            await ws.receive()
        assert caught.value.attempts == 3
        assert [dial.time for dial in network.dials] == [0, 1, 2]
        with pytest.raises(trio.ClosedResourceError):
            ws.reconnect()


async def test_retries_start_over_only_after_min_uptime(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    events: list[Event] = []
    backoff = Backoff(first=1, factor=2, jitter=0)
    async with create_reconnecting_ws(URL, open_stream=network.open_stream, retries=2, delay=backoff) as ws:
        async with ws.events() as channel:
            for uptime in (1, 6, 1, 4.9):
                peer = await accept(network, ws)
                await trio.sleep(uptime)
                peer.drop()
                await ws.state.wait_value(ReadyState.CLOSED)
            events = await drain(channel)
        with pytest.raises(RetriesExhausted):
            await ws.receive()
    assert [event.attempt for event in events if isinstance(event, OpenEvent)] == [1, 2, 1, 2]
    retries = [(event.attempt, event.delay) for event in events if isinstance(event, RetryEvent)]
    assert retries == [(2, 1.0), (1, 1.0), (2, 2.0)]


async def test_min_uptime_0_starts_over_each_time(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with reopening(network, retries=1, min_uptime=0, delay=Backoff(first=1, jitter=0)) as (ws, peer):
        for _ in range(5):
            peer.drop()
            await ws.state.wait_value(ReadyState.CLOSED)
            peer = await accept(network, ws)
    assert [dial.time for dial in network.dials] == [0, 1, 2, 3, 4, 5]


# --- retry_if ---


async def test_retry_if_decides(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse(2)
    asked: list[Exception] = []
    answers: list[bool | None] = [True, None, True, False]

    def retry_if(error: Exception) -> bool | None:
        asked.append(error)
        return answers.pop(0)

    async with create_reconnecting_ws(URL, open_stream=network.open_stream, retry_if=retry_if, delay=1.0) as ws:
        peer = await accept(network, ws)
        await peer.send_close(4000)  # fatal by default
        await ws.state.wait_value(ReadyState.CLOSED)
        peer = await accept(network, ws)
        await peer.send_close(1012)  # retried by default
        with pytest.raises(ConnectionClosed) as caught:
            await ws.receive()
        assert caught.value.code == 1012
    assert [type(error) for error in asked] == [ConnectionFailed] * 2 + [ConnectionClosed] * 2


async def test_retry_if_is_not_asked_about_our_own_doing(autojump_clock: MockClock) -> None:
    def retry_if(error: Exception) -> bool | None:
        raise AssertionError(error)

    network = MemoryNetwork()
    async with reopening(network, retry_if=retry_if) as (ws, _):
        ws.reconnect()
        peer = await accept(network, ws)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.serve_echo)
            await ws.aclose()


async def test_a_normal_close_that_retry_if_makes_the_end_is_a_normal_end(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with reopening(network, retry_if=lambda error: False) as (ws, peer):
        await peer.send("1")
        await peer.send_close(1000)
        assert [message async for message in ws] == ["1"]
        with pytest.raises(ConnectionClosed):
            await ws.send("x")


@pytest.mark.parametrize("error", [ValueError("x"), ExceptionGroup("g", [KeyError("y")]), ConnectionClosed(1011)])
async def test_what_retry_if_raises_ends_the_socket_and_comes_out_as_it_is(
    error: Exception, autojump_clock: MockClock
) -> None:
    def retry_if(_: Exception) -> bool | None:
        raise error

    network = MemoryNetwork()
    for refused in (0, 1):
        network.refuse(refused)
        async with create_reconnecting_ws(URL, open_stream=network.open_stream, retry_if=retry_if) as ws:
            if not refused:
                peer = await accept(network, ws)
                peer.drop()
            for call in (ws.receive, ws.wait_open, ws.ping):
                with pytest.raises(type(error)) as caught:
                    await call()
                assert caught.value is error or isinstance(error, ConnectionClosed)
        network.refuse(refused)
        with pytest.raises(type(error)):
            async with create_reconnecting_ws(URL, open_stream=network.open_stream, retry_if=retry_if) as ws:
                if not refused:
                    peer = await accept(network, ws)
                    peer.drop()
                await ws.wait_closed()


# --- Retry-After ---


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("value", "wait"),
    [("7", 7), ("0", 1), ("0.5", 1), ("-5", 1), ("soon", 1), ("", 1), ("100000", 300), ("9" * 400, 300)],
)
async def test_retry_after_in_seconds(status: int, value: str, wait: float, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with create_reconnecting_ws(URL, open_stream=network.open_stream, delay=1.0) as ws:
        peer = await network.accept()
        await peer.reject(status, [("Retry-After", value)])
        await accept(network, ws)
    assert network.dials[1].time == pytest.approx(wait)


async def test_retry_after_as_a_date(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    now = 1_800_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    network = MemoryNetwork()
    for offset, wait in ((20, 20), (-20, 1)):
        date = email.utils.format_datetime(datetime.fromtimestamp(now + offset, UTC), usegmt=True)
        begun = trio.current_time()
        async with create_reconnecting_ws(URL, open_stream=network.open_stream, delay=1.0) as ws:
            peer = await network.accept()
            await peer.reject(503, [("Retry-After", date)])
            await accept(network, ws)
        assert network.dials[-1].time - begun == pytest.approx(wait)


async def test_retry_after_has_a_limit_that_can_be_moved(autojump_clock: MockClock) -> None:
    for limit, wait in ((10.0, 10.0), (None, 5000.0), (0.0, 1.0)):
        network = MemoryNetwork()
        begun = trio.current_time()
        async with create_reconnecting_ws(URL, open_stream=network.open_stream, delay=1.0, max_retry_after=limit) as ws:
            peer = await network.accept()
            await peer.reject(503, [("Retry-After", "5000")])
            await accept(network, ws)
        assert network.dials[1].time - begun == pytest.approx(wait)


async def test_a_backoff_longer_than_retry_after_counts(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with create_reconnecting_ws(URL, open_stream=network.open_stream, delay=9.0, max_retry_after=2.0) as ws:
        peer = await network.accept()
        await peer.reject(503, [("Retry-After", "3")])
        await accept(network, ws)
    assert network.dials[1].time == pytest.approx(9)


async def test_retry_after_means_nothing_on_other_answers(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with create_reconnecting_ws(URL, open_stream=network.open_stream, delay=1.0) as ws:
        peer = await network.accept()
        await peer.reject(500, [("Retry-After", "100")])
        await accept(network, ws)
    assert network.dials[1].time == pytest.approx(1)


# --- reconnect() ---


async def test_reconnect_while_open_dials_now_without_a_closing_handshake(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with reopening(network, delay=100) as (ws, peer), ws.events() as events:
        for _ in range(10):
            ws.reconnect()
        new = await accept(network, ws)
        assert trio.current_time() == 0
        assert kinds(taken(events)) == ["Close", "Connect", "Open"]
        with pytest.raises(trio.EndOfChannel):
            await peer.receive_frame()
        await ws.send("new")
        assert await new.receive() == "new"
    assert len(network.dials) == 2
    assert network.most_live == 1


async def test_reconnect_cuts_short_a_wait(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse(2)
    async with create_reconnecting_ws(URL, open_stream=network.open_stream, delay=100) as ws:
        await trio.sleep(10)
        ws.reconnect()
        ws.reconnect()
        await trio.sleep(1)
        assert [dial.time for dial in network.dials] == [0, 10]
        await accept(network, ws)
    assert [dial.time for dial in network.dials] == [0, 10, 110]


async def test_reconnect_cuts_short_an_attempt(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.stall(1)
    async with create_reconnecting_ws(URL, open_stream=network.open_stream, delay=100) as ws, ws.events() as events:
        await trio.sleep(2)
        ws.reconnect()
        ws.reconnect()
        await accept(network, ws)
        assert kinds(taken(events)) == ["Connect", "Connect", "Open"]
    assert [dial.time for dial in network.dials] == [0, 2]


async def test_reconnect_before_the_first_turn_dials_once(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with create_reconnecting_ws(URL, open_stream=network.open_stream) as ws:
        ws.reconnect()
        await accept(network, ws)
        await wait_all_tasks_blocked()
    assert len(network.dials) == 1


async def test_reconnect_while_the_peer_closes_does_not_wait(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(buffer_size=64)
    async with reopening(network, delay=100) as (ws, peer):
        await ws.send("x" * 100)
        await wait_all_tasks_blocked()
        await peer.send_close(1000)
        await ws.state.wait_value(ReadyState.CLOSING)
        begun = trio.current_time()
        ws.reconnect()
        peer = await accept(network, ws)
        assert trio.current_time() == begun
        assert await peer.receive() == "x" * 100


async def test_reconnect_in_the_very_moment_of_a_drop_skips_the_wait(autojump_clock: MockClock) -> None:
    for turns in range(12):
        network = MemoryNetwork()
        begun = trio.current_time()
        async with reopening(network, delay=100) as (ws, peer):
            peer.drop()
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            ws.reconnect()
            await ws.state.wait_value(ReadyState.CLOSED)
            await accept(network, ws)
            assert trio.current_time() == begun


async def test_reconnect_as_the_last_act_of_setup_drops_that_connection(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()

    async def setup(session: Any) -> None:
        if not asked:
            asked.append(session)
            ws.reconnect()

    asked: list[Any] = []
    async with create_reconnecting_ws(URL, open_stream=network.open_stream, setup=setup) as ws:
        first = await network.accept()
        await first.accept()
        await accept(network, ws)
        with pytest.raises(trio.EndOfChannel):
            await first.receive_frame()
    assert network.most_live == 1
    assert ws.statistics().connections == 1


@pytest.mark.parametrize("end", ["ours", "fatal", "exhausted", "cancelled", "closing"])
async def test_after_the_end_reconnect_is_a_closed_resource_error(end: str, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        ws = make_reconnecting_ws(nursery, URL, open_stream=network.open_stream, retries=0)
        peer = await accept(network, ws)
        if end == "closing":
            nursery.start_soon(ws.aclose)
            await wait_all_tasks_blocked()
        elif end == "cancelled":
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await ws.wait_closed()
        elif end == "ours":
            nursery.start_soon(peer.serve_echo)
            await ws.aclose()
        elif end == "fatal":
            await peer.send_close(4000)
            await ws.wait_closed()
        else:
            peer.drop()
            await ws.wait_closed()
        for _ in range(2):
            with pytest.raises(trio.ClosedResourceError):
                ws.reconnect()
    assert len(network.dials) == 1


# --- what survives ---


async def test_what_was_not_handed_over_goes_out_on_the_next_connection(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with reopening(network) as (ws, peer):
        await ws.send("1")
        assert await peer.receive() == "1"
        peer.drop()
        await ws.state.wait_value(ReadyState.CLOSED)
        await ws.send("2")
        await ws.send("3")
        peer = await accept(network, ws)
        assert await peer.receive_all(2) == ["2", "3"]
        await ws.send("4")
        assert await peer.receive() == "4"


async def test_a_message_cut_short_is_sent_again_from_its_beginning(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(buffer_size=50)
    async with reopening(network) as (ws, peer):
        for letter in "abcde":
            await ws.send(letter * 20)  # 26 bytes each on the wire
        await wait_all_tasks_blocked()
        assert await peer.receive() == "a" * 20
        await wait_all_tasks_blocked()
        peer.reset()  # 100 bytes were taken: a, b and c whole, d begun
        peer = await accept(network, ws)
        assert await peer.receive_all(2) == ["d" * 20, "e" * 20]
        with trio.move_on_after(10) as patience:
            await peer.receive()
        assert patience.cancelled_caught
        assert ws.statistics().messages_sent == 5


async def test_reconnect_in_the_middle_of_a_message_sends_it_again(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(buffer_size=50)
    async with reopening(network) as (ws, _):
        await ws.send("x" * 100)
        await wait_all_tasks_blocked()
        ws.reconnect()
        peer = await accept(network, ws)
        assert await peer.receive() == "x" * 100


async def test_nothing_of_a_replaced_connection_reaches_the_user(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(buffer_size=32)
    async with reopening(network, inbox=Buffer(2)) as (ws, peer):
        with trio.move_on_after(1):
            for number in range(20):
                await peer.send(f"old {number}")
        read = ws.statistics().messages_received
        assert read < 10
        ws.reconnect()
        new = await accept(network, ws)
        await new.send("new")
        seen = [await ws.receive() for _ in range(read + 1)]
        assert seen == [*(f"old {number}" for number in range(read)), "new"]
        with trio.move_on_after(10) as patience:
            await ws.receive()
        assert patience.cancelled_caught


async def test_what_was_received_before_a_drop_can_still_be_read(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with reopening(network) as (ws, peer):
        await peer.send("before")
        peer.drop()
        peer = await accept(network, ws)
        await peer.send("after")
        assert [await ws.receive(), await ws.receive()] == ["before", "after"]


async def test_receivers_and_signals_outlive_reconnections(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    got: list[str | bytes] = []
    async with reopening(network) as (ws, peer), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                async for message in ws:
                    got.append(message)

        for number in range(3):
            await peer.send(str(number))
            await wait_all_tasks_blocked()
            peer.drop()
            peer = await accept(network, ws)
        nursery.start_soon(peer.serve_echo)
        await ws.aclose()
    assert got == ["0", "1", "2"]


async def test_never_two_connections_alive_at_once(autojump_clock: MockClock) -> None:
    rng = Random(11)
    network = MemoryNetwork()
    async with create_reconnecting_ws(
        URL, open_stream=network.open_stream, delay=Backoff(first=0.01, rng=Random(1)), connect_timeout=1
    ) as ws:
        for _ in range(200):
            match rng.randrange(5):
                case 0:
                    ws.reconnect()
                case 1:
                    network.refuse()
                    ws.reconnect()
                case 2:
                    network.stall()
                    ws.reconnect()
                case _:
                    with trio.move_on_after(2), suppress(trio.BrokenResourceError):
                        peer = await accept(network, ws)
                        if rng.random() < 0.5:
                            await peer.send_close()
                        else:
                            peer.reset()
            await trio.sleep(rng.random() * 0.1)
        with trio.CancelScope() as scope:
            scope.cancel()
            await ws.aclose()
    assert network.most_live == 1
    assert network.live == 0


async def test_its_state_tells_a_pause_from_dialing(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse()
    network.delay(3)
    async with create_reconnecting_ws(URL, open_stream=network.open_stream, delay=5.0) as ws:
        seen = [ws.state.value]
        for seconds in (2, 4):
            await trio.sleep(seconds)
            seen.append(ws.state.value)
        await accept(network, ws)
        seen.append(ws.state.value)
    assert seen == [ReadyState.CONNECTING, ReadyState.CLOSED, ReadyState.CONNECTING, ReadyState.OPEN]


async def test_a_failed_dial_that_will_be_retried_is_logged(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.INFO, "trio_wsprim")
    network = MemoryNetwork()
    network.refuse()
    async with create_reconnecting_ws(URL, open_stream=network.open_stream, delay=1.0) as ws:
        await accept(network, ws)
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert URL in caplog.text
    assert "refused" in caplog.text
    assert "1 s" in caplog.text


async def test_a_heartbeat_timeout_is_retried_and_told(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with reopening(network) as (ws, _), ws.events() as channel:
        make_heartbeat_ws(ws, message=None)
        await ws.state.wait_value(ReadyState.CLOSED)
        peer = await accept(network, ws)
        events = taken(channel)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.serve_echo)
            await trio.sleep(20)
            assert ws.state.value is ReadyState.OPEN
            await ws.aclose()
    close, retry = events[0], events[1]
    assert isinstance(close, CloseEvent)
    assert isinstance(close.error, HeartbeatTimeout)
    assert isinstance(retry, RetryEvent)
    assert retry.error is close.error
    assert (close.code, close.clean) == (1006, False)


async def test_statistics_over_all_connections(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse()
    async with create_reconnecting_ws(URL, open_stream=network.open_stream, delay=1.0) as ws, ws.events() as channel:
        assert ws.statistics().uptime is None
        peer = await accept(network, ws)
        await trio.sleep(3)
        assert ws.statistics().uptime == pytest.approx(3)
        await ws.send("é")
        await peer.send("abc")
        assert await ws.receive() == "abc"
        peer.drop()
        peer = await accept(network, ws)
        await ws.send("xyz")
        assert await peer.receive() == "xyz"
        numbers = ws.statistics()
        assert (numbers.attempts, numbers.connections) == (3, 2)
        assert (numbers.messages_sent, numbers.bytes_sent) == (2, 5)
        assert (numbers.messages_received, numbers.bytes_received) == (1, 3)
        assert (numbers.messages_buffered, numbers.bytes_buffered, numbers.messages_unconfirmed) == (0, 0, 0)
        assert isinstance(numbers.last_error, ConnectionClosed)
        errors = [event.error for event in taken(channel) if isinstance(event, ErrorEvent)]
        assert len(errors) == 1
        with pytest.raises(AttributeError):
            numbers.attempts = 5  # type: ignore[misc]


async def test_what_is_told_of_a_connection_is_of_the_present_or_latest_one(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with create_reconnecting_ws(URL, ["a", "b"], open_stream=network.open_stream, delay=1.0) as ws:
        for name in ("a", "b"):
            peer = await network.accept()
            await peer.accept(name, [("X-Name", name)])
            await ws.wait_open()
            assert ws.latency is None
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.serve_echo)
                await ws.ping()
                nursery.cancel_scope.cancel()
            peer.drop()
            await ws.state.wait_value(ReadyState.CLOSED)
            assert (ws.subprotocol, dict(ws.response_headers)["x-name"]) == (name, name)
            assert ws.statistics().latency == 0
        await ws.aclose()


async def test_a_close_of_ours_reaches_the_peer_of_the_latest_connection(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with reopening(network) as (ws, peer), trio.open_nursery() as nursery:
        peer.drop()
        peer = await accept(network, ws)
        nursery.start_soon(ws.aclose, 3001, "enough")
        with pytest.raises(PeerClosed) as caught:
            await peer.receive()
        assert (caught.value.code, caught.value.reason) == (3001, "enough")
