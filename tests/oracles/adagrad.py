"""Adagrad.

- J. Duchi, E. Hazan, Y. Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic
  Optimization", JMLR 12, 2011: the diagonal version, x = x - eta g / sqrt(sum of g^2).

Torch's additions: the learning rate decays as lr / (1 + (t - 1) lr_decay), the sum may start above
zero, epsilon is added after the square root (the paper's delta), and weight decay is an L2 penalty.
"""

import numpy as np


def start(param, *, initial_accumulator_value=0.0, **_hyper):
    """The sum at its initial value."""
    return {"sum": np.full_like(param, initial_accumulator_value)}


def step(
    param,
    grad,
    state,
    t,
    *,
    lr=1e-2,
    lr_decay=0.0,
    weight_decay=0.0,
    initial_accumulator_value=0.0,
    eps=1e-10,
    maximize=False,
):
    """One step; `sum` is the paper's diag(G)."""
    if maximize:
        grad = -grad
    grad = grad + weight_decay * param
    total = state["sum"] + grad**2
    rate = lr / (1 + (t - 1) * lr_decay)
    return param - rate * grad / (np.sqrt(total) + eps), {"sum": total}
