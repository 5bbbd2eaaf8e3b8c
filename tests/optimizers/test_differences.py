"""Rows of docs/differences.md, "Optimizers", that no other test is about."""

import pytest
import torch
from torch.nn import Parameter

import descend
from descend.optimizers import CATALOGUE


@pytest.mark.parametrize("name", ["adagrad", "adam", "adamw", "sgd"])
def test_fused_is_a_hint_on_the_meta_device(name):
    """torch refuses such a step."""
    cls = CATALOGUE[name]
    for make, refused in ((getattr(torch.optim, cls.__name__), True), (cls, False)):
        param = Parameter(torch.ones(3, device="meta"))
        param.grad = torch.ones(3, device="meta")
        optimizer = make([param], fused=True)
        if refused:
            with pytest.raises(RuntimeError, match="fused"):
                optimizer.step()
        else:
            optimizer.step()


def test_one_lr_tensor_for_several_groups():
    def shared(module):
        lr = torch.tensor(0.1)
        optimizer = module.SGD([{"params": [Parameter(torch.ones(1))]} for _ in range(3)], lr=lr)
        return [group["lr"] is lr for group in optimizer.param_groups]

    assert shared(torch.optim) == [True, True, True]
    assert shared(descend) == [True, False, False]


def test_repeated_groups_step_with_the_count_of_the_first():
    def stepped(module, steps):
        param = Parameter(torch.ones(1, dtype=torch.float64))
        optimizer = module.Adam([param], lr=0.1)
        optimizer.param_groups.extend(optimizer.param_groups)
        for _ in range(steps):
            param.grad = torch.full((1,), 0.5, dtype=torch.float64)
            optimizer.step()
        return param.item(), optimizer.state[param]["step"].item()

    (mine, my_count), (theirs, their_count) = stepped(descend, 1), stepped(torch.optim, 1)
    assert my_count == their_count == 2
    assert theirs == pytest.approx(0.8, rel=1e-6)
    assert mine < theirs


@pytest.mark.parametrize("name", ["nadam", "sparseadam"])
def test_a_huge_gradient_is_stepped_with(name):
    cls = CATALOGUE[name]
    moved = []
    for make in (getattr(torch.optim, cls.__name__), cls):
        param = Parameter(torch.ones(3))
        optimizer = make([param])
        param.grad = torch.full((3,), 1e20)
        if name == "sparseadam":
            param.grad = param.grad.to_sparse(1)
        optimizer.step()
        moved.append(bool((param.detach() < 1).all()))
    assert moved == [False, True]


@pytest.mark.parametrize("name", ["max_iter", "max_eval", "history_size"])
def test_counts_of_lbfgs_are_at_least_one(name):
    torch.optim.LBFGS([Parameter(torch.ones(2))], **{name: 0})
    with pytest.raises(descend.errors.HyperparameterError, match=f"{name} must be a whole number"):
        descend.LBFGS([Parameter(torch.ones(2))], **{name: 0})
