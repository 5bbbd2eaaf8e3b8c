"""The page of a comparison: the answer first, then all that stands behind it."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from descend.files import read_whole, replaced
from descend.format import byte_size, counted, duration, plain_text, rounded_count
from descend.report.comparison_cells import (
    beside_cell,
    final_cell,
    rate_text,
    reached_cell,
    reading,
    unit,
)
from descend.report.comparison_charts import (
    curves_chart,
    ends_chart,
    rate_charts,
    reaches,
    search_chart,
)
from descend.report.comparison_picture import draw_comparison
from descend.report.html_page import html_page, html_text, legend
from descend.report.svg_chart import STYLE as CHARTS
from descend.report.svg_chart import svg_chart, svg_reaches
from descend.report.tables import Cell

RESULTS, TIMING = "results.json", "timing.json"
PAGE, PICTURE = "report.html", "comparison.png"

STYLE = """
.answer{font-size:19px;color:var(--ink);max-width:46em;margin:4px 0 12px;overflow-wrap:anywhere}
pre{margin:0 0 10px;padding:10px 12px;border:1px solid var(--line);border-radius:8px;
white-space:pre-wrap;overflow-wrap:anywhere;font-size:13px;user-select:all}
td.good{color:light-dark(#0b6b3a,#4fd08a)}td.bad{color:light-dark(#a3261b,#ff8a7a)}
td.num{white-space:nowrap}th small.rate{display:block;margin-left:0}
tr.best>*,.wide tr.best th:first-child{background:var(--mark)}figcaption small{display:block}
.panels{grid-template-columns:repeat(auto-fill,minmax(min(460px,100%),1fr));max-width:1160px}
.small{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(290px,100%),1fr));gap:14px}
details table{font-size:13px}.small svg text{font-size:17px}
"""


def write_comparison(folder: Path) -> None:
    """Write the page and the picture of a comparison beside its results.

    Args:
        folder: of the comparison, with `results.json` and, where times were measured,
            `timing.json`; it gets `report.html` and `comparison.png`.

    Raises:
        OSError: the results cannot be read.
        OutputError: a file cannot be written.
    """
    found = json.loads(read_whole(folder / RESULTS))
    timing = json.loads(read_whole(folder / TIMING)) if (folder / TIMING).exists() else {}
    with replaced(folder / PAGE) as file:
        file.write(comparison_page(found, timing).encode("utf-8", "backslashreplace"))
    draw_comparison(found, folder / PICTURE)


def comparison_page(found: Mapping[str, Any], timing: Mapping[str, Any]) -> str:
    """The page.

    Args:
        found: the results, as `results.json` has them.
        timing: the times of this machine, as `timing.json` has them; {} for none.

    Returns:
        HTML that needs nothing beside itself.
    """
    names = [one["name"] for one in found["contenders"]]
    task = found["task"]["file"] or "the digits"
    title = f"{task}: {counted(len(names), 'optimizer')} compared"
    about = (
        f"the median and its 95 % interval, a stroke for each seed; 1 is a training of "
        f"{found['reference']['length']:,} steps with {found['target']['of']}"
    )
    rates = rate_charts(found)
    values = [value for chart in rates for value in chart.values]
    parts = [
        f"<h1>{html_text(title)}</h1>",
        *_answer(found),
        "<h2>The contenders</h2>",
        _contenders(found),
        f"<p>{html_text(reading(found))}</p>",
        legend(names),
        '<div class="panels">',
        svg_chart(ends_chart(found)),
        svg_reaches(reaches(found), "When the target is reached", about,
                    f"{unit(found)}, over the reference's"),
        svg_chart(curves_chart(found)),
        svg_chart(search_chart(found)),
        "</div>",
        *_rates(rates, values, found),
        "<h2>What it costs</h2>",
        _costs(found, timing),
        "<h2>To run it again</h2>",
        f"<pre>{html_text(found['again'])}</pre>" if "again" in found else "",
        _again(found, timing),
        _tries(found),
        _commands(found),
    ]  # fmt: skip
    return html_page(title, parts, lines=len(names), style=CHARTS + STYLE)


def _answer(found: Mapping[str, Any]) -> Iterator[str]:
    """The sentence, the command, the lines of code, and the model that is there already."""
    yield f'<p class="answer">{html_text(found["sentence"])}</p>'
    yield f"<pre>{html_text(found['command'])}</pre>"
    code = "\n".join(html_text(line) for line in found["code"])
    yield f"<pre>{code}</pre>"
    if found.get("model"):
        yield f"<p>A model that already reaches the target: {html_text(found['model'])}</p>"


def _contenders(found: Mapping[str, Any]) -> str:
    """The table of the contenders, best first."""
    header = [
        "contender",
        found["metric"]["name"],
        "beside tuned AdamW",
        f"{unit(found)} to target",
    ]
    costs = found["costs"] or {}
    header += ["step"] * bool(costs) + ["state"]
    rows = []
    for number, one in enumerate(found["contenders"]):
        best = ' class="best"' if one["name"] == found["recommended"] else ""
        cells = [
            f'<tr{best}><th class="r{number}"><i></i>{html_text(one["name"])}'
            f'<small class="rate">{_lines(rate_text(one))}</small></th>',
            _cell(final_cell(one)), _cell(beside_cell(one)), _cell(reached_cell(one)),
        ]  # fmt: skip
        if costs:
            cost = costs.get(one["name"])
            cells.append(_cell("" if cost is None else f"{cost:.2f}x"))
        cells.append(_cell(byte_size(one["state_bytes"]) if one["state_bytes"] else ""))
        rows.append("".join(cells) + "</tr>")
    return _table(header, rows)


def _cell(cell: Cell) -> str:
    """A cell whose lines after the first are small."""
    text, style = (cell, "") if isinstance(cell, str) else cell
    first, *rest = map(html_text, text.split("\n"))
    kind = f"num {style}".rstrip()
    return f'<td class="{kind}">{first}{"".join(f"<small>{line}</small>" for line in rest)}</td>'


def _rates(
    charts: Sequence[Any], values: Sequence[float], found: Mapping[str, Any]
) -> Iterator[str]:
    """The panels of the learning rates; nothing where none was searched."""
    if not charts:
        return
    yield f"<h2>{html_text(found['metric']['name'])} against the learning rate</h2>"
    yield (
        "<p>A line for each rung of the search, the strongest for the longest trainings; a cross "
        "where one diverged. Shaded: the rates that gain at least 0.95 of what the best gains over "
        "no training, in the first rung that tells enough of the end: how easy it is to tune.</p>"
    )
    yield '<div class="small">'
    yield from (svg_chart(chart, values) for chart in charts)
    yield "</div>"


def _costs(found: Mapping[str, Any], timing: Mapping[str, Any]) -> str:
    """The measured time of a step and the memory of the state."""
    steps, costs = timing.get("steps", {}), found["costs"] or {}
    over = ["over AdamW's"] * bool(costs)
    header = ["contender", "a step", "of the processor", *over, "state", "a parameter"]
    rows = []
    for number, one in enumerate(found["contenders"]):
        time, state = steps.get(one["name"], {}), one["state_bytes"]
        wall = processor = ""
        if "wall_us" in time:
            ends = f"{_micro(time['low_us'])} to {_micro(time['high_us'])}"
            wall, processor = f"{_micro(time['wall_us'])}\n{ends}", _micro(time["processor_us"])
        cells = [wall, processor]
        if costs:
            cells.append(f"{costs[one['name']]:.2f}x" if one["name"] in costs else "")
        each = f"{state / found['task']['parameters']:.3g} B"
        cells += [byte_size(state), each] if state else ["", ""]
        head = f'<th class="r{number}"><i></i>{html_text(one["name"])}</th>'
        rows.append(f"<tr>{head}{''.join(map(_cell, cells))}</tr>")
    told = "Median and quartiles, measured by turns on the task itself, the model's work included."
    return _table(header, rows) + f"<p>{told}</p>"


def _micro(microseconds: float) -> str:
    return duration(microseconds / 1e6)


def _again(found: Mapping[str, Any], timing: Mapping[str, Any]) -> str:
    """All that the results depend on, and where they were found."""
    task, budget, metric = found["task"], found["budget"], found["metric"]
    facts = {
        "task": task["file"] or "the digits that ship",
        "arguments": plain_text(task["arguments"]) if task["arguments"] else "",
        "parameters": rounded_count(task["parameters"]),
        "batch size": str(task["batch_size"]),
        "steps an epoch": f"{task['steps_per_epoch']:,}",
        "metric": f"{metric['name']}, the {'highest' if metric['highest'] else 'lowest'} is best",
        "budget": budget["given"] or "as the task's own length needs",
        "full length": f"{budget['length']:,} steps of AdamW",
        "tries in each rung": plain_text(budget["tries"]),
        "seed of the search": str(budget.get("search_seed", "")),
        "seeds of the ends": plain_text(budget["seeds"]),
        "untrained": plain_text(found["untrained"]),
        "target": f"{found['target']['value']:.6g}, of {found['target']['of']}",
        "threads of a training": str(budget.get("threads", timing.get("threads", ""))),
        "at once": str(timing.get("jobs", "")),
        "processor": timing.get("processor", ""),
        "load before": plain_text(timing["load"]) if timing.get("load") is not None else "",
        "torch": timing.get("torch", ""),
        "took": duration(timing["wall_s"]) if "wall_s" in timing else "",
        "of that, trainings": duration(timing["trials_s"]) if "trials_s" in timing else "",
    }
    rows = (f"<tr><th>{name}</th><td>{html_text(text)}</td></tr>"
            for name, text in facts.items() if text)  # fmt: skip
    return _table([], rows)


def _tries(found: Mapping[str, Any]) -> str:
    """Each try of the search in its order, folded away."""
    rows = []
    for number, one in enumerate(found["contenders"]):
        for each in one["search"]:
            value = "diverged" if each["value"] is None else f"{each['value']:.5g}"
            cells = [rate_text({"lr": each["lr"], "chosen": each["settings"]}).replace("\n", ", "),
                     f"{each['length']:,}", value]  # fmt: skip
            head = f'<th class="r{number}"><i></i>{html_text(one["name"])}</th>'
            rows.append(f"<tr>{head}{''.join(map(_cell, cells))}</tr>")
    if not rows:
        return ""
    header = ["contender", "tried", "steps", found["metric"]["name"]]
    told = f"{counted(len(rows), 'try', 'tries')} of the search"
    return f"<details><summary>{told}</summary>{_table(header, rows)}</details>"


def _commands(found: Mapping[str, Any]) -> str:
    """The command of each contender, folded away."""
    rows = (
        f'<tr><th class="r{number}"><i></i>{html_text(one["name"])}</th>'
        f"<td><pre>{html_text(one['command'])}</pre></td></tr>"
        for number, one in enumerate(found["contenders"])
    )
    return (
        f"<details><summary>the command of each contender's best</summary>"
        f"<table><tbody>{''.join(rows)}</tbody></table></details>"
    )


def _table(header: Sequence[str], rows: Iterable[str]) -> str:
    names = "".join(f"<th>{html_text(name)}</th>" for name in header)
    head = f"<thead><tr>{names}</tr></thead>" if header else ""
    return f'<div class="wide"><table>{head}<tbody>{"".join(rows)}</tbody></table></div>'


def _lines(text: str) -> str:
    return "<br>".join(escape(line) for line in text.split("\n"))
