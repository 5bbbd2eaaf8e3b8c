"""A measurement under way, with a bar on stderr, and what is printed of it: tables or JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import click

from descend.bench import AT_MOST, Measurement, Spread, Target, document
from descend.cli import INTERRUPTED
from descend.cli.progress_bar import progress_bar
from descend.format import counted, duration, json_text, three_digits
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
    """

    entries: Callable[[Measurement], Mapping[str, Any]]
    targets: Callable[[Measurement], Sequence[Target]]
    tables: Callable[[Measurement], Iterable[list[str]]]
    kind: type
    unit: tuple[str, str]

    def text(self, measurement: Measurement, as_json: bool) -> str:
        """All that is printed of a measurement.

        Args:
            measurement: whatever was measured.
            as_json: whether as JSON, not as tables.
        """
        promised = self.targets(measurement)
        if as_json:
            return json_text(document(measurement, promised, self.entries(measurement)))
        tables = [*self.tables(measurement), *_target_tables(promised)]
        return "\n".join((*_where(measurement), *(line for one in tables for line in ("", *one))))


def run_and_print(
    run: Callable[..., Measurement], parts: int, output: Output, as_json: bool, units: int
) -> int:
    """Measure, with a bar on a terminal, and print what was measured, if anything was.

    Args:
        run: takes `progress`, which it calls with a few words before each part.
        parts: how many parts there are.
        output: in which forms it is printed.
        as_json: whether as JSON, not as tables.
        units: how many results of `output.kind` there are, if nothing interrupts it.

    Returns:
        The exit status.
    """
    measurement = _with_bar(run, parts)
    if measurement.found:
        click.echo(output.text(measurement, as_json))
    if not measurement.interrupted:
        return 0
    before = " before anything was measured"
    if measurement.found:
        done = f"{len(measurement.of(output.kind))} of {counted(units, *output.unit)}"
        before = f"; printed is what was measured before: {done}"
    click.echo(f"descend: interrupted{before}", err=True)
    return INTERRUPTED


def _with_bar(run: Callable[..., Measurement], parts: int) -> Measurement:
    with progress_bar(by_hand=True) as (show, _):
        begun = count()
        return run(progress=lambda words: show(words, next(begun), parts))


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
        measured, wanted = ratio(target.measured), f"{sign} {target.target:.3g}x"
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


def spread(value: Spread | None) -> str:
    """Write seconds, with how far they spread."""
    return "-" if value is None else f"{duration(value.median)} {noise(value)}"


def ratio(value: Spread | None) -> str:
    """Write how many times as much it is, with how far that spreads."""
    return "-" if value is None else f"{three_digits(value.median)}x {noise(value)}"


def share(value: Spread | None) -> str:
    """Write a part of a whole, with how far it spreads."""
    return "-" if value is None else f"{value.median:.0%} {noise(value)}"


def noise(value: Spread) -> str:
    """Write half the distance between the quartiles."""
    return f"±{value.noise:.0%}"
