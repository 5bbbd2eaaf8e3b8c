"""Schedules put on an optimizer for a run whose length is known."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch.optim import Optimizer

from descend.engine.hyperparameters import validate
from descend.errors import HyperparameterError, ScheduleError
from descend.lr_scheduler import Scheduler
from descend.lr_scheduler.group_values import has_number
from descend.schedules import Schedule, mistakes
from descend.spelling import hint

MOST_CHECKED = 1_000_000  # steps; of more, so many are looked at


def in_steps(
    schedules: Mapping[str, Schedule], unit: str | None, steps: int, steps_per_epoch: int
) -> dict[str, Schedule]:
    """Schedules whose times are steps.

    Args:
        schedules: by hyperparameter.
        unit: of their times: "step" or None, "epoch", or "fraction" of the run.
        steps: how many the run has.
        steps_per_epoch: how many of them an epoch has.

    Example:
        >>> from descend.schedules import linear
        >>> in_steps({"lr": linear(2)}, "epoch", steps=42, steps_per_epoch=21)
        {'lr': linear(42)}
    """
    if unit == "epoch":
        return {key: one.in_epochs(steps_per_epoch) for key, one in schedules.items()}
    if unit == "fraction":
        return {key: one.over(steps) for key, one in schedules.items()}
    return dict(schedules)


def attach(schedules: Mapping[str, Schedule], optimizer: Optimizer, steps: int) -> Scheduler | None:
    """A scheduler that keeps every hyperparameter in its range for the whole run.

    Args:
        schedules: by hyperparameter, in steps.
        optimizer: what they drive.
        steps: how many the run has.

    Returns:
        The scheduler; None where there are no schedules.

    Raises:
        ScheduleError: the optimizer has no such hyperparameter, or a value is out of its range.

    Example:
        >>> import descend, torch
        >>> from descend.schedules import cosine
        >>> optimizer = descend.AdamW([torch.nn.Parameter(torch.ones(1))])
        >>> attach({"lr": cosine(420)}, optimizer, steps=420).schedules
        {'lr': 'cosine(420)'}
    """
    if not schedules:
        return None
    for key in schedules:
        _refuse_unscheduled(key, optimizer)
    given: dict[str, Any] = dict(schedules)
    scheduler = Scheduler(optimizer, **given)
    for key, schedule in schedules.items():
        _refuse_out_of_range(key, schedule, optimizer, steps)
    return scheduler


def doubts(
    schedules: Mapping[str, Schedule],
    optimizer: Optimizer,
    lr: float | None,
    steps: int,
    steps_per_epoch: int,
) -> Iterator[str]:
    """Whatever of a schedule is likely not meant, in words.

    Args:
        schedules: by hyperparameter, in steps, attached to the optimizer.
        optimizer: what they drive.
        lr: the one that the user has asked for, if any.
        steps: how many the run has.
        steps_per_epoch: how many an epoch has.
    """
    for key, schedule in schedules.items():
        yield from mistakes(schedule, steps, steps_per_epoch, key)
        if schedule.curve.factor and optimizer.param_groups[0][f"initial_{key}"] == 0:
            yield f"{key}: it is 0, and so is a factor of it; give values: value({schedule})"
        if key == "lr" and schedule.curve.absolute and lr is not None:
            yield f"{key}: the schedule gives values, so --lr {lr:g} has no effect"


def scheduled(
    key: str, schedule: Schedule, optimizer: Optimizer, steps: Sequence[int]
) -> list[float]:
    """The values of a hyperparameter in some steps.

    Args:
        key: of the hyperparameter.
        schedule: its schedule, attached to the optimizer.
        optimizer: what that drives.
        steps: which, from 0.
    """
    base = optimizer.param_groups[0][f"initial_{key}"]
    return [schedule(step, base) for step in steps]


def spaced(steps: int, most: int) -> list[int]:
    """The steps from 0 to a last one, or so many of them at equal distances, and the last.

    Example:
        >>> spaced(3, 100), spaced(9, 4)
        ([0, 1, 2, 3], [0, 3, 6, 9])
    """
    every = -(-steps // most) or 1
    return [*range(0, steps, every), steps]


def _refuse_unscheduled(key: str, optimizer: Optimizer) -> None:
    """Refuse a hyperparameter that is no number, or not there at all."""
    group = getattr(optimizer, "options_of", dict)(optimizer.param_groups[0])
    known = [name for name in (*group, "beta1", "beta2") if has_number(group, name)]
    if key not in known:
        raise ScheduleError(
            f"--schedule {key}: {type(optimizer).__name__} has no number of that name; "
            f"{hint(key, known)}allowed: {', '.join(known)}"
        )


def _refuse_out_of_range(key: str, schedule: Schedule, optimizer: Optimizer, steps: int) -> None:
    """Refuse a schedule that leaves the range: in the middle of the run nobody would look."""
    owner, table = type(optimizer).__name__, getattr(optimizer, "hyperparameters", {})
    name = "betas" if key in ("beta1", "beta2") else key
    if name not in table:
        return
    times = spaced(steps, MOST_CHECKED)
    values = scheduled(key, schedule, optimizer, times)
    for at in (int(np.argmin(values)), int(np.argmax(values))):  # a NaN is both
        value = values[at]
        given = {name: (value, value) if name == "betas" else value}
        try:
            validate(owner, table, given, f"step {times[at]}")
        except HyperparameterError as error:
            raise ScheduleError(f"--schedule {key}: {error}") from error
