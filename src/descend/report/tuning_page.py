"""The page of a search: its history, which hyperparameters matter and how, and the best command.

The charts are Optuna's own, of matplotlib.
"""

import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from descend.files import replaced
from descend.format import counted, plain_text
from descend.report.fonts import all_scripts
from descend.report.html_page import html_page, html_text

if TYPE_CHECKING:
    import optuna
    from matplotlib.figure import Figure

PAGE = "report.html"
GRID, INK = "#e2e2e2", "#1b1b1b"
FEWEST = 2  # trials, and hyperparameters, of which the charts of several are drawn
STYLE = """
figure.drawn img{display:block;width:100%;height:auto;background:#fff;border-radius:4px}
figure.drawn.far img{min-width:640px;max-width:800px}figure.drawn .wide{padding-bottom:4px}
pre{background:var(--mark);color:var(--ink);padding:10px 12px;border-radius:8px;overflow-x:auto}
.lead{color:var(--ink);font-size:17px;max-width:60rem}.lead+.lead{font-size:15px}
.far{margin-top:14px}
"""


def write_page(
    folder: Path,
    results: Mapping[str, Any],
    whole: "optuna.Study",
    there: "optuna.Study",
    words: Mapping[str, str],
) -> None:
    """Write the page into the folder of a search.

    Args:
        folder: of the search.
        results: the content of its results.json, with a best trial.
        whole: the trials with what whole trainings came to; paused ones are pruned.
        there: the trials that have reached a rung, with their values at it.
        words: the "command" that trains the best, the sentence of how far it fell "back" on fresh
            seeds, where that rung is ("at"), and what the "rungs" are counted in.

    Raises:
        OutputError: it cannot be written.
    """
    path = folder / PAGE
    with all_scripts(path), replaced(path) as file:
        file.write(_page(results, whole, there, words).encode("utf-8", "backslashreplace"))


def _page(
    results: Mapping[str, Any],
    whole: "optuna.Study",
    there: "optuna.Study",
    words: Mapping[str, str],
) -> str:
    best, metric = results["best"], results["metric"]["name"]
    values = ", ".join(f"{name} {plain_text(value)}" for name, value in best["params"].items())
    task = results["task"]["file"] or "the digits that ship"
    title = f"Search of {task}"
    parts = [
        f"<h1>{html_text(title)}</h1>",
        f'<p class="lead">The best of {counted(len(results["trials"]), "trial")} is trial '
        f"{best['number']}: {html_text(metric)} <b>{best['value']:.5g}</b>, with "
        f"{html_text(values)}.</p>",
        f'<p class="lead">{html_text(words["back"])}</p>',
        f"<pre>{html_text(words['command'])}</pre>",
        '<div class="panels">',
        *(_figure(*one) for one in _charts(whole, there, metric, words)),
        "</div>",
        "<p>In the charts, what is far worse than most stands at the edge.</p>",
        *_coordinates(there, metric, words),
        "<h2>The best</h2>", _facts(results),
        "<h2>All trials</h2>", _trials(results),
    ]  # fmt: skip
    return html_page(title, parts, lines=0, style=STYLE)


Chart = tuple[str, str, str]
"""A title, what it is of in small, and a picture as the source of an <img>."""


def _charts(
    whole: "optuna.Study", there: "optuna.Study", metric: str, words: Mapping[str, str]
) -> Iterator[Chart]:
    """The charts side by side, as far as there is something to draw."""
    from optuna.importance import FanovaImportanceEvaluator
    from optuna.visualization import matplotlib as drawn

    first = f"{metric} {words['at']}"
    yield (
        "history",
        "whole trainings",
        _picture(lambda: drawn.plot_optimization_history(whole, target_name=metric), "trial"),
    )
    if any(len(one.intermediate_values) > 1 for one in whole.trials):
        yield (
            "on the way",
            f"{metric} over {words['rungs']}",
            _picture(
                lambda: drawn.plot_intermediate_values(whole), words["rungs"], metric, legend=False
            ),
        )
    names = _names(there)
    if len(there.trials) < FEWEST:
        return
    if len(names) >= FEWEST and len({one.value for one in there.trials}) > 1:
        evaluator = FanovaImportanceEvaluator(seed=0)
        yield (
            "importances",
            f"parts of the variance of {first}",
            _picture(
                lambda: drawn.plot_param_importances(
                    there, evaluator=evaluator, target_name=metric
                ),
                legend=False,
            ),
        )
    for name in names:
        yield (
            name,
            first,
            _picture(partial(drawn.plot_slice, there, params=[name], target_name=metric)),
        )


def _coordinates(there: "optuna.Study", metric: str, words: Mapping[str, str]) -> Iterator[str]:
    """All values of each trial on one line."""
    from optuna.visualization import matplotlib as drawn

    names = _names(there)
    if len(names) < FEWEST or len(there.trials) < FEWEST:
        return
    shape = (2.0 + 1.6 * len(names), 4.2)
    picture = _picture(
        lambda: drawn.plot_parallel_coordinate(there, params=names, target_name=metric), size=shape
    )
    yield _figure("parallel coordinates", f"{metric} {words['at']}", picture, far=True)


def _names(study: "optuna.Study") -> list[str]:
    """The hyperparameters, those of all trials first: of others there are fewer points."""
    found = {name: sum(name in one.params for one in study.trials)
             for trial in study.trials for name in trial.params}  # fmt: skip
    return sorted(found, key=lambda name: -found[name])


def _picture(
    draw: Callable[[], Any],
    under: str = "",
    beside: str = "",
    *,
    legend: bool = True,
    size: tuple[float, float] = (5.2, 3.4),
) -> str:
    """A chart of Optuna's in the house's manner, as the source of an <img>.

    Args:
        draw: gives its axes.
        under: the name of the horizontal axis, where it is another.
        beside: the name of the vertical axis, where it is another.
        legend: whether it has one.
        size: in inches.
    """
    import base64
    import warnings

    import matplotlib as mpl

    if "matplotlib.pyplot" not in sys.modules:
        mpl.use("agg")  # no window is needed, nor a screen
    from matplotlib import pyplot as plt

    # Optuna sets a style for good
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="optuna")
        warnings.filterwarnings("ignore", message=".*is experimental")
        axes = draw()
        figure: Figure = (axes.flat[0] if hasattr(axes, "flat") else axes).figure
        _in_manner(figure, under, beside, legend=legend, size=size)
        file = io.BytesIO()
        figure.savefig(file, format="svg", bbox_inches="tight", facecolor="white",
                       metadata={"Date": None})  # fmt: skip
        plt.close(figure)
    return f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}"


def _in_manner(
    figure: "Figure", under: str, beside: str, *, legend: bool, size: tuple[float, float]
) -> None:
    figure.set_size_inches(*size)
    for axes in figure.axes:
        axes.set_title("")
        axes.set_title("", loc="left")
        axes.set_facecolor("white")
        axes.tick_params(colors=INK, labelsize=9)
        axes.xaxis.label.set_color(INK)
        axes.yaxis.label.set_color(INK)
        if len(figure.axes) <= FEWEST:  # of parallel coordinates every value has its own
            axes.grid(color=GRID)
            axes.set_axisbelow(True)
        if not legend and (shown := axes.get_legend()) is not None:
            shown.remove()
    if under:
        figure.axes[0].set_xlabel(under)
    if beside:
        figure.axes[0].set_ylabel(beside)


def _figure(title: str, small: str, picture: str, *, far: bool = False) -> str:
    image = f'<img alt="{html_text(title)}" src="{picture}">'
    inner = f'<div class="wide">{image}</div>' if far else image
    return (
        f'<figure class="drawn{" far" if far else ""}"><figcaption>{html_text(title)} '
        f"<small>{html_text(small)}</small></figcaption>{inner}</figure>"
    )


def _facts(results: Mapping[str, Any]) -> str:
    """The best training, and the same on fresh seeds."""
    best, told = results["best"], results["confirmation"]
    rows = {
        "hyperparameters": {"optimizer": best["optimizer"], "lr": best["lr"], **best["settings"]},
        "arguments of the task": best["arguments"],
        "batch size": best["batch_size"] or "the task's",
        "schedule": best["schedules"] or "constant",
        "steps": f"{best['steps']:,}",
        "chosen by": f"{best['value']:.5g}",
        "on fresh seeds": "  ".join(
            f"seed {seed}: {'diverged' if value is None else f'{value:.5g}'}"
            for seed, value in zip(told["seeds"], told["values"], strict=True)
        ),
        "the search": {key: value for key, value in results["search"].items()
                       if value is not None and key not in ("TASK.py", "space")},
        "the space": results["search"]["space"],
    }  # fmt: skip
    body = "".join(
        f"<tr><th>{html_text(name)}</th><td>{html_text(_told(value))}</td></tr>"
        for name, value in rows.items()
        if value not in ({}, "")
    )
    return f'<div class="wide"><table><tbody>{body}</tbody></table></div>'


def _told(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain_text(one)}" for key, one in value.items())
    return str(value)


def _trials(results: Mapping[str, Any]) -> str:
    """A table of all trials."""
    trials: Sequence[Mapping[str, Any]] = results["trials"]
    names = list(dict.fromkeys(name for one in trials for name in one["params"]))
    rungs = sorted({rung for one in trials for rung in one["values"]}, key=int)
    header = ["trial", "is", *([f"at {rung}" for rung in rungs]), *names]
    rows = []
    for one in trials:
        mark = ' class="best"' if one["number"] == results["best"]["number"] else ""
        values = [plain_text(one["values"].get(rung, "-")) for rung in rungs]
        state = f"{one['state']}<small>{html_text(one['why'])}</small>" if one["why"] else one[
            "state"]  # fmt: skip
        cells = [*values, *(plain_text(one["params"].get(name, "-")) for name in names)]
        rows.append(
            f"<tr><th>{one['number']}</th><td{mark}>{state}</td>"
            + "".join(f"<td>{html_text(cell)}</td>" for cell in cells) + "</tr>"
        )  # fmt: skip
    head = "".join(f"<th>{html_text(name)}</th>" for name in header)
    table = (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody>'
        f"</table></div>"
    )
    return f"<details><summary>{counted(len(trials), 'trial')}</summary>{table}</details>"
