"""The plain values in a state, tensors of one element among them."""

import math
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from descend.checkpoint.contents import Held
from descend.checkpoint.manifest import read_manifest
from descend.checkpoint.tensors_file import TensorsFile
from descend.errors import CheckpointError
from descend.format import counted
from descend.states import entries, mapped

Read = Callable[[Held], Any]
"""What reads a stored tensor of one element, and tells of others in words."""


def is_value(value: object) -> bool:
    """Whether an entry of a state is plain, or a tensor of one element."""
    if isinstance(value, torch.Tensor):
        return value.numel() == 1
    if isinstance(value, Held):
        return value.elements == 1
    return entries(value) is None and not isinstance(value, np.ndarray)


def plain_value(value: Any, read: Read) -> Any:
    """A plain value; a tensor of one element is read."""
    return mapped(value, lambda leaf: _plain_leaf(leaf, read))


def _plain_leaf(value: Any, read: Read) -> Any:  # noqa: PLR0911 - one for each kind of value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Held):
        return read(value)
    if isinstance(value, torch.Tensor):
        if value.numel() == 1 and value.layout is torch.strided:
            with suppress(NotImplementedError):  # pairs of 4-bit numbers
                return _plain_leaf(value.item(), read)
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    if isinstance(value, bytes | bytearray):
        return counted(len(value), "byte")
    if isinstance(value, np.generic):
        return _plain_leaf(value.item(), read)
    return str(value).removeprefix("torch.")


def reader(path: Path) -> Read:
    """What reads the stored tensors of one element of a checkpoint."""

    @cache
    def values() -> dict[str, Any]:
        found = {}
        # What is damaged is described all the same, and can be anything
        with suppress(Exception), TensorsFile(path, manifest := read_manifest(path)) as file:
            for name, kind in manifest["tensors"].items():
                if math.prod(kind["shape"]) == 1:
                    with suppress(CheckpointError):
                        found[name] = plain_value(file.tensor(name), read)
        return found

    def read(tensor: Held) -> Any:
        name = tensor.same or tensor.name
        if tensor.elements == 1 and name in values():
            return values()[name]
        return f"a {tensor.dtype} tensor of shape {tensor.shape}"

    return read
