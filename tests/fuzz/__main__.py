"""`python -m tests.fuzz`: hunt for longer than the test-suite does, or play again what was found."""

from __future__ import annotations

import argparse
import faulthandler
import sys
from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import Final

import trio

from .hunt import SECONDS, Bench, Found, Hunt, Target, all_targets, report, run
from .meetings import Speech

# Whoever hangs without giving others a turn cannot be cancelled; this tells where, so many wall seconds after the last.
_STUCK: Final = 60.0


class _Watch(trio.abc.Instrument):
    seen = 0.0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        now = monotonic()
        if now > self.seen + 1:
            faulthandler.dump_traceback_later(_STUCK, exit=True)
            self.seen = now


def main(arguments: Sequence[str] | None = None) -> int:
    targets = all_targets()
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long to say mutations (%(default)g)")
    parser.add_argument("--seed", type=int, default=0, help="which ones (%(default)s)")
    parser.add_argument("--target", action="append", metavar="WORD", help="only those with this word in their name")
    parser.add_argument("--no-splits", action="store_true", help="leave out the splits at every offset")
    parser.add_argument("--play", choices=list(targets), metavar="TARGET", help="play one meeting instead")
    parser.add_argument("--data", default="", help="what to say, in hexadecimal")
    parser.add_argument("--cuts", default="-", help="where to split it, such as 3,17")
    parser.add_argument("--ending", default="eof", choices=["eof", "reset", "silence"])
    options = parser.parse_args(arguments)
    if options.play:
        data = bytes.fromhex("" if options.data == "-" else options.data)
        cuts = () if options.cuts in {"", "-"} else tuple(map(int, options.cuts.split(",")))
        run(partial(_play, options.play, targets, Speech(data, cuts, options.ending)))
        return 0
    words = options.target or [""]
    hunt = Hunt(options.seed, targets)
    names = [name for name in targets if any(word in name for word in words)]
    try:
        run(partial(_hunt, hunt, names, options.seconds, not options.no_splits))
    except Found as found:
        print(report(hunt.tallies))
        print(f"\nseed {options.seed} has found something:\n{found}")
        raise found.trouble from None
    print(report(hunt.tallies))
    print("nothing found")
    return 0


async def _play(name: str, targets: dict[str, Target], speech: Speech) -> None:
    print(await Bench(targets).examine(name, speech))


async def _hunt(hunt: Hunt, names: Sequence[str], seconds: float, splits: bool) -> None:
    if __name__ == "__main__":  # pytest has such a watch of its own
        trio.lowlevel.add_instrument(_Watch())
    for name in names:
        if splits:
            await hunt.split_everywhere(name)
        await hunt.say_long(name)
    await hunt.mutate(names, seconds)


if __name__ == "__main__":
    sys.exit(main())
