"""A learning-rate range test as a chart of characters."""

import math
from typing import TYPE_CHECKING

from descend.report.schedule_chart import Axis, chart
from descend.report.schedule_lines import Line, Sampled

if TYPE_CHECKING:
    from descend.report.tables import Screen
    from descend.training import RangeTest


def range_test_chart(test: "RangeTest", on: "Screen", width: int) -> str:
    """Draw the smoothed loss over the learning rate; a line stands at the suggestion.

    Args:
        test: the outcome.
        on: where it is shown.
        width: how many columns there are.

    Example:
        >>> from descend.report.tables import screen
        >>> print(range_test_chart(found, screen(), 80))

    Source: `descend.report.schedule_chart`.
    """
    lrs, losses = test.results["lr"], test.results["loss"]
    points = [*range(len(lrs))]
    marks = []
    if test.why_none is None:
        best = test.suggestion()
        marks = [min(points, key=lambda step: abs(math.log(lrs[step] / best)))]
    decades = range(
        math.ceil(math.log10(lrs[0]) - 1e-9), math.floor(math.log10(lrs[-1]) + 1e-9) + 1
    )
    ticks = [(_step(lrs, 10.0**power), f"{10.0**power:g}") for power in decades]
    found = Sampled(
        points, len(points), [Line(0, "", "loss", None, losses)], {"loss": marks}, frozenset(), []
    )
    axis = Axis("lr", ticks, lambda step: f"lr {lrs[step]:.2g}")
    return chart(found, width=width, colour=on.colour, encoding=on.encoding, axis=axis)


def _step(lrs: list[float], lr: float) -> float:
    """Where a learning rate lies among those of the steps, in parts of a step."""
    after = next((step for step, one in enumerate(lrs) if one >= lr * (1 - 1e-9)), len(lrs) - 1)
    if after == 0 or lrs[after] == lrs[after - 1]:
        return float(after)
    return after - (lrs[after] - lr) / (lrs[after] - lrs[after - 1])
