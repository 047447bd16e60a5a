"""What is particular to the transport over `websockets`; what all promise is in `tests/contract`."""

from __future__ import annotations

import logging
import zlib
from contextlib import suppress
from itertools import pairwise
from random import Random
from typing import Literal

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked
from websockets.exceptions import InvalidHandshake

from trio_wsprim import ConnectionClosed, ConnectionFailed, TrioWebsocketTransport, WebsocketsTransport, create_ws
from trio_wsprim.abc import Ending, Incoming, Link, Pong, Transport, Upgrade
from trio_wsprim.testing import Frame, MemoryNetwork, Opcode, Peer, encode_frame

UPGRADE = Upgrade(host="example.test", resource="/", subprotocols=("chat",), max_message_bytes=2000)
DEFLATE = "permessage-deflate"


async def connect(nursery: trio.Nursery, network: MemoryNetwork, transport: Transport) -> Link:
    stream = await network.open_stream("example.test", 80)
    return await transport.connect(nursery, stream, UPGRADE)


async def accept(peer: Peer, extension: str | None) -> None:
    await peer.accept(None, [] if extension is None else [("Sec-WebSocket-Extensions", extension)])


# --- the handshake ---


@pytest.mark.parametrize(
    ("accept_key", "header"),
    [
        ("c2VjcmV0", ("X-Name", "value")),
        (None, ("Sec-WebSocket-Extensions", "s3cret")),
        (None, ("Sec-WebSocket-Extensions", f"{DEFLATE}; s3cret=1")),
        (None, ("Sec-WebSocket-Extensions", f"{DEFLATE}, {DEFLATE}")),
    ],
)
async def test_a_101_that_is_none_fails_for_good_and_is_not_quoted(
    accept_key: str | None, header: tuple[str, str], autojump_clock: MockClock
) -> None:
    network = MemoryNetwork()
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                await (await network.accept()).accept(None, [header], accept_key=accept_key)

            nursery.start_soon(serve)
            with pytest.raises(ConnectionFailed, match="the server's 101 is no WebSocket handshake: ") as caught:
                await connect(nursery, network, WebsocketsTransport(compression="deflate"))
    assert network.live == 0
    assert caught.value.permanent
    assert "s3cret" not in str(caught.value)
    assert isinstance(caught.value.__cause__, InvalidHandshake)


async def test_the_server_may_leave_out_what_was_asked_for(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    transport = WebsocketsTransport(compression="deflate")
    async with create_ws("ws://example.test/", open_stream=network.open_stream, transport=transport) as ws:
        peer = await network.accept()
        assert (await peer.read_request()).header("sec-websocket-extensions") == f"{DEFLATE}; client_max_window_bits"
        await peer.accept()
        await ws.send("plain")
        assert await peer.receive_frame() == Frame(Opcode.TEXT, b"plain")


async def test_without_compression_no_extension_is_named(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with create_ws("ws://example.test/", open_stream=network.open_stream, transport=WebsocketsTransport()):
        assert (await (await network.accept()).read_request()).header("sec-websocket-extensions") is None


# --- logs ---


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_nothing_of_ours_reaches_any_log_even_where_all_are_wanted(
    compression: Literal["deflate"] | None, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for answer, data in ((101, b"\xc1\x01\xff"), (101, b"\x83\x00"), (101, b"\x81\x01\xff"), (403, b"")):
        network = MemoryNetwork()
        with suppress(ConnectionFailed, ConnectionClosed):
            async with create_ws(
                "ws://user:s3cret@example.test/",
                open_stream=network.open_stream,
                headers=[("X-Key", "s3cret")],
                transport=WebsocketsTransport(compression=compression),
            ) as ws:
                peer = await network.accept()
                if answer == 101:
                    await accept(peer, compression and DEFLATE)
                else:
                    await peer.reject(answer)
                await ws.wait_open()
                await ws.send("s3cret")
                await peer.ping(b"s3cret")
                await peer.send_raw(data)
                await ws.receive()
        assert peer.request is not None
        assert peer.request.header("authorization") is not None
    assert [each for each in caplog.records if not each.name.startswith("trio_wsprim")] == []
    assert "s3cret" not in caplog.text


# --- whatever a peer says ---


frames = st.builds(
    encode_frame,
    st.integers(0, 15),
    st.binary(max_size=130),
    fin=st.booleans(),
    rsv=st.sampled_from([0, 0, 0, 0, 4]),
    masked=st.sampled_from([False, False, False, True]),
)
good_frames = st.builds(
    lambda text, fin, opcode: encode_frame(opcode, text.encode(), fin=fin or opcode > 8),
    st.text(max_size=30),
    st.booleans(),
    st.sampled_from([0, 1, 2, 9, 10]),
)


def compress(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")


compressed_frames = st.builds(
    lambda opcode, data, fin: encode_frame(opcode, compress(data), fin=fin, rsv=4 if opcode else 0),
    st.integers(0, 2),
    st.binary(max_size=130) | st.integers(0, 2000).map(bytes) | st.text(max_size=50).map(str.encode),
    st.booleans(),
)
streams = st.lists(frames | good_frames | st.binary(max_size=20), max_size=12).map(b"".join)
compressed_streams = st.lists(compressed_frames | frames | good_frames, max_size=12).map(b"".join)


def hear(transport: Transport, data: bytes, cut: int, extension: str | None = None) -> tuple[list[Incoming], Ending]:
    """Have a peer say that in pieces and hang up; what came in, and how it ended."""

    async def main() -> tuple[list[Incoming], Ending]:
        network = MemoryNetwork()
        found: list[Incoming] = []
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                peer = await network.accept()
                await accept(peer, extension)
                with suppress(trio.BrokenResourceError):
                    for at in range(0, len(data), cut):
                        await peer.send_raw(data[at : at + cut])
                    await wait_all_tasks_blocked()
                await peer.half_close()
                await read_all(peer)

            nursery.start_soon(serve)
            link = await connect(nursery, network, transport)
            with pytest.raises(ConnectionClosed) as caught:
                while True:
                    found += await link.receive()
            await link.aclose(1000, "")
            await link.abort()
            assert (caught.value.code, caught.value.reason) == (link.ending.code, link.ending.reason)
            nursery.cancel_scope.cancel()
        assert network.live == 0
        return found, link.ending

    return trio.run(main, clock=MockClock(autojump_threshold=0))


async def read_all(peer: Peer) -> None:
    """Read what a client says, which must be well-formed to the end."""
    with suppress(trio.EndOfChannel):
        while True:
            frame = await peer.receive_frame()
            assert frame.masked
            assert frame.opcode in {Opcode.PONG, Opcode.CLOSE}
    assert peer.unparsed == b""


@given(data=compressed_streams, cut=st.integers(1, 50), extension=st.sampled_from([None, DEFLATE]))
def test_whatever_a_peer_says_ends_in_messages_and_one_error(data: bytes, cut: int, extension: str | None) -> None:
    found, ending = hear(WebsocketsTransport(compression="deflate"), data, cut, extension)
    assert all(isinstance(each, str | bytes | Pong) for each in found)
    assert ending.code in {1002, 1006, 1007, 1009} or not ending.is_breach


texts = st.builds(
    lambda alphabet, size, seed: "".join(Random(seed).choices(alphabet, k=size)),
    st.sampled_from(["ab", "abcdefghij", "€ä x", "".join(map(chr, range(32, 127)))]),
    st.integers(0, 600),
    st.integers(0, 10),
)


@given(
    messages=st.lists(texts | texts.map(str.encode), max_size=6),
    cuts=st.lists(st.integers(0, 200), max_size=4),
    takes_over=st.booleans(),
)
@example(messages=["".join(Random(3).choices("abcdefghij", k=600))], cuts=[7], takes_over=True)
def test_compressed_messages_come_in_whatever_fragments_they_come_in(
    messages: list[str | bytes], cuts: list[int], takes_over: bool
) -> None:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    data = b""
    for message in messages:
        if not takes_over:
            compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        plain = message.encode() if isinstance(message, str) else message
        payload = compressor.compress(plain) + compressor.flush(zlib.Z_SYNC_FLUSH)
        places = sorted({0, *cuts, len(payload) - 4})
        opcode = Opcode.TEXT if isinstance(message, str) else Opcode.BINARY
        for start, stop in pairwise(places):
            if stop <= len(payload) - 4:
                data += encode_frame(opcode, payload[start:stop], fin=stop == len(payload) - 4, rsv=0 if start else 4)
                opcode = Opcode.CONTINUATION
    extension = DEFLATE if takes_over else f"{DEFLATE}; server_no_context_takeover"
    found, ending = hear(WebsocketsTransport(compression="deflate"), data, 1000, extension)
    assert found == messages
    assert ending == Ending(1006, "", clean=False)


@given(data=streams, cut=st.integers(1, 50))
def test_whatever_a_peer_says_both_transports_hear_the_same(data: bytes, cut: int) -> None:
    found, ending = hear(WebsocketsTransport(), data, cut)
    others, other_ending = hear(TrioWebsocketTransport(), data, cut)
    assert found == others
    assert (ending.code, ending.clean, ending.is_breach) == (
        other_ending.code,
        other_ending.clean,
        other_ending.is_breach,
    )
