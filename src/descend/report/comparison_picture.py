"""The charts of a comparison as one picture, for a message or a paper."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from descend.figure_file import COLOURS, save_figure
from descend.format import printable
from descend.report.chart_scale import Scale, label, scale
from descend.report.comparison_charts import (
    Chart,
    Reach,
    curves_chart,
    ends_chart,
    reaches,
)
from descend.report.fonts import all_scripts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DASHES = ("-", "--")
LINE = 110  # characters of the sentence
LONGEST = 30  # characters of a name
TICKS = 6
GREY = "0.45"


def draw_comparison(found: Mapping[str, Any], path: Path) -> None:
    """Draw the ends against the length, the times to the target, and the curves, as a PNG file.

    Args:
        found: the results, as `results.json` has them.
        path: where to; an existing file is replaced.

    Raises:
        OutputError: it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: it takes half a second
    from matplotlib.figure import Figure

    rows = reaches(found)
    told = textwrap.wrap(printable(found["sentence"]), LINE)
    height = 4.1 + 0.24 * len(told) + 0.16 * max(0, len(rows) - 4)
    with all_scripts(path):
        figure = Figure(figsize=(14, height), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle("\n".join(told).replace("$", r"\$"), fontsize=11, ha="left", x=0.01)
        ends, times, curves = figure.subplots(1, 3)
        _draw(ends, ends_chart(found))
        _draw_reaches(times, rows, curves_chart(found).across)
        _draw(curves, curves_chart(found))
        save_figure(figure, path)


def _draw(axes: "Axes", chart: Chart) -> None:
    """Draw lines, bands, bars and crosses."""
    for one in chart.series:
        look = _look(one.number)
        places = [place for place, _ in one.points]
        values = [value for _, value in one.points]
        marker = "" if one.band else "o"
        axes.plot(places, values, marker=marker, markersize=4, label=_short(one.name), **look)
        if one.spread:
            lows, highs = ([pair[end] for pair in one.spread] for end in (0, 1))
            if one.band:
                axes.fill_between(places, lows, highs, color=look["color"], alpha=0.14, lw=0)
            else:
                axes.vlines(places, lows, highs, color=look["color"], linewidth=1)
        if one.failed:  # marked at the upper edge
            axes.plot(one.failed, [0.98] * len(one.failed), "x", color=look["color"],
                      transform=axes.get_xaxis_transform(), clip_on=False)  # fmt: skip
    if chart.target is not None:
        axes.axhline(chart.target, color="black", linestyle=":", linewidth=1)
    if chart.values and chart.places:
        _number(axes, "x", scale(chart.places, 0, 1, log=chart.log_across))
        _number(axes, "y", scale(chart.values, 0, 1, log=chart.is_steep(chart.values)))
    axes.set(title=chart.title.replace("$", r"\$"), xlabel=chart.across)
    axes.title.set_fontsize(10)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _number(axes: "Axes", way: str, shown: Scale) -> None:
    """Give one of its axes, "x" or "y", its kind, its ends and its numbers."""
    from matplotlib.ticker import NullLocator

    kind = "log" if shown.log else "linear"
    axes.set(**{f"{way}scale": kind, f"{way}lim": (shown.low, shown.high)})
    axis, ticks = getattr(axes, f"{way}axis"), shown.ticks(TICKS)
    axis.set_ticks(ticks, [label(tick) for tick in ticks], fontsize=8)
    axis.set_minor_locator(NullLocator())


def _draw_reaches(axes: "Axes", rows: Sequence[Reach], across: str) -> None:
    """Draw the medians, the intervals and the seeds, a row for each contender."""
    known = [end for one in rows for end in (*one.per_seed, one.low, one.high) if end is not None]
    edge = max([1.0, *known]) * 1.12
    for at, one in enumerate(rows):
        colour = _look(one.number)["color"]
        axes.plot(one.per_seed, [at] * len(one.per_seed), "|", color=colour, alpha=0.5)
        if one.low is not None and one.per_seed:
            axes.hlines(at, one.low, edge if one.high is None else one.high, color=colour)
        if one.median is not None:
            axes.plot([one.median], [at], "o", color=colour)
        axes.text(edge * 1.01, at, one.words, va="center", fontsize=8)
    axes.axvline(1.0, color="black", linestyle=":", linewidth=1)
    axes.set_yticks(range(len(rows)), [_short(one.name) for one in rows])
    for text, one in zip(axes.get_yticklabels(), rows, strict=True):  # they are the legend of all
        text.set_color(_look(one.number)["color"])
    axes.tick_params(labelsize=8)
    axes.set(xlim=(0, edge), ylim=(len(rows) - 0.5, -0.5), xlabel=across)
    axes.set_title("When the target is reached", fontsize=10)
    axes.grid(axis="x", alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _look(number: int | None) -> dict[str, Any]:
    """The colour, the dashes and the width of a line."""
    if number is None:
        return {"color": GREY, "linestyle": "--", "linewidth": 1.2}
    dashes = DASHES[number // len(COLOURS) % len(DASHES)]
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": dashes, "linewidth": 1.6}


def _short(name: str) -> str:
    """A name that fits, and in which nothing is read as a formula."""
    name = printable(name)
    if len(name) > LONGEST:
        name = f"{name[: LONGEST // 2]}...{name[-LONGEST // 2 :]}"
    return name.replace("$", r"\$")
