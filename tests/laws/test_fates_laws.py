"""Whole sockets that track, against what a scripted peer really received: random programs, exact accounts."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, count, pairwise
from typing import Literal

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from trio_wsprim import (
    Buffer,
    CloseEvent,
    DropEvent,
    Event,
    Options,
    ReconnectingWebSocket,
    WebSocket,
    WebSocketError,
    make_reconnecting_ws,
    make_ws,
)
from trio_wsprim._values import WHEN_FULL
from trio_wsprim.testing import MemoryNetwork, Peer, PeerClosed

URL = "ws://example.test/"
Resend = Literal["unsent", "unconfirmed"]
Names = list[str]

PARTINGS = (trio.BrokenResourceError, trio.ClosedResourceError, trio.EndOfChannel, PeerClosed)

# Beside ordinary sizes some that do not fit into a connection's pipe, so that kills cut them short.
sizes = st.sampled_from([4, 4, 6, 30, 150])
pauses = st.sampled_from([0.0, 0.0, 0.01, 0.06, 0.3, 2.0])
deeds = st.one_of(
    st.tuples(st.just("send"), sizes, st.sampled_from([None, None, None, 0, 0.05, 1])),
    st.tuples(st.just("send"), sizes, st.none()),
    st.tuples(st.just("flush"), st.booleans()),
    st.tuples(st.just("ping")),
    st.tuples(st.just("cancel")),
    st.tuples(st.just("kill"), st.sampled_from(["reset", "drop", "half-read"])),
    st.tuples(st.just("close"), st.sampled_from([1000, 1001, 1009, 1011, 1012]), st.booleans()),
    st.tuples(st.just("stall"), st.booleans()),
    st.tuples(st.just("answer"), st.booleans()),
    st.tuples(st.just("refuse"), st.integers(1, 2)),
    st.tuples(st.just("flood")),
    st.tuples(st.just("reconnect")),
)
programs = st.lists(st.tuples(deeds, pauses), min_size=3, max_size=40)
buffers = st.builds(
    Buffer,
    max_messages=st.sampled_from([1, 2, 4, 1024]),
    max_bytes=st.sampled_from([150, 300, 2**20]),
    when_full=st.sampled_from(WHEN_FULL),
)
endings = st.sampled_from(["aclose", "aclose cancelled", "cancel", "refused", "peer's close"])


@dataclass
class World:
    """A socket, the server that it talks to, and a book of what either saw."""

    network: MemoryNetwork
    nursery: trio.Nursery
    ws: WebSocket
    names: "count[int]" = field(default_factory=lambda: count(100))
    accepted: Names = field(default_factory=list)
    connections: list[Names] = field(default_factory=list)
    peer: Peer | None = None
    reads: trio.Event = field(default_factory=trio.Event)
    answers: bool = True
    scopes: list[trio.CancelScope] = field(default_factory=list)
    promises: list[tuple[set[str], set[str]]] = field(default_factory=list)
    told: Names = field(default_factory=list)
    dropped: Names = field(default_factory=list)
    rejected: Names = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reads.set()

    @property
    def received(self) -> Names:
        return list(chain.from_iterable(self.connections))

    # ---------------------------------------------------------------- the server

    async def serve(self) -> None:
        while True:
            peer = await self.network.accept()
            with suppress(*PARTINGS):
                await peer.accept()
                self.peer = peer
                peer.answer_pings = self.answers
                self.nursery.start_soon(self.read, peer)

    async def read(self, peer: Peer) -> None:
        seen: Names = []
        self.connections.append(seen)
        with suppress(*PARTINGS):
            while True:
                await self.reads.wait()
                seen.append(str(await peer.receive()))

    # ---------------------------------------------------------------- deeds

    def note(self, event: Event) -> None:
        if isinstance(event, CloseEvent):
            assert event.unconfirmed is not None
            self.told += map(str, event.unconfirmed)
        elif isinstance(event, DropEvent):
            self.dropped.append(str(event.message))
            if event.why == "rejected":
                self.rejected.append(str(event.message))

    async def watch(self, task_status: trio.TaskStatus[None]) -> None:
        async with self.ws.events(2**20) as events:
            task_status.started()
            async for event in events:
                self.note(event)

    def send(self, size: int, ttl: float | None) -> None:
        name = str(next(self.names)).ljust(size, ".")
        self.start(partial(self.send_one, name, ttl))

    async def send_one(self, name: str, ttl: float | None) -> None:
        await self.ws.send(name, ttl=ttl)
        self.accepted.append(name)

    def flush(self, confirm: bool) -> None:
        self.start(partial(self.flush_once, confirm))

    async def flush_once(self, confirm: bool) -> None:
        before, told = set(self.accepted), set(self.told)
        await self.ws.flush(confirm=confirm)
        if confirm:
            self.promises.append((before, told))

    def ping(self) -> None:
        self.start(self.ping_once)

    async def ping_once(self) -> None:
        await self.ws.ping()

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        scope = trio.CancelScope()
        self.scopes.append(scope)
        self.nursery.start_soon(self.attempt, scope, work)

    async def attempt(self, scope: trio.CancelScope, work: Callable[[], Awaitable[None]]) -> None:
        with scope, suppress(WebSocketError, trio.ClosedResourceError, trio.WouldBlock):
            await work()

    def cancel(self) -> None:
        if self.scopes:
            self.scopes.pop().cancel()

    def kill(self, how: str) -> None:
        if self.peer is None:
            return
        if how == "half-read":
            self.stall(True)
            self.nursery.start_soon(self.kill_soon, self.peer)
        else:
            self.peer.reset() if how == "reset" else self.peer.drop()
            self.peer = None

    async def kill_soon(self, peer: Peer) -> None:
        await trio.sleep(0.02)
        peer.reset()
        self.reads.set()

    def close(self, code: int, is_polite: bool) -> None:
        """Have the peer begin a close; an impolite one reads no more, which must prove nothing."""
        if self.peer is not None:
            self.nursery.start_soon(self.close_peer, self.peer, code, is_polite)

    async def close_peer(self, peer: Peer, code: int, is_polite: bool) -> None:
        if not is_polite:
            code = 1012  # of another code than ours: the same could not be told from an answer
            peer.answer_close = False
        with suppress(*PARTINGS):
            await peer.send_close(code)
            if not is_polite:
                peer.drop()

    def stall(self, stalls: bool) -> None:
        if not stalls:
            self.reads.set()
        elif self.reads.is_set():
            self.reads = trio.Event()

    def answer(self, answers: bool) -> None:
        self.answers = answers
        if self.peer is not None:
            self.peer.answer_pings = answers

    def refuse(self, times: int) -> None:
        self.network.refuse(times)

    def flood(self) -> None:
        if self.peer is not None:
            self.nursery.start_soon(self.send_too_much, self.peer)

    async def send_too_much(self, peer: Peer) -> None:
        with suppress(*PARTINGS):
            await peer.send(b"x" * 2000)

    def reconnect(self) -> None:
        if isinstance(self.ws, ReconnectingWebSocket):
            with suppress(trio.ClosedResourceError):
                self.ws.reconnect()

    # ---------------------------------------------------------------- the end

    async def end(self, how: str, home: trio.CancelScope) -> None:
        if how == "refused":
            self.network.refuse(1000)
            self.kill("reset")
            await trio.sleep(100)
        elif how == "peer's close":
            self.close(1011, is_polite=True)
        if how == "cancel":
            home.cancel()
        with trio.CancelScope() as scope:
            if how == "aclose cancelled":
                scope.cancel()
            await self.ws.aclose()
        await self.ws.wait_closed()
        await trio.sleep(1)


def check(world: World, resend: Resend | None) -> None:
    left, numbers = world.ws.undelivered, world.ws.statistics()
    fates = {str(each.message): each.fate for each in left}
    unsent = {message for message, fate in fates.items() if fate == "unsent"}
    unconfirmed = fates.keys() - unsent
    dropped, received = set(world.dropped), world.received
    told = set() if resend == "unconfirmed" else set(world.told)
    confirmed = set(world.accepted) - dropped - fates.keys() - told

    assert len(fates) == len(left), "told twice"
    assert len(dropped) == len(world.dropped), "dropped twice"
    assert not dropped & fates.keys(), "two fates"
    assert not dropped & told, "two fates"
    assert fates.keys() | dropped | set(received) <= set(world.accepted), "out of nowhere"
    assert confirmed <= set(received), "confirmed, and not received"
    assert not unsent & set(received), "unsent, and received"
    assert [each.message for each in left] == sorted(fates), "undelivered out of order"

    assert numbers.messages_dropped == len(dropped)
    assert numbers.messages_buffered == len(unsent)
    assert numbers.messages_unconfirmed == len(told | unconfirmed)
    sent = len(confirmed) + numbers.messages_unconfirmed
    assert sent + len(dropped & set(received)) <= numbers.messages_sent <= sent + len(dropped)

    for promised, told_before in world.promises:
        assert promised - dropped - told_before <= set(received), "flushed, and not received"
    first_arrivals = list(dict.fromkeys(received))
    assert first_arrivals == sorted(first_arrivals), "out of order"
    if resend == "unconfirmed":
        check_again(world, first_arrivals, dropped)
    else:
        assert len(first_arrivals) == len(received), "received twice"
        assert not world.rejected
        assert unconfirmed <= told
        # What is forgotten of them is the oldest, and only over the bounds.
        assert [each for each in world.told if each in unconfirmed] == world.told[len(told) - len(unconfirmed) :]


def check_again(world: World, first_arrivals: Names, dropped: set[str]) -> None:
    for seen in world.connections:
        assert all(one < other for one, other in pairwise(seen)), "out of order"
    if first_arrivals:
        wanted = [each for each in sorted(world.accepted) if each <= first_arrivals[-1]]
        assert set(wanted) - set(first_arrivals) <= dropped, "a gap"


def make(home: trio.Nursery, options: Options, resend: Resend | None) -> WebSocket:
    if resend is None:
        return make_ws(home, URL, **options)
    return make_reconnecting_ws(home, URL, delay=0.05, retries=4, resend=resend, **options)


async def live(task_status: trio.TaskStatus[trio.Nursery]) -> None:
    async with trio.open_nursery() as home:
        task_status.started(home)
        await trio.sleep_forever()


@settings(max_examples=500)
@given(
    resend=st.sampled_from([None, "unsent", "unconfirmed"]),
    buffer=buffers,
    pipe=st.sampled_from([64, 65536]),
    program=programs,
    ending=endings,
)
def test_each_message_has_one_fate_and_it_is_the_true_one(
    resend: Resend | None,
    buffer: Buffer,
    pipe: int,
    program: list[tuple[tuple[object, ...], float]],
    ending: str,
) -> None:
    async def main() -> None:
        network = MemoryNetwork(buffer_size=pipe)
        with trio.fail_after(10_000):
            async with trio.open_nursery() as nursery:
                home: trio.Nursery = await nursery.start(live)
                options = Options(open_stream=network.open_stream, track=True, outbox=buffer, max_message_bytes=1000)
                world = World(network, nursery, make(home, options, resend))
                await nursery.start(world.watch)
                nursery.start_soon(world.serve)
                for (name, *arguments), pause in program:
                    getattr(world, str(name))(*arguments)
                    await trio.sleep(pause)
                await world.end(ending, home.cancel_scope)
                check(world, resend)
                nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))
