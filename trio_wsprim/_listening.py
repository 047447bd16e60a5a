"""Accepting connections, whatever happens."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, cast

import trio

from trio_wsprim._throttle import ThrottledLog

# Seconds to wait after an accept that failed: no file descriptors left, mostly. Doubled each time, up to the second.
_FIRST_WAIT: Final = 0.05
_LONGEST_WAIT: Final = 1.0
# How an address is reached from the machine that listens on all of them.
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not listened on


async def accept_forever(
    listener: trio.abc.Listener[trio.abc.Stream],
    take: Callable[[trio.abc.Stream], Awaitable[None]],
    log: ThrottledLog,
) -> None:
    """Accept connections until cancelled, or until the listener is closed; it is closed after it.

    Args:
        listener: Its own from now on.
        take: Is given each stream.
        log: Is told what goes wrong.

    Cancellation: always closes the listener.
    """
    wait = _FIRST_WAIT
    try:
        while True:
            try:
                stream = await listener.accept()
            except trio.ClosedResourceError:
                return
            except ConnectionAbortedError:
                continue  # a client that has gone again by itself, as anybody can; others wait
            except OSError as error:
                log.tell(logging.ERROR, "cannot accept connections: %s; trying again in %g s", error, wait)
                await trio.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
            else:
                wait = _FIRST_WAIT
                await take(stream)
    finally:
        await trio.aclose_forcefully(listener)


def find_place(listeners: Iterable[object]) -> tuple[str, int] | None:
    """Give the host and port of the first listener that has any."""
    for listener in listeners:
        while isinstance(listener, trio.SSLListener):
            listener = cast("Any", listener).transport_listener
        if isinstance(listener, trio.SocketListener):
            place = _pair(listener.socket.getsockname())
            if place is not None:
                return _WILDCARDS.get(place[0], place[0]), place[1]
    return None


def find_remote(stream: trio.abc.Stream) -> tuple[str, int] | None:
    """Give the address of the other end of a stream; `None` if it has none, or is gone already."""
    inner: object = stream
    while isinstance(inner, trio.SSLStream):
        inner = cast("Any", inner).transport_stream
    if not isinstance(inner, trio.SocketStream):
        return None
    try:
        return _pair(inner.socket.getpeername())
    except OSError:
        return None


def _pair(address: object) -> tuple[str, int] | None:
    """Take host and port out of what a socket tells; a unix socket tells a path."""
    if not isinstance(address, tuple):
        return None
    host, port = cast("tuple[str, int]", address)[:2]
    return host, port
