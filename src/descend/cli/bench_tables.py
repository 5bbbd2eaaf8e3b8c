"""The tables of `descend bench`: what was measured, and what descend promises."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from descend.bench import (
    Machine,
    Measurement,
    SchedulerMeasurement,
    SchedulerTimes,
    StepTimes,
    Target,
    Timing,
    scheduler_targets,
    targets,
)
from descend.bench.checkpoint_ways import TORCH
from descend.bench.checkpoints import CheckpointMeasurement, CheckpointTimes, checkpoint_targets
from descend.bench.targets import AT_MOST
from descend.cli.bench_figures import count, ratio, share, size, spread, time

NARROWEST = 100
"""The columns of text that tables may use where the output is no terminal."""

COLOURS = {"met": "green", "missed": "red", "not measured": "dim"}

Measured: TypeAlias = Measurement | SchedulerMeasurement | CheckpointMeasurement


def print_tables(measurement: Measured) -> None:
    """Print where and with what it was measured, the figures, and what is promised of them.

    Args:
        measurement: whatever was measured.
    """
    console = Console(emoji=False)
    if not console.is_terminal:
        console = Console(width=NARROWEST, emoji=False)
    with console.capture() as captured:
        console.print(_where(measurement), highlight=False, markup=False)
        if measurement.machine.busy:
            console.print(
                "[yellow]The machine was busy: these figures mean little, and torch's suffer most, "
                "because its threads wait for each other by spinning.[/]"
            )
        for table in _tables(measurement):
            console.print()
            console.print(table)
    text, encoding = captured.get(), console.encoding
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.replace("±", "~").encode(encoding, "replace").decode(encoding)
    click.echo(text, nl=False, color=True)


def _where(measurement: Measured) -> str:
    where: Machine = measurement.machine
    load = "" if where.load is None else f", load {where.load:.1f} before"
    return (
        f"{where.processor}, {where.cores} cores, {where.threads} threads{load}\n"
        f"{where.system}, Python {where.python}, torch {where.torch}, numba {where.numba}, "
        f"descend {where.descend}\n"
        f"{where.dtype}, {measurement.rounds} rounds, {measurement.seconds:.0f} s"
    )


def _tables(measurement: Measured) -> Iterator[Table]:
    if isinstance(measurement, CheckpointMeasurement):
        yield from _checkpoint_tables(measurement)
        yield from _target_tables(checkpoint_targets(measurement))
    elif isinstance(measurement, SchedulerMeasurement):
        yield from _scheduler_tables(measurement)
        yield from _target_tables(scheduler_targets(measurement))
    else:
        yield from _step_tables(measurement)
        yield from _best_tables(measurement)
        yield from _start_up_tables(measurement)
        yield from _memory_tables(measurement)
        yield from _target_tables(targets(measurement))


def _step_tables(measurement: Measurement) -> Iterator[Table]:
    for workload in dict.fromkeys(steps.workload for steps in measurement.steps):
        steps = [one for one in measurement.steps if one.workload == workload]
        names = list(dict.fromkeys(timing.contender for one in steps for timing in one.timings))
        counts = f"{steps[0].tensors} tensors, {count(steps[0].parameters)} parameters"
        yield _table(
            f"one step, {workload}: {counts}",
            ["optimizer", *names, "streaming limit"],
            [
                [
                    one.case,
                    *(_timing(one.timing(name), own=name == names[0]) for name in names),
                    _timing(one.limit),
                ]
                for one in steps
            ],
            "below each time: that time over descend's; for the limit, descend's share",
        )


def _best_tables(measurement: Measurement) -> Iterator[Table]:
    found = {(one.case, one.workload): _best(one) for one in measurement.steps if one.best_torch}
    if found:
        cases = dict.fromkeys(case for case, _ in found)
        workloads = dict.fromkeys(workload for _, workload in found)
        yield _crossed("torch's best over descend", cases, workloads, found)


def _start_up_tables(measurement: Measurement) -> Iterator[Table]:
    start = measurement.start_up
    if start is not None:
        figures = {
            "import torch": start.import_torch,
            "import descend, after it": start.import_descend,
            "first step of adamw, empty cache": start.first_step_cold,
            "first step of adamw, filled cache": start.first_step_cached,
        }
        rows = [[name, spread(value)] for name, value in figures.items()]
        yield _table("start-up, each in a new process", ["what", "time"], rows)


def _memory_tables(measurement: Measurement) -> Iterator[Table]:
    memory = measurement.memory
    if memory:
        yield _crossed(
            f"extra memory of a step, {memory[0].workload}",
            dict.fromkeys(one.case for one in memory),
            dict.fromkeys(one.contender for one in memory),
            {(one.case, one.contender): size(one.extra_bytes) for one in memory},
        )


def _scheduler_tables(measurement: SchedulerMeasurement) -> Iterator[Table]:
    for form in dict.fromkeys(one.form for one in measurement.schedulers):
        rows = [one for one in measurement.schedulers if one.form == form]
        columns, notes = ["scheduler", "descend", "torch", "torch over descend"], []
        if any(one.share for one in rows):
            columns.append("share of AdamW")
            notes.append("the share is descend's, of a step of its AdamW on 6 tensors")
        if any(one.beside != "torch" for one in rows):
            notes.append("in brackets: what stands in the place of torch")
        yield _table(
            f"one step of a scheduler, {form}",
            columns,
            [_scheduler_row(one)[: len(columns)] for one in rows],
            *notes,
        )


def _scheduler_row(one: SchedulerTimes) -> list[str]:
    name = one.case if one.beside == "torch" else f"{one.case} ({one.beside})"
    return [name, spread(one.ours), spread(one.theirs), ratio(one.ratio), share(one.share)]


def _checkpoint_tables(measurement: CheckpointMeasurement) -> Iterator[Table]:
    kind = f" ({measurement.filesystem})" if measurement.filesystem else ""
    no_disk = ["[yellow]which is memory and no disk: saves cost less than on one[/]"]
    yield _table(
        f"{count(measurement.parameters)} parameters with AdamW's state: "
        f"{size(measurement.state_bytes)} in {measurement.tensors} tensors",
        ["way", "save", "over torch", "size", "load", "over torch"],
        map(_checkpoint_row, measurement.checkpoints),
        f"a save ends when all is on the disk of {escape(measurement.folder)}{kind}",
        *(no_disk if measurement.in_memory else []),
        "a load is from the page cache to new memory; distributed fills tensors that are there",
        "only descend verifies; safetensors and mmap read the values later, when they are used",
    )
    yield _table(
        "how long a save of a run holds it up",
        ["what", "held up", "share", "done"],
        [
            [one.save, spread(one.blocked), share(one.ratio), spread(one.done)]
            for one in measurement.run_saves
        ],
        "share: of a blocking save; done: when it is on the disk",
    )


def _checkpoint_row(one: CheckpointTimes) -> list[str]:
    own = one.way == TORCH
    return [
        one.way,
        spread(one.save),
        "-" if own else ratio(one.save_ratio),
        "-" if one.bytes is None else size(one.bytes),
        spread(one.load),
        "-" if own else ratio(one.load_ratio),
    ]


def _target_tables(found: Sequence[Target]) -> Iterator[Table]:
    if any(target.measured for target in found):  # none is of a user's own rule alone
        columns = ["figure", "measured", "target", "status"]
        yield _table("what descend promises", columns, map(_target_row, found))


def _target_row(target: Target) -> list[str | Text]:
    if target.unit == "s":
        measured, wanted = spread(target.measured), f"< {time(target.target)}"
    else:
        sign = "<=" if target.unit == AT_MOST else ">="
        measured, wanted = ratio(target.measured), f"{sign} {target.target:g}x"
    if target.within_noise:
        wanted += " within noise"
    of = target.of[0] if len(target.of) == 1 else f"{len(target.of)} optimizers"
    name = f"{target.name} ({of})" if target.of else target.name
    return [name, measured, wanted, Text(target.status, COLOURS[target.status])]


def _crossed(
    title: str,
    cases: Iterable[str],
    columns: Iterable[str],
    found: Mapping[tuple[str, str], str],
) -> Table:
    """A row for each optimizer; where there is nothing at a crossing, a dash."""
    names = list(columns)
    rows = [[case, *(found.get((case, name), "-") for name in names)] for case in cases]
    return _table(title, ["optimizer", *names], rows)


def _table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *notes: str
) -> Table:
    """Cells are taken as they are, whatever a path holds; titles and notes may hold markup."""
    table = Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD)
    table.caption = "\n".join(notes) or None
    for index, name in enumerate(columns):
        table.add_column(name, justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return table


def _best(steps: StepTimes) -> str:
    best = steps.best_torch
    return f"{ratio(best.ratio)} {best.contender.removeprefix('torch ')}" if best else "-"


def _timing(timing: Timing | None, *, own: bool = False) -> str:
    if timing is None:
        return "-"
    below = "" if own else f"\n{ratio(timing.ratio)}"
    return spread(timing.seconds) + below
