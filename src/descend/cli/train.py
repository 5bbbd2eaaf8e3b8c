"""`descend train`: train a task and leave a run folder."""

import difflib
import inspect
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from descend.cli.learning_rate import check_lr
from descend.errors import (
    CheckpointWarning,
    DivergedError,
    HyperparameterError,
    OutputError,
    ResumeWarning,
    ScheduleError,
    StateError,
    TaskError,
)

if TYPE_CHECKING:
    import torch
    from rich.progress import TaskID

    from descend.lr_scheduler import Scheduler
    from descend.schedules import Schedule
    from descend.training import Epoch, Run, Task
    from descend.training.fit import Progress

DIVERGED, INTERRUPTED, TERMINATED = 1, 130, 143
DEFAULT_EPOCHS, DEFAULT_BATCH_SIZE = 20, 64
SHIPPED = "the shipped digits"
DEFAULT_OPTIMIZER = "adamw"
LARGEST_SEED = 2**32 - 1  # numpy takes no larger one
UNITS = ("step", "epoch", "fraction")


def _check_count(ctx: click.Context, option: click.Parameter, value: str) -> int:
    return _whole(option, value, 1, None)


def _check_count_or_none(
    ctx: click.Context, option: click.Parameter, value: str | None
) -> int | None:
    return None if value is None else _whole(option, value, 1, None)


def _check_seed(ctx: click.Context, option: click.Parameter, value: str) -> int:
    return _whole(option, value, 0, LARGEST_SEED)


def _whole(option: click.Parameter, value: str, least: int, most: int | None) -> int:
    try:
        number = int(value)
    except ValueError:
        number = least - 1
    if number < least or (most is not None and number > most):
        allowed = f"from {least} to {most}" if most is not None else f"of at least {least}"
        raise HyperparameterError(
            f"{option.opts[0]} {value}: it must be a whole number {allowed}, such as "
            f"{option.opts[0]} {option.default or 100}"
        )
    return number


def _read_schedules(
    ctx: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> "dict[str, Schedule]":
    """The schedules by hyperparameter, read before anything else: a slip costs no time."""
    schedules: dict[str, Schedule] = {}
    for text in values:
        from descend.schedules.text import parse

        named = re.match(r"\s*(\w+)\s*:", text)
        key = named[1] if named else "lr"
        try:
            schedule = parse(text[named.end() if named else 0 :].strip())
        except ScheduleError as error:
            raise ScheduleError(f"--schedule{f' {key}' if named else ''}: {error}") from error
        if key in schedules:
            raise ScheduleError(
                f"--schedule {text}: {key} has the schedule {schedules[key]} already; give one, "
                f"such as their product: ({schedules[key]}) * ({schedule})"
            )
        schedules[key] = schedule
    return schedules


# Not the docstring: click needs the \b of its literal paragraphs to be the character itself
HELP = """\
Train a model and leave a folder with all that came of it.

Without arguments: a small convolutional network learns 1,797 real handwritten digits, which
are part of descend, in seconds. --data takes your MNIST-format images, TASK.py takes anything.

\b
Examples:
  descend train                        again, if it was stopped or killed: it goes on
  descend train --fresh                from the start, whatever there is
  descend train --optimizer sgd --lr 0.1 --epochs 30 --out runs/sgd
  descend train --data /usr/share/datasets/fashion-mnist --epochs 5
  descend train my_task.py --batch-size 64
  descend train --schedule "warmup(50) >> cosine(370)"

\b
my_task.py is a Python file that defines one descend.Task:
  import torch, descend
  x = torch.randn(1000, 4)
  y = (x.sum(1) > 0).long()
  task = descend.Task(
      model=torch.nn.Linear(4, 2),
      train=(x[:800], y[:800]),          # or any map-style dataset
      validation=(x[800:], y[800:]),
      loss=torch.nn.functional.cross_entropy,
      metrics={"accuracy": lambda out, y: (out.argmax(1) == y).float().mean()},
  )

\b
--schedule says by what the learning rate is multiplied in each step:
  warmup(50) >> cosine(370)    up from 0 for 50 steps, and then down to 0 for 370
  warmup(0.1) >> cosine(0.9)   the same as parts of the run, with --schedule-unit fraction
  step(10, gamma=0.5)          halved every 10 epochs, with --schedule-unit epoch
  linear(420, 1, value(1e-5))  down to an lr of 1e-5, whatever --lr is
  weight_decay:linear(420)     another hyperparameter; beta1 and beta2 are those of betas
descend plot draws one before anything is trained, and its --help tells what there is.

\b
The run folder holds:
  metrics.jsonl   a line of JSON for each epoch, and one for the test data
  curves.png      the losses and the metrics, drawn, and what was scheduled
  checkpoints/    the model, the optimizer, the scheduler and all that is needed to go on
descend inspect FOLDER shows what is in it.

Stopped by Ctrl-C, by SIGTERM or by kill -9, the same command goes on from the newest checkpoint,
and ends with the bits of a run that was never stopped. More --epochs go on from the last one.
A checkpoint is saved at the end of each epoch, every 10 minutes, and after the batch in which
Ctrl-C or SIGTERM came; --every-steps saves more often.

The last line printed, "state: <digest>", is a hash of every bit of the model and of the
optimizer: two runs that print the same one ended the same. Another machine or another version
of torch can round differently; with --data and TASK.py, so can another number of threads.

\b
Exit status: 0 done, 1 training diverged, 2 the input cannot be used, 130 interrupted,
143 terminated.
"""


@click.command(help=HELP)
@click.argument("task_file", metavar="[TASK.py]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--data",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Train on MNIST-format files: the folder that holds train-images-idx3-ubyte, "
    "train-labels-idx1-ubyte and the two t10k- files, gzipped or not.",
)
@click.option(
    "--optimizer",
    metavar="NAME",
    default=DEFAULT_OPTIMIZER,
    show_default=True,
    help="The update rule: adamw, adam, sgd, ..., or your own, as my_file.py:MyRule.",
)
@click.option(
    "--lr",
    metavar="NUMBER",
    callback=check_lr,
    help="The learning rate.  [default: the optimizer's own]",
)
@click.option(
    "--schedule",
    "schedules",
    metavar="[NAME:]EXPR",
    multiple=True,
    callback=_read_schedules,
    help="The schedule of a hyperparameter, lr where none is named; repeat it for others.",
)
@click.option(
    "--schedule-unit",
    "unit",
    type=click.Choice(UNITS),
    help="What the times in --schedule count.  [default: step]",
)
@click.option(
    "--epochs",
    metavar="N",
    default=str(DEFAULT_EPOCHS),
    show_default=True,
    callback=_check_count,
    help="How often to visit every training sample.",
)
@click.option(
    "--batch-size",
    metavar="N",
    default=str(DEFAULT_BATCH_SIZE),
    show_default=True,
    callback=_check_count,
    help="Samples per step.",
)
@click.option(
    "--seed",
    metavar="N",
    default="0",
    show_default=True,
    callback=_check_seed,
    help="Everything random follows from it: equal seeds, equal runs, bit for bit.",
)
@click.option(
    "--every-steps",
    metavar="N",
    callback=_check_count_or_none,
    help="Save a checkpoint after each so many steps too.",
)
@click.option(
    "--out",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="The run folder: new, empty, or of a run that goes on.  [default: runs/ and a name "
    "made of what is trained and how]",
)
@click.option("--fresh", is_flag=True, help="Start over: remove the run that is in the folder.")
def train(
    task_file: Path | None,
    data: Path | None,
    optimizer: str,
    lr: float | None,
    schedules: "dict[str, Schedule]",
    unit: str | None,
    epochs: int,
    batch_size: int,
    seed: int,
    every_steps: int | None,
    out: Path | None,
    fresh: bool,
) -> int:
    """Train a task and leave a run folder; the exit status."""
    if task_file is not None and data is not None:
        raise click.UsageError(
            f"TASK.py ({task_file}) and --data ({data}) exclude each other: give one of the two",
            click.get_current_context(),
        )
    if unit is not None and not schedules:
        raise click.UsageError(
            f"--schedule-unit {unit}: there is no --schedule whose times it could count",
            click.get_current_context(),
        )
    from descend.checkpoint.randomness import seed_everything
    from descend.training import Run
    from descend.training.fit import Progress, training_loader
    from descend.training.run_folder import default_folder, prepare_folder

    make_optimizer = _find_optimizer(optimizer)
    seed_everything(seed)
    task = _load(task_file, data)
    instance = make_optimizer(task.model.named_parameters(), **({} if lr is None else {"lr": lr}))
    loader = training_loader(task, batch_size)
    in_steps = _in_steps(schedules, unit, epochs, len(loader))
    scheduler = _attach(in_steps, instance, epochs * len(loader))
    source = str(task_file or data or SHIPPED)
    folder = out or default_folder(
        "digits" if source == SHIPPED else Path(source).resolve().stem,
        _unusual(optimizer, lr, schedules, unit, batch_size, seed),
    )
    prepare_folder(folder)
    command = _Command(
        {
            "TASK.py": task_file and task_file.name,
            "--data": data and data.resolve().name,
            "--optimizer": optimizer.lower() if ":" not in optimizer else optimizer,
            "--lr": lr,
            "--batch-size": batch_size,
            "--seed": seed,
            "--schedule": {key: str(one) for key, one in in_steps.items()},
        },
        [path for path in (task_file, _file_of(optimizer)) if path is not None],
    )
    objects: dict[str, Any] = {"command": command, "model": task.model, "optimizer": instance}
    objects |= {} if scheduler is None else {"scheduler": scheduler}
    with _threads(1 if source == SHIPPED else None), _warnings_in_one_line():
        run = Run(
            folder,
            loader=loader,
            seed=seed,
            epochs=epochs,
            every_steps=every_steps,
            fresh=fresh,
            progress=(progress := Progress()),
            **objects,
        )
        training = _Training(run, task, instance, scheduler, progress, epochs, batch_size)
        click.echo(_opening(training, source, optimizer))
        for line in [*_doubts(training, in_steps, lr), *command.doubts]:
            click.echo(f"descend: warning: {line}", err=True)
        try:
            return _train(training)
        except TaskError as error:
            if task_file is None:
                raise
            from descend.user_file import locate

            raise TaskError(f"{locate(error, task_file)}: {error}") from error
        finally:
            _discard_if_nothing(run, progress)


class _Command:
    """What a run was started with, saved with it, so that no other command goes on with it."""

    def __init__(self, options: dict[str, Any], files: list[Path]) -> None:
        self.options = options
        self.files = {path.name: _hash_of(path) for path in files}
        self.doubts: list[str] = []

    def state_dict(self) -> dict[str, Any]:
        return {"options": self.options, "files": self.files}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Refuse other options; note files that have changed."""
        changed = [
            f"{name} was {_shown(state['options'].get(name))} and is {_shown(value)}"
            for name, value in self.options.items()
            if state["options"].get(name) != value
        ]
        if changed:
            raise StateError(
                f"it was started by another command: {'; '.join(changed)}; give the same options, "
                f"or another folder with --out, or start over with --fresh"
            )
        self.doubts = [
            f"{name} has changed since the run was started: what follows can differ"
            for name, content in self.files.items()
            if state["files"].get(name) != content
        ]


@dataclass(frozen=True)
class _Training:
    """A training under way: what its callbacks need."""

    run: "Run"
    task: "Task"
    optimizer: "torch.optim.Optimizer"
    scheduler: "Scheduler | None"
    progress: "Progress"
    epochs: int
    batch_size: int


def _train(training: _Training) -> int:
    """Train, measure; the exit status."""
    from descend.checkpoint import digest
    from descend.training import evaluate
    from descend.training.fit import train_epochs

    run, progress, task = training.run, training.progress, training.task
    with _progress(training.epochs) as (show, say):

        def on_batch(phase: str, number: int, batches: int) -> None:
            if phase == "train":
                show(len(progress.records), number, batches)
            else:
                run.check()

        def on_epoch(record: "Epoch") -> None:
            run.log(**_metrics_line(record))
            say(_epoch_line(record, training.epochs))

        try:
            train_epochs(
                task,
                training.optimizer,
                run.epochs(),
                progress,
                batch_size=training.batch_size,
                scheduler=training.scheduler,
                on_batch=on_batch,
                on_epoch=on_epoch,
            )
            measured = {}
            if task.test is not None:
                measured = evaluate(task, task.test, batch_size=training.batch_size)
        except (KeyboardInterrupt, SystemExit):
            if run.stopped_by is None:  # not where the state was whole
                raise
            _draw(training)
            interrupted = run.stopped_by is signal.SIGINT
            stopped: int | None = INTERRUPTED if interrupted else TERMINATED
            message = (
                f"descend: {'interrupted' if interrupted else 'terminated'} after "
                f"{len(progress.records)} epochs and {progress.batches} batches; {run.folder} "
                f"holds all up to there, and the same command goes on"
            )
        except DivergedError as error:
            _draw(training)
            stopped = DIVERGED
            message = f"descend: error: {error}"
            if progress.records:
                message += f"; {run.folder} holds the {len(progress.records)} epochs before"
        else:
            stopped = None
    if stopped is not None:
        click.echo(message, err=True)
        return stopped
    _draw(training)
    if measured:
        run.log(**{f"test_{name}": value for name, value in measured.items()})
    for name in [n for n in measured if n != "loss"] or list(measured):
        click.echo(f"test {_show(name, measured[name], 1)}")
    click.echo(f"run folder: {run.folder}")
    states = {"model": task.model.state_dict(), "optimizer": training.optimizer.state_dict()}
    click.echo(f"state: {digest(states)}")
    return 0


def _unusual(
    optimizer: str,
    lr: float | None,
    schedules: "Mapping[str, Schedule]",
    unit: str | None,
    batch_size: int,
    seed: int,
) -> dict[str, object]:
    """The options that are not the defaults, for the name of the folder."""
    unusual: dict[str, object] = {}
    if optimizer.lower() != DEFAULT_OPTIMIZER:
        unusual[""] = optimizer if ":" in optimizer else optimizer.lower()
    if lr is not None:
        unusual["lr"] = f"{lr:g}"
    if batch_size != DEFAULT_BATCH_SIZE:
        unusual["batch"] = batch_size
    if seed:
        unusual["seed"] = seed
    for key, schedule in schedules.items():
        unusual[f"{key} "] = schedule
    if unit not in (None, UNITS[0]):
        unusual["unit "] = unit
    return unusual


def _file_of(optimizer: str) -> Path | None:
    """The user's file that an optimizer comes from, if it does."""
    path = Path(optimizer.rpartition(":")[0] or optimizer)
    return path if path.suffix == ".py" and path.is_file() else None


def _hash_of(path: Path) -> str:
    from descend.checkpoint.hashing import hash_bytes

    return hash_bytes(path.read_bytes())


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}:{one}" for key, one in value.items()) or "not given"
    return "not given" if value is None else str(value)


def _discard_if_nothing(run: "Run", progress: "Progress") -> None:
    """Remove a new run that failed before it came to anything."""
    if sys.exc_info()[0] is None or run.resumed_from is not None:
        return
    if not progress.records and not progress.batches:
        from descend.training.run_folder import discard

        discard(run.folder)


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Show descend's own warnings as the command line shows everything."""
    with warnings.catch_warnings():
        for category in (CheckpointWarning, ResumeWarning):
            warnings.simplefilter("always", category)
        before = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any) -> None:
            if issubclass(category, CheckpointWarning | ResumeWarning):
                click.echo(f"descend: warning: {message}", err=True)
            else:
                before(message, category, *rest)

        warnings.showwarning = show  # type: ignore[assignment]
        yield


def _find_optimizer(name: str) -> Callable[..., "torch.optim.Optimizer"]:
    from descend.optimizers import CATALOGUE, load_optimizer

    if ":" in name or name.endswith(".py"):
        own = load_optimizer(name)
        if "lr" not in inspect.signature(own).parameters:
            raise HyperparameterError(
                f"--optimizer {name}: its constructor takes no lr; descend train sets and shows it"
            )
        return own
    if name.lower() in CATALOGUE:
        return CATALOGUE[name.lower()]
    close = difflib.get_close_matches(name.lower(), CATALOGUE, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise HyperparameterError(
        f"--optimizer {name}: there is no such optimizer; {hint}allowed: {', '.join(CATALOGUE)}"
    )


def _in_steps(
    schedules: "Mapping[str, Schedule]", unit: str | None, epochs: int, steps_per_epoch: int
) -> "dict[str, Schedule]":
    if unit == "epoch":
        return {key: one.in_epochs(steps_per_epoch) for key, one in schedules.items()}
    if unit == "fraction":
        return {key: one.over(epochs * steps_per_epoch) for key, one in schedules.items()}
    return dict(schedules)


def _attach(
    schedules: "Mapping[str, Schedule]", optimizer: "torch.optim.Optimizer", steps: int
) -> "Scheduler | None":
    """A scheduler that keeps every hyperparameter in its range for the whole run."""
    if not schedules:
        return None
    from descend.lr_scheduler import Scheduler

    for key in schedules:
        _refuse_unscheduled(key, optimizer)
    given: dict[str, Any] = dict(schedules)
    scheduler = Scheduler(optimizer, **given)
    for key, values in scheduler.preview(steps + 1).items():
        _refuse_out_of_range(key, [groups[0] for groups in values], optimizer)
    return scheduler


def _refuse_unscheduled(key: str, optimizer: "torch.optim.Optimizer") -> None:
    """Refuse a hyperparameter that is no number, or not there at all."""
    group = optimizer.param_groups[0]
    known = [
        name
        for name, value in group.items()
        if isinstance(value, float | int) and not isinstance(value, bool)
    ]
    known += ["beta1", "beta2"] if "betas" in group else []
    if key not in known:
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ScheduleError(
            f"--schedule {key}: {type(optimizer).__name__} has no number of that name; {hint}"
            f"allowed: {', '.join(known)}"
        )


def _refuse_out_of_range(
    key: str, values: "list[float]", optimizer: "torch.optim.Optimizer"
) -> None:
    """Refuse a schedule that leaves the range: in the middle of the run nobody would look."""
    import numpy as np

    from descend.engine.hyperparameters import validate

    owner, table = type(optimizer).__name__, getattr(optimizer, "hyperparameters", {})
    name = "betas" if key in ("beta1", "beta2") else key
    if name not in table:
        return
    for step in (int(np.argmin(values)), int(np.argmax(values))):  # a NaN is both
        value = values[step]
        given = {name: (value, value) if name == "betas" else value}
        try:
            validate(owner, table, given, f"step {step}")
        except HyperparameterError as error:
            raise ScheduleError(f"--schedule {key}: {error}") from error


def _doubts(
    training: _Training, schedules: "Mapping[str, Schedule]", lr: float | None
) -> Iterator[str]:
    """What is likely not meant."""
    if not schedules:
        return
    from descend.schedules.advice import mistakes

    per_epoch, group = len(training.run.loader), training.optimizer.param_groups[0]
    steps = training.epochs * per_epoch
    for key, schedule in schedules.items():
        yield from mistakes(schedule, steps, per_epoch, key)
        if schedule.curve.factor and group[f"initial_{key}"] == 0:
            yield f"{key}: it is 0, and so is a factor of it; give values: value({schedule})"
        if key == "lr" and schedule.curve.absolute and lr is not None:
            yield f"{key}: the schedule gives values, so --lr {lr:g} has no effect"


def _load(task_file: Path | None, data: Path | None) -> "Task":
    from descend.training import digits_task, idx_task, load_task

    if task_file is not None:
        return load_task(task_file)
    return digits_task() if data is None else idx_task(data)


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Let torch compute with so many threads, or as many as it likes.

    A batch of 8x8 images is too small to share: on an idle machine two threads gain little, and
    beside any other work they wait for each other up to ten times longer than one needs alone.
    With one, the last bit depends on no number of threads either.
    """
    import torch

    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _draw(training: _Training) -> None:
    """Draw what there is up to here."""
    from descend.report import draw_curves
    from descend.training.run_folder import CURVES

    records, scheduled = training.progress.records, {}
    if not records:
        return
    if training.scheduler is not None:
        per_epoch = len(training.run.loader)
        times = range(len(records) * per_epoch + training.progress.batches + 1)
        preview = training.scheduler.preview(len(times))
        epochs = [time / per_epoch for time in times]
        scheduled = {key: (epochs, [groups[0] for groups in of]) for key, of in preview.items()}
    try:
        draw_curves(records, training.run.folder / CURVES, scheduled)
    except OutputError as error:
        click.echo(f"descend: warning: {error}", err=True)


def _metrics_line(record: "Epoch") -> dict[str, Any]:
    return {
        "train_loss": record.train_loss,
        "validation_loss": record.validation_loss,
        **{f"validation_{name}": value for name, value in record.metrics.items()},
        "lr": record.lr,
        "seconds": round(record.seconds, 4),
    }


def _opening(training: _Training, source: str, optimizer: str) -> str:
    from descend.training.task import count

    task, run, scheduler = training.task, training.run, training.scheduler
    sizes = f"{count(task.train)} training and {count(task.validation)} validation"
    if task.test is not None:
        sizes = sizes.replace(" and", ",") + f" and {count(task.test)} test"
    numbers = sum(parameter.numel() for parameter in task.model.parameters())
    rule = optimizer if ":" in optimizer else optimizer.lower()
    steps = training.epochs * len(run.loader)
    schedules = {} if scheduler is None else scheduler.schedules
    lr = training.optimizer.param_groups[0]["lr"] if scheduler is None else scheduler.base_lrs[0]
    return "\n".join(
        (
            f"{source}: {sizes} samples; {numbers} parameters",
            f"{rule}, lr {float(lr):g}, batches of {training.batch_size}, seed {run.loader.seed}",
            *(f"schedule of {key}, {steps} steps: {text}" for key, text in schedules.items()),
            *([] if run.resumed_from is None else [_going_on(training)]),
        )
    )


def _going_on(training: _Training) -> str:
    """From where a run goes on."""
    run, done = training.run, len(training.progress.records)
    if run.is_over:
        return (
            f"{run.folder} is complete with {done} epochs: more --epochs go on, --fresh starts over"
        )
    batches = training.progress.batches
    after = f"{done} epochs" + (f" and {batches} of {len(run.loader)} batches" if batches else "")
    return f"{run.folder} goes on after {after}; --fresh starts over"


def _epoch_line(record: "Epoch", epochs: int) -> str:
    shown = record.metrics or {"loss": record.validation_loss}
    measured = "  ".join(f"validation {_show(name, value, 2)}" for name, value in shown.items())
    return (
        f"epoch {record.epoch:{len(str(epochs))}}/{epochs}  train loss {record.train_loss:.4f}  "
        f"{measured}  lr {record.lr:g}  {record.seconds:.2f} s"
    )


def _show(name: str, value: float, digits: int) -> str:
    if name == "accuracy":
        return (
            f"accuracy: {100 * value:.{digits}f} %"
            if digits == 1
            else (f"accuracy {100 * value:.{digits}f} %")
        )
    return f"{name}: {value:.6g}" if digits == 1 else f"{name} {value:.4g}"


@contextmanager
def _progress(
    epochs: int,
) -> Iterator[tuple[Callable[[int, int, int], None], Callable[[str], None]]]:
    """What shows the progress and what prints a line: a live bar on a terminal, lines elsewhere."""
    if not sys.stdout.isatty():

        def flushed(line: str) -> None:
            click.echo(line)
            sys.stdout.flush()

        yield lambda epoch, done, batches: None, flushed
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(highlight=False, markup=False, soft_wrap=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as bar:
        shown: TaskID = bar.add_task("starting", total=None)

        def show(epoch: int, done: int, batches: int) -> None:
            bar.update(
                shown,
                description=f"epoch {epoch + 1}/{epochs}, batch {done}/{batches}",
                completed=epoch * batches + done,
                total=epochs * batches,
            )

        yield show, console.print
