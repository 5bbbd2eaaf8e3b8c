"""Loading a state for a command, which tells on stderr of what was passed over."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from descend.errors import CheckpointError


def load_aloud(path: Path, parts: list[str] | None) -> tuple[Path, dict[str, Any]]:
    """Load a state; damaged checkpoints that are passed over are told of on stderr.

    Args:
        path: whatever `descend.checkpoint.load` takes.
        parts: which entries of it; all where it is None.

    Returns:
        Which checkpoint or file it was, and the state.

    Raises:
        CheckpointError: as `descend.checkpoint.load`, and if the path cannot be read.

    Example:
        >>> load_aloud(Path("runs/mine"), ["model"])
    """
    from descend.checkpoint.source import locate_and_load

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with readable(path):
            found = locate_and_load(path, parts)
    for warning in told:
        click.echo(f"descend: warning: {warning.message}", err=True)
    return found


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what the system says against reading a path into an error of ours."""
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise CheckpointError(f"{path} cannot be read: {why}") from error
