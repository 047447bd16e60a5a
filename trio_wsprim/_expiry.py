"""The deadlines of messages that may wait only so long."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from math import inf
from typing import Final, final

import trio

from trio_wsprim._ledger import Entry
from trio_wsprim._scopes import Bell

# Sorting out what no longer waits costs a pass over the heap; worth it when most of it does not.
_STALE_ENTRIES: Final = 64


@final
class Expiry:
    """Watches the deadlines of entries, in one task."""

    __slots__ = ("_bell", "_heap", "_ticket", "_worth_sorting")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Entry]] = []
        self._ticket = count()  # two entries of one deadline must not be compared themselves
        self._bell = Bell()
        self._worth_sorting = _STALE_ENTRIES

    def watch(self, entry: Entry) -> None:
        """Watch an entry's deadline, if it has one."""
        if entry.deadline == inf or entry.is_watched:
            return
        if len(self._heap) >= self._worth_sorting:
            self._sort_out()
        entry.is_watched = True
        heapq.heappush(self._heap, (entry.deadline, next(self._ticket), entry))
        if self._heap[0][-1] is entry:
            self._bell.ring()

    async def run(self, expire: Callable[[Entry], None]) -> None:
        """Hand over each entry when its deadline has passed, until cancelled."""
        while True:
            next_deadline = self._heap[0][0] if self._heap else inf
            with trio.move_on_at(next_deadline):
                await self._bell.wait()
            # After a computation that kept trio waiting, we wake together with the writer; it goes first.
            await trio.lowlevel.checkpoint()
            now = trio.current_time()
            while self._heap and self._heap[0][0] <= now:
                entry = heapq.heappop(self._heap)[-1]
                entry.is_watched = False
                expire(entry)

    def _sort_out(self) -> None:
        """Forget what no longer waits, so that long deadlines and fast sends do not pile up."""
        for *_, entry in self._heap:
            entry.is_watched = entry.waits
        self._heap = [item for item in self._heap if item[-1].waits]
        heapq.heapify(self._heap)
        self._worth_sorting = 2 * len(self._heap) + _STALE_ENTRIES
