"""The README's tables of speed, measured: `python benchmarks/readme_tables.py`, or with an option.

They are the figures of `descend bench --all`, and of `descend bench --changing`. With --optimizers
it is the table of all optimizers, whose last column is taken from the README as it stands.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import click
import torch

from descend.bench import (
    ASKED_FOR,
    CHANGES,
    SIZES,
    UNMEASURED,
    WORKLOADS,
    CaseTimes,
    ChangeTimes,
    Measurement,
    StepTimes,
    cases,
    changing_parts,
    contenders,
    measure_parts,
    paired_ratio,
    parameters,
    step_parts,
)
from descend.bench.changes import LINEAR, USUAL
from descend.bench.contenders import share_states, stepping
from descend.bench.packages import PACKAGES
from descend.bench.suite import states_of
from descend.bench.timing import measure
from descend.bench.workloads import Backward
from descend.cli.options import option
from descend.engine.rule import Rule
from descend.format import counted, duration, rounded_count, three_digits
from descend.optimizers import CATALOGUE

NAMES = {
    "adafactor": "Adafactor (not elementwise)",
    "adamw-clip": "AdamW, gradients clipped by global norm",
    "sgd-momentum": "SGD with momentum",
}
"""The names of cases in the README, where they are not those of their classes."""

KINDS = {
    "adafactor": "rows and columns",
    "lbfgs": "line search",
    "muon": "matrices",
    "soap": "matrices",
    "sparseadam": "rows of sparse gradients",
}
"""What optimizers are whose steps are no pass, or two, over all elements."""

OPTIMIZERS = ("optimizer", "kind", "states", "bytes a parameter", "a step beside AdamW's", "when")
"""The columns of the table of optimizers."""

README = Path(__file__).parents[1] / "README.md"

MODEL = WORKLOADS["transformer"]
"""What the optimizers' states and steps are measured on."""

SHOWN = ("torch default", "torch foreach", "torch fused")


def step_markdown(measurement: Measurement) -> Iterator[str]:
    """The lines of two tables: the times of AdamW, and the best other over descend for every case.

    Args:
        measurement: of `step_parts`.
    """
    steps = measurement.of(StepTimes)
    adamw = [one for one in steps if one.case == "adamw"]
    if adamw:
        columns = ["AdamW and its schedule", "descend", *SHOWN, "descend, lr constant"]
        yield from _table(columns, map(_times, adamw))
        yield ""
    models = list(dict.fromkeys(one.workload for one in steps))
    rows = []
    for case in sorted({one.case for one in steps if one.best_other}):
        found = {one.workload: one for one in steps if one.case == case}
        rows.append([_name(case), *(_over(found.get(model)) for model in models)])
    yield from _table(["the best other over descend", *map(SIZES.__getitem__, models)], rows)


def changing_markdown(measurement: Measurement) -> Iterator[str]:
    """The lines of one table: torch's best over descend for every change.

    Args:
        measurement: of `changing_parts`.
    """
    rows = measurement.of(ChangeTimes)
    usual = list(dict.fromkeys(one.case for one in rows if one.case in USUAL))
    columns = usual or list(dict.fromkeys(one.case for one in rows))
    few, many = (model.name for model in LINEAR)
    lines = []
    for about in dict.fromkeys(one.about for one in rows):
        found = {(one.workload, one.case): one for one in rows if one.about == about}
        models = dict.fromkeys(model for model, _ in found)
        for shown in [[few, many]] if few in models else [[model] for model in models]:
            cells = [_cell(found, shown, case) for case in columns]
            lines.append([about if few in models else f"{about}, {shown[0]}", *cells])
    header = f"torch's best over descend, {few} / {many}"
    yield from _table([header, *(_name(case) for case in columns)], lines)


def optimizer_markdown(rounds: int) -> Iterator[str]:
    """The lines of one table: every optimizer, what it keeps, what a step costs, when it is taken.

    Args:
        rounds: how many turns each takes beside AdamW; 0: nothing is measured.
    """
    known = optimizer_rows()
    names = sorted(CATALOGUE, key=str.lower)
    rows = []
    for name in names:
        cell = f"`{CATALOGUE[name].__name__}`"
        # SOAP's preconditioner of an embedding's 8,192 rows takes minutes.
        timed = rounds and name not in (*UNMEASURED, "soap")
        over = three_digits(_beside_adamw(name, rounds)) if timed else "-"
        rows.append([*described(name), over, known[cell][-1] if cell in known else ""])
    yield from _table(OPTIMIZERS, rows)


def optimizer_rows() -> dict[str, list[str]]:
    """The cells of each row of the README's table of optimizers, by the first."""
    lines = README.read_text("utf-8").splitlines()
    head = lines.index(f"| {' | '.join(OPTIMIZERS)} |")
    found = {}
    for line in lines[head + 2 :]:
        if not line.startswith("|"):
            break
        cells = line.strip("| ").split(" | ")
        found[cells[0]] = cells
    return found


def described(name: str) -> list[str]:
    """The first cells of an optimizer's row: its name, its kind, and what it keeps.

    Args:
        name: in the catalogue.
    """
    kind = CATALOGUE[name]
    rule = getattr(kind, "rule", None)
    summed = isinstance(rule, Rule) and rule.measure is not None
    passes = "sums, two passes" if summed else "elementwise, one pass"
    names, size = _kept(name)
    states = ", ".join(f"`{one}`" for one in names) or "none"
    return [f"`{kind.__name__}`", KINDS.get(name, passes), states, f"{size:.3g}"]


def _kept(name: str) -> tuple[list[str], float]:
    """The names of the state tensors, and their bytes a parameter."""
    if name == "lbfgs":
        return _kept_by_lbfgs()
    kind: Any = CATALOGUE[name]
    optimizer = kind(parameters(MODEL))
    optimizer.init_state()
    entries = [entry for state in optimizer.state.values() for entry in state.items()]
    names = dict.fromkeys(key for key, value in entries if getattr(value, "ndim", 0))
    kept = (tensor for tensor in states_of([optimizer]) if tensor.ndim)
    return [*names], sum(tensor.nbytes for tensor in kept) / MODEL.parameters


def _kept_by_lbfgs() -> tuple[list[str], float]:
    """Its state grows with each step, to the size of its history."""
    count, kind = 200, cast("Any", CATALOGUE["lbfgs"])
    values = torch.nn.Parameter(torch.zeros(count))
    optimizer = kind([values], max_iter=500)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (torch.logspace(0, 3, count) * (values - 1).square()).sum()
        loss = loss + values.diff().pow(4).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)
    found = {}
    for name, value in optimizer.state[values].items():
        tensors = value if isinstance(value, list) else [value]
        size = sum(one.nbytes for one in tensors if getattr(one, "numel", int)() == count)
        if size:
            found[name] = size / count
    return [*found], sum(found.values())


def _beside_adamw(name: str, rounds: int) -> float:
    """How many times as long a step takes as AdamW's, a schedule's step included in both."""
    click.echo(name, err=True)
    model = parameters(MODEL)
    backward = Backward(model)
    made, runs = [], []
    for case in ("adamw", name):
        contender = contenders(cases()[case])[0]
        made.append(contender.make(model))
        made[-1].step()
        share_states(made[-1], owner=made[0])
        step = contender.step_of(made[-1], model, scheduled=True)
        runs.append(stepping(step, backward))
    seconds = measure({"AdamW": runs[0], name: runs[1]}, rounds)
    return paired_ratio(seconds[name], seconds["AdamW"]).median


def _name(case: str) -> str:
    kind = cases().get(case)
    name = NAMES.get(case) or (kind.kind.__name__ if kind else case)
    return f"{name}, beside {PACKAGES[case][0]}" if case in PACKAGES else name


def _cell(found: Mapping[tuple[str, str], ChangeTimes], models: Sequence[str], case: str) -> str:
    # What only plain SGD can do stands in the column of SGD
    only = {one for _, one in found} == {"sgd"} and case == "sgd-momentum"
    return " / ".join(_over(found.get((model, "sgd" if only else case))) for model in models)


def _times(one: StepTimes) -> list[str]:
    shown = [one.timings[0], *map(one.timing, SHOWN), one.constant]
    return [
        f"{counted(one.tensors, 'tensor')}, {rounded_count(one.parameters)} parameters",
        *(duration(timing.seconds.median) if timing else "-" for timing in shown),
    ]


def _over(one: CaseTimes | None) -> str:
    best = one.best_other if one else None
    return three_digits(best.ratio.median) if best else "-"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for cells in (columns, ["---"] * len(columns), *rows):
        yield f"| {' | '.join(cells)} |"


@click.command()
@click.option("--changing", is_flag=True, help="The table where something changes between steps.")
@click.option("--optimizers", is_flag=True, help="The table of all optimizers.")
@option("--rounds", default=5, help="How many turns each contender takes.")
def main(changing: bool, optimizers: bool, rounds: int) -> None:
    """Measure and print the tables of the README: minutes."""
    if optimizers:
        click.echo("\n".join(optimizer_markdown(rounds)))
        return
    if changing:
        parts, lines = changing_parts([*CHANGES.values()], [], rounds), changing_markdown
    else:
        every = [case for name, case in cases().items() if name not in ASKED_FOR]
        models = [*WORKLOADS.values()]
        parts, lines = step_parts(every, models, rounds, start=False), step_markdown
    say = partial(click.echo, err=True)
    click.echo("\n".join(lines(measure_parts(parts, rounds=rounds, progress=say))))


if __name__ == "__main__":
    main()
