"""`descend diff`: which tensors and values of two checkpoints differ, and by how much."""

from pathlib import Path

import click

from descend.cli.options import A_PATH, json_option
from descend.cli.reading import load_aloud, readable

DIFFERENT = 1
MOST_TOLD = 10  # differences of one kind in one object, but with --all

# Not the docstring: click needs the \b of its literal paragraphs to be the character itself
HELP = """\
Say which tensors and values of two checkpoints differ, and by how much.

\b
A and B are each one of
  a checkpoint            a folder that holds a manifest.json
  a run's folder          its newest checkpoint that is whole
  a .pth, .pt or .ckpt    a file of torch.save, of Lightning too; no code in it is run

Two values are equal if all their bits are: 0.0 and -0.0 differ. The first line says whether there
is a difference. Then come those of each object, the largest first (tensors of one element, such
as counters, after the others): how many elements of a tensor differ, the largest difference of two
of them, and the largest one over the larger of the two.

\b
Examples:
  descend diff runs/a runs/b
  descend diff runs/a runs/b --only model         the weights alone
  descend diff runs/a/checkpoints/step-00000140 runs/a/checkpoints/step-00000280
  descend diff old.pth runs/mine --only model --only optimizer
  descend diff runs/a runs/b --json | jq .equal   for a program to read
  descend diff runs/a runs/b > /dev/null && echo the same

\b
Exit status: 0 equal, 1 different, 2 the input cannot be used, 130 interrupted.
"""


@click.command(help=HELP)
@click.argument("first", metavar="A", type=A_PATH)
@click.argument("second", metavar="B", type=A_PATH)
@click.option(
    "--only",
    metavar="OBJECT",
    multiple=True,
    help="Compare this object alone, such as model; repeat it for others.",
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help=f"List every difference, not {MOST_TOLD} tensors and {MOST_TOLD} values of each object.",
)
@json_option
def diff(first: Path, second: Path, only: tuple[str, ...], everything: bool, as_json: bool) -> int:
    """Compare two checkpoints; the exit status."""
    from descend.format import json_text
    from descend.report.differences import as_document, compare, in_lines
    from descend.report.tables import screen

    (used, a), (other, b) = (load_aloud(path, only) for path in (first, second))
    with readable(first):
        compared = list(compare(a, b))
    if as_json:
        click.echo(json_text(as_document(used, other, compared)))
    else:
        most = None if everything else MOST_TOLD
        click.echo("\n".join(in_lines(used, other, compared, screen(), most)))
    return 0 if all(one.is_equal for one in compared) else DIFFERENT
