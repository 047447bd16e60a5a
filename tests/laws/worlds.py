"""The world in which a program runs: a socket, a server, a network, virtual time. What must hold is checked outside."""

from __future__ import annotations

import random
from bisect import insort
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Final, cast

import trio
import trio._core._run  # for `_r`, see `shuffle_tasks`
from trio.testing import wait_all_tasks_blocked

from trio_wsprim import (
    Backoff,
    BufferFull,
    CloseEvent,
    ConnectionClosed,
    ConnectionFailed,
    DropEvent,
    EndEvent,
    Event,
    MessageEvent,
    OpenEvent,
    Options,
    ReadyState,
    ReconnectingOptions,
    ReconnectingWebSocket,
    WebSocket,
    create_reconnecting_ws,
    create_ws,
    make_heartbeat_ws,
)
from trio_wsprim.abc import Session, Transport
from trio_wsprim.testing import MemoryNetwork

from .programs import BEAT, Program, Step
from .wilful_server import HELLO, MAX_MESSAGE_BYTES, WELCOME, Names, WilfulServer

URL: Final = "ws://example.test/"
CLOSE_TIMEOUT: Final = 2.0
CONNECT_TIMEOUT: Final = 3.0
ENDS: Final = {
    # An op ends in its result, or in one of these, and in nothing else.
    "send": (ConnectionClosed, ConnectionFailed, trio.ClosedResourceError, BufferFull),
    "receive": (ConnectionClosed, ConnectionFailed, trio.ClosedResourceError, trio.EndOfChannel),
    "ask": (ConnectionClosed, ConnectionFailed, trio.ClosedResourceError),
}


class Oops(Exception):
    """What a user's own function raises."""


@dataclass
class World:
    """A socket, the server that it talks to, and a book of what its user has seen.

    Attributes:
        accepted: The messages that `send` has taken, in order: that of their names, since tasks are woken in any.
        sending: How many sends are under way.
        waiting: How many calls of any kind are.
        received: What `receive` has given, in order.
        delivered: What the socket has told of what came in, in order.
        eaten: What `setup` has taken of it.
        copied: What the subscriber has got.
        was_closed: Whether `aclose` was called.
        was_over: Whether it had ended by itself before we closed it or left.
        lives: For each connection that opened, what came in on it.
        journal: All of it as it happened, for people.
    """

    program: Program
    transport: Transport
    nursery: trio.Nursery
    network: MemoryNetwork
    server: WilfulServer = field(init=False)
    ws: WebSocket = field(init=False)
    events: trio.MemoryReceiveChannel[Event] = field(init=False)
    names: count[int] = field(default_factory=lambda: count(100))
    accepted: Names = field(default_factory=list)
    sending: int = 0
    waiting: int = 0
    scopes: list[trio.CancelScope] = field(default_factory=list)
    promises: list[tuple[set[str], set[str]]] = field(default_factory=list)
    received: Names = field(default_factory=list)
    delivered: Names = field(default_factory=list)
    eaten: Names = field(default_factory=list)
    copied: Names = field(default_factory=list)
    lives: list[Names] = field(default_factory=list)
    seen: list[Event] = field(default_factory=list)
    states: list[ReadyState] = field(default_factory=list)
    dropped: Names = field(default_factory=list)
    lost: Names = field(default_factory=list)
    rejected: Names = field(default_factory=list)
    told: Names = field(default_factory=list)
    setup_faults: deque[str] = field(default_factory=deque)
    was_closed: bool = False
    was_over: bool | None = None
    journal: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server = WilfulServer(self.nursery, self.network, self.note)

    def note(self, what: str) -> None:
        self.journal.append((trio.current_time(), what))

    def transcript(self) -> str:
        return "\n".join(f"{time:9.3f}  {what}" for time, what in self.journal)

    def options(self) -> ReconnectingOptions:
        program = self.program
        options = ReconnectingOptions(
            open_stream=self.network.open_stream,
            transport=self.transport,
            outbox=program.outbox,
            inbox=program.inbox,
            track=program.track,
            max_message_bytes=MAX_MESSAGE_BYTES,
            connect_timeout=CONNECT_TIMEOUT,
            close_timeout=CLOSE_TIMEOUT,
            setup=None if program.setup is None else self.set_up,
        )
        if program.resend is not None:
            options["delay"] = Backoff(first=0.1, maximum=0.5, rng=random.Random(program.chance))
            options["resend"] = program.resend
            options["retries"] = program.retries
            options["min_uptime"] = program.min_uptime
        return options

    # ------------------------------------------------------------------------------------------------ the user

    async def set_up(self, session: Session) -> None:
        fault = self.setup_faults.popleft() if self.setup_faults else ""
        if fault == "raises":
            raise Oops
        if fault == "hangs":
            await trio.sleep_forever()
        await session.send(HELLO)
        while self.program.setup == "asks":
            self.eaten.append(str(await session.receive()))
            if self.eaten[-1].endswith(WELCOME):
                return

    async def copy(self) -> None:
        async with self.ws.subscribe(1) as channel:
            async for message in channel:
                self.copied.append(str(message))
                await trio.sleep(0.01)

    def watch_states(self) -> None:
        """Note each state, also those that last for no turn: a predicate is asked at every change."""

        def look(state: ReadyState) -> bool:
            if not self.states or self.states[-1] is not state:
                self.note(f"state {state.name}")
                self.states.append(state)
                check_alive(self, state)
            return False

        async def watch() -> None:
            with suppress(trio.EndOfChannel):
                await self.ws.state.wait_value(look)

        self.nursery.start_soon(watch)

    def read_events(self) -> None:
        """Take the events that are there; they are there as soon as they have happened."""
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                self.note_event(self.events.receive_nowait())

    def note_event(self, event: Event) -> None:
        self.seen.append(event)
        match event:
            case MessageEvent(data):
                self.delivered.append(str(data))
                self.lives[-1].append(str(data))
            case OpenEvent():
                self.lives.append([])
            case DropEvent(message, why):
                (self.lost if str(message).startswith("p") else self.dropped).append(str(message))
                if why == "rejected":
                    self.rejected.append(str(message))
            case CloseEvent(unconfirmed=unconfirmed):
                assert (unconfirmed is not None) == self.program.tracks
                self.told += map(str, unconfirmed or ())
            case _:
                pass
        self.note(str(event))

    def start(self, kind: str, work: Callable[[], Awaitable[None]]) -> None:
        scope = trio.CancelScope()
        self.scopes.append(scope)
        self.waiting += 1
        self.nursery.start_soon(self.attempt, kind, scope, work)

    async def attempt(self, kind: str, scope: trio.CancelScope, work: Callable[[], Awaitable[None]]) -> None:
        try:
            with scope, suppress(*ENDS[kind]):
                await work()
        finally:
            self.waiting -= 1
            self.scopes.remove(scope)

    # ------------------------------------------------------------------------------------------------ deeds

    async def play(self, step: Step) -> None:
        (name, *arguments), pause = step
        self.note(f"{name} {' '.join(map(repr, arguments))}, then {pause}")
        method = f"do_{str(name).replace(' ', '_')}"
        getattr(self if hasattr(self, method) else self.server, method)(*arguments)
        match pause:
            case "at once":
                pass
            case "a turn":
                await trio.lowlevel.checkpoint()
            case "settled":
                await wait_all_tasks_blocked()
            case _:
                await trio.sleep(pause)

    def do_send(self, size: int, ttl: float | None) -> None:
        self.sending += 1
        self.start("send", partial(self.send_one, size, ttl))

    async def send_one(self, size: int, ttl: float | None) -> None:
        # Named in its own turn, since the turns of tasks come in any order. No more than 50 are sent, so that `send`
        # has none of its own before the message is accepted.
        name = self.new_name(size)
        try:
            await self.ws.send(name, ttl=ttl)
            insort(self.accepted, name)
        finally:
            self.sending -= 1

    def new_name(self, size: int) -> str:
        return f"m{next(self.names)}".ljust(size, ".")

    def do_burst(self, number: int, size: int) -> None:
        with suppress(*ENDS["send"]):
            for _ in range(number):
                name = self.new_name(size)
                self.ws.send_nowait(name)
                insort(self.accepted, name)

    def do_receive(self) -> None:
        if self.program.inbox is not None:
            self.start("receive", self.receive_one)

    async def receive_one(self) -> None:
        self.received.append(str(await self.ws.receive()))

    def do_receive_many(self) -> None:
        if self.program.inbox is not None:
            self.start("receive", self.receive_several)

    async def receive_several(self) -> None:
        self.received += map(str, await self.ws.receive_many(2))

    def do_take(self) -> None:
        if self.program.inbox is not None:
            with suppress(*ENDS["receive"], trio.WouldBlock):
                while True:
                    self.received.append(str(self.ws.receive_nowait()))

    def do_flush(self, confirm: bool) -> None:
        self.start("ask", partial(self.flush_once, confirm))

    async def flush_once(self, confirm: bool) -> None:
        before, told = set(self.accepted), set(self.told)
        await self.ws.flush(confirm=confirm)
        if confirm:
            self.promises.append((before, told))

    def do_ping(self) -> None:
        self.start("ask", self.ping_once)

    async def ping_once(self) -> None:
        assert await self.ws.ping() >= 0

    def do_cancel(self) -> None:
        if self.scopes:
            self.scopes[-1].cancel()

    def do_dials_fail(self, how: str, times: int) -> None:
        match how:
            case "refuse":
                self.network.refuse(times)
            case "stall":
                self.network.stall(times)
            case _:
                self.network.delay(0.2, times)

    def do_setup_fails(self, how: str) -> None:
        if self.program.setup is not None:
            self.setup_faults.append(how)

    def do_heartbeat(self, message: str | None, interval: float) -> None:
        beat = (lambda: BEAT) if message == "function" else message
        make_heartbeat_ws(self.ws, message=beat, interval=interval, wait=0.5, reply=BEAT)

    def do_reconnect(self) -> None:
        if isinstance(self.ws, ReconnectingWebSocket):
            with suppress(trio.ClosedResourceError):
                self.ws.reconnect()

    def hang_up(self) -> None:
        """Note that we are about to close it, if nobody has."""
        if self.was_over is None:
            self.read_events()
            self.was_over = bool(self.seen) and isinstance(self.seen[-1], EndEvent)

    def do_close(self, code: int) -> None:
        self.hang_up()
        self.was_closed = True
        self.start("ask", partial(self.ws.aclose, code))


def create(world: World) -> AbstractAsyncContextManager[WebSocket]:
    options = world.options()
    if world.program.resend is None:
        return create_ws(URL, **cast("Options", options))
    return create_reconnecting_ws(URL, **options)


def check_alive(world: World, state: ReadyState, *, is_settled: bool = True) -> None:
    """What a state says of the network is so: at most one connection, one where it is OPEN, none where it is CLOSED.

    Args:
        is_settled: Whether nobody has anything left to do: what was lost is closed a turn before the state says so.
    """
    live = world.network.live
    assert world.network.most_live <= 1, "two connections at once"
    assert live == 0 or state is not ReadyState.CLOSED, "closed with a connection"
    assert live == 1 or state is not ReadyState.OPEN or not is_settled, "open without a connection"


def shuffle_tasks(chance: int) -> None:
    """Have trio's scheduler, which takes its tasks in any order, take them in this one."""
    trio._core._run._r.seed(chance)
