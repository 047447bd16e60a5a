"""What became of each message, and what the process holds: pure arithmetic, of bounded size however long it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

# A run that is shorter than this does not tell a leak from a cache that fills.
LEAST_SECONDS: Final = 60.0
_MOST_WARMUP: Final = 120.0
_MOST_GROWTH: Final = 2.0**20


def make_text(client: int, serial: int) -> str:
    """Give a client's message: of some hundred bytes, and now and then of some thousand."""
    size = 4096 if serial % 50 == 0 else serial * 37 % 200
    return f"{client}:{serial}:{'x' * size}"


def read_text(text: str | bytes) -> tuple[int, int]:
    """Give client and serial of a message.

    Raises:
        ValueError: Nobody ever sent this, for it is half of one, or two.
    """
    client, serial = map(int, str(text).split(":")[:2])
    if text != make_text(client, serial):
        raise ValueError(f"no message of ours: {str(text)[:40]!r}")
    return client, serial


@dataclass(slots=True)
class Arrivals:
    """What the servers got of one client.

    Attributes:
        following: The first serial that has not come yet.
        early: Those beyond it that have come, over a later connection than those that are missing.
        repeats: How many came once more.
    """

    following: int = 1
    early: set[int] = field(default_factory=set[int])
    repeats: int = 0

    def note(self, serial: int) -> None:
        if serial < self.following or serial in self.early:
            self.repeats += 1
            return
        self.early.add(serial)
        while self.following in self.early:
            self.early.remove(self.following)
            self.following += 1

    @property
    def count(self) -> int:
        return self.following - 1 + len(self.early)

    def missing(self, sent: int) -> Sequence[int]:
        """Give those of the serials up to `sent` that have not come."""
        return [serial for serial in range(self.following, sent + 1) if serial not in self.early]


@dataclass(slots=True)
class Echoes:
    """What a client got back: on each connection all that the server sent, in order, until that breaks.

    Attributes:
        connection: The latest from which something came.
        index: Of the latest echo on it, from 1.
        count: Over all connections.
        faults: How many were not the next one.
    """

    connection: int = 0
    index: int = 0
    count: int = 0
    faults: int = 0

    def note(self, connection: int, index: int) -> None:
        if connection != self.connection:
            self.index = 0
        self.faults += connection < self.connection or index != self.index + 1
        self.connection, self.index = connection, index
        self.count += 1


@dataclass(slots=True)
class Client:
    """The account of one client.

    Attributes:
        sent: The serial of the latest message that `send` took.
        in_doubt: How often a message was told to be unconfirmed at the end of a connection.
        dropped: Serials of messages that were told to be dropped, or undelivered.
        closes: How many connections ended.
        arrivals: At the servers.
        echoes: At the client.
    """

    sent: int = 0
    in_doubt: int = 0
    dropped: set[int] = field(default_factory=set[int])
    closes: int = 0
    arrivals: Arrivals = field(default_factory=Arrivals)
    echoes: Echoes = field(default_factory=Echoes)

    def find_faults(self) -> Sequence[str]:
        """Say which messages are not accounted for."""
        faults: list[str] = []
        lost = [serial for serial in self.arrivals.missing(self.sent) if serial not in self.dropped]
        if lost:
            faults.append(f"{len(lost)} messages are lost without a word, the first is {lost[0]} of {self.sent}")
        if self.arrivals.following > self.sent + 1 or self.arrivals.early - set(range(self.sent + 1)):
            faults.append("messages arrived that were never sent")
        if self.arrivals.repeats > self.in_doubt:
            faults.append(f"{self.arrivals.repeats} came again, but only {self.in_doubt} were in doubt")
        if self.echoes.faults:
            faults.append(f"{self.echoes.faults} echoes were lost, doubled or out of order within a connection")
        return faults


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the process holds at one moment.

    Attributes:
        tasks: Of this trio run.
        files: Open file descriptors.
    """

    tasks: int
    files: int

    def exceeds(self, other: Holdings) -> bool:
        return self.tasks > other.tasks or self.files > other.files

    def __str__(self) -> str:
        return f"{self.tasks} tasks and {self.files} file descriptors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a run has seen.

    Attributes:
        clients: Their accounts.
        memory: Seconds since the faults began, and resident bytes then.
        bare: Held before anything was opened,
        closed: and when everything had been closed.
        opened: Held with every client connected, before the first fault,
        calm: and after the last.
        faults: How many were carried out.
        restless: How much did not come to rest when the network was good again: clients for whom not all is proved
            to have arrived, and connections on which not all echoes came.
    """

    clients: Sequence[Client]
    memory: Sequence[tuple[float, float]]
    bare: Holdings
    closed: Holdings
    opened: Holdings
    calm: Holdings
    faults: int
    restless: int

    def growth(self) -> float | None:
        """Give the bytes a minute by which memory grows after a warm-up; `None` if the run is too short to tell."""
        seconds = self.memory[-1][0] if self.memory else 0.0
        if seconds < LEAST_SECONDS:
            return None
        warmup = min(seconds / 3, _MOST_WARMUP)
        return 60 * slope([sample for sample in self.memory if sample[0] >= warmup])

    def find_faults(self) -> Sequence[str]:
        """Say what is wrong."""
        faults = [
            f"client {number}: {fault}" for number, client in enumerate(self.clients) for fault in client.find_faults()
        ]
        if self.restless:
            faults.append(f"{self.restless} clients or connections did not come to rest when the network was good")
        if not (self.faults and any(client.closes for client in self.clients)):
            faults.append("no connection was ever broken, so nothing was proved")
        if self.calm.exceeds(self.opened):
            faults.append(f"with all connected there are {self.calm}, before the faults {self.opened}")
        if self.closed.exceeds(self.bare):
            faults.append(f"with all closed there are {self.closed}, before {self.bare}")
        growth = self.growth()
        if growth is not None and growth >= _MOST_GROWTH:
            faults.append(f"memory grows by {growth / 2**20:.2f} MiB a minute, 1 is the limit")
        return faults


def slope(samples: Sequence[tuple[float, float]]) -> float:
    """Fit a straight line by least squares; give its rise for each unit to the right."""
    count = len(samples)
    mean_x = sum(x for x, _ in samples) / count
    mean_y = sum(y for _, y in samples) / count
    spread = sum((x - mean_x) ** 2 for x, _ in samples)
    return sum((x - mean_x) * (y - mean_y) for x, y in samples) / spread
