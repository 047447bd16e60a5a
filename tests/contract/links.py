"""Links of every kind and the peers at their other ends, in memory and over sockets."""

from __future__ import annotations

import socket
import ssl
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol, final

import pytest
import trio

from tests.roles import StreamOfPeer, SwappedStream
from tests.tls import HOST, client_context, server_context
from trio_wsprim import Rejection, Request
from trio_wsprim._seam import Reception, ServerTransport
from trio_wsprim._tls import TlsStream, start_tls
from trio_wsprim.abc import Incoming, Link, Transport, Upgrade
from trio_wsprim.testing import MemoryNetwork, Peer, encode_frame, memory_stream_pair, peer_over
from trio_wsprim.transports import TrioWebsocketTransport, WebsocketsTransport

# Seconds, of real time over sockets: who takes this long hangs.
PATIENCE: Final = 10
# What a compressed message ends with, and is sent without (RFC 7692, 7.2.1).
TAIL: Final = b"\x00\x00\xff\xff"


class AnyTransport(Transport, ServerTransport, Protocol):
    """Is a client's and a server's."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A transport in one of its roles, and what the peers that it meets choose.

    Attributes:
        extension: What they say about extensions; `None` for not a word.
        is_server: Whether its peers are clients.
    """

    name: str
    transport: AnyTransport
    extension: str | None = None
    is_server: bool = False


KINDS: Final = (
    Kind("trio-websocket", TrioWebsocketTransport()),
    Kind("websockets", WebsocketsTransport()),
    Kind("deflate-declined", WebsocketsTransport(compression="deflate")),
    Kind("deflate", WebsocketsTransport(compression="deflate"), "permessage-deflate"),
)
SERVERS: Final = (
    Kind("trio-websocket server", TrioWebsocketTransport(), is_server=True),
    Kind("websockets server", WebsocketsTransport(), is_server=True),
    Kind("deflate-not-offered server", WebsocketsTransport(compression="deflate"), is_server=True),
    Kind(
        "deflate server",
        WebsocketsTransport(compression="deflate"),
        "permessage-deflate; client_max_window_bits",
        is_server=True,
    ),
)


# ------------------------------------------------------------------------------------ in memory


@asynccontextmanager
async def linked(
    kind: Kind,
    *,
    buffer_size: int = 65536,
    max_message_bytes: int | None = 2**20,
    subprotocols: tuple[str, ...] = (),
    behind: bytes = b"",
) -> AsyncGenerator[tuple[Link, Peer]]:
    """An open link and the peer at its other end; afterwards, nothing of it may be left.

    Args:
        behind: What the peer says in one piece with its side of the handshake.
    """
    network = MemoryNetwork(buffer_size=buffer_size)
    upgrade = Upgrade(
        host="example.test",
        resource="/chat?a=b",
        headers=(("X-One", "1"),),
        subprotocols=subprotocols,
        max_message_bytes=max_message_bytes,
    )
    with trio.fail_after(1000):
        async with trio.open_nursery() as nursery:
            stream = await network.open_stream("example.test", 80)
            async with shaken(nursery, kind, stream, await network.accept(), upgrade, behind) as (link, peer):
                yield link, peer
            nursery.cancel_scope.cancel()
    assert network.live == 0


@asynccontextmanager
async def shaken(
    nursery: trio.Nursery, kind: Kind, stream: trio.abc.Stream, peer: Peer, upgrade: Upgrade, behind: bytes = b""
) -> AsyncGenerator[tuple[Link, Peer]]:
    """A link over a stream, and the peer to speak with it from now on; aborted in the end.

    Args:
        peer: At the other end of the stream.
        upgrade: What a client asks for; a server speaks those subprotocols, and has that limit.
        behind: As for `linked`.
    """
    if kind.is_server:
        nursery.start_soon(ask, peer, kind, upgrade, client := SwappedStream(peer), behind)
        reception = Reception(
            remote=None,
            judge=let_in,
            subprotocols=upgrade.subprotocols,
            max_message_bytes=upgrade.max_message_bytes,
        )
        link = await kind.transport.accept(nursery, stream, reception)
        while peer.request is None:
            await trio.lowlevel.checkpoint()
        peer = inflating(peer_behind(client, peer), kind)
    else:
        peer = inflating(peer, kind)
        nursery.start_soon(accept, peer, kind, upgrade.subprotocols, behind)
        link = await kind.transport.connect(nursery, stream, upgrade)
    try:
        yield link, peer
    finally:
        await link.abort()


def inflating(peer: Peer, kind: Kind) -> Peer:
    return peer if kind.extension is None else peer_behind(Inflating(peer), peer)


def peer_behind(stream: trio.abc.Stream, peer: Peer) -> Peer:
    """A peer over a stream that is made of another, as far in the handshake as that."""
    behind = peer_over(stream)
    behind.request = peer.request
    return behind


async def let_in(request: Request) -> Rejection | None:
    return None


async def ask(peer: Peer, kind: Kind, upgrade: Upgrade, client: SwappedStream, behind: bytes) -> None:
    """Ask as a client does, and read the answer; its head is the peer's `request` then."""
    lines = [
        f"GET {upgrade.resource} HTTP/1.1",
        f"Host: {upgrade.host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version: 13",
    ]
    if upgrade.subprotocols:
        lines.append(f"Sec-WebSocket-Protocol: {', '.join(upgrade.subprotocols)}")
    if kind.extension is not None:
        lines.append(f"Sec-WebSocket-Extensions: {kind.extension}")
    await peer.send_raw("\r\n".join([*lines, "\r\n"]).encode() + client.outgoing(behind))
    answer = await peer.read_request()
    assert answer.path == "101"
    assert (answer.header("sec-websocket-extensions") is None) == (kind.extension is None)


async def accept(peer: Peer, kind: Kind, subprotocols: Sequence[str] = (), behind: bytes = b"") -> None:
    headers = [("X-Served-By", "Test")]
    if kind.extension is not None:
        headers.append(("Sec-WebSocket-Extensions", kind.extension))
    if not behind:
        await peer.accept(subprotocols[0] if subprotocols else None, headers)
        return
    near, far = memory_stream_pair()
    scribe = peer_over(near)
    scribe.request = await peer.read_request()
    await scribe.accept(None, headers)
    await peer.send_raw(await far.receive_some() + behind)


@final
class Inflating(StreamOfPeer):
    """A peer's end of a compressed connection, whose reader sees what the link says as it was.

    What it says itself goes out uncompressed, as it may (RFC 7692, 6).
    """

    def __init__(self, peer: Peer) -> None:
        super().__init__(peer)
        self._inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        self._is_over = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._peer.request is None:
            return (await self._peer.read_request()).raw
        if self._is_over:
            return b""
        try:
            frame = await self._peer.receive_frame()
        except trio.EndOfChannel:
            self._is_over = True
            return self._peer.unparsed
        payload = frame.payload
        if frame.rsv == 4:
            payload = self._inflater.decompress(payload + TAIL)
        return encode_frame(frame.opcode, payload, fin=frame.fin, rsv=frame.rsv & 3, masked=frame.masked)


# ------------------------------------------------------------------------------------ over sockets


@dataclass(frozen=True, slots=True)
class Wiring:
    """What is between a link and its peer.

    Attributes:
        client: Over TLS, whom the client trusts; `None` for plain TCP.
        server: Over TLS, the server's certificate.
    """

    client: ssl.SSLContext | None = None
    server: ssl.SSLContext | None = None


def over_tcp() -> Wiring:
    return Wiring()


def over_tls() -> Wiring:
    return Wiring(client_context(), server_context())


@asynccontextmanager
async def linked_over(
    wiring: Wiring, kind: Kind, *, small: bool = False, max_message_bytes: int | None = 2**20
) -> AsyncGenerator[tuple[Link, Peer]]:
    """An open link over loopback, and the peer at its other end.

    Args:
        small: Whether the kernel is to hold as little as it can.
    """
    upgrade = Upgrade(host=HOST, resource="/", max_message_bytes=max_message_bytes)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            async with listener:
                if small:
                    listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client = await connect(listener.socket.getsockname()[1], small=small)
                server = await listener.accept()
            # Whoever dials; which of the two is the server is another matter.
            stream, far = await secure(wiring, kind, client, server)
            async with shaken(nursery, kind, stream, peer_over(far), upgrade) as (link, peer):
                try:
                    yield link, peer
                finally:
                    await link.abort()
                    server.socket.close()
            nursery.cancel_scope.cancel()


async def secure(
    wiring: Wiring, kind: Kind, ours: trio.SocketStream, theirs: trio.SocketStream
) -> tuple[trio.abc.Stream, trio.abc.Stream]:
    """Put TLS over a link's stream and its peer's, if so wired."""
    if wiring.client is None or wiring.server is None:
        return ours, theirs
    context, hostname = (wiring.server, None) if kind.is_server else (wiring.client, HOST)
    far = trio.SSLStream(
        theirs,
        wiring.client if kind.is_server else wiring.server,
        server_hostname=HOST if kind.is_server else None,
        server_side=not kind.is_server,
        https_compatible=True,
    )
    streams: list[trio.abc.Stream] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(far.do_handshake)
        streams.append(await start_tls(ours, context, hostname))
    assert isinstance(streams[0], TlsStream)
    return streams[0], far


async def connect(port: int, *, small: bool) -> trio.SocketStream:
    sock = trio.socket.socket()
    if small:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    await sock.connect(("127.0.0.1", port))
    return trio.SocketStream(sock)


# ------------------------------------------------------------------------------------ what tests do with them


async def closing(link: Link, code: int = 1000, reason: str = "", seconds: float = 5) -> None:
    with trio.move_on_after(seconds):
        await link.aclose(code, reason)


async def receive_all(link: Link, count: int) -> list[Incoming]:
    items: list[Incoming] = []
    while len(items) < count:
        items += await link.receive()
    return items


async def expect(kind: type[BaseException], work: Callable[[], Awaitable[object]]) -> BaseException:
    with pytest.raises(kind) as caught:
        await work()
    assert type(caught.value) is kind
    return caught.value
