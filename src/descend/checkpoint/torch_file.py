"""Files of torch.save: read without running code, and written for those without descend."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from descend.checkpoint.folder import flush
from descend.errors import CheckpointError

# The names that people give the parts -> ours. The first that is there counts.
MODEL = ("model", "model_state_dict", "state_dict", "model_state", "net", "network", "weights")
OPTIMIZER = ("optimizer", "optimizer_state_dict", "optim", "optimizer_state", "optim_state_dict")
SCHEDULER = ("scheduler", "scheduler_state_dict", "lr_scheduler", "lr_scheduler_state_dict",
             "schedule")  # fmt: skip
LIGHTNING = {"optimizer_states": "optimizer", "lr_schedulers": "scheduler"}


def load_torch(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file that `torch.save` wrote, a checkpoint of Lightning among them; no code is run.

    The parts get the names that descend uses: "model" (also `model_state_dict`, `state_dict`,
    `net`, ...), "optimizer", "scheduler"; of Lightning's lists of optimizers and schedulers,
    "optimizer" and "scheduler", or "optimizer_0", "optimizer_1", ... where there are several.
    Everything else keeps its name. A file that holds nothing but tensors is a model.

    Args:
        path: the file: `.pth`, `.pt` or `.ckpt`.

    Returns:
        The state, on the CPU.

    Raises:
        CheckpointError: if it cannot be read, or holds objects that only running code could make.

    Example:
        >>> sorted(load_torch("old.pth")["model"])
        ['bias', 'weight']

    Source: torch.load with weights_only=True, https://pytorch.org/docs/stable/generated/torch.load.
    """
    path = Path(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"cannot load {path}: there is no such file") from error
    except Exception as error:  # a damaged file makes torch raise almost anything
        text = " ".join(str(error).split())
        code = "Unsupported global" in text or "WeightsUnpickler" in text
        why = (
            "it holds objects that only running code from the file could make, or it is damaged; "
            "save plain state_dicts with torch.save"
            if code
            else "it is damaged, or no file of torch.save"
        )
        raise CheckpointError(f"cannot load {path}: {why} ({text[:300]})") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"cannot load {path}: it holds a {type(content).__name__}; a dict of state_dicts is "
            f"needed, such as {{'model': model.state_dict(), 'epoch': 3}}"
        )
    return _named(content)


def save_torch(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write a state to a file that `torch.load(path, weights_only=True)` reads without descend.

    The file is written under another name, flushed and renamed. It is torch's format, a pickle:
    whoever loads it without `weights_only=True` trusts its writer. Nothing in it is hashed.

    Args:
        path: the file; an existing one is replaced.
        state: such as `{"model": model.state_dict(), "epoch": 3}`.

    Raises:
        CheckpointError: if it cannot be written, or torch could not read it back safely.

    Example:
        >>> save_torch("for_a_friend.pth", load("runs/mine"))

    Source: torch.save, https://pytorch.org/docs/stable/generated/torch.save.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            torch.save(dict(state), temporary)
            torch.load(temporary, map_location="meta", weights_only=True)
            flush(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        flush(path.parent)
    except Exception as error:
        text = " ".join(str(error).split())
        raise CheckpointError(
            f"cannot write {path}: {text[:300]}; it needs an existing folder, the right to write "
            f"there, room on the disk, and a state of tensors and plain values"
        ) from error


def _named(content: Mapping[str, Any]) -> dict[str, Any]:
    """The parts under the names that descend uses."""
    if content and all(isinstance(value, torch.Tensor) for value in content.values()):
        return {"model": dict(content)}
    state = dict(content)
    for ours, theirs in (("model", MODEL), ("optimizer", OPTIMIZER), ("scheduler", SCHEDULER)):
        found = next((name for name in theirs if isinstance(state.get(name), Mapping)), None)
        if found is not None and ours not in state:
            state[ours] = state.pop(found)
    for listed, our in LIGHTNING.items():
        if isinstance(state.get(listed), list):
            parts = state.pop(listed)
            names = [our] if len(parts) == 1 else [f"{our}_{i}" for i in range(len(parts))]
            state |= dict(zip(names, parts, strict=True))
    return state
