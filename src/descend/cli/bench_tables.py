"""The tables of `descend bench`: what was measured, and what descend promises."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import click

from descend.bench import (
    ChangeTimes,
    ChangingMeasurement,
    Machine,
    Measurement,
    StepTimes,
    Target,
    Timing,
    changing_targets,
    targets,
)
from descend.bench.changes import LINEAR
from descend.bench.targets import AT_MOST
from descend.cli import INTERRUPTED
from descend.cli.bench_figures import ratio, spread
from descend.cli.bench_progress import Measured
from descend.format import byte_size, counted, duration, json_text, rounded_count
from descend.report.tables import Cell, Screen, screen, sentence, styled, table

SIZES = [workload.name for workload in LINEAR]
"""The models that most changes are measured on."""

WIDEST = 100  # columns, where the output is no terminal

STYLES = {"met": "good", "missed": "bad", "not measured": "head"}


def tell(measurement: Measured, show: Callable[[], None], done: int, of: str) -> int:
    """Print what was measured, if anything was.

    Args:
        measurement: whatever was measured.
        show: prints it: `print_tables`, or in another form.
        done: how many parts of it were measured.
        of: how many were to be, and what they are.

    Returns:
        The exit status.
    """
    if done:
        show()
    if not measurement.interrupted:
        return 0
    before = f"; printed is what was measured before: {done} of {of}"
    nothing = " before anything was measured"
    click.echo(f"descend: interrupted{before if done else nothing}", err=True)
    return INTERRUPTED


def print_json(document: Mapping[str, Any]) -> None:
    """Print a measurement as one JSON document.

    Args:
        document: the measurement as plain data.
    """
    click.echo(json_text(document))


def print_tables(measurement: Measured, tables: Iterable[Sequence[str]]) -> None:
    """Print where and with what it was measured, and then its tables.

    Args:
        measurement: whatever was measured.
        tables: the lines of each, as `titled` gives them.
    """
    on = _page()
    click.echo(_where(measurement))
    if measurement.machine.busy:
        busy = (
            "The machine was busy: these figures mean little, and torch's suffer most, because "
            "its threads wait for each other by spinning."
        )
        click.echo("\n".join(styled((line, "doubtful"), on) for line in sentence(busy, on)))
    for lines in tables:
        click.echo("\n".join(("", *lines)))


def _where(measurement: Measured) -> str:
    where: Machine = measurement.machine
    load = "" if where.load is None else f", load {where.load:.1f} before"
    return (
        f"{where.processor}, {counted(where.cores, 'core')}, "
        f"{counted(where.threads, 'thread')}{load}\n"
        f"{where.system}, Python {where.python}, torch {where.torch}, numba {where.numba}, "
        f"descend {where.descend}\n"
        f"{where.dtype}, {counted(measurement.rounds, 'round')}, {duration(measurement.seconds)}"
    )


def step_tables(measurement: Measurement) -> Iterator[list[str]]:
    """The tables of the steps, of start-up, of memory, and of what is promised.

    Args:
        measurement: what `run` returned.
    """
    yield from _step_tables(measurement)
    yield from _best_tables(measurement)
    yield from _start_up_tables(measurement)
    yield from _memory_tables(measurement)
    yield from target_tables(targets(measurement))


def _step_tables(measurement: Measurement) -> Iterator[list[str]]:
    for workload in dict.fromkeys(steps.workload for steps in measurement.steps):
        steps = [one for one in measurement.steps if one.workload == workload]
        names = list(dict.fromkeys(timing.contender for one in steps for timing in one.timings))
        counts = f"{steps[0].tensors} tensors, {rounded_count(steps[0].parameters)} parameters"
        yield titled(
            f"one step, {workload}: {counts}",
            ["optimizer", *names, "streaming limit"],
            [
                [
                    one.case,
                    _own(one),
                    *map(_timing, map(one.timing, names[1:])),
                    _timing(one.limit),
                ]
                for one in steps
            ],
            "a step of the optimizer and one of its schedule, on new gradient tensors",
            "below descend's time: its step alone, at a constant lr",
            "below the others: their time over descend's; for the limit, descend's share",
        )


def _best_tables(measurement: Measurement) -> Iterator[list[str]]:
    found = {(one.case, one.workload): _best(one) for one in measurement.steps if one.best_torch}
    if found:
        cases = dict.fromkeys(case for case, _ in found)
        workloads = dict.fromkeys(workload for _, workload in found)
        yield _crossed("torch's best over descend", "optimizer", cases, workloads, found)


def _start_up_tables(measurement: Measurement) -> Iterator[list[str]]:
    start = measurement.start_up
    if start is not None:
        figures = {
            "import torch": start.import_torch,
            "import descend, after it": start.import_descend,
            "first step of adamw, empty cache": start.first_step_cold,
            "first step of adamw, filled cache": start.first_step_cached,
        }
        rows = [[name, spread(value)] for name, value in figures.items()]
        yield titled("start-up, each in a new process", ["what", "time"], rows)


def _memory_tables(measurement: Measurement) -> Iterator[list[str]]:
    memory = measurement.memory
    if memory:
        yield _crossed(
            f"extra memory of a step, {memory[0].workload}",
            "optimizer",
            dict.fromkeys(one.case for one in memory),
            dict.fromkeys(one.contender for one in memory),
            {
                (one.case, one.contender): "not measured"
                if one.extra_bytes is None
                else byte_size(one.extra_bytes)
                for one in memory
            },
        )


def changing_tables(measurement: ChangingMeasurement) -> Iterator[list[str]]:
    """The tables of the steps where something changes, and of what is promised.

    Args:
        measurement: what `run_changing` returned.
    """
    rows = measurement.changes
    for model in SIZES:
        found = {(one.about, one.case): _change(one) for one in rows if one.workload == model}
        if found:
            changes, cases = (dict.fromkeys(key[i] for key in found) for i in range(2))
            title = f"torch's best over descend where something changes, {model}"
            yield _crossed(title, "what changes", changes, cases, found)
    others = [one for one in rows if one.workload not in SIZES]
    if others:
        yield titled(
            "the same on other models",
            ["what changes", "model", "optimizer", "torch's best over descend"],
            [[one.about, one.workload, one.case, _change(one)] for one in others],
        )
    wrong = dict.fromkeys((one.about, name) for one in rows for name in one.wrong)
    if wrong:
        yield titled(
            "other values than torch's default",
            ["what changes", "contender"],
            wrong,
        )
    yield from target_tables(changing_targets(measurement))


def _change(one: ChangeTimes) -> str:
    """The best of torch over descend; below, how long descend and torch take."""
    shared, of = (one.tensors, " a tensor") if one.first else (1, "")
    both = [timing for timing in (one.timings[0], one.best_torch) if timing]
    taken = ", ".join(duration(timing.seconds.median / shared) for timing in both)
    return f"{_best(one)}\n{taken}{of}"


def target_tables(found: Sequence[Target]) -> Iterator[list[str]]:
    """What is promised and whether it was met: one table, or none where nothing was measured.

    Args:
        found: the promises.
    """
    if any(target.measured for target in found):  # none is of a user's own rule alone
        columns = ["figure", "measured", "target", "status"]
        yield titled("what descend promises", columns, map(_target_row, found))


def _target_row(target: Target) -> list[Cell]:
    if target.unit == "s":
        measured, wanted = spread(target.measured), f"< {duration(target.target)}"
    else:
        sign = "<=" if target.unit == AT_MOST else ">="
        measured, wanted = ratio(target.measured), f"{sign} {target.target:g}x"
    if target.within_noise:
        wanted += " within noise"
    of = target.of[0] if len(target.of) == 1 else f"{len(target.of)} optimizers"
    name = f"{target.name} ({of})" if target.of else target.name
    return [name, measured, wanted, (target.status, STYLES[target.status])]


def _crossed(
    title: str,
    row: str,
    cases: Iterable[str],
    columns: Iterable[str],
    found: Mapping[tuple[str, str], str],
) -> list[str]:
    """A row for each case; where there is nothing at a crossing, a dash."""
    names = list(columns)
    rows = [[case, *(found.get((case, name), "-") for name in names)] for case in cases]
    return titled(title, [row, *names], rows)


def _page() -> Screen:
    on = screen()
    return on if on.width else replace(on, width=WIDEST)


def titled(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]], *notes: Cell
) -> list[str]:
    """Lay out a table with a title.

    Args:
        title: above it.
        columns: their names.
        rows: their cells.
        notes: below it, each on a line.

    Returns:
        The lines.
    """
    on = _page()
    shown = [(note, "head") if isinstance(note, str) else note for note in notes]
    return [
        styled((title, "name"), on),
        *table(columns, rows, on, fold=True),
        *(styled(note, on) for note in shown),
    ]


def _best(steps: StepTimes | ChangeTimes) -> str:
    best = steps.best_torch
    return f"{ratio(best.ratio)} {best.contender.removeprefix('torch ')}" if best else "-"


def _own(steps: StepTimes) -> str:
    own = next(iter(steps.timings))
    return f"{spread(own.seconds)}\n{spread(steps.constant.seconds)}"


def _timing(timing: Timing | None) -> str:
    return "-" if timing is None else f"{spread(timing.seconds)}\n{ratio(timing.ratio)}"
