"""Trainings of several lengths, each to the end of its own schedule.

A training in the middle of its schedule says little of how it will end: while the learning rate is
high the loss is high, and a decay brings it down. So only ends are compared. With the default
schedule all lengths are alike up to their decays, and share one trunk: a shorter one branches off
from a checkpoint of it, and the trunk goes on, to the bit of a training that never stopped there.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from descend.checkpoint.series import FOLDER
from descend.schedules import parse
from descend.search.trial import Record, Trial, train_trial

WARMUP = 0.02  # of the full length, so that all lengths share it
DECAY = 0.3  # of each training's own length


def schedule_text(
    shape: str | None, full: int, length: int, warmup: float = WARMUP, decay: float = DECAY
) -> str:
    """The schedule of the learning rate in a training of some length, its times in steps.

    Args:
        shape: an expression in fractions of each training's length; None for warmup, constant and
            a decay to zero; "constant" for none at all.
        full: the length of the longest training.
        length: that of this one.
        warmup: of the default schedule, a fraction of the longest.
        decay: of the default schedule, a fraction of this one.

    Example:
        >>> schedule_text(None, 1000, 500), schedule_text("cosine(1)", 1000, 500)
        ('wsd(20, 330, 150)', 'cosine(500)')

    Source: decays that branch off one trunk: A. Hägele et al., Scaling laws and compute-optimal
    training beyond fixed training durations, NeurIPS 2024, https://arxiv.org/abs/2405.18392.
    """
    if shape is None:
        fall, rise = decay_steps(length, decay), round(warmup * full)
        if rise <= length - fall:
            return f"wsd({rise}, {length - fall - rise}, {fall})"
        # It falls before it is all the way up, from where the trunk is there
        return f"warmup({rise}) * (until(constant(), {length - fall}) >> linear({fall}))"
    return "" if shape == "constant" else str(parse(shape).over(length))


def decay_steps(length: int, decay: float = DECAY) -> int:
    """How many steps the default schedule falls."""
    return max(1, round(decay * length))


def train_ends(
    trial: Trial,
    lengths: Sequence[int],
    folder: Path,
    shape: str | None,
    metric: str,
    parts: tuple[float, float] = (WARMUP, DECAY),
) -> list[Record]:
    """Train to several ends, what is common to them once.

    Args:
        trial: of the longest training.
        lengths: up to its steps, ascending.
        folder: of the trial; the shorter ones have theirs in it.
        shape: as for `schedule_text`.
        metric: on the validation data.
        parts: of the default schedule, as for `schedule_text`.

    Returns:
        The record of each end.
    """
    records = []
    for length in lengths:
        if length == trial.steps:
            records.append(train_trial(trial, folder, metric=metric))
            continue
        text = schedule_text(shape, trial.steps, length, *parts)
        before = length - decay_steps(length, parts[1])
        shorter = replace(trial, steps=length, schedules={"lr": text} if text else {})
        place = folder / f"end-{length:08d}"
        if shape == "constant":
            record = train_trial(trial, folder, length, metric=metric)
        elif shape is None and before > 0:
            trunk = train_trial(trial, folder, before, metric=metric)
            broken = trunk.diverged or trunk.error
            record = trunk if broken else train_trial(shorter, place, metric=metric, begin=folder)
        else:
            record = train_trial(shorter, place, metric=metric)
        # An end of its own is not gone on from
        shutil.rmtree(place / FOLDER, ignore_errors=True)
        records.append(record)
    return records
