"""Schedule-free SGD.

- A. Defazio et al., "The Road Less Scheduled", NeurIPS 2024, equations 1 to 3, and the weights of
  its section on warmup, with the power r of the authors' code.
- A. Defazio et al., "Smoothing DiLoCo with Primal Averaging for Faster Training of LLMs", 2025
  (mu_x: the averaging keeps a fixed share of x).

The parameter is y = beta x + (1 - beta) z, from which the x of before a step is found; the new x, y
and z come one after the other, as the papers write them.
"""

import numpy as np


def start(param, **_hyper):
    """x, y and z are one point; no weights yet."""
    nothing = np.zeros((), param.dtype)
    return {"z": param.copy(), "weight_sum": nothing, "lr_max": nothing}


def averaged(x, z, state, t, lr, *, warmup_steps, r, weight_lr_power, mu_x):
    """The new x from the new z, and the new weights."""
    lr_max = np.maximum(state["lr_max"], warmed(lr, t, warmup_steps))
    weight_sum = state["weight_sum"]
    if mu_x is not None:
        c = 1 - mu_x
    else:
        weight = t**r * lr_max**weight_lr_power
        weight_sum = weight_sum + weight
        c = weight / weight_sum if weight_sum > 0 else 0.0
    kept = {"z": z, "weight_sum": np.asarray(weight_sum), "lr_max": np.asarray(lr_max)}
    return (1 - c) * x + c * z, kept


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
    x = (param - (1 - momentum) * state["z"]) / momentum
    z = state["z"] - warmed(lr, t, warmup_steps) * (grad + weight_decay * param)
    weights = {"warmup_steps": warmup_steps, "r": r, "weight_lr_power": weight_lr_power}
    x, state = averaged(x, z, state, t, lr, mu_x=mu_x, **weights)
    return (1 - momentum) * z + momentum * x, state
