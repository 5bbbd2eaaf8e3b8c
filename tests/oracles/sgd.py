"""Stochastic gradient descent.

- Plain: H. Robbins, S. Monro, "A stochastic approximation method", 1951.
- Momentum: B. T. Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
- Nesterov: I. Sutskever et al., "On the importance of initialization and momentum in deep
  learning", ICML 2013, equations 3 and 4.

Where torch differs from Sutskever et al. (v = mu v - lr g; theta = theta + v):

- the learning rate multiplies the velocity when it is applied, not when it is accumulated, so
  v = mu v + g; theta = theta - lr v. Equal while lr is constant;
- Nesterov's look-ahead is written at the shifted point: theta = theta - lr (g + mu v);
- v starts as the first gradient, undampened; later gradients count (1 - dampening) times.
"""

import numpy as np


def start(param, **_hyper):
    """No velocity before the first step."""
    return {}


def step(
    param,
    grad,
    state,
    t,
    *,
    lr=1e-3,
    momentum=0.0,
    dampening=0.0,
    weight_decay=0.0,
    nesterov=False,
    maximize=False,
):
    """One step; `momentum_buffer` is the velocity v."""
    if maximize:
        grad = -grad
    grad = grad + weight_decay * param
    if momentum == 0:
        return param - lr * grad, state
    if t == 1:
        velocity = np.array(grad)
    else:
        velocity = momentum * state["momentum_buffer"] + (1 - dampening) * grad
    direction = grad + momentum * velocity if nesterov else velocity
    return param - lr * direction, {"momentum_buffer": velocity}
