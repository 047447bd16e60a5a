"""The scenarios of messages, written once for every client that sends, receives and iterates."""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from benchmarks._speed_runtimes import Runtime
from benchmarks._speed_words import Message, Scenario

# The share of the time of a measurement that warming up takes before it, about.
_WARM_UP: Final = 0.15


class Talk(Protocol):
    """One connection on which a scenario can be played."""

    async def check(self, message: Message) -> None:
        """Send a message to the echo, and fail unless it comes back as it was."""
        ...

    async def rtt(self, message: Message, count: int) -> None:
        """Send a message and await its echo, so many times."""
        ...

    async def pipe(self, message: Message, count: int) -> None:
        """Send so many as fast as they go, and receive the echoes meanwhile."""
        ...

    async def burst(self, message: Message, count: int) -> None:
        """Send so many as fast as they go to the sink, and await its word that all are there."""
        ...

    async def flood(self, count: int) -> None:
        """Ask for so many messages, and receive them."""
        ...


class Exchange:
    """A talk by a client's own functions, taken as they are: a wrapper around each call would be measured, too.

    Args:
        runtime: What the client runs on.
        send: Sends a message.
        receive: Waits for one.
        messages: Iterates over them; `None` for a client that cannot, of which `receive` is called instead.
    """

    def __init__(
        self,
        runtime: Runtime,
        send: Callable[[Any], Awaitable[object]],
        receive: Callable[[], Awaitable[object]],
        messages: AsyncIterator[object] | None = None,
    ) -> None:
        self._runtime = runtime
        self._send = send
        self._receive = receive
        self._messages = messages

    async def check(self, message: Message) -> None:
        await self._send(message)
        answer = await self._receive()
        check_echo(message, getattr(answer, "data", answer))

    async def rtt(self, message: Message, count: int) -> None:
        send, receive = self._send, self._receive
        for _ in range(count):
            await send(message)
            await receive()

    async def pipe(self, message: Message, count: int) -> None:
        await self._runtime.both(partial(self._send_all, message, count), partial(self._receive_all, count))

    async def burst(self, message: Message, count: int) -> None:
        await self._send(str(count))
        await self._send_all(message, count)
        await self._receive()

    async def flood(self, count: int) -> None:
        await self._send(str(count))
        await self._receive_all(count)

    async def _send_all(self, message: Message, count: int) -> None:
        send = self._send
        for _ in range(count):
            await send(message)

    async def _receive_all(self, count: int) -> None:
        if self._messages is None:
            receive = self._receive
            for _ in range(count):
                await receive()
            return
        async for _ in self._messages:
            count -= 1
            if not count:
                break


def check_echo(message: Message, answer: object) -> None:
    """Fail unless the echo is what was sent.

    Raises:
        RuntimeError: If it is not.
    """
    if answer != message:
        raise RuntimeError(f"the echo of {message[:8]!r}… is {str(answer)[:80]!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What so many messages took, in seconds of the clock and of the processor."""

    messages: int
    wall: float
    cpu: float


def play(talk: Talk, scenario: Scenario) -> Callable[[int], Awaitable[None]]:
    """Give the function that plays a scenario with so many messages."""
    if scenario.kind == "flood":
        return talk.flood
    played = {"rtt": talk.rtt, "big": talk.rtt, "pipe": talk.pipe, "burst": talk.burst}
    return partial(played[scenario.kind], scenario.message)


async def measure(run: Callable[[int], Awaitable[None]], seconds: float) -> Timing:
    """Warm up, find the number of messages that take so many seconds, and measure those."""
    count = 1
    took = (await _time(run, count)).wall
    while took < seconds * _WARM_UP:
        # Rather a warm-up too short, and another, than one that a slow client makes long.
        count *= min(8, max(2, int(seconds * _WARM_UP / max(took, 1e-6))))
        took = (await _time(run, count)).wall
    gc.collect()
    return await _time(run, max(1, round(count * seconds / took)))


async def _time(run: Callable[[int], Awaitable[None]], count: int) -> Timing:
    wall, cpu = time.perf_counter(), time.process_time()
    await run(count)
    return Timing(messages=count, wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)
