"""The opening handshake as a server does it, over both libraries, and what becomes of the stream when it fails."""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeAlias

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.roles import SwappedStream
from tests.transports.cores import ACCEPT_KEY, KEY
from trio_wsprim import ConnectionClosed, Rejection, Request
from trio_wsprim._lane import OtherFrame
from trio_wsprim._seam import Link, Reception, Refused, ServerTransport
from trio_wsprim._values import Message
from trio_wsprim.testing import Frame, MemoryNetwork, Opcode, Peer, encode_frame, peer_over
from trio_wsprim.testing import Request as Head
from trio_wsprim.transports import TrioWebsocketTransport, WebsocketsTransport
from trio_wsprim.transports._asked import Asked
from trio_wsprim.transports._handshake import HandshakeFault, accept_link

DEFLATE: Final = WebsocketsTransport(compression="deflate")
TRANSPORTS: Final[dict[str, ServerTransport]] = {
    "trio-websocket": TrioWebsocketTransport(),
    "websockets": WebsocketsTransport(),
    "deflate": DEFLATE,
}
Judge: TypeAlias = Callable[[Request], Awaitable[Rejection | None]]


@pytest.fixture(params=list(TRANSPORTS.values()), ids=list(TRANSPORTS))
def transport(request: pytest.FixtureRequest) -> ServerTransport:
    given: ServerTransport = request.param
    return given


async def let_in(_: Request) -> Rejection | None:
    await trio.lowlevel.checkpoint()
    return None


def reception(judge: Judge = let_in, subprotocols: tuple[str, ...] = (), limit: int | None = 100) -> Reception:
    return Reception(remote=("192.0.2.1", 1), judge=judge, subprotocols=subprotocols, max_message_bytes=limit)


def a_request(*lines: str) -> bytes:
    """A handshake, with further lines."""
    whole = (
        "GET /chat?a=b HTTP/1.1",
        "Host: example.test",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
        *lines,
        "",
        "",
    )
    return "\r\n".join(whole).encode("latin-1")


@asynccontextmanager
async def accepted(
    transport: ServerTransport, request: bytes, given: Reception | None = None
) -> AsyncGenerator[tuple[Link, Peer, Head]]:
    """A link, its client, and the head of the answer to that."""
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        stream = await network.open_stream("example.test", 80)
        client = await network.accept()
        await client.send_raw(request)
        link = await transport.accept(nursery, stream, given or reception())
        answer = await client.read_request()
        assert (answer.method, answer.path) == ("HTTP/1.1", "101")
        yield link, peer_over(SwappedStream(client)), answer
        await link.abort()
    assert network.live == 0


async def turned_away(
    transport: ServerTransport, request: bytes, given: Reception | None = None, *, then: str = "half_close"
) -> tuple[BaseException, bytes]:
    """What an attempt that comes to nothing raises, and what the client reads; nothing of it may be left."""
    network = MemoryNetwork()
    answer = b""
    async with trio.open_nursery() as nursery:
        stream = await network.open_stream("example.test", 80)
        client = await network.accept()
        await client.send_raw(request)
        if then == "half_close":
            await client.half_close()
        else:
            getattr(client, then)()
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the caller looks
            await transport.accept(nursery, stream, given or reception())
        assert network.live == 0
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await client.stream.receive_some():
                answer += data
    return caught.value, answer


# --- what goes well ---


async def test_a_client_is_let_in_and_both_can_speak(transport: ServerTransport) -> None:
    async with accepted(transport, a_request()) as (link, client, answer):
        assert answer.header("sec-websocket-accept") == ACCEPT_KEY
        assert answer.header("upgrade") == "websocket"
        assert answer.header("connection") == "Upgrade"
        assert {name for name, _ in answer.headers} <= {"sec-websocket-accept", "upgrade", "connection", "date"}
        assert (link.subprotocol, link.response_headers) == (None, ())
        await link.send(["hello", b"\xff"])
        assert await client.receive_all(2) == ["hello", b"\xff"]
        await client.send("hi")
        assert await link.receive() == ["hi"]
        await client.send_fragments(["one", " ", "two"])
        assert await link.receive() == ["one two"]


async def test_what_is_judged_is_what_was_asked(transport: ServerTransport) -> None:
    seen: list[Request] = []

    async def judge(request: Request) -> Rejection | None:
        await trio.lowlevel.checkpoint()
        seen.append(request)
        return None

    given = reception(judge)
    async with accepted(transport, a_request("Sec-WebSocket-Protocol: one, two"), given):
        (request,) = seen
    assert (request.path, request.remote) == ("/chat?a=b", ("192.0.2.1", 1))
    assert request.subprotocols == ("one", "two")
    assert request.header("host") == "example.test"


@pytest.mark.parametrize(
    ("theirs", "ours", "chosen"),
    [
        ("one, two", ("two", "one"), "two"),
        ("one, two", ("three", "one"), "one"),
        ("one, two", ("three",), None),
        ("one", (), None),
        ("\xff, one, a b, , \x01", ("one",), "one"),
        ("", ("one",), None),
        ("One", ("one",), None),
        ("one, " + "x" * 10_000, ("one",), "one"),
    ],
)
async def test_the_first_of_ours_that_it_speaks_is_chosen(
    theirs: str, ours: tuple[str, ...], chosen: str | None, transport: ServerTransport
) -> None:
    request = a_request(f"Sec-WebSocket-Protocol: {theirs}")
    async with accepted(transport, request, reception(subprotocols=ours)) as (link, _, answer):
        assert link.subprotocol == answer.header("sec-websocket-protocol") == chosen


async def test_what_comes_behind_the_request_is_received(transport: ServerTransport) -> None:
    early = encode_frame(Opcode.TEXT, b"early", masked=True) + encode_frame(Opcode.BINARY, b"bird", masked=True)[:3]
    async with accepted(transport, a_request() + early) as (link, client, _):
        assert await link.receive() == ["early"]
        await client.stream._peer.send_raw(  # type: ignore[attr-defined]
            encode_frame(Opcode.BINARY, b"bird", masked=True)[3:]
        )
        assert await link.receive() == [b"bird"]


@pytest.mark.parametrize(
    "lines",
    [
        ["Connection: keep-alive", "Connection: \x01 odd ,,"],
        ["Upgrade: h2c"],
        ["Sec-WebSocket-Extensions: x-webkit-deflate-frame; a=b"],
        ["X-Latin: \xff", "Cookie: " + "c" * 9_000],
        [f"X-{number}: a" for number in range(90)],
    ],
)
async def test_what_does_not_matter_disturbs_no_library(lines: Sequence[str], transport: ServerTransport) -> None:
    async with accepted(transport, a_request(*lines)) as (link, client, answer):
        assert answer.header("sec-websocket-extensions") is None
        await client.ping(b"?")
        await client.send("x")
        assert await link.receive() == ["x"]
        assert await client.receive_frame() == Frame(Opcode.PONG, b"?")


async def test_the_limit_holds_for_what_comes_in(transport: ServerTransport) -> None:
    async with accepted(transport, a_request()) as (link, client, _):
        await client.send(bytes(101))
        with pytest.raises(ConnectionClosed) as caught:
            await link.receive()
    assert caught.value.code == 1009


async def test_a_client_that_masks_nothing_is_told_1002(transport: ServerTransport, autojump_clock: MockClock) -> None:
    async with accepted(transport, a_request() + encode_frame(Opcode.TEXT, b"bare")) as (link, client, _):
        with pytest.raises(ConnectionClosed) as caught:
            await link.receive()
        await link.aclose(1000, "")
        frame = await client.receive_frame()
    assert caught.value.code == int.from_bytes(frame.payload[:2]) == 1002


# --- compression ---


@pytest.mark.parametrize(
    ("offer", "agreed"),
    [
        ("permessage-deflate", "permessage-deflate; server_max_window_bits=12"),
        (
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
        ),
        (
            "permessage-deflate; server_max_window_bits=9; client_max_window_bits=9",
            "permessage-deflate; server_max_window_bits=9; client_max_window_bits=9",
        ),
        (
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12",
        ),
        ("x-other, permessage-deflate, permessage-deflate", "permessage-deflate; server_max_window_bits=12"),
        (
            "permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=10",
            "permessage-deflate; server_max_window_bits=10",
        ),
        ("permessage-deflate; server_max_window_bits=8", None),
        ("permessage-deflate; server_max_window_bits=7", None),
        ("permessage-deflate; server_max_window_bits=012", None),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; client_max_window_bits=16", None),
        ("permessage-deflate; client_no_context_takeover=1", None),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits", None),
        ("permessage-deflate; unknown", None),
        ("permessage-bzip2", None),
    ],
)
async def test_compression_is_agreed_on_where_an_offer_will_do(offer: str, agreed: str | None) -> None:
    async with accepted(DEFLATE, a_request(f"Sec-WebSocket-Extensions: {offer}")) as (link, client, answer):
        assert answer.header("sec-websocket-extensions") == agreed
        await link.send(["a" * 1000])
        frame = await client.receive_frame()
        assert (frame.rsv, len(frame.payload) < 1000) == ((0, False) if agreed is None else (4, True))
        await client.send("plain may be said always")
        assert await link.receive() == ["plain may be said always"]


@pytest.mark.parametrize(
    ("offer", "keeps_theirs", "keeps_ours"),
    [
        ("permessage-deflate; client_max_window_bits", True, True),
        ("permessage-deflate; server_no_context_takeover", True, False),
        ("permessage-deflate; client_no_context_takeover", False, True),
        ("permessage-deflate; server_max_window_bits=9; client_max_window_bits=9", True, True),
    ],
)
async def test_compressed_messages_go_both_ways(offer: str, keeps_theirs: bool, keeps_ours: bool) -> None:
    texts = [f"message {number} " * number for number in range(20)]
    bits = 9 if "=9" in offer else 12
    async with accepted(DEFLATE, a_request(f"Sec-WebSocket-Extensions: {offer}"), reception(limit=1000)) as (
        link,
        client,
        _,
    ):
        deflater = zlib.compressobj(wbits=-bits)
        inflater = zlib.decompressobj(wbits=-bits)
        for text in texts:
            data = deflater.compress(text.encode()) + deflater.flush(zlib.Z_SYNC_FLUSH)
            await client.send_frame(Opcode.TEXT, data.removesuffix(b"\0\0\xff\xff"), rsv=4)
            assert await link.receive() == [text]
            await link.send([text])
            frame = await client.receive_frame()
            assert inflater.decompress(frame.payload + b"\0\0\xff\xff") == text.encode()
            if not keeps_theirs:
                deflater = zlib.compressobj(wbits=-bits)
            if not keeps_ours:
                inflater = zlib.decompressobj(wbits=-bits)


async def test_a_bomb_goes_off_at_the_limit() -> None:
    deflater = zlib.compressobj(wbits=-12)
    bomb = deflater.compress(bytes(50_000_000)) + deflater.flush(zlib.Z_SYNC_FLUSH)
    assert len(bomb) < 60_000
    offer = a_request("Sec-WebSocket-Extensions: permessage-deflate")
    async with accepted(DEFLATE, offer, reception(limit=100_000)) as (link, client, _):
        await client.send_frame(Opcode.BINARY, bomb, rsv=4)
        with pytest.raises(ConnectionClosed) as caught:
            await link.receive()
    assert caught.value.code == 1009


@pytest.mark.parametrize("data", [b"\xff\xff", b"\x01\x00", b"\xc1\x0c\x00"])
async def test_what_cannot_be_inflated_is_a_breach(data: bytes) -> None:
    async with accepted(DEFLATE, a_request("Sec-WebSocket-Extensions: permessage-deflate")) as (link, client, _):
        await client.send_frame(Opcode.TEXT, data, rsv=4)
        with pytest.raises(ConnectionClosed) as caught:
            await link.receive()
    assert caught.value.code in {1002, 1007}


async def test_compressed_messages_are_a_breach_where_that_was_not_agreed_on(transport: ServerTransport) -> None:
    async with accepted(transport, a_request()) as (link, client, _):
        await client.send_frame(Opcode.TEXT, b"x", rsv=4)
        with pytest.raises(ConnectionClosed) as caught:
            await link.receive()
    assert caught.value.code == 1002


@pytest.mark.parametrize(
    "offer", ['permessage-deflate; a="', "permessage deflate", "\xff", "=", "x" * 9_000, "a" + "\x01"]
)
async def test_offers_that_cannot_be_read_are_refused_by_who_reads_them(offer: str) -> None:
    request = a_request(f"Sec-WebSocket-Extensions: {offer}")
    error, answer = await turned_away(DEFLATE, request)
    assert isinstance(error, Refused)
    assert (str(error), error.status) == ("the extensions that it offers cannot be read", 400)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.count(b"HTTP/1.1") == 1
    for other in (TRANSPORTS["trio-websocket"], TRANSPORTS["websockets"]):
        async with accepted(other, request) as (_, _, head):
            assert head.header("sec-websocket-extensions") is None


# --- what does not go well ---


async def test_who_is_not_let_in_gets_the_answer_of_who_judges(transport: ServerTransport) -> None:
    async def judge(_: Request) -> Rejection | None:
        await trio.lowlevel.checkpoint()
        return Rejection(401, {"WWW-Authenticate": "Basic"}, b"who are you?")

    error, answer = await turned_away(transport, a_request(), reception(judge))
    assert isinstance(error, Refused)
    assert (str(error), error.status) == ("it was not let in", 401)
    assert answer.startswith(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\n")
    assert answer.endswith(b"\r\n\r\nwho are you?")


class Unexpected(Exception):
    """What a judge may raise."""


@pytest.mark.parametrize("then", ["half_close", "drop", "reset"])
async def test_a_judge_that_fails_is_a_500_and_its_error_comes_out(then: str, transport: ServerTransport) -> None:
    error = Unexpected("s3cret")

    async def judge(_: Request) -> Rejection | None:
        await trio.lowlevel.checkpoint()
        raise error

    request = a_request() if then == "half_close" else a_request() + encode_frame(Opcode.TEXT, b"x", masked=True)
    if then == "reset":  # what it had sent is destroyed, so nobody is judged
        caught, _ = await turned_away(transport, request, reception(judge), then=then)
        assert isinstance(caught, Refused)
        return
    caught, answer = await turned_away(transport, request, reception(judge), then=then)
    assert caught is error
    if then == "half_close":
        assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
        assert answer.endswith(b"\r\n\r\nsomething went wrong here\n")
        assert b"s3cret" not in answer


async def test_what_is_no_handshake_is_judged_by_nobody(transport: ServerTransport) -> None:
    async def judge(_: Request) -> Rejection | None:
        raise AssertionError

    error, answer = await turned_away(transport, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", reception(judge))
    assert isinstance(error, Refused)
    assert error.status == 426
    assert answer.startswith(b"HTTP/1.1 426 Upgrade Required\r\n")


@pytest.mark.parametrize("how", ["drop", "reset"])
async def test_a_client_that_goes_away_while_it_is_judged_is_refused(how: str, transport: ServerTransport) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        stream = await network.open_stream("example.test", 80)
        client = await network.accept()
        await client.send_raw(a_request())

        async def judge(_: Request) -> Rejection | None:
            await trio.lowlevel.checkpoint()
            getattr(client, how)()
            return None

        with pytest.raises(Refused, match=r"^the client went away before it was answered$") as caught:
            await transport.accept(nursery, stream, reception(judge))
        assert caught.value.status is None
        assert network.live == 0
    # The nursery has ended by itself: no task of a core is left.


@pytest.mark.parametrize("behind", [b"", encode_frame(Opcode.TEXT, b"x", masked=True)])
async def test_a_handshake_cancelled_at_any_step_leaves_nothing(behind: bytes, transport: ServerTransport) -> None:
    steps, is_open = 0, False
    while not is_open:
        steps += 1
        network = MemoryNetwork(buffer_size=60)  # so that both sides have to wait more than once
        async with trio.open_nursery() as nursery:
            stream = await network.open_stream("example.test", 80)
            nursery.start_soon(ask_and_listen, await network.accept(), a_request() + behind)
            with trio.CancelScope() as scope:

                async def cancel(scope: trio.CancelScope = scope, steps: int = steps) -> None:
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()

                nursery.start_soon(cancel)
                link = await transport.accept(nursery, stream, reception())
                is_open = True
                await link.abort()
        # Again the nursery has ended by itself.
        assert network.live == 0
    assert 5 < steps < 100


async def ask_and_listen(client: Peer, request: bytes) -> None:
    with suppress(trio.EndOfChannel, trio.BrokenResourceError):
        await client.send_raw(request)
        await client.read_request()


@pytest.mark.parametrize("where", ["reading", "judging", "rejecting", "answering"])
async def test_a_handshake_that_gets_nowhere_can_be_given_up(
    where: str, transport: ServerTransport, autojump_clock: MockClock
) -> None:
    network = MemoryNetwork(buffer_size=1000)
    async with trio.open_nursery() as nursery:
        stream = await network.open_stream("example.test", 80)
        client = await network.accept()
        await client.send_raw(a_request()[: -1 if where == "reading" else None])

        async def judge(_: Request) -> Rejection | None:
            if where == "judging":
                await trio.sleep_forever()
            if where == "answering":
                await stream.send_all(bytes(990))  # leaves no room for an answer
            return Rejection(403, (), bytes(10_000)) if where == "rejecting" else None

        with trio.move_on_after(5) as scope:
            await transport.accept(nursery, stream, reception(judge))
        assert scope.cancelled_caught
        assert network.live == 0


# --- any request at all ---

values = st.text(st.characters(max_codepoint=255), max_size=30)
members = st.sampled_from(
    [
        "permessage-deflate",
        "client_max_window_bits",
        "server_max_window_bits=8",
        "server_max_window_bits=15",
        'client_max_window_bits="10"',
        "client_no_context_takeover",
        "server_no_context_takeover",
        "one",
        "",
        "\xff",
        '"',
    ]
)
lists = st.lists(st.tuples(members, st.sampled_from([", ", "; ", "=", " "])).map("".join), max_size=6).map("".join)


@pytest.mark.parametrize("transport", TRANSPORTS.values(), ids=TRANSPORTS.keys())
@settings(max_examples=100)
@given(
    headers=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "Sec-WebSocket-Protocol",
                    "Sec-WebSocket-Extensions",
                    "Connection",
                    "Upgrade",
                    "Origin",
                    "Sec-WebSocket-X",
                ]
            ),
            values | lists,
        ),
        max_size=4,
    ),
    behind=st.binary(max_size=20),
)
@example(headers=[("Sec-WebSocket-Extensions", "permessage-deflate; server_max_window_bits=8")], behind=b"")
def test_any_request_ends_in_a_link_or_is_refused(
    transport: ServerTransport, headers: list[tuple[str, str]], behind: bytes
) -> None:
    async def try_it() -> None:
        network = MemoryNetwork()
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                stream = await network.open_stream("example.test", 80)
                client = await network.accept()
                await client.send_raw(a_request(*[f"{name}: {value}" for name, value in headers]) + behind)
                await client.half_close()
                status: int | None = 101
                try:
                    link = await transport.accept(nursery, stream, reception(subprotocols=("one",)))
                except Refused as refused:
                    status = refused.status
                else:
                    with pytest.raises(ConnectionClosed):
                        while True:
                            await link.receive()
                    await link.abort()
        assert network.live == 0
        assert (await client.read_request()).path == str(status)

    trio.run(try_it)


# --- whatever a core does ---


class ScriptedCore:
    """Welcomes in the way that it is told."""

    def __init__(self, fault: BaseException | None = None, *, answer: bytes = b"") -> None:
        self._fault = fault
        self._answer = answer
        self._queue: Callable[[bytes], None] | None = None
        self.is_compressed = False
        self.encode: Callable[[Message], bytes] | None = None
        self.subprotocol: str | None = None
        self.asked: Asked | None = None
        self.is_stopped = False

    def make(self, queue: Callable[[bytes], None]) -> ScriptedCore:
        self._queue = queue
        return self

    async def welcome(self, nursery: trio.Nursery, asked: Asked, reception: Reception) -> None:
        await trio.lowlevel.checkpoint()
        self.asked = asked
        if self._fault is not None:
            raise self._fault
        assert self._queue is not None
        self._queue(self._answer)

    async def judge(self, frame: OtherFrame) -> Message | None:
        raise AssertionError

    def stop(self) -> None:
        self.is_stopped = True


async def welcomed_by(core: ScriptedCore) -> tuple[BaseException, bytes]:
    class Scripted:
        async def accept(self, nursery: trio.Nursery, stream: trio.abc.Stream, reception: Reception) -> Link:
            return await accept_link(nursery, stream, reception, core.make)

    found = await turned_away(Scripted(), a_request())
    assert core.asked is not None
    assert core.is_stopped
    return found


async def test_what_a_core_finds_wrong_is_answered_400() -> None:
    error, answer = await welcomed_by(ScriptedCore(HandshakeFault("that is no request")))
    assert isinstance(error, Refused)
    assert (str(error), error.status) == ("that is no request", 400)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.endswith(b"\r\n\r\nthat is no request\n")


async def test_what_we_never_thought_of_closes_the_stream_all_the_same() -> None:
    bug = RuntimeError("a bug")
    error, answer = await welcomed_by(ScriptedCore(bug))
    assert error is bug
    assert answer == b""
