"""The command line: `python -m trio_wsprim`, also installed as the script `trio-wsprim`."""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections.abc import Sequence
from typing import Final, get_args

from trio_wsprim._demo import MAX_SPEED, Resend, run_demo

_FAILED: Final = 1
# What a shell reports for a program that a signal ended: 128 and the signal's number.
_INTERRUPTED: Final = 130
_BROKEN_PIPE: Final = 141

_EXAMPLES: Final = """\
examples:
  python -m trio_wsprim demo              colour and a live line, if the terminal and `rich` are there
  python -m trio_wsprim demo --plain      plain lines
  python -m trio_wsprim demo --seed 7     the same waits each time
  python -m trio_wsprim demo --resend unconfirmed
                                          lose nothing: what is not proved to have arrived is sent again
  python -m trio_wsprim demo | tee log    plain lines too: a pipe gets no control codes
"""
_DEMO: Final = """\
Starts an echo server on loopback, opens a reconnecting socket with a heartbeat to it, and sends numbered messages.
Then the server resets the connection, falls silent, goes down for a while, and answers 503 with Retry-After. Ends by
itself after some 12 seconds, with a table of what was noticed, healed and lost; exits with 1 if a check failed.

Usually what was handed to the network is not sent again, so nothing comes twice; what may be lost is told. With
`--resend unconfirmed`, it is sent again until a pong proves that it arrived: nothing is lost, and some may come twice.
"""


def _speed(text: str) -> float:
    """Read `--speed`."""
    speed = float(text)
    if not 0.9 <= speed <= MAX_SPEED:
        raise argparse.ArgumentTypeError(f"must be from 0.9 to {MAX_SPEED:g}, got {text}")
    return speed


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m trio_wsprim",
        description="WebSockets for trio that stay up.",
        epilog=_EXAMPLES,
        formatter_class=raw,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    demo = commands.add_parser(
        "demo",
        help="show a socket that survives four kinds of faults, in some 12 seconds",
        description=_DEMO,
        epilog=_EXAMPLES,
        formatter_class=raw,
    )
    demo.add_argument("--plain", action="store_true", help="plain lines, without colour and live line")
    demo.add_argument("--seed", type=int, help="draw the waits from this seed (default: another one each time)")
    demo.add_argument(
        "--resend",
        choices=get_args(Resend),
        default="unsent",
        help="what goes out again on the next connection: what was not handed to the network (the default), "
        "or also what is not proved to have arrived",
    )
    demo.add_argument(
        "--speed",
        type=_speed,
        default=1.0,
        metavar="X",
        help=f"go X times as fast, 0.9 to {MAX_SPEED:g} (default: 1); Retry-After stays whole seconds",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int | None:
    """Run a command.

    Args:
        argv: The arguments; `None` for those of the process.

    Returns:
        The exit code; `None` for success.
    """
    options = _parser().parse_args(argv)
    seed: int = random.randrange(1000) if options.seed is None else options.seed
    held, code = False, _FAILED
    try:
        held = run_demo(plain=options.plain, seed=seed, speed=options.speed, resend=options.resend)
    except* KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = _INTERRUPTED
    except* BrokenPipeError:
        # Who read us has gone, as `head` does. The interpreter must not try to flush once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = _BROKEN_PIPE
    return None if held else code


if __name__ == "__main__":
    sys.exit(main())
