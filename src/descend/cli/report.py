"""`descend report`: several runs beside each other on one page."""

from pathlib import Path

import click

from descend.cli.options import A_PATH, path_option
from descend.errors import OutputError

OUT = Path("report.html")

# Not the docstring: click needs the \b of its literal paragraphs to be the character itself
HELP = """\
Write a page that lays runs beside each other: their curves over each other, how each came out,
and their settings, with what differs marked.

The page is one HTML file that needs nothing beside itself, no network and no script: send it to
whoever asks. Each RUN is the folder of a run: of a Trainer, of descend train, of a Run of your own.

\b
Examples:
  descend report runs/digits
  descend report runs/* --out report.html
  descend watch runs/*                      the same curves in the terminal, live

Hyperparameters are those that a module saves (save_hyperparameters), and what the newest
checkpoint tells: the optimizer and its lr, the schedules, the seed, the versions.

\b
Exit status: 0 done, 2 a RUN is none, or the page cannot be written.
"""


@click.command(help=HELP)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=A_PATH)
@path_option("--out", metavar="FILE", help=f"The page.  [default: {OUT}]")
def report(runs: tuple[Path, ...], out: Path | None) -> int:
    """Write the page; the exit status."""
    from descend.files import replaced
    from descend.report.run_names import run_names
    from descend.report.run_page import page, shown_run

    shown = [shown_run(name, path) for name, path in run_names(runs).items()]
    out = out or OUT
    try:
        with replaced(out) as file:
            file.write(page(shown).encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise OutputError(f"--out {out}: cannot be written: {error.strerror or error}") from error
    click.echo(f"{out} is written")
    return 0
