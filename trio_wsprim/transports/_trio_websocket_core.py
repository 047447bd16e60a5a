"""trio-websocket as a protocol core: fed frame by frame, its answers caught, its faults kept inside.

It does the opening handshake, answers pings, puts fragments together, and judges whatever is neither a plain data
frame nor a close frame. It never touches the network: it reads and writes a `_Guard`, and runs in a nursery of its
own, so that none of its exceptions, and none of its waits, reach ours.

Three of its habits are relied upon: it writes each frame with one `send_all`, it takes frames from `receive_some` in
pieces of any size, and of the nursery it only uses `start_soon`. `tests/transports/test_trio_websocket_core.py`
asserts them.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, cast, final

import trio
from trio_websocket import WebSocketConnection, wrap_client_stream, wrap_server_stream

from trio_wsprim._frames import PROTOCOL_ERROR
from trio_wsprim._lane import OtherFrame
from trio_wsprim._scopes import Bell
from trio_wsprim._seam import Reception, Upgrade
from trio_wsprim._values import Message
from trio_wsprim._wire import READ_BYTES
from trio_wsprim.transports._answer import Answer
from trio_wsprim.transports._asked import Asked
from trio_wsprim.transports._handshake import HandshakeFault
from trio_wsprim.transports._link import Breach
from trio_wsprim.transports._outgoing import Encode

# We take each message out before we feed the next frame, so no more than one is ever there.
_QUEUE_SIZE: Final = 1


@final
class TrioWebsocketCore:
    """One connection of trio-websocket, driven through memory.

    Args:
        queue: Is given each frame, and at first the request, that it wants sent; must not wait.
    """

    __slots__ = (
        "_connection",
        "_fed",
        "_guard",
        "_opening",
        "_scope",
        "_settled",
        "compresses",
        "encode",
        "failure",
        "is_compressed",
        "over",
    )

    def __init__(self, queue: Callable[[bytes], None]) -> None:
        self._guard = _Guard(queue)
        self._connection: WebSocketConnection | None = None
        # Around its task, and around the wait for its handshake, which would never end if that task did.
        self._scope = trio.CancelScope()
        self._opening: trio.CancelScope | None = trio.CancelScope()
        self._settled = Bell()
        # The frame that it was fed last, in case that we are asked again.
        self._fed: OtherFrame | None = None
        self.encode: Encode | None = None
        self.compresses = self.is_compressed = False
        self.failure: BaseException | None = None
        self.over = False

    # -------------------------------------------------------------------------------- the handshake

    async def ask(self, nursery: trio.Nursery, upgrade: Upgrade) -> None:
        """See `HandshakeCore`."""
        nursery.start_soon(self._open, partial(self._connect, _Ward(nursery, self._contain), upgrade))
        await self._guard.wait_hungry()
        if self.over:
            raise HandshakeFault("the request cannot be put into HTTP") from self.failure

    async def check(self, answer: Answer) -> None:
        """See `HandshakeCore`."""
        self._guard.feed(answer.plain_head)
        await self._settled.wait()
        if self.over:
            raise HandshakeFault(f"the server's 101 is no WebSocket handshake: {self.failure}") from self.failure

    async def welcome(self, nursery: trio.Nursery, asked: Asked, reception: Reception) -> None:
        """See `ServerCore`."""
        subprotocol = asked.subprotocol(reception.subprotocols)
        self._guard.feed(asked.plain_head(subprotocol, has_extensions=False))
        nursery.start_soon(self._open, partial(self._accept, _Ward(nursery, self._contain), subprotocol))
        await self._settled.wait()
        if self.over:
            raise HandshakeFault("this is no WebSocket handshake") from self.failure

    @property
    def subprotocol(self) -> str | None:
        """What the server chose, once the handshake is done."""
        assert self._connection is not None, "the handshake is not done"
        return self._connection.subprotocol

    # -------------------------------------------------------------------------------- its tasks

    async def _open(self, shake_hands: Callable[[], Awaitable[WebSocketConnection]]) -> None:
        """Have it do its handshake; never raises what it raises."""
        assert self._opening is not None, "it opens once"
        try:
            with self._opening:
                self._connection = await shake_hands()
        finally:
            self._opening = None  # with some hundred bytes
            self._settled.ring()

    async def _connect(self, ward: _Ward, upgrade: Upgrade) -> WebSocketConnection:
        return await wrap_client_stream(
            cast("trio.Nursery", ward),
            cast("trio.SocketStream", self._guard),  # any stream does, its own docs say
            upgrade.host,
            upgrade.resource,
            subprotocols=upgrade.subprotocols,
            extra_headers=[(n.encode(), v.encode()) for n, v in upgrade.headers],
            message_queue_size=_QUEUE_SIZE,
            max_message_size=sys.maxsize,  # ours counts bytes, and is checked before
            receive_buffer_size=READ_BYTES,
        )

    async def _accept(self, ward: _Ward, subprotocol: str | None) -> WebSocketConnection:
        request = await wrap_server_stream(
            cast("trio.Nursery", ward),
            self._guard,
            message_queue_size=_QUEUE_SIZE,
            max_message_size=sys.maxsize,
            receive_buffer_size=READ_BYTES,
        )
        return await request.accept(subprotocol=subprotocol)

    async def _contain(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run its task until `stop`; what that raises stays inside."""
        try:
            with self._scope:
                await task()
        except Exception as error:  # noqa: BLE001 - whatever it stumbles over
            self.failure = _reason(error)
        finally:
            self.over = True
            self._guard.end()
            if self._opening is not None:
                self._opening.cancel()

    def stop(self) -> None:
        """End its tasks; what it was about is forgotten."""
        if self._opening is not None:
            self._opening.cancel()
        self._scope.cancel()

    # -------------------------------------------------------------------------------- frames

    async def judge(self, frame: OtherFrame) -> Message | None:
        """See `Core`."""
        if self._fed is not frame:
            self._fed = frame
            self._guard.feed(frame.raw)
        await self._guard.wait_hungry()
        self._check_verdict()
        if not frame.ends_message:
            return None
        assert self._connection is not None, "the handshake is not done"
        return await self._connection.get_message()

    def _check_verdict(self) -> None:
        """Raise if it takes the connection for closed; it says so to us alone, not to the peer."""
        if self.over:
            raise Breach(PROTOCOL_ERROR, str(self.failure or ""))
        closed = self._connection.closed if self._connection else None
        if closed is not None:
            raise Breach(int(closed.code), closed.reason or "")


@final
class _Ward:
    """The nursery that trio-websocket sees. Its one task runs in another, where nothing that it raises gets to.

    A real nursery would take a task of ours to wait in it, and 3 KiB.
    """

    def __init__(
        self, nursery: trio.Nursery, contain: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]
    ) -> None:
        self._nursery = nursery
        self._contain = contain

    def start_soon(self, task: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(self._contain, task)


@final
class _Guard(trio.abc.Stream):
    """The stream that trio-websocket sees."""

    __slots__ = ("_ended", "_fed", "_food", "_hungry", "_is_hungry", "_write")

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
    """Find what it stumbled over first; after the peer's fault it fails once more, over its own answer to that."""
    while error.__context__ is not None:
        error = error.__context__
    return error
