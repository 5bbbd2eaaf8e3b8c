"""Results of comparisons that nobody trained: losses by a formula, statistics by the real ones."""

import json
import math
from dataclasses import asdict

import numpy as np

from descend.search.sentence import sentence
from descend.search.statistics import (
    fraction_of_time,
    interval,
    median_fraction,
    seeds_needed,
    verdicts,
)

UNTRAINED = 2.3
LENGTH = 1128
DIVERGED = "diverged"
NEVER = "never learned"

KINDS = {
    "adamw": (0.001, 1.0, 1.0, ""),
    "sgd:momentum=0.9": (0.001, 0.93, 1.3, ""),
    "nadam": (0.002, 1.05, 1.02, ""),
    "lion": (0.0001, 0.97, 0.5, ""),
    "muon": (0.02, 1.4, 0.62, ""),
    "rmsprop": (0.01, 0.95, 1.6, ""),
    "adagrad": (0.01, 0.94, 0.9, DIVERGED),
    "adadelta": (1.0, 1.1, 1.0, NEVER),
    "experiments/rules/a_rule_with_a_rather_long_path.py:SignumWithMomentumAndDecay:beta=0.95": (
        0.0003, 1.2, 0.95, "",
    ),
}  # fmt: skip
"""By name: the default lr, the cost of a step, the loss at the end over AdamW's, how it fails."""


def results(names=("adamw", "sgd:momentum=0.9"), *, seeds=None, reach=1.0, steps=False, seed=0):
    """The document of a comparison; `reach` times a loss of 0.02 is the target."""
    rng, seeds = np.random.default_rng(seed), seeds or max(seeds_needed(len(names) - 1), 5)
    luck = rng.normal(0, 0.02, seeds)
    target = 0.02 * reach
    contenders = [_contender(name, rng, luck, target, steps) for name in names]
    filled = {one["name"]: [UNTRAINED if v is None else v for v in one["values"]]
              for one in contenders}  # fmt: skip
    found = verdicts(filled, "adamw", highest=False)
    for one in contenders:
        one["against"] = asdict(found[one["name"]]) if one["name"] in found else None
        mean = float(np.mean(filled[one["name"]]))
        one |= {"mean": mean, "learned": mean < 0.95 * UNTRAINED}
        one["interval"] = list(interval(filled[one["name"]]))
    contenders.sort(key=lambda one: one["mean"])
    better = [one["name"] for one in contenders
              if one["against"] and one["against"]["verdict"] == "better"]  # fmt: skip
    best = next(one for one in contenders if one["name"] == (better or ["adamw"])[0])
    document = {
        "format": 1,
        "task": {"file": "tunable.py", "arguments": {"width": 64}, "batch_size": 32,
                 "steps_per_epoch": 94, "parameters": 2753},
        "metric": {"name": "validation_loss", "highest": False},
        "budget": {"given": f"{LENGTH * 30}steps" if steps else "40s", "length": LENGTH,
                   "tries": [11, 4, 2], "seeds": [*range(1, seeds + 1)]},
        "costs": None if steps else {name: KINDS[name][1] for name in names},
        "untrained": UNTRAINED,
        "target": {"value": target, "of": "adamw with its defaults"},
        "reference": {"name": "adamw", "lr": 0.001, "length": LENGTH,
                      "values": [0.02 * (1 + one) for one in luck],
                      "curves": [_curve(LENGTH, 0.02 * (1 + one), rng) for one in luck]},
        "contenders": contenders,
        "recommended": best["name"],
        "command": best["command"],
        "again": f"descend compare tunable.py {' '.join(names)} --budget 40s",
        "code": [
            f"optimizer = descend.optimizers.{best['optimizer'].title()}"
            f"(model.parameters(), lr={best['lr']:g})",
            'schedule = descend.schedules.parse("warmup(22) >> value(1, 768) >> linear(338)")',
            'scheduler = descend.Scheduler(optimizer, {"lr": schedule})',
        ],
        "model": "trials/lion-seed3-0123456789",
    }  # fmt: skip
    return document | {"sentence": sentence(document)}


def _contender(name, rng, luck, target, steps):
    default, cost, quality, failing = KINDS[name]
    length = LENGTH if steps else round(LENGTH / cost)
    lrs = [default * 30 ** (number / 4) for number in range(-4, 5)]
    best = lrs[6]

    def loss(lr, at, noise=0.0):
        if failing == NEVER:
            return UNTRAINED * (1 + noise / 10)
        lost = 0.012 * quality * (LENGTH / at) ** 0.8 * (1 + 0.4 * math.log(lr / best) ** 2)
        return None if lr > 5 * best else min(lost * (1 + noise), UNTRAINED)

    search = [
        {"lr": lr, "settings": {}, "length": length // share, "value": loss(lr, length // share)}
        for share, tried in ((9, [*lrs, best * 1.5, best / 1.5]), (3, lrs[4:8]), (1, lrs[5:7]))
        for lr in tried
    ]
    ends = [
        {"length": length // share,
         "values": [loss(best, length // share, one + rng.normal(0, 0.05)) for one in luck]}
        for share in (8, 4, 2, 1)
    ]  # fmt: skip
    if failing == DIVERGED:
        for seed in (1, 2, 5):
            ends[-1]["values"][seed] = None
    by_seed = [[(end["length"], end["values"][at]) for end in ends] for at in range(len(luck))]
    cost = 1.0 if steps else cost
    fractions = [fraction_of_time(one, target, LENGTH, cost, highest=False) for one in by_seed]
    values = ends[-1]["values"]
    optimizer, _, settings = name.rpartition(":") if ".py" in name else name.partition(":")
    return {
        "name": name, "optimizer": optimizer, "settings": dict([settings.split("=")])
        if settings else {}, "default_lr": default, "fixed_lr": False, "length": length,
        "search": search, "lr": best, "chosen": {},
        "schedule": "warmup(22) >> value(1, 768) >> linear(338)",
        "ends": ends, "values": values, "diverged": values.count(None),
        "curves": [_curve(length, value, rng) for value in values],
        "fraction": asdict(median_fraction(fractions)), "state_bytes": 2753 * 8,
        "command": f"descend train tunable.py --arg width=64 --optimizer {optimizer} --lr {best:g} "
        f"--schedule 'lr=warmup(22) >> value(1, 768) >> linear(338)' --steps {length} --seed 1",
    }  # fmt: skip


def _curve(length, end, rng):
    """A loss that falls to its end; of one that diverged, up to where it did."""
    last = length if end is not None else length // 2
    floor = 0.02 if end is None else end
    return [
        [
            step,
            min(floor * (1 + 5 * math.exp(-5 * step / length)), UNTRAINED)
            * (1 + rng.normal(0, 0.02)),
        ]
        for step in [*range(94, last, 94), last]
    ]


def timing(document):
    """The document of the times."""
    costs = document["costs"] or {one["name"]: 1.0 for one in document["contenders"]}
    return {
        "threads": 1, "jobs": 2, "load": 0.3, "processor": "A Processor of 2.10GHz",
        "torch": "2.13.0",
        "steps": {name: {"wall_us": 700 * cost, "processor_us": 690 * cost, "low_us": 680 * cost,
                         "high_us": 740 * cost} for name, cost in costs.items()},
        "trials_s": 71.3, "wall_s": 38.2,
    }  # fmt: skip


def written(folder, document):
    """A folder with the two files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(document))
    (folder / "timing.json").write_text(json.dumps(timing(document)))
    return folder
