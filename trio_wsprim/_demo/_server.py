"""The demo's echo server, on loopback, which can be told to go wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, final

import trio

from trio_wsprim.testing import Peer, PeerClosed, peer_over

HOST: Final = "127.0.0.1"
RETRY_AFTER: Final = 1
"""Whole seconds: the header has no fractions."""


@final
class FaultyServer:
    """Echoes every message, and keeps a record of the numbers that come.

    Args:
        nursery: Where it lives; its cancellation ends it.
        note_arrival: Is told each message's number, and that of the connection which brought it.
        returned: Takes up after how many seconds a client came back that had been told to wait.

    Attributes:
        port: The same over all its absences.
        connection: How many WebSocket connections it has accepted: the number of the latest.
    """

    __slots__ = (
        "_awake",
        "_listening",
        "_note_arrival",
        "_nursery",
        "_peer",
        "_refusals",
        "_refused_at",
        "_returned",
        "connection",
        "port",
    )

    def __init__(self, nursery: trio.Nursery, note_arrival: Callable[[int, int], None], returned: list[float]) -> None:
        self._nursery = nursery
        self._note_arrival = note_arrival
        self._listening = trio.CancelScope()
        self._awake = trio.CancelScope()
        self._peer: Peer | None = None
        self._refusals = 0
        self._refused_at: float | None = None
        self.connection = 0
        self.port = 0
        self._returned = returned

    async def listen(self) -> None:
        """Take connections from now on."""
        listeners = await trio.open_tcp_listeners(self.port, host=HOST)
        self.port = listeners[0].socket.getsockname()[1]
        self._listening = trio.CancelScope()
        await self._nursery.start(self._serve, listeners)

    async def _serve(
        self,
        listeners: Sequence[trio.SocketListener],
        *,
        task_status: trio.TaskStatus[list[trio.SocketListener]],
    ) -> None:
        with self._listening:
            await trio.serve_listeners(
                self._meet, list(listeners), handler_nursery=self._nursery, task_status=task_status
            )

    # -------------------------------------------------------------------------------- faults

    def reset(self) -> None:
        """Kill the connection by RST, as a crash or an impatient firewall does."""
        assert self._peer is not None
        self._peer.reset()

    def freeze(self) -> None:
        """Neither read nor write any more, and keep TCP open: a hung process, a pulled cable."""
        self._awake.cancel()

    async def go_away(self, seconds: float) -> None:
        """Drop the connection and refuse all others for a while: a restart."""
        assert self._peer is not None
        self._listening.cancel()
        self._peer.drop()
        await trio.sleep(seconds)
        await self.listen()

    def be_busy(self) -> None:
        """Drop the connection, and answer the next dial with 503 and `Retry-After`: overload."""
        assert self._peer is not None
        self._refusals = 1
        self._peer.drop()

    # -------------------------------------------------------------------------------- serving

    async def _meet(self, stream: trio.SocketStream) -> None:
        """Look after one connection; that it may end in any way is the point of this server."""
        with suppress(trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError, PeerClosed):
            await self._answer(peer_over(stream))

    async def _answer(self, peer: Peer) -> None:
        self._note_return()
        if self._refusals:
            self._refusals -= 1
            self._refused_at = trio.current_time()
            await peer.reject(503, [("Retry-After", str(RETRY_AFTER))], b"busy\n")
            return
        await peer.accept()
        self.connection += 1
        self._peer = peer
        await self._echo(peer, self.connection)

    def _note_return(self) -> None:
        if self._refused_at is not None:
            self._returned.append(trio.current_time() - self._refused_at)
            self._refused_at = None

    async def _echo(self, peer: Peer, connection: int) -> None:
        with trio.CancelScope() as self._awake:
            while True:
                message = await peer.receive()
                self._note_arrival(int(message), connection)
                await peer.send(message)
        await trio.sleep_forever()
