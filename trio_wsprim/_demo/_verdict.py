"""What must hold at the end of the demo, and the table that shows it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, final

from trio_wsprim._demo._books import Books, Fault, firsts, is_rising, spans
from trio_wsprim._values import CloseEvent, Undelivered

Resend: TypeAlias = Literal["unsent", "unconfirmed"]
"""What the demo's socket sends again on its next connection."""
HEADINGS: Final = ("fault", "noticed in", "how", "healed in", "away", "dials", "told", "lost", "twice")


@final
@dataclass(frozen=True, slots=True)
class Check:
    """Something that must hold.

    Attributes:
        claim: What.
        trouble: In which way it does not; empty if it does.
    """

    claim: str
    trouble: str = ""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is known besides the books when all is over.

    Attributes:
        resend: What the socket was to send again.
        closed: How it ended; `None` if it has not.
        undelivered: What it could not say to have arrived, after that.
        surprises: Ends of connections that no fault had caused, and other errors, in words.
        returned: For each 503, after how many seconds the client came back.
        retry_after: After how many it was told to.
    """

    resend: Resend
    closed: CloseEvent | None
    undelivered: Sequence[Undelivered]
    surprises: Sequence[str]
    returned: Sequence[float]
    retry_after: float


def judge(books: Books, outcome: Outcome) -> Sequence[Check]:
    """Hold everything that must be true against what is."""
    faults = books.faults
    promises = _at_most_once(books, outcome) if outcome.resend == "unsent" else _at_least_once(books)
    troubles: list[tuple[str, str]] = [
        ("every fault was noticed", _names(faults, lambda fault: fault.noticed is None)),
        ("every fault was healed", _names(faults, lambda fault: fault.healed is None)),
        *promises,
        ("what was sent before the first open came back", spans(sorted(set(books.early) - set(books.echoed)))),
        ("no dial came before the server's Retry-After was over", _too_early(outcome)),
        ("no connection ended but by these faults", "; ".join(outcome.surprises)),
        ("the socket closed cleanly, with nothing left to send", _bad_end(outcome)),
    ]
    return [Check(claim, trouble) for claim, trouble in troubles]


def _at_most_once(books: Books, outcome: Outcome) -> Iterator[tuple[str, str]]:
    """Check what `resend="unsent"` with `track=True` promises."""
    yield "nothing came twice or out of order, at either end", _disorder(_numbers(books), books.echoed)
    yield "what is lost was on its way when a fault struck", _unexplained(books)
    yield "every lost message was told of", _untold(books, outcome)


def _at_least_once(books: Books) -> Iterator[tuple[str, str]]:
    """Check what `resend="unconfirmed"` promises, and the echoes: this server sends them before its pongs."""
    yield "nothing was lost: every message came to the server", spans(books.lost())
    yield "every message came back", spans(sorted(books.sent.keys() - set(books.echoed)))
    yield (
        "what came for the first time came in order, at both ends",
        _disorder(firsts(_numbers(books)), firsts(books.echoed)),
    )
    yield "nothing came twice but what was unconfirmed when a fault struck", _needlessly_repeated(books)


def _numbers(books: Books) -> Sequence[int]:
    return [number for number, _ in books.arrived]


def _names(faults: Sequence[Fault], is_bad: Callable[[Fault], bool]) -> str:
    if not faults:
        return "there was no fault"
    return ", ".join(f"not {fault.name}" for fault in faults if is_bad(fault))


def _disorder(at_server: Sequence[int], at_client: Sequence[int]) -> str:
    ends = (("server", at_server), ("client", at_client))
    return ", ".join(f"at the {end}" for end, numbers in ends if not is_rising(numbers))


def _unexplained(books: Books) -> str:
    both = books.lost() | books.unanswered()
    return spans(sorted(number for number, fault in both.items() if fault is None))


def _untold(books: Books, outcome: Outcome) -> str:
    """Tell what was lost without a word, at the end of its connection or at that of the socket."""
    at_the_end = {int(each.message) for each in outcome.undelivered if each.fate == "unconfirmed"}
    places = (("CloseEvent.unconfirmed", books.told), ("undelivered", at_the_end))
    silences = ((place, sorted(books.lost().keys() - told)) for place, told in places)
    return "; ".join(f"not in {place}: {spans(numbers)}" for place, numbers in silences if numbers)


def _needlessly_repeated(books: Books) -> str:
    needless = sorted({number for number, fault in books.repeats() if fault is None})
    # An echo more than arrivals would be the server's doing, or a message delivered to us twice.
    extra = sorted(Counter(books.echoed) - Counter(_numbers(books)))
    return ", ".join(
        f"{spans(numbers)} at the {end}" for end, numbers in (("server", needless), ("client", extra)) if numbers
    )


def _too_early(outcome: Outcome) -> str:
    early = [seconds for seconds in outcome.returned if seconds < outcome.retry_after]
    return ", ".join(f"after {seconds:.3f} s of {outcome.retry_after:g}" for seconds in early)


def _bad_end(outcome: Outcome) -> str:
    closed = outcome.closed
    # What may be lost is told in `undelivered` too; where it is sent again, that has to be empty.
    left = sum(outcome.resend == "unconfirmed" or each.fate == "unsent" for each in outcome.undelivered)
    is_good = closed is not None and closed.code == 1000 and closed.clean and not left
    return "" if is_good else f"{closed or 'it has not ended'}, {left} undelivered"


def fault_rows(books: Books) -> Iterator[tuple[str, ...]]:
    """Give the table's rows, one a fault, under `HEADINGS`."""
    lost, repeats = books.lost().items(), list(books.repeats())
    for fault in books.faults:
        yield (
            fault.name,
            _since(fault, fault.noticed),
            fault.how or "-",
            _since(fault, fault.healed),
            f"{fault.away:.1f} s" if fault.away else "-",
            str(fault.dials),
            str(len(fault.told)),
            str(_count(lost, fault)),
            str(_count(repeats, fault)),
        )


def _since(fault: Fault, moment: float | None) -> str:
    return "never" if moment is None else f"{1000 * (moment - fault.began):.0f} ms"


def _count(numbers: Iterable[tuple[int, Fault | None]], fault: Fault) -> int:
    return sum(each is fault for _, each in numbers)


def summary(books: Books) -> Sequence[str]:
    """Say what was sent, received and lost, by the numbers at both ends."""
    lost = books.lost()
    told = f", CloseEvent.unconfirmed told of {len(lost.keys() & books.told)}" if lost else ""
    return (
        f"sent      {len(books.sent):4}  by the client, {len(books.early)} of them before it was open",
        f"received  {len(books.arrived):4}  by the server, and {len(books.echoed)} echoes by the client",
        *_by_cause("lost    ", f"never came to the server{told}", lost.items()),
        *_by_cause("twice   ", "came to the server once more", books.repeats()),
        *_by_cause("no echo ", "came to the server, but not back", books.unanswered().items()),
    )


def _by_cause(label: str, what: str, numbers: Iterable[tuple[int, Fault | None]]) -> Iterator[str]:
    causes = dict[str, list[int]]()
    for number, fault in numbers:
        causes.setdefault(fault.name if fault else "unexplained", []).append(number)
    yield f"{label}  {sum(map(len, causes.values())):4}  {what}"
    for cause, its_numbers in causes.items():
        yield f"                {cause}: {spans(its_numbers)}"


LEGEND: Final = (
    "healed: the first echo over a new connection.  away: the server's own doing.",
    "told: handed over, without proof of arrival when the connection ended.",
    "lost: never at the server.  twice: there once more.  What waits is sent later.",
)
