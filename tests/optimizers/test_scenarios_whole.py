"""Scenarios A1 to A10 for the optimizers that are not elementwise, or take sparse gradients only.

`test_scenarios.py` has them for the others.
"""

import copy

import pytest
import torch
from torch import nn

import descend
from descend.optimizers import CATALOGUE

NAMES = ["adafactor", "lbfgs", "muon", "sparseadam"]
OPTIONS = {"adafactor": {"lr": 0.05}, "lbfgs": {"lr": 0.5, "max_iter": 4}, "muon": {"lr": 0.05}}
# Muon's matrix products are in bfloat16; torch's add up in another order where a matrix is tall.
CLOSE = {"muon": {"rtol": 1e-2, "atol": 1e-2}}


class Looked(nn.Module):
    """Three tables of which rows are summed: their gradients are sparse."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Embedding(6, 4, sparse=True, dtype=torch.float64) for _ in range(3)
        )

    def forward(self, inputs):
        return sum(layer(inputs) for layer in self.layers).square()


def network(name):
    """A model of three layers and what it is fed; the middle one is `middle(model)`."""
    torch.manual_seed(0)
    if name == "sparseadam":
        return Looked(), torch.tensor([0, 2, 2, 5])
    bias = name != "muon"  # torch's takes matrices only
    first, middle, last = (nn.Linear(4, 4, bias=bias, dtype=torch.float64) for _ in range(3))
    model = nn.Sequential(first, nn.ReLU(), middle, nn.ReLU(), last)
    return model, torch.randn(5, 4, dtype=torch.float64)


def middle(model):
    return model.layers[1] if isinstance(model, Looked) else model[2]


def stepped(name, make, steps=3, prepare=None, params=None, backward=None, **options):
    """A model after some steps with a closure, its optimizer, and the losses they returned."""
    model, inputs = network(name)
    if prepare:
        prepare(model)
    found = params(model) if params else model.parameters()
    optimizer = make(found, **{**OPTIONS.get(name, {}), **options})
    losses = [train(optimizer, model, inputs, backward) for _ in range(steps)]
    return model, optimizer, losses


def train(optimizer, model, inputs, backward=None):
    def closure():
        optimizer.zero_grad()
        loss = (model(inputs) - 1).square().mean()
        (backward or torch.Tensor.backward)(loss)
        return loss

    return optimizer.step(closure).item()


def theirs(name):
    return getattr(torch.optim, CATALOGUE[name].__name__)


def assert_same(name, mine, other):
    (my_model, _, my_losses), (their_model, _, their_losses) = mine, other
    tolerance = CLOSE.get(name, {"rtol": 1e-9, "atol": 1e-10})
    for my_param, their_param in zip(my_model.parameters(), their_model.parameters(), strict=True):
        torch.testing.assert_close(my_param, their_param, **tolerance)
    torch.testing.assert_close(torch.tensor(my_losses), torch.tensor(their_losses), **tolerance)
    start = list(network(name)[0].parameters())
    assert not all(map(torch.equal, my_model.parameters(), start))


@pytest.mark.parametrize("name", NAMES)
def test_a1_groups_print_as_in_torch_and_then_descends_own(name):
    groups = []
    for make in (CATALOGUE[name], theirs(name)):
        model, _ = network(name)
        groups.append(make(model.parameters()).param_groups[0])
    mine, expected = groups
    assert list(mine)[: len(expected)] == list(expected)
    assert all(mine[key] == value for key, value in expected.items() if key != "params")


@pytest.mark.parametrize("name", NAMES)
def test_a2_a_frozen_middle_layer(name):
    def freeze(model):
        middle(model).requires_grad_(False)

    mine, other = (stepped(name, make, prepare=freeze) for make in (CATALOGUE[name], theirs(name)))
    assert_same(name, mine, other)
    model, optimizer, _ = mine
    for frozen, start in zip(
        middle(model).parameters(), middle(network(name)[0]).parameters(), strict=True
    ):
        assert frozen.grad is None
        assert torch.equal(frozen, start)
        assert not optimizer.state.get(frozen)


@pytest.mark.parametrize("name", NAMES)
def test_a3_groups_with_their_own_lr(name):
    def groups(model):
        return descend.param_groups(model, [(middle(model), {"lr": 0.0}), (..., {})])

    model, _, _ = stepped(name, CATALOGUE[name], params=groups, **_no_decay(name))
    start, _ = network(name)
    assert all(map(torch.equal, middle(model).parameters(), middle(start).parameters()))
    assert not all(map(torch.equal, model.parameters(), start.parameters()))


def _no_decay(name):
    # SparseAdam refuses lr=0 as its default, not in a group; Muon's decay is scaled by lr.
    return {"weight_decay": 0.0} if name == "muon" else {}


@pytest.mark.parametrize("name", NAMES)
def test_a4_a_group_added_in_mid_training(name):
    model, optimizer, _ = stepped(
        name,
        CATALOGUE[name],
        params=lambda model: [p for p in model.parameters() if p not in _of(middle(model))],
    )
    before = copy.deepcopy(_values(middle(model)))
    optimizer.add_param_group({"params": list(middle(model).parameters()), "lr": 0.01})
    _, inputs = network(name)
    train(optimizer, model, inputs)
    assert optimizer.param_groups[1]["lr"] == 0.01
    assert not all(map(torch.equal, middle(model).parameters(), before))


def _of(layer):
    return set(layer.parameters())


def _values(layer):
    return [param.detach().clone() for param in layer.parameters()]


@pytest.mark.parametrize("name", NAMES)
def test_a5_lr_written_by_hand(name):
    results = []
    for make in (CATALOGUE[name], theirs(name)):
        model, optimizer, losses = stepped(name, make)
        optimizer.param_groups[0]["lr"] = 0.01
        losses += [train(optimizer, model, network(name)[1]) for _ in range(2)]
        results.append((model, optimizer, losses))
    assert_same(name, *results)
    unchanged = stepped(name, CATALOGUE[name], steps=5)
    assert not all(map(torch.equal, results[0][0].parameters(), unchanged[0].parameters()))


@pytest.mark.parametrize("name", NAMES)
def test_a6_zero_grad(name):
    model, optimizer, _ = stepped(name, CATALOGUE[name])
    kept = [param.grad for param in model.parameters()]
    optimizer.zero_grad(set_to_none=False)
    for param, grad in zip(model.parameters(), kept, strict=True):
        assert param.grad is grad
        assert not grad.to_dense().any()
    optimizer.zero_grad()
    assert all(param.grad is None for param in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a7_a_closure_is_evaluated_and_its_first_loss_returned(name):
    calls = []

    def backward(loss):
        calls.append(loss.item())
        loss.backward()

    _, _, losses = stepped(name, CATALOGUE[name], steps=1, backward=backward)
    assert losses == calls[:1]
    assert (len(calls) > 1) == (name == "lbfgs")


@pytest.mark.parametrize("name", NAMES)
def test_a8_state_dict_to_torch_and_back(name):
    model, optimizer, _ = stepped(name, CATALOGUE[name])
    expected = copy.deepcopy((model, optimizer))
    other = theirs(name)(model.parameters(), **OPTIONS.get(name, {}))
    other.load_state_dict(optimizer.state_dict())
    _, inputs = network(name)
    train(other, model, inputs)
    back = CATALOGUE[name](model.parameters(), **OPTIONS.get(name, {}))
    back.load_state_dict(other.state_dict())
    losses = [train(back, model, inputs)]
    its_model, its_optimizer = expected
    train(its_optimizer, its_model, inputs)
    its_losses = [train(its_optimizer, its_model, inputs)]
    assert_same(name, (model, back, losses), (its_model, its_optimizer, its_losses))


@pytest.mark.parametrize("name", NAMES)
def test_a9_tied_weights_are_stepped_once(name):
    def tie(model):
        if isinstance(model, Looked):
            model.layers[2] = model.layers[0]
        else:
            model[4] = model[0]

    mine, other = (stepped(name, make, prepare=tie) for make in (CATALOGUE[name], theirs(name)))
    assert_same(name, mine, other)


@pytest.mark.parametrize("name", NAMES)
def test_a10_gradients_accumulated(name):
    def twice(loss):
        loss.backward(retain_graph=True)
        loss.backward()

    mine, other = (stepped(name, make, backward=twice) for make in (CATALOGUE[name], theirs(name)))
    assert_same(name, mine, other)


@pytest.mark.parametrize("name", ["adafactor", "muon"])
def test_a10_gradients_clipped(name):
    mine = stepped(name, CATALOGUE[name], clip_norm=0.01)

    model, inputs = network(name)
    optimizer = theirs(name)(model.parameters(), **OPTIONS[name])
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = (model(inputs) - 1).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()
        losses.append(loss.item())
    assert_same(name, mine, (model, optimizer, losses))
