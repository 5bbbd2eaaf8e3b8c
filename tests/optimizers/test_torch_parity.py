"""Every optimizer against torch's own: options, hyperparameters, sizes, flags."""

import inspect
import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from optimizers.cases import (
    ADDED,
    IN_TORCH,
    NAMES,
    RICH,
    TORCH,
    TORCH_CASE_IDS,
    TORCH_CASES,
    assert_close,
    assert_same_training,
    beside_torch,
    counts,
    give_gradients,
    ours,
    parameters,
    steps_on,
    tensor,
    threads,
    train,
)

# Around the widths of SIMD vectors, of Triton blocks and of the CPU kernel's chunks.
SMALL_SIZES = [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65]
LARGE_SIZES = [1023, 1025, 4097, 32767, 32768, 32769, 65537]


@pytest.mark.parametrize(("name", "options"), TORCH_CASES, ids=TORCH_CASE_IDS)
@pytest.mark.parametrize(
    ("backend", "dtype"),
    [
        ("eager", torch.float64),
        ("eager", torch.float32),
        ("cpu", torch.float64),
        ("cpu", torch.float32),
        ("gpu", torch.float64),  # test_oracle.py has float32 in Triton's interpreter
    ],
    indirect=["backend"],
    ids=str,
)
def test_every_option(backend, name, options, dtype):
    shapes = [(3, 5), (1,), (), (0, 4), (17,)]
    mine, theirs = parameters(shapes, dtype), parameters(shapes, dtype)
    my_optimizer, their_optimizer = ours(name)(mine, **options), TORCH[name](theirs, **options)
    for seed in range(1, steps_on(backend) + 1):
        train(my_optimizer, mine, 1, seed)
        train(their_optimizer, theirs, 1, seed)
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)


@pytest.mark.parametrize(
    ("backend", "count"),
    [("eager", 1), ("eager", 3), ("cpu", 1), ("cpu", 3), ("gpu", 1)],
    indirect=["backend"],
)
@pytest.mark.parametrize("name", IN_TORCH)
def test_sizes_around_vectors_and_chunks(backend, name, count):
    # The interpreter walks a large tensor block by block in Python: two sizes are enough there.
    sizes = SMALL_SIZES + (LARGE_SIZES if backend != "gpu" else [1023, 1025])
    shapes = [(size,) for size in sizes]
    mine, theirs = parameters(shapes, torch.float32), parameters(shapes, torch.float32)
    my_optimizer, their_optimizer = beside_torch(name, mine, theirs)
    for seed in range(1, steps_on(backend, 4, few=2) + 1):
        give_gradients(mine, seed)
        with threads(count):
            my_optimizer.step()
        train(their_optimizer, theirs, 1, seed)
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)


def _unit(low=0.0, high=1.0):
    return st.floats(low, high, allow_nan=False)


HYPERPARAMETERS = {
    "sgd": {
        "momentum": _unit(0.1, 0.99),
        "nesterov": st.booleans(),
        "weight_decay": _unit(),
        "maximize": st.booleans(),
    },
    "adam": {
        "betas": st.tuples(_unit(0, 0.99), _unit(0, 0.9999)),
        "eps": _unit(1e-8, 1e-1),
        "weight_decay": _unit(),
        "amsgrad": st.booleans(),
        "maximize": st.booleans(),
        "decoupled_weight_decay": st.booleans(),
    },
    "adamw": {
        "betas": st.tuples(_unit(0, 0.99), _unit(0, 0.9999)),
        "eps": _unit(1e-8, 1e-1),
        "weight_decay": _unit(),
        "amsgrad": st.booleans(),
        "maximize": st.booleans(),
    },
    "rmsprop": {
        # Below 0.5 the centered variance n - g^2 of the first steps is a difference of nearly
        # equal numbers, whose rounding no two implementations share.
        "alpha": _unit(0.5, 0.999),
        "eps": _unit(1e-6, 1e-1),
        "momentum": _unit(0, 0.99),
        "centered": st.booleans(),
        "weight_decay": _unit(),
        "maximize": st.booleans(),
    },
    "adadelta": {
        "rho": _unit(),
        "eps": _unit(1e-6, 1e-1),
        "weight_decay": _unit(),
        "maximize": st.booleans(),
    },
    "adamax": {
        "betas": st.tuples(_unit(0, 0.99), _unit(0, 0.9999)),
        "eps": _unit(1e-8, 1e-1),
        "weight_decay": _unit(),
        "maximize": st.booleans(),
    },
    "asgd": {
        "lambd": _unit(),
        "alpha": _unit(0, 2.0),
        "t0": _unit(-10, 60),
        "weight_decay": _unit(),
        "maximize": st.booleans(),
    },
    "nadam": {
        "betas": st.tuples(_unit(0, 0.99), _unit(0, 0.9999)),
        "eps": _unit(1e-8, 1e-1),
        "weight_decay": _unit(),
        "momentum_decay": _unit(0, 10.0),
        "decoupled_weight_decay": st.booleans(),
        "maximize": st.booleans(),
    },
    "radam": {
        "betas": st.tuples(_unit(0, 0.99), _unit(0, 0.9999)),
        "eps": _unit(1e-8, 1e-1),
        "weight_decay": _unit(),
        "decoupled_weight_decay": st.booleans(),
        "maximize": st.booleans(),
    },
    "rprop": {
        "etas": st.tuples(_unit(0.01, 0.99), _unit(1.01, 3.0)),
        "step_sizes": st.tuples(_unit(0, 1e-2), _unit(1e-2, 50.0)),
        "maximize": st.booleans(),
    },
    "adagrad": {
        "lr_decay": _unit(),
        "initial_accumulator_value": _unit(0, 2.0),
        "eps": _unit(1e-10, 1e-1),
        "weight_decay": _unit(),
        "maximize": st.booleans(),
    },
}

# A scalar, a vector or a matrix, empty ones too.
shapes_of_parameters = st.lists(
    st.lists(st.sampled_from([0, 1, 2, 3, 7, 8, 15, 16, 17]), max_size=2).map(tuple),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("name", IN_TORCH)
@given(data=st.data(), lr=st.floats(0, 0.1), shapes=shapes_of_parameters, seed=st.integers(0, 99))
def test_any_hyperparameters_and_shapes(backend, name, data, lr, shapes, seed):
    options = data.draw(st.fixed_dictionaries(HYPERPARAMETERS[name]), label="options")
    steps = steps_on(backend, 25, few=2)
    mine, theirs = parameters(shapes, seed=seed), parameters(shapes, seed=seed)
    # At lr 0 gradients that are zero (or empty) only make the state: docs/differences.md.
    assume(lr or any(map(torch.Tensor.numel, mine)))
    my_optimizer = ours(name)(mine, lr=lr, **options)
    their_optimizer = TORCH[name](theirs, lr=lr, **options)
    train(my_optimizer, mine, steps)
    train(their_optimizer, theirs, steps)
    # Float64 roundings, amplified by up to 1 / (1 - momentum) = 100 per accumulator, over 25 steps.
    assert_same_training(my_optimizer, mine, their_optimizer, theirs, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", IN_TORCH)
def test_a_tensor_lr_is_read_at_every_step(backend, name):
    mine, theirs = parameters([(5,)]), parameters([(5,)])
    my_lr, their_lr = (
        torch.tensor(0.05, dtype=torch.float64),
        torch.tensor(0.05, dtype=torch.float64),
    )
    my_optimizer, their_optimizer = ours(name)(mine, lr=my_lr), TORCH[name](theirs, lr=their_lr)
    for seed in range(1, 5):
        train(my_optimizer, mine, 1, seed)
        train(their_optimizer, theirs, 1, seed)
        my_lr.mul_(0.5)
        their_lr.mul_(0.5)
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)
    assert my_optimizer.param_groups[0]["lr"] is my_lr


@pytest.mark.parametrize("flag", [{"foreach": True}, {"foreach": False}, {"fused": True}], ids=str)
@pytest.mark.parametrize("name", IN_TORCH)
def test_torch_speed_hints_change_no_value(backend, name, flag):
    if not set(flag) <= set(ours(name).hyperparameters):
        flag = {"foreach": None}  # torch has no such argument either
    mine, theirs = parameters([(5, 3)]), parameters([(5, 3)])
    my_optimizer = ours(name)(mine, **RICH[name], **flag)
    their_optimizer = TORCH[name](theirs, **RICH[name])
    train(my_optimizer, mine, 8)
    train(their_optimizer, theirs, 8)
    for my_param, their_param in zip(mine, theirs, strict=True):
        assert_close(my_param, their_param)


@pytest.mark.parametrize("name", IN_TORCH)
def test_capturable_is_accepted_on_the_cpu(backend, name):
    """torch raises an AssertionError at the first step; there is nothing to capture here."""
    mine, theirs = parameters([(5,)]), parameters([(5,)])
    my_optimizer = ours(name)(mine, **RICH[name], capturable=True)
    their_optimizer = TORCH[name](theirs, **RICH[name])
    train(my_optimizer, mine, 8)
    train(their_optimizer, theirs, 8)
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_a_captured_step_reads_no_tensor_as_a_number(monkeypatch, name):
    """It would wait for the device, which a graph capture forbids; lr counts all the same."""
    (captured,), (plain,) = parameters([(5,)]), parameters([(5,)])
    rate = torch.tensor(0.05, dtype=torch.float64)
    options = {**RICH[name], "capturable": True, "lr": rate}
    optimizer, expected = ours(name)([captured], **options), ours(name)([plain], **RICH[name])
    expected.param_groups[0]["lr"] = 0.05
    train(optimizer, [captured], 2)
    train(expected, [plain], 2)

    def refuse(*_):
        raise AssertionError("a tensor was read as a number")

    for seed in range(3, 9):
        rate.mul_(0.8)
        expected.param_groups[0]["lr"] = rate.item()
        train(expected, [plain], 1, seed)
        give_gradients([captured], seed)
        with monkeypatch.context() as patch:
            for way in ("item", "tolist", "__float__", "__int__", "__bool__"):
                patch.setattr(torch.Tensor, way, refuse)
            optimizer.step()
    assert_same_training(optimizer, [captured], expected, [plain])


@pytest.mark.parametrize("name", NAMES)
def test_captured_counts_live_on_the_parameters_device(name):
    param = torch.nn.Parameter(torch.ones(3, device="meta"))  # stands for any other device
    for capturable in (True, False):
        optimizer = ours(name)([param], capturable=capturable)
        made = dict(optimizer.state.get(param, {}))  # Adagrad's
        param.grad = torch.ones(3, device="meta")
        optimizer.step()
        for state in (made, optimizer.state[param]):
            devices = {state[count].device.type for count in counts(name) if count in state}
            assert devices <= {"meta" if capturable else "cpu"}


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_flows_through_differentiable_steps(backend, name):
    """The derivative of a loss after two steps by the starting point, against finite differences.

    torch manages one step of Adam and RMSprop, and fails at the second.
    """

    def loss_after_two_steps(start):
        param = start.clone()
        optimizer = ours(name)([param], **RICH[name], differentiable=True)
        for power in (2, 3) * (3 if name == "radam" else 1):  # it adapts from the sixth step on
            (param.grad,) = torch.autograd.grad((start**power).sum(), start, create_graph=True)
            optimizer.step()
        return (param**2).sum()

    start = torch.linspace(1, 2, 4, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(loss_after_two_steps, (start,))


# The rates of the other two are state, which starts from the value of lr, as in torch.
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("asgd", "rprop")])
def test_a_gradient_flows_to_a_tensor_lr(name):
    def loss_after_seven_steps(rate):
        param = torch.linspace(1, 2, 4, dtype=torch.float64)
        optimizer = ours(name)([param], **{**RICH[name], "lr": rate}, differentiable=True)
        for seed in range(1, 8):
            param.grad = tensor(seed, (4,))
            optimizer.step()
        return (param**2).sum()

    rate = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(loss_after_seven_steps, (rate,))


@pytest.mark.parametrize("name", IN_TORCH)
def test_a_differentiable_step_has_torchs_derivative(backend, name):
    results = []
    options = {
        "lr": 0.1,
        **({} if "weight_decay" in ADDED.get(name, {}) else {"weight_decay": 0.1}),
    }
    for make in (ours(name), TORCH[name]):
        start = torch.linspace(1, 2, 4, dtype=torch.float64, requires_grad=True)
        param = start.clone()
        optimizer = make([param], **options, differentiable=True)
        (param.grad,) = torch.autograd.grad((start**3).sum(), start, create_graph=True)
        optimizer.step()
        results.append((param, *torch.autograd.grad((param**2).sum(), start)))
    # torch keeps the step and with it the bias corrections in float32 here.
    for mine, theirs in zip(*results, strict=True):
        assert_close(mine, theirs, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("option", [{"maximize": True}, {"clip_norm": 0.5}, {"clip_value": 0.05}])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_left_as_they_are(backend, name, option):
    params = parameters([(5, 3), (17,), (), (0,)])
    optimizer = ours(name)(params, **{**RICH[name], **option})
    for seed in range(1, 4):
        give_gradients(params, seed)
        before = [(param.grad, param.grad.clone()) for param in params]
        optimizer.step()
        for param, (grad, copy) in zip(params, before, strict=True):
            assert param.grad is grad
            assert torch.equal(grad, copy)


@pytest.mark.parametrize("name", IN_TORCH)
def test_a_step_returns_the_closures_loss(backend, name):
    mine, theirs = parameters([(5,)]), parameters([(5,)])
    my_optimizer, their_optimizer = beside_torch(name, mine, theirs)
    for optimizer, (param,) in ((my_optimizer, mine), (their_optimizer, theirs)):

        def closure(optimizer=optimizer, param=param):
            assert torch.is_grad_enabled()
            optimizer.zero_grad()
            loss = (param**2).sum()
            loss.backward()
            return loss

        for _ in range(8):
            expected = (param**2).sum().item()
            loss = optimizer.step(closure)
            assert loss.item() == expected
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)
    give_gradients(mine, 1)
    assert my_optimizer.step() is None


# RAdam adapts from the sixth step on; ASGD, with its rich options, averages from the fourth on.
@pytest.mark.parametrize("at", [3, 8])
@pytest.mark.parametrize("name", IN_TORCH)
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_nonfinite_gradients_spread_as_in_torch(backend, name, poison, at):
    mine, theirs = parameters([(5,)]), parameters([(5,)])
    options = RICH[name] if at > 3 else {"lr": RICH[name]["lr"]}
    my_optimizer, their_optimizer = ours(name)(mine, **options), TORCH[name](theirs, **options)
    for seed in range(1, at + 3):
        for optimizer, params in ((my_optimizer, mine), (their_optimizer, theirs)):
            give_gradients(params, seed)
            if seed == at:
                params[0].grad[2] = poison
            optimizer.step()
        assert_same_training(my_optimizer, mine, their_optimizer, theirs)


@pytest.mark.parametrize("name", IN_TORCH)
def test_the_signature_is_torchs(name):
    """Every argument of torch at its position, with its default; then descend's, by keyword."""
    mine = inspect.signature(ours(name)).parameters
    theirs = inspect.signature(TORCH[name]).parameters
    for key, expected in theirs.items():
        assert mine[key].kind == expected.kind, key
        assert mine[key].default == expected.default, key
    assert list(mine)[: len(theirs)] == list(theirs)
    extra = {key: value for key, value in mine.items() if key not in theirs}
    assert {key: value.default for key, value in extra.items()} == {
        **ADDED.get(name, {}),
        "clip_norm": None,
        "clip_value": None,
        "skip_nonfinite": False,
        "cautious": False,
        "cautious_weight_decay": False,
    }
    assert all(value.kind == value.KEYWORD_ONLY for value in extra.values())


@pytest.mark.parametrize("name", IN_TORCH)
def test_it_is_a_torch_optimizer(name):
    params = parameters([(2,)])
    optimizer = ours(name)(params)
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert type(optimizer).__name__ == TORCH[name].__name__
