"""How a server's link ends: who hangs up, who is waited for, and what is on the wire before that."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from trio.testing import MockClock

from tests.contract.links import KINDS, SERVERS, Kind, closing, linked, linked_over, over_tcp, over_tls
from trio_wsprim import ConnectionClosed
from trio_wsprim.abc import Ending, Link
from trio_wsprim.testing import Frame, Opcode, Peer, encode_frame


@pytest.fixture(
    params=[kind for kind in SERVERS if kind.name != "deflate-not-offered server"], ids=lambda each: each.name
)
def kind(request: pytest.FixtureRequest) -> Kind:
    given: Kind = request.param
    return given


@asynccontextmanager
async def ended(kind: Kind, data: bytes, limit: int = 100) -> AsyncGenerator[tuple[Link, Peer]]:
    """A link that the client has brought to its end by what it said."""
    async with linked(kind, max_message_bytes=limit) as (link, client):
        await client.send_raw(data)
        with pytest.raises(ConnectionClosed):
            await link.receive()
        yield link, client


# --- a clean end: the server hangs up first (RFC 6455, 7.1.1) ---


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x0f\xa0" + b"r" * 123])
async def test_a_client_that_has_said_goodbye_is_answered_and_not_waited_for(
    payload: bytes, kind: Kind, autojump_clock: MockClock
) -> None:
    async with ended(kind, encode_frame(Opcode.CLOSE, payload)) as (link, client):
        await link.aclose(1011, "not this")
        assert trio.current_time() == 0
        assert link.ending.clean
        await link.abort()
        assert await client.receive_frame() == Frame(Opcode.CLOSE, payload)
        with pytest.raises(trio.EndOfChannel):
            await client.receive_frame()
        assert client.unparsed == b""


async def test_a_client_that_answers_our_goodbye_is_not_waited_for(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind) as (link, client):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.aclose, 1001, "going away")
            assert await client.receive_frame() == Frame(Opcode.CLOSE, b"\x03\xe9going away")
            await trio.sleep(2)
            await client.send_close(1001)
        assert trio.current_time() == 2
        assert link.ending == Ending(1001, "", clean=True)


async def test_goodbyes_that_cross_end_it_at_once(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind) as (link, client):
        await client.send_raw(encode_frame(Opcode.TEXT, b"last") + encode_frame(Opcode.CLOSE, b"\x0f\xa0me first"))
        await link.aclose(1001, "")
        assert trio.current_time() == 0
        assert link.ending == Ending(4000, "me first", clean=True)
        assert await client.receive_frame() == Frame(Opcode.CLOSE, b"\x03\xe9")


async def test_a_client_waits_for_the_server_to_hang_up(autojump_clock: MockClock) -> None:
    for each in KINDS:
        begun = trio.current_time()
        async with linked(each) as (link, server):
            await server.send_close(1000)
            await closing(link)
            assert link.ending.clean
        assert trio.current_time() - begun == 0.25


# --- an end that is not ---


async def test_a_client_that_never_answers_is_waited_for_as_long_as_the_caller_likes(
    kind: Kind, autojump_clock: MockClock
) -> None:
    async with linked(kind) as (link, client):
        await closing(link, seconds=50)
        assert trio.current_time() == 50
        assert link.ending == Ending(1006, "", clean=False)
        await link.abort()
        assert (await client.receive_frame()).opcode == Opcode.CLOSE


BREACHES = {
    "opcode": (encode_frame(3, b""), 1002),
    "no mask": (encode_frame(Opcode.TEXT, b"x", masked=True), 1002),  # which the swapping takes off
    "ping": (encode_frame(Opcode.PING, bytes(126)), 1002),
    "close": (encode_frame(Opcode.CLOSE, b"\x03"), 1002),
    "close code": (encode_frame(Opcode.CLOSE, b"\x03\xed"), 1002),
    "UTF-8": (encode_frame(Opcode.TEXT, b"\xff"), 1007),
    "UTF-8 in a fragment": (encode_frame(Opcode.TEXT, b"\xff", fin=False), 1007),
    "UTF-8 in a reason": (encode_frame(Opcode.CLOSE, b"\x03\xe8\xff"), 1007),
    "size": (encode_frame(Opcode.BINARY, bytes(101)), 1009),
    "size of fragments": (
        encode_frame(Opcode.BINARY, bytes(60), fin=False) + encode_frame(Opcode.CONTINUATION, bytes(60)),
        1009,
    ),
    "size announced": (b"\x82\x7f" + (2**62).to_bytes(8), 1009),
}
breaches = pytest.mark.parametrize(("data", "code"), BREACHES.values(), ids=BREACHES.keys())


@breaches
async def test_a_client_at_fault_is_told_the_code_and_has_a_moment_to_read_it(
    data: bytes, code: int, kind: Kind, autojump_clock: MockClock
) -> None:
    async with ended(kind, data) as (link, client):
        await closing(link)
        assert trio.current_time() == 0.25
        assert (link.ending.code, link.ending.clean, link.ending.is_breach) == (code, False, True)
        frame = await client.receive_frame()
        assert (frame.opcode, int.from_bytes(frame.payload[:2])) == (Opcode.CLOSE, code)
        await link.abort()
        with pytest.raises(trio.EndOfChannel):
            await client.receive_frame()


async def test_a_client_at_fault_that_answers_is_not_waited_for(kind: Kind, autojump_clock: MockClock) -> None:
    async with ended(kind, encode_frame(Opcode.TEXT, b"\xff")) as (link, client), trio.open_nursery() as nursery:
        nursery.start_soon(closing, link)
        assert (await client.receive_frame()).opcode == Opcode.CLOSE
        await trio.sleep(0.125)
        await client.send("still under way")
        await client.send_close(1007)
        await trio.sleep(0.0625)
        assert nursery.child_tasks == frozenset()


@pytest.mark.parametrize("how", ["half_close", "drop", "reset"])
async def test_a_client_at_fault_that_hangs_up_is_not_waited_for(
    how: str, kind: Kind, autojump_clock: MockClock
) -> None:
    async with ended(kind, encode_frame(3, b"")) as (link, client):
        if how == "half_close":
            await client.half_close()
        else:
            getattr(client, how)()
        await closing(link)
        assert trio.current_time() == 0
        assert (link.ending.code, link.ending.clean) == (1002, False)


async def test_a_client_at_fault_that_never_stops_talking_is_left_in_time(
    kind: Kind, autojump_clock: MockClock
) -> None:
    async with ended(kind, encode_frame(3, b"")) as (link, client), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def talk() -> None:
            with suppress(trio.BrokenResourceError):
                while True:
                    await client.send_raw(bytes(1000))
                    await trio.sleep(0.001)

        await closing(link)
        assert trio.current_time() == 0.25
        await link.abort()


@pytest.mark.parametrize(
    "answer", [b"\xff\xff", encode_frame(Opcode.CLOSE, b"\x03"), b"\x82\x7f" + (2**62).to_bytes(8)]
)
async def test_an_answer_that_is_none_leaves_a_moment_too(answer: bytes, kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind) as (link, client):
        await client.send_raw(answer)
        await closing(link)
        assert trio.current_time() == 0.25
        assert not link.ending.clean


async def test_after_a_torn_frame_nothing_is_said(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind, buffer_size=10) as (link, client):
        with trio.move_on_after(1):
            await link.send([b"too much for the buffer, also where it is made smaller: 0123456789abcdef"])
        await closing(link)
        assert trio.current_time() == 1.25
        assert not link.ending.clean
        await link.abort()
        with pytest.raises(trio.EndOfChannel):
            await client.receive_frame()


async def test_pings_that_come_during_the_closing_handshake_are_not_answered(
    kind: Kind, autojump_clock: MockClock
) -> None:
    async with linked(kind) as (link, client):
        await client.send_raw(encode_frame(Opcode.PING, b"?") * 1000 + encode_frame(Opcode.CLOSE, b"\x03\xe8"))
        await link.aclose(1000, "")
        await link.abort()
        assert link.ending.clean
        assert await client.receive_frame() == Frame(Opcode.CLOSE, b"\x03\xe8")
        with pytest.raises(trio.EndOfChannel):
            await client.receive_frame()


# --- over sockets, whose kernels destroy what is unread ---


@pytest.mark.parametrize("wire", [over_tcp, over_tls], ids=["tcp", "tls"])
@breaches
async def test_a_client_at_fault_reads_why_though_it_has_said_more(
    data: bytes, code: int, wire: object, kind: Kind
) -> None:
    wiring = over_tls() if wire is over_tls else over_tcp()
    async with linked_over(wiring, kind, max_message_bytes=100) as (link, client), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def serve() -> None:
            with pytest.raises(ConnectionClosed):
                await link.receive()
            await closing(link)
            await link.abort()

        @nursery.start_soon
        async def say_more() -> None:
            # More than one read's worth, so that some is unread when the link has made up its mind.
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await client.send_raw(data + encode_frame(Opcode.BINARY, bytes(200_000)))

        frame = await client.receive_frame()
        assert (frame.opcode, int.from_bytes(frame.payload[:2])) == (Opcode.CLOSE, code)
        client.drop()


@pytest.mark.parametrize("wire", [over_tcp, over_tls], ids=["tcp", "tls"])
async def test_the_answer_to_a_goodbye_arrives_though_the_server_hangs_up_at_once(wire: object, kind: Kind) -> None:
    wiring = over_tls() if wire is over_tls else over_tcp()
    async with linked_over(wiring, kind) as (link, client):
        await client.send_raw(encode_frame(Opcode.TEXT, b"last") + encode_frame(Opcode.CLOSE, b"\x03\xe8bye"))
        assert await link.receive() == ["last"]
        with pytest.raises(ConnectionClosed):
            await link.receive()
        await link.aclose(1000, "")
        await link.abort()
        assert await client.receive_frame() == Frame(Opcode.CLOSE, b"\x03\xe8bye")
        with pytest.raises(trio.EndOfChannel):
            await client.receive_frame()
