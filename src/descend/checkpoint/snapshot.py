"""A state at one instant: what is written, while the training goes on changing the original."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from descend.checkpoint.hashing import as_bytes
from descend.checkpoint.memory import memory
from descend.checkpoint.tree import flatten

STORABLE = {  # what safetensors has a word for; any other dtype is stored as its bytes
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
}


@dataclass(frozen=True)
class Snapshot:
    """A state taken apart.

    Args:
        text: the state as JSON, with names in place of tensors.
        tensors: the tensors by name: dense, on the CPU, row-major, each in a storage of its own.
        kinds: the dtype and the shape of each, which are others where it is stored as bytes.
        same: the names of tensors that are the same memory as one in `tensors`, and its name.
    """

    text: str
    tensors: dict[str, torch.Tensor]
    kinds: dict[str, tuple[str, list[int]]]
    same: dict[str, str]


class Staging:
    """Memory for copies of tensors, kept from one save to the next.

    New memory has to be mapped page by page, which takes four times as long as the copying.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, torch.Tensor] = {}

    def copy(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """A copy of a tensor on the CPU, in the buffer of that name."""
        buffer = self._buffer(name, tensor)
        if tensor.device.type != "cpu" or not tensor.is_contiguous():
            return buffer.copy_(tensor)
        # On one thread: those of torch wait for each other, five times as long as this takes where
        # anything else, such as a loader's workers, uses the cores
        np.copyto(as_bytes(buffer).numpy(), as_bytes(tensor).numpy())
        return buffer

    def reserve(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Get the memory for copies of tensors, page by page; their values are not read."""
        for name, tensor in tensors.items():
            self._buffer(name, tensor).zero_()

    def _buffer(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        buffer = self._buffers.get(name)
        if buffer is None or buffer.dtype != tensor.dtype or buffer.shape != tensor.shape:
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype)
            self._buffers[name] = buffer
        return buffer

    def keep(self, names: Mapping[str, torch.Tensor]) -> None:
        """Give the memory of all others back."""
        self._buffers = {n: buffer for n, buffer in self._buffers.items() if n in names}


def take(state: Mapping[str, Any], staging: Staging | None = None) -> Snapshot:
    """Take a state apart; tensors that are the same memory (tied weights) are taken once.

    Args:
        state: what `flatten` takes.
        staging: where tensors are copied to. Without it, those on the CPU are not copied: they
            must not change until they are written.

    Raises:
        CheckpointError: for a value that a checkpoint cannot hold, naming its path.
    """
    text, found = flatten(state)
    distinct, same = _distinct(found)
    tensors: dict[str, torch.Tensor] = {}
    kinds: dict[str, tuple[str, list[int]]] = {}
    storages: set[int] = set()
    for name, tensor in distinct.items():
        kinds[name] = (str(tensor.dtype).removeprefix("torch."), list(tensor.shape))
        if staging is not None:
            tensors[name] = _storable(staging.copy(name, tensor))
            continue
        values = _storable(tensor.cpu().contiguous())
        # safetensors refuses two tensors in one storage, such as two slices of a buffer
        storage = values.untyped_storage()
        alone = storage.nbytes() == values.nbytes and storage.data_ptr() not in storages
        tensors[name] = values if alone else values.clone()
        storages.add(storage.data_ptr())
    if staging is not None:
        staging.keep(tensors)
    return Snapshot(text, tensors, kinds, same)


def distinct_tensors(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of a state, those that are the same memory once."""
    return _distinct(flatten(state)[1])[0]


def _distinct(found: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors, and the names of those that are the same memory as one of them."""
    distinct: dict[str, torch.Tensor] = {}
    same: dict[str, str] = {}
    first: dict[object, str] = {}
    for name, tensor in found.items():
        one = first.setdefault(memory(tensor), name)
        if one == name:
            distinct[name] = tensor
        else:
            same[name] = one
    return distinct, same


def _storable(values: torch.Tensor) -> torch.Tensor:
    return values if values.dtype in STORABLE else as_bytes(values)
