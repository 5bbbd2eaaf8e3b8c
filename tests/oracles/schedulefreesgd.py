"""ScheduleFreeSGD.

- A. Defazio et al., "The road less scheduled", NeurIPS 2024, algorithm 1; the weights of the
  average as in the authors' code; `mu_x` as in A. Defazio et al., "Smoothing DiLoCo with primal
  averaging for faster training of LLMs", 2025.

The average x is carried here, and y computed from it. torch has no such optimizer.
"""

import numpy as np


def start(param, **_hyper):
    """The point z is where the parameter is; nothing is averaged yet."""
    zero = np.asarray(0.0)
    return {"z": param.copy(), "weight_sum": zero, "lr_max": zero}


def _average(state, t, lr, beta, warmup_steps, r, weight_lr_power, mu_x):
    """The lr of the step, the share of the new point, and the weights so far."""
    lr = lr * min(1.0, t / warmup_steps) if warmup_steps else lr
    largest = max(lr, float(state["lr_max"]))
    weight = t**r * largest**weight_lr_power
    total = float(state["weight_sum"]) + weight
    share = 1 - mu_x if mu_x is not None else (weight / total if total > 0 else 0.0)
    return lr, share, {"weight_sum": np.asarray(total), "lr_max": np.asarray(largest)}


def step(
    param, grad, state, t, *, lr, momentum=0.9, weight_decay=0.0,
    warmup_steps=0, r=0.0, weight_lr_power=2.0, mu_x=None, maximize=False,
):  # fmt: skip
    """One step; the parameter is the paper's y."""
    if maximize:
        grad = -grad
    beta = momentum
    lr, share, counters = _average(state, t, lr, beta, warmup_steps, r, weight_lr_power, mu_x)
    direction = grad + weight_decay * param
    x = (param - (1 - beta) * state["z"]) / beta
    z = state["z"] - lr * direction
    x = (1 - share) * x + share * z
    return beta * x + (1 - beta) * z, {**counters, "z": z}
