"""Curves as a chart of characters, for a terminal or a log."""

import itertools
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

from descend.report.schedule_lines import Line, Sampled

HEIGHT = 12
"""Rows of characters of a panel."""

NARROWEST, WIDEST = 40, 120
"""Columns of a chart."""

MOST_TOLD = 10
"""Of more lines than this, the legend leaves some out."""

COLOURS = (34, 33, 32, 35, 36, 31)  # of ANSI: blue, yellow, green, magenta, cyan, red
MARKERS = "*o+x#@%&"

DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # of a Braille character, by column
BRAILLE = 0x2800

Cell: TypeAlias = tuple[str, int | None]
"""A character and its colour."""

FINE, PLAIN = tuple("│┤└─┬┊"), tuple("|++-+:")
"""The frame: left edge, and at a number; corner; bottom edge, and at a number; a vertical line."""


class Axis(NamedTuple):
    """Another scale below a chart than that of the steps.

    Args:
        name: of what it counts.
        ticks: the steps that are numbered, each with its number.
        place: the words for a step: "lr 0.1".

    Example:
        >>> Axis("lr", [(0, "0.1"), (1, "1")], lambda step: f"lr {10.0 ** (step - 1):g}").place(1)
        'lr 1'
    """

    name: str
    ticks: Sequence[tuple[float, str]]
    place: Callable[[int], str]


class Output(NamedTuple):
    """The place where a chart is shown.

    Args:
        width: how many columns it has.
        fine: whether it has Braille characters.
        colour: whether it shows colours.
        steps_per_epoch: for a second scale.
        axis: in place of the steps.

    Example:
        >>> Output(80, fine=False, colour=False, steps_per_epoch=None).frame[2]
        '+'
    """

    width: int
    fine: bool
    colour: bool
    steps_per_epoch: float | None
    axis: Axis | None = None

    @property
    def frame(self) -> tuple[str, ...]:
        """The characters of the frame."""
        return FINE if self.fine else PLAIN

    def place(self, step: int) -> str:
        """The words for a step."""
        return f"step {step:,}" if self.axis is None else self.axis.place(step)


def chart(
    found: Sampled,
    *,
    width: int = 80,
    colour: bool = False,
    encoding: str = "utf-8",
    steps_per_epoch: float | None = None,
    axis: Axis | None = None,
) -> str:
    """Draw lines in characters: a panel for each hyperparameter, and below it what each line is.

    A line is drawn with Braille characters, eight dots each. Several lines are told apart by
    colours; without colours each is drawn with a character of its own.

    Args:
        found: the lines.
        width: how many columns there are.
        colour: whether the output shows colours.
        encoding: of the output; if it has no Braille characters, plain ones are used.
        steps_per_epoch: for a second scale.
        axis: a scale in place of that of the steps.

    Returns:
        Lines of text; none is wider than `width`, as long as that is at least 40.

    Example:
        >>> from descend.report.schedule_lines import sampled
        >>> from descend.report.schedule_values import source_of
        >>> from descend.schedules import linear
        >>> text = chart(sampled([source_of("", linear(9))], 10), width=40, encoding="ascii")
        >>> print(text.splitlines()[1])
            1 +**

    Source: eight dots of a character as pixels, as in drawille,
    https://github.com/asciimoo/drawille.
    """
    fine = _has(encoding, "".join(FINE) + chr(BRAILLE + 0xFF))
    output = Output(max(NARROWEST, min(width, WIDEST)), fine, colour, steps_per_epoch, axis)
    text = "\n\n".join("\n".join(_panel(found, key, output)) for key in found.keys)
    return text if _has(encoding, text) else text.encode("ascii", "backslashreplace").decode()


def _panel(found: Sampled, key: str, output: Output) -> list[str]:
    """The rows of text of a hyperparameter: its chart, and below it the legend."""
    lines = found.of(key)
    low, high = bounds = _range(lines)
    numbers = {
        _row(tick, low, high): tick_label(tick)
        for tick in round_numbers(low, high, HEIGHT // 2 - 1)
    }
    margin = max(map(len, ["epoch", *numbers.values()]))
    inner = output.width - margin - 3
    side, at_number, *_, mark_sign = output.frame
    dots = output.fine and (output.colour or len(lines) == 1)
    cells: list[list[Cell]] = [[(" ", None)] * inner for _ in range(HEIGHT)]
    span = max(found.steps - 1, 1)
    for mark in found.marks.get(key, ()):
        for row in cells:
            row[round(mark / span * (inner - 1))] = (mark_sign, None)
    for line in lines:
        sign, colour = _look(found, line, output)
        pairs = zip(found.points, line.values, strict=True)
        _trace(cells, pairs, span, bounds, "" if dots else sign, colour)
    shown = [found.title(key)]
    for number, row in enumerate(cells):
        edge = at_number if number in numbers else side
        shown.append(f"{numbers.get(number, ''):>{margin}} {edge}{_joined(row)}".rstrip())
    shown += _bottom(found.steps, inner, margin, output)
    return shown + _legend(found, lines, dots, output)


def _look(found: Sampled, line: Line, output: Output) -> tuple[str, int | None]:
    """The character and the colour of a line."""
    number = found.labels.index(line.label)
    several = output.colour and len(found.labels) > 1
    return MARKERS[number % len(MARKERS)], COLOURS[number % len(COLOURS)] if several else None


def _trace(
    cells: list[list[Cell]],
    pairs: Iterable[tuple[int, float]],
    span: int,
    bounds: tuple[float, float],
    sign: str,
    colour: int | None,
) -> None:
    """Draw a line of (step, value) into the cells, with a sign, or with dots if that is empty."""
    across, down = (1, 1) if sign else (2, 4)
    columns, rows = len(cells[0]) * across, len(cells) * down
    low, high = bounds
    pixels = [
        (step / span * (columns - 1), (high - value) / (high - low) * (rows - 1))
        if math.isfinite(value)
        else None
        for step, value in pairs
    ]
    filled: dict[tuple[int, int], int] = {}
    for column, (top, bottom) in _columns(pixels).items():
        for row in range(round(top), round(bottom) + 1):
            place = (row // down, column // across)
            filled[place] = filled.get(place, 0) | DOTS[column % 2][row % 4]
    for (row, column), bits in filled.items():
        cells[row][column] = (sign or chr(BRAILLE + bits), colour)


def _columns(pixels: Iterable[tuple[float, float] | None]) -> dict[int, tuple[float, float]]:
    """From the column of a picture to the highest and the lowest place of a line in it."""
    found: dict[int, tuple[float, float]] = {}

    def reach(column: int, y: float) -> None:
        top, bottom = found.get(column, (y, y))
        found[column] = (min(top, y), max(bottom, y))

    before: tuple[float, float] | None = None
    for pixel in pixels:
        if pixel is not None:
            x, y = pixel
            reach(round(x), y)
            if before is not None:
                (left, start), end = before, round(x)
                for column in range(round(left), end):  # to where one column ends, the next begins
                    part = min(max((column + 0.5 - left) / (x - left), 0.0), 1.0)
                    reach(column, start + (y - start) * part)
                    reach(column + 1, start + (y - start) * part)
        before = pixel
    return found


def _bottom(steps: int, inner: int, margin: int, output: Output) -> list[str]:
    """The bottom edge, the numbers of the steps, and those of the epochs."""
    span = max(steps - 1, 1)
    *_, corner, bottom, below, _ = output.frame
    edge, written = [bottom] * inner, []
    if output.axis is not None:
        text, free = [" "] * inner, 0
        for step, label in output.axis.ticks:
            place = round(step / span * (inner - 1))
            edge[place] = below
            begin = min(max(0, place - (len(label) - 1) // 2), inner - len(label))
            if begin >= free:
                text[begin : begin + len(label)] = label
                free = begin + len(label) + 2
        written.append(f"{output.axis.name:>{margin}}  {''.join(text)}".rstrip())
        return [" " * (margin + 1) + corner + "".join(edge), *written]
    for name, unit in (("step", 1.0), ("epoch", output.steps_per_epoch)):
        if unit is None:
            continue
        most = inner // (len(f"{span / unit:,.0f}") + 6)
        text = [" "] * inner
        for tick in round_numbers(0.0, span / unit, most):
            label, place = tick_label(tick), round(tick * unit / span * (inner - 1))
            begin = min(max(0, place - (len(label) - 1) // 2), inner - len(label))
            if name == "step" and tick == int(tick):
                edge[place] = below
            if name == "epoch" or tick == int(tick):
                text[begin : begin + len(label)] = label
        written.append(f"{name:>{margin}}  {''.join(text)}".rstrip())
    return [" " * (margin + 1) + corner + "".join(edge), *written]


def _legend(found: Sampled, lines: list[Line], dots: bool, output: Output) -> list[str]:
    """For each line its sign, its name, and its course."""
    several = len(found.labels) > 1
    told = lines
    if len(lines) > MOST_TOLD:
        told = [*lines[: MOST_TOLD // 2], *lines[-(MOST_TOLD // 2) :]]
    shown = []
    for line in told:
        sign, colour = _look(found, line, output)
        sign = "⣀⡠⠒⠉" if dots else sign
        begin = f"  {_joined([(sign, colour)])} " if several else "  "
        name = line.label or "all groups" * (several and line.groups is None)
        course = _course(found, line, output)
        if name and len(name) + len(course) <= output.width - len(sign) - 5:
            shown.append(f"{begin}{name}: {course}")
            continue
        rows = textwrap.wrap(course, output.width - 6)
        if name:
            rows.insert(0, f"{_cut(name, output.width - len(sign) - 4)}:")
        shown += [f"{begin}{rows[0]}", *(f"      {row}" for row in rows[1:])]
    if told is not lines:
        shown.insert(MOST_TOLD // 2, f"  and {len(lines) - len(told)} more between these")
    return shown


def _course(found: Sampled, line: Line, output: Output) -> str:
    """Where a line begins, where it turns, and where it ends."""
    pairs = [
        (step, value)
        for step, value in zip(found.points, line.values, strict=True)
        if math.isfinite(value)
    ]
    if not pairs:
        return "no finite number"
    (first, start), (last, end) = pairs[0], pairs[-1]
    at = "at" if found.exact else "near"
    words = [f"{start:.4g} at {output.place(first)}"]
    top = max(pairs, key=lambda pair: pair[1])
    bottom = min(pairs, key=lambda pair: pair[1])
    if top[1] == bottom[1]:
        return f"{start:.4g} in all steps"
    between = [("highest", top)] if top[1] > max(start, end) else []
    between += [("lowest", bottom)] if bottom[1] < min(start, end) else []
    for name, (step, value) in sorted(between, key=lambda entry: entry[1]):
        words.append(f"{name} {value:.4g} {at} {output.place(step)}")
    words.append(f"{end:.4g} at {output.place(last)}")
    return ", ".join(words)


def _range(lines: Sequence[Line]) -> tuple[float, float]:
    """From where to where the values of a panel go; from 0 if they come near."""
    finite = [value for line in lines for value in line.values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    if low == high:
        return (low - 1, high + 1) if not low else (min(0.0, 2 * low), max(0.0, 2 * low))
    return (0.0 if 0 <= low <= high / 2 else low), high


def round_numbers(low: float, high: float, most: int) -> list[float]:
    """Round numbers in a range, about so many at most.

    Example:
        >>> round_numbers(0, 100, 5)
        [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
    """
    rough = (high - low) / max(most, 1)
    if not rough or not math.isfinite(rough):
        return [low]
    size = 10.0 ** math.floor(math.log10(rough))
    unit = next(size * nice for nice in (1, 2, 5, 10) if size * nice >= rough * (1 - 1e-9))
    first, last = math.ceil(low / unit - 1e-9), math.floor(high / unit + 1e-9)
    return [number * unit for number in range(first, last + 1)]


def _row(value: float, low: float, high: float) -> int:
    return min(max(round((high - value) / (high - low) * (HEIGHT - 1)), 0), HEIGHT - 1)


def tick_label(value: float) -> str:
    """Write a round number of a scale.

    Example:
        >>> tick_label(0.0001), tick_label(100000)
        ('0.0001', '100,000')
    """
    if value and not 1e-4 <= abs(value) < 1e16:  # noqa: PLR2004 - where %g begins with exponents
        return f"{value:.6g}"
    return f"{round(value, 12):,.12f}".rstrip("0").rstrip(".")


def _joined(cells: Iterable[Cell]) -> str:
    """Cells in a row, the colour said where it changes."""
    words = []
    for colour, run in itertools.groupby(cells, key=lambda cell: cell[1]):
        text = "".join(sign for sign, _ in run)
        words.append(text if colour is None else f"\x1b[{colour}m{text}\x1b[0m")
    return "".join(words)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 4] + " ..."


def _has(encoding: str, text: str) -> bool:
    """Whether an encoding has all characters of a text."""
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
