"""The command line: `python -m trio_wsprim`, also installed as the script `trio-wsprim`."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Sequence
from typing import Final

from trio_wsprim._cli._arguments import ConnectOrder, Order, Resend, ServeOrder, complain, read_arguments

_FAILED: Final = 1
_USAGE: Final = 2
# What a shell reports for a program that a signal ended: 128 and the signal's number.
_INTERRUPTED: Final = 130
_BROKEN_PIPE: Final = 141


def run_demo(*, plain: bool, seed: int, speed: float, resend: Resend) -> bool:
    """Run the demo, and tell whether all held that must hold."""
    # Each command is imported only where it is wanted: the demo alone brings the testing kit.
    from trio_wsprim._demo import run_demo as run

    return run(plain=plain, seed=seed, speed=speed, resend=resend)


def main(argv: Sequence[str] | None = None) -> int | None:
    """Run a command.

    Args:
        argv: The arguments; `None` for those of the process.

    Returns:
        The exit code; `None` for success.
    """
    from trio_wsprim._cli._contexts import BadFile
    from trio_wsprim._cli._pipes import fill_standard_descriptors

    order = read_arguments(argv)
    fill_standard_descriptors()
    code = _FAILED
    try:
        code = _run(order)
    except* BadFile as group:
        complain(str(group.exceptions[0]))
        code = _USAGE
    except* KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = _INTERRUPTED
    except* BrokenPipeError:
        # Who read us has gone, as `head` does. The interpreter must not try to flush once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = _BROKEN_PIPE
    return code or None


def _run(order: Order) -> int:
    if isinstance(order, ConnectOrder):
        from trio_wsprim._cli._connect import run_connect

        return run_connect(order)
    if isinstance(order, ServeOrder):
        from trio_wsprim._cli._serve import run_serve

        return run_serve(order)
    seed = random.randrange(1000) if order.seed is None else order.seed
    held = run_demo(plain=order.plain, seed=seed, speed=order.speed, resend=order.resend)
    return 0 if held else _FAILED


if __name__ == "__main__":
    sys.exit(main())
