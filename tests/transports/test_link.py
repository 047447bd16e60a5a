"""What a link does around its core: what it decides itself, and what it makes of what the core decides.

What links of real cores promise is in `tests/contract`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import final

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from trio_wsprim import ConnectionClosed
from trio_wsprim._lane import FrameDecoder, OtherFrame
from trio_wsprim._values import Message
from trio_wsprim._wire import open_wire
from trio_wsprim.abc import Ending, Incoming, Pong
from trio_wsprim.testing import Frame, Opcode, Peer, PeerClosed, encode_frame, memory_stream_pair
from trio_wsprim.transports._link import Breach, LaneLink
from trio_wsprim.transports._outgoing import OutgoingSide

PING = encode_frame(Opcode.PING, b"?")


@final
class ScriptedCore:
    """Judges as it is told, one verdict for each frame, and notes what it was asked."""

    def __init__(self, *verdicts: Message | Breach | None, encode: Callable[[Message], bytes] | None = None) -> None:
        self._verdicts = list(verdicts)
        self.encode = encode
        self.subprotocol: str | None = "chat"
        self.is_stuck = False
        self._unstuck = trio.Event()
        self.judged: list[OtherFrame] = []
        self.stops = 0

    async def judge(self, frame: OtherFrame) -> Message | None:
        self.judged.append(frame)
        if self.is_stuck:
            await self._unstuck.wait()
        verdict = self._verdicts.pop(0)
        if isinstance(verdict, Breach):
            raise verdict
        return verdict

    def stop(self) -> None:
        self.stops += 1
        self._unstuck.set()


@asynccontextmanager
async def linked(core: ScriptedCore, *, limit: int | None = 100) -> AsyncGenerator[tuple[LaneLink, Peer]]:
    near, far = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        wire = open_wire(near)
        outgoing = OutgoingSide(wire, nursery)
        link = LaneLink(wire, core, outgoing, (("x-name", "value"),), FrameDecoder(limit))
        yield link, Peer(far)
        await link.abort()


async def closed(link: LaneLink) -> ConnectionClosed:
    with pytest.raises(ConnectionClosed) as caught:
        await link.receive()
    return caught.value


# --- what it tells ---


async def test_a_link_tells_what_its_parts_know(autojump_clock: MockClock) -> None:
    async with linked(ScriptedCore()) as (link, peer):
        assert link.subprotocol == "chat"
        assert link.response_headers == (("x-name", "value"),)
        assert not link.is_direct
        await trio.sleep(1)
        await link.send(["x"])
        await trio.sleep(1)
        await peer.send("y")
        assert await link.receive() == ["y"]
        assert (link.items_sent, link.moved_at, link.heard_at) == (1, 1, 2)


async def test_messages_go_out_as_the_core_encodes_them() -> None:
    core = ScriptedCore(encode=lambda message: encode_frame(Opcode.BINARY, repr(message).encode(), masked=True))
    async with linked(core) as (link, peer):
        await link.send(["text", b"binary"])
        assert await peer.receive_all(2) == [b"'text'", b"b'binary'"]


# --- what the core hears of ---


async def test_the_core_hears_of_neither_plain_messages_nor_pongs_nor_closes() -> None:
    core = ScriptedCore()
    async with linked(core) as (link, peer):
        await peer.send("text")
        assert await link.receive() == ["text"]
        await peer.send_raw(encode_frame(Opcode.PONG, b"!") + encode_frame(Opcode.CLOSE, b"\x03\xe8"))
        assert await link.receive() == [Pong(b"!")]
        assert (await closed(link)).code == 1000
    assert core.judged == []


async def test_what_the_core_makes_of_a_frame_is_received_in_its_place() -> None:
    core = ScriptedCore(None, None, "made")
    async with linked(core) as (link, peer):
        await peer.send_raw(
            encode_frame(Opcode.TEXT, b"first")
            + PING
            + encode_frame(Opcode.TEXT, b"a", fin=False)
            + encode_frame(Opcode.CONTINUATION, b"b")
            + encode_frame(Opcode.TEXT, b"last")
        )
        found: list[Incoming] = []
        while len(found) < 3:
            found += await link.receive()
    assert found == ["first", "made", "last"]
    assert [(each.opcode, each.payload, each.ends_message) for each in core.judged] == [
        (Opcode.PING, b"?", False),
        (Opcode.TEXT, b"a", False),
        (Opcode.CONTINUATION, b"b", True),
    ]
    assert core.judged[0].raw == PING


async def test_text_that_is_no_utf8_is_the_core_s_to_judge() -> None:
    core = ScriptedCore(Breach(1007, "no UTF-8"))
    async with linked(core) as (link, peer):
        await peer.send_raw(encode_frame(Opcode.TEXT, b"\xff"))
        error = await closed(link)
    assert (error.code, error.reason) == (1007, "no UTF-8")


async def test_a_frame_whose_judgement_was_cancelled_is_judged_again() -> None:
    core = ScriptedCore("made")
    async with linked(core) as (link, peer):
        await peer.send_raw(PING + encode_frame(Opcode.TEXT, b"after"))
        core.is_stuck = True
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(link.receive)
                await wait_all_tasks_blocked()
                scope.cancel()
        core.is_stuck = False
        assert await link.receive() == ["made"]
        assert await link.receive() == ["after"]
    first, second = core.judged
    assert first is second


# --- breaches ---


@pytest.mark.parametrize(
    ("verdict", "code", "reason"),
    [
        (Breach(1002, "what the core says"), 1002, "what the core says"),
        (Breach(1009, "too big, a core might think"), 1002, "malformed frame"),
        (Breach(1000, "a close that came behind"), 1002, "malformed frame"),
        (None, 1002, "malformed frame"),
        ("a message", 1002, "malformed frame"),
    ],
)
async def test_a_malformed_frame_is_a_protocol_error_whatever_the_core_thinks(
    verdict: Message | Breach | None, code: int, reason: str
) -> None:
    async with linked(ScriptedCore(verdict)) as (link, peer):
        await peer.send_raw(encode_frame(Opcode.TEXT, b"good") + encode_frame(3, b""))
        assert await link.receive() == ["good"]
        error = await closed(link)
    assert (error.code, error.reason) == (code, reason)
    assert link.ending == Ending(code, reason, clean=False, is_breach=True)


@pytest.mark.parametrize("opcode", [Opcode.PONG, Opcode.CLOSE])
async def test_malformed_control_frames_are_protocol_errors_too(opcode: Opcode) -> None:
    core = ScriptedCore(None)
    async with linked(core) as (link, peer):
        await peer.send_raw(encode_frame(opcode, b"\x03\xe8", fin=False))
        assert (await closed(link)).code == 1002
    assert len(core.judged) == 1


async def test_a_message_too_big_ends_it_without_asking_the_core() -> None:
    core = ScriptedCore()
    async with linked(core, limit=10) as (link, peer):
        await peer.send_raw(b"\x82\x7e\xff\xff")
        error = await closed(link)
    assert (error.code, error.reason) == (1009, "message of at least 65535 bytes, at most 10 are allowed")
    assert core.judged == []


async def test_a_breach_is_told_to_the_peer_when_we_close(autojump_clock: MockClock) -> None:
    async with linked(ScriptedCore(Breach(1002, "why"))) as (link, peer):
        await peer.send_raw(PING)
        await closed(link)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.aclose, 1000, "not this")
            assert await peer.receive_frame() == Frame(Opcode.CLOSE, b"\x03\xeawhy")
            peer.drop()
        assert link.ending == Ending(1002, "why", clean=False, is_breach=True)


async def test_a_long_reason_is_cut_for_the_frame_and_told_whole(autojump_clock: MockClock) -> None:
    async with linked(ScriptedCore(Breach(1002, "é" * 100))) as (link, peer):
        await peer.send_raw(PING)
        assert (await closed(link)).reason == "é" * 100
        with trio.move_on_after(1):
            await link.aclose(1000, "")
        with pytest.raises(PeerClosed) as caught:
            await peer.receive()
    assert (caught.value.code, caught.value.reason) == (1002, "é" * 61)


# --- the end ---


async def test_each_call_after_the_end_raises_an_error_of_its_own_with_the_same_facts() -> None:
    async with linked(ScriptedCore()) as (link, peer):
        peer.reset()
        first, second = await closed(link), await closed(link)
        with pytest.raises(ConnectionClosed) as third:
            await link.send(["x"])
        with pytest.raises(ConnectionClosed) as fourth:
            link.send_nowait(["x"])
    errors = [first, second, third.value, fourth.value]
    assert len(set(map(id, errors))) == 4
    assert {(each.code, each.reason) for each in errors} == {(1006, "")}
    assert {type(each.__cause__) for each in errors} == {trio.BrokenResourceError}


async def test_what_is_read_while_we_close_is_no_matter_of_the_core(autojump_clock: MockClock) -> None:
    core = ScriptedCore()
    async with linked(core) as (link, peer):
        await peer.send_raw(PING + encode_frame(Opcode.TEXT, b"\xff") + encode_frame(Opcode.CLOSE, b"\x03\xe8"))
        peer.drop()
        await link.aclose(1000, "")
        assert link.ending == Ending(1006, "", clean=False)  # our answer did not reach it
    assert core.judged == []


async def test_a_frame_that_nobody_has_judged_is_passed_over_when_we_close(autojump_clock: MockClock) -> None:
    core = ScriptedCore()
    async with linked(core) as (link, peer):
        await peer.send_raw(PING)
        core.is_stuck = True
        with trio.move_on_after(1):
            await link.receive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.aclose, 1000, "")
            assert (await peer.receive_frame()).opcode == Opcode.CLOSE
            await peer.send_close(4000, "bye")
            await peer.half_close()
        assert link.ending == Ending(4000, "bye", clean=True)
    assert len(core.judged) == 1


async def test_closing_twice_waits_for_nothing_but_the_scheduler(autojump_clock: MockClock) -> None:
    async with linked(ScriptedCore()) as (link, peer):
        await peer.send_close(1000)
        await peer.half_close()
        await link.aclose(1000, "")
        with assert_checkpoints():
            await link.aclose(1001, "again")
        assert link.ending == Ending(1000, "", clean=True)


async def test_abort_stops_the_core() -> None:
    core = ScriptedCore()
    async with linked(core) as (link, _):
        await link.abort()
        assert core.stops == 1
        await link.abort()
    assert core.stops == 3


async def test_who_waits_for_a_judgement_is_told_of_our_abort() -> None:
    core = ScriptedCore(Breach(1002, ""))
    async with linked(core) as (link, peer):
        await peer.send_raw(PING)
        core.is_stuck = True
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await link.receive()

            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            await link.abort()
        assert link.ending == Ending(1006, "", clean=False)


async def test_who_gives_way_in_a_flood_is_told_of_our_abort() -> None:
    core = ScriptedCore(*[None] * 300)
    async with linked(core) as (link, peer):
        await peer.send_raw(PING * 300 + encode_frame(Opcode.TEXT, b"late"))
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await link.receive()

            nursery.start_soon(receive)
            while not core.judged:
                await trio.lowlevel.checkpoint()
            await link.abort()
        assert len(core.judged) < 300
