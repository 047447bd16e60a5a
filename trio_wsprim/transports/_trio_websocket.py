"""The transport over trio-websocket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import trio

from trio_wsprim._seam import Link, Upgrade
from trio_wsprim.transports._handshake import open_link


@final
@dataclass(frozen=True, slots=True)
class TrioWebsocketTransport:
    """WebSocket by `trio-websocket` and `wsproto`, which are always installed. Without compression.

    Plain data frames and close frames pass it by, in a lane of our own; the rest of the protocol is its own.
    """

    async def connect(self, nursery: trio.Nursery, stream: trio.abc.Stream, upgrade: Upgrade) -> Link:
        """See `trio_wsprim.abc.Transport`."""
        # Imported here: it takes some 35 ms, and the other transport does without it.
        from trio_wsprim.transports._trio_websocket_core import TrioWebsocketCore

        return await open_link(nursery, stream, upgrade, TrioWebsocketCore)
