"""Ctrl-C and SIGTERM: the first asks to end well, the second to end now."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, final

import trio

# What a shell reports for a program that a signal ended: this, and the signal's number.
_BY_SIGNAL: Final = 128


@final
class Stop:
    """Whether somebody wants us to end."""

    __slots__ = ("_event", "code")

    def __init__(self) -> None:
        self._event = trio.Event()
        # The exit code for it; `None` while nobody has asked.
        self.code: int | None = None

    def ask(self, number: int) -> None:
        """A signal has come."""
        self.code = _BY_SIGNAL + number
        self._event.set()

    async def wait(self) -> None:
        """Wait until one has. Cancellation: atomic."""
        await self._event.wait()


async def run_until_stopped(work: Callable[[Stop], Awaitable[int]]) -> int:
    """Run a command, which is to end soon once it is asked to; a second signal cancels it.

    Python's own handler would raise `KeyboardInterrupt` in whichever task happens to run, and the others would
    then add what they make of a socket that closed under them.

    Returns:
        The exit code: the command's own, unless a signal has ended it.
    """
    stop, code = Stop(), 0
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_obey, signals, stop, nursery.cancel_scope)
            code = await work(stop)
            nursery.cancel_scope.cancel()
    return code if stop.code is None else stop.code


async def _obey(signals: AsyncIterator[int], stop: Stop, scope: trio.CancelScope) -> None:
    async for number in signals:
        if stop.code is not None:
            scope.cancel()
        stop.ask(number)
