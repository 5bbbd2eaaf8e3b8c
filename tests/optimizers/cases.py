"""The options each optimizer is tried with, and how two optimizers are run side by side."""

import inspect
import os
from contextlib import contextmanager

import torch

from descend.optimizers import CATALOGUE


@contextmanager
def float64_by_default():
    """torch.optim keeps step counts and other scalars in torch's default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _with_float64_scalars(cls):
    """A class of torch whose scalars beside the step count are float64, as descend's always are."""

    class Exact(cls):
        def step(self, closure=None):
            with float64_by_default():
                return super().step(closure)

        step.hooked = True  # the inherited step runs the hooks

    Exact.__name__ = cls.__name__
    cls([torch.zeros(1)])  # torch puts its hooks around the step of a class when it is first used
    return Exact


# The elementwise rules that torch has too.
TORCH = {
    "adadelta": torch.optim.Adadelta,
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
    "adamax": torch.optim.Adamax,
    "adamw": torch.optim.AdamW,
    "asgd": _with_float64_scalars(torch.optim.ASGD),
    "nadam": _with_float64_scalars(torch.optim.NAdam),
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
    "rprop": torch.optim.Rprop,
    "sgd": torch.optim.SGD,
}
IN_TORCH = sorted(TORCH)

# The options that torch does not have, beside clipping: their defaults, by keyword only.
ADDED = {
    "adagrad": {"capturable": False},
    "rprop": {"weight_decay": 0},
    "sgd": {"capturable": False},
}

# Whether the GPU kernels run in Triton's interpreter (tests/conftest.py sets this).
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

# Every option alone and in company. The learning rates are large enough that 50 steps move a
# parameter by its own size: a wrong formula shows.
OPTIONS = {
    "ademamix": [
        {"lr": 0.02},
        {"lr": 0.02, "betas": (0.5, 0.8, 0.95), "eps": 1e-3},
        {"lr": 0.02, "betas": (0.8, 0.9, 0.99), "alpha": 8.0},
        {"lr": 0.02, "betas": (0.8, 0.9, 0.99), "beta3_warmup": 20},
        {"lr": 0.02, "betas": (0.8, 0.9, 0.5), "beta3_warmup": 20},  # the slow mean is the faster
        {"lr": 0.02, "alpha": 5.0, "alpha_warmup": 20},
        {"lr": 0.02, "weight_decay": 0.3},
        {"lr": 0.02, "maximize": True},
        {
            "lr": 0.02,
            "betas": (0.7, 0.8, 0.97),
            "alpha": 5.0,
            "beta3_warmup": 30,
            "alpha_warmup": 4,
            "weight_decay": 0.2,
            "maximize": True,
        },
    ],
    "adopt": [
        {"lr": 0.02},
        {"lr": 0.02, "betas": (0.5, 0.8), "eps": 0.5},
        {"lr": 0.02, "clip_exponent": None},
        {"lr": 0.02, "clip_exponent": 0.0, "betas": (0.8, 0.9)},
        {"lr": 0.02, "weight_decay": 0.1},
        {"lr": 0.02, "weight_decay": 0.3, "decoupled_weight_decay": True},
        {"lr": 0.02, "maximize": True},
        {"lr": 0.02, "betas": (0.8, 0.7), "weight_decay": 0.1, "maximize": True},
    ],
    "adadelta": [
        {"lr": 5.0},
        {"lr": 2.0, "rho": 0.5, "eps": 1e-3},
        {"lr": 5.0, "weight_decay": 0.1},
        {"lr": 5.0, "maximize": True},
        {"lr": 2.0, "rho": 0.8, "eps": 1e-2, "weight_decay": 0.1, "maximize": True},
    ],
    "adamax": [
        {"lr": 0.02},
        {"lr": 0.02, "betas": (0.5, 0.8), "eps": 1e-3},
        {"lr": 0.02, "weight_decay": 0.1},
        {"lr": 0.02, "maximize": True},
        {"lr": 0.02, "betas": (0.8, 0.7), "weight_decay": 0.1, "maximize": True},
    ],
    "asgd": [
        {"lr": 0.02},
        {"lr": 0.02, "lambd": 0.5, "alpha": 0.9},
        {"lr": 0.02, "t0": 2.5},
        {"lr": 0.02, "weight_decay": 0.1},
        {"lr": 0.02, "maximize": True},
        {"lr": 0.02, "lambd": 0.1, "t0": 0, "weight_decay": 0.1, "maximize": True},
    ],
    "lamb": [
        {"lr": 0.02},
        {"lr": 0.02, "betas": (0.5, 0.8), "eps": 1e-3},
        {"lr": 0.02, "weight_decay": 0.3},
        {"lr": 0.02, "trust_ratio": False, "weight_decay": 0.1},
        {"lr": 0.02, "maximize": True},
        {"lr": 0.02, "betas": (0.8, 0.7), "weight_decay": 0.1, "maximize": True},
    ],
    "mars": [
        {"lr": 0.02},
        {"lr": 0.02, "betas": (0.5, 0.8), "eps": 1e-3, "gamma": 0.5},
        {"lr": 0.02, "weight_decay": 0.3, "gamma": 0.0},
        {"lr": 0.02, "adamw": True, "weight_decay": 0.1},
        {"lr": 0.02, "maximize": True},
        {"lr": 0.02, "betas": (0.8, 0.7), "weight_decay": 0.1, "maximize": True},
    ],
    # A start of 0.1: from 1e-6 some steps would move nothing.
    "prodigy": [
        {"lr": 0.3, "d0": 0.1},
        {"lr": 0.3, "d0": 0.1, "betas": (0.5, 0.8), "eps": 1e-3, "beta3": 0.7},
        {"lr": 0.3, "d0": 0.1, "weight_decay": 0.1},
        {"lr": 0.3, "d0": 0.1, "weight_decay": 0.1, "decoupled_weight_decay": False},
        {"lr": 0.3, "d0": 0.1, "use_bias_correction": True, "d_coef": 0.5},
        {"lr": 0.3, "d0": 0.1, "safeguard_warmup": True, "maximize": True},
        {"lr": 0.3, "d0": 0.05, "d": 0.2, "d_numerator": 0.1, "betas": (0.0, 0.9)},
        {"lr": 0.2, "d0": 0.1, "betas": (0.8, 0.7), "weight_decay": 0.1, "maximize": True},
    ],
    "stableadamw": [
        {"lr": 0.02},
        {"lr": 0.02, "betas": (0.5, 0.8), "eps": 1e-3, "weight_decay": 0.0},
        {"lr": 0.02, "betas": (0.9, 0.999), "weight_decay": 0.3},
        {"lr": 0.02, "eps": 0.5},  # the larger of both under the ratio
        {"lr": 0.02, "maximize": True},
        {"lr": 0.02, "betas": (0.8, 0.7), "weight_decay": 0.1, "maximize": True},
    ],
    "lion": [
        {"lr": 0.02},
        # Odd shares, or momentum and a 16-bit gradient may cancel exactly but for a rounding.
        {"lr": 0.02, "betas": (0.5123, 0.8)},
        {"lr": 0.02, "weight_decay": 0.3},
        {"lr": 0.02, "maximize": True},
        {"lr": 0.02, "betas": (0.8123, 0.7), "weight_decay": 0.2, "maximize": True},
    ],
    "nadam": [
        {"lr": 0.02},
        {"lr": 0.02, "betas": (0.5, 0.8), "eps": 1e-3},
        {"lr": 0.02, "momentum_decay": 0.5},
        {"lr": 0.02, "weight_decay": 0.1},
        {"lr": 0.02, "weight_decay": 0.3, "decoupled_weight_decay": True},
        {"lr": 0.02, "maximize": True},
        {"lr": 0.02, "betas": (0.8, 0.7), "weight_decay": 0.1, "maximize": True},
    ],
    "radam": [
        {"lr": 0.02},
        {"lr": 0.02, "betas": (0.5, 0.9), "eps": 1e-3},
        {"lr": 0.02, "betas": (0.9, 0.5)},  # never adapts
        {"lr": 0.02, "weight_decay": 0.1},
        {"lr": 0.02, "weight_decay": 0.3, "decoupled_weight_decay": True},
        {"lr": 0.02, "maximize": True},
        {"lr": 0.02, "betas": (0.8, 0.9), "weight_decay": 0.1, "maximize": True},
    ],
    "rprop": [
        {"lr": 0.02},
        {"lr": 0.02, "etas": (0.3, 1.6)},
        {"lr": 0.02, "step_sizes": (0.015, 0.03)},
        {"lr": 0.02, "weight_decay": 0.1},
        {"lr": 0.02, "maximize": True},
        {"lr": 0.02, "etas": (0.7, 1.1), "step_sizes": (0.05, 0.1), "maximize": True},
    ],
    "schedulefreeadamw": [
        {"lr": 0.02},
        {"lr": 0.02, "betas": (0.5, 0.8), "eps": 1e-3},
        {"lr": 0.02, "weight_decay": 0.3},
        {"lr": 0.02, "warmup_steps": 20},
        {"lr": 0.02, "warmup_steps": 20, "r": 1.5, "weight_lr_power": 1.0},
        {"lr": 0.02, "weight_lr_power": 0.0, "maximize": True},
        {"lr": 0.02, "mu_x": 0.8},
        {"lr": 0.02, "mu_y": 0.7, "betas": (0.0, 0.9)},
        {"lr": 0.02, "mu_x": 0.0, "mu_y": 1.0, "betas": (0.8, 0.9)},
        {
            "lr": 0.02,
            "betas": (0.8, 0.7),
            "mu_x": 0.9,
            "mu_y": 0.6,
            "warmup_steps": 4,
            "weight_decay": 0.2,
            "maximize": True,
        },
    ],
    "schedulefreesgd": [
        {"lr": 0.02},
        {"lr": 0.02, "momentum": 0.5},
        {"lr": 0.02, "weight_decay": 0.1},
        {"lr": 0.02, "warmup_steps": 20},
        {"lr": 0.02, "warmup_steps": 20, "r": 1.5, "weight_lr_power": 1.0},
        {"lr": 0.02, "momentum": 1.0, "weight_lr_power": 0.0},
        {"lr": 0.02, "mu_x": 0.8},
        {"lr": 0.02, "momentum": 0.7, "mu_x": 0.9, "weight_decay": 0.1, "maximize": True},
    ],
    "sgd": [
        {"lr": 0.02},
        {"lr": 0.02, "weight_decay": 0.1},
        {"lr": 0.02, "maximize": True},
        {"lr": 0.02, "momentum": 0.9},
        {"lr": 0.02, "momentum": 0.8, "dampening": 0.3},
        {"lr": 0.02, "momentum": 0.9, "nesterov": True},
        {"lr": 0.02, "momentum": 0.7, "dampening": 0.2, "weight_decay": 0.1, "maximize": True},
        {"lr": 0.02, "momentum": 0.7, "nesterov": True, "weight_decay": 0.1, "maximize": True},
    ],
    "adam": [
        {"lr": 0.02},
        {"lr": 0.02, "betas": (0.5, 0.8), "eps": 1e-3},
        {"lr": 0.02, "weight_decay": 0.1},
        {"lr": 0.02, "maximize": True},
        {"lr": 0.02, "amsgrad": True, "betas": (0.9, 0.9)},
        {"lr": 0.02, "amsgrad": True, "betas": (0.8, 0.7), "weight_decay": 0.1, "maximize": True},
    ],
    "adamw": [
        {"lr": 0.02},
        {"lr": 0.02, "betas": (0.5, 0.8), "eps": 1e-3, "weight_decay": 0.0},
        {"lr": 0.02, "weight_decay": 0.3},
        {"lr": 0.02, "maximize": True},
        {"lr": 0.02, "amsgrad": True, "betas": (0.9, 0.9)},
        {"lr": 0.02, "amsgrad": True, "betas": (0.8, 0.7), "weight_decay": 0.2, "maximize": True},
    ],
    "rmsprop": [
        {"lr": 0.02},
        {"lr": 0.02, "alpha": 0.8, "eps": 1e-3},
        {"lr": 0.02, "weight_decay": 0.1},
        {"lr": 0.02, "maximize": True},
        {"lr": 0.02, "momentum": 0.8},
        {"lr": 0.02, "centered": True},
        {"lr": 0.02, "centered": True, "momentum": 0.5, "weight_decay": 0.1, "maximize": True},
    ],
    "adagrad": [
        {"lr": 0.1},
        {"lr": 0.1, "lr_decay": 0.05},
        {"lr": 0.1, "weight_decay": 0.1},
        {"lr": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-3},
        {"lr": 0.1, "maximize": True},
        {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "maximize": True},
    ],
}


def _label(name, options):
    return "-".join([name, *(f"{key}={value}" for key, value in options.items() if key != "lr")])


NAMES = sorted(OPTIONS)
CASES = [(name, options) for name in NAMES for options in OPTIONS[name]]
CASE_IDS = [_label(name, options) for name, options in CASES]

TORCH_CASES = [
    (name, options)
    for name, options in CASES
    if name in TORCH and set(options) <= set(inspect.signature(TORCH[name]).parameters)
]
TORCH_CASE_IDS = [_label(name, options) for name, options in TORCH_CASES]

# One per optimizer that turns every kind of state on, for tests about something else; of those that
# are not here the last of the options above.
RICH = {
    **{name: options[-1] for name, options in OPTIONS.items()},
    "sgd": {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    "adam": {"lr": 0.02, "amsgrad": True, "weight_decay": 0.1},
    "adamw": {"lr": 0.02, "amsgrad": True, "weight_decay": 0.1},
    "rmsprop": {"lr": 0.02, "centered": True, "momentum": 0.5, "weight_decay": 0.1},
    "adagrad": {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1},
    "adadelta": {"lr": 2.0, "eps": 1e-3, "weight_decay": 0.1},
    "adamax": {"lr": 0.02, "weight_decay": 0.1},
    "ademamix": {
        "lr": 0.02,
        "betas": (0.8, 0.9, 0.99),
        "alpha": 5.0,
        "beta3_warmup": 4,
        "alpha_warmup": 6,
        "weight_decay": 0.1,
    },
    "adopt": {"lr": 0.02, "weight_decay": 0.1, "decoupled_weight_decay": True},
    "asgd": {"lr": 0.02, "lambd": 0.1, "t0": 1.5, "weight_decay": 0.1},
    "lion": {"lr": 0.02, "weight_decay": 0.1},
    "nadam": {"lr": 0.02, "weight_decay": 0.1, "decoupled_weight_decay": True},
    "radam": {"lr": 0.02, "weight_decay": 0.1},
    "rprop": {"lr": 0.02},
    "schedulefreeadamw": {
        "lr": 0.02,
        "betas": (0.8, 0.9),
        "mu_y": 0.7,
        "warmup_steps": 4,
        "r": 1.0,
        "weight_decay": 0.1,
    },
    "schedulefreesgd": {"lr": 0.02, "warmup_steps": 4, "r": 1.0, "weight_decay": 0.1},
}

# How many steps at first move nothing.
IDLE = {"adopt": 1, "soap": 1}

# Relative and absolute error allowed after about 50 steps of parameters near 1.
# float64: 50 steps of about 5 roundings of 1e-16, and as much again where 1 - beta amplifies them.
# float32: the same count of roundings of 6e-8.
TOLERANCE = {
    torch.float64: {"rtol": 1e-12, "atol": 1e-13},
    torch.complex128: {"rtol": 1e-12, "atol": 1e-13},
    torch.float32: {"rtol": 2e-5, "atol": 2e-6},
    torch.complex64: {"rtol": 2e-5, "atol": 2e-6},
}


def ours(name):
    """The descend class of that name."""
    return CATALOGUE[name]


def beside_torch(name, mine, theirs):
    """An optimizer of descend and the one of torch, every kind of state turned on."""
    return ours(name)(mine, **RICH[name]), TORCH[name](theirs, **RICH[name])


def counts(name):
    """What the state of an optimizer counts, beside its tensors: `step`, `mu_product`, ..."""
    return ours(name).rule.counts


def steps_on(backend, many=50, few=7):
    """How many steps a test takes: Triton's interpreter needs tens of ms for each launch.

    RAdam adapts from its sixth step on: a test of the update itself takes as many there, too.
    """
    return few if backend == "gpu" else many


@contextmanager
def threads(count):
    """Let steps inside use so many threads (the tests otherwise run on one)."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def tensor(seed, shape, dtype=torch.float64, device="cpu"):
    """A tensor of normal numbers that depends on nothing but the arguments."""
    numbers = torch.Generator().manual_seed(seed)
    made = torch.complex128 if dtype.is_complex else torch.float64
    return torch.randn(shape, generator=numbers, dtype=made).to(dtype).to(device)


def parameters(shapes, dtype=torch.float64, seed=0, device="cpu"):
    """One parameter per shape."""
    return [
        torch.nn.Parameter(tensor(seed + index, shape, dtype, device))
        for index, shape in enumerate(shapes)
    ]


def give_gradients(params, seed):
    """Set every gradient to a new tensor of normal numbers, in the parameter's layout."""
    for index, param in enumerate(params):
        param.grad = torch.empty_like(param).copy_(
            tensor(1000 * seed + index, param.shape, param.dtype)
        )


def train(optimizer, params, steps, first=1):
    """Step with the gradients of the seeds first, first + 1, ..."""
    for seed in range(first, first + steps):
        give_gradients(params, seed)
        optimizer.step()


def state_of(optimizer, params):
    """The state of each parameter, as plain dicts."""
    return [dict(optimizer.state.get(param, {})) for param in params]


def assert_close(actual, expected, what="", **tolerance):
    """Raise unless two tensors agree in dtype, shape and value (NaN equals NaN)."""
    tolerance = tolerance or TOLERANCE[actual.dtype]
    torch.testing.assert_close(
        actual.detach(),
        expected.detach(),
        equal_nan=True,
        msg=lambda text: f"{what}: {text}",
        **tolerance,
    )


def assert_same_training(mine, my_params, theirs, their_params, **tolerance):
    """Raise unless parameters and state agree: the same keys, dtypes, shapes and values.

    Counts agree in value; torch's dtype for them depends on torch's default (see above), and
    test_state.py compares it. The step is exact, the others differ by the roundings of a power.
    """
    exact = {"rtol": 0, "atol": 0}
    for index, (my_param, their_param) in enumerate(zip(my_params, their_params, strict=True)):
        assert_close(my_param, their_param, f"parameter {index}", **tolerance)
        my_state, their_state = mine.state.get(my_param, {}), theirs.state.get(their_param, {})
        assert list(my_state) == list(their_state), f"state keys of parameter {index}"
        for key, expected in their_state.items():
            what = f"{key} of parameter {index}"
            if key in mine.rule.counts:
                close = exact if key == "step" or tolerance == exact else {"rtol": 1e-13, "atol": 0}
                assert_close(my_state[key].double(), expected.double(), what, **close)
            else:
                assert_close(my_state[key], expected, what, **tolerance)
