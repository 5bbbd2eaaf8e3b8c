"""The plain values in a state, tensors of one element among them."""

from contextlib import suppress
from typing import Any

import numpy as np
import torch

from descend.checkpoint.contents import Held
from descend.format import counted, dtype_name
from descend.states import entries, mapped


def is_value(value: object) -> bool:
    """Tell whether an entry of a state is plain, or a tensor of one element."""
    if isinstance(value, torch.Tensor):
        return value.numel() == 1
    if isinstance(value, Held):
        return value.elements == 1
    return entries(value) is None and not isinstance(value, np.ndarray)


def plain_value(value: Any) -> Any:
    """Turn a value into what JSON can hold; a tensor of one element is read."""
    return mapped(value, _plain_leaf)


def _plain_leaf(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Held) and value.scalar is not None:
        value = value.scalar
    if isinstance(value, torch.Tensor) and value.numel() == 1 and value.layout is torch.strided:
        with suppress(NotImplementedError):  # pairs of 4-bit numbers
            return _plain_leaf(value.item())
    if isinstance(value, torch.Tensor | Held):
        shape = None if value.shape is None else tuple(value.shape)
        return f"a {dtype_name(value.dtype)} tensor of shape {shape}"
    if isinstance(value, bytes | bytearray):
        return counted(len(value), "byte")
    if isinstance(value, np.generic):
        return _plain_leaf(value.item())
    return dtype_name(value)
