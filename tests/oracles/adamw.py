"""AdamW.

- I. Loshchilov, F. Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 2.

Where torch differs from the paper: the decay is multiplied by the learning rate (the paper's
lambda is torch's lr * weight_decay, with its schedule multiplier eta folded into lr).
"""

from oracles import adam


def start(param, **hyper):
    """Both moments zero."""
    return adam.start(param, **hyper)


def step(param, grad, state, t, *, lr=1e-3, weight_decay=1e-2, **hyper):
    """Shrink the parameter, then take Adam's step; the gradient never sees the decay."""
    return adam.step(param * (1 - lr * weight_decay), grad, state, t, lr=lr, **hyper)
