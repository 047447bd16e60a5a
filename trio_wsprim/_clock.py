"""One clock for all the deadlines of a trio run that end in a plain call: heartbeats, expiries, turns to read.

A task and a trio deadline each cost some 4 KiB and 20 µs a time; an entry in a list costs neither. The clock's one task
is there only while something is due.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from math import inf
from typing import Final, final

import trio

from trio_wsprim._scopes import Bell

# With more alarms than this the clock looks only so often, in seconds, and rings together what has come due since: a
# wake-up costs more than a ring. With fewer, every alarm rings when it is due.
_CROWD: Final = 32
_GRAIN: Final = 0.02
# Rings between two looks at what else wants to run.
_RINGS_PER_SCHEDULE_POINT: Final = 64

# Says when to ring again, `None` for never. A time that has come already means after everybody's next turn.
Ring = Callable[[], float | None]


@final
class Alarm:
    """One call to come.

    Attributes:
        ring: The call; `None` when it will not come any more.
        is_listed: Whether the clock has it on its list.
    """

    __slots__ = ("_clock", "is_listed", "ring")

    def __init__(self, clock: Clock, ring: Ring) -> None:
        self._clock = clock
        self.ring: Ring | None = ring
        self.is_listed = False

    def cancel(self) -> None:
        """It will not come. Twice is fine, and so is one that came."""
        if self.ring is not None:
            self.ring = None
            if self.is_listed:
                self._clock.note_cancelled()


@final
class Clock:
    """Rings alarms, in the order in which they are due. Get the run's by `the_clock`."""

    __slots__ = ("_alarms", "_bell", "_cancelled", "_is_running", "_looked_at", "_soon", "_tickets")

    def __init__(self) -> None:
        self._alarms: list[tuple[float, int, Alarm]] = []
        # Those that are to ring after everybody's next turn.
        self._soon: list[Alarm] = []
        self._tickets = count()  # two alarms of one moment must not be compared themselves
        self._cancelled = 0
        self._looked_at = -inf
        self._bell = Bell()
        self._is_running = False

    def set_alarm(self, when: float, ring: Ring) -> Alarm:
        """Have `ring` called at a time on trio's clock, or soon after.

        It is called in a task of the clock's, which it must neither keep waiting nor surprise by an exception. For a
        time that has come already that may be before some task's next turn.
        """
        alarm = Alarm(self, ring)
        self._list(when, alarm)
        if not self._is_running:
            self._is_running = True
            trio.lowlevel.spawn_system_task(self._run, name="trio_wsprim clock")
        elif self._alarms[0][-1] is alarm:
            self._bell.ring()
        return alarm

    def _list(self, when: float, alarm: Alarm) -> None:
        alarm.is_listed = True
        heapq.heappush(self._alarms, (when, next(self._tickets), alarm))

    def note_cancelled(self) -> None:
        """Forget the cancelled ones when they are the most; with none left, the task ends."""
        self._cancelled += 1
        if 2 * self._cancelled > len(self._alarms):
            self._alarms = [item for item in self._alarms if item[-1].ring is not None]
            heapq.heapify(self._alarms)
            self._cancelled = 0
            if not self._alarms:
                self._bell.ring()

    async def _run(self) -> None:
        try:
            while self._alarms or self._soon:
                await self._wait_due()
                self._looked_at = now = trio.current_time()
                for number, alarm in enumerate(self._take_due(now), 1):
                    self._ring(alarm, now)
                    if number % _RINGS_PER_SCHEDULE_POINT == 0:
                        await trio.lowlevel.checkpoint()
        finally:
            self._is_running = False

    async def _wait_due(self) -> None:
        if self._soon:
            # Twice, since in the next pass we may come before others.
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            return
        due = self._alarms[0][0]
        if len(self._alarms) - self._cancelled > _CROWD:
            due = max(due, self._looked_at + _GRAIN)
        with trio.move_on_at(due):
            await self._bell.wait()

    def _take_due(self, now: float) -> list[Alarm]:
        due, self._soon = self._soon, []
        while self._alarms and self._alarms[0][0] <= now:
            alarm = heapq.heappop(self._alarms)[-1]
            alarm.is_listed = False
            if alarm.ring is None:
                self._cancelled -= 1
            else:
                due.append(alarm)
        return due

    def _ring(self, alarm: Alarm, now: float) -> None:
        when = None if alarm.ring is None else alarm.ring()
        if when is None or alarm.ring is None:
            alarm.ring = None
        elif when <= now:
            self._soon.append(alarm)
        else:
            self._list(when, alarm)


_the_clock: Final = trio.lowlevel.RunVar[Clock]("trio_wsprim clock")


def the_clock() -> Clock:
    """Give the clock of this trio run."""
    try:
        return _the_clock.get()
    except LookupError:
        clock = Clock()
        _the_clock.set(clock)
        return clock
