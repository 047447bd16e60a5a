"""SPEC, section 1: `setup`, which gates each new connection."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim import (
    ConnectionClosed,
    ConnectionFailed,
    ReadyState,
    RetriesExhausted,
    create_reconnecting_ws,
    create_ws,
)
from trio_wsprim.abc import Session
from trio_wsprim.testing import MemoryNetwork

from .sockets import URL, accept, kinds, taken


async def test_nothing_buffered_goes_out_before_setup_is_done(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()

    async def setup(session: Session) -> None:
        await session.send("login")
        assert await session.receive() == "welcome"
        await session.send(b"subscribe")

    async with create_ws(URL, open_stream=network.open_stream, setup=setup) as ws:
        await ws.send("buffered")
        peer = await network.accept()
        await peer.accept()
        assert await peer.receive() == "login"
        await trio.sleep(1)
        assert int(ws.state.value) == ReadyState.CONNECTING
        await ws.send("buffered too")
        await wait_all_tasks_blocked()
        await peer.send("welcome")
        await peer.send("news")
        assert await peer.receive_all(3) == [b"subscribe", "buffered", "buffered too"]
        assert ws.state.value is ReadyState.OPEN
        assert await ws.receive() == "news"


async def test_what_it_leaves_unread_goes_to_the_inbox_in_order(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()

    async def setup(session: Session) -> None:
        await trio.sleep(1)
        assert await session.receive() == "1"

    async with (
        create_ws(URL, open_stream=network.open_stream, setup=setup) as ws,
        ws.subscribe() as channel,
        ws.events() as events,
    ):
        peer = await network.accept()
        await peer.accept()
        await peer.pong(b"stray")
        for number in range(1, 4):
            await peer.send(str(number))
        await ws.wait_open()
        await peer.send("4")
        assert [await ws.receive() for _ in range(3)] == ["2", "3", "4"]
        assert [await channel.receive() for _ in range(3)] == ["2", "3", "4"]
        assert kinds(taken(events)) == ["Connect", "Open", "Message", "Message", "Message"]


async def test_the_session_tells_about_the_connection(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse()
    seen: list[tuple[object, ...]] = []

    async def setup(session: Session) -> None:
        seen.append((session.attempt, session.reconnecting, session.subprotocol))
        assert ("x-server", "7") in session.response_headers
        if len(seen) == 2:
            raise ValueError("once")

    async with create_reconnecting_ws(
        URL, "chat", open_stream=network.open_stream, setup=setup, delay=1.0, min_uptime=100
    ) as ws:
        peer = await network.accept()
        await peer.accept("chat", [("X-Server", "7")])
        await ws.wait_open()
        peer.drop()
        await ws.state.wait_value(ReadyState.CLOSED)
        for _ in range(2):
            peer = await network.accept()
            await peer.accept(headers=[("X-Server", "7")])
        await ws.wait_open()
        assert ws.statistics().connections == 2
    assert seen == [(2, False, "chat"), (3, True, None), (4, True, None)]


async def test_if_it_raises_the_attempt_has_failed(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    oops = LookupError("a secret")

    async def setup(session: Session) -> None:
        raise oops

    async with create_ws(URL, open_stream=network.open_stream, setup=setup) as ws, ws.events() as events:
        peer = await network.accept()
        await peer.accept()
        with pytest.raises(ConnectionFailed) as caught:
            await ws.wait_open()
        assert caught.value.__cause__ is oops
        assert "a secret" not in str(caught.value)
        assert kinds(taken(events)) == ["Connect", "Error", "End"]
        with pytest.raises(trio.EndOfChannel):
            await peer.receive_frame()
    assert network.live == 0
    assert ws.statistics().connections == 0


async def test_a_failed_setup_is_retried(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()

    async def setup(session: Session) -> None:
        if session.attempt < 3:
            raise ValueError

    async with create_reconnecting_ws(URL, open_stream=network.open_stream, setup=setup, delay=1.0) as ws:
        for _ in range(3):
            peer = await network.accept()
            await peer.accept()
        await ws.wait_open()
    assert [dial.time for dial in network.dials] == [0, 1, 2]
    assert network.most_live == 1


@pytest.mark.parametrize(("code", "is_fatal"), [(4001, True), (1008, True), (1000, False), (1013, False)])
async def test_a_close_during_setup_means_what_it_always_means(
    code: int, is_fatal: bool, autojump_clock: MockClock
) -> None:
    network = MemoryNetwork()

    async def setup(session: Session) -> None:
        await session.receive()

    async with create_reconnecting_ws(URL, open_stream=network.open_stream, setup=setup, delay=1.0, retries=1) as ws:
        for _ in range(1 if is_fatal else 2):
            peer = await network.accept()
            await peer.accept()
            await peer.send_close(code)
        with pytest.raises(ConnectionFailed) as caught:
            await ws.wait_open()
        assert isinstance(caught.value, RetriesExhausted) == (not is_fatal)
        cause = caught.value.__cause__ if is_fatal else getattr(caught.value.__cause__, "__cause__", None)
        assert isinstance(cause, ConnectionClosed)
        assert cause.code == code


async def test_a_group_of_one_in_setup_is_seen_through(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()

    async def setup(session: Session) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.receive)

    async with create_reconnecting_ws(URL, open_stream=network.open_stream, setup=setup) as ws:
        peer = await network.accept()
        await peer.accept()
        await peer.send_close(4001)
        with pytest.raises(ConnectionFailed) as caught:
            await ws.wait_open()
        assert isinstance(caught.value.__cause__, ConnectionClosed)

    async def fail_twice(session: Session) -> None:
        raise ExceptionGroup("two", [ValueError(), ValueError()])

    async with create_ws(URL, open_stream=network.open_stream, setup=fail_twice) as plain:
        peer = await network.accept()
        await peer.accept()
        with pytest.raises(ConnectionFailed) as caught:
            await plain.wait_open()
        assert isinstance(caught.value.__cause__, ExceptionGroup)


async def test_a_session_that_was_kept_is_of_no_use(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    kept: list[Session] = []

    async def setup(session: Session) -> None:
        kept.append(session)
        with pytest.raises(TypeError):
            await session.send(5)  # type: ignore[arg-type]

    async with create_ws(URL, open_stream=network.open_stream, setup=setup) as ws:
        await accept(network, ws)
        with pytest.raises(trio.ClosedResourceError):
            await kept[0].send("x")
        with pytest.raises(trio.ClosedResourceError):
            await kept[0].receive()


async def test_one_task_receives_at_a_time(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()

    async def setup(session: Session) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.receive)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await session.receive()
            nursery.cancel_scope.cancel()

    async with create_ws(URL, open_stream=network.open_stream, setup=setup) as ws:
        peer = await accept(network, ws)
        await peer.send("not lost")
        assert await ws.receive() == "not lost"


async def test_it_may_use_the_socket_itself(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    cell: list[Any] = []

    async def setup(session: Session) -> None:
        await cell[0].send("after")
        await session.send("before")

    async with create_ws(URL, open_stream=network.open_stream, setup=setup) as ws:
        cell.append(ws)
        peer = await accept(network, ws)
        assert await peer.receive_all(2) == ["before", "after"]


async def test_closing_interrupts_it_at_once(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()

    async def setup(session: Session) -> None:
        await trio.sleep_forever()

    async with create_ws(URL, open_stream=network.open_stream, setup=setup) as ws:
        peer = await network.accept()
        await peer.accept()
        await wait_all_tasks_blocked()
        await ws.aclose()
        assert trio.current_time() == 0
    assert network.live == 0


async def test_closing_from_within_it_ends_when_the_close_must(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    cell: list[Any] = []

    async def setup(session: Session) -> None:
        await cell[0].aclose()

    # It waits for an end that waits for it: for a second, after which it gives up.
    for messages, seconds in ((0, 1), (1, 3)):
        async with create_ws(URL, open_stream=network.open_stream, setup=setup, close_timeout=2) as ws:
            cell[:] = [ws]
            for _ in range(messages):
                await ws.send("x")
            begun = trio.current_time()
            peer = await network.accept()
            await peer.accept()
            await ws.wait_closed()
            assert trio.current_time() - begun == pytest.approx(seconds)
        assert len(ws.undelivered) == messages


async def test_closing_with_something_buffered_lets_it_finish(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()

    async def setup(session: Session) -> None:
        await trio.sleep(2)

    async with trio.open_nursery() as nursery, create_ws(URL, open_stream=network.open_stream, setup=setup) as ws:
        await ws.send("x")
        peer = await network.accept()
        await peer.accept()
        nursery.start_soon(ws.aclose)
        assert await peer.receive() == "x"
        assert trio.current_time() == pytest.approx(2)
        nursery.start_soon(peer.serve_echo)
