"""Stand-ins for descend's optimizers, so that these tests are about the measuring alone."""

import sys
from functools import partial

import pytest
import torch

MY_RULE = """
from descend.engine.hyperparameters import LearningRate
from descend.engine.rule import Rule
from descend.optimizers import Optimizer


def update(param, grad, mean, *, lr: float, rest: float):
    mean = mean + (grad - mean) * rest
    return param - lr * mean, mean


def scalars(options, step):
    return {"lr": options["lr"], "rest": 0.1}


class MyRule(Optimizer):
    rule = Rule(update, scalars, counts_steps=False)

    def __init__(self, params, lr: LearningRate = 1e-3):
        super().__init__(params, {"lr": lr})
"""


def stand_in(base):
    """A subclass of a torch optimizer that takes `clip_norm`, as descend's do."""

    class StandIn(base):
        def __init__(self, params, clip_norm=None, **options):
            super().__init__(params, **options)
            self.clip_norm = clip_norm

    StandIn.__name__ = base.__name__
    return StandIn


class Unheard(torch.optim.SGD):
    """An optimizer that torch does not have."""


@pytest.fixture
def catalogue(monkeypatch):
    """Replace the catalogue by stand-ins, and measure each for one step a turn."""
    import descend.optimizers
    from descend.bench import suite

    monkeypatch.setattr(suite, "measure_steps", partial(suite.measure_steps, turn_ns=1))

    bases = torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop
    found = {base.__name__.lower(): stand_in(base) for base in bases}
    found["unheard"] = Unheard
    for key, kind in found.items():
        kind.rule = descend.optimizers.CATALOGUE.get(key, descend.optimizers.SGD).rule
    found["lbfgs"] = torch.optim.LBFGS  # it has no dense step without a closure: never a case
    monkeypatch.setattr(descend.optimizers, "CATALOGUE", found, raising=False)
    return found


@pytest.fixture
def own_rule(tmp_path, monkeypatch):
    """A file with a rule of the user's own."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "my_file.py"
    path.write_text(MY_RULE)
    return path
