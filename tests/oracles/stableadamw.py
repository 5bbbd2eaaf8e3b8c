"""StableAdamW.

- M. Wortsman et al., "Stable and low-precision training for large-scale vision-language models",
  NeurIPS 2023, algorithm 2: AdamW with debiased betas and update clipping.

torch has no such optimizer.
"""

import numpy as np


def start(param, **_hyper):
    """Both moments zero."""
    return {"debiased_avg": np.zeros_like(param), "debiased_avg_sq": np.zeros_like(param)}


def step(
    param, grad, state, t, *, lr=1e-3, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.01,
    maximize=False,
):  # fmt: skip
    """One step; `debiased_avg` is the paper's v, `debiased_avg_sq` its u."""
    if maximize:
        grad = -grad
    hats = [beta * (1 - beta ** (t - 1)) / (1 - beta**t) for beta in betas]
    first = hats[0] * state["debiased_avg"] + (1 - hats[0]) * grad
    second = hats[1] * state["debiased_avg_sq"] + (1 - hats[1]) * grad**2
    rms = np.sqrt(np.mean(grad**2 / np.maximum(second, eps**2)))
    rate = lr / max(1.0, rms)
    param = param - rate * weight_decay * param - rate * first / (np.sqrt(second) + eps)
    return param, {"debiased_avg": first, "debiased_avg_sq": second}
