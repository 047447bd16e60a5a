"""Charts, as SVG: a file for each kind of scenario, in colours that can be read on white and on black."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks._speed_contenders import CONTENDERS, Contender
from benchmarks._speed_figures import Book, Spread
from benchmarks._speed_words import ALL_SCENARIOS, Scenario

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# In the middle between black and white, so that both are a ground for it.
_INK: Final = "#7d8590"
_OURS: Final = "#2f81f7"
_PEER: Final = "#8b949e99"
_STYLE: Final[Mapping[str, Any]] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "trio_wsprim",  # the same figures give the same file
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One set of bars.

    Attributes:
        title: What is seen, and which way is better.
        is_rate: Whether the bars are how often a second, rather than how much.
        factor: Of the figure, for the unit in the title.
    """

    scenario: str
    title: str
    metric: str = "wall"
    is_rate: bool = True
    factor: float = 1.0


_BESIDES: Final[Mapping[str, Sequence[Panel]]] = {
    "idle": (
        Panel(
            scenario="idle", title="1000 idle connections: KiB each (less is better)", metric="memory", is_rate=False
        ),
        Panel(
            scenario="idle",
            title="1000 idle connections: % of a core (less is better)",
            metric="load",
            is_rate=False,
            factor=100,
        ),
        Panel(scenario="idle", title="opened a second, of 1000", metric="open", factor=1000),
    ),
    "storm": (Panel(scenario="storm", title="back a second, of 500 dropped at once", factor=500),),
    "import": (
        Panel(scenario="import", title="import: ms (less is better)", is_rate=False, factor=1000),
        Panel(
            scenario="import",
            title="import to first echo: ms (less is better)",
            metric="first",
            is_rate=False,
            factor=1000,
        ),
    ),
}
_SENTENCES: Final[Mapping[str, str]] = {
    "rtt": "round trips a second, {size}",
    "pipe": "messages echoed a second, {size}",
    "burst": "messages sent a second, {size}",
    "flood": "messages received a second, {size}",
    "big": "round trips a second, {size}",
}


def _panels(kind: str) -> Sequence[Panel]:
    if kind in _BESIDES:
        return _BESIDES[kind]
    return [Panel(scenario=each.name, title=_sentence(each)) for each in ALL_SCENARIOS if each.kind == kind]


def _sentence(scenario: Scenario) -> str:
    size = scenario.size
    words = f"{size} B" if size < 2**10 else f"{size // 2**10} KiB" if size < 2**20 else f"{size // 2**20} MiB"
    return _SENTENCES[scenario.kind].format(size=words) + (", over TLS" if scenario.is_tls else "")


def draw_all(book: Book, folder: Path) -> Sequence[Path]:
    """Draw a chart for each kind of scenario that was measured, into a folder.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for kind, _ in groupby(ALL_SCENARIOS, key=lambda each: each.kind):
        panels = [each for each in _panels(kind) if book.has(each.scenario)]
        path = folder / f"{kind}.svg"
        if panels and path not in drawn:
            _draw(book, panels, path)
            drawn.append(path)
    return drawn


def _draw(book: Book, panels: Sequence[Panel], path: Path) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = [_bars(book, panel) for panel in panels]
    heights = [len(row) + 2 for row in rows]
    with mpl.rc_context(dict(_STYLE)):
        figure = Figure(figsize=(8, 0.24 * sum(heights) + 0.3), layout="constrained")
        axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axis, panel, row in zip(axes, panels, rows, strict=True):
            _fill(axis, panel, row)
        figure.savefig(path, transparent=True, metadata={"Date": None})


def _bars(book: Book, panel: Panel) -> Sequence[tuple[Contender, Spread]]:
    """Give who is in a panel, the best first; our special configurations have their own table."""
    shown = [each for each in CONTENDERS if not each.name.endswith(("-wide", "-loaded"))]
    found = [(each, book.spread(panel.scenario, each.name, panel.metric)) for each in shown]
    measured = [(each, figure) for each, figure in found if figure is not None]
    return sorted(measured, key=lambda pair: pair[1].middle)


def _fill(axis: Axes, panel: Panel, bars: Sequence[tuple[Contender, Spread]]) -> None:
    places = range(len(bars))
    middles = [_value(panel, found.middle) for _, found in bars]
    ends = [sorted((_value(panel, found.least), _value(panel, found.most))) for _, found in bars]
    reach = [
        [middle - low for middle, (low, _) in zip(middles, ends, strict=True)],
        [high - middle for middle, (_, high) in zip(middles, ends, strict=True)],
    ]
    colours = [_OURS if each.is_ours else _PEER for each, _ in bars]
    axis.barh(places, middles, color=colours, height=0.7, xerr=reach, error_kw={"ecolor": _INK, "elinewidth": 1})
    axis.set_yticks(places, [each.title for each, _ in bars])
    for place, middle, (_, high), (each, _), label in zip(
        places, middles, ends, bars, axis.get_yticklabels(), strict=True
    ):
        number = axis.annotate(_number(middle), (high, place), xytext=(5, 0), textcoords="offset points", va="center")
        if each.is_ours:
            for text in (label, number):
                text.set(color=_OURS, fontweight="bold")
    axis.set_title(panel.title, loc="left", fontsize=11, fontweight="bold")
    _tidy(axis)


def _tidy(axis: Axes) -> None:
    axis.invert_yaxis()
    axis.margins(x=0.12)
    axis.set_xticks([])
    axis.tick_params(left=False)
    axis.patch.set_alpha(0)
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)


def _value(panel: Panel, figure: float) -> float:
    return panel.factor / figure if panel.is_rate else figure * panel.factor


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
