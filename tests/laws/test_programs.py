"""Any program of both sides, on both transports: what must hold holds after every step, and nothing is left at the end.

`PROGRAMS=2400` in the environment runs so many of them instead of some hundreds, and `PROGRAMS_SEED=7` others than the
same each time. One that fails is printed, made small, with all that happened in it; `play(Program(…), "websockets")`
plays it again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, suppress
from itertools import pairwise
from typing import Final

import pytest
import trio
from hypothesis import given, seed, settings
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim import (
    CloseEvent,
    ConnectEvent,
    ConnectionClosed,
    ConnectionFailed,
    EndEvent,
    ErrorEvent,
    Event,
    MessageEvent,
    OpenEvent,
    ReadyState,
    ReconnectingWebSocket,
    RetryEvent,
    TrioWebsocketTransport,
    UndeliveredError,
    WebSocketError,
    WebsocketsTransport,
)
from trio_wsprim.abc import Transport
from trio_wsprim.testing import MemoryNetwork, Opcode

from .programs import BEAT, Pause, Program, programs
from .wilful_server import HELLO
from .worlds import CLOSE_TIMEOUT, ENDS, Oops, World, check_alive, create, shuffle_tasks

TRANSPORTS: Final[Mapping[str, Callable[[], Transport]]] = {
    "websockets": WebsocketsTransport,
    "trio-websocket": TrioWebsocketTransport,
}
# For each transport. The ordinary number takes some ten seconds for both, so that the suite stays quick.
COUNT: Final = int(os.environ.get("PROGRAMS", "600")) // len(TRANSPORTS)
SEED: Final = os.environ.get("PROGRAMS_SEED", "")

LIFE_EVENTS: Final = (ConnectEvent, OpenEvent, ErrorEvent, CloseEvent, RetryEvent, EndEvent)
# Written down once more, not taken from the table that the code itself asserts.
MOVES: Final = {
    ReadyState.CONNECTING: {ReadyState.OPEN, ReadyState.CLOSING, ReadyState.CLOSED},
    ReadyState.OPEN: {ReadyState.CLOSING, ReadyState.CLOSED},
    ReadyState.CLOSING: {ReadyState.CLOSED},
    ReadyState.CLOSED: {ReadyState.CONNECTING},
}
# What may follow what in the life of a socket; `None` is the beginning.
FOLLOWS: Final[dict[type[Event] | None, set[type[Event]]]] = {
    None: {ConnectEvent, EndEvent},
    # Cut short by `reconnect()`, or by a close.
    ConnectEvent: {OpenEvent, ErrorEvent, ConnectEvent, EndEvent},
    OpenEvent: {CloseEvent},
    CloseEvent: {RetryEvent, ConnectEvent, EndEvent},
    ErrorEvent: {RetryEvent, ConnectEvent, EndEvent},
    RetryEvent: {ConnectEvent, EndEvent},
    EndEvent: set(),
}
# What may have happened last where a state stands.
LAST: Final[dict[ReadyState, set[type[Event] | None]]] = {
    # The url is asked for before the dial is told.
    ReadyState.CONNECTING: {None, ConnectEvent, RetryEvent, CloseEvent, ErrorEvent},
    ReadyState.OPEN: {OpenEvent},
    ReadyState.CLOSING: {None, ConnectEvent, OpenEvent, ErrorEvent, RetryEvent},
    ReadyState.CLOSED: {None, ConnectEvent, CloseEvent, ErrorEvent, RetryEvent, EndEvent},
}


# ------------------------------------------------------------------------------------------------ what always holds


def check_step(world: World, pause: Pause = "settled") -> None:
    """What holds at any moment, whoever is in the middle of what."""
    world.read_events()
    check_alive(world, world.ws.state.value, is_settled=pause == "settled")
    check_states(world)
    check_order(world)
    check_books(world)
    if pause == "settled":
        check_senders(world)


def check_states(world: World) -> None:
    states = world.states
    assert all(new in MOVES[old] for old, new in pairwise(states)), "an illegal move"
    happened = [type(event) for event in world.seen if isinstance(event, LIFE_EVENTS)]
    assert all(new in FOLLOWS[old] for old, new in pairwise([None, *happened])), "events out of order"
    assert (happened[-1] if happened else None) in LAST[world.ws.state.value], "the state does not fit the events"
    is_open = False
    for event in world.seen:
        is_open = isinstance(event, OpenEvent) or (is_open and not isinstance(event, CloseEvent))
        assert is_open or not isinstance(event, MessageEvent), "a message without a connection"


def check_order(world: World) -> None:
    """In both directions nothing comes twice that must not, nothing out of order, and nothing out of nowhere."""
    for connection in world.server.connections:
        heard = connection.heard
        assert all(one < other for one, other in pairwise(heard)), "the server heard it out of order"
        if world.program.setup is not None and heard:
            assert connection.greetings[:1] == [HELLO], "a message before `setup` was through"

    told = {each.number: each.told for each in world.server.connections}
    numbers: list[int] = []
    for life in world.lives:
        assert BEAT not in life, "an answer to a heartbeat was shown"
        of = {connection_of(name) for name in life}
        assert len(of) <= 1, "what came in on two connections"
        for number in of:
            numbers.append(number)
            whole = [name for name in world.eaten if connection_of(name) == number] + life
            assert told[number][: len(whole)] == whole, "not what the server said"
    assert numbers == sorted(set(numbers)), "connections out of order"

    received, delivered = world.received, world.delivered
    if world.program.inbox is not None and world.program.inbox.when_full == "wait":
        assert delivered[: len(received)] == received, "not received as it came"
    else:
        assert is_subsequence(received, delivered), "not received as it came"
        assert not set(received) & set(world.lost), "received, and dropped"
        if world.program.inbox is not None:
            unread = len(delivered) - len(received) - len(world.lost)
            assert unread <= (world.program.inbox.max_messages or 0), "neither received, nor dropped, nor room for it"
    assert delivered[: len(world.copied)] == world.copied, "not copied as it came"


def connection_of(name: str) -> int:
    return int(name[1:3])


def check_books(world: World) -> None:
    """Each message that was accepted is handed over, waiting, or told to have been dropped."""
    numbers, accepted, dropped = world.ws.statistics(), len(world.accepted), len(world.dropped)
    assert numbers.messages_received == len(world.delivered)
    assert numbers.messages_dropped == dropped + len(world.lost)
    assert numbers.connections == len(world.lives)
    assert numbers.attempts >= len(world.network.dials)
    # What was handed over may be dropped after it, to make room or since its time is over.
    least = accepted - dropped
    # Senders whose message has been let in may not have had their turn yet; one that was dropped was accepted, too.
    most = accepted + world.sending - (0 if world.program.tracks else dropped)
    assert least <= numbers.messages_sent + numbers.messages_buffered <= most, "the books do not balance"
    outbox = world.program.outbox
    if outbox.when_full != "drop_oldest":
        assert numbers.messages_buffered <= (outbox.max_messages or 0), "over the bounds"
        assert numbers.bytes_buffered <= (outbox.max_bytes or 0), "over the bounds"


def check_senders(world: World) -> None:
    """Nobody waits for room while there is room."""
    numbers = world.ws.statistics()
    assert not world.sending or numbers.messages_buffered + numbers.messages_unconfirmed, "a sender waits for nothing"


def is_subsequence(part: list[str], whole: list[str]) -> bool:
    rest = iter(whole)
    return all(each in rest for each in part)


# ------------------------------------------------------------------------------------------------ what holds at the end


def check_end(world: World) -> None:
    """The socket is closed for good, everybody who waited has been told, and each message has its fate."""
    check_step(world)
    assert world.network.live == 0, "a stream was left open"
    assert world.ws.state.value is ReadyState.CLOSED
    assert isinstance(world.seen[-1], EndEvent), "no end, or something after it"
    assert world.waiting == 0, "somebody waits for ever"
    with pytest.raises(ENDS["send"]):
        world.ws.send_nowait("late")
    if isinstance(world.ws, ReconnectingWebSocket):
        with pytest.raises(trio.ClosedResourceError):
            world.ws.reconnect()
    check_frames(world)
    check_fates(world)
    check_received(world)


def check_frames(world: World) -> None:
    """Of what the client wrote, a close frame is the last, and only where it was cut off something is torn."""
    for connection in world.server.connections:
        frames = connection.peer.frames
        assert all(frame.opcode != Opcode.CLOSE for frame in frames[:-1]), "something after a close frame"


def check_fates(world: World) -> None:
    """Every message that was accepted has one fate, and it is the true one."""
    left, accepted = world.ws.undelivered, world.accepted
    unsent = [str(each.message) for each in left if each.fate == "unsent"]
    unconfirmed = [str(each.message) for each in left if each.fate == "unconfirmed"]
    dropped = set(world.dropped)
    heard = [name for connection in world.server.connections for name in connection.heard]
    first = list(dict.fromkeys(heard))

    assert len(dropped) == len(world.dropped), "dropped twice"
    assert len({*unsent, *unconfirmed}) == len(left), "two fates"
    assert not dropped & {*unsent, *unconfirmed}, "two fates"
    assert {*unsent, *unconfirmed, *dropped, *heard} <= set(accepted), "out of nowhere"
    assert [str(each.message) for each in left] == sorted([*unsent, *unconfirmed]), "undelivered out of order"
    assert first == sorted(first), "heard out of order"
    assert not (first and unsent) or first[-1] < unsent[0], "what was not sent came before what was"
    for connection in world.server.connections:
        for one, other in pairwise(connection.heard):
            between = accepted[accepted.index(one) + 1 : accepted.index(other)]
            assert set(between) <= dropped, "a gap within one connection"
    if not any(connection.is_cut for connection in world.server.connections):
        assert set(accepted) - dropped - set(unsent) <= set(heard), "lost without a reason"
    if world.program.resend == "unconfirmed":
        wanted = {name for name in accepted if first and name <= first[-1]}
        assert wanted - set(first) <= dropped, "a gap"
    else:
        assert len(heard) == len(first), "heard twice"
        assert not world.rejected
    if world.program.tracks:
        check_proofs(world, set(unsent), unconfirmed, set(heard))
    else:
        assert not unconfirmed
        assert len(accepted) == world.ws.statistics().messages_sent + len(unsent) + len(dropped)


def check_proofs(world: World, unsent: set[str], unconfirmed: list[str], heard: set[str]) -> None:
    """What was neither dropped nor told to be in doubt has arrived."""
    dropped, resends = set(world.dropped), world.program.resend == "unconfirmed"
    told = set() if resends else set(world.told)
    confirmed = set(world.accepted) - dropped - unsent - set(unconfirmed) - told
    assert confirmed <= heard, "confirmed, and not heard"
    assert not dropped & told, "two fates"
    assert world.ws.statistics().messages_unconfirmed == len(told.union(unconfirmed))
    for promised, told_before in world.promises:
        assert promised - dropped - told_before <= heard, "flushed, and not heard"
    if not resends:
        # What is forgotten of them is the oldest, and only over the bounds.
        assert world.told[len(world.told) - len(unconfirmed) :] == unconfirmed


def check_received(world: World) -> None:
    """What came in and was not received is still there, unless we have closed: then it is gone."""
    if world.program.inbox is not None:
        with suppress(*ENDS["receive"]):
            while True:
                world.received.append(str(world.ws.receive_nowait()))
        check_order(world)
    if world.was_over:
        if world.program.inbox is not None:
            assert {*world.received, *world.lost} == set(world.delivered), "neither received nor dropped"
        if world.program.subscribes:
            assert world.copied == world.delivered, "not copied"


# ------------------------------------------------------------------------------------------------ the run


async def run(world: World) -> None:
    """Open the socket, play the program, leave the block, and check everything."""
    end = world.program.end
    left_at = 0.0
    async with AsyncExitStack() as stack:
        with trio.CancelScope() as scope:
            try:
                async with create(world) as world.ws:
                    world.events = await stack.enter_async_context(world.ws.events(2**20))
                    await live(world)
                    world.hang_up()
                    left_at = trio.current_time()
                    if end == "raise":
                        raise Oops
                    if end == "cancel":
                        scope.cancel()
            except Oops:
                assert end == "raise"
            except (UndeliveredError, ConnectionClosed, ConnectionFailed) as error:
                check_left(world, error)
        took = trio.current_time() - left_at
        world.note("left")
        # But for what floating point loses.
        assert took <= (0 if end == "cancel" else CLOSE_TIMEOUT + 1e-9), f"leaving took {took} s"
        assert world.network.live == 0, "a stream was left open"
        world.server.do_freeze(False)
        await trio.sleep(1000)  # for the server, and a slow subscriber, to read what there is
        await wait_all_tasks_blocked()
        check_end(world)


def check_left(world: World, error: WebSocketError) -> None:
    """Leaving the block may raise this: neither hides the user's own error, nor tells again what `aclose` has told."""
    assert world.program.end not in {"raise", "cancel"}
    if isinstance(error, UndeliveredError):
        assert error.messages == world.ws.undelivered
        assert not world.was_closed


async def live(world: World) -> None:
    """Take every step, and do what comes before the block is left."""
    world.watch_states()
    if world.program.subscribes:
        world.nursery.start_soon(world.copy)
    for step in world.program.steps:
        await world.play(step)
        check_step(world, step[1])
    match world.program.end:
        case "nobody there":
            world.network.refuse(1000)
            world.server.do_kill("reset")
            await trio.sleep(100)
        case "told off":
            world.server.do_peer_closes(4000, True)
            await trio.sleep(0.1)
        case "aclose":
            world.hang_up()
            world.was_closed = True
            await world.ws.aclose()
        case "aclose cancelled":
            world.hang_up()
            world.was_closed = True
            with trio.CancelScope() as scope:
                scope.cancel()
                await world.ws.aclose()
        case _:
            pass
    check_step(world, "at once")


def play(program: Program, transport: str) -> None:
    """Run a program; what fails tells all that has happened."""
    worlds: list[World] = []

    async def main() -> None:
        with trio.fail_after(100_000):
            before = trio.lowlevel.current_statistics().tasks_living
            async with trio.open_nursery() as nursery:
                world = World(program, TRANSPORTS[transport](), nursery, MemoryNetwork(buffer_size=program.pipe))
                worlds.append(world)
                nursery.start_soon(world.server.serve)
                await run(world)
                nursery.cancel_scope.cancel()
            assert trio.lowlevel.current_statistics().tasks_living == before, "a task was left behind"

    shuffle_tasks(program.chance)
    try:
        trio.run(main, clock=MockClock(autojump_threshold=0))
    except BaseException as error:
        error.add_note(f"{program}\non {transport}, it went like this:\n{worlds[0].transcript()}")
        raise


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    """Thousands of programs drop more messages than anybody wants to read of."""
    log = logging.getLogger("trio_wsprim")
    log.setLevel(logging.ERROR)
    yield
    log.setLevel(logging.NOTSET)


@pytest.mark.parametrize("transport", TRANSPORTS)
@seed(int(SEED or 0))
@settings(max_examples=COUNT, derandomize=not SEED)
@given(program=programs)
def test_what_must_hold_holds_after_every_step_of_any_program(transport: str, program: Program) -> None:
    play(program, transport)
