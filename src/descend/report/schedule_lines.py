"""Lines of schedules and schedulers over the same steps, for a picture or a table."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from descend.errors import ScheduleError
from descend.report.schedule_values import Source

MOST_POINTS = 20_000
"""Of more steps than this, so many are looked at."""

MOST_MARKS = 24
"""More parts than this are not marked: the marks would hide the curve."""

MARGIN = 0.05
"""The part of a schedule's length that is shown after its end."""

GOLDEN = (math.sqrt(5) - 1) / 2


class Line(NamedTuple):
    """The values of one hyperparameter, of groups that have the same.

    Args:
        source: the number of its source.
        name: of the curve.
        key: of the hyperparameter.
        groups: which groups; None if all have the same.
        values: one for each of the points; NaN where there is none.

    Example:
        >>> Line(0, "mine", "lr", (0, 2), []).label
        'mine, groups 0 and 2'
    """

    source: int
    name: str
    key: str
    groups: tuple[int, ...] | None
    values: list[float]

    @property
    def label(self) -> str:
        """The line's name in a legend."""
        return ", ".join(filter(None, (self.name, self.group_words)))

    @property
    def group_words(self) -> str:
        """Which groups it is, in words; empty for all."""
        if self.groups is None:
            return ""
        *before, last = _ranges(self.groups)
        numbers = f"{', '.join(before)} and {last}" if before else last
        return f"{'group' if len(self.groups) == 1 else 'groups'} {numbers}"


class Sampled(NamedTuple):
    """Lines over the same points.

    Args:
        points: the steps that were looked at, rising.
        steps: how many there are.
        lines: the curves, in the order of their sources.
        marks: for each hyperparameter the steps at which parts begin.
        factors: the hyperparameters of which all lines are factors.
        notes: what should be known.

    Example:
        >>> from descend.report.schedule_values import source_of
        >>> from descend.schedules import linear, warmup
        >>> sampled([source_of("", warmup(2) >> linear(2))], 4).marks
        {'lr': [2]}
    """

    points: list[int]
    steps: int
    lines: list[Line]
    marks: dict[str, list[int]]
    factors: frozenset[str]
    notes: list[str]

    @property
    def keys(self) -> list[str]:
        """The hyperparameters; the lr comes first."""
        keys = dict.fromkeys(line.key for line in self.lines)
        return sorted(keys, key=lambda key: key != "lr")

    @property
    def labels(self) -> list[str]:
        """The names of the lines, each once."""
        return list(dict.fromkeys(line.label for line in self.lines))

    def of(self, key: str) -> list[Line]:
        """The lines of a hyperparameter.

        Args:
            key: which.
        """
        return [line for line in self.lines if line.key == key]

    def title(self, key: str) -> str:
        """The name of a hyperparameter, and whether its lines are factors.

        Args:
            key: which.
        """
        return f"{key} (factor)" if key in self.factors else key

    @property
    def exact(self) -> bool:
        """Whether every step was looked at."""
        return len(self.points) == self.steps


def shown_steps(sources: Sequence[Source]) -> int | None:
    """How many steps to show where nobody has said: to the last end, and a little more.

    Args:
        sources: the curves.

    Returns:
        The number; None if none of them ends.

    Example:
        >>> from descend.report.schedule_values import source_of
        >>> from descend.schedules import cosine
        >>> shown_steps([source_of("", cosine(1000))])
        1050
    """
    ends = [source.length for source in sources if source.length < math.inf]
    return math.ceil(max(ends)) + max(2, math.ceil(max(ends) * MARGIN)) if ends else None


def sampled(sources: Sequence[Source], steps: int) -> Sampled:
    """The lines of some sources over so many steps.

    All steps are looked at, or `MOST_POINTS` of them: one at another place in each of so many equal
    parts, so that a wave shows as a band and not as a wave of another length.

    Args:
        sources: the curves.
        steps: how many, from 0.

    Raises:
        ScheduleError: a value cannot be found.

    Example:
        >>> from descend.report.schedule_values import source_of
        >>> from descend.schedules import cosine, linear
        >>> found = sampled([source_of("a", cosine(2)), source_of("b", linear(2))], 3)
        >>> [(line.label, line.values) for line in found.lines]
        [('a', [1.0, 0.5, 0.0]), ('b', [1.0, 0.5, 0.0])]

    Source: stratified sampling; D. Mitchell, Generating Antialiased Images at Low Sampling
    Densities, SIGGRAPH 1987.
    """
    for source in sources:
        if steps > source.most:
            raise ScheduleError(
                f"{source.name or 'the scheduler'}: it can only be stepped, so at most "
                f"{source.most:,} steps of it can be shown, and {steps:,} were asked for; a "
                "schedule of descend.schedules can be asked for any"
            )
    marks = _marks(sources, steps)
    points = _points(steps, itertools.chain(*marks.values()))
    lines = [line for number, one in enumerate(sources) for line in _lines(number, one, points)]
    values = {line.key for line in lines if line.key not in sources[line.source].factors}
    factors = frozenset(line.key for line in lines) - values
    notes = [f"{one.name}: {one.note}".removeprefix(": ") for one in sources if one.note]
    return Sampled(points, steps, lines, marks, factors, notes)


def table(sources: Sequence[Source], found: Sampled) -> Iterator[list[float]]:
    """Every step with the value of each line, one row after the other.

    Args:
        sources: the curves.
        found: their lines.

    Example:
        >>> from descend.report.schedule_values import source_of
        >>> from descend.schedules import cosine
        >>> sources = [source_of("", cosine(2))]
        >>> list(table(sources, sampled(sources, 3)))
        [[0, 1.0], [1, 0.5], [2, 0.0]]
    """
    each = zip(*(source.rows(range(found.steps)) for source in sources), strict=True)
    where = [(line.source, line.key, line.groups[0] if line.groups else 0) for line in found.lines]
    for step, rows in enumerate(each):
        yield [
            step,
            *(rows[n][key][group] if rows[n] else math.nan for n, key, group in where),
        ]


def _lines(number: int, source: Source, points: list[int]) -> list[Line]:
    """The lines of one source; groups with the same values share one."""
    rows = list(source.rows(points))
    first = next((row for row in rows if row), None)
    if first is None:
        raise ScheduleError(
            f"{source.name or 'the scheduler'}: it has left the {points[-1] + 1:,} steps that are "
            "shown behind; give more steps, or a new scheduler"
        )
    lines = []
    for key, start in first.items():
        columns: dict[tuple[float, ...], list[int]] = {}
        for group in range(len(start)):
            column = tuple(row[key][group] if row else math.nan for row in rows)
            columns.setdefault(column, []).append(group)
        varies = any(row and row[key] != start for row in rows)
        if varies or key in source.keys:
            lines += [
                Line(number, source.name, key, tuple(groups) if len(columns) > 1 else None,
                     list(column))
                for column, groups in columns.items()
            ]  # fmt: skip
    return lines


def _points(steps: int, marks: Iterable[int]) -> list[int]:
    """The steps to look at: all, or one in each of many parts, and those around the marks."""
    if steps <= MOST_POINTS:
        return list(range(steps))
    chosen = {0, 1, steps - 1}
    chosen.update(
        math.floor((n + n * GOLDEN % 1) * steps / MOST_POINTS) for n in range(MOST_POINTS)
    )
    chosen.update(step for mark in marks for step in (mark - 1, mark))
    return sorted(chosen)


def _marks(sources: Sequence[Source], steps: int) -> dict[str, list[int]]:
    """For each hyperparameter the steps at which parts begin, if they are not too many."""
    marks: dict[str, set[int]] = {}
    for source in sources:
        for key, mark in source.marks:
            if 0 < mark < steps:
                marks.setdefault(key, set()).add(math.ceil(mark))
    return {key: sorted(each) for key, each in marks.items() if len(each) <= MOST_MARKS}


def _ranges(numbers: Sequence[int]) -> list[str]:
    """Rising numbers in short: 0, 2-5."""
    words: list[str] = []
    for _, pairs in itertools.groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        run = [number for _, number in pairs]
        words += [f"{run[0]}-{run[-1]}"] if len(run) > 2 else map(str, run)  # noqa: PLR2004
    return words
