"""The results of a comparison as plain data: nothing in them depends on when it was run, or where.

But for `costs`, which were measured once and kept, unless the budget is in steps.
"""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from descend.checkpoint.series import FOLDER
from descend.optimizer_lookup import find_optimizer, is_own, shown
from descend.search.budget import ENDS, RUNGS, Plan
from descend.search.contender import BASELINE
from descend.search.halving import Search
from descend.search.question import Question
from descend.search.sentence import sentence
from descend.search.statistics import (
    fraction_of_time,
    interval,
    is_later,
    median_fraction,
    verdicts,
)
from descend.search.trial import Record, Trial
from descend.training.prepared import is_for_matrices

LOSS = "validation_loss"  # compared where nothing else is asked


@dataclass
class State:
    """All that is known of a comparison under way.

    Args:
        plan: how it goes.
        times: seconds a step of each contender that does not fail.
        facts: of the task.
        searches: of each contender, by name.
        ends: by name and seed, the records of the confirmation, one a length.
        reference: of AdamW with its defaults, by seed.
    """

    plan: Plan
    times: Mapping[str, float]
    facts: Mapping[str, Any]
    searches: dict[str, Search]
    ends: dict[str, dict[int, list[Record]]] = field(default_factory=dict)
    reference: dict[int, Record] = field(default_factory=dict)


def comparison_results(question: Question, state: State) -> dict[str, Any]:
    """The results, the best contender first; docs/compare.md has what each entry means.

    Args:
        question: that was asked.
        state: all that came of it.
    """
    plan, seeds = state.plan, state.plan.seeds
    by_time = question.budget is None or question.budget.steps is None
    costs = {name: state.times[name] / state.times[BASELINE] for name in state.times}
    untrained = [_untrained(state, seed) for seed in seeds]
    reference = [state.reference[seed] for seed in seeds]
    reached = _counted([one.value for one in reference], untrained)
    target = math.fsum(reached) / len(seeds)
    finals = {
        name: _counted([state.ends[name][seed][-1].value for seed in seeds], untrained)
        for name in state.ends
    }
    beside = verdicts(finals, BASELINE, highest=question.highest)
    contenders = []
    for name, one in state.searches.items():
        entry = _entry(question, state, one)
        if name in finals:
            values, cost = finals[name], costs[name] if by_time else 1.0
            gains = [start - value for start, value in zip(untrained, values, strict=True)]
            low, high = interval(gains)
            ends = [
                [(end["length"], end["values"][number]) for end in entry["ends"]]
                for number in range(len(seeds))
            ]
            fractions = median_fraction([
                fraction_of_time(each, target, plan.length, cost, highest=question.highest)
                for each in ends
            ])  # fmt: skip
            entry |= {
                "mean": math.fsum(values) / len(values),
                "interval": interval(values),
                "learned": high < 0 if question.highest else low > 0,
                "fraction": asdict(fractions),
                "against": asdict(beside[name]) if name in beside else None,
            }
        contenders.append(entry)
    sign = -1 if question.highest else 1
    contenders.sort(key=lambda one: math.inf if one["mean"] is None else sign * one["mean"])
    best, tuned = _recommended(contenders)
    results = {
        "format": 1,
        "task": {"file": question.task, "arguments": dict(question.arguments), **state.facts},
        "metric": {"name": question.metric, "highest": question.highest},
        "budget": {
            "given": question.budget.given if question.budget else "",
            "length": plan.length, "tries": list(plan.tries), "seeds": list(seeds),
            "search_seed": question.seed, "threads": question.threads,
        },
        "costs": costs if by_time else None,
        "untrained": math.fsum(untrained) / len(seeds),
        "target": {"value": target, "of": f"{BASELINE} with its defaults"},
        "reference": {
            "name": BASELINE, "lr": tuned["default_lr"], "length": plan.length,
            "values": [one.value for one in reference],
            "curves": [one.curve for one in reference],
        },
        "contenders": contenders,
        "recommended": best["name"],
        "command": best["command"],
        "again": compare_command(question),
        "code": _code(best),
        "model": _model(question, state, target),
        "best": best["trial"],
    }  # fmt: skip
    return results | {"sentence": sentence(results)}


def _recommended(contenders: Sequence[Mapping[str, Any]]) -> tuple[Any, Any]:
    """The contender to take, and tuned AdamW, which that is where there is no better one."""
    (tuned,) = (one for one in contenders if one["name"] == BASELINE)
    better = [
        one
        for one in contenders
        if one["against"]
        and one["against"]["verdict"] == "better"
        # Better in the end and later on the way is no advice
        and not is_later(one["fraction"]["per_seed"], tuned["fraction"]["per_seed"])
    ]
    return (better or [tuned])[0], tuned


def _entry(question: Question, state: State, one: Search) -> dict[str, Any]:
    """A contender: its search, and what came of its best."""
    seeds, contender, best = state.plan.seeds, one.contender, one.best
    trial = question.trial(contender, best, one.length, seeds[0])
    found = state.ends.get(contender.name, {})
    records = [found[seed] for seed in seeds if seed in found]
    finals = [each[-1] for each in records]
    return {
        "name": contender.name,
        "optimizer": contender.optimizer,
        "settings": dict(contender.settings),
        "default_lr": contender.default_lr,
        "fixed_lr": contender.lr is not None,
        "length": one.length,
        "search": [
            {
                "lr": each.lr, "settings": each.settings, "value": record.value,
                "length": max(1, round(one.length * RUNGS[rung])),
            }
            for rung, tried in enumerate(one.tried)
            for each, record in tried.items()
        ],
        "lr": best.lr,
        "chosen": best.settings,
        "schedule": trial.schedules.get("lr", "constant"),
        "ends": [
            {
                "length": max(1, round(one.length * part)),
                "values": [each[number].value for each in records],
            }
            for number, part in enumerate(ENDS)
        ] if records else [],
        "curves": [each.curve for each in finals],
        "values": [each.value for each in finals],
        "mean": None,
        "diverged": sum(each.value is None for each in finals),
        "learned": False,
        "fraction": asdict(median_fraction([None] * len(seeds))),
        "against": None,
        "error": one.error,
        "state_bytes": max((each.state_bytes for each in finals), default=0),
        "command": train_command(trial, question.threads),
        "trial": asdict(trial),
    }  # fmt: skip


def _untrained(state: State, seed: int) -> float:
    """The metric before the first step: the same of all with this seed."""
    records = [each[seed][-1] for each in state.ends.values()] + [state.reference[seed]]
    return next((one.start for one in records if one.start is not None), math.nan)


def _counted(values: Sequence[float | None], untrained: Sequence[float]) -> list[float]:
    """The values, where a training that diverged or failed counts as none at all."""
    return [
        start if value is None else value for value, start in zip(values, untrained, strict=True)
    ]


def _model(question: Question, state: State, target: float) -> str | None:
    """The checkpoints of the best of all full trainings, if it is better than the target."""
    sign = -1 if question.highest else 1
    found = [
        (sign * record.value, one.make(each).name)
        for one in state.searches.values()
        for each, record in one.tried[-1].items()
        if record.value is not None
    ] + [
        (sign * ends[-1].value, question.trial(one.contender, one.best, one.length, seed).name)
        for name, one in state.searches.items()
        for seed, ends in state.ends.get(name, {}).items()
        if ends[-1].value is not None
    ]
    value, name = min(found, default=(math.inf, ""))
    return str(Path("trials", name, FOLDER)) if value < sign * target else None


def train_command(trial: Trial, threads: int) -> str:
    """The command that trains a trial again, to the bit, on as many threads."""
    words = ["descend", "train", *([trial.task] if trial.task else [])]
    words += [f"--arg={name}={shown(value)}" for name, value in trial.arguments.items()]
    words += ["--optimizer", trial.optimizer]
    if trial.lr is not None:
        words += ["--lr", str(trial.lr)]
    for name, value in trial.settings.items():
        words += ["--set", f"{name}={shown(value)}"]
    for name, text in trial.schedules.items():
        words += ["--schedule", text if name == "lr" else f"{name}:{text}"]
    if trial.batch_size is not None:
        words += ["--batch-size", str(trial.batch_size)]
    words += ["--steps", str(trial.steps), "--seed", str(trial.seed)]
    return shlex.join([*words, "--threads", str(threads)])


def compare_command(question: Question) -> str:
    """The command that asks the question again."""
    words = ["descend", "compare", *([question.task] if question.task else [])]
    words += [one.name for one in question.contenders]
    words += [f"--arg={name}={shown(value)}" for name, value in question.arguments.items()]
    if question.metric != LOSS:
        words += ["--metric", f"{question.metric}:{'highest' if question.highest else 'lowest'}"]
    options = {
        "--budget": question.budget and question.budget.given, "--schedule": question.shape,
        "--batch-size": question.batch_size, "--seed": question.seed or None,
        "--seeds": question.seeds, "--threads": question.threads if question.threads > 1 else None,
    }  # fmt: skip
    for name, value in options.items():
        words += [] if value is None else [name, str(value)]
    return shlex.join([*words, *["--weight-decay"] * question.weight_decay])


def _code(one: Mapping[str, Any]) -> list[str]:
    """Lines of Python that make the optimizer and its schedule, in a script of one's own."""
    trial = one["trial"]
    make = find_optimizer(trial["optimizer"])
    name = make.__name__
    of_matrices = is_for_matrices(make, trial["settings"])
    given = "descend.param_groups_matrices(model)" if of_matrices else "model.parameters()"
    settings = {**trial["settings"], "lr": trial["lr"]}
    arguments = ", ".join(f"{key}={value!r}" for key, value in settings.items())
    lines = [
        f"optimizer = {{}}{name}({given}, {arguments})",
        *(
            f"scheduler = descend.Scheduler(optimizer, {key}=descend.schedules.parse({text!r}))"
            for key, text in trial["schedules"].items()
        ),
    ]
    if is_own(trial["optimizer"]):
        module = Path(trial["optimizer"].rpartition(":")[0]).stem
        return [f"import descend; from {module} import {name}", lines[0].format(""), *lines[1:]]
    return ["import descend", lines[0].format("descend."), *lines[1:]]
