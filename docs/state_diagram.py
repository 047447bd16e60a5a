"""Draws the state diagram of `design.md` from the transition table: `python docs/state_diagram.py` prints it."""

from types import MappingProxyType
from typing import Final

from trio_wsprim import ReadyState
from trio_wsprim._lifecycle import MOVES

_WIDTH: Final = 14  # from one state's line to the next
_CAUSES: Final = MappingProxyType(
    {
        (ReadyState.CONNECTING, ReadyState.OPEN): "upgraded, and `setup` is content",
        (ReadyState.CONNECTING, ReadyState.CLOSING): "`aclose` during the attempt",
        (ReadyState.CONNECTING, ReadyState.CLOSED): "the attempt failed, or `reconnect()` cut it short",
        (ReadyState.OPEN, ReadyState.CLOSING): "`aclose`, the peer's close, its breach of the protocol",
        (ReadyState.OPEN, ReadyState.CLOSED): "the network or the heartbeat ended it, or `reconnect()`",
        (ReadyState.CLOSING, ReadyState.CLOSED): "the closing handshake is over, or its time is",
        (ReadyState.CLOSED, ReadyState.CONNECTING): "a reconnecting socket dials again",
    }
)


def draw() -> str:
    """Draw one line for each state, from left to right, and one arrow for each move, from top to bottom."""
    head = "".join(f"{state.name:^{_WIDTH}}" for state in ReadyState)
    rows = [_arrow(old, new) for old in ReadyState for new in sorted(MOVES[old])]
    return "\n".join([head.rstrip(), *rows])


def _arrow(old: ReadyState, new: ReadyState) -> str:
    cells = [" "] * (_WIDTH * len(ReadyState))
    for state in ReadyState:
        cells[_place(state)] = "│"
    left, right = sorted((_place(old), _place(new)))
    for place in range(left + 1, right):
        cells[place] = "┼" if cells[place] == "│" else "─"
    cells[_place(old)] = "├" if old < new else "┤"
    cells[_place(new) + (-1 if old < new else 1)] = "▶" if old < new else "◀"
    return "".join(cells) + _CAUSES[old, new]


def _place(state: ReadyState) -> int:
    return state * _WIDTH + _WIDTH // 2 - 1


if __name__ == "__main__":
    print(draw())  # noqa: T201 - a program that draws
