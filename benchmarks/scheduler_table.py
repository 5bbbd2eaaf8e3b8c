"""Every scheduler's values over 10,000 steps, and torch's: `python benchmarks/scheduler_table.py`.

A figure is the largest relative difference of descend's values from torch's, of lr and momentum.
Where it is above 1e-12, the formula in 50 digits says who is right.
"""

import argparse
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mpmath import mpf

import tests_path  # noqa: F401
from lr_scheduler.scheduler_cases import (
    CASES,
    LRS,
    MAKERS,
    MODULES,
    PURE,
    STEPS,
    Case,
    closed_sequence,
    exact,
    optimizer_of,
    sequence,
    values_of,
)

NEAR = 1e-12  # relative
KEYS = ("lr", "momentum")
GROUPS = (1, 3)
SOUGHT = 500  # steps, in random order
LOOKED_AT = 100  # of the values that are not near: with how many the formula is compared


@dataclass(frozen=True)
class Difference:
    """Of descend's values from torch's, in one mode.

    `largest` is relative, of the values that torch has; `raised` is the step that torch refuses.
    Of those that are not near, and of those that torch has not, `ours` is the largest relative
    error and `theirs` torch's smallest, by the formula; `worst` is torch's largest.
    """

    largest: float = 0.0
    beyond: int = 0
    raised: int | None = None
    ours: float = 0.0
    theirs: float = float("inf")
    worst: float = 0.0

    @property
    def torch_is_wrong(self) -> bool:
        """Whether torch has other values, or none."""
        return self.beyond > 0 or self.raised is not None

    @property
    def fine(self) -> bool:
        """Whether the values are torch's, or torch is wrong there and they are right."""
        return self.ours <= NEAR and (self.beyond == 0 or self.theirs > 0.9 * NEAR)


@dataclass(frozen=True)
class Row:
    """One case on one number of groups: the differences by mode, and what `seek` missed."""

    case: Case
    groups: int
    modes: Mapping[str, Difference]
    missed: int | None

    @property
    def fine(self) -> bool:
        """Whether all is as it should be."""
        return all(mode.fine for mode in self.modes.values()) and not self.missed


def truth(case: Case, group: int, key: str, step: int, first: float) -> Any:
    """The value by the formula, in 50 digits; None where there is none."""
    if key == "momentum":
        return exact(first) if case.momentum is None else case.momentum(step, exact(first), group)
    return case.formula and case.formula(step, exact(LRS[group]), group)


def error(value: float, right: Any) -> float:
    """How far a value is from what is right, relative to that."""
    distance = abs(mpf(float(value)) - right)
    if not distance:
        return 0.0
    return float(distance / abs(right)) if right else float("inf")


def difference(case: Case, ours: np.ndarray, theirs: np.ndarray) -> Difference:
    """Compare what torch has, and look at the formula where that is not near."""
    steps, raised = len(ours), len(theirs)
    largest, beyond, errors, others = 0.0, 0, [0.0], []
    for group in range(ours.shape[1]):
        for place, key in enumerate(KEYS):
            first = float(ours[0, group, place])
            mine, other = ours[:, group, place], theirs[:, group, place]
            apart = np.abs(mine[:raised] - other)
            scale = np.where(other == 0, np.where(apart == 0, 1.0, 0.0), np.abs(other))
            with np.errstate(divide="ignore"):
                relative = apart / scale
            largest = max(largest, float(relative.max(initial=0.0)))
            unlike = np.flatnonzero(relative > NEAR)
            beyond += len(unlike)
            missing = np.linspace(raised, steps - 1, 20, dtype=int) if raised < steps else []
            for step in (*unlike[:: len(unlike) // LOOKED_AT + 1], *missing):
                right = truth(case, group, key, int(step), first)
                if right is None:
                    errors.append(float("inf"))
                    continue
                errors.append(error(mine[step], right))
                if step < raised:
                    others.append(error(other[step], right))
    return Difference(
        largest,
        beyond,
        raised if raised < steps else None,
        max(errors),
        min(others, default=float("inf")),
        max(others, default=0.0),
    )


def missed(case: Case, maker: str, groups: int, stepped: np.ndarray) -> int:
    """How many of some steps in random order, and then backwards, `seek` does not give exactly."""
    scheduler = case.build(MODULES["descend"], optimizer_of(MAKERS[maker], groups))
    places = random.Random(0).sample(range(len(stepped)), min(SOUGHT, len(stepped)))
    around = {turn + by for turn in case.turns for by in (-1, 0, 1) if turn + by < len(stepped)}
    count = 0
    for step in (*places, *sorted(around, reverse=True), 0):
        scheduler.seek(step)
        count += values_of(scheduler.optimizer) != [tuple(group) for group in stepped[step]]
    return count


def row(case: Case, groups: int, *, maker: str = "torch.SGD", steps: int = STEPS) -> Row:
    """Compare one case."""

    def built(module: str) -> Any:
        return case.build(MODULES[module], optimizer_of(MAKERS[maker], groups))

    ours = sequence(built("descend"), steps)
    modes = {}
    try:
        theirs = sequence(built("torch"), steps)
    except (NotImplementedError, ZeroDivisionError):  # not even the first value
        theirs = ours[:0]
    modes["stepped"] = difference(case, ours, theirs)
    if case.closed:
        modes["closed"] = difference(case, ours, closed_sequence(built("torch"), steps))
    return Row(case, groups, modes, missed(case, maker, groups, ours) if case in PURE else None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the status is 1 where a value is neither torch's nor right."""
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args(arguments)
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    table = Table(
        title=f"largest relative difference from torch {torch.__version__} over {STEPS} steps, "
        "of lr and momentum, on one group and on three with different lrs",
        caption="stepped: by step(); closed: torch's by step(epoch); seek: values that seek(n), "
        "in random order, gives otherwise than stepping. Where torch is wrong: (its largest error, "
        "descend's), by the formula in 50 digits",
    )
    for column in ("scheduler", "groups", "stepped", "closed", "seek", "where torch is wrong"):
        table.add_column(column, justify="left" if "s" in column[:1] or "w" in column else "right")
    bad = 0
    with Live(table, console=Console(width=150)):
        for case in CASES:
            for groups in GROUPS:
                found = row(case, groups)
                bad += not found.fine
                table.add_row(
                    case.name if groups == 1 else "",
                    str(groups),
                    *(_cell(found.modes.get(mode)) for mode in ("stepped", "closed")),
                    "-" if found.missed is None else str(found.missed),
                    "\n".join(
                        _reason(case, mode, it)
                        for mode, it in found.modes.items()
                        if it.torch_is_wrong
                    ),
                    end_section=groups == GROUPS[-1],
                    style=None if found.fine else "red",
                )
    return int(bad > 0)


def _cell(found: Difference | None) -> str:
    if found is None:
        return "-"
    if found.raised is not None:
        return f"{found.largest:.1e} to {found.raised}" if found.raised else "raises"
    return f"{found.largest:.1e}"


def _reason(case: Case, mode: str, found: Difference) -> str:
    reason = f"{mode}: {case.wrong.get(mode, 'not known to be')}"
    return f"{reason} ({found.worst:.0e}, {found.ours:.0e})" if found.beyond else reason


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
