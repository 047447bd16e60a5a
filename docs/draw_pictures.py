"""Draws the pictures of these pages: `python docs/draw_pictures.py` draws all of them anew.

The states from the transition table, the backoff from `Backoff` itself, a timeline from the events of a demo that is
run for it, and the charts of the benchmark from its record (those need matplotlib, of the extra `bench`).
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from trio_wsprim import Backoff, ReadyState

ROOT: Final = Path(__file__).resolve().parent.parent
PICTURES: Final = ROOT / "docs" / "pictures"

# Readable on a light page and on a dark one.
_GREY: Final = "#7d8590"
_COLOURS: Final = {
    ReadyState.CONNECTING: "#d29922",
    ReadyState.OPEN: "#3fb950",
    ReadyState.CLOSING: "#a371f7",
    ReadyState.CLOSED: "#f85149",
}
_FONT: Final = 'font-family="system-ui, sans-serif"'


# ------------------------------------------------------------------------------------ drawing


def picture(width: int, height: int, title: str, parts: Iterable[str]) -> str:
    """Put parts into a picture."""
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" {_FONT} '
        f'role="img"><title>{title}</title>\n{body}\n</svg>\n'
    )


def text(x: float, y: float, words: str, *, size: int = 12, anchor: str = "middle", colour: str = _GREY) -> str:
    words = words.replace("&", "&amp;").replace("<", "&lt;")
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">{words}</text>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str = _GREY) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def box(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2" fill="{colour}"/>'


# ------------------------------------------------------------------------------------ the states

_PLACES: Final = {
    ReadyState.CONNECTING: (110, 60),
    ReadyState.OPEN: (470, 60),
    ReadyState.CLOSING: (470, 230),
    ReadyState.CLOSED: (110, 230),
}
_HALF: Final = (65, 22)


def draw_states(moves: Iterable[tuple[ReadyState, ReadyState]]) -> str:
    """Draw the states, and an arrow for each move."""
    arrow = (
        f'<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" '
        f'orient="auto"><path d="M0 0 10 5 0 10z" fill="{_GREY}"/></marker></defs>'
    )
    parts = [arrow, *(_draw_move(old, new) for old, new in moves), *map(_draw_state, ReadyState)]
    return picture(580, 290, "The ready states, and every move between them", parts)


def _draw_state(state: ReadyState) -> str:
    x, y = _PLACES[state]
    width, height = _HALF
    shape = (
        f'<rect x="{x - width}" y="{y - height}" width="{2 * width}" height="{2 * height}" rx="8" '
        f'fill="{_COLOURS[state]}" fill-opacity="0.25" stroke="{_COLOURS[state]}"/>'
    )
    return shape + text(x, y + 5, f"{state.name} {state.value}", size=14)


def _draw_move(old: ReadyState, new: ReadyState) -> str:
    """Draw an arrow from edge to edge; of two ways between neighbours, each keeps to its right."""
    (x1, y1), (x2, y2) = _PLACES[old], _PLACES[new]
    across, down = x2 - x1, y2 - y1
    length = (across**2 + down**2) ** 0.5
    aside = 0 if across and down else 8
    aside_x, aside_y = -down / length * aside, across / length * aside
    shorten = min(_HALF[0] / abs(across) if across else 1, _HALF[1] / abs(down) if down else 1)
    from_x, from_y = x1 + across * shorten + aside_x, y1 + down * shorten + aside_y
    to_x, to_y = x2 - across * shorten + aside_x, y2 - down * shorten + aside_y
    return (
        f'<line x1="{from_x:.1f}" y1="{from_y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="{_GREY}" '
        f'stroke-width="1.5" marker-end="url(#tip)"/>'
    )


# ------------------------------------------------------------------------------------ the backoff

_CLIENTS: Final = 1000
_DOWN: Final = 30.0
_SPAN: Final = 60.0
_BINS: Final = 120


def draw_backoff() -> str:
    """Draw how many of a thousand clients dial in each half second, while their server is down and after."""
    spread = _dials(Backoff(rng=random.Random(1)))
    fixed = _dials(Backoff(first=5, maximum=5, jitter=0))
    parts = [
        *_draw_bins(fixed, 30, "a fixed wait of 5 s: all at once, each time"),
        *_draw_bins(spread, 210, "Backoff(): first 0.5 s, doubled up to 30 s, spread by chance"),
    ]
    return picture(680, 400, "When a thousand clients that lost their server dial again", parts)


def _dials(backoff: Backoff) -> list[int]:
    bins = [0] * _BINS
    for _ in range(_CLIENTS):
        at = 0.0
        for delay in backoff.delays():
            at += delay
            if at >= _SPAN:
                break
            bins[int(at / _SPAN * _BINS)] += 1
            if at >= _DOWN:  # the server is up again, and takes it
                break
    return bins


def _draw_bins(bins: Sequence[int], top: float, title: str) -> Iterator[str]:
    left, width, height = 50, 600, 120
    most = max(bins)
    yield text(left, top, title, anchor="start", size=13)
    floor = top + 15 + height
    for number, count in enumerate(bins):
        tall = height * count / most
        at = left + number * width / _BINS
        is_down = number / _BINS * _SPAN < _DOWN
        yield box(
            at, floor - tall, width / _BINS - 1, tall, _COLOURS[ReadyState.CLOSED if is_down else ReadyState.OPEN]
        )
    yield line(left, floor, left + width, floor)
    for seconds in range(0, int(_SPAN) + 1, 10):
        yield text(left + seconds / _SPAN * width, floor + 16, f"{seconds} s")
    yield text(left - 6, top + 24, str(most), anchor="end")
    yield text(left + width, top, f"server down until {_DOWN:.0f} s", anchor="end")


# ------------------------------------------------------------------------------------ a run


class Moment(NamedTuple):
    """Something that the demo told: when, under which label, and what."""

    at: float
    label: str
    words: str


def draw_timeline(moments: Sequence[Moment]) -> str:
    """Draw a run of the demo: its states as a band, its faults above it, its dials below."""
    left, width = 40, 700
    end = moments[-1].at

    def place(at: float) -> float:
        return left + at / end * width

    parts: list[str] = []
    states = [(m.at, ReadyState[m.label]) for m in moments if m.label in ReadyState.__members__]
    for (at, state), after in zip(states, [at for at, _ in states[1:]] + [end], strict=True):
        parts.append(box(place(at), 90, max(1.0, place(after) - place(at)), 26, _COLOURS[state]))
    for number, moment in enumerate(m for m in moments if m.label == "FAULT"):
        x, y = place(moment.at), 22 + 17 * (number % 4)
        parts += [line(x, y + 4, x, 90), text(x, y, moment.words, size=11, anchor=_anchor(moment.at / end))]
    for moment in moments:
        if moment.label == "CONNECTING" and moment.words.startswith("dial"):
            parts.append(line(place(moment.at), 116, place(moment.at), 128))
        if moment.label == "healed":
            parts.append(f'<circle cx="{place(moment.at):.1f}" cy="103" r="4" fill="#fff" stroke="{_GREY}"/>')
    parts += [line(left, 136, left + width, 136)]
    parts += [text(place(second), 152, f"{second} s") for second in range(0, int(end) + 1, 2)]
    for number, (state, colour) in enumerate(_COLOURS.items()):
        parts += [box(left + 120 * number, 170, 14, 14, colour)]
        parts += [text(left + 120 * number + 20, 182, state.name, anchor="start")]
    parts += [text(left + 500, 182, "│ a dial    ○ the first echo after a fault", anchor="start")]
    return picture(780, 200, "A run of the demo: four faults, and how each heals", parts)


def _anchor(share: float) -> str:
    return "start" if share < 0.3 else "end" if share > 0.7 else "middle"


class Recorder:
    """A view of the demo that only remembers."""

    status_interval = 3600.0

    def __init__(self) -> None:
        self.moments: list[Moment] = []

    def tell(self, moment: float, label: str, text: str) -> None:
        self.moments.append(Moment(moment, label, text))

    def show_status(self, moment: float, status: str) -> None:
        pass

    def show_table(self, rows: Iterable[tuple[str, ...]], summary: Sequence[str]) -> None:
        pass

    def show_checks(self, checks: Sequence[object]) -> None:
        pass

    def close(self) -> None:
        pass


def run_demo() -> Sequence[Moment]:
    """Run the demo for its events."""
    import trio

    from trio_wsprim._demo._script import Pace
    from trio_wsprim._demo._show import Show

    recorder = Recorder()

    async def main() -> bool:
        return await Show(recorder, Pace(speed=1.0, rng=random.Random(1)), "unconfirmed").run()

    if not trio.run(main):
        raise SystemExit("the demo failed; no picture is drawn of that")
    return recorder.moments


# ------------------------------------------------------------------------------------ all


def moves() -> list[tuple[ReadyState, ReadyState]]:
    """Give every move of the transition table."""
    from trio_wsprim._lifecycle import MOVES

    return [(old, new) for old in ReadyState for new in sorted(MOVES[old])]


def main() -> None:
    """Draw everything."""
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / "states.svg").write_text(draw_states(moves()), encoding="utf-8")
    (PICTURES / "backoff.svg").write_text(draw_backoff(), encoding="utf-8")
    (PICTURES / "timeline.svg").write_text(draw_timeline(run_demo()), encoding="utf-8")
    sys.path.insert(0, str(ROOT))
    from benchmarks import _speed_page

    _speed_page.main()


if __name__ == "__main__":
    main()
