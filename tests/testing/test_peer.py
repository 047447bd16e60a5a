"""The scripted peer does what it is told, and behaves like a server where it is not."""

import pickle
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import h11
import pytest
import trio
import trustme
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked
from wsproto import ConnectionType, WSConnection
from wsproto.connection import Connection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    TextMessage,
)
from wsproto.events import Request as ClientRequest

from trio_wsprim.testing import (
    Frame,
    MemoryNetwork,
    MemoryStream,
    Opcode,
    Peer,
    PeerClosed,
    Request,
    encode_frame,
    memory_stream_pair,
    peer_over,
)

# From RFC 6455, section 1.3.
KEY, ACCEPT = b"dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
HEAD = (
    b"GET /chat?room=1 HTTP/1.1\r\nHost: echo.test\r\nX-Twice:a\r\nx-twice: b \r\n"
    b"Sec-WebSocket-Key: " + KEY + b"\r\n\r\n"
)


def masked(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    return encode_frame(opcode, payload, fin=fin, rsv=rsv, masked=True)


def events_in(data: bytes | bytearray) -> list[Event]:
    """What a client that is not ours reads in frames."""
    connection = Connection(ConnectionType.CLIENT)
    connection.receive_data(bytes(data))
    return list(connection.events())


@pytest.fixture
def ends() -> tuple[MemoryStream, Peer]:
    """A client's raw stream, and the peer at the other end."""
    ours, theirs = memory_stream_pair()
    return ours, peer_over(theirs)


# --- frames as bytes ---


@given(
    payload=st.binary(max_size=300) | st.integers(126, 70000).map(bytes),
    opcode=st.integers(0, 15),
    fin=st.booleans(),
    rsv=st.integers(0, 7),
    is_masked=st.booleans(),
)
def test_every_frame_sent_is_the_frame_received(
    payload: bytes, opcode: int, fin: bool, rsv: int, is_masked: bool
) -> None:
    async def main() -> None:
        there, back = memory_stream_pair(buffer_size=2**20)
        sender, receiver = Peer(there), Peer(back)
        await sender.send_frame(opcode, payload, fin=fin, rsv=rsv, masked=is_masked)
        assert await receiver.receive_frame() == Frame(opcode, payload, fin, is_masked, rsv)
        assert receiver.unparsed == b""

    trio.run(main)


@pytest.mark.parametrize("size", [0, 125, 126, 2**16 - 1, 2**16])
def test_another_implementation_reads_our_frames(size: int) -> None:
    assert events_in(encode_frame(Opcode.BINARY, bytes(size))) == [BytesMessage(data=bytes(size))]


@pytest.mark.parametrize("size", [0, 125, 126, 2**16 - 1, 2**16])
async def test_frames_of_another_implementation_are_read(size: int, ends: tuple[MemoryStream, Peer]) -> None:
    stream, peer = ends
    message = bytes(range(256)) * (size // 256) + bytes(size % 256)
    data = Connection(ConnectionType.CLIENT).send(BytesMessage(data=message))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, data)
        assert await peer.receive() == message


async def test_frames_are_read_from_any_pieces(ends: tuple[MemoryStream, Peer]) -> None:
    stream, peer = ends

    async def trickle() -> None:
        for byte in masked(Opcode.TEXT, b"a" * 126) + masked(Opcode.PING):
            await stream.send_all(bytes([byte]))
            await wait_all_tasks_blocked()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trickle)
        assert await peer.receive_frame() == Frame(Opcode.TEXT, b"a" * 126)
        assert await peer.receive_frame() == Frame(Opcode.PING, b"")


# --- the handshake ---


async def test_a_request_is_told_as_it_was_sent(ends: tuple[MemoryStream, Peer]) -> None:
    stream, peer = ends
    await stream.send_all(HEAD)

    request = await peer.read_request()

    assert request == Request(
        "GET",
        "/chat?room=1",
        [
            ("host", "echo.test"),
            ("x-twice", "a"),
            ("x-twice", "b"),
            ("sec-websocket-key", KEY.decode()),
        ],
        HEAD,
    )
    assert request.header("x-twice") == "a"
    assert request.header("x-none") is None
    assert peer.request is request


async def test_a_request_may_come_in_pieces_and_reading_it_be_cancelled(
    ends: tuple[MemoryStream, Peer], autojump_clock: MockClock
) -> None:
    stream, peer = ends

    await stream.send_all(HEAD[:20])
    with trio.move_on_after(1):
        await peer.read_request()
    await stream.send_all(HEAD[20:] + masked(Opcode.TEXT, b"hasty"))

    assert (await peer.read_request()).raw == HEAD
    assert await peer.receive() == "hasty"


async def test_a_client_that_leaves_within_its_request_is_told(
    ends: tuple[MemoryStream, Peer],
) -> None:
    stream, peer = ends
    await stream.send_all(b"GET / HT")
    await stream.aclose()

    with pytest.raises(trio.EndOfChannel, match=r"^EOF, with 8 bytes left that are no whole$"):
        await peer.accept()

    assert peer.unparsed == b"GET / HT"


async def test_a_request_that_is_none_is_no_error(ends: tuple[MemoryStream, Peer]) -> None:
    stream, peer = ends
    await stream.send_all(b"garbage\r\n\r\n")
    assert await peer.read_request() == Request("garbage", "", [], b"garbage\r\n\r\n")


async def test_a_second_request_can_follow_the_first(ends: tuple[MemoryStream, Peer]) -> None:
    stream, peer = ends
    await stream.send_all(b"CONNECT echo.test:443 HTTP/1.1\r\n\r\n" + HEAD)
    assert (await peer.read_request()).path == "echo.test:443"
    assert (await peer.read_request()).path == "/chat?room=1"


async def test_accept_answers_101_with_the_right_key(ends: tuple[MemoryStream, Peer]) -> None:
    stream, peer = ends
    await stream.send_all(HEAD)

    request = await peer.accept()

    assert request is peer.request
    assert await stream.receive_some() == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + ACCEPT.encode() + b"\r\n\r\n"
    )


async def test_accept_may_lie(ends: tuple[MemoryStream, Peer]) -> None:
    stream, peer = ends
    await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
    await peer.read_request()

    await peer.accept("never.asked.for", [("X-More", "1")], accept_key="wrong")

    assert await stream.receive_some() == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: wrong\r\nSec-WebSocket-Protocol: never.asked.for\r\n"
        b"X-More: 1\r\n\r\n"
    )


async def test_accept_answers_even_a_request_without_a_key(
    ends: tuple[MemoryStream, Peer],
) -> None:
    stream, peer = ends
    await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
    await peer.accept()
    assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")


async def test_another_client_shakes_hands(ends: tuple[MemoryStream, Peer]) -> None:
    stream, peer = ends
    client = WSConnection(ConnectionType.CLIENT)
    await stream.send_all(client.send(ClientRequest(host="echo.test", target="/", subprotocols=["chat"])))

    await peer.accept("chat")
    await peer.send("welcome")

    client.receive_data(await stream.receive_some())
    accepted, welcome = client.events()
    assert isinstance(accepted, AcceptConnection)
    assert accepted.subprotocol == "chat"
    assert welcome == TextMessage(data="welcome")


async def test_another_client_is_rejected(ends: tuple[MemoryStream, Peer]) -> None:
    stream, peer = ends
    client = WSConnection(ConnectionType.CLIENT)
    await stream.send_all(client.send(ClientRequest(host="echo.test", target="/")))

    request = await peer.reject(503, [("Retry-After", "7")], b"come back later")

    assert request.method == "GET"
    client.receive_data(await stream.receive_some())
    rejected, *body = client.events()
    assert isinstance(rejected, RejectConnection)
    assert rejected.status_code == 503
    assert dict(rejected.headers) == {b"retry-after": b"7", b"content-length": b"15"}
    assert body == [
        RejectData(data=b"come back later", body_finished=False),
        RejectData(data=b"", body_finished=True),
    ]


@pytest.mark.parametrize(
    ("status", "reason", "line"),
    [
        (404, None, b"HTTP/1.1 404 Not Found"),
        (404, "No Such Room", b"HTTP/1.1 404 No Such Room"),
        (799, None, b"HTTP/1.1 799 "),
    ],
)
async def test_a_rejection_says_what_it_is_told(
    status: int, reason: str | None, line: bytes, ends: tuple[MemoryStream, Peer]
) -> None:
    stream, peer = ends
    await stream.send_all(HEAD)
    await peer.read_request()

    await peer.reject(status, [("content-length", "99")], b"short", reason=reason)

    assert await stream.receive_some() == line + b"\r\ncontent-length: 99\r\n\r\nshort"


async def test_a_rejection_is_http(ends: tuple[MemoryStream, Peer]) -> None:
    stream, peer = ends
    await stream.send_all(HEAD)
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "echo.test")]))

    await peer.reject(401)

    client.receive_data(await stream.receive_some())
    answer = client.next_event()
    assert isinstance(answer, h11.Response)
    assert (answer.status_code, answer.reason) == (401, b"Unauthorized")
    assert isinstance(client.next_event(), h11.EndOfMessage)


# --- sending ---


async def test_messages_and_control_frames_are_read_by_another_client(
    ends: tuple[MemoryStream, Peer],
) -> None:
    stream, peer = ends

    await peer.send("snö")
    await peer.send(b"\x00\xff")
    await peer.ping(b"are you there")
    await peer.pong(b"so am I")
    await peer.send_close(4001, "änd")

    assert events_in(await stream.receive_some()) == [
        TextMessage(data="snö"),
        BytesMessage(data=b"\x00\xff"),
        Ping(payload=b"are you there"),
        Pong(payload=b"so am I"),
        CloseConnection(code=4001, reason="änd"),
    ]


async def test_a_close_may_have_no_code(ends: tuple[MemoryStream, Peer]) -> None:
    stream, peer = ends
    await peer.send_close(None, "dropped")
    assert await stream.receive_some() == b"\x88\x00"


async def test_fragments_are_one_message_to_another_client(
    ends: tuple[MemoryStream, Peer],
) -> None:
    stream, peer = ends

    await peer.send_fragments(["", b"\xc3", b"\xa9", "!"])
    await peer.send_fragments([b"alone"])

    events = events_in(await stream.receive_some())
    assert [type(event) for event in events] == [TextMessage] * 4 + [BytesMessage]
    assert "".join(event.data for event in events if isinstance(event, TextMessage)) == "é!"


async def test_anything_can_be_sent(ends: tuple[MemoryStream, Peer]) -> None:
    stream, peer = ends
    await peer.send_frame(0xB, b"?", fin=False, rsv=5, masked=True)
    await peer.send_raw(b"half a fra")
    assert await stream.receive_some() == b"\x5b\x81\x37\xfa\x21\x3d\x08half a fra"


async def test_two_tasks_send_in_turn_and_tear_no_frame() -> None:
    stream, theirs = memory_stream_pair(buffer_size=10)
    peer, client = Peer(theirs), Peer(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.send, b"a" * 100)
        nursery.start_soon(peer.send, b"b" * 100)
        await wait_all_tasks_blocked()
        frames = [await client.receive_frame() for _ in range(2)]

    assert {frame.payload for frame in frames} == {b"a" * 100, b"b" * 100}


# --- receiving ---


async def test_fragments_become_one_message_around_pings(
    ends: tuple[MemoryStream, Peer],
) -> None:
    stream, peer = ends
    await stream.send_all(
        masked(Opcode.TEXT, b"\xc3", fin=False)
        + masked(Opcode.PING, b"now")
        + masked(Opcode.CONTINUATION, b"", fin=False)
        + masked(Opcode.PONG, b"unasked")
        + masked(Opcode.CONTINUATION, b"\xa9")
        + masked(Opcode.BINARY, b"next")
    )

    assert await peer.receive_all(2) == ["é", b"next"]

    assert events_in(await stream.receive_some()) == [Pong(payload=b"now")]
    assert (peer.pings, peer.pongs) == ([b"now"], [b"unasked"])
    assert [frame.opcode for frame in peer.frames] == [1, 9, 0, 10, 0, 2]


async def test_cancelling_a_receive_loses_no_fragment(
    ends: tuple[MemoryStream, Peer], autojump_clock: MockClock
) -> None:
    stream, peer = ends

    await stream.send_all(masked(Opcode.TEXT, b"one, ", fin=False))
    with trio.move_on_after(1):
        await peer.receive()
    await stream.send_all(masked(Opcode.CONTINUATION, b"two"))

    assert await peer.receive() == "one, two"


async def test_pings_are_ignored_on_demand(ends: tuple[MemoryStream, Peer]) -> None:
    stream, peer = ends
    peer.answer_pings = False
    await stream.send_all(masked(Opcode.PING, b"anyone?") + masked(Opcode.TEXT, b"hello"))

    assert await peer.receive() == "hello"
    peer.drop()

    assert peer.pings == [b"anyone?"]
    assert await stream.receive_some() == b""


@pytest.mark.parametrize(
    ("payload", "code", "reason", "answer"),
    [
        (b"\x0f\xa1b\xc3\xa9", 4001, "bé", b"\x88\x02\x0f\xa1"),
        (b"\x03\xe8\xff", 1000, "\ufffd", b"\x88\x02\x03\xe8"),
        (b"", None, "", b"\x88\x00"),
    ],
)
async def test_a_close_is_answered_with_its_code_and_told(
    payload: bytes,
    code: int | None,
    reason: str,
    answer: bytes,
    ends: tuple[MemoryStream, Peer],
) -> None:
    stream, peer = ends
    await stream.send_all(masked(Opcode.CLOSE, payload))

    with pytest.raises(PeerClosed) as caught:
        await peer.receive()

    assert (caught.value.code, caught.value.reason) == (code, reason)
    assert await stream.receive_some() == answer
    assert await stream.receive_some() == b""


async def test_a_close_is_left_unanswered_on_demand(ends: tuple[MemoryStream, Peer]) -> None:
    stream, peer = ends
    peer.answer_close = False
    await stream.send_all(masked(Opcode.CLOSE, b"\x03\xe8"))

    with pytest.raises(PeerClosed):
        await peer.receive()

    await peer.send("still here")
    assert events_in(await stream.receive_some()) == [TextMessage(data="still here")]


async def test_the_answer_to_our_own_close_is_not_answered(
    ends: tuple[MemoryStream, Peer],
) -> None:
    stream, peer = ends
    await peer.send_close(1001)
    await stream.send_all(masked(Opcode.CLOSE, b"\x03\xe9"))

    with pytest.raises(PeerClosed):
        await peer.receive()

    assert await stream.receive_some() == b"\x88\x02\x03\xe9"
    assert await stream.receive_some() == b""


async def test_what_a_client_sent_before_it_left_is_received(
    ends: tuple[MemoryStream, Peer],
) -> None:
    stream, peer = ends
    await stream.send_all(masked(Opcode.PING) + masked(Opcode.TEXT, b"bye"))
    await stream.send_all(masked(Opcode.CLOSE) + masked(Opcode.TEXT, b"cut")[:-1])
    await stream.aclose()

    assert await peer.receive() == "bye"
    with pytest.raises(PeerClosed):
        await peer.receive()


async def test_a_torn_frame_is_left_to_be_seen(ends: tuple[MemoryStream, Peer]) -> None:
    stream, peer = ends
    torn = masked(Opcode.TEXT, b"hello")[:-1]
    await stream.send_all(torn)
    await stream.aclose()

    with pytest.raises(trio.EndOfChannel):
        await peer.receive_frame()

    assert peer.unparsed == torn


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (encode_frame(Opcode.TEXT, b"bare"), "without a mask"),
        (masked(0x3), "reserved opcode"),
        (masked(Opcode.CONTINUATION), "out of order"),
        (masked(Opcode.TEXT, fin=False) + masked(Opcode.TEXT), "out of order"),
    ],
)
async def test_a_client_that_breaks_the_protocol_fails_the_test(
    data: bytes, match: str, ends: tuple[MemoryStream, Peer]
) -> None:
    stream, peer = ends
    await stream.send_all(data)
    with pytest.raises(AssertionError, match=match):
        await peer.receive()


def test_the_news_of_a_close_is_a_sentence_and_pickles() -> None:
    error = pickle.loads(pickle.dumps(PeerClosed(4000, "why")))
    assert (error.code, error.reason) == (4000, "why")
    assert str(error) == "the client sent a close frame with code 4000 and reason 'why'"


# --- whole scripts ---


@asynccontextmanager
async def echoing(peer: Peer) -> AsyncGenerator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.serve_echo)
        yield


async def test_echo_accepts_echoes_answers_and_closes(ends: tuple[MemoryStream, Peer]) -> None:
    stream, peer = ends
    async with echoing(peer):
        client = WSConnection(ConnectionType.CLIENT)
        await stream.send_all(client.send(ClientRequest(host="echo.test", target="/")))
        client.receive_data(await stream.receive_some())
        assert [type(event) for event in client.events()] == [AcceptConnection]

        exchanges: list[tuple[Event, Event]] = [
            (TextMessage(data="hi"), TextMessage(data="hi")),
            (BytesMessage(data=b"\0"), BytesMessage(data=b"\0")),
            (Ping(payload=b"?"), Pong(payload=b"?")),
            (CloseConnection(code=4000), CloseConnection(code=4000, reason="")),
        ]
        for sent, answer in exchanges:
            await stream.send_all(client.send(sent))
            client.receive_data(await stream.receive_some())
            assert list(client.events()) == [answer]

        assert await stream.receive_some() == b""


async def test_echo_does_not_accept_twice(ends: tuple[MemoryStream, Peer]) -> None:
    stream, peer = ends
    await stream.send_all(HEAD)
    await peer.accept()
    await stream.receive_some()

    async with echoing(peer):
        await stream.send_all(masked(Opcode.TEXT, b"hi"))
        assert events_in(await stream.receive_some()) == [TextMessage(data="hi")]
        await stream.send_eof()
        assert await stream.receive_some() == b""


@pytest.mark.parametrize("end", ["client closes", "client resets", "peer drops", "peer resets"])
async def test_echo_survives_every_end(end: str, ends: tuple[MemoryStream, Peer]) -> None:
    stream, peer = ends
    async with echoing(peer):
        await stream.send_all(HEAD)
        await wait_all_tasks_blocked()
        {
            "client closes": stream.close,
            "client resets": stream.reset,
            "peer drops": peer.drop,
            "peer resets": peer.reset,
        }[end]()


async def test_echo_fails_the_test_for_a_client_that_breaks_the_protocol(
    ends: tuple[MemoryStream, Peer],
) -> None:
    stream, peer = ends
    with pytest.RaisesGroup(AssertionError):
        async with echoing(peer):
            await stream.send_all(HEAD + encode_frame(Opcode.TEXT, b"bare"))


async def test_a_black_hole_reads_everything_and_says_nothing(
    ends: tuple[MemoryStream, Peer],
) -> None:
    stream, peer = ends
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.run_silent)
        await stream.send_all(HEAD + masked(Opcode.PING, b"anyone?"))
        await stream.send_all(masked(Opcode.CLOSE))
        for _ in range(10):
            await stream.send_all(masked(Opcode.BINARY, bytes(50000)))
        await stream.send_eof()

    assert len(peer.frames) == 12
    assert peer.pings == [b"anyone?"]
    peer.drop()
    assert await stream.receive_some() == b""


async def test_a_black_hole_ends_with_the_connection(ends: tuple[MemoryStream, Peer]) -> None:
    stream, peer = ends
    await stream.send_all(HEAD)
    await peer.read_request()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.run_silent)
        await wait_all_tasks_blocked()
        stream.reset()


async def test_a_peer_that_does_not_read_pushes_back(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(buffer_size=100)
    stream = await network.open_stream("echo.test", 80)
    peer = await network.accept()

    with trio.move_on_after(60) as scope:
        await stream.send_all(masked(Opcode.BINARY, bytes(200)))

    assert scope.cancelled_caught
    with trio.move_on_after(1):
        await peer.receive_frame()
    assert len(peer.unparsed) == 100


# --- ending ---


async def test_drop_lets_what_was_sent_arrive(ends: tuple[MemoryStream, Peer]) -> None:
    stream, peer = ends
    await peer.send("last")
    peer.drop()
    peer.drop()
    assert events_in(await stream.receive_some()) == [TextMessage(data="last")]
    assert await stream.receive_some() == b""
    with pytest.raises(trio.ClosedResourceError):
        await peer.receive_frame()


async def test_aclose_is_a_drop_and_a_checkpoint(ends: tuple[MemoryStream, Peer]) -> None:
    stream, peer = ends
    with trio.CancelScope() as scope:
        scope.cancel()
        await peer.aclose()
    assert scope.cancelled_caught
    assert await stream.receive_some() == b""


async def test_reset_destroys_what_was_sent(ends: tuple[MemoryStream, Peer]) -> None:
    stream, peer = ends
    await peer.send("lost")
    peer.reset()
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()


async def test_after_a_half_close_the_peer_still_hears(ends: tuple[MemoryStream, Peer]) -> None:
    stream, peer = ends
    await peer.half_close()
    assert await stream.receive_some() == b""
    await stream.send_all(masked(Opcode.PING) + masked(Opcode.TEXT, b"hi") + masked(Opcode.CLOSE))
    assert await peer.receive() == "hi"
    with pytest.raises(PeerClosed):
        await peer.receive()


async def test_a_stream_that_cannot_end_so_says_so() -> None:
    one_way, _ = trio.testing.memory_stream_one_way_pair()
    _, other_way = trio.testing.memory_stream_one_way_pair()
    peer = peer_over(trio.StapledStream(one_way, other_way))
    with pytest.raises(TypeError, match=r"^a StapledStream cannot be closed without waiting$"):
        peer.drop()


# --- over TLS and over sockets ---


AUTHORITY = trustme.CA()


def server_side(stream: trio.abc.Stream) -> trio.SSLStream[trio.abc.Stream]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("echo.test").configure_cert(context)
    return trio.SSLStream(stream, context, server_side=True)


def client_side(stream: trio.abc.Stream) -> trio.SSLStream[trio.abc.Stream]:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return trio.SSLStream(stream, context, server_hostname="echo.test")


async def test_a_peer_speaks_tls_over_the_network_in_memory() -> None:
    network = MemoryNetwork()
    client = client_side(await network.open_stream("echo.test", 443))
    peer = peer_over(server_side((await network.accept()).stream))

    async with echoing(peer):
        await client.send_all(HEAD)
        assert (await client.receive_some()).startswith(b"HTTP/1.1 101 ")
        await client.send_all(masked(Opcode.TEXT, b"secret"))
        assert events_in(await client.receive_some()) == [TextMessage(data="secret")]
        await client.aclose()

    assert network.live == 0


async def test_tls_can_be_dropped_without_its_goodbye_and_not_half_closed() -> None:
    network = MemoryNetwork()
    client = client_side(await network.open_stream("echo.test", 443))
    peer = peer_over(server_side((await network.accept()).stream))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(peer.send, "hi")
    assert await client.receive_some() == b"\x81\x02hi"

    with pytest.raises(TypeError, match=r"^a SSLStream cannot be half-closed$"):
        await peer.half_close()
    peer.drop()

    with pytest.raises(trio.BrokenResourceError):
        await client.receive_some()
    await trio.aclose_forcefully(client)


@asynccontextmanager
async def over_tcp() -> AsyncGenerator[tuple[trio.SocketStream, Peer]]:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        host, port = listener.socket.getsockname()
        client = await trio.open_tcp_stream(host, port)
        async with client, await listener.accept() as served:
            yield client, peer_over(served)


async def test_a_peer_echoes_over_a_socket() -> None:
    async with over_tcp() as (client, peer), echoing(peer):
        await client.send_all(HEAD)
        assert (await client.receive_some()).startswith(b"HTTP/1.1 101 ")
        await client.send_all(masked(Opcode.TEXT, b"hi"))
        assert events_in(await client.receive_some()) == [TextMessage(data="hi")]
        await client.send_all(masked(Opcode.CLOSE))
        assert await client.receive_some() == b"\x88\x00"
        assert await client.receive_some() == b""


async def test_a_socket_is_dropped_with_eof() -> None:
    async with over_tcp() as (client, peer):
        await peer.send("last")
        peer.drop()
        assert await client.receive_some() == b"\x81\x04last"
        assert await client.receive_some() == b""
        with pytest.raises(trio.ClosedResourceError):
            await peer.send("more")


async def test_a_socket_is_reset_with_an_error() -> None:
    async with over_tcp() as (client, peer):
        peer.reset()
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()
