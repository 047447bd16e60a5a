"""What is promised of openings and endings, the peer's faults included, at the seam."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import trio
from trio.testing import wait_all_tasks_blocked

from trio_wsprim._errors import ConnectionClosed, ConnectionFailed, ConnectionRejected
from trio_wsprim._seam import Ending, Transport, Upgrade

from ._codec import Frame, Opcode, encode_frame
from ._memory import memory_stream_pair
from ._network import MemoryNetwork
from ._peer import PeerClosed
from ._promises import (
    MakePair,
    Raises,
    cancel_after,
    closing,
    each_opening,
    each_promise,
    elapsed,
    expect,
    holds,
    named,
    numbered,
    opening,
    promise,
    same,
)

ANSWERS: Final = {
    "none": None,
    "the end": b"",
    "garbage": b"garbage",
    "a rejection": b"HTTP/1.1 401 x\r\nContent-Length: 0\r\n\r\n",
}
NONSENSE: Final = {
    "no frame": b"\xff\xff",
    "half a code": encode_frame(Opcode.CLOSE, b"\x00"),
    "a terabyte": b"\x82\x7f" + (2**40).to_bytes(8),
}
BREACHES: Final = {
    "reserved opcode": (encode_frame(3, b""), 1002),
    "reserved control opcode": (encode_frame(11, b""), 1002),
    "RSV1 in a control frame": (encode_frame(Opcode.PING, b"x", rsv=4), 1002),
    "RSV1 in a fragment that is not the first": (
        encode_frame(Opcode.TEXT, b"x", fin=False) + encode_frame(Opcode.CONTINUATION, b"x", rsv=4),
        1002,
    ),
    "RSV2": (encode_frame(Opcode.TEXT, b"x", rsv=2), 1002),
    "RSV3": (encode_frame(Opcode.TEXT, b"x", rsv=1), 1002),
    "RSV2 with a length to come": (b"\xa1\x7e", 1002),
    "masked": (encode_frame(Opcode.TEXT, b"x", masked=True), 1002),
    "fragmented ping": (encode_frame(Opcode.PING, b"", fin=False), 1002),
    "ping of 126": (encode_frame(Opcode.PING, bytes(126)), 1002),
    "length too long": (b"\x82\x7e\x00\x01x", 1002),
    "continuation of nothing": (encode_frame(Opcode.CONTINUATION, b""), 1002),
    "data within fragments": (encode_frame(Opcode.TEXT, b"", fin=False) + encode_frame(Opcode.TEXT, b"x"), 1002),
    "bad UTF-8": (encode_frame(Opcode.TEXT, b"\xff"), 1007),
    "bad UTF-8 in a fragment": (encode_frame(Opcode.TEXT, b"\xff", fin=False), 1007),
    "UTF-8 cut off": (encode_frame(Opcode.TEXT, b"\xc3", fin=False) + encode_frame(Opcode.CONTINUATION, b""), 1007),
    "surrogates": (encode_frame(Opcode.TEXT, b"\xed\xa0\x80"), 1007),
    "bad UTF-8 in a reason": (encode_frame(Opcode.CLOSE, b"\x03\xe8\xff"), 1007),
    "close of one byte": (encode_frame(Opcode.CLOSE, b"\x03"), 1002),
    "close 1005": (encode_frame(Opcode.CLOSE, b"\x03\xed"), 1002),
    "close 0": (encode_frame(Opcode.CLOSE, b"\x00\x00"), 1002),
    "close 5000": (encode_frame(Opcode.CLOSE, b"\x13\x88"), 1002),
    "too big": (encode_frame(Opcode.BINARY, bytes(101)), 1009),
    "too big in bytes": (encode_frame(Opcode.TEXT, "é".encode() * 60), 1009),
    "too big in fragments": (
        encode_frame(Opcode.BINARY, bytes(60), fin=False) + encode_frame(Opcode.CONTINUATION, bytes(41)),
        1009,
    ),
    "1 GiB": (b"\x82\x7f" + (2**30).to_bytes(8), 1009),
    "2**63 - 1": (b"\x82\x7f" + (2**63 - 1).to_bytes(8), 1009),
}


@each_opening(ANSWERS)
async def a_failed_opening_closes_the_stream(transport: Transport, answer: bytes | None) -> None:
    network = MemoryNetwork()
    error: BaseException | None = None
    async with trio.open_nursery() as nursery:
        stream = await network.open_stream("example.test", 80)
        peer = await network.accept()
        if answer:
            await peer.send_raw(answer)
        elif answer is not None:
            peer.drop()
        with trio.move_on_after(1):
            try:
                await transport.connect(nursery, stream, Upgrade(host="example.test", resource="/"))
            except ConnectionFailed as raised:
                error = raised
        same(network.live, 0)
    # Without anything more to cancel: the tasks of a failed link end by themselves.
    same(error is None, answer is None)
    same(isinstance(error, ConnectionRejected), bool(answer and answer.startswith(b"HTTP")))


@each_opening(numbered(range(12)))
async def an_opening_cancelled_at_any_point_leaves_nothing(transport: Transport, steps: int) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        stream = await network.open_stream("example.test", 80)
        peer = await network.accept()

        @nursery.start_soon
        async def serve() -> None:
            with suppress(trio.EndOfChannel, trio.BrokenResourceError):
                await peer.accept()

        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_after, steps, scope)
            link = await transport.connect(nursery, stream, Upgrade(host="example.test", resource="/"))
            await link.abort()  # it came to be before
        nursery.cancel_scope.cancel()
    same(network.live, 0)


@opening
async def a_stream_that_is_already_gone_fails_the_opening(transport: Transport) -> None:
    ours, theirs = memory_stream_pair()
    theirs.reset()
    async with trio.open_nursery() as nursery:
        with Raises(ConnectionFailed):
            await transport.connect(nursery, ours, Upgrade(host="example.test", resource="/"))


@each_promise(numbered([1000, 1001, 1003, 1008, 1011, 1012, 1013, 1014, 3000, 4999]))
async def a_peers_close_is_told_and_answered(make_pair: MakePair, code: int) -> None:
    start = trio.current_time()
    async with make_pair() as (link, peer):
        await peer.send_raw(
            encode_frame(Opcode.TEXT, b"last")
            + encode_frame(Opcode.CLOSE, code.to_bytes(2) + "grüß".encode())
            + encode_frame(Opcode.TEXT, b"too late")
        )
        same(await link.receive(), ["last"])
        error = await expect(ConnectionClosed, link.receive)
        same((error.code, error.reason), (code, "grüß"))
        await expect(ConnectionClosed, link.receive)
        await expect(ConnectionClosed, lambda: link.send(["x"]))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(closing, link, 1011)
            frame = await peer.receive_frame()
            same((frame.opcode, frame.payload[:2]), (Opcode.CLOSE, code.to_bytes(2)))
            peer.drop()
        same(link.ending, Ending(code, "grüß", clean=True))
        same(elapsed(start), 0)


@promise
async def a_peers_close_without_a_code_is_1005(make_pair: MakePair) -> None:
    async with make_pair() as (link, peer):
        await peer.send_close(None)
        error = await expect(ConnectionClosed, link.receive)
        same((error.code, error.reason), (1005, ""))
        await closing(link)
        same(await peer.receive_frame(), Frame(Opcode.CLOSE, b""))
        same(link.ending, Ending(1005, "", clean=True))


@each_promise(named("drop", "reset", "half_close"))
async def a_lost_connection_is_1006(make_pair: MakePair, how: str) -> None:
    async with make_pair() as (link, peer):
        await peer.send("last")
        same(await link.receive(), ["last"])
        if how == "half_close":
            await peer.half_close()
        else:
            getattr(peer, how)()
        error = await expect(ConnectionClosed, link.receive)
        same(error.code, 1006)
        if how != "half_close":
            await expect(ConnectionClosed, lambda: link.send(["x"]))
        same(link.ending, Ending(1006, "", clean=False))
        same(link.items_sent, 0)


@promise
async def a_lost_connection_wakes_who_waits(make_pair: MakePair) -> None:
    async with make_pair(buffer_size=10) as (link, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect, ConnectionClosed, link.receive)
            nursery.start_soon(expect, ConnectionClosed, lambda: link.send(["too much for the buffer"]))
            await wait_all_tasks_blocked()
            peer.reset()
        same(link.items_sent, 0)


@promise
async def a_close_that_could_not_be_answered_is_unclean(make_pair: MakePair) -> None:
    async with make_pair(buffer_size=10) as (link, peer):
        with trio.move_on_after(1):
            await link.send(["too much for the buffer"])
        await peer.send_close(1000)
        await expect(ConnectionClosed, link.receive)
        await closing(link)
        same(link.ending, Ending(1000, "", clean=False))


@promise
async def our_close_is_said_and_the_peers_heard(make_pair: MakePair) -> None:
    start = trio.current_time()
    async with make_pair() as (link, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(closing, link, 4321, "bye")
            with Raises(PeerClosed) as caught:
                await peer.receive()
        same((caught.error.code, caught.error.reason), (4321, "bye"))
        same(link.ending, Ending(4321, "", clean=True))
        same(elapsed(start), 0)
        await expect(trio.ClosedResourceError, link.receive)
        await expect(trio.ClosedResourceError, lambda: link.send(["x"]))
        await closing(link)
        same(link.ending, Ending(4321, "", clean=True))


@promise
async def what_comes_before_the_peers_answer_is_discarded(make_pair: MakePair) -> None:
    async with make_pair() as (link, peer):
        await peer.send("unread")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(closing, link)
            same((await peer.receive_frame()).opcode, Opcode.CLOSE)
            await peer.send_fragments(["on", "its", "way"])
            await peer.ping(b"late")
            await peer.send_close(1000, "ok")
            await peer.half_close()
        same(link.ending, Ending(1000, "ok", clean=True))
        await link.abort()
        with Raises(trio.EndOfChannel):
            await peer.receive_frame()  # nor is the late ping answered: a close frame is the last


@promise
async def closes_that_cross_are_both_heard(make_pair: MakePair) -> None:
    start = trio.current_time()
    async with make_pair() as (link, peer):
        await peer.send_close(4000, "me first")
        await closing(link, 4001, "no, me")
        same(link.ending, Ending(4000, "me first", clean=True))
        frame = await peer.receive_frame()
        same(frame.opcode, Opcode.CLOSE)
        holds(elapsed(start) < 1, f"it took {elapsed(start)} s")


@promise
async def a_close_is_heard_also_by_a_peer_that_is_stuck_in_a_write(make_pair: MakePair) -> None:
    start = trio.current_time()
    async with make_pair(buffer_size=100) as (link, peer):
        await link.send([b"fills the other direction" * 3])
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                await peer.send(b"x" * 10_000)  # before it reads
                with Raises(PeerClosed):
                    while True:
                        await peer.receive()

            nursery.start_soon(serve)
            await wait_all_tasks_blocked()
            await closing(link, 1000, "a reason that does not fit into the buffer either" * 2)
        same(link.ending, Ending(1000, "", clean=True))
        holds(elapsed(start) < 1, f"it took {elapsed(start)} s")


@each_promise({"that answers": True, "that does not": False})
async def a_peer_that_keeps_tcp_open_is_not_waited_for_long(make_pair: MakePair, answers: bool) -> None:
    start = trio.current_time()
    async with make_pair() as (link, peer):
        if answers:
            await peer.send_close(1000)
        await closing(link, seconds=5)
        holds(elapsed(start) < 1 if answers else elapsed(start) == 5, f"it took {elapsed(start)} s")
        same(link.ending.clean, answers)
        await link.abort()


@promise
async def a_peer_that_hangs_up_instead_of_answering_is_unclean(make_pair: MakePair) -> None:
    start = trio.current_time()
    async with make_pair() as (link, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(closing, link)
            await peer.receive_frame()
            peer.drop()
        same(link.ending, Ending(1006, "", clean=False))
        same(elapsed(start), 0)


@each_promise(NONSENSE)
async def nonsense_instead_of_an_answer_is_unclean(make_pair: MakePair, nonsense: bytes) -> None:
    start = trio.current_time()
    async with make_pair() as (link, peer):
        await peer.send_raw(nonsense)
        await closing(link)
        same(link.ending.clean, False)
        holds(elapsed(start) < 1, f"it took {elapsed(start)} s")


@promise
async def a_cancelled_close_leaves_a_link_to_abort(make_pair: MakePair) -> None:
    async with make_pair() as (link, _):
        with trio.CancelScope() as scope:
            scope.cancel()
            await link.aclose(1000, "")
        same(link.ending.clean, False)
        await link.abort()


@promise
async def abort_says_nothing_and_wakes_who_waits(make_pair: MakePair) -> None:
    async with make_pair(buffer_size=10) as (link, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect, trio.ClosedResourceError, link.receive)
            nursery.start_soon(expect, trio.ClosedResourceError, lambda: link.send(["too much for the buffer"]))
            await wait_all_tasks_blocked()
            await link.abort()
        await link.abort()
        same(link.ending, Ending(1006, "", clean=False))
        with Raises(trio.EndOfChannel):
            await peer.receive_frame()
        await expect(trio.ClosedResourceError, link.receive)
        await expect(trio.ClosedResourceError, lambda: link.send(["x"]))


@promise
async def a_cancelled_abort_closes(make_pair: MakePair) -> None:
    async with make_pair() as (link, peer):
        with trio.CancelScope() as scope:
            scope.cancel()
            await link.abort()
        with Raises(trio.EndOfChannel):
            await peer.receive_frame()


@each_promise(BREACHES)
async def a_breach_ends_the_link_after_what_was_good_and_the_peer_is_told_why(
    make_pair: MakePair, breach: tuple[bytes, int]
) -> None:
    data, code = breach
    start = trio.current_time()
    async with make_pair(max_message_bytes=100) as (link, peer):
        await peer.send_raw(encode_frame(Opcode.TEXT, b"good") + data)
        same(await link.receive(), ["good"])
        error = await expect(ConnectionClosed, link.receive)
        same(error.code, code)
        holds(error.reason, "the breach has no reason")
        await closing(link)
        frame = await peer.receive_frame()
        same((frame.opcode, int.from_bytes(frame.payload[:2])), (Opcode.CLOSE, code))
        same((link.ending.code, link.ending.clean), (code, False))
        holds(elapsed(start) < 1, f"it took {elapsed(start)} s")


@promise
async def a_peer_at_fault_that_does_not_read_is_given_up_in_time(make_pair: MakePair) -> None:
    start = trio.current_time()
    async with make_pair(buffer_size=10) as (link, peer):
        await link.send([b""])
        await peer.send_raw(b"\xff\xff")
        await expect(ConnectionClosed, link.receive)
        await closing(link, seconds=2)
        same(elapsed(start), 2)


@promise
async def a_frame_of_any_size_is_refused_by_its_header_alone(make_pair: MakePair) -> None:
    async with make_pair(max_message_bytes=None) as (link, peer):
        await peer.send_raw(b"\x82\x7f" + (2**40).to_bytes(8))
        with trio.move_on_after(1) as scope:
            await link.receive()
        holds(
            scope.cancelled_caught, "a message was refused where there is no limit"
        )  # without a limit, it is waited for
