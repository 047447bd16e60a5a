"""Both libraries as a server's core: what they answer, how they judge what clients send, and that they mask nothing."""

from __future__ import annotations

import logging
import zlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

import pytest
import trio
from trio.testing import MockClock

from tests.roles import Swap
from tests.transports.cores import ACCEPT_KEY, asked, cut, read_frames, read_request
from trio_wsprim._frames import COMPRESSED, CONTINUATION, FIN, TEXT
from trio_wsprim._seam import Reception
from trio_wsprim.testing import Frame, Opcode, encode_frame
from trio_wsprim.transports._asked import Asked
from trio_wsprim.transports._handshake import HandshakeFault
from trio_wsprim.transports._link import Breach
from trio_wsprim.transports._trio_websocket_core import TrioWebsocketCore
from trio_wsprim.transports._websockets_core import WebsocketsCore

Core: TypeAlias = TrioWebsocketCore | WebsocketsCore
DEFLATE = ("sec-websocket-extensions", "permessage-deflate")


def compressing(queue: Callable[[bytes], None]) -> WebsocketsCore:
    return WebsocketsCore(queue, compresses=True)


CORES = [TrioWebsocketCore, WebsocketsCore, compressing]


@pytest.fixture(params=CORES, ids=["trio-websocket", "websockets", "deflate"])
def make_core(request: pytest.FixtureRequest) -> Callable[[Callable[[bytes], None]], Core]:
    given: Callable[[Callable[[bytes], None]], Core] = request.param
    return given


@asynccontextmanager
async def welcoming(
    make_core: Callable[[Callable[[bytes], None]], Core], given: tuple[Asked, Reception] | None = None
) -> AsyncGenerator[tuple[Core, list[bytes]]]:
    """A core that has welcomed a client, and what it wants sent; no task may be left when it is stopped."""
    written: list[bytes] = []
    core = make_core(written.append)
    async with trio.open_nursery() as nursery:
        await core.welcome(nursery, *(given or asked()))
        yield core, written
        core.stop()


def masked(*frames: bytes) -> bytes:
    return Swap()(b"".join(frames))


async def judge_all(core: Core, data: bytes, *, compressed: bool = False) -> list[str | bytes]:
    found = [await core.judge(frame) for frame in cut(data, masked=True, compressed=compressed)]
    return [message for message in found if message is not None]


# --- the handshake ---


@pytest.mark.parametrize(
    ("ours", "theirs", "chosen"), [((), (), None), (("b", "a"), ("a", "b"), "b"), (("c",), ("a",), None)]
)
async def test_a_client_is_welcomed_with_one_answer(
    ours: tuple[str, ...],
    theirs: tuple[str, ...],
    chosen: str | None,
    make_core: Callable[[Callable[[bytes], None]], Core],
) -> None:
    async with welcoming(make_core, asked(ours=ours, theirs=theirs)) as (core, written):
        (answer,) = written
        head = await read_request(answer)
        assert (head.method, head.path) == ("HTTP/1.1", "101")
        assert head.header("sec-websocket-accept") == ACCEPT_KEY
        assert core.subprotocol == head.header("sec-websocket-protocol") == chosen
        assert not core.is_compressed
        assert core.encode is None


async def test_what_cannot_be_welcomed_is_a_fault_that_quotes_nothing(
    make_core: Callable[[Callable[[bytes], None]], Core],
) -> None:
    given, reception = asked(("sec-websocket-extensions", "s3cret="))
    if make_core is not compressing:  # nobody looks at those; so a key that no handshake has
        request = given.request
        given = Asked(type(request)("/", (("sec-websocket-key", "s3cret\x00"),)), b"")
    async with trio.open_nursery() as nursery:
        core = make_core(lambda _: None)
        with pytest.raises(HandshakeFault) as caught:
            await core.welcome(nursery, given, reception)
        core.stop()
    assert "s3cret" not in str(caught.value)
    assert (caught.value.__cause__ is None) == (make_core is TrioWebsocketCore)  # which ends without a word


@pytest.mark.parametrize("steps", range(1, 8))
async def test_a_welcome_cancelled_at_any_step_leaves_no_task(
    steps: int, make_core: Callable[[Callable[[bytes], None]], Core]
) -> None:
    async with trio.open_nursery() as nursery:
        core = make_core(lambda _: None)
        with trio.CancelScope() as scope:

            @nursery.start_soon
            async def cancel() -> None:
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                scope.cancel()

            await core.welcome(nursery, *asked())
        core.stop()


# --- frames ---


async def test_pings_are_answered_without_a_mask(make_core: Callable[[Callable[[bytes], None]], Core]) -> None:
    async with welcoming(make_core) as (core, written):
        written.clear()
        for payload in (b"", b"x" * 125):
            assert await judge_all(core, masked(encode_frame(Opcode.PING, payload))) == []
        assert await read_frames(written, masked=False) == [
            Frame(Opcode.PONG, b"", masked=False),
            Frame(Opcode.PONG, b"x" * 125, masked=False),
        ]


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
async def test_fragments_lose_their_masks_and_are_put_together(
    opcode: Opcode, make_core: Callable[[Callable[[bytes], None]], Core]
) -> None:
    data = masked(
        encode_frame(opcode, b"\xe2\x82", fin=False),
        encode_frame(Opcode.PING, b"?"),
        encode_frame(CONTINUATION, b"", fin=False),
        encode_frame(CONTINUATION, b"\xac" + b"x" * 70_000),
    )
    message = "€".encode() + b"x" * 70_000
    async with welcoming(make_core) as (core, _):
        assert await judge_all(core, data) == [message.decode() if opcode == Opcode.TEXT else message]
        assert await judge_all(core, masked(encode_frame(opcode, b"whole"))) == [
            "whole" if opcode == Opcode.TEXT else b"whole"
        ]


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([encode_frame(TEXT, b"\xff")], 1007),
        ([encode_frame(TEXT, b"\xff", fin=False)], 1007),
        ([encode_frame(TEXT, b"\xc3", fin=False), encode_frame(CONTINUATION, b"")], 1007),
        ([encode_frame(CONTINUATION, b"")], 1002),
        ([encode_frame(TEXT, b"x", masked=True)], 1002),
        ([encode_frame(3, b"")], 1002),
        ([encode_frame(TEXT, b"x", rsv=4)], 1002),
        ([encode_frame(Opcode.PING, b"", fin=False)], 1002),
    ],
)
async def test_a_breach_is_judged_and_nothing_said_about_it(
    frames: Sequence[bytes], code: int, make_core: Callable[[Callable[[bytes], None]], Core]
) -> None:
    async with welcoming(make_core) as (core, written):
        written.clear()
        with pytest.raises(Breach) as caught:
            await judge_all(core, masked(*frames))
        assert caught.value.code == code
        assert written == []


async def test_a_judgement_that_was_cancelled_can_be_asked_for_again(
    make_core: Callable[[Callable[[bytes], None]], Core], autojump_clock: MockClock
) -> None:
    (frame,) = cut(masked(encode_frame(TEXT, b"x")), masked=True)
    async with welcoming(make_core) as (core, _):
        with trio.CancelScope() as scope:
            scope.cancel()
            await core.judge(frame)
        if scope.cancelled_caught:  # one of them never waits
            assert await core.judge(frame) == "x"


# --- compressed ---


async def test_messages_go_out_compressed_and_bare() -> None:
    async with welcoming(compressing, asked(DEFLATE)) as (core, _):
        assert core.is_compressed
        assert core.encode is not None
        inflater = zlib.decompressobj(wbits=-12)
        for message in ("é" * 500, b"\xff" * 500, ""):
            (frame,) = await read_frames([core.encode(message)], masked=False)
            assert (frame.rsv, frame.fin) == (4, True)
            plain = inflater.decompress(frame.payload + b"\0\0\xff\xff")
            assert plain == (message.encode() if isinstance(message, str) else message)
            assert len(frame.payload) < 40


async def test_compressed_messages_come_in_masked_also_in_fragments() -> None:
    deflater = zlib.compressobj(wbits=-15)
    data = (deflater.compress(b"x" * 500) + deflater.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")
    again = (deflater.compress(b"x" * 500) + deflater.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")
    frames = [
        encode_frame(TEXT, data, rsv=4),
        encode_frame(TEXT, again[:3], fin=False, rsv=4),
        encode_frame(Opcode.PING, b"between"),
        encode_frame(CONTINUATION, again[3:]),
        encode_frame(TEXT, b"plain", fin=False),
        encode_frame(CONTINUATION, b" again"),
    ]
    assert frames[0][0] == FIN | COMPRESSED | TEXT
    async with welcoming(compressing, asked(DEFLATE)) as (core, _):
        assert await judge_all(core, masked(*frames), compressed=True) == ["x" * 500, "x" * 500, "plain again"]


async def test_what_inflates_beyond_the_limit_is_a_breach() -> None:
    deflater = zlib.compressobj(wbits=-15)
    data = (deflater.compress(bytes(5_000)) + deflater.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")
    for limit, size in ((5_000, 5_000), (4_999, None), (10, None)):
        async with welcoming(compressing, asked(DEFLATE, max_message_bytes=limit)) as (core, _):
            frame = masked(encode_frame(Opcode.BINARY, data, rsv=4))
            if size is not None:
                assert await judge_all(core, frame, compressed=True) == [bytes(size)]
                continue
            with pytest.raises(Breach) as caught:
                await judge_all(core, frame, compressed=True)
            assert caught.value.code == 1009


async def test_nothing_is_logged_whatever_happens(
    make_core: Callable[[Callable[[bytes], None]], Core], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with welcoming(make_core) as (core, _):
        with pytest.raises(Breach):
            await judge_all(core, masked(encode_frame(Opcode.PING, b"?"), encode_frame(TEXT, b"\xff")))
    assert not caplog.records
