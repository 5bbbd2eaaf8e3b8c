"""Bars at the bottom of a terminal: where there is one, and what they look like."""

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


def on_terminal(*, stderr: bool) -> bool:
    """Whether there is a terminal to draw on, or a notebook.

    Args:
        stderr: whether that is on standard error.
    """
    forced = stderr and os.environ.get("FORCE_COLOR")  # as rich takes it; lines stay lines
    notebook = "ipykernel" in sys.modules and find_spec("ipywidgets") is not None
    return bool(forced or notebook or (sys.stderr if stderr else sys.stdout).isatty())


def bars(columns: Sequence[str], *, stderr: bool, by_hand: bool) -> "Progress":
    """Bars that are gone when they end, on a console that prints lines above as they are.

    Args:
        columns: of each bar, from the left: "bar", "short bar", "count", "elapsed" or "remaining";
            or a text with the fields of a task of rich's. The last is a text, and has the room
            that the others leave.
        stderr: whether they are on standard error.
        by_hand: whether they are drawn only when they are told to: a thread that redraws them
            would disturb what is timed.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    known: dict[str, Callable[[], ProgressColumn]] = {
        "bar": BarColumn,
        "short bar": partial(BarColumn, 20),
        "count": MofNCompleteColumn,
        "elapsed": TimeElapsedColumn,
        "remaining": TimeRemainingColumn,
    }
    *others, last = columns
    return Progress(
        *(known[one]() if one in known else TextColumn(one, markup=False) for one in others),
        TextColumn(last, markup=False, table_column=Column(ratio=1, no_wrap=True)),
        console=Console(highlight=False, markup=False, soft_wrap=True, stderr=stderr),
        transient=True,
        expand=True,
        auto_refresh=not by_hand,
    )
