"""A value that changes, and can be waited for: level-triggered, and never behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Generic, TypeAlias, TypeVar, final

import trio

from trio_wsprim._values import check_seconds

T = TypeVar("T")
Predicate: TypeAlias = Callable[[T], object]


@final
class Variable(Generic[T]):
    """A value that its owner changes; others see it through its `signal`.

    Waiters are asked at each change, before anything else happens, so that none misses a value that lasts for
    less than a turn of the scheduler.

    Args:
        value: The first.
        note_waiter: Is called when somebody begins to wait.
    """

    __slots__ = ("_changed", "_note_waiter", "_waiters", "is_ended", "signal", "value", "version")

    def __init__(self, value: T, note_waiter: Callable[[], None] | None = None) -> None:
        self._note_waiter = note_waiter
        # Both are made when somebody first waits.
        self._changed: trio.lowlevel.ParkingLot | None = None
        self._waiters: set[_Waiter[T]] | tuple[()] = ()
        self.value: T = value
        self.version: int = 0
        self.is_ended: bool = False
        self.signal: Signal[T] = Signal(self)

    def set(self, value: T) -> None:
        """Change the value, and wake whom that concerns; setting an equal value counts as a change too."""
        self.value = value
        self.version += 1
        for waiter in self._waiters:
            waiter.ask(value)
        if self._changed:
            self._changed.unpark_all()

    def set_each(self, values: Sequence[T]) -> None:
        """Take on values in a row; those between are shown to whoever waits for one, and else skipped."""
        if self._waiters:
            for value in values:
                self.set(value)
        else:
            self.set(values[-1])

    def end(self) -> None:
        """Say that this value is the last."""
        self.is_ended = True
        for waiter in self._waiters:
            waiter.give_up()
        if self._changed:
            self._changed.unpark_all()

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for a change."""
        return bool(self._waiters or self._changed)

    async def wait_change(self) -> None:
        """Wait for the next change or the end. Cancellation: atomic."""
        if self._changed is None:
            self._changed = trio.lowlevel.ParkingLot()
        if self._note_waiter is not None:
            self._note_waiter()
        await self._changed.park()

    async def wait_match(self, matches: Predicate[T], *, patient: bool = False) -> T:
        """Wait for a value that matches; once no other can come raise, or, if `patient`, wait for a cancellation.

        Cancellation: atomic.
        """
        value = self.value
        if matches(value):
            await trio.lowlevel.cancel_shielded_checkpoint()
            return value
        waiter = _Waiter(matches, patient)
        if self.is_ended:
            waiter.give_up()
        self._waiters = waiters = self._waiters or set()
        waiters.add(waiter)
        if self._note_waiter is not None:
            self._note_waiter()
        try:
            await waiter.event.wait()
        finally:
            waiters.discard(waiter)
        return waiter.result()


@final
class Signal(Generic[T]):
    """A value that changes by itself, to look at and to wait for."""

    __slots__ = ("_variable",)

    def __init__(self, variable: Variable[T]) -> None:
        self._variable = variable

    @property
    def value(self) -> T:
        """The present value."""
        return self._variable.value

    def __repr__(self) -> str:
        """Show the value."""
        return f"<Signal {self.value!r}{', ended' if self._variable.is_ended else ''}>"

    async def wait_value(self, value_or_predicate: T | Predicate[T], *, held_for: float = 0.0) -> T:
        """Wait until the value is the one given, or makes a predicate true; at once if it does already.

        Args:
            value_or_predicate: A value to compare with, or a function from a value to whether it will do. What
                the function raises comes out here.
            held_for: Seconds for which it must have been so without a break.

        Returns:
            The value that matched.

        Raises:
            trio.EndOfChannel: If it can no more come true, since the socket has ended.
            ValueError: If `held_for` is negative or no finite number.

        Cancellation: atomic.
        """
        check_seconds("held_for", held_for)
        matches = _predicate(value_or_predicate)
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            value = await self._variable.wait_match(matches)
            if held_for == 0:
                return value
            with trio.move_on_after(held_for) as hold:
                await self._variable.wait_match(lambda value: not matches(value), patient=True)
            # Asked again, since it may have changed in the very moment in which the time was up.
            if hold.cancelled_caught and matches(value := self.value):
                return value

    def values(self) -> AsyncIterator[T]:
        """Iterate over the values, from the present one on.

        A slow reader may skip values, never the latest. Ends after the last value once the socket has ended.
        """
        return _Values(self._variable)


def _predicate(value_or_predicate: T | Predicate[T]) -> Predicate[T]:
    if callable(value_or_predicate):
        return value_or_predicate
    return lambda value: value == value_or_predicate


@final
class _Waiter(Generic[T]):
    """A task that waits for a match: asked at each change, in the task that changes."""

    __slots__ = ("_error", "_matches", "_patient", "_values", "event")

    def __init__(self, matches: Predicate[T], patient: bool) -> None:
        self._matches = matches
        self._patient = patient
        self._values: list[T] = []
        self._error: Exception | None = None
        self.event = trio.Event()

    def ask(self, value: T) -> None:
        """Try one value; what a predicate raises is its own task's concern."""
        if self.event.is_set():
            return
        try:
            if not self._matches(value):
                return
            self._values.append(value)
        except Exception as error:  # noqa: BLE001 - it comes out in the waiter's own task
            self._error = error
        self.event.set()

    def give_up(self) -> None:
        if not (self._patient or self.event.is_set()):
            self._error = trio.EndOfChannel("the socket has ended, so this can no more come true")
            self.event.set()

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._values[0]


@final
class _Values(AsyncIterator[T]):
    """An iterator and no async generator: who leaves one of those early leaves its clean-up to chance."""

    __slots__ = ("_seen", "_variable")

    def __init__(self, variable: Variable[T]) -> None:
        self._variable = variable
        self._seen = -1

    def __aiter__(self) -> _Values[T]:
        return self

    async def __anext__(self) -> T:
        await trio.lowlevel.checkpoint()
        while self._variable.version == self._seen:
            if self._variable.is_ended:
                raise StopAsyncIteration
            await self._variable.wait_change()
        self._seen = self._variable.version
        return self._variable.value
