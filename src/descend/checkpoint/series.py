"""The checkpoints of one run: `step-00000042`, ... in a folder; the newest valid one, the best."""

import os
import re
import shutil
import warnings
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from descend.checkpoint.folder import load, remove
from descend.checkpoint.manifest import damage_alone, read_manifest
from descend.checks import plain_number
from descend.errors import CheckpointError, CheckpointWarning, DamagedError
from descend.spelling import spelled

LOOKS = 3
FOLDER = "checkpoints"  # within a run's folder
NAME = re.compile(r"step-(\d+)(?:-(\d+))?")


@spelled
@dataclass(frozen=True)
class Best:
    """The metric that makes a checkpoint the best.

    Args:
        metric: its name among the metrics that were logged before the save.
        highest: whether more is better.

    Example:
        >>> Best("accuracy", highest=True).metric
        'accuracy'

    Source: model selection on held-out data, as every trainer's checkpoint callback has it.
    """

    metric: str
    highest: bool = False

    def of(self, paths: Collection[Path]) -> Path | None:
        """The best of some checkpoints, the oldest of equals; None where no metric is known."""
        values = {path: _metric(path, self.metric) for path in paths}
        known = {path: value for path, value in values.items() if value is not None}
        sign = -1 if self.highest else 1
        return min(
            known, key=lambda path: (sign * known[path], step_and_number(path)), default=None
        )


def step_and_number(path: Path) -> tuple[int, int]:
    """The step of a checkpoint from its name, and its number among those of that step."""
    match = NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1]), int(match[2] or 1)


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in a folder, oldest first; whether they are valid is not checked.

    Raises:
        CheckpointError: if the system does not let us look.
    """
    if not os.path.isdir(folder):
        return []
    try:
        for _ in range(LOOKS):
            found = [path for path in folder.iterdir() if NAME.fullmatch(path.name)]
            there = [path for path in found if path.is_dir()]
            if there or not found:
                break  # else a training that is under way has removed them, and has newer ones
    except OSError as error:
        raise CheckpointError(
            f"cannot look into {folder} for checkpoints: {error.strerror or error}; remove the "
            f"cause and try again"
        ) from error
    return sorted(there, key=step_and_number)


def new_name(folder: Path, step: int) -> Path:
    """A name that is free, after all others of that step."""
    taken = [
        step_and_number(path)[1] for path in checkpoints(folder) if step_and_number(path)[0] == step
    ]
    number = max(taken, default=0) + 1
    return folder / (f"step-{step:08d}" if number == 1 else f"step-{step:08d}-{number}")


def load_newest(
    folder: Path,
    *,
    parts: Collection[str] | None = None,
    lenient: bool = False,
    set_aside: bool = False,
) -> tuple[Path, dict[str, Any]]:
    """Load the newest valid checkpoint of a folder; warn of each damaged one that is passed over.

    Args:
        folder: holds `step-...` checkpoints.
        parts: as for `load`.
        lenient: as for `load`.
        set_aside: whether to rename damaged ones, so that nothing takes them for checkpoints.

    Returns:
        The checkpoint's folder and its state.

    Raises:
        CheckpointError: if there is none, or none is valid; it names each and its damage.
    """
    damages: list[CheckpointError] = []
    paths = checkpoints(folder)
    for path in reversed(paths):
        try:
            state = load(path, parts=parts, lenient=lenient)
        except CheckpointError as error:
            if not os.path.lexists(path):  # a training that is under way has removed it: look again
                return load_newest(folder, parts=parts, lenient=lenient, set_aside=set_aside)
            gone = isinstance(error.__cause__, FileNotFoundError)
            if not (gone or isinstance(error, DamagedError)):
                raise
            damages.append(error)
            continue
        for bad, damage in zip(reversed(paths), damages, strict=False):
            _report(bad, damage, path, set_aside)
        return path, state
    if not damages:
        raise CheckpointError(f"cannot load a checkpoint of {folder}: there is none")
    none = "the only one is not" if len(damages) == 1 else f"none of the {len(damages)} is"
    raise CheckpointError(
        f"cannot load a checkpoint of {folder}: {none} valid; " + "; ".join(map(str, damages))
    )


def prune(folder: Path, keep: int, best: Best | None, whole: Path | None = None) -> None:
    """Remove all checkpoints but the newest `keep` and the best one.

    Args:
        folder: holds them.
        keep: how many, at least 1.
        best: what makes one the best; None keeps none for that.
        whole: one that is known to be whole, which is kept whatever its step is.
    """
    paths = checkpoints(folder)
    kept = {*paths[-keep:], whole}
    if best is not None and (winner := best.of(paths)) is not None:
        kept.add(winner)
    for path in paths:
        if path not in kept:
            with suppress(OSError):
                remove(path)


def clean(folder: Path) -> None:
    """Remove what a process that died in the middle of a save, or of a removal, left behind."""
    with suppress(OSError):
        for path in folder.glob(".*.tmp"):
            shutil.rmtree(path, ignore_errors=True)


def _report(bad: Path, damage: CheckpointError, used: Path, set_aside: bool) -> None:
    """Warn that a checkpoint was passed over."""
    where = ""
    if set_aside:
        aside = bad.with_name(f"{bad.name}.damaged")
        with suppress(OSError):
            shutil.rmtree(aside, ignore_errors=True)
            bad.rename(aside)
            where = f"; it is now called {aside.name}"
    warnings.warn(
        f"cannot load the checkpoint {bad}: {damage_alone(bad, str(damage))}; {used} is used "
        f"instead{where}",
        CheckpointWarning,
        stacklevel=4,
    )


def _metric(path: Path, name: str) -> float | None:
    """A metric from what a manifest says; None where it is not there, or not a number."""
    try:
        about: Mapping[str, Any] = read_manifest(path)["about"]
    except CheckpointError:
        return None
    metrics = about.get("metrics")
    value = metrics.get(name) if isinstance(metrics, Mapping) else None
    return plain_number(value)
