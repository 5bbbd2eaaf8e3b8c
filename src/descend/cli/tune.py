"""`descend tune`: the best hyperparameters of a task, of its optimizer and of its schedule."""

import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from descend.checks import COUNT, COUNT_FROM_0, SEED, Choice
from descend.cli.options import A_PATH, json_at_end_option, option, path_option
from descend.cli.progress_bar import progress_bar, warnings_in_one_line
from descend.cli.train_options import read_best

if TYPE_CHECKING:
    from descend.search.tuning import Tuning

PRUNERS = Choice(("halving", "median", "wilcoxon", "none"))

# Not the docstring: click needs the \b of its literal paragraphs to be the character itself
HELP = """\
Search for the hyperparameters with which a model is trained best.

Optuna chooses the values of each trial from what the others came to. Trials that are behind are
paused, and go on if they are no longer; the best is trained again on fresh seeds. Without a file:
the digits of descend train.

\b
Examples:
  descend tune my_task.py --space "lr=log(1e-5,1e-1)" "hidden=int(16,256)"
  descend tune my_task.py --space "optimizer=choice(adamw,lion) lr=log(1e-5,1e-1)" --trials 60
  descend tune my_task.py --space "optimizer=choice(adamw,sgd) momentum=float(0.8,0.99)"
  descend tune my_task.py --space "lr=log(1e-4,1e-1) warmup=float(0,0.2) decay=float(0.1,0.9)"
  descend tune my_task.py --space "lr=log(1e-4,1e-1)" --trials 200     more, after 60: goes on
  descend tune my_task.py --space "lr=log(1e-4,1e-1)" --seeds 6
  descend tune my_task.py --space "lr=log(1e-4,1e-1)" --out /x/it --storage /x/log
  descend train my_task.py --from tune/.../BEST

\b
The space is NAME=VALUES for each name, in quotes for the shell:
  lr=log(1e-5,1e-1)           equal ratios are equally likely
  dropout=float(0,0.5)        float(0,0.5,0.1) in steps
  hidden=int(16,256)          int(16,256,16) in steps, int(16,256,log) by ratios
  optimizer=choice(adamw,lion)
  momentum=0.9                one value is fixed
A NAME is an argument of the function that makes the task, def task(hidden: int = 64); or lr,
optimizer, batch_size; or a hyperparameter of the optimizer (weight_decay, beta1, ...), chosen
only for optimizers that have it; or warmup or decay of the default schedule, fractions of the
length.

\b
How it goes:
  The first trial has the defaults, as far as they are in the space. Trials are asked for in
  fours (--at-once), by Optuna's TPE: the result depends on --seed and on no number of --jobs.
  Each is trained to the end of a ninth of the length; the best third of all goes on to a third,
  the best third of those to the whole (--pruner halving). The first eight are trained whole: by
  them it is known whether short trainings tell how long ones end, and no trial is pruned where
  they do not. Every training ends its own schedule: warmup, constant, a decay to zero. Only ends
  are compared. A training that diverged is the worst there is; one whose code fails is told of,
  and the rest goes on.
  --seeds K trains each trial with K seeds, and stops one as soon as it is surely worse than the
  best (Wilcoxon's test, from the fourth seed on).
  The best of many is luck as well: how much worse it is on fresh seeds is said at the end.

\b
Several processes or machines work on one search: the same command on each, with --out on a
path that all share, and --storage a journal file there or the URL of a database. One that dies
is noticed, and its trials go on in another from their checkpoints.

\b
The folder holds:
  BEST            descend train --from BEST trains the best to the bit
  report.html     a page: history, importances, parallel coordinates, slices
  results.json    all of it; the same for the same command, killed or not
  study.db        Optuna's study
  trials/         the trainings, a checkpoint of each
Stopped by Ctrl-C or killed, the same command goes on; with more --trials too: it is the total.

\b
Exit status: 0 done, 2 the input cannot be used, 130 interrupted, 143 terminated.
"""


class SpaceCommand(click.Command):
    """A command whose --space takes several values: NAME=... up to the next option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put a --space before each of them."""
        return super().parse_args(ctx, spread(args))


def spread(args: Sequence[str]) -> list[str]:
    """Arguments in which each value of --space has one of its own before it.

    Example:
        >>> spread(["--space", "a=1", "b=2", "--trials", "3"])
        ['--space', 'a=1', '--space', 'b=2', '--trials', '3']
    """
    found: list[str] = []
    within = False
    for number, text in enumerate(args):
        first = number > 0 and args[number - 1] == "--space"
        if within and not first and "=" in text and not text.startswith("-"):
            found.append("--space")
        within = text == "--space" or (within and not text.startswith("-"))
        found.append(text)
    return found


@click.command(help=HELP, cls=SpaceCommand)
@click.argument("task_file", metavar="[TASK.py]", required=False, type=A_PATH)
@click.option(
    "--space",
    metavar="NAME=VALUES...",
    multiple=True,
    required=True,
    help="The names and the values that they may have; several after one --space, or repeat it.",
)
@option("--trials", default=60, help="How many in all: those there are count.")
@click.option(
    "--metric",
    metavar="METRIC",
    callback=read_best,
    help="What is compared, measured on the validation data, such as accuracy; f1:highest or "
    "mae:lowest say which is best.  [default: the loss]",
)
@click.option(
    "--schedule",
    metavar="EXPR",
    help="The schedule of the learning rate, its times fractions of a training's length, such as "
    '"warmup(0.05) >> cosine(0.95)"; or "constant".  [default: warmup, constant, decay to zero]',
)
@option("--steps", such=1000, help="Of a training.  [default: the task's own epochs]")
@option(
    "--pruner",
    allowed=PRUNERS,
    such="median",
    help="Which trials are paused.  [default: halving; wilcoxon with --seeds]",
)
@option("--seed", allowed=SEED, default=0, help="Of the search and of its trainings.")
@option("--seeds", default=1, help="How many trainings each trial has, each with a seed.")
@option(
    "--confirm",
    allowed=COUNT_FROM_0,
    default=5,
    help="On how many fresh seeds the best is trained again.",
)
@option(
    "--at-once",
    default=4,
    help="How many trials are asked for before the next are told: more keep more --jobs busy, "
    "fewer learn more of each other.",
)
@option("--jobs", such=2, help="How many trainings run at once.  [default: one a processor]")
@option("--threads", allowed=COUNT, default=1, help="Of each training.")
@click.option(
    "--storage",
    metavar="FILE|URL",
    help="A journal file, or the URL of a database, for several machines.  [default: SQLite in the "
    "folder]",
)
@path_option(
    "--out",
    metavar="FOLDER",
    help="The folder of the search: new, empty, or of one that goes on.  [default: tune/ and a "
    "name made of what is searched]",
)
@json_at_end_option
def tune(
    task_file: Path | None,
    metric: tuple[str, bool | None] | None,
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Search; the exit status."""
    from descend.run.stop_signals import exit_on

    if metric is not None:
        options["metric"], options["highest"] = metric
    aside = redirect_stdout(sys.stderr) if as_json else nullcontext()
    with aside, warnings_in_one_line(), exit_on(signal.SIGTERM):
        found = _tuned("" if task_file is None else str(task_file), out, options)
        click.echo("\n".join(result_lines(found)))
    if as_json:
        from descend.format import json_text

        click.echo(json_text(found.results))
    return 0


def _tuned(task: str, folder: Path | None, options: dict[str, Any]) -> "Tuning":
    """Search, with a bar and lines on standard error."""
    from descend.search.comparison import News
    from descend.search.tuning import tune as tuned

    with progress_bar(remaining=True) as (show, say):

        class Shown(News):
            def say(self, line: str) -> None:
                say(f"descend: {line}" if line.startswith("warning: ") else line)

            def show(
                self, text: str, done: float | None = None, total: float | None = None
            ) -> None:
                show(text, done, total)

        return tuned(task, folder=folder, news=Shown(), **options)


def result_lines(found: "Tuning") -> list[str]:
    """The outcome of a search: the best values, on fresh seeds too, and how to train with them."""
    from descend.format import counted, plain_text
    from descend.report.tables import facts, screen, sentence
    from descend.report.tuning_page import PAGE
    from descend.search.tuning import train_from
    from descend.search.tuning_results import back_in_words

    results, on = found.results, screen()
    best, trials = results["best"], results["trials"]
    states = [one["state"] for one in trials]
    told = ", ".join(
        f"{states.count(state)} {state}"
        for state in ("done", "paused", "diverged", "failed")
        if state in states
    )
    values = "  ".join(f"{name}={plain_text(one)}" for name, one in best["params"].items())
    lines = facts(
        [
            ("trials", f"{counted(len(trials), 'trial')}: {told}"),
            ("best", f"trial {best['number']}: {results['metric']['name']} {best['value']:.5g}"),
            ("values", values),
        ],
        on,
    )
    lines += sentence(back_in_words(results), on)
    page = f"page      {found.folder / PAGE}"
    return ["", *lines, page, f"train it  {train_from(found)}"]
