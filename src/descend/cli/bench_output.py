"""A measurement under way, with a bar on stderr, and what is printed of it: tables or JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from descend.bench import AT_MOST, Measurement, Target, document
from descend.cli import INTERRUPTED
from descend.cli.bench_figures import ratio, spread
from descend.format import counted, duration, json_text
from descend.report.tables import Cell, Screen, screen, sentence, styled, table

WIDEST = 100  # columns, where the output is no terminal

STYLES = {"met": "good", "missed": "bad", "not measured": "head"}


@dataclass(frozen=True)
class Output:
    """The forms in which a kind of measurement is printed.

    Args:
        entries: its results as plain data, by name.
        targets: what it is compared with.
        tables: its results as tables, the lines of each.
        kind: the class of the results by which to tell how far an interrupted run came.
        unit: what one of them is called, and several.
        markdown: the tables of the README, as lines.
    """

    entries: Callable[[Measurement], Mapping[str, Any]]
    targets: Callable[[Measurement], Sequence[Target]]
    tables: Callable[[Measurement], Iterable[list[str]]]
    kind: type
    unit: tuple[str, str]
    markdown: Callable[[Measurement], Iterable[str]] = lambda _: ()

    def text(self, measurement: Measurement, form: str | None) -> str:
        """All that is printed of a measurement.

        Args:
            measurement: whatever was measured.
            form: "json" or "markdown"; None for tables.
        """
        promised = self.targets(measurement)
        if form == "json":
            return json_text(document(measurement, promised, self.entries(measurement)))
        if form == "markdown":
            return "\n".join(self.markdown(measurement))
        tables = [*self.tables(measurement), *_target_tables(promised)]
        return "\n".join((*_where(measurement), *(line for one in tables for line in ("", *one))))


def run_and_print(
    run: Callable[..., Measurement], parts: int, output: Output, form: str | None, units: int
) -> int:
    """Measure, with a bar on a terminal, and print what was measured, if anything was.

    Args:
        run: takes `progress`, which it calls with a few words before each part.
        parts: how many parts there are.
        output: in which forms it is printed.
        form: which of them, as `Output.text` takes it.
        units: how many results of `output.kind` there are, if nothing interrupts it.

    Returns:
        The exit status.
    """
    measurement = _with_bar(run, parts)
    if measurement.found:
        click.echo(output.text(measurement, form))
    if not measurement.interrupted:
        return 0
    before = " before anything was measured"
    if measurement.found:
        done = f"{len(measurement.of(output.kind))} of {counted(units, *output.unit)}"
        before = f"; printed is what was measured before: {done}"
    click.echo(f"descend: interrupted{before}", err=True)
    return INTERRUPTED


def _with_bar(run: Callable[..., Measurement], parts: int) -> Measurement:
    console = Console(stderr=True)
    # Refreshed by hand: a thread that redraws the bar would disturb what is timed.
    with Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
        console=console,
        disable=not console.is_terminal,
        auto_refresh=False,
    ) as bar:
        task = bar.add_task("starting", total=parts)
        begun = -1

        def progress(description: str) -> None:
            nonlocal begun
            begun += 1
            bar.update(task, description=description, completed=begun, refresh=True)

        measurement = run(progress=progress)
        if not measurement.interrupted:
            progress("done")
    return measurement


def _where(measurement: Measurement) -> Iterator[str]:
    """Where and with what it was measured."""
    where = measurement.machine
    load = "" if where.load is None else f", load {where.load:.1f} before"
    cores, threads = counted(where.cores, "core"), counted(where.threads, "thread")
    yield f"{where.processor}, {cores}, {threads}{load}"
    yield (
        f"{where.system}, Python {where.python}, torch {where.torch}, numba {where.numba}, "
        f"descend {where.descend}"
    )
    yield f"{where.dtype}, {counted(measurement.rounds, 'round')}, {duration(measurement.seconds)}"
    if where.busy:
        busy = (
            "The machine was busy: these figures mean little, and torch's suffer most, because "
            "its threads wait for each other by spinning."
        )
        yield from (styled((line, "doubtful"), _page()) for line in sentence(busy, _page()))


def _target_tables(found: Sequence[Target]) -> Iterator[list[str]]:
    """The promises and whether they were met; no table where nothing of it was measured."""
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


def crossed(
    title: str,
    row: str,
    rows: Iterable[str],
    columns: Iterable[str],
    found: Mapping[tuple[str, str], str],
) -> list[str]:
    """Lay out a table with a row and a column for each of two names; a dash where nothing is.

    Args:
        title: above it.
        row: the kind of name of the rows.
        rows: their names.
        columns: those of the columns.
        found: the cells.
    """
    names = list(columns)
    return titled(
        title, [row, *names], [[a, *(found.get((a, b), "-") for b in names)] for a in rows]
    )


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


def _page() -> Screen:
    on = screen()
    return on if on.width else replace(on, width=WIDEST)
