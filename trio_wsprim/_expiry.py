"""The deadlines of messages that may wait only so long."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from math import inf
from typing import Final, final

import trio

from trio_wsprim._clock import Alarm, the_clock
from trio_wsprim._ledger import Entry

# Sorting out what no longer waits costs a pass over the heap; worth it when most of it does not.
_STALE_ENTRIES: Final = 64


@final
class Expiry:
    """Watches the deadlines of entries, by one alarm of the run's clock.

    Args:
        expire: Is given each entry when its deadline has passed.
    """

    __slots__ = ("_alarm", "_alarm_at", "_expire", "_gave_turn", "_heap", "_ticket", "_worth_sorting")

    def __init__(self, expire: Callable[[Entry], None]) -> None:
        self._expire = expire
        self._heap: list[tuple[float, int, Entry]] = []
        self._ticket = count()  # two entries of one deadline must not be compared themselves
        self._alarm: Alarm | None = None
        self._alarm_at = inf
        self._gave_turn = False
        self._worth_sorting = _STALE_ENTRIES

    def watch(self, entry: Entry) -> None:
        """Watch an entry's deadline, if it has one."""
        if entry.deadline == inf or entry.is_watched:
            return
        if len(self._heap) >= self._worth_sorting:
            self._sort_out()
        entry.is_watched = True
        heapq.heappush(self._heap, (entry.deadline, next(self._ticket), entry))
        if entry.deadline < self._alarm_at:
            self._set_alarm(entry.deadline)

    def stop(self) -> None:
        """Nothing expires any more."""
        self._heap.clear()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm, self._alarm_at = None, inf

    def _set_alarm(self, when: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm, self._alarm_at = the_clock().set_alarm(when, self._ring), when

    def _ring(self) -> float | None:
        # After a computation that kept trio waiting, we are called together with the writer; it goes first.
        self._gave_turn = not self._gave_turn
        if self._gave_turn:
            return -1.0
        now = trio.current_time()
        while self._heap and self._heap[0][0] <= now:
            entry = heapq.heappop(self._heap)[-1]
            entry.is_watched = False
            self._expire(entry)
        if self._heap:
            self._alarm_at = self._heap[0][0]
            return self._alarm_at
        self._alarm, self._alarm_at = None, inf
        return None

    def _sort_out(self) -> None:
        """Forget what no longer waits, so that long deadlines and fast sends do not pile up."""
        for *_, entry in self._heap:
            entry.is_watched = entry.waits
        self._heap = [item for item in self._heap if item[-1].waits]
        heapq.heapify(self._heap)
        self._worth_sorting = 2 * len(self._heap) + _STALE_ENTRIES
