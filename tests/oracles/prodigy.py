"""Prodigy.

- K. Mishchenko, A. Defazio, "Prodigy: an expeditiously adaptive parameter-free learner", ICML 2024,
  algorithm 4; the new estimate under the root, safeguard_warmup and d_coef as in the authors' code.

It is one of a single tensor here. torch has no such optimizer.
"""

import numpy as np


def start(param, *, d0=1e-6, d=None, d_numerator=0.0, **_hyper):
    """Moments and the weighted sum zero; the parameter as it is; the first estimate."""
    names = ("exp_avg", "exp_avg_sq", "weighted_sum")
    estimate = d0 if d is None else d
    return {
        **{name: np.zeros_like(param) for name in names},
        "start": param.copy(),
        "d": np.asarray(estimate),
        "d_numerator": np.asarray(d_numerator),
    }


def step(
    param, grad, state, t, *, lr=1.0, betas=(0.9, 0.999), beta3=None, eps=1e-8, weight_decay=0.0,
    decoupled_weight_decay=True, use_bias_correction=False, safeguard_warmup=False, d0=1e-6,
    d_coef=1.0, d=None, d_numerator=0.0, maximize=False,
):  # fmt: skip
    """One step; `weighted_sum` is the paper's s, `d_numerator` its r."""
    if maximize:
        grad = -grad
    if not decoupled_weight_decay:
        grad = grad + weight_decay * param
    beta1, beta2 = betas
    beta3 = np.sqrt(beta2) if beta3 is None else beta3
    old = state["d"]
    rate = old * lr
    if use_bias_correction:
        rate = rate * np.sqrt(1 - beta2**t) / (1 - beta1**t)
    first = beta1 * state["exp_avg"] + (1 - beta1) * old * grad
    second = beta2 * state["exp_avg_sq"] + (1 - beta2) * old**2 * grad**2
    numerator = beta3 * state["d_numerator"]
    numerator = numerator + old / d0 * rate * np.sum(grad * (state["start"] - param))
    sums = beta3 * state["weighted_sum"] + old / d0 * (old if safeguard_warmup else rate) * grad
    size = np.sum(np.abs(sums))
    new = max(old, d_coef * numerator / size) if size > 0 else old
    if decoupled_weight_decay:
        param = param - rate * weight_decay * param
    param = param - rate * first / (np.sqrt(second) + new * eps)
    return param, {
        "exp_avg": first,
        "exp_avg_sq": second,
        "weighted_sum": sums,
        "start": state["start"],
        "d": np.asarray(new),
        "d_numerator": np.asarray(numerator if size > 0 else state["d_numerator"]),
    }
