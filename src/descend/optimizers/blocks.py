"""Large tensors taken block by block, so that what is computed of them needs no room of their size.

For rules that are not elementwise: their torch operations each make a pass over memory, and blocks
stay in the CPU's caches between one operation and the next.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from descend.engine.hyperparameters import Options
from descend.engine.tensor_layout import DENSE_TYPES

BLOCK = {"cpu": 2**20}
"""How many elements are worked on at once: on the CPU what its caches hold."""

LARGE_BLOCK = 2**24
"""The same on a device where starting an operation costs more than what it reads."""


class Blocks:
    """How a parameter, and what has as many dimensions, is cut into blocks of about equal size.

    Args:
        param: the parameter.
        whole: never cut it.

    Attributes:
        dim: the dimension that is cut; never the last, so that a row stays whole.
        length: the length of a block in it; 0 if nothing is cut.
    """

    def __init__(self, param: Tensor, whole: bool = False) -> None:
        self.dim = self.length = 0
        count = param.numel()
        # Blocks of a tensor on several devices (DTensor) may be copies: writing to them is lost.
        if whole or type(param) not in DENSE_TYPES or count <= BLOCK["cpu"]:
            return  # no device cuts smaller ones
        limit = BLOCK.get(param.device.type, LARGE_BLOCK)
        if count > limit:
            self.dim = max(range(max(1, param.ndim - 1)), key=param.shape.__getitem__)
            self.length = max(1, limit * param.shape[self.dim] // count)

    def of(self, tensor: Tensor) -> Sequence[Tensor]:
        """The blocks of a tensor; it is its own block if nothing is cut."""
        return torch.split(tensor, self.length, self.dim) if self.length else (tensor,)


def fitting(room: Tensor | None, block: Tensor) -> Any:
    """The part of a room that a block takes: all of it, unless the block is the last and smaller.

    Args:
        room: memory for the intermediate results of one block; None where each gets its own.
        block: of the same dimensions.
    """
    if room is None or room.shape == block.shape:
        return room
    return room[tuple(map(slice, block.shape))]


def widened(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the arithmetic: float32 for 16-bit tensors, for others their own."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def wide(tensor: Tensor) -> Tensor:
    """A tensor in the dtype of the arithmetic: itself, unless it is of 16 bits."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def in_blocks(
    change: Callable[..., None],
    dtype: torch.dtype,
    target: Tensor,
    *others: Tensor,
    whole: bool = False,
) -> None:
    """Change a tensor block by block; 16-bit ones are computed in float32 and rounded once.

    Args:
        change: changes a block of the target in place; it gets the same block of each other tensor.
        dtype: of the parameter.
        target: what is changed, of any dtype; `change` sees it in that of the arithmetic.
        others: of the same shape.
        whole: cut nothing.
    """
    blocks = Blocks(target, whole)
    for block, *same in zip(*map(blocks.of, (target, *others)), strict=True):
        new = block.to(widened(dtype))
        change(new, *same)
        if new is not block:
            block.copy_(new)


def move(param: Tensor, direction: Tensor, size: Any, options: Options) -> None:
    """Let a parameter decay, then go along a direction; in place.

    Args:
        param: the parameter, in the dtype of the arithmetic.
        direction: where to; of any dtype.
        size: what it is multiplied by: a number, or a tensor of one.
        options: `lr` and `weight_decay`.
    """
    if options["weight_decay"] != 0:
        param.mul_(1 - options["lr"] * options["weight_decay"])
    if isinstance(size, Tensor):
        param.sub_(direction.to(param.dtype) * size)  # a tensor of no dimensions widens nothing
    else:
        param.add_(direction, alpha=-size)
