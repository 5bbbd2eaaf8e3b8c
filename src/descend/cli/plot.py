"""`descend plot`: draw schedules before any training."""

import csv
import inspect
import io
import math
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from descend.checks import Choice
from descend.cli.options import LR, UNIT, option, path_option
from descend.cli.text import narrow
from descend.errors import ScheduleError
from descend.user_file import located

if TYPE_CHECKING:
    from descend.report.schedule_lines import Sampled
    from descend.report.schedule_values import Source

HYPERPARAMETERS = ("weight_decay", "momentum", "beta1", "beta2", "eps", "alpha", "rho", "dampening")
"""Names of curves that were probably meant to be more."""

STDOUT = Path("-")

# Not the docstring: click needs the \b of its literal paragraphs to be the character itself
HELP = """\
Draw schedules before any training: a chart here, and as a picture or a table where asked for.

\b
Each EXPR is one of
  EXPR                  a schedule, made of the functions below:
                          a >> b    a, and where it ends, b
                          a * b     the product; a * 0.5 is scaled
  my_file.py:NAME       a schedule or a scheduler (descend's or torch's) of a Python file, or a
                        function without arguments that returns one; the file is run
  weight_decay:EXPR     the schedule of another hyperparameter than lr, in a panel of its own
  NAME=EXPR             a name for the curve, where several are drawn
Put it in quotes: the shell has a meaning for > and ( too. An expression is read, never executed.

\b
Examples:
  descend plot "warmup(500) >> cosine(9500)"
  descend plot "warmup(500) >> cosine(9500)" --lr 3e-4 --picture lr.png
  descend plot "short=cosine(5000)" "long=cosine(10000)" "wsd(500, 7500, 2000)"
  descend plot "warmup(5) >> cosine(85)" --unit epoch --steps-per-epoch 390
  descend plot "warmup(0.05) >> cosine(0.95)" --unit fraction --steps 10000
  descend plot "one_cycle(9000)" "momentum:linear(9000, value(0.95), value(0.85))"
  descend plot my_file.py:scheduler --steps 9000 --csv lr.csv

\b
A schedule gives factors of what the optimizer is given: --lr makes the lr of them, and
value(0.001) stands for a value itself. Times are steps, unless --unit says otherwise.
A scheduler of a file is left as it is: where it has to be stepped, a copy is.

Likely mistakes, such as a warmup that is longer than the run, are warned of on stderr.

\b
Exit status: 0 done, warnings or not; 2 the input cannot be used; 130 interrupted.
"""


class _Curve(NamedTuple):
    """One of the arguments.

    Args:
        name: which curve it belongs to; two hyperparameters can belong to the same.
        named: whether the user has named it.
        key: the hyperparameter; empty for a scheduler, which knows.
        given: the schedule or scheduler.
        path: the file that it is from, if any.
    """

    name: str
    named: bool
    key: str
    given: Any
    path: Path | None


class _Plot(click.Command):
    """A command whose help ends with the functions of `descend.schedules`."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from descend.schedules.expressions import functions
        from descend.schedules.schedule import usage

        with formatter.section("Functions"):
            formatter.write_dl([(usage(name), _meaning(name)) for name in functions()])


def _meaning(name: str) -> str:
    """The first line of a function's documentation, and the words that it takes."""
    from descend.schedules.schedule import SHAPES, parameters

    line = (inspect.getdoc(SHAPES[name]) or "").partition("\n")[0].rstrip(".")
    words = [
        f"{key}: {kind}"
        for key, parameter in parameters(name).items()
        for kind in getattr(parameter.annotation, "__metadata__", ())
        if isinstance(kind, Choice)
    ]
    return f"{'; '.join((line, *words))}."


@click.command(cls=_Plot, help=HELP)
@click.argument("expressions", metavar="EXPR...", nargs=-1, required=True)
@option("--steps", help="How many steps to draw.  [default: up to the last end, and a little more]")
@option(
    "--lr",
    allowed=LR,
    such=0.001,
    help="What schedules of the lr are factors of.  [default: 1, so that factors are drawn]",
)
@option(
    "--unit",
    allowed=UNIT,
    default="step",
    help="The unit of the times in expressions: steps; epochs, each of --steps-per-epoch steps; or "
    "fractions of --steps. A scheduler is stepped once in each.",
)
@option(
    "--steps-per-epoch",
    such=390,
    help="How many steps an epoch has, len(loader); for --unit epoch, and for a second scale.",
)
@path_option(
    "--picture",
    metavar="FILE",
    help="Write a picture: PNG or SVG, by the ending .png or .svg.",
)
@path_option(
    "--csv",
    "csv_file",
    metavar="FILE",
    help="Write a table: every step, and the value of each curve with all its digits. - for "
    "stdout, in place of the chart.",
)
def plot(
    expressions: tuple[str, ...],
    steps: int | None,
    lr: float | None,
    unit: str,
    steps_per_epoch: int | None,
    picture: Path | None,
    csv_file: Path | None,
) -> int:
    """Draw schedules; the exit status."""
    if picture is not None:
        from descend.figure_file import check_ending

        check_ending(picture)
    if unit == "epoch" and steps_per_epoch is None:
        raise click.UsageError(
            "--unit epoch: say how many steps an epoch has, such as --steps-per-epoch 390"
        )
    if unit == "fraction" and steps is None:
        raise click.UsageError(
            "--unit fraction: say how many steps the run has, such as --steps 10000"
        )
    from descend.report.schedule_lines import sampled, shown_steps
    from descend.report.schedule_values import source_of

    curves = _distinct([_read(text) for text in expressions])
    curves = [_in_steps(curve, unit, steps, steps_per_epoch) for curve in curves]
    every = steps_per_epoch if unit == "epoch" and steps_per_epoch is not None else 1
    files = {curve.path for curve in curves if curve.path is not None}
    with located(files, ScheduleError):
        sources = [
            source_of(
                curve.name if len(curves) > 1 or curve.named else "",
                {curve.key: curve.given} if curve.key else curve.given,
                1.0 if lr is None else lr,
                every,
            )
            for curve in curves
        ]
        shown = steps or shown_steps(sources)
        if shown is None:
            raise click.UsageError(
                f"{curves[0].name} never ends by itself: say how many steps to draw, such as "
                "--steps 10000"
            )
        found = sampled(sources, shown)
    for warning in (*_doubts(curves, steps, steps_per_epoch, every), *found.notes):
        click.echo(f"descend: warning: {warning}", err=True)
    if csv_file != STDOUT:
        click.echo(_chart(curves, found, steps_per_epoch))
    if picture is not None:
        from descend.figure_file import save_figure
        from descend.report.schedule_figure import figure_of

        figure = figure_of(found, title=_title(curves), steps_per_epoch=steps_per_epoch)
        save_figure(figure, picture)
        click.echo(f"picture: {picture}", err=csv_file == STDOUT)
    if csv_file is not None:
        with located(files, ScheduleError):
            _write_table(csv_file, sources, found)
        if csv_file != STDOUT:
            click.echo(f"table: {csv_file}")
    return 0


def _read(text: str) -> _Curve:
    """One of the arguments, as it was typed."""
    # A name ends at the first =, and has nothing in it that only an expression or a path has.
    named = re.match(r"\s*([^=():,>*/\\\"']*?)\s*=(?!=)", text)
    rest = text[named.end() :].strip() if named else text.strip()
    if named and not named[1]:
        raise ScheduleError(f"{text!r}: a name stands before =, such as mine={rest}")
    keyed = re.match(r"(\w+)\s*:(?!\\)", rest)  # but C:\my_file.py is none
    key = keyed[1] if keyed and keyed[1].isidentifier() else ""
    body = rest[keyed.end() :].strip() if keyed and key else rest
    name = named[1] if named else rest
    file = re.fullmatch(r"(.+\.py)(?::\w*)?", body)
    if file is None:
        from descend.schedules.expressions import parse

        try:
            given: Any = parse(narrow(body))
        except ScheduleError as error:
            start = named[1] + "=" * bool(named) if named else ""
            start += f"{key}:" if key else ""
            hint = ""
            if key and body.isidentifier():
                hint = f" (a name in a Python file is written {key}.py:{body})"
            raise ScheduleError(f"{start and f'{start} '}{error}{hint}") from error
        return _Curve(name, bool(named), key or "lr", given, None)
    from descend.schedules import Schedule
    from descend.schedules.schedule_file import load_schedule

    given = load_schedule(body)
    if isinstance(given, Schedule):
        return _Curve(name, bool(named), key or "lr", given, Path(file[1]))
    if key:
        raise ScheduleError(
            f"{rest}: {body} is a scheduler, which drives hyperparameters of its own; leave out "
            f"{key}:"
        )
    return _Curve(name, bool(named), "", given, Path(file[1]))


def _distinct(curves: list[_Curve]) -> list[_Curve]:
    """The curves, if no two have the same name and hyperparameter."""
    seen: dict[tuple[str, str], _Curve] = {}
    for curve in curves:
        before = seen.setdefault((curve.name, curve.key), curve)
        if before is not curve and curve.named:
            raise ScheduleError(
                f"two curves of {curve.key or 'a scheduler'} are named {curve.name}; give one of "
                "them another name"
            )
    return list(seen.values())


def _in_steps(curve: _Curve, unit: str, steps: int | None, steps_per_epoch: int | None) -> _Curve:
    """The curve with its times in steps."""
    if unit == "step":
        return curve
    if not curve.key:
        if unit == "fraction":
            raise ScheduleError(
                f"{curve.name} is a scheduler, which counts steps or epochs, and no fractions; "
                "leave out --unit fraction"
            )
        return curve
    if unit == "epoch":
        return curve._replace(given=curve.given.in_epochs(steps_per_epoch))
    return curve._replace(given=curve.given.over(steps))


def _doubts(
    curves: Sequence[_Curve], steps: int | None, steps_per_epoch: int | None, every: int
) -> Iterator[str]:
    """The warnings of likely mistakes."""
    from descend.report.schedule_values import schedules_of
    from descend.schedules.lint import mistakes

    for curve in curves:
        if curve.named and curve.name in HYPERPARAMETERS and curve.key == "lr":
            yield (
                f"{curve.name}=... is a curve of the lr with that name; the hyperparameter is "
                f"written {curve.name}:..."
            )
        given = {curve.key: curve.given} if curve.key else schedules_of(curve.given)
        run = steps and (steps if curve.key else steps // every)
        epoch = steps_per_epoch if every == 1 or curve.key else None
        for key, schedule in given.items():
            end = run or (math.ceil(schedule.length) if schedule.length < math.inf else 0)
            for mistake in mistakes(schedule, end, epoch, key.split()[0]) if end else ():
                yield mistake if len(curves) == 1 else f"{curve.name}: {mistake}"


def _title(curves: Sequence[_Curve]) -> str:
    if len(curves) > 1 or curves[0].named:
        return ""
    return str(curves[0].given) if curves[0].key else curves[0].name


def _chart(curves: Sequence[_Curve], found: "Sampled", steps_per_epoch: int | None) -> str:
    from descend.report.schedule_chart import chart
    from descend.report.tables import screen

    on, width = screen(), shutil.get_terminal_size().columns
    text = chart(
        found,
        width=width,
        colour=on.colour,
        encoding=on.encoding,
        steps_per_epoch=steps_per_epoch,
    )
    title = _title(curves)
    return f"{title}\n\n{text}" if title else text


def _write_table(path: Path, sources: "Sequence[Source]", found: "Sampled") -> None:
    """Write the table, row by row: of ten million steps none has to be kept."""
    from descend.files import replaced
    from descend.report.schedule_lines import table

    several = len(found.keys) > 1
    heads = [
        ", ".join(filter(None, (one.name, one.key * (several or not one.name), one.group_words)))
        for one in found.lines
    ]
    with nullcontext(None) if path == STDOUT else replaced(path) as file:
        text: Any = sys.stdout
        if file is not None:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["step", *heads])
        for step, *values in table(sources, found):
            writer.writerow([step, *("" if math.isnan(one) else repr(one) for one in values)])
        if file is not None:
            text.detach()  # the file is closed, and gets its name, when all is on the disk
