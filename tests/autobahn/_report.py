"""What the suite found: pure, from its report of each case to verdicts, faults and a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, TypeAlias

Role: TypeAlias = Literal["client", "server"]

# All other words of the suite, such as WRONG CODE and UNCLEAN, are faults too. NON-STRICT is what the RFC allows but
# the suite would like better; INFORMATIONAL is where it has no opinion.
PASSED: Final = frozenset({"OK", "NON-STRICT", "INFORMATIONAL"})
# With which a peer is told what it did wrong: the protocol, the text, the size.
BREACH_CODES: Final = (1002, 1007, 1009)
# In how many cases that has to be seen on the wire, in each role and over each transport.
LEAST_BREACHES: Final = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How one case ended.

    Attributes:
        case: Its id, such as "7.1.5".
        behavior: What the suite thinks of how we took it.
        close: What it thinks of how the connection ended.
        code: Of the close frame that it got from us; `None` for none.
        is_answer: Whether that only repeats the code of a close that the suite began.
    """

    case: str
    behavior: str
    close: str
    code: int | None
    is_answer: bool

    @property
    def is_passed(self) -> bool:
        return self.behavior in PASSED and self.close in PASSED

    @property
    def rank(self) -> int:
        """How good it is: 2 for as good as can be, 1 for passed, 0 for failed."""
        return 0 if not self.is_passed else 1 if self.behavior == "NON-STRICT" else 2

    @property
    def breach_code(self) -> int | None:
        """The code with which we ended the connection for the peer's fault, if we did."""
        return self.code if self.code in BREACH_CODES and not self.is_answer else None

    def __str__(self) -> str:
        return f"{self.behavior}, close {self.close} with {self.code}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One role over one transport.

    Attributes:
        role: Which end was ours.
        transport: By name.
        seconds: It took.
        verdicts: Of all cases, in the suite's order.
        too_big: Of cases whose messages were made too large for us, where 1009 is what we owe, whatever the
            suite thinks of that.
        failed_first: The cases that passed only when they were run again. Not a fault, but worth a look.
    """

    role: Role
    transport: str
    seconds: float
    verdicts: Sequence[Verdict]
    too_big: Sequence[Verdict] = ()
    failed_first: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.role} over {self.transport}"

    def breaches(self) -> Counter[int]:
        """Count the cases in which a breach of the peer's was answered with a close frame that says so, by code."""
        codes = (verdict.breach_code for verdict in (*self.verdicts, *self.too_big))
        return Counter(code for code in codes if code is not None)

    @property
    def doubtful(self) -> Sequence[str]:
        """The cases that might do better another time."""
        return [verdict.case for verdict in self.verdicts if verdict.rank < 2]

    def bettered(self, later: Account) -> Account:
        """Take those later verdicts that are better.

        That one is not as good as can be may be chance. Where a breach follows what is to be echoed, both may come in
        one read, and the echo comes too late: NON-STRICT. Where the machine is busy, the suite gives up after a second.
        """
        news = {verdict.case: verdict for verdict in later.verdicts}
        pairs = [(verdict, news.get(verdict.case, verdict)) for verdict in self.verdicts]
        return replace(
            self,
            verdicts=[max(pair, key=lambda verdict: verdict.rank) for pair in pairs],
            failed_first=(*self.failed_first, *(old.case for old, new in pairs if old.rank == 0 < new.rank)),
        )


def read_verdict(report: Mapping[str, Any]) -> Verdict:
    """Read the suite's report of one case."""
    code: int | None = report["remoteCloseCode"]
    return Verdict(
        case=report["id"],
        behavior=report["behavior"],
        close=report["behaviorClose"],
        code=code,
        is_answer=bool(report["closedByMe"]) and code == report["localCloseCode"],
    )


def sort_key(verdict: Verdict) -> tuple[int, ...]:
    return tuple(map(int, verdict.case.split(".")))


def find_faults(account: Account, cases: Sequence[str], *, counts_breaches: bool) -> Sequence[str]:
    """Say what is wrong with an account.

    Args:
        account: Of a run.
        cases: Which it should tell of.
        counts_breaches: Whether enough cases were run for `LEAST_BREACHES`.
    """
    told = {verdict.case for verdict in account.verdicts}
    faults = [f"{case}: the suite did not report it" for case in cases if case not in told]
    faults += [f"{verdict.case}: {verdict}" for verdict in account.verdicts if not verdict.is_passed]
    faults += [
        f"{verdict.case} with a message too big for us: close with {verdict.code} instead of 1009"
        for verdict in account.too_big
        if verdict.breach_code != 1009
    ]
    breaches = account.breaches().total()
    if counts_breaches and breaches < LEAST_BREACHES:
        codes = ", ".join(map(str, BREACH_CODES))
        faults.append(f"only {breaches} cases got {codes} for the peer's fault; it should be {LEAST_BREACHES}")
    return [f"{account.name}: {fault}" for fault in faults]


def find_differences(accounts: Iterable[Account], others: Iterable[Account]) -> Sequence[str]:
    """Say in which cases two runs differ, each role and transport beside its own. What only one has is a difference."""
    ours, theirs = _by_name(accounts), _by_name(others)
    differences: list[str] = []
    for name in ours.keys() | theirs.keys():
        one, other = ours.get(name, {}), theirs.get(name, {})
        differences += [
            f"{name}: {case}: {one.get(case, 'not run')} here, {other.get(case, 'not run')} there"
            for case in one.keys() | other.keys()
            if one.get(case) != other.get(case)
        ]
    return sorted(differences)


def _by_name(accounts: Iterable[Account]) -> Mapping[str, Mapping[str, Verdict]]:
    return {
        account.name: {
            **{verdict.case: verdict for verdict in account.verdicts},
            **{f"{verdict.case}, too big": verdict for verdict in account.too_big},
        }
        for account in accounts
    }


def as_table(accounts: Iterable[Account]) -> str:
    """Show the verdicts, a line for each account."""
    head = ("ours", "cases", "OK", "non-strict", "informational", "failed", *map(str, BREACH_CODES), "seconds")
    rows = [head, *map(_row, accounts)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(pairs))
        for pairs in (zip(row, widths, strict=True) for row in rows)
    )


def _row(account: Account) -> tuple[str, ...]:
    passed = Counter(verdict.behavior for verdict in account.verdicts if verdict.is_passed)
    breaches = account.breaches()
    return (
        account.name,
        str(len(account.verdicts)),
        *(str(passed[word]) for word in ("OK", "NON-STRICT", "INFORMATIONAL")),
        str(len(account.verdicts) - passed.total()),
        *(str(breaches[code]) for code in BREACH_CODES),
        f"{account.seconds:.0f}",
    )


def as_json(accounts: Iterable[Account]) -> list[dict[str, Any]]:
    return [asdict(account) for account in accounts]


def from_json(accounts: Iterable[Mapping[str, Any]]) -> Sequence[Account]:
    """Read what `as_json` made."""
    return [
        Account(
            role=account["role"],
            transport=account["transport"],
            seconds=account["seconds"],
            verdicts=[Verdict(**verdict) for verdict in account["verdicts"]],
            too_big=[Verdict(**verdict) for verdict in account["too_big"]],
            failed_first=tuple(account["failed_first"]),
        )
        for account in accounts
    ]
