"""A task trained by a trainer: it goes on where it stopped, and says how it ended."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.optim import Optimizer

from descend.checkpoint.hashing import digest
from descend.checkpoint.series import FOLDER, Best, checkpoints
from descend.errors import DivergedError, TaskError
from descend.lr_scheduler import Scheduler
from descend.schedules import Schedule
from descend.training.data_module import DataModule
from descend.training.epoch_records import EpochRecords
from descend.training.module import Module
from descend.training.module_task import ModuleTask
from descend.training.task import Task
from descend.training.trainer import Trainer

AIMS = {"loss": False, "error": False, "accuracy": True}
"""Whether more is better, by the last word of a metric's name."""


@dataclass(frozen=True)
class TaskRun:
    """A task, and what trains it.

    Args:
        task: what is trained.
        trainer: with `progress` among its callbacks.
        module: of the task.
        data: what makes the loaders, where the task is a module; else None.
        batch_size: samples per batch; None where only the loaders know.
        optimizer: what steps.
        scheduler: what drives the optimizer's hyperparameters, if anything does.
        schedules: what that goes by, for each hyperparameter.
        progress: the epochs that are over.
        epochs: how many there are in the end.
        length: how many steps there are in the end.
    """

    task: Task | ModuleTask
    trainer: Trainer
    module: Module
    data: DataModule | None
    batch_size: int | None
    optimizer: Optimizer
    scheduler: Scheduler | None
    schedules: Mapping[str, Schedule]
    progress: EpochRecords
    epochs: int
    length: int

    @property
    def folder(self) -> Path:
        """The run's folder."""
        run = self.trainer.run
        found: Path | None = self.trainer.folder if run is None else run.folder
        assert found is not None
        return found

    @property
    def accumulate(self) -> int:
        """Batches per step."""
        return self.trainer.accumulate_grad_batches

    @property
    def steps_per_epoch(self) -> int:
        """How many steps an epoch has."""
        return -(-int(self.trainer.num_training_batches) // self.accumulate)

    @property
    def steps_in_epoch(self) -> int:
        """How many steps of the epoch under way are done."""
        position: int = self.trainer.run.loader.position
        return -(-position // self.accumulate)

    @property
    def by_adamw(self) -> int:
        """How many parameters an optimizer of matrices leaves to AdamW."""
        groups = self.optimizer.param_groups
        return sum(len(one["params"]) for one in groups if one.get("adamw"))

    @property
    def steps(self) -> int:
        """How many steps are done."""
        return 0 if self.trainer.step is None else self.trainer.step.windows

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
    def is_tested(self) -> bool:
        """Whether there are test data."""
        if isinstance(self.task, Task):
            return self.task.test is not None
        assert self.data is not None
        self.data.setup("test")
        return hasattr(self.module, "test_step") and self.task.loader(self.data, "test") is not None

    @property
    def came_to_nothing(self) -> bool:
        """Whether it is a new run without a single step."""
        run = self.trainer.run
        if run is None:  # refused before it was there
            return self.newest is None
        return run.resumed_from is None and self.steps == 0

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


def train_task(training: TaskRun) -> Ending:
    """Train what is left, and measure the test data at the end.

    Args:
        training: what to train.

    Returns:
        How it ended: through; stopped by Ctrl-C or SIGTERM, with the state saved; diverged.

    Raises:
        KeyboardInterrupt: it was stopped at once.
        TaskError: a part of the task failed.
    """
    trainer, module = training.trainer, training.module
    try:
        trainer.fit(module, datamodule=training.data)
        if divergence := training.progress.divergence:
            return Ending("diverged", divergence)
        if not training.is_tested:
            return Ending(None)
        (test,) = trainer.test(module, datamodule=training.data)
    except (KeyboardInterrupt, SystemExit):
        run = trainer.run
        if run is None or run.stopped_by is None:  # not where the state was whole
            raise
        return Ending("interrupted" if run.stopped_by is signal.SIGINT else "terminated")
    except DivergedError as error:
        return Ending("diverged", str(error))
    return Ending(None, test={name.removeprefix("test_"): value for name, value in test.items()})


def best_of(task: Task | ModuleTask, name: str, highest: bool | None) -> Best:
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
    full = name
    if isinstance(task, Task):  # of a module it shows when it logs
        names = ["train_loss", "validation_loss", *(f"validation_{one}" for one in task.metrics)]
        full = name if name in names else f"validation_{name}"
        if full not in names:
            raise TaskError(
                f"--best {name}: no such metric is measured; allowed: {', '.join(names)}"
            )
    return Best(full, is_highest_best(full, highest, f"--best {name}"))


def is_highest_best(metric: str, highest: bool | None, asked: str) -> bool:
    """Whether more of a metric is better, by its name where nobody says so.

    Args:
        metric: its name.
        highest: as it was said; None where the name has to tell.
        asked: the option, for the message.

    Raises:
        TaskError: its name does not tell.

    Example:
        >>> is_highest_best("validation_accuracy", None, "--best accuracy")
        True
    """
    if highest is not None:
        return highest
    word, given = metric.rpartition("_")[2], asked.rpartition(" ")[2]
    if word not in AIMS:
        raise TaskError(
            f"{asked}: whether it is best when highest or lowest is not known; give "
            f"{given}:highest or {given}:lowest"
        )
    return AIMS[word]


def move(task: Task | ModuleTask, device: torch.device) -> None:
    """Put the model of a task, and its loss where that is a module, on a device."""
    task.model.to(device)
    if isinstance(task, Task) and isinstance(task.loss, nn.Module):
        task.loss.to(device)
