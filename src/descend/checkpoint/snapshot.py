"""A state at one instant: what is written, while the training goes on changing the original."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from descend.checkpoint.storage_key import bytes_of, storage_key
from descend.checkpoint.tree import flatten
from descend.format import dtype_name

LINE = 64  # bytes of the processor's cache: at a multiple of it, a value of any dtype can begin


@dataclass(frozen=True)
class Snapshot:
    """A state taken apart.

    Args:
        text: the state as JSON, with names in place of tensors.
        values: the bytes of each tensor's values by its name.
        kinds: the dtype and the shape of each.
        same: the names of tensors that are the same memory as one in `values`, and its name.
    """

    text: str
    values: dict[str, npt.NDArray[np.uint8]]
    kinds: dict[str, tuple[str, tuple[int, ...]]]
    same: dict[str, str]


class Staging:
    """Memory for copies of tensors, kept from one save to the next.

    New memory has to be mapped page by page, which takes four times as long as the copying.
    """

    def __init__(self) -> None:
        self._room = torch.empty(0, dtype=torch.uint8)

    def copies(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, npt.NDArray[np.uint8]]:
        """The bytes of some tensors' values, copied."""
        self._make_room(tensors)
        copies, room, start = {}, bytes_of(self._room), 0
        for name, tensor in tensors.items():
            end = start + tensor.nbytes
            copies[name] = room[start:end]
            if tensor.device.type == "cpu" and tensor.is_contiguous():
                # On one thread: those of torch wait for each other, five times as long as this
                # takes where anything else, such as a loader's workers, uses the cores
                np.copyto(copies[name], bytes_of(tensor))
            elif end > start:
                self._room[start:end].view(tensor.dtype).view(tensor.shape).copy_(tensor)
            start = _next_line(end)
        return copies

    def reserve(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Get the memory for copies of tensors, page by page; their values are not read."""
        if self._make_room(tensors):
            self._room.zero_()

    def _make_room(self, tensors: Mapping[str, torch.Tensor]) -> bool:
        """Whether it took new memory; twice of what is needed is given back."""
        count = sum(_next_line(tensor.nbytes) for tensor in tensors.values())
        if count <= self._room.numel() <= 2 * count:
            return False
        self._room = torch.empty(0, dtype=torch.uint8)  # the old is gone before there is a new one
        self._room = torch.empty(count, dtype=torch.uint8)
        return True


def _next_line(count: int) -> int:
    return -(-count // LINE) * LINE


def snapshot_of(state: Mapping[str, Any], staging: Staging | None = None) -> Snapshot:
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
    kinds = {
        name: (dtype_name(tensor.dtype), tuple(tensor.shape)) for name, tensor in distinct.items()
    }
    if staging is None:
        values = {name: bytes_of(tensor) for name, tensor in distinct.items()}
    else:
        values = staging.copies(distinct)
    return Snapshot(text, values, kinds, same)


def distinct_tensors(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of a state, those that are the same memory once."""
    return _distinct(flatten(state)[1])[0]


def _distinct(found: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors, and the names of those that are the same memory as one of them."""
    distinct: dict[str, torch.Tensor] = {}
    same: dict[str, str] = {}
    first: dict[object, str] = {}
    for name, tensor in found.items():
        one = first.setdefault(tensor.data_ptr(), name)
        if one != name:  # they begin at one place, and may be read otherwise
            first.setdefault(storage_key(distinct[one]), one)
            one = first.setdefault(storage_key(tensor), name)
        if one == name:
            distinct[name] = tensor
        else:
            same[name] = one
    return distinct, same
