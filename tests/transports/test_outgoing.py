"""The sending side: two writers, whole frames, and nothing after a close or a torn frame."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim._lane import PONG, encode_frame
from trio_wsprim._seam import Ping
from trio_wsprim._wire import open_wire
from trio_wsprim.testing import Frame, MemoryStream, Opcode, Peer, memory_stream_pair
from trio_wsprim.transports._outgoing import OutgoingSide

MASK = b"\x01\x02\x03\x04"


def pong(payload: bytes) -> bytes:
    return encode_frame(PONG, payload, MASK)


def pair(buffer_size: int = 2**20) -> tuple[OutgoingSide, Peer, MemoryStream]:
    ours, theirs = memory_stream_pair(buffer_size)
    return OutgoingSide(open_wire(ours)), Peer(theirs), ours


@asynccontextmanager
async def running(outgoing: OutgoingSide) -> AsyncGenerator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outgoing.run)
        yield
        nursery.cancel_scope.cancel()


async def fail_to_send(outgoing: OutgoingSide) -> None:
    with pytest.raises(trio.BrokenResourceError):
        await outgoing.send(["late"])


async def test_a_batch_goes_out_in_order_each_frame_with_a_mask_of_its_own() -> None:
    outgoing, peer, _ = pair()
    await outgoing.send(["text", b"binary", Ping(b"ping")])
    assert [await peer.receive_frame() for _ in range(3)] == [
        Frame(Opcode.TEXT, b"text"),
        Frame(Opcode.BINARY, b"binary"),
        Frame(Opcode.PING, b"ping"),
    ]
    assert outgoing.items_sent == 3

    await outgoing.send([b"\0" * 100] * 50)
    await peer.receive_frame()
    masks = {peer.unparsed[at + 2 : at + 6] for at in range(0, len(peer.unparsed), 106)}
    assert len(masks) == 49


async def test_an_empty_batch_is_nothing() -> None:
    outgoing, _, _ = pair()
    await outgoing.send([])
    assert outgoing.items_sent == 0


async def test_control_frames_go_out_by_themselves_and_are_no_items() -> None:
    outgoing, peer, _ = pair()
    async with running(outgoing):
        outgoing.queue(pong(b"a"))
        assert await peer.receive_frame() == Frame(Opcode.PONG, b"a")
        outgoing.queue(pong(b"b"))
        assert await peer.receive_frame() == Frame(Opcode.PONG, b"b")
    assert outgoing.items_sent == 0


@pytest.mark.parametrize("seed", range(20))
async def test_whoever_writes_first_the_runner_goes_on(seed: int) -> None:
    # The order in which trio runs two tasks that are ready is random, so once is not enough.
    outgoing, peer, _ = pair()
    async with running(outgoing):
        await outgoing.send(["first thing after opening"])
        outgoing.queue(pong(b"still answered"))
        await peer.receive_frame()
        with trio.fail_after(1):
            assert await peer.receive_frame() == Frame(Opcode.PONG, b"still answered")


async def test_of_many_pongs_only_the_newest_is_owed() -> None:
    outgoing, peer, _ = pair()
    for number in range(1000):
        outgoing.queue(pong(b"%d" % number))
    assert len(outgoing._controls) == 1
    await outgoing.flush()
    assert await peer.receive_frame() == Frame(Opcode.PONG, b"999")


async def test_nothing_is_queued_behind_a_close() -> None:
    outgoing, peer, ours = pair()
    outgoing.queue(pong(b"before"))
    outgoing.queue_close(1001, "bye")
    outgoing.queue(pong(b"after"))
    outgoing.queue_close(1000, "")
    await outgoing.flush()
    await fail_to_send(outgoing)
    ours.close()

    assert await peer.receive_frame() == Frame(Opcode.PONG, b"before")
    assert await peer.receive_frame() == Frame(Opcode.CLOSE, b"\x03\xe9bye")
    with pytest.raises(trio.EndOfChannel):
        await peer.receive_frame()


async def test_a_close_without_a_code_is_empty() -> None:
    outgoing, peer, _ = pair()
    outgoing.queue_close(1005, "")
    await outgoing.flush()
    assert await peer.receive_frame() == Frame(Opcode.CLOSE, b"")


async def test_a_batch_that_waits_its_turn_does_not_follow_a_close(autojump_clock: MockClock) -> None:
    outgoing, peer, ours = pair(buffer_size=4)
    async with running(outgoing):
        outgoing.queue(pong(b"fills the buffer"))
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_to_send, outgoing)
            await wait_all_tasks_blocked()
            outgoing.queue_close(1000, "")
            assert (await peer.receive_frame()).opcode == Opcode.PONG
            assert (await peer.receive_frame()).opcode == Opcode.CLOSE
    ours.close()
    with pytest.raises(trio.EndOfChannel):
        await peer.receive_frame()


async def test_after_a_torn_frame_nothing_follows(autojump_clock: MockClock) -> None:
    outgoing, peer, ours = pair(buffer_size=4)
    with trio.move_on_after(1):
        await outgoing.send(["does not fit"])
    assert outgoing.items_sent == 0
    await fail_to_send(outgoing)
    outgoing.queue_close(1000, "")
    with pytest.raises(trio.BrokenResourceError):
        await outgoing.flush()
    ours.close()
    with pytest.raises(trio.EndOfChannel):
        await peer.receive_frame()
    assert len(peer.unparsed) == 4


async def test_what_went_out_before_the_tear_is_counted(autojump_clock: MockClock) -> None:
    outgoing, _, _ = pair(buffer_size=100)
    with trio.move_on_after(1):
        await outgoing.send([bytes(24)] * 10)  # frames of 30 bytes
    assert outgoing.items_sent == 3


async def test_a_cancelled_wait_for_the_turn_tears_nothing(autojump_clock: MockClock) -> None:
    outgoing, peer, _ = pair(buffer_size=4)
    async with running(outgoing):
        outgoing.queue(pong(b"fills the buffer"))
        await wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await outgoing.send(["in vain"])
        assert (await peer.receive_frame()).opcode == Opcode.PONG
        assert not outgoing.torn
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outgoing.send, ["good"])
            assert await peer.receive() == "good"


async def test_the_runner_ends_with_the_network() -> None:
    outgoing, peer, _ = pair()
    peer.drop()
    outgoing.queue(pong(b""))
    with trio.fail_after(1):
        await outgoing.run()
    assert outgoing.torn
