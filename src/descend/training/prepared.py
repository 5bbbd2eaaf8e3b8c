"""A task made ready to be trained: its module, an optimizer and its schedules."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import nn
from torch.optim import Optimizer

from descend.errors import TaskError
from descend.grouping import param_groups_matrices
from descend.lr_scheduler import Scheduler
from descend.schedules import Schedule
from descend.training.data_module import DataModule
from descend.training.module import Module
from descend.training.module_task import ModuleTask
from descend.training.scheduling import attach, in_steps
from descend.training.task import Task
from descend.training.task_module import TaskModule


def is_for_matrices(make_optimizer: Callable[..., Any], settings: Mapping[str, Any]) -> bool:
    """Whether an optimizer takes matrices and leaves the rest of its groups to AdamW.

    Args:
        make_optimizer: its class: one that has the switch `adamw`.
        settings: its hyperparameters; the switch among them is for all groups.
    """
    declared = getattr(make_optimizer, "hyperparameters", {})
    return "adamw" in declared and "adamw" not in settings


def parameters_for(
    make_optimizer: Callable[..., Any], model: nn.Module, settings: Mapping[str, Any]
) -> Any:
    """The parameters of a model as an optimizer gets them: in groups, where it is for matrices."""
    if is_for_matrices(make_optimizer, settings):
        return param_groups_matrices(model)
    return model.named_parameters()


def parameters_of_copy(
    make_optimizer: Callable[..., Any],
    model: nn.Module,
    settings: Mapping[str, Any],
    parameters: list[nn.Parameter],
) -> list[Any]:
    """The parameters of a copy of the model, in the same groups."""
    if not is_for_matrices(make_optimizer, settings):
        return parameters
    own = {id(old): new for old, new in zip(model.parameters(), parameters, strict=True)}
    return [
        {**group, "params": [own[id(old)] for _, old in group["params"]]}
        for group in param_groups_matrices(model)
    ]


class Prepared(NamedTuple):
    """All that a trainer needs to train a task.

    Attributes:
        task: with its model.
        module: of the task; its `configure_optimizers` gives the optimizer and the scheduler.
        data: what makes the loaders, where the task is a module; else None.
        batch_size: samples per batch; None where only the loaders know.
        optimizer: what steps.
        scheduler: what drives its hyperparameters, if anything does.
        schedules: what that goes by, for each hyperparameter, in steps.
        epochs: how many there are; of the last one, where `steps` end it, only a part.
        steps: how many steps the training has.
        steps_per_epoch: how many steps a whole epoch has.
    """

    task: Task | ModuleTask
    module: Module
    data: DataModule | None
    batch_size: int | None
    optimizer: Optimizer
    scheduler: Scheduler | None
    schedules: dict[str, Schedule]
    epochs: int
    steps: int
    steps_per_epoch: int


def prepare(
    task: Task | ModuleTask,
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
        TaskError: the data of a module cannot be counted, or take no batch size.
    """
    given = {} if lr is None else {"lr": lr}
    optimizer = make_optimizer(
        parameters_for(make_optimizer, task.model, settings), **given, **settings
    )
    data: DataModule | None = None
    if isinstance(task, ModuleTask):
        data = task.data(batch_size, workers)
        loader = task.loader(data, "train")
    else:
        of_task = TaskModule(task, optimizer, batch_size, workers)
        loader = of_task.train_dataloader()
    each = -(-_length(loader) // accumulate)
    if steps is None:
        epochs = epochs or task.epochs
        steps = epochs * each
    else:
        epochs = -(-steps // each)
    timed = in_steps(schedules, unit, steps, each)
    scheduler = attach(timed, optimizer, steps)
    module: Module
    if isinstance(task, ModuleTask):
        module = task.trained_by(optimizer, scheduler)
    else:
        module = of_task
        if scheduler is not None:
            of_task.optimizer = lambda parameters: ([optimizer], [scheduler])
    size = getattr(loader, "batch_size", None)
    return Prepared(task, module, data, size, optimizer, scheduler, timed, epochs, steps, each)


def _length(loader: Any) -> int:
    """How many batches a loader has."""
    try:
        return len(loader)
    except TypeError as error:
        raise TaskError(
            f"the training data must be batches that can be counted, and are a "
            f"{type(loader).__name__} without a length"
        ) from error
