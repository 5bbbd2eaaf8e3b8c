"""Who takes part: the ways to save a state until it is on the disk, and to load it."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch

from checkpoint_state import State, named_tensors
from descend import checkpoint
from descend.errors import DescendError
from descend.files import flush

OURS, TORCH = "descend", "torch"


@dataclass(frozen=True)
class Way:
    """A way of saving and loading a state.

    Args:
        name: what the tables call it.
        save: writes a state to a path, so that it is on the disk; None for what loads the files of
            another.
        load: reads it back from the path, or into the tensors of a state that is given.
        file: the name of its file or folder.
        fills: whether the load needs tensors to fill.
    """

    name: str
    save: Callable[[State, Path], object] | None
    load: Callable[[Path, State | None], object]
    file: str
    fills: bool = False


def ways() -> list[Way]:
    """Every way of saving and loading that is there."""
    found = [
        Way(OURS, _save_ours, lambda path, into: checkpoint.load(path), "descend"),
        Way(TORCH, _save_torch, _load_torch, "torch.pt"),
        Way("torch, mmap", None, _map_torch, "torch.pt"),
        Way("safetensors", _save_safetensors, _load_safetensors, "model.safetensors"),
    ]
    if torch.distributed.is_available():
        found.append(
            Way("torch distributed", _save_distributed, _load_distributed, "distributed", True)
        )
    return found


def interrupted(error: BaseException | None) -> bool:
    """Whether a Ctrl-C is behind an exception: torch's writer ends with one of its own after it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _save_ours(state: State, path: Path) -> None:
    checkpoint.save(path, state)


def _save_torch(state: State, path: Path) -> None:
    torch.save(state, path)
    flush(path)
    flush(path.parent)


def _load_torch(path: Path, into: State | None) -> object:
    return torch.load(path, weights_only=True)


def _map_torch(path: Path, into: State | None) -> object:
    return torch.load(path, weights_only=True, mmap=True)


def _save_safetensors(state: State, path: Path) -> None:
    safetensors.torch.save_file(dict(named_tensors(state)), path)
    flush(path)
    flush(path.parent)


def _load_safetensors(path: Path, into: State | None) -> object:
    return safetensors.torch.load_file(path)


def _save_distributed(state: State, path: Path) -> None:
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    with _alone():
        save(dict(state), storage_writer=FileSystemWriter(path))


def _load_distributed(path: Path, into: State | None) -> object:
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    state = dict(into or {})
    with _alone():
        load(state, storage_reader=FileSystemReader(path))
    return state


@contextmanager
def _alone() -> Iterator[None]:
    """Let torch's distributed checkpoints work in one process without a word about that.

    They wrap whatever happens, a Ctrl-C too, in an exception of their own.
    """
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except CheckpointException as wrapped:
        failures = [failure for failure, _ in wrapped.failures.values()]
        if any(map(interrupted, failures)):
            raise KeyboardInterrupt from None
        raise failures[0] if failures else DescendError(str(wrapped)) from None
