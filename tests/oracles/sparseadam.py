"""SparseAdam: Adam on the elements that a sparse gradient holds.

- D. P. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015: algorithm 1 in the
  order of computation that the end of its section 2 gives, where epsilon is added to the root of
  the uncorrected second moment.
- torch.optim.SparseAdam's documentation, for which elements take part: those that the gradient
  holds, zeros among them. `t` counts the steps of the whole parameter.

Here a gradient is NaN where it holds nothing. Weight decay, which torch's has not, is added to the
gradient, where there is one.
"""

import numpy as np


def start(param, **_hyper):
    """Both moments zero."""
    return {"exp_avg": np.zeros_like(param), "exp_avg_sq": np.zeros_like(param)}


def step(
    param,
    grad,
    state,
    t,
    *,
    lr=1e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    maximize=False,
):
    """One step; `exp_avg` is the paper's m, `exp_avg_sq` its v."""
    beta1, beta2 = betas
    held = ~np.isnan(grad)
    if maximize:
        grad = -grad
    grad = grad + weight_decay * param
    first = beta1 * state["exp_avg"] + (1 - beta1) * grad
    second = beta2 * state["exp_avg_sq"] + (1 - beta2) * grad**2
    rate = lr * np.sqrt(1 - beta2**t) / (1 - beta1**t)
    moved = param - rate * first / (np.sqrt(second) + eps)
    return np.where(held, moved, param), {
        "exp_avg": np.where(held, first, state["exp_avg"]),
        "exp_avg_sq": np.where(held, second, state["exp_avg_sq"]),
    }
