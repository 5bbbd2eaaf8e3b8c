"""Reading checkpoints for a command: what it tells on stderr meanwhile."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from descend.errors import CheckpointError

BIG = 200_000_000  # bytes that take long enough to show that something is going on


def load_aloud(path: Path, only: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    """Load a state; damaged checkpoints that are passed over are told of on stderr.

    Args:
        path: whatever `descend.checkpoint.load` takes.
        only: which entries of it; all where there are none.

    Returns:
        Which checkpoint or file it was, and the state.

    Raises:
        CheckpointError: as `descend.checkpoint.load`, and if nothing that could be loaded is there.

    Example:
        >>> load_aloud(Path("runs/mine"), ["model"])
    """
    from descend.checkpoint.state_source import locate_and_load
    from descend.format import counted
    from descend.report.found import find

    with telling(), readable(path):
        found = find(path)
        if not (found.is_one or (found.is_series and found.checkpoints)):
            raise CheckpointError(
                f"{path} holds {counted(len(found.checkpoints), 'checkpoint')}; give one of them"
                if found.checkpoints
                else f"the run {path} has no checkpoint yet"
            )
        used, state = locate_and_load(found.path, list(dict.fromkeys(only)) or None)
    return used, state


@contextmanager
def telling() -> Iterator[None]:
    """Tell on stderr, when the block ends well, what was warned of in it."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield
    for warning in told:
        click.echo(f"descend: warning: {warning.message}", err=True)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what the system says against reading a path, or Python, into an error of ours."""
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise CheckpointError(f"{path} cannot be read: {why}") from error
    except RecursionError as error:
        raise CheckpointError(f"{path} is nested too deeply, or holds itself") from error


@contextmanager
def reading(path: Path) -> Iterator[Callable[[int], None]]:
    """Show how far a big checkpoint has been read: the block tells it by the bytes."""
    from descend.format import byte_size, printable
    from descend.report.found import disk_size

    total = disk_size(path)
    if total < BIG:
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    words = TextColumn("reading {task.description}", markup=False)
    with Progress(
        BarColumn(),
        TimeElapsedColumn(),
        words,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        # What torch wrote is read without a word of how far
        whole = None if path.is_file() else total
        task = bar.add_task(f"{printable(path.name)}, {byte_size(total)}", total=whole)
        yield lambda count: bar.advance(task, count)
