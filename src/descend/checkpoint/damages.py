"""Damages of a checkpoint or a torch file, in words that do not name it again."""

from collections.abc import Callable
from pathlib import Path

from descend.checkpoint import folder
from descend.checkpoint.manifest import MANIFEST, TENSORS, damage_alone
from descend.checkpoint.torch_file import torch_damages


def damages_of(
    path: Path, progress: Callable[[int], None] = lambda count: None
) -> list[str] | None:
    """Read a checkpoint or a torch file, and say what in it is damaged.

    Args:
        path: the folder or the file.
        progress: called with the bytes of each part that was read.

    Returns:
        Each damage in words; none if it is whole; None if that cannot be told, because it holds
        no checksums.

    Raises:
        CheckpointError: if it cannot be read, which is no damage; if it is of another format.
        OSError: as above.

    Example:
        >>> damages_of(Path("runs/mine/checkpoints/step-00000042"))
        []
    """
    if path.is_file():
        return torch_damages(path)
    if not (path / MANIFEST).exists():
        return [f"{MANIFEST} is missing"]
    return [damage_alone(path, error) for error in folder.verify(path, progress=progress)]


def seen_damages(path: Path) -> list[str]:
    """Say what in a checkpoint is seen to be damaged without reading a tensor.

    Example:
        >>> seen_damages(Path("runs/mine/checkpoints/step-00000042"))
        []
    """
    if not (path / MANIFEST).exists():
        return [f"{MANIFEST} is missing"]
    return [damage_alone(path, error) for error in folder.seen_damages(path)]


def is_doubtful(path: Path) -> bool:
    """Whether what describes a checkpoint is damaged, and not only its tensors."""
    return path.is_dir() and any(not what.startswith(TENSORS) for what in seen_damages(path))
