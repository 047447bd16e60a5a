"""What the chaos run has proved: pure arithmetic over what the client did and what the server got."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

Mode: TypeAlias = Literal["unsent", "unconfirmed"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)
DownMessage: TypeAlias = tuple[int, int]
"""What the server sends: the number of its connection, and which message on it this is, from 1."""

_FOREIGN: Final = -1


def make_message(number: int) -> str:
    """Give the text of a numbered message: of some hundred bytes, and now and then of some thousand."""
    size = 4096 if number % 50 == 0 else number * 37 % 200
    return f"{number}:{'x' * size}"


def read_message(message: str | bytes) -> int:
    """Give the number of a message; -1 if we never made such a one, for instance half of it."""
    text = message if isinstance(message, str) else message.decode(errors="replace")
    head = text.partition(":")[0]
    if head.isdecimal() and text == make_message(int(head)):
        return int(head)
    return _FOREIGN


def make_down(message: DownMessage) -> str:
    return f"{message[0]}:{message[1]}"


def read_down(text: str | bytes) -> DownMessage:
    connection, number = str(text).split(":")
    return int(connection), int(number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was seen on both sides.

    Attributes:
        mode: The `resend` of the client.
        accepted: Numbers that `send` took, in the order of sending.
        arrivals: Numbers that the server read, in the order in which it did, over all its connections.
        reported: Numbers that the client was told may be lost, or were dropped.
        downs: What the client received, in order.
        kills: How many there were of each kind.
        recoveries: Seconds from a usable network to the next open connection, one for each kill.
        unnoticed: How many freezes no heartbeat ended.
        connections: How many the client opened.
        heartbeats: How many the heartbeat ended.
    """

    mode: Mode
    accepted: Sequence[int]
    arrivals: Sequence[int]
    reported: Collection[int]
    downs: Sequence[DownMessage]
    kills: Mapping[str, int]
    recoveries: Sequence[float]
    unnoticed: int
    connections: int
    heartbeats: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The evidence, counted.

    Attributes:
        accepted: Messages that `send` took.
        received: Those of them that the server got, once or more.
        duplicated: Arrivals of what had arrived before.
        reordered: First arrivals after the first arrival of a message that was sent later. A second arrival is no
            reordering: where 1 2 3 is followed by 2 3 4 on the next connection, each came first in its turn.
        foreign: Arrivals of what was never sent, such as half a message.
        lost: Messages that never arrived.
        reported: Messages of which the client was told that they may be lost, or were dropped.
        unexplained: Lost without a word.
        needless: Reported, and arrived all the same; no fault, for proof can be lost too.
        down_received: Messages from the server that the client got.
        down_wrong: Those of them that were not the next one on their connection, or came on a replaced one.
        recovery_p50: Seconds; `nan` without kills.
        recovery_p99: Seconds; for fewer than 100 kills the longest.
    """

    mode: Mode
    accepted: int
    received: int
    duplicated: int
    reordered: int
    foreign: int
    lost: int
    reported: int
    unexplained: int
    needless: int
    down_received: int
    down_wrong: int
    connections: int
    heartbeats: int
    unnoticed: int
    kills: Mapping[str, int]
    recovery_p50: float
    recovery_p99: float


def settle(evidence: Evidence) -> Account:
    """Count the evidence."""
    accepted, reported = set(evidence.accepted), set(evidence.reported)
    own = [number for number in evidence.arrivals if number in accepted]
    received = set(own)
    lost = accepted - received
    return Account(
        mode=evidence.mode,
        accepted=len(accepted),
        received=len(received),
        duplicated=len(own) - len(received),
        reordered=count_reordered(own, evidence.accepted),
        foreign=len(evidence.arrivals) - len(own),
        lost=len(lost),
        reported=len(reported),
        unexplained=len(lost - reported),
        needless=len(reported & received),
        down_received=len(evidence.downs),
        down_wrong=count_wrong_downs(evidence.downs),
        connections=evidence.connections,
        heartbeats=evidence.heartbeats,
        unnoticed=evidence.unnoticed,
        kills=dict(evidence.kills),
        recovery_p50=percentile(evidence.recoveries, 50),
        recovery_p99=percentile(evidence.recoveries, 99),
    )


def count_reordered(arrivals: Iterable[int], sent: Iterable[int]) -> int:
    """Count first arrivals that came after that of a message sent later."""
    place = {number: index for index, number in enumerate(sent)}
    seen: set[int] = set()
    latest = -1
    reordered = 0
    for number in arrivals:
        if number in seen:
            continue
        seen.add(number)
        reordered += place[number] < latest
        latest = max(latest, place[number])
    return reordered


def count_wrong_downs(downs: Iterable[DownMessage]) -> int:
    """Count what did not come next: a connection's messages are 1, 2, 3 …, and none comes once another has begun."""
    begun: Counter[int] = Counter()
    present: int | None = None
    wrong = 0
    for connection, number in downs:
        is_back = connection != present and connection in begun
        wrong += is_back or number != begun[connection] + 1
        begun[connection] = number
        present = connection
    return wrong


def percentile(values: Sequence[float], percent: float) -> float:
    """Give the smallest value that at least so many percent do not exceed; `nan` of nothing."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def find_faults(account: Account, *, max_recovery: float) -> Sequence[str]:
    """Name each promise that was not kept; none if all were.

    Args:
        account: Of one run.
        max_recovery: Seconds that the 99th percentile of recovery may take at most.
    """
    promised_zero = {
        "unexplained": account.unexplained,
        "foreign": account.foreign,
        "messages from the server out of order": account.down_wrong,
        "freezes unnoticed": account.unnoticed,
    }
    if account.mode == "unconfirmed":
        promised_zero |= {"lost": account.lost, "reordered": account.reordered}
    else:
        promised_zero |= {"duplicated": account.duplicated}
    faults = [f"{count} {what}, wanted 0" for what, count in promised_zero.items() if count]
    if account.accepted == 0 or account.received == 0 or account.down_received == 0:
        faults.append("no traffic, so nothing was proved")
    if account.recovery_p99 > max_recovery:
        faults.append(f"recovery p99 {account.recovery_p99 * 1000:.0f} ms, wanted at most {max_recovery * 1000:.0f}")
    return [f"{account.mode}: {fault}" for fault in faults]


def as_table(accounts: Sequence[Account]) -> str:
    """Give a table with a column for each account."""

    def milliseconds(seconds: float) -> str:
        return f"{seconds * 1000:.1f}"

    rows: list[tuple[str, list[str]]] = [("resend", [account.mode for account in accounts])]
    for name in _COUNTS:
        rows.append((name.replace("_", " "), [str(getattr(account, name)) for account in accounts]))
    for kind in sorted({kind for account in accounts for kind in account.kills}):
        rows.append((f"kills: {kind}", [str(account.kills.get(kind, 0)) for account in accounts]))
    rows.append(("recovery p50, ms", [milliseconds(account.recovery_p50) for account in accounts]))
    rows.append(("recovery p99, ms", [milliseconds(account.recovery_p99) for account in accounts]))
    return "\n".join(f"{name:<18}" + "".join(f"{cell:>14}" for cell in cells) for name, cells in rows)


_COUNTS: Final = (
    "accepted",
    "received",
    "duplicated",
    "reordered",
    "foreign",
    "lost",
    "reported",
    "unexplained",
    "needless",
    "down_received",
    "down_wrong",
    "connections",
    "heartbeats",
    "unnoticed",
)
