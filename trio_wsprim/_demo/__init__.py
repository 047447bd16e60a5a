"""The demo: a reconnecting socket with a heartbeat, and a server that keeps failing it."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial

import trio

from trio_wsprim._demo._script import Pace
from trio_wsprim._demo._show import Show
from trio_wsprim._demo._verdict import Resend
from trio_wsprim._demo._views import PlainView, View

__all__ = ["MAX_SPEED", "Resend", "choose_view", "run_demo"]

MAX_SPEED = 5.0
"""Beyond, the heartbeat's patience comes near to what a busy machine's scheduler takes for itself."""


def run_demo(*, plain: bool, seed: int, speed: float, resend: Resend = "unsent") -> bool:
    """Run the demo, and tell whether all held that must hold.

    Args:
        plain: Plain lines, whatever the terminal can do.
        seed: Of the waits and of the moments of the faults.
        speed: So many times as fast as usual.
        resend: What the socket sends again on its next connection.

    Raises:
        KeyboardInterrupt: If Ctrl-C was pressed; nothing is left behind.
    """
    view = choose_view(plain)
    try:
        view.tell(0, "", f"seed {seed} (--seed {seed} draws the same waits again)")
        show = partial(Show, view, Pace(speed=speed, rng=random.Random(seed)), resend)
        return trio.run(_run_until_interrupted, show)
    finally:
        view.close()


async def _run_until_interrupted(make_show: Callable[[], Show]) -> bool:
    """Run the demo until it ends or Ctrl-C is pressed.

    Python's own handler would raise `KeyboardInterrupt` in whichever task happens to run, and the others would
    then add what they make of a socket that closed under them. A cancellation ends them all in the same way.
    """
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_at, signals, nursery.cancel_scope)
            held = await make_show().run()
            nursery.cancel_scope.cancel()
            return held
    raise KeyboardInterrupt


async def _cancel_at(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


def choose_view(plain: bool) -> View:
    """Give the live view if there is a terminal that can show it, and `rich`; plain lines otherwise."""
    is_able = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    if plain or not is_able or importlib.util.find_spec("rich") is None:
        return PlainView()
    # Imported here, since the extra `cli` may be missing.
    from trio_wsprim._demo._rich import LiveView

    return LiveView()
