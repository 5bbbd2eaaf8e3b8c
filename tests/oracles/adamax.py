"""Adamax.

- D. P. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 2.

Where torch differs from the paper:

- epsilon is added to the gradient's magnitude before the maximum is taken (the paper has none);
- weight decay, absent from the paper, is added to the gradient (an L2 penalty).
"""

import numpy as np


def start(param, **_hyper):
    """Mean and norm zero."""
    return {"exp_avg": np.zeros_like(param), "exp_inf": np.zeros_like(param)}


def step(
    param,
    grad,
    state,
    t,
    *,
    lr=2e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    maximize=False,
):
    """One step; `exp_avg` is the paper's m, `exp_inf` its u."""
    beta1, beta2 = betas
    if maximize:
        grad = -grad
    grad = grad + weight_decay * param

    first = beta1 * state["exp_avg"] + (1 - beta1) * grad
    norm = np.maximum(beta2 * state["exp_inf"], np.abs(grad) + eps)
    return param - lr / (1 - beta1**t) * first / norm, {"exp_avg": first, "exp_inf": norm}
