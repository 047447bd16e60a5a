"""One life of one link, with a link that does exactly what a test says."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim import (
    ConnectionClosed,
    DropEvent,
    HeartbeatTimeout,
    UndeliveredError,
    create_ws,
    make_heartbeat_ws,
    make_ws,
)
from trio_wsprim._seam import Ending, Incoming, Outgoing, Upgrade
from trio_wsprim.testing import MemoryNetwork

from .sockets import URL, opened, taken


class StubLink:
    """A link, and the transport that gives it. `come` is what `receive` gives, or raises, next."""

    def __init__(self) -> None:
        self.subprotocol = None
        self.response_headers = ()
        self.items_sent = 0
        self.heard_at = self.moved_at = 0.0
        self.ending = Ending(1006, "", clean=False)
        self.come_in, self._coming = trio.open_memory_channel[Exception | str](100)
        self.send_error: Exception | None = None
        self.gate = trio.Event()
        self.gate.set()
        self.calls: list[str] = []

    async def connect(self, nursery: trio.Nursery, stream: trio.abc.Stream, upgrade: Upgrade) -> StubLink:
        await trio.aclose_forcefully(stream)
        return self

    async def send(self, batch: Sequence[Outgoing]) -> None:
        self.calls.append("send")
        if self.send_error is not None:
            await trio.lowlevel.checkpoint()
            raise self.send_error
        try:
            await self.gate.wait()
        except trio.Cancelled:
            self.calls.append("torn")
            raise
        self.calls.append("sent")
        self.items_sent += len(batch)

    async def receive(self) -> Sequence[Incoming]:
        item = await self._coming.receive()
        if isinstance(item, Exception):
            if isinstance(item, ConnectionClosed):
                self.ending = Ending(item.code, item.reason, clean=False)
            raise item
        return [item]

    async def aclose(self, code: int, reason: str) -> None:
        self.calls.append("aclose")
        self.ending = Ending(self.ending.code, self.ending.reason, clean=True)
        await trio.lowlevel.checkpoint()

    async def abort(self) -> None:
        self.calls.append("abort")
        await trio.lowlevel.checkpoint_if_cancelled()


async def test_a_write_under_way_ends_before_the_peer_s_close_is_answered(autojump_clock: MockClock) -> None:
    link = StubLink()
    link.gate = trio.Event()
    async with create_ws(URL, open_stream=MemoryNetwork().open_stream, transport=link) as ws:
        await ws.send("1")
        await ws.wait_open()
        await wait_all_tasks_blocked()
        link.come_in.send_nowait(ConnectionClosed(1000))
        await wait_all_tasks_blocked()
        await ws.send("2")
        link.gate.set()
        end = await ws.wait_closed()
        assert (end.code, end.clean, trio.current_time()) == (1000, True, 0)
        assert [each.message for each in ws.undelivered] == ["2"]
        await ws.aclose()
    assert link.calls == ["send", "sent", "aclose", "abort"]


async def test_a_write_that_gets_nowhere_is_not_waited_for_long(autojump_clock: MockClock) -> None:
    link = StubLink()
    link.gate = trio.Event()
    async with create_ws(URL, open_stream=MemoryNetwork().open_stream, transport=link) as ws:
        make_heartbeat_ws(ws, interval=0.3, wait=0.3)  # its verdict would come too late: the peer has spoken
        await ws.send("1")
        await ws.wait_open()
        await wait_all_tasks_blocked()
        link.come_in.send_nowait(ConnectionClosed(1001))
        end = await ws.wait_closed()
        assert (end.code, trio.current_time()) == (1001, 1)
        await ws.aclose()
    assert link.calls == ["send", "torn", "aclose", "abort"]


async def test_leaving_while_a_write_delays_the_answer_does_not_turn_the_peer_s_close_into_ours(
    autojump_clock: MockClock,
) -> None:
    link = StubLink()
    link.gate = trio.Event()
    with pytest.raises(ConnectionClosed) as caught:
        async with create_ws(URL, open_stream=MemoryNetwork().open_stream, transport=link) as ws:
            await ws.send("1")
            await ws.wait_open()
            await wait_all_tasks_blocked()
            link.come_in.send_nowait(ConnectionClosed(4001, "kicked"))
            await wait_all_tasks_blocked()
    assert (caught.value.code, caught.value.reason) == (4001, "kicked")
    assert trio.current_time() == 1  # so long a write may take


async def test_a_link_that_answers_the_peer_s_close_under_the_writer_s_hands(autojump_clock: MockClock) -> None:
    link = StubLink()
    link.send_error = ConnectionClosed(1006)
    with pytest.raises(UndeliveredError):
        async with create_ws(URL, open_stream=MemoryNetwork().open_stream, transport=link) as ws:
            await ws.send("1")
            await ws.wait_open()
            await wait_all_tasks_blocked()
            await ws.send("2")
            link.come_in.send_nowait(ConnectionClosed(1000))
            with pytest.raises(trio.EndOfChannel):
                await ws.receive()
            assert trio.current_time() == 0  # the close tells why the write failed: nothing to wait for
    assert [each.message for each in ws.undelivered] == ["1", "2"]
    assert link.calls == ["send", "aclose", "abort"]


async def test_when_a_write_fails_the_peer_s_last_words_tell_why(autojump_clock: MockClock) -> None:
    link = StubLink()
    link.send_error = ConnectionClosed(1006)
    async with trio.open_nursery() as nursery:
        ws = make_ws(nursery, URL, open_stream=MemoryNetwork().open_stream, transport=link)
        await ws.send("1")
        await ws.wait_open()
        await trio.sleep(0.5)
        link.come_in.send_nowait("why")
        link.come_in.send_nowait(ConnectionClosed(4000, "therefore"))
        assert await ws.receive() == "why"
        with pytest.raises(ConnectionClosed) as caught:
            await ws.receive()
        assert (caught.value.code, caught.value.reason) == (4000, "therefore")


async def test_when_a_write_fails_and_the_peer_is_silent_the_connection_is_lost(autojump_clock: MockClock) -> None:
    link = StubLink()
    link.send_error = ConnectionClosed(1006)
    async with trio.open_nursery() as nursery:
        ws = make_ws(nursery, URL, open_stream=MemoryNetwork().open_stream, transport=link)
        await ws.send("1")
        end = await ws.wait_closed()
        assert (end.code, trio.current_time()) == (1006, 1)
    assert link.calls == ["send", "abort"]  # there is nobody to say goodbye to


async def test_what_a_strange_link_raises_ends_the_socket(autojump_clock: MockClock) -> None:
    link = StubLink()
    oops = LookupError("none of the seam's errors")
    async with create_ws(URL, open_stream=MemoryNetwork().open_stream, transport=link) as ws:
        await ws.wait_open()
        link.come_in.send_nowait(oops)
        with pytest.raises(LookupError) as caught:
            await ws.receive()
        assert caught.value is oops
    assert link.calls == ["abort"]


async def test_a_dead_peer_is_not_asked_to_close(autojump_clock: MockClock) -> None:
    link = StubLink()
    async with create_ws(URL, open_stream=MemoryNetwork().open_stream, transport=link) as ws:
        make_heartbeat_ws(ws)
        with pytest.raises(HeartbeatTimeout):
            await ws.receive()
    assert link.calls == ["send", "sent", "abort"]


async def test_what_expires_as_the_writer_takes_it_is_not_sent(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, peer), ws.events() as events:
        ws.send_nowait("late", ttl=1)
        autojump_clock.jump(2)  # a computation that kept trio waiting
        await wait_all_tasks_blocked()
        assert taken(events) == [DropEvent("late", "expired")]
        await ws.send("next")
        assert await peer.receive() == "next"
