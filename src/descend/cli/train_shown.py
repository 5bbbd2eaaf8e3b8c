"""What `descend train` shows on the way: a live bar or lines, and warnings in one line each."""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from descend.errors import CacheWarning, CheckpointWarning, FontWarning, ResumeWarning

if TYPE_CHECKING:
    from rich.progress import TaskID

OURS = (CacheWarning, CheckpointWarning, FontWarning, ResumeWarning)


@contextmanager
def progress_shown(
    epochs: int, steps_per_epoch: int
) -> Iterator[tuple[Callable[[int, int], None], Callable[[str], None]]]:
    """What shows the progress and what prints a line: a live bar on a terminal, lines elsewhere.

    Args:
        epochs: how many there are.
        steps_per_epoch: how many batches each has.

    Returns:
        A function of the epochs and the batches that are done, and one of a line.
    """
    if not sys.stdout.isatty():
        yield lambda done, batches: None, click.echo
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(highlight=False, markup=False, soft_wrap=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as bar:
        shown: TaskID = bar.add_task("starting", total=None)

        def show(done: int, batches: int) -> None:
            bar.update(
                shown,
                description=f"epoch {done + 1}/{epochs}, batch {batches}/{steps_per_epoch}",
                completed=done * steps_per_epoch + batches,
                total=epochs * steps_per_epoch,
            )

        yield show, console.print


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Show descend's own warnings as the command line shows everything."""
    with warnings.catch_warnings():
        for category in OURS:
            warnings.simplefilter("always", category)
        before = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any) -> None:
            if issubclass(category, OURS):
                click.echo(f"descend: warning: {message}", err=True)
            else:
                before(message, category, *rest)

        warnings.showwarning = show  # type: ignore[assignment]
        yield
