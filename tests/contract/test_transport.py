"""What every transport promises at the seam, whatever speaks WebSocket inside it."""

from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim import ConnectionClosed, ConnectionFailed, ConnectionRejected
from trio_wsprim.abc import Ending, Incoming, Ping, Pong, Upgrade
from trio_wsprim.testing import Frame, MemoryNetwork, Opcode, PeerClosed, encode_frame, memory_stream_pair, peer_over
from trio_wsprim.transports import WebsocketsTransport

from .links import (
    KINDS,
    Kind,
    accept,
    cancel_after,
    closing,
    expect,
    fails_to_open,
    linked,
    read_to_end,
    receive_all,
)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    given: Kind = request.param
    return given


# --- opening ---


async def test_a_link_tells_what_was_agreed(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind, subprotocols=("one", "two")) as (link, peer):
        assert link.subprotocol == "one"
        assert ("x-served-by", "Test") in link.response_headers
        assert peer.request is not None
        assert (peer.request.path, peer.request.header("host")) == ("/chat?a=b", "example.test")
        assert peer.request.header("x-one") == "1"
        assert link.items_sent == 0
        assert link.ending == Ending(1006, "", clean=False)
        assert link.heard_at == link.moved_at == 0
    async with linked(kind) as (link, _):
        assert link.subprotocol is None


async def test_what_comes_glued_to_the_101_is_not_lost(kind: Kind, autojump_clock: MockClock) -> None:
    behind = encode_frame(Opcode.TEXT, b"early") + encode_frame(Opcode.BINARY, b"bird")[:3]
    async with linked(kind, behind=behind) as (link, peer):
        assert await link.receive() == ["early"]
        await peer.send_raw(encode_frame(Opcode.BINARY, b"bird")[3:])
        assert await link.receive() == [b"bird"]


@pytest.mark.parametrize("answer", [None, b"", b"garbage", b"HTTP/1.1 401 x\r\nContent-Length: 0\r\n\r\n"])
async def test_a_failed_opening_closes_the_stream(answer: bytes | None, kind: Kind, autojump_clock: MockClock) -> None:
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
                await kind.transport.connect(nursery, stream, Upgrade(host="example.test", resource="/"))
            except ConnectionFailed as raised:
                error = raised
        assert network.live == 0
    # Without anything more to cancel: the tasks of a failed link end by themselves.
    assert (error is None) == (answer is None)
    assert isinstance(error, ConnectionRejected) == bool(answer and answer.startswith(b"HTTP"))


async def test_every_kind_asks_alike(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind, subprotocols=("one", "two")) as (_, peer):
        request = peer.request
    assert request is not None
    # Which one has chosen by chance, and which only some send.
    headers = [(name, value) for name, value in request.headers if name != "sec-websocket-key"]
    if kind.transport == WebsocketsTransport(compression="deflate"):
        headers.remove(("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"))
    assert (request.method, request.path, headers[0]) == ("GET", "/chat?a=b", ("host", "example.test"))
    assert sorted(headers[1:]) == [
        ("connection", "Upgrade"),
        ("sec-websocket-protocol", "one, two"),
        ("sec-websocket-version", "13"),
        ("upgrade", "websocket"),
        ("x-one", "1"),
    ]


CURIOUS_HEADS: dict[str, list[bytes]] = {
    "no reason phrase": [b"HTTP/1.1 101"],
    "a line of 9000 bytes": [b"HTTP/1.1 101 x", b"X-Policy: " + b"a" * 9000],
    "200 headers": [b"HTTP/1.1 101 x", *(b"X-%d: a" % number for number in range(200))],
    "a folded line": [b"HTTP/1.1 101 x", b"X-Folded: a", b"  b"],
    "an upgrade named twice": [b"HTTP/1.1 101 x", b"Upgrade: websocket"],
}


@pytest.mark.parametrize("newline", [b"\r\n", b"\n"], ids=["CRLF", "LF"])
@pytest.mark.parametrize("lines", [[b"HTTP/1.1 101 x"], *CURIOUS_HEADS.values()], ids=["plain", *CURIOUS_HEADS])
@pytest.mark.parametrize("kind", KINDS[:2], ids=lambda kind: kind.name)
async def test_a_head_may_be_curious_and_still_be_understood(
    kind: Kind, lines: list[bytes], newline: bytes, autojump_clock: MockClock
) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        stream = await network.open_stream("example.test", 80)
        peer = await network.accept()

        @nursery.start_soon
        async def serve() -> None:
            near, far = memory_stream_pair()
            scribe = peer_over(near)
            scribe.request = await peer.read_request()
            await scribe.accept()
            _, *rest = (await far.receive_some()).removesuffix(b"\r\n\r\n").split(b"\r\n")
            await peer.send_raw(newline.join([*lines, *rest, b"", b""]))

        link = await kind.transport.connect(nursery, stream, Upgrade(host="example.test", resource="/"))
        await link.abort()


@pytest.mark.parametrize("steps", range(12))
async def test_an_opening_cancelled_at_any_point_leaves_nothing(
    steps: int, kind: Kind, autojump_clock: MockClock
) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        stream = await network.open_stream("example.test", 80)
        peer = await network.accept()

        @nursery.start_soon
        async def serve() -> None:
            with suppress(trio.EndOfChannel, trio.BrokenResourceError):
                await accept(peer, kind)

        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_after, steps, scope)
            link = await kind.transport.connect(nursery, stream, Upgrade(host="example.test", resource="/"))
            await link.abort()  # it came to be before
        nursery.cancel_scope.cancel()
    assert network.live == 0


# --- messages ---


@pytest.mark.parametrize("count", [0, 1, 2])
async def test_a_batch_of_any_size_is_taken(count: int, kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind) as (link, peer):
        await link.send(["again"] * count)
        assert link.items_sent == count
        assert await peer.receive_all(count) == ["again"] * count


async def test_batches_keep_their_order_both_ways(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind) as (link, peer):
        sent: list[str | bytes] = ["a", b"b", "", b"", "é" * 100, b"\xff" * 70_000]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.send, sent)
            assert await peer.receive_all(6) == sent
        assert link.items_sent == 6
        async with trio.open_nursery() as nursery:
            for message in sent:
                await peer.send(message) if len(message) < 1000 else nursery.start_soon(peer.send, message)
            assert await receive_all(link, 6) == sent


async def test_what_came_together_is_received_together(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind) as (link, peer):
        await peer.send_raw(b"".join(encode_frame(Opcode.TEXT, b"%d" % number) for number in range(100)))
        assert list(await link.receive()) == [str(number) for number in range(100)]


async def test_fragments_are_one_message_also_around_control_frames(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind) as (link, peer):
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
        assert await receive_all(link, 4) == [Pong(b"also"), "€", b"ab", "after"]
        assert await peer.receive_frame() == Frame(Opcode.PONG, b"between")


async def test_bytes_one_by_one_are_the_same_messages(kind: Kind, autojump_clock: MockClock) -> None:
    data = (
        encode_frame(Opcode.TEXT, b"a" * 130)
        + encode_frame(Opcode.PING, b"p")
        + encode_frame(Opcode.BINARY, b"x", fin=False)
        + encode_frame(Opcode.CONTINUATION, b"y")
        + encode_frame(Opcode.CLOSE, b"\x03\xe8")
    )
    async with linked(kind) as (link, peer), trio.open_nursery() as nursery:

        async def trickle() -> None:
            for byte in data:
                await peer.send_raw(bytes([byte]))
                await trio.sleep(0.01)

        nursery.start_soon(trickle)
        assert await receive_all(link, 2) == ["a" * 130, b"xy"]
        error = await expect(ConnectionClosed, link.receive)
        assert isinstance(error, ConnectionClosed)
        assert error.code == 1000


# --- what is sent without waiting ---


async def test_what_is_taken_without_waiting_goes_out_with_the_next_send(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind) as (link, peer):
        assert not link.is_direct  # over memory, nothing goes out but by `send`
        assert link.send_nowait(["a", b"b"]) is False
        assert link.send_nowait([Ping(b"p"), "c"]) is False
        assert link.items_sent == 0
        await link.send(())
        assert link.items_sent == 4
        assert await peer.receive_all(3) == ["a", b"b", "c"]
        assert peer.pings == [b"p"]


async def test_what_is_taken_without_waiting_keeps_its_place(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind) as (link, peer):
        link.send_nowait(["first"])
        await link.send(["second"])
        assert await peer.receive_all(2) == ["first", "second"]
        assert link.items_sent == 2


async def test_what_is_taken_without_waiting_is_cut_as_any_other(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind, buffer_size=10) as (link, peer):
        link.send_nowait(["too much for the buffer"])
        with trio.move_on_after(1):
            await link.send(())
        await link.abort()
        await read_to_end(peer)
        assert link.items_sent == 0


async def test_what_is_taken_without_waiting_fails_with_the_network(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind) as (link, peer):
        peer.reset()
        assert link.send_nowait(["lost"]) is False
        error = await expect(ConnectionClosed, lambda: link.send(()))
        assert isinstance(error, ConnectionClosed)
        assert error.code == 1006
        assert link.items_sent == 0


async def test_nothing_is_taken_after_the_end(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind) as (link, peer):
        await peer.send_close(4000, "bye")
        await expect(ConnectionClosed, link.receive)
        with pytest.raises(ConnectionClosed) as caught:
            link.send_nowait(["x"])
        assert (caught.value.code, caught.value.reason) == (4000, "bye")
        await link.abort()
        with pytest.raises(trio.ClosedResourceError):
            link.send_nowait(["x"])
        assert link.items_sent == 0


# --- pings ---


async def test_pings_go_out_and_their_pongs_come_in(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind) as (link, peer):
        await link.send(["before", Ping(b"1"), "after", Ping(b"2")])
        assert await peer.receive_all(2) == ["before", "after"]
        assert link.items_sent == 4
        assert await link.receive() == [Pong(b"1")]
        await peer.receive_frame()
        await peer.pong(b"2")
        await peer.pong(b"nobody asked")
        assert await receive_all(link, 2) == [Pong(b"2"), Pong(b"nobody asked")]


async def test_pings_are_answered_while_somebody_receives(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind) as (link, peer), trio.open_nursery() as nursery:
        nursery.start_soon(link.receive)
        for payload in (b"", b"x" * 125):
            await peer.ping(payload)
            assert await peer.receive_frame() == Frame(Opcode.PONG, payload)
        await peer.send("done")


async def test_no_limit_on_messages_is_one_on_pings(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind, max_message_bytes=100) as (link, peer):
        await peer.ping(b"p" * 125)
        await peer.send_frame(Opcode.BINARY, b"x" * 60, fin=False)
        await peer.ping(b"q" * 50)
        await peer.send_frame(Opcode.CONTINUATION, b"y" * 40)
        assert await link.receive() == [b"x" * 60 + b"y" * 40]
        frames = [await peer.receive_frame()]
        if frames[0].payload != b"q" * 50:  # the newest may be all that is owed
            frames.append(await peer.receive_frame())
        assert frames[-1] == Frame(Opcode.PONG, b"q" * 50)


async def test_a_reader_never_waits_for_a_peer_that_does_not_read(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind, buffer_size=300) as (link, peer), trio.open_nursery() as nursery:
        nursery.start_soon(link.receive)
        for number in range(1000):
            await peer.ping(b"%04d" % number * 25)
        await peer.send("still heard")
        with trio.fail_after(10):
            await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    frames: list[Frame] = []
    with pytest.raises(trio.EndOfChannel):
        while True:
            frames.append(await peer.receive_frame())
    assert 0 < len(frames) < 10


FLOODS = {
    "pings": encode_frame(Opcode.PING, b""),
    "pongs": encode_frame(Opcode.PONG, b""),
    "fragments": encode_frame(Opcode.TEXT, b"", fin=False) + encode_frame(Opcode.CONTINUATION, b""),
}


@pytest.mark.parametrize(
    ("kind", "frame"),
    [pytest.param(kind, frame, id=f"{kind.name}-{name}") for kind in KINDS for name, frame in FLOODS.items()],
)
async def test_no_flood_keeps_other_tasks_from_their_turns(frame: bytes, kind: Kind, autojump_clock: MockClock) -> None:
    count = 20_000 // len(frame)
    async with linked(kind) as (link, peer), trio.open_nursery() as nursery:
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
        assert turns - before >= count // 500
        nursery.cancel_scope.cancel()


# --- one task at a time ---


async def test_a_second_sender_or_receiver_is_refused(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind, buffer_size=10) as (link, _), trio.open_nursery() as nursery:
        nursery.start_soon(link.receive)
        nursery.start_soon(link.send, ["too much for the buffer"])
        await wait_all_tasks_blocked()
        await expect(trio.BusyResourceError, link.receive)
        await expect(trio.BusyResourceError, lambda: link.send(["x"]))
        with pytest.raises(trio.BusyResourceError):
            link.send_nowait(["x"])
        nursery.cancel_scope.cancel()


# --- cancellation ---


async def test_a_cancelled_receive_loses_nothing(kind: Kind, autojump_clock: MockClock) -> None:
    data = (
        encode_frame(Opcode.TEXT, b"one")
        + encode_frame(Opcode.TEXT, b"t", fin=False)
        + encode_frame(Opcode.PING, b"?")
        + encode_frame(Opcode.CONTINUATION, b"wo")
        + encode_frame(Opcode.PONG, b"!")
        + encode_frame(Opcode.TEXT, b"three")
    )
    # Cancelled before it starts, and after each byte.
    async with linked(kind) as (link, peer):
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


@pytest.mark.parametrize("steps", range(1, 12))
async def test_a_receive_cancelled_at_any_point_goes_on_from_there(
    steps: int, kind: Kind, autojump_clock: MockClock
) -> None:
    async with linked(kind) as (link, peer):
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
        assert found == ["two"]
        assert (ended.code, ended.reason) == (4000, "bye")
        await closing(link)
        assert link.ending == Ending(4000, "bye", clean=True)


@pytest.mark.parametrize("buffer_size", [1, 5, 29, 30, 31, 64, 100])
async def test_a_cut_write_is_counted_exactly(buffer_size: int, kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind, buffer_size=buffer_size) as (link, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.receive_all, 2)
            with trio.move_on_after(1):
                await link.send([b"%024d" % number for number in range(20)])  # frames of 30 bytes
            nursery.cancel_scope.cancel()
        await link.abort()
        with pytest.raises(trio.EndOfChannel):
            while True:
                await peer.receive_frame()
        assert link.items_sent == len(peer.frames)
        assert [each.payload for each in peer.frames] == [b"%024d" % number for number in range(len(peer.frames))]


async def test_a_cancelled_send_leaves_a_link_that_says_no_more(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind, buffer_size=10) as (link, peer):
        with trio.move_on_after(1):
            await link.send(["too much for the buffer"])
        await expect(ConnectionClosed, lambda: link.send(["more"]))
        await closing(link)
        await link.abort()
        with pytest.raises(trio.EndOfChannel):
            await peer.receive_frame()
        assert len(peer.unparsed) == 10


@pytest.mark.parametrize("call", ["send", "receive"])
async def test_a_call_in_a_cancelled_scope_does_nothing(call: str, kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind) as (link, peer):
        await peer.send("there")
        with trio.CancelScope() as scope:
            scope.cancel()
            await (link.send(["x"]) if call == "send" else link.receive())
        assert scope.cancelled_caught
        assert link.items_sent == 0
        if call == "receive":
            assert await link.receive() == ["there"]


async def test_an_interrupt_takes_nothing_from_who_receives_over_memory(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind) as (link, peer), trio.open_nursery() as nursery:
        found: list[Incoming] = []

        @nursery.start_soon
        async def receive() -> None:
            found.extend(await link.receive())

        await wait_all_tasks_blocked()
        link.interrupt()
        await wait_all_tasks_blocked()
        await peer.send("x")
        await wait_all_tasks_blocked()
        assert found == ["x"]


# --- closing: the peer ---


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1008, 1011, 1012, 1013, 1014, 3000, 4999])
async def test_a_peers_close_is_told_and_answered(code: int, kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind) as (link, peer):
        await peer.send_raw(
            encode_frame(Opcode.TEXT, b"last")
            + encode_frame(Opcode.CLOSE, code.to_bytes(2) + "grüß".encode())
            + encode_frame(Opcode.TEXT, b"too late")
        )
        assert await link.receive() == ["last"]
        error = await expect(ConnectionClosed, link.receive)
        assert isinstance(error, ConnectionClosed)
        assert (error.code, error.reason) == (code, "grüß")
        await expect(ConnectionClosed, link.receive)
        await expect(ConnectionClosed, lambda: link.send(["x"]))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(closing, link, 1011)
            frame = await peer.receive_frame()
            assert (frame.opcode, frame.payload[:2]) == (Opcode.CLOSE, code.to_bytes(2))
            peer.drop()
        assert link.ending == Ending(code, "grüß", clean=True)
        assert trio.current_time() == 0


async def test_a_peers_close_without_a_code_is_1005(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind) as (link, peer):
        await peer.send_close(None)
        error = await expect(ConnectionClosed, link.receive)
        assert isinstance(error, ConnectionClosed)
        assert (error.code, error.reason) == (1005, "")
        await closing(link)
        assert await peer.receive_frame() == Frame(Opcode.CLOSE, b"")
        assert link.ending == Ending(1005, "", clean=True)


@pytest.mark.parametrize("how", ["drop", "reset", "half_close"])
async def test_a_lost_connection_is_1006(how: str, kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind) as (link, peer):
        await peer.send("last")
        assert await link.receive() == ["last"]
        if how == "half_close":
            await peer.half_close()
        else:
            getattr(peer, how)()
        error = await expect(ConnectionClosed, link.receive)
        assert isinstance(error, ConnectionClosed)
        assert error.code == 1006
        if how != "half_close":
            await expect(ConnectionClosed, lambda: link.send(["x"]))
        assert link.ending == Ending(1006, "", clean=False)
        assert link.items_sent == 0


async def test_a_lost_connection_wakes_who_waits(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind, buffer_size=10) as (link, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect, ConnectionClosed, link.receive)
            nursery.start_soon(expect, ConnectionClosed, lambda: link.send(["too much for the buffer"]))
            await wait_all_tasks_blocked()
            peer.reset()
        assert link.items_sent == 0


async def test_a_close_that_could_not_be_answered_is_unclean(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind, buffer_size=10) as (link, peer):
        with trio.move_on_after(1):
            await link.send(["too much for the buffer"])
        await peer.send_close(1000)
        await expect(ConnectionClosed, link.receive)
        await closing(link)
        assert link.ending == Ending(1000, "", clean=False)


# --- closing: we ---


async def test_our_close_is_said_and_the_peers_heard(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind) as (link, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(closing, link, 4321, "bye")
            with pytest.raises(PeerClosed) as caught:
                await peer.receive()
        assert (caught.value.code, caught.value.reason) == (4321, "bye")
        assert link.ending == Ending(4321, "", clean=True)
        assert trio.current_time() == 0
        await expect(trio.ClosedResourceError, link.receive)
        await expect(trio.ClosedResourceError, lambda: link.send(["x"]))
        await closing(link)
        assert link.ending == Ending(4321, "", clean=True)


async def test_what_comes_before_the_peers_answer_is_discarded(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind) as (link, peer):
        await peer.send("unread")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(closing, link)
            assert (await peer.receive_frame()).opcode == Opcode.CLOSE
            await peer.send_fragments(["on", "its", "way"])
            await peer.ping(b"late")
            await peer.send_close(1000, "ok")
            await peer.half_close()
        assert link.ending == Ending(1000, "ok", clean=True)
        await link.abort()
        with pytest.raises(trio.EndOfChannel):
            await peer.receive_frame()  # nor is the late ping answered: a close frame is the last


async def test_closes_that_cross_are_both_heard(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind) as (link, peer):
        await peer.send_close(4000, "me first")
        await closing(link, 4001, "no, me")
        assert link.ending == Ending(4000, "me first", clean=True)
        frame = await peer.receive_frame()
        assert frame.opcode == Opcode.CLOSE
        assert trio.current_time() < 1


async def test_a_close_is_heard_also_by_a_peer_that_is_stuck_in_a_write(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind, buffer_size=100) as (link, peer):
        await link.send([b"fills the other direction" * 3])
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                await peer.send(b"x" * 10_000)  # before it reads
                with pytest.raises(PeerClosed):
                    while True:
                        await peer.receive()

            nursery.start_soon(serve)
            await wait_all_tasks_blocked()
            await closing(link, 1000, "a reason that does not fit into the buffer either" * 2)
        assert link.ending == Ending(1000, "", clean=True)
        assert trio.current_time() < 1


@pytest.mark.parametrize("answers", [True, False])
async def test_a_peer_that_keeps_tcp_open_is_not_waited_for_long(
    answers: bool, kind: Kind, autojump_clock: MockClock
) -> None:
    async with linked(kind) as (link, peer):
        if answers:
            await peer.send_close(1000)
        await closing(link, seconds=5)
        assert trio.current_time() < 1 if answers else trio.current_time() == 5
        assert link.ending.clean is answers
        await link.abort()


async def test_a_peer_that_hangs_up_instead_of_answering_is_unclean(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind) as (link, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(closing, link)
            await peer.receive_frame()
            peer.drop()
        assert link.ending == Ending(1006, "", clean=False)
        assert trio.current_time() == 0


@pytest.mark.parametrize(
    "nonsense", [b"\xff\xff", encode_frame(Opcode.CLOSE, b"\x00"), b"\x82\x7f" + (2**40).to_bytes(8)]
)
async def test_nonsense_instead_of_an_answer_is_unclean(nonsense: bytes, kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind) as (link, peer):
        await peer.send_raw(nonsense)
        await closing(link)
        assert link.ending.clean is False
        assert trio.current_time() < 1


async def test_a_cancelled_close_leaves_a_link_to_abort(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind) as (link, _):
        with trio.CancelScope() as scope:
            scope.cancel()
            await link.aclose(1000, "")
        assert link.ending.clean is False
        await link.abort()


async def test_abort_says_nothing_and_wakes_who_waits(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind, buffer_size=10) as (link, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect, trio.ClosedResourceError, link.receive)
            nursery.start_soon(expect, trio.ClosedResourceError, lambda: link.send(["too much for the buffer"]))
            await wait_all_tasks_blocked()
            await link.abort()
        await link.abort()
        assert link.ending == Ending(1006, "", clean=False)
        with pytest.raises(trio.EndOfChannel):
            await peer.receive_frame()
        await expect(trio.ClosedResourceError, link.receive)
        await expect(trio.ClosedResourceError, lambda: link.send(["x"]))


async def test_a_cancelled_abort_closes(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind) as (link, peer):
        with trio.CancelScope() as scope:
            scope.cancel()
            await link.abort()
        with pytest.raises(trio.EndOfChannel):
            await peer.receive_frame()


# --- the peer's faults ---


BREACHES = {
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


@pytest.mark.parametrize(("data", "code"), BREACHES.values(), ids=BREACHES.keys())
async def test_a_breach_ends_the_link_after_what_was_good_and_the_peer_is_told_why(
    data: bytes, code: int, kind: Kind, autojump_clock: MockClock
) -> None:
    async with linked(kind, max_message_bytes=100) as (link, peer):
        await peer.send_raw(encode_frame(Opcode.TEXT, b"good") + data)
        assert await link.receive() == ["good"]
        error = await expect(ConnectionClosed, link.receive)
        assert isinstance(error, ConnectionClosed)
        assert error.code == code
        assert error.reason
        await closing(link)
        frame = await peer.receive_frame()
        assert (frame.opcode, int.from_bytes(frame.payload[:2])) == (Opcode.CLOSE, code)
        assert (link.ending.code, link.ending.clean) == (code, False)
        assert trio.current_time() < 1


@pytest.mark.parametrize("data", [encode_frame(Opcode.TEXT, b"x", rsv=4), b"\xc1\x7e"], ids=["whole", "head"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.extension is None], ids=lambda kind: kind.name)
async def test_a_compressed_message_where_that_was_not_agreed_on_is_a_breach(
    kind: Kind, data: bytes, autojump_clock: MockClock
) -> None:
    async with linked(kind) as (link, peer):
        await peer.send_raw(data)
        error = await expect(ConnectionClosed, link.receive)
        assert isinstance(error, ConnectionClosed)
        assert error.code == 1002
        assert error.reason


async def test_a_peer_at_fault_that_does_not_read_is_given_up_in_time(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind, buffer_size=10) as (link, peer):
        await link.send([b""])
        await peer.send_raw(b"\xff\xff")
        await expect(ConnectionClosed, link.receive)
        await closing(link, seconds=2)
        assert trio.current_time() == 2


async def test_a_frame_of_any_size_is_refused_by_its_header_alone(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind, max_message_bytes=None) as (link, peer):
        await peer.send_raw(b"\x82\x7f" + (2**40).to_bytes(8))
        with trio.move_on_after(1) as scope:
            await link.receive()
        assert scope.cancelled_caught  # without a limit, it is waited for


async def test_times_are_those_of_bytes(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind) as (link, peer):
        await trio.sleep(1)
        await link.send(["x"])
        await trio.sleep(1)
        await peer.send_raw(encode_frame(Opcode.TEXT, b"abc")[:3])
        with trio.move_on_after(1):
            await link.receive()
        assert (link.moved_at, link.heard_at) == (1, 2)


async def test_a_stream_that_is_already_gone_fails_the_opening(kind: Kind, autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    theirs.reset()
    await fails_to_open(kind, ours)
