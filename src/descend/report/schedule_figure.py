"""Schedules and schedulers as a picture, before any training."""

import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from descend.checks import ABOVE_0, COUNT
from descend.errors import ScheduleError
from descend.figure_file import COLOURS, check_ending, save_figure
from descend.report.schedule_lines import Sampled, sampled, shown_steps
from descend.report.schedule_values import Given, source_of
from descend.schedules import Schedule
from descend.spelling import spelled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHES = ("-", "--", ":", "-.")

FEW = 50
"""So few steps are shown as points too."""

MOST_LABELS = 12
"""A legend has no more lines than this."""

WIDTH, PANEL, ROW = 8.5, 2.9, 0.22
"""Inches: of the picture, of a panel, of a line of the legend."""

LINE_LENGTH = 88

NICE = [1, 2, 5, 10]  # what ticks are multiples of


@spelled
def plot_schedules(
    curves: "Given | Mapping[str, Given]",
    steps: int | None = None,
    *,
    base: float | Mapping[str, float] = 1.0,
    steps_per_epoch: float | None = None,
    path: str | Path | None = None,
) -> "Figure":
    """Draw schedules or schedulers over their steps, before any training.

    Each hyperparameter has a panel, in which each curve has a line: one for all groups, or several
    where groups differ. Dotted lines stand where the parts of a `>>` begin. Nothing that is given
    is changed: a scheduler that can only be stepped, such as torch's, is copied (without the
    parameters), and the copy is stepped from where it is.

    Args:
        curves: a schedule, which is drawn as the lr; a scheduler, descend's or torch's; or a dict
            from names to these, to lay one over the other. In place of a schedule it can have a
            dict from hyperparameters to schedules.
        steps: how many to draw, from 0; up to the last end and a little more where left out.
        base: what schedules are factors of: the lr, or a number for each hyperparameter. A
            scheduler knows its own.
        steps_per_epoch: how many steps an epoch has, for a second scale.
        path: a file to write too: PNG or SVG, by its ending. An existing one is replaced. It is
            written under another name and renamed: it is whole at every instant.

    Returns:
        The figure; `figure.savefig` writes it as anything else.

    Raises:
        ScheduleError: nothing that is given ends and `steps` is left out, or a value is wanting.
        ScheduleTypeError: something is neither a schedule nor a scheduler.
        OutputError: the file cannot be written.

    Example:
        >>> from descend.schedules import cosine, linear, warmup
        >>> figure = plot_schedules(
        ...     {"cosine": warmup(500) >> cosine(9500), "linear": linear(10_000)}, base=0.001
        ... )
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['lr']

    Source: matplotlib, https://matplotlib.org.
    """
    if path is not None:
        check_ending(Path(path))
    named = curves if isinstance(curves, Mapping) else {"": curves}
    if not named:
        raise ScheduleError("plot_schedules: there is nothing to draw; give a schedule")
    sources = [source_of(name, given, base) for name, given in named.items()]
    if steps is None:
        steps = shown_steps(sources)
    if steps is None:
        raise ScheduleError(
            "plot_schedules: none of the curves ends by itself; say how many steps to draw, such "
            "as steps=10_000"
        )
    steps = COUNT.check("plot_schedules: steps", steps, ScheduleError)
    if steps_per_epoch is not None:
        ABOVE_0.check("plot_schedules: steps_per_epoch", steps_per_epoch, ScheduleError)
    title = str(curves) if isinstance(curves, Schedule) else ""
    figure = figure_of(sampled(sources, steps), title=title, steps_per_epoch=steps_per_epoch)
    if path is not None:
        save_figure(figure, Path(path))
    return figure


def figure_of(found: Sampled, *, title: str = "", steps_per_epoch: float | None = None) -> "Figure":
    """Draw lines that were sampled.

    Args:
        found: the lines.
        title: the text above them.
        steps_per_epoch: for a second scale.

    Example:
        >>> from descend.schedules import cosine
        >>> figure_of(sampled([source_of("", cosine(9))], 10)).axes[0].get_xlabel()
        'step'
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: it takes half a second
    from matplotlib.figure import Figure

    keys, labels = found.keys, found.labels
    looks = {label: _look(number, len(labels)) for number, label in enumerate(labels)}
    told = _told(labels) if labels != [""] else []
    height = 0.9 + PANEL * len(keys) + ROW * len(told)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(keys), 1, sharex=True, squeeze=False)[:, 0]
    handles: dict[str, Any] = {}
    for axes, key in zip(panels, keys, strict=True):
        handles |= _draw(axes, found, key, looks)
    _scale(panels[0], panels[-1], found.steps, steps_per_epoch)
    figure.align_ylabels()
    if title:
        figure.suptitle(textwrap.fill(title, LINE_LENGTH), fontsize="medium")
    if told:
        names = [textwrap.shorten(label, LINE_LENGTH, placeholder=" ...") for label in told]
        figure.legend(
            [handles[label] for label in told],
            [name or "all groups" for name in names],
            loc="outside lower center",
            ncols=1 if max(map(len, told)) > LINE_LENGTH // 4 else min(len(told), 4),
            frameon=False,
        )
    return figure


def _draw(
    axes: "Axes", found: Sampled, key: str, looks: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Draw the panel of a hyperparameter; its lines as drawn, by name."""
    lines, drawn = found.of(key), {}
    for line in lines:
        (drawn[line.label],) = axes.plot(
            found.points,
            line.values,
            label=line.label,
            marker="o" if found.steps <= FEW else "",
            markersize=3.5,
            **looks[line.label],
        )
    for step in found.marks.get(key, ()):
        axes.axvline(step, color="0.55", linestyle=(0, (1, 3)), linewidth=1, zorder=0, label="")
    axes.set_ylabel(found.title(key))
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.margins(x=0.01)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.spines[["top", "right"]].set_visible(False)
    finite = [value for line in lines for value in line.values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    if low == high:  # a level line; matplotlib would magnify nothing
        axes.set_ylim(*sorted((0.0, 2 * high)) if high else (-1.0, 1.0))
    elif 0 <= low <= high / 2:
        axes.set_ylim(bottom=-0.03 * high, top=1.05 * high)
    return drawn


def _scale(first: "Axes", last: "Axes", steps: int, steps_per_epoch: float | None) -> None:
    """Number the steps below the last panel, and the epochs above the first one."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    last.set_xlabel("step")
    last.set_xlim(-0.01 * steps, max(1.01 * (steps - 1), 1))
    last.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=NICE))
    last.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    if steps_per_epoch is not None:
        functions = (lambda step: step / steps_per_epoch, lambda epoch: epoch * steps_per_epoch)
        first.secondary_xaxis("top", functions=functions).set_xlabel("epoch")


def _look(number: int, count: int) -> dict[str, Any]:
    """The colour, the dashes and the width of a curve."""
    if count > len(COLOURS) * len(DASHES):  # many groups, whose order means something
        import matplotlib as mpl

        return {"color": mpl.colormaps["viridis"](number / (count - 1)), "linewidth": 1.1}
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": DASHES[number // len(COLOURS)],
        "linewidth": 1.6,
    }


def _told(labels: list[str]) -> list[str]:
    """The labels that a legend has: all, or some of them from the first to the last."""
    if len(labels) <= MOST_LABELS:
        return labels
    last = len(labels) - 1
    return [labels[round(n * last / (MOST_LABELS - 1))] for n in range(MOST_LABELS)]
