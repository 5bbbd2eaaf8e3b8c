"""Muon: against the papers, against torch, and what neither of them has."""

import math

import numpy as np
import pytest
import torch

from descend.errors import HyperparameterError, ParameterError
from descend.optimizers import Muon, blocks
from descend.optimizers.muon import orthogonalized
from optimizers.cases import (
    assert_close,
    assert_same_training,
    give_gradients,
    parameters,
    tensor,
    train,
)
from oracles import muon as oracle

MATRICES = [(7, 5), (5, 7), (6, 6), (1, 9), (9, 1), (1, 1), (20, 64), (64, 20)]
LARGER = [(4, 3, 2, 2), (2, 3, 5), (3, 1, 1, 1)]
SMALLER = [(5,), (), (1,)]
OPTIONS = [
    {},
    {"weight_decay": 0.0},
    {"lr": 0.05, "momentum": 0.5, "weight_decay": 0.3},
    {"lr": 0.05, "nesterov": False},
    {"lr": 0.05, "momentum": 0.0},
    {"lr": 0.05, "ns_steps": 2},
    {"lr": 0.05, "ns_steps": 0},
    {"lr": 0.05, "ns_coefficients": (2.0, -1.5, 0.5)},
    {"lr": 0.05, "eps": 100.0},
    {"lr": 0.05, "adjust_lr_fn": "original"},
    {"lr": 0.05, "adjust_lr_fn": "match_rms_adamw"},
    {"lr": 0.05, "adjust_lr_fn": "spectral_unclamped"},
]
ADDED = [
    {"lr": 0.05, "orthogonalize": "polar-express"},
    {"lr": 0.05, "orthogonalize": "polar-express", "ns_steps": 10, "weight_decay": 0.0},
    {"lr": 0.05, "orthogonalize": "exact"},
    {"lr": 0.05, "normalize": "rows"},
    {"lr": 0.05, "normalize": "rows", "normalize_beta": 0.5, "orthogonalize": "exact"},
    {"lr": 0.05, "normalize": "rows", "adjust_lr_fn": "match_rms_adamw", "nesterov": False},
]
"""Options that torch has not."""

DEFAULTS = {
    "orthogonalize": "newton-schulz",
    "ns_coefficients": (3.4445, -4.7750, 2.0315),
    "eps": 1e-7,
    "ns_steps": 5,
}

TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])

# What one product in bfloat16, of 8 bits, leaves unsure of a number near 1.
UNIT = 2.0**-8


def _label(options):
    return ", ".join(f"{key}={value}" for key, value in options.items()) or "defaults"


def _agrees_with_the_paper(optimizer, param, own, options, tolerance, steps=12):
    """Step a parameter that `own` gives a gradient, and the oracle; compare at every step."""
    exact = param.detach().numpy().astype(np.complex128 if param.is_complex() else np.float64)
    state = oracle.start(exact, **options)
    for t in range(1, steps + 1):
        grad = tensor(t, param.shape, param.dtype)
        exact, state = oracle.step(exact, grad.numpy().astype(exact.dtype), state, t, **options)
        own(grad)
        optimizer.step()
        assert_close(
            param, torch.from_numpy(np.asarray(exact)).to(param.dtype), f"step {t}", **tolerance
        )
        kept = optimizer.state[param]
        assert list(kept) == (["step"] if "exp_avg" in state else []) + list(state)
        for key, value in state.items():
            expected = torch.from_numpy(np.asarray(value)).to(kept[key].dtype)
            assert_close(kept[key], expected, f"{key} at step {t}", rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("options", [*OPTIONS, *ADDED], ids=_label)
@pytest.mark.parametrize("shape", [*MATRICES, *LARGER], ids=str)
def test_agrees_with_the_paper_in_full_precision(shape, options):
    """Under `differentiable` all is float64, so that the formula shows without its rounding."""
    param = tensor(0, shape).requires_grad_().clone()
    optimizer = Muon([param], **options, differentiable=True)

    def own(grad):
        param.grad = grad

    # Five iterations multiply a small singular value, and its error, by up to 3.4^5 = 480.
    _agrees_with_the_paper(optimizer, param, own, options, {"rtol": 1e-9, "atol": 1e-10})


@pytest.mark.parametrize("options", [*OPTIONS, *ADDED], ids=_label)
@pytest.mark.parametrize("shape", [*MATRICES, *LARGER], ids=str)
def test_complex_parameters_agree_with_the_paper(shape, options):
    param = torch.nn.Parameter(tensor(0, shape, torch.complex64))

    def own(grad):
        param.grad = grad

    # Roundings of 6e-8 in the place of 1e-16, amplified alike.
    _agrees_with_the_paper(Muon([param], **options), param, own, options, {"rtol": 0, "atol": 3e-5})


@pytest.mark.parametrize("shape", [(6, 6), (4, 12), (12, 4), (6, 3, 2)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_agrees_with_the_paper_in_bfloat16(shape, dtype):
    """Gradients that are orthogonal already: the iteration has no small value to amplify."""
    param = torch.nn.Parameter(tensor(0, shape, dtype))
    optimizer = Muon([param], lr=1.0, momentum=0.0, weight_decay=0.0)
    for seed in range(1, 5):
        rows = shape[0]
        u, _, v = np.linalg.svd(tensor(seed, shape).reshape(rows, -1).numpy(), full_matrices=False)
        param.grad = torch.from_numpy(u @ v).reshape(shape).to(dtype)
        expected, _ = oracle.step(
            param.detach().double().numpy(),
            param.grad.double().numpy(),
            oracle.start(param.detach().double().numpy()),
            seed,
            lr=1.0,
            momentum=0.0,
            weight_decay=0.0,
        )
        scale = math.sqrt(max(1, rows / (math.prod(shape) / rows)))
        optimizer.step()
        # 15 products, each with a rounding or two of its numbers, which are below 2.
        error = (param.detach() - torch.from_numpy(expected)).abs().max() / scale
        assert error < 15 * UNIT
        param.data.copy_(torch.from_numpy(expected))


@pytest.mark.parametrize("options", OPTIONS, ids=_label)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_trains_as_torch(dtype, options):
    """To the last bit: the same products of the same numbers."""
    if options.get("adjust_lr_fn") == "spectral_unclamped" and TORCH < (2, 14):
        pytest.skip("torch has it from 2.14 on")
    mine, theirs = parameters(MATRICES, dtype), parameters(MATRICES, dtype)
    my_optimizer, their_optimizer = Muon(mine, **options), torch.optim.Muon(theirs, **options)
    train(my_optimizer, mine, 20)
    train(their_optimizer, theirs, 20)
    # What is not of the product (decay, momentum) may be rounded at another place.
    close = (
        {"rtol": 1e-6, "atol": 1e-6} if dtype is torch.float32 else {"rtol": 1e-12, "atol": 1e-13}
    )
    assert_same_training(my_optimizer, mine, their_optimizer, theirs, **close)


def test_large_matrices_train_as_torch():
    """Here torch puts its results elsewhere in memory, and the products add in another order."""
    shapes = [(1500, 900), (900, 1500)]
    mine, theirs = parameters(shapes, torch.float32), parameters(shapes, torch.float32)
    my_optimizer, their_optimizer = Muon(mine, lr=1.0), torch.optim.Muon(theirs, lr=1.0)
    assert blocks.Blocks(mine[0]).length
    for seed in range(1, 3):
        before = [param.detach().clone() for param in mine]
        give_gradients(mine, seed)
        for my_param, their_param in zip(mine, theirs, strict=True):
            their_param.data.copy_(my_param.data)
            their_param.grad = my_param.grad
        my_optimizer.step()
        their_optimizer.step()
        for my_param, their_param, start in zip(mine, theirs, before, strict=True):
            moved = (their_param - start * 0.9).norm()
            assert (my_param - their_param).norm() / moved < 2 * UNIT
            assert moved > 20
            assert torch.equal(
                my_optimizer.state[my_param]["momentum_buffer"],
                their_optimizer.state[their_param]["momentum_buffer"],
            )


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64], ids=str)
@pytest.mark.parametrize("shape", [(40, 3), (3, 40), (2, 20, 3), (20, 2, 3)], ids=str)
def test_blocks_change_nothing(monkeypatch, shape, dtype):
    params, reference = parameters([shape], dtype), parameters([shape], dtype)
    whole = Muon(reference, lr=0.1)
    train(whole, reference, 5)
    monkeypatch.setitem(blocks.BLOCK, "cpu", 8)
    assert blocks.Blocks(params[0]).length
    cut = Muon(params, lr=0.1)
    train(cut, params, 5)
    assert_same_training(cut, params, whole, reference, rtol=0, atol=0)


def test_a_tensor_of_more_dimensions_is_a_matrix_of_its_first_one():
    kernel, matrix = parameters([(8, 3, 2, 2)]), parameters([(8, 12)])
    first, second = Muon(kernel, lr=0.1), Muon(matrix, lr=0.1)
    for seed in range(1, 6):
        train(first, kernel, 1, seed)
        matrix[0].grad = kernel[0].grad.reshape(8, 12)
        second.step()
    assert torch.equal(kernel[0].reshape(8, 12), matrix[0])
    assert first.state[kernel[0]]["momentum_buffer"].shape == (8, 3, 2, 2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(16, 16), (12, 40), (40, 12)])
def test_the_iteration_brings_singular_values_near_one(shape, dtype):
    u, _, v = torch.linalg.svd(tensor(0, shape), full_matrices=False)
    values = torch.linspace(0.1, 1, min(shape), dtype=torch.float64)
    found = orthogonalized(((u * values) @ v).to(dtype), DEFAULTS).double()
    spectrum = torch.linalg.svdvals(found)
    assert 0.65 < spectrum.min()  # noqa: SIM300 - a range
    assert spectrum.max() < 1.25
    # The nearest orthogonal matrix has the same singular vectors: found is symmetric beside it.
    beside = found @ (u @ v).mT
    assert (beside - beside.mT).norm() < (1e-12 if dtype is torch.float64 else 30 * UNIT)
    assert torch.linalg.eigvalsh(beside)[-min(shape) :].min() > 0.6


def test_the_sizes_of_the_steps():
    """sqrt(max(1, rows / columns)), 0.2 sqrt(max(rows, columns)), sqrt(rows / columns)."""
    for shape in [(4, 16), (16, 4), (16, 2, 2)]:
        rows, cols = shape[0], math.prod(shape[1:])
        start = tensor(0, shape)
        u, _, v = torch.linalg.svd(tensor(1, shape).reshape(rows, -1), full_matrices=False)
        moved = {}
        for fn in (None, "original", "match_rms_adamw", "spectral_unclamped"):
            param = torch.nn.Parameter(start.clone())
            param.grad = (u @ v).reshape(shape)
            Muon([param], lr=1.0, weight_decay=0.0, adjust_lr_fn=fn).step()
            moved[fn] = (param.detach() - start).norm() / math.sqrt(min(rows, cols))
        assert torch.equal(moved[None], moved["original"])
        ratio = 0.2 * math.sqrt(max(rows, cols)) / math.sqrt(max(1, rows / cols))
        assert moved["match_rms_adamw"] / moved["original"] == pytest.approx(ratio)
        ratio = math.sqrt(rows / cols / max(1, rows / cols))
        assert moved["spectral_unclamped"] / moved["original"] == pytest.approx(ratio)
        assert 0.65 < moved["original"] / math.sqrt(max(1, rows / cols)) < 1.25


# --- the companion AdamW


@pytest.mark.parametrize(
    ("options", "companion"),
    [
        ({"lr": 0.1}, {"lr": 0.1}),
        ({"lr": 0.1, "adamw_lr": 0.03}, {"lr": 0.03}),
        (
            {"lr": 0.1, "adamw_betas": (0.5, 0.7), "adamw_eps": 1e-3, "weight_decay": 0.3},
            {"lr": 0.1, "betas": (0.5, 0.7), "eps": 1e-3, "weight_decay": 0.3},
        ),
        ({"lr": 0.1, "maximize": True}, {"lr": 0.1, "maximize": True}),
    ],
    ids=_label,
)
def test_smaller_tensors_are_updated_by_adamw(backend, options, companion):
    shapes = [(6, 4), *SMALLER, (0,)]
    params, reference = parameters(shapes), parameters(shapes)
    optimizer = Muon(params, **options)
    adamw = torch.optim.AdamW(reference[1:], **{"weight_decay": 0.1, **companion})
    matrix = Muon(reference[:1], **options)
    for seed in range(1, 21):
        train(optimizer, params, 1, seed)
        give_gradients(reference, seed)
        adamw.step()
        matrix.step()
    assert_same_training(matrix, reference[:1], optimizer, params[:1], rtol=0, atol=0)
    for mine, theirs in zip(params[1:], reference[1:], strict=True):
        assert_close(mine, theirs)
        assert list(optimizer.state[mine]) == ["step", "exp_avg", "exp_avg_sq"]
        for key, value in adamw.state[theirs].items():
            assert_close(optimizer.state[mine][key].double(), value.double(), key)
    records = [(record["backend"], record["tensors"]) for record in optimizer.explain()]
    expected = [(backend, 4), ("eager", 1)] if backend != "eager" else [("eager", 5)]
    assert sorted(records) == sorted(expected)


@pytest.mark.parametrize("shape", SMALLER, ids=str)
def test_the_companion_agrees_with_its_paper(backend, shape):
    param = torch.nn.Parameter(tensor(0, shape))

    def own(grad):
        param.grad = grad

    options = {"lr": 0.1, "adamw_lr": 0.02, "adamw_betas": (0.8, 0.9), "weight_decay": 0.2}
    tolerance = {"rtol": 1e-12, "atol": 1e-13}
    _agrees_with_the_paper(Muon([param], **options), param, own, options, tolerance)


def test_a_group_says_adamw(backend):
    hidden, embedding, head = parameters([(6, 4), (10, 4), (3, 6)])
    optimizer = Muon(
        [
            {"params": [hidden]},
            {"params": [embedding, head], "adamw": True, "lr": 0.01},
        ],
        lr=0.02,
    )
    reference = parameters([(6, 4), (10, 4), (3, 6)])
    adamw = torch.optim.AdamW(reference[1:], lr=0.01, weight_decay=0.1)
    train(optimizer, [hidden, embedding, head], 5)
    for seed in range(1, 6):
        give_gradients(reference, seed)
        adamw.step()
    assert_close(embedding, reference[1])
    assert_close(head, reference[2])
    assert list(optimizer.state[hidden]) == ["momentum_buffer"]
    optimizer.param_groups[1]["adamw"] = None  # from now on matrices like the others
    train(optimizer, [hidden, embedding, head], 1, 6)
    assert "momentum_buffer" in optimizer.state[head]


def test_with_adamw_false_a_vector_is_refused_as_in_torch():
    with pytest.raises(ValueError, match="2D"):
        torch.optim.Muon(parameters([(5,)]))
    said = "Muon: with adamw=False a parameter must have at least 2 dimensions, got one of shape"
    with pytest.raises(ParameterError, match=said):
        Muon(parameters([(4, 3), (5,)]), adamw=False)
    optimizer = Muon(parameters([(4, 3)]), adamw=False)
    with pytest.raises(ParameterError, match=said):
        optimizer.add_param_group({"params": parameters([(5,)])})
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": parameters([(5,)]), "adamw": None})
    params = [param for group in optimizer.param_groups for param in group["params"]]
    train(optimizer, params, 1)
    before = [param.detach().clone() for param in params]
    optimizer.param_groups[1]["adamw"] = False
    give_gradients(params, 2)
    with pytest.raises(ParameterError, match=said):
        optimizer.step()
    assert all(torch.equal(now, then) for now, then in zip(params, before, strict=True))


def test_the_companion_is_one_kernel_call_for_all_groups():
    shapes = [(6, 4), (4,), (6,), (2, 3), (3,)]
    params = parameters(shapes, torch.float32)
    optimizer = Muon([{"params": params[:3]}, {"params": params[3:], "lr": 0.1}])
    train(optimizer, params, 2)
    (fused,) = (record for record in optimizer.explain() if record["backend"] == "cpu")
    assert (fused["tensors"], fused["groups"]) == (3, 2)


# --- sizes, layouts, numbers


def test_empty_matrices_are_stepped_over():
    """torch divides by zero."""
    params = parameters([(0, 4), (4, 0), (2, 0, 3), (0,), (3, 2)])
    optimizer = Muon(params, lr=0.1)
    (alone,) = parameters([(3, 2)], seed=4)
    reference = Muon([alone], lr=0.1)
    train(optimizer, params, 3)
    for seed in range(1, 4):
        alone.grad = tensor(1000 * seed + 4, (3, 2))
        reference.step()
    assert torch.equal(params[4], alone)
    assert optimizer.state[params[0]]["momentum_buffer"].shape == (0, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (5, 1), (2, 3, 4), (6,)])
def test_a_zero_gradient_only_decays(shape, dtype):
    param = torch.nn.Parameter(torch.ones(shape, dtype=dtype))
    optimizer = Muon([param], lr=0.5, weight_decay=0.5)
    param.grad = torch.zeros_like(param)
    optimizer.step()
    assert torch.equal(param, torch.full(shape, 0.75, dtype=dtype))


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_nonfinite_gradients_spread_as_in_torch(poison):
    mine, theirs = parameters([(5, 3), (4, 4)]), parameters([(5, 3), (4, 4)])
    my_optimizer, their_optimizer = Muon(mine), torch.optim.Muon(theirs)
    for optimizer, params in ((my_optimizer, mine), (their_optimizer, theirs)):
        train(optimizer, params, 2)
        give_gradients(params, 3)
        params[0].grad[1, 2] = poison
        optimizer.step()
        train(optimizer, params, 1, first=4)
    assert mine[0].isnan().all()
    assert not mine[1].isnan().any()
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_sixteen_bits_are_computed_in_float32_and_rounded_once(dtype, nesterov):
    options = {"lr": 0.3, "nesterov": nesterov, "momentum": 0.7}
    (mine,) = parameters([(9, 6)], dtype)
    my_optimizer = Muon([mine], **options)
    for seed in range(1, 9):
        wide = torch.nn.Parameter(mine.detach().float())
        reference = Muon([wide], **options)
        if seed > 1:
            buffer = my_optimizer.state[mine]["momentum_buffer"].float().clone()
            reference.state[wide] = {"momentum_buffer": buffer}
        mine.grad = tensor(seed, (9, 6), dtype)
        wide.grad = mine.grad.float()
        my_optimizer.step()
        reference.step()
        assert torch.equal(mine, wide.to(dtype))
        buffer = my_optimizer.state[mine]["momentum_buffer"]
        assert torch.equal(buffer, reference.state[wide]["momentum_buffer"].to(dtype))


def test_without_nesterov_the_momentum_of_bfloat16_survives_the_step():
    """torch divides the momentum itself by its norm, because it is of the right dtype already."""
    (param,) = parameters([(4, 3)], torch.bfloat16)
    optimizer = Muon([param], momentum=0.5, nesterov=False)
    param.grad = torch.full_like(param, 8.0)
    optimizer.step()
    expected = torch.full((4, 3), 4.0, dtype=torch.bfloat16)
    assert torch.equal(optimizer.state[param]["momentum_buffer"], expected)


def test_a_real_problem_in_complex_numbers_is_the_real_problem():
    (mine,), (real,) = parameters([(4, 3)], torch.complex64), parameters([(4, 3)])
    mine.data.copy_(real.data)
    my_optimizer = Muon([mine], lr=0.1)
    exact, state = real.detach().numpy(), oracle.start(real.detach().numpy())
    for seed in range(1, 6):
        grad = tensor(seed, (4, 3))
        mine.grad = grad.to(torch.complex64)
        my_optimizer.step()
        exact, state = oracle.step(exact, grad.numpy(), state, seed, lr=0.1)
    assert_close(mine.real, torch.from_numpy(exact).float(), rtol=0, atol=1e-5)
    assert (mine.imag == 0).all()


# --- options


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_maximize_is_the_negated_gradient(dtype):
    shapes = [(7, 5), (2, 3, 4), (6,)]
    mine, reference = parameters(shapes, dtype), parameters(shapes, dtype)
    climbing, descending = Muon(mine, lr=0.1, maximize=True), Muon(reference, lr=0.1)
    for seed in range(1, 6):
        train(climbing, mine, 1, seed)
        give_gradients(reference, seed)
        for param in reference:
            param.grad.neg_()
        descending.step()
    # The companion's kernel multiplies by -1 in it, and may fuse other pairs of operations.
    assert_same_training(climbing, mine, descending, reference, rtol=1e-6, atol=1e-7)
    assert torch.equal(mine[0], reference[0])


def test_the_companions_lr_may_be_a_tensor_too():
    params, reference = parameters([(5,), (4, 3)]), parameters([(5,), (4, 3)])
    rate = torch.tensor(0.05, dtype=torch.float64)
    optimizer, plain = Muon(params, adamw_lr=rate), Muon(reference, adamw_lr=0.05)
    train(optimizer, params, 2)
    train(plain, reference, 2)
    rate.fill_(0.5)
    plain.param_groups[0]["adamw_lr"] = 0.5
    train(optimizer, params, 2, first=3)
    train(plain, reference, 2, first=3)
    assert_same_training(optimizer, params, plain, reference, rtol=0, atol=0)


@pytest.mark.parametrize("value", [None, 0.01])
@pytest.mark.parametrize("norm", [None, 0.5])
def test_clipping_is_torchs_before_the_step(norm, value):
    shapes = [(6, 4), (4,), (2, 3, 2)]
    mine, reference = parameters(shapes), parameters(shapes)
    options = {"lr": 0.3, "eps": 1.0}  # a large eps lets the gradient's size show
    my_optimizer = Muon(mine, **options, clip_norm=norm, clip_value=value)
    plain = Muon(reference, **options)
    for seed in range(1, 6):
        train(my_optimizer, mine, 1, seed)
        give_gradients(reference, seed)
        if norm:
            torch.nn.utils.clip_grad_norm_(reference, norm)
        if value:
            torch.nn.utils.clip_grad_value_(reference, value)
        plain.step()
    # A last bit of a factor may become one of bfloat16 in a matrix, and is amplified there.
    for my_param, param in zip(mine, reference, strict=True):
        assert_close(my_param, param, rtol=0, atol=0.02)
        for key, expected in plain.state[param].items():
            assert_close(my_optimizer.state[my_param][key].double(), expected.double(), key)


@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1, dtype=torch.float64)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64], ids=str)
def test_capturable_changes_nothing_but_where_the_step_is_counted(lr, dtype):
    shapes = [(6, 4), (2, 3, 2), (5,), (0, 3)]
    mine, reference = parameters(shapes, dtype), parameters(shapes, dtype)
    captured, plain = Muon(mine, lr=lr, capturable=True), Muon(reference, lr=lr)
    train(captured, mine, 10)
    train(plain, reference, 10)
    for my_param, param in zip(mine, reference, strict=True):
        assert_close(my_param, param)
        assert list(captured.state[my_param]) == list(plain.state[param])


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", [(3,), (3, 2), (2, 3), (2, 2, 2)], ids=str)
def test_a_gradient_flows_through_differentiable_steps(shape, nesterov):
    """By the starting point and by lr, through two steps, against finite differences."""

    def loss_after_two_steps(start, lr):
        param = start.clone()
        optimizer = Muon([param], lr=lr, nesterov=nesterov, ns_steps=3, differentiable=True)
        for power in (2, 3):
            (param.grad,) = torch.autograd.grad((start**power).sum(), start, create_graph=True)
            optimizer.step()
        return (param**2).sum()

    start = torch.linspace(1, 2, math.prod(shape), dtype=torch.float64).sin().reshape(shape)
    lr = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(loss_after_two_steps, (start.requires_grad_(), lr))


# --- saving


def test_the_companions_state_is_adamws_and_goes_both_ways():
    shapes = [(6, 4), (4,), (2, 3, 2), ()]
    params, twins = parameters(shapes), parameters(shapes)
    optimizer = Muon(params, lr=0.1)
    train(optimizer, params, 3)
    twin = Muon(twins)
    for twin_param, param in zip(twins, params, strict=True):
        twin_param.data.copy_(param.data)
    twin.load_state_dict(optimizer.state_dict())
    train(optimizer, params, 3, first=4)
    train(twin, twins, 3, first=4)
    assert_same_training(optimizer, params, twin, twins, rtol=0, atol=0)
    adamw = torch.optim.AdamW(parameters([(4,)]))
    adamw.load_state_dict(
        {
            "state": {0: optimizer.state_dict()["state"][1]},
            "param_groups": adamw.state_dict()["param_groups"],
        }
    )


# --- what is refused


BAD = [
    {"lr": -1.0},
    {"lr": torch.tensor([1.0, 2.0])},
    {"weight_decay": -0.1},
    {"momentum": -0.1},
    {"nesterov": 1},
    {"ns_coefficients": (3.0, -4.0)},
    {"ns_coefficients": (3.0, -4.0, math.nan)},
    {"ns_coefficients": 3.0},
    {"ns_steps": 100},
    {"ns_steps": -1},
    {"ns_steps": 2.5},
    {"eps": -1e-7},
    {"adjust_lr_fn": "arbitrary"},
    {"adamw": "yes"},
    {"adamw_lr": -1.0},
    {"adamw_betas": (0.9, 1.0)},
    {"adamw_eps": -1e-8},
    {"clip_value": 0.0},
]


@pytest.mark.parametrize("options", BAD, ids=_label)
def test_bad_options_are_refused_at_construction(options):
    (name,) = options
    with pytest.raises(HyperparameterError, match=f"Muon: {name}=.* is not allowed"):
        Muon(parameters([(3, 3)]), **options)
    if name != "clip_value":
        optimizer = Muon(parameters([(3, 3)]))
        with pytest.raises(HyperparameterError, match=f"Muon: {name}=.* in group 1 is not allowed"):
            optimizer.add_param_group({"params": parameters([(3, 3)]), **options})
        assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"lr": torch.tensor([0.001, 0.001])},
        {"lr": -1.0},
        {"adjust_lr_fn": "arbitrary"},
        {"ns_steps": 100},
        {"ns_coefficients": (3.0, -4.0)},
    ],
    ids=_label,
)
def test_torchs_errors_raise_torchs_type(options):
    """Of torch's own list of errors complex and three-dimensional parameters work here."""

    def trained(make):
        params = parameters([(3, 3)])
        train(make(params, **options), params, 1)  # where torch looks at the iteration's options

    for make in (Muon, torch.optim.Muon):
        with pytest.raises(ValueError, match=r"not allowed|not supported|must be|should be"):
            trained(make)


# --- learning


def test_it_learns():
    """A network with matrices and vectors: its loss falls as that of torch's two optimizers."""
    inputs, targets = tensor(0, (64, 12)), torch.arange(64) % 4
    results = []
    for both in (True, False):
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(12, 32), torch.nn.Tanh(), torch.nn.Linear(32, 4)
        ).double()
        optimizers = [Muon(model.parameters(), lr=0.02)]
        if not both:
            matrices = [param for param in model.parameters() if param.ndim == 2]
            vectors = [param for param in model.parameters() if param.ndim < 2]
            optimizers = [
                torch.optim.Muon(matrices, lr=0.02),
                torch.optim.AdamW(vectors, lr=0.02, weight_decay=0.1),
            ]
        for _ in range(150):
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
        results.append(loss.item())
    assert results[0] < 0.1
    # A last bit may become one of bfloat16 on its way through 150 steps.
    assert results[0] == pytest.approx(results[1], rel=0.05)


@pytest.mark.parametrize("options", ADDED, ids=_label)
@pytest.mark.parametrize("gradient", ["zero", "one row", "huge", "tiny", "nan", "rank 1"])
def test_odd_gradients_under_what_torch_has_not(options, gradient):
    param = torch.nn.Parameter(tensor(0, (5, 4), torch.float32))
    optimizer = Muon([param], **{**options, "weight_decay": 0.0})
    for _ in range(3):
        before = param.detach().clone()
        grad = tensor(1, (5, 4), torch.float32)
        if gradient == "zero":
            grad.zero_()
        elif gradient == "one row":
            grad[1:] = 0
        elif gradient == "nan":
            grad[0, 0] = math.nan
        elif gradient == "rank 1":
            grad = grad[:, :1] * grad[:1]
        param.grad = grad * {"huge": 1e18, "tiny": 1e-18}.get(gradient, 1.0)
        optimizer.step()
        moved = (param.detach() - before).abs()
        if gradient == "zero":
            assert not moved.any()
        elif gradient == "nan":
            assert param.isnan().all()
        else:
            assert param.isfinite().all()
            # A direction of rank 1 is as long as one singular value, of any other as four at most.
            assert moved.max() <= 0.05 * 2.5 * (2 if "adjust_lr_fn" not in options else 1)
        if gradient == "one row":
            assert not moved[1:].any()


def test_polar_express_comes_closer_to_1_than_newton_schulz():
    x = tensor(3, (24, 16), torch.float64)
    found = {}
    for way in ("newton-schulz", "polar-express", "exact"):
        values = torch.linalg.svdvals(orthogonalized(x, {**DEFAULTS, "orthogonalize": way}))
        found[way] = float((values - 1).abs().max())
    assert found["exact"] < 1e-12
    assert found["polar-express"] < found["newton-schulz"] / 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_rows_squares_are_kept_in_32_bits_and_saved(dtype):
    param = torch.nn.Parameter(tensor(0, (6, 4), dtype))
    optimizer = Muon([param], normalize="rows")
    for seed in range(3):
        param.grad = tensor(seed + 1, (6, 4), dtype)
        optimizer.step()
    squares = optimizer.state[param]["row_squares"]
    assert squares.dtype is torch.float32
    assert squares.shape == (6,)
    other = Muon([torch.nn.Parameter(param.detach().clone())], normalize="rows")
    other.load_state_dict(optimizer.state_dict())
    (kept,) = other.state.values()
    assert torch.equal(kept["row_squares"], squares)
