"""SPEC, section 2: `send`, `send_nowait`, `ttl`, `flush` and `ping`."""

from __future__ import annotations

import logging
import math
from functools import partial
from random import Random
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim import (
    Buffer,
    BufferFull,
    ConnectionClosed,
    ConnectionFailed,
    DropEvent,
    MessageTooBig,
    Options,
    ReadyState,
    RetriesExhausted,
    UndeliveredError,
    WebSocket,
    create_reconnecting_ws,
    create_ws,
    make_ws,
)
from trio_wsprim.testing import MemoryNetwork, Opcode, PeerClosed

from .sockets import URL, accept, opened, reopening, taken

SMALL = Buffer(max_messages=2)


async def test_text_goes_as_text_and_anything_else_as_binary(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, peer):
        for message in ("héllo", "", b"bytes", bytearray(b"array"), memoryview(b"view")):
            await ws.send(message)
        assert await peer.receive_all(5) == ["héllo", "", b"bytes", b"array", b"view"]


async def test_binary_is_copied_at_the_call(autojump_clock: MockClock) -> None:
    data = bytearray(b"before")
    async with opened(MemoryNetwork()) as (ws, peer):
        await ws.send(data)
        ws.send_nowait(memoryview(data))
        data[:] = b"after!"
        assert await peer.receive_all(2) == [b"before"] * 2


@pytest.mark.parametrize("message", [None, 5, ["list"], {"a": 1}, object()])
async def test_other_types_are_type_errors_and_nothing_is_buffered(message: Any, autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, _):
        with pytest.raises(TypeError):
            await ws.send(message)
        with pytest.raises(TypeError):
            ws.send_nowait(message)
        assert ws.statistics().messages_buffered == 0


async def test_a_lone_surrogate_is_refused_before_anything_is_buffered(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, _):
        with pytest.raises(UnicodeEncodeError):
            await ws.send("\ud800")
        with pytest.raises(UnicodeEncodeError):
            ws.send_nowait("\ud800")
        assert ws.statistics().messages_buffered == 0


@pytest.mark.parametrize("ttl", [-1, math.nan, math.inf])
async def test_a_ttl_out_of_range_is_refused(ttl: float, autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, _):
        with pytest.raises(ValueError, match="ttl"):
            await ws.send("x", ttl=ttl)
        with pytest.raises(ValueError, match="ttl"):
            ws.send_nowait("x", ttl=ttl)


# --- full ---


async def test_send_waits_while_the_outbox_is_full(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.delay(5)
    async with create_ws(URL, open_stream=network.open_stream, outbox=SMALL) as ws:
        await ws.send("1")
        await ws.send("2")
        with pytest.raises(trio.WouldBlock):
            ws.send_nowait("3")
        with trio.move_on_after(1) as patience:
            await ws.send("never")
        assert patience.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.send, "3")
            peer = await accept(network, ws)
        assert trio.current_time() >= 5
        assert await peer.receive_all(3) == ["1", "2", "3"]


async def test_a_cancelled_send_leaves_the_connection_whole(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(buffer_size=100)
    async with opened(network, outbox=SMALL) as (ws, peer):
        with trio.move_on_after(1):
            while True:
                await ws.send("x" * 60)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(ws.aclose))
            with pytest.raises(PeerClosed):
                while True:
                    assert await peer.receive() == "x" * 60


async def test_send_is_a_cancellation_point_and_then_buffers_nothing(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, peer):
        with trio.CancelScope() as scope:
            scope.cancel()
            await ws.send("no")
        assert scope.cancelled_caught
        await ws.send("yes")
        assert await peer.receive() == "yes"


async def test_who_waits_for_room_wakes_when_we_close(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.stall()
    async with trio.open_nursery() as nursery:
        ws = make_ws(nursery, URL, open_stream=network.open_stream, outbox=SMALL, close_timeout=1)
        ws.send_nowait("1")
        ws.send_nowait("2")
        for _ in range(2):

            @nursery.start_soon
            async def wait() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await ws.send("3")

        await wait_all_tasks_blocked()
        await ws.aclose()
        assert [each.message for each in ws.undelivered] == ["1", "2"]
        assert {each.fate for each in ws.undelivered} == {"unsent"}


async def test_who_waits_for_room_wakes_when_the_peer_ends_it(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(buffer_size=10)
    async with trio.open_nursery() as nursery:
        ws = make_ws(nursery, URL, open_stream=network.open_stream, outbox=SMALL)
        peer = await accept(network, ws)
        for _ in range(2):
            await ws.send("x" * 100)

        @nursery.start_soon
        async def wait() -> None:
            with pytest.raises(ConnectionClosed) as caught:
                await ws.send("x")
            assert caught.value.code == 1006

        await wait_all_tasks_blocked()
        peer.reset()


async def test_errors_of_a_full_outbox_say_so(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.stall()
    with pytest.raises(UndeliveredError) as caught:
        async with create_ws(
            URL, open_stream=network.open_stream, outbox=Buffer(2, 10, "error"), close_timeout=1
        ) as ws:
            await ws.send("1")
            with pytest.raises(MessageTooBig):
                await ws.send("x" * 11)
            with pytest.raises(BufferFull):
                await ws.send("x" * 10)
            await ws.send("2")
            with pytest.raises(BufferFull):
                await ws.send("3")
            with pytest.raises(trio.WouldBlock):
                ws.send_nowait("3")
    assert [each.message for each in caught.value.messages] == ["1", "2"]


@pytest.mark.parametrize(("when_full", "left"), [("drop_oldest", ["3", "4"]), ("drop_newest", ["1", "2"])])
async def test_drops_are_counted_and_reported(when_full: Any, left: list[str], autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.delay(1)
    async with (
        create_ws(URL, open_stream=network.open_stream, outbox=Buffer(2, when_full=when_full)) as ws,
        ws.events() as events,
    ):
        for number in range(1, 5):
            await ws.send(str(number))
        gone = [event.message for event in taken(events) if isinstance(event, DropEvent) and event.why == "full"]
        assert sorted([*gone, *left]) == ["1", "2", "3", "4"]
        assert ws.statistics().messages_dropped == 2
        peer = await accept(network, ws)
        assert await peer.receive_all(2) == left


# --- ttl ---


async def test_what_expires_is_reported_and_its_room_freed_when_it_happens(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.delay(8)
    async with (
        create_ws(URL, open_stream=network.open_stream, outbox=Buffer(1)) as ws,
        ws.events() as events,
    ):
        await ws.send("late", ttl=3)
        await ws.send("next", ttl=7)  # waits for room
        assert trio.current_time() == pytest.approx(3)
        assert [event for event in taken(events) if isinstance(event, DropEvent)] == [DropEvent("late", "expired")]
        peer = await accept(network, ws)
        assert await peer.receive() == "next"
        assert ws.statistics().messages_dropped == 1


async def test_ttl_0_is_dropped_unless_open(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with create_ws(URL, open_stream=network.open_stream) as ws, ws.events() as events:
        await ws.send("too early", ttl=0)
        ws.send_nowait("too early", ttl=0)
        assert taken(events) == [DropEvent("too early", "expired")] * 2
        assert ws.statistics().messages_buffered == 0
        peer = await accept(network, ws)
        await ws.send("now", ttl=0)
        ws.send_nowait(b"now too", ttl=0)
        assert await peer.receive_all(2) == ["now", b"now too"]


async def test_ttl_0_is_dropped_while_the_peer_s_close_is_under_way(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(buffer_size=20)
    async with opened(network) as (ws, peer), ws.events() as events:
        for _ in range(2):
            await peer.ping(b"x" * 10)  # pongs that nobody reads clog the way for our answer to the close
        await ws.send("x" * 40)
        await peer.send_close()
        await ws.state.wait_value(ReadyState.CLOSING)
        taken(events)
        await ws.send("closing", ttl=0)
        assert taken(events) == [DropEvent("closing", "expired")]
        peer.drop()
        await ws.wait_closed()
        await ws.aclose()


async def test_ttl_0_is_dropped_in_a_pause(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with reopening(network) as (ws, peer), ws.events() as events:
        peer.drop()
        await ws.state.wait_value(ReadyState.CLOSED)
        await ws.send("pause", ttl=0)
        assert DropEvent("pause", "expired") in taken(events)
        await accept(network, ws)


@pytest.mark.parametrize("when", ["dialing", "open", "closing"])
@pytest.mark.parametrize("error", [ZeroDivisionError("of a filter"), SystemExit(3)], ids=["error", "exit"])
async def test_what_a_logging_filter_raises_as_a_message_expires_ends_that_socket_and_no_other(
    error: BaseException, when: str, request: pytest.FixtureRequest, autojump_clock: MockClock
) -> None:
    def fail(_record: logging.LogRecord) -> bool:
        raise error

    log = logging.getLogger("trio_wsprim.buffer")
    log.addFilter(fail)
    request.addfinalizer(lambda: log.removeFilter(fail))
    network = MemoryNetwork(buffer_size=20)
    async with opened(MemoryNetwork()) as (other, others_peer):
        with pytest.raises(type(error)) as caught:
            async with create_reconnecting_ws(URL, open_stream=network.open_stream, close_timeout=5) as ws:
                if when != "dialing":
                    await accept(network, ws)
                    await ws.send("x" * 40)  # which nobody reads
                    await wait_all_tasks_blocked()
                await ws.send("late", ttl=1)
                await ws.send("later", ttl=1)
                if when == "closing":
                    await ws.aclose()
                else:
                    await ws.receive()
        assert caught.value is error
        assert trio.current_time() == pytest.approx(1)
        log.removeFilter(fail)
        await other.send("still there", ttl=1)
        assert await others_peer.receive() == "still there"


# --- after the end ---


async def test_send_after_our_close_is_a_closed_resource_error(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.serve_echo)
            await ws.aclose()
        for _ in range(2):
            with pytest.raises(trio.ClosedResourceError):
                await ws.send("x")
            with pytest.raises(trio.ClosedResourceError):
                ws.send_nowait("x")


@pytest.mark.parametrize("code", [1000, 1001, None])
async def test_send_after_a_normal_close_by_the_peer_is_connection_closed(
    code: int | None, autojump_clock: MockClock
) -> None:
    async with opened(MemoryNetwork()) as (ws, peer):
        await peer.send_close(code, "" if code is None else "bye")
        await ws.wait_closed()
        with pytest.raises(ConnectionClosed) as caught:
            await ws.send("x")
        assert caught.value.code == (code or 1005)
        assert caught.value.clean
        assert caught.value.reason == ("bye" if code else "")
        assert isinstance(caught.value, trio.BrokenResourceError)
        with pytest.raises(ConnectionClosed):
            ws.send_nowait("x")


async def test_send_after_retries_ran_out_is_that_error(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse(2)
    async with create_reconnecting_ws(URL, open_stream=network.open_stream, retries=1) as ws:
        await ws.wait_closed()
        for _ in range(2):
            with pytest.raises(RetriesExhausted):
                await ws.send("x")
        with pytest.raises(RetriesExhausted):
            await ws.flush(confirm=True)
        with pytest.raises(RetriesExhausted):
            await ws.ping()


async def test_a_message_beside_the_peer_s_close_never_turns_it_into_another_error(autojump_clock: MockClock) -> None:
    for seed in range(30):
        async with opened(MemoryNetwork()) as (ws, peer):
            rng = Random(seed)
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def flood(ws: WebSocket = ws) -> None:
                    with pytest.raises(ConnectionClosed) as caught:
                        while True:
                            await ws.send("x")
                            await trio.lowlevel.checkpoint()
                    assert caught.value.code == 1000

                for _ in range(rng.randrange(40)):
                    await trio.lowlevel.checkpoint()
                nursery.start_soon(peer.run_silent)
                await peer.send_close(1000)
                with pytest.raises(trio.EndOfChannel):
                    await ws.receive()
                peer.drop()
            assert (await ws.wait_closed()).clean
            await ws.aclose()


# --- flush ---


async def test_flush_returns_when_all_is_handed_over(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.delay(2)
    async with create_ws(URL, open_stream=network.open_stream) as ws:
        await ws.flush()  # nothing to wait for
        assert trio.current_time() == 0
        await ws.send("x")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.flush)
            peer = await accept(network, ws)
        assert ws.statistics().messages_buffered == 0
        assert ws.statistics().messages_sent == 1
        assert await peer.receive() == "x"


async def test_flush_waits_for_a_peer_that_does_not_read(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(buffer_size=10)
    async with opened(network) as (ws, peer):
        await ws.send("x" * 100)
        with trio.move_on_after(9) as patience:
            await ws.flush()
        assert patience.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.flush)
            assert await peer.receive() == "x" * 100


async def test_flush_does_not_wait_for_what_is_sent_later(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(buffer_size=10)
    async with opened(network, close_timeout=1) as (ws, peer):
        await ws.send("a" * 50)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.flush)
            await wait_all_tasks_blocked()
            await ws.send("b" * 100)
            assert await peer.receive() == "a" * 50
        assert ws.statistics().messages_buffered == 1
        await ws.aclose()


async def test_flush_raises_at_a_drop_in_between(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(buffer_size=10)
    async with reopening(network) as (ws, peer):
        await ws.send("x" * 100)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def flush() -> None:
                with pytest.raises(ConnectionClosed) as caught:
                    await ws.flush()
                assert caught.value.code == 1006

            await wait_all_tasks_blocked()
            peer.reset()
        peer = await accept(network, ws)
        assert await peer.receive() == "x" * 100


async def test_a_failed_attempt_is_no_drop_for_flush(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse(2)
    async with create_reconnecting_ws(URL, open_stream=network.open_stream, delay=1) as ws:
        await ws.send("x")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.flush)
            await accept(network, ws)


async def test_flush_raises_what_ended_the_socket(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.delay(1)
    network.refuse()
    with pytest.raises(UndeliveredError):
        async with create_ws(
            URL, open_stream=lambda host, port: network.open_stream(host, port), connect_timeout=0.5
        ) as ws:
            await ws.send("x")
            with pytest.raises(ConnectionFailed):
                await ws.flush()
            with pytest.raises(ConnectionFailed):
                await ws.flush()


async def test_flush_while_we_close_ends_well_if_it_drains_and_raises_if_not(autojump_clock: MockClock) -> None:
    for does_read in (True, False):
        network = MemoryNetwork(buffer_size=10)
        async with opened(network, close_timeout=2) as (ws, peer), trio.open_nursery() as nursery:
            await ws.send("x" * 100)

            @nursery.start_soon
            async def flush(ws: WebSocket = ws, does_read: bool = does_read) -> None:
                if does_read:
                    await ws.flush()
                else:
                    with pytest.raises(trio.ClosedResourceError):
                        await ws.flush()

            await wait_all_tasks_blocked()
            if does_read:
                nursery.start_soon(peer.serve_echo)
            await ws.aclose()


async def test_flush_confirm_waits_for_a_pong(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, peer):
        peer.answer_pings = False
        await ws.send("x")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(ws.flush, confirm=True))
            assert await peer.receive() == "x"
            assert (await peer.receive_frame()).opcode == Opcode.PING
            await wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1
            await peer.pong(peer.pings[-1])


async def test_flush_confirm_raises_at_a_drop_before_the_pong(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with reopening(network) as (ws, peer):
        await ws.send("x")
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def flush() -> None:
                with pytest.raises(ConnectionClosed):
                    await ws.flush(confirm=True)

            assert await peer.receive() == "x"
            peer.drop()
        await accept(network, ws)


async def test_flush_confirm_waits_for_open(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.delay(4)
    async with create_ws(URL, open_stream=network.open_stream) as ws, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def serve() -> None:
            peer = await network.accept()
            await peer.serve_echo()

        await ws.flush(confirm=True)
        assert trio.current_time() == pytest.approx(4)
        await ws.aclose()


# --- ping ---


async def test_ping_tells_the_round_trip_time(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.delay(4)
    async with create_ws(URL, open_stream=network.open_stream) as ws, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def serve() -> None:
            peer = await network.accept()
            peer.answer_pings = False
            await peer.accept()
            frame = await peer.receive_frame()
            await trio.sleep(0.25)
            await peer.pong(frame.payload)
            await peer.serve_echo()

        assert ws.latency is None
        assert await ws.ping() == pytest.approx(0.25)
        assert ws.latency == pytest.approx(0.25)
        assert ws.statistics().latency == ws.latency
        await ws.aclose()


async def test_ping_overtakes_what_is_buffered(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(buffer_size=200)
    async with opened(network) as (ws, peer), trio.open_nursery() as nursery:
        for _ in range(1000):
            await ws.send("x" * 1000)
        await wait_all_tasks_blocked()
        nursery.start_soon(ws.ping)
        count = 0
        while not peer.pings:
            await peer.receive()
            count += 1
        assert count < 1000
        nursery.start_soon(peer.serve_echo)
        await ws.aclose()


async def test_pings_of_two_tasks_are_two_pings(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(ws.ping)
        nursery.start_soon(ws.ping)
        nursery.start_soon(peer.serve_echo)
        await wait_all_tasks_blocked()
        assert len(set(peer.pings)) == 2
        await ws.aclose()


@pytest.mark.parametrize("end", ["drop", "reset", "close", "ours", "kill"])
async def test_ping_raises_when_the_connection_ends(end: str, autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, peer):
        peer.answer_pings = False
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def ping() -> None:
                ours = end in ("ours", "kill")
                with pytest.raises(trio.ClosedResourceError if ours else ConnectionClosed):
                    await ws.ping()

            await peer.receive_frame()
            if end == "drop":
                peer.drop()
            elif end == "reset":
                peer.reset()
            elif end == "close":
                await peer.send_close()
            else:
                with trio.CancelScope() as scope:
                    scope.deadline = trio.current_time() + (math.inf if end == "ours" else 0)
                    await ws.aclose()
        # It was told: leaving does not tell it once more.


async def test_ping_wakes_when_the_nursery_of_the_socket_is_cancelled(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as outer, trio.open_nursery() as inner:
        ws = make_ws(inner, URL, open_stream=network.open_stream)
        peer = await accept(network, ws)

        @outer.start_soon
        async def ping() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await ws.ping()

        await peer.receive_frame()
        await wait_all_tasks_blocked()
        inner.cancel_scope.cancel()
    assert network.live == 0


async def test_a_cancelled_ping_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(buffer_size=10)
    async with opened(network, close_timeout=1) as (ws, peer):
        peer.answer_pings = False
        with trio.move_on_after(1):
            await ws.ping()
        assert (await peer.receive_frame()).opcode == Opcode.PING
        await ws.send("x" * 100)
        await wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await ws.ping()  # behind a blocked write: not even sent
        with trio.move_on_after(1):
            await peer.receive()
        assert len(peer.pings) == 1
        await peer.pong(peer.pings[0])  # for nobody
        await wait_all_tasks_blocked()
        assert ws.latency is None
        await ws.aclose()


async def test_cancelled_pings_do_not_pile_up(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, peer):
        peer.answer_pings = False
        for _ in range(100):
            with trio.move_on_after(0.01):
                await ws.ping()
        peer.answer_pings = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.serve_echo)
            assert await ws.ping() < 0.1
            await ws.aclose()


async def test_ping_after_the_end_raises_at_once(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, peer):
        peer.drop()
        await ws.wait_closed()
        with pytest.raises(ConnectionClosed):
            await ws.ping()
        await ws.aclose()


# --- many ---


async def test_thousands_of_sends_cancelled_at_random_lose_none_and_double_none(autojump_clock: MockClock) -> None:
    rng = Random(4)
    network = MemoryNetwork(buffer_size=512)
    options: Options = {"outbox": Buffer(8)}
    accepted: list[list[str]] = [[], [], []]
    received: list[str] = []
    async with opened(network, **options) as (ws, peer), trio.open_nursery() as nursery:

        async def send(number: int) -> None:
            for count in range(1000):
                message = f"{number}:{count}"
                with trio.CancelScope() as scope:
                    if rng.random() < 0.3:
                        scope.cancel()
                    elif rng.random() < 0.5:
                        scope.deadline = trio.current_time() + rng.random() * 0.02
                    await ws.send(message + " " * rng.randrange(200))
                    accepted[number].append(message)

        async def read() -> None:
            with pytest.raises(PeerClosed):
                while True:
                    received.append(cast("str", await peer.receive()).rstrip())
                    await trio.sleep(rng.random() * 0.005)

        nursery.start_soon(read)
        async with trio.open_nursery() as senders:
            for number in range(3):
                senders.start_soon(send, number)
        await ws.aclose()
    assert sum(map(len, accepted)) > 1000
    for number in range(3):
        assert [message for message in received if message.startswith(f"{number}:")] == accepted[number]


async def test_a_breach_of_the_protocol_ends_also_a_socket_that_is_busy_sending(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    network = MemoryNetwork(buffer_size=1000)
    with pytest.raises(ConnectionClosed) as caught:
        async with opened(network, outbox=Buffer(max_bytes=100_000)) as (ws, peer):
            nursery.start_soon(peer.run_silent)
            await peer.send_raw(b"\xff\xff\xff")
            while True:
                await ws.send(bytes(10_000))
    assert caught.value.code == 1002
    assert trio.current_time() < 0.5  # no longer than the peer may take to hang up
