"""The words of the speed comparison: what is measured, against which server, and what comes out."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, TypeAlias

Message: TypeAlias = str | bytes
RuntimeName: TypeAlias = Literal["trio", "asyncio", "uvloop"]
# By their names: `wall` and `cpu` in seconds a message; see `METRICS`. Less is better, of all of them.
Figures: TypeAlias = Mapping[str, float]

KIB: Final = 1024
METRICS: Final[Mapping[str, str]] = {
    "wall": "seconds",
    "first": "seconds from the import to the first echo",
    "cpu": "seconds of processor time",
    "memory": "resident KiB a connection",
    "private": "resident KiB a connection that no other process shares",
    "load": "seconds of processor time a second",
    "open": "seconds until all are open",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One thing that is measured.

    Attributes:
        kind: What a contender does; the README tells.
        size: Bytes of a message; 0 where none is sent.
        is_tls: Whether over TLS.
        count: Connections, where there are many.
    """

    kind: str
    size: int = 0
    is_tls: bool = False
    count: int = 1

    @property
    def name(self) -> str:
        """What it is called on the command line and in the results, such as `big-256k/tls`."""
        name = self.kind
        if self.kind == "big" or self.size >= KIB:
            name += f"-{self.size // KIB}k" if self.size < KIB**2 else f"-{self.size // KIB**2}m"
        return f"{name}/tls" if self.is_tls else name

    @property
    def is_binary(self) -> bool:
        """Whether messages are bytes: those that are big. Small ones are text, as most are in the world."""
        return self.kind == "big"

    @property
    def message(self) -> Message:
        """What is sent."""
        return b"x" * self.size if self.is_binary else "x" * self.size

    @property
    def path(self) -> str:
        """Where the server does its part."""
        return {"flood": f"/flood/{self.size}", "burst": "/sink"}.get(self.kind, "/echo")


def message_scenarios(*, is_tls: bool) -> Sequence[Scenario]:
    """Give the scenarios in which one connection carries messages."""
    shapes = [("rtt", 32), ("pipe", 32), ("burst", 32), ("flood", 32), ("flood", KIB)]
    shapes += [("big", 256 * KIB), ("big", 4 * KIB**2)]
    return [Scenario(kind=kind, size=size, is_tls=is_tls) for kind, size in shapes]


ALL_SCENARIOS: Final[Sequence[Scenario]] = (
    *message_scenarios(is_tls=False),
    *message_scenarios(is_tls=True),
    Scenario(kind="idle", count=1000),
    Scenario(kind="storm", count=500),
    Scenario(kind="import"),
)


def pick_scenarios(words: Iterable[str], *, plain: bool, tls: bool) -> Sequence[Scenario]:
    """Give the scenarios that words name, by kind (`flood`) or by name (`flood-1k`); all for no word.

    Raises:
        ValueError: If a word names none.
    """
    wanted = list(words)
    known = {word for each in ALL_SCENARIOS for word in (each.kind, each.name)}
    for word in wanted:
        if word not in known:
            raise ValueError(f"no scenario is called {word!r}; there are {', '.join(sorted(known))}")
    return [
        each
        for each in ALL_SCENARIOS
        if (tls if each.is_tls else plain)
        and (not wanted or {each.kind, each.name, each.name.removesuffix("/tls")} & set(wanted))
    ]


@dataclass(frozen=True)
class Target:
    """Where the server is.

    Attributes:
        port: For WebSockets.
        raw_port: For bytes.
        authority: A file with the certificate that signed the server's; `None` for plain TCP.
    """

    port: int
    raw_port: int
    authority: str | None = None
    host: str = "127.0.0.1"  # a name would have to be looked up, and might be IPv6 to some contenders and not to others

    def url(self, path: str) -> str:
        return f"{'ws' if self.authority is None else 'wss'}://{self.host}:{self.port}{path}"

    @cached_property
    def ssl_context(self) -> ssl.SSLContext | None:
        return None if self.authority is None else ssl.create_default_context(cafile=self.authority)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one measurement gave.

    Attributes:
        turn: The number of the round, from 0.
        messages: How many messages, connections or imports it was taken of.
        server: The share of the time in which the server was busy; where it is near 1, the server was measured.
        others: How many cores other programs kept busy meanwhile; near 0 on a quiet machine.
    """

    scenario: str
    contender: str
    turn: int
    figures: Figures
    messages: int
    server: float
    others: float
