"""The host-side scalars: numbers for every option that is allowed, at every step."""

import math
from itertools import product

import numpy as np
import pytest
import torch

import descend
from descend.checks import Pair, Range
from descend.errors import HyperparameterError
from descend.optimizers import CATALOGUE
from optimizers.any_optimizer import parameters, torchs, train
from optimizers.cases import NAMES, RICH, assert_close, ours

BETAS = list(product([0.0, 1 / 3, 0.5, 0.6, 0.61, 0.9, 0.999, 1 - 2.0**-53], repeat=2))
EXTREMES = {  # of those that are not here: their betas
    "adadelta": {"rho": [0.0, 1.0]},
    "adagrad": {"lr_decay": [0.0, 1e6]},
    "ademamix": {
        "betas": [(*pair, beta) for pair in BETAS[::5] for beta in (0.0, 0.9, 1 - 2.0**-53)],
        "beta3_warmup": [None, 1, 10**9],
        "alpha_warmup": [None, 1, 10**9],
    },
    "adopt": {"betas": BETAS, "clip_exponent": [0.0, 0.25, 10.0]},
    "asgd": {"lambd": [0.0, 1e6], "alpha": [0.0, 1e3], "t0": [-1e9, 0, 1.5, 1e9, math.inf]},
    "nadam": {"betas": BETAS, "momentum_decay": [0.0, 1e300]},
    "rmsprop": {"alpha": [0.0, 1.0]},
    "rprop": {"etas": [(1e-9, 1e9)], "step_sizes": [(0.0, 0.0), (0.0, 1e30)]},
    "schedulefreeadamw": {
        "betas": BETAS[::5],
        "mu_x": [None, 0.0, 0.9],
        "mu_y": [1e-9, 1.0],
        "r": [0.0, 32.0],
        "weight_lr_power": [0.0, 32.0],
        "warmup_steps": [0, 1, 10**9],
    },
    "schedulefreesgd": {
        "momentum": [1e-9, 0.9, 1.0],
        "mu_x": [None, 0.0, 0.9],
        "r": [0.0, 32.0],
        "weight_lr_power": [0.0, 32.0],
        "warmup_steps": [0, 1, 10**9],
    },
    "sgd": {"momentum": [0.0, 1.0]},
}
STEPS = [1, 2, 4, 5, 6, 7, 100, 2**24]


def _options(name, chosen):
    optimizer = ours(name)([torch.ones(1)], **chosen)
    return optimizer.options_of(optimizer.param_groups[0])


def _numbers(name, options, step, convert=lambda value: value, measured=1.0):
    """The numbers of a step, those of a measure's terms included."""
    rule = ours(name).rule
    starts = (rule.start(counter, options) for counter in rule.counters)
    counts = tuple(map(convert, (step, *starts)))
    if rule.measure is None:
        return rule.numbers(options, counts)
    sums = dict.fromkeys(rule.measure.names, torch.tensor(measured, dtype=torch.float64))
    found = {
        f"terms' {key}": value
        for key, value in rule.term_numbers(rule.measure, options, counts).items()
    }
    return {**found, **rule.numbers(options, counts, sums)}


@pytest.mark.parametrize("name", NAMES)
def test_extreme_options_give_finite_numbers(name):
    betas = {"betas": BETAS} if "betas" in ours(name).hyperparameters else {}
    extremes = EXTREMES.get(name, betas)
    for values in product(*extremes.values()):
        chosen = {**RICH[name], **dict(zip(extremes, values, strict=True)), "lr": 0.1}
        if name == "sgd":
            chosen["nesterov"] = False
        options = _options(name, chosen)
        for step, measured in product(STEPS, (0.0, 1e-300, 1e300)):
            for key, value in _numbers(name, options, step, measured=measured).items():
                assert math.isfinite(value), (chosen, step, key, measured)


@pytest.mark.parametrize("name", NAMES)
def test_captured_numbers_are_the_same(name):
    """`capturable`: the step count and the counters are tensors."""
    options = _options(name, RICH[name])
    for step in STEPS:
        numbers = _numbers(name, options, step)
        captured = _numbers(name, options, step, lambda x: torch.tensor(x, dtype=torch.float64))
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


FOUND = {("prodigy", "d"), ("prodigy", "d_numerator")}
"""What an optimizer puts into its groups itself."""

NUMBERS = [
    (name, key)
    for name, cls in CATALOGUE.items()
    for key, one in cls.hyperparameters.items()
    if isinstance(one.allowed, Range | Pair) and (name, key) not in FOUND
]
CHOSEN = {
    "adamw_lr": 0.01,
    "shampoo_beta": 0.9,
    "beta3": 0.9,
    "clip_norm": 1.0,
    "clip_value": 1.0,
    "eps": (1e-30, 1e-3),
    "mu_x": 0.5,
    "mu_y": 0.5,
}
"""Values of the hyperparameters whose default is None."""


def _trained(cls, name, options, steps=4):
    params = parameters()
    optimizer = cls(params, **options)
    train(name, optimizer, params, steps)
    return optimizer, params


@pytest.mark.parametrize(("name", "key"), NUMBERS)
def test_a_tensor_stands_for_its_numbers(name, key):
    """As in torch; momentum as a tensor is what a scheduler of tensors leaves."""
    cls = CATALOGUE[name]
    value = cls.hyperparameters[key].default
    if value is None or (isinstance(value, tuple) and None in value):
        value = CHOSEN.get(key, 25)
    whole = cls.hyperparameters[key].allowed.whole if isinstance(value, int) else False
    tensor = torch.tensor(value, dtype=None if whole else torch.float64)
    optimizer, params = _trained(cls, name, {key: tensor})
    _, expected = _trained(cls, name, {key: value})
    for param, other in zip(params, expected, strict=True):
        assert torch.equal(param, other)
    (group,) = optimizer.param_groups
    assert group.get(key, tensor) is tensor
    optimizer.load_state_dict(optimizer.state_dict())
    assert group.get(key, tensor) is tensor


def test_a_tensor_that_is_filled_is_seen():
    betas = torch.tensor([0.5, 0.5], dtype=torch.float64)
    params, others = parameters(), parameters()
    optimizer = ours("adam")(params, betas=betas)
    other = ours("adam")(others, betas=(0.5, 0.5))
    train("adam", optimizer, params, 2)
    train("adam", other, others, 2)
    betas.fill_(0.25)
    other.param_groups[0]["betas"] = (0.25, 0.25)
    train("adam", optimizer, params, 2, 2)
    train("adam", other, others, 2, 2)
    for param, expected in zip(params, others, strict=True):
        assert torch.equal(param, expected)


INFINITE = [
    ("adafactor", {"d": math.inf}),
    ("asgd", {"t0": math.inf}),
    ("lbfgs", {"tolerance_grad": math.inf}),
    ("lbfgs", {"tolerance_grad": -math.inf, "tolerance_change": -math.inf}),
    ("lbfgs", {"tolerance_change": math.inf}),
    ("rprop", {"step_sizes": (0.0, math.inf)}),
]


@pytest.mark.parametrize(("name", "options"), INFINITE)
def test_a_limit_may_be_infinite(name, options):
    _, params = _trained(CATALOGUE[name], name, options)
    _, expected = _trained(torchs(name), name, options)
    for param, other in zip(params, expected, strict=True):
        assert_close(param, other, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("key", ["clip_norm", "clip_value"])
def test_an_infinite_limit_clips_nothing(backend, key):
    _, params = _trained(ours("sgd"), "sgd", {key: math.inf})
    _, expected = _trained(ours("sgd"), "sgd", {})
    for param, other in zip(params, expected, strict=True):
        assert torch.equal(param, other)


@pytest.mark.parametrize("name", NAMES)
def test_an_array_without_dimensions_is_a_number_and_may_be_filled(name):
    """As in torch: `lr=np.array(0.1)` is what `np.asarray` and a field of an array give."""
    if name == "lbfgs":
        pytest.skip("it steps with a closure")
    trained = []
    for lr in (np.array(0.125), 0.125):
        params = parameters()
        optimizer = ours(name)(params, lr=lr)
        train(name, optimizer, params, 2)
        if isinstance(lr, np.ndarray):
            optimizer.param_groups[0]["lr"][()] = 0.5
        else:
            optimizer.param_groups[0]["lr"] = 0.5
        train(name, optimizer, params, 2)
        trained.append(params)
    assert all(map(torch.equal, *trained))


@pytest.mark.parametrize("lr", [np.array([0.1]), np.array([]), np.array(True), np.array(-0.1)])
def test_another_array_is_no_lr(lr):
    with pytest.raises(HyperparameterError, match=r"SGD: lr=array\(.*lr must be a finite number"):
        descend.SGD([torch.ones(1)], lr=lr)
