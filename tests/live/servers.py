"""Servers on loopback that follow a script, for tests over the real network."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import trio

from trio_wsprim.testing import Peer, PeerClosed, peer_over

# All here is over in milliseconds; who takes this long hangs.
PATIENCE = 10

GONE = (trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError, PeerClosed)


@asynccontextmanager
async def listening(
    serve: Callable[[trio.SocketStream], Awaitable[object]], host: str = "127.0.0.1"
) -> AsyncGenerator[int]:
    """Serve each TCP connection with a script; give the port."""

    async def serve_one(stream: trio.SocketStream) -> None:
        with suppress(*GONE):
            async with stream:
                await serve(stream)

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            serve_all = partial(trio.serve_tcp, serve_one, 0, host=host)
            listeners: list[trio.SocketListener] = await nursery.start(serve_all)
            yield listeners[0].socket.getsockname()[1]
            nursery.cancel_scope.cancel()


def echo(context: ssl.SSLContext | None = None) -> Callable[[trio.SocketStream], Awaitable[None]]:
    """A script that sends every message back, over TLS if given a context."""

    async def serve(stream: trio.SocketStream) -> None:
        await peer_over(over_tls(stream, context)).serve_echo()

    return serve


def over_tls(stream: trio.SocketStream, context: ssl.SSLContext | None) -> trio.abc.Stream:
    """Put TLS over a stream, at its server's end; without a context, leave it as it is."""
    return stream if context is None else trio.SSLStream(stream, context, server_side=True, https_compatible=True)


async def greet(peer: Peer, message: str | bytes = "hello") -> None:
    """Accept, say one thing, and serve until the client closes."""
    await peer.accept()
    await peer.send(message)
    while True:
        await peer.receive()
