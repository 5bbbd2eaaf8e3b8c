"""Resilient backpropagation.

- M. Riedmiller, H. Braun, "A direct adaptive method for faster backpropagation learning: the RPROP
  algorithm", ICNN 1993.
- The variant without backtracking that forgets a gradient after a change of sign (iRprop-):
  C. Igel, M. Huesken, "Improving the Rprop learning algorithm", NC 2000, algorithm 4.

Where torch differs from Igel and Huesken: a step size is cut to both bounds at every step, so that
a start outside of them comes inside at the first. Weight decay, absent from both papers and from
torch, is added to the gradient (an L2 penalty).
"""

import numpy as np


def start(param, *, lr=1e-2, **_hyper):
    """No gradient before the first; every step size at lr."""
    return {"prev": np.zeros_like(param), "step_size": np.full_like(param, lr)}


def step(
    param,
    grad,
    state,
    t,
    *,
    lr=1e-2,
    etas=(0.5, 1.2),
    step_sizes=(1e-6, 50.0),
    weight_decay=0.0,
    maximize=False,
):
    """One step; `prev` is the gradient of the step before, `step_size` the papers' Delta."""
    shrink, growth = etas
    if maximize:
        grad = -grad
    grad = grad + weight_decay * param

    agreement = np.sign(grad) * np.sign(state["prev"])
    factor = np.select([agreement > 0, agreement < 0], [growth, shrink], default=1.0)
    size = np.clip(state["step_size"] * factor, *step_sizes)
    grad = np.where(agreement < 0, 0.0, grad)
    return param - np.sign(grad) * size, {"prev": grad, "step_size": size}
