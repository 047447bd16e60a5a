"""The sending side of one life: what is to go now, then what waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, final

import trio

from trio_wsprim._errors import ConnectionClosed
from trio_wsprim._outbox import Outbox
from trio_wsprim._seam import Link, Outgoing

# How much is taken at a time. What has been taken can no longer be dropped or expire, so not everything; more than this
# in one system call gains nothing.
_BATCH_BYTES: Final = 64 * 1024
# Seconds. When a write fails, what the peer said last may still be there to be read: why it hung up.
LAST_WORDS: Final = 1.0


@final
class Writer:
    """Sends over one link, in batches, from an outbox that outlives it.

    Args:
        link: No other task may send on it.
        outbox: What waits; gets back what does not go out whole.
    """

    __slots__ = ("_controls", "_link", "_outbox")

    def __init__(self, link: Link, outbox: Outbox) -> None:
        self._link = link
        self._outbox = outbox
        self._controls: deque[tuple[Outgoing, Callable[[], None]]] = deque()

    def send_now(self, item: Outgoing, leave: Callable[[], None]) -> None:
        """Send an item ahead of what waits, and call `leave` as it goes; never waits."""
        self._controls.append((item, leave))
        self._outbox.bell.ring()

    def forget(self, item: Outgoing) -> None:
        """That item need not go, if it has not gone."""
        self._controls = deque(each for each in self._controls if each[0] is not item)

    async def run_until(self, is_close_due: Callable[[], bool]) -> None:
        """Send as things come, and return between two frames, when a close is due; `Outbox.bell` has it asked.

        Raises:
            ConnectionClosed: The network takes nothing more, and the reader has had time to find out why.

        Cancellation: may be partial; the outbox has back what did not go out whole.
        """
        try:
            while not is_close_due():
                if self._controls or self._outbox.has_waiting:
                    await self._send_batch()
                else:
                    await self._outbox.bell.wait()
        except ConnectionClosed:
            with trio.move_on_after(LAST_WORDS):
                while not is_close_due():
                    await self._outbox.bell.wait()
                return
            raise

    async def _send_batch(self) -> None:
        controls, self._controls = self._controls, deque()
        entries = self._outbox.take(_BATCH_BYTES)
        before = self._link.items_sent
        for _, leave in controls:
            leave()
        try:
            if controls or entries:
                await self._link.send([*(item for item, _ in controls), *(entry.message for entry in entries)])
        finally:
            sent = self._link.items_sent - before - len(controls)
            self._outbox.settle(max(0, sent), is_torn=sent >= 0)
