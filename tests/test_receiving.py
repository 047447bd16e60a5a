"""SPEC, section 2: `receive` and its kin, and the other ways in which messages reach the user."""

from __future__ import annotations

import math
from random import Random
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim import (
    Buffer,
    ConnectionClosed,
    ConnectionFailed,
    DropEvent,
    MessageEvent,
    RetriesExhausted,
    WebSocket,
    create_reconnecting_ws,
    create_ws,
    make_ws,
)
from trio_wsprim.testing import MemoryNetwork

from .sockets import URL, accept, opened, reopening, taken


async def test_messages_come_in_order(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, peer):
        for message in ("1", b"2", "drei", ""):
            await peer.send(message)
        await peer.send_fragments(["fo", "ur"])
        assert [await ws.receive() for _ in range(5)] == ["1", b"2", "drei", "", "four"]
        assert ws.statistics().messages_received == 5
        assert ws.statistics().bytes_received == 10


async def test_each_message_goes_to_exactly_one_receiver(autojump_clock: MockClock) -> None:
    got: list[str | bytes] = []
    async with opened(MemoryNetwork()) as (ws, peer), trio.open_nursery() as nursery:

        async def receive() -> None:
            got.append(await ws.receive())

        for _ in range(10):
            nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        for number in range(10):
            await peer.send(str(number))
    assert sorted(map(str, got)) == [str(number) for number in range(10)]


async def test_receive_nowait_and_receive_many(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, peer):
        with pytest.raises(trio.WouldBlock):
            ws.receive_nowait()
        for number in range(5):
            await peer.send(str(number))
        await wait_all_tasks_blocked()
        assert ws.receive_nowait() == "0"
        assert await ws.receive_many(2) == ["1", "2"]
        assert await ws.receive_many() == ["3", "4"]
        with trio.move_on_after(1) as patience:
            await ws.receive_many()
        assert patience.cancelled_caught
        for wrong in (0, -1):
            with pytest.raises(ValueError, match="max_messages"):
                await ws.receive_many(wrong)


async def test_a_cancelled_receive_loses_nothing(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, peer):
        with trio.move_on_after(1):
            await ws.receive()
        await peer.send("kept")
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await ws.receive()
        assert scope.cancelled_caught
        assert await ws.receive() == "kept"


@pytest.mark.parametrize("code", [1000, 1001, None])
async def test_async_for_ends_after_a_normal_close(code: int | None, autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, peer):
        await peer.send("1")
        await peer.send("2")
        await peer.send_close(code)
        assert [message async for message in ws] == ["1", "2"]
        for _ in range(2):
            with pytest.raises(trio.EndOfChannel):
                await ws.receive()
            with pytest.raises(trio.EndOfChannel):
                ws.receive_nowait()
            with pytest.raises(trio.EndOfChannel):
                await ws.receive_many()
        end = await ws.wait_closed()
        assert (end.code, end.clean, end.error) == (code or 1005, True, None)


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4000, 4999])
async def test_async_for_raises_after_any_other_close(code: int, autojump_clock: MockClock) -> None:
    got: list[str | bytes] = []
    async with opened(MemoryNetwork()) as (ws, peer):
        await peer.send("1")
        await peer.send_close(code, "so there")
        with pytest.raises(ConnectionClosed) as caught:
            async for message in ws:
                got.append(message)
        assert (caught.value.code, caught.value.reason, caught.value.clean) == (code, "so there", True)
        assert got == ["1"]
        with pytest.raises(ConnectionClosed):
            await ws.send("x")


@pytest.mark.parametrize("end", ["drop", "reset"])
async def test_async_for_raises_after_a_lost_connection(end: str, autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, peer):
        getattr(peer, end)()
        for call in (ws.receive, ws.receive_many, ws.__anext__):
            with pytest.raises(ConnectionClosed) as caught:
                await call()
            assert (caught.value.code, caught.value.clean) == (1006, False)


async def test_what_came_before_a_loss_can_be_read(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, peer):
        await peer.send("last words")
        peer.drop()
        await ws.wait_closed()
        assert await ws.receive() == "last words"
        with pytest.raises(ConnectionClosed):
            await ws.receive()


async def test_what_is_unread_when_we_close_is_gone(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, peer):
        await peer.send("unread")
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.serve_echo)
            await ws.aclose()
        for call in (ws.receive, ws.receive_many, ws.__anext__):
            with pytest.raises(trio.ClosedResourceError):
                await call()
        with pytest.raises(trio.ClosedResourceError):
            ws.receive_nowait()


async def test_who_receives_wakes_when_we_close(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, _), trio.open_nursery() as nursery:
        for _ in range(3):

            @nursery.start_soon
            async def receive() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await ws.receive()

        await wait_all_tasks_blocked()
        begun = trio.current_time()
        nursery.start_soon(ws.aclose)
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1  # at once, not when the handshake is done
        assert trio.current_time() == begun


async def test_who_receives_wakes_when_the_peer_closes(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, peer), trio.open_nursery() as nursery:
        for _ in range(3):

            @nursery.start_soon
            async def receive() -> None:
                with pytest.raises(ConnectionClosed):
                    await ws.receive()

        await wait_all_tasks_blocked()
        await peer.send_close(4000)


async def test_a_failed_connection_is_raised_by_receive_again_and_again(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse(3)
    async with create_ws(URL, open_stream=network.open_stream) as ws:
        for _ in range(2):
            with pytest.raises(ConnectionFailed) as failed:
                await ws.receive()
            assert isinstance(failed.value.__cause__, ConnectionRefusedError)
    async with create_reconnecting_ws(URL, open_stream=network.open_stream, retries=1) as ws:
        with pytest.raises(RetriesExhausted) as exhausted:
            async for _ in ws:
                pass
        assert exhausted.value.attempts == 2
        assert isinstance(exhausted.value.__cause__, ConnectionFailed)


async def test_errors_of_one_end_are_not_one_object(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, peer):
        peer.drop()
        with pytest.raises(ConnectionClosed) as one:
            await ws.receive()
        with pytest.raises(ConnectionClosed) as two:
            await ws.send("x")
        assert one.value is not two.value


# --- a message too big ---


async def test_a_message_over_the_limit_ends_it_with_1009(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(), max_message_bytes=10) as (ws, peer):
        await peer.send("x" * 10)
        await peer.send("é" * 6)
        assert await ws.receive() == "x" * 10
        with pytest.raises(ConnectionClosed) as caught:
            await ws.receive()
        assert caught.value.code == 1009


# --- full ---


async def test_a_full_inbox_stops_reading(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(buffer_size=100), inbox=Buffer(2)) as (ws, peer):
        with trio.move_on_after(10):
            for number in range(1000):
                await peer.send(f"{number:020}")
        assert ws.statistics().messages_received < 20
        sent = ws.statistics().messages_received
        await ws.receive_many()
        await wait_all_tasks_blocked()
        assert ws.statistics().messages_received > sent


@pytest.mark.parametrize(("when_full", "left"), [("drop_oldest", ["3", "4"]), ("drop_newest", ["1", "2"])])
async def test_an_inbox_that_drops_says_so(when_full: Any, left: list[str], autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(), inbox=Buffer(2, when_full=when_full)) as (ws, peer), ws.events() as events:
        for number in range(1, 5):
            await peer.send(str(number))
        await wait_all_tasks_blocked()
        assert await ws.receive_many() == left
        gone = [event.message for event in taken(events) if isinstance(event, DropEvent)]
        assert sorted([*gone, *left]) == ["1", "2", "3", "4"]
        assert ws.statistics().messages_dropped == 2


async def test_without_an_inbox_receive_is_a_runtime_error(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(), inbox=None) as (ws, peer), ws.events() as events, ws.subscribe() as channel:
        for call in (ws.receive, ws.receive_many, ws.__anext__):
            with pytest.raises(RuntimeError, match="inbox=None"):
                await call()
        with pytest.raises(RuntimeError, match="inbox=None"):
            ws.receive_nowait()
        for number in range(5000):
            await peer.send(str(number))
            assert await channel.receive() == str(number)
        assert ws.message.value == "4999"
        assert MessageEvent("4999") in taken(events)


# --- subscribe ---


async def test_each_subscriber_gets_its_own_copy_from_then_on(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, peer):
        await peer.send("before")
        await wait_all_tasks_blocked()
        async with ws.subscribe() as one, ws.subscribe(when_full="drop_oldest") as two:
            await peer.send("1")
            await peer.send("2")
            assert [await one.receive(), await one.receive()] == ["1", "2"]
            assert [await two.receive(), await two.receive()] == ["1", "2"]
            assert await ws.receive_many() == ["before", "1", "2"]
            await peer.send_close()
            assert [message async for message in one] == []
            assert [message async for message in two] == []
        async with ws.subscribe() as late:
            with pytest.raises(trio.EndOfChannel):
                await late.receive()


async def test_a_waiting_subscriber_stops_reading(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(buffer_size=64), inbox=None) as (ws, peer), ws.subscribe(2) as channel:
        with trio.move_on_after(5):
            for number in range(1000):
                await peer.send(f"{number:020}")
        assert ws.statistics().messages_received < 20
        for number in range(ws.statistics().messages_received):
            assert await channel.receive() == f"{number:020}"


@pytest.mark.parametrize(("when_full", "left"), [("drop_oldest", ["3", "4"]), ("drop_newest", ["1", "2"])])
async def test_a_subscriber_may_drop(when_full: Any, left: list[str], autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, peer), ws.subscribe(2, when_full=when_full) as channel:
        for number in range(1, 5):
            await peer.send(str(number))
        await wait_all_tasks_blocked()
        assert [await channel.receive(), await channel.receive()] == left


async def test_a_subscription_ends_with_our_close_and_outlives_a_reconnection(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with reopening(network) as (ws, peer), ws.subscribe() as channel:
        await peer.send("1")
        assert await channel.receive() == "1"
        peer.drop()
        peer = await accept(network, ws)
        await peer.send("2")
        assert await channel.receive() == "2"
        await ws.aclose()
        with pytest.raises(trio.EndOfChannel):
            await channel.receive()


async def test_bad_arguments_of_subscribe_and_events_are_refused(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, _):
        for wrong in ("error", "drop"):
            with pytest.raises(ValueError, match="when_full"):
                ws.subscribe(when_full=cast("Any", wrong))
        with pytest.raises(ValueError, match="when_full"):
            ws.events(when_full=cast("Any", "wait"))
        for size in (-1, 0):
            with pytest.raises(ValueError, match="max_buffer_size"):
                ws.events(size)
            with pytest.raises(ValueError, match="max_buffer_size"):
                ws.subscribe(size, when_full="drop_oldest")
        with pytest.raises(ValueError, match="max_buffer_size"):
            ws.subscribe(-1)
        with pytest.raises((ValueError, TypeError), match="max_buffer_size"):
            ws.subscribe(math.nan)
        async with ws.subscribe(math.inf), ws.events(math.inf):
            pass


async def test_the_message_signal_shows_the_last_message(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, peer):
        assert ws.message.value is None
        await peer.send("1")
        assert await ws.message.wait_value("1") == "1"
        await peer.send(b"2")
        assert await ws.message.wait_value(b"2") == b"2"
        await peer.send_close()
        await ws.wait_closed()
        assert ws.message.value == b"2"
        assert [value async for value in ws.message.values()] == [b"2"]


# --- many ---


async def test_thousands_of_receives_cancelled_at_random_lose_none_and_double_none(autojump_clock: MockClock) -> None:
    rng = Random(7)
    got: list[str | bytes] = []
    async with opened(MemoryNetwork(buffer_size=512), inbox=Buffer(16)) as (ws, peer), trio.open_nursery() as nursery:

        async def receive() -> None:
            while True:
                with trio.CancelScope() as scope:
                    if rng.random() < 0.2:
                        scope.cancel()
                    else:
                        scope.deadline = trio.current_time() + rng.random() * 0.02
                    try:
                        if rng.random() < 0.5:
                            got.append(await ws.receive())
                        else:
                            got.extend(await ws.receive_many(rng.randrange(1, 5)))
                    except trio.EndOfChannel:
                        return

        for _ in range(3):
            nursery.start_soon(receive)
        for number in range(3000):
            await peer.send(str(number))
            if rng.random() < 0.1:
                await trio.sleep(rng.random() * 0.05)
        await peer.send_close()
    assert got == [str(number) for number in range(3000)]


async def test_receivers_of_a_socket_in_a_cancelled_nursery_wake(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as outer, trio.open_nursery() as inner:
        ws: WebSocket = make_ws(inner, URL, open_stream=network.open_stream)
        await accept(network, ws)

        @outer.start_soon
        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await ws.receive()

        await wait_all_tasks_blocked()
        inner.cancel_scope.cancel()
    assert network.live == 0
