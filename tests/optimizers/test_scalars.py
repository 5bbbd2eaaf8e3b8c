"""The host-side scalars: numbers for every option that is allowed, at every step."""

import math
from itertools import product

import pytest
import torch

from optimizers.cases import NAMES, RICH, ours

BETAS = list(product([0.0, 1 / 3, 0.5, 0.6, 0.61, 0.9, 0.999, 1 - 2.0**-53], repeat=2))
EXTREMES = {
    "adadelta": {"rho": [0.0, 1.0]},
    "adagrad": {"lr_decay": [0.0, 1e6]},
    "adam": {"betas": BETAS},
    "adamax": {"betas": BETAS},
    "adamw": {"betas": BETAS},
    "asgd": {"lambd": [0.0, 1e6], "alpha": [0.0, 1e3], "t0": [-1e9, 0, 1.5, 1e9]},
    "lion": {"betas": BETAS},
    "nadam": {"betas": BETAS, "momentum_decay": [0.0, 1e300]},
    "radam": {"betas": BETAS},
    "rmsprop": {"alpha": [0.0, 1.0]},
    "rprop": {"etas": [(1e-9, 1e9)], "step_sizes": [(0.0, 0.0), (0.0, 1e30)]},
    "sgd": {"momentum": [0.0, 1.0]},
}
STEPS = [1, 2, 4, 5, 6, 7, 100, 2**24]


def _numbers(name, options, step, convert=lambda value: value):
    rule = ours(name).rule
    starts = (rule.start(counter, options) for counter in rule.counters)
    return rule.numbers(options, tuple(map(convert, (step, *starts))))


@pytest.mark.parametrize("name", NAMES)
def test_extreme_options_give_finite_numbers(name):
    extremes = EXTREMES[name]
    for values in product(*extremes.values()):
        chosen = {**RICH[name], **dict(zip(extremes, values, strict=True)), "lr": 0.1}
        if name == "sgd":
            chosen["nesterov"] = False
        (group,) = ours(name)([torch.ones(1)], **chosen).param_groups
        for step in STEPS:
            for key, value in _numbers(name, group, step).items():
                assert math.isfinite(value), (chosen, step, key)


@pytest.mark.parametrize("name", NAMES)
def test_captured_numbers_are_the_same(name):
    """`capturable`: the step count and the counters are tensors."""
    (group,) = ours(name)([torch.ones(1)], **RICH[name]).param_groups
    for step in STEPS:
        numbers = _numbers(name, group, step)
        captured = _numbers(name, group, step, lambda x: torch.tensor(x, dtype=torch.float64))
        assert list(captured) == list(numbers)
        for key, value in numbers.items():
            assert float(captured[key]) == pytest.approx(float(value), rel=1e-12), (step, key)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_tiny_gradients_of_one_sign_make_rprop_faster(backend, dtype):
    """The product of two of them underflows in float32; their signs agree all the same."""
    param = torch.nn.Parameter(torch.zeros(3, dtype=dtype))
    optimizer = ours("rprop")([param], lr=0.5, etas=(0.5, 2.0))
    for _ in range(3):
        param.grad = torch.full((3,), 1e-30, dtype=dtype)
        optimizer.step()
    assert param.tolist() == [-0.5 - 1.0 - 2.0] * 3
