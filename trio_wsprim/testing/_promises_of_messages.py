"""What is promised of messages, pings, batches and cancellation, at the seam."""

from __future__ import annotations

from typing import Final

import trio
from trio.testing import wait_all_tasks_blocked

from trio_wsprim._errors import ConnectionClosed
from trio_wsprim._seam import Ending, Incoming, Ping, Pong

from ._codec import Frame, Opcode, encode_frame
from ._promises import (
    MakePair,
    Raises,
    closing,
    each_promise,
    expect,
    holds,
    named,
    numbered,
    promise,
    read_to_end,
    receive_all,
    same,
)

FLOODS: Final = {
    "pings": encode_frame(Opcode.PING, b""),
    "pongs": encode_frame(Opcode.PONG, b""),
    "fragments": encode_frame(Opcode.TEXT, b"", fin=False) + encode_frame(Opcode.CONTINUATION, b""),
}


@each_promise(numbered([0, 1, 2]))
async def a_batch_of_any_size_is_taken(make_pair: MakePair, count: int) -> None:
    async with make_pair() as (link, peer):
        await link.send(["again"] * count)
        same(link.items_sent, count)
        same(await peer.receive_all(count), ["again"] * count)


@promise
async def batches_keep_their_order_both_ways(make_pair: MakePair) -> None:
    async with make_pair() as (link, peer):
        sent: list[str | bytes] = ["a", b"b", "", b"", "é" * 100, b"\xff" * 70_000]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.send, sent)
            same(await peer.receive_all(6), sent)
        same(link.items_sent, 6)
        async with trio.open_nursery() as nursery:
            for message in sent:
                await peer.send(message) if len(message) < 1000 else nursery.start_soon(peer.send, message)
            same(await receive_all(link, 6), sent)


@promise
async def what_came_together_is_received_together(make_pair: MakePair) -> None:
    async with make_pair() as (link, peer):
        await peer.send_raw(b"".join(encode_frame(Opcode.TEXT, b"%d" % number) for number in range(100)))
        same(list(await link.receive()), [str(number) for number in range(100)])


@promise
async def fragments_are_one_message_also_around_control_frames(make_pair: MakePair) -> None:
    async with make_pair() as (link, peer):
        await peer.send_raw(
            encode_frame(Opcode.TEXT, b"\xe2\x82", fin=False)
            + encode_frame(Opcode.PING, b"between")
            + encode_frame(Opcode.PONG, b"also")
            + encode_frame(Opcode.CONTINUATION, b"", fin=False)
            + encode_frame(Opcode.CONTINUATION, b"\xac")
            + encode_frame(Opcode.BINARY, b"a", fin=False)
            + encode_frame(Opcode.CONTINUATION, b"b")
            + encode_frame(Opcode.TEXT, b"after")
        )
        same(await receive_all(link, 4), [Pong(b"also"), "€", b"ab", "after"])
        same(await peer.receive_frame(), Frame(Opcode.PONG, b"between"))


@promise
async def bytes_one_by_one_are_the_same_messages(make_pair: MakePair) -> None:
    data = (
        encode_frame(Opcode.TEXT, b"a" * 130)
        + encode_frame(Opcode.PING, b"p")
        + encode_frame(Opcode.BINARY, b"x", fin=False)
        + encode_frame(Opcode.CONTINUATION, b"y")
        + encode_frame(Opcode.CLOSE, b"\x03\xe8")
    )
    async with make_pair() as (link, peer), trio.open_nursery() as nursery:

        async def trickle() -> None:
            for byte in data:
                await peer.send_raw(bytes([byte]))
                await trio.sleep(0.01)

        nursery.start_soon(trickle)
        same(await receive_all(link, 2), ["a" * 130, b"xy"])
        error = await expect(ConnectionClosed, link.receive)
        same(error.code, 1000)


@promise
async def what_is_taken_without_waiting_goes_out_with_the_next_send(make_pair: MakePair) -> None:
    async with make_pair() as (link, peer):
        is_through = [link.send_nowait(["a", b"b"]), link.send_nowait([Ping(b"p"), "c"])]
        holds(link.is_direct or not any(is_through), "a link that is not direct has sent without waiting")
        holds(link.is_direct or link.items_sent == 0, f"{link.items_sent} items were sent without waiting")
        await link.send(())
        same(link.items_sent, 4)
        same(await peer.receive_all(3), ["a", b"b", "c"])
        same(peer.pings, [b"p"])


@promise
async def what_is_taken_without_waiting_keeps_its_place(make_pair: MakePair) -> None:
    async with make_pair() as (link, peer):
        link.send_nowait(["first"])
        await link.send(["second"])
        same(await peer.receive_all(2), ["first", "second"])
        same(link.items_sent, 2)


@promise
async def what_is_taken_without_waiting_is_cut_as_any_other(make_pair: MakePair) -> None:
    async with make_pair(buffer_size=10) as (link, peer):
        link.send_nowait(["too much for the buffer"])
        with trio.move_on_after(1):
            await link.send(())
        await link.abort()
        await read_to_end(peer)
        same(link.items_sent, 0)


@promise
async def what_is_taken_without_waiting_fails_with_the_network(make_pair: MakePair) -> None:
    async with make_pair() as (link, peer):
        peer.reset()
        same(link.send_nowait(["lost"]), False)
        error = await expect(ConnectionClosed, lambda: link.send(()))
        same(error.code, 1006)
        same(link.items_sent, 0)


@promise
async def nothing_is_taken_after_the_end(make_pair: MakePair) -> None:
    async with make_pair() as (link, peer):
        await peer.send_close(4000, "bye")
        await expect(ConnectionClosed, link.receive)
        with Raises(ConnectionClosed) as caught:
            link.send_nowait(["x"])
        same((caught.error.code, caught.error.reason), (4000, "bye"))
        await link.abort()
        with Raises(trio.ClosedResourceError):
            link.send_nowait(["x"])
        same(link.items_sent, 0)


@promise
async def pings_go_out_and_their_pongs_come_in(make_pair: MakePair) -> None:
    async with make_pair() as (link, peer):
        await link.send(["before", Ping(b"1"), "after", Ping(b"2")])
        same(await peer.receive_all(2), ["before", "after"])
        same(link.items_sent, 4)
        same(await link.receive(), [Pong(b"1")])
        await peer.receive_frame()
        await peer.pong(b"2")
        await peer.pong(b"nobody asked")
        same(await receive_all(link, 2), [Pong(b"2"), Pong(b"nobody asked")])


@promise
async def pings_are_answered_while_somebody_receives(make_pair: MakePair) -> None:
    async with make_pair() as (link, peer), trio.open_nursery() as nursery:
        nursery.start_soon(link.receive)
        for payload in (b"", b"x" * 125):
            await peer.ping(payload)
            same(await peer.receive_frame(), Frame(Opcode.PONG, payload))
        await peer.send("done")


@promise
async def no_limit_on_messages_is_one_on_pings(make_pair: MakePair) -> None:
    async with make_pair(max_message_bytes=100) as (link, peer):
        await peer.ping(b"p" * 125)
        await peer.send_frame(Opcode.BINARY, b"x" * 60, fin=False)
        await peer.ping(b"q" * 50)
        await peer.send_frame(Opcode.CONTINUATION, b"y" * 40)
        same(await link.receive(), [b"x" * 60 + b"y" * 40])
        frames = [await peer.receive_frame()]
        if frames[0].payload != b"q" * 50:  # the newest may be all that is owed
            frames.append(await peer.receive_frame())
        same(frames[-1], Frame(Opcode.PONG, b"q" * 50))


@promise
async def a_reader_never_waits_for_a_peer_that_does_not_read(make_pair: MakePair) -> None:
    async with make_pair(buffer_size=300) as (link, peer), trio.open_nursery() as nursery:
        nursery.start_soon(link.receive)
        for number in range(1000):
            await peer.ping(b"%04d" % number * 25)
        await peer.send("still heard")
        with trio.fail_after(10):
            await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    frames: list[Frame] = []
    with Raises(trio.EndOfChannel):
        while True:
            frames.append(await peer.receive_frame())
    holds(0 < len(frames) < 10, f"{len(frames)} pongs were sent to who read none, where some bytes had room")


@each_promise(FLOODS)
async def no_flood_keeps_other_tasks_from_their_turns(make_pair: MakePair, frame: bytes) -> None:
    count = 20_000 // len(frame)
    async with make_pair() as (link, peer), trio.open_nursery() as nursery:
        turns = 0

        @nursery.start_soon
        async def take_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        await peer.send_raw(frame * count + encode_frame(Opcode.TEXT, b"end"))
        before = turns
        while "end" not in await link.receive():
            pass
        holds(turns - before >= count // 500, f"{turns - before} turns for others while {count} frames were read")
        nursery.cancel_scope.cancel()


@promise
async def a_second_sender_or_receiver_is_refused(make_pair: MakePair) -> None:
    async with make_pair(buffer_size=10) as (link, _), trio.open_nursery() as nursery:
        nursery.start_soon(link.receive)
        nursery.start_soon(link.send, ["too much for the buffer"])
        await wait_all_tasks_blocked()
        await expect(trio.BusyResourceError, link.receive)
        await expect(trio.BusyResourceError, lambda: link.send(["x"]))
        with Raises(trio.BusyResourceError):
            link.send_nowait(["x"])
        nursery.cancel_scope.cancel()


@promise
async def a_cancelled_receive_loses_nothing(make_pair: MakePair) -> None:
    data = (
        encode_frame(Opcode.TEXT, b"one")
        + encode_frame(Opcode.TEXT, b"t", fin=False)
        + encode_frame(Opcode.PING, b"?")
        + encode_frame(Opcode.CONTINUATION, b"wo")
        + encode_frame(Opcode.PONG, b"!")
        + encode_frame(Opcode.TEXT, b"three")
    )
    # Cancelled before it starts, and after each byte.
    async with make_pair() as (link, peer):
        found: list[Incoming] = []
        for byte in data:
            with trio.CancelScope() as scope:
                scope.cancel()
                found += await link.receive()
            await peer.send_raw(bytes([byte]))
            with trio.move_on_after(0.01):
                found += await link.receive()
        same(found, ["one", "two", Pong(b"!"), "three"])
        same(await peer.receive_frame(), Frame(Opcode.PONG, b"?"))


@promise
async def a_message_that_comes_in_the_moment_of_a_cancellation_is_not_lost(make_pair: MakePair) -> None:
    async with make_pair() as (link, peer):
        found: list[Incoming] = []

        async def receive_in(scope: trio.CancelScope) -> None:
            with scope:
                found.extend(await link.receive())

        for _ in range(3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive_in, scope := trio.CancelScope())
                await wait_all_tasks_blocked()
                await peer.send("x")
                scope.cancel()
        with trio.move_on_after(1):
            while len(found) < 3:
                found += await link.receive()
        same(found, ["x"] * 3)


@each_promise(numbered(range(12)))
async def a_receive_cancelled_at_any_point_goes_on_from_there(make_pair: MakePair, steps: int) -> None:
    async with make_pair() as (link, peer):
        await peer.send_raw(
            encode_frame(Opcode.PING, b"?")
            + encode_frame(Opcode.TEXT, b"t", fin=False)
            + encode_frame(Opcode.CONTINUATION, b"wo")
            + encode_frame(Opcode.CLOSE, b"\x0f\xa0bye")
        )
        found: list[Incoming] = []
        ended: ConnectionClosed | None = None
        while ended is None:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def cancel_soon(scope: trio.CancelScope = scope) -> None:
                        for _ in range(steps):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()

                    nursery.start_soon(cancel_soon)
                    try:
                        found += await link.receive()
                    except ConnectionClosed as error:
                        ended = error
                    nursery.cancel_scope.cancel()
        same(found, ["two"])
        same((ended.code, ended.reason), (4000, "bye"))
        await closing(link)
        same(link.ending, Ending(4000, "bye", clean=True))


@each_promise(numbered([1, 5, 29, 30, 31, 64, 100]))
async def a_cut_write_is_counted_exactly(make_pair: MakePair, buffer_size: int) -> None:
    async with make_pair(buffer_size=buffer_size) as (link, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.receive_all, 2)
            with trio.move_on_after(1):
                await link.send([b"%024d" % number for number in range(20)])  # frames of 30 bytes
            nursery.cancel_scope.cancel()
        await link.abort()
        with Raises(trio.EndOfChannel):
            while True:
                await peer.receive_frame()
        same(link.items_sent, len(peer.frames))
        same([each.payload for each in peer.frames], [b"%024d" % number for number in range(len(peer.frames))])


@promise
async def a_cancelled_send_leaves_a_link_that_says_no_more(make_pair: MakePair) -> None:
    async with make_pair(buffer_size=10) as (link, peer):
        with trio.move_on_after(1):
            await link.send(["too much for the buffer"])
        await expect(ConnectionClosed, lambda: link.send(["more"]))
        await closing(link)
        await link.abort()
        with Raises(trio.EndOfChannel):
            await peer.receive_frame()
        holds(peer.unparsed, "nothing was torn: the message was not to fit")


@each_promise(named("send", "receive"))
async def a_call_in_a_cancelled_scope_does_nothing(make_pair: MakePair, call: str) -> None:
    async with make_pair() as (link, peer):
        await peer.send("there")
        with trio.CancelScope() as scope:
            scope.cancel()
            await (link.send(["x"]) if call == "send" else link.receive())
        holds(scope.cancelled_caught, f"{call} is no cancellation point")
        same(link.items_sent, 0)
        if call == "receive":
            same(await link.receive(), ["there"])


@promise
async def times_are_those_of_bytes(make_pair: MakePair) -> None:
    async with make_pair() as (link, peer):
        start = trio.current_time()
        await trio.sleep(1)
        await link.send(["x"])
        await trio.sleep(1)
        await peer.send_raw(encode_frame(Opcode.TEXT, b"abc")[:3])
        with trio.move_on_after(1):
            await link.receive()
        same((round(link.moved_at - start, 6), round(link.heard_at - start, 6)), (1, 2))
