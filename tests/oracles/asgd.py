"""Averaged stochastic gradient descent.

- B. T. Polyak, A. B. Juditsky, "Acceleration of stochastic approximation by averaging", SIAM
  Journal on Control and Optimization 30, 1992: the average of the iterates.
- W. Xu, "Towards Optimal One Pass Large Scale Learning with Averaged Stochastic Gradient Descent",
  2011: the learning rate eta_t = lr / (1 + lambd lr t)^alpha, the decay 1 - lambd eta_t, and the
  average from step t0 on, x_avg += mu_t (x - x_avg) with mu_t = 1 / max(1, t - t0).

Where torch differs from Xu: step t, counted from 1, uses the rates of t - 1. Besides lambd there is
weight decay, added to the gradient (an L2 penalty).
"""

import numpy as np


def _rates(t, lr, lambd, alpha, t0):
    return np.asarray(lr / (1 + lambd * lr * t) ** alpha), np.asarray(1 / max(1.0, t - t0))


def start(param, *, lr=1e-2, **_hyper):
    """The rates of time zero; no average yet."""
    return {"eta": np.asarray(float(lr)), "mu": np.ones(()), "ax": np.zeros_like(param)}


def step(
    param,
    grad,
    state,
    t,
    *,
    lr=1e-2,
    lambd=1e-4,
    alpha=0.75,
    t0=1e6,
    weight_decay=0.0,
    maximize=False,
):
    """One step; `ax` is the average, `eta` and `mu` are the rates of the next step."""
    if maximize:
        grad = -grad
    grad = grad + weight_decay * param

    eta, mu = _rates(t - 1, lr, lambd, alpha, t0)
    param = param * (1 - lambd * eta) - eta * grad
    average = param.copy() if mu == 1 else state["ax"] + mu * (param - state["ax"])
    next_eta, next_mu = _rates(t, lr, lambd, alpha, t0)
    return param, {"eta": next_eta, "mu": next_mu, "ax": average}
