"""The time of a step of each contender: measured by turns, in this machine's state of now."""

import os
import platform
import statistics
import time
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch

from descend.errors import DescendError
from descend.search.trial import Trial, made_ready, metric_of
from descend.search.workers import Workers
from descend.training.callbacks.callback import Callback
from descend.training.trainer import Trainer
from descend.user_file import describe

ROUNDS = 5
WARM = 3  # steps that are not counted: kernels are loaded, plans made
FEWEST, MOST = 12, 200  # steps a round
ENOUGH = 0.08  # seconds a round
KINDS = ("wall", "processor", "validation")


class _Clock(Callback):
    """Notes when each batch is done, by the wall's clock and by the processor's."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the time; ask for the end when there is enough."""
        now = time.perf_counter(), time.process_time()
        self.times.append(now)
        if len(self.times) >= FEWEST and now[0] - self.times[WARM - 1][0] > ENOUGH:
            trainer.should_stop = True


def measured_times(
    trials: Mapping[str, Trial], workers: Workers[Any], metric: str
) -> dict[str, Any]:
    """Measure how long a step takes, in all processes at once: so it is when trials are trained.

    Args:
        trials: by name; each with a small lr, at which nothing diverges.
        workers: that train them.
        metric: that has to be among what is measured.

    Returns:
        Plain data: "steps" by name, in microseconds a step: by the wall's clock the median and the
        quartiles over rounds, by the processor's clock the median; and of one measurement of the
        validation data. Where the user's code failed: "error". Beside it, what the machine is.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    found = [one for _, one in workers.run({
        number: (_rounds, (dict(trials), metric)) for number in range(workers.jobs)
    })]  # fmt: skip
    steps: dict[str, dict[str, Any]] = {}
    for name in trials:
        of_all = [one[name] for one in found]
        if errors := [one["error"] for one in of_all if "error" in one]:
            steps[name] = {"error": errors[0]}
            continue
        wall, processor, validation = (
            [1e6 * value for one in of_all for value in one[kind]] for kind in KINDS
        )
        low, middle, high = statistics.quantiles(wall)
        steps[name] = {
            "wall_us": middle, "low_us": low, "high_us": high,
            "processor_us": statistics.median(processor),
            "validation_us": statistics.median(validation),
        }  # fmt: skip
    return {
        "threads": workers.threads,
        "jobs": workers.jobs,
        "load": load,
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "steps": steps,
    }


def _rounds(trials: Mapping[str, Trial], metric: str) -> dict[str, dict[str, Any]]:
    """Seconds a step of each trial, by turns: nothing else is fair on a machine that is busy."""
    found: dict[str, dict[str, Any]] = {name: {kind: [] for kind in KINDS} for name in trials}
    for _ in range(ROUNDS):
        for name, trial in trials.items():
            if "error" in found[name]:
                continue
            try:
                measured = _round(trial, metric)
            except DescendError as error:
                found[name] = {"error": describe(error)}
                continue
            for kind, value in zip(KINDS, measured, strict=True):
                found[name][kind].append(value)
    return found


def _round(trial: Trial, metric: str) -> tuple[float, float, float]:
    """Seconds a step by both clocks, and of a measurement of the validation data."""
    clock = _Clock()
    with trial.told_of():
        ready = made_ready(trial)
        trainer = Trainer(
            max_epochs=-1,
            max_steps=MOST,
            seed=trial.seed,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            log_every_n_steps=0,
            callbacks=clock,
            enable_progress_bar=False,
        )
        trainer.device = ready.module.device
        trainer.fit(ready.module, datamodule=ready.data)
        walls, processors = zip(*clock.times[WARM - 1 :], strict=True)
        began = time.perf_counter()
        trainer.limit_val_batches = 1.0
        trainer.validate(ready.module, verbose=False, datamodule=ready.data)
        metric_of(trainer.metrics.latest, metric)
    step = statistics.median(b - a for a, b in pairwise(walls))
    # Of the processor's clock, which ticks coarsely, the mean of all
    mean = (processors[-1] - processors[0]) / (len(processors) - 1)
    return step, mean, time.perf_counter() - began
