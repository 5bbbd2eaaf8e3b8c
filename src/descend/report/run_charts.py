"""The curves of runs as charts of characters."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from descend.checkpoint.contents import content_of, entry
from descend.checkpoint.manifest import read_manifest
from descend.checkpoint.series import FOLDER, checkpoints
from descend.errors import CheckpointError
from descend.format import duration, printable
from descend.report.run_log import Curve, RunLog, best_value, ordered
from descend.report.schedule_chart import HEIGHT, chart
from descend.report.schedule_lines import Line, Sampled
from descend.report.tables import Screen
from descend.run.lock import is_held
from descend.run.metrics_log import METRICS

POINTS = 300  # of a line
ROWS_OF_CHART = HEIGHT + 3  # its title and its axis


def shown_metrics(logs: Mapping[str, RunLog], asked: Sequence[str]) -> list[str]:
    """The metrics to draw: those that are asked for, or all that were logged more than once."""
    if asked:
        return [*asked]
    names = dict.fromkeys(
        name for log in logs.values() for name, one in log.curves.items() if len(one.steps) > 1
    )
    return ordered([*names])


def run_charts(logs: Mapping[str, RunLog], metrics: Sequence[str], on: Screen, width: int) -> str:
    """Draw a chart for each metric, with a line for each run.

    Args:
        logs: by the names of the runs.
        metrics: which.
        on: where it is shown.
        width: how many columns there are.
    """
    return "\n\n".join(_chart(logs, metric, on, width) for metric in metrics)


def _chart(logs: Mapping[str, RunLog], metric: str, on: Screen, width: int) -> str:
    curves = {name: log.curves.get(metric, Curve()) for name, log in logs.items()}
    last = max((curve.steps[-1] for curve in curves.values() if curve.steps), default=0)
    ends = [at for curve in curves.values() for at in (*curve.steps[:1], *curve.steps[-1:])]
    points = sorted({*np.linspace(0, last, min(last + 1, POINTS)).astype(int).tolist(), *ends})
    lines = [
        Line(number, printable(name) if len(logs) > 1 else "", metric, None, _over(curve, points))
        for number, (name, curve) in enumerate(curves.items())
    ]
    found = Sampled(points, last + 1, lines, {}, frozenset(), [])
    return chart(found, width=width, colour=on.colour, encoding=on.encoding)


def _over(curve: Curve, points: list[int]) -> list[float]:
    """The values at other steps: between two of the curve, on the line that joins them."""
    if not curve.steps:
        return [float("nan")] * len(points)
    values = np.interp(points, curve.steps, curve.values, left=np.nan, right=np.nan)
    if len(curve.steps) == 1:
        values[np.abs(np.array(points) - curve.steps[0]).argmin()] = curve.values[0]
    found: list[float] = values.tolist()
    return found


def run_line(name: str, log: RunLog, metrics: Sequence[str]) -> str:
    """Tell in a line where a run is, and the best and the last value of its metrics."""
    status = run_status(log.folder)
    words = [f"step {log.step:,}, epoch {log.epoch:,}", status]
    words += [_age(log.folder)] * (not status.startswith("over"))
    for metric in metrics:
        known = log.curves[metric].known if metric in log.curves else []
        if known and not metric.startswith("lr"):
            best = best_value(metric, known)
            words.append(f"{printable(metric)} best {best:.4g} last {known[-1]:.4g}")
    return f"{printable(name)}: {'; '.join(filter(None, words))}"


def run_status(folder: Path) -> str:
    """How a run ended: "over", and why where that was early; or that it is training, or stopped."""
    if is_over(folder):
        content = content_of(checkpoints(folder / FOLDER)[-1])
        why = entry(content.state, "trainer").get("stopped")
        return f"over: {why}" if why else "over"
    held = is_held(folder)
    return "" if held is None else "training" if held else "stopped"


def _age(folder: Path) -> str:
    if not (folder / METRICS).exists():
        return "no line yet"
    since = time.time() - (folder / METRICS).stat().st_mtime
    return f"last line {duration(max(since, 0.0))} ago"


def is_over(folder: Path) -> bool:
    """Whether the newest checkpoint of a run says that it is over."""
    try:
        saved = checkpoints(folder / FOLDER)
        return bool(saved and read_manifest(saved[-1])["about"].get("over"))
    except CheckpointError:  # removed meanwhile by a newer one
        return False
