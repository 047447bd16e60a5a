"""Lives in a row: what the tests of whole sockets do not reach."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim import ConnectionFailed, ReadyState, create_reconnecting_ws, create_ws, make_reconnecting_ws
from trio_wsprim.testing import MemoryNetwork

from .sockets import URL, accept, kinds, taken


class Strange:
    """A transport that breaks the seam's rules."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def connect(self, nursery: trio.Nursery, stream: trio.abc.Stream, upgrade: object) -> Any:
        await trio.aclose_forcefully(stream)
        raise self.error


async def test_what_a_strange_transport_raises_ends_the_socket_and_is_told(autojump_clock: MockClock) -> None:
    oops = LookupError("mine")
    network = MemoryNetwork()
    async with create_reconnecting_ws(URL, open_stream=network.open_stream, transport=Strange(oops)) as ws:
        with pytest.raises(LookupError) as caught:
            await ws.receive()
        assert caught.value is oops
    assert len(network.dials) == 1


async def test_closing_in_the_very_moment_in_which_it_opens(autojump_clock: MockClock) -> None:
    """However many turns the handshake takes, somewhere among these is the one in which it is done."""
    for turns in range(40):
        network = MemoryNetwork()
        async with create_ws(URL, open_stream=network.open_stream, close_timeout=1) as ws:
            peer = await network.accept()
            await peer.accept()
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.serve_echo)
                await ws.aclose()
            assert ws.state.value is ReadyState.CLOSED
        assert network.live == 0


async def test_reconnecting_in_the_very_moment_in_which_it_opens_or_fails(autojump_clock: MockClock) -> None:
    for turns in range(40):
        for status in (101, 503):
            network = MemoryNetwork()
            begun = trio.current_time()
            async with create_reconnecting_ws(URL, open_stream=network.open_stream, delay=60.0) as ws:
                peer = await network.accept()
                if status == 101:
                    await peer.accept()
                else:
                    await peer.reject(status)
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                ws.reconnect()
                await wait_all_tasks_blocked()
                await accept(network, ws)
                assert trio.current_time() == begun
                assert network.most_live == 1
                assert len(network.dials) == 2


async def test_a_drop_in_the_very_moment_of_our_close(autojump_clock: MockClock) -> None:
    for turns in range(25):
        network = MemoryNetwork()
        async with trio.open_nursery() as nursery:
            ws = make_reconnecting_ws(nursery, URL, open_stream=network.open_stream, delay=60.0)
            async with ws.events() as events:
                peer = await accept(network, ws)
                peer.drop()
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                begun = trio.current_time()
                await ws.aclose()
                assert trio.current_time() == begun
                seen = kinds(taken(events))
                assert seen in (["Connect", "Open", "Close", "End"], ["Connect", "Open", "Close", "Retry", "End"])
            with pytest.raises(trio.ClosedResourceError):
                await ws.receive()
        assert len(network.dials) == 1


async def test_an_attempt_under_way_when_we_close_takes_no_longer_than_the_close_may(
    autojump_clock: MockClock,
) -> None:
    network = MemoryNetwork()
    network.refuse()
    network.stall()
    async with trio.open_nursery() as nursery:
        ws = make_reconnecting_ws(
            nursery, URL, open_stream=network.open_stream, delay=1.0, close_timeout=3, connect_timeout=100
        )
        await ws.send("buffered")
        await trio.sleep(2)
        await ws.aclose()
        assert trio.current_time() == pytest.approx(5)
        assert isinstance(ws.statistics().last_error, ConnectionFailed)
        assert len(ws.undelivered) == 1
    assert len(network.dials) == 2


async def test_messages_that_expire_while_an_attempt_is_under_way_leave_nothing_to_wait_for(
    autojump_clock: MockClock,
) -> None:
    network = MemoryNetwork()
    network.delay(2)
    async with create_ws(URL, open_stream=network.open_stream) as ws, trio.open_nursery() as nursery:
        await ws.send("x", ttl=1)

        @nursery.start_soon
        async def serve() -> None:
            peer = await network.accept()
            await peer.serve_echo()
            assert [frame.payload for frame in peer.frames] == [b"\x03\xe8"]

        await ws.aclose()
        assert ws.undelivered == ()
