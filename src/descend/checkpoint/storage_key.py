"""Which memory a tensor reads, and how: what tells tied weights; its bytes."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.parameter import is_lazy


def storage_key(tensor: torch.Tensor) -> object:
    """Equal for two tensors that are always equal, because they are the same memory.

    One that reads none (empty, on the meta device, without values), or no plain memory (sparse,
    nested), is equal to no other.

    Example:
        >>> weight = torch.ones(2, 3)
        >>> key = storage_key(weight)
        >>> key == storage_key(weight[:]), key == storage_key(weight.T)
        (True, False)
    """
    if tensor.layout is not torch.strided or is_lazy(tensor) or tensor.is_meta:
        return object()
    if tensor.is_nested or not tensor.numel():
        return object()
    how = (tensor.dtype, tensor.shape, tensor.stride(), tensor.is_conj(), tensor.is_neg())
    return (tensor.device, tensor.data_ptr(), *how)


class _Memory:
    """The memory of a tensor on the CPU, for NumPy.

    `Tensor.numpy` does the same and marks the storage: it can then never be resized again, as
    FSDP resizes it.
    """

    __slots__ = ("_tensor",)

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor  # which outlives the array so

    @property
    def __array_interface__(self) -> dict[str, Any]:
        address, count = self._tensor.data_ptr(), self._tensor.nbytes
        return {"version": 3, "typestr": "|u1", "shape": (count,), "data": (address, False)}


def bytes_of(tensor: torch.Tensor) -> npt.NDArray[np.uint8]:
    """The bytes of a tensor's values in row-major order; of one that has them so, no copy.

    Example:
        >>> bytes_of(torch.tensor([1, 2], dtype=torch.int16)).tolist()
        [1, 0, 2, 0]
    """
    if not tensor.numel():
        return np.empty(0, np.uint8)
    if tensor.is_conj() or tensor.is_neg():
        tensor = tensor.resolve_conj().resolve_neg()
    if not (tensor.device.type == "cpu" and tensor.is_contiguous()):
        tensor = tensor.detach().cpu().contiguous()
    return np.asarray(_Memory(tensor))


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """The same as a tensor: uint8, of one dimension, on the CPU."""
    return torch.from_numpy(bytes_of(tensor))
