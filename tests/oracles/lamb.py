"""LAMB.

- Y. You et al., "Large batch optimization for deep learning: training BERT in 76 minutes", ICLR
  2020, algorithm 2, with phi the identity; a ratio of which a norm is zero counts as 1, as in the
  code of its authors.

torch has no such optimizer.
"""

import numpy as np


def start(param, **_hyper):
    """Both moments zero."""
    return {"exp_avg": np.zeros_like(param), "exp_avg_sq": np.zeros_like(param)}


def step(
    param, grad, state, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0,
    trust_ratio=True, maximize=False,
):  # fmt: skip
    """One step; `exp_avg` is the paper's m, `exp_avg_sq` its v."""
    if maximize:
        grad = -grad
    beta1, beta2 = betas
    first = beta1 * state["exp_avg"] + (1 - beta1) * grad
    second = beta2 * state["exp_avg_sq"] + (1 - beta2) * grad**2
    ratio = (first / (1 - beta1**t)) / (np.sqrt(second / (1 - beta2**t)) + eps)
    direction = ratio + weight_decay * param
    mine, its = np.linalg.norm(param), np.linalg.norm(direction)
    trust = mine / its if trust_ratio and mine > 0 and its > 0 else 1.0
    return param - lr * trust * direction, {"exp_avg": first, "exp_avg_sq": second}
