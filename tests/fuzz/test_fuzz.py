"""Some thirty seconds of `python -m tests.fuzz`, always the same; and what it has found, until that is mended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Final

import pytest
import trio

from trio_wsprim import ConnectionFailed
from trio_wsprim.transports._answer import read_answer

from .__main__ import main
from .hunt import SECONDS, Bench, Found, Hunt, Meet, Target, all_targets, run
from .meetings import Outcome, Speech, bounded
from .parsers import PiecesWire
from .recordings import DEFLATE, answer, request

TARGETS: Final = all_targets()


@pytest.mark.parametrize("name", TARGETS)
def test_it_does_not_matter_where_a_recording_is_split(name: str) -> None:
    hunt = Hunt(0, TARGETS)
    run(partial(hunt.split_everywhere, name))
    assert hunt.tallies[name].runs > 100 or name in {"deflate streams"}


@pytest.mark.parametrize("name", [name for name in TARGETS if TARGETS[name].long])
def test_what_is_long_or_inflates_takes_bounded_memory(name: str) -> None:
    hunt = Hunt(0, TARGETS)
    run(partial(hunt.say_long, name))
    assert hunt.tallies[name].runs >= 4


def test_no_mutation_does_what_must_not_be() -> None:
    hunt = Hunt(0, TARGETS)
    run(partial(hunt.mutate, list(TARGETS), SECONDS))
    assert hunt.tallies.keys() == TARGETS.keys()
    # Enough of them come as far as they should, or this would be a test of handshakes alone.
    for name in TARGETS:
        assert len(hunt.tallies[name].outcomes) >= 2, name


# ------------------------------------------------------------------------------------------------ the hunt itself


def target_of(meet: Meet, weigh: Meet | None = None) -> dict[str, Target]:
    return {"target": Target(meet=meet, short={"all": [b"head", b"frame", b"frame"]}, long={}, weigh=weigh)}


async def never_over(speech: Speech) -> Outcome:
    async with bounded(speech, weighs=False):
        await trio.sleep_forever()
    return Outcome()


async def spinning(speech: Speech) -> Outcome:
    async with bounded(speech, weighs=False):
        while True:
            await trio.lowlevel.checkpoint()
    return Outcome()


async def hungry(speech: Speech) -> Outcome:
    async with bounded(speech, weighs=True):
        assert bytes(100 * 2**20)
    return Outcome()


async def messy(speech: Speech) -> Outcome:
    async with bounded(speech, weighs=False):
        trio.lowlevel.spawn_system_task(trio.sleep_forever)
    return Outcome()


@pytest.mark.parametrize(
    ("meet", "sentence"),
    [(never_over, "it hangs"), (spinning, "for ever"), (hungry, "of memory"), (messy, "a task was left behind")],
)
def test_it_finds_what_goes_on_for_ever_or_leaves_something_behind(meet: Meet, sentence: str) -> None:
    with pytest.raises(Found, match=sentence):
        run(partial(Hunt(0, target_of(meet)).mutate, ["target"], SECONDS))


def test_what_it_finds_is_made_small_and_can_be_played_again() -> None:
    async def stumbles(speech: Speech) -> Outcome:
        if b"ra" in speech.data:
            raise KeyError("undocumented")
        return Outcome()

    with pytest.raises(Found) as caught:
        run(partial(Hunt(0, target_of(stumbles)).mutate, ["target"], SECONDS))
    assert caught.value.speech == replace(caught.value.speech, data=b"ra", cuts=())
    assert isinstance(caught.value.trouble, KeyError)
    assert '--play "target" --data 7261 --cuts - --ending' in str(caught.value)


def test_it_finds_what_depends_on_where_it_is_split() -> None:
    async def counts(speech: Speech) -> Outcome:
        return Outcome(code=len(speech.pieces()))

    with pytest.raises(Found, match="in one piece"):
        run(partial(Hunt(0, target_of(counts)).split_everywhere, "target"))


def test_its_command_tells_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seconds", "0.2", "--seed", "3", "--target", "masked frames"]) == 0
    out = capsys.readouterr().out
    assert "masked frames" in out
    assert "nothing found" in out
    assert main(["--play", "clients' heads", "--data", b"GET".hex(), "--cuts", "1"]) == 0
    assert "went away" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------ what it has found


def play(work: Callable[[], Awaitable[Outcome]]) -> Outcome:
    outcomes: list[Outcome] = []

    async def keep() -> None:
        outcomes.append(await work())

    run(keep)
    return outcomes[0]


def compare(name: str, data: bytes) -> Outcome:
    """Have a target and its twin told the same; they must make the same of it."""
    bench = Bench(TARGETS)
    speech = Speech(data, ending="silence")
    outcome, other = (play(partial(bench.meet, who, speech)) for who in (name, TARGETS[name].twin or ""))
    assert outcome == other
    return outcome


def test_compression_that_is_offered_to_a_server_without_is_passed_over() -> None:
    assert compare("server over websockets", request(DEFLATE)).error == "101"


def test_a_servers_request_may_have_its_list_spread_over_several_headers() -> None:
    assert compare("server over websockets", request(b"Connection: other\r\n")).error == "101"


def test_an_answer_may_have_its_list_spread_over_several_headers() -> None:
    assert compare("client over websockets", answer(b"Connection: other\r\n")).error == "NoneType"


def test_an_answer_of_another_protocol_is_known_as_such_also_behind_an_interim_one() -> None:
    async def permanence(*cuts: int) -> bool:
        data = b"HTTP/1.1 103 x\r\n\r\n" + answer().replace(b"HTTP/1.1", b"HTTP/3.1")
        try:
            await read_answer(PiecesWire(Speech(data, cuts)))
        except ConnectionFailed as error:
            return error.permanent
        return True  # what is 101 and wrong is

    answers: list[bool] = []

    async def ask() -> None:
        answers.extend([await permanence(), await permanence(18)])

    run(ask)
    assert answers[0] == answers[1]
