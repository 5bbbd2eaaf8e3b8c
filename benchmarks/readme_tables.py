"""The README's tables of speed, measured: `python benchmarks/readme_tables.py`, or with --changing.

They are the figures of `descend bench --all`, and of `descend bench --changing`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import click

from descend.bench import (
    CHANGES,
    SIZES,
    WORKLOADS,
    CaseTimes,
    ChangeTimes,
    Measurement,
    StepTimes,
    cases,
    changing_parts,
    measure_parts,
    step_parts,
)
from descend.bench.changes import LINEAR, USUAL
from descend.cli.options import option
from descend.format import counted, duration, rounded_count, three_digits

NAMES = {
    "adafactor": "Adafactor (not elementwise)",
    "adamw-clip": "AdamW, gradients clipped by global norm",
    "sgd-momentum": "SGD with momentum",
}
"""The names of cases in the README, where they are not those of their classes."""

SHOWN = ("torch default", "torch foreach", "torch fused")


def step_markdown(measurement: Measurement) -> Iterator[str]:
    """The lines of two tables: the times of AdamW, and torch's best over descend for every case.

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
    yield from _table(["torch's best over descend", *map(SIZES.__getitem__, models)], rows)


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


def _name(case: str) -> str:
    kind = cases().get(case)
    return NAMES.get(case) or (kind.kind.__name__ if kind else case)


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
@option("--rounds", default=5, help="How many turns each contender takes.")
def main(changing: bool, rounds: int) -> None:
    """Measure and print the tables of the README: minutes."""
    if changing:
        parts, lines = changing_parts([*CHANGES.values()], [], rounds), changing_markdown
    else:
        every, models = [*cases().values()], [*WORKLOADS.values()]
        parts, lines = step_parts(every, models, rounds, start=False), step_markdown
    say = partial(click.echo, err=True)
    click.echo("\n".join(lines(measure_parts(parts, rounds=rounds, progress=say))))


if __name__ == "__main__":
    main()
