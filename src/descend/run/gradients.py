"""The gradients that wait for a step when a training is saved.

Those that are left over from a step need not be written: whoever sets them to zero, as every loop
does before the next backward pass, finds zeros. They are told from those of a backward pass after
the step (an accumulation, a penalty) by being the same tensors, unchanged.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from weakref import ReferenceType, finalize, ref

import torch
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

UsedGradient = tuple[
    ReferenceType[torch.Tensor], int
]  # a gradient, and how often it had been changed


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
        self._after_step: dict[str, list[UsedGradient | None]] = {}
        self._before_step: dict[str, list[int]] = {}  # how often each parameter had been changed
        for name, optimizer in self._optimizers.items():
            # Called through a weak reference, and taken off at the end: the optimizer holds its
            # hooks, and whoever deletes run and optimizer frees both at once.
            for handle in _register(optimizer, _of(self, "_look", name), _of(self, "_note", name)):
                finalize(self, handle.remove)

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
        pairs = [
            pair
            for name, grads in saved.items()
            if name in self._optimizers
            for pair in zip(_parameters(self._optimizers[name]), grads, strict=True)
        ]
        # Last those that wait: of a parameter of two optimizers, one may have used its gradient
        for parameter, grad in sorted(pairs, key=lambda pair: _waits(pair[1])):
            _put(parameter, grad)

    def _look(self, name: str) -> None:
        """Before a step."""
        if self.watching:
            parameters = _parameters(self._optimizers[name])
            self._before_step[name] = [parameter._version for parameter in parameters]

    def _note(self, name: str) -> None:
        """After a step."""
        if self.watching:
            parameters = _parameters(self._optimizers[name])
            pairs = zip(parameters, self._before_step.get(name, ()), strict=False)
            self._after_step[name] = [_seen(parameter, before) for parameter, before in pairs]


def _of(gradients: Gradients, method: str, name: str) -> Callable[..., None]:
    """A hook that calls a method with an optimizer's name, for as long as there is its object."""
    reference = ref(gradients)

    def hook(*_: Any) -> None:
        there = reference()
        if there is not None:
            getattr(there, method)(name)

    return hook


def _seen(parameter: torch.Tensor, before: int) -> UsedGradient | None:
    """A gradient that a step has used: some steps only count, or leave some parameters out."""
    grad = parameter.grad
    if grad is None or grad.is_inference() or parameter._version == before:
        return None
    return ref(grad), grad._version


def _register(
    optimizer: Any, before: Callable[..., None], after: Callable[..., None]
) -> Iterator[RemovableHandle]:
    """Call two hooks at each step; without a place for them, all gradients count as waiting."""
    while not hasattr(optimizer, "_optimizer_step_post_hooks"):
        optimizer = getattr(optimizer, "optimizer", None)  # as Accelerate wraps them
        if optimizer is None:
            return
    yield optimizer.register_step_pre_hook(before)
    yield optimizer.register_step_post_hook(after)


def _taken(grad: torch.Tensor | None, seen: UsedGradient | None) -> dict[str, Any] | None:
    if grad is None:
        return None
    left_over = seen is not None and seen[0]() is grad and seen[1] == grad._version
    if not grad.is_sparse:
        # The layout too: another one takes another kernel
        values = None if left_over or _is_zero(grad) else grad
        return {"stride": grad.stride(), "dtype": grad.dtype, "values": values}
    count = 0 if left_over else grad._nnz()
    return {
        "values": grad._values()[:count],
        "indices": grad._indices()[:, :count],
        "shape": tuple(grad.shape),
        "coalesced": left_over or grad.is_coalesced(),
    }


def _is_zero(grad: torch.Tensor) -> bool:
    """Whether every bit is, so that there is nothing to write."""
    plain = type(grad) is torch.Tensor and not grad.is_complex()
    return plain and not grad.any() and not grad.signbit().any()


def _waits(grad: Mapping[str, Any] | None) -> bool:
    return grad is not None and grad["values"] is not None


def _put(parameter: torch.Tensor, grad: Mapping[str, Any] | None) -> None:
    if grad is None:
        parameter.grad = None
        return
    there, dtype = parameter.grad, grad.get("dtype", parameter.dtype)
    if "indices" in grad:
        sparse = torch.sparse_coo_tensor(
            grad["indices"],
            grad["values"],
            grad["shape"],
            is_coalesced=grad["coalesced"],
            check_invariants=False,
        )
        parameter.grad = sparse.to(parameter.device, copy=True)
    elif there is not None and _layout(there) == (grad["stride"], dtype):
        _fill(there, grad)  # which may be a view of a buffer of the script's
    else:
        parameter.grad = None
        dense = torch.empty_strided(
            parameter.shape, grad["stride"], dtype=dtype, device=parameter.device
        )
        _fill(dense, grad)
        parameter.grad = dense


def _layout(grad: torch.Tensor) -> tuple[Any, ...] | None:
    return None if grad.is_sparse or grad.is_inference() else (grad.stride(), grad.dtype)


@torch.no_grad()
def _fill(dense: torch.Tensor, grad: Mapping[str, Any]) -> None:
    # Of an expanded gradient, all places along a stride of 0 are one
    once = tuple(slice(0, 1) if step == 0 else slice(None) for step in grad["stride"])
    if grad["values"] is None:
        dense[once].zero_()
    else:
        dense[once].copy_(grad["values"][once])


def _parameters(optimizer: Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
