"""NAdam.

- T. Dozat, "Incorporating Nesterov Momentum into Adam", ICLR workshop 2016, algorithm 2, with the
  momentum schedule that it takes from Sutskever et al.: mu_t = beta1 (1 - 0.5 * 0.96^(t psi)).

Where torch differs from the paper:

- the mean of the gradients decays by beta1 at every step (in the paper by mu_t);
- the second moment is n / (1 - nu^t) as in Adam (in the paper nu n / (1 - nu^t));
- weight decay, absent from the paper, is added to the gradient (an L2 penalty), or shrinks the
  parameter by lr * weight_decay first if it is decoupled.
"""

import numpy as np


def start(param, **_hyper):
    """Both moments zero, an empty product."""
    return {
        "mu_product": np.ones(()),
        "exp_avg": np.zeros_like(param),
        "exp_avg_sq": np.zeros_like(param),
    }


def step(
    param,
    grad,
    state,
    t,
    *,
    lr=2e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    momentum_decay=4e-3,
    decoupled_weight_decay=False,
    maximize=False,
):
    """One step; `exp_avg` is the paper's m, `exp_avg_sq` its n, `mu_product` mu_1 ... mu_t."""
    beta1, beta2 = betas
    if maximize:
        grad = -grad
    if decoupled_weight_decay:
        param = param * (1 - lr * weight_decay)
    else:
        grad = grad + weight_decay * param

    def mu(i):
        return beta1 * (1 - 0.5 * 0.96 ** (i * momentum_decay))

    product = state["mu_product"] * mu(t)
    first = beta1 * state["exp_avg"] + (1 - beta1) * grad
    second = beta2 * state["exp_avg_sq"] + (1 - beta2) * grad**2
    first_hat = mu(t + 1) * first / (1 - product * mu(t + 1)) + (1 - mu(t)) * grad / (1 - product)
    second_hat = second / (1 - beta2**t)
    new_state = {"mu_product": np.asarray(product), "exp_avg": first, "exp_avg_sq": second}
    return param - lr * first_hat / (np.sqrt(second_hat) + eps), new_state
