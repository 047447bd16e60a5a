"""What a contender is: the base of all of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeAlias

from benchmarks._speed_exchange import Talk
from benchmarks._speed_runtimes import Runtime
from benchmarks._speed_words import Scenario, Target

# Called whenever a connection is open.
Opened: TypeAlias = Callable[[], None]

# Bytes that a message may have, where a default is less than the 4 MiB of `big`.
MAX_BYTES: Final = 8 * 2**20
# Seconds between two beats of an idle connection.
BEAT: Final = 1.0


class Client:
    """One library's client, as its users use it. What a library cannot do, it does not take part in.

    Args:
        runtime: What it runs on.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    def talk(self, target: Target, scenario: Scenario) -> AbstractAsyncContextManager[Talk]:
        """Connect for a scenario of messages."""
        raise NotImplementedError

    async def sit(self, target: Target, opened: Opened) -> None:
        """Connect with a beat a second, and wait for messages until cancelled."""
        raise NotImplementedError

    async def stay(self, target: Target, opened: Opened) -> None:
        """Connect, and again whenever the connection ends, without a pause, until cancelled."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Close what all connections share, if anything."""
