"""The opening handshake over any core: who is asked what, and what becomes of the stream when it fails."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import final

import pytest
import trio
from trio.testing import MockClock

from trio_wsprim import ConnectionClosed, ConnectionFailed, ConnectionRejected
from trio_wsprim._lane import OtherFrame
from trio_wsprim._seam import Upgrade
from trio_wsprim._values import Message
from trio_wsprim.testing import MemoryNetwork, Opcode, Peer, encode_frame
from trio_wsprim.transports._answer import Answer
from trio_wsprim.transports._handshake import HandshakeFault, open_link
from trio_wsprim.transports._link import LaneLink

UPGRADE = Upgrade(host="example.test", resource="/", subprotocols=("chat",), max_message_bytes=100)
REQUEST = b"GET / HTTP/1.1\r\n\r\n"
ANSWER = b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Name: value\r\n\r\n"


@final
class ScriptedCore:
    """Asks one thing, and finds what it is told to find.

    Attributes:
        ask_fault: What asking raises.
        check_fault: What checking raises.
    """

    def __init__(self) -> None:
        self.ask_fault: BaseException | None = None
        self.check_fault: BaseException | None = None
        self.compresses = False
        self.is_compressed = False
        self.encode: Callable[[Message], bytes] | None = None
        self.subprotocol: str | None = None
        self.queue: Callable[[bytes], None] | None = None
        self.asked: Upgrade | None = None
        self.checked: Answer | None = None
        self.judged: list[OtherFrame] = []
        self.is_stopped = False

    def make(self, queue: Callable[[bytes], None]) -> ScriptedCore:
        self.queue = queue
        return self

    async def ask(self, nursery: trio.Nursery, upgrade: Upgrade) -> None:
        self.asked = upgrade
        if self.ask_fault is not None:
            raise self.ask_fault
        assert self.queue is not None
        self.queue(REQUEST)

    async def check(self, answer: Answer) -> None:
        self.checked = answer
        if self.check_fault is not None:
            raise self.check_fault

    async def judge(self, frame: OtherFrame) -> Message | None:
        self.judged.append(frame)
        return "judged"

    def stop(self) -> None:
        self.is_stopped = True


@asynccontextmanager
async def opened(core: ScriptedCore, answer: bytes = ANSWER) -> AsyncGenerator[tuple[LaneLink, Peer]]:
    """A link whose peer has said that."""
    network = MemoryNetwork()
    stream = await network.open_stream("example.test", 80)
    peer = await network.accept()
    await peer.send_raw(answer)
    async with trio.open_nursery() as nursery:
        link = await open_link(nursery, stream, UPGRADE, core.make)
        yield link, peer
        await link.abort()


async def fail(core: ScriptedCore, answer: bytes = b"", *, resets: bool = False) -> tuple[ConnectionFailed, Peer]:
    """How an opening fails, after which nothing of it may be left."""
    network = MemoryNetwork()
    stream = await network.open_stream("example.test", 80)
    peer = await network.accept()
    if answer:
        await peer.send_raw(answer)
    if resets:
        peer.reset()
    async with trio.open_nursery() as nursery:
        with pytest.raises(ConnectionFailed) as caught:
            await open_link(nursery, stream, UPGRADE, core.make)
    assert network.live == 0
    assert core.is_stopped
    return caught.value, peer


# --- what goes well ---


async def test_the_core_s_request_is_sent_and_the_answer_shown_to_it() -> None:
    core = ScriptedCore()
    core.subprotocol = "chat"
    async with opened(core) as (link, peer):
        assert (await peer.read_request()).raw == REQUEST
        assert core.asked is UPGRADE
        assert core.checked is not None
        assert core.checked.head == ANSWER
        assert link.subprotocol == "chat"
        assert link.response_headers[-1] == ("x-name", "value")
        assert not core.is_stopped


async def test_what_comes_behind_the_answer_is_received() -> None:
    async with opened(ScriptedCore(), ANSWER + encode_frame(Opcode.TEXT, b"early") + b"\x82") as (link, peer):
        assert await link.receive() == ["early"]
        await peer.send_raw(b"\x01x")
        assert await link.receive() == [b"x"]


async def test_the_limit_holds_for_what_comes_in() -> None:
    async with opened(ScriptedCore()) as (link, peer):
        await peer.send(bytes(101))
        with pytest.raises(ConnectionClosed) as caught:
            await link.receive()
    assert caught.value.code == 1009


async def test_compressed_messages_are_the_core_s_where_that_was_agreed_on() -> None:
    core = ScriptedCore()
    core.is_compressed = True
    async with opened(core) as (link, peer):
        await peer.send_frame(Opcode.TEXT, b"x", rsv=4)
        assert await link.receive() == ["judged"]
    assert not core.judged[0].malformed


async def test_compressed_messages_are_a_breach_where_that_was_not_agreed_on() -> None:
    core = ScriptedCore()
    async with opened(core) as (link, peer):
        await peer.send_frame(Opcode.TEXT, b"x", rsv=4)
        with pytest.raises(ConnectionClosed) as caught:
            await link.receive()
    assert caught.value.code == 1002
    assert core.judged[0].malformed


async def test_an_extension_may_be_chosen_where_some_were_asked_for() -> None:
    answer = ANSWER[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    core = ScriptedCore()
    core.compresses = True
    async with opened(core, answer):
        assert core.checked is not None
    error, _ = await fail(ScriptedCore(), answer)
    assert str(error) == "the server's 101 is no WebSocket handshake: it chose an extension, none was asked for"


# --- what does not ---


async def test_what_cannot_be_asked_fails_for_good_and_nothing_is_sent() -> None:
    core = ScriptedCore()
    core.ask_fault = HandshakeFault("that cannot be asked")
    core.ask_fault.__cause__ = cause = ValueError("why")
    error, peer = await fail(core)
    assert str(error) == "that cannot be asked"
    assert error.permanent
    assert error.__cause__ is cause
    with pytest.raises(trio.EndOfChannel):
        await peer.read_request()
    assert peer.unparsed == b""


async def test_an_answer_that_the_core_finds_wrong_fails_for_good() -> None:
    core = ScriptedCore()
    core.check_fault = HandshakeFault("that is no answer")
    error, _ = await fail(core, ANSWER)
    assert str(error) == "that is no answer"
    assert error.permanent
    assert error.__cause__ is None


@pytest.mark.parametrize(
    "answer",
    [
        ANSWER.replace(b"1.1", b"1.0"),
        ANSWER[:-2] + b"Sec-WebSocket-Protocol: s3cret\r\n\r\n",
        ANSWER[:-2] + b"Sec-WebSocket-Accept: s3cret\r\nSec-WebSocket-Accept: s3cret\r\n\r\n",
        ANSWER.replace(b"websocket", b"s3cret"),
        ANSWER.replace(b"websocket", b"websocket, s3cret"),
        ANSWER.replace(b"Connection: Upgrade", b"Connection: s3cret"),
        ANSWER.replace(b"Connection: Upgrade\r\n", b""),
    ],
)
async def test_an_answer_that_no_core_could_accept_is_not_shown_to_it(answer: bytes) -> None:
    core = ScriptedCore()
    error, _ = await fail(core, answer)
    assert str(error).startswith("the server's 101 is no WebSocket handshake: ")
    assert "s3cret" not in str(error)
    assert error.permanent
    assert core.checked is None


async def test_a_connection_that_breaks_meanwhile_may_be_tried_again() -> None:
    error, _ = await fail(ScriptedCore(), resets=True)
    assert str(error) == "the connection broke during the handshake"
    assert not error.permanent
    assert isinstance(error.__cause__, trio.BrokenResourceError)


async def test_a_rejection_is_told_as_it_is() -> None:
    core = ScriptedCore()
    error, _ = await fail(core, b"HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n")
    assert isinstance(error, ConnectionRejected)
    assert core.checked is None


async def test_what_we_never_thought_of_closes_the_stream_all_the_same() -> None:
    core = ScriptedCore()
    core.check_fault = RuntimeError("a bug")
    network = MemoryNetwork()
    stream = await network.open_stream("example.test", 80)
    await (await network.accept()).send_raw(ANSWER)
    async with trio.open_nursery() as nursery:
        with pytest.raises(RuntimeError, match="a bug"):
            await open_link(nursery, stream, UPGRADE, core.make)
    assert core.is_stopped
    assert network.live == 0


async def test_a_cancelled_opening_closes_the_stream(autojump_clock: MockClock) -> None:
    core = ScriptedCore()
    network = MemoryNetwork()
    stream = await network.open_stream("example.test", 80)
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(1) as scope:
            await open_link(nursery, stream, UPGRADE, core.make)
    assert scope.cancelled_caught
    assert core.is_stopped
    assert network.live == 0
