"""`descend train`: train a task and leave a run folder."""

import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from descend.checks import COUNT_FROM_0, SEED
from descend.cli.from_file import with_file
from descend.cli.options import A_PATH, LR, UNIT, json_at_end_option, option, path_option
from descend.cli.progress_bar import progress_bar, warnings_in_one_line
from descend.cli.train_options import (
    TrainOptions,
    arguments_option,
    asks_for_help,
    find_device,
    given,
    optimizer_option,
    read_best,
    read_schedules,
    settings_option,
    task_arguments,
)
from descend.cli.train_text import (
    argument_lines,
    document,
    epoch_line,
    opening,
    result_lines,
    settings_lines,
    stop_line,
)
from descend.errors import OutputError, TaskError
from descend.optimizer_lookup import check_settings, find_optimizer, own_file, plain_name
from descend.user_file import located

if TYPE_CHECKING:
    import torch

    from descend.schedules import Schedule
    from descend.training import Task
    from descend.training.module_task import ModuleTask
    from descend.training.saved_command import Command
    from descend.training.task_run import Ending, TaskRun

TERMINATED = 128 + signal.SIGTERM
STATUS = {None: 0, "diverged": 1, "interrupted": 130, "terminated": TERMINATED}
MOST_DRAWN = 20_000  # steps of a schedule

# Not the docstring: click needs the \b of its literal paragraphs to be the character itself
HELP = """\
Train a model and leave a folder with all that came of it.

Without arguments: a small convolutional network learns 1,797 real handwritten digits, which
are part of descend, in seconds. --data takes your MNIST-format images, TASK.py takes anything.

\b
Examples:
  descend train                        again, if it was stopped or killed: it goes on
  descend train --fresh                from the start, whatever there is
  descend train --optimizer sgd --lr 0.1 --set momentum=0.9 --epochs 30
  descend train --optimizer sgd --set help     what can be set
  descend train --data /usr/share/datasets/fashion-mnist --epochs 5
  descend train my_task.py --batch-size 64
  descend train --schedule "warmup(50) >> cosine(370)"
  descend train my_task.py --arg width=64 --steps 2000
  descend train --json | jq .test.accuracy      for a program to read

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
Or it defines a function that returns one, whose arguments --arg sets:
  def task(width: int = 64, dropout: float = 0.1) -> descend.Task: ...
or a descend.Module class, of whose constructor they are, and a descend.DataModule class.

\b
--schedule says by what the learning rate is multiplied in each step:
  warmup(50) >> cosine(370)    up from 0 for 50 steps, and then down to 0 for 370
  warmup(0.1) >> cosine(0.9)   the same as parts of the run, with --unit fraction
  step(10, gamma=0.5)          halved every 10 epochs, with --unit epoch
  linear(420, 1, value(1e-5))  down to an lr of 1e-5, whatever --lr is
  weight_decay:linear(420)     another hyperparameter; beta1 and beta2 are those of betas
descend plot draws one before anything is trained, and its --help tells what there is.

An optimizer of matrices (muon) gets the hidden ones; embeddings, output layer and vectors are
AdamW's, as descend.param_groups_matrices tells them apart. --set adamw=none gives it all matrices.

\b
The run folder holds:
  metrics.jsonl   a line of JSON for each epoch, and one for the test data
  curves.png      the losses and the metrics, drawn, and what was scheduled
  checkpoints/    the model, the optimizer, the scheduler and all that is needed to go on
descend inspect FOLDER shows what is in it.

Stopped by Ctrl-C, by SIGTERM or by kill -9, the same command goes on from the newest checkpoint,
and ends with the bits of a run that was never stopped. More --epochs or --steps go on from the
last one.
A checkpoint is saved at the end of each epoch, every 10 minutes, and after the batch in which
Ctrl-C or SIGTERM came; --every-steps saves more often.

The last line printed, "state: <digest>", is a hash of every bit of the model and of the
optimizer: two runs that print the same one ended the same. Another machine or another version
of torch can round differently; with --data and TASK.py, so can another number of --threads.

\b
Exit status: 0 done, 1 training diverged, 2 the input cannot be used, 130 interrupted,
143 terminated.
"""


@click.command(help=HELP)
@click.argument("task_file", metavar="[TASK.py]", required=False, type=A_PATH)
@path_option(
    "--data",
    metavar="FOLDER",
    help="Train on MNIST-format files: the folder that holds train-images-idx3-ubyte, "
    "train-labels-idx1-ubyte and the two t10k- files, gzipped or not.",
)
@arguments_option
@path_option(
    "--from",
    metavar="FILE",
    help="Take the options of a training that descend compare or descend tune has written; those "
    "that are given beside it win.",
)
@optimizer_option
@option(
    "--lr",
    allowed=LR,
    such=0.001,
    help="The learning rate.  [default: the optimizer's own]",
)
@settings_option
@click.option(
    "--schedule",
    "schedules",
    metavar="[NAME:]EXPR",
    multiple=True,
    callback=read_schedules,
    help="The schedule of a hyperparameter, lr where none is named; repeat it for others.",
)
@option(
    "--unit",
    allowed=UNIT,
    such="epoch",
    help="The unit of the times in --schedule: steps, epochs, or fractions of the run.  [default: "
    "step]",
)
@option(
    "--epochs",
    such=20,
    help="How often to visit every training sample.  [default: the task's, which is 20 unless it "
    "says otherwise]",
)
@option(
    "--steps",
    such=1000,
    help="How many steps to take, in place of --epochs; the validation data are measured at the "
    "last one too.",
)
@option(
    "--batch-size",
    such=64,
    help="Samples per batch; a step is taken on each batch.  [default: the task's, which is 64 "
    "unless it says otherwise]",
)
@option(
    "--accumulate",
    default=1,
    help="Take a step on so many batches, with the mean of their gradients: --batch-size 16 "
    "--accumulate 4 needs the memory of 16 samples, and steps on 64.",
)
@option(
    "--seed",
    allowed=SEED,
    default=0,
    help="Everything random follows from it: equal seeds, equal runs, bit for bit.",
)
@option(
    "--workers",
    allowed=COUNT_FROM_0,
    default=0,
    help="How many processes beside this one fetch the training samples; the result is the same.",
)
@option(
    "--threads",
    such=1,
    help="On how many threads to compute; another number can round differently.  [default: as "
    "many as torch takes; 1 for the shipped digits]",
)
@click.option(
    "--device",
    metavar="NAME",
    help="Where the model is trained: cpu, cuda, cuda:1, ...  [default: where the task has it; "
    "the CPU]",
)
@option("--keep", default=3, help="How many checkpoints to keep, the newest ones.")
@click.option(
    "--best",
    metavar="METRIC",
    callback=read_best,
    help="Keep the checkpoint with the best value of a metric too, such as validation_loss or "
    "validation_accuracy; f1:highest or mae:lowest say which is best.",
)
@option("--every-steps", help="Save a checkpoint after each so many steps too.")
@path_option(
    "--out",
    metavar="FOLDER",
    help="The run folder: new, empty, or of a run that goes on.  [default: runs/ and a name "
    "made of what is trained and how]",
)
@click.option("--fresh", is_flag=True, help="Start over: remove the run that is in the folder.")
@json_at_end_option
@click.pass_context
def train(ctx: click.Context, /, **options: Any) -> int:
    """Train a task and leave a run folder; the exit status."""
    path = options.pop("from")
    asked = TrainOptions(**options)
    if path is not None:
        asked = with_file(ctx, asked, path)
        ctx.params.update(asked._asdict())
    asked = asked._replace(optimizer=plain_name(asked.optimizer))
    if asked.task_file is not None and asked.data is not None:
        raise click.UsageError(
            f"TASK.py ({asked.task_file}) and --data ({asked.data}) exclude each other: give one "
            "of the two",
            ctx,
        )
    if asked.steps is not None and asked.epochs is not None:
        raise click.UsageError(
            f"--steps {asked.steps} and --epochs {asked.epochs} exclude each other: give one of "
            f"the two",
            ctx,
        )
    if asked.unit is not None and not asked.schedules:
        raise click.UsageError(
            f"--unit {asked.unit}: there is no --schedule whose times it could count", ctx
        )
    from descend.training.thread_count import threads_set

    # A batch of 8x8 images is too small to share: on an idle machine two threads gain little, and
    # beside any other work they wait for each other up to ten times longer than one needs alone.
    # With one, the last bit depends on no number of threads either.
    alone = 1 if asked.task_file is None and asked.data is None else None
    # What the user's own files print is not of the document either
    aside = redirect_stdout(sys.stderr) if asked.as_json else nullcontext()
    with aside, warnings_in_one_line(), threads_set(asked.threads or alone):
        if asks_for_help(asked.arguments):
            click.echo("\n".join(argument_lines(asked.task_file, asked.seed)))
            return 0
        make_optimizer = find_optimizer(asked.optimizer)
        if "help" in asked.settings:
            click.echo("\n".join(settings_lines(asked.optimizer, make_optimizer)))
            return 0
        check_settings(asked.optimizer, make_optimizer, asked.settings)
        training, ending = _trained(asked, make_optimizer)
        if ending.stopped is None:
            click.echo("\n".join(result_lines(training, ending)))
        else:
            kind = "error: " if ending.stopped == "diverged" else ""
            click.echo(f"descend: {kind}{stop_line(training, ending)}", err=True)
    if asked.as_json:
        from descend.format import json_text

        click.echo(json_text(document(training, ending, given(ctx))))
    return STATUS[ending.stopped]


def _trained(
    asked: TrainOptions, make_optimizer: "Callable[..., torch.optim.Optimizer]"
) -> "tuple[TaskRun, Ending]":
    """The training of a command, and how it ended."""
    from descend.run.run_folder import default_folder, prepare_folder
    from descend.run.stop_signals import exit_on
    from descend.training.epoch_records import EpochRecords
    from descend.training.prepared import prepare
    from descend.training.scheduling import doubts
    from descend.training.task_run import TaskRun, best_of, move
    from descend.training.trainer import Trainer

    place = None if asked.device is None else find_device(asked.device)
    task, arguments, source, name = _load(asked)
    best = None if asked.best is None else best_of(task, *asked.best)
    files = [path for path in (asked.task_file, own_file(asked.optimizer)) if path is not None]
    with exit_on(signal.SIGTERM), located(files, TaskError):
        if place is not None:
            move(task, place)
        ready = prepare(
            task, make_optimizer, lr=asked.lr, settings=asked.settings, schedules=asked.schedules,
            unit=asked.unit, epochs=asked.epochs, steps=asked.steps, batch_size=asked.batch_size,
            accumulate=asked.accumulate, workers=asked.workers,
        )  # fmt: skip
        folder = asked.out or default_folder(name, asked.unusual())
        prepare_folder(folder)
        command = _command(asked, arguments, ready.batch_size, folder, ready.schedules, files)
        progress = EpochRecords()
        trainer = Trainer(
            folder=folder,
            max_epochs=ready.epochs,
            max_steps=-1 if asked.steps is None else asked.steps,
            seed=asked.seed,
            resume=not asked.fresh,
            keep=asked.keep,
            best=best,
            every_steps=asked.every_steps and asked.every_steps * asked.accumulate,
            accumulate_grad_batches=asked.accumulate,
            num_sanity_val_steps=0,
            log_every_n_steps=0,
            callbacks=[command, progress],
            enable_progress_bar=False,
        )
        trainer.device = ready.module.device
        training = TaskRun(
            task, trainer, ready.module, ready.data, ready.batch_size, ready.optimizer,
            ready.scheduler, ready.schedules, progress, ready.epochs, ready.steps,
        )  # fmt: skip

        def open_with_words() -> None:
            click.echo(
                "\n".join(opening(training, source, arguments, asked.optimizer, asked.settings))
            )
            unlikely = doubts(
                ready.schedules, ready.optimizer, asked.lr, ready.steps, ready.steps_per_epoch
            )
            for line in [*unlikely, *command.doubts]:
                click.echo(f"descend: warning: {line}", err=True)

        progress.begins = open_with_words
        return training, _train(training)


def _command(
    asked: TrainOptions,
    arguments: dict[str, Any],
    batch_size: int | None,
    folder: Path,
    timed: "dict[str, Schedule]",
    files: list[Path],
) -> "Command":
    """The options that a run has to have again when it goes on."""
    from descend.training.saved_command import Command

    settings = asked.settings
    return Command(
        folder,
        {
            "TASK.py": asked.task_file and asked.task_file.name,
            "--data": asked.data and asked.data.resolve().name,
            "--arg": [f"{name}={arguments[name]}" for name in sorted(arguments)] or None,
            "--optimizer": asked.optimizer,
            "--lr": asked.lr,
            "--set": [f"{name}={settings[name]}" for name in sorted(settings)] or None,
            "--batch-size": batch_size,
            "--accumulate": asked.accumulate if asked.accumulate > 1 else None,
            "--seed": asked.seed,
            "--schedule": {key: str(one) for key, one in timed.items()},
        },
        files,
        {"--device": asked.device, "--threads": asked.threads},
    )


def _train(training: "TaskRun") -> "Ending":
    """Train and draw; how it ended, also where it was stopped at once."""
    from descend.run.run_folder import discard
    from descend.training.task_run import Ending, train_task

    ending = None
    progress = training.progress
    try:
        with progress_bar(stderr=False, remaining=True) as (show, say):

            def shown(batches: int) -> None:
                done, each = progress.epochs, int(training.trainer.num_training_batches)
                text = f"epoch {done + 1}/{training.epochs}, batch {batches}/{each}"
                whole = min(training.epochs * each, training.length * training.accumulate)
                show(text, done * each + batches, whole)

            progress.batch_done = shown
            progress.epoch_done = lambda record: say(epoch_line(record, training.epochs))
            ending = train_task(training)
        _draw(training)
    except KeyboardInterrupt:
        ending = Ending("interrupted", at_once=True)
    except SystemExit as stop:
        if stop.code != TERMINATED:  # the user's own
            raise
        ending = Ending("terminated", at_once=True)
    finally:
        if (ending is None or ending.at_once) and training.came_to_nothing:
            discard(training.folder)
    return ending


def _draw(training: "TaskRun") -> None:
    """Draw what there is up to here."""
    from descend.report import draw_curves
    from descend.run.run_folder import CURVES
    from descend.training.scheduling import scheduled, spaced

    if not training.progress.records:
        return
    steps = spaced(training.steps, MOST_DRAWN)
    epochs = [step / training.steps_per_epoch for step in steps]
    lines = {
        key: (epochs, scheduled(key, one, training.optimizer, steps))
        for key, one in training.schedules.items()
    }
    try:
        draw_curves(training.progress.records, training.folder / CURVES, lines)
    except OutputError as error:
        click.echo(f"descend: warning: {error}", err=True)


def _load(asked: TrainOptions) -> tuple["Task | ModuleTask", dict[str, Any], str, str]:
    """The task, its arguments, what to call it, and a name for its folder."""
    from descend.checkpoint.randomness import seed_everything
    from descend.training import idx_task, seeded_task

    if asked.data is not None:
        if asked.arguments:
            raise TaskError(f"--arg {next(iter(asked.arguments))}: images of --data take no --arg")
        seed_everything(asked.seed)
        return idx_task(asked.data), {}, str(asked.data), asked.data.resolve().name
    arguments = task_arguments(asked.task_file, asked.arguments, asked.seed)
    task = seeded_task(asked.task_file, arguments, asked.seed)
    if asked.task_file is not None:
        return task, arguments, str(asked.task_file), asked.task_file.resolve().stem
    return task, {}, "the shipped digits", "digits"
