"""Schedule-free AdamW.

- A. Defazio et al., "The Road Less Scheduled", NeurIPS 2024, algorithm 1, with the bias correction
  of the second moment, and the powers of step and lr in the weights, of the authors' code.
- A. Defazio et al., "Smoothing DiLoCo with Primal Averaging for Faster Training of LLMs", 2025
  (mu_x: the averaging keeps a fixed share of x; mu_y: the interpolation, beside AdamW's own beta1).

The parameter is y; see the oracle of SGD.
"""

import numpy as np

from oracles import schedulefreesgd
from oracles.schedulefreesgd import averaged, warmed


def start(param, **hyper):
    """x, y and z are one point; the moments zero, and no weights yet."""
    means = ("exp_avg_sq", "exp_avg") if hyper.get("mu_y") is not None else ("exp_avg_sq",)
    return schedulefreesgd.start(param) | {key: np.zeros_like(param) for key in means}


def step(
    param,
    grad,
    state,
    t,
    *,
    lr=2.5e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    warmup_steps=0,
    r=0.0,
    weight_lr_power=2.0,
    mu_x=None,
    mu_y=None,
    maximize=False,
):
    """One step; without mu_y the share of x in y is beta1, and no moment is kept by it."""
    beta1, beta2 = betas
    if maximize:
        grad = -grad
    moments = {"exp_avg_sq": beta2 * state["exp_avg_sq"] + (1 - beta2) * grad**2}
    direction = grad
    if mu_y is not None:
        moments["exp_avg"] = beta1 * state["exp_avg"] + (1 - beta1) * grad
        direction = moments["exp_avg"] / (1 - beta1**t)
    direction = direction / (np.sqrt(moments["exp_avg_sq"] / (1 - beta2**t)) + eps)

    share = beta1 if mu_y is None else mu_y
    x = (param - (1 - share) * state["z"]) / share
    z = state["z"] - warmed(lr, t, warmup_steps) * (direction + weight_decay * param)
    weights = {"warmup_steps": warmup_steps, "r": r, "weight_lr_power": weight_lr_power}
    x, state = averaged(x, z, state, t, lr, mu_x=mu_x, **weights)
    return (1 - share) * z + share * x, state | moments
