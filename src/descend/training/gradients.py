"""The gradients that wait for a step when a training is saved.

Those that are left over from a step need not be written: whoever sets them to zero, as every loop
does before the next backward pass, finds zeros. They are told from those of a backward pass after
the step (an accumulation, a penalty) by being the same tensors, unchanged.
"""

from collections.abc import Callable, Mapping
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch.optim import Optimizer

Seen = tuple[ReferenceType[torch.Tensor], int]  # a gradient, and how often it had been changed


class Gradients:
    """Those of some optimizers.

    To look at each gradient after a step takes 0.2 us, so that it is done where a save is to come;
    after a step where it was not done, all gradients count as waiting.

    Args:
        objects: what a training is of; the optimizers among it count.
    """

    def __init__(self, objects: Mapping[str, Any]) -> None:
        self.watching = True
        self._optimizers = {n: one for n, one in objects.items() if isinstance(one, Optimizer)}
        self._after_step: dict[str, list[Seen | None]] = {}
        for name, optimizer in self._optimizers.items():
            _register(optimizer, self._noting(name, optimizer))

    def state(self) -> dict[str, list[dict[str, Any] | None]]:
        """Plain data for a checkpoint, in the order of each optimizer's parameters."""
        found = {}
        for name, optimizer in self._optimizers.items():
            seen = dict(enumerate(self._after_step.get(name, ())))
            grads = [parameter.grad for parameter in _parameters(optimizer)]
            found[name] = [_taken(grad, seen.get(number)) for number, grad in enumerate(grads)]
        return found

    def put(self, saved: Mapping[str, Any]) -> None:
        """Put back what `state` gave in another process."""
        for name, grads in saved.items():
            parameters = _parameters(self._optimizers[name])
            for parameter, grad in zip(parameters, grads, strict=True):
                parameter.grad = None
                if grad is not None:
                    parameter.grad = _restored(grad, parameter)

    def _noting(self, name: str, optimizer: Optimizer) -> Callable[..., None]:
        def note(*args: Any) -> None:
            if not self.watching:
                return
            self._after_step[name] = [
                None if (grad := parameter.grad) is None else (ref(grad), grad._version)
                for group in optimizer.param_groups
                for parameter in group["params"]
            ]

        return note


def _register(optimizer: Any, hook: Callable[..., None]) -> None:
    """Call a hook after each step; without a place for it, all gradients count as waiting."""
    while not hasattr(optimizer, "_optimizer_step_post_hooks"):
        optimizer = getattr(optimizer, "optimizer", None)  # as Accelerate wraps them
        if optimizer is None:
            return
    optimizer.register_step_post_hook(hook)


def _taken(grad: torch.Tensor | None, seen: Seen | None) -> dict[str, Any] | None:
    if grad is None:
        return None
    left_over = seen is not None and seen[0]() is grad and seen[1] == grad._version
    if not grad.is_sparse:
        # The layout too: another one takes another kernel
        return {"stride": grad.stride(), "values": None if left_over or _is_zero(grad) else grad}
    if left_over:
        return None
    return {
        "values": grad._values(),
        "indices": grad._indices(),
        "shape": tuple(grad.shape),
        "coalesced": grad.is_coalesced(),
    }


def _is_zero(grad: torch.Tensor) -> bool:
    """Whether every bit is, so that there is nothing to write."""
    plain = type(grad) is torch.Tensor and not grad.is_complex()
    return plain and not grad.any() and not grad.signbit().any()


def _restored(grad: Mapping[str, Any], parameter: torch.Tensor) -> torch.Tensor:
    values = grad["values"]
    if "indices" in grad:
        sparse = torch.sparse_coo_tensor(
            grad["indices"], values, grad["shape"], is_coalesced=grad["coalesced"]
        )
        return sparse.to(parameter.device)
    dtype = parameter.dtype if values is None else values.dtype
    dense = torch.empty_strided(
        parameter.shape, grad["stride"], dtype=dtype, device=parameter.device
    )
    return dense.zero_() if values is None else dense.copy_(values)


def _parameters(optimizer: Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
