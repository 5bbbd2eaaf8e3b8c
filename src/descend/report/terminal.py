"""Curves as a chart of characters, for a terminal or a log."""

import itertools
import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

from descend.report.sampled import Line, Sampled

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

NEEDED = "⣿│┤┬└─┊"


class Signs(NamedTuple):
    """The characters of a frame.

    Args:
        side: of the left edge.
        tick: of the left edge, where a number stands.
        corner: at the bottom left.
        line: of the bottom edge.
        below: of the bottom edge, where a number stands.
        mark: of a vertical line.

    Example:
        >>> PLAIN.corner
        '+'
    """

    side: str
    tick: str
    corner: str
    line: str
    below: str
    mark: str


FINE = Signs("│", "┤", "└", "─", "┬", "┊")
PLAIN = Signs("|", "+", "+", "-", "+", ":")


def chart(
    found: Sampled,
    *,
    width: int = 80,
    colour: bool = False,
    encoding: str = "utf-8",
    steps_per_epoch: float | None = None,
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

    Returns:
        Lines of text; none is wider than `width`, as long as that is at least 40.

    Example:
        >>> from descend.report.sampled import sampled
        >>> from descend.report.sources import source_of
        >>> from descend.schedules import linear
        >>> text = chart(sampled([source_of("", linear(9))], 10), width=40, encoding="ascii")
        >>> print(text.splitlines()[1])
            1 +**

    Source: eight dots of a character as pixels, as in drawille,
    https://github.com/asciimoo/drawille.
    """
    fine = _has(encoding, NEEDED)
    width = max(NARROWEST, min(width, WIDEST))
    labels = list(dict.fromkeys(line.label for line in found.lines))
    text = "\n\n".join(
        "\n".join(_panel(found, key, labels, width, fine, colour, steps_per_epoch))
        for key in found.keys
    )
    return text if _has(encoding, text) else text.encode("ascii", "backslashreplace").decode()


def _panel(
    found: Sampled,
    key: str,
    labels: list[str],
    width: int,
    fine: bool,
    colour: bool,
    steps_per_epoch: float | None,
) -> list[str]:
    lines = [line for line in found.lines if line.key == key]
    low, high = _range(lines)
    ticks = _ticks(low, high, HEIGHT // 2 - 1)
    names = {_row(tick, low, high): _number(tick) for tick in ticks}
    margin = max(map(len, ["epoch", *names.values()]))
    inner = width - margin - 3
    signs = FINE if fine else PLAIN
    dots = fine and (colour or len(lines) == 1)
    cells: list[list[Cell]] = [[(" ", None)] * inner for _ in range(HEIGHT)]
    span = max(found.steps - 1, 1)
    for mark in found.marks.get(key, ()):
        for row in cells:
            row[round(mark / span * (inner - 1))] = (signs.mark, None)
    for line in lines:
        number = labels.index(line.label)
        paint = COLOURS[number % len(COLOURS)] if colour and len(labels) > 1 else None
        sign = None if dots else MARKERS[number % len(MARKERS)]
        _trace(cells, line.values, found.points, span, (low, high), sign, paint)
    shown = [f"{key} (factor)" if key in found.factors else key]
    for number, row in enumerate(cells):
        name = names.get(number)
        edge = signs.side if name is None else signs.tick
        shown.append(f"{name or '':>{margin}} {edge}{_joined(row)}".rstrip())
    shown += _bottom(found.steps, inner, margin, signs, steps_per_epoch)
    return shown + _legend(found, lines, labels, fine and dots, colour, width)


def _trace(
    cells: list[list[Cell]],
    values: Sequence[float],
    points: Sequence[int],
    span: int,
    bounds: tuple[float, float],
    sign: str | None,
    colour: int | None,
) -> None:
    """Draw a line into the cells, with a sign or with dots."""
    across, down = (2, 4) if sign is None else (1, 1)
    columns, rows = len(cells[0]) * across, len(cells) * down
    low, high = bounds
    pixels = [
        (point / span * (columns - 1), (high - value) / (high - low) * (rows - 1))
        if math.isfinite(value)
        else None
        for point, value in zip(points, values, strict=True)
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


def _bottom(
    steps: int, inner: int, margin: int, signs: Signs, steps_per_epoch: float | None
) -> list[str]:
    """The bottom edge, the numbers of the steps, and those of the epochs."""
    span = max(steps - 1, 1)
    scales: list[tuple[str, float]] = [("step", 1.0)]
    if steps_per_epoch is not None:
        scales.append(("epoch", steps_per_epoch))
    edge, written = [signs.line] * inner, []
    for name, unit in scales:
        most = inner // (len(f"{span / unit:,.0f}") + 6)
        text = [" "] * inner
        for tick in _ticks(0.0, span / unit, most):
            label, place = _number(tick), round(tick * unit / span * (inner - 1))
            begin = min(max(0, place - (len(label) - 1) // 2), inner - len(label))
            if name == "step" and tick == int(tick):
                edge[place] = signs.below
            if name == "epoch" or tick == int(tick):
                text[begin : begin + len(label)] = label
        written.append(f"{name:>{margin}}  {''.join(text)}".rstrip())
    return [" " * (margin + 1) + signs.corner + "".join(edge), *written]


def _legend(
    found: Sampled, lines: list[Line], labels: list[str], dots: bool, colour: bool, width: int
) -> list[str]:
    """What each line is: its sign, its name, and where it goes."""
    several = len(labels) > 1
    told = lines
    if len(lines) > MOST_TOLD:
        told = [*lines[: MOST_TOLD // 2], *lines[-(MOST_TOLD // 2) :]]
    shown = []
    for line in told:
        number = labels.index(line.label)
        sign = "⣀⡠⠒⠉" if dots else MARKERS[number % len(MARKERS)]
        paint = COLOURS[number % len(COLOURS)] if colour else None
        name = line.label
        course = _course(found, line)
        room = width - len(course) - (len(sign) + 5)
        begin = f"  {_joined([(sign, paint)])} " if several else "  "
        if not name and several and line.groups is None:
            name = "all groups"
        if not name:
            first, *more = textwrap.wrap(course, width - 3 - len(sign))
            shown += [f"{begin}{first}", *(f"      {line}" for line in more)]
        elif len(name) <= room:
            shown.append(f"{begin}{name}: {course}")
        else:
            shown.append(f"{begin}{_cut(name, width - len(sign) - 4)}:")
            shown += [f"      {line}" for line in textwrap.wrap(course, width - 6)]
    if told is not lines:
        left_out = f"  and {len(lines) - len(told)} more between these"
        shown.insert(MOST_TOLD // 2, left_out)
    return shown


def _course(found: Sampled, line: Line) -> str:
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
    words = [f"{start:.4g} at step {first:,}"]
    top = max(pairs, key=lambda pair: pair[1])
    bottom = min(pairs, key=lambda pair: pair[1])
    if top[1] == bottom[1]:
        return f"{start:.4g} in all steps"
    between = [("highest", top)] if top[1] > max(start, end) else []
    between += [("lowest", bottom)] if bottom[1] < min(start, end) else []
    for name, (step, value) in sorted(between, key=lambda entry: entry[1]):
        words.append(f"{name} {value:.4g} {at} step {step:,}")
    words.append(f"{end:.4g} at step {last:,}")
    return ", ".join(words)


def _range(lines: Sequence[Line]) -> tuple[float, float]:
    """From where to where the values of a panel go; from 0 if they come near."""
    finite = [value for line in lines for value in line.values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    if low == high:
        return (low - 1, high + 1) if not low else (min(0.0, 2 * low), max(0.0, 2 * low))
    return (0.0 if 0 <= low <= high / 2 else low), high


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers in a range, about so many at most."""
    rough = (high - low) / max(most, 1)
    if not rough or not math.isfinite(rough):
        return [low]
    size = 10.0 ** math.floor(math.log10(rough))
    unit = next(size * nice for nice in (1, 2, 5, 10) if size * nice >= rough * (1 - 1e-9))
    first, last = math.ceil(low / unit - 1e-9), math.floor(high / unit + 1e-9)
    return [number * unit for number in range(first, last + 1)]


def _row(value: float, low: float, high: float) -> int:
    return min(max(round((high - value) / (high - low) * (HEIGHT - 1)), 0), HEIGHT - 1)


def _number(value: float) -> str:
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
