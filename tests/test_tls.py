"""TLS in memory says byte for byte what the peer can read; over a socket it is a trio stream like any other."""

from __future__ import annotations

import os
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from tests.tls import HOST, TlsServer, client_context, narrow_pair, serve_handshake, server_context, shake_hands
from trio_wsprim._tls import TlsSession, TlsStream

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
# Encrypted by nobody: a record of application data, as its header says.
TAMPERED = b"\x17\x03\x03\x00\x20" + bytes(32)


def context_of(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = client_context()
    context.minimum_version = context.maximum_version = version
    return context


@pytest.fixture(params=VERSIONS, ids=lambda each: each.name)
def pair(request: pytest.FixtureRequest) -> tuple[TlsSession, TlsServer]:
    """A client and a server whose handshake is done."""
    return made_pair(request.param)


def made_pair(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> tuple[TlsSession, TlsServer]:
    client, server = TlsSession(context_of(version), HOST), TlsServer()
    shake_hands(client, server)
    return client, server


def pattern(size: int) -> bytes:
    return b"".join(b"%07d " % number for number in range(size // 8 + 1))[:size]


def taken(client: TlsSession, size: int) -> tuple[bytes, int]:
    """Take some cipher off a session, as a network would; tell how much plain text that was, too."""
    cipher = bytes(client.cipher[:size])
    return cipher, client.sent(len(cipher))


# --- without a network: the handshake ---


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("step", [1, 100, 10_000])
def test_a_handshake_gets_done_however_it_drips_in(step: int, version: ssl.TLSVersion) -> None:
    client, server = TlsSession(context_of(version), HOST), TlsServer()
    assert not client.shake_hands()
    is_done = False
    while not is_done:
        server.feed(client.cipher)
        client.sent(len(client.cipher))
        is_server_done, answer = server.shake_hands()
        for start in range(0, len(answer), step):
            assert not is_done or is_server_done
            client.feed(answer[start : start + step])
            is_done = client.shake_hands()
    server.feed(client.cipher)
    client.sent(len(client.cipher))
    server.shake_hands()
    client.encrypt(b"hello")
    server.feed(client.cipher)
    assert server.read() == b"hello"


def test_the_server_is_told_whom_we_want() -> None:
    names: list[str | None] = []
    context = server_context()
    context.sni_callback = lambda _object, name, _context: names.append(name)
    shake_hands(TlsSession(client_context(), HOST), TlsServer(context))
    assert names == [HOST]


@pytest.mark.parametrize(
    ("context", "words"),
    [
        pytest.param(lambda: server_context(by=trustme.CA()), "unknown ca", id="of an unknown authority"),
        pytest.param(lambda: server_context("other.test"), "bad certificate|certificate unknown", id="of another host"),
    ],
)
def test_a_certificate_that_does_not_hold_is_refused_and_the_server_is_told(
    context: Callable[[], ssl.SSLContext], words: str
) -> None:
    client, server = TlsSession(client_context(), HOST), TlsServer(context())
    client.shake_hands()
    server.feed(client.cipher)
    client.sent(len(client.cipher))
    client.feed(server.shake_hands()[1])

    with pytest.raises(ssl.SSLCertVerificationError):
        client.shake_hands()

    server.feed(client.cipher)
    with pytest.raises(ssl.SSLError, match=f"(?i){words}"):
        server.shake_hands()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n", bytes(100), TAMPERED])
def test_what_is_no_tls_is_told(answer: bytes) -> None:
    client = TlsSession(client_context(), HOST)
    client.shake_hands()
    client.feed(answer)
    with pytest.raises(ssl.SSLError):
        client.shake_hands()


@pytest.mark.parametrize("answer", [b"", b"\x16\x03\x03\x00\x7a\x02"])
def test_a_stream_that_ends_in_the_handshake_is_told(answer: bytes) -> None:
    client = TlsSession(client_context(), HOST)
    client.shake_hands()
    if answer:
        client.feed(answer)
        assert not client.shake_hands()
    client.feed(b"")
    with pytest.raises(ssl.SSLError):
        client.shake_hands()


def test_a_context_for_servers_is_refused_at_birth() -> None:
    with pytest.raises(ssl.SSLError):
        TlsSession(server_context(), HOST)


# --- without a network: out ---

RECORD = 16 * 1024


@pytest.mark.parametrize("size", [0, 1, 125, RECORD - 1, RECORD, RECORD + 1, 3 * RECORD, 300 * 1024])
def test_what_is_encrypted_is_what_the_server_reads(size: int, pair: tuple[TlsSession, TlsServer]) -> None:
    client, server = pair
    for data in (pattern(size), memoryview(pattern(size))):
        client.encrypt(data)
        cipher, plain = taken(client, len(client.cipher))
        server.feed(cipher)
        assert server.read() == pattern(size)
        assert plain == size
        assert not client.cipher


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=40)
@given(
    writes=st.lists(st.sampled_from([1, 2, 125, 1000, RECORD - 1, RECORD, RECORD + 1, 50_000]), max_size=4),
    steps=st.lists(st.integers(1, 20_000), min_size=1, max_size=10),
)
def test_plain_text_counts_when_the_server_can_read_it_and_not_before(
    version: ssl.TLSVersion, writes: list[int], steps: list[int]
) -> None:
    client, server = made_pair(version)
    data = pattern(sum(writes))
    at = counted = 0
    came = b""
    while client.cipher or writes:
        for size in writes[:1]:
            client.encrypt(data[at : at + size])
            at += size
        del writes[:1]
        for step in steps:
            cipher, plain = taken(client, step)
            server.feed(cipher)
            came += server.read()
            counted += plain
            assert counted == len(came)
    assert came == data


def test_nothing_counts_before_the_last_byte_of_its_record(pair: tuple[TlsSession, TlsServer]) -> None:
    client, _ = pair
    client.encrypt(bytes(RECORD + 5))
    while len(client.cipher) > 1:
        counted = taken(client, 1)[1]
        assert counted in {0, RECORD}
    assert taken(client, 1)[1] == 5
    assert client.sent(0) == 0


# --- without a network: in ---


def test_what_comes_in_is_read_as_it_becomes_whole(pair: tuple[TlsSession, TlsServer]) -> None:
    client, server = pair
    assert client.read() is None
    cipher = server.write(b"whole") + server.write(b"not yet")
    client.feed(cipher[:-1])
    assert client.read() == b"whole"
    assert client.read() is None
    client.feed(cipher[-1:])
    assert client.read() == b"not yet"


def test_all_that_came_is_read_at_once_in_as_many_records_as_it_may_be(pair: tuple[TlsSession, TlsServer]) -> None:
    client, server = pair
    client.feed(b"".join(server.write(pattern(size)) for size in (10, RECORD, 3 * RECORD, 100_000)))
    assert client.read() == pattern(10) + pattern(RECORD) + pattern(3 * RECORD) + pattern(100_000)


@settings(max_examples=50)
@given(
    sizes=st.lists(st.integers(1, 40_000), min_size=1, max_size=4),
    limits=st.lists(st.integers(1, 30_000), min_size=1, max_size=10),
    cut=st.integers(0, 200_000),
)
def test_a_read_with_a_limit_never_gives_more_and_loses_nothing(sizes: list[int], limits: list[int], cut: int) -> None:
    client, server = made_pair()
    cipher = b"".join(server.write(pattern(size)) for size in sizes)
    came, turn = b"", 0
    for piece in (cipher[:cut], cipher[cut:]):
        if piece:
            client.feed(piece)
        while (data := client.read(limits[turn % len(limits)])) is not None:
            assert 0 < len(data) <= limits[turn % len(limits)]
            came += data
            turn += 1
    assert came == b"".join(map(pattern, sizes))


def close_strictly(context: ssl.SSLContext) -> None:
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF


def close_sloppily(context: ssl.SSLContext) -> None:
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("says_goodbye", [True, False])
@pytest.mark.parametrize("choose", [close_strictly, close_sloppily])
@pytest.mark.parametrize("together", [True, False])
def test_the_end_is_the_end_with_a_goodbye_and_without(
    together: bool, choose: Callable[[ssl.SSLContext], None], says_goodbye: bool, version: ssl.TLSVersion
) -> None:
    context = context_of(version)
    choose(context)
    client, server = TlsSession(context, HOST), TlsServer()
    shake_hands(client, server)
    client.feed(server.write(b"last"))
    if not together:
        assert client.read() == b"last"
    if says_goodbye:
        client.feed(server.say_goodbye())
    client.feed(b"")
    if together:
        assert client.read() == b"last"
    for _ in range(3):
        assert client.read() == b""
        assert client.read(10) == b""


def test_half_a_record_and_then_the_end_is_the_end(pair: tuple[TlsSession, TlsServer]) -> None:
    client, server = pair
    client.feed(server.write(b"whole") + server.write(b"torn")[:-1])
    client.feed(b"")
    assert client.read() == b"whole"
    assert client.read() == b""


def test_a_server_that_has_said_goodbye_can_still_be_written_to() -> None:
    client, server = made_pair()
    client.feed(server.say_goodbye())
    assert client.read() == b""
    client.encrypt(b"our close frame")
    server.feed(client.cipher)
    assert server.read() == b"our close frame"


def test_tampering_is_told_and_the_server_is_told_too(pair: tuple[TlsSession, TlsServer]) -> None:
    client, server = pair
    client.feed(TAMPERED)
    with pytest.raises(ssl.SSLError):
        client.read()
    server.feed(client.cipher)
    with pytest.raises(ssl.SSLError, match=r"(?i)bad record mac"):
        server.read()


def test_what_came_before_a_fault_is_read_before_it_is_told(pair: tuple[TlsSession, TlsServer]) -> None:
    client, server = pair
    client.feed(server.write(b"one") + server.write(b"two") + TAMPERED)
    assert client.read() == b"onetwo"
    with pytest.raises(ssl.SSLError):
        client.read()


def test_an_answer_of_tls_s_own_goes_behind_what_waits_and_counts_as_nothing() -> None:
    client, server = made_pair()
    client.encrypt(pattern(40_000))
    first, counted = taken(client, 100)
    client.feed(b"")
    assert client.read() == b""  # which OpenSSL answers with an alert
    server.feed(first)
    while client.cipher:
        cipher, plain = taken(client, 777)
        server.feed(cipher)
        counted += plain
    assert counted == 40_000
    assert server.read() == pattern(40_000)
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        server.read()


# --- over sockets ---


@asynccontextmanager
async def connected() -> AsyncGenerator[tuple[TlsStream, trio.SocketStream, TlsServer]]:
    """A stream after its handshake, and at the other end the socket and whoever makes sense of what comes."""
    near, far = narrow_pair()
    stream, server = TlsStream(near, client_context(), HOST), TlsServer()
    async with far, stream:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_handshake, far, server)
            await stream.do_handshake()
        await far.send_all(server.write(b"."))
        assert await stream.receive_some() == b"."  # and what belongs to the handshake, but comes behind it
        yield stream, far, server


@asynccontextmanager
async def connecting(context: ssl.SSLContext | None = None) -> AsyncGenerator[tuple[TlsStream, trio.SocketStream]]:
    """A stream before its handshake, and the socket at the other end."""
    near, far = narrow_pair()
    async with far, TlsStream(near, context or client_context(), HOST) as stream:
        yield stream, far


async def expect(kind: type[BaseException], work: Awaitable[object]) -> None:
    with pytest.raises(kind):
        await work


@pytest.mark.parametrize("version", VERSIONS)
async def test_much_goes_both_ways_at_once_through_narrow_buffers(version: ssl.TLSVersion) -> None:
    data = pattern(400_000)
    async with connecting(context_of(version)) as (ours, far):
        theirs = trio.SSLStream(far, server_context(), server_side=True, https_compatible=True)

        async def read(stream: trio.abc.Stream) -> None:
            came = b""
            while len(came) < len(data):
                came += await stream.receive_some()
            assert came == data

        async with trio.open_nursery() as nursery:
            nursery.start_soon(theirs.do_handshake)
            await ours.do_handshake()
        async with trio.open_nursery() as nursery:
            for stream in (ours, theirs):
                nursery.start_soon(stream.send_all, data)
                nursery.start_soon(read, stream)
        assert not ours.session.cipher


@pytest.mark.parametrize("data", [b"bytes", bytearray(b"bytearray"), memoryview(b"memory")])
async def test_anything_with_bytes_in_it_can_be_sent(data: bytes | bytearray | memoryview) -> None:
    async with connected() as (stream, far, server):
        await stream.send_all(data)
        server.feed(await far.receive_some())
        assert server.read() == bytes(data)


@pytest.mark.parametrize("limit", [1, 3, 100, RECORD, 10**6, None])
async def test_no_more_is_received_than_was_asked_for(limit: int | None) -> None:
    async with connected() as (stream, far, server):
        data, came = pattern(60 if limit in {1, 3} else 70_000), b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(far.send_all, server.write(data[:50]) + server.write(data[50:]))
            while len(came) < len(data):
                got = await stream.receive_some(limit)
                assert 0 < len(got) <= (limit or len(data))
                came += got
        assert came == data


async def test_whether_a_send_would_wait_is_the_sockets_to_say() -> None:
    async with connected() as (stream, far, _):
        await stream.wait_send_all_might_not_block()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, bytes(100_000))
                await wait_all_tasks_blocked()
                scope.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.wait_send_all_might_not_block)
            await wait_all_tasks_blocked()
            assert nursery.child_tasks
            await far.receive_some(100_000)


async def test_to_close_waits_for_nobody_and_says_nothing() -> None:
    async with connected() as (stream, far, _):
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.aclose()
        assert await far.receive_some() == b""
        await expect(trio.ClosedResourceError, stream.receive_some())
        await expect(trio.ClosedResourceError, stream.send_all(b"x"))


@pytest.mark.parametrize("says_goodbye", [True, False])
async def test_an_end_with_a_goodbye_and_without_is_an_end(says_goodbye: bool) -> None:
    async with connected() as (stream, far, server):
        await far.send_all(server.write(b"last") + (server.say_goodbye() if says_goodbye else b""))
        await far.aclose()
        assert await stream.receive_some() == b"last"
        assert await stream.receive_some() == b""
        assert await stream.receive_some() == b""


async def test_a_reset_is_a_broken_resource() -> None:
    async with connected() as (stream, far, _):
        await stream.send_all(b"never read, so that the far end's close is a reset")
        await far.aclose()
        await expect(trio.BrokenResourceError, stream.receive_some())
        await expect(trio.BrokenResourceError, stream.send_all(b"x"))


async def test_tampering_is_a_broken_resource() -> None:
    async with connected() as (stream, far, _):
        await far.send_all(TAMPERED)
        await expect(trio.BrokenResourceError, stream.receive_some())


async def test_a_limit_of_nothing_is_refused_as_by_other_streams() -> None:
    async with connected() as (stream, far, server):
        await far.send_all(server.write(b"there"))
        await expect(ValueError, stream.receive_some(0))


async def test_a_receive_in_a_cancelled_scope_receives_nothing() -> None:
    async with connected() as (stream, far, server):
        await far.send_all(server.write(b"onetwo"))
        assert await stream.receive_some(3) == b"one"
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.receive_some()
        assert scope.cancelled_caught


# --- over sockets: the handshake ---


async def test_a_refused_certificate_is_told_to_both() -> None:
    async with connecting() as (stream, far):
        server = TlsServer(server_context(by=trustme.CA()))
        errors: list[ssl.SSLError] = []

        async def serve() -> None:
            try:
                await serve_handshake(far, server)
            except ssl.SSLError as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await expect(ssl.SSLCertVerificationError, stream.do_handshake())
    assert "UNKNOWN_CA" in str(errors[0])


async def test_a_refused_certificate_is_told_also_if_the_server_does_not_stay_to_hear_it() -> None:
    async with connecting() as (stream, far):
        server = TlsServer(server_context(by=trustme.CA()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect, ssl.SSLCertVerificationError, stream.do_handshake())
            server.feed(await far.receive_some())
            # In one go, so that our side finds both.
            with socket.socket(fileno=os.dup(far.socket.fileno())) as at_once:
                at_once.send(server.shake_hands()[1])
            far.socket.close()


async def test_a_server_that_hangs_up_in_the_handshake_is_told() -> None:
    for greeting in (b"", b"\x16\x03\x03\x00\x7a\x02"):
        async with connecting() as (stream, far), trio.open_nursery() as nursery:

            async def serve(far: trio.SocketStream = far, greeting: bytes = greeting) -> None:
                while len(await far.receive_some(65536)) == 65536:
                    pass
                await far.send_all(greeting)
                await far.send_eof()

            nursery.start_soon(serve)
            with pytest.raises(trio.BrokenResourceError, match="hung up during the TLS handshake"):
                await stream.do_handshake()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n"])
async def test_a_server_that_speaks_no_tls_is_told(answer: bytes) -> None:
    async with connecting() as (stream, far):
        await far.send_all(answer)
        await expect(ssl.SSLError, stream.do_handshake())


async def test_a_reset_in_the_handshake_is_a_broken_resource() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    near = await trio.open_tcp_stream("127.0.0.1", listeners[0].socket.getsockname()[1])
    far = await listeners[0].accept()
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.socket.close()
    async with listeners[0], TlsStream(near, client_context(), HOST) as stream:
        await expect(trio.BrokenResourceError, stream.do_handshake())


async def test_a_cancelled_handshake_leaves_a_stream_to_close() -> None:
    async with connecting() as (stream, far):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.do_handshake)
                await wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
        await stream.aclose()
        while await far.receive_some():
            pass
