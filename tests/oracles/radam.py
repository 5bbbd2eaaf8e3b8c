"""RAdam.

- L. Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", ICLR 2020,
  algorithm 2.

Where torch differs from the paper:

- the adaptive step begins where rho_t > 5 (in the paper rho_t > 4);
- epsilon, absent from the paper, is added to the root of the uncorrected second moment;
- weight decay, absent from the paper, is added to the gradient (an L2 penalty), or shrinks the
  parameter by lr * weight_decay first if it is decoupled.
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
    decoupled_weight_decay=False,
    maximize=False,
):
    """One step; `exp_avg` is the paper's m, `exp_avg_sq` its v."""
    beta1, beta2 = betas
    if maximize:
        grad = -grad
    if decoupled_weight_decay:
        param = param * (1 - lr * weight_decay)
    else:
        grad = grad + weight_decay * param

    first = beta1 * state["exp_avg"] + (1 - beta1) * grad
    second = beta2 * state["exp_avg_sq"] + (1 - beta2) * grad**2
    new_state = {"exp_avg": first, "exp_avg_sq": second}
    first_hat = first / (1 - beta1**t)

    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * t * beta2**t / (1 - beta2**t)
    if length <= 5:
        return param - lr * first_hat, new_state
    rectification = np.sqrt(
        (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    )
    adaptive = np.sqrt(1 - beta2**t) / (np.sqrt(second) + eps)
    return param - lr * rectification * first_hat * adaptive, new_state
