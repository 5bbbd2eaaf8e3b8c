"""MARS-AdamW in its approximate form.

- H. Yuan et al., "MARS: unleashing the power of variance reduction for training large models", ICML
  2025, algorithm 2, with the gradient of the last batch as it was then; before the first step it is
  zero, as in the code of its authors.

torch has no such optimizer.
"""

import numpy as np


def start(param, **_hyper):
    """Both moments and the last gradient zero."""
    return {key: np.zeros_like(param) for key in ("exp_avg", "exp_avg_sq", "previous_grad")}


def step(
    param, grad, state, t, *, lr=3e-3, betas=(0.95, 0.99), eps=1e-8, weight_decay=0.0, gamma=0.025,
    adamw=False, maximize=False,
):  # fmt: skip
    """One step; `exp_avg` is the paper's m, `exp_avg_sq` its v."""
    if maximize:
        grad = -grad
    beta1, beta2 = betas
    corrected = grad
    if not adamw:
        corrected = grad + gamma * beta1 / (1 - beta1) * (grad - state["previous_grad"])
        corrected = corrected / max(1.0, np.linalg.norm(corrected))
    first = beta1 * state["exp_avg"] + (1 - beta1) * corrected
    second = beta2 * state["exp_avg_sq"] + (1 - beta2) * corrected**2
    ratio = (first / (1 - beta1**t)) / (np.sqrt(second / (1 - beta2**t)) + eps)
    param = param - lr * (ratio + weight_decay * param)
    return param, {"exp_avg": first, "exp_avg_sq": second, "previous_grad": grad}
