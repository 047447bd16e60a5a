"""Peers that are broken or mean it: each ends in the right error, soon, in bounded memory, and leaves nothing."""

import pickle
import tracemalloc
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pytest
import trio
from trio.testing import MockClock

from trio_wsprim import (
    ConnectionClosed,
    ConnectionFailed,
    ConnectionRejected,
    RetriesExhausted,
    WebSocket,
    WebSocketError,
    create_reconnecting_ws,
    create_ws,
)
from trio_wsprim.testing import Frame, MemoryNetwork, Opcode, Peer, encode_frame, peer_over
from trio_wsprim.testing import memory_stream_pair as pair

URL = "ws://example.test/"
Script: TypeAlias = Callable[[Peer], Awaitable[object]]


@dataclass
class Meeting:
    """How it went between a socket and a hostile peer.

    Attributes:
        error: What came out of the socket.
        messages: What the user got before it.
        took: Seconds from the dial to the socket's end.
        closed_with: The code of the close frame that the peer was sent, if it was sent one.
        dials: How often the socket dialled.
    """

    error: WebSocketError
    messages: list[str | bytes]
    took: float
    closed_with: int | None
    dials: int
    frames: list[Frame] = field(default_factory=list)


@asynccontextmanager
async def served(script: Script, **faults: Any) -> AsyncGenerator[tuple[MemoryNetwork, list[Peer]]]:
    """A network with a peer that follows a script on every connection."""
    network = MemoryNetwork(**faults)
    peers: list[Peer] = []

    async def serve(peer: Peer) -> None:
        with suppress(trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError):
            await script(peer)
        await peer.run_silent()  # with TCP left open

    async with trio.open_nursery() as nursery:

        async def accept() -> None:
            while True:
                peer = await network.accept()
                peers.append(peer)
                nursery.start_soon(serve, peer)

        nursery.start_soon(accept)
        yield network, peers
        nursery.cancel_scope.cancel()


async def use(ws: WebSocket, messages: list[str | bytes]) -> None:
    """Receive until something is raised; a normal end does not count as one."""
    await ws.wait_open()
    while True:
        messages.append(await ws.receive())


async def meet(script: Script, *, opener: Callable[..., Any] = create_ws, **options: Any) -> Meeting:
    """Let a socket and a peer meet, and check what holds for every such meeting."""
    messages: list[str | bytes] = []
    with trio.fail_after(1000):
        async with served(script) as (network, peers):
            started = trio.current_time()
            with pytest.raises(WebSocketError) as caught:
                async with opener(URL, open_stream=network.open_stream, **options) as ws:
                    await use(ws, messages)
            took = trio.current_time() - started
            await trio.sleep(1)  # for the peer to read what it was sent
            frames = peers[-1].frames if peers else []
    assert network.live == 0
    assert network.most_live == 1
    closes = [int.from_bytes(each.payload[:2]) for each in frames if each.opcode == Opcode.CLOSE]
    assert len(closes) <= 1
    assert not closes or frames[-1].opcode == Opcode.CLOSE
    error = caught.value
    check_is_ours(error)
    return Meeting(error, messages, took, closes[0] if closes else None, len(network.dials), frames)


def check_is_ours(error: BaseException) -> None:
    """What the user gets is of our own tree, says a sentence, and pickles."""
    assert type(error).__module__ == "trio_wsprim._errors"
    assert str(error)[0].islower()
    assert "\n" not in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def opened(*data: bytes) -> Script:
    """A peer that does the handshake well, and then says that."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.send_raw(b"".join(data))

    return script


def answering(*pieces: bytes, pause: float = 0.01, hang_up: bool = False) -> Script:
    """A peer that answers the request with these bytes."""

    async def script(peer: Peer) -> None:
        await peer.read_request()
        for piece in pieces:
            await peer.send_raw(piece)
            await trio.sleep(pause)
        if hang_up:
            peer.drop()

    return script


def forever(piece: bytes, pause: float = 0.0) -> Script:
    """A peer that says one thing again and again after the handshake, until the client is gone."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        while True:
            await peer.send_raw(piece)
            await trio.sleep(pause)

    return script


async def right_answer(peer: Peer) -> bytes:
    """What `Peer.accept` would say."""
    near, far = pair()
    scribe = peer_over(near)
    scribe.request = await peer.read_request()
    await scribe.accept()
    return await far.receive_some()


@contextmanager
def at_most(megabytes: float) -> Iterator[None]:
    """Fail if more memory than that is allocated at once."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < megabytes * 2**20


# --- before the handshake is done ---


@pytest.mark.parametrize("read_request", [False, True])
async def test_silence_after_tcp_is_a_timeout(read_request: bool, autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        if read_request:
            await peer.read_request()
        await trio.sleep_forever()

    meeting = await meet(script, connect_timeout=3)
    assert type(meeting.error) is ConnectionFailed
    assert isinstance(meeting.error.__cause__, trio.TooSlowError)
    assert meeting.took == 3


async def test_a_network_that_takes_nothing_is_a_timeout(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(buffer_size=1)
    with pytest.raises(ConnectionFailed):
        async with create_ws(URL, open_stream=network.open_stream, connect_timeout=3) as ws:
            await ws.wait_open()
    assert trio.current_time() == 3
    assert network.live == 0


async def test_a_peer_that_hangs_up_at_any_byte_of_its_answer_is_told_at_once(autojump_clock: MockClock) -> None:
    size = 0
    at = 0

    async def script(peer: Peer) -> None:
        nonlocal size
        answer = await right_answer(peer)
        size = len(answer)
        await peer.send_raw(answer[:at])
        peer.drop()

    while at <= size:
        meeting = await meet(script)
        expected = ConnectionFailed if at < size else ConnectionClosed
        assert type(meeting.error) is expected, at
        assert meeting.took == 0
        at += 1
    assert size > 100


async def test_a_peer_that_resets_at_any_byte_of_its_answer_is_told_at_once(autojump_clock: MockClock) -> None:
    size = at = 0

    async def script(peer: Peer) -> None:
        nonlocal size
        answer = await right_answer(peer)
        size = len(answer)
        await peer.send_raw(answer[:at])
        await trio.sleep(0.01)
        peer.reset()

    while at <= size:
        meeting = await meet(script)
        assert type(meeting.error) is (ConnectionFailed if at < size else ConnectionClosed), at
        assert meeting.took == pytest.approx(0.01)
        at += 7


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.6p1\r\n", id="SSH"),
        pytest.param(b"\x00" * 100, id="zeros"),
        pytest.param(b"\xff", id="one byte"),
        pytest.param(b"220 mail.example.test ESMTP\r\n", id="SMTP"),
        pytest.param(b"\x15\x03\x03\x00\x02\x02\x28", id="TLS alert"),
        pytest.param(b"HTTP/2.0 101 x\r\n", id="HTTP/2"),
        pytest.param(b"HTTP/1.1 abc\r\n", id="no status"),
        pytest.param(b"HTTP/1.1 101 x\r\nbad header\r\n\r\n", id="no colon"),
        pytest.param(b"HTTP/1.1 101 x\r\nX: a\0b\r\n\r\n", id="NUL"),
        pytest.param(b"ICY 200 OK\r\n\r\n", id="ICY"),
    ],
)
async def test_garbage_is_known_by_its_first_bytes(garbage: bytes, autojump_clock: MockClock) -> None:
    meeting = await meet(answering(garbage))
    assert type(meeting.error) is ConnectionFailed
    assert meeting.took == 0


async def test_a_banner_sent_before_our_request_is_garbage_too(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.send_raw(b"SSH-2.0-OpenSSH_9.6p1\r\n")

    meeting = await meet(script)
    assert type(meeting.error) is ConnectionFailed
    assert meeting.took == 0


def changed(old: bytes, new: bytes) -> Script:
    """A peer that gives the right answer but for one thing."""

    async def script(peer: Peer) -> None:
        answer = await right_answer(peer)
        assert old in answer
        await peer.send_raw(answer.replace(old, new))

    return script


WRONG_101 = {
    "HTTP/1.0": changed(b"HTTP/1.1", b"HTTP/1.0"),
    "no upgrade": changed(b"Upgrade: websocket\r\n", b""),
    "another upgrade": changed(b"Upgrade: websocket", b"Upgrade: h2c"),
    "no connection": changed(b"Connection: Upgrade\r\n", b""),
    "no accept key": changed(b"Sec-WebSocket-Accept", b"X-Accept"),
    "wrong accept key": changed(b"Sec-WebSocket-Accept: ", b"Sec-WebSocket-Accept: A"),
    "two accept keys": changed(b"Sec-WebSocket-Accept: ", b"Sec-WebSocket-Accept: A\r\nSec-WebSocket-Accept: "),
    "accept key not ASCII": changed(b"Sec-WebSocket-Accept: ", b"Sec-WebSocket-Accept: \xff"),
    "subprotocol": changed(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: unasked\r\n\r\n"),
    "subprotocol not ASCII": changed(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: \xff\r\n\r\n"),
    "subprotocol empty": changed(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: \r\n\r\n"),
    "extension": changed(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
    "extension not ASCII": changed(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: \xff\r\n\r\n"),
    "connection not ASCII": changed(b"Connection: Upgrade", b"Connection: \xff"),
    "upgrade not ASCII": changed(b"Upgrade: websocket", b"Upgrade: \xff"),
}


@pytest.mark.parametrize("script", WRONG_101.values(), ids=WRONG_101.keys())
@pytest.mark.parametrize("opener", [create_ws, create_reconnecting_ws])
async def test_a_wrong_101_fails_at_once_and_for_good(
    script: Script, opener: Callable[..., Any], autojump_clock: MockClock
) -> None:
    meeting = await meet(script, opener=opener)
    assert type(meeting.error) is ConnectionFailed
    assert meeting.took == 0
    assert meeting.dials == 1


@pytest.mark.parametrize(
    ("subprotocols", "chosen"), [(["a", "b"], "c"), (["a", "b"], "A"), (["a", "b"], "a, b"), (["a"], "")]
)
async def test_a_subprotocol_other_than_those_asked_for_fails(
    subprotocols: list[str], chosen: str, autojump_clock: MockClock
) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(chosen)

    meeting = await meet(script, subprotocols=subprotocols)
    assert type(meeting.error) is ConnectionFailed
    assert meeting.took == 0


async def test_headers_that_are_not_ascii_harm_nobody(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(headers=[("X-Name", "grüß"), ("Set-Cookie", "ÿ=\xa0")])
        await peer.send("fine")

    async with (
        served(script) as (network, peers),
        create_ws(URL, open_stream=network.open_stream) as ws,
    ):
        assert await ws.receive() == "fine"
        assert ("x-name", "grüß") in ws.response_headers
        peers[0].answer_close = True
        peers[0].drop()
        with pytest.raises(ConnectionClosed):
            await ws.receive()


async def test_early_hints_may_come_before_the_101(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        answer = await right_answer(peer)
        hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
        await peer.send_raw(hints)
        await trio.sleep(1)
        await peer.send_raw(hints + hints + answer + encode_frame(Opcode.TEXT, b"glued"))
        peer.drop()

    meeting = await meet(script)
    assert meeting.messages == ["glued"]
    assert type(meeting.error) is ConnectionClosed


async def test_endless_early_hints_are_a_timeout(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()
        while True:
            await peer.send_raw(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 100)
            await trio.sleep(0.1)

    with at_most(4):
        meeting = await meet(script, connect_timeout=3)
    assert type(meeting.error) is ConnectionFailed
    assert meeting.took == pytest.approx(3)


async def test_a_head_that_drips_is_bounded_by_the_attempts_time(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        for byte in (await right_answer(peer))[:-1]:
            await peer.send_raw(bytes([byte]))
            await trio.sleep(1)

    meeting = await meet(script, connect_timeout=5)
    assert type(meeting.error) is ConnectionFailed
    assert meeting.took == 5


async def test_a_head_of_a_megabyte_is_refused_at_64_kilobytes(autojump_clock: MockClock) -> None:
    with at_most(4):
        meeting = await meet(answering(b"HTTP/1.1 101 x\r\n", *[b"X-Filler: " + b"a" * 1000 + b"\r\n"] * 1000))
    assert type(meeting.error) is ConnectionFailed
    assert meeting.took < 1


# --- rejections ---


REJECTIONS = {
    "with a body": (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno", b"no", 0.0),
    "with half a body": (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\n\r\nno", b"no", 0.5),
    "chunked": (
        b"HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nn\r\n1\r\no\r\n0\r\n\r\n",
        b"no",
        0.0,
    ),
    "chunked without an end": (
        b"HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nn\r\n1\r\no\r\n",
        b"no",
        0.5,
    ),
    "chunked wrongly": (
        b"HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nn\r\n1\r\no\r\nxyz\r\n",
        b"no",
        0.0,
    ),
    "without a length": (b"HTTP/1.1 401 Unauthorized\r\n\r\nno", b"no", 0.5),
    "HTTP/1.0": (b"HTTP/1.0 401 Unauthorized\r\n\r\nno", b"no", 0.5),
    "without a reason": (b"HTTP/1.1 401\r\nContent-Length: 2\r\n\r\nno", b"no", 0.0),
}


@pytest.mark.parametrize(("answer", "body", "took"), REJECTIONS.values(), ids=REJECTIONS.keys())
@pytest.mark.parametrize("opener", [create_ws, create_reconnecting_ws])
async def test_a_rejection_is_told_whatever_its_body_does(
    answer: bytes, body: bytes, took: float, opener: Callable[..., Any], autojump_clock: MockClock
) -> None:
    meeting = await meet(answering(answer), opener=opener)
    assert isinstance(meeting.error, ConnectionRejected)
    assert (meeting.error.status, meeting.error.body) == (401, body)
    assert meeting.took == took
    assert meeting.dials == 1


async def test_an_endless_rejection_is_cut(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.send_raw(b"HTTP/1.1 401 Unauthorized\r\n\r\n")
        while True:
            await peer.send_raw(b"no" * 10_000)
            await trio.sleep(0.001)

    with at_most(4):
        meeting = await meet(script)
    assert isinstance(meeting.error, ConnectionRejected)
    assert len(meeting.error.body) == 65536
    assert meeting.took < 1


async def test_a_rejection_that_drips_for_ever_is_told_soon(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.send_raw(b"HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await peer.send_raw(b"1\r\na\r\n")
            await trio.sleep(0.1)

    meeting = await meet(script)
    assert isinstance(meeting.error, ConnectionRejected)
    assert meeting.took == 0.5


@pytest.mark.parametrize("status", [200, 204, 301, 302, 307, 400, 403, 404, 426])
async def test_other_answers_are_rejections_that_are_not_retried(status: int, autojump_clock: MockClock) -> None:
    answer = f"HTTP/1.1 {status} x\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n".encode()
    meeting = await meet(answering(answer), opener=create_reconnecting_ws)
    assert isinstance(meeting.error, ConnectionRejected)
    assert meeting.error.status == status
    assert (meeting.took, meeting.dials) == (0, 1)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 999])
async def test_answers_that_may_pass_are_retried(status: int, autojump_clock: MockClock) -> None:
    answer = f"HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n".encode()
    meeting = await meet(answering(answer), opener=create_reconnecting_ws, retries=2, delay=1.0)
    assert isinstance(meeting.error, RetriesExhausted)
    assert isinstance(meeting.error.__cause__, ConnectionRejected)
    assert (meeting.took, meeting.dials) == (2, 3)


@pytest.mark.parametrize("script", [answering(b"SSH-2.0-x\r\n"), answering(hang_up=True)])
async def test_what_may_be_another_program_on_that_port_is_retried(script: Script, autojump_clock: MockClock) -> None:
    meeting = await meet(script, opener=create_reconnecting_ws, retries=1, delay=1.0)
    assert isinstance(meeting.error, RetriesExhausted)
    assert type(meeting.error.__cause__) is ConnectionFailed
    assert meeting.dials == 2


# --- breaches of the protocol, with TCP left open ---


def text(payload: bytes, **flags: Any) -> bytes:
    return encode_frame(Opcode.TEXT, payload, **flags)


def rest(payload: bytes, **flags: Any) -> bytes:
    return encode_frame(Opcode.CONTINUATION, payload, **flags)


BREACHES: dict[str, tuple[bytes, int]] = {
    **{f"opcode {opcode}": (encode_frame(opcode, b"x"), 1002) for opcode in (*range(3, 8), *range(11, 16))},
    **{f"rsv {rsv}": (text(b"x", rsv=rsv), 1002) for rsv in (1, 2, 4, 7)},
    "rsv in a ping": (encode_frame(Opcode.PING, b"", rsv=4), 1002),
    "masked text": (text(b"x", masked=True), 1002),
    "masked close": (encode_frame(Opcode.CLOSE, b"\x03\xe8", masked=True), 1002),
    "fragmented ping": (encode_frame(Opcode.PING, b"", fin=False), 1002),
    "fragmented close": (encode_frame(Opcode.CLOSE, b"\x03\xe8", fin=False), 1002),
    "ping of 126 bytes": (encode_frame(Opcode.PING, bytes(126)), 1002),
    "pong of 70000 bytes": (encode_frame(Opcode.PONG, bytes(70_000)), 1002),
    "close of 126 bytes": (encode_frame(Opcode.CLOSE, b"\x03\xe8" + b"a" * 124), 1002),
    "2 bytes of length for 5": (b"\x81\x7e\x00\x05hello", 1002),
    "8 bytes of length for 5": (b"\x81\x7f" + (5).to_bytes(8) + b"hello", 1002),
    "8 bytes of length for 65535": (b"\x81\x7f" + (65535).to_bytes(8), 1002),
    "negative length": (b"\x81\x7f" + (2**63).to_bytes(8), 1002),
    "continuation of nothing": (rest(b"x"), 1002),
    "continuation after the last": (text(b"go", fin=False) + rest(b"od") + rest(b"c"), 1002),
    "text within a text": (text(b"a", fin=False) + text(b"b"), 1002),
    "binary within a text": (text(b"a", fin=False) + encode_frame(Opcode.BINARY, b"b", fin=False), 1002),
    "text not UTF-8": (text(b"a\xff"), 1007),
    "text with a surrogate": (text(b"\xed\xa0\x80"), 1007),
    "text with an overlong form": (text(b"\xc0\x80"), 1007),
    "text beyond Unicode": (text(b"\xf4\x90\x80\x80"), 1007),
    "text cut within a character": (text(b"\xe2\x82"), 1007),
    "fragment not UTF-8": (text(b"a", fin=False) + rest(b"\xff", fin=False), 1007),
    "fragments cut within a character": (text(b"\xe2", fin=False) + rest(b"\x82"), 1007),
    "reason not UTF-8": (encode_frame(Opcode.CLOSE, b"\x03\xe8\xff"), 1007),
    "close of one byte": (encode_frame(Opcode.CLOSE, b"\x03"), 1002),
    **{
        f"close {code}": (encode_frame(Opcode.CLOSE, code.to_bytes(2)), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    },
    "message over the limit": (encode_frame(Opcode.BINARY, bytes(1001)), 1009),
    "fragments over the limit": (text(b"a" * 600, fin=False) + rest(b"b" * 401), 1009),
    "few characters of many bytes": (text("€".encode() * 334), 1009),
    "few characters of many bytes in fragments": (text("€".encode() * 200, fin=False) + rest("€".encode() * 134), 1009),
    "1 GiB announced": (b"\x82\x7f" + (2**30).to_bytes(8), 1009),
    "1 GiB announced and begun": (b"\x82\x7f" + (2**30).to_bytes(8) + bytes(50_000), 1009),
    "2**63 - 1 announced": (b"\x82\x7f" + (2**63 - 1).to_bytes(8), 1009),
}


@pytest.mark.parametrize(("data", "code"), BREACHES.values(), ids=BREACHES.keys())
@pytest.mark.parametrize("opener", [create_ws, create_reconnecting_ws])
async def test_a_breach_ends_the_connection_soon_with_the_right_code_on_both_sides(
    data: bytes, code: int, opener: Callable[..., Any], autojump_clock: MockClock
) -> None:
    with at_most(4):
        meeting = await meet(opened(text(b"good"), data), opener=opener, max_message_bytes=1000)
    assert set(meeting.messages) == {"good"}
    assert type(meeting.error) is ConnectionClosed
    assert (meeting.error.code, meeting.error.clean) == (code, False)
    assert meeting.closed_with == code
    assert meeting.took < 1
    assert meeting.dials == 1


async def test_a_breach_in_single_bytes_is_the_same_breach(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        for byte in text(b"good") + text(b"bad", rsv=4):
            await peer.send_raw(bytes([byte]))
            await trio.sleep(0.1)

    meeting = await meet(script)
    assert meeting.messages == ["good"]
    assert (type(meeting.error), meeting.closed_with) == (ConnectionClosed, 1002)


@pytest.mark.parametrize("limit", [1000, 64 * 5000])
async def test_endless_empty_fragments_are_too_much(limit: int, autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.send_raw(text(b"", fin=False))
        while True:
            await peer.send_raw(rest(b"", fin=False) * 1000)
            await trio.sleep(0.001)  # or the clock would stand still, and with it all that waits for it

    with at_most(10):
        meeting = await meet(script, max_message_bytes=limit)
    assert type(meeting.error) is ConnectionClosed
    assert meeting.error.code == 1009
    assert meeting.took < 1


async def test_an_endless_message_is_cut_at_the_limit(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.send_raw(encode_frame(Opcode.BINARY, b"", fin=False))
        while True:
            await peer.send_raw(rest(bytes(50_000), fin=False))
            await trio.sleep(0.01)

    with at_most(10):
        meeting = await meet(script, max_message_bytes=2**20)
    assert type(meeting.error) is ConnectionClosed
    assert meeting.error.code == 1009
    assert meeting.took < 2


# --- close frames ---


async def test_messages_glued_to_a_close_are_delivered_before_it(autojump_clock: MockClock) -> None:
    close = encode_frame(Opcode.CLOSE, b"\x0f\xa0why")
    meeting = await meet(opened(text(b"a"), text(b"b", fin=False), rest(b"c"), close))
    assert meeting.messages == ["a", "bc"]
    assert type(meeting.error) is ConnectionClosed
    assert (meeting.error.code, meeting.error.reason, meeting.error.clean) == (4000, "why", True)
    assert meeting.closed_with == 4000
    assert meeting.took < 1


async def test_nothing_after_a_close_is_delivered(autojump_clock: MockClock) -> None:
    close = encode_frame(Opcode.CLOSE, b"\x0f\xa0")
    for late in (text(b"late"), encode_frame(Opcode.PING, b"late"), close, b"\xff\xff\xff", bytes(60_000)):
        meeting = await meet(opened(text(b"good"), close, late))
        assert meeting.messages == ["good"]
        assert type(meeting.error) is ConnectionClosed
        assert meeting.error.code == 4000
        assert [each.opcode for each in meeting.frames] == [Opcode.CLOSE]


async def test_frames_glued_to_the_101_arrive_also_when_a_close_is_among_them(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.send_raw(await right_answer(peer) + text(b"first") + encode_frame(Opcode.CLOSE, b"\x0f\xa0"))

    meeting = await meet(script)
    assert meeting.messages == ["first"]
    assert type(meeting.error) is ConnectionClosed
    assert meeting.error.code == 4000


async def test_a_peer_that_never_answers_our_close_is_left_in_time(autojump_clock: MockClock) -> None:
    async with (
        served(opened()) as (network, _),
        create_ws(URL, open_stream=network.open_stream, close_timeout=2) as ws,
    ):
        await ws.wait_open()
        started = trio.current_time()
        await ws.aclose()
        assert trio.current_time() - started <= 2.2
        assert network.live == 0
        assert not (await ws.wait_closed()).clean


# --- floods ---


async def test_a_ping_flood_from_a_peer_that_does_not_read_costs_no_memory(autojump_clock: MockClock) -> None:
    flood = b"".join(encode_frame(Opcode.PING, b"%0125d" % number) for number in range(400))

    async def script(peer: Peer) -> None:
        await peer.accept()
        for _ in range(5):
            await peer.send_raw(flood)
        await peer.send("alive")
        await trio.sleep_forever()

    async with served(script, buffer_size=4096) as (network, _):
        with at_most(4):
            async with create_ws(URL, open_stream=network.open_stream, close_timeout=2) as ws:
                assert await ws.receive() == "alive"
                assert ws.statistics().messages_received == 1
                started = trio.current_time()
                await ws.aclose()
                assert trio.current_time() - started <= 2.2
        assert network.live == 0


async def test_a_pong_flood_costs_no_memory(autojump_clock: MockClock) -> None:
    with at_most(4):
        meeting = await meet(opened(encode_frame(Opcode.PONG, b"x") * 20_000, encode_frame(Opcode.CLOSE, b"\x0f\xa0")))
    assert type(meeting.error) is ConnectionClosed
    assert meeting.error.code == 4000


async def test_leaving_a_flood_is_quick(autojump_clock: MockClock) -> None:
    async with served(forever(text(b"x") * 1000, pause=0.1)) as (network, _):
        with trio.move_on_after(3):
            async with create_ws(URL, open_stream=network.open_stream, close_timeout=2) as ws:
                async for _ in ws:
                    pass
        assert trio.current_time() == 3
        started = trio.current_time()
        async with create_ws(URL, open_stream=network.open_stream, close_timeout=2) as ws:
            await ws.receive()
        assert trio.current_time() - started <= 2.2
        assert network.live == 0


# --- a socket that dials again ---


async def test_a_reconnecting_socket_survives_a_row_of_hostile_peers(autojump_clock: MockClock) -> None:
    scripts: list[Script] = [
        answering(b"SSH-2.0-x\r\n"),
        answering(hang_up=True),
        answering(b"HTTP/1.1 503 Busy\r\nRetry-After: 3\r\n\r\nendless"),
        answering(b"HTTP/1.1 101 x\r\n", b"X: " + b"a" * 100_000),
        opened(text(b"one"), encode_frame(Opcode.CLOSE, b"\x03\xf3")),
        opened(text(b"two"), encode_frame(Opcode.CLOSE, b"\x03\xf6")),
        opened(text(b"three"), encode_frame(Opcode.CLOSE, b"")),
        opened(text(b"four")),
    ]

    async def next_script(peer: Peer) -> None:
        await scripts.pop(0)(peer)
        if len(scripts) == 1:
            await trio.sleep(0.1)

    async with served(next_script) as (network, peers):
        async with create_reconnecting_ws(URL, open_stream=network.open_stream, delay=1.0, close_timeout=1) as ws:
            assert [await ws.receive() for _ in range(4)] == ["one", "two", "three", "four"]
        assert network.live == 0
        assert network.most_live == 1
    assert len(peers) == 8
