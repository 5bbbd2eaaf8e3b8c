"""ADOPT.

- S. Taniguchi et al., "ADOPT: Modified Adam Can Converge with Any beta2 with the Optimal Rate",
  NeurIPS 2024, algorithm 2, and its clipped form, where c_t = t^0.25.

The paper's t is that of the steps after the one that begins the second moment. Weight decay, absent
from the algorithm, is added to the gradient (an L2 penalty), or shrinks the parameter by
lr * weight_decay first if it is decoupled; not so in the step that moves nothing.
torch has no such optimizer.
"""

import numpy as np


def start(param, **_hyper):
    """Both moments zero."""
    return {"exp_avg_normed": np.zeros_like(param), "exp_avg_sq": np.zeros_like(param)}


def step(
    param,
    grad,
    state,
    t,
    *,
    lr=1e-3,
    betas=(0.9, 0.9999),
    eps=1e-6,
    clip_exponent=0.25,
    weight_decay=0.0,
    decoupled_weight_decay=False,
    maximize=False,
):
    """One step; `exp_avg_normed` is the paper's m, `exp_avg_sq` its v."""
    beta1, beta2 = betas
    if maximize:
        grad = -grad
    if not decoupled_weight_decay:
        grad = grad + weight_decay * param
    if t == 1:
        return param, {**state, "exp_avg_sq": grad**2}
    if decoupled_weight_decay:
        param = param * (1 - lr * weight_decay)

    normed = grad / np.maximum(np.sqrt(state["exp_avg_sq"]), eps)
    if clip_exponent is not None:
        limit = (t - 1) ** clip_exponent
        normed = np.clip(normed, -limit, limit)
    momentum = beta1 * state["exp_avg_normed"] + (1 - beta1) * normed
    second = beta2 * state["exp_avg_sq"] + (1 - beta2) * grad**2
    return param - lr * momentum, {"exp_avg_normed": momentum, "exp_avg_sq": second}
