"""Two states beside each other: what of each object differs, as plain data and in text."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from descend.checkpoint.state_diff import Difference, differences_of
from descend.format import counted, printable
from descend.report.tables import Screen, styled, table
from descend.states import ABSENT, beside, joined, leaves

ALONE = "only in the "  # first, second: how `descend.checkpoint.diff` says it
LETTERS = {"first": "A", "second": "B"}  # how we do
HELD = (torch.Tensor, np.ndarray)


@dataclass
class Compared:
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
    only: str | None = None
    tensors: dict[str, bool] = field(default_factory=dict)
    values: int = 0
    changed: list[Difference] = field(default_factory=list)
    others: list[Difference] = field(default_factory=list)
    alone: list[Difference] = field(default_factory=list)

    @property
    def is_equal(self) -> bool:
        """Whether there is no difference."""
        return not (self.only or self.changed or self.others or self.alone)


def compare(a: Mapping[Any, Any], b: Mapping[Any, Any]) -> Iterator[Compared]:
    """Put the entries of two states beside each other."""
    for key in {**a, **b}:
        compared = Compared(str(key))
        if key not in a or key not in b:
            compared.only = "first" if key in a else "second"
        else:
            for place, one, other in beside(a[key], b[key], (key,)):
                _put_into(compared, joined(place), one, other)
        compared.changed.sort(key=_rank)
        yield compared


def _put_into(compared: Compared, name: str, one: object, other: object) -> None:
    """Add two leaves that stand beside each other."""
    differing = [*differences_of(one, other, name)]
    if one is ABSENT or other is ABSENT:
        compared.alone += differing
        one = () if one is ABSENT else one
    elif isinstance(one, HELD) and isinstance(other, HELD):
        compared.tensors[name] = _is_floating(one)
        compared.changed += differing
    else:
        compared.others += differing
    compared.values += sum(not isinstance(leaf, HELD) for _, leaf in leaves(one))


def _is_floating(value: torch.Tensor | np.ndarray[Any, Any]) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "fc"
    return value.dtype.is_floating_point or value.dtype.is_complex


def _rank(one: Difference) -> tuple[int, float]:
    """Other shapes first, then the largest difference; what counts, as a step does, comes last."""
    if one.largest is None:
        return (0, 0.0)
    size = math.inf if math.isnan(one.largest) else one.largest
    return (2 if one.elements == 1 else 1, -size)


def as_document(first: Path, second: Path, compared: Sequence[Compared]) -> dict[str, Any]:
    """Describe the differences as `--json` prints them."""
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


def _largest(compared: Sequence[Compared]) -> Difference | None:
    """The largest difference of floating-point numbers: one of random bytes says nothing."""
    found = [
        each
        for one in compared
        for each in one.changed
        if each.largest is not None and one.tensors[each.name]
    ]
    return min(found, key=_rank, default=None)


def in_lines(
    first: Path, second: Path, compared: Sequence[Compared], on: Screen, most: int | None
) -> list[str]:
    """Tell the differences in text.

    Args:
        first: what A is.
        second: what B is.
        compared: their entries beside each other.
        on: where it is shown.
        most: how many differences of one kind in one object are listed; all for None.
    """
    lines = [_summary(compared, on)]
    lines += [
        f"A: {styled(printable(str(first)), on)}",
        f"B: {styled(printable(str(second)), on)}",
        "",
    ]
    before: list[str] = [""]
    for one in compared:
        block = _object_lines(one, on, most)
        if len(before) > 1 or (len(block) > 1 and before != [""]):
            lines.append("")
        lines += block
        before = block
    return lines


def _summary(compared: Sequence[Compared], on: Screen) -> str:
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
        parts[0] += f", the largest by {largest.largest:.3g} ({printable(largest.name)})"
    if others:
        parts.append(f"{counted(others, 'other value')} differ{'s' * (others == 1)}")
    if alone:
        parts.append(f"{counted(alone, 'entry', 'entries')} in one of them alone")
    for side in ("first", "second"):
        names = [printable(one.name) for one in compared if one.only == side]
        if names:
            parts.append(f"{', '.join(names)} only in {LETTERS[side]}")
    return styled(("; ".join(parts), "bad"), on)


def _object_lines(one: Compared, on: Screen, most: int | None) -> list[str]:
    """The lines on one entry; one where that is enough."""
    name = styled((printable(one.name), "name"), on)
    if one.only:
        return [f"{name}: only in {LETTERS[one.only]}"]
    if one.is_equal:
        of = [counted(len(one.tensors), "tensor")] if one.tensors else []
        of += [counted(one.values, "other value")] if one.values else []
        return [f"{name}: equal, {' and '.join(of)}" if of else f"{name}: equal"]
    if [each.name for each in one.others] == [one.name]:
        return [f"{name}: {printable(one.others[0].what)}"]  # the entry is a plain value
    of = [f"{len(one.changed):,} of {counted(len(one.tensors), 'tensor')}"] if one.tensors else []
    of += [counted(len(one.others), "other value")] if one.others else []
    of += [f"{counted(len(one.alone), 'entry', 'entries')} in one alone"] if one.alone else []
    lines = [f"{name}: different: {', '.join(of)}"]
    for found, *header in (
        (one.changed, "tensor", "elements", "largest", "relative", ""),
        (one.others, "value", "A and B"),
        (one.alone, "entry", "is"),
    ):
        rows = [
            [printable(each.name.removeprefix(f"{one.name}.")), *_cells(each, one)]
            for each in found[:most]
        ]
        lines += table(header, rows, on, left=(0, len(header) - 1), indent=2)
        if most is not None and len(found) > most:
            lines.append(f"  and {len(found) - most:,} more, which --all lists")
    return lines


def _cells(each: Difference, one: Compared) -> list[str]:
    """The cells of a difference, beside its name."""
    if each.what.startswith(ALONE):
        return [f"only in {LETTERS[each.what.removeprefix(ALONE)]}"]
    if each.name not in one.tensors:
        return [printable(each.what)]
    if each.largest is None or each.relative is None:
        return ["", "", "", printable(each.what)]
    same = not each.largest and one.tensors[each.name]
    note = "in their bits alone, as 0.0 and -0.0 do" if same else ""
    elements = f"{each.count:,} of {each.elements:,}"
    return [elements, f"{each.largest:.3g}", f"{each.relative:.3g}", note]
