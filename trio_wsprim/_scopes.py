"""Small tools of structured concurrency that several rooms need."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Final, Self, cast, final

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled

# A call that need not wait is a cancellation point each time, and a schedule point each 64th time. A schedule
# point costs some 4 µs, a check for cancellation 0.2 µs; measured from 1 to 256, 64 is where more gains nothing.
_CALLS_PER_SCHEDULE_POINT: Final = 64


@final
class Pace:
    """Amortised schedule points for calls that usually have nothing to wait for."""

    __slots__ = ("_calls",)

    def __init__(self) -> None:
        self._calls = 0

    def step(self) -> Awaitable[None]:
        """Give what is a cancellation point when awaited, and each 64th time a schedule point too.

        Cancellation: atomic.
        """
        # Not `async`, which would put a coroutine around trio's own for every message.
        self._calls = calls = (self._calls + 1) % _CALLS_PER_SCHEDULE_POINT
        return checkpoint_if_cancelled() if calls else checkpoint()  # noqa: ASYNC105 - awaited by who called


@final
class Bell:
    """Wakes whoever waits, and remembers one ring that nobody waited for.

    Unlike `trio.Event` it can ring again. What it announces must be looked up: rings that come before the
    waiter runs melt into one.
    """

    __slots__ = ("_lot", "_rung")

    def __init__(self) -> None:
        # There only while somebody waits: a socket has many bells, and a lot takes 350 bytes.
        self._lot: trio.lowlevel.ParkingLot | None = None
        self._rung = False

    def ring(self) -> None:
        """Wake all who wait, or the next one to come."""
        lot, self._lot = self._lot, None
        if lot:
            lot.unpark_all()
        else:
            self._rung = True

    async def wait(self) -> None:
        """Wait for a ring; one that came since the last wait counts.

        Cancellation: atomic.
        """
        if self._rung:
            await checkpoint_if_cancelled()
            self._rung = False
            return
        if self._lot is None:
            self._lot = trio.lowlevel.ParkingLot()
        await self._lot.park()


@final
class OneAtATime:
    """Refuses a second task where one is at work already.

    Args:
        doing: What the one at work does: `sending`, `receiving`.
    """

    __slots__ = ("_doing", "is_busy")

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self.is_busy = False

    def __enter__(self) -> None:
        """Claim the work, or raise `trio.BusyResourceError`."""
        if self.is_busy:
            raise trio.BusyResourceError(f"another task is {self._doing} already")
        self.is_busy = True

    def __exit__(self, *_: object) -> None:
        """Leave it to the next task."""
        self.is_busy = False


@final
class peeled:  # noqa: N801 - reads as a statement: `with peeled():`
    """Take off the one group that the nursery directly inside puts around an error.

    A group that the caller raised keeps its shape: only the outermost layer goes, and only if it holds a single
    error once `trio.Cancelled` is set aside. (An error that left beside a cancellation is the one to tell.)

    Attributes:
        body_error: What the nursery's body raised, if that is known. A cancelled nursery makes every group anew, and
            loses its class; by this the caller's own comes out.
    """

    __slots__ = ("body_error",)

    def __init__(self) -> None:
        self.body_error: BaseException | None = None

    def __enter__(self) -> Self:
        """Nothing to prepare."""
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Raise what the group holds, with the cause and context that it had."""
        if not isinstance(error, BaseExceptionGroup):
            return
        held = cast("BaseExceptionGroup[BaseException]", error).exceptions
        told = [one for one in held if _split(one)[1]]
        only = told or held[:1]
        if len(only) != 1:
            return
        inner = only[0]
        if self.body_error is not None and not _split(self.body_error)[0]:
            inner = self.body_error
        context = inner.__context__
        try:
            raise inner
        finally:
            # `raise` has just made the group the context; the user's error comes out as it was.
            inner.__context__ = context
            self.body_error = None
            del inner, context, only, told, held, error


def _split(error: BaseException) -> tuple[object, object]:
    """Tell whether there is a cancellation in an error, and whether there is anything else."""
    if isinstance(error, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", error).split(trio.Cancelled)
    is_cancellation = isinstance(error, trio.Cancelled)
    return is_cancellation, not is_cancellation


@final
class peeled_nursery:  # noqa: N801 - reads as a statement: `async with peeled_nursery() as nursery:`
    """Open a nursery whose body's error comes out as it is, the same object; otherwise as `peeled`."""

    # A class, since a generator behind each of a socket's nurseries takes a KiB more.
    __slots__ = ("_manager",)

    def __init__(self) -> None:
        # Strict, so that there is a layer to take off, also in a run that asks for none.
        self._manager = trio.open_nursery(strict_exception_groups=True)

    async def __aenter__(self) -> trio.Nursery:
        """Open the nursery."""
        return await self._manager.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Wait for the tasks, and take the layer off."""
        try:
            with peeled() as peel:
                peel.body_error = error
                return bool(await self._manager.__aexit__(kind, error, traceback))
        except BaseException as raised:
            if raised is not error:
                raise
        return False  # it goes on by itself, which a coroutine could not let a `StopIteration` do


@final
class serving:  # noqa: N801 - reads as a statement: `async with serving(work):`
    """Run `work` beside the body, and let it outlive the body.

    A plain nursery cancels its tasks and its body together, so a body's `finally:` would find the pump that
    carries its last message already dead. Here the body is cancelled first; `work` is shielded until the body has
    ended, and then gets to see the cancellation, if there is one.

    Args:
        work: What to run.
        scope: That `work` runs all of itself in; `None` to give it one.
    """

    __slots__ = ("_manager", "_scope", "_work")

    def __init__(self, work: Callable[[], Awaitable[None]], scope: trio.CancelScope | None = None) -> None:
        self._manager = peeled_nursery()
        self._scope = trio.CancelScope() if scope is None else scope
        self._work = work if scope is not None else partial(_run_in, self._scope, work)

    async def __aenter__(self) -> None:
        """Start the work."""
        nursery = await self._manager.__aenter__()
        self._scope.shield = True
        nursery.start_soon(self._work)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Wait for the work."""
        self._scope.shield = False
        return await self._manager.__aexit__(kind, error, traceback)


async def _run_in(scope: trio.CancelScope, work: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await work()
