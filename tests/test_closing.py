"""SPEC, section 2: `aclose`, `undelivered`, `wait_closed`, and how the end of a block ends."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim import (
    CloseEvent,
    ConnectionClosed,
    ConnectionFailed,
    ReadyState,
    RetriesExhausted,
    Undelivered,
    UndeliveredError,
    create_reconnecting_ws,
    create_ws,
    make_reconnecting_ws,
    make_ws,
)
from trio_wsprim.testing import MemoryNetwork, Opcode, PeerClosed

from .sockets import URL, accept, kinds, opened, reopening, taken


def unsent(*messages: str) -> tuple[Undelivered, ...]:
    return tuple(Undelivered(message, "unsent") for message in messages)


async def test_aclose_does_the_closing_handshake(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, peer), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def serve() -> None:
            with pytest.raises(PeerClosed) as caught:
                await peer.receive()
            assert (caught.value.code, caught.value.reason) == (1000, "")

        await ws.aclose()
        assert ws.state.value is ReadyState.CLOSED
        assert await ws.wait_closed() == CloseEvent(1000, "", clean=True)
        assert trio.current_time() < 0.1


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 4000, 4999])
async def test_code_and_reason_reach_the_peer(code: int, autojump_clock: MockClock) -> None:
    reason = "é" * 61 + "x"  # 123 bytes
    async with opened(MemoryNetwork()) as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(ws.aclose, code, reason)
        with pytest.raises(PeerClosed) as caught:
            await peer.receive()
        assert (caught.value.code, caught.value.reason) == (code, reason)
        assert (await ws.wait_closed()).code == code


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1005, 1006, 1012, 1013, 1014, 1015, 1016, 2999, 5000])
async def test_a_bad_code_is_a_value_error_and_closes_nothing(code: int, autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, peer):
        with pytest.raises(ValueError, match="code"):
            await ws.aclose(code)
        with pytest.raises(ValueError, match="reason"):
            await ws.aclose(1000, "x" * 124)
        with pytest.raises(ValueError, match="reason"):
            await ws.aclose(reason="é" * 62)
        assert ws.state.value is ReadyState.OPEN
        await ws.send("still open")
        assert await peer.receive() == "still open"


async def test_aclose_drains_if_open(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(buffer_size=10)) as (ws, peer), trio.open_nursery() as nursery:
        for number in range(100):
            await ws.send(str(number))
        nursery.start_soon(ws.aclose)
        assert await peer.receive_all(100) == [str(number) for number in range(100)]
        with pytest.raises(PeerClosed):
            await peer.receive()
        await ws.wait_closed()
        assert ws.undelivered == ()


async def test_aclose_takes_no_more_sends_while_it_drains(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(buffer_size=10)) as (ws, peer), trio.open_nursery() as nursery:
        await ws.send("x" * 100)
        nursery.start_soon(ws.aclose)
        await wait_all_tasks_blocked()
        assert ws.state.value is ReadyState.CLOSING
        with pytest.raises(trio.ClosedResourceError):
            await ws.send("late")
        nursery.start_soon(peer.serve_echo)


async def test_aclose_lets_an_attempt_in_flight_deliver_what_is_buffered(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.delay(2)
    async with trio.open_nursery() as nursery:
        ws = make_ws(nursery, URL, open_stream=network.open_stream)
        await ws.send("hello")
        async with ws.events() as events:
            nursery.start_soon(ws.aclose)
            peer = await network.accept()
            await peer.accept()
            assert await peer.receive() == "hello"
            with pytest.raises(PeerClosed):
                await peer.receive()
            end = await ws.wait_closed()
            assert (end.code, end.clean) == (1000, True)
            assert trio.current_time() == pytest.approx(2)
            assert ws.undelivered == ()
            assert kinds(taken(events)) == ["Connect", "Open", "Close", "End"]
    with pytest.raises(trio.ClosedResourceError):
        await ws.wait_open()


async def test_aclose_with_nothing_buffered_ends_an_attempt_at_once(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.stall()
    async with trio.open_nursery() as nursery:
        ws = make_ws(nursery, URL, open_stream=network.open_stream)
        async with ws.events() as events:
            await wait_all_tasks_blocked()
            await ws.aclose()
            assert trio.current_time() == 0
            assert kinds(taken(events)) == ["Connect", "End"]
        assert (await ws.wait_closed()).code == 1006
        assert ws.state.value is ReadyState.CLOSED


@pytest.mark.parametrize("make", [make_ws, make_reconnecting_ws])
async def test_aclose_is_bounded_by_close_timeout_while_connecting(make: Any, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.stall()
    async with trio.open_nursery() as nursery:
        ws = make(nursery, URL, open_stream=network.open_stream, close_timeout=3)
        await ws.send("hello")
        await ws.aclose()
        assert trio.current_time() == pytest.approx(3)
        assert ws.undelivered == unsent("hello")
    assert len(network.dials) == 1


@pytest.mark.parametrize("make", [make_ws, make_reconnecting_ws])
async def test_aclose_before_the_first_turn_still_delivers(make: Any, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        ws = make(nursery, URL, open_stream=network.open_stream)
        ws.send_nowait("hello")
        nursery.start_soon(ws.aclose)
        peer = await network.accept()
        await peer.accept()
        assert await peer.receive() == "hello"


async def test_aclose_before_the_first_turn_with_nothing_to_say_dials_not_at_all(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        ws = make_ws(nursery, URL, open_stream=network.open_stream)
        with trio.CancelScope() as scope:
            scope.cancel()
            await ws.aclose()
    assert ws.state.value is ReadyState.CLOSED
    assert network.dials == []


async def test_an_attempt_that_fails_during_aclose_is_not_repeated(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.delay(1)
    async with trio.open_nursery() as nursery:
        ws = make_reconnecting_ws(nursery, URL, open_stream=network.open_stream, delay=0.1)
        await ws.send("hello")
        nursery.start_soon(ws.aclose)
        peer = await network.accept()
        await peer.reject(503)
        end = await ws.wait_closed()
        assert ws.undelivered == unsent("hello")
        assert end.code == 1006
        assert trio.current_time() < 4
    assert len(network.dials) == 1
    with pytest.raises(trio.ClosedResourceError):
        await ws.send("x")


async def test_aclose_never_dials_again_after_a_healthy_connection(autojump_clock: MockClock) -> None:
    """The count of dials has started over; that must not look like the opener's promise of a first one."""
    network = MemoryNetwork(buffer_size=10)
    async with trio.open_nursery() as nursery:
        ws = make_reconnecting_ws(nursery, URL, open_stream=network.open_stream, min_uptime=1, close_timeout=2)
        await accept(network, ws)
        await trio.sleep(10)
        async with ws.events() as events:
            await ws.send("x" * 100)
            await ws.aclose()
            assert kinds(taken(events)) == ["Close", "End"]
        assert ws.statistics().attempts == 1
        assert ws.undelivered == unsent("x" * 100)


async def test_aclose_in_a_pause_ends_at_once_and_dials_no_more(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with reopening(network, delay=100) as (ws, peer):
        peer.drop()
        await ws.state.wait_value(ReadyState.CLOSED)
        await ws.send("buffered")
        await trio.sleep(1)
        begun = trio.current_time()
        await ws.aclose()
        assert trio.current_time() == begun
        assert ws.undelivered == unsent("buffered")
        assert ws.state.value is ReadyState.CLOSED
    await trio.sleep(1000)
    assert len(network.dials) == 1


async def test_aclose_while_the_peer_closes_waits_no_longer_than_its_timeout(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(buffer_size=64), close_timeout=1) as (ws, peer):
        await ws.send("x" * 100)  # our answer is stuck behind it
        await wait_all_tasks_blocked()
        await peer.send_close(1000)
        await ws.state.wait_value(ReadyState.CLOSING)
        begun = trio.current_time()
        await ws.aclose()
        assert trio.current_time() - begun <= 1.2
        assert ws.state.value is ReadyState.CLOSED
        with pytest.raises((trio.ClosedResourceError, trio.EndOfChannel)):
            await ws.receive()


async def test_aclose_is_bounded_against_a_peer_that_does_not_answer(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, peer), trio.open_nursery() as nursery:
        peer.answer_close = False
        nursery.start_soon(peer.run_silent)
        await ws.aclose()
        assert trio.current_time() == pytest.approx(5, abs=0.2)  # the default
        end = await ws.wait_closed()
        assert (end.code, end.clean) == (1006, False)


async def test_aclose_with_a_timeout_of_zero_and_of_none(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(), close_timeout=0) as (ws, _):
        await ws.aclose()
        assert trio.current_time() == 0
    async with opened(MemoryNetwork(), close_timeout=None) as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(ws.aclose)
        await trio.sleep(80_000)
        assert ws.state.value is ReadyState.CLOSING
        nursery.start_soon(peer.serve_echo)


async def test_aclose_always_closes_also_when_cancelled(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        ws = make_ws(nursery, URL, open_stream=network.open_stream)
        await accept(network, ws)
        with trio.move_on_after(1) as scope:
            await ws.aclose()
        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(1)
        assert ws.state.value is ReadyState.CLOSED
        assert network.live == 0

        ws = make_ws(nursery, URL, open_stream=network.open_stream)
        peer = await accept(network, ws)
        with trio.CancelScope() as scope:
            scope.cancel()
            await ws.aclose()
        assert scope.cancelled_caught
        assert ws.state.value is ReadyState.CLOSED
        assert network.live == 0
        with pytest.raises(trio.EndOfChannel):
            await peer.receive_frame()


async def test_closing_twice_is_fine(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.serve_echo)
            await ws.aclose(4000)
            await ws.aclose()
        with pytest.raises(ValueError, match="code"):
            await ws.aclose(1)
        with trio.CancelScope() as scope:
            scope.cancel()
            await ws.aclose()
        assert scope.cancelled_caught
        assert (await ws.wait_closed()).code == 4000


async def test_two_tasks_close_at_the_same_time(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(ws.aclose, 4001)
        await wait_all_tasks_blocked()
        nursery.start_soon(ws.aclose, 4002)
        await wait_all_tasks_blocked()
        with pytest.raises(PeerClosed) as caught:
            await peer.receive()
        assert caught.value.code == 4001


async def test_async_with_on_the_socket_closes_it_as_on_any_channel(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        ws = make_ws(nursery, URL, open_stream=network.open_stream)
        async with ws:
            peer = await accept(network, ws)
            nursery.start_soon(peer.serve_echo)
        assert ws.state.value is ReadyState.CLOSED


async def test_messages_that_come_while_we_close_do_not_hold_it_up(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(buffer_size=100)) as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(ws.aclose)
        await wait_all_tasks_blocked()
        for _ in range(2000):
            await peer.send("x" * 10)
        await peer.ping(b"late")
        nursery.start_soon(peer.serve_echo)
        assert (await ws.wait_closed()).clean


async def test_undelivered_is_empty_before_the_end(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.stall()
    async with trio.open_nursery() as nursery:
        ws = make_ws(nursery, URL, open_stream=network.open_stream, close_timeout=1)
        await ws.send("1")
        await ws.send(b"2")
        before = ws.undelivered
        await ws.aclose()
        assert before == ()
        assert ws.undelivered == (Undelivered("1", "unsent"), Undelivered(b"2", "unsent"))


async def test_a_message_cut_short_is_undelivered(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(buffer_size=50), close_timeout=1) as (ws, _):
        for letter in "abc":
            await ws.send(letter * 20)
        await ws.aclose()
        assert ws.undelivered == unsent("b" * 20, "c" * 20)  # 26 bytes each on the wire


async def test_wait_closed_outlasts_a_pause(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with reopening(network, delay=5, retries=1, min_uptime=100) as (ws, peer):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def wait() -> None:
                end = await ws.wait_closed()
                assert (end.code, end.clean) == (1006, False)
                assert isinstance(end.error, ConnectionClosed)

            peer.drop()
            await trio.sleep(1)
            assert ws.state.value is ReadyState.CLOSED
            assert len(nursery.child_tasks) == 1
            peer = await accept(network, ws)
            peer.drop()
        with pytest.raises(RetriesExhausted):
            await ws.receive()


async def test_wait_closed_where_no_connection_came_about(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse()
    async with create_ws(URL, open_stream=network.open_stream) as ws:
        with trio.move_on_after(0):  # a cancelled wait changes nothing
            await ws.wait_closed()
        end = await ws.wait_closed()
        assert (end.code, end.reason, end.clean) == (1006, "", False)
        assert isinstance(end.error, ConnectionFailed)
        assert end.unconfirmed is None
        with pytest.raises(ConnectionFailed):
            await ws.send("x")


# --- the end of a block that is left without an error ---


async def test_the_end_of_the_block_drains_and_closes(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def serve() -> None:
            peer = await network.accept()
            await peer.accept()
            assert await peer.receive_all(3) == ["0", "1", "2"]
            with pytest.raises(PeerClosed) as caught:
                await peer.receive()
            assert caught.value.code == 1000

        async with create_ws(URL, open_stream=network.open_stream) as ws:
            for number in range(3):
                await ws.send(str(number))
        assert ws.undelivered == ()
        assert network.live == 0


async def test_the_block_raises_the_error_that_ended_the_socket(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse()
    with pytest.raises(ConnectionFailed) as failed:
        async with create_ws(URL, open_stream=network.open_stream) as ws:
            await ws.wait_closed()
    assert isinstance(failed.value.__cause__, ConnectionRefusedError)

    network.refuse(3)
    with pytest.raises(RetriesExhausted):
        async with create_reconnecting_ws(URL, open_stream=network.open_stream, retries=2) as ws:
            await ws.wait_closed()

    for code in (None, 1011, 4000):
        with pytest.raises(ConnectionClosed) as closed:
            async with opened(network) as (ws, peer):
                if code is None:
                    peer.drop()
                else:
                    await peer.send_close(code)
                await ws.wait_closed()
        assert closed.value.code == (code or 1006)


async def test_the_block_raises_it_also_after_an_explicit_aclose_that_came_too_late(autojump_clock: MockClock) -> None:
    with pytest.raises(ConnectionClosed):
        async with opened(MemoryNetwork()) as (ws, peer):
            peer.drop()
            await ws.wait_closed()
            await ws.aclose()


@pytest.mark.parametrize("code", [1000, 1001, None])
async def test_a_normal_close_by_the_peer_is_no_error_of_the_block(code: int | None, autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, peer):
        await peer.send_close(code)
        await ws.wait_closed()


@pytest.mark.parametrize(
    "call", ["send", "send_nowait", "receive", "receive_nowait", "receive_many", "for", "flush", "ping", "wait_open"]
)
async def test_what_a_call_has_raised_the_block_does_not(call: str, autojump_clock: MockClock) -> None:
    calls: dict[str, Any] = {
        "for": lambda ws: ws.__anext__(),
        "flush": lambda ws: ws.flush(confirm=True),
        "send": lambda ws: ws.send("x"),
    }
    async with opened(MemoryNetwork()) as (ws, peer):
        peer.drop()
        await ws.wait_closed()
        with pytest.raises(ConnectionClosed):
            if call.endswith("nowait"):
                getattr(ws, call)(*(["x"] if call == "send_nowait" else []))
            else:
                await calls.get(call, lambda ws: getattr(ws, call)())(ws)


@pytest.mark.parametrize("call", ["send", "receive", "for", "flush", "confirm", "ping"])
async def test_what_a_waiting_call_has_raised_the_block_does_not(call: str, autojump_clock: MockClock) -> None:
    calls: dict[str, Any] = {
        "for": lambda ws: ws.__anext__(),
        "confirm": lambda ws: ws.flush(confirm=True),
        "send": lambda ws: ws.send("x" * 2**24),
    }
    with pytest.raises(UndeliveredError) if call in ("send", "flush", "confirm") else trio.CancelScope():
        async with opened(MemoryNetwork(buffer_size=10)) as (ws, peer), trio.open_nursery() as nursery:
            if call in ("send", "flush", "confirm"):
                await ws.send("x" * 100)

            @nursery.start_soon
            async def wait() -> None:
                with pytest.raises(ConnectionClosed):
                    await calls.get(call, lambda ws: getattr(ws, call)())(ws)

            await wait_all_tasks_blocked()
            peer.reset()


async def test_messages_that_stay_undelivered_are_an_error_of_the_block(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.stall()
    with pytest.raises(UndeliveredError) as caught:
        async with create_ws(URL, open_stream=network.open_stream, close_timeout=1) as ws:
            await ws.send("1")
            await ws.send("2")
    assert caught.value.messages == ws.undelivered == unsent("1", "2")


async def test_what_kept_messages_undelivered_is_the_cause(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse()
    with pytest.raises(UndeliveredError) as caught:
        async with create_ws(URL, open_stream=network.open_stream) as ws:
            await ws.send("1")  # and it fails while the block ends
    assert isinstance(caught.value.__cause__, ConnectionFailed)


async def test_a_failure_that_has_healed_is_no_cause_of_what_stays_undelivered(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(buffer_size=64)
    network.refuse()
    with pytest.raises(UndeliveredError) as caught:
        async with create_reconnecting_ws(URL, open_stream=network.open_stream, close_timeout=1) as ws:
            _peer = await accept(network, ws)  # at the second dial; it reads nothing
            await ws.send("x" * 10_000)
    assert isinstance(ws.statistics().last_error, ConnectionFailed)
    assert caught.value.__cause__ is None


async def test_the_error_that_ended_it_comes_before_undelivered(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse()
    with pytest.raises(ConnectionFailed):
        async with create_ws(URL, open_stream=network.open_stream) as ws:
            await ws.send("1")
            await ws.wait_closed()
    assert ws.undelivered == unsent("1")

    network.refuse()
    with pytest.raises(UndeliveredError):
        async with create_ws(URL, open_stream=network.open_stream) as ws:
            await ws.send("1")
            with pytest.raises(ConnectionFailed):
                await ws.wait_open()


async def test_undelivered_after_a_normal_close_by_the_peer_is_an_error_too(autojump_clock: MockClock) -> None:
    with pytest.raises(UndeliveredError):
        async with opened(MemoryNetwork(buffer_size=64), close_timeout=1) as (ws, peer):
            await ws.send("x" * 1000)
            await wait_all_tasks_blocked()
            await peer.send_close()
            await ws.wait_closed()


async def test_after_an_explicit_aclose_undelivered_is_no_error(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.stall(2)
    async with create_ws(URL, open_stream=network.open_stream, close_timeout=1) as ws:
        await ws.send("1")
        await ws.aclose()
    assert ws.undelivered == unsent("1")

    async with create_ws(URL, open_stream=network.open_stream, close_timeout=1) as ws:
        await ws.send("1")
        with trio.move_on_after(0.1):
            await ws.aclose()
    assert ws.undelivered == unsent("1")


async def test_leaving_in_a_pause_leaves_at_once(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    with pytest.raises(UndeliveredError):
        async with reopening(network, delay=100) as (ws, peer):
            peer.drop()
            await ws.state.wait_value(ReadyState.CLOSED)
            await ws.send("1")
            begun = trio.current_time()
    assert trio.current_time() == begun


async def test_a_clean_close_reaches_the_peer_before_the_stream_ends(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with opened(network) as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(partial(ws.aclose, reason="bye"))
        peer.answer_close = False
        with pytest.raises(PeerClosed):
            await peer.receive()
        await peer.send_close(1000)
        with pytest.raises(trio.EndOfChannel):
            await peer.receive_frame()
        assert peer.frames[-1].opcode == Opcode.CLOSE
