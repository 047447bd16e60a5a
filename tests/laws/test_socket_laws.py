"""Laws of whole sockets: random programs of both sides, against a scripted peer on virtual time."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Any, Literal, get_args

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim import (
    Backoff,
    Buffer,
    ConnectionClosed,
    ConnectionFailed,
    EndEvent,
    Event,
    Options,
    ReadyState,
    ReconnectingWebSocket,
    UndeliveredError,
    WebSocket,
    create_reconnecting_ws,
    create_ws,
    make_heartbeat_ws,
)
from trio_wsprim._lifecycle import MOVES
from trio_wsprim.testing import MemoryNetwork, Peer, PeerClosed

from ..sockets import URL

Kind = Literal["send", "receive", "peer sends", "advance", "kill", "peer closes", "refuse", "reconnect", "ping", "beat"]
Step = tuple[Kind, int]
KINDS: tuple[Kind, ...] = get_args(Kind)
STEPS = st.lists(
    st.tuples(
        st.sampled_from([*KINDS, "send", "peer sends"]),
        st.integers(0, 5),
    ),
    max_size=25,
)
ENDS = st.sampled_from(["leave", "raise", "cancel", "aclose"])


class Oops(Exception):
    pass


@dataclass
class World:
    """One run: the network, what the peers saw, and what the user saw."""

    network: MemoryNetwork = field(default_factory=lambda: MemoryNetwork(buffer_size=256))
    peers: list[Peer] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    received: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    states: list[ReadyState] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    numbers: count[int] = field(default_factory=count)

    async def serve(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self.serve_one, await self.network.accept())

    async def serve_one(self, peer: Peer) -> None:
        try:
            await peer.accept()
            self.peers.append(peer)
            while True:
                self.heard.append(str(await peer.receive()))
        except (PeerClosed, trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError):
            peer.drop()

    async def watch(self, ws: WebSocket, *, task_status: trio.TaskStatus[None]) -> None:
        async with ws.events(10_000) as channel:
            task_status.started()
            self.events.extend([event async for event in channel])

    async def watch_states(self, ws: WebSocket) -> None:
        # A predicate is asked at each change, so this sees states that last for no turn.
        def note(state: ReadyState) -> bool:
            self.states.append(state)
            return False

        try:
            await ws.state.wait_value(note)
        except trio.EndOfChannel:
            return

    async def play(self, ws: WebSocket, step: Step) -> None:
        kind, size = step
        peer = self.peers[-1] if self.peers else None
        try:
            match kind:
                case "send":
                    message = f"{next(self.numbers)}:{'x' * size * 20}"
                    with trio.move_on_after(0.5):
                        await ws.send(message)
                        self.accepted.append(message)
                case "receive":
                    with trio.move_on_after(0.1 * size):
                        self.received.append(str(await ws.receive()))
                case "ping":
                    with trio.move_on_after(0.1 * size):
                        await ws.ping()
                case "beat":
                    make_heartbeat_ws(ws, message=None, interval=1 + size)
                case "advance":
                    await trio.sleep(size)
                case "refuse":
                    self.network.refuse(size)
                case "reconnect" if isinstance(ws, ReconnectingWebSocket):
                    ws.reconnect()
                case "kill" if peer is not None:
                    peer.reset()
                case "peer sends" if peer is not None:
                    message = str(next(self.numbers))
                    with trio.move_on_after(1):
                        await peer.send(message)
                    self.told.append(message)
                case "peer closes" if peer is not None:
                    await peer.send_close([1000, 1001, 1011, 1012, 4000, 1008][size])
                case _:
                    pass
        except (
            ConnectionClosed,
            ConnectionFailed,
            trio.ClosedResourceError,
            trio.EndOfChannel,
            trio.BrokenResourceError,
        ):
            pass


async def run(world: World, reconnects: bool, steps: list[Step], end: str) -> Any:
    options = Options(open_stream=world.network.open_stream, outbox=Buffer(4), inbox=Buffer(3), close_timeout=2.0)
    creating: AbstractAsyncContextManager[WebSocket] = (
        create_reconnecting_ws(URL, delay=Backoff(first=0.5, jitter=0), retries=8, **options)
        if reconnects
        else create_ws(URL, **options)
    )
    ws: Any = None
    begun = 0.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.serve)
        with trio.CancelScope() as scope:
            try:
                async with creating as ws:
                    await nursery.start(world.watch, ws)
                    nursery.start_soon(world.watch_states, ws)
                    for step in steps:
                        await world.play(ws, step)
                    begun = trio.current_time()
                    if end == "raise":
                        raise Oops
                    if end == "cancel":
                        scope.cancel()
                    if end == "aclose":
                        await ws.aclose()
            except (Oops, UndeliveredError, ConnectionClosed, ConnectionFailed):
                pass
        assert trio.current_time() - begun <= (0 if end == "cancel" else 2.2)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return ws


def is_subsequence(part: list[str], whole: list[str]) -> bool:
    rest = iter(whole)
    return all(each in rest for each in part)


@settings(max_examples=150)
@given(reconnects=st.booleans(), steps=STEPS, end=ENDS)
def test_any_program_moves_legally_keeps_the_order_and_leaves_nothing(
    reconnects: bool, steps: list[Step], end: str
) -> None:
    world = World()

    ws = trio.run(run, world, reconnects, steps, end, clock=MockClock(autojump_threshold=0))

    assert world.network.live == 0
    assert world.network.most_live <= 1
    states = [state for state, previous in zip(world.states, [None, *world.states], strict=False) if state != previous]
    assert all(new in MOVES[old] for old, new in pairwise(states))
    assert states[-1] is ReadyState.CLOSED
    # In both directions nothing comes twice, nothing out of order, and nothing that was not sent.
    assert is_subsequence(world.heard, world.accepted)
    assert is_subsequence(world.received, world.told)
    unsent = [str(each.message) for each in ws.undelivered]
    assert is_subsequence(unsent, world.accepted)
    assert not set(unsent) & set(world.heard)
    numbers = ws.statistics()
    assert numbers.messages_sent + len(unsent) == len(world.accepted)
    assert numbers.attempts >= len(world.network.dials)
    assert [type(event) for event in world.events].count(EndEvent) == 1
    assert isinstance(world.events[-1], EndEvent)
