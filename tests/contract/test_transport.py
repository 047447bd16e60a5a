"""What every transport promises at the seam, whatever speaks WebSocket inside it.

Most of it is what `check_transport` checks for everybody; each of its promises is a test here, for each of our links.
"""

from functools import partial
from typing import Final

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim import ConnectionClosed
from trio_wsprim.abc import Ending, Incoming, Transport, Upgrade
from trio_wsprim.testing import (
    MakePair,
    MemoryNetwork,
    MemoryTransport,
    Opcode,
    check_transport,
    encode_frame,
    memory_stream_pair,
    pair_over,
    peer_over,
)
from trio_wsprim.testing._contract import check_promise
from trio_wsprim.testing._promises import LINK_PROMISES, OPENING_PROMISES, LinkPromise, OpeningPromise
from trio_wsprim.transports import WebsocketsTransport

from .links import KINDS, SERVERS, Kind, expect, linked

PAIRS: Final[dict[str, MakePair]] = {kind.name: partial(linked, kind) for kind in (*KINDS, *SERVERS)} | {
    "memory": pair_over(MemoryTransport())
}
TRANSPORTS: Final[dict[str, Transport]] = {kind.name: kind.transport for kind in KINDS} | {"memory": MemoryTransport()}

as_client = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


@pytest.fixture(params=[*KINDS, *SERVERS], ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    given: Kind = request.param
    return given


# --- what is promised to everybody ---


@pytest.mark.parametrize("make_pair", PAIRS.values(), ids=PAIRS.keys())
@pytest.mark.parametrize("promise", LINK_PROMISES, ids=lambda promise: promise.name)
async def test_a_link_keeps_its_promise(promise: LinkPromise, make_pair: MakePair, autojump_clock: MockClock) -> None:
    await check_promise(promise, make_pair)


@pytest.mark.parametrize("transport", TRANSPORTS.values(), ids=TRANSPORTS.keys())
@pytest.mark.parametrize("promise", OPENING_PROMISES, ids=lambda promise: promise.name)
async def test_an_opening_keeps_its_promise(
    promise: OpeningPromise, transport: Transport, autojump_clock: MockClock
) -> None:
    await check_promise(promise, transport)


@pytest.mark.parametrize("transport", TRANSPORTS.values(), ids=TRANSPORTS.keys())
async def test_a_transport_passes_the_check_as_a_whole(transport: Transport, autojump_clock: MockClock) -> None:
    await check_transport(pair_over(transport))


# --- what is true of ours only ---


async def test_a_link_tells_what_was_agreed(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind, subprotocols=("one", "two")) as (link, peer):
        assert link.subprotocol == "one"
        assert (("x-served-by", "Test") in link.response_headers) is not kind.is_server
        assert peer.request is not None
        if kind.is_server:
            assert peer.request.header("sec-websocket-protocol") == "one"
            assert link.response_headers == ()
        else:
            assert (peer.request.path, peer.request.header("host")) == ("/chat?a=b", "example.test")
            assert peer.request.header("x-one") == "1"
        assert link.items_sent == 0
        assert link.ending == Ending(1006, "", clean=False)
        assert link.heard_at == link.moved_at == 0
    async with linked(kind) as (link, _):
        assert link.subprotocol is None


async def test_what_comes_glued_to_the_handshake_is_not_lost(kind: Kind, autojump_clock: MockClock) -> None:
    behind = encode_frame(Opcode.TEXT, b"early") + encode_frame(Opcode.BINARY, b"bird")[:3]
    async with linked(kind, behind=behind) as (link, peer):
        assert await link.receive() == ["early"]
        await peer.send_raw(encode_frame(Opcode.BINARY, b"bird")[3:])
        assert await link.receive() == [b"bird"]


@as_client
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


async def test_an_interrupt_takes_nothing_from_who_receives_over_memory(kind: Kind, autojump_clock: MockClock) -> None:
    async with linked(kind) as (link, peer), trio.open_nursery() as nursery:
        found: list[Incoming] = []

        @nursery.start_soon
        async def receive() -> None:
            found.extend(await link.receive())

        await wait_all_tasks_blocked()
        assert not link.is_direct  # over memory, nothing goes out but by `send`
        link.interrupt()
        await wait_all_tasks_blocked()
        await peer.send("x")
        await wait_all_tasks_blocked()
        assert found == ["x"]


@pytest.mark.parametrize("data", [encode_frame(Opcode.TEXT, b"x", rsv=4), b"\xc1\x7e"], ids=["whole", "head"])
@pytest.mark.parametrize(
    "kind", [kind for kind in (*KINDS, *SERVERS) if kind.extension is None], ids=lambda kind: kind.name
)
async def test_a_compressed_message_where_that_was_not_agreed_on_is_a_breach(
    kind: Kind, data: bytes, autojump_clock: MockClock
) -> None:
    async with linked(kind) as (link, peer):
        await peer.send_raw(data)
        error = await expect(ConnectionClosed, link.receive)
        assert isinstance(error, ConnectionClosed)
        assert error.code == 1002
        assert error.reason
