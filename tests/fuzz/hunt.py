"""The hunt: meeting after meeting, each held to what must hold; what is found is made small, and told."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from random import Random
from time import perf_counter
from typing import Final, Protocol

import trio
from trio.testing import MockClock

from trio_wsprim import TrioWebsocketTransport, WebsocketsTransport

from .meetings import Ending, Outcome, Speech, Trouble, meet_client, meet_server
from .mutations import cut, mutate
from .parsers import decode_frames, inflate, read_clients_head, read_servers_head
from .recordings import Parts, of_client, of_server


class Meet(Protocol):
    """Has somebody meet a speech."""

    def __call__(self, speech: Speech, /) -> Awaitable[Outcome]: ...


Examine = Callable[[str, Speech], Awaitable[Outcome]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Whom the bytes are for.

    Attributes:
        short: Recordings to be split everywhere.
        long: Others.
        twin: Who must make the same of it; `None` if nobody must.
        weigh: The same as `meet`, with memory measured; `None` where whoever owns it is weighed.
        round_size: How many meetings make a round, so that each target gets much the same time.
    """

    meet: Meet
    short: Mapping[str, Parts]
    long: Mapping[str, Parts]
    twin: str | None = None
    weigh: Meet | None = None
    round_size: int = 20


def _frames_only(parts: Mapping[str, Parts]) -> dict[str, Parts]:
    return {name: each[1:] for name, each in parts.items() if len(each) > 1}


def _heads_only(parts: Mapping[str, Parts]) -> dict[str, Parts]:
    return {name: each[:1] for name, each in parts.items()}


def all_targets() -> dict[str, Target]:
    """Everybody, by name."""
    transports: dict[str, TrioWebsocketTransport | WebsocketsTransport] = {
        "websockets": WebsocketsTransport(),
        "deflate": WebsocketsTransport(compression="deflate"),
        "trio-websocket": TrioWebsocketTransport(),
    }
    targets: dict[str, Target] = {}
    for name, transport in transports.items():
        compressed = name == "deflate"
        twin = {"websockets": "trio-websocket", "trio-websocket": "websockets"}.get(name)
        targets[f"client over {name}"] = Target(
            meet=partial(meet_client, transport),
            weigh=partial(meet_client, transport, weighs=True),
            short=of_server(compressed=compressed, long=False),
            long=of_server(compressed=compressed, long=True),
            twin=twin and f"client over {twin}",
        )
        targets[f"server over {name}"] = Target(
            meet=partial(meet_server, transport),
            weigh=partial(meet_server, transport, weighs=True),
            short=of_client(compressed=compressed, long=False),
            long=of_client(compressed=compressed, long=True),
            twin=twin and f"server over {twin}",
        )
    for masked in (False, True):
        for compressed in (False, True):
            recordings = of_client if masked else of_server
            name = f"{'masked' if masked else 'plain'}{' and compressed' if compressed else ''} frames"
            targets[name] = Target(
                meet=partial(decode_frames, masked=masked, compressed=compressed),
                short=_frames_only(recordings(compressed=compressed, long=False)),
                long=_frames_only(recordings(compressed=compressed, long=True)),
                round_size=200,
            )
    compressed_frames = _frames_only(of_server(compressed=True, long=False))
    targets["deflate streams"] = Target(
        meet=inflate,
        short={"pieces": [each[2:] for each in compressed_frames["compressed"][:2]]},
        long={"bomb": [each[4:] for each in of_server(compressed=True, long=True)["bomb"][1:2]]},
        round_size=200,
    )
    targets["servers' heads"] = Target(
        meet=read_servers_head, short=_heads_only(of_server(compressed=False, long=False)), long={}, round_size=200
    )
    targets["clients' heads"] = Target(
        meet=read_clients_head, short=_heads_only(of_client(compressed=False, long=False)), long={}, round_size=200
    )
    return targets


# ------------------------------------------------------------------------------------------------------- finding


class Found(Exception):
    """Something that must not happen does, every time.

    Args:
        target: To whom.
        speech: What brings it about, as small as could be had.
        trouble: What that is.
    """

    def __init__(self, target: str, speech: Speech, trouble: BaseException) -> None:
        super().__init__(target, speech, trouble)
        self.target = target
        self.speech = speech
        self.trouble = trouble

    def __str__(self) -> str:
        """Say it so that it can be played again."""
        speech = self.speech
        cuts = ",".join(map(str, speech.cuts))
        return "\n".join(
            (
                f"{self.target}: {type(self.trouble).__name__}: {self.trouble}",
                f"  when it is told {speech.data!r},",
                f"  split at {list(speech.cuts)}, then {speech.ending}; see it again with",
                f'  python -m tests.fuzz --play "{self.target}" --data {speech.data.hex() or "-"}'
                f" --cuts {cuts or '-'} --ending {speech.ending}",
            )
        )


@dataclass(slots=True)
class Bench:
    """Has speeches examined, and counts the meetings.

    Args:
        targets: Everybody there is.
    """

    targets: Mapping[str, Target]
    runs: int = 0

    async def meet(self, name: str, speech: Speech) -> Outcome:
        self.runs += 1
        return await self.targets[name].meet(speech)

    async def examine(self, name: str, speech: Speech) -> Outcome:
        """Have them meet, and again with everything in one piece, and with the twin: it must come to the same."""
        outcome = await self.meet(name, speech)
        if speech.ending == "reset":
            return outcome  # which destroys what is on its way, so it matters when
        if speech.cuts and self.targets[name].meet is not inflate:  # to whom a piece is a fragment
            check_same(outcome, await self.meet(name, replace(speech, cuts=())), "in one piece")
        twin = self.targets[name].twin
        if twin is not None:
            check_same(outcome, await self.meet(twin, speech), twin)
        return outcome

    async def weigh(self, name: str, speech: Speech) -> Outcome:
        """Have them meet with memory measured; for parsers, that is all the same."""
        self.runs += 1
        target = self.targets[name]
        return await (target.weigh or target.meet)(speech)


def check_same(outcome: Outcome, other: Outcome, whose: str) -> None:
    if other != outcome:
        raise Trouble(f"it comes to {outcome}, but {whose} it comes to {other}")


async def minimise(speech: Speech, fails: Callable[[Speech], Awaitable[bool]], tries: int = 400) -> Speech:
    """Take away what is not needed for it to fail."""
    for simpler in (replace(speech, cuts=()), replace(speech, cuts=speech.cuts[:1])):
        if simpler != speech and await fails(simpler):
            speech = simpler
    size = len(speech.data) // 2
    while size and tries:
        place = 0
        while place < len(speech.data) and tries:
            tries -= 1
            simpler = _without(speech, place, size)
            if await fails(simpler):
                speech = simpler
            else:
                place += size
        size //= 2
    return speech


def _without(speech: Speech, place: int, size: int) -> Speech:
    data = speech.data[:place] + speech.data[place + size :]
    moved = {each if each <= place else max(place, each - size) for each in speech.cuts}
    return replace(speech, data=data, cuts=tuple(sorted(each for each in moved if 0 < each < len(data))))


# ------------------------------------------------------------------------------------------------------- hunting


@dataclass(slots=True)
class Tally:
    """What a target has been through.

    Attributes:
        runs: Meetings.
        seconds: Of wall time.
        outcomes: How many of them came to what.
    """

    runs: int = 0
    seconds: float = 0.0
    outcomes: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Hunt:
    """Meetings with one seed, and their tallies.

    Args:
        seed: Decides everything, but how far it comes in its time.
        targets: Everybody there is.
    """

    seed: int
    targets: Mapping[str, Target]
    tallies: dict[str, Tally] = field(default_factory=dict)
    bench: Bench = field(init=False)

    def __post_init__(self) -> None:
        self.bench = Bench(self.targets)

    async def _try(self, name: str, speech: Speech, examine: Examine) -> None:
        """Examine one meeting; what is wrong is made small and raised as `Found`."""
        tally = self.tallies.setdefault(name, Tally())
        before, began = self.bench.runs, perf_counter()
        try:
            outcome = await examine(name, speech)
        except Exception as error:  # whatever it is, it has been found
            raise Found(name, await self._minimise(name, speech, error, examine), error) from error
        tally.seconds += perf_counter() - began
        tally.runs += self.bench.runs - before
        told = outcome.error or "fine"
        tally.outcomes[told] = tally.outcomes.get(told, 0) + 1

    async def _minimise(self, name: str, speech: Speech, error: Exception, examine: Examine) -> Speech:
        async def fails(simpler: Speech) -> bool:
            try:
                await examine(name, simpler)
            except Exception as other:  # noqa: BLE001 - likewise
                return type(other) is type(error)
            return False

        return await minimise(speech, fails)

    async def split_everywhere(self, name: str) -> None:
        """Say each short recording split at each offset, and byte by byte; heads that are alike, once."""
        whole: dict[Speech, Outcome] = {}

        async def examine(name: str, speech: Speech) -> Outcome:
            of = replace(speech, cuts=())
            if of not in whole:
                whole[of] = await self.bench.examine(name, of)
            outcome = await self.bench.meet(name, speech)
            if self.targets[name].meet is not inflate:
                check_same(outcome, whole[of], "in one piece")
            return outcome

        heads: set[bytes] = set()
        for parts in self.targets[name].short.values():
            data = b"".join(parts)
            least = len(parts[0]) if parts[0] in heads else 1
            heads.add(parts[0])
            for place in range(least, len(data)):
                await self._try(name, Speech(data, (place,), "silence" if place % 2 else "eof"), examine)
            await self._try(name, Speech(data, tuple(range(1, len(data)))), examine)

    async def say_long(self, name: str) -> None:
        """Say each long recording, in each way to end, and weigh it."""
        for parts in self.targets[name].long.values():
            data = b"".join(parts)
            await self._try(name, Speech(data, (len(data) // 2,)), self.bench.examine)
            endings: Sequence[Ending] = ("eof", "reset", "silence")
            for ending in endings:
                await self._try(name, Speech(data, (), ending), self.bench.weigh)

    async def mutate(self, names: Sequence[str], seconds: float) -> None:
        """Say mutations, a round for each of these in turn, until so much wall time has gone, but to each some."""
        rng = Random(self.seed)
        until = perf_counter() + seconds
        for number in count():
            for name in names:
                target = self.targets[name]
                for _ in range(target.round_size):
                    await self._try(name, self._any_speech(rng, target), self.bench.examine)
                await self._try(name, self._any_speech(rng, target), self.bench.weigh)
                if number and perf_counter() >= until:
                    return

    def _any_speech(self, rng: Random, target: Target) -> Speech:
        # The long ones take ten times as long, and mostly fail in the same way.
        of = target.long if target.long and rng.random() < 0.02 else target.short
        data = mutate(rng, rng.choice(list(of.values())), list(target.short.values()))
        ending: Ending = rng.choice(("eof", "eof", "silence", "reset"))
        return Speech(data, cut(rng, len(data)), ending)


def run(work: Callable[[], Awaitable[None]]) -> None:
    """Run on virtual time, and let no warning pass."""

    async def main() -> None:
        await work()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trio.run(main, clock=MockClock(autojump_threshold=0))


def report(tallies: Mapping[str, Tally]) -> str:
    """Tell what was done, in a table."""
    lines = [f"{'target':<28} {'meetings':>9} {'a second':>9}  of which, mostly"]
    for name, tally in tallies.items():
        often = sorted(tally.outcomes.items(), key=lambda item: -item[1])[:3]
        words = ", ".join(f"{count} {word}" for word, count in often)
        lines.append(f"{name:<28} {tally.runs:>9} {tally.runs / max(tally.seconds, 1e-9):>9.0f}  {words}")
    total = sum(tally.runs for tally in tallies.values())
    seconds = sum(tally.seconds for tally in tallies.values())
    lines.append(f"{'all':<28} {total:>9} {total / max(seconds, 1e-9):>9.0f}")
    return "\n".join(lines)


# How long the test-suite says mutations; with the rest, it is some thirty seconds.
SECONDS: Final = 20.0
