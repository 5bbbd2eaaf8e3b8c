"""How tensors lie in memory: extent, layout, and whether the storage holds all of a tensor."""

from collections.abc import Iterable

import torch
from torch import Tensor

DENSE_TYPES = frozenset((Tensor, torch.nn.Parameter))
"""The types whose tensors are what their strides and addresses say; others may be anything."""

ON_ONE_THREAD = 32_768
"""Up to this many elements torch works on the calling thread (its grain size)."""

_SEVERAL_ELEMENTS_PER_PLACE = 1
"""Torch's answer for a tensor that holds one memory location several times (expanded)."""

_is_dense = torch.ops.aten.is_non_overlapping_and_dense.default


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is an ordinary strided one."""
    return type(tensor) in DENSE_TYPES and tensor.layout is torch.strided


def is_expanded(tensor: Tensor) -> bool:
    """Whether several elements of an ordinary tensor share one memory location."""
    return (
        type(tensor) in DENSE_TYPES
        and torch._debug_has_internal_overlap(tensor) == _SEVERAL_ELEMENTS_PER_PLACE
    )


def is_whole(tensor: Tensor) -> bool:
    """Whether all elements of a strided tensor lie within its storage."""
    held = tensor.untyped_storage().nbytes()
    if (held == tensor.nbytes and tensor.is_contiguous()) or not tensor.numel():
        return True
    # torch 2.14 types this as a SymBool too; of a tensor with memory it is a bool
    return bool(tensor.storage_offset() * tensor.element_size() + _span(tensor) <= held)


def _span(tensor: Tensor) -> int:
    """How many bytes lie between the first element of a strided tensor and the end of its last."""
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return (sum((size - 1) * stride for size, stride in steps) + 1) * tensor.element_size()


def lost_memory(tensor: Tensor) -> str | None:
    """The fate of an ordinary tensor's memory (`storage.resize_`); None where it is all there."""
    if not is_plain(tensor) or tensor.device.type not in ("cpu", "cuda") or is_whole(tensor):
        return None
    held = tensor.untyped_storage().nbytes()
    return "cut off by a smaller storage" if held else "released"


def extent(tensor: Tensor) -> tuple[int, int]:
    """The range of addresses that a tensor's elements lie in; (0, 0) where there is none."""
    if not is_plain(tensor):
        return (0, 0)
    start = tensor.data_ptr()
    return (start, start + _span(tensor)) if start and tensor.numel() else (0, 0)


def side_by_side(tensors: Iterable[Tensor], like: Tensor) -> bool:
    """Whether these are ordinary dense tensors with the layout of `like` in memory.

    Such tensors can be walked as flat ranges of memory side by side, whatever the order of their
    dimensions.
    """
    if not is_plain(like) or not (like.is_contiguous() or _is_dense(like)):
        return False
    return all(
        is_plain(tensor)
        and tensor.device == like.device
        and tensor.shape == like.shape
        and not tensor.is_neg()
        and tensor.is_floating_point()
        and _same_strides(tensor, like)
        for tensor in tensors
    )


def _same_strides(tensor: Tensor, like: Tensor) -> bool:
    """Whether strides are alike wherever an index can be other than 0."""
    return tensor.stride() == like.stride() or all(
        mine == theirs or size == 1 or not tensor.numel()
        for mine, theirs, size in zip(tensor.stride(), like.stride(), like.shape, strict=True)
    )


def filled_like(param: Tensor, start: float) -> Tensor:
    """A state tensor for a parameter: of its shape, dtype, device and layout, full of `start`.

    On the CPU a large one is filled in pieces: for all of it at once torch would wake its OpenMP
    threads, which a forked child has lost, and wait for them for ever.
    """
    if start == 0 and param.numel() <= ON_ONE_THREAD:
        return torch.zeros_like(param)
    tensor = torch.empty_like(param, memory_format=torch.preserve_format, requires_grad=False)
    value = complex(start, start) if param.is_complex() else start
    if type(param) not in DENSE_TYPES or param.device.type != "cpu":
        return tensor.fill_(value)
    for piece in _pieces(tensor):
        piece.fill_(value)
    return tensor


def copied_like(param: Tensor, recorded: bool = False) -> Tensor:
    """A state tensor for a parameter that holds its values.

    Args:
        param: the parameter.
        recorded: whether autograd sees that it is a copy.
    """
    if recorded:
        return param.clone()
    copy = torch.empty_like(param, memory_format=torch.preserve_format, requires_grad=False)
    flat = param.device.type == "cpu" and side_by_side((copy,), param) and not param.is_neg()
    if not flat:
        return copy.copy_(param.detach())
    for piece, values in zip(_pieces(copy), _pieces(param.detach()), strict=True):  # as above
        piece.copy_(values)
    return copy


def _pieces(tensor: Tensor) -> tuple[Tensor, ...]:
    """The memory of a dense tensor in pieces that torch fills, or copies, on the calling thread."""
    return torch.split(tensor.as_strided((tensor.numel(),), (1,)), ON_ONE_THREAD)


def laid_out(grad: Tensor, param: Tensor) -> Tensor:
    """A copy of a gradient in its parameter's layout, without a lazy negation."""
    copy = torch.empty_like(param, dtype=grad.dtype, memory_format=torch.preserve_format)
    with torch.no_grad():
        return copy.copy_(grad)
