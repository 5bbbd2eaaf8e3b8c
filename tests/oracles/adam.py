"""Adam and AMSGrad.

- D. P. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1.
- S. J. Reddi, S. Kale, S. Kumar, "On the Convergence of Adam and Beyond", ICLR 2018, algorithm 2.

Where torch differs from the papers:

- AMSGrad keeps the maximum of the uncorrected second moments and corrects the bias of that maximum
  (Reddi et al. use no bias correction);
- weight decay, absent from both papers, is added to the gradient (an L2 penalty).
"""

import numpy as np


def start(param, *, amsgrad=False, **_hyper):
    """Both moments zero."""
    state = {"exp_avg": np.zeros_like(param), "exp_avg_sq": np.zeros_like(param)}
    if amsgrad:
        state["max_exp_avg_sq"] = np.zeros_like(param)
    return state


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
    amsgrad=False,
    maximize=False,
):
    """One step; `exp_avg` is the paper's m, `exp_avg_sq` its v."""
    beta1, beta2 = betas
    if maximize:
        grad = -grad
    grad = grad + weight_decay * param

    first = beta1 * state["exp_avg"] + (1 - beta1) * grad
    second = beta2 * state["exp_avg_sq"] + (1 - beta2) * grad**2
    new_state = {"exp_avg": first, "exp_avg_sq": second}
    if amsgrad:
        new_state["max_exp_avg_sq"] = np.maximum(state["max_exp_avg_sq"], second)

    first_hat = first / (1 - beta1**t)
    second_hat = new_state["max_exp_avg_sq" if amsgrad else "exp_avg_sq"] / (1 - beta2**t)
    return param - lr * first_hat / (np.sqrt(second_hat) + eps), new_state
