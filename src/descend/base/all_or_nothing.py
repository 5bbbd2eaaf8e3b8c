"""Changes to an optimizer that are taken back if something fails on the way."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def all_or_nothing(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Put options, tensors among them, and the state back if the block raises.

    The block may change the groups' dicts, fill tensors in them, and replace the state; what the
    state holds it must leave alone.

    Args:
        optimizer: whose.
    """
    groups, state = optimizer.param_groups, optimizer.state
    options = [dict(group) for group in groups]
    numbers = [
        (tensor, tensor.detach().clone())
        for group in groups
        for name, value in group.items()
        if name != "params"
        for tensor in tensors_of(value)
    ]
    try:
        yield
    except BaseException:
        for group, old in zip(groups, options, strict=True):
            group.clear()
            group.update(old)
        with torch.no_grad():
            for tensor, number in numbers:
                tensor.copy_(number)
        optimizer.param_groups, optimizer.state = groups, state
        raise


def filled(old: Any, new: Any) -> Any:
    """The new value of an option; where it was a tensor, that tensor, filled with the value.

    Whoever holds that tensor (a schedule, a captured graph) sees the new number.
    """
    if isinstance(old, Tensor) and new is not None:
        with torch.no_grad():
            if old.numel() == 1:
                return old.fill_(float(new))
            for place, number in zip(old.unbind(), new, strict=True):
                place.fill_(float(number))
            return old
    if isinstance(old, tuple) and tensors_of(old):
        return tuple(filled(one, other) for one, other in zip(old, new, strict=True))
    return new


def tensors_of(option: Any) -> list[Tensor]:
    """The tensors of an option: of a number, or of a pair of numbers."""
    values = option if isinstance(option, tuple) else [option]
    return [value for value in values if isinstance(value, Tensor)]
