"""From a url to a byte stream: whatever fails comes out as `ConnectionFailed`, with what failed as its cause."""

import socket
import ssl
from typing import Any

import pytest
import trio
import trustme
from trio.testing import MockClock

from trio_wsprim import ConnectionFailed
from trio_wsprim._dial import _default_context, dial
from trio_wsprim._options import Settings
from trio_wsprim._urls import parse_url
from trio_wsprim.testing import MemoryNetwork


async def dialled(url: str, **options: Any) -> trio.abc.Stream:
    return await dial(parse_url(url), Settings(url=url, **options))


async def fail(url: str, **options: Any) -> ConnectionFailed:
    with pytest.raises(ConnectionFailed) as caught:
        await dialled(url, **options)
    return caught.value


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names).configure_cert(context)
    return context


def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def serve_tls(network: MemoryNetwork, context: ssl.SSLContext) -> None:
    peer = await network.accept()
    stream = trio.SSLStream(peer.stream, context, server_side=True)
    try:
        await stream.do_handshake()
        await stream.send_all(b"secret")
    except trio.BrokenResourceError:
        peer.drop()


async def test_a_plain_url_needs_only_a_stream(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    stream = await dialled("ws://example.test:81/", open_stream=network.open_stream)
    assert isinstance(stream, trio.abc.Stream)
    assert [(each.host, each.port) for each in network.dials] == [("example.test", 81)]


async def test_what_the_system_says_is_told(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse(error=ConnectionRefusedError(111, "nobody there"))
    error = await fail("ws://user:s3cret@example.test/?token=s3cret", open_stream=network.open_stream)
    assert str(error) == "ws://example.test/?… cannot be reached: [Errno 111] nobody there"
    assert isinstance(error.__cause__, ConnectionRefusedError)
    assert not error.permanent


async def test_what_others_say_is_only_named(autojump_clock: MockClock) -> None:
    async def open_stream(host: str, port: int) -> trio.abc.Stream:
        raise LookupError("s3cret")

    error = await fail("ws://example.test/", open_stream=open_stream)
    assert str(error) == "ws://example.test/ cannot be reached: LookupError"
    assert isinstance(error.__cause__, LookupError)


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_what_is_no_stream_is_refused(scheme: str, autojump_clock: MockClock) -> None:
    async def open_stream(host: str, port: int) -> Any:
        return None

    error = await fail(f"{scheme}://example.test/", open_stream=open_stream)
    assert isinstance(error.__cause__, TypeError)


async def test_a_cancelled_dial_leaves_nothing(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.stall()
    for scheme in ("ws", "wss"):  # the second is silent in TLS
        with trio.move_on_after(1) as scope:
            await dialled(f"{scheme}://example.test/", open_stream=network.open_stream)
        assert scope.cancelled_caught
    assert network.live == 0


# --- TLS ---


async def test_tls_runs_over_any_stream(authority: trustme.CA, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    asked_for: list[str | None] = []
    context = server_context(authority, "example.test")
    context.sni_callback = lambda _socket, name, _context: asked_for.append(name)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_tls, network, context)
        stream = await dialled(
            "wss://example.test/", open_stream=network.open_stream, ssl_context=client_context(authority)
        )
        assert await stream.receive_some() == b"secret"
        await stream.aclose()
    assert asked_for == ["example.test"]
    assert network.dials[0].port == 443


async def test_the_dot_at_the_end_of_a_host_is_no_part_of_its_name(
    authority: trustme.CA, autojump_clock: MockClock
) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_tls, network, server_context(authority, "example.test"))
        stream = await dialled(
            "wss://example.test./", open_stream=network.open_stream, ssl_context=client_context(authority)
        )
        await trio.aclose_forcefully(stream)


@pytest.mark.parametrize("is_trusted", [True, False])
async def test_a_bad_certificate_is_the_cause(
    is_trusted: bool, authority: trustme.CA, autojump_clock: MockClock
) -> None:
    network = MemoryNetwork()
    name = "other.test" if is_trusted else "example.test"
    context = client_context(authority if is_trusted else trustme.CA())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_tls, network, server_context(authority, name))
        error = await fail("wss://example.test/", open_stream=network.open_stream, ssl_context=context)
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
    assert str(error).startswith("wss://example.test/ failed in TLS: ")
    assert network.live == 0


async def test_a_peer_that_speaks_no_tls_is_told_at_once(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await (await network.accept()).send_raw(b"SSH-2.0-x\r\n")

        nursery.start_soon(serve)
        error = await fail("wss://example.test/", open_stream=network.open_stream)
    assert isinstance(error.__cause__, ssl.SSLError)
    assert (trio.current_time(), network.live) == (0, 0)


async def test_a_peer_that_hangs_up_in_tls_is_told_at_once(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            (await network.accept()).drop()

        nursery.start_soon(serve)
        error = await fail("wss://example.test/", open_stream=network.open_stream)
    assert str(error).startswith("wss://example.test/ failed in TLS: ")
    assert (trio.current_time(), network.live) == (0, 0)


async def test_a_context_for_servers_is_told_and_leaves_nothing(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    error = await fail("wss://example.test/", open_stream=network.open_stream, ssl_context=context)
    assert isinstance(error.__cause__, ssl.SSLError)
    assert network.live == 0


async def test_a_host_of_which_no_address_answers_is_told_as_a_whole(autojump_clock: MockClock) -> None:
    async def open_stream(host: str, port: int) -> trio.abc.Stream:
        refusals = ExceptionGroup("both", [ConnectionRefusedError(111, "one"), TimeoutError(110, "two")])
        raise OSError("all attempts failed") from refusals

    error = await fail("ws://example.test/", open_stream=open_stream)
    assert str(error) == "ws://example.test/ cannot be reached: all attempts failed"


def test_the_systems_certificates_are_read_once() -> None:
    assert _default_context() is _default_context()


# --- the real network, on loopback ---


async def test_without_open_stream_it_is_tcp() -> None:
    with trio.fail_after(10):
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        stream = await dialled(f"ws://127.0.0.1:{port}/")
        assert isinstance(stream, trio.SocketStream)
        assert stream.socket.family == socket.AF_INET
        await stream.aclose()
        await listeners[0].aclose()

        error = await fail(f"ws://127.0.0.1:{port}/")
        assert isinstance(error.__cause__, ConnectionRefusedError)
        assert "refused" in str(error)
