"""Which memory a tensor reads, and how: what tells tied weights."""

import torch
from torch.nn.parameter import is_lazy


def memory(tensor: torch.Tensor) -> object:
    """Equal for two tensors that are always equal, because they are the same memory.

    One that reads none (empty, on the meta device, without values), or no plain memory (sparse,
    nested), is equal to no other.

    Example:
        >>> weight = torch.ones(2, 3)
        >>> memory(weight) == memory(weight[:]), memory(weight) == memory(weight.T)
        (True, False)
    """
    if is_lazy(tensor) or tensor.is_meta or tensor.layout is not torch.strided:
        return object()
    if tensor.is_nested or not tensor.numel():
        return object()
    how = (tensor.dtype, tensor.shape, tensor.stride(), tensor.is_conj(), tensor.is_neg())
    return (tensor.device, tensor.data_ptr(), *how)
