"""Tables and lists of facts, as wide as the terminal, or as they need to be in a file."""

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

STYLES = {"good": "32", "bad": "31;1", "head": "2", "name": "1"}  # of ANSI
NARROWEST = 40

Cell = str | tuple[str, str]
"""A text, or a text and the name of its style."""


@dataclass(frozen=True)
class Screen:
    """What the output can show.

    Args:
        colour: whether it shows colours.
        width: its columns; None where lines may be of any length, as in a file.
        encoding: the one of its characters.

    Example:
        >>> Screen(colour=False, width=None, encoding="utf-8").width is None
        True
    """

    colour: bool
    width: int | None
    encoding: str


def screen() -> Screen:
    """What standard output can show."""
    terminal = sys.stdout.isatty()
    return Screen(
        terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb",
        max(NARROWEST, shutil.get_terminal_size().columns) if terminal else None,
        getattr(sys.stdout, "encoding", None) or "ascii",
    )


def styled(cell: Cell, on: Screen) -> str:
    """A text as it is written; the characters that the output lacks are spelt out.

    Example:
        >>> styled(("whole", "good"), Screen(colour=False, width=None, encoding="ascii"))
        'whole'
    """
    text, style = (cell, "") if isinstance(cell, str) else cell
    text = text.encode(on.encoding, "backslashreplace").decode(on.encoding)
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if style and on.colour else text


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    on: Screen,
    *,
    left: Sequence[int] = (0,),
    indent: int = 0,
) -> list[str]:
    r"""Rows below a header, in columns.

    Args:
        header: a name for each column.
        rows: the cells.
        on: where it is shown.
        left: the numbers of the columns that begin at the left; numbers end at the right.
        indent: how many spaces each line begins with.

    Returns:
        The lines; none where there are no rows. A column without any text is left out; the last
        one is folded where the lines are too long, if it begins at the left.

    Example:
        >>> plain = Screen(colour=False, width=None, encoding="utf-8")
        >>> print("\n".join(table(["name", "size"], [["weight", "4 B"], ["b", "12 B"]], plain)))
        name    size
        weight   4 B
        b       12 B
    """
    filled = [list(row) for row in rows]
    if not filled:
        return []
    *kept, last = (i for i in range(len(header)) if any(_text(row[i]) for row in filled))
    names: list[Cell] = [(name, "head") for name in header]
    widths = {i: max(_columns(cells[i], on) for cells in (names, *filled)) for i in (*kept, last)}
    begin = indent + sum(widths[i] + 2 for i in kept)
    lines = []
    for cells in (names, *filled):
        line = " " * indent
        for i in kept:
            space = " " * (widths[i] - _columns(cells[i], on))
            text = styled(cells[i], on)
            line += f"{text}{space}  " if i in left else f"{space}{text}  "
        if last in left:
            lines += _folded(line, cells[last], begin, on)
        else:
            lines.append(line + " " * (widths[last] - _columns(cells[last], on)))
            lines[-1] += styled(cells[last], on)
    return [line.rstrip() for line in lines]


def facts(pairs: Iterable[tuple[str, Cell]], on: Screen) -> list[str]:
    """Names and what there is to say to each, below each other; long texts are folded.

    Example:
        >>> facts([("step", "42"), ("lr", "0.1")], Screen(False, None, "utf-8"))
        ['step  42', 'lr    0.1']
    """
    listed = list(pairs)
    margin = max((_columns(name, on) for name, _ in listed), default=0) + 2
    lines = []
    for name, cell in listed:
        head = styled((name, "head"), on) + " " * (margin - _columns(name, on))
        lines += _folded(head, cell, margin, on)
    return lines


def sentence(text: str, on: Screen, *, indent: int = 0) -> list[str]:
    """A sentence, folded where it is long.

    Example:
        >>> sentence("It is damaged.", Screen(False, None, "utf-8"), indent=2)
        ['  It is damaged.']
    """
    return _folded(" " * indent, text, indent, on)


def _folded(head: str, cell: Cell, margin: int, on: Screen) -> list[str]:
    """What begins a line of that many columns, and a text, which the lines below go on with."""
    text, parts = _text(cell), [_text(cell)]
    if on.width is not None and margin + _columns(text, on) > on.width:
        room = max(NARROWEST // 4, on.width - margin)
        # A name or a hash in two pieces could not be copied
        parts = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
    style = "" if isinstance(cell, str) else cell[1]
    return [
        (" " * margin if number else head) + styled((part, style), on)
        for number, part in enumerate(parts)
    ]


def _text(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell[0]


def _columns(cell: Cell, on: Screen) -> int:
    """How many columns a text takes: some characters take two, some none."""
    text = styled(_text(cell), on)
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
