"""Adafactor: against the paper, against torch, and what neither of them has."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from descend.errors import HyperparameterError, ParameterError
from descend.optimizers import Adafactor, blocks
from optimizers.cases import (
    assert_close,
    assert_same_training,
    give_gradients,
    parameters,
    tensor,
    train,
)
from oracles import adafactor as oracle

# Matrices, vectors, a number, many matrices; of one row, one column, one element.
SHAPES = [(7, 5), (17,), (), (1,), (3, 4, 5), (2, 3, 2, 3), (1, 7), (7, 1), (6, 1, 1)]
OPTIONS = [
    {},
    {"lr": 0.3, "weight_decay": 0.1},
    {"lr": 0.3, "beta2_decay": -0.3},
    {"lr": 0.3, "beta2_decay": 0.0},
    {"lr": 0.3, "eps": (0.5, 0.3)},
    {"lr": 0.3, "eps": (0.0, 0.0)},
    {"lr": 0.3, "d": 1.7},
    {"lr": 0.3, "maximize": True, "weight_decay": 0.2},
]


def _label(options):
    return ", ".join(f"{key}={value}" for key, value in options.items()) or "defaults"


def _numbers(dtype):
    return np.complex128 if dtype.is_complex else np.float64


def _agrees_with_the_paper(shape, dtype, options, steps=50):
    param = torch.nn.Parameter(tensor(0, shape, dtype))
    optimizer = Adafactor([param], **options)
    expected = param.detach().numpy().astype(_numbers(dtype))
    state = oracle.start(expected)
    of = {"dtype": np.float32} if dtype in (torch.float32, torch.complex64) else {}
    for t in range(1, steps + 1):
        grad = tensor(t, shape, dtype)
        expected, state = oracle.step(
            expected, grad.numpy().astype(_numbers(dtype)), state, t, **options, **of
        )
        param.grad = grad
        optimizer.step()
        assert_close(param, torch.from_numpy(np.asarray(expected)).to(dtype), f"step {t}")
        kept = optimizer.state[param]
        assert list(kept) == ["step", *state]
        assert kept["step"].item() == t
        for key, value in state.items():
            exact = torch.from_numpy(np.asarray(value)).to(dtype)
            assert_close(kept[key], exact, f"{key} at step {t}")


@pytest.mark.parametrize("options", OPTIONS, ids=_label)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_agrees_with_the_paper(shape, dtype, options):
    _agrees_with_the_paper(shape, dtype, options)


@pytest.mark.parametrize("dtype", [torch.complex128, torch.complex64], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_complex_parameters_agree_with_the_paper(shape, dtype):
    _agrees_with_the_paper(shape, dtype, {"lr": 0.3, "weight_decay": 0.1, "eps": (0.1, 1e-3)})


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_blocks_change_nothing(small_blocks, shape):
    _agrees_with_the_paper(shape, torch.float64, {"lr": 0.3, "weight_decay": 0.1}, steps=8)


@pytest.mark.parametrize("shape", [(40, 3), (3, 40), (40, 3, 2), (3, 40, 2), (2, 2, 40), (41,)])
def test_any_dimension_can_be_cut(small_blocks, shape):
    assert blocks.Blocks(torch.empty(shape)).length
    _agrees_with_the_paper(shape, torch.float32, {"lr": 0.3}, steps=8)
    _agrees_with_the_paper(shape, torch.complex128, {"lr": 0.3}, steps=8)


def test_a_block_is_neither_too_large_nor_a_part_of_a_row():
    assert not blocks.Blocks(torch.empty(4096, 3418, device="meta")).length  # larger elsewhere
    assert blocks.Blocks(torch.empty(8192, 3418, device="meta")).length > 4096
    large = torch.empty(1).expand(4096, 3418)
    parts = blocks.Blocks(large).of(large)
    assert {part.shape[1] for part in parts} == {3418}
    assert sum(part.shape[0] for part in parts) == 4096
    assert max(part.numel() for part in parts) <= blocks.BLOCK["cpu"] < 2 * parts[0].numel()


@pytest.mark.parametrize("foreach", [None, True], ids=["default", "foreach"])
@pytest.mark.parametrize("options", OPTIONS, ids=_label)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_trains_as_torch(dtype, options, foreach):
    mine, theirs = parameters(SHAPES, dtype), parameters(SHAPES, dtype)
    my_optimizer = Adafactor(mine, **options)
    their_optimizer = torch.optim.Adafactor(theirs, **options, foreach=foreach)
    train(my_optimizer, mine, 50)
    train(their_optimizer, theirs, 50)
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)


def _unit(low=0.0, high=1.0):
    return st.floats(low, high, allow_nan=False)


@given(
    options=st.fixed_dictionaries(
        {
            "lr": _unit(),
            "beta2_decay": _unit(-2.0, 0.0),
            "eps": st.tuples(st.none() | _unit(0.0, 2.0), _unit()),
            "d": _unit(1.0, 3.0),
            "weight_decay": _unit(),
            "maximize": st.booleans(),
        }
    ),
    shapes=st.lists(
        st.lists(st.sampled_from([1, 2, 3, 7, 8, 15, 16, 17]), max_size=3).map(tuple),
        min_size=1,
        max_size=4,
    ),
    seed=st.integers(0, 99),
)
def test_any_options_and_shapes_train_as_torch(options, shapes, seed):
    mine, theirs = parameters(shapes, seed=seed), parameters(shapes, seed=seed)
    my_optimizer, their_optimizer = (
        Adafactor(mine, **options),
        torch.optim.Adafactor(theirs, **options),
    )
    train(my_optimizer, mine, 20)
    train(their_optimizer, theirs, 20)
    # A parameter that comes near zero has lost the digits of what it was: absolute, not relative.
    assert_same_training(my_optimizer, mine, their_optimizer, theirs, rtol=1e-10, atol=1e-11)


def test_a_thousand_steps_are_no_less_exact_than_torchs():
    """Float32, against the oracle in float64; the mean error over parameters of three shapes."""
    mine, theirs = (parameters([(64, 64), (64,), (8, 16, 9)], torch.float32) for _ in range(2))
    my_optimizer, their_optimizer = Adafactor(mine), torch.optim.Adafactor(theirs)
    exact = [param.detach().double().numpy() for param in mine]
    states = [oracle.start(param) for param in exact]
    for t in range(1, 1001):
        train(my_optimizer, mine, 1, t)
        train(their_optimizer, theirs, 1, t)
        for index, param in enumerate(mine):
            exact[index], states[index] = oracle.step(
                exact[index], param.grad.double().numpy(), states[index], t, dtype=np.float32
            )
    errors = [
        np.mean([np.abs(p.detach().numpy() - e).mean() for p, e in zip(params, exact, strict=True)])
        for params in (mine, theirs)
    ]
    # As exact as torch's within a tenth: the noise of the roundings, which differ.
    assert 0 < errors[0] < 1.1 * errors[1]
    assert errors[0] < 1e-5


def test_without_an_epsilon_each_parameter_has_that_of_its_own_dtype():
    """torch takes the first parameter's for all of a group."""
    vanishing = 1e-9  # between the epsilons of float64 and float32
    results = {}
    for dtypes in [
        (torch.float32,),
        (torch.float64,),
        (torch.float32, torch.float64),
        (torch.float64, torch.float32),
    ]:
        params = [torch.nn.Parameter(torch.ones(4, dtype=dtype)) for dtype in dtypes]
        optimizer = Adafactor(params, lr=0.5)
        for param in params:
            param.grad = torch.full((4,), vanishing, dtype=param.dtype)
        optimizer.step()
        results[dtypes] = {param.dtype: param.detach() for param in params}
    for dtypes, found in results.items():
        for dtype in dtypes:
            assert torch.equal(found[dtype], results[dtype,][dtype])
    tiny = torch.finfo(torch.float32).eps
    assert_close(results[torch.float32,][torch.float32], torch.full((4,), 1 - 0.5 * 1e-9 / tiny))
    assert_close(results[torch.float64,][torch.float64], torch.full((4,), 0.5, dtype=torch.float64))


def test_p12_an_empty_parameter_is_stepped_over():
    """torch divides by zero."""
    params = parameters([(0,), (0, 4), (4, 0), (2, 0, 3), (3, 2)])
    optimizer = Adafactor(params, lr=0.1, weight_decay=0.1)
    alone = parameters([(3, 2)], seed=4)
    train(optimizer, params, 3)
    assert [optimizer.state[param]["step"].item() for param in params] == [3] * 5
    reference = Adafactor(alone, lr=0.1, weight_decay=0.1)
    for seed in range(1, 4):
        alone[0].grad = tensor(1000 * seed + 4, (3, 2))
        reference.step()
    assert torch.equal(params[4], alone[0])


@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 3, 4)])
def test_zero_gradients_leave_the_parameter(shape):
    param = torch.nn.Parameter(tensor(0, shape))
    before = param.detach().clone()
    optimizer = Adafactor([param])
    for _ in range(3):
        param.grad = torch.zeros(shape, dtype=param.dtype)
        optimizer.step()
    assert torch.equal(param, before)


def test_rows_without_a_gradient_stay():
    """As those of an embedding whose words are not in the batch."""
    (param,) = parameters([(6, 4)])
    before = param.detach().clone()
    optimizer = Adafactor([param], lr=0.1)
    for seed in range(1, 5):
        param.grad = tensor(seed, (6, 4))
        param.grad[[1, 4]] = 0
        optimizer.step()
    moved = (param != before).any(dim=1)
    assert moved.tolist() == [True, False, True, True, False, True]


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 3, 4)])
def test_nonfinite_gradients_spread_as_in_torch(shape, poison):
    mine, theirs = parameters([shape]), parameters([shape])
    my_optimizer, their_optimizer = Adafactor(mine), torch.optim.Adafactor(theirs)
    for optimizer, params in ((my_optimizer, mine), (their_optimizer, theirs)):
        train(optimizer, params, 2)
        give_gradients(params, 3)
        params[0].grad.view(-1)[2] = poison
        optimizer.step()
        train(optimizer, params, 2, first=4)
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)


@pytest.mark.parametrize("shape", [(1200, 1000), (1100000,), (3, 700, 600)], ids=str)
def test_large_parameters_are_nearer_the_truth_than_torchs(shape):
    """The truth is float64 on one block; float32 is cut into several."""
    options = {"lr": 0.1, "eps": (torch.finfo(torch.float32).eps, 1e-3)}
    mine, theirs = parameters([shape], torch.float32), parameters([shape], torch.float32)
    truth = [torch.nn.Parameter(mine[0].detach().double())]
    optimizers = [
        make(params, **options)
        for make, params in (
            (Adafactor, mine),
            (torch.optim.Adafactor, theirs),
            (torch.optim.Adafactor, truth),
        )
    ]
    assert blocks.Blocks(mine[0]).length
    for seed in range(1, 4):
        give_gradients(mine, seed)
        theirs[0].grad, truth[0].grad = mine[0].grad, mine[0].grad.double()
        for optimizer in optimizers:
            optimizer.step()
    errors = [(params[0].double() - truth[0]).abs().mean().item() for params in (mine, theirs)]
    assert 0 < errors[0] < errors[1] < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(8, 6), (40,), (2, 3, 5)], ids=str)
def test_sixteen_bits_are_computed_in_float32_and_rounded_once(small_blocks, shape, dtype):
    tiny = torch.finfo(dtype).eps
    options = {"lr": 0.3, "weight_decay": 0.1, "eps": (tiny, 1e-3)}
    (mine,) = parameters([shape], dtype)
    my_optimizer = Adafactor([mine], **{**options, "eps": (None, 1e-3)})
    for seed in range(1, 9):
        grad = tensor(seed, shape, dtype)
        wide = torch.nn.Parameter(mine.detach().float())
        reference = Adafactor([wide], **options)
        if seed > 1:
            reference.state[wide] = {
                key: value.float().clone() for key, value in my_optimizer.state[mine].items()
            }
        mine.grad, wide.grad = grad, grad.float()
        my_optimizer.step()
        reference.step()
        assert mine.dtype is dtype
        # Sums of blocks add up in another order, so that a number just between two others may go
        # to either: one unit of the last place, and only for a few.
        unit = {"rtol": tiny, "atol": torch.finfo(dtype).tiny}
        assert_close(mine, wide.to(dtype), **unit)
        assert (mine == wide.to(dtype)).double().mean() > 0.95
        for key, value in reference.state[wide].items():
            if key != "step":
                assert my_optimizer.state[mine][key].dtype is dtype
                assert_close(my_optimizer.state[mine][key], value.to(dtype), key, **unit)


def test_sixteen_bits_are_nearer_the_truth_than_torchs():
    options = {"lr": 0.1, "eps": (1e-3, 1e-3)}
    exact = parameters([(32, 16), (40,)], torch.bfloat16)
    mine, theirs = ([torch.nn.Parameter(p.detach().clone()) for p in exact] for _ in range(2))
    exact = [torch.nn.Parameter(param.detach().double()) for param in exact]
    errors = []
    for make, params in ((Adafactor, mine), (torch.optim.Adafactor, theirs)):
        truth = [torch.nn.Parameter(param.detach().clone()) for param in exact]
        optimizer, reference = make(params, **options), Adafactor(truth, **options)
        for seed in range(1, 31):
            give_gradients(params, seed)
            for param, true in zip(params, truth, strict=True):
                true.grad = param.grad.double()
            optimizer.step()
            reference.step()
        errors.append(
            sum((p.double() - t).abs().mean() for p, t in zip(params, truth, strict=True))
        )
    assert errors[0] < errors[1]


def test_the_state_of_a_complex_parameter_is_real():
    (param,) = parameters([(4, 3)], torch.complex64)
    optimizer = Adafactor([param])
    train(optimizer, [param], 3)
    for name in ("row_var", "col_var"):
        assert (optimizer.state[param][name].imag == 0).all()
        assert (optimizer.state[param][name].real > 0).all()


def test_a_real_problem_in_complex_numbers_is_the_real_problem():
    (mine,), (real,) = parameters([(4, 3)], torch.complex128), parameters([(4, 3)])
    mine.data.copy_(real.data)
    my_optimizer, reference = Adafactor([mine]), Adafactor([real])
    for seed in range(1, 9):
        real.grad = tensor(seed, (4, 3))
        mine.grad = real.grad.to(torch.complex128)
        my_optimizer.step()
        reference.step()
    assert_close(mine.real, real)
    assert (mine.imag == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_maximize_is_the_negated_gradient(dtype):
    mine, reference = parameters(SHAPES, dtype), parameters(SHAPES, dtype)
    climbing, descending = Adafactor(mine, maximize=True), Adafactor(reference)
    for seed in range(1, 9):
        train(climbing, mine, 1, seed)
        give_gradients(reference, seed)
        for param in reference:
            param.grad.neg_()
        descending.step()
    assert_same_training(climbing, mine, descending, reference, rtol=0, atol=0)


@pytest.mark.parametrize("value", [None, 0.01])
@pytest.mark.parametrize("norm", [None, 0.5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_clipping_is_torchs_before_the_step(norm, value, dtype):
    mine, theirs = parameters(SHAPES, dtype), parameters(SHAPES, dtype)
    my_optimizer = Adafactor(mine, lr=0.3, clip_norm=norm, clip_value=value)
    reference = Adafactor(theirs, lr=0.3)
    for seed in range(1, 9):
        give_gradients(mine, seed)
        kept = [param.grad.clone() for param in mine]
        my_optimizer.step()
        assert all(torch.equal(p.grad, k) for p, k in zip(mine, kept, strict=True))
        give_gradients(theirs, seed)
        if norm:
            torch.nn.utils.clip_grad_norm_(theirs, norm)
        for param in theirs if value else ():
            real = torch.view_as_real(param.grad) if dtype.is_complex else param.grad
            real.clamp_(-value, value)
        reference.step()
    assert_same_training(my_optimizer, mine, reference, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_sixteen_bits_are_clipped_in_float32(dtype):
    """Scaled down to 1e-9 in their own dtype, the gradients of float16 would be zeros."""
    options = {"lr": 0.3, "eps": (1e-12, 1e-3), "clip_norm": 1e-9, "clip_value": 4e-10}
    (mine,) = parameters([(8, 6)], dtype)
    wide = torch.nn.Parameter(mine.detach().float())
    mine.grad = tensor(1, (8, 6), dtype)
    wide.grad = mine.grad.float()
    Adafactor([mine], **options).step()
    Adafactor([wide], **options).step()
    assert_close(mine, wide.to(dtype), rtol=torch.finfo(dtype).eps, atol=0)
    assert (mine == wide.to(dtype)).double().mean() > 0.95


@pytest.mark.parametrize(
    "lr", [0.1, torch.tensor(0.1, dtype=torch.float64)], ids=["float", "tensor"]
)
def test_capturable_changes_nothing_but_where_the_step_is_counted(lr):
    shapes = [*SHAPES, (0, 3)]
    for dtype in (torch.float64, torch.complex128):
        mine, reference = parameters(shapes, dtype), parameters(shapes, dtype)
        options = {"lr": lr, "weight_decay": 0.1}
        captured, plain = (
            Adafactor(mine, capturable=True, **options),
            Adafactor(reference, **options),
        )
        train(captured, mine, 20)
        train(plain, reference, 20)
        assert_same_training(captured, mine, plain, reference)


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("shape", [(), (3,), (3, 2), (2, 2, 3)], ids=str)
def test_a_gradient_flows_through_differentiable_steps(shape, capturable):
    """By the starting point and by lr, through two steps, against finite differences."""

    def loss_after_two_steps(start, lr):
        param = start.clone()
        optimizer = Adafactor(
            [param], lr=lr, weight_decay=0.1, d=1.2, differentiable=True, capturable=capturable
        )
        for power in (2, 3):
            (param.grad,) = torch.autograd.grad((start**power).sum(), start, create_graph=True)
            optimizer.step()
        return (param**2).sum()

    count = math.prod(shape)
    start = torch.linspace(1, 2, count, dtype=torch.float64).sin().reshape(shape)
    lr = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(loss_after_two_steps, (start.requires_grad_(), lr))


def test_a_differentiable_step_is_an_ordinary_one(small_blocks):
    mine, reference = parameters(SHAPES), parameters(SHAPES)
    clones = [param.clone() for param in mine]
    recorded, plain = Adafactor(clones, differentiable=True), Adafactor(reference)
    train(recorded, clones, 8)
    train(plain, reference, 8)
    assert_same_training(recorded, clones, plain, reference)


BAD = [
    ({"lr": -1.0}, "lr=-1.0 is not allowed"),
    ({"lr": torch.tensor([1.0, 2.0])}, "lr=a tensor of shape"),
    ({"beta2_decay": 0.1}, "beta2_decay=0.1 is not allowed: .* at most 0"),
    ({"eps": (-1e-30, 1e-3)}, "eps=.* is not allowed"),
    ({"eps": (None, None)}, "eps=.* is not allowed"),
    ({"eps": (None, -1e-3)}, "eps=.* is not allowed"),
    ({"eps": 1e-3}, "eps=0.001 is not allowed"),
    ({"d": 0.99}, "d=0.99 is not allowed: .* at least 1"),
    ({"d": math.nan}, "d=nan is not allowed"),
    ({"weight_decay": -0.1}, "weight_decay=-0.1 is not allowed"),
    ({"clip_norm": 0.0}, "clip_norm=0.0 is not allowed"),
]


@pytest.mark.parametrize(("options", "said"), BAD, ids=lambda value: str(value)[:40])
def test_bad_options_are_refused(options, said):
    with pytest.raises(HyperparameterError, match=f"Adafactor: {said}"):
        Adafactor(parameters([(3,)]), **options)
    if "clip_norm" not in options:
        optimizer = Adafactor(parameters([(3,)]))
        with pytest.raises(HyperparameterError, match=said.replace(" is", " in group 1 is", 1)):
            optimizer.add_param_group({"params": parameters([(3,)]), **options})
        assert len(optimizer.param_groups) == 1


def test_a_parameter_with_shared_memory_is_refused():
    param = torch.nn.Parameter(torch.zeros(1).expand(5))
    param.grad = torch.ones(5)
    with pytest.raises(ParameterError, match="share one memory location"):
        Adafactor([param]).step()


def test_it_learns():
    """Ten classes of digits: its loss falls as torch's does."""
    inputs, targets = tensor(0, (64, 12)), torch.arange(64) % 4
    results = []
    for make in (Adafactor, torch.optim.Adafactor):
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(12, 32), torch.nn.Tanh(), torch.nn.Linear(32, 4)
        ).double()
        optimizer = make(model.parameters(), lr=0.1)
        for _ in range(150):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
        results.append(loss.item())
    assert results[0] < 0.05
    assert results[0] == pytest.approx(results[1], rel=1e-6)
