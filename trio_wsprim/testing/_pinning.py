"""Other ways to dial, and other transports, for code that names none: for the time of a block, in the whole process."""

# pyright: reportPrivateUsage=false
# What is looked up there is replaced there.

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Final

import trio

from trio_wsprim import _attempt, _server
from trio_wsprim._dial import dial
from trio_wsprim._options import OpenStream, Settings
from trio_wsprim._seam import Transport
from trio_wsprim._urls import Target
from trio_wsprim.transports import TrioWebsocketTransport, WebsocketsTransport, default_transport

from ._transport import MemoryTransport

TRANSPORTS: Final[dict[str, Callable[[], Transport]]] = {
    "websockets": WebsocketsTransport,
    "trio-websocket": TrioWebsocketTransport,
    "memory": MemoryTransport,
}


@contextmanager
def dials_to(open_stream: OpenStream, transport: Transport | None) -> Generator[None]:
    """Have `open_stream` asked for all that is dialled, without TLS and proxies.

    Args:
        open_stream: For who names none of his own.
        transport: For who names none, unless one is pinned; `None` for the best that is installed.
    """

    async def dial_there(target: Target, settings: Settings) -> trio.abc.Stream:
        if settings.open_stream is None:
            target = replace(target, secure=False)
            settings = replace(settings, open_stream=open_stream, proxy=None)
        return await dial(target, settings)

    with ExitStack() as stack:
        stack.enter_context(_replaced(_attempt, "dial", dial_there))
        if transport is not None and vars(_attempt)["default_transport"] is default_transport:
            stack.enter_context(_replaced(_attempt, "default_transport", lambda: transport))
        yield


@contextmanager
def pinned_transport(name: str) -> Generator[None]:
    """Let `transport=None` mean the one of that name, for clients and servers.

    Args:
        name: One of `TRANSPORTS`; `"memory"` leaves servers alone, since there is no such thing for them.

    Raises:
        ImportError: If what it needs is not installed.
    """
    make = TRANSPORTS[name]
    make()  # to tell now what is missing
    with ExitStack() as stack:
        stack.enter_context(_replaced(_attempt, "default_transport", make))
        if name != "memory":
            stack.enter_context(_replaced(_server, "default_transport", make))
        yield


@contextmanager
def _replaced(module: ModuleType, name: str, value: object) -> Generator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
