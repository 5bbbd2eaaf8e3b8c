"""Sources of a state: a checkpoint, the folder of a run, a file of torch's."""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from descend.checkpoint import series
from descend.checkpoint.folder import load as load_folder
from descend.checkpoint.folder import present_path
from descend.checkpoint.manifest import MANIFEST
from descend.checkpoint.torch_file import read_torch, warn_of_left_out
from descend.errors import CheckpointError, MissingPartError
from descend.spelling import spelled


@spelled
def load(path: str | os.PathLike[str], *, parts: Collection[str] | None = None) -> dict[str, Any]:
    """Load a state from a checkpoint, the folder of a run, or a file of torch's.

    Args:
        path: a checkpoint that `save` wrote; the folder of a run, of which the newest valid
            checkpoint is taken; or a `.pth`, `.pt` or `.ckpt` file, which `load_torch` reads.
        parts: which entries of the state to read, such as `["model"]`; all where it is None.

    Returns:
        The state, on the CPU: equal to the saved one bit for bit. Every mapping comes back as a
        dict. Tensors that shared memory are one tensor again; none shares memory with the file.

    Raises:
        CheckpointError: if it is missing, or none is whole (naming the tensor and the file), is
            of another format, or lacks one of the parts.

    Example:
        >>> model.load_state_dict(load("runs/mine", parts=["model"])["model"])
        <All keys matched successfully>

    Source: safetensors, https://github.com/huggingface/safetensors.
    """
    return locate_and_load(Path(path), parts)[1]


def locate_and_load(
    path: Path, parts: Collection[str] | None = None, *, lenient: bool = False
) -> tuple[Path, dict[str, Any]]:
    """Load, and say which checkpoint it was; `lenient` leaves parts out that are not there."""
    if os.path.isfile(path) and path.name != MANIFEST:
        state, left_out = read_torch(path)
        missing = sorted({*(parts or ())} - state.keys())
        if missing and not lenient:
            foreign = [f"{name} is a {left_out[name]}" for name in missing if name in left_out]
            raise MissingPartError(
                f"cannot load {', '.join(missing)} of {path}: it holds "
                f"{', '.join(map(str, state))}"
                + (f"; {', '.join(foreign)}, which only running code could make" if foreign else "")
            )
        warn_of_left_out(path, left_out, parts)
        return path, {key: state[key] for key in state if parts is None or key in parts}
    listed = _series(path)
    if listed is None:
        path = path.parent if path.name == MANIFEST else path
        if os.path.exists(path) and not os.path.isdir(path):
            raise CheckpointError(f"cannot load {path}: it is neither a file nor a folder")
        return path, load_folder(path, parts=parts, lenient=lenient)
    return series.load_newest(listed, parts=parts, lenient=lenient)


def locate(path: str | os.PathLike[str]) -> Path:
    """The newest checkpoint of a run's folder, valid or not; any other path as it is.

    Args:
        path: as for `load`.

    Raises:
        CheckpointError: if nothing is there.

    Example:
        >>> locate("runs/mine").name
        'step-00000042'

    Source: as `load`.
    """
    path = Path(path)
    if path.name == MANIFEST:
        return path.parent
    listed = _series(path)
    if listed is not None:
        return series.checkpoints(listed)[-1]
    if not os.path.exists(present_path(path)):
        raise CheckpointError(f"{path} does not exist; give a checkpoint or the folder of a run")
    return present_path(path)


def _series(path: Path) -> Path | None:
    """The folder of `step-...` checkpoints that is meant, if it is one."""
    if os.path.exists(path / MANIFEST):
        return None
    for folder in (path / series.FOLDER, path):
        if series.checkpoints(folder):
            return folder
    return None
