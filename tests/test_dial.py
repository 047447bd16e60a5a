"""From a url to a byte stream: whatever fails comes out as `ConnectionFailed`, with what failed as its cause."""

import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trustme
from trio.testing import MockClock

from trio_wsprim import ConnectionFailed
from trio_wsprim._dial import _default_context, _open_tcp_stream, dial
from trio_wsprim._options import Settings
from trio_wsprim._tls import TlsStream
from trio_wsprim._urls import parse_url
from trio_wsprim.testing import MemoryNetwork


async def dialled(url: str, **options: Any) -> trio.abc.Stream:
    target = parse_url(url)
    return await dial(target, Settings(url=target, **options))


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
    assert str(error).endswith("the server does not seem to speak TLS; is its url ws:?")
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


async def test_where_the_system_has_no_certificates_that_is_told_and_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    def find_nothing() -> ssl.SSLContext:
        raise FileNotFoundError(2, "No such file or directory")

    network = MemoryNetwork()
    monkeypatch.setattr("trio_wsprim._dial._default_context", find_nothing)
    error = await fail("wss://example.test/", open_stream=network.open_stream)
    assert "No such file or directory" in str(error)
    assert network.live == 0


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


async def test_a_host_with_one_address_is_told_by_what_that_said(autojump_clock: MockClock) -> None:
    refusal = ConnectionRefusedError(111, "nobody there")

    async def open_stream(host: str, port: int) -> trio.abc.Stream:
        raise OSError("all attempts failed") from ExceptionGroup("one", [refusal])

    error = await fail("ws://example.test/", open_stream=open_stream)
    assert error.__cause__ is refusal
    assert str(error) == "ws://example.test/ cannot be reached: [Errno 111] nobody there"


def test_the_systems_certificates_are_read_once() -> None:
    assert _default_context() is _default_context()


# --- the real network, on loopback ---


@asynccontextmanager
async def listening(host: str = "127.0.0.1") -> AsyncGenerator[tuple[trio.SocketListener, int]]:
    with trio.fail_after(10):
        listeners = await trio.open_tcp_listeners(0, host=host)
        async with listeners[0]:
            yield listeners[0], listeners[0].socket.getsockname()[1]


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


class Resolver(trio.abc.HostnameResolver):
    """Knows two addresses for every name, of which only the second is any good, and notes who asked."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    async def getaddrinfo(
        self, host: bytes | None, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        self.asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in ("127.0.0.2", "127.0.0.1")]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise AssertionError


class Socket:
    """Hangs in `connect`, and knows whether it was closed."""

    def __init__(self) -> None:
        self.is_closed = False

    async def connect(self, address: object) -> None:
        await trio.sleep_forever()

    def close(self) -> None:
        self.is_closed = True


class Factory(trio.abc.SocketFactory):
    """Makes one kind of socket, or none at all."""

    def __init__(self, made: Socket | OSError) -> None:
        self._made = made

    def socket(self, family: int = 0, type: int = 0, proto: int = 0) -> Any:
        if isinstance(self._made, OSError):
            raise self._made
        return self._made


async def test_without_open_stream_it_is_tcp() -> None:
    async with listening() as (listener, port):
        stream = await dialled(f"ws://127.0.0.1:{port}/")
        assert isinstance(stream, trio.SocketStream)
        assert stream.socket.family == socket.AF_INET
        await stream.aclose()
        await listener.aclose()

        error = await fail(f"ws://127.0.0.1:{port}/")
        assert isinstance(error.__cause__, ConnectionRefusedError)
        assert "refused" in str(error)


@pytest.mark.parametrize(
    ("host", "family"),
    [
        ("127.0.0.1", socket.AF_INET),
        pytest.param("::1", socket.AF_INET6, marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")),
    ],
)
async def test_a_literal_address_is_nobodys_question(
    host: str, family: socket.AddressFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail_to_race(*_: object) -> None:
        raise AssertionError("there is nothing to choose from")

    monkeypatch.setattr(trio, "open_tcp_stream", fail_to_race)
    resolver = Resolver()
    trio.socket.set_custom_hostname_resolver(resolver)
    async with listening(host) as (listener, port):
        resolver.asked.clear()
        shown = f"[{host}]" if ":" in host else host
        stream = await dialled(f"ws://{shown}:{port}/")
        assert isinstance(stream, trio.SocketStream)
        async with stream, await listener.accept() as accepted:
            assert stream.socket.family == family
            assert stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            await stream.send_all(b"hello")
            assert await accepted.receive_some() == b"hello"
    assert resolver.asked == []


@pytest.mark.parametrize("host", ["example.test", "localhost"])
async def test_a_name_is_looked_up_and_all_its_addresses_are_tried(host: str) -> None:
    resolver = Resolver()
    async with listening() as (_, port):
        trio.socket.set_custom_hostname_resolver(resolver)
        stream = await dialled(f"ws://{host}:{port}/")
        assert isinstance(stream, trio.SocketStream)
        await stream.aclose()
    assert resolver.asked == [host.encode()]


async def test_what_is_only_almost_a_literal_address_is_left_to_the_system() -> None:
    async with listening() as (_, port), await _open_tcp_stream("127.1", port) as stream:
        assert stream.socket.getpeername() == ("127.0.0.1", port)


async def test_a_refused_literal_address_leaves_no_socket() -> None:
    async with listening() as (listener, port):
        await listener.aclose()
        before = open_descriptors()
        await fail(f"ws://127.0.0.1:{port}/")
        assert open_descriptors() == before


def open_descriptors() -> int:
    """Count them by asking for the next free one, which works everywhere."""
    with socket.socket() as probe:
        return probe.fileno()


async def test_a_cancelled_connect_leaves_no_socket(autojump_clock: MockClock) -> None:
    made = Socket()
    trio.socket.set_custom_socket_factory(Factory(made))
    with trio.move_on_after(1) as scope:
        await dialled("ws://192.0.2.1/")
    assert scope.cancelled_caught
    assert made.is_closed


async def test_a_family_that_the_system_has_not_is_told() -> None:
    trio.socket.set_custom_socket_factory(Factory(OSError(97, "Address family not supported by protocol")))
    error = await fail("ws://[2001:db8::1]/")
    assert "not supported" in str(error)


@pytest.mark.parametrize("status", [200, 403])
async def test_a_proxy_is_asked_for_a_way(status: int) -> None:
    async with listening() as (listener, port), trio.open_nursery() as nursery:

        async def serve() -> None:
            async with await listener.accept() as stream:
                assert (await stream.receive_some()).startswith(b"CONNECT example.test:81 HTTP/1.1\r\n")
                await stream.send_all(b"HTTP/1.1 %d x\r\n\r\n" % status)
                await see_the_end(stream)

        nursery.start_soon(serve)
        if status == 200:
            stream = await dialled("ws://example.test:81/", proxy=f"http://127.0.0.1:{port}")
            assert isinstance(stream, trio.SocketStream)
            await stream.aclose()
        else:
            error = await fail("ws://example.test:81/", proxy=f"http://127.0.0.1:{port}")
            assert str(error) == "ws://example.test:81/ cannot be reached: ProxyError"


# --- TLS, over that ---


@asynccontextmanager
async def serving(serve: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncGenerator[str]:
    """Serve one connection by a script, which must see its end; give the url."""
    async with listening() as (listener, port), trio.open_nursery() as nursery:

        async def run() -> None:
            async with await listener.accept() as stream:
                await serve(stream)

        nursery.start_soon(run)
        yield f"wss://127.0.0.1:{port}/"


async def see_the_end(stream: trio.abc.ReceiveStream) -> None:
    try:
        while await stream.receive_some():
            pass
    except trio.BrokenResourceError:
        pass


async def test_tls_over_tcp_is_our_own(authority: trustme.CA) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        secure = trio.SSLStream(stream, server_context(authority, "127.0.0.1"), server_side=True, https_compatible=True)
        assert await secure.receive_some() == b"hello"
        await secure.send_all(b"secret")
        await see_the_end(stream)

    async with serving(serve) as url:
        stream = await dialled(url, ssl_context=client_context(authority))
        assert type(stream) is TlsStream
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"secret"
        await stream.aclose()


@pytest.mark.parametrize("is_trusted", [True, False])
async def test_a_bad_certificate_over_tcp_is_the_cause_too(is_trusted: bool, authority: trustme.CA) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        context = server_context(authority, "other.test" if is_trusted else "127.0.0.1")
        with pytest.raises(trio.BrokenResourceError):
            await trio.SSLStream(stream, context, server_side=True).do_handshake()
        await see_the_end(stream)

    async with serving(serve) as url:
        context = client_context(authority if is_trusted else trustme.CA())
        # Over TLS 1.3 a server has done its part of the handshake before we look at its certificate.
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        error = await fail(url, ssl_context=context)
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
    assert str(error).startswith(url + " failed in TLS: ")


@pytest.mark.parametrize(
    ("greeting", "kind"),
    [
        pytest.param(b"SSH-2.0-x\r\n", ssl.SSLError, id="no TLS"),
        pytest.param(b"", trio.BrokenResourceError, id="nothing"),
        pytest.param(b"\x16\x03\x03\x00\x7a\x02", trio.BrokenResourceError, id="half a hello"),
    ],
)
async def test_a_peer_over_tcp_that_makes_no_tls_of_it_is_told(greeting: bytes, kind: type[Exception]) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        if greeting:
            await stream.send_all(greeting)
        await stream.send_eof()
        await see_the_end(stream)

    async with serving(serve) as url:
        error = await fail(url)
    assert isinstance(error.__cause__, kind)
    assert "failed in TLS" in str(error)


async def test_a_peer_over_tcp_that_is_silent_in_tls_is_left_when_we_are_cancelled() -> None:
    async with serving(see_the_end) as url:
        with trio.move_on_after(0.05) as scope:
            await dialled(url)
        assert scope.cancelled_caught


async def test_a_context_for_servers_is_told_over_tcp_too() -> None:
    async with serving(see_the_end) as url:
        error = await fail(url, ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    assert isinstance(error.__cause__, ssl.SSLError)
