"""What a server sends has no masks, and what it sends to many is made once."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.wires import ScriptedWire, read_frames
from trio_wsprim._frames import PONG, SharedBytes, SharedText, encode_frame, share
from trio_wsprim._seam import Outgoing, Ping
from trio_wsprim._values import Message
from trio_wsprim._wire import open_wire
from trio_wsprim.testing import Frame, Opcode, memory_stream_pair
from trio_wsprim.testing import encode_frame as any_frame
from trio_wsprim.transports._outgoing import OutgoingSide

SIZES = [0, 1, 125, 126, 127, 8 * 1024, 8 * 1024 + 1, 2**16 - 1, 2**16, 2**16 + 1, 128 * 1024 + 1, 1_000_000]
KIB = 1024


def bare(item: Outgoing) -> bytes:
    """The frame of an item, by the testing kit."""
    if isinstance(item, Ping):
        return any_frame(Opcode.PING, item.payload)
    return any_frame(Opcode.TEXT, item.encode()) if isinstance(item, str) else any_frame(Opcode.BINARY, item)


@asynccontextmanager
async def over(wire: ScriptedWire) -> AsyncGenerator[tuple[OutgoingSide, trio.Nursery]]:
    async with trio.open_nursery() as nursery:
        yield OutgoingSide(wire, nursery, masks=False), nursery
        nursery.cancel_scope.cancel()


async def send(outgoing: OutgoingSide, batch: Sequence[Outgoing]) -> None:
    if not outgoing.send_now(batch):
        await outgoing.flush()


async def written(*batches: Sequence[Outgoing]) -> bytes:
    """All that leaves when those are sent, one after the other, over a network that takes everything."""
    wire = ScriptedWire()
    wire.allow(2**40)
    async with over(wire) as (outgoing, nursery):
        for batch in batches:
            await send(outgoing, batch)
        assert outgoing.items_sent == sum(map(len, batches))
        assert not nursery.child_tasks
    return bytes(wire.taken)


# --- frames ---


@pytest.mark.parametrize("size", SIZES)
async def test_messages_of_all_sizes_are_bare_frames_alone_and_in_company(size: int) -> None:
    batch: list[Outgoing] = ["é" * (size // 2) + "x" * (size % 2), b"\xff" * size]
    for item in batch:
        assert await written([item]) == bare(item)
    assert await written(batch, batch) == b"".join(map(bare, batch * 2))


async def test_pings_go_bare_in_their_places() -> None:
    batch: list[Outgoing] = ["a", Ping(b"p" * 125), b"b", Ping(b"")]
    assert await written(batch, [Ping(b"alone")]) == b"".join(map(bare, [*batch, Ping(b"alone")]))


async def test_a_batch_of_very_many_is_sent_whole() -> None:
    batch = [str(number) for number in range(20_000)]
    assert await written(batch) == b"".join(map(bare, batch))


async def test_a_batch_leaves_in_few_writes_of_some_64_kib() -> None:
    wire = ScriptedWire()
    wire.allow(2**40)
    async with over(wire) as (outgoing, _):
        await send(outgoing, [bytes(1000)] * 1000)
    assert 12 <= wire.writes <= 18


async def test_closes_are_bare() -> None:
    for code, reason, payload in ((1000, "", b"\x03\xe8"), (4000, "bye", b"\x0f\xa0bye"), (1005, "", b"")):
        wire = ScriptedWire()
        wire.allow(1000)
        async with over(wire) as (outgoing, _):
            outgoing.queue_close(code, reason)
        assert wire.taken == any_frame(Opcode.CLOSE, payload)


async def test_over_a_stream_frames_are_written_one_by_one() -> None:
    near, far = memory_stream_pair(2**22)
    batch: list[Outgoing] = ["a", b"b" * 70_000, Ping(b"c"), share("d")]
    async with trio.open_nursery() as nursery:
        outgoing = OutgoingSide(open_wire(near), nursery, masks=False)
        await send(outgoing, batch)
        await send(outgoing, ["alone"])
        assert outgoing.items_sent == 5
    assert await far.receive_some() == b"".join(map(bare, [*batch, "alone"]))


# --- shared frames ---


@pytest.mark.parametrize("size", SIZES)
def test_what_is_shared_is_the_message_that_it_was_and_a_bare_frame(size: int) -> None:
    for message in ("é" * (size // 2) + "x" * (size % 2), b"\xff" * size):
        shared = share(message)
        assert shared == message
        assert isinstance(shared, SharedText if isinstance(message, str) else SharedBytes)
        assert hash(shared) == hash(message)
        assert shared.frame == bare(message)


@pytest.mark.parametrize("size", SIZES)
async def test_shared_messages_go_out_like_any_other(size: int) -> None:
    batch: list[Outgoing] = [share("x" * size), "between", share(b"y" * size), Ping(b"")]
    assert await written(batch, batch[:1], batch[2:3]) == b"".join(map(bare, [*batch, batch[0], batch[2]]))


async def test_a_shared_frame_is_not_made_again_nor_copied_for_each() -> None:
    shared = share(b"x" * 1_000_000)
    seen: list[int] = []

    for _ in range(3):
        wire = ScriptedWire()
        async with over(wire) as (outgoing, _nursery):
            assert not outgoing.send_now([shared])
            seen.append(id(outgoing._piece))
    assert set(seen) == {id(shared.frame)}


async def test_a_client_that_is_sent_what_is_shared_masks_it_all_the_same() -> None:
    wire = ScriptedWire()
    wire.allow(2**40)
    batch: list[Outgoing] = [share("text"), share(b"bytes" * 40_000)]
    async with trio.open_nursery() as nursery:
        await send(OutgoingSide(wire, nursery), [batch[0]])
        await send(OutgoingSide(wire, nursery), batch)
    frames, rest = await read_frames(wire.taken)
    assert rest == b""
    assert all(frame.masked for frame in frames)
    assert [frame.payload for frame in frames] == [b"text", b"text", b"bytes" * 40_000]


async def test_what_makes_frames_instead_of_ours_makes_those_of_what_is_shared_too() -> None:
    seen: list[Message] = []

    def encode(message: Message) -> bytes:
        seen.append(message)
        return any_frame(Opcode.BINARY, b"encoded", rsv=4)

    wire = ScriptedWire()
    wire.allow(1000)
    batch: list[Outgoing] = [share("text"), share(b"bytes"), "other", Ping(b"p")]
    async with over(wire) as (outgoing, _):
        outgoing.encode = encode
        await send(outgoing, batch[:1])
        await send(outgoing, batch[1:])
    encoded = any_frame(Opcode.BINARY, b"encoded", rsv=4)
    assert seen == batch[:3]
    assert wire.taken == encoded * 3 + any_frame(Opcode.PING, b"p")


# --- what the network takes, and when ---


@pytest.mark.parametrize("size", [10, 70_000, 300 * KIB])
async def test_a_frame_is_counted_when_its_last_byte_is_through(size: int) -> None:
    wire = ScriptedWire()
    frame = bare(b"x" * size)
    async with over(wire) as (outgoing, nursery):
        nursery.start_soon(send, outgoing, [b"x" * size] * 3)
        await wait_all_tasks_blocked()
        for through in range(3):
            wire.allow(len(frame) - 1)
            await wait_all_tasks_blocked()
            assert outgoing.items_sent == through
            wire.allow(1)
            await wait_all_tasks_blocked()
            assert outgoing.items_sent == through + 1
    assert wire.taken == frame * 3


@pytest.mark.parametrize("size", [10, 9_000, 300 * KIB])
async def test_a_pong_waits_for_the_end_of_a_frame_and_no_longer(size: int) -> None:
    wire = ScriptedWire()
    frame, pong = bare(b"x" * size), encode_frame(PONG, b"?", None)
    async with over(wire) as (outgoing, nursery):
        nursery.start_soon(send, outgoing, [share(b"x" * size)])
        await wait_all_tasks_blocked()
        wire.allow(5)
        await wait_all_tasks_blocked()
        outgoing.queue(encode_frame(PONG, b"old", None))
        outgoing.queue(pong)  # takes the place of the one before
        wire.allow(len(frame) - 5)
        await wait_all_tasks_blocked()
        assert wire.taken == frame
        wire.allow(len(pong))
        await wait_all_tasks_blocked()
    assert wire.taken == frame + pong


@pytest.mark.parametrize("size", [10, 9_000, 300 * KIB])
async def test_nothing_follows_a_frame_that_was_cut_short(size: int) -> None:
    wire = ScriptedWire()
    wire.allow(5)
    async with over(wire) as (outgoing, _):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as users:
                users.start_soon(send, outgoing, [share("x" * size)])
                await wait_all_tasks_blocked()
                scope.cancel()
        assert outgoing.torn
        wire.allow(2**30)
        outgoing.queue_close(1000, "")
        with pytest.raises(trio.BrokenResourceError):
            await send(outgoing, ["late"])
        assert outgoing.items_sent == 0
    assert wire.taken == bare("x" * size)[:5]


async def test_a_lone_message_that_the_network_breaks_over_is_told_of_by_the_next_flush() -> None:
    wire = ScriptedWire()
    wire.break_off()
    async with over(wire) as (outgoing, _):
        assert not outgoing.send_now([share("x")])
        with pytest.raises(trio.BrokenResourceError):
            await outgoing.flush()
        assert outgoing.items_sent == 0


async def test_a_peer_reads_what_a_server_writes_as_bare_frames() -> None:
    data = await written(["text", share(b"bytes")])
    frames, rest = await read_frames(data)
    assert rest == b""
    assert frames == [
        Frame(Opcode.TEXT, b"text", masked=False),
        Frame(Opcode.BINARY, b"bytes", masked=False),
    ]
