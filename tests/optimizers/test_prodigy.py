"""Prodigy: its estimate is one for all parameters, and is that of its authors' package."""

import copy
import math

import pytest
import torch

import descend
from checkpoint.bits import assert_same
from descend.engine import forced_backend
from optimizers.cases import tensor

SHAPES = [(17, 3), (5,), (), (40, 2)]


def parameters(dtype=torch.float64):
    return [torch.nn.Parameter(tensor(seed, shape, dtype)) for seed, shape in enumerate(SHAPES)]


def gradients(params, seed, absent=()):
    for index, param in enumerate(params):
        noise = tensor(100 * seed + index, param.shape, param.dtype)
        param.grad = None if index in absent else 0.1 * noise + param.detach()


def authors(params, **options):
    prodigyopt = pytest.importorskip("prodigyopt")
    return prodigyopt.Prodigy(params, **options)


# Without momentum (a first beta of 0) the authors' code multiplies the gradient by the new
# estimate; their paper, and descend, by the one before, as with momentum.
CASES = {
    "defaults": ({}, {}),
    "betas": ({"betas": (0.8, 0.9), "beta3": 0.95}, {"betas": (0.8, 0.9), "beta3": 0.95}),
    "corrected": ({"use_bias_correction": True}, {"use_bias_correction": True}),
    "safeguarded": ({"safeguard_warmup": True, "d_coef": 2.0},) * 2,
    "decay": ({"weight_decay": 0.1},) * 2,
    "coupled decay": (
        {"weight_decay": 0.1, "decoupled_weight_decay": False},
        {"weight_decay": 0.1, "decouple": False},
    ),
}


@pytest.mark.parametrize("backend", ["eager", "cpu", "gpu"])
@pytest.mark.parametrize("case", CASES)
def test_200_steps_are_those_of_its_authors(case, backend):
    steps = 200 if backend != "gpu" else 20  # the interpreter is slow
    mine, theirs = CASES[case]
    params, others = parameters(), parameters()
    optimizer, other = descend.Prodigy(params, **mine), authors(others, **theirs)
    for seed in range(steps):
        gradients(params, seed)
        gradients(others, seed)
        with forced_backend(backend):
            optimizer.step()
        other.step()
    assert other.param_groups[0]["d"] > 1e-3 or backend == "gpu"  # it has found something
    for a, b in zip(params, others, strict=True):
        # Roundings of 1e-16 go round through the estimate, and grow with it by some 1e6.
        torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-8, atol=1e-8)
    for key in ("d", "d_numerator"):
        assert optimizer.param_groups[0][key] == pytest.approx(other.param_groups[0][key], rel=1e-9)


def test_groups_share_one_estimate_and_a_parameter_may_come_late_or_be_absent():
    """The authors' loop counts what has a gradient; the estimate goes on for all."""
    params, others = parameters(), parameters()
    optimizer = descend.Prodigy([{"params": params[:2]}, {"params": params[2:]}], d0=1e-3)
    other = authors([{"params": others[:2]}, {"params": others[2:]}], d0=1e-3)
    for seed in range(60):
        absent = {0: {3}, 1: {0, 3}, 2: {1, 3}}[seed % 3] if seed < 30 else {seed % 5}
        gradients(params, seed, absent)
        gradients(others, seed, absent)
        optimizer.step()
        other.step()
        # The authors' start of a parameter is where it is at its first gradient, as here.
        first, second = (group["d"] for group in optimizer.param_groups)
        assert first == second == pytest.approx(other.param_groups[0]["d"], rel=1e-9)
    for a, b in zip(params, others, strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-9, atol=1e-9)


def test_a_group_that_is_added_goes_on_from_the_estimate():
    params = parameters()
    optimizer = descend.Prodigy(params[:3], d0=1e-2)
    for seed in range(20):
        gradients(params[:3], seed)
        optimizer.step()
    found = optimizer.param_groups[0]["d"]
    assert found > 1e-2
    optimizer.add_param_group({"params": params[3:]})
    assert optimizer.param_groups[1]["d"] == found
    gradients(params, 30)
    optimizer.step()
    assert optimizer.param_groups[1]["d"] == optimizer.param_groups[0]["d"] >= found


@pytest.mark.parametrize("way", ["state_dict", "deepcopy"])
def test_a_saved_estimate_goes_on_to_the_bit(way):
    params = parameters(torch.float32)
    optimizer = descend.Prodigy(params, d0=1e-2)
    for seed in range(10):
        gradients(params, seed)
        optimizer.step()
    if way == "deepcopy":
        others, other = copy.deepcopy((params, optimizer))
    else:
        others = copy.deepcopy(params)
        other = descend.Prodigy(others)
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for seed in range(10, 20):
        for one, its in ((params, optimizer), (others, other)):
            gradients(one, seed)
            its.step()
    assert_same([one.detach() for one in others], [one.detach() for one in params])
    assert other.param_groups[0]["d"] == optimizer.param_groups[0]["d"]


def test_a_step_that_is_left_out_leaves_the_estimate():
    params = parameters()
    optimizer = descend.Prodigy(params, d0=1e-2, skip_nonfinite=True)
    for seed in range(10):
        gradients(params, seed)
        optimizer.step()
    before = dict(optimizer.param_groups[0])
    gradients(params, 11)
    params[1].grad.fill_(math.inf)
    optimizer.step()
    assert optimizer.skipped_steps == 1
    assert (optimizer.param_groups[0]["d"], before["d"]) == (before["d"],) * 2


def test_state_that_was_made_ahead_starts_from_the_parameter_of_the_first_step():
    param = torch.nn.Parameter(torch.ones(3))
    optimizer = descend.Prodigy([param])
    optimizer.init_state()
    with torch.no_grad():
        param.copy_(torch.tensor([4.0, 5.0, 6.0]))  # a checkpoint is loaded into it
    param.grad = torch.ones(3)
    optimizer.step()
    assert optimizer.state[param]["start"].tolist() == [4.0, 5.0, 6.0]


def test_the_start_is_a_copy_in_the_layout_of_the_parameter():
    param = torch.nn.Parameter(tensor(0, (4, 5), torch.float32).t())
    param.grad = tensor(1, (4, 5), torch.float32).t()
    began = param.detach().clone()
    optimizer = descend.Prodigy([param], d0=0.1)
    optimizer.step()
    start = optimizer.state[param]["start"]
    assert start.stride() == param.stride()
    assert torch.equal(start, began)
    assert not torch.equal(param.detach(), began)
