"""`descend inspect`: show what is in a checkpoint, a run, or a file of torch's."""

from pathlib import Path

import click

from descend.cli import INPUT
from descend.cli.options import A_PATH, json_option

DAMAGED = 1

# Not the docstring: click needs the \b of its literal paragraphs to be the character itself
HELP = """\
Show what is in a checkpoint, a run, or a file of torch's, and whether it is whole.

\b
PATH is one of
  a run's folder          a table of its checkpoints, which one the run would go on from, and
                          that one in detail
  a checkpoint            a folder that holds a manifest.json
  a folder of these       a table of the runs in it, one line each, with the best and the last
                          value of each metric, and one of the checkpoints
  a .pth, .pt or .ckpt    a file of torch.save, of Lightning too; no code in it is run

\b
Shown are
  the step, the epochs, the metrics, and plain values such as "epoch": 3
  of a run: task, optimizer, schedule, data, seed, and whether it is over
  each object in it (model, optimizer, ...): its tensors, their elements and bytes
  the lr and the other hyperparameters of each parameter group
  what wrote it (versions, processor, threads, flags), what of that is different here, and when
  whether it is whole; if it is damaged, which tensor or which file is

\b
Examples:
  descend inspect runs/mine
  descend inspect runs/mine/checkpoints/step-00000420
  descend inspect old.pth --tensors               every tensor: dtype, shape, bytes, hash
  descend inspect runs                            all runs, beside each other
  descend inspect runs/mine --match "model.*.weight"
  descend inspect runs/mine --match exp_avg       those with exp_avg in their names
  descend inspect runs/mine --no-verify           at once, however big
  descend inspect runs/mine --json | jq .used     for a program to read

To verify a checkpoint, all of it is read. --no-verify reads what describes it, and no tensor: it
is fast, and finds only what is missing, cut short, or damaged in the description.

\b
Exit status: 0 done, 1 something is damaged, 2 PATH cannot be used, 130 interrupted.
"""


@click.command(help=HELP)
@click.argument("path", type=A_PATH)
@click.option("--tensors", "list_all", is_flag=True, help="List every tensor.")
@click.option(
    "--match",
    "pattern",
    metavar="PATTERN",
    help="List the tensors with PATTERN in their names; with * or ? in it, those whose whole "
    "names it fits.",
)
@click.option("--no-verify", is_flag=True, help="Do not read the tensors of checkpoints: fast.")
@json_option
def inspect(path: Path, list_all: bool, pattern: str | None, no_verify: bool, as_json: bool) -> int:
    """Show what is in a checkpoint; the exit status."""
    from descend.checkpoint.damages import damages_of, seen_damages
    from descend.cli.reading import readable, reading, telling
    from descend.format import first_names, json_text
    from descend.report.checkpoints import one_lines, several_lines
    from descend.report.described import describe_one, describe_several
    from descend.report.locate import find
    from descend.report.tables import screen

    def look(path: Path) -> list[str] | None:
        if no_verify and path.is_dir():
            return seen_damages(path) or None
        with reading(path) as progress:
            return damages_of(path, progress)

    listed = pattern if pattern is not None else ("" if list_all else None)
    with telling(), readable(path):
        found = find(path)
        if found.is_one:
            document = describe_one(found, look, listed)
            read, lines = [document], one_lines
        else:
            document = describe_several(found, look, listed)
            read, lines = document["checkpoints"], several_lines
    click.echo(json_text(document) if as_json else "\n".join(lines(document, screen())))
    for key, what, status in (("damages", "damaged", DAMAGED), ("error", "not readable", INPUT)):
        names = [one["path"] for one in read if one.get(key)]
        if names:
            click.echo(f"descend: error: {what}: {first_names(names)}", err=True)
            return status
    return 0
