"""A comparison in words and tables: what `descend compare` prints of it."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from descend.format import byte_size, counted, printable
from descend.report.tables import Cell, Screen, fitting, sentence, styled, table
from descend.search.contenders import BASELINE
from descend.search.sentence import ratio
from descend.search.statistics import performance_profile

FACTORS = (1.0, 1.1, 1.25, 1.5, 2.0, 4.0)
"""Of the best, in the table of the performance profiles."""

LONGEST = 22
"""Characters of a name in a line of the terminal."""

VERDICT_STYLES = {"better": "good", "worse": "bad", "not separated": ""}


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
    unit = "steps" if found["costs"] is None else "time"
    name = metric if on.width is None else metric.replace("validation_", "val_")
    header = ["contender", name, f"beside {BASELINE}", f"{unit} to target",
              "step", "state"]  # fmt: skip
    rows = [_row(one, found, on) for one in found["contenders"]]
    lines, gone = fitting(header, rows, on, left=(0,), spare=(5, 4))
    seeds = counted(len(found["budget"]["seeds"]), "seed")
    target = f"{found['target']['value']:.4g}, of {found['target']['of']}"
    notes = (
        f"Means over {seeds}, each with its 95 % interval. Beside tuned {BASELINE}: that of the "
        f"difference within each seed, after Holm's correction; separated is a contender only "
        f"where a sign-flip test separates it too. The target: {target}. "
        f"{unit.capitalize()} to target: over that of the reference."
    )
    if any(one["diverged"] for one in found["contenders"]):
        notes += " A diverged training counts as an untrained one."
    rest = [header[i] for i in sorted(gone)]
    more = f" A wider terminal shows: {', '.join(rest)}." if rest else ""
    return lines + sentence(notes + more, on)


def _row(one: Mapping[str, Any], found: Mapping[str, Any], on: Screen) -> list[Cell]:
    """The cells of a contender; an interval stands below its value, and how often it diverged."""
    name = printable(one["name"])
    if on.width is not None:  # of a rule of one's own it has a path in it
        name = "\n".join(name[at : at + LONGEST] for at in range(0, len(name), LONGEST))
    if one.get("error"):
        return [name, ("fails", "bad"), *[""] * 4]
    rate = {} if one["lr"] is None else {"lr": one["lr"]}
    chosen = "".join(f"\n{key} {value:.3g}" for key, value in {**rate, **one["chosen"]}.items())
    cost = "" if found["costs"] is None else f"{found['costs'][one['name']]:.2f}x"
    return [
        (name + chosen, "name" if one["name"] == found["recommended"] else ""),
        _final(one),
        _beside(one["against"]),
        _reached(one["fraction"]),
        cost,
        byte_size(one["state_bytes"]),
    ]


def _final(one: Mapping[str, Any]) -> Cell:
    lines, ends = [f"{one['mean']:.4g}" if one["learned"] else "never learned"], one.get("interval")
    if one["learned"] and ends and None not in ends and ends[0] < ends[1]:
        decimals = max(0, -math.floor(math.log10((ends[1] - ends[0]) / 3)))  # as its width deserves
        lines.append(_ends(ends[0], ends[1], f".{decimals}f"))
    if one["diverged"]:
        lines.append(f"{one['diverged']} of {len(one['values'])} diverged")
    return "\n".join(lines), "" if one["learned"] and not one["diverged"] else "bad"


def _beside(against: Mapping[str, Any] | None) -> Cell:
    if against is None:
        return ""
    verdict = against["verdict"]
    ends = _ends(against["low"], against["high"], "+.2g")
    return f"{verdict}\n{ends}", VERDICT_STYLES[verdict]


def _reached(fraction: Mapping[str, Any]) -> str:
    seeds = fraction["per_seed"]
    reached = sum(one is not None for one in seeds)
    if not reached:
        return "never"
    if fraction["median"] is None:
        return f"{reached} of {len(seeds)} seeds"
    high = "never" if fraction["high"] is None else ratio(fraction["high"])
    return f"{ratio(fraction['median'])}\n{ratio(fraction['low'])} to {high}"


def _ends(low: float | None, high: float | None, form: str) -> str:
    """An interval; null, in a file, is an infinite end."""
    return " to ".join("?" if end is None else f"{end:{form}}" for end in (low, high))


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
