"""Which checkpoints a path stands for: itself, those of a run, those in a folder, a torch file."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from descend.checkpoint.manifest import MANIFEST, STATE, TENSORS
from descend.checkpoint.series import FOLDER, checkpoints
from descend.checkpoint.state_source import locate
from descend.errors import CheckpointError
from descend.format import first_names
from descend.run.metrics_log import METRICS

TORCH_ENDINGS = (".pth", ".pt", ".ckpt")


@dataclass(frozen=True)
class Located:
    """The checkpoints that a path stands for.

    Args:
        path: as it was given.
        kind: "checkpoint", "run", "checkpoints" (of a run, without its folder), "folder" (of
            checkpoints with names of their own, and of runs), or "torch file".
        checkpoints: where they are; those of a run are the oldest first.

    Example:
        >>> Located(Path("mine"), "run", ()).is_series
        True
    """

    path: Path
    kind: str
    checkpoints: tuple[Path, ...]

    @property
    def is_series(self) -> bool:
        """Whether the newest whole one is used when the path is loaded."""
        return self.kind in ("run", "checkpoints")

    @property
    def is_one(self) -> bool:
        """Whether the path is a checkpoint itself."""
        return self.kind in ("checkpoint", "torch file")

    def name(self, checkpoint: Path) -> str:
        """The name of a checkpoint beside the others."""
        if self.is_one:
            return str(self.path)
        return checkpoint.name if self.is_series else str(checkpoint.relative_to(self.path))


def find(path: Path) -> Located:
    """Find the checkpoints that a path stands for; they are not read.

    Args:
        path: a checkpoint or a file in it, a run's folder, a folder of checkpoints, or a file of
            torch's.

    Returns:
        The checkpoints; none where a run has none yet.

    Raises:
        CheckpointError: if nothing is there.
        OSError: if the path cannot be read.

    Example:
        >>> find(Path("runs/mine")).kind
        'run'
    """
    if path.name in (MANIFEST, STATE, TENSORS) and (path.parent / MANIFEST).exists():
        path = path.parent
    if path.is_file():
        return Located(path, "torch file", (path,))
    if not path.exists() or (path / MANIFEST).exists():
        return Located(path, "checkpoint", (locate(path),))
    for folder, kind in ((path / FOLDER, "run"), (path, "checkpoints")):
        if listed := checkpoints(folder):
            return Located(path, kind, tuple(listed))
    if any((path / name).exists() for name in (STATE, TENSORS)):
        return Located(path, "checkpoint", (path,))  # what is left of one
    is_run = (path / FOLDER).is_dir() or (path / METRICS).exists()
    return Located(path, "run", ()) if is_run else _find_below(path)


def _find_below(path: Path) -> Located:
    """The checkpoints and the runs in a folder."""
    children = sorted(child for child in path.iterdir() if not child.name.startswith("."))
    found: list[Path] = []
    for child in children:
        # os.path: a child that we may not look into hides no other
        is_checkpoint = any(os.path.exists(child / name) for name in (MANIFEST, TENSORS))
        found += [child] if is_checkpoint else checkpoints(child / FOLDER)
    if found:
        return Located(path, "folder", tuple(found))
    raise CheckpointError(f"{path} holds no checkpoint{_hint(children)}")


def _hint(children: Sequence[Path]) -> str:
    """A hint to what in a folder may have been meant."""
    meant = [child for child in children if child.suffix in TORCH_ENDINGS]
    if not meant:
        return "; give a checkpoint, the folder of a run, or a file of torch's"
    return f"; did you mean {first_names([str(child) for child in meant])}?"


def used_checkpoint(found: Located, described: Sequence[Mapping[str, Any]]) -> str | None:
    """Which checkpoint of a run would be loaded, if one would.

    Args:
        found: where they are.
        described: the "path", the "damages" and the "error" of each.
    """
    # What is damaged is passed over; what cannot be read ends the search
    sound = [one for one in described if not one["damages"]]
    if not found.is_series or not sound or sound[-1].get("error"):
        return None
    path: str = sound[-1]["path"]
    return path


def disk_size(path: Path) -> int:
    """The bytes of a file, or of the files in a folder."""
    try:
        if path.is_file():
            return path.stat().st_size
        return sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    except OSError:
        return 0
