"""Our client and our server, as the suite wants them: what comes in goes out again."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Final, cast
from unittest.mock import patch
from urllib.parse import quote

import trio

from trio_wsprim import (
    TrioWebsocketTransport,
    WebSocket,
    WebSocketError,
    WebsocketsTransport,
    create_ws,
    create_ws_server,
)
from trio_wsprim._lane import FrameDecoder
from trio_wsprim.abc import ServerTransport, Transport

TRANSPORTS: Final[dict[str, Callable[[], TrioWebsocketTransport | WebsocketsTransport]]] = {
    "websockets": WebsocketsTransport,
    "trio-websocket": TrioWebsocketTransport,
    "websockets-deflate": partial(WebsocketsTransport, compression="deflate"),
}
# The largest messages of section 9 have 16 MiB.
MAX_MESSAGE_BYTES: Final = 16 * 2**20
# Seconds that a case may take; the suite's own deadlines are shorter.
_MOST_SECONDS: Final = 300.0


async def echo(ws: WebSocket) -> None:
    """Send back what comes in."""
    async for message in ws:
        await ws.send(message)


async def run_case(url: str, case: str, agent: str, transport: Transport, max_message_bytes: int) -> None:
    """Let a fuzzing server do a case to our client. One that takes too long is cut off, which the suite reports."""
    resource = f"{url}/runCase?casetuple={case}&agent={quote(agent)}"
    with trio.move_on_after(_MOST_SECONDS):
        try:
            async with create_ws(resource, transport=transport, max_message_bytes=max_message_bytes) as ws:
                await echo(ws)
        except WebSocketError:
            pass  # most cases break the connection; the suite saw how we took it


async def run_cases(
    url: str,
    cases: Iterable[str],
    agent: str,
    transport: Transport,
    *,
    at_once: int = 1,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
) -> None:
    """Let a fuzzing server do cases to our client, so many at a time."""
    limit = trio.CapacityLimiter(at_once)

    async def run_in_turn(case: str) -> None:
        async with limit:
            await run_case(url, case, agent, transport, max_message_bytes)

    async with trio.open_nursery() as nursery:
        for case in cases:
            nursery.start_soon(run_in_turn, case)


async def write_reports(url: str, agent: str) -> None:
    """Have a fuzzing server write its reports; it hangs up when they are there."""
    with trio.fail_after(_MOST_SECONDS):
        async with create_ws(f"{url}/updateReports?agent={quote(agent)}") as ws:
            await echo(ws)


@asynccontextmanager
async def echo_server(transport: ServerTransport, max_message_bytes: int = MAX_MESSAGE_BYTES) -> AsyncGenerator[str]:
    """Serve for the time of a block; give the url."""
    async with create_ws_server(echo, transport=transport, max_message_bytes=max_message_bytes) as server:
        yield server.url


@contextmanager
def lane(*, is_open: bool) -> Generator[None]:
    """Open or shut the lane of the common frame for the time of a block; shut, the cores judge every frame."""
    decoder = cast("type[FrameDecoder]", partial(FrameDecoder, has_lane=is_open))
    with patch("trio_wsprim.transports._handshake.FrameDecoder", decoder):
        yield


def split(cases: Sequence[str]) -> Sequence[Sequence[str]]:
    """Part cases into lots that do not disturb each other: what is large, what is many, and the rest.

    While the suite is at one of 16 MiB, it looks at no clock, and takes the answer to another for late.
    """
    lots: dict[str, list[str]] = {}
    for case in cases:
        section = case.partition(".")[0]
        lots.setdefault(section if section in {"6", "9", "12", "13"} else "others", []).append(case)
    return list(lots.values())
