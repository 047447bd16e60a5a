"""What the tests of sockets share: a url, a socket with its scripted peer, and an eye on what happens."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Unpack

import trio

from trio_wsprim import (
    Event,
    Options,
    ReconnectingOptions,
    ReconnectingWebSocket,
    WebSocket,
    create_reconnecting_ws,
    create_ws,
)
from trio_wsprim.testing import MemoryNetwork, Peer

URL = "ws://example.test/chat"


@asynccontextmanager
async def opened(network: MemoryNetwork, **options: Unpack[Options]) -> AsyncGenerator[tuple[WebSocket, Peer]]:
    """Open a plain socket and accept it."""
    options.setdefault("open_stream", network.open_stream)
    async with create_ws(URL, **options) as ws:
        yield ws, await accept(network, ws)


@asynccontextmanager
async def reopening(
    network: MemoryNetwork, **options: Unpack[ReconnectingOptions]
) -> AsyncGenerator[tuple[ReconnectingWebSocket, Peer]]:
    """Open a reconnecting socket, with a wait of one second unless told otherwise, and accept it."""
    options.setdefault("open_stream", network.open_stream)
    options.setdefault("delay", 1.0)
    async with create_reconnecting_ws(URL, **options) as ws:
        yield ws, await accept(network, ws)


async def accept(network: MemoryNetwork, ws: WebSocket, subprotocol: str | None = None) -> Peer:
    """Accept the next connection, and wait until the socket knows."""
    peer = await network.accept()
    await peer.accept(subprotocol)
    await ws.wait_open()
    return peer


async def drain(channel: trio.MemoryReceiveChannel[Event]) -> list[Event]:
    """Take all events until their end."""
    return [event async for event in channel]


def taken(channel: trio.MemoryReceiveChannel[Event]) -> list[Event]:
    """Take the events that are there."""
    events: list[Event] = []
    while True:
        try:
            events.append(channel.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel):
            return events


def kinds(events: list[Event]) -> list[str]:
    """Name the events, without the word that they all end with."""
    return [type(event).__name__.removesuffix("Event") for event in events]
