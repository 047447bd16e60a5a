"""One life of one link, with a link that does exactly what a test says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim import (
    ConnectionClosed,
    ConnectionFailed,
    DropEvent,
    HeartbeatTimeout,
    ReadyState,
    UndeliveredError,
    WebSocket,
    create_reconnecting_ws,
    create_ws,
    make_heartbeat_ws,
    make_ws,
)
from trio_wsprim._seam import Ending, Incoming, Outgoing, Upgrade
from trio_wsprim.testing import MemoryNetwork

from .sockets import URL, accept, opened, taken


class StubLink:
    """A link, and the transport that gives it. `come_in` takes what `receive` gives, or raises, next."""

    is_direct = False

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
        self._batch: Sequence[Outgoing] = ()

    def interrupt(self) -> None:
        raise AssertionError("no task of a user's reads here")

    async def connect(self, nursery: trio.Nursery, stream: trio.abc.Stream, upgrade: Upgrade) -> StubLink:
        await trio.aclose_forcefully(stream)
        return self

    def send_nowait(self, batch: Sequence[Outgoing]) -> bool:
        self._batch = batch
        return False

    async def send(self, batch: Sequence[Outgoing]) -> None:
        assert not batch, "what is sent has been taken already"
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
        self.items_sent += len(self._batch)

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


# ------------------------------------------------------------------------------------ what is left behind


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


@pytest.mark.parametrize("how", ["normally", "error", "cancelled", "while it dials", "dropped"])
async def test_right_after_a_socket_with_a_heartbeat_has_been_left_no_task_is_there(
    how: str, autojump_clock: MockClock
) -> None:
    before = tasks()
    network = MemoryNetwork()

    with trio.CancelScope() as scope, suppress(KeyError, ConnectionClosed):
        async with create_ws(URL, open_stream=network.open_stream, close_timeout=3) as ws:
            make_heartbeat_ws(ws, interval=1, wait=1)
            await ws.send("a", ttl=1000)
            if how == "while it dials":
                raise KeyError(how)
            peer = await accept(network, ws)
            await trio.sleep(0.5)
            assert tasks() > before
            if how == "cancelled":
                scope.cancel()
                await trio.sleep_forever()
            if how == "dropped":
                peer.drop()
                await ws.wait_closed()
            if how == "error":
                raise KeyError(how)

    assert tasks() == before


async def test_what_is_left_in_the_outbox_of_a_socket_that_has_ended_is_watched_by_nobody(
    autojump_clock: MockClock,
) -> None:
    before = tasks()
    network = MemoryNetwork()
    network.refuse(1)

    with pytest.raises(ConnectionFailed):
        async with create_ws(URL, open_stream=network.open_stream) as ws:
            await ws.send("a", ttl=1000)
            await ws.wait_closed()
            assert [each.message for each in ws.undelivered] == ["a"]

    assert tasks() == before


def test_a_socket_of_a_system_task_can_be_closed_after_the_main_task_has_ended() -> None:
    network = MemoryNetwork()
    connections: list[int] = []

    async def outlive() -> None:
        async with create_ws(URL, open_stream=network.open_stream) as ws:
            make_heartbeat_ws(ws, interval=1, wait=1)
            await ws.send("a", ttl=1000)
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await ws.aclose()
                connections.append(ws.statistics().connections)

    async def main() -> None:
        trio.lowlevel.spawn_system_task(outlive)
        await (await network.accept()).accept()
        await trio.sleep(0.5)

    trio.run(main, clock=MockClock(autojump_threshold=0))

    assert connections == [1]


async def test_a_socket_has_its_block_once(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    block = create_ws(URL, open_stream=network.open_stream)
    async with block as ws:
        await accept(network, ws)

    with pytest.raises(RuntimeError, match="had its block already"):
        async with block:
            pass


# ------------------------------------------------------------------------------------ as the nursery closes


async def live(task_status: trio.TaskStatus[trio.Nursery]) -> None:
    async with trio.open_nursery() as home:
        task_status.started(home)
        await trio.sleep_forever()


async def test_a_message_that_is_sent_as_the_socket_s_nursery_is_cancelled_is_taken_or_refused_in_order(
    autojump_clock: MockClock,
) -> None:
    for passes in [*range(8)] * 8:  # trio draws lots who of several comes first
        network = MemoryNetwork()
        async with trio.open_nursery() as nursery:
            home: trio.Nursery = await nursery.start(live)
            ws = make_ws(home, URL, open_stream=network.open_stream)
            await accept(network, ws)
            await wait_all_tasks_blocked()

            home.cancel_scope.cancel()
            for _ in range(passes):
                await trio.lowlevel.checkpoint()
            with suppress(trio.ClosedResourceError):
                ws.send_nowait("a")
            await ws.wait_closed()


def test_a_beat_that_is_due_as_the_socket_s_nursery_is_cancelled_harms_nobody() -> None:
    async def main(clock: MockClock, passes: int) -> None:
        network = MemoryNetwork()
        async with trio.open_nursery() as nursery:
            ws = make_ws(nursery, URL, open_stream=network.open_stream)
            await accept(network, ws)
            make_heartbeat_ws(ws, message=lambda: "beat", interval=1, wait=1)
            await wait_all_tasks_blocked()

            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                for _ in range(passes):
                    await trio.lowlevel.checkpoint()
                clock.jump(1)
                await trio.lowlevel.checkpoint()

    for passes in [*range(8)] * 8:
        clock = MockClock()
        trio.run(main, clock, passes, clock=clock)


def test_a_heartbeat_that_is_begun_as_the_socket_s_nursery_is_cancelled_harms_nobody() -> None:
    async def main(clock: MockClock, passes: int) -> None:
        network = MemoryNetwork()
        async with trio.open_nursery() as nursery:
            home: trio.Nursery = await nursery.start(live)
            ws = make_ws(home, URL, open_stream=network.open_stream)
            await accept(network, ws)
            await wait_all_tasks_blocked()

            home.cancel_scope.cancel()
            for _ in range(passes):
                await trio.lowlevel.checkpoint()
            make_heartbeat_ws(ws, message=lambda: "beat", interval=1, wait=1)
            before = tasks()
            for _ in range(3):
                await wait_all_tasks_blocked()
                clock.jump(1)
            assert tasks() <= before

    for passes in [*range(8)] * 8:
        clock = MockClock()
        trio.run(main, clock, passes, clock=clock)


@pytest.mark.parametrize("is_direct", [False, True])
async def test_who_reconnects_in_the_moment_in_which_it_opens_sends_nothing_on_that_connection(
    is_direct: bool, autojump_clock: MockClock
) -> None:
    links = [StubLink(), StubLink()]
    dials = iter(links)

    class Transport:
        async def connect(self, nursery: trio.Nursery, stream: trio.abc.Stream, upgrade: Upgrade) -> StubLink:
            link = next(dials)
            link.is_direct = is_direct
            return await link.connect(nursery, stream, upgrade)

    async with (
        create_reconnecting_ws(URL, open_stream=MemoryNetwork().open_stream, transport=Transport(), delay=1) as ws,
        trio.open_nursery() as nursery,
    ):
        await ws.send("a")

        def reconnect(state: ReadyState) -> bool:
            if state is ReadyState.OPEN and len(opened_at) < 1:
                opened_at.append(trio.current_time())
                ws.reconnect()
            return False

        opened_at: list[float] = []
        nursery.start_soon(wait_in_vain, ws, reconnect)
        await trio.sleep(2)
        await ws.aclose()

    assert links[0].calls == ["abort"]
    assert links[1].calls == ["send", "sent", "aclose", "abort"]


async def wait_in_vain(ws: WebSocket, predicate: Callable[[ReadyState], bool]) -> None:
    with suppress(trio.EndOfChannel):
        await ws.state.wait_value(predicate)
