"""Tables and lists of facts, as wide as the terminal, or as they need to be in a file."""

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

STYLES = {"good": "green", "bad": "bold red", "doubtful": "yellow", "head": "dim", "name": "bold"}
ENDLESS = 1_000_000  # columns of a file
NARROWEST = 40

Cell = str | tuple[str, str]
"""A text, or a text and the name of its style."""


@dataclass(frozen=True)
class Screen:
    """The abilities of an output.

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
    """Find out the abilities of standard output."""
    terminal = sys.stdout.isatty()
    return Screen(
        terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb",
        max(NARROWEST, shutil.get_terminal_size().columns) if terminal else None,
        getattr(sys.stdout, "encoding", None) or "ascii",
    )


def styled(cell: Cell, on: Screen) -> str:
    """Colour a text, if the output shows colours.

    Example:
        >>> styled(("whole", "good"), Screen(colour=False, width=None, encoding="ascii"))
        'whole'
    """
    text, style = _encodable(cell, on)
    if not (style and on.colour):
        return text
    from rich.color import ColorSystem
    from rich.style import Style

    return Style.parse(STYLES[style]).render(text, color_system=ColorSystem.STANDARD)


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    on: Screen,
    *,
    left: Sequence[int] = (0,),
    indent: int = 0,
    fold: bool = False,
) -> list[str]:
    r"""Lay out rows below a header, in columns.

    Args:
        header: a name for each column.
        rows: the cells.
        on: where it is shown.
        left: the numbers of the columns that begin at the left; numbers end at the right.
        indent: how many spaces each line begins with.
        fold: whether cells of any column may be folded where the lines are too long, even in
            words; else those of the last one are, if it begins at the left, and no word is cut.

    Returns:
        The lines; none where there are no rows. A column without any text is left out.

    Example:
        >>> plain = Screen(colour=False, width=None, encoding="utf-8")
        >>> print("\n".join(table(["name", "size"], [["weight", "4 B"], ["b", "12 B"]], plain)))
        name    size
        weight   4 B
        b       12 B
    """
    cells = [[_encodable(cell, on) for cell in row] for row in rows]
    if not cells:
        return []
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    kept = [i for i in range(len(header)) if any(row[i][0] for row in cells)]
    laid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="")
    laid.show_header = any(header)
    for i in kept:
        folds = fold or (i == kept[-1] and i in left)
        parts = [part for row in cells for part in row[i][0].split(None if folds else "\n")]
        laid.add_column(
            Text.assemble((header[i], "head")),
            justify="left" if i in left else "right",
            overflow="fold",
            no_wrap=not folds,
            min_width=None if fold else max(map(cell_len, (*parts, header[i]))),
        )
    for row in cells:
        # The style is the text's, and not its cell's: lines shall end with their text
        laid.add_row(*(Text.assemble(row[i]) for i in kept))
    return _lines(laid, on, indent, foldable=fold)


def fitting(
    header: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    on: Screen,
    *,
    left: Sequence[int],
    spare: Sequence[int],
) -> tuple[list[str], list[int]]:
    """Lay out a table, without columns for which there is no room.

    Args:
        header: as for `table`.
        rows: as for `table`.
        on: as for `table`.
        left: as for `table`.
        spare: the numbers of the columns that may be left out, the first to go first.

    Returns:
        The lines, and the numbers of the columns that were left out.
    """
    from rich.cells import cell_len

    gone = 0
    while True:
        kept = [i for i in range(len(header)) if i not in spare[:gone]]
        names, cells = [header[i] for i in kept], [[row[i] for i in kept] for row in rows]
        begin = [kept.index(i) for i in left if i in kept]
        plain = table(names, cells, replace(on, colour=False), left=begin)
        if on.width is None or gone == len(spare) or max(map(cell_len, plain)) <= on.width:
            return table(names, cells, on, left=begin), [*spare[:gone]]
        gone += 1


def facts(pairs: Iterable[tuple[str, Cell]], on: Screen) -> list[str]:
    """Lay out names and what there is to say to each, below each other; long texts are folded.

    Example:
        >>> facts([("step", "42"), ("lr", "0.1")], Screen(False, None, "utf-8"))
        ['step  42', 'lr    0.1']
    """
    return table(["", ""], [((name, "head"), cell) for name, cell in pairs], on, left=(0, 1))


def sentence(text: str, on: Screen, *, indent: int = 0) -> list[str]:
    """Fold a sentence where it is long.

    Example:
        >>> sentence("It is damaged.", Screen(False, None, "utf-8"), indent=2)
        ['  It is damaged.']
    """
    margin, (text, _) = " " * indent, _encodable(text, on)
    if on.width is None:
        return [margin + text]
    room = max(on.width, indent + NARROWEST // 4)
    # A name or a hash in two pieces could not be copied
    fold = textwrap.TextWrapper(room, margin, margin, break_long_words=False)
    fold.break_on_hyphens = False
    return fold.wrap(text) or [margin]


def _lines(laid: "Table", on: Screen, indent: int, *, foldable: bool) -> list[str]:
    """The lines of a table; wider than the screen where words would be cut."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.padding import Padding
    from rich.theme import Theme

    console = Console(
        width=on.width or ENDLESS,
        color_system="standard" if on.colour else None,
        force_terminal=on.colour,
        theme=Theme(STYLES),
    )
    if not foldable:
        narrowest = Measurement.get(console, console.options.update(width=ENDLESS), laid).minimum
        console.width = max(console.width, narrowest + indent)
    with console.capture() as captured:
        console.print(Padding(laid, (0, 0, 0, indent), expand=False))
    return [line.rstrip() for line in captured.get().splitlines()]


def _encodable(cell: Cell, on: Screen) -> tuple[str, str]:
    """A text and its style; what the output has no character for is spelt out."""
    text, style = (cell, "") if isinstance(cell, str) else cell
    try:
        text.encode(on.encoding)
    except UnicodeEncodeError:
        text = text.replace("±", "~").encode(on.encoding, "backslashreplace").decode(on.encoding)
    return text, style
