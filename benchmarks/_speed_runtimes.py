"""The three event loops, behind one small seam, so that a scenario is written once."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import trio

from benchmarks._speed_words import RuntimeName

T = TypeVar("T")
Task: TypeAlias = Callable[[], Coroutine[Any, Any, object]]


class Event(Protocol):
    def set(self) -> None: ...

    async def wait(self) -> object: ...


class Semaphore(Protocol):
    async def acquire(self) -> object: ...

    def release(self) -> object: ...


class Runtime(Protocol):
    """What the scenarios need of an event loop, besides what is awaited."""

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T: ...

    async def both(self, first: Task, second: Task) -> None:
        """Run two tasks side by side until both have ended."""
        ...

    async def crowd(self, member: Task, count: int, body: Task) -> None:
        """Run so many copies of a task beside a body, and cancel them when that has ended."""
        ...

    async def sleep(self, seconds: float) -> None: ...

    def event(self) -> Event: ...

    def semaphore(self, value: int) -> Semaphore: ...


class TrioRuntime:
    """Trio."""

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return trio.run(main)

    async def both(self, first: Task, second: Task) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first)
            nursery.start_soon(second)

    async def crowd(self, member: Task, count: int, body: Task) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(member)
            await body()
            nursery.cancel_scope.cancel()

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    def event(self) -> Event:
        return trio.Event()

    def semaphore(self, value: int) -> Semaphore:
        return trio.Semaphore(value)


class AsyncioRuntime:
    """The asyncio of the standard library.

    Args:
        new_loop: Makes another event loop than the default one, such as uvloop's.
    """

    def __init__(self, new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
        self._new_loop = new_loop

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        with asyncio.Runner(loop_factory=self._new_loop) as runner:
            return runner.run(main())

    async def both(self, first: Task, second: Task) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(first())
            group.create_task(second())

    async def crowd(self, member: Task, count: int, body: Task) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(member()) for _ in range(count)]
            await body()
            for task in tasks:
                task.cancel()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def event(self) -> Event:
        return asyncio.Event()

    def semaphore(self, value: int) -> Semaphore:
        return asyncio.Semaphore(value)


def make_runtime(name: RuntimeName) -> Runtime:
    """Make a runtime by its name."""
    if name == "trio":
        return TrioRuntime()
    return AsyncioRuntime(importlib.import_module("uvloop").new_event_loop if name == "uvloop" else None)


# Seconds after which whatever is awaited in a measurement hangs.
PATIENCE: Final = 60.0


async def bounded(runtime: Runtime, work: Callable[[], Awaitable[None]]) -> None:
    """Await something; fail if it takes more than `PATIENCE`."""
    if isinstance(runtime, TrioRuntime):
        with trio.fail_after(PATIENCE):
            await work()
    else:
        async with asyncio.timeout(PATIENCE):
            await work()
