"""The figures of a contender as texts: for the terminal's table and for the page's."""

import math
from collections.abc import Mapping
from typing import Any

from descend.format import plain_text
from descend.report.tables import Cell

VERDICT_STYLES = {"better": "good", "worse": "bad", "not separated": ""}


def rate_text(one: Mapping[str, Any]) -> str:
    """The learning rate and the other hyperparameters that were chosen, each in a line."""
    rate = {} if one["lr"] is None else {"lr": float(f"{one['lr']:.3g}")}
    return "\n".join(
        f"{key} {plain_text(value)}" for key, value in {**rate, **one["chosen"]}.items()
    )


def final_cell(one: Mapping[str, Any]) -> Cell:
    """The mean at the end, its interval, and how often it diverged, each in a line."""
    if one.get("error"):
        return "fails", "bad"
    lines, ends = [f"{one['mean']:.4g}" if one["learned"] else "never learned"], one.get("interval")
    if one["learned"] and ends and None not in ends and ends[0] < ends[1]:
        decimals = max(0, -math.floor(math.log10((ends[1] - ends[0]) / 3)))  # as its width deserves
        lines.append(_ends(ends[0], ends[1], f".{decimals}f"))
    if one["diverged"]:
        lines.append(f"{one['diverged']} of {len(one['values'])} diverged")
    return "\n".join(lines), "" if one["learned"] and not one["diverged"] else "bad"


def beside_cell(one: Mapping[str, Any]) -> Cell:
    """The verdict beside tuned AdamW, and below it the interval of the difference."""
    against = one["against"]
    if against is None:
        return ""
    verdict = against["verdict"]
    ends = _ends(against["low"], against["high"], "+.2g")
    return f"{verdict}\n{ends}", VERDICT_STYLES[verdict]


def reached_cell(one: Mapping[str, Any]) -> str:
    """The part of the reference's time to the target, and below it its interval."""
    fraction = one["fraction"]
    seeds = fraction["per_seed"]
    reached = sum(value is not None for value in seeds)
    if one.get("error"):
        return ""
    if not reached:
        return "never"
    if fraction["median"] is None:
        return f"{reached} of {len(seeds)} seeds"
    high = "never" if fraction["high"] is None else ratio(fraction["high"])
    return f"{ratio(fraction['median'])}\n{ratio(fraction['low'])} to {high}"


def ratio(value: float) -> str:
    """Write a part of a time in two digits, or in two after the point.

    Example:
        >>> ratio(0.4832), ratio(0.0123), ratio(1.5)
        ('0.48', '0.012', '1.50')
    """
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"  # noqa: PLR2004 - two digits there


def unit(found: Mapping[str, Any]) -> str:
    """The unit of the fractions: steps, where the costs of a step were not measured."""
    return "steps" if found["costs"] is None else "time"


def reading(found: Mapping[str, Any]) -> str:
    """How to read the table of the contenders, in a few sentences.

    Args:
        found: the results.
    """
    seeds, target = len(found["budget"]["seeds"]), found["target"]
    told = (
        f"Means over {seeds} seeds, each with its 95 % interval. Beside tuned AdamW: that of the "
        f"difference within each seed, after Holm's correction; separated is a contender only "
        f"where a sign-flip test separates it too. The target: {target['value']:.4g}, of "
        f"{target['of']}. {unit(found).capitalize()} to target: over that of the reference."
    )
    if any(one["diverged"] for one in found["contenders"]):
        told += " A diverged training counts as an untrained one."
    if any(_reached_at_once(one, found) for one in found["contenders"]):
        told += " Where the shortest trainings reach the target, it may be reached sooner."
    return told


def cost_of_step(one: Mapping[str, Any], found: Mapping[str, Any]) -> float:
    """The time of a step of a contender over that of the reference."""
    return 1.0 if found["costs"] is None else float(found["costs"].get(one["name"], 1.0))


def _reached_at_once(one: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Whether the shortest trainings reach the target: how much shorter ones do, nobody knows."""
    if not one["ends"]:
        return False
    part = one["ends"][0]["length"] * cost_of_step(one, found) / found["reference"]["length"]
    return any(value is not None and value <= part for value in one["fraction"]["per_seed"])


def _ends(low: float | None, high: float | None, form: str) -> str:
    """An interval; null, in a file, is an infinite end."""
    return " to ".join("?" if end is None else f"{end:{form}}" for end in (low, high))
