"""TLS over real sockets: what is trusted, what is refused and not tried again, and what the server is told."""

import ssl

import pytest
import trio
import trustme

from tests.live.servers import echo, greet, listening, over_tls
from trio_wsprim import ConnectionClosed, ConnectionFailed, RetriesExhausted, create_reconnecting_ws, create_ws
from trio_wsprim.testing import peer_over


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def client(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def server(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names).configure_cert(context)
    return context


async def test_a_trusted_server_is_talked_to(authority: trustme.CA, client: ssl.SSLContext) -> None:
    names: list[str | None] = []
    context = server(authority, "localhost")
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    async with (
        listening(echo(context)) as port,
        create_ws(f"wss://localhost:{port}/", ssl_context=client) as ws,
    ):
        for message in ("hello", b"\x00" * 1_000_000, "é" * 1000):
            await ws.send(message)
            assert await ws.receive() == message
        await ws.aclose()
        assert (await ws.wait_closed()).clean
    assert names == ["localhost"]


async def test_much_both_ways_at_once_arrives_in_order(authority: trustme.CA, client: ssl.SSLContext) -> None:
    async with (
        listening(echo(server(authority, "localhost"))) as port,
        create_ws(f"wss://localhost:{port}/", ssl_context=client) as ws,
        trio.open_nursery() as nursery,
    ):

        async def send() -> None:
            for number in range(2000):
                await ws.send(f"{number}" * 20)

        nursery.start_soon(send)
        assert [await ws.receive() for _ in range(2000)] == [f"{number}" * 20 for number in range(2000)]


async def test_an_address_needs_no_name(authority: trustme.CA, client: ssl.SSLContext) -> None:
    names: list[str | None] = []
    context = server(authority, "127.0.0.1")
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    async with (
        listening(echo(context)) as port,
        create_ws(f"wss://127.0.0.1:{port}/", ssl_context=client) as ws,
    ):
        await ws.wait_open()
    assert names == [None]  # RFC 6066, 3: an address is not sent


async def test_a_wrong_host_name_is_refused_and_not_tried_again(authority: trustme.CA, client: ssl.SSLContext) -> None:
    async with listening(echo(server(authority, "elsewhere.test"))) as port:
        url = f"wss://localhost:{port}/"
        with pytest.raises(ConnectionFailed) as caught:
            async with create_ws(url, ssl_context=client) as ws:
                await ws.wait_open()
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)

        with pytest.raises(ConnectionFailed) as caught:
            async with create_reconnecting_ws(url, ssl_context=client, delay=0.01) as again:
                await again.wait_closed()
        assert type(caught.value) is ConnectionFailed
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
        assert again.statistics().attempts == 1


async def test_an_unknown_authority_is_refused_and_not_tried_again(authority: trustme.CA) -> None:
    async with listening(echo(server(authority, "localhost"))) as port:
        with pytest.raises(ConnectionFailed) as caught:
            async with create_reconnecting_ws(f"wss://localhost:{port}/", delay=0.01) as ws:  # the system's
                await ws.wait_closed()
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
        assert ws.statistics().attempts == 1


async def test_a_server_without_tls_is_tried_again(client: ssl.SSLContext) -> None:
    async with listening(echo()) as port:
        with pytest.raises(RetriesExhausted) as caught:
            async with create_reconnecting_ws(
                f"wss://localhost:{port}/", ssl_context=client, delay=0.01, retries=1, connect_timeout=0.3
            ) as ws:
                await ws.wait_open()
        assert isinstance(caught.value.__cause__, ConnectionFailed)


async def test_silence_in_tls_is_a_timeout(client: ssl.SSLContext) -> None:
    async def silent(stream: trio.SocketStream) -> None:
        while await stream.receive_some():
            pass

    async with listening(silent) as port:
        with pytest.raises(ConnectionFailed) as caught:
            async with create_ws(f"wss://localhost:{port}/", ssl_context=client, connect_timeout=0.2) as ws:
                await ws.wait_open()
        assert isinstance(caught.value.__cause__, trio.TooSlowError)


async def test_half_a_tls_handshake_is_told_at_once(authority: trustme.CA, client: ssl.SSLContext) -> None:
    async def half(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"\x16\x03\x03\x00\x7a\x02")

    async with listening(half) as port:
        with pytest.raises(ConnectionFailed, match="failed in TLS"):
            async with create_ws(f"wss://localhost:{port}/", ssl_context=client) as ws:
                await ws.wait_open()


@pytest.mark.parametrize("reset", [True, False])
async def test_an_end_without_a_goodbye_is_a_lost_connection(
    reset: bool, authority: trustme.CA, client: ssl.SSLContext
) -> None:
    context = server(authority, "localhost")

    async def serve(stream: trio.SocketStream) -> None:
        peer = peer_over(over_tls(stream, context))
        await peer.accept()
        await peer.send("last words")
        await peer.receive()
        peer.reset() if reset else peer.drop()

    async with listening(serve) as port:
        with pytest.raises(ConnectionClosed) as caught:
            async with create_ws(f"wss://localhost:{port}/", ssl_context=client) as ws:
                assert await ws.receive() == "last words"
                await ws.send("go")
                await ws.receive()
        assert (caught.value.code, caught.value.clean) == (1006, False)


async def test_a_proof_of_the_client_is_given(authority: trustme.CA, client: ssl.SSLContext) -> None:
    context = server(authority, "localhost")
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)

    async def serve(stream: trio.SocketStream) -> None:
        await greet(peer_over(over_tls(stream, context)))

    async with listening(serve) as port:
        with pytest.raises(ConnectionFailed):
            async with create_ws(f"wss://localhost:{port}/", ssl_context=client) as ws:
                await ws.wait_open()

        authority.issue_cert("me@client.test").configure_cert(client)
        async with create_ws(f"wss://localhost:{port}/", ssl_context=client) as ws:
            assert await ws.receive() == "hello"
