"""Memory channels that a task fills without ever waiting for their readers."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import chain
from typing import Generic, Literal, Protocol, TypeVar, final

import trio

from trio_wsprim._scopes import Bell, peeled_nursery
from trio_wsprim._values import check_choice, check_count

T = TypeVar("T")
X = TypeVar("X")
T_contra = TypeVar("T_contra", contravariant=True)

Dropping = Literal["drop_oldest", "drop_newest"]


class Feed(Protocol[T_contra]):
    """The end that is filled."""

    @property
    def is_behind(self) -> bool:
        """Whether the reader should be waited for before more is fetched."""
        ...

    def offer(self, item: T_contra) -> None:
        """Put an item in; never waits."""
        ...

    def end(self) -> None:
        """Let the reader find the end behind what is there."""
        ...


@final
class DroppingChannel(Generic[T]):
    """A channel that drops what its reader is too slow for. Check the arguments with `check_dropping` first."""

    __slots__ = ("_drop_oldest", "_max_buffer_size", "_sender", "is_behind", "receiver")

    def __init__(self, max_buffer_size: float, when_full: Dropping) -> None:
        self._max_buffer_size = max_buffer_size
        self._drop_oldest = when_full == "drop_oldest"
        self._sender, self.receiver = trio.open_memory_channel[T](max_buffer_size)
        self.is_behind = False

    def wanted(self, items: Sequence[X]) -> Sequence[X]:
        """Tell which of many that come together can be kept at all, so that the others need not be made."""
        if len(items) <= self._max_buffer_size + 1:
            return items
        size = int(self._max_buffer_size)
        # A reader that waits takes the first.
        return [items[0], *items[-size:]] if self._drop_oldest else items[: size + 1]

    def offer(self, item: T) -> None:
        """See `Feed`."""
        self.offer_each((item,))

    def offer_each(self, items: Iterable[T]) -> None:
        """Put items in, in order; never waits."""
        send, drop = self._sender.send_nowait, self.receiver.receive_nowait
        # A reader may have closed its end early: it wants no more.
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            rest = iter(items)
            for item in rest:
                try:
                    send(item)
                except trio.WouldBlock:
                    break
            else:
                return
            if self._drop_oldest:
                for newer in chain((item,), rest):
                    drop()
                    send(newer)

    def end(self) -> None:
        """See `Feed`."""
        self._sender.close()

    def close(self) -> None:
        """Close both ends."""
        self._sender.close()
        self.receiver.close()


def check_dropping(max_buffer_size: float, when_full: str) -> None:
    """Refuse a size below 1, and words other than `"drop_oldest"` and `"drop_newest"`."""
    check_count("max_buffer_size", max_buffer_size, least=1, inf=True)
    check_choice("when_full", when_full, ("drop_oldest", "drop_newest"))


@final
class WaitingChannel(Generic[T]):
    """A channel that keeps everything, and says so when its reader is behind.

    It takes what it is given, since that has been read already: beyond the channel's size it keeps it in a backlog,
    which a pump moves over as the reader comes along. While there is a backlog only the pump puts anything into the
    channel: what it is about to put in must not go in twice.

    Args:
        max_buffer_size: Of the channel.
        freed: Rings when the reader is no longer behind.
    """

    __slots__ = ("_backlog", "_freed", "_fresh", "_is_ended", "_sender", "receiver")

    def __init__(self, max_buffer_size: float, freed: Bell) -> None:
        self._sender, self.receiver = trio.open_memory_channel[T](max_buffer_size)
        self._backlog: deque[T] = deque()
        self._freed = freed
        self._fresh = Bell()
        self._is_ended = False

    @property
    def is_behind(self) -> bool:
        """See `Feed`."""
        return bool(self._backlog)

    def offer(self, item: T) -> None:
        """See `Feed`."""
        if self._backlog:
            self._backlog.append(item)
            return
        try:
            self._sender.send_nowait(item)
        except trio.WouldBlock:
            self._backlog.append(item)
            self._fresh.ring()
        except trio.BrokenResourceError:
            pass  # the reader has closed its end early: it wants no more

    def end(self) -> None:
        """See `Feed`."""
        self._is_ended = True
        if not self._backlog:
            self._sender.close()

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[trio.MemoryReceiveChannel[T]]:
        """Run the pump beside the block; both ends are closed after it."""
        try:
            async with peeled_nursery() as nursery:
                nursery.start_soon(self._pump)
                try:
                    yield self.receiver
                finally:
                    nursery.cancel_scope.cancel()
        finally:
            self._clear()
            self._sender.close()
            self.receiver.close()

    async def _pump(self) -> None:
        while True:
            await self._fresh.wait()
            try:
                while self._backlog:
                    await self._sender.send(self._backlog[0])
                    self._backlog.popleft()
            except trio.BrokenResourceError:  # as in `offer`
                pass
            self._clear()
            if self._is_ended:
                self._sender.close()

    def _clear(self) -> None:
        """Nobody need wait for the reader any longer."""
        self._backlog.clear()
        self._freed.ring()
