"""RMSprop.

- T. Tieleman, G. Hinton, "Lecture 6.5 (6e): rmsprop", Coursera, 2012: divide the gradient by a
  running root mean square.
- Centered, with momentum: A. Graves, "Generating Sequences With Recurrent Neural Networks", 2013,
  equations 38 to 41: the running variance n - g^2 in place of the mean square n.

Where torch differs from Graves: epsilon is added after the square root, not under it, and the
learning rate multiplies the momentum buffer when it is applied, not when it is accumulated.
"""

import numpy as np


def start(param, *, momentum=0.0, centered=False, **_hyper):
    """Every average zero."""
    state = {"square_avg": np.zeros_like(param)}
    if momentum > 0:
        state["momentum_buffer"] = np.zeros_like(param)
    if centered:
        state["grad_avg"] = np.zeros_like(param)
    return state


def step(
    param,
    grad,
    state,
    t,
    *,
    lr=1e-2,
    alpha=0.99,
    eps=1e-8,
    weight_decay=0.0,
    momentum=0.0,
    centered=False,
    maximize=False,
):
    """One step; `square_avg` is Graves's n, `grad_avg` his g, `momentum_buffer` his Delta."""
    if maximize:
        grad = -grad
    grad = grad + weight_decay * param

    square = alpha * state["square_avg"] + (1 - alpha) * grad**2
    new_state = {"square_avg": square}
    variance = square
    if centered:
        mean = alpha * state["grad_avg"] + (1 - alpha) * grad
        new_state["grad_avg"] = mean
        variance = square - mean**2
    direction = grad / (np.sqrt(variance) + eps)
    if momentum > 0:
        direction = momentum * state["momentum_buffer"] + direction
        new_state["momentum_buffer"] = direction
    return param - lr * direction, new_state
