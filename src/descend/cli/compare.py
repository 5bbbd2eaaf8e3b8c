"""`descend compare`: which optimizer, at which learning rate, for a task."""

import signal
import sys
from collections.abc import Mapping
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from descend.checks import COUNT, SEED, Range
from descend.cli.options import json_at_end_option, option, path_option
from descend.cli.progress_bar import progress_bar, warnings_in_one_line
from descend.cli.train_options import read_best, read_settings

if TYPE_CHECKING:
    from descend.search.comparison import Comparison

SUITES = ("small",)

# Not the docstring: click needs the \b of its literal paragraphs to be the character itself
HELP = """\
Which optimizer, at which learning rate, for my model?

Each contender is tuned at equal budget: its learning rate is searched, and the best is trained
anew on fresh seeds, beside AdamW tuned in the same way and AdamW with its defaults. Without
names: adamw, sgd:momentum=0.9, nadam, lion and muon. Without a file: the digits of descend train.

\b
Examples:
  descend compare my_task.py
  descend compare my_task.py adamw sgd:momentum=0.9 lion --budget 5m
  descend compare my_task.py my_rule.py:Signum muon --budget 20000steps
  descend compare my_task.py adamw:lr=1e-3 adamw:lr=1e-2      no search: these two
  descend compare my_task.py --metric accuracy --weight-decay
  descend compare --suite small                five tasks that come with descend
  descend compare my_task.py --json | jq .command

\b
A contender is NAME or FILE.py:NAME, and after a colon what is fixed of it: sgd:momentum=0.9.
lr=0.1 fixes the learning rate, which is not searched then; schedule=constant keeps it constant.

\b
How it goes:
  1. A step of each contender is timed, by turns. From there on all is deterministic.
  2. Nine learning rates from 1/30 to 30 times the optimizer's own default are trained for a third
     of the length, and two more beyond the edge if the best stands there. The best four go on to
     the end, and all of them where a third of the length tells too little.
  3. The best is trained on fresh seeds, to ends at several lengths: how long until it reaches
     what AdamW with its defaults reaches in the end?
  4. "better" and "worse" are said where a sign-flip test and an interval over the seeds say it,
     after Holm's correction for the number of contenders; else "not separated".
Every training ends its schedule: warmup, constant, and a decay to zero over the last 30 %. Only
ends are compared. A training that diverged counts as an untrained one.

\b
The folder holds:
  results.json    all of it; the same for the same command, killed or not
  report.html     a page with the curves, quality against lr, time to target
  comparison.png  the same in one picture
  BEST            descend train --from BEST trains the winner to the bit
  trials/         the trainings; of the best one the model is kept
Stopped by Ctrl-C or killed, the same command goes on. SciPy is needed: pip install
"descend[compare]".

\b
Exit status: 0 done, 2 the input cannot be used, 130 interrupted, 143 terminated.
"""


@click.command(help=HELP)
@click.argument("names", metavar="[TASK.py] [CONTENDER]...", nargs=-1)
@click.option(
    "--budget",
    metavar="TIME|STEPS",
    help="90s, 5m or 2h for all of it on this machine, or 20000steps for each contender.  "
    "[default: as much as trainings of the task's own length need]",
)
@click.option(
    "--arg",
    "arguments",
    metavar="NAME=VALUE",
    multiple=True,
    callback=read_settings,
    help="An argument of the task's function; repeat it for others.",
)
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
    help="The schedule of every learning rate, its times fractions of a training's length, such as "
    '"warmup(0.05) >> cosine(0.95)"; or "constant".  [default: warmup, constant, decay to zero]',
)
@click.option("--weight-decay", is_flag=True, help="Search the weight decay too.")
@option("--batch-size", such=64, help="Samples per batch.  [default: the task's]")
@option("--seed", allowed=SEED, default=0, help="Of the search; the confirmation takes the next.")
@option(
    "--seeds",
    allowed=Range(2, whole=True),
    such=7,
    help="How many in the confirmation.  [default: as many as a verdict needs: 6 with two "
    "contenders, 8 with five]",
)
@option("--jobs", such=2, help="How many trainings run at once.  [default: one a processor]")
@option("--threads", allowed=COUNT, default=1, help="Of each training.")
@click.option(
    "--suite",
    type=click.Choice(SUITES),
    help="Compare on tasks that come with descend, and sum up; no TASK.py then.",
)
@path_option(
    "--out",
    metavar="FOLDER",
    help="The folder of the comparison: new, empty, or of one that goes on.  [default: runs/ and a "
    "name made of what is compared]",
)
@click.option("--fresh", is_flag=True, help="Start over: remove the comparison in the folder.")
@json_at_end_option
def compare(
    names: tuple[str, ...],
    metric: tuple[str, bool | None] | None,
    suite: str | None,
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Compare optimizers; the exit status."""
    from descend.run.stop_signals import exit_on

    task, contenders = _task_and_contenders(names)
    if suite is not None and task:
        raise click.UsageError(f"--suite {suite} has tasks of its own: leave {task} out")
    if metric is not None:
        options["metric"], options["highest"] = metric
    aside = redirect_stdout(sys.stderr) if as_json else nullcontext()
    with aside, warnings_in_one_line(), exit_on(signal.SIGTERM):
        if suite is None:
            found, lines = _one(task, contenders, out, options)
        else:
            found, lines = _suite(suite, contenders, out, options)
        click.echo("\n".join(lines))
    if as_json:
        from descend.format import json_text

        click.echo(json_text(found))
    return 0


def _task_and_contenders(names: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The task's file, if the first name is one, and the rest."""
    if names and names[0].endswith(".py"):
        return names[0], names[1:]
    return "", names


def _one(
    task: str, contenders: tuple[str, ...], out: Path | None, options: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The results of one comparison, and what is said of them."""
    from descend.cli.compare_text import result_lines
    from descend.report.tables import screen
    from descend.search.comparison import PAGE

    found = _compared(task, contenders, out, options)
    page = f"page      {found.folder / PAGE}"
    return found.results, ["", *result_lines(found.results, screen()), page]


def _suite(
    suite: str, contenders: tuple[str, ...], out: Path | None, options: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The results of the comparisons of a suite by task, and what is said of them."""
    from descend.cli.compare_text import suite_lines
    from descend.report.tables import screen
    from descend.search.suite import suite_tasks

    place = out or Path("runs") / f"compare-suite-{suite}"
    found = {}
    for name, path in suite_tasks().items():
        click.echo(f"{name}:", err=True)
        found[name] = _compared(str(path), contenders, place / name, options).results
    return found, ["", *suite_lines(found, screen())]


def _compared(
    task: str, contenders: tuple[str, ...], folder: Path | None, options: Mapping[str, Any]
) -> "Comparison":
    """Compare, with a bar and lines on standard error."""
    from descend.search.comparison import News
    from descend.search.comparison import compare as compared

    with progress_bar(remaining=True) as (show, say):

        class Shown(News):
            def say(self, line: str) -> None:
                say(line)

            def show(
                self, text: str, done: float | None = None, total: float | None = None
            ) -> None:
                show(text, done, total)

        return compared(task, contenders, folder=folder, news=Shown(), **options)
