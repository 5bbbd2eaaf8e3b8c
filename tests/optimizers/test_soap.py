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
