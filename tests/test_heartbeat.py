"""SPEC, section 7, sentence by sentence."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim import (
    Buffer,
    CloseEvent,
    ConnectionClosed,
    HeartbeatTimeout,
    MessageEvent,
    ReadyState,
    RetryEvent,
    create_ws,
    make_heartbeat_ws,
    make_reconnecting_ws,
    make_ws,
)
from trio_wsprim.testing import MemoryNetwork, Opcode, Peer

from .sockets import URL, accept, opened, reopening, taken


async def next_message(peer: Peer) -> tuple[str | bytes, float]:
    message = await peer.receive()
    return message, trio.current_time()


async def test_it_returns_the_same_socket(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(), close_timeout=0) as (ws, _):
        assert make_heartbeat_ws(ws) is ws


async def test_after_silence_for_interval_it_sends_the_message(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(), close_timeout=0) as (ws, peer):
        make_heartbeat_ws(ws)
        assert await next_message(peer) == ("ping", 1.0)
        await trio.sleep(0.5)
        await peer.send("any message counts")
        assert await next_message(peer) == ("ping", 2.5)
        await peer.send("pong")
        assert await next_message(peer) == ("ping", 3.5)


async def test_silence_for_wait_after_it_ends_the_connection(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with opened(network) as (ws, peer), ws.events() as events:
        make_heartbeat_ws(ws, interval=2, wait=3)
        assert await next_message(peer) == ("ping", 2)
        for call in (ws.receive(), ws.send("x"), ws.ping()):
            with pytest.raises(HeartbeatTimeout) as caught:
                await call
            assert isinstance(caught.value, ConnectionClosed)
            assert (caught.value.wait, caught.value.code, caught.value.clean) == (3, 1006, False)
        assert trio.current_time() == 5
        end = await ws.wait_closed()
        assert isinstance(end, CloseEvent)
        assert isinstance(end.error, HeartbeatTimeout)
        assert end in taken(events)
    assert network.live == 0


async def test_the_default_is_1_and_1_5_seconds(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, _):
        make_heartbeat_ws(ws)
        with pytest.raises(HeartbeatTimeout):
            await ws.receive()
        assert trio.current_time() == 2.5


async def test_a_reconnecting_socket_dials_again_and_the_heartbeat_follows(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        ws = make_heartbeat_ws(
            make_reconnecting_ws(nursery, URL, open_stream=network.open_stream, delay=1.0), message="👍"
        )
        async with ws.events() as events:
            for number in range(3):
                peer = await accept(network, ws)
                assert await next_message(peer) == ("👍", 3.5 * number + 1)
                await ws.state.wait_value(ReadyState.CLOSED)
                assert trio.current_time() == 3.5 * number + 2.5
            errors = [event.error for event in taken(events) if isinstance(event, RetryEvent)]
            assert all(isinstance(error, HeartbeatTimeout) for error in errors)
        await ws.aclose()


async def test_any_byte_counts_as_life(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(), close_timeout=0) as (ws, peer):
        make_heartbeat_ws(ws)
        frame = b"\x81\x14" + b"x" * 20
        for byte in frame:  # a message that drips
            await peer.send_raw(bytes([byte]))
            await trio.sleep(0.9)
        assert await ws.receive() == "x" * 20
        assert peer.unparsed == b""
        for _ in range(5):
            await peer.ping()
            await trio.sleep(0.9)
        for _ in range(5):
            await peer.pong(b"unasked for")
            await trio.sleep(0.9)
        assert ws.state.value is ReadyState.OPEN
        assert peer.frames == []


async def test_none_is_a_ping_frame_which_every_server_answers(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(), close_timeout=0) as (ws, peer), trio.open_nursery() as nursery:
        make_heartbeat_ws(ws, message=None)
        nursery.start_soon(peer.serve_echo)
        await trio.sleep(10)
        assert ws.state.value is ReadyState.OPEN
        assert len(peer.pings) == 9 or len(peer.pings) == 10
        assert {frame.opcode for frame in peer.frames} == {Opcode.PING}
        await ws.aclose()


async def test_ping_beside_a_heartbeat_of_ping_frames(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(), close_timeout=0) as (ws, peer):
        make_heartbeat_ws(ws, message=None)
        peer.answer_pings = False
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def ping() -> None:
                assert await ws.ping() == pytest.approx(1.25)

            await peer.receive_frame()
            beat = await peer.receive_frame()
            assert trio.current_time() == 1
            await peer.pong(beat.payload)  # none of `ping()`'s business
            await trio.sleep(0.25)
            await peer.pong(peer.pings[0])


@pytest.mark.parametrize("message", ["text", b"binary", "", lambda: "made", lambda: b"made"])
async def test_a_message_is_text_binary_or_a_function(message: Any, autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(), close_timeout=0) as (ws, peer):
        make_heartbeat_ws(ws, message=message)
        assert await peer.receive() == (message() if callable(message) else message)


async def test_a_function_is_asked_each_time(autojump_clock: MockClock) -> None:
    beats = iter(range(100))
    async with opened(MemoryNetwork(), close_timeout=0) as (ws, peer):
        make_heartbeat_ws(ws, message=lambda: str(next(beats)))
        for number in range(3):
            assert await peer.receive() == str(number)
            await peer.send("yes")


async def test_what_a_function_raises_ends_the_socket(autojump_clock: MockClock) -> None:
    oops = LookupError("mine")

    def fail(*_: object) -> Any:
        raise oops

    wrongs: tuple[dict[str, Any], ...] = ({"message": fail}, {"reply": fail}, {"message": lambda: 5})
    for wrong in wrongs:
        async with opened(MemoryNetwork()) as (ws, peer):
            make_heartbeat_ws(ws, **wrong)
            await peer.send("x")
            with pytest.raises((LookupError, TypeError)) as caught:
                while True:
                    await ws.receive()
            assert caught.value is oops or isinstance(caught.value, TypeError)
    async with reopening(network := MemoryNetwork()) as (ws, _):
        make_heartbeat_ws(ws, message=fail)
        with pytest.raises(LookupError):
            await ws.ping()
        await ws.wait_closed()
        with pytest.raises(trio.ClosedResourceError):
            ws.reconnect()
    assert len(network.dials) == 1


@pytest.mark.parametrize("reply", ["pong", lambda message: message == "pong"])
async def test_answers_that_reply_names_are_not_shown(reply: Any, autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(), close_timeout=0) as (ws, peer), ws.events() as events, ws.subscribe() as channel:
        make_heartbeat_ws(ws, reply=reply)
        for _ in range(3):
            assert await peer.receive() == "ping"
            await peer.send("pong")
        await peer.send("pong!")
        await peer.send(b"pong")
        assert await ws.receive_many(1) == ["pong!"]
        assert await ws.receive() == b"pong"
        assert [await channel.receive() for _ in range(2)] == ["pong!", b"pong"]
        assert taken(events) == [MessageEvent("pong!"), MessageEvent(b"pong")]
        assert ws.message.value == b"pong"
        assert ws.statistics().messages_received == 2


async def test_without_reply_answers_are_shown(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(), close_timeout=0) as (ws, peer):
        make_heartbeat_ws(ws)
        await peer.receive()
        await peer.send("pong")
        assert await ws.receive() == "pong"


async def test_ordinary_sends_arm_nothing(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(), close_timeout=0) as (ws, peer):
        make_heartbeat_ws(ws, interval=10, wait=1)
        for _ in range(9):
            await ws.send("no answer")
            await trio.sleep(1)
        assert ws.state.value is ReadyState.OPEN
        assert await peer.receive_all(9) == ["no answer"] * 9
        assert await next_message(peer) == ("ping", 10)


async def test_a_full_inbox_never_counts_against_the_peer(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(buffer_size=64), inbox=Buffer(1), close_timeout=0) as (ws, peer):
        make_heartbeat_ws(ws)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def chatter() -> None:
                while True:
                    await peer.send("x" * 20)

            await trio.sleep(1000)
            assert ws.state.value is ReadyState.OPEN
            nursery.cancel_scope.cancel()
        await ws.aclose()


async def test_the_clock_goes_on_from_where_it_stood(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(), inbox=Buffer(1), close_timeout=0) as (ws, peer):
        make_heartbeat_ws(ws)
        await trio.sleep(0.6)
        await peer.send("fills it")
        await trio.sleep(100)
        assert await ws.receive() == "fills it"
        assert await peer.receive() == "ping"
        assert trio.current_time() == pytest.approx(101.6)


async def test_a_heartbeat_given_while_we_do_not_read_stands_too(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(), inbox=Buffer(1), close_timeout=0) as (ws, peer):
        await peer.send("fills it")
        await trio.sleep(1)
        make_heartbeat_ws(ws)
        make_heartbeat_ws(ws)
        await trio.sleep(100)
        assert ws.state.value is ReadyState.OPEN
        assert await ws.receive() == "fills it"
        assert await peer.receive() == "ping"
        assert trio.current_time() == pytest.approx(102)
        with pytest.raises(HeartbeatTimeout):
            await ws.receive()
        assert trio.current_time() == pytest.approx(103.5)


async def test_a_blocked_send_does_not_hide_a_dead_peer(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(buffer_size=64), close_timeout=1) as (ws, _):
        make_heartbeat_ws(ws)
        await ws.send("x" * 1000)
        with pytest.raises(HeartbeatTimeout):
            await ws.receive()
        assert trio.current_time() <= 3
        await ws.aclose()


async def test_a_slow_but_living_reader_is_not_dead(autojump_clock: MockClock) -> None:
    """Our own write gets on, if slowly: the beat waits behind it, and its clock has not begun."""
    async with opened(MemoryNetwork(buffer_size=64), close_timeout=1) as (ws, peer):
        make_heartbeat_ws(ws)
        for _ in range(40):
            await ws.send("x" * 60)
        for _ in range(40):
            await trio.sleep(0.5)
            if ws.state.value is not ReadyState.OPEN:
                break
            await peer.receive_frame()
        assert ws.state.value is ReadyState.OPEN
        await ws.aclose()


async def test_it_bypasses_the_outbox(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(buffer_size=64)
    async with opened(network, outbox=Buffer(1, when_full="error"), close_timeout=1) as (ws, peer):
        make_heartbeat_ws(ws, wait=10)
        await ws.send("x" * 100)  # under way, and fills the outbox
        await trio.sleep(2)
        assert ws.statistics().messages_buffered == 1
        assert await peer.receive() == "x" * 100
        assert await peer.receive() == "ping"
        assert ws.statistics().messages_sent == 1


async def test_it_beats_only_while_open(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.delay(100)
    async with create_ws(URL, open_stream=network.open_stream, connect_timeout=None, close_timeout=0) as ws:
        make_heartbeat_ws(ws)
        peer = await accept(network, ws)
        assert await next_message(peer) == ("ping", 101)


async def test_it_ends_with_the_socket_and_never_revives_a_closed_one(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with reopening(network) as (ws, peer):
        make_heartbeat_ws(ws)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.run_silent)
            peer.answer_close = True
            nursery.start_soon(ws.aclose)
            await ws.wait_closed()
            peer.drop()
        tasks = trio.lowlevel.current_statistics().tasks_living
        assert make_heartbeat_ws(ws) is ws
        await trio.sleep(100)
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert ws.state.value is ReadyState.CLOSED
    assert len(network.dials) == 1


async def test_it_does_not_beat_while_we_close(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(), close_timeout=50) as (ws, peer), trio.open_nursery() as nursery:
        make_heartbeat_ws(ws)
        nursery.start_soon(ws.aclose)
        await trio.sleep(20)
        make_heartbeat_ws(ws)
        await trio.sleep(20)
        assert ws.state.value is ReadyState.CLOSING
        nursery.start_soon(peer.serve_echo)
        await ws.wait_closed()
        assert [frame.opcode for frame in peer.frames] == [Opcode.CLOSE]


async def test_one_given_while_the_peer_closes_comes_too_late(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(buffer_size=64)) as (ws, peer):
        await ws.send("x" * 100)
        await wait_all_tasks_blocked()
        await peer.send_close()
        await ws.state.wait_value(ReadyState.CLOSING)
        make_heartbeat_ws(ws)
        end = await ws.wait_closed()
        assert end.code == 1000
        await ws.aclose()


async def test_a_second_one_replaces_the_first(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(), close_timeout=0) as (ws, peer):
        make_heartbeat_ws(ws, message="first", reply="1")
        make_heartbeat_ws(ws, message="second", interval=2)
        assert await next_message(peer) == ("second", 2)
        await peer.send("1")
        assert await ws.receive() == "1"
        assert await next_message(peer) == ("second", 4)


async def test_a_plain_socket_has_one_too(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        ws = make_heartbeat_ws(make_ws(nursery, URL, open_stream=network.open_stream))
        await accept(network, ws)
        end = await ws.wait_closed()
        assert isinstance(end.error, HeartbeatTimeout)


@pytest.mark.parametrize("name", ["interval", "wait"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
async def test_times_out_of_range_are_value_errors(name: str, value: float, autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(), close_timeout=0) as (ws, _):
        with pytest.raises(ValueError, match=name):
            make_heartbeat_ws(ws, **cast("Any", {name: value}))


async def test_wrong_types_are_type_errors(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(), close_timeout=0) as (ws, _):
        for wrong in ({"message": 5}, {"reply": 5}, {"interval": "1"}):
            with pytest.raises(TypeError):
                make_heartbeat_ws(ws, **cast("Any", wrong))
        with pytest.raises(TypeError):
            make_heartbeat_ws(cast("Any", 5))
        with pytest.raises(UnicodeEncodeError):
            make_heartbeat_ws(ws, message="\ud800")
