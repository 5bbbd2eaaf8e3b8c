"""The runs that a command was given, each by a name as short as it can be."""

import os
from collections.abc import Sequence
from pathlib import Path

from descend.checkpoint.series import FOLDER
from descend.errors import RunError
from descend.run.metrics_log import METRICS


def run_names(paths: Sequence[Path]) -> dict[str, Path]:
    """Name the folders of runs: without what the paths of all have in common.

    Args:
        paths: of the folders of runs.

    Raises:
        RunError: one is none.

    Example:
        >>> run_names([Path("runs/a"), Path("runs/b")])
        {'a': Path('runs/a'), 'b': Path('runs/b')}
    """
    for path in paths:
        if not ((path / METRICS).is_file() or (path / FOLDER).is_dir()):
            raise RunError(f"{path} is no run: it has no {METRICS}; give the folder of a run")
    unique = list(dict.fromkeys(paths))
    whole = [os.path.abspath(path) for path in unique]
    if len(whole) == 1:
        return {Path(whole[0]).name: unique[0]}
    common = os.path.commonpath(whole)
    return {os.path.relpath(one, common): path for one, path in zip(whole, unique, strict=True)}
