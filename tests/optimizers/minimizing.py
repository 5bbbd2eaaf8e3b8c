"""Functions to minimize, and runs of L-BFGS on them, as a user writes them."""

import pytest
import torch
from torch.nn import Parameter

from optimizers.cases import tensor

DOUBLE = torch.float64
SEARCHES = pytest.mark.parametrize("search", [None, "strong_wolfe"])


def rosenbrock(x):
    """A curved valley; its lowest point is (1, 1, ...)."""
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def _bowl(size=10):
    root = tensor(1, (size, size))
    return root @ root.T + 0.1 * torch.eye(size, dtype=DOUBLE), torch.arange(float(size)).double()


def quadratic(x):
    """A bowl that is some 500 times steeper in one direction than in another."""
    matrix, slope = _bowl()
    return 0.5 * x @ matrix.to(x.dtype) @ x - slope.to(x.dtype) @ x


FUNCTIONS = {"rosenbrock": rosenbrock, "quadratic": quadratic}
START = torch.linspace(-1.2, 1, 10, dtype=DOUBLE)


class Run:
    """A parameter, its optimizer, and every loss that the closure found."""

    def __init__(self, make, function, start=START, **options):
        self.param = Parameter(start.clone())
        self.optimizer = make([self.param], **options)
        self.function = function
        self.losses = []

    def closure(self):
        """As a user writes it."""
        assert torch.is_grad_enabled()
        self.optimizer.zero_grad()
        loss = self.function(self.param)
        loss.backward()
        self.losses.append(loss.item())
        return loss

    def steps(self, count):
        """Take so many steps."""
        for _ in range(count):
            self.optimizer.step(self.closure)
        return self

    @property
    def state(self):
        """What the optimizer keeps."""
        return self.optimizer.state[self.param]


def assert_state_is(mine, theirs):
    """Raise unless two memories are the same, bit for bit; torch's scratch room aside."""
    assert [key for key in theirs if key != "al"] == list(mine)
    for key, value in mine.items():
        if key == "t" and value == 0:
            continue  # see test_a_step_that_was_not_taken_is_not_remembered
        ones, others = (v if isinstance(v, list) else [v] for v in (value, theirs[key]))
        assert len(ones) == len(others), key
        for one, other in zip(ones, others, strict=True):
            assert torch.equal(*map(_double, (one, other))), key


def _double(value):
    return torch.as_tensor(value).detach().double()


def in_groups(make, groups, search, steps=4, **options):
    """Rosenbrock's function of all parameters one after the other."""
    params = [group["params"][0] for group in groups]
    optimizer = make(groups, line_search_fn=search, **options)
    losses = []

    def closure():
        optimizer.zero_grad()
        loss = rosenbrock(torch.cat([param.flatten() for param in params]))
        loss.backward()
        losses.append(loss.item())
        return loss

    for _ in range(steps):
        optimizer.step(closure)
    return losses, optimizer, closure
