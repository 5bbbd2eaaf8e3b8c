"""The suite's published targets and tuned baselines, in `targets.json`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("targets.json")
FORMAT = 1


@dataclass(frozen=True)
class Baseline:
    """A tuned optimizer on a task of the suite.

    Args:
        name: of the contender, such as "sgd:momentum=0.9".
        lr: the best one found.
        chosen: what else was found.
        schedule: of the learning rate, times in steps.
        mean: of the validation loss at the end, over seeds; None where one diverged.
        fraction: of the steps of AdamW's defaults until their loss is reached: `median`, `low` and
            `high`; None where it was not measured.
    """

    name: str
    lr: float
    chosen: Mapping[str, Any]
    schedule: str
    mean: float | None
    fraction: Mapping[str, float | None] | None


@dataclass(frozen=True)
class PublishedTask:
    """A task of the suite: its target, and who reaches how much.

    Args:
        length: of a training, in steps.
        parameters: of the model.
        untrained: the validation loss before the first step, the mean over seeds.
        target: the validation loss that AdamW reaches with its defaults and a constant lr at the
            full length, the mean over seeds.
        seeds: of which.
        baselines: tuned optimizers, the best first.
    """

    length: int
    parameters: int
    untrained: float
    target: float
    seeds: Sequence[int]
    baselines: Sequence[Baseline]


def published_tasks() -> dict[str, PublishedTask]:
    """The targets and baselines in the repository, by the task's name.

    Example:
        >>> published_tasks()["digits_cnn"].length
        544
    """
    document = json.loads(FILE.read_text("utf-8"))
    assert document["format"] == FORMAT
    return {
        name: PublishedTask(**{**task, "baselines": [Baseline(**one) for one in task["baselines"]]})
        for name, task in document["tasks"].items()
    }


def as_published(results: Mapping[str, Any]) -> PublishedTask:
    """The part of a comparison's results that is published."""
    names = [one.name for one in fields(Baseline) if one.name != "fraction"]
    baselines = [
        Baseline(
            **{name: one[name] for name in names},
            fraction={name: one["fraction"][name] for name in ("median", "low", "high")},
        )
        for one in results["contenders"]
    ]
    return PublishedTask(
        length=results["budget"]["length"],
        parameters=results["task"]["parameters"],
        untrained=results["untrained"],
        target=results["target"]["value"],
        seeds=results["budget"]["seeds"],
        baselines=baselines,
    )


def document(tasks: Mapping[str, PublishedTask]) -> dict[str, Any]:
    """The content of `targets.json`."""
    return {"format": FORMAT, "tasks": {name: asdict(task) for name, task in tasks.items()}}
