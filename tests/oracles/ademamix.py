"""AdEMAMix.

- M. Pagliardini, P. Ablin, D. Grangier, "The AdEMAMix Optimizer: Better, Faster, Older", ICLR 2025,
  algorithm 1, and the schedulers of alpha and beta3 that it names.

torch has no such optimizer.
"""

import numpy as np


def start(param, **_hyper):
    """All three moments zero."""
    return {key: np.zeros_like(param) for key in ("exp_avg", "exp_avg_sq", "exp_avg_slow")}


def _beta3(t, beta_start, beta3, warmup):
    """f_beta3 of the paper: the half-life of the slow moment grows linearly."""
    first, last, done = np.log(beta_start), np.log(beta3), t / warmup
    if done >= 1:
        return beta3
    return min(np.exp(first * last / ((1 - done) * last + done * first)), beta3)


def step(
    param,
    grad,
    state,
    t,
    *,
    lr=1e-3,
    betas=(0.9, 0.999, 0.9999),
    alpha=2.0,
    beta3_warmup=None,
    alpha_warmup=None,
    eps=1e-8,
    weight_decay=0.0,
    maximize=False,
):
    """One step; `exp_avg` is the paper's m1, `exp_avg_slow` its m2, `exp_avg_sq` its nu."""
    beta1, beta2, beta3 = betas
    if maximize:
        grad = -grad
    if alpha_warmup is not None:
        alpha = min(t * alpha / alpha_warmup, alpha)
    if beta3_warmup is not None:
        beta3 = _beta3(t, beta1, beta3, beta3_warmup)

    fast = beta1 * state["exp_avg"] + (1 - beta1) * grad
    slow = beta3 * state["exp_avg_slow"] + (1 - beta3) * grad
    second = beta2 * state["exp_avg_sq"] + (1 - beta2) * grad**2
    fast_hat = fast / (1 - beta1**t)
    second_hat = second / (1 - beta2**t)
    direction = (fast_hat + alpha * slow) / (np.sqrt(second_hat) + eps) + weight_decay * param
    return param - lr * direction, {"exp_avg": fast, "exp_avg_sq": second, "exp_avg_slow": slow}
