"""One message to many: its frame is made once, each client's own outbox decides, and nobody waits for anybody."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.listeners import call, dialing, serving
from tests.sockets import taken
from trio_wsprim import (
    Buffer,
    BufferFull,
    DropEvent,
    MessageTooBig,
    Server,
    ServerWebSocket,
    Undelivered,
)
from trio_wsprim._frames import share
from trio_wsprim._outbox import Outbox
from trio_wsprim.testing import Peer

WhenFull = Literal["wait", "error", "drop_oldest", "drop_newest"]
POLICIES: list[WhenFull] = ["wait", "error", "drop_oldest", "drop_newest"]
# What the network and the writer take of the clients here who never read: a frame or two of this size.
FRAME = b"x" * 100


async def stay(ws: ServerWebSocket) -> None:
    await ws.wait_closed()


def find(server: Server, path: str) -> ServerWebSocket:
    (ws,) = (ws for ws in server.connections if ws.request.path == path)
    return ws


@asynccontextmanager
async def two_clients(**options: Any) -> AsyncGenerator[tuple[Server, Peer, Peer]]:
    """Serve one client who reads, and one who does not and has taken all that it ever will."""
    async with serving(stay, 64, **options) as (server, listener), trio.open_nursery() as nursery:
        quick, slow = await call(listener.dial(), "/quick"), await call(listener.dial(), "/slow")
        nursery.start_soon(read_all, quick)
        await wait_all_tasks_blocked()
        assert await server.broadcast(FRAME) == frozenset()
        await wait_all_tasks_blocked()
        yield server, quick, slow
        nursery.cancel_scope.cancel()
        for client in (quick, slow):
            client.drop()


async def read_all(client: Peer) -> None:
    with suppress(trio.ClosedResourceError):
        while True:
            await client.receive_frame()


# ------------------------------------------------------------------------------------ to whom


async def test_all_who_are_open_get_it_in_the_order_of_the_broadcasts(autojump_clock: MockClock) -> None:
    messages: list[str | bytes] = ["hello", b"\x00\xff", "é" * 100, "", b"x" * 70_000]
    async with serving(stay) as (server, listener), dialing(listener) as one, dialing(listener) as two:
        await wait_all_tasks_blocked()
        for message in messages:
            assert await server.broadcast(message) == frozenset()
        for ws in (one, two):
            assert [await ws.receive() for _ in messages] == messages


@pytest.mark.parametrize("message", [bytearray(b"hello"), memoryview(b"hello")])
async def test_what_is_sent_is_a_copy(autojump_clock: MockClock, message: bytearray | memoryview) -> None:
    async with serving(stay) as (server, listener), dialing(listener) as ws:
        await ws.wait_open()
        await server.broadcast(message)
        if isinstance(message, bytearray):
            message[:] = b"-----"
        assert await ws.receive() == b"hello"


async def test_only_those_named_get_it(autojump_clock: MockClock) -> None:
    async with (
        serving(stay) as (server, listener),
        dialing(listener, "/a") as first,
        dialing(listener, "/b") as second,
        dialing(listener, "/c") as third,
    ):
        await wait_all_tasks_blocked()
        await server.broadcast("to two", to={find(server, "/a"), find(server, "/b")})
        await server.broadcast("to one", to=iter([find(server, "/a")]))
        await server.broadcast("to none", to=())
        await server.broadcast("to all")
        assert [await first.receive() for _ in range(3)] == ["to two", "to one", "to all"]
        assert [await second.receive() for _ in range(2)] == ["to two", "to all"]
        assert await third.receive() == "to all"


async def test_those_that_are_closed_are_left_out(autojump_clock: MockClock) -> None:
    async with serving(stay) as (server, listener):
        async with dialing(listener, "/gone"):
            await wait_all_tasks_blocked()
            gone = find(server, "/gone")
        async with dialing(listener) as ws:
            await wait_all_tasks_blocked()
            everybody = {gone, find(server, "/")}
            assert await server.broadcast("hello", to=everybody) == frozenset()
            assert await ws.receive() == "hello"
    assert gone.statistics().messages_sent == 0
    assert gone.undelivered == ()


async def test_one_that_is_closing_is_left_out(autojump_clock: MockClock) -> None:
    async def handle(ws: ServerWebSocket) -> None:
        if ws.request.path == "/":
            await stay(ws)

    async with serving(handle) as (server, listener):
        closing = await call(listener.dial(), "/done")  # which does not answer our close
        async with dialing(listener) as ws:
            await wait_all_tasks_blocked()
            await server.broadcast("hello")
            assert await ws.receive() == "hello"
        closing.drop()


async def test_a_broadcast_to_nobody_is_one(autojump_clock: MockClock) -> None:
    async with serving(stay) as (server, _):
        assert await server.broadcast("hello") == frozenset()


async def test_a_handler_may_broadcast(autojump_clock: MockClock) -> None:
    async def handle(ws: ServerWebSocket) -> None:
        async for message in ws:
            await server.broadcast(message, to=server.connections - {ws})

    async with serving(handle) as (server, listener), dialing(listener) as one, dialing(listener) as two:
        await wait_all_tasks_blocked()
        await one.send("from one")
        assert await two.receive() == "from one"
        await two.send("from two")
        assert await one.receive() == "from two"


# ------------------------------------------------------------------------------------ once


@pytest.mark.parametrize("message", ["é" * 1000, b"x" * 1000])
async def test_its_frame_is_made_once_for_all(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, message: str | bytes
) -> None:
    import trio_wsprim._frames as frames

    made = 0
    encode_head = frames.encode_head

    def count(*arguments: Any, **options: Any) -> bytes:
        nonlocal made
        made += 1
        return encode_head(*arguments, **options)

    async with serving(stay) as (server, listener):
        clients = [await call(listener.dial()) for _ in range(30)]
        await wait_all_tasks_blocked()
        for module in ("trio_wsprim._frames", "trio_wsprim.transports._outgoing"):
            monkeypatch.setattr(f"{module}.encode_head", count, raising=False)
        await server.broadcast(message)
        for client in clients:
            payload = (await client.receive_frame()).payload
            assert payload == (message.encode() if isinstance(message, str) else message)
        assert made == 1
        # As a check of the counter: one by one, it is made for each.
        for ws in server.connections:
            await ws.send(message)
        await wait_all_tasks_blocked()
        assert made == 31
        for client in clients:
            client.drop()


async def test_others_have_their_turn_in_a_long_broadcast(autojump_clock: MockClock) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with serving(stay) as (server, listener), trio.open_nursery() as nursery:
        clients = [await call(listener.dial()) for _ in range(640)]
        await wait_all_tasks_blocked()
        nursery.start_soon(count)
        await trio.lowlevel.checkpoint()
        before = turns
        await server.broadcast("hello")
        assert 8 <= turns - before <= 13
        nursery.cancel_scope.cancel()
        for client in clients:
            client.drop()


async def test_cancelled_before_it_begins_nobody_gets_it(autojump_clock: MockClock) -> None:
    async with serving(stay) as (server, listener), dialing(listener) as ws:
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await server.broadcast("never")
        assert scope.cancelled_caught
        await server.broadcast("now")
        assert await ws.receive() == "now"


# ------------------------------------------------------------------------------------ slow clients


@pytest.mark.parametrize("when_full", POLICIES)
async def test_a_client_that_does_not_read_holds_up_nobody(autojump_clock: MockClock, when_full: WhenFull) -> None:
    async with two_clients(outbox=Buffer(max_messages=5, when_full=when_full)) as (server, quick, _):
        slow = find(server, "/slow")
        missed: list[bool] = []
        for number in range(50):
            full = await server.broadcast(f"{number}")
            assert full <= {slow}
            missed.append(bool(full))
            await wait_all_tasks_blocked()
        assert trio.current_time() == 0
        assert [frame.payload for frame in quick.frames] == [FRAME, *(f"{number}".encode() for number in range(50))]
        if when_full == "drop_oldest":
            assert not any(missed)
            left = [str(number) for number in range(46, 50)]
        else:
            assert missed == [False] * 4 + [True] * 46
            left = [str(number) for number in range(4)]
        assert slow.statistics().messages_dropped == 46
    # The first is under way; behind it, those that the policy has kept.
    assert slow.undelivered == (Undelivered(FRAME, "unsent"), *(Undelivered(each, "unsent") for each in left))


@pytest.mark.parametrize("when_full", POLICIES)
async def test_each_drop_is_told_on_the_socket_of_the_client_that_missed_it(
    autojump_clock: MockClock, when_full: WhenFull
) -> None:
    async with two_clients(outbox=Buffer(max_messages=2, when_full=when_full)) as (server, _, _):
        slow, quick = find(server, "/slow"), find(server, "/quick")
        async with slow.events() as of_slow, quick.events() as of_quick:
            for number in range(4):
                await server.broadcast(f"{number}")
                await wait_all_tasks_blocked()
            lost = range(3) if when_full == "drop_oldest" else range(1, 4)
            assert taken(of_slow) == [DropEvent(f"{number}", "full") for number in lost]
            assert taken(of_quick) == []


async def test_bytes_are_counted_as_well_as_messages(autojump_clock: MockClock) -> None:
    async with two_clients(outbox=Buffer(max_bytes=150)) as (server, _, _):
        slow = find(server, "/slow")
        assert await server.broadcast("é" * 20) == frozenset()  # 40 bytes, beside the 100 under way
        assert await server.broadcast("é" * 6) == {slow}
        assert await server.broadcast("é" * 5) == frozenset()


async def test_who_waits_for_room_is_not_overtaken_by_a_broadcast(autojump_clock: MockClock) -> None:
    async with two_clients(outbox=Buffer(max_messages=2)) as (server, _, slow_client):
        slow = find(server, "/slow")
        async with trio.open_nursery() as nursery:
            for message in ("1", "2", "3"):
                nursery.start_soon(slow.send, message)
                await wait_all_tasks_blocked()
            assert await server.broadcast("4") == {slow}
            for expected in (FRAME, b"1", b"2", b"3"):
                assert (await slow_client.receive_frame()).payload == expected


async def test_a_message_larger_than_an_outbox_is_refused_before_anybody_gets_it(autojump_clock: MockClock) -> None:
    async with serving(stay, outbox=Buffer(max_bytes=10)) as (server, listener), dialing(listener) as ws:
        await ws.wait_open()
        with pytest.raises(MessageTooBig):
            await server.broadcast("x" * 11)
        with pytest.raises(MessageTooBig):
            await server.broadcast("é" * 6)
        await server.broadcast("x" * 10)
        assert await ws.receive() == "x" * 10


@pytest.mark.parametrize(
    ("message", "error"), [(5, TypeError), (None, TypeError), (["a"], TypeError), ("\ud800", UnicodeEncodeError)]
)
async def test_what_is_no_message_is_refused_before_anybody_gets_it(
    autojump_clock: MockClock, message: Any, error: type[Exception]
) -> None:
    async with serving(stay) as (server, listener), dialing(listener) as ws:
        await ws.wait_open()
        with pytest.raises(error):
            await server.broadcast(message)
        await server.broadcast("good")
        assert await ws.receive() == "good"


# ------------------------------------------------------------------------------------ the rule behind it


def outboxes(when_full: WhenFull, max_messages: int, max_bytes: int) -> tuple[Outbox, list[DropEvent]]:
    drops: list[DropEvent] = []
    return Outbox(Buffer(max_messages, max_bytes, when_full), drops.append), drops


def put(outbox: Outbox, drops: list[DropEvent], message: str) -> bool:
    """Send as a user does who drops what finds no room."""
    try:
        before = len(drops)
        outbox.put_nowait(message, None)
        return not any(drop.message is message for drop in drops[before:])
    except BufferFull:
        drops.append(DropEvent(message, "full"))
        return False


@given(
    when_full=st.sampled_from(POLICIES),
    max_messages=st.integers(1, 4),
    max_bytes=st.integers(4, 12),
    steps=st.lists(st.one_of(st.integers(0, 4), st.just("take"), st.just("close")), max_size=30),
)
def test_an_offer_is_a_send_that_neither_waits_nor_raises(
    when_full: WhenFull, max_messages: int, max_bytes: int, steps: list[int | str]
) -> None:
    offered, offered_drops = outboxes(when_full, max_messages, max_bytes)
    sent, sent_drops = outboxes(when_full, max_messages, max_bytes)
    for number, step in enumerate(steps):
        if step == "take":
            for outbox in (offered, sent):
                outbox.take(1)
                outbox.settle(1)
        elif step == "close":
            offered.close(refusal)
            before = offered.leftovers()
            assert offered.offer(share("x"), 1)
            assert offered.leftovers() == before
            break
        else:
            message = str(number % 10) * int(step)
            assert offered.offer(message, len(message)) == put(sent, sent_drops, message)
        assert offered.leftovers() == sent.leftovers()
        assert offered_drops == sent_drops
        assert (offered.room.messages, offered.room.bytes) == (sent.room.messages, sent.room.bytes)


def refusal() -> BaseException:
    return trio.ClosedResourceError()
