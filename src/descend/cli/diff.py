"""`descend diff`: which tensors and values of two checkpoints differ, and by how much."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from descend.cli.loading import load_aloud

if TYPE_CHECKING:
    from descend.checkpoint import Difference
    from descend.report.checkpoints import Cell, Screen

DIFFERENT = 1
MOST_TOLD = 10  # differences of one kind in one object, but with --all
ALONE = "only in the "  # first, second: how `descend.checkpoint.diff` says it

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


@dataclass(frozen=True)
class _Compared:
    """One entry of the two states, such as "model".

    Args:
        name: of the entry.
        only: "first" or "second" where the other state has no such entry.
        tensors: the names of those in both, and whether each holds floating-point numbers.
        values: how many others there are in the first.
        changed: the tensors that differ, the largest difference first.
        others: the other values that differ.
        alone: what is in one of the two states alone.
    """

    name: str
    only: str | None
    tensors: Mapping[str, bool]
    values: int
    changed: "Sequence[Difference]"
    others: "Sequence[Difference]"
    alone: "Sequence[Difference]"

    @property
    def is_equal(self) -> bool:
        """Whether there is no difference."""
        return not (self.only or self.changed or self.others or self.alone)


@click.command(help=HELP)
@click.argument("first", metavar="A", type=click.Path(path_type=Path))
@click.argument("second", metavar="B", type=click.Path(path_type=Path))
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
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def diff(first: Path, second: Path, only: tuple[str, ...], everything: bool, as_json: bool) -> int:
    """Compare two checkpoints; the exit status."""
    from descend.report.checkpoints import finite, screen

    parts = list(dict.fromkeys(only)) or None
    (used, a), (other, b) = (load_aloud(path, parts) for path in (first, second))
    compared = list(_compared(a, b))
    if as_json:
        document = finite(_document(used, other, compared))
        click.echo(json.dumps(document, indent=2, allow_nan=False))
    else:
        lines = _lines(used, other, compared, screen(), None if everything else MOST_TOLD)
        click.echo("\n".join(lines))
    return 0 if all(one.is_equal for one in compared) else DIFFERENT


def _compared(a: Mapping[Any, Any], b: Mapping[Any, Any]) -> Iterator[_Compared]:
    """The entries of two states, beside each other."""
    import torch

    from descend.checkpoint import diff as differences_of
    from descend.cli.inspect import leaves

    for key in [*a, *(key for key in b if key not in a)]:
        if key not in a or key not in b:
            only = "first" if key in a else "second"
            yield _Compared(str(key), only, {}, 0, [], [], [])
            continue
        mine, theirs = dict(leaves(a[key], str(key))), dict(leaves(b[key], str(key)))
        tensors = {
            name: value.dtype.is_floating_point or value.dtype.is_complex
            for name, value in mine.items()
            if isinstance(value, torch.Tensor) and isinstance(theirs.get(name), torch.Tensor)
        }
        found = differences_of({key: a[key]}, {key: b[key]})
        yield _Compared(
            str(key),
            None,
            tensors,
            sum(not isinstance(value, torch.Tensor) for value in mine.values()),
            sorted((one for one in found if one.name in tensors), key=_rank),
            [one for one in found if one.name not in tensors and not one.what.startswith(ALONE)],
            [one for one in found if one.what.startswith(ALONE)],
        )


def _rank(one: "Difference") -> tuple[int, float]:
    """Other shapes first, then the largest difference; what counts, as a step does, comes last."""
    if one.largest is None:
        return (0, 0.0)
    size = math.inf if math.isnan(one.largest) else one.largest
    return (2 if one.elements == 1 else 1, -size)


def _document(first: Path, second: Path, compared: Sequence[_Compared]) -> dict[str, Any]:
    largest = _largest(compared)
    return {
        "equal": all(one.is_equal for one in compared),
        "first": str(first),
        "second": str(second),
        "tensors": sum(len(one.tensors) for one in compared),
        "differing": sum(len(one.changed) for one in compared),
        "largest": None if largest is None else asdict(largest),
        "objects": {
            one.name: {
                "equal": one.is_equal,
                "only_in": one.only,
                "tensors": len(one.tensors),
                "differing": len(one.changed),
                "values": one.values,
                "values_differing": len(one.others),
                "in_one_alone": len(one.alone),
                "differences": [asdict(each) for each in (*one.changed, *one.others, *one.alone)],
            }
            for one in compared
        },
    }


def _largest(compared: Sequence[_Compared]) -> "Difference | None":
    """The largest difference of floating-point numbers: one of random bytes says nothing."""
    found = [
        each
        for one in compared
        for each in one.changed
        if each.largest is not None and one.tensors[each.name]
    ]
    return min(found, key=_rank, default=None)


def _lines(
    first: Path, second: Path, compared: Sequence[_Compared], on: "Screen", most: int | None
) -> list[str]:
    from descend.report.checkpoints import styled, visible

    lines = [_summary(compared, on)]
    lines += [f"A: {styled(visible(str(first)), on)}", f"B: {styled(visible(str(second)), on)}", ""]
    before: list[str] = [""]
    for one in compared:
        block = _object_lines(one, on, most)
        if len(before) > 1 or (len(block) > 1 and before != [""]):
            lines.append("")
        lines += block
        before = block
    return lines


def _summary(compared: Sequence[_Compared], on: "Screen") -> str:
    from descend.report.checkpoints import counted, styled, visible

    tensors = sum(len(one.tensors) for one in compared)
    if all(one.is_equal for one in compared):
        values = sum(one.values for one in compared)
        held = f"{counted(tensors, 'tensor')} and {counted(values, 'other value')}"
        return f"{styled(('equal bit for bit', 'good'), on)}: {held}"
    changed = sum(len(one.changed) for one in compared)
    others = sum(len(one.others) for one in compared)
    alone = sum(len(one.alone) for one in compared)
    verb = "differs" if changed == 1 else "differ"
    parts = [f"{changed:,} of {counted(tensors, 'tensor')} {verb}"] if tensors else []
    largest = _largest(compared)
    if largest is not None:
        parts[0] += f", the largest by {largest.largest:.3g} ({visible(largest.name)})"
    if others:
        parts.append(f"{counted(others, 'other value')} differ{'s' * (others == 1)}")
    if alone:
        parts.append(f"{counted(alone, 'entry', 'entries')} in one of them alone")
    for side in ("first", "second"):
        names = [visible(one.name) for one in compared if one.only == side]
        if names:
            parts.append(f"{', '.join(names)} {ALONE}{side}")
    return styled(("; ".join(parts), "bad"), on)


def _object_lines(one: _Compared, on: "Screen", most: int | None) -> list[str]:
    """What there is to say of one entry; a line where that is enough."""
    from descend.report.checkpoints import counted, styled, table, visible

    name = styled((visible(one.name), "name"), on)
    if one.only:
        return [f"{name}: {ALONE}{one.only}"]
    if one.is_equal:
        of = [counted(len(one.tensors), "tensor")] if one.tensors else []
        of += [counted(one.values, "other value")] if one.values else []
        return [f"{name}: equal, {' and '.join(of)}" if of else f"{name}: equal"]
    if [each.name for each in one.others] == [one.name]:
        return [f"{name}: {visible(one.others[0].what)}"]  # the entry is a plain value
    of = [f"{len(one.changed):,} of {counted(len(one.tensors), 'tensor')}"] if one.tensors else []
    of += [counted(len(one.others), "other value")] if one.others else []
    of += [f"{counted(len(one.alone), 'entry', 'entries')} in one alone"] if one.alone else []
    lines = [f"{name}: different: {', '.join(of)}"]
    header = ["tensor", "elements", "largest", "relative", ""]
    rows = [_row(each, one) for each in one.changed[:most]]
    lines += table(header, rows, on, left=(0, 4), indent=2) if rows else []
    lines += _left_out(one.changed, most)
    for found, header in ((one.others, ["value", "A and B"]), (one.alone, ["entry", "is"])):
        told = [[_short(each, one), visible(each.what)] for each in found[:most]]
        lines += table(header, told, on, left=(0, 1), indent=2) if told else []
        lines += _left_out(found, most)
    return lines


def _left_out(found: "Sequence[Difference]", most: int | None) -> list[str]:
    more = 0 if most is None else len(found) - most
    return [f"  and {more:,} more, which --all lists"] if more > 0 else []


def _row(each: "Difference", one: _Compared) -> list["Cell"]:
    from descend.report.checkpoints import visible

    name = _short(each, one)
    if each.largest is None or each.relative is None:
        return [name, "", "", "", visible(each.what)]
    same = not each.largest and one.tensors[each.name]
    note = "in their bits alone, as 0.0 and -0.0 do" if same else ""
    elements = f"{each.count:,} of {each.elements:,}"
    return [name, elements, f"{each.largest:.3g}", f"{each.relative:.3g}", note]


def _short(each: "Difference", one: _Compared) -> str:
    """A name without that of the entry it is in."""
    from descend.report.checkpoints import visible

    return visible(each.name.removeprefix(f"{one.name}."))
