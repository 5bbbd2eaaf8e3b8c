"""A comparison in words and tables: what `descend compare` prints of it."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from descend.format import byte_size, printable
from descend.report.comparison_cells import (
    beside_cell,
    final_cell,
    rate_text,
    ratio,
    reached_cell,
    reading,
    unit,
)
from descend.report.tables import Cell, Screen, fitting, sentence, styled, table
from descend.search.contender import BASELINE
from descend.search.statistics import performance_profile

FACTORS = (1.0, 1.1, 1.25, 1.5, 2.0, 4.0)
"""Of the best, in the table of the performance profiles."""

LONGEST = 22
"""Characters of a name in a line of the terminal."""


def result_lines(found: Mapping[str, Any], on: Screen) -> Iterator[str]:
    """The answer: a sentence, the table, the command and the lines of code.

    Args:
        found: the results, as `results.json` has them.
        on: where they are shown.
    """
    yield from sentence(found["sentence"], on)
    yield ""
    yield from contender_table(found, on)
    yield ""
    yield f"{styled(('train it', 'head'), on)}  {found['command']}"
    for line in found["code"]:
        yield f"          {line}"
    if found.get("model"):
        yield f"{styled(('model', 'head'), on)}     {found['model']}, which reaches the target"


def contender_table(found: Mapping[str, Any], on: Screen) -> list[str]:
    """The contenders beside each other, best first, and how to read the columns.

    Args:
        found: the results.
        on: where it is shown.
    """
    metric = found["metric"]["name"]
    name = metric if on.width is None else metric.replace("validation_", "val_")
    header = ["contender", name, f"beside {BASELINE}", f"{unit(found)} to target", "step", "state"]
    rows = [_row(one, found, on) for one in found["contenders"]]
    lines, gone = fitting(header, rows, on, left=(0,), spare=(5, 4))
    rest = [header[i] for i in sorted(gone)]
    more = f" A wider terminal shows: {', '.join(rest)}." if rest else ""
    return lines + sentence(reading(found) + more, on)


def _row(one: Mapping[str, Any], found: Mapping[str, Any], on: Screen) -> list[Cell]:
    """The cells of a contender; an interval stands below its value, and how often it diverged."""
    name = printable(one["name"])
    if on.width is not None:  # of a rule of one's own it has a path in it
        name = "\n".join(name[at : at + LONGEST] for at in range(0, len(name), LONGEST))
    cost = None if found["costs"] is None else found["costs"].get(one["name"])
    return [
        ("\n".join(filter(None, (name, rate_text(one)))),
         "name" if one["name"] == found["recommended"] else ""),
        final_cell(one),
        beside_cell(one),
        reached_cell(one),
        "" if cost is None else f"{cost:.2f}x",
        byte_size(one["state_bytes"]) if one["state_bytes"] else "",
    ]  # fmt: skip


def suite_lines(results: Mapping[str, Mapping[str, Any]], on: Screen) -> Iterator[str]:
    """The comparisons of a suite beside each other: tables over its tasks, and the sentences.

    Args:
        results: of each task by its name, as its `results.json` has them.
        on: where they are shown.
    """
    rows = {"recommended": _fractions(results, None)}
    names = dict.fromkeys(one["name"] for found in results.values() for one in found["contenders"])
    rows |= {name: _fractions(results, name) for name in names}
    header = ["time to the target", *results, "geometric mean"]
    yield from table(header, [_suite_row(*row, results) for row in rows.items()], on, fold=True)
    yield from sentence(
        f"Over the time of {BASELINE} with its defaults, whose final quality is the target: the "
        f"median over seeds. Recommended: what each task's own comparison chooses.",
        on,
    )
    yield ""
    profiles = performance_profile({name: rows[name] for name in names})
    shares = [[name, *(_share(profiles[name], factor) for factor in FACTORS)] for name in names]
    yield from table(
        ["within a factor of the best", *(f"{factor:g}" for factor in FACTORS)], shares, on
    )
    yield from sentence("The share of the tasks on which it is (Dolan and Moré 2002).", on)
    for task, found in results.items():
        yield ""
        yield from sentence(f"{task}: {found['sentence']}", on)


def geometric_mean(fractions: Sequence[float | None]) -> float | None:
    """The geometric mean; None where one of them is None: the target was not reached.

    Example:
        >>> geometric_mean([0.5, 2.0]), geometric_mean([0.5, None])
        (1.0, None)
    """
    reached = [one for one in fractions if one is not None]
    return statistics.geometric_mean(reached) if len(reached) == len(fractions) else None


def _fractions(results: Mapping[str, Mapping[str, Any]], name: str | None) -> list[float | None]:
    """The medians of a contender over the tasks; of the recommended one without a name."""
    medians = []
    for found in results.values():
        contenders = {one["name"]: one for one in found["contenders"]}
        one = contenders.get(found["recommended"] if name is None else name)
        medians.append(one["fraction"]["median"] if one and not one.get("error") else None)
    return medians


def _suite_row(
    name: str, fractions: Sequence[float | None], results: Mapping[str, Mapping[str, Any]]
) -> list[Cell]:
    cells: list[Cell] = [
        "never" if one is None
        else f"{ratio(one)} {printable(found['recommended'])}" if name == "recommended"
        else ratio(one)
        for one, found in zip(fractions, results.values(), strict=True)
    ]  # fmt: skip
    mean = geometric_mean(fractions)
    return [(printable(name), "name" if name == "recommended" else ""), *cells,
            "-" if mean is None else ratio(mean)]  # fmt: skip


def _share(profile: Sequence[tuple[float, float]], factor: float) -> str:
    """The height of a performance profile at a factor."""
    return f"{max((share for at, share in profile if at <= factor), default=0.0):.0%}"
