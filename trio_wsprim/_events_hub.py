"""Events: a lossless stream for those who watch, and a signal of the latest of a kind."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar, cast, final

import trio

from trio_wsprim._channels import Dropping, DroppingChannel
from trio_wsprim._signal import Signal, Variable
from trio_wsprim._values import Event, Message, MessageEvent

E = TypeVar("E", bound=Event)


@final
class EventsHub:
    """Hands each event to all who watch, without ever waiting for one of them."""

    __slots__ = ("_is_ended", "_latest", "_watchers")

    def __init__(self) -> None:
        self._watchers: list[DroppingChannel[Event]] = []
        self._latest: dict[type[Event], Variable[Event | None]] = {}
        self._is_ended = False

    @property
    def is_watched(self) -> bool:
        """Whether anybody watches anything."""
        return bool(self._watchers or self._latest)

    def emit(self, event: Event) -> None:
        """Tell everybody."""
        for watcher in self._watchers:
            watcher.offer(event)
        for kind, latest in self._latest.items():
            if isinstance(event, kind):
                latest.set(event)

    def emit_messages(self, messages: Sequence[Message]) -> None:
        """Tell everybody of messages that came together."""
        for watcher in self._watchers:
            watcher.offer_each(map(MessageEvent, watcher.wanted(messages)))
        for kind, latest in self._latest.items():
            if issubclass(MessageEvent, kind):
                latest.set_each([MessageEvent(message) for message in messages])

    def latest(self, kind: type[E]) -> Signal[E | None]:
        """Give the signal of the latest event of a kind, or of any for `Event`; `None` before the first from now on."""
        if kind not in self._latest:
            variable: Variable[Event | None] = Variable(None)
            self._latest[kind] = variable
            if self._is_ended:
                variable.end()
        return cast("Signal[E | None]", self._latest[kind].signal)

    @asynccontextmanager
    async def watch(
        self, max_buffer_size: float, when_full: Dropping
    ) -> AsyncGenerator[trio.MemoryReceiveChannel[Event]]:
        """Open a channel of all events from now on, until the block or the socket ends."""
        watcher = DroppingChannel[Event](max_buffer_size, when_full)
        if self._is_ended:
            watcher.end()
        else:
            self._watchers.append(watcher)
        try:
            yield watcher.receiver
        finally:
            if watcher in self._watchers:
                self._watchers.remove(watcher)
            watcher.close()

    def end(self) -> None:
        """No event will follow."""
        self._is_ended = True
        for watcher in self._watchers:
            watcher.end()
        self._watchers.clear()
        for variable in self._latest.values():
            variable.end()
