"""The same training with torch.optim and with descend, side by side."""

import torch

import descend

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
"""Rounding of float32 over some twenty steps."""

CLOSE_16 = {"rtol": 3e-2, "atol": 3e-3}
"""A last bit of a weight may round a bfloat16 activation the other way."""


def assert_beside(train, **tolerance):
    """Train with each, and compare what `train` returns: losses, lrs, parameters.

    Args:
        train: called with torch.optim, then with descend.
        **tolerance: of the comparison.

    Returns:
        What it returned with descend.
    """
    theirs, mine = train(torch.optim), train(descend)
    torch.testing.assert_close(mine, theirs, equal_nan=True, **(tolerance or CLOSE))
    return mine


def network():
    """A small network, the same each time."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


def samples(count=24):
    """Inputs and what is to be learned of them, with values large enough to be clipped."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, 4, generator=generator)
    return torch.utils.data.TensorDataset(inputs, 3 * inputs.sum(1, keepdim=True).sin())


def parameters(model):
    """Copies of all parameters."""
    return [param.detach().clone() for param in model.parameters()]
