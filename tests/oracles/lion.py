"""Lion.

- X. Chen et al., "Symbolic Discovery of Optimization Algorithms", NeurIPS 2023, algorithm 2.

torch has no such optimizer.
"""

import numpy as np


def start(param, **_hyper):
    """No momentum."""
    return {"exp_avg": np.zeros_like(param)}


def step(
    param,
    grad,
    state,
    t,
    *,
    lr=1e-4,
    betas=(0.9, 0.99),
    weight_decay=0.0,
    maximize=False,
):
    """One step; `exp_avg` is the paper's m."""
    beta1, beta2 = betas
    if maximize:
        grad = -grad
    direction = np.sign(beta1 * state["exp_avg"] + (1 - beta1) * grad)
    momentum = beta2 * state["exp_avg"] + (1 - beta2) * grad
    return param - lr * (direction + weight_decay * param), {"exp_avg": momentum}
