"""L-BFGS with several parameter groups, which torch refuses."""

import math

import pytest
import torch
from torch.nn import Parameter

from descend import LBFGS
from descend.errors import HyperparameterError
from optimizers.cases import tensor
from optimizers.minimizing import (
    DOUBLE,
    SEARCHES,
    START,
    Run,
    assert_state_is,
    in_groups,
    rosenbrock,
)


@SEARCHES
def test_groups_with_their_own_lr_are_a_change_of_variables(search):
    """torch's L-BFGS on z, where x = sqrt(lr / largest lr) z; without tolerances, in units of x."""
    rates, sizes = [0.2, 0.05, 0.8], [3, 1, 4]
    exact = {"tolerance_grad": 0, "tolerance_change": 0}
    starts = [0.3 * tensor(seed, (size,)) for seed, size in enumerate(sizes)]
    params = [Parameter(start.clone()) for start in starts]
    groups = [{"params": [p], "lr": lr} for p, lr in zip(params, rates, strict=True)]
    mine, _, _ = in_groups(LBFGS, groups, search, steps=2, **exact)

    shares = [torch.full((size,), lr / max(rates), dtype=DOUBLE)
              for size, lr in zip(sizes, rates, strict=True)]  # fmt: skip
    roots = torch.cat(shares).sqrt()
    theirs = Run(
        torch.optim.LBFGS,
        lambda z: rosenbrock(roots * z),
        torch.cat(starts) / roots,
        lr=max(rates),
        line_search_fn=search,
        **exact,
    ).steps(2)
    assert len(set(mine)) > 20
    # The square roots are rounded, and every iteration amplifies that.
    torch.testing.assert_close(
        torch.tensor(mine[:20], dtype=DOUBLE),
        torch.tensor(theirs.losses[:20], dtype=DOUBLE),
        rtol=1e-9,
        atol=1e-12,
    )


@SEARCHES
def test_groups_of_one_lr_are_one_group(search):
    whole = Run(LBFGS, rosenbrock, lr=0.3, line_search_fn=search).steps(2)
    parts = [Parameter(part.clone()) for part in START.split([3, 0, 7])]
    groups = [{"params": [part]} for part in parts]
    losses, optimizer, _ = in_groups(LBFGS, groups, search, steps=2, lr=0.3)
    # The sums of the first length and of the scale are taken group by group.
    assert losses == pytest.approx(whole.losses, rel=1e-9)
    assert list(optimizer.state) == parts[:1]
    assert list(optimizer.state[parts[0]]) == list(whole.state)


@SEARCHES
def test_a_group_with_lr_zero_stays_and_is_a_constant_to_the_others(search):
    moving, fixed = Parameter(START[6:].clone()), Parameter(START[:6].clone())
    groups = [{"params": [fixed], "lr": 0.0}, {"params": [moving]}]
    losses, _, _ = in_groups(LBFGS, groups, search, lr=0.3)
    alone = Run(
        LBFGS,
        lambda x: rosenbrock(torch.cat([START[:6], x])),
        START[6:],
        lr=0.3,
        line_search_fn=search,
    ).steps(4)
    # Zeros are added to the dot products, in another order.
    assert losses == pytest.approx(alone.losses, rel=1e-6)
    assert torch.equal(fixed.detach(), START[:6])


def test_a_group_is_frozen_and_thawed_in_the_middle_of_training():
    """The memory goes on: it holds for any lr."""
    parts = [Parameter(part.clone()) for part in START.split([4, 6])]
    groups = [{"params": [part]} for part in parts]
    losses, optimizer, closure = in_groups(LBFGS, groups, "strong_wolfe", steps=1, max_iter=6)
    remembered = len(optimizer.state[parts[0]]["old_dirs"])
    optimizer.param_groups[0]["lr"] = 0.0
    frozen, before = parts[0].detach().clone(), losses[-1]
    optimizer.step(closure)
    assert torch.equal(parts[0].detach(), frozen)
    assert losses[-1] < before
    assert len(optimizer.state[parts[0]]["old_dirs"]) > remembered
    optimizer.param_groups[0]["lr"] = 1.0
    before = losses[-1]
    for _ in range(30):
        optimizer.step(closure)
    assert not torch.equal(parts[0].detach(), frozen)
    assert losses[-1] < 1e-6 * before


def test_a_gradient_of_a_frozen_group_does_not_keep_a_step_from_ending():
    fixed, moving = Parameter(torch.full((2,), 5.0)), Parameter(torch.ones(2))
    optimizer = LBFGS([{"params": [fixed], "lr": 0.0}, {"params": [moving]}])
    calls = []

    def closure():
        calls.append(0)
        optimizer.zero_grad()
        loss = (fixed**2).sum() + ((moving - 1) ** 2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert len(calls) == 1


@SEARCHES
def test_lr_zero_everywhere_moves_nothing(search):
    """torch divides by zero in its line search."""
    run = Run(LBFGS, rosenbrock, lr=0.0, line_search_fn=search).steps(3)
    assert torch.equal(run.param.detach(), START)


def test_a_group_added_in_the_middle_of_training_starts_the_memory_anew():
    """From there on it is a new optimizer's training, bit for bit."""
    first, second = (Parameter(part.clone()) for part in START.split([4, 6]))
    optimizer = LBFGS([first], line_search_fn="strong_wolfe")

    def closure():
        first.grad = second.grad = None
        loss = rosenbrock(torch.cat([first, second]))
        loss.backward()
        return loss

    optimizer.step(closure)
    optimizer.state[first]["note"] = "mine"
    evaluations = optimizer.state[first]["func_evals"]
    optimizer.add_param_group({"params": [second], "lr": 0.5})
    expected = {"func_evals": evaluations, "n_iter": 0, "note": "mine"}
    assert optimizer.state[first] == expected
    copies = [Parameter(one.detach().clone()) for one in (first, second)]
    groups = [{"params": [copies[0]]}, {"params": [copies[1]], "lr": 0.5}]
    losses, _, _ = in_groups(LBFGS, groups, "strong_wolfe", steps=3)
    for _ in range(3):
        optimizer.step(closure)
    assert optimizer.state[first]["func_evals"] == evaluations + len(losses)
    assert torch.equal(first, copies[0])
    assert torch.equal(second, copies[1])


def test_a_refused_group_leaves_the_memory():
    run = Run(LBFGS, rosenbrock).steps(1)
    before = dict(run.state)
    for group in ({"params": [run.param]}, {"params": [Parameter(START.clone())], "max_iter": 3}):
        with pytest.raises(ValueError, match="group"):
            run.optimizer.add_param_group(group)
    assert_state_is(dict(run.state), before)


COMMON = [
    ("max_iter", 5),
    ("max_eval", 7),
    ("tolerance_grad", 0.1),
    ("tolerance_change", 0.1),
    ("history_size", 3),
    ("line_search_fn", "strong_wolfe"),
    ("maximize", True),
]


@pytest.mark.parametrize(("name", "value"), COMMON)
def test_options_of_the_whole_step_must_agree(name, value):
    one, other = Parameter(torch.ones(2)), Parameter(torch.ones(3))
    message = rf"{name}={value!r} in group 1 and {name}=.* in group 0.*constructor"
    with pytest.raises(HyperparameterError, match=message):
        LBFGS([{"params": [one]}, {"params": [other], name: value}])
    optimizer = LBFGS([one])
    with pytest.raises(HyperparameterError, match=message):
        optimizer.add_param_group({"params": [other], name: value})
    assert len(optimizer.param_groups) == 1
    LBFGS([{"params": [one], name: value}, {"params": [other], name: value}])
    optimizer.add_param_group({"params": [other]})
    optimizer.param_groups[1][name] = value
    with pytest.raises(HyperparameterError, match=message):
        optimizer.step(lambda: pytest.fail("nothing must be evaluated"))


def test_the_share_of_an_lr_is_what_counts():
    """Halving all lrs halves the first trial only."""
    firsts = []
    for top in (1.0, 0.5):
        parts = [Parameter(part.clone()) for part in START.split([4, 6])]
        groups = [{"params": [parts[0]], "lr": top}, {"params": [parts[1]], "lr": top / 4}]
        in_groups(LBFGS, groups, None, steps=1, max_iter=1)
        firsts.append([(p.detach() - s).norm().item()
                       for p, s in zip(parts, START.split([4, 6]), strict=True)])  # fmt: skip
    assert firsts[0] == pytest.approx([2 * move for move in firsts[1]])
    assert all(map(math.isfinite, firsts[0]))
