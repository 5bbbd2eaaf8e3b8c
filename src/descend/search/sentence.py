"""The outcome of a comparison in one sentence."""

from collections.abc import Iterator, Mapping
from typing import Any

from descend.format import counted, first_names, plain_text
from descend.report.comparison_cells import ratio, unit
from descend.search.contender import BASELINE

NAMED = 9  # contenders of one verdict that are named


def sentence(found: Mapping[str, Any]) -> str:
    """Tell which optimizer to take, how soon it reaches the target, and how sure that is.

    Args:
        found: the results, as `results.json` has them; its "sentence" is not read.

    Returns:
        A sentence in plain words, such as "lion at lr 0.0003 reaches the validation_loss of adamw
        with its defaults in 0.48 of the time (95 %: 0.44 to 0.53), 7 seeds; it ends better than
        tuned adamw, which takes 0.61 of the time."
    """
    contenders = {one["name"]: one for one in found["contenders"]}
    if not any(one["learned"] for one in contenders.values()):
        return (
            f"No contender learned: none ends with a better {found['metric']['name']} than an "
            f"untrained model; the task, or the budget, is at fault."
        )
    best = contenders[found["recommended"]]
    name = f"tuned {BASELINE}" if best["name"] == BASELINE else best["name"]
    rate = "" if best["lr"] is None else f" at lr {best['lr']:.3g}"
    settings = "".join(f", {key} {plain_text(value)}" for key, value in best["chosen"].items())
    target = f"the {found['metric']['name']} of {found['target']['of']}"
    told = f"{name}{rate}{settings} {reaching(best, found, target)}"
    return "; ".join([told, *_beside(best, contenders, found)]) + "."


def reaching(one: Mapping[str, Any], found: Mapping[str, Any], target: str) -> str:
    """Whether a contender reaches the target, and in how much of the reference's time.

    Args:
        one: the contender's part of the results.
        found: the results.
        target: the target in words.
    """
    fraction, of = one["fraction"], unit(found)
    seeds = fraction["per_seed"]
    reached = sum(value is not None for value in seeds)
    if not reached:
        return f"never reaches {target}, {counted(len(seeds), 'seed')}"
    if fraction["median"] is None:
        return f"reaches {target} with only {reached} of {counted(len(seeds), 'seed')}"
    low, high = (None if end is None else ratio(end) for end in (fraction["low"], fraction["high"]))
    ends = f"{low} to {high}" if high else f"{low} to never"
    took = f"{ratio(fraction['median'])} of the {of} (95 %: {ends})"
    return f"reaches {target} in {took}, {counted(len(seeds), 'seed')}"


def _beside(
    best: Mapping[str, Any], contenders: Mapping[str, Mapping[str, Any]], found: Mapping[str, Any]
) -> Iterator[str]:
    """How the best compares with tuned AdamW, how the others do, and what failed."""
    if best["diverged"]:
        yield f"{best['diverged']} of its trainings diverged"
    if best["name"] != BASELINE:
        tuned = contenders[BASELINE]
        median = tuned["fraction"]["median"]
        took = (
            "does not reach that" if median is None
            else f"takes {ratio(median)} of the {unit(found)}"
        )  # fmt: skip
        yield f"it ends better than tuned {BASELINE}, which {took}"
        return
    others = [one for one in contenders.values() if one["against"] is not None]
    broken = [one["name"] for one in contenders.values() if one.get("error")]
    learned = [one for one in others if one["learned"]]
    for verdict, words in (
        ("better", "better in the end, but later at the target"),
        ("not separated", "not separated from it"),
        ("worse", "worse"),
    ):
        names = [one["name"] for one in learned if one["against"]["verdict"] == verdict]
        if names:
            yield f"{words}: {first_names(names, NAMED)}"
    failed = {
        "diverged": [f"{one['name']} in {one['diverged']}" for one in learned if one["diverged"]],
        "never learned": [one["name"] for one in others if not one["learned"]],
        "fails": broken,
    }
    for words, names in failed.items():
        if names:
            yield f"{words}: {first_names(names, NAMED)}"
