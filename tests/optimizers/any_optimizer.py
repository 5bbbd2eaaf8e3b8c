"""Train any optimizer of the catalogue: by dense or sparse gradients, or with a closure."""

import torch
from torch.nn import Parameter

from descend.optimizers import CATALOGUE
from optimizers.cases import tensor

IN_TORCH = sorted(name for name, cls in CATALOGUE.items() if hasattr(torch.optim, cls.__name__))
SHAPES = [(4, 3), (3, 5)]  # Muon takes matrices


def torchs(name):
    """The class of torch of that name."""
    return getattr(torch.optim, CATALOGUE[name].__name__)


def parameters(dtype=torch.float64):
    """Two matrices."""
    return [Parameter(tensor(seed, shape, dtype)) for seed, shape in enumerate(SHAPES)]


def train(name, optimizer, params, steps, first=0):
    """Some steps; those of L-BFGS go down a bowl, as it needs a loss."""
    if name == "lbfgs":

        def closure():
            optimizer.zero_grad()
            # Not quite round, or one step ends it.
            loss = sum((param - 1).square().sum() + (param - 1).pow(4).sum() for param in params)
            loss.backward()
            return loss

        for _ in range(steps):
            optimizer.step(closure)
        return
    for step in range(first, first + steps):
        for index, param in enumerate(params):
            grad = tensor(100 * step + index, param.shape, param.dtype)
            if name == "sparseadam":
                grad[step % 2 :: 2] = 0.0
                grad = grad.to_sparse(1)
            param.grad = grad
        optimizer.step()
