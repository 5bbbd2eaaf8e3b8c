"""Schedule-free SGD.

- A. Defazio et al., "The Road Less Scheduled", NeurIPS 2024, equations 1 to 3, and the weights of
  its section on warmup, with the power r of the authors' code.
- A. Defazio et al., "Smoothing DiLoCo with Primal Averaging for Faster Training of LLMs", 2025
  (mu_x: the averaging keeps a fixed share of x).

The sequences x, y and z are kept apart, as the papers write them; the parameter is y.
"""

import numpy as np


def points(param, **_hyper):
    """x, y and z are one point; no weights yet."""
    nothing = np.zeros((), param.dtype)
    return {"z": param.copy(), "_x": param.copy(), "weight_sum": nothing, "lr_max": nothing}


start = points


def averaged(state, z, t, lr, warmup_steps, r, weight_lr_power, mu_x):
    """The new x and what is kept for the weights; `z` is the new one."""
    lr_max = np.maximum(state["lr_max"], warmed(lr, t, warmup_steps))
    if mu_x is not None:
        weight, weight_sum, c = 0, state["weight_sum"], 1 - mu_x
    else:
        weight = t**r * lr_max**weight_lr_power
        weight_sum = np.asarray(state["weight_sum"] + weight)
        c = weight / weight_sum if weight_sum > 0 else 0.0
    x = (1 - c) * state["_x"] + c * z
    return {"z": z, "_x": x, "weight_sum": weight_sum, "lr_max": np.asarray(lr_max)}


def warmed(lr, t, warmup_steps):
    """The learning rate in a linear warmup."""
    return lr * min(t / warmup_steps, 1) if warmup_steps else lr


def step(
    param,
    grad,
    state,
    t,
    *,
    lr=1.0,
    momentum=0.9,
    weight_decay=0.0,
    warmup_steps=0,
    r=0.0,
    weight_lr_power=2.0,
    mu_x=None,
    maximize=False,
):
    """One step; `momentum` is the paper's beta."""
    if maximize:
        grad = -grad
    z = state["z"] - warmed(lr, t, warmup_steps) * (grad + weight_decay * param)
    state = averaged(state, z, t, lr, warmup_steps, r, weight_lr_power, mu_x)
    return np.asarray((1 - momentum) * z + momentum * state["_x"]), state
