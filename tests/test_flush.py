"""`flush`, and above all `flush(confirm=True)`: when it may return, and when it must not."""

from functools import partial
from typing import Literal

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.sockets import URL, accept
from tests.test_tracking import mute, read_on, stubborn, unconfirmed
from trio_wsprim import (
    Buffer,
    ConnectionClosed,
    ConnectionFailed,
    RetriesExhausted,
    WebSocket,
    make_reconnecting_ws,
    make_ws,
)
from trio_wsprim.testing import MemoryNetwork, Opcode, Peer, PeerClosed

Resend = Literal["unsent", "unconfirmed"]


class Flush:
    """A call of `flush` in a task of its own."""

    def __init__(self, ws: WebSocket, confirm: bool = True) -> None:
        self.ws = ws
        self.confirm = confirm
        self.scope = trio.CancelScope()
        self.is_done = False
        self.error: Exception | None = None

    async def run(self) -> None:
        with self.scope:
            try:
                await self.ws.flush(confirm=self.confirm)
            except (ConnectionClosed, ConnectionFailed, trio.ClosedResourceError) as error:
                self.error = error
            self.is_done = True

    def outcome(self) -> object:
        return type(self.error) if self.error else "returned" if self.is_done else "waits"


async def started(nursery: trio.Nursery, ws: WebSocket, confirm: bool = True) -> Flush:
    flush = Flush(ws, confirm)
    nursery.start_soon(flush.run)
    await wait_all_tasks_blocked()
    return flush


async def next_ping(peer: Peer) -> bytes:
    while (frame := await peer.receive_frame()).opcode != Opcode.PING:
        pass
    return frame.payload


# ------------------------------------------------------------------------------------ on one connection


@pytest.mark.parametrize("track", [False, True])
async def test_it_returns_when_a_pong_has_proved_what_was_sent_before(track: bool, autojump_clock: MockClock) -> None:
    async with stubborn(MemoryNetwork(), track=track, resend="unsent") as (ws, peer), trio.open_nursery() as nursery:
        peer.answer_pings = False
        await ws.send("a")
        flush = await started(nursery, ws)
        assert await peer.receive() == "a"
        await trio.sleep(10)
        assert flush.outcome() == "waits"

        with trio.move_on_after(1):
            await peer.receive()
        await peer.pong(peer.pings[-1])
        await trio.sleep(1)

        assert flush.outcome() == "returned"
        peer.reset()


async def test_the_pong_of_a_ping_from_before_is_no_proof(autojump_clock: MockClock) -> None:
    async with mute(MemoryNetwork()) as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(ws.ping)
        early = await next_ping(peer)
        await ws.send("a")
        flush = await started(nursery, ws)
        await peer.pong(early)
        await trio.sleep(1)
        assert flush.outcome() == "waits"

        await next_ping(peer)
        await peer.pong(await next_ping(peer))
        await trio.sleep(1)
        assert flush.outcome() == "returned"


async def test_where_all_is_proved_it_asks_nothing(autojump_clock: MockClock) -> None:
    async with mute(MemoryNetwork()) as (ws, peer), trio.open_nursery() as nursery:
        await ws.send("a")
        await peer.pong(await next_ping(peer))
        await wait_all_tasks_blocked()

        assert (await started(nursery, ws)).outcome() == "returned"

        await trio.sleep(1)
        nursery.start_soon(read_on, peer)
        await wait_all_tasks_blocked()
        assert len(peer.pings) == 1
        await ws.aclose()


async def test_it_does_not_wait_for_the_ping_that_would_come_anyway(autojump_clock: MockClock) -> None:
    async with mute(MemoryNetwork(), confirm_interval=1000) as (ws, peer), trio.open_nursery() as nursery:
        peer.answer_pings = True
        nursery.start_soon(read_on, peer)
        for _ in range(3):
            await ws.send("a")
            with trio.fail_after(1):
                await ws.flush(confirm=True)
        await ws.aclose()


async def test_it_waits_for_a_slow_writer_and_then_for_the_pong(autojump_clock: MockClock) -> None:
    async with mute(MemoryNetwork(buffer_size=100)) as (ws, peer), trio.open_nursery() as nursery:
        await ws.send("x" * 1000)
        plain, proof = await started(nursery, ws, confirm=False), await started(nursery, ws)
        await trio.sleep(10)
        assert (plain.outcome(), proof.outcome()) == ("waits", "waits")

        await peer.receive()
        await trio.sleep(1)
        assert (plain.outcome(), proof.outcome()) == ("returned", "waits")

        peer.answer_pings = True
        nursery.start_soon(read_on, peer)
        await trio.sleep(1)
        assert proof.outcome() == "returned"
        await ws.aclose()


@pytest.mark.parametrize("confirm", [False, True])
@pytest.mark.parametrize("track", [False, True])
async def test_it_waits_for_open(confirm: bool, track: bool, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.delay(7)
    async with trio.open_nursery() as nursery:
        ws = make_ws(nursery, URL, open_stream=network.open_stream, track=track)
        await ws.send("a")
        flush = await started(nursery, ws, confirm)
        await trio.sleep(6.5)
        assert flush.outcome() == "waits"
        peer = await accept(network, ws)
        nursery.start_soon(read_on, peer)
        await trio.sleep(1)
        assert flush.outcome() == "returned"
        await ws.aclose()


async def test_a_message_that_is_dropped_is_not_waited_for(autojump_clock: MockClock) -> None:
    outbox = Buffer(max_messages=1, when_full="drop_oldest")
    async with mute(MemoryNetwork(), outbox=outbox) as (ws, peer), trio.open_nursery() as nursery:
        await ws.send("a")
        assert await peer.receive() == "a"
        flush = await started(nursery, ws)
        await ws.send("b")
        await wait_all_tasks_blocked()
        await peer.pong(await next_ping(peer))
        await trio.sleep(1)
        assert flush.outcome() == "returned"
        peer.reset()


@pytest.mark.parametrize("confirm", [False, True])
async def test_a_cancelled_one_leaves_nothing_behind(confirm: bool, autojump_clock: MockClock) -> None:
    async with stubborn(MemoryNetwork(buffer_size=100), resend="unsent") as (ws, peer):
        async with trio.open_nursery() as nursery:
            await ws.send("x" * 1000)
            flush = await started(nursery, ws, confirm)
            flush.scope.cancel()
        assert flush.outcome() == "waits"
        assert len(str(await peer.receive())) == 1000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_on, peer)
            await trio.sleep(10)
            assert peer.pings == []
            await ws.flush(confirm=True)
            assert len(peer.pings) == 1
            await ws.aclose()


async def test_cancelled_while_it_waits_for_a_pong_it_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    async with mute(MemoryNetwork()) as (ws, peer), trio.open_nursery() as nursery:
        await ws.send("a")
        flush = await started(nursery, ws)
        await next_ping(peer)
        flush.scope.cancel()
        await wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await peer.receive()
        for payload in peer.pings:
            await peer.pong(payload)
        await trio.sleep(1)

        assert ws.statistics().messages_unconfirmed == 0
        assert (await started(nursery, ws)).outcome() == "returned"
        peer.reset()


async def test_a_call_that_was_cancelled_before_does_nothing(autojump_clock: MockClock) -> None:
    async with mute(MemoryNetwork()) as (ws, peer):
        with trio.CancelScope() as scope:
            scope.cancel()
            await ws.flush(confirm=True)

        assert scope.cancelled_caught
        peer.reset()


# ------------------------------------------------------------------------------------ a drop in between


@pytest.mark.parametrize("track", [False, True])
async def test_a_drop_while_it_waits_for_the_pong_raises_once(track: bool, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with stubborn(network, track=track, resend="unsent") as (ws, peer), trio.open_nursery() as nursery:
        peer.answer_pings = False
        await ws.send("a")
        flush = await started(nursery, ws)
        assert await peer.receive() == "a"
        peer.reset()
        await wait_all_tasks_blocked()
        assert flush.outcome() is ConnectionClosed

        nursery.start_soon(read_on, await accept(network, ws))
        with trio.fail_after(5):
            await ws.flush(confirm=True)
        await ws.aclose()


@pytest.mark.parametrize("confirm", [False, True])
async def test_a_drop_while_a_message_waits_to_be_handed_over_raises(confirm: bool, autojump_clock: MockClock) -> None:
    network = MemoryNetwork(buffer_size=100)
    async with stubborn(network, track=True, resend="unsent") as (ws, peer), trio.open_nursery() as nursery:
        await ws.send("x" * 1000)
        flush = await started(nursery, ws, confirm)
        peer.reset()
        second = await accept(network, ws)

        assert flush.outcome() is ConnectionClosed
        nursery.start_soon(read_on, second)
        await ws.aclose()


async def test_a_drop_after_the_pong_does_not_matter(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with stubborn(network, track=True, resend="unsent") as (ws, peer), trio.open_nursery() as nursery:
        peer.answer_pings = False
        await ws.send("a")
        flush = await started(nursery, ws)
        assert await peer.receive() == "a"
        await peer.pong(await next_ping(peer))  # the barrier's or the flush's: the other stays without its pong
        peer.drop()
        await trio.sleep(0.5)

        assert flush.outcome() == "returned"
        assert ws.statistics().messages_unconfirmed == 0


async def test_what_goes_again_is_waited_for_over_any_number_of_drops(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with stubborn(network) as (ws, peer), trio.open_nursery() as nursery:
        await ws.send("a")
        flush = await started(nursery, ws)
        for _ in range(4):
            peer.answer_pings = False
            assert await peer.receive() == "a"
            peer.reset()
            peer = await accept(network, ws)
        network.refuse(2)
        ws.reconnect()
        await trio.sleep(0.5)
        assert flush.outcome() == "waits"

        peer = await accept(network, ws)
        nursery.start_soon(read_on, peer)
        await trio.sleep(1)

        assert flush.outcome() == "returned"
        await ws.aclose()


async def test_what_is_set_aside_is_not_waited_for(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with stubborn(network) as (ws, peer), trio.open_nursery() as nursery:
        peer.answer_pings = False
        await ws.send("too big")
        flush = await started(nursery, ws)
        assert await peer.receive() == "too big"
        await peer.send_close(1009)
        with pytest.raises(PeerClosed):
            await peer.receive()
        nursery.start_soon(read_on, await accept(network, ws))
        await trio.sleep(1)

        assert flush.outcome() == "returned"
        await ws.aclose()


# ------------------------------------------------------------------------------------ a drop before


@pytest.mark.parametrize("track", [False, True])
async def test_what_an_earlier_connection_has_left_in_doubt_is_told_once(
    track: bool, autojump_clock: MockClock
) -> None:
    network = MemoryNetwork()
    async with stubborn(network, track=track, resend="unsent") as (ws, peer), trio.open_nursery() as nursery:
        peer.answer_pings = False
        await ws.send("a")
        assert await peer.receive() == "a"
        peer.reset()
        nursery.start_soon(read_on, await accept(network, ws))

        await ws.flush()
        with pytest.raises(ConnectionClosed):
            await ws.flush(confirm=True)
        await ws.flush(confirm=True)
        await ws.aclose()


@pytest.mark.parametrize("resend", ["unsent", "unconfirmed"])
async def test_an_earlier_connection_that_left_no_doubt_does_not_matter(
    resend: Resend, autojump_clock: MockClock
) -> None:
    network = MemoryNetwork()
    async with stubborn(network, resend=resend) as (ws, peer), trio.open_nursery() as nursery:
        await ws.send("a")
        assert await peer.receive() == "a"
        nursery.start_soon(read_on, peer)
        await ws.flush(confirm=True)
        peer.reset()
        nursery.start_soon(read_on, await accept(network, ws))

        await ws.flush(confirm=True)
        await ws.aclose()


async def test_what_is_in_doubt_and_goes_again_is_no_doubt(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with stubborn(network) as (ws, peer), trio.open_nursery() as nursery:
        peer.answer_pings = False
        await ws.send("a")
        assert await peer.receive() == "a"
        peer.reset()
        second = await accept(network, ws)
        nursery.start_soon(read_on, second)

        await ws.flush(confirm=True)

        assert [frame.payload for frame in second.frames if frame.opcode == Opcode.TEXT] == [b"a"]
        await ws.aclose()


# ------------------------------------------------------------------------------------ the end


@pytest.mark.parametrize("confirm", [False, True])
@pytest.mark.parametrize("resend", ["unsent", "unconfirmed"])
async def test_the_last_retry_ends_it(confirm: bool, resend: Resend, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse(3)
    async with trio.open_nursery() as nursery:
        ws = make_reconnecting_ws(nursery, URL, open_stream=network.open_stream, retries=2, resend=resend)
        await ws.send("a")
        flush = await started(nursery, ws, confirm)
        await ws.wait_closed()
        await wait_all_tasks_blocked()

        assert flush.outcome() is RetriesExhausted


async def test_what_goes_again_is_not_waited_for_after_the_end(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with stubborn(network, retries=2) as (ws, peer), trio.open_nursery() as nursery:
        peer.answer_pings = False
        await ws.send("a")
        flush = await started(nursery, ws)
        assert await peer.receive() == "a"
        network.refuse(2)
        peer.reset()
        await ws.wait_closed()
        await wait_all_tasks_blocked()

        assert flush.outcome() is RetriesExhausted
        assert ws.undelivered == unconfirmed("a")


async def test_our_own_close_ends_it_well_if_that_is_answered(autojump_clock: MockClock) -> None:
    async with mute(MemoryNetwork()) as (ws, peer), trio.open_nursery() as nursery:
        await ws.send("a")
        flush = await started(nursery, ws)
        nursery.start_soon(read_on, peer)
        await ws.aclose()
        await wait_all_tasks_blocked()

        assert flush.outcome() == "returned"
        assert (await started(nursery, ws)).outcome() == "returned"


@pytest.mark.parametrize("resend", ["unsent", "unconfirmed"])
async def test_our_own_close_ends_it_badly_if_that_is_not_answered(resend: Resend, autojump_clock: MockClock) -> None:
    async with stubborn(MemoryNetwork(), track=True, resend=resend) as (ws, peer), trio.open_nursery() as nursery:
        peer.answer_pings = False
        await ws.send("a")
        flush = await started(nursery, ws)
        await ws.aclose()
        await wait_all_tasks_blocked()

        assert flush.outcome() is trio.ClosedResourceError
        for _ in range(3):
            assert (await started(nursery, ws)).outcome() is trio.ClosedResourceError


@pytest.mark.parametrize("track", [False, True])
async def test_after_the_end_what_is_in_doubt_stays_so(track: bool, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = MemoryNetwork()
        ws = make_ws(nursery, URL, open_stream=network.open_stream, track=track)
        peer = await accept(network, ws)
        await ws.send("a")
        await wait_all_tasks_blocked()
        peer.reset()
        await ws.wait_closed()

        for _ in range(3):
            assert (await started(nursery, ws)).outcome() is ConnectionClosed
        await ws.flush()


async def test_two_that_wait_are_both_told(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with stubborn(network, track=True, resend="unsent") as (ws, peer), trio.open_nursery() as nursery:
        peer.answer_pings = False
        await ws.send("a")
        flushes = [await started(nursery, ws) for _ in range(3)]
        peer.reset()
        await wait_all_tasks_blocked()

        assert [flush.outcome() for flush in flushes] == [ConnectionClosed] * 3


async def test_an_end_that_a_flush_kept_to_itself_is_still_to_be_told(autojump_clock: MockClock) -> None:
    async with mute(MemoryNetwork()) as (ws, peer):
        async with trio.open_nursery() as nursery:
            await ws.send("a")
            nursery.start_soon(partial(ws.flush, confirm=True))
            await peer.pong(await next_ping(peer))
            await peer.send_close(1011)
            with pytest.raises(PeerClosed):
                await peer.receive()
        assert ws._told is None
