"""What arrived, what may have, and what did not: sockets that track, over a network in memory."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import Literal, Unpack

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.sockets import URL, accept, opened, reopening, taken
from trio_wsprim import (
    Buffer,
    BufferFull,
    CloseEvent,
    ConnectionClosed,
    DropEvent,
    Event,
    Options,
    ReadyState,
    ReconnectingOptions,
    ReconnectingWebSocket,
    RetriesExhausted,
    Undelivered,
    UndeliveredError,
    WebSocket,
    create_reconnecting_ws,
    make_heartbeat_ws,
    make_reconnecting_ws,
    make_ws,
)
from trio_wsprim._outbox import Outbox
from trio_wsprim._poison import MOST_LIVES
from trio_wsprim.abc import Session
from trio_wsprim.testing import MemoryNetwork, Opcode, Peer, PeerClosed

PARTINGS = (PeerClosed, trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError)


def unconfirmed(*messages: str | bytes) -> tuple[Undelivered, ...]:
    return tuple(Undelivered(message, "unconfirmed") for message in messages)


def unsent(*messages: str | bytes) -> tuple[Undelivered, ...]:
    return tuple(Undelivered(message, "unsent") for message in messages)


def closes(events: list[Event]) -> list[CloseEvent]:
    return [event for event in events if isinstance(event, CloseEvent)]


def drops(events: list[Event]) -> list[DropEvent]:
    return [event for event in events if isinstance(event, DropEvent)]


def books(ws: WebSocket) -> dict[str, int]:
    numbers = ws.statistics()
    return {
        "sent": numbers.messages_sent,
        "unconfirmed": numbers.messages_unconfirmed,
        "buffered": numbers.messages_buffered,
        "dropped": numbers.messages_dropped,
    }


async def read_on(peer: Peer) -> None:
    """Read, and answer what is to be answered, until the client is gone."""
    with suppress(*PARTINGS):
        while True:
            await peer.receive()


async def serve(network: MemoryNetwork, got: list[list[str | bytes]]) -> None:
    """Accept one connection after the other, and note what each brings."""
    while True:
        peer = await network.accept()
        got.append([])
        with suppress(*PARTINGS):
            await peer.accept()
            while True:
                got[-1].append(await peer.receive())


# Virtual seconds. A test that waits for what never comes fails, rather than hang.
PATIENCE = 10_000


@asynccontextmanager
async def mute(network: MemoryNetwork, **options: Unpack[Options]) -> AsyncGenerator[tuple[WebSocket, Peer]]:
    """Open a plain socket that tracks, to a peer that never pongs; how it ends is for the test to look at."""
    options["open_stream"], options["track"] = network.open_stream, True
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            ws = make_ws(nursery, URL, **options)
            peer = await accept(network, ws)
            peer.answer_pings = False
            yield ws, peer
            await ws.aclose()


@asynccontextmanager
async def stubborn(
    network: MemoryNetwork, **options: Unpack[ReconnectingOptions]
) -> AsyncGenerator[tuple[ReconnectingWebSocket, Peer]]:
    """Open a socket that sends again what is not proved; how it ends is for the test to look at."""
    options.setdefault("delay", 1.0)
    options.setdefault("resend", "unconfirmed")
    options["open_stream"] = network.open_stream
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            ws = make_reconnecting_ws(nursery, URL, **options)
            yield ws, await accept(network, ws)
            await ws.aclose()


# ------------------------------------------------------------------------------------ asking for proof


async def test_one_ping_follows_a_batch_and_its_pong_proves_all_of_it(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(), track=True) as (ws, peer), trio.open_nursery() as nursery:
        for message in "abc":
            ws.send_nowait(message)
        assert await peer.receive_all(3) == ["a", "b", "c"]
        assert books(ws) == {"sent": 3, "unconfirmed": 3, "buffered": 0, "dropped": 0}

        nursery.start_soon(read_on, peer)
        await trio.sleep(10)

        assert len(peer.pings) == 1
        assert books(ws) == {"sent": 3, "unconfirmed": 0, "buffered": 0, "dropped": 0}
        await ws.aclose()


async def test_a_peer_that_never_pongs_gets_one_ping_and_keeps_its_connection(autojump_clock: MockClock) -> None:
    async with mute(MemoryNetwork()) as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(read_on, peer)
        for _ in range(20):
            await ws.send("x")
            await trio.sleep(100)

        assert len(peer.pings) == 1
        assert ws.state.value is ReadyState.OPEN
        assert books(ws)["unconfirmed"] == 20
        await ws.aclose()


@pytest.mark.parametrize("interval", [0.0, 0.1, 5.0])
async def test_pings_are_at_least_an_interval_apart(interval: float, autojump_clock: MockClock) -> None:
    times: list[float] = []
    async with mute(MemoryNetwork(), confirm_interval=interval) as (ws, peer), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def answer() -> None:
            with suppress(*PARTINGS):
                while True:
                    frame = await peer.receive_frame()
                    if frame.opcode == Opcode.PING:
                        times.append(trio.current_time())
                        await peer.pong(frame.payload)
                    elif frame.opcode == Opcode.CLOSE:
                        await peer.send_frame(Opcode.CLOSE, frame.payload)
                        await peer.aclose()

        for _ in range(200):
            await ws.send("x")
            await trio.sleep(0.06)
        await ws.aclose()

    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps
    assert min(gaps) >= interval - 1e-9


async def test_the_interval_counts_from_when_a_ping_leaves_and_not_from_when_it_was_wanted(
    autojump_clock: MockClock,
) -> None:
    network = MemoryNetwork(buffer_size=64)
    async with opened(network, track=True, confirm_interval=1.0) as (ws, peer):
        await ws.send("x")
        assert await peer.receive() == "x"
        await ws.send(b"y" * 1000)  # the ping after the first message leaves before it, or waits behind it
        await trio.sleep(10)
        times: list[float] = []
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def read() -> None:
                while len(times) < 3:
                    frame = await peer.receive_frame()
                    if frame.opcode == Opcode.PING:
                        times.append(trio.current_time())
                        await peer.pong(frame.payload)

            for _ in range(60):
                await ws.send("z")
                await trio.sleep(0.1)
        assert times[2] - times[1] >= 1 - 1e-9
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_on, peer)
            await ws.aclose()


async def test_nothing_is_asked_where_nothing_lacks_proof(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork(), track=True) as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(read_on, peer)
        await trio.sleep(100)
        assert peer.pings == []
        await ws.aclose()


async def test_without_tracking_no_ping_is_sent_and_nothing_is_kept(autojump_clock: MockClock) -> None:
    async with opened(MemoryNetwork()) as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(read_on, peer)
        await ws.send("x")
        await trio.sleep(100)

        assert peer.pings == []
        assert books(ws)["unconfirmed"] == 0
        peer.reset()
        event = await ws.wait_closed()

        assert event.unconfirmed is None
        assert ws.undelivered == ()
        with pytest.raises(ConnectionClosed):
            await ws.send("y")


async def test_the_pong_of_a_later_ping_of_the_users_proves_what_came_before_it(autojump_clock: MockClock) -> None:
    async with mute(MemoryNetwork()) as (ws, peer):
        await ws.send("a")
        assert await peer.receive() == "a"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.ping)
            while len(peer.pings) < 2:
                await peer.receive_frame()
            await peer.pong(peer.pings[1])
        assert books(ws)["unconfirmed"] == 0
        assert len(peer.pings) == 2
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_on, peer)
            await ws.aclose()


async def test_a_ping_that_left_before_a_message_does_not_prove_it(autojump_clock: MockClock) -> None:
    async with mute(MemoryNetwork()) as (ws, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.ping)
            await wait_all_tasks_blocked()
            await ws.send("a")
            assert await peer.receive() == "a"
            await peer.pong(peer.pings[0])
        assert books(ws)["unconfirmed"] == 1
        peer.reset()
        await ws.wait_closed()
        assert ws.undelivered == unconfirmed("a")


async def test_a_ping_proves_nothing_of_what_leaves_in_the_same_write_behind_it(autojump_clock: MockClock) -> None:
    async with mute(MemoryNetwork(buffer_size=100)) as (ws, peer), trio.open_nursery() as nursery:
        await ws.send("long".ljust(300, "."))
        await wait_all_tasks_blocked()
        nursery.start_soon(ws.ping)
        await wait_all_tasks_blocked()
        await ws.send("behind")

        assert await peer.receive_all(2) == ["long".ljust(300, "."), "behind"]
        opcodes = [frame.opcode for frame in peer.frames]
        assert opcodes == [Opcode.TEXT, Opcode.PING, Opcode.TEXT]
        await peer.pong(peer.pings[0])
        await trio.sleep(1)
        peer.reset()
        await ws.wait_closed()

        assert ws.undelivered == unconfirmed("behind")


async def test_pongs_that_nobody_asked_for_prove_nothing(autojump_clock: MockClock) -> None:
    async with mute(MemoryNetwork()) as (ws, peer):
        await ws.send("a")
        assert await peer.receive() == "a"
        assert (await peer.receive_frame()).opcode == Opcode.PING
        for payload in (b"", b"1", b"2", b"heartbeat", peer.pings[0] + b"0"):
            await peer.pong(payload)
        await trio.sleep(1)
        assert books(ws)["unconfirmed"] == 1

        await peer.pong(peer.pings[0])
        await trio.sleep(1)
        assert books(ws)["unconfirmed"] == 0

        await ws.send("b")  # and the same pong once more is a stale one
        await peer.pong(peer.pings[0])
        await trio.sleep(1)
        assert books(ws)["unconfirmed"] == 1
        peer.reset()


async def test_a_pong_of_the_connection_before_proves_nothing(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with stubborn(network) as (ws, peer):
        peer.answer_pings = False
        await ws.send("a")
        assert await peer.receive() == "a"
        await peer.receive_frame()
        peer.reset()
        second = await accept(network, ws)
        second.answer_pings = False
        assert await second.receive() == "a"

        await second.pong(peer.pings[0])
        await trio.sleep(1)

        assert books(ws)["unconfirmed"] == 1
        second.reset()


async def test_the_pongs_of_a_heartbeat_neither_prove_nor_harm(autojump_clock: MockClock) -> None:
    async with mute(MemoryNetwork()) as (ws, peer), trio.open_nursery() as nursery:
        make_heartbeat_ws(ws, message=None, interval=1, wait=1)
        await ws.send("a")

        @nursery.start_soon
        async def answer_heartbeats() -> None:
            while True:
                try:
                    frame = await peer.receive_frame()
                except PARTINGS:
                    return
                if frame.opcode == Opcode.PING and frame.payload == b"heartbeat":
                    await peer.pong(frame.payload)

        await trio.sleep(30)

        assert ws.state.value is ReadyState.OPEN
        assert books(ws)["unconfirmed"] == 1
        await ws.aclose()
        assert ws.undelivered == unconfirmed("a")


# ------------------------------------------------------------------------------------ at most once: told of every doubt


async def test_the_close_tells_what_was_in_doubt_and_the_end_tells_all_of_it(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with reopening(network, track=True) as (ws, peer), ws.events() as events:
        peer.answer_pings = False
        await ws.send("a")
        await ws.send("b")
        assert await peer.receive_all(2) == ["a", "b"]
        peer.reset()
        second = await accept(network, ws)
        second.answer_pings = False
        await ws.send("c")
        assert await second.receive() == "c"
        second.reset()
        third = await accept(network, ws)
        third.reset()
        await trio.sleep(0.5)
        await ws.aclose()

        assert [each.unconfirmed for each in closes(taken(events))] == [("a", "b"), ("c",), ()]
        assert ws.undelivered == unconfirmed("a", "b", "c")
        assert books(ws) == {"sent": 3, "unconfirmed": 3, "buffered": 0, "dropped": 0}


async def test_what_was_cut_short_goes_out_again_and_what_was_whole_does_not(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(buffer_size=100)
    async with reopening(network, track=True) as (ws, peer), ws.events() as events:
        peer.answer_pings = False
        await ws.send("whole")
        await ws.send("cut".ljust(300, "."))
        await ws.send("new")
        await wait_all_tasks_blocked()
        peer.reset()
        second = await accept(network, ws)

        assert await second.receive_all(2) == ["cut".ljust(300, "."), "new"]

        assert closes(taken(events))[0].unconfirmed == ("whole",)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_on, second)
            await ws.aclose()
        assert ws.undelivered == unconfirmed("whole")
        assert books(ws) == {"sent": 3, "unconfirmed": 1, "buffered": 0, "dropped": 0}


async def test_what_is_in_doubt_from_earlier_connections_takes_no_room_and_is_kept_within_bounds(
    autojump_clock: MockClock,
) -> None:
    network = MemoryNetwork()
    async with reopening(network, track=True, outbox=Buffer(max_messages=2, when_full="error")) as (ws, peer):
        for number in range(3):
            peer.answer_pings = False
            ws.send_nowait(f"{number}a")
            ws.send_nowait(f"{number}b")
            with pytest.raises(BufferFull):
                ws.send_nowait("no room")
            assert len(await peer.receive_all(2)) == 2
            peer.reset()
            peer = await accept(network, ws)
        peer.reset()
        await ws.aclose()

        assert ws.undelivered == unconfirmed("2a", "2b")
        assert books(ws)["unconfirmed"] == 6


async def test_a_socket_that_never_opened_has_nothing_in_doubt(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse(2)
    async with trio.open_nursery() as nursery:
        tracked = make_ws(nursery, URL, track=True, open_stream=network.open_stream)
        plain = make_ws(nursery, URL, open_stream=network.open_stream)

        assert (await tracked.wait_closed()).unconfirmed == ()
        assert (await plain.wait_closed()).unconfirmed is None


# ------------------------------------------------------------------------------------ at least once


async def test_what_is_not_proved_goes_first_in_order_after_setup(autojump_clock: MockClock) -> None:
    async def setup(session: Session) -> None:
        await session.send("hello")

    network = MemoryNetwork()
    async with stubborn(network, setup=setup) as (ws, peer), ws.events() as events:
        peer.answer_pings = False
        for message in "abc":
            await ws.send(message)
        assert await peer.receive_all(4) == ["hello", "a", "b", "c"]
        peer.reset()
        await trio.sleep(0.5)
        await ws.send("d")
        second = await accept(network, ws)

        assert await second.receive_all(5) == ["hello", "a", "b", "c", "d"]

        assert closes(taken(events))[0].unconfirmed == ("a", "b", "c")
        assert books(ws)["sent"] == 4
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_on, second)
            await trio.sleep(1)
            assert books(ws) == {"sent": 4, "unconfirmed": 0, "buffered": 0, "dropped": 0}
            await ws.aclose()
        assert ws.undelivered == ()


async def test_only_what_is_not_proved_goes_again(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with stubborn(network) as (ws, peer):
        await ws.send("proved")
        assert await peer.receive() == "proved"
        with trio.move_on_after(1):
            await peer.receive()
        peer.answer_pings = False
        await ws.send("doubtful")
        assert await peer.receive() == "doubtful"
        peer.reset()

        second = await accept(network, ws)

        assert await second.receive() == "doubtful"
        second.reset()


async def test_a_message_cut_short_goes_again_from_its_beginning_behind_what_is_not_proved(
    autojump_clock: MockClock,
) -> None:
    network = MemoryNetwork(buffer_size=100)
    long = b"long".ljust(5000, b".")
    async with stubborn(network) as (ws, peer):
        peer.answer_pings = False
        await ws.send("a")
        await ws.send(long)
        await ws.send("z")
        assert await peer.receive() == "a"
        for _ in range(3):
            await trio.sleep(0.1)
            peer.reset()
            peer = await accept(network, ws)
            peer.answer_pings = False
            assert await peer.receive() == "a"

        assert await peer.receive_all(2) == [long, "z"]
        assert books(ws)["sent"] == 3
        peer.reset()


async def test_what_waits_for_proof_for_longer_than_its_ttl_is_dropped_when_it_would_go_again(
    autojump_clock: MockClock,
) -> None:
    network = MemoryNetwork()
    async with stubborn(network) as (ws, peer), ws.events() as events:
        peer.answer_pings = False
        await ws.send("short-lived", ttl=3)
        await ws.send("lasting")
        assert await peer.receive_all(2) == ["short-lived", "lasting"]
        await trio.sleep(10)
        assert drops(taken(events)) == []
        peer.reset()
        second = await accept(network, ws)

        assert await second.receive() == "lasting"

        assert drops(taken(events)) == [DropEvent("short-lived", "expired")]
        assert books(ws) == {"sent": 2, "unconfirmed": 1, "buffered": 0, "dropped": 1}
        second.reset()


# ------------------------------------------------------------------------------------ bounds


@pytest.mark.parametrize("bounds", [Buffer(max_messages=2), Buffer(max_bytes=20)])
async def test_a_send_waits_while_proof_is_wanting_for_as_much_as_the_outbox_holds(
    bounds: Buffer, autojump_clock: MockClock
) -> None:
    async with mute(MemoryNetwork(), outbox=bounds) as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(read_on, peer)
        await ws.send("0123456789")
        await ws.send("0123456789")
        with trio.move_on_after(100) as scope:
            await ws.send("more")
        assert scope.cancelled_caught
        assert books(ws) == {"sent": 2, "unconfirmed": 2, "buffered": 0, "dropped": 0}

        await peer.pong(peer.pings[0])
        with trio.fail_after(1):
            await ws.send("more")
        await ws.aclose()


async def test_with_error_the_outbox_is_full_of_what_is_not_proved(autojump_clock: MockClock) -> None:
    outbox = Buffer(max_messages=1, when_full="error")
    async with mute(MemoryNetwork(), outbox=outbox) as (ws, peer):
        await ws.send("a")
        assert await peer.receive() == "a"
        with pytest.raises(BufferFull):
            await ws.send("b")
        peer.reset()
        await ws.wait_closed()
        assert ws.undelivered == unconfirmed("a")


async def test_with_drop_newest_what_is_not_proved_stays(autojump_clock: MockClock) -> None:
    outbox = Buffer(max_messages=1, when_full="drop_newest")
    async with mute(MemoryNetwork(), outbox=outbox) as (ws, peer), ws.events() as events:
        await ws.send("a")
        assert await peer.receive() == "a"
        await ws.send("b")
        peer.reset()
        await ws.wait_closed()

        assert drops(taken(events)) == [DropEvent("b", "full")]
        assert ws.undelivered == unconfirmed("a")


@pytest.mark.parametrize("resend", ["unsent", "unconfirmed"])
async def test_with_drop_oldest_what_is_longest_without_proof_goes(
    resend: Literal["unsent", "unconfirmed"], autojump_clock: MockClock
) -> None:
    network = MemoryNetwork()
    outbox = Buffer(max_messages=2, when_full="drop_oldest")
    async with reopening(network, track=True, resend=resend, outbox=outbox) as (ws, peer), ws.events() as events:
        peer.answer_pings = False
        for message in "abcd":
            await ws.send(message)
            assert await peer.receive() == message
        assert drops(taken(events)) == [DropEvent("a", "full"), DropEvent("b", "full")]
        assert books(ws) == {"sent": 4, "unconfirmed": 2, "buffered": 0, "dropped": 2}
        network.refuse(100)
        peer.reset()
        await trio.sleep(0.5)
        await ws.send("e")
        await ws.aclose()

        left = ("c", "d") if resend == "unsent" else ("d",)
        assert ws.undelivered == unconfirmed(*left) + unsent("e")


# ------------------------------------------------------------------------------------ poison


async def test_what_the_peer_finds_too_big_is_set_aside_and_what_follows_arrives(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with stubborn(network) as (ws, peer), ws.events() as events:
        for message in ("small", "large".ljust(50, "."), "next"):
            await ws.send(message)
        peer.answer_pings = False
        await peer.receive_all(2)
        await peer.send_close(1009, "too big")
        with pytest.raises(PeerClosed):
            await peer.receive_all(2)

        second = await accept(network, ws)

        assert await second.receive_all(2) == ["small", "next"]
        assert drops(taken(events)) == [DropEvent("large".ljust(50, "."), "rejected")]
        assert books(ws) == {"sent": 3, "unconfirmed": 2, "buffered": 0, "dropped": 1}
        second.reset()


async def test_what_is_too_big_is_known_from_its_beginning(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(buffer_size=100)
    long = b"x" * 5000
    async with stubborn(network) as (ws, peer), ws.events() as events:
        peer.answer_pings = False
        await ws.send("small")
        await ws.send(long)
        await ws.send("after")
        assert await peer.receive() == "small"
        await peer.send_close(1009)
        await trio.sleep(1.5)
        peer.drop()

        second = await accept(network, ws)

        assert await second.receive_all(2) == ["small", "after"]
        assert drops(taken(events)) == [DropEvent(long, "rejected")]
        assert books(ws) == {"sent": 2, "unconfirmed": 2, "buffered": 0, "dropped": 1}
        second.reset()


async def test_a_message_that_stands_behind_a_ping_which_was_cut_short_is_innocent(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(buffer_size=20)
    guilty, innocent = b"guilty".ljust(28, b"."), b"innocent".ljust(60, b".")
    async with stubborn(network) as (ws, peer), ws.events() as events, trio.open_nursery() as nursery:
        await ws.send(guilty)
        await wait_all_tasks_blocked()

        @nursery.start_soon
        async def ping() -> None:
            with pytest.raises(ConnectionClosed):
                await ws.ping()

        await wait_all_tasks_blocked()
        await ws.send(innocent)
        await peer.stream.receive_some(16)  # room for the rest of the message, and two bytes of the ping
        await wait_all_tasks_blocked()
        assert books(ws)["sent"] == 1
        await peer.send_close(1009)
        await trio.sleep(1.5)
        peer.drop()

        second = await accept(network, ws)
        assert await second.receive() == innocent
        assert drops(taken(events)) == [DropEvent(guilty, "rejected")]
        nursery.start_soon(read_on, second)
        await ws.aclose()


async def test_what_was_cut_short_on_one_connection_is_not_to_blame_for_the_end_of_the_next() -> None:
    reported: list[DropEvent] = []
    outbox = Outbox(Buffer(), reported.append, tracks=True, resends=True)
    outbox.put_nowait("whole", None)
    outbox.put_nowait("cut short", None)
    outbox.take(100)
    outbox.settle(1)
    outbox.settle_account(is_proved=False, peers_code=None, lasted=False)

    account = outbox.settle_account(is_proved=False, peers_code=1009, lasted=False)

    assert not account.rejected
    assert reported == []
    assert outbox.newest_sent == 0, "a ping on the next connection would prove what is not there yet"


async def test_a_user_who_says_stop_is_obeyed_also_after_too_big(autojump_clock: MockClock) -> None:
    async with stubborn(MemoryNetwork(), retry_if=lambda _: False) as (ws, peer), ws.events() as events:
        await ws.send("large")
        await ws.send("x")
        peer.answer_pings = False
        await peer.receive_all(2)
        await peer.send_close(1009)
        event = await ws.wait_closed()

        assert event.unconfirmed == ("large", "x")
        assert ws.undelivered == unconfirmed("x")
        assert drops(taken(events)) == [DropEvent("large", "rejected")]
        with pytest.raises(ConnectionClosed):
            await ws.receive()


async def test_too_big_with_nothing_in_doubt_is_fatal_as_ever(autojump_clock: MockClock) -> None:
    async with stubborn(MemoryNetwork()) as (ws, peer), ws.events() as events:
        await peer.send_close(1009)
        await ws.wait_closed()

        assert drops(taken(events)) == []
        with pytest.raises(ConnectionClosed):
            await ws.receive()


async def test_too_big_of_ours_for_what_comes_in_is_no_poison(autojump_clock: MockClock) -> None:
    async with stubborn(MemoryNetwork(), max_message_bytes=10) as (ws, peer), ws.events() as events:
        peer.answer_pings = False
        await ws.send("innocent")
        assert await peer.receive() == "innocent"
        await peer.send("x" * 11)
        with pytest.raises(PeerClosed):
            await peer.receive()
        event = await ws.wait_closed()

        assert (event.code, event.unconfirmed) == (1009, ("innocent",))
        assert drops(taken(events)) == []
        assert ws.undelivered == unconfirmed("innocent")
        with pytest.raises(ConnectionClosed):
            await ws.receive()


async def test_too_big_does_not_set_anything_aside_where_nothing_is_sent_again(autojump_clock: MockClock) -> None:
    async with stubborn(MemoryNetwork(), track=True, resend="unsent") as (ws, peer), ws.events() as events:
        peer.answer_pings = False
        await ws.send("large")
        assert await peer.receive() == "large"
        await peer.send_close(1009)
        await ws.wait_closed()

        assert drops(taken(events)) == []
        assert ws.undelivered == unconfirmed("large")
        await ws.aclose()


async def die_of(ws: WebSocket, network: MemoryNetwork, peer: Peer, message: str, times: int) -> Peer:
    """Have connections die as soon as they have brought the message; give the next one."""
    for _ in range(times):
        peer.answer_pings = False
        assert await peer.receive() == message
        peer.reset()
        peer = await accept(network, ws)
    return peer


async def test_a_message_that_kills_again_and_again_is_set_aside(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with stubborn(network) as (ws, peer), ws.events() as events:
        await ws.send("poison")
        await ws.send("next")
        peer = await die_of(ws, network, peer, "poison", MOST_LIVES - 1)
        assert drops(taken(events)) == []

        peer = await die_of(ws, network, peer, "poison", 1)

        assert drops(taken(events)) == [DropEvent("poison", "rejected")]
        assert await peer.receive() == "next"
        peer.reset()


async def test_the_last_life_of_a_message_does_not_change_what_a_close_means(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with stubborn(network) as (ws, peer), ws.events() as events:
        await ws.send("poison")
        peer = await die_of(ws, network, peer, "poison", MOST_LIVES - 1)
        assert await peer.receive() == "poison"
        await peer.send_close(4000, "go away")
        event = await ws.wait_closed()

        assert event.code == 4000
        assert drops(taken(events)) == [DropEvent("poison", "rejected")]
        with pytest.raises(ConnectionClosed):
            await ws.receive()


async def test_lasting_connections_and_reconnects_of_the_users_are_nobodys_death(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with stubborn(network, min_uptime=5) as (ws, peer), ws.events() as events:
        await ws.send("innocent")
        for end in ("lasted", "reconnect"):
            peer = await die_of(ws, network, peer, "innocent", MOST_LIVES - 1)
            peer.answer_pings = False
            assert await peer.receive() == "innocent"
            if end == "lasted":
                await trio.sleep(6)
                peer.reset()
            else:
                ws.reconnect()
            peer = await accept(network, ws)
        peer = await die_of(ws, network, peer, "innocent", MOST_LIVES - 1)

        assert drops(taken(events)) == []
        peer.reset()


async def test_proof_of_an_earlier_message_starts_the_count_over(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with stubborn(network) as (ws, peer), ws.events() as events:
        await ws.send("first")
        peer = await die_of(ws, network, peer, "first", MOST_LIVES - 1)
        peer.answer_pings = True
        assert await peer.receive() == "first"
        with trio.move_on_after(0.5):
            await peer.receive()
        await ws.send("second")
        peer = await die_of(ws, network, peer, "second", MOST_LIVES - 1)

        assert drops(taken(events)) == []
        peer.reset()


# ------------------------------------------------------------------------------------ the end


async def test_a_closing_handshake_that_we_began_is_proof(autojump_clock: MockClock) -> None:
    async with mute(MemoryNetwork()) as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(read_on, peer)
        await ws.send("a")
        await ws.aclose()

        assert (await ws.wait_closed()).unconfirmed == ()
        assert ws.undelivered == ()
        assert books(ws) == {"sent": 1, "unconfirmed": 0, "buffered": 0, "dropped": 0}


async def test_an_answer_without_a_code_is_proof_too(autojump_clock: MockClock) -> None:
    async with mute(MemoryNetwork()) as (ws, peer), trio.open_nursery() as nursery:
        peer.answer_close = False

        @nursery.start_soon
        async def answer() -> None:
            with pytest.raises(PeerClosed):
                await peer.receive_all(2)
            await peer.send_close(None)
            peer.drop()

        await ws.send("a")
        await ws.aclose()

        assert ws.undelivered == ()


@pytest.mark.parametrize("is_seen", [False, True])
async def test_a_close_with_another_code_than_ours_is_the_peers_own(is_seen: bool, autojump_clock: MockClock) -> None:
    async with mute(MemoryNetwork()) as (ws, peer), trio.open_nursery() as nursery:
        await ws.send("a")
        assert await peer.receive() == "a"
        if is_seen:
            await peer.send_close(1012)
            await wait_all_tasks_blocked()
        nursery.start_soon(ws.aclose)
        await wait_all_tasks_blocked()
        if not is_seen:
            await peer.send_close(1012)
        event = await ws.wait_closed()

        assert (event.code, event.clean, event.unconfirmed) == (1012, True, ("a",))
        assert ws.undelivered == unconfirmed("a")


async def test_a_close_that_nobody_answers_is_no_proof(autojump_clock: MockClock) -> None:
    async with mute(MemoryNetwork()) as (ws, _):
        await ws.send("a")
        await ws.aclose()

        assert (await ws.wait_closed()).unconfirmed == ("a",)
        assert ws.undelivered == unconfirmed("a")


@pytest.mark.parametrize("code", [1000, None, 1001, 1011])
async def test_a_close_that_the_peer_began_is_no_proof(code: int | None, autojump_clock: MockClock) -> None:
    async with mute(MemoryNetwork()) as (ws, peer), trio.open_nursery() as nursery:
        await ws.send("a")
        await wait_all_tasks_blocked()
        await peer.send_close(code)
        nursery.start_soon(read_on, peer)
        event = await ws.wait_closed()

        assert event.clean
        assert event.unconfirmed == ("a",)
        assert ws.undelivered == unconfirmed("a")
        if code == 1011:
            with pytest.raises(ConnectionClosed):
                await ws.receive()


@pytest.mark.parametrize("code", [1000, None])
async def test_a_close_that_the_peer_begins_while_we_drain_is_no_proof(
    code: int | None, autojump_clock: MockClock
) -> None:
    async with mute(MemoryNetwork(buffer_size=100)) as (ws, peer):
        await ws.send("a")
        await ws.send("cut".ljust(500, "."))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.aclose)
            await wait_all_tasks_blocked()
            await peer.send_close(code)
            await trio.sleep(0.5)
            peer.reset()

        assert ws.undelivered == unconfirmed("a") + unsent("cut".ljust(500, "."))


async def test_a_close_of_the_peers_that_nobody_had_read_yet_is_no_proof(autojump_clock: MockClock) -> None:
    async with mute(MemoryNetwork(), inbox=Buffer(max_messages=1)) as (ws, peer):
        for _ in range(5):
            await peer.send("unread")
            await trio.sleep(1)
        await peer.send_close(1000)
        await ws.send("a")
        await trio.sleep(1)
        assert ws.state.value is ReadyState.OPEN, "nobody has read it yet"

        await ws.aclose()

        assert (await ws.wait_closed()).clean
        assert ws.undelivered == unconfirmed("a")


async def test_leaving_with_an_inbox_full_of_messages_can_be_proved_all_the_same(autojump_clock: MockClock) -> None:
    async with mute(MemoryNetwork(), inbox=Buffer(max_messages=1)) as (ws, peer), trio.open_nursery() as nursery:
        for _ in range(5):
            await peer.send("unread")
            await trio.sleep(1)
        nursery.start_soon(read_on, peer)
        await ws.send("a")

        await ws.aclose()

        assert ws.undelivered == ()


async def test_what_is_left_after_the_last_retry_is_told_with_the_fate_of_each(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    with pytest.raises(RetriesExhausted):
        async with reopening(network, resend="unconfirmed", retries=2) as (ws, peer):
            peer.answer_pings = False
            await ws.send("handed over")
            assert await peer.receive() == "handed over"
            network.refuse(2)
            peer.reset()
            await trio.sleep(0.5)
            await ws.send("waits")
            await ws.wait_closed()

    assert ws.undelivered == unconfirmed("handed over") + unsent("waits")
    assert books(ws) == {"sent": 1, "unconfirmed": 1, "buffered": 1, "dropped": 0}


async def test_leaving_the_block_with_something_in_doubt_raises_it(autojump_clock: MockClock) -> None:
    with pytest.raises(UndeliveredError) as caught:
        async with opened(MemoryNetwork(), track=True) as (ws, _):
            await ws.send("a")

    assert caught.value.messages == ws.undelivered == unconfirmed("a")


async def test_leaving_the_block_with_all_proved_raises_nothing(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    got: list[list[str | bytes]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, network, got)
        async with create_reconnecting_ws(URL, open_stream=network.open_stream, resend="unconfirmed") as ws:
            await ws.send("a")
        nursery.cancel_scope.cancel()

    assert got == [["a"]]
    assert ws.undelivered == ()


async def test_after_an_error_that_a_call_has_raised_the_block_raises_what_is_undelivered(
    autojump_clock: MockClock,
) -> None:
    with pytest.raises(UndeliveredError) as caught:
        async with opened(MemoryNetwork(), track=True) as (ws, peer):
            await ws.send("a")
            await wait_all_tasks_blocked()
            peer.reset()
            with pytest.raises(ConnectionClosed):
                await ws.receive()

    assert caught.value.messages == unconfirmed("a")


async def test_an_error_that_nobody_was_told_comes_before_what_is_undelivered(autojump_clock: MockClock) -> None:
    with pytest.raises(ConnectionClosed):
        async with opened(MemoryNetwork(), track=True) as (ws, peer):
            await ws.send("a")
            await wait_all_tasks_blocked()
            peer.reset()
            await ws.wait_closed()

    assert ws.undelivered == unconfirmed("a")


async def test_a_users_error_leaves_without_draining_and_is_not_hidden(autojump_clock: MockClock) -> None:
    with pytest.raises(KeyError):
        async with opened(MemoryNetwork(buffer_size=100), track=True) as (ws, _):
            await ws.send("a")
            await ws.send("b" * 500)
            await ws.send("c")
            await wait_all_tasks_blocked()
            raise KeyError

    assert ws.undelivered == unconfirmed("a") + unsent("b" * 500, "c")


@pytest.mark.parametrize("resend", ["unsent", "unconfirmed"])
async def test_a_cancelled_nursery_leaves_an_account(
    resend: Literal["unsent", "unconfirmed"], autojump_clock: MockClock
) -> None:
    network = MemoryNetwork(buffer_size=100)
    async with trio.open_nursery() as nursery:
        ws = make_reconnecting_ws(nursery, URL, open_stream=network.open_stream, track=True, resend=resend)
        peer = await accept(network, ws)
        await ws.send("a")
        await ws.send("b" * 500)
        await ws.send("c")
        await wait_all_tasks_blocked()
        peer.answer_pings = False
        assert await peer.receive() == "a"
        nursery.cancel_scope.cancel()

    assert ws.undelivered == unconfirmed("a") + unsent("b" * 500, "c")
    assert books(ws) == {"sent": 1, "unconfirmed": 1, "buffered": 2, "dropped": 0}


async def test_a_cancelled_close_leaves_an_account(autojump_clock: MockClock) -> None:
    async with mute(MemoryNetwork()) as (ws, peer):
        await ws.send("a")
        assert await peer.receive() == "a"
        with trio.CancelScope() as scope:
            scope.cancel()
            await ws.aclose()

        assert ws.undelivered == unconfirmed("a")


async def test_nothing_is_undelivered_before_the_end(autojump_clock: MockClock) -> None:
    async with mute(MemoryNetwork()) as (ws, peer):
        await ws.send("a")
        assert ws.undelivered == ()
        peer.reset()
