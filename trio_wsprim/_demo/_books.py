"""What the demo counts: the numbers at both ends, and each fault from its beginning to its cure. Pure."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import final


@dataclass(slots=True, kw_only=True)
class Fault:
    """One fault; moments are seconds on one clock.

    Attributes:
        name: For the table.
        connection: The server's number of the connection that it kills.
        began: When the server did it.
        away: For how many seconds the server was not to be had.
        noticed: When the client knew; `None` if it has not.
        how: What told it.
        healed: When the first echo came back over a later connection; `None` if none has.
        dials: How many dials that took.
        told: The numbers that its `CloseEvent` told as handed over without proof.
    """

    name: str
    connection: int
    began: float
    away: float = 0.0
    noticed: float | None = None
    how: str = ""
    healed: float | None = None
    dials: int = 0
    told: Sequence[int] = ()


@final
@dataclass(slots=True)
class Books:
    """The numbers of the messages, as each end has seen them.

    Attributes:
        sent: When the client sent each, in order.
        early: Those that it sent before its first connection was open.
        arrived: What came to the server, in order: the number, and the connection that brought it. What is sent again
            may be here twice.
        echoed: What came back to the client, in order; the same is true of it.
        told: What any `CloseEvent` told as handed over without proof.
        faults: In order.
    """

    sent: dict[int, float] = field(default_factory=dict[int, float])
    early: list[int] = field(default_factory=list[int])
    arrived: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    echoed: list[int] = field(default_factory=list[int])
    told: set[int] = field(default_factory=set[int])
    faults: list[Fault] = field(default_factory=list[Fault])

    def connection_of(self, number: int) -> int | None:
        """Tell which connection brought a message to the server, the last time; `None` if none did."""
        return next((connection for each, connection in reversed(self.arrived) if each == number), None)

    def lost(self) -> dict[int, Fault | None]:
        """Tell what never came to the server, and which fault explains it.

        A fault explains what is missing exactly between the last message over the connection that it killed and
        the first over a later one, if it was sent before the client knew: from then on nothing may be lost.
        """
        arrived = sorted(self.arrived)
        missing = self.sent.keys() - {number for number, _ in arrived}
        return {number: self._blame(number, arrived) for number in sorted(missing)}

    def _blame(self, number: int, arrived: Sequence[tuple[int, int]]) -> Fault | None:
        place = bisect(arrived, (number, 0))
        before = arrived[place - 1][1] if place else 0
        after = arrived[place][1] if place < len(arrived) else inf
        sent = self.sent[number]
        for fault in self.faults:
            if before <= fault.connection < after and fault.noticed is not None and sent <= fault.noticed:
                return fault
        return None

    def unanswered(self) -> dict[int, Fault | None]:
        """Tell what came to the server, but not back, and which fault explains it: one that cut off the last echoes."""
        echoed = set(self.echoed)
        last_echo = dict[int, int]()
        for number, connection in self.arrived:
            if number in echoed:
                last_echo[connection] = number
        killers = {fault.connection: fault for fault in self.faults}
        return {
            number: killers.get(connection) if number > last_echo.get(connection, 0) else None
            for number, connection in self.arrived
            if number not in echoed
        }

    def repeats(self) -> Iterator[tuple[int, Fault | None]]:
        """Tell what came to the server once more, each time that it did, and which fault explains it.

        A fault explains that what its end left without proof comes over a later connection than before.
        """
        carried = dict[int, int]()
        for number, connection in self.arrived:
            if number in carried:
                yield number, self._doubter(number, carried[number], connection)
            carried[number] = connection

    def _doubter(self, number: int, earlier: int, later: int) -> Fault | None:
        doubters = (fault for fault in self.faults if number in fault.told and earlier <= fault.connection < later)
        return next(doubters, None)


def firsts(numbers: Iterable[int]) -> Sequence[int]:
    """Leave out what has been there before."""
    return list(dict.fromkeys(numbers))


def is_rising(numbers: Iterable[int]) -> bool:
    """Whether each number is greater than the one before: none twice, none out of order."""
    last = -inf
    for number in numbers:
        if number <= last:
            return False
        last = number
    return True


def spans(numbers: Iterable[int]) -> str:
    """Write numbers in rising order as `3-5, 9`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)
