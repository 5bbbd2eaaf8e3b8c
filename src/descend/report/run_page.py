"""Several runs beside each other on one page: HTML that needs nothing beside itself."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

from descend.checkpoint.contents import Content, content_of, entry
from descend.checkpoint.series import FOLDER, checkpoints
from descend.errors import CheckpointError
from descend.files import read_whole
from descend.format import duration, plain_text
from descend.report.detail import detail
from descend.report.html_page import html_page, html_text, legend
from descend.report.run_charts import run_status
from descend.report.run_log import Curve, RunLog, best_value, ordered, thinned
from descend.report.runs import about_run
from descend.report.schedule_chart import round_numbers, tick_label
from descend.run.metrics_log import line_values
from descend.run.run_folder import HPARAMS

WIDTH, HEIGHT = 460, 240
LEFT, RIGHT, TOP, BOTTOM = 58, 10, 10, 26
POINTS = 600  # of a line
FEW = 40  # so few are shown as points, which say their values
TICKS = 5
LARGEST = 10_000_000  # bytes of a file of hyperparameters


Setting: TypeAlias = tuple[str, str]
"""A name, and the kind that it is of: "hparams", "run", "version"."""


@dataclass(frozen=True)
class ShownRun:
    """A run as the page shows it.

    Args:
        name: shown everywhere.
        log: its curves.
        status: how it ended.
        settings: by name and kind, as texts.
    """

    name: str
    log: RunLog
    status: str
    settings: Mapping[Setting, str]


def shown_run(name: str, folder: Path) -> ShownRun:
    """Read a run for the page.

    Args:
        name: of the run.
        folder: of the run.

    Raises:
        OSError: its log cannot be read.
    """
    log = RunLog(folder)
    log.read()
    settings = {(key, "hparams"): text for key, text in _flat(_hparams(folder))}
    saved = checkpoints(folder / FOLDER)
    try:
        content = content_of(saved[-1]) if saved else Content({}, {}, {})
    except CheckpointError:  # damaged, or removed by the training that goes on
        content = Content({}, {}, {})
    seconds = entry(content.state, "trainer").get("seconds")
    if isinstance(seconds, float):
        log.seconds = seconds
    settings |= dict(_of_checkpoint(content))
    return ShownRun(name, log, run_status(folder), settings)


def _hparams(folder: Path) -> Mapping[str, Any]:
    with suppress(OSError):
        return line_values(read_whole(folder / HPARAMS, LARGEST)) or {}
    return {}


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Names and values as text, those of groups in groups by their paths."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", plain_text(value)


def _of_checkpoint(content: Content) -> Iterator[tuple[Setting, str]]:
    """The settings that a checkpoint tells, each with the kind that it is of."""
    about = about_run(content)
    for name in ("task", "set", "seed", "samples", "batch_size", "accumulate", "epochs"):
        if about.get(name) not in (None, []):
            yield (name, "run"), plain_text(about[name])
    for name, kind in entry(about, "objects").items():
        if name != "trainer":
            yield (name, "object"), plain_text(kind)
    for key, schedule in entry(about, "schedules").items():
        yield (key, "schedule"), plain_text(schedule)
    for name, groups in detail(content, None)["optimizers"].items():
        for key in dict.fromkeys(key for group in groups for key in group):
            values = [group.get(f"initial_{key}", group.get(key)) for group in groups]
            same = all(value == values[0] for value in values)
            usual = all(value is None or isinstance(value, bool) for value in values)
            if not usual and not key.startswith("initial_") and key != "parameters":
                yield (key, name), plain_text(values[0] if same else values)
    versions = entry(content.manifest, "produced_by")
    for key in ("descend", "torch", "python", "processor", "cuda"):
        if versions.get(key) is not None:
            yield (key, "version"), plain_text(versions[key])


def page(runs: Sequence[ShownRun]) -> str:
    """The page.

    Args:
        runs: at least one.

    Returns:
        HTML.
    """
    names = ordered(list(dict.fromkeys(name for run in runs for name in run.log.curves)))
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    parts = [
        f"<h1>{html_text(title)}</h1>",
        legend([run.name for run in runs]),
        '<div class="panels">', *(_panel(name, runs) for name in names if _is_curve(name, runs)),
        "</div>",
        "<h2>How they came out</h2>", _results(runs, names),
        "<h2>Settings</h2>", _settings(runs),
    ]  # fmt: skip
    return html_page(title, parts, lines=len(runs))


def _is_curve(name: str, runs: Sequence[ShownRun]) -> bool:
    """Whether it was logged more than once, as what is tested at the end is not."""
    return any(len(run.log.curves[name].steps) > 1 for run in runs if name in run.log.curves)


def _panel(name: str, runs: Sequence[ShownRun]) -> str:
    """The curves of a metric, of all runs that have it."""
    curves = {number: thinned(run.log.curves[name], POINTS)
              for number, run in enumerate(runs) if name in run.log.curves}  # fmt: skip
    known = [value for curve in curves.values() for value in curve.known]
    if not known:
        return f"<figure><figcaption>{html_text(name)}</figcaption><p>no finite value</p></figure>"
    low, high = min(known), max(known)
    if low == high:
        low, high = low - abs(low) * 0.1 - 1e-9, high + abs(high) * 0.1 + 1e-9
    first = min(curve.steps[0] for curve in curves.values())
    last = max(*(curve.steps[-1] for curve in curves.values()), first + 1)

    def x(step: float) -> float:
        return LEFT + (step - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    drawn = [*_axes(x, y, (first, last), (low, high))]
    for number, curve in curves.items():
        drawn.append(f'<g class="r{number}">')
        drawn.append(f'<path d="{_path(curve, x, y)}"/>')
        if len(curve.steps) <= FEW:
            drawn += [
                f'<circle cx="{x(step):.1f}" cy="{y(value):.1f}" r="2.6"><title>'
                f"{html_text(runs[number].name)}, step {step:,}: {value:.5g}</title></circle>"
                for step, value in zip(curve.steps, curve.values, strict=True)
                if not math.isnan(value)
            ]
        drawn.append("</g>")
    return (
        f"<figure><figcaption>{html_text(name)} <small>over steps</small></figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'role="img" aria-label="{html_text(name)} over steps">{"".join(drawn)}</svg></figure>'
    )


def _axes(x: Any, y: Any, steps: tuple[int, int], values: tuple[float, float]) -> Iterator[str]:
    for value in round_numbers(*values, TICKS):
        yield f'<path class="grid" d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}"/>'
        yield f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" class="y">{tick_label(value)}</text>'
    for step in round_numbers(*steps, 8 - len(str(steps[1])) // 2):  # room for them
        if step == int(step):
            place = min(x(step), WIDTH - RIGHT - 4 * len(tick_label(step)))
            yield f'<text x="{place:.1f}" y="{HEIGHT - 6}" class="x">{tick_label(step)}</text>'


def _path(curve: Curve, x: Any, y: Any) -> str:
    """The line, with gaps where there is no number."""
    places = [
        None if math.isnan(value) else f"{x(step):.1f} {y(value):.1f}"
        for step, value in zip(curve.steps, curve.values, strict=True)
    ]
    pairs = pairwise([None, *places])
    return "".join(f"{'L' if before else 'M'}{here}" for before, here in pairs if here)


def _results(runs: Sequence[ShownRun], names: Sequence[str]) -> str:
    """A table of how the runs ended, with the best and the last value of each metric."""
    metrics = [name for name in names if not name.startswith("lr")]
    best = {name: _best(runs, name) for name in metrics}
    header = ["run", "is", "time", "step", "epoch", *metrics]
    rows = []
    for number, run in enumerate(runs):
        cells = [f'<th class="r{number}"><i></i>{html_text(run.name)}</th>']
        took = duration(run.log.seconds) if run.log.seconds else "-"
        cells += [f"<td>{html_text(run.status)}</td><td>{took}</td><td>{run.log.step:,}</td>"]
        cells += [f"<td>{run.log.epoch:,}</td>"]
        for name in metrics:
            value = _best([run], name)
            if value is None:
                cells.append("<td>-</td>")
                continue
            mark = ' class="best"' if value == best[name] and len(runs) > 1 else ""
            final = run.log.curves[name].known[-1]
            cells.append(f"<td{mark}>{value:.4g}<small>last {final:.4g}</small></td>")
        rows.append("<tr>" + "".join(cells) + "</tr>")
    head = "".join(f"<th>{html_text(name)}</th>" for name in header)
    return (
        '<div class="wide"><table><thead><tr>' + head + "</tr></thead><tbody>" + "".join(rows)
        + "</tbody></table></div><p>Of each metric the best value: the lowest, or of an accuracy "
        "and the like the highest; the best of all runs is marked.</p>"
    )  # fmt: skip


def _best(runs: Sequence[ShownRun], name: str) -> float | None:
    """The best value of a metric in some runs."""
    known = [one for run in runs if name in run.log.curves for one in run.log.curves[name].known]
    return best_value(name, known) if known else None


def _settings(runs: Sequence[ShownRun]) -> str:
    """The settings of the runs beside each other; what is the same in all is folded away."""
    names = list(dict.fromkeys(name for run in runs for name in run.settings))
    if not names:
        return "<p>Nothing is known of them.</p>"
    told = [run for run in runs if run.settings]  # of one without a checkpoint nothing is known
    differing = [name for name in names if len({run.settings.get(name) for run in told}) > 1]
    same = [name for name in names if name not in differing]
    parts = []
    if differing:
        head = "".join(f'<th class="r{number}"><i></i>{html_text(run.name)}</th>'
                       for number, run in enumerate(runs))  # fmt: skip
        rows = "".join(_compared(name, runs) for name in differing)
        parts.append(
            f'<div class="wide"><table><thead><tr><th>differs</th>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )
    if same:
        rows = "".join(
            f"<tr>{_setting(name)}<td>{html_text(told[0].settings[name])}</td></tr>"
            for name in same
        )
        opened = "" if differing else " open"
        word = "the same in all" if len(runs) > 1 else "of the run"
        parts.append(
            f"<details{opened}><summary>{len(same)} settings, {word}</summary>"
            f'<div class="wide"><table><tbody>{rows}</tbody></table></div></details>'
        )
    return "".join(parts)


def _setting(setting: Setting) -> str:
    name, kind = setting
    return f"<th>{html_text(name)}<small>{html_text(kind)}</small></th>"


def _compared(setting: Setting, runs: Sequence[ShownRun]) -> str:
    """A setting of all runs, marked where it is not what most have."""
    values = [run.settings.get(setting, "-") for run in runs]
    usual, count = Counter(values).most_common(1)[0]
    many = count > 1
    cells = (
        f"<td{usual_or_not}>{html_text(value)}</td>"
        for value in values
        for usual_or_not in ["" if value == usual and many else ' class="differs"']
    )
    return f"<tr>{_setting(setting)}{''.join(cells)}</tr>"
