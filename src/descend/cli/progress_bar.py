"""The progress of a command: a live bar on a terminal, and lines; its warnings."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import click

from descend.bars import bars, on_terminal
from descend.errors import (
    CacheWarning,
    CheckpointWarning,
    FontWarning,
    ResumeWarning,
    TrainerWarning,
)

OURS = (CacheWarning, CheckpointWarning, FontWarning, ResumeWarning, TrainerWarning)


class Show(Protocol):
    """A function that shows how far the work has come."""

    def __call__(self, text: str, done: float | None = None, total: float | None = None) -> None:
        """Show a few words, and how much of how much is done."""


@contextmanager
def progress_bar(
    *, stderr: bool = True, remaining: bool = False, by_hand: bool = False
) -> Iterator[tuple[Show, Callable[[str], None]]]:
    """A bar with a clock on a terminal; no bar elsewhere.

    Args:
        stderr: whether it is on standard error.
        remaining: whether the clock tells how long it will take, not how long it has taken.
        by_hand: whether the bar is drawn only when it is told of something: a thread that redraws
            it would disturb what is timed.

    Returns:
        A function that shows how far it is, and one that prints a line above.
    """
    if not on_terminal(stderr=stderr):
        yield lambda text, done=None, total=None: None, partial(click.echo, err=stderr)
        return
    columns = ("bar", "remaining" if remaining else "elapsed", "{task.description}")
    bar = bars(columns, stderr=stderr, by_hand=by_hand)
    task = bar.add_task("", total=None)

    def show(text: str, done: float | None = None, total: float | None = None) -> None:
        bar.start()  # not before: what is echoed until then would land in it
        bar.update(task, description=text, completed=done, total=total, refresh=by_hand)

    try:
        yield show, bar.console.print
    finally:
        bar.stop()


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
