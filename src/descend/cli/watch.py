"""`descend watch`: the curves of runs in the terminal, live."""

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from descend.cli.options import A_PATH
from descend.errors import RunError
from descend.spelling import hint

if TYPE_CHECKING:
    from descend.report.run_log import RunLog

EVERY = 1.0  # seconds between two looks

# Not the docstring: click needs the \b of its literal paragraphs to be the character itself
HELP = """\
Draw the curves of runs in the terminal, over each other, and draw them anew as they grow.

Each RUN is the folder of a run: of a Trainer, of descend train, of a Run of your own. It ends by
Ctrl-C, or when all runs are over. Without a terminal, or with --once, it draws once.

\b
Examples:
  descend watch runs/digits
  descend watch runs/* --metric val_loss
  descend watch runs/a runs/b --metric val_loss --metric val_acc
  descend watch runs/digits --once > curves.txt
  descend report runs/*                     the same on a page, with settings and ends

Without --metric, those that fit into the terminal: losses first, then other metrics, then lr.

\b
Exit status: 0 done, 2 a RUN is none, or has no such metric.
"""


@click.command(help=HELP)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=A_PATH)
@click.option("--metric", "metrics", metavar="NAME", multiple=True, help="What to draw; repeat it.")
@click.option("--once", is_flag=True, help="Draw once and end.")
def watch(runs: tuple[Path, ...], metrics: tuple[str, ...], once: bool) -> int:
    """Draw runs; the exit status."""
    from descend.report.run_charts import is_over
    from descend.report.run_log import RunLog
    from descend.report.run_names import run_names
    from descend.report.tables import screen

    logs = {name: RunLog(path) for name, path in run_names(runs).items()}
    for log in logs.values():
        log.read()
    known = list(dict.fromkeys(name for log in logs.values() for name in log.curves))
    for name in metrics:
        if name not in known:
            raise RunError(
                f"--metric {name}: no run has it; {hint(name, known)}logged: "
                f"{', '.join(known) or 'nothing yet'}"
            )
    on = screen()
    if once or on.width is None:
        click.echo(_drawn(logs, metrics, None))
        return 0
    from rich.live import Live
    from rich.text import Text

    try:
        with Live(auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                height = shutil.get_terminal_size().lines
                live.update(Text.from_ansi(_drawn(logs, metrics, height)), refresh=True)
                if all(is_over(log.folder) for log in logs.values()):
                    return 0
                time.sleep(EVERY)
                for log in logs.values():
                    log.read()
    except KeyboardInterrupt:
        return 0


def _drawn(logs: "dict[str, RunLog]", metrics: tuple[str, ...], height: int | None) -> str:
    """The charts that fit, and below them a line for each run."""
    from descend.report.run_charts import ROWS_OF_CHART, run_charts, run_line, shown_metrics
    from descend.report.tables import screen

    shown = shown_metrics(logs, metrics)
    if height is not None:
        each = ROWS_OF_CHART + len(logs) + 1
        shown = shown[: max((height - len(logs) - 2) // each, 1)]
    on = screen()
    width = on.width or shutil.get_terminal_size((80, 24)).columns
    charts = run_charts(logs, shown, on, width) if shown else "nothing was logged twice yet"
    lines = [run_line(name, log, shown) for name, log in logs.items()]
    return "\n".join([charts, "", *lines])
