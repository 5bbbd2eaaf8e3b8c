"""Adadelta.

- M. D. Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012, algorithm 1.

Where torch differs from the paper:

- a learning rate multiplies the update as it is applied; the accumulated updates do not see it
  (the paper has none: lr = 1);
- weight decay, absent from the paper, is added to the gradient (an L2 penalty).
"""

import numpy as np


def start(param, **_hyper):
    """Both accumulators zero."""
    return {"square_avg": np.zeros_like(param), "acc_delta": np.zeros_like(param)}


def step(
    param,
    grad,
    state,
    t,
    *,
    lr=1.0,
    rho=0.9,
    eps=1e-6,
    weight_decay=0.0,
    maximize=False,
):
    """One step; `square_avg` is the paper's E[g^2], `acc_delta` its E[dx^2]."""
    if maximize:
        grad = -grad
    grad = grad + weight_decay * param

    def rms(mean_square):
        return np.sqrt(mean_square + eps)

    square = rho * state["square_avg"] + (1 - rho) * grad**2
    delta = -rms(state["acc_delta"]) / rms(square) * grad
    accumulated = rho * state["acc_delta"] + (1 - rho) * delta**2
    return param + lr * delta, {"square_avg": square, "acc_delta": accumulated}
