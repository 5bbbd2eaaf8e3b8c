"""`descend find-lr`: find the learning rate of a task, before it is trained."""

import shlex
import shutil
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from descend.checks import SEED, Range
from descend.cli.options import A_PATH, LR, json_at_end_option, option, path_option
from descend.cli.progress_bar import progress_bar, warnings_in_one_line
from descend.cli.train_options import (
    DEFAULT_OPTIMIZER,
    arguments_option,
    asks_for_help,
    optimizer_option,
    settings_option,
    task_arguments,
)
from descend.cli.train_text import argument_lines, settings_lines
from descend.errors import TaskError
from descend.optimizer_lookup import check_settings, find_optimizer, own_file, plain_name
from descend.user_file import located

if TYPE_CHECKING:
    from descend.training import RangeTest

NOTHING = 1  # exit status
FEWEST = Range(20, whole=True)  # as `lr_find` has it

# Not the docstring: click needs the \b of its literal paragraphs to be the character itself
HELP = """\
Find a learning rate: train copies while it rises, and see where the loss falls.

Without a file: the network and the handwritten digits of descend train. TASK.py is a file as
descend train takes it; descend train --help shows one.

\b
Examples:
  descend find-lr
  descend find-lr --optimizer sgd --set momentum=0.9
  descend find-lr my_task.py --arg width=64 --batch-size 32 --out lr.png
  descend find-lr my_task.py --optimizer my_rule.py:MyRule --max-lr 100
  descend find-lr --json | jq .suggestion     for a program to read

\b
In each of three sweeps, over three orders of the data, the learning rate rises from --min-lr to
--max-lr, step by step. The chart shows the mean of their losses, smoothed:
  ──────╮           at small rates nothing happens
        ╰╮          then the loss falls: that is the range
         ╰─╯        and at too large ones it rises, and diverges
The suggestion is where it falls most, or a third or three times that: short trainings at all
three tell which. Nothing is changed or written, but for the picture of --out.

It holds for this optimizer with these settings, this batch size and this model: another one needs
another. A schedule that warms up and decays can begin from up to the upper end of the range.

\b
Exit status: 0 found, 1 the loss falls at none of the learning rates, 2 the input cannot be used,
130 interrupted.
"""


@click.command(help=HELP)
@click.argument("task_file", metavar="[TASK.py]", required=False, type=A_PATH)
@arguments_option
@optimizer_option
@settings_option
@option("--min-lr", allowed=LR, default=1e-7, help="The first learning rate.")
@option("--max-lr", allowed=LR, default=10.0, help="The last one.")
@option(
    "--steps",
    allowed=FEWEST,
    default=100,
    help="Steps of each sweep, and of each short training.",
)
@option(
    "--batch-size",
    such=64,
    help="Samples per batch; give the one that you train with.  [default: the task's]",
)
@option("--seed", allowed=SEED, default=0, help="Everything random follows from it.")
@path_option("--out", metavar="FILE", help="Write the picture: PNG or SVG, by its ending.")
@json_at_end_option
def find_lr(
    task_file: Path | None,
    arguments: dict[str, str],
    optimizer: str,
    settings: dict[str, object],
    min_lr: float,
    max_lr: float,
    steps: int,
    batch_size: int | None,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> int:
    """Find the learning rate of a task; the exit status."""
    from descend.training.thread_count import threads_set

    if min_lr >= max_lr:
        raise click.UsageError(f"--min-lr {min_lr:g} must be less than --max-lr {max_lr:g}")
    if out is not None:
        from descend.figure_file import check_ending

        check_ending(out)
    threads = 1 if task_file is None else None  # as `descend train` computes with
    aside = redirect_stdout(sys.stderr) if as_json else nullcontext()
    with aside, warnings_in_one_line(), threads_set(threads):
        if asks_for_help(arguments):
            click.echo("\n".join(argument_lines(task_file, seed)))
            return 0
        make = find_optimizer(optimizer)
        if "help" in settings:
            click.echo("\n".join(settings_lines(optimizer, make)))
            return 0
        check_settings(optimizer, make, settings)
        test = _tested(task_file, arguments, optimizer, settings, batch_size, seed,
                       min_lr=min_lr, max_lr=max_lr, num_training=steps)  # fmt: skip
        if out is not None:
            test.plot(path=out)
        command = None
        if test.why_none is None:
            command = _command(
                task_file, arguments, optimizer, settings, batch_size, seed, test.suggestion()
            )
        _show(test, command, out)
    if as_json:
        from descend.format import json_text

        click.echo(json_text(_document(test, command, out)))
    return NOTHING if command is None else 0


def _tested(
    task_file: Path | None,
    arguments: dict[str, str],
    optimizer: str,
    settings: dict[str, object],
    batch_size: int | None,
    seed: int,
    **options: Any,
) -> "RangeTest":
    """The range test of a task that is built as `descend train` builds it."""
    from torch.utils.data import DataLoader, TensorDataset

    from descend.training import lr_find, seeded_task
    from descend.training.module_task import ModuleTask
    from descend.training.prepared import parameters_of_copy
    from descend.training.task import is_pair

    make = find_optimizer(optimizer)
    files = [path for path in (task_file, own_file(optimizer)) if path is not None]
    task = seeded_task(task_file, task_arguments(task_file, arguments, seed), seed)
    if isinstance(task, ModuleTask):
        raise TaskError(
            f"{task_file}: find-lr takes a Task, or a function that returns one, and this is a "
            f"Module; descend.Tuner(trainer).lr_find(module, datamodule=...) takes it in Python"
        )
    with located(files, TaskError), progress_bar() as (show, _):
        data: Any = TensorDataset(*task.train) if is_pair(task.train) else task.train
        return lr_find(
            task.model,
            DataLoader(data, batch_size or task.batch_size, shuffle=True),
            task.loss,
            lambda parameters, lr: make(
                parameters_of_copy(make, task.model, settings, parameters), lr=lr, **settings
            ),
            seed=seed,
            on_step=show,
            **options,
        )


def _show(test: "RangeTest", command: str | None, out: Path | None) -> None:
    """Print the chart, the outcome in words, and how to go on."""
    from descend.report.range_test_chart import range_test_chart
    from descend.report.tables import screen

    click.echo(range_test_chart(test, screen(), shutil.get_terminal_size().columns))
    if command is None:
        click.echo(f"descend: error: no suggestion: {test.why_none}", err=True)
    else:
        click.echo(f"\n{test}")
    if out is not None:
        click.echo(f"picture: {out}")
    if command is not None:
        click.echo(f"go on with: {command}")


def _command(
    task_file: Path | None,
    arguments: dict[str, str],
    optimizer: str,
    settings: dict[str, object],
    batch_size: int | None,
    seed: int,
    lr: float,
) -> str:
    """The command that trains with a learning rate."""
    words = ["descend", "train", *([str(task_file)] if task_file else [])]
    for name, text in arguments.items():
        words += ["--arg", f"{name}={text}"]
    if plain_name(optimizer) != DEFAULT_OPTIMIZER:
        words += ["--optimizer", optimizer]
    for name, value in settings.items():
        several = isinstance(value, tuple | list)
        words += ["--set", f"{name}={','.join(map(str, value)) if several else value}"]  # type: ignore[call-overload]
    words += ["--batch-size", str(batch_size)] if batch_size else []
    words += ["--seed", str(seed)] if seed else []
    return shlex.join([*words, "--lr", f"{lr:.3g}"])


def _document(test: "RangeTest", command: str | None, out: Path | None) -> dict[str, Any]:
    """The outcome as plain data."""
    found = command is not None
    return {
        "suggestion": test.suggestion() if found else None,
        "range": list(test.range) if found else None,
        "steepest": test.suggestion("steepest") if found else None,
        "valley": test.suggestion("valley") if found else None,
        "why_none": test.why_none,
        "tried": [run._asdict() for run in test.tried],
        "notes": list(test.notes),
        "results": test.results,
        "orders": [list(sweep) for sweep in test.sweeps],
        "picture": out and str(out),
        "command": command,
    }
