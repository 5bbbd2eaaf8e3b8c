"""A training in words, and as a document: what `descend train` prints of it."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from descend.format import counted
from descend.optimizer_lookup import settable, shown

if TYPE_CHECKING:
    import torch

    from descend.training import Epoch
    from descend.training.task_run import Ending, TaskRun


def opening(
    training: "TaskRun",
    source: str,
    arguments: Mapping[str, object],
    optimizer: str,
    settings: Mapping[str, object],
) -> Iterator[str]:
    """The task, the data and the options, and from where the run goes on."""
    from descend.format import plain_text
    from descend.training.task import Task, sample_count

    task, run = training.task, training.trainer.run
    source += "".join(f", {name} {plain_text(value)}" for name, value in arguments.items())
    if isinstance(task, Task):
        sizes = (
            f"{sample_count(task.train)} training and {sample_count(task.validation)} validation"
        )
        if task.test is not None:
            sizes = sizes.replace(" and", ",") + f" and {sample_count(task.test)} test"
        sizes += " samples"
    else:
        batches = int(training.trainer.num_training_batches)
        each = counted(batches, "training batch", "training batches")
        sizes = f"{type(task.model).__name__}, {each}"
    numbers = sum(parameter.numel() for parameter in task.model.parameters())
    yield f"{source}: {sizes}; {counted(numbers, 'parameter')}"
    more = "".join(f", {name} {plain_text(value)}" for name, value in settings.items())
    to_a_step = f", {training.accumulate} to a step" if training.accumulate > 1 else ""
    of_batches = f", batches of {training.batch_size}" if training.batch_size else ""
    yield (
        f"{optimizer}, lr {training.base_lr:g}{more}{of_batches}{to_a_step}, seed {run.loader.seed}"
    )
    if training.by_adamw:
        every = len([*task.model.parameters()])
        matrices = counted(every - training.by_adamw, "hidden matrix", "hidden matrices")
        yield f"{matrices} by {optimizer}, the other {training.by_adamw} of {every} by AdamW"
    for key, schedule in training.schedules.items():
        yield f"schedule of {key}, {counted(training.length, 'step')}: {schedule}"
    if run.resumed_from is not None:
        yield _going_on(training)


def _going_on(training: "TaskRun") -> str:
    run, done = training.trainer.run, training.progress.epochs
    if run.is_over:
        in_steps = training.trainer.max_steps >= 0
        reached = counted(training.steps, "step") if in_steps else counted(done, "epoch")
        more = "--steps" if in_steps else "--epochs"
        return f"{run.folder} is complete with {reached}: more {more} go on, --fresh starts over"
    batches = training.steps_in_epoch
    part = f" and {batches} of {_batches(training, training.steps_per_epoch)}" if batches else ""
    return f"{run.folder} goes on after {counted(done, 'epoch')}{part}; --fresh starts over"


def _batches(training: "TaskRun", number: int) -> str:
    """So many batches, or what takes their place where several make a step."""
    return counted(number, *(("batch", "batches") if training.accumulate == 1 else ("step",)))


def epoch_line(record: "Epoch", epochs: int) -> str:
    """The losses, metrics and lr of an epoch, and its time."""
    shown = record.metrics or {"loss": record.validation_loss}
    values = "  ".join(f"validation {name} {_value(name, x, 2, 4)}" for name, x in shown.items())
    return (
        f"epoch {record.epoch:{len(str(epochs))}}/{epochs}  train loss {record.train_loss:.4f}  "
        f"{values}  lr {record.lr:g}  {record.seconds:.2f} s"
    )


def result_lines(training: "TaskRun", ending: "Ending") -> Iterator[str]:
    """The test metrics, the folder and the digest of a training that is through."""
    progress = training.progress
    if progress.partial:
        yield (
            f"measured after {counted(training.steps, 'step')}, where the training ends: within "
            f"epoch {progress.records[-1].epoch}"
        )
    for name in [name for name in ending.test if name != "loss"] or ending.test:
        yield f"test {name}: {_value(name, ending.test[name], 1, 6)}"
    yield f"run folder: {training.folder}"
    yield f"state: {training.digest()}"


def stop_line(training: "TaskRun", ending: "Ending") -> str:
    """Why a training ended early, and what is left of it."""
    epochs, folder = training.progress.epochs, training.folder
    if ending.stopped == "diverged":
        left = f"; {folder} holds {counted(epochs, 'epoch')}" if epochs else ""
        return f"{ending.why}{left}"
    if ending.at_once:
        return str(ending.stopped)
    return (
        f"{ending.stopped} after {counted(epochs, 'epoch')} and "
        f"{_batches(training, training.steps_in_epoch)}; {folder} holds all up to there, and the "
        f"same command goes on"
    )


def document(training: "TaskRun", ending: "Ending", options: Mapping[str, Any]) -> dict[str, Any]:
    """A training that has ended, as plain data.

    Args:
        training: what was trained.
        ending: how it ended.
        options: of the command, by name.

    Returns:
        `stopped` is null for one that is through, and only that has `test` and `state`. `seconds`
        are those of all processes. `checkpoint` is where the same command goes on from, and
        `resumed_from` where this one did.
    """
    run, records, newest = training.trainer.run, training.progress.records, training.newest
    return {
        "folder": str(run.folder),
        "stopped": ending.stopped,
        "why": stop_line(training, ending) if ending.stopped else None,
        "options": {name: _option(value) for name, value in options.items()},
        "epochs": training.progress.epochs,
        "batches": training.steps_in_epoch,
        "steps": training.steps,
        "resumed_from": run.resumed_from and str(run.resumed_from),
        "checkpoint": newest and str(newest),
        "lr": training.base_lr,
        "last": {"epoch": records[-1].epoch, **records[-1].figures()} if records else None,
        "test": ending.test or None,
        "state": None if ending.stopped else training.digest(),
        "seconds": round(training.progress.seconds, 4),
    }


def _option(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _option(one) for key, one in value.items()}
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _value(name: str, value: float, decimals: int, digits: int) -> str:
    return f"{100 * value:.{decimals}f} %" if name == "accuracy" else f"{value:.{digits}g}"


def argument_lines(path: Path | None, seed: int) -> list[str]:
    """The values that --arg takes with a task, in text."""
    from inspect import Parameter

    from descend.report.tables import screen, table
    from descend.training.task_file import task_file

    if path is None:
        return ["--arg is for the function of a TASK.py, and none is given"]
    file = task_file(path, seed)
    if not file.arguments:
        return [f"{file.path} has no arguments: it defines a Task, and no function that makes one"]
    rows = [
        [
            name,
            "needed" if default is Parameter.empty else str(default),
            " or ".join("None" if one is type(None) else one.__name__ for one in file.kinds[name]),
        ]
        for name, default in file.arguments.items()
    ]
    return table(
        [f"--arg, of {file.path}", "default", "what it is"], rows, screen(), left=(0, 1, 2)
    )


def settings_lines(rule: str, make: "Callable[..., torch.optim.Optimizer]") -> list[str]:
    """The values that --set takes with an optimizer, in text."""
    from descend.report.tables import screen, table

    rows = [
        [
            name,
            *(("", "") if one is None else (shown(one.default), f"{one.meaning} ({one.allowed})")),
        ]
        for name, one in settable(make).items()
    ]
    if not rows:
        return [f"{rule} has no hyperparameters beside lr"]
    header = [f"--set, with {rule}", "default", "what it is, and allowed"]
    return table(header, rows, screen(), left=(0, 1, 2))
