"""The folder of one run: metrics.jsonl, curves.png and checkpoint.safetensors."""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from descend.errors import OutputError

METRICS = "metrics.jsonl"
CURVES = "curves.png"
CHECKPOINT = "checkpoint.safetensors"


def make_run_folder(out: Path | None) -> Path:
    """Make the folder of a run, so that no run overwrites another, and prove it can be written.

    Args:
        out: the folder, which must be new or empty; or None for `runs/<date>_<time>`, with a
            number after it where that exists already.

    Returns:
        The folder.

    Raises:
        OutputError: if it cannot be made or written, or holds files already.

    Example:
        >>> make_run_folder(Path("runs/first"))
    """
    folder = Path("runs") / time.strftime("%Y-%m-%d_%H-%M-%S") if out is None else out
    try:
        if out is None:
            folder = _make_new(folder)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise OutputError(
                    f"--out {folder}: the folder holds files already, and a run overwrites none; "
                    f"give a new or an empty folder, or remove this one"
                )
        probe = folder / f".{os.getpid()}.tmp"
        probe.touch()
        probe.unlink()
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"--out {folder}: the folder cannot be written: {error.strerror or error}; give "
            f"another with --out"
        ) from error
    return folder


def append_metrics(folder: Path, values: Mapping[str, Any]) -> None:
    """Append one line of JSON to the metrics of a run; it is on its way to the disk on return.

    Args:
        folder: the run's folder.
        values: names and numbers.

    Raises:
        OutputError: if the file cannot be written.

    Example:
        >>> append_metrics(folder, {"epoch": 1, "train_loss": 0.7})

    Source: JSON Lines, https://jsonlines.org.
    """
    path = folder / METRICS
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({k: _strict(v) for k, v in values.items()}) + "\n")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


def _strict(value: object) -> object:
    """JSON has no NaN and no infinity: null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _make_new(folder: Path) -> Path:
    """Make a folder that nobody else has: `folder`, or it with -2, -3, ... after its name."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new, number = folder, 1
    while True:
        try:
            new.mkdir()
        except FileExistsError:
            number += 1
            new = folder.with_name(f"{folder.name}-{number}")
        else:
            return new
