"""Checkpoints read for a command, with a bar, warnings and errors on stderr."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from descend.cli.progress_bar import progress_bar
from descend.errors import CheckpointError

BIG = 200_000_000  # bytes that take long enough to show that something is going on


def load_aloud(path: Path, only: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    """Load a state; damaged checkpoints that are passed over are told of on stderr.

    Args:
        path: whatever `descend.checkpoint.load` takes.
        only: which entries of it; all where there are none.

    Returns:
        The checkpoint or file that it was, and the state.

    Raises:
        CheckpointError: as `descend.checkpoint.load`, and if nothing that could be loaded is there.

    Example:
        >>> load_aloud(Path("runs/mine"), ["model"])
    """
    from descend.checkpoint.state_source import locate_and_load
    from descend.format import counted
    from descend.report.locate import find

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
    """Tell the warnings of the block on stderr when it ends well."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield
    for warning in told:
        click.echo(f"descend: warning: {warning.message}", err=True)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn an error of the system, or of Python, in reading a path into one of ours."""
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
    from descend.report.locate import disk_size

    total = disk_size(path)
    if total < BIG:
        yield lambda count: None
        return
    name, done = f"reading {printable(path.name)}, {byte_size(total)}", 0
    whole = None if path.is_file() else total  # what torch wrote is read without a word of how far
    with progress_bar() as (show, _):

        def read(count: int) -> None:
            nonlocal done
            done += count
            show(name, done, whole)

        read(0)
        yield read
