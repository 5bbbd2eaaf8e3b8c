"""SOAP: against the paper, and what it does with tensors and gradients of every kind."""

import copy
import math

import numpy as np
import pytest
import torch

import descend
from descend.errors import HyperparameterError
from descend.optimizers import SOAP, soap
from optimizers.cases import assert_close, assert_same_training, parameters, tensor, train
from oracles import soap as oracle

EXACT = {"rtol": 0, "atol": 0}

SHAPES = [
    (6, 6),
    (8, 3),  # of the first gradient three eigenvalues are not 0
    (3, 8),
    (1, 7),
    (7, 1),
    (1, 1),
    (4, 3, 2, 3),
    (2, 1, 5),
    (5,),
    (),
    (0, 3),
    (2, 0, 4),
]
# There are gradients enough for all eigenvalues before the first refresh: the vectors of those that
# are 0 are any, and no two programs give the same.
OPTIONS = [
    {},
    {"precondition_frequency": 7, "betas": (0.8, 0.9), "shampoo_beta": 0.7, "eps": 1e-3},
    {"weight_decay": 0.0, "precondition_frequency": 1000},
    {"precondition_1d": True},
    {"max_precond_dim": 4},
    {"max_precond_dim": 0},
    {"betas": (0.7, 0.95)},
    {"max_precond_dim": 6, "merge_dims": True},
    {"normalize_grads": True, "precondition_frequency": 8},
    {"maximize": True, "weight_decay": 0.3},
]
OFTEN = [{"precondition_frequency": 1}, {"precondition_frequency": 2, "correct_bias": False}]


def _label(options):
    return ", ".join(f"{key}={value}" for key, value in options.items()) or "defaults"


def _agrees_with_the_paper(shape, options, dtype=torch.float64, steps=30, **tolerance):
    (param,) = parameters([shape], dtype)
    optimizer = SOAP([param], lr=0.02, **options)
    exact = param.detach().numpy().copy()
    state = oracle.start(exact, **options)
    for t in range(1, steps + 1):
        grad = tensor(t, shape, dtype) + 0.3 * param.detach()
        exact, state = oracle.step(exact, grad.numpy(), state, t, lr=0.02, **options)
        param.grad = grad
        optimizer.step()
        assert_close(param, torch.from_numpy(np.asarray(exact)), f"step {t}", **tolerance)
        kept = optimizer.state[param]
        assert list(kept) == ["step", *(name for name in state if name != "mean")]
        assert kept["step"].item() == t
        for name, value in kept.items():
            if name.startswith("basis"):  # the sign of each vector is open
                same = (value.mH @ torch.from_numpy(state[name])).abs()
                assert_close(same, torch.eye(len(value), dtype=same.dtype), name, **tolerance)
            elif name == "exp_avg":
                expected = torch.from_numpy(np.asarray(abs(state[name])))
                assert_close(value.abs(), expected, name, **tolerance)
            elif name != "step":
                assert_close(value, torch.from_numpy(np.asarray(state[name])), name, **tolerance)


@pytest.mark.parametrize("options", OPTIONS, ids=_label)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_agrees_with_the_paper(shape, options):
    # An eigenvector is as exact as its eigenvalue lies apart from the next: here a thousandth of
    # the largest, and the iteration has one rounding after the other.
    _agrees_with_the_paper(shape, options, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("options", OFTEN, ids=_label)
@pytest.mark.parametrize("shape", [(6, 6), (4, 3, 2, 3)], ids=str)
def test_agrees_with_the_paper_where_refreshes_are_frequent(shape, options):
    _agrees_with_the_paper(shape, options, rtol=1e-9, atol=1e-10)


# Of a phase that is open in each vector the completion of a basis depends: no fewer gradients than
# rows, therefore.
@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[1], OFTEN[1]], ids=_label)
@pytest.mark.parametrize("shape", [(5, 5), (4, 3, 2, 3)], ids=str)
def test_complex_parameters_agree_with_the_paper(shape, options):
    _agrees_with_the_paper(shape, options, torch.complex128, rtol=1e-9, atol=1e-10)


def test_the_bases_are_orthogonal_and_diagonalize_the_preconditioners():
    (param,) = parameters([(8, 5)])
    optimizer = SOAP([param], precondition_frequency=1, shampoo_beta=0.9)
    grads = [tensor(seed, (8, 5)) * torch.tensor([16.0, 8, 4, 2, 1]) for seed in range(3)]
    for step in range(300):
        param.grad = grads[step % 3]  # 15 columns: the preconditioners come to rest, but for 0.9
        optimizer.step()
    state = optimizer.state[param]
    for dim, size in enumerate(param.shape):
        gram, basis = state[f"preconditioner_{dim}"], state[f"basis_{dim}"]
        assert_close(basis.T @ basis, torch.eye(size, dtype=torch.float64))
        inside = basis.T @ gram @ basis
        off = inside - inside.diagonal().diag()
        assert off.abs().max() < 0.2 * inside.diagonal().max()
        assert (inside.diagonal().diff() < 0.1 * inside[0, 0]).all()


# --- tensors and options of every kind


def test_a_parameter_has_the_state_that_its_shape_asks_for():
    shapes = [(4, 3), (4, 3, 2), (5,), (), (0, 3), (1, 6), (20, 3), (20, 20)]
    params = parameters(shapes)
    optimizer = SOAP(params, max_precond_dim=10)
    train(optimizer, params, 2)
    kept = [
        [name for name in optimizer.state[param] if name.startswith("basis")] for param in params
    ]
    of = "basis_{}".format
    assert kept == [[of(0), of(1)], [of(0), of(1), of(2)], [], [], [], [of(1)], [of(1)], []]


@pytest.mark.parametrize(
    ("shape", "limit", "expected"),
    [
        ((64, 32, 3, 3), 10000, (6144, 3)),
        ((64, 32, 3, 3), 300, (64, 288)),
        ((7, 1, 5), 10, (7, 5)),
        ((20, 3, 2), 10, (20, 6)),
        ((1, 1), 10, (1,)),
        ((4, 4), 1, (4, 4)),
    ],
    ids=str,
)
def test_dimensions_are_merged_from_the_left(shape, limit, expected):
    options = {"merge_dims": True, "max_precond_dim": limit}
    assert soap.folded(shape, options) == expected
    published = pytest.importorskip("pytorch_optimizer.optimizer.utils.shape")
    theirs = [length for length in published.merge_small_dims(shape, limit) if length > 1]
    assert theirs == [length for length in expected if length > 1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_16_bit_parameters_have_float32_matrices_and_follow_float64(dtype):
    shapes = [(6, 6), (4, 3, 2, 3), (5,)]
    params, exact = parameters(shapes, dtype), parameters(shapes, dtype)
    exact = [torch.nn.Parameter(param.detach().double()) for param in exact]
    optimizers = SOAP(params, lr=0.02), SOAP(exact, lr=0.02)
    for seed in range(1, 31):
        for index, (param, other) in enumerate(zip(params, exact, strict=True)):
            param.grad = tensor(100 * seed + index, param.shape, dtype)
            other.grad = param.grad.double()
        for optimizer in optimizers:
            optimizer.step()
    for param, other in zip(params, exact, strict=True):
        # 30 roundings of the parameter and of its mean, which mostly cancel.
        unit = torch.finfo(dtype).eps
        assert_close(param.double(), other, rtol=4 * unit, atol=8 * unit)
    state = optimizers[0].state[params[0]]
    kinds = {name: value.dtype for name, value in state.items()}
    assert kinds == {
        "step": torch.float32,
        "exp_avg": dtype,
        "exp_avg_sq": dtype,
        **{f"{name}_{dim}": torch.float32 for name in soap.MATRICES for dim in (0, 1)},
    }


def test_equal_eigenvalues_and_zero_gradients_are_no_trouble():
    shapes = [(4, 4), (6, 3), (5,)]
    params = parameters(shapes)
    before = copy.deepcopy(params)
    optimizer = SOAP(params, lr=0.1, eps=0.0, weight_decay=0.0, precondition_frequency=2)
    for step in range(12):
        for param in params[:2]:
            param.grad = torch.zeros_like(param)
            if step >= 6:
                param.grad.diagonal().fill_(1.0)
        optimizer.step()
        if step < 6:
            for param, kept in zip(params, before, strict=True):
                assert torch.equal(param, kept)
    for param, kept in zip(params[:2], before, strict=False):
        assert param.isfinite().all()
        assert (param.diagonal() != kept.diagonal()).all()


@pytest.mark.parametrize("size", [1e15, 1e20, 1e-20, 1e-30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_huge_and_tiny_gradients_leave_numbers(size, dtype):
    params = parameters([(6, 6), (8, 3), (4, 3, 2)], dtype)
    before = copy.deepcopy(params)
    optimizer = SOAP(params, lr=0.01, precondition_frequency=2)
    for seed in range(1, 9):
        for index, param in enumerate(params):
            param.grad = (tensor(10 * seed + index, param.shape) * size).to(dtype)
        optimizer.step()
    for param, kept in zip(params, before, strict=True):
        assert param.isfinite().all()
        # Adam's steps are of the size of lr, whatever the gradient's; not below eps, and none where
        # the square is more than any number.
        assert (param - kept).abs().max() < 8 * 0.01 * 6
        if size == 1e15:
            assert (param - kept).abs().max() > 0.02


def test_means_hold_what_a_square_does_not():
    param = torch.nn.Parameter(torch.ones(3, 3))
    optimizer = SOAP([param])
    for step in range(3):
        param.grad = 2e19 * tensor(step, (3, 3), torch.float32).sign()
        optimizer.step()
    assert all(value.isfinite().all() for value in optimizer.state[param].values())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("when", [1, 2, 4], ids=["first", "second", "at a refresh"])
def test_a_nonfinite_gradient_spoils_its_parameter_alone_and_raises_nothing(bad, when):
    params, alone = parameters([(4, 3), (4, 3)]), parameters([(4, 3), (4, 3)])[1:]
    optimizer, reference = (SOAP(some, precondition_frequency=3) for some in (params, alone))
    for seed in range(1, 9):
        params[0].grad = tensor(seed, (4, 3))
        params[1].grad, alone[0].grad = (tensor(100 + seed, (4, 3)) for _ in range(2))
        if seed == when:
            params[0].grad[1, 2] = bad
        optimizer.step()
        reference.step()
    assert_close(params[1], alone[0])


def test_an_iteration_that_does_not_end_is_done_in_float64(monkeypatch):
    plain = torch.linalg.eigh

    def unending(matrix):
        if matrix.dtype is torch.float32:
            raise torch.linalg.LinAlgError("the algorithm failed to converge")
        return plain(matrix)

    results = []
    for eigh in (plain, unending):
        monkeypatch.setattr(torch.linalg, "eigh", eigh)
        params = parameters([(5, 5)], torch.float32)
        optimizer = SOAP(params, lr=0.02)
        train(optimizer, params, 5)
        results.append(params[0])
    assert_close(*results, rtol=1e-4, atol=1e-5)


def test_options_may_change_in_mid_training():
    """What has got no basis yet stands still until the next refresh, and goes on from there."""
    params = parameters([(6, 4), (5,)])
    optimizer = SOAP(params, max_precond_dim=5, precondition_frequency=3)
    (group,) = optimizer.param_groups
    train(optimizer, params, 5)
    group.update(max_precond_dim=10, precondition_1d=True)
    train(optimizer, params, 4, first=6)
    before = copy.deepcopy(params)
    train(optimizer, params, 1, first=10)
    group.update(precondition_frequency=1, betas=(0.5, 0.6), shampoo_beta=0.3)
    train(optimizer, params, 3, first=11)
    for param, kept in zip(params, before, strict=True):
        assert param.isfinite().all()
        assert (param != kept).all()


# --- saving


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64], ids=str)
@pytest.mark.parametrize("taken", [1, 2, 7, 10, 11])
def test_a_saved_training_goes_on_bit_for_bit(tmp_path, taken, dtype):
    shapes = [(6, 6), (6, 6), (8, 3), (4, 3, 2), (5,), ()]
    params, twins = parameters(shapes, dtype), parameters(shapes, dtype, seed=50)
    optimizer, twin = SOAP(params, lr=0.02, precondition_frequency=4), SOAP(twins)
    train(optimizer, params, taken)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    descend.checkpoint.save(tmp_path / "folder", {"optimizer": optimizer.state_dict()})
    for param, other in zip(params, twins, strict=True):
        other.data.copy_(param.data)
    states = [
        torch.load(tmp_path / "state.pt", weights_only=True),
        descend.checkpoint.load(tmp_path / "folder")["optimizer"],
    ]
    train(optimizer, params, 12, first=taken + 1)
    for state in states:
        others = [torch.nn.Parameter(param.detach().clone()) for param in twins]
        other = copy.deepcopy(twin)
        other.param_groups[0]["params"] = others
        other.load_state_dict(state)
        train(other, others, 12, first=taken + 1)
        assert_same_training(optimizer, params, other, others, **EXACT)


def test_a_step_without_lr_and_gradients_leaves_a_fresh_state_fresh():
    """torch.distributed.checkpoint takes one to see what there is to load."""
    params, twins = parameters([(6, 4), (5,)]), parameters([(6, 4), (5,)])
    optimizer, reference = SOAP(params, lr=0.02), SOAP(twins, lr=0.02)
    group = optimizer.param_groups[0]
    group["lr"] = 0.0
    for param in params:
        param.grad = torch.zeros_like(param)
    optimizer.step()
    assert not any(value.any() for param in params for value in optimizer.state[param].values())
    group["lr"] = 0.02
    train(optimizer, params, 15)
    train(reference, twins, 15)
    assert_same_training(optimizer, params, reference, twins, **EXACT)


# --- what is refused


@pytest.mark.parametrize(
    "options",
    [
        {"lr": -1.0},
        {"betas": (0.9, 1.0)},
        {"betas": 0.9},
        {"shampoo_beta": 1.0},
        {"shampoo_beta": -1},
        {"eps": -1e-8},
        {"weight_decay": -0.1},
        {"precondition_frequency": 0},
        {"precondition_frequency": 2.5},
        {"max_precond_dim": -1},
        {"merge_dims": 1},
        {"precondition_1d": "yes"},
        {"normalize_grads": None},
        {"correct_bias": 0},
    ],
    ids=_label,
)
def test_bad_options_are_refused_at_construction(options):
    (name,) = options
    with pytest.raises(HyperparameterError, match=f"SOAP: {name}=.* is not allowed"):
        SOAP(parameters([(3, 3)]), **options)
