"""The head of the answer tells all that is needed, as soon as it can be told."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from trio_wsprim._errors import ConnectionFailed, ConnectionRejected, WebSocketError
from trio_wsprim._wire import Wire, open_wire
from trio_wsprim.testing import MemoryStream, memory_stream_pair
from trio_wsprim.transports._answer import Answer, read_answer

GOOD = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"X-Name:  a  \r\nX-NAME: b\r\n\r\n"
)
HEADERS = (("upgrade", "websocket"), ("connection", "keep-alive, Upgrade"), ("x-name", "a"), ("x-name", "b"))


@asynccontextmanager
async def saying(*pieces: bytes, end: bool = False) -> AsyncGenerator[Wire]:
    """A wire to a server that says one piece after the other, a second apart, and then nothing."""
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(say, theirs, pieces, end)
        yield open_wire(ours)
        nursery.cancel_scope.cancel()


async def say(stream: MemoryStream, pieces: tuple[bytes, ...], end: bool) -> None:
    for piece in pieces:
        await stream.send_all(piece)
        await trio.sleep(1)
    if end:
        stream.close()


async def read(*pieces: bytes, end: bool = False) -> Answer:
    async with saying(*pieces, end=end) as wire:
        return await read_answer(wire)


async def fail(*pieces: bytes, end: bool = False) -> ConnectionFailed:
    """The error of an answer, once no group is around it."""
    async with saying(*pieces, end=end) as wire:
        with pytest.raises(ConnectionFailed) as caught:
            await read_answer(wire)
    return caught.value


async def reject(*pieces: bytes, end: bool = False) -> ConnectionRejected:
    error = await fail(*pieces, end=end)
    assert isinstance(error, ConnectionRejected)
    return error


# --- 101 ---


async def test_a_101_is_taken_with_its_headers_in_lower_case(autojump_clock: MockClock) -> None:
    answer = await read(GOOD)
    assert answer == Answer(GOOD, b"", HEADERS, b"1.1")
    assert trio.current_time() == 0


async def test_frames_that_come_glued_to_a_101_are_kept(autojump_clock: MockClock) -> None:
    answer = await read(GOOD + b"\x81\x01a")
    assert (answer.head, answer.rest) == (GOOD, b"\x81\x01a")


async def test_a_head_in_single_bytes_is_the_same_head(autojump_clock: MockClock) -> None:
    answer = await read(*(bytes([byte]) for byte in GOOD))
    assert (answer.head, answer.rest) == (GOOD, b"")


@pytest.mark.parametrize("early", [b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_other_1xx_may_come_first(early: bytes, autojump_clock: MockClock) -> None:
    glued = await read(early + early + GOOD + b"rest")
    apart = await read(early, GOOD)
    assert (glued.head, glued.rest) == (GOOD, b"rest")
    assert (apart.head, apart.rest) == (GOOD, b"")


async def test_header_values_need_not_be_ascii(autojump_clock: MockClock) -> None:
    answer = await read("HTTP/1.1 101 Gewächs\r\nX-Name: grüß\r\n\r\n".encode("latin-1"))
    assert answer.headers == (("x-name", "grüß"),)


@pytest.mark.parametrize(
    ("head", "fault"),
    [
        (GOOD.replace(b"1.1", b"1.0"), "it speaks HTTP/1.0, which has no upgrades"),
        (
            GOOD[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
            "it chose an extension, none was asked for",
        ),
        (
            GOOD[:-2] + b"Sec-WebSocket-Extensions: secret\r\nSec-WebSocket-Extensions:\r\n\r\n",
            "it chose an extension, none was asked for",
        ),
        (
            GOOD[:-2] + b"Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: chat\r\n\r\n",
            "it says one thing twice",
        ),
        (
            GOOD[:-2] + b"Sec-WebSocket-Accept: x\r\nSec-WebSocket-Accept: y\r\n\r\n",
            "it says one thing twice",
        ),
        (GOOD[:-2] + b"Sec-WebSocket-Protocol: secret\r\n\r\n", "it chose a subprotocol that was not asked for"),
        (GOOD[:-2] + b"Sec-WebSocket-Protocol: CHAT\r\n\r\n", "it chose a subprotocol that was not asked for"),
        (GOOD[:-2] + b"Sec-WebSocket-Protocol: chat\r\n\r\n", None),
        (GOOD, None),
    ],
)
async def test_what_the_server_had_no_choice_of_is_a_fault(
    head: bytes, fault: str | None, autojump_clock: MockClock
) -> None:
    answer = await read(head)
    assert answer.fault(["chat", "superchat"]) == fault


@pytest.mark.parametrize(
    ("extensions", "fault"),
    [
        ([b"permessage-deflate"], None),
        ([b"whatever the core makes of it"], None),
        ([b"permessage-deflate", b"permessage-deflate"], "it says one thing twice"),
    ],
)
async def test_an_extension_is_no_fault_where_some_were_asked_for(
    extensions: list[bytes], fault: str | None, autojump_clock: MockClock
) -> None:
    lines = b"".join(b"Sec-WebSocket-Extensions: " + each + b"\r\n" for each in extensions)
    answer = await read(GOOD[:-2] + lines + b"\r\n")
    assert answer.fault((), has_extensions=True) == fault
    assert answer.fault(()) == "it chose an extension, none was asked for"


async def test_a_head_can_be_had_again_with_nothing_but_what_matters(autojump_clock: MockClock) -> None:
    curious = (
        b"HTTP/1.1 101\nuPGRADE:   websocket\nServer: x\nConnection: keep-alive,\n  Upgrade\n"
        b"Upgrade: websocket\nX-Policy: " + b"a" * 9000 + b"\nSec-WebSocket-Accept: y\nSet-Cookie: gr\xfc\xdf\n\n"
    )
    answer = await read(curious)
    assert answer.head == curious
    assert answer.plain_head == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"sec-websocket-accept: y\r\n\r\n"
    )
    assert (await read(answer.plain_head)).plain_head == answer.plain_head


# --- not HTTP ---


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"<html>",
        b"\0",
        b"h",
        b"HTTQ",
        b"HTTP/2.0 200",
        b"HTTP/1.2 101 x",
        b"HTTP/1.1 1x1 ",
        b"HTTP/1.1 1011",
        b"HTTP/1.1 \xff\xff\xff ",
        b"HTTP/1.1  101 ",
    ],
)
async def test_what_is_no_http_is_refused_before_a_line_is_complete(garbage: bytes, autojump_clock: MockClock) -> None:
    error = await fail(garbage)
    assert not isinstance(error, ConnectionRejected)
    assert trio.current_time() == 0


async def test_garbage_in_bytes_is_refused_with_the_byte_that_tells(autojump_clock: MockClock) -> None:
    await fail(b"H", b"T", b"T", b"P", b"?", b"/")
    assert trio.current_time() == 4


@pytest.mark.parametrize("size", range(len(GOOD)))
async def test_a_server_that_hangs_up_within_its_answer_is_told_so(size: int, autojump_clock: MockClock) -> None:
    error = await fail(*([GOOD[:size]] if size else []), end=True)
    assert str(error) == "the server hung up before it had answered the handshake"
    assert trio.current_time() <= 1


async def test_malformed_headers_are_refused(autojump_clock: MockClock) -> None:
    error = await fail(b"HTTP/1.1 101 x\r\nno colon here\r\n\r\n")
    assert "malformed" in str(error)
    assert error.__cause__ is not None


async def test_endless_headers_are_refused(autojump_clock: MockClock) -> None:
    line = b"X: " + b"a" * 8000 + b"\r\n"
    error = await fail(b"HTTP/1.1 101 x\r\n", *[line] * 200)
    assert "malformed" in str(error)
    assert trio.current_time() <= 10


# --- rejections ---


async def test_a_rejection_tells_status_headers_and_body(autojump_clock: MockClock) -> None:
    error = await reject(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\nWWW-Authenticate: Basic\r\n\r\nbody+rest")
    assert (error.status, error.body, error.retry_after) == (401, b"body", None)
    assert ("www-authenticate", "Basic") in error.headers
    assert trio.current_time() == 0


async def test_a_chunked_body_is_put_together(autojump_clock: MockClock) -> None:
    error = await reject(
        b"HTTP/1.1 401 x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", b"2\r\ncd\r\n0\r\n\r\n", end=True
    )
    assert error.body in (b"ab", b"abcd")
    error = await reject(b"HTTP/1.1 401 x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n")
    assert error.body == b"abcd"


async def test_a_body_without_a_length_is_not_waited_for_long(autojump_clock: MockClock) -> None:
    error = await reject(b"HTTP/1.1 403 x\r\n\r\nsome")
    assert error.body == b"some"
    assert trio.current_time() == 0.5


async def test_a_body_without_a_length_ends_with_the_connection(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    await theirs.send_all(b"HTTP/1.0 500 x\r\n\r\nwhole")
    theirs.close()
    with pytest.raises(ConnectionRejected) as caught:
        await read_answer(open_wire(ours))
    assert (caught.value.status, caught.value.body) == (500, b"whole")
    assert trio.current_time() == 0


async def test_an_endless_body_is_cut(autojump_clock: MockClock) -> None:
    error = await reject(b"HTTP/1.1 500 x\r\n\r\n" + b"a" * 200_000)
    assert len(error.body) == 65536
    assert trio.current_time() == 0


@pytest.mark.parametrize("reset", [False, True])
async def test_a_body_that_breaks_off_is_what_came(reset: bool, autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    await theirs.send_all(b"HTTP/1.1 500 x\r\nContent-Length: 10\r\n\r\nhalf")
    async with trio.open_nursery() as nursery:

        async def end() -> None:
            await trio.sleep(0.1)
            theirs.reset() if reset else theirs.close()

        nursery.start_soon(end)
        with pytest.raises(ConnectionRejected) as caught:
            await read_answer(open_wire(ours))
    assert caught.value.body == b"half"
    assert trio.current_time() == 0.1


async def test_a_body_leaves_half_of_the_time_that_is_left(autojump_clock: MockClock) -> None:
    with trio.fail_after(0.2):
        error = await reject(b"HTTP/1.1 503 x\r\nRetry-After: 7\r\n\r\n")
    assert error.retry_after == 7
    assert trio.current_time() == 0.1


@pytest.mark.parametrize(("value", "seconds"), [(b"120", 120), (b"soon", None), (b"-1", None)])
async def test_retry_after_is_read(value: bytes, seconds: float | None, autojump_clock: MockClock) -> None:
    error = await reject(b"HTTP/1.1 429 x\r\nContent-Length: 0\r\nRetry-After: " + value + b"\r\n\r\n")
    assert error.retry_after == seconds


@given(data=st.binary(max_size=200), prefix=st.sampled_from([b"", b"HTTP/1.1 ", GOOD[:-2], b"HTTP/1.1 401 x\r\n"]))
def test_whatever_comes_there_is_an_answer_or_an_error_of_ours(data: bytes, prefix: bytes) -> None:
    async def main() -> None:
        ours, theirs = memory_stream_pair()
        await theirs.send_all(prefix + data)
        theirs.close()
        with suppress(WebSocketError):
            await read_answer(open_wire(ours))

    trio.run(main, clock=MockClock(autojump_threshold=0))
