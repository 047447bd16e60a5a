"""What every transport promises over real sockets, plain and under TLS, where links are direct.

Here time is real; nothing waits for it but to give up.
"""

import random
from collections.abc import Sequence
from contextlib import suppress

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_wsprim import ConnectionClosed
from trio_wsprim.abc import Ending, Incoming, Ping, Pong
from trio_wsprim.testing import Frame, Opcode, Peer, PeerClosed, encode_frame

from .links import KINDS, SERVERS, Kind, Wiring, closing, expect, linked_over, over_tcp, over_tls, receive_all

# What was agreed on matters here, not what was asked for and declined.
BRIEF = [kind for kind in (*KINDS, *SERVERS) if kind.name not in {"deflate-declined", "deflate-not-offered server"}]


@pytest.fixture(params=BRIEF, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    given: Kind = request.param
    return given


@pytest.fixture(scope="module", params=[over_tcp, over_tls], ids=["tcp", "tls"])
def wiring(request: pytest.FixtureRequest) -> Wiring:
    made: Wiring = request.param()
    return made


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that no compression makes fewer."""
    return random.Random(seed).randbytes(size)


async def read_what_comes(peer: Peer) -> None:
    with suppress(trio.EndOfChannel, trio.BrokenResourceError):
        while True:
            await peer.receive_frame()


# --- messages ---


async def test_a_link_over_a_socket_is_direct(wiring: Wiring, kind: Kind) -> None:
    async with linked_over(wiring, kind) as (link, _):
        assert link.is_direct


async def test_messages_of_all_sizes_keep_their_order_both_ways_at_once(wiring: Wiring, kind: Kind) -> None:
    sizes = [0, 1, 125, 126, 65_535, 65_536, 131_072, 131_073, 1_000_000, 3]
    messages: list[Incoming] = [noise(size, size) for size in sizes]
    messages += ["", "é" * 100, "€" * 100_000]
    async with linked_over(wiring, kind) as (link, peer):
        came: list[str | bytes] = []

        async def serve() -> None:
            came.extend(await peer.receive_all(len(messages)))

        async def say() -> None:
            for message in messages:
                assert not isinstance(message, Pong)
                await peer.send(message)

        async def send() -> None:
            await link.send([each for each in messages if not isinstance(each, Pong)])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            nursery.start_soon(say)
            nursery.start_soon(send)
            assert await receive_all(link, len(messages)) == messages
        assert came == messages
        assert link.items_sent == len(messages)


async def test_what_comes_in_single_bytes_and_is_asked_for_in_vain_is_not_lost(wiring: Wiring, kind: Kind) -> None:
    data = (
        encode_frame(Opcode.TEXT, b"one")
        + encode_frame(Opcode.TEXT, b"t", fin=False)
        + encode_frame(Opcode.PING, b"?")
        + encode_frame(Opcode.CONTINUATION, b"wo")
        + encode_frame(Opcode.PONG, b"!")
        + encode_frame(Opcode.TEXT, b"three")
    )
    async with linked_over(wiring, kind) as (link, peer):
        found: list[Incoming] = []
        for byte in data:
            with trio.CancelScope() as scope:
                scope.cancel()
                found += await link.receive()
            await peer.send_raw(bytes([byte]))
            with trio.move_on_after(0):
                found += await link.receive()
        while len(found) < 4:
            found += await link.receive()
        assert found == ["one", "two", Pong(b"!"), "three"]
        assert await peer.receive_frame() == Frame(Opcode.PONG, b"?")


async def test_a_large_message_may_be_asked_for_in_vain_half_way(wiring: Wiring, kind: Kind) -> None:
    data = encode_frame(Opcode.BINARY, noise(500_000)) + encode_frame(Opcode.TEXT, b"after")
    async with linked_over(wiring, kind) as (link, peer):
        found: list[Incoming] = []
        for start in range(0, len(data), 50_000):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.send_raw, data[start : start + 50_000])
                with trio.move_on_after(0.01):
                    found += await link.receive()
        while len(found) < 2:
            found += await link.receive()
        assert found == [noise(500_000), "after"]


# --- what is sent without waiting ---


async def test_what_the_network_takes_at_once_is_sent_without_waiting(wiring: Wiring, kind: Kind) -> None:
    async with linked_over(wiring, kind) as (link, peer):
        assert link.send_nowait(["a", b"b", Ping(b"p")]) is True
        assert link.items_sent == 3
        assert link.send_nowait([]) is True
        assert link.items_sent == 3
        assert await peer.receive_all(2) == ["a", b"b"]
        assert await peer.receive_frame() == Frame(Opcode.PING, b"p")


@pytest.mark.parametrize("size", [1000, 200_000, 1_000_000])
async def test_what_the_network_does_not_take_at_once_goes_with_the_next_send(
    size: int, wiring: Wiring, kind: Kind
) -> None:
    batch: Sequence[str | bytes] = [noise(size, number) for number in range(3_000_000 // size)]
    async with linked_over(wiring, kind, small=True) as (link, peer):
        assert link.send_nowait(batch) is False
        sent_at_once = link.items_sent
        assert sent_at_once < len(batch)
        assert link.send_nowait(["behind"]) is False
        came: list[str | bytes] = []

        async def serve() -> None:
            came.extend(await peer.receive_all(len(batch) + 1))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await link.send(())
        assert link.items_sent == len(batch) + 1
        assert came == [*batch, "behind"]


async def test_what_is_sent_without_waiting_fails_with_the_network(wiring: Wiring, kind: Kind) -> None:
    async with linked_over(wiring, kind) as (link, peer):
        peer.reset()
        assert link.send_nowait(["lost"]) is False
        error = await expect(ConnectionClosed, lambda: link.send(()))
        assert isinstance(error, ConnectionClosed)
        assert error.code == 1006
        assert error.__cause__ is not None
        assert link.send_nowait(["lost"]) is False
        assert link.items_sent == 0


async def test_nothing_is_sent_without_waiting_after_the_end(wiring: Wiring, kind: Kind) -> None:
    async with linked_over(wiring, kind) as (link, peer):
        await peer.send_close(4000, "bye")
        await expect(ConnectionClosed, link.receive)
        with pytest.raises(ConnectionClosed) as caught:
            link.send_nowait(["x"])
        assert (caught.value.code, caught.value.reason) == (4000, "bye")
        await link.abort()
        with pytest.raises(trio.ClosedResourceError):
            link.send_nowait(["x"])
        assert link.items_sent == 0


@pytest.mark.parametrize("size", [10, 5_000, 100_000, 700_000])
async def test_a_cut_write_is_counted_exactly(size: int, wiring: Wiring, kind: Kind) -> None:
    batch = [noise(size, number) for number in range(3_000_000 // size if size > 10 else 40_000)]
    async with linked_over(wiring, kind, small=True) as (link, peer):
        with trio.move_on_after(0.05) as scope:
            await link.send(batch)
        assert scope.cancelled_caught
        await link.abort()
        await read_what_comes(peer)
        assert link.items_sent == len(peer.frames)
        assert [each.payload for each in peer.frames] == batch[: len(peer.frames)]


async def test_a_send_is_heard_by_a_peer_that_reads_later(wiring: Wiring, kind: Kind) -> None:
    batch = [noise(300_000, number) for number in range(10)]
    async with linked_over(wiring, kind, small=True) as (link, peer), trio.open_nursery() as nursery:
        nursery.start_soon(link.send, batch)
        await wait_all_tasks_blocked()
        await expect(trio.BusyResourceError, lambda: link.send(["x"]))
        assert await peer.receive_all(10) == batch


# --- control frames ---


async def test_pings_are_answered_while_somebody_receives(wiring: Wiring, kind: Kind) -> None:
    async with linked_over(wiring, kind) as (link, peer), trio.open_nursery() as nursery:
        nursery.start_soon(link.receive)
        for payload in (b"", b"x" * 125):
            await peer.ping(payload)
            assert await peer.receive_frame() == Frame(Opcode.PONG, payload)
        await peer.send("done")


async def test_pings_are_answered_in_the_midst_of_a_long_send(wiring: Wiring, kind: Kind) -> None:
    batch = [noise(100_000, number) for number in range(30)]
    async with linked_over(wiring, kind, small=True) as (link, peer), trio.open_nursery() as nursery:
        nursery.start_soon(link.send, batch)
        await wait_all_tasks_blocked()
        nursery.start_soon(link.receive)
        await peer.ping(b"now")
        while not peer.pongs:
            await peer.receive_frame()
        assert len(peer.frames) < 30
        while len(peer.frames) < 31:
            await peer.receive_frame()
        assert [each.payload for each in peer.frames if each.opcode == Opcode.BINARY] == batch
        await peer.send("done")


@pytest.mark.parametrize("how", ["abort", "aclose"])
async def test_answers_that_wait_for_the_network_end_with_the_link(how: str, wiring: Wiring, kind: Kind) -> None:
    async with linked_over(wiring, kind, small=True) as (link, peer), trio.open_nursery() as nursery:
        nursery.start_soon(expect, trio.ClosedResourceError, link.receive)
        for _ in range(2500):
            await peer.ping(b"p" * 125)  # and reads none of the answers
        await wait_all_tasks_blocked()
        if how == "aclose":
            await closing(link, seconds=0.05)
        await link.abort()
        assert link.ending == Ending(1006, "", clean=False)
        await read_what_comes(peer)
        assert 0 < len(peer.frames) < 2500  # so some had to wait


# --- interrupts ---


async def test_an_interrupt_ends_a_wait_and_nothing_else(wiring: Wiring, kind: Kind) -> None:
    large = encode_frame(Opcode.BINARY, noise(100_000))
    async with linked_over(wiring, kind) as (link, peer):
        link.interrupt()  # nobody waits
        for data in (b"", encode_frame(Opcode.TEXT, b"whole") + large[:50_000]):
            await peer.send_raw(data)
            async with trio.open_nursery() as nursery:
                if data:
                    assert await link.receive() == ["whole"]
                nursery.start_soon(expect, trio.ClosedResourceError, link.receive)
                await wait_all_tasks_blocked()
                link.interrupt()
        assert link.ending == Ending(1006, "", clean=False)
        await link.send(["still open"])
        assert await peer.receive() == "still open"
        await peer.send_raw(large[50_000:])
        assert await link.receive() == [noise(100_000)]


async def test_an_interrupt_spares_who_sends(wiring: Wiring, kind: Kind) -> None:
    batch = [noise(300_000, number) for number in range(10)]
    async with linked_over(wiring, kind, small=True) as (link, peer), trio.open_nursery() as nursery:
        nursery.start_soon(link.send, batch)
        nursery.start_soon(expect, trio.ClosedResourceError, link.receive)
        await wait_all_tasks_blocked()
        link.interrupt()
        assert await peer.receive_all(10) == batch


# --- the peer ends it ---


@pytest.mark.parametrize("how", ["drop", "reset"])
async def test_a_lost_connection_is_1006(how: str, wiring: Wiring, kind: Kind) -> None:
    async with linked_over(wiring, kind) as (link, peer):
        await peer.send("last")
        assert await link.receive() == ["last"]
        getattr(peer, how)()
        error = await expect(ConnectionClosed, link.receive)
        assert isinstance(error, ConnectionClosed)
        assert error.code == 1006
        await expect(ConnectionClosed, link.receive)
        await expect(ConnectionClosed, lambda: link.send(["x"]))
        assert link.ending == Ending(1006, "", clean=False)
        assert link.items_sent == 0


async def test_a_lost_connection_wakes_who_waits(wiring: Wiring, kind: Kind) -> None:
    async with linked_over(wiring, kind, small=True) as (link, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect, ConnectionClosed, link.receive)
            nursery.start_soon(expect, ConnectionClosed, lambda: link.send([noise(8_000_000)]))
            await wait_all_tasks_blocked()
            peer.reset()
        assert link.items_sent == 0


async def test_a_peers_close_is_told_and_answered(wiring: Wiring, kind: Kind) -> None:
    async with linked_over(wiring, kind) as (link, peer):
        await peer.send_raw(encode_frame(Opcode.TEXT, b"last") + encode_frame(Opcode.CLOSE, b"\x0f\xa0bye"))
        assert await link.receive() == ["last"]
        error = await expect(ConnectionClosed, link.receive)
        assert isinstance(error, ConnectionClosed)
        assert (error.code, error.reason) == (4000, "bye")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(closing, link)
            assert await peer.receive_frame() == Frame(Opcode.CLOSE, b"\x0f\xa0bye")
            peer.drop()
        assert link.ending == Ending(4000, "bye", clean=True)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (encode_frame(3, b""), 1002),
        (encode_frame(Opcode.TEXT, b"x", rsv=2), 1002),
        (encode_frame(Opcode.TEXT, b"\xff"), 1007),
        (encode_frame(Opcode.TEXT, b"\xff" * 50_000), 1007),
        (encode_frame(Opcode.TEXT, b"\xff", fin=False), 1007),
        (encode_frame(Opcode.BINARY, bytes(70_001)), 1009),
    ],
    ids=["opcode", "reserved bit", "UTF-8", "much UTF-8", "UTF-8 in a fragment", "size"],
)
async def test_a_breach_is_told_to_both(data: bytes, code: int, wiring: Wiring, kind: Kind) -> None:
    async with linked_over(wiring, kind, max_message_bytes=70_000) as (link, peer):
        await peer.send_raw(encode_frame(Opcode.TEXT, b"good") + data)
        assert await link.receive() == ["good"]
        error = await expect(ConnectionClosed, link.receive)
        assert isinstance(error, ConnectionClosed)
        assert error.code == code
        async with trio.open_nursery() as nursery:
            nursery.start_soon(closing, link)
            frame = await peer.receive_frame()
            assert (frame.opcode, int.from_bytes(frame.payload[:2])) == (Opcode.CLOSE, code)
            peer.drop()
        assert (link.ending.code, link.ending.clean, link.ending.is_breach) == (code, False, True)


# --- we end it ---


async def test_our_close_is_said_and_the_peers_heard_and_who_receives_is_told(wiring: Wiring, kind: Kind) -> None:
    async with linked_over(wiring, kind) as (link, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect, trio.ClosedResourceError, link.receive)
            await wait_all_tasks_blocked()
            nursery.start_soon(closing, link, 4321, "bye")
            with pytest.raises(PeerClosed) as caught:
                await peer.receive()
        assert (caught.value.code, caught.value.reason) == (4321, "bye")
        assert link.ending == Ending(4321, "", clean=True)
        await expect(trio.ClosedResourceError, link.receive)
        await expect(trio.ClosedResourceError, lambda: link.send(["x"]))
        await closing(link)
        assert link.ending == Ending(4321, "", clean=True)


async def test_who_receives_is_told_of_our_close_also_in_the_midst_of_a_message(wiring: Wiring, kind: Kind) -> None:
    async with linked_over(wiring, kind) as (link, peer):
        await peer.send_raw(encode_frame(Opcode.BINARY, bytes(100_000))[:50_000])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect, trio.ClosedResourceError, link.receive)
            await wait_all_tasks_blocked()
            nursery.start_soon(closing, link)
            assert (await peer.receive_frame()).opcode == Opcode.CLOSE
            await peer.send_raw(bytes(50_004 + 6) + encode_frame(Opcode.CLOSE, b"\x03\xe8"))
            peer.drop()
        assert link.ending == Ending(1000, "", clean=True)


async def test_a_close_is_heard_also_by_a_peer_that_is_stuck_in_a_write(wiring: Wiring, kind: Kind) -> None:
    async with linked_over(wiring, kind, small=True, max_message_bytes=None) as (link, peer):
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                await peer.send(b"x" * 8_000_000)  # before it reads
                with pytest.raises(PeerClosed):
                    await peer.receive()

            nursery.start_soon(serve)
            await wait_all_tasks_blocked()
            await closing(link)
        assert link.ending == Ending(1000, "", clean=True)


async def test_abort_says_nothing_and_wakes_who_waits(wiring: Wiring, kind: Kind) -> None:
    async with linked_over(wiring, kind, small=True) as (link, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect, trio.ClosedResourceError, link.receive)
            nursery.start_soon(expect, trio.ClosedResourceError, lambda: link.send([noise(8_000_000)]))
            await wait_all_tasks_blocked()
            await link.abort()
        await link.abort()
        assert link.ending == Ending(1006, "", clean=False)
        await expect(trio.ClosedResourceError, link.receive)
        await expect(trio.ClosedResourceError, lambda: link.send(["x"]))
