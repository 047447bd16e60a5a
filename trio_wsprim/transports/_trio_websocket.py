"""The transport over trio-websocket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import trio

from trio_wsprim._seam import Link, Reception, Upgrade
from trio_wsprim.transports._handshake import accept_link, open_link

if TYPE_CHECKING:
    from trio_wsprim.transports._trio_websocket_core import TrioWebsocketCore


@final
@dataclass(frozen=True, slots=True)
class TrioWebsocketTransport:
    """WebSocket by `trio-websocket` and `wsproto`, which are always installed. Without compression.

    Plain data frames and close frames pass it by, in a lane of our own; the rest of the protocol is its own.
    """

    async def connect(self, nursery: trio.Nursery, stream: trio.abc.Stream, upgrade: Upgrade) -> Link:
        """See `trio_wsprim.abc.Transport`."""
        return await open_link(nursery, stream, upgrade, _make_core)

    async def accept(self, nursery: trio.Nursery, stream: trio.abc.Stream, reception: Reception) -> Link:
        """See `trio_wsprim.abc.ServerTransport`."""
        return await accept_link(nursery, stream, reception, _make_core)


def _make_core(queue: Callable[[bytes], None]) -> TrioWebsocketCore:
    # Imported here: it takes some 35 ms, and the other transport does without it.
    from trio_wsprim.transports._trio_websocket_core import TrioWebsocketCore

    return TrioWebsocketCore(queue)
