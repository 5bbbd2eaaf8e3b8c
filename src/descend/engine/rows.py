"""Sparse gradients on the CPU: the dense step's kernel, on the rows that a gradient holds.

A kernel walks chunks of memory; here each is a run of adjacent rows. Parameter and state are
written where they are: nothing is gathered, and nothing scattered.
"""

from array import array
from operator import lt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from descend.engine import cpu, eager, gather
from descend.engine.members import DENSE_TYPES, Member, extent
from descend.engine.rule import Variant
from descend.errors import GradientError


def accepts(member: Member) -> bool:
    """Whether the kernel can walk the rows of this member's gradient.

    Raises:
        GradientError: the gradient holds a row that the parameter has not.
    """
    grad, rule = member.grad, member.rule
    assert grad is not None
    if grad.layout is not torch.sparse_coo or rule.sparse is None or not rule.sparse(member.flags):
        return False
    if not _inside(grad):
        raise GradientError(
            f"{member.place}: the gradient holds indices beyond its own shape "
            f"{tuple(grad.shape)}; make it with torch.sparse_coo_tensor(..., check_invariants=True)"
        )
    return _walkable(member, grad)


class Batch(eager.Batch):
    """Members with sparse gradients, of one dtype combination: one kernel call each.

    Args:
        variant: the kernel's constants; its dtypes are the members'.
        device: the CPU.
    """

    backend = cpu.name

    def __init__(self, variant: Variant, device: torch.device) -> None:
        super().__init__()
        self.variant = variant
        self._kernel = cpu.kernel(variant)
        self._addresses: dict[Member, list[int]] = {}

    def extend(self, members: list[Member]) -> None:
        """Take in more members."""
        super().extend(members)
        self._addresses.update((member, _addresses(member)) for member in members)

    def check(self, grads: list[Any]) -> bool:
        """Take note of the gradients; False where the kernel cannot take something any more."""
        if not super().check(grads):
            return False
        for member in self._active:
            assert member.grad is not None
            if (
                _addresses(member) != self._addresses[member]
                or tuple(tensor.dtype for tensor in member.operands()) != self.variant.dtypes
                or not _walkable(member, member.grad)
                or not _inside(member.grad)
            ):
                return False
        return True

    def launch(self) -> None:
        """Update rows, state and step counts."""
        for member, work in zip(self._active, self.work, strict=True):
            assert member.grad is not None
            factor, limit = work.prologue
            scalars = [*work.numbers.values()]
            if self.variant.scaled:
                scalars.append(factor)
            if self.variant.limited:
                scalars.append(limit)
            self._walk(member, member.grad.detach().coalesce(), scalars)
            member.grad = None
            member.fresh = False
            for name in member.rule.counts:
                count = member.state[name]
                count.fill_(work.counts[0] if name == "step" else work.numbers[name])
        self.work = []

    def _walk(self, member: Member, grad: Tensor, scalars: list[float]) -> None:
        values = grad.values().resolve_neg().contiguous()
        if not values.numel():
            return
        param, index = member.param, grad.indices().numpy()
        states = [member.state[name] for name in member.names]
        length = values[0].numel()
        if _is_written(values, (param, *states)):
            values = values.clone()
        places = np.array(param.stride()[: len(index)]) @ index
        # Where a run of adjacent rows begins, and the row after the last run.
        breaks = np.flatnonzero(places[1:] - places[:-1] != length) + 1
        ends = np.concatenate(([0], breaks, [len(places)]))
        firsts, many = ends[:-1], len(breaks) + 1
        pointers = np.empty((many, self.variant.columns), dtype=np.int64)
        counts = array("d", bytes(8 * len(member.rule.counts)))  # the kernel counts; once is enough
        for column, tensor in enumerate((param, values, *states)):
            rows = firsts * length if tensor is values else places[firsts]
            pointers[:, column] = tensor.data_ptr() + rows * tensor.element_size()
        for column in range(len(counts)):
            pointers[:, 2 + len(states) + column] = gather.address(counts) + 8 * column
        chunks = np.zeros((many, cpu.CHUNK_WORDS), dtype=np.int64)
        chunks[:, 0] = np.arange(many)
        chunks[:, 2] = (ends[1:] - firsts) * length
        zeros, numbers = np.zeros(many, dtype=np.int64), array("d", scalars)
        words = array("q", [0, many, *(a.ctypes.data for a in (chunks, pointers, zeros))])
        words.append(gather.address(numbers))
        cpu.run(self._kernel, gather.address(words), values.numel(), many)
        # Torch did not see the writing; autograd must, to refuse a backward() through old values.
        torch._C._increment_version([param])


def _is_written(values: Tensor, written: tuple[Tensor, ...]) -> bool:
    """Whether the kernel writes where these are read."""
    start, end = extent(values)
    return any(low < end and high > start for low, high in map(extent, written))


def _walkable(member: Member, grad: Tensor) -> bool:
    """Whether all rows are runs of memory on the CPU."""
    tensors = member.param, *(member.state[name] for name in member.names)
    return (
        bool(grad.sparse_dim())
        and grad.device.type == "cpu"
        and all(
            type(tensor) in DENSE_TYPES
            and tensor.layout is torch.strided
            and tensor.device.type == "cpu"
            and tensor.is_contiguous()
            and not tensor.is_neg()
            for tensor in tensors
        )
    )


def _inside(grad: Tensor) -> bool:
    """Whether all indices are within the gradient's shape, which torch checks only if asked to."""
    index = grad._indices()
    if not index.numel():
        return True
    low, high = torch.aminmax(index, dim=1)
    return min(low.tolist()) >= 0 and all(map(lt, high.tolist(), grad.shape))


def _addresses(member: Member) -> list[int]:
    tensors = member.param, *(member.state[name] for name in member.names)
    return [tensor.data_ptr() for tensor in tensors]
