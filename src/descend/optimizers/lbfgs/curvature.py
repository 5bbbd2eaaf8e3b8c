"""The memory that L-BFGS has of its last steps, and the direction that follows from it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from descend.engine.rule import State
from descend.optimizers.lbfgs.flat import Shares

HISTORY = ("old_dirs", "old_stps", "ro")
"""For each remembered step: how the gradient changed, the step, and 1 over their product."""

CURVED = 1e-10
"""A step is remembered if the product of it and of the gradient's change exceeds this."""


def learned(state: State, grad: Tensor, shares: Shares, size: int) -> dict[str, Any]:
    """The memory after a gradient at the end of the last step: new lists, the state stays as it is.

    Args:
        state: with the last step's "d", "t" and "prev_flat_grad", and the memory so far; or without
            any of them.
        grad: the gradient.
        shares: the groups.
        size: how many steps to remember.

    Returns:
        "old_dirs", "old_stps", "ro", and "H_diag", which scales the direction.

    Source: Nocedal and Wright, equations 7.20 (the scale) and 7.17 to 7.19.
    """
    if "d" not in state:
        return {**{name: [] for name in HISTORY}, "H_diag": 1}
    memory = {name: list(state[name]) for name in HISTORY}
    scale = state["H_diag"]
    change = grad - state["prev_flat_grad"]
    step = state["d"] * state["t"]
    product = change.dot(step)
    if float(product) > CURVED:
        for name, new in zip(HISTORY, (change, step, 1 / product), strict=True):
            memory[name].append(new)
        scale = product / sum(share * change[span].dot(change[span]) for span, share in shares)
    return {**{name: values[-size:] for name, values in memory.items()}, "H_diag": scale}


def direction(grad: Tensor, memory: Mapping[str, Any], shares: Shares) -> Tensor:
    """The direction of the next step: minus the gradient, times the inverse Hessian as remembered.

    Args:
        grad: the gradient.
        memory: what `learned` returned.
        shares: the groups.

    Source: Nocedal and Wright, algorithm 7.4; the initial matrix is "H_diag" times the shares.
    """
    changes, steps, ro = (memory[name] for name in HISTORY)
    vector = grad.neg()
    _hold(vector, shares)
    # Numbers stay on the vector's device: reading one would wait for a GPU at every product.
    weights: list[Tensor] = []
    for change, step, inverse in zip(changes[::-1], steps[::-1], ro[::-1], strict=True):
        weight = step.dot(vector) * inverse
        weights.append(weight)
        vector.addcmul_(change, weight, value=-1)
    vector.mul_(memory["H_diag"])
    for span, share in shares:
        if share != 1:
            vector[span].mul_(share)
    for change, step, inverse in zip(changes, steps, ro, strict=True):
        vector.addcmul_(step, weights.pop() - change.dot(vector) * inverse)
    _hold(vector, shares)
    return vector


def largest(vector: Tensor) -> float:
    """The largest magnitude of an element; NaN if there is one."""
    low, high = torch.aminmax(vector)
    return float(torch.maximum(-low, high))


def largest_moving(vector: Tensor, shares: Shares) -> float:
    """The same among the elements that can move."""
    return max((largest(vector[span]) for span, share in shares if share > 0), default=0.0)


def _hold(vector: Tensor, shares: Shares) -> None:
    """Keep the groups where they are whose lr is 0."""
    for span, share in shares:
        if share == 0:
            vector[span].zero_()
