"""Pings that wait for their pongs."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from typing import final

import trio

from trio_wsprim._errors import fresh
from trio_wsprim._seam import Ping


@final
class PendingPing:
    """One ping frame under way.

    Attributes:
        ping: What is sent.
        covers: The serial of the last message before it; what its pong proves.
    """

    __slots__ = ("_answered", "_error", "_latency", "_sent_at", "covers", "ping")

    def __init__(self, ping: Ping) -> None:
        self.ping = ping
        self.covers = 0
        self._sent_at: float | None = None
        self._latency = 0.0
        self._error: BaseException | None = None
        self._answered = trio.Event()

    def leave(self, covers: int) -> None:
        """It is handed to the network now."""
        self.covers = covers
        self._sent_at = trio.current_time()

    @property
    def has_left(self) -> bool:
        """Whether a pong can be its answer."""
        return self._sent_at is not None

    def answer(self) -> float:
        """The pong is here; give the round-trip time in seconds."""
        assert self._sent_at is not None, "answered before it was sent"
        self._latency = trio.current_time() - self._sent_at
        self._answered.set()
        return self._latency

    def fail(self, error: BaseException) -> None:
        """No pong will come."""
        self._error = error
        self._answered.set()

    async def wait(self) -> float:
        """Wait for the round-trip time in seconds. Cancellation: atomic."""
        await self._answered.wait()
        if self._error is not None:
            raise fresh(self._error)
        return self._latency


@final
class Pings:
    """The pings of one connection, in the order in which they were asked for."""

    __slots__ = ("_mark", "_numbers", "_pending")

    def __init__(self) -> None:
        self._pending: list[PendingPing] = []
        self._numbers = count(1)
        # A server may send pongs that nobody asked for (RFC 6455, 5.5.3), and count in them as we do.
        self._mark = os.urandom(4)

    def add(self) -> PendingPing:
        """Make a ping with a payload of its own."""
        pending = PendingPing(Ping(b"%b%d" % (self._mark, next(self._numbers))))
        self._pending.append(pending)
        return pending

    def are_waiting(self) -> bool:
        """Whether a pong is expected."""
        return bool(self._pending)

    def forget(self, pending: PendingPing) -> None:
        """Nobody waits for it any more."""
        if pending in self._pending:
            self._pending.remove(pending)

    def answer(self, payload: bytes, note: Callable[[PendingPing, float], None]) -> None:
        """Take a pong: it answers its ping and, since frames keep their order, those before it.

        A peer may answer only the latest of several pings (RFC 6455, 5.5.3). A pong that nobody asked for is no
        answer.
        """
        if not any(each.has_left and each.ping.payload == payload for each in self._pending):
            return
        while True:
            pending = self._pending.pop(0)
            note(pending, pending.answer())
            if pending.ping.payload == payload:
                return

    def fail(self, error: BaseException) -> None:
        """The connection has ended."""
        while self._pending:
            self._pending.pop(0).fail(error)
