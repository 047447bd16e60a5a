"""The words of the server comparison: what is measured, and of whom."""

from __future__ import annotations

import resource
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias, TypeVar

from benchmarks._speed_words import RuntimeName

Kind: TypeAlias = Literal["idle", "broadcast", "echo"]

METRICS: Final[Mapping[str, str]] = {
    "wall": "seconds: a message and its echo, of all clients together; or a broadcast until the last client has it",
    "cpu": "seconds of the server's processor time for the same",
    "memory": "resident KiB a connection",
    "private": "resident KiB a connection that no other process shares",
    "load": "seconds of processor time a second",
    "open": "seconds until all are open",
    "beats": "beats of a connection in the interval in which there should be one",
    "generator": "the share of the time in which the load generator was busy",
}
# Seconds between two beats of an idle connection, which the server sends.
BEAT: Final = 1.0
# Files that a process has open besides its connections.
_OTHER_FILES: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One thing that is measured.

    Attributes:
        clients: How many are connected.
        window: Messages that each client has under way at once.
        size: Bytes of a message.
    """

    name: str
    kind: Kind
    clients: int
    window: int = 1
    size: int = 32


SCENARIOS: Final[Sequence[Scenario]] = (
    Scenario(name="echo", kind="echo", clients=50),
    Scenario(name="echo-16", kind="echo", clients=50, window=16),
    Scenario(name="broadcast", kind="broadcast", clients=1000),
    Scenario(name="idle", kind="idle", clients=2000),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One server in one configuration.

    Attributes:
        title: What people call it.
        house: Its class in `_scale_servers`, and what that is given.
        kinds: Of scenarios that it takes part in.
    """

    name: str
    title: str
    house: str
    options: tuple[object, ...] = ()
    runtime: RuntimeName = "trio"
    kinds: tuple[Kind, ...] = ("echo", "broadcast", "idle")
    is_ours: bool = False


CONTENDERS: Final[Sequence[Contender]] = (
    Contender(
        name="ours-websockets",
        title="trio_wsprim on websockets",
        house="Ours",
        options=("websockets",),
        is_ours=True,
    ),
    Contender(
        name="ours-trio-websocket",
        title="trio_wsprim on trio-websocket",
        house="Ours",
        options=("trio-websocket",),
        is_ours=True,
    ),
    Contender(name="trio-websocket", title="trio-websocket", house="TrioWebsocket"),
    Contender(
        name="trio-websocket-tuned",
        title="trio-websocket, tuned",
        house="TrioWebsocket",
        options=(1024, 64 * 1024),
        kinds=("echo",),
    ),
    Contender(name="websockets-trio", title="websockets, trio", house="WebsocketsTrio"),
    Contender(name="websockets-asyncio", title="websockets, asyncio", house="WebsocketsAsyncio", runtime="asyncio"),
    Contender(
        name="websockets-asyncio-uvloop",
        title="websockets, asyncio + uvloop",
        house="WebsocketsAsyncio",
        runtime="uvloop",
    ),
)

T = TypeVar("T", Scenario, Contender)


def pick(words: Iterable[str], among: Sequence[T]) -> Sequence[T]:
    """Give those of these names, in the order in which we have them; all for no name.

    Raises:
        ValueError: If a name is none.
    """
    wanted, names = set(words), [each.name for each in among]
    for word in sorted(wanted.difference(names)):
        raise ValueError(f"nothing is called {word!r}; there are {', '.join(names)}")
    return [each for each in among if not wanted or each.name in wanted]


def files_allowed() -> int:
    """Give how many files a process may have open, if it asks for as many as it may."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def fit(scenario: Scenario, files: int, most: int | None = None) -> Scenario:
    """Give a scenario with no more clients than a process may have files for, nor than wanted."""
    room = scenario.clients if files == resource.RLIM_INFINITY else max(1, files - _OTHER_FILES)
    return replace(scenario, clients=min(scenario.clients, room, most or scenario.clients))
