"""What a promise of the seam is, and what the checks of them are written with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar, final

import trio

from trio_wsprim._seam import Incoming, Link, Transport

from ._peer import Peer

T = TypeVar("T")
S = TypeVar("S")
E = TypeVar("E", bound=BaseException)


class MakePair(Protocol):
    """Opens a link, and gives it with the scripted peer at its other end, for the time of an `async with` block.

    Args:
        buffer_size: How many bytes each direction of the connection holds unread.
        max_message_bytes: The largest message that may come in to the link; `None` for no limit.
    """

    def __call__(
        self, *, buffer_size: int = 65536, max_message_bytes: int | None = 2**20
    ) -> AbstractAsyncContextManager[tuple[Link, Peer]]:
        """Open it; leaving the block aborts it."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Promise(Generic[S]):
    """One thing that everybody may rely on.

    Attributes:
        name: A sentence.
        keep: Raises `AssertionError` if that is not so.
    """

    name: str
    keep: Callable[[S], Awaitable[None]]


LinkPromise = Promise[MakePair]
OpeningPromise = Promise[Transport]

LINK_PROMISES: list[LinkPromise] = []
OPENING_PROMISES: list[OpeningPromise] = []


def promise(keep: Callable[[MakePair], Awaitable[None]]) -> None:
    """Make it one of the promises of links."""
    LINK_PROMISES.append(Promise(_name_of(keep), keep))


def each_promise(cases: Mapping[str, T]) -> Callable[[Callable[[MakePair, T], Awaitable[None]]], None]:
    """Make it one promise for each of several cases."""
    return _each(LINK_PROMISES, cases)


def opening(keep: Callable[[Transport], Awaitable[None]]) -> None:
    """Make it one of the promises of transports."""
    OPENING_PROMISES.append(Promise(_name_of(keep), keep))


def each_opening(cases: Mapping[str, T]) -> Callable[[Callable[[Transport, T], Awaitable[None]]], None]:
    """Make it one promise for each of several cases."""
    return _each(OPENING_PROMISES, cases)


def _each(promises: list[Promise[S]], cases: Mapping[str, T]) -> Callable[[Callable[[S, T], Awaitable[None]]], None]:
    def add(keep: Callable[[S, T], Awaitable[None]]) -> None:
        for name, case in cases.items():
            promises.append(Promise(f"{_name_of(keep)}: {name}", _bind(keep, case)))

    return add


def _bind(keep: Callable[[S, T], Awaitable[None]], case: T) -> Callable[[S], Awaitable[None]]:
    async def keep_case(subject: S) -> None:
        await keep(subject, case)

    return keep_case


def _name_of(keep: Callable[..., object]) -> str:
    return keep.__name__.replace("_", " ")


def numbered(values: Iterable[int]) -> dict[str, int]:
    """Name numbers."""
    return {str(value): value for value in values}


def named(*values: str) -> dict[str, str]:
    """Name words."""
    return {value: value for value in values}


# ------------------------------------------------------------------------------------ what checks are written with

# Not `assert`: a check that passes under `python -O` checks nothing, and who runs it should see both values.


def same(found: object, wanted: object) -> None:
    """Fail unless they are equal."""
    if found != wanted:
        raise AssertionError(f"expected {wanted!r}, found {found!r}")


def holds(condition: object, sentence: str) -> None:
    """Fail with the sentence unless the condition is true."""
    if not condition:
        raise AssertionError(sentence)


@final
class Raises(Generic[E]):
    """Fails unless its block raises that very class of error."""

    __slots__ = ("_kind", "error")
    error: E

    def __init__(self, kind: type[E]) -> None:
        self._kind = kind

    def __enter__(self) -> Self:
        """Nothing to prepare."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        """Look what it was."""
        if error is None:
            raise AssertionError(f"expected {self._kind.__name__}, nothing was raised")
        if type(error) is not self._kind:
            return False
        self.error = error
        return True


async def expect(kind: type[E], work: Callable[[], Awaitable[object]]) -> E:
    """Fail unless that raises that very class of error."""
    with Raises(kind) as raised:
        await work()
    return raised.error


def elapsed(start: float) -> float:
    """Tell the seconds since then, without what adding and subtracting leave behind."""
    return round(trio.current_time() - start, 6)


async def closing(link: Link, code: int = 1000, reason: str = "", seconds: float = 5) -> None:
    """Close, within a deadline, as every caller does."""
    with trio.move_on_after(seconds):
        await link.aclose(code, reason)


async def receive_all(link: Link, count: int) -> list[Incoming]:
    """Receive until there are so many."""
    items: list[Incoming] = []
    while len(items) < count:
        items += await link.receive()
    return items


async def cancel_after(steps: int, scope: trio.CancelScope) -> None:
    """Cancel after so many passes of the scheduler."""
    for _ in range(steps):
        await trio.lowlevel.checkpoint()
    scope.cancel()


async def read_to_end(peer: Peer) -> None:
    """Have the peer read all that is still to come."""
    with Raises(trio.EndOfChannel):
        while True:
            await peer.receive_frame()
