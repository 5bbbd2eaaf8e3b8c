"""A task trained in a run: it goes on where it stopped, and says how it ended."""

import signal
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from descend.checkpoint.hashing import digest
from descend.checkpoint.series import FOLDER, Best, checkpoints
from descend.errors import DivergedError, TaskError
from descend.lr_scheduler import Scheduler
from descend.run.run import Run
from descend.schedules import Schedule
from descend.training.fit import Epoch, Progress, evaluate, train_epochs
from descend.training.task import Task

AIMS = {"loss": False, "error": False, "accuracy": True}
"""Whether more is better, by the last word of a metric's name."""


@dataclass(frozen=True)
class TaskRun:
    """A task, what trains it, and the run that saves it.

    Args:
        run: over the loader of `training_loader`; it holds the others.
        task: what is trained.
        optimizer: what steps.
        scheduler: what drives the optimizer's hyperparameters, if anything does.
        schedules: what that goes by, for each hyperparameter.
        progress: how far it has come.
        epochs: how many there are in the end.
        batch_size: samples per batch.
        accumulate: batches per step.
    """

    run: Run
    task: Task
    optimizer: Optimizer
    scheduler: Scheduler | None
    schedules: Mapping[str, Schedule]
    progress: Progress
    epochs: int
    batch_size: int
    accumulate: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """How many steps an epoch has."""
        assert self.run.loader.length is not None  # of a map-style dataset
        return self.run.loader.length

    @property
    def folder(self) -> Path:
        """The run's."""
        assert self.run.folder is not None
        return self.run.folder

    @property
    def steps(self) -> int:
        """How many steps are done."""
        return len(self.progress.records) * self.steps_per_epoch + self.progress.batches

    @property
    def seconds(self) -> float:
        """How long the steps and the validations took, in all processes."""
        return sum(record.seconds for record in self.progress.records) + self.progress.seconds

    @property
    def base_lr(self) -> float:
        """The learning rate that was asked for, or the optimizer's own; schedules apart."""
        if self.scheduler is None:
            return float(self.optimizer.param_groups[0]["lr"])
        return float(self.scheduler.base_lrs[0])

    @property
    def newest(self) -> Path | None:
        """The checkpoint that another process would go on from, or None."""
        saved = checkpoints(self.folder / FOLDER)
        return saved[-1] if saved else None

    @property
    def came_to_nothing(self) -> bool:
        """Whether it is a new run without a single step."""
        return self.run.resumed_from is None and self.steps == 0

    def digest(self) -> str:
        """A hash of every bit of the model and of the optimizer."""
        return digest(
            {"model": self.task.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        )


@dataclass(frozen=True)
class Ending:
    """How a training ended.

    Args:
        stopped: what ended it early, or None.
        why: more about that, if there is more to say.
        at_once: whether nothing was saved at this end: what has come since the newest checkpoint
            is lost.
        test: the loss and the metrics on the test data, where they were measured.
    """

    stopped: Literal["interrupted", "terminated", "diverged"] | None
    why: str = ""
    at_once: bool = False
    test: dict[str, float] = field(default_factory=dict)


def train_task(
    training: TaskRun,
    *,
    on_batch: Callable[[int], None],
    on_epoch: Callable[[Epoch], None],
) -> Ending:
    """Train what is left, log each epoch, and measure the test data at the end.

    Args:
        training: what to train.
        on_batch: called with the number of batches done after each step.
        on_epoch: called with each epoch's record, after it was logged.

    Returns:
        How it ended: through; stopped by Ctrl-C or SIGTERM, with the state saved; diverged.

    Raises:
        KeyboardInterrupt: it was stopped at once.
        TaskError: as `fit`.
    """
    run, task = training.run, training.task

    def after_batch(phase: str, done: int, batches: int) -> None:
        if phase == "train":
            on_batch(done)
        else:
            run.check()

    def after_epoch(record: Epoch) -> None:
        run.log(**epoch_figures(record))
        on_epoch(record)

    try:
        with closing(run.epochs()) as epochs:  # not when an error is forgotten
            train_epochs(
                task,
                training.optimizer,
                epochs,
                training.progress,
                batch_size=training.batch_size,
                accumulate=training.accumulate,
                scheduler=training.scheduler,
                on_batch=after_batch,
                on_epoch=after_epoch,
            )
        if divergence := training.progress.divergence:
            return Ending("diverged", divergence)
        if task.test is None:
            return Ending(None)
        test = evaluate(task, task.test, batch_size=training.batch_size)
    except (KeyboardInterrupt, SystemExit):
        if run.stopped_by is None:  # not where the state was whole
            raise
        return Ending("interrupted" if run.stopped_by is signal.SIGINT else "terminated")
    except DivergedError as error:
        return Ending("diverged", str(error))
    run.log(**{f"test_{name}": value for name, value in test.items()})
    return Ending(None, test=test)


def best_of(task: Task, name: str, highest: bool | None) -> Best:
    """The measure of the best checkpoint of a task's training.

    Args:
        task: what is trained.
        name: of what is logged; `validation_` may be left out.
        highest: whether more is better; None where the name tells.

    Raises:
        TaskError: nothing of that name is logged, or its name does not tell.

    Example:
        >>> best_of(task, "accuracy", None)
        Best(metric='validation_accuracy', highest=True)
    """
    names = ["train_loss", "validation_loss", *(f"validation_{one}" for one in task.metrics)]
    full = name if name in names else f"validation_{name}"
    if full not in names:
        raise TaskError(f"--best {name}: no such metric is measured; allowed: {', '.join(names)}")
    if highest is None:
        word = full.rpartition("_")[2]
        if word not in AIMS:
            raise TaskError(
                f"--best {name}: whether it is best when highest or lowest is not known; give "
                f"{name}:highest or {name}:lowest"
            )
        highest = AIMS[word]
    return Best(full, highest)


def move(task: Task, device: torch.device) -> None:
    """Put the model of a task, and its loss where that is a module, on a device."""
    task.model.to(device)
    if isinstance(task.loss, nn.Module):
        task.loss.to(device)


def epoch_figures(record: Epoch) -> dict[str, Any]:
    """The figures of an epoch, by the names that the log has.

    Example:
        >>> list(epoch_figures(Epoch(1, 0.7, 0.5, {"accuracy": 0.9}, 0.001, 0.2)))
        ['train_loss', 'validation_loss', 'validation_accuracy', 'lr', 'seconds']
    """
    return {
        "train_loss": record.train_loss,
        "validation_loss": record.validation_loss,
        **{f"validation_{name}": value for name, value in record.metrics.items()},
        "lr": record.lr,
        "seconds": round(record.seconds, 4),
    }
