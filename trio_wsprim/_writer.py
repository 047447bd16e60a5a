"""The sending side of one life: what is to go now, then what waits."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Final, final

import trio

from trio_wsprim._clock import Alarm
from trio_wsprim._errors import ConnectionClosed
from trio_wsprim._outbox import Outbox
from trio_wsprim._scopes import Bell
from trio_wsprim._seam import Link, Outgoing
from trio_wsprim._values import Message

# How much is taken at a time. What has been taken can no longer be dropped or expire, so not everything; more than this
# in one system call gains nothing.
_BATCH_BYTES: Final = 64 * 1024
# Seconds. When a write fails, what the peer said last may still be there to be read: why it hung up.
LAST_WORDS: Final = 1.0
# A message that comes within so many seconds of the last write is taken for one of several: they wait for the
# scheduler's next pass and leave together. Twice what a message takes that is sent in a loop, half a round trip.
_QUIET: Final = 60e-6
# After a write of more than so many messages the next is one of many, too, unless it comes later than this.
_FEW: Final = 8
_LULL: Final = 1e-3
# For so many turns of the scheduler the task stays when all is sent: to start one costs as much as three turns, and who
# sends in a loop comes again in the next.
_IDLE_TURNS: Final = 2


@final
class Writer:
    """Sends over one link, in batches, from an outbox that outlives it.

    A lone message is sent by the task that puts it into the outbox, if the link is direct; others by `run_until`, in a
    task that is there while there is something to send. Never by both: while there is that task, it is the one.

    Args:
        link: No other task may send on it.
        outbox: What waits; gets back what does not go out whole.
        start: Starts the task that calls `run_until`.
        watch: Sets an alarm for a write that the network does not take; `None` if it may take for ever.
    """

    __slots__ = (
        "_before",
        "_bell",
        "_controls",
        "_has_begun",
        "_has_read",
        "_is_awake",
        "_is_burst",
        "_is_stopped",
        "_link",
        "_outbox",
        "_start",
        "_watch",
        "_wrote_at",
    )

    def __init__(
        self, link: Link, outbox: Outbox, start: Callable[[], None], watch: Callable[[], Alarm] | None = None
    ) -> None:
        self._link = link
        self._outbox = outbox
        self._start = start
        self._watch = watch
        self._controls: list[tuple[Outgoing, Callable[[], None]]] = []
        self._bell = Bell()
        # Whether there is the task; before `open`, it is about to be there.
        self._is_awake = True
        self._is_stopped = False
        # Whether a batch is under way; what `items_sent` will be when the first message of it is out.
        self._has_begun = False
        self._before = 0
        # When the last write was, whether it was of many, and whether something has come in since: then the scheduler
        # has been round, and what is sent now is no part of what was sent before.
        self._wrote_at = 0.0
        self._is_burst = False
        self._has_read = True

    # -------------------------------------------------------------------------------- from any task

    def open(self) -> None:
        """Begin; what has come before that is seen now."""
        self._is_awake = False
        if self._has_work:
            self.wake()

    def stop(self) -> None:
        """Send nothing more: what comes from now on is not for this connection."""
        self._is_stopped = True

    def send_now(self, item: Outgoing, leave: Callable[[], None]) -> None:
        """Send an item ahead of what waits, and call `leave` as it goes; never waits."""
        self._controls.append((item, leave))
        self.nudge()

    def forget(self, item: Outgoing) -> None:
        """That item need not go, if it has not gone."""
        self._controls = [each for each in self._controls if each[0] is not item]

    @trio.lowlevel.enable_ki_protection  # in a user's task a Ctrl-C could come between a write and its account
    def nudge(self) -> None:
        """There is something to send: send it here and now, or let the task know."""
        if self._is_awake or self._is_stopped:
            return
        if self._link.is_direct and self._is_lone():
            try:
                if self._begin() and not self._has_work:
                    return
            except (ConnectionClosed, trio.ClosedResourceError):
                pass  # which the task will find too, and knows what to do about it
        self.wake()

    @trio.lowlevel.enable_ki_protection  # likewise
    def push(self, message: Message) -> bool | None:
        """Send a lone message past the outbox's queue, which is empty.

        Returns:
            Whether it is through; if not, it counts as taken, and the task does the rest. `None` if nothing was done.
        """
        if self._is_awake or self._controls or not self._is_lone():
            return None
        try:
            is_through = self._link.send_nowait((message,))
        except (ConnectionClosed, trio.ClosedResourceError):
            return None
        self._has_read = self._is_burst = False
        self._wrote_at = perf_counter()
        if not is_through:
            self._before = self._link.items_sent
            self._has_begun = True
            self.wake()
        return is_through

    def wake(self) -> None:
        """Have the task look what there is to do."""
        if not (self._is_awake or self._is_stopped):
            self._is_awake = True
            self._start()
        self._bell.ring()

    def note_read(self) -> None:
        """Something has come in."""
        self._has_read = True

    # -------------------------------------------------------------------------------- the task

    async def run_until(self, is_close_due: Callable[[], bool]) -> bool:
        """Send what there is, and return soon after the last of it, or between two frames when a close is due.

        Returns:
            Whether a close is due. If not, `wake` starts another task when there is something to send again.

        Raises:
            ConnectionClosed: The network takes nothing more, and the reader has had time to find out why.

        Cancellation: may be partial; the outbox has back what did not go out whole.
        """
        try:
            return await self._send_until(is_close_due)
        except ConnectionClosed:
            with trio.move_on_after(LAST_WORDS):
                while not is_close_due():
                    await self._bell.wait()
                return True
            raise
        finally:
            self._settle()

    async def _send_until(self, is_close_due: Callable[[], bool]) -> bool:
        idle_turns = 0
        while self._has_begun or not is_close_due():
            if self._has_begun:
                await self._finish()
            elif self._is_stopped:
                return False
            elif self._has_work:
                idle_turns = 0
                self._begin()
                await trio.lowlevel.checkpoint_if_cancelled()
            elif idle_turns < _IDLE_TURNS:
                idle_turns += 1
                await trio.lowlevel.checkpoint()
            else:
                self._is_awake = False
                return False
        return True

    @property
    def _has_work(self) -> bool:
        return bool(self._controls or self._outbox.has_waiting)

    def _is_lone(self) -> bool:
        """Whether what has just come is likely to stay alone for a while."""
        quiet = perf_counter() - self._wrote_at
        return quiet > _LULL if self._is_burst else self._has_read or quiet > _QUIET

    def _begin(self) -> bool:
        """Take a batch and write what goes without waiting; whether that was all. If not, `_finish`."""
        controls, self._controls = self._controls, []
        entries = self._outbox.take(_BATCH_BYTES)
        batch: list[Outgoing] = [entry.message for entry in entries]
        self._before = self._link.items_sent + len(controls)
        self._has_begun = True
        if controls:
            batch = [*(item for item, _ in controls), *batch]
            for _, leave in controls:
                leave()
        try:
            is_through = self._link.send_nowait(batch)
        except BaseException:
            self._settle()
            raise
        self._is_burst = len(batch) > _FEW
        self._has_read = False
        self._wrote_at = perf_counter()
        if is_through:
            self._settle()
        return is_through

    async def _finish(self) -> None:
        alarm = None if self._watch is None else self._watch()
        try:
            await self._link.send(())
        finally:
            if alarm is not None:
                alarm.cancel()
            self._settle()

    def _settle(self) -> None:
        """Tell the outbox what has become of the batch."""
        if self._has_begun:
            self._has_begun = False
            sent = self._link.items_sent - self._before
            self._outbox.settle(max(0, sent), is_torn=sent >= 0)
