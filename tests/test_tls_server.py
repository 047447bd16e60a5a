"""TLS as a server speaks it: in memory, over sockets, and over any other stream."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import pytest
import trio
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from tests.tls import HOST, authority, client_context, narrow_pair, server_context
from trio_wsprim import Rejection, Request
from trio_wsprim._seam import Reception
from trio_wsprim._tls import TlsSession, TlsStream, start_tls
from trio_wsprim.testing import memory_stream_pair
from trio_wsprim.transports import TrioWebsocketTransport

Ends: TypeAlias = tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
PLAIN_HTTP = b"GET / HTTP/1.1\r\nHost: example.test\r\n\r\n"
HOSTILE = [
    PLAIN_HTTP,
    bytes(100),
    b"\xff" * 100,
    b"\x16\x03\x01\xff\xff" + bytes(70_000),
    b"\x16\x03\x01\x00\x05\x01\xff\xff\xff\x00",
    b"\x17\x03\x03\x00\x20" + bytes(32),
    b"\x15\x03\x03\x00\x02\x02\x28",
    b"\x80\x2e\x01\x00\x02" + bytes(46),
]


def context_of(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = client_context()
    context.minimum_version = context.maximum_version = version
    return context


def pass_on(from_one: TlsSession, to_other: TlsSession, step: int = 2**20) -> None:
    """Have a network carry what one says to the other, in pieces."""
    cipher = bytes(from_one.cipher)
    from_one.sent(len(cipher))
    for start in range(0, len(cipher), step):
        to_other.feed(cipher[start : start + step])
        to_other.shake_hands()


def shake_hands(client: TlsSession, server: TlsSession, step: int = 2**20) -> None:
    client.shake_hands()
    for _ in range(3):
        pass_on(client, server, step)
        pass_on(server, client, step)
    assert client.shake_hands()
    assert server.shake_hands()


# --- in memory ---


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("step", [1, 100, 100_000])
def test_both_sides_of_a_session_understand_each_other(step: int, version: ssl.TLSVersion) -> None:
    client, server = TlsSession(context_of(version), HOST), TlsSession(server_context(), None)
    shake_hands(client, server, step)
    data = bytes(range(256)) * 200
    for one, other in ((client, server), (server, client)):
        one.encrypt(data)
        cipher = bytes(one.cipher)
        assert one.sent(len(cipher)) == len(data)
        came = b""
        for start in range(0, len(cipher), 10_000):
            other.feed(cipher[start : start + 10_000])
            while part := other.read():
                came += part
        assert came == data


def test_a_server_waits_to_be_spoken_to() -> None:
    server = TlsSession(server_context(), None)
    assert not server.shake_hands()
    assert not server.cipher


@pytest.mark.parametrize("data", HOSTILE)
def test_what_is_no_tls_is_told_and_nothing_of_it_kept(data: bytes) -> None:
    server = TlsSession(server_context(), None)
    server.feed(data)
    with pytest.raises(ssl.SSLError):
        server.shake_hands()


@settings(max_examples=100)
@given(data=st.binary(min_size=1, max_size=100), place=st.integers(0, 600), turned=st.integers(1, 255))
def test_no_bytes_raise_anything_else(data: bytes, place: int, turned: int) -> None:
    client = TlsSession(client_context(), HOST)
    client.shake_hands()
    hello = bytearray(client.cipher)
    hello[place % len(hello)] ^= turned
    for said in (data, bytes(hello), bytes(hello[: place % len(hello)]) + data):
        server = TlsSession(server_context(), None)
        for piece in (said, b""):
            server.feed(piece)
            try:
                server.shake_hands()
            except ssl.SSLError:
                break


def test_a_client_that_does_not_trust_us_says_so() -> None:
    client, server = TlsSession(client_context(), HOST), TlsSession(server_context(by=trustme.CA()), None)
    client.shake_hands()
    pass_on(client, server)
    client.feed(bytes(server.cipher))
    with pytest.raises(ssl.SSLCertVerificationError):
        client.shake_hands()
    server.feed(bytes(client.cipher))
    with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
        server.shake_hands()
        server.read()


@pytest.mark.parametrize("has_certificate", [True, False])
def test_a_server_may_ask_for_certificates(has_certificate: bool) -> None:
    ours, theirs = server_context(), context_of(ssl.TLSVersion.TLSv1_2)
    ours.verify_mode = ssl.CERT_REQUIRED
    authority().configure_trust(ours)
    if has_certificate:
        authority().issue_cert("client.test").configure_cert(theirs)
    client, server = TlsSession(theirs, HOST), TlsSession(ours, None)
    if has_certificate:
        shake_hands(client, server)
        return
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        shake_hands(client, server)
    assert server.cipher  # which tells the client why


def test_a_context_for_clients_is_refused_at_birth() -> None:
    with pytest.raises(ssl.SSLError):
        TlsSession(client_context(), None)


# --- over streams ---


def over_sockets() -> Ends:
    return narrow_pair()


def over_memory() -> Ends:
    return memory_stream_pair(1000)


@pytest.fixture(params=[over_sockets, over_memory])
def make_ends(request: pytest.FixtureRequest) -> Callable[[], Ends]:
    given: Callable[[], Ends] = request.param
    return given


@asynccontextmanager
async def secured(make_ends: Callable[[], Ends]) -> AsyncGenerator[tuple[trio.abc.Stream, trio.abc.Stream]]:
    """A server's stream and its client's."""
    near, far = make_ends()
    streams: dict[str, trio.abc.Stream] = {}

    async def start(name: str, stream: trio.abc.Stream, context: ssl.SSLContext, hostname: str | None) -> None:
        streams[name] = await start_tls(stream, context, hostname)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(start, "server", near, server_context(), None)
            nursery.start_soon(start, "client", far, client_context(), HOST)
        try:
            yield streams["server"], streams["client"]
        finally:
            for stream in (near, far):
                await trio.aclose_forcefully(stream)


async def test_what_is_said_over_any_stream_arrives(make_ends: Callable[[], Ends]) -> None:
    data = bytes(range(256)) * 1000
    async with secured(make_ends) as (server, client):

        async def read(stream: trio.abc.Stream) -> None:
            came = b""
            while len(came) < len(data):
                came += await stream.receive_some(65536)
            assert came == data

        async with trio.open_nursery() as nursery:
            for stream in (server, client):
                nursery.start_soon(read, stream)
                nursery.start_soon(stream.send_all, data)


async def test_over_a_socket_it_is_our_own_and_over_anything_else_it_is_trios() -> None:
    async with secured(over_sockets) as (server, _):
        assert isinstance(server, TlsStream)
    async with secured(over_memory) as (server, _):
        assert isinstance(server, trio.SSLStream)


async def test_a_missing_goodbye_is_the_end(make_ends: Callable[[], Ends]) -> None:
    async with secured(make_ends) as (server, client):
        await client.send_all(b"last")
        inner = client.transport_stream if isinstance(client, trio.SSLStream) else client.stream  # type: ignore[attr-defined]
        await inner.send_eof()
        assert await server.receive_some(100) == b"last"
        assert await server.receive_some(100) == b""


async def is_closed(stream: trio.abc.Stream) -> bool:
    try:
        await stream.send_all(b"x")
    except trio.ClosedResourceError:
        return True
    return False


@pytest.mark.parametrize("data", HOSTILE)
async def test_what_is_no_tls_closes_the_stream(data: bytes, make_ends: Callable[[], Ends]) -> None:
    near, far = make_ends()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def talk() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    while True:
                        await far.send_all(data)

            with pytest.raises((ssl.SSLError, trio.BrokenResourceError)):
                await start_tls(near, server_context(), None)
        assert await is_closed(near)
        await far.aclose()


async def test_who_speaks_plainly_is_told_in_tls(make_ends: Callable[[], Ends]) -> None:
    """An alert, by which a client's library knows what it has met."""
    near, far = make_ends()
    with trio.fail_after(10):
        await far.send_all(b"\x16\x03\x01\x00\x05\x01\xff\xff\xff\x00")
        with pytest.raises((ssl.SSLError, trio.BrokenResourceError)):
            await start_tls(near, server_context(), None)
        if isinstance(near, trio.SocketStream):  # trio's own sends none
            assert (await far.receive_some())[:1] == b"\x15"
    await far.aclose()


@pytest.mark.parametrize("said", [b"", b"\x16", b"\x16\x03\x01\x00\x7a\x01"])
async def test_a_client_that_hangs_up_in_the_handshake_is_told(said: bytes, make_ends: Callable[[], Ends]) -> None:
    near, far = make_ends()
    with trio.fail_after(10):
        if said:
            await far.send_all(said)
        await far.send_eof()
        with pytest.raises(trio.BrokenResourceError):
            await start_tls(near, server_context(), None)
        assert await is_closed(near)
    await far.aclose()


async def test_a_cancelled_handshake_closes_the_stream(make_ends: Callable[[], Ends]) -> None:
    near, far = make_ends()
    with trio.fail_after(10):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(start_tls, near, server_context(), None)
                await wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
        assert await is_closed(near)
        assert await far.receive_some() == b""
    await far.aclose()


async def test_a_link_is_a_link_over_tls_over_any_stream(make_ends: Callable[[], Ends]) -> None:
    async def let_in(_: Request) -> Rejection | None:
        return None

    transport = TrioWebsocketTransport()
    async with secured(make_ends) as (server, client), trio.open_nursery() as nursery:
        await client.send_all(
            b"GET / HTTP/1.1\r\nHost: example.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            b"\x81\x82\0\0\0\0hi"
        )
        link = await transport.accept(nursery, server, Reception(remote=None, judge=let_in))
        assert link.is_direct is isinstance(server, TlsStream)
        assert await link.receive() == ["hi"]
        await link.send(["hello"])
        came = b""
        while not came.endswith(b"\r\n\r\n\x81\x05hello"):
            came += await client.receive_some(1000)
        assert came.startswith(b"HTTP/1.1 101 ")
        await link.abort()
        nursery.cancel_scope.cancel()
