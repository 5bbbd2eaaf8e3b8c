"""A task made ready to be trained: its module, an optimizer and its schedules."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch.optim import Optimizer

from descend.lr_scheduler import Scheduler
from descend.schedules import Schedule
from descend.training.scheduling import attach, in_steps
from descend.training.task import Task
from descend.training.task_module import TaskModule


class Prepared(NamedTuple):
    """All that a trainer needs to train a task.

    Attributes:
        module: of the task; its `configure_optimizers` gives the optimizer and the scheduler.
        optimizer: what steps.
        scheduler: what drives its hyperparameters, if anything does.
        schedules: what that goes by, for each hyperparameter, in steps.
        epochs: how many there are; of the last one, where `steps` end it, only a part.
        steps: how many steps the training has.
        steps_per_epoch: how many steps a whole epoch has.
    """

    module: TaskModule
    optimizer: Optimizer
    scheduler: Scheduler | None
    schedules: dict[str, Schedule]
    epochs: int
    steps: int
    steps_per_epoch: int


def prepare(
    task: Task,
    make_optimizer: Callable[..., Optimizer],
    *,
    lr: float | None = None,
    settings: Mapping[str, Any],
    schedules: Mapping[str, Schedule],
    unit: str | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    accumulate: int = 1,
    workers: int = 0,
) -> Prepared:
    """Make a task ready: equal arguments, after equal seeds, train to equal bits.

    Args:
        task: with a model that was just made.
        make_optimizer: its class.
        lr: the learning rate; None for the optimizer's own.
        settings: its other hyperparameters.
        schedules: by hyperparameter.
        unit: of their times: "step" or None, "epoch", or "fraction" of the training.
        epochs: how many; the task's own where neither these nor `steps` are given.
        steps: how many steps, in place of epochs.
        batch_size: samples per batch; None for the task's.
        accumulate: batches per step.
        workers: how many processes fetch the samples.

    Raises:
        ScheduleError: a schedule does not fit the optimizer.
    """
    given = {} if lr is None else {"lr": lr}
    optimizer = make_optimizer(task.model.named_parameters(), **given, **settings)
    module = TaskModule(task, optimizer, batch_size, workers)
    each = -(-len(module.train_dataloader()) // accumulate)
    if steps is None:
        epochs = epochs or task.epochs
        steps = epochs * each
    else:
        epochs = -(-steps // each)
    timed = in_steps(schedules, unit, steps, each)
    scheduler = attach(timed, optimizer, steps)
    if scheduler is not None:
        module.optimizer = lambda parameters: ([optimizer], [scheduler])
    return Prepared(module, optimizer, scheduler, timed, epochs, steps, each)
