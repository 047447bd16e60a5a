"""With the lane a link finds what the core alone finds, and over both libraries the same, whatever a peer sends.

A decoder without a lane leaves every frame to the core: the slow link that one with a lane must match.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain, cycle, pairwise
from typing import Final, TypeAlias, final

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.roles import Swap
from tests.transports.cores import answer_to, asked
from tests.wires import read_frames
from trio_wsprim import ConnectionClosed
from trio_wsprim._frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT
from trio_wsprim._lane import FrameDecoder
from trio_wsprim._seam import Incoming, Upgrade
from trio_wsprim.testing import encode_frame
from trio_wsprim.transports._link import LaneLink
from trio_wsprim.transports._outgoing import OutgoingSide
from trio_wsprim.transports._trio_websocket_core import TrioWebsocketCore
from trio_wsprim.transports._websockets_core import WebsocketsCore

AnyCore: TypeAlias = TrioWebsocketCore | WebsocketsCore
MakeCore: TypeAlias = Callable[[Callable[[bytes], None]], AnyCore]

CORES: Final[tuple[MakeCore, ...]] = (TrioWebsocketCore, WebsocketsCore)

# --- what a server sends; a client, the same with masks ---

sizes = st.integers(0, 300) | st.sampled_from([125, 126, 2**15, 2**15 + 1, 2**16 - 1, 2**16, 70_000])
words = st.text(max_size=20).map(str.encode)
payloads = st.binary(max_size=40) | sizes.map(bytes) | words
# All of it text, or all but its last character, or none of it.
texts = st.one_of(
    words,
    words,
    sizes.map(lambda size: ("é" * (size // 2)).encode()),
    st.builds(lambda size, tail: b"x" * size + tail, sizes, st.sampled_from([b"\xff", b"\xc3", b"\xed\xa0\x80"])),
)
small = st.binary(max_size=125)


@st.composite
def fragments(draw: st.DrawFn) -> list[bytes]:
    """One message in pieces, at times with control frames between them, at times cut inside a character."""
    opcode = draw(st.sampled_from([TEXT, BINARY]))
    whole = draw(texts if opcode == TEXT else payloads)
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), min_size=1, max_size=3)))
    parts = [whole[begin:end] for begin, end in pairwise([0, *cuts, len(whole)])]
    frames: list[bytes] = []
    for number, part in enumerate(parts):
        is_last = number == len(parts) - 1
        frames.append(encode_frame(CONTINUATION if number else opcode, part, fin=is_last))
        if not is_last and draw(st.booleans()):
            frames.append(encode_frame(draw(st.sampled_from([PING, PONG])), draw(small)))
    return frames


def alone(frame: bytes) -> list[bytes]:
    return [frame]


goods = st.one_of(
    st.builds(encode_frame, st.just(TEXT), words).map(alone),
    st.builds(encode_frame, st.just(BINARY), payloads).map(alone),
    st.builds(encode_frame, st.sampled_from([PING, PONG]), small).map(alone),
    fragments(),
)


def with_length(opcode: int, form: int, size: int) -> bytes:
    """A frame whose length takes more bytes than it needs, or more than there are."""
    return bytes([0x80 | opcode, form]) + size.to_bytes(2 if form == 126 else 8) + bytes(min(size, 1000))


faults = st.one_of(
    st.builds(encode_frame, st.just(TEXT), texts),
    st.builds(encode_frame, st.integers(0, 15), small, fin=st.booleans(), rsv=st.integers(0, 7), masked=st.booleans()),
    st.builds(encode_frame, st.sampled_from([TEXT, BINARY, CONTINUATION]), small, fin=st.booleans()),
    st.builds(encode_frame, st.sampled_from([PING, PONG, CLOSE]), sizes.map(bytes)),
    st.builds(with_length, st.sampled_from([TEXT, BINARY, PING]), st.just(126), st.integers(0, 2**16 - 1)),
    st.builds(
        with_length,
        st.sampled_from([TEXT, BINARY, CONTINUATION]),
        st.just(127),
        st.integers(0, 2**64 - 1) | st.integers(0, 2**17),
    ),
    st.builds(
        lambda code, reason: encode_frame(CLOSE, (code.to_bytes(2) + reason)[:125]),
        st.integers(900, 5100) | st.integers(0, 2**16 - 1),
        words | st.just(b"\xff"),
    ),
    st.sampled_from([encode_frame(CLOSE, b""), encode_frame(CLOSE, b"\x03")]),
    st.binary(max_size=10),
).map(alone)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Frames of which most are good, at times with one byte that is not what it was, at times torn."""
    groups = draw(st.lists(st.one_of(goods, goods, goods, faults), max_size=8))
    data = bytearray(b"".join(chain.from_iterable(groups)))
    if data and draw(st.integers(0, 3)) == 0:
        place = draw(st.integers(0, 400)) % len(data)
        data[place] ^= draw(st.integers(1, 255))
    if draw(st.integers(0, 3)) == 0:
        del data[len(data) - draw(st.integers(0, 200)) :]
    return bytes(data)


reads = st.lists(st.integers(1, 40) | st.sampled_from([1, 2, 3, 1000, 2**15, 2**16]), min_size=1, max_size=12)
limits = st.sampled_from([None, None, 2**20, 2**16, 2**15, 300, 125, 20])


def pieces_of(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut it into reads of those sizes, over and over."""
    pieces: list[bytes] = []
    turn = cycle(sizes)
    # Bytes that drip in one by one are as good as any in the first few hundred, and slow from then on.
    while data:
        size = max(next(turn), len(data) // 200)
        pieces.append(data[:size])
        data = data[size:]
    return pieces


# --- what comes of it ---


@final
class PiecesWire:
    """Reads come in those pieces, and then the end; whatever is written goes.

    Args:
        goes_into: Whether reads go into memory that is given, where it is.
    """

    is_direct = True
    holds = False

    def __init__(self, pieces: list[bytes], goes_into: bool) -> None:
        self._pieces = deque(pieces)
        self._goes_into = goes_into
        self.written = bytearray()
        self.heard_at = self.moved_at = 0.0

    async def receive_some(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._pieces.popleft() if self._pieces else b""

    async def receive_into(self, room: memoryview) -> int | None:
        if not self._goes_into:
            return None
        piece = await self.receive_some()
        size = min(len(piece), len(room))
        room[:size] = piece[:size]
        if piece[size:]:
            self._pieces.appendleft(piece[size:])
        return size

    def write_now(self, data: bytes | memoryview) -> int:
        self.written += data
        return len(data)

    async def write(self, data: bytes | memoryview) -> int:
        await trio.lowlevel.checkpoint()
        return self.write_now(data)

    def interrupt(self) -> None:
        pass

    async def abort(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a user gets, and what the server gets in return.

    Attributes:
        code: Of the end. The words of a breach are each library's own.
    """

    items: list[Incoming]
    code: int
    reason: str
    is_breach: bool
    is_clean: bool
    pongs: list[bytes]
    close: bytes


async def shake_hands(nursery: trio.Nursery, core: AnyCore, wire: PiecesWire, limit: int | None, role: str) -> None:
    if role != "client":
        offers = [("sec-websocket-extensions", "permessage-deflate")] if role == "deflate server" else []
        await core.welcome(nursery, *asked(*offers, max_message_bytes=limit))
        assert core.is_compressed is (role == "deflate server")
    else:
        await core.ask(nursery, Upgrade(host="example.test", resource="/", max_message_bytes=limit))
        await core.check(await answer_to(bytes(wire.written)))
    wire.written.clear()


async def find(make_core: MakeCore, data: bytes, reads: list[int], limit: int | None, way: str, role: str) -> Outcome:
    """Receive all that comes over a link, and close it."""
    is_server = role != "client"
    wire = PiecesWire(pieces_of(Swap()(data) if is_server else data, reads), goes_into=way == "lane, into memory")
    async with trio.open_nursery() as nursery:
        outgoing = OutgoingSide(wire, nursery, masks=not is_server)
        core = make_core(outgoing.queue)
        await shake_hands(nursery, core, wire, limit, role)
        decoder = FrameDecoder(limit, has_lane=way != "core alone", masked=is_server, compressed=core.is_compressed)
        link = LaneLink(wire, core, outgoing, (), decoder, is_server=is_server)
        items: list[Incoming] = []
        with pytest.raises(ConnectionClosed) as caught:
            while True:
                items += await link.receive()
        assert caught.value.code == link.ending.code
        await link.aclose(1000, "")
        await link.abort()
        nursery.cancel_scope.cancel()
    frames, rest = await read_frames(wire.written)
    assert rest == b""
    assert all(frame.masked is not is_server for frame in frames)
    closes = [frame.payload for frame in frames if frame.opcode == CLOSE]
    pongs = [frame.payload for frame in frames if frame.opcode == PONG]
    assert len(closes) + len(pongs) == len(frames)
    assert len(closes) <= 1
    is_breach = link.ending.is_breach
    return Outcome(
        items,
        link.ending.code,
        "" if is_breach else link.ending.reason,
        is_breach,
        link.ending.clean,
        pongs,
        b"".join(closes)[: 2 if is_breach else None],
    )


def found(make_core: MakeCore, data: bytes, reads: list[int], limit: int | None, way: str, role: str) -> Outcome:
    return trio.run(find, make_core, data, reads, limit, way, role)


frames_and_reads: Callable[[Callable[..., None]], Callable[..., None]] = given(
    data=streams(), reads=reads, limit=limits
)


roles = pytest.mark.parametrize("role", ["client", "server"])


@roles
@pytest.mark.parametrize("make_core", CORES)
@settings(max_examples=100)
@frames_and_reads
@example(data=encode_frame(TEXT, b"\xff"), reads=[1], limit=None)
@example(data=encode_frame(TEXT, b"x" * 70_000 + b"\xff") + encode_frame(PING, b""), reads=[1000], limit=None)
@example(data=encode_frame(BINARY, bytes(20)) + encode_frame(BINARY, bytes(21)), reads=[5], limit=20)
@example(data=b"\x82\x7f" + (2**63).to_bytes(8) + encode_frame(PING, b"?"), reads=[2**16], limit=None)
def test_the_lane_finds_what_the_core_alone_finds(
    make_core: MakeCore, role: str, data: bytes, reads: list[int], limit: int | None
) -> None:
    expected = found(make_core, data, reads, limit, "core alone", role)
    assert found(make_core, data, reads, limit, "lane", role) == expected
    assert found(make_core, data, reads, limit, "lane, into memory", role) == expected


@roles
@settings(max_examples=120)
@frames_and_reads
def test_both_libraries_find_the_same_behind_the_lane(
    role: str, data: bytes, reads: list[int], limit: int | None
) -> None:
    assert_alike(*(found(make_core, data, reads, limit, "lane, into memory", role) for make_core in CORES))


@pytest.mark.parametrize("make_core", CORES)
@settings(max_examples=100)
@frames_and_reads
def test_a_server_finds_behind_masks_what_a_client_finds_without(
    make_core: MakeCore, data: bytes, reads: list[int], limit: int | None
) -> None:
    assert_alike(*(found(make_core, data, reads, limit, "lane", role) for role in ("client", "server")))


def assert_alike(one: Outcome, other: Outcome) -> None:
    if one.code == 1002:
        # Of a malformed frame all that came is shown to the library, which may take a ping behind it for one.
        assert (one.items, one.code, one.is_breach, one.close) == (
            other.items,
            other.code,
            other.is_breach,
            other.close,
        )
    else:
        assert one == other


@roles
@pytest.mark.parametrize("make_core", CORES)
@settings(max_examples=60)
@given(data=streams(), reads=reads, others=reads, limit=limits)
def test_how_it_is_cut_does_not_matter_to_what_is_found(
    make_core: MakeCore, role: str, data: bytes, reads: list[int], others: list[int], limit: int | None
) -> None:
    one = found(make_core, data, reads, limit, "lane, into memory", role)
    other = found(make_core, data, others, limit, "lane", role)
    assert (one.items, one.code, one.reason, one.is_breach, one.close) == (
        other.items,
        other.code,
        other.reason,
        other.is_breach,
        other.close,
    )


# --- with compression ---


@st.composite
def compressed_streams(draw: st.DrawFn) -> bytes:
    """Messages of which some are compressed, some of those in fragments, and other frames; all of them good."""
    compressor, frames = zlib.compressobj(wbits=-15), list[bytes]()
    for _ in range(draw(st.integers(0, 8))):
        if draw(st.booleans()):
            frames += draw(goods)
            continue
        opcode = draw(st.sampled_from([TEXT, BINARY]))
        whole = draw(words if opcode == TEXT else payloads)
        data = (compressor.compress(whole) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")
        cut = draw(st.integers(0, len(data)))
        is_whole = draw(st.booleans())
        frames.append(encode_frame(opcode, data if is_whole else data[:cut], rsv=4, fin=is_whole))
        if not is_whole:
            frames += [encode_frame(PING, b"between"), encode_frame(CONTINUATION, data[cut:])]
    return b"".join(frames)


@settings(max_examples=100)
@given(data=compressed_streams(), reads=reads, limit=limits)
def test_with_compression_the_lane_finds_what_the_core_alone_finds(
    data: bytes, reads: list[int], limit: int | None
) -> None:
    make_core = partial(WebsocketsCore, compresses=True)
    expected = found(make_core, data, reads, limit, "core alone", "deflate server")
    assert found(make_core, data, reads, limit, "lane", "deflate server") == expected
    assert found(make_core, data, reads, limit, "lane, into memory", "deflate server") == expected
