"""picows: bare callbacks, with no queue and no coroutine between the parser and the user."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import picows

from benchmarks._speed_client import BEAT, MAX_BYTES, Client, Opened
from benchmarks._speed_exchange import Talk, check_echo
from benchmarks._speed_words import Message, Scenario, Target

# Sends between which the event loop gets its turn, so that echoes are read meanwhile, in `pipe`.
_TURN: Final = 64


class Listener(picows.WSListener):  # type: ignore[misc]  # mypy does not look into picows
    """Takes the payload of each frame, counts, and does no more.

    Attributes:
        transport: What sends; there once the connection is.
        payload: Of the last frame.
    """

    def __init__(self, *, is_binary: bool) -> None:
        self.transport: Any = None
        self.payload: Message = b""
        self._is_binary = is_binary
        self._left = 0
        self._all_here = asyncio.Event()
        self.has_room = asyncio.Event()
        self.has_room.set()

    def on_ws_connected(self, transport: Any) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        self.payload = frame.get_payload_as_bytes() if self._is_binary else frame.get_payload_as_utf8_text()
        self._left -= 1
        if not self._left:
            self._all_here.set()

    def on_ws_disconnected(self, transport: Any) -> None:
        self._all_here.set()

    def pause_writing(self) -> None:
        self.has_room.clear()

    def resume_writing(self) -> None:
        self.has_room.set()

    def expect(self, count: int) -> None:
        """Start to count down from so many frames."""
        self._left = count
        self._all_here.clear()

    async def wait(self) -> None:
        """Wait until all expected frames are here."""
        await self._all_here.wait()
        if self._left > 0:
            raise RuntimeError("the server hung up")


class Returner(Listener):
    """Sends the next message from the callback that brings the echo of the last one."""

    def __init__(self, *, is_binary: bool) -> None:
        super().__init__(is_binary=is_binary)
        self.message: Message = b""
        self._kind = picows.WSMsgType.BINARY if is_binary else picows.WSMsgType.TEXT

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        self.payload = frame.get_payload_as_bytes() if self._is_binary else frame.get_payload_as_utf8_text()
        self._left -= 1
        if self._left:
            transport.send(self._kind, self.message)
        else:
            self._all_here.set()


class CallbackTalk:
    """The scenarios by callbacks."""

    def __init__(self, listener: Listener, *, is_binary: bool) -> None:
        self._listener = listener
        self._transport = listener.transport
        self._kind = picows.WSMsgType.BINARY if is_binary else picows.WSMsgType.TEXT

    async def check(self, message: Message) -> None:
        self._listener.expect(1)
        self._transport.send(self._kind, message)
        await self._listener.wait()
        check_echo(message, self._listener.payload)

    async def rtt(self, message: Message, count: int) -> None:
        assert isinstance(self._listener, Returner)
        self._listener.message = message
        self._listener.expect(count)
        self._transport.send(self._kind, message)
        await self._listener.wait()

    async def pipe(self, message: Message, count: int) -> None:
        self._listener.expect(count)
        await self._send_all(message, count, turn=_TURN)
        await self._listener.wait()

    async def burst(self, message: Message, count: int) -> None:
        self._listener.expect(1)
        self._transport.send(self._kind, str(count))
        await self._send_all(message, count, turn=count)
        await self._listener.wait()

    async def flood(self, count: int) -> None:
        self._listener.expect(count)
        self._transport.send(self._kind, str(count))
        await self._listener.wait()

    async def _send_all(self, message: Message, count: int, *, turn: int) -> None:
        """Send, and wait where the transport asks for it, or else let the loop run after each `turn`."""
        send, kind, has_room = self._transport.send, self._kind, self._listener.has_room
        while count > 0:
            part = min(turn, count, _TURN)
            for _ in range(part):
                send(kind, message)
            count -= part
            if not has_room.is_set():
                await has_room.wait()
            elif turn == _TURN:
                await asyncio.sleep(0)


class Picows(Client):
    """picows, which has its own transport below it (aiofastnet) on whichever loop it runs."""

    @asynccontextmanager
    async def talk(self, target: Target, scenario: Scenario) -> AsyncGenerator[Talk]:
        is_binary = scenario.is_binary
        kind = Returner if scenario.kind in ("rtt", "big") else Listener
        url, context = target.url(scenario.path), target.ssl_context
        transport, listener = await picows.ws_connect(
            lambda: kind(is_binary=is_binary), url, ssl_context=context, max_frame_size=MAX_BYTES
        )
        try:
            yield CallbackTalk(listener, is_binary=is_binary)
        finally:
            transport.disconnect()
            await transport.wait_disconnected()

    async def sit(self, target: Target, opened: Opened) -> None:
        transport, _ = await picows.ws_connect(
            lambda: Listener(is_binary=False),
            target.url("/echo"),
            enable_auto_ping=True,
            auto_ping_idle_timeout=BEAT,
            auto_ping_reply_timeout=BEAT,
            auto_ping_strategy=picows.WSAutoPingStrategy.PING_PERIODICALLY,
        )
        opened()
        try:
            await transport.wait_disconnected()
        finally:
            transport.disconnect(False)
