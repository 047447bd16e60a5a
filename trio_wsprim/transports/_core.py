"""trio-websocket as a protocol core: fed frame by frame, its answers caught, its faults kept inside.

It does the opening handshake, answers pings, puts fragments together, and judges whatever is neither a plain data
frame nor a close frame. It never touches the network: it reads and writes a `_Guard`, and runs in a nursery of its
own, so that none of its exceptions, and none of its waits, reach ours.

Two of its habits are relied upon: it writes each frame with one `send_all`, and it takes frames from
`receive_some` in pieces of any size. `tests/transports/test_core.py` asserts both.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final, cast, final

import trio
from trio_websocket import WebSocketConnection, wrap_client_stream

from trio_wsprim._scopes import Bell
from trio_wsprim._seam import Upgrade
from trio_wsprim._wire import READ_BYTES

# We take each message out before we feed the next frame, so no more than one is ever there.
_QUEUE_SIZE: Final = 1


@final
class Core:
    """One connection of trio-websocket, driven through memory.

    Args:
        write: Is given each frame, and at first the request, that it wants sent; must not wait.
    """

    __slots__ = ("_connection", "_guard", "_scope", "_settled", "failure", "over")

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._guard = _Guard(write)
        self._scope = trio.CancelScope()
        self._connection: WebSocketConnection | None = None
        self._settled = trio.Event()
        self.failure: BaseException | None = None
        self.over = False

    async def run(self, upgrade: Upgrade) -> None:
        """Run trio-websocket's tasks until `stop`; never raises what they raise."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._connection = await wrap_client_stream(
                        nursery,
                        cast("trio.SocketStream", self._guard),  # any stream does, its own docs say
                        upgrade.host,
                        upgrade.resource,
                        subprotocols=upgrade.subprotocols,
                        extra_headers=[(n.encode(), v.encode()) for n, v in upgrade.headers],
                        message_queue_size=_QUEUE_SIZE,
                        max_message_size=sys.maxsize,  # ours counts bytes, and is checked before
                        receive_buffer_size=READ_BYTES,
                    )
                    self._settled.set()
        except* Exception as group:  # noqa: BLE001 - whatever it stumbles over stays inside
            self.failure = _reason(group)
        finally:
            self.over = True
            self._settled.set()
            self._guard.end()

    def stop(self) -> None:
        """End its tasks; what it was about is forgotten."""
        self._scope.cancel()

    def feed(self, data: bytes) -> None:
        """Give it bytes from the peer; `wait_hungry` tells when it has dealt with them."""
        self._guard.feed(data)

    async def wait_hungry(self) -> None:
        """Wait until it has dealt with all that it was fed, or is over.

        Cancellation: atomic.
        """
        await self._guard.wait_hungry()

    async def wait_settled(self) -> None:
        """Wait until its handshake is done, or it is over. Cancellation: atomic."""
        await self._settled.wait()

    @property
    def subprotocol(self) -> str | None:
        """What the server chose, once the handshake is done."""
        assert self._connection is not None
        return self._connection.subprotocol

    @property
    def verdict(self) -> tuple[int, str] | None:
        """Code and reason once it takes the connection for closed, by the peer or for a breach of the protocol."""
        if self.over:
            return 1002, str(self.failure or "")
        closed = self._connection.closed if self._connection else None
        return None if closed is None else (int(closed.code), closed.reason or "")

    async def take_message(self) -> str | bytes:
        """Take the message that the last fragment made whole.

        Cancellation: atomic.
        """
        assert self._connection is not None
        return await self._connection.get_message()


@final
class _Guard(trio.abc.Stream):
    """The stream that trio-websocket sees."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._food = b""
        self._ended = False
        self._is_hungry = False
        self._fed = Bell()
        self._hungry = Bell()

    def feed(self, data: bytes) -> None:
        self._food += data
        self._is_hungry = False
        self._fed.ring()

    def end(self) -> None:
        self._ended = True
        self._hungry.ring()

    async def wait_hungry(self) -> None:
        while not (self._is_hungry or self._ended):
            await self._hungry.wait()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while not self._food:
            self._is_hungry = True
            self._hungry.ring()
            await self._fed.wait()
        food, self._food = self._food, b""
        return food

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._write(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Nothing to close: the wire is the link's."""
        await trio.lowlevel.checkpoint()


def _reason(error: BaseException) -> BaseException:
    """Find what it stumbled over first.

    Its tasks fail in groups, and after the peer's fault it fails once more over the answer that it tries to give.
    """
    while True:
        if isinstance(error, BaseExceptionGroup):
            error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
        elif error.__context__ is not None:
            error = error.__context__
        else:
            return error
