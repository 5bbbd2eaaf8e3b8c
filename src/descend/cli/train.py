"""`descend train`: train a task and leave a run folder."""

import difflib
import inspect
import math
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from descend.cli.learning_rate import check_lr
from descend.errors import DivergedError, HyperparameterError, ScheduleError, TaskError

if TYPE_CHECKING:
    import torch
    from rich.progress import TaskID

    from descend.lr_scheduler import Scheduler
    from descend.schedules import Schedule
    from descend.training import Epoch, Task

DIVERGED, INTERRUPTED = 1, 130
DEFAULT_EPOCHS, DEFAULT_BATCH_SIZE = 20, 64
SHIPPED = "the shipped digits"
LARGEST_SEED = 2**32 - 1  # numpy takes no larger one
UNITS = ("step", "epoch", "fraction")


def _check_count(ctx: click.Context, option: click.Parameter, value: str) -> int:
    return _whole(option, value, 1, None)


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
            f"{option.opts[0]} {option.default}"
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
  descend train
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
  metrics.jsonl            a line of JSON for each epoch, and one for the test data
  curves.png               the losses and the metrics, drawn, and what was scheduled
  checkpoint.safetensors   the model, the optimizer and the scheduler after the last epoch

The last line printed, "state: <digest>", is a hash of every bit of the model and of the
optimizer: two runs that print the same one ended the same. Another machine or another version
of torch can round differently; with --data and TASK.py, so can another number of threads.

Ctrl-C stops after the current batch, with everything up to there in the folder.

\b
Exit status: 0 done, 1 training diverged, 2 the input cannot be used, 130 interrupted.
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
    default="adamw",
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
    "--out",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="The run folder, new or empty.  [default: runs/<date>_<time>]",
)
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
    out: Path | None,
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
    from descend.training.run_folder import make_run_folder
    from descend.training.task import count

    make_optimizer = _find_optimizer(optimizer)
    _seed_everything(seed)
    task = _load(task_file, data)
    instance = make_optimizer(task.model.named_parameters(), **({} if lr is None else {"lr": lr}))
    steps_per_epoch = math.ceil(count(task.train) / batch_size)
    in_steps = _in_steps(schedules, unit, epochs, steps_per_epoch)
    scheduler = _attach(in_steps, instance, epochs * steps_per_epoch)
    folder = make_run_folder(out)
    run = _Run(folder, task, instance, scheduler, epochs, steps_per_epoch, seed, [])
    source = str(task_file or data or SHIPPED)
    click.echo(_opening(run, source, optimizer, batch_size))
    for line in _doubts(run, in_steps, lr):
        click.echo(f"descend: warning: {line}", err=True)
    try:
        with _threads(1 if source == SHIPPED else None):
            status = _run(run, batch_size)
    except TaskError as error:
        if task_file is None:
            raise
        from descend.user_file import locate

        raise TaskError(f"{locate(error, task_file)}: {error}") from error
    finally:
        with suppress(OSError):
            folder.rmdir()  # only where it is empty: the run failed before it came to anything
    return status


class _StoppedError(KeyboardInterrupt):
    """Ctrl-C, raised between two batches: the state is whole."""


@dataclass(frozen=True)
class _Run:
    """A run under way: what its callbacks need."""

    folder: Path
    task: "Task"
    optimizer: "torch.optim.Optimizer"
    scheduler: "Scheduler | None"
    epochs: int
    steps_per_epoch: int
    seed: int
    records: "list[Epoch]"


def _run(run: _Run, batch_size: int) -> int:
    """Train, measure, save; the exit status."""
    import torch

    from descend.checkpoint import digest
    from descend.training import evaluate, fit
    from descend.training.run_folder import append_metrics

    generator = torch.Generator().manual_seed(run.seed)
    done = [0]  # training batches in the epoch under way

    with _stop_between_batches() as check, _progress(run.epochs) as (show, say):

        def on_batch(phase: str, number: int, batches: int) -> None:
            if phase == "train":
                done[0] = number
                show(len(run.records), number, batches)
            check()

        def on_epoch(record: "Epoch") -> None:
            run.records.append(record)
            done[0] = 0
            append_metrics(run.folder, _metrics_line(record))
            _save(run, generator, 0)
            say(_epoch_line(record, run.epochs))
            check()

        try:
            fit(
                run.task,
                run.optimizer,
                epochs=run.epochs,
                batch_size=batch_size,
                generator=generator,
                scheduler=run.scheduler,
                on_batch=on_batch,
                on_epoch=on_epoch,
            )
            measured = {}
            if run.task.test is not None:
                measured = evaluate(
                    run.task, run.task.test, batch_size=batch_size, on_batch=on_batch
                )
        except _StoppedError:
            _save(run, generator, done[0])
            _draw(run, done[0])
            stopped: int | None = INTERRUPTED
            message = (
                f"descend: interrupted after {len(run.records)} epochs and {done[0]} batches; "
                f"{run.folder} holds the metrics and the checkpoint up to there"
            )
        except DivergedError as error:
            _draw(run)
            stopped = DIVERGED
            message = f"descend: error: {error}"
            if run.records:
                message += f"; {run.folder} holds the {len(run.records)} epochs before"
        else:
            stopped = None
    if stopped is not None:
        click.echo(message, err=True)
        return stopped
    _draw(run)
    if measured:
        append_metrics(run.folder, {f"test_{name}": value for name, value in measured.items()})
    for name in [n for n in measured if n != "loss"] or list(measured):
        click.echo(f"test {_show(name, measured[name], 1)}")
    click.echo(f"run folder: {run.folder}")
    states = {"model": run.task.model.state_dict(), "optimizer": run.optimizer.state_dict()}
    click.echo(f"state: {digest(states)}")
    return 0


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


def _doubts(run: _Run, schedules: "Mapping[str, Schedule]", lr: float | None) -> Iterator[str]:
    """What is likely not meant."""
    if not schedules:
        return
    from descend.schedules.advice import mistakes

    steps, group = run.epochs * run.steps_per_epoch, run.optimizer.param_groups[0]
    for key, schedule in schedules.items():
        yield from mistakes(schedule, steps, run.steps_per_epoch, key)
        if schedule.curve.factor and group[f"initial_{key}"] == 0:
            yield f"{key}: it is 0, and so is a factor of it; give values: value({schedule})"
        if key == "lr" and schedule.curve.absolute and lr is not None:
            yield f"{key}: the schedule gives values, so --lr {lr:g} has no effect"


def _load(task_file: Path | None, data: Path | None) -> "Task":
    from descend.training import digits_task, idx_task, load_task

    if task_file is not None:
        return load_task(task_file)
    return digits_task() if data is None else idx_task(data)


def _seed_everything(seed: int) -> None:
    """Seed what a model's initialisation, dropout and a task's own code draw from."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)  # a task's own code can draw from it
    torch.manual_seed(seed)


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


def _save(run: _Run, generator: "torch.Generator", batch: int) -> None:
    import torch

    from descend.checkpoint import save
    from descend.training.run_folder import CHECKPOINT

    scheduler = {} if run.scheduler is None else {"scheduler": run.scheduler.state_dict()}
    save(
        run.folder / CHECKPOINT,
        {
            "model": run.task.model.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            **scheduler,
            "epoch": len(run.records),
            "batch": batch,
            "seed": run.seed,
            "rng": {"order": generator.get_state(), "torch": torch.get_rng_state()},
        },
    )


def _draw(run: _Run, batch: int = 0) -> None:
    """Draw what there is after so many epochs and batches."""
    from descend.report import draw_curves
    from descend.training.run_folder import CURVES

    if not run.records:
        return
    scheduled = {}
    if run.scheduler is not None:
        times = range(len(run.records) * run.steps_per_epoch + batch + 1)
        epochs = [time / run.steps_per_epoch for time in times]
        preview = run.scheduler.preview(len(times))
        scheduled = {key: (epochs, [groups[0] for groups in of]) for key, of in preview.items()}
    draw_curves(run.records, run.folder / CURVES, scheduled)


def _metrics_line(record: "Epoch") -> dict[str, Any]:
    return {
        "epoch": record.epoch,
        "train_loss": record.train_loss,
        "validation_loss": record.validation_loss,
        **{f"validation_{name}": value for name, value in record.metrics.items()},
        "lr": record.lr,
        "seconds": round(record.seconds, 4),
    }


def _opening(run: _Run, source: str, optimizer: str, batch_size: int) -> str:
    from descend.training.task import count

    sizes = f"{count(run.task.train)} training and {count(run.task.validation)} validation"
    if run.task.test is not None:
        sizes = sizes.replace(" and", ",") + f" and {count(run.task.test)} test"
    numbers = sum(parameter.numel() for parameter in run.task.model.parameters())
    rule = optimizer if ":" in optimizer else optimizer.lower()
    steps = run.epochs * run.steps_per_epoch
    schedules = {} if run.scheduler is None else run.scheduler.schedules
    lr = run.optimizer.param_groups[0]["lr"] if run.scheduler is None else run.scheduler.base_lrs[0]
    return "\n".join(
        (
            f"{source}: {sizes} samples; {numbers} parameters",
            f"{rule}, lr {float(lr):g}, batches of {batch_size}, seed {run.seed}",
            *(f"schedule of {key}, {steps} steps: {text}" for key, text in schedules.items()),
        )
    )


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
def _stop_between_batches() -> Iterator[Callable[[], None]]:
    """Turn the first Ctrl-C into a _StoppedError at the next call of what this gives.

    An exception in the middle of a step would leave half of the parameters stepped. A second
    Ctrl-C interrupts at once: the checkpoint of the last whole epoch stands.
    """
    asked = threading.Event()

    def ask(number: int, frame: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def check() -> None:
        if asked.is_set():
            raise _StoppedError

    if threading.current_thread() is not threading.main_thread():
        yield check  # only the main thread can be told of signals
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)


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
