"""The bar on stderr while `descend bench` measures."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from descend.bench import Machine


class Measured(Protocol):
    """Any measurement: where it was taken, how, and whether Ctrl-C ended it."""

    @property
    def machine(self) -> Machine:
        """Where."""

    @property
    def rounds(self) -> int:
        """How many turns each contender took."""

    @property
    def seconds(self) -> float:
        """How long it took."""

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""


_Measured = TypeVar("_Measured", bound="Measured")


def measured(run: Callable[..., _Measured], parts: int) -> _Measured:
    """Measure, and show on a terminal which part is under way.

    Args:
        run: takes `progress`, which it calls with a few words before each part.
        parts: how many there are.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    console = Console(stderr=True)
    words = TextColumn("{task.description}", markup=False)
    # Refreshed by hand: a thread that redraws the bar would disturb what is timed.
    with Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        words,
        console=console,
        disable=not console.is_terminal,
        auto_refresh=False,
    ) as bar:
        task = bar.add_task("starting", total=parts)
        begun = -1

        def progress(words: str) -> None:
            nonlocal begun
            begun += 1
            bar.update(task, description=words, completed=begun, refresh=True)

        measurement = run(progress=progress)
        if not measurement.interrupted:
            progress("done")
    return measurement
