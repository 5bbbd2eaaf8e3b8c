"""State made before the first step, by `init_state` or by torch.distributed.checkpoint."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim.optimizer import required

import descend
from descend.errors import HyperparameterError
from descend.optimizers import CATALOGUE
from optimizers.cases import RICH, assert_same_training, tensor

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # importing it warns of deprecations of its own
    from torch.distributed.checkpoint import state_dict as checkpoint

OPTIONS = {
    **RICH,
    "sgd with dampening": {"lr": 0.1, "momentum": 0.9, "dampening": 0.5},
    "muon with its own lr": {"lr": 0.1, "adamw_lr": 0.05},
    "adam with an lr tensor": {"lr": torch.tensor(0.1)},
    "lbfgs": {},
}
STEPPED = [name for name in OPTIONS if not name.startswith(("lbfgs", "sparse"))]


def made(name, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    cls = CATALOGUE[name.split()[0]]
    return model, cls(model.parameters(), **{**copy.deepcopy(OPTIONS[name]), **options})


def train(model, optimizer, steps=3):
    for seed in range(1, steps + 1):
        optimizer.zero_grad()
        model(tensor(seed, (5, 4), torch.float32)).square().mean().backward()
        optimizer.step()


def look(model, optimizer):
    return checkpoint.get_optimizer_state_dict(model, optimizer)


def ask(model, optimizer):
    optimizer.init_state()


def zero_step(model, optimizer):
    """What other tools do, also on a state that is there."""
    optimizer.init_state()
    rates = [group["lr"] for group in optimizer.param_groups]
    for param in model.parameters():
        param.grad = torch.zeros_like(param)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    optimizer.zero_grad()


@pytest.mark.parametrize("before", [look, ask, zero_step])
@pytest.mark.parametrize("name", STEPPED)
def test_p72_seeing_the_state_before_the_first_step_changes_nothing(backend, name, before):
    model, optimizer = made(name)
    plain_model, plain = made(name)
    start = copy.deepcopy(model.state_dict())
    before(model, optimizer)
    for key, value in model.state_dict().items():
        assert torch.equal(value, start[key])
    train(model, optimizer)
    train(plain_model, plain)
    assert_same_training(
        optimizer, list(model.parameters()), plain, list(plain_model.parameters()), rtol=0, atol=0
    )


@pytest.mark.parametrize("name", STEPPED)
def test_the_state_made_ahead_is_that_of_the_first_step(name):
    model, optimizer = made(name)
    other_model, other = made(name)
    optimizer.init_state()
    kept = copy.deepcopy(optimizer.state_dict())
    tensors = [value for entry in optimizer.state.values() for value in entry.values()]
    train(other_model, other, 1)
    for param, expected in zip(model.parameters(), other_model.parameters(), strict=True):
        entry, wanted = optimizer.state.get(param, {}), other.state.get(expected, {})
        assert list(entry) == list(wanted)
        for key, value in entry.items():
            assert value.shape == wanted[key].shape
            assert value.dtype == wanted[key].dtype
    optimizer.init_state()  # again: nothing
    torch.testing.assert_close(optimizer.state_dict(), kept)
    train(model, optimizer, 1)
    now = [value for entry in optimizer.state.values() for value in entry.values()]
    assert all(one is two for one, two in zip(tensors, now, strict=True))


@pytest.mark.parametrize("name", ["rprop", "asgd"])
def test_what_starts_from_the_lr_starts_from_that_of_the_first_step(name):
    model, optimizer = made(name)
    other_model, other = made(name)
    optimizer.init_state()
    for one in (optimizer, other):
        one.param_groups[0]["lr"] = 0.004
    train(model, optimizer)
    train(other_model, other)
    for param, expected in zip(model.parameters(), other_model.parameters(), strict=True):
        assert torch.equal(param, expected)


@pytest.mark.parametrize("name", STEPPED)
def test_a_state_made_ahead_takes_what_is_loaded_into_it(name):
    """As torch.distributed.checkpoint loads: in place, or through `set_optimizer_state_dict`."""
    model, optimizer = made(name)
    train(model, optimizer)
    saved = copy.deepcopy(look(model, optimizer))
    weights = copy.deepcopy(model.state_dict())
    train(model, optimizer)
    for in_place in (True, False):
        other_model, other = made(name)
        other_model.load_state_dict(weights)
        template = look(other_model, other)
        if in_place:
            for key, entry in template["state"].items():
                assert entry.keys() == saved["state"][key].keys()
                for part, value in entry.items():
                    value.copy_(saved["state"][key][part])
        else:
            checkpoint.set_optimizer_state_dict(other_model, other, copy.deepcopy(saved))
        train(other_model, other)
        for param, expected in zip(other_model.parameters(), model.parameters(), strict=True):
            assert torch.equal(param, expected)


def test_a_real_step_at_lr_zero_counts():
    """The first step of a warmup from 0."""
    for gradients in ((1.0, 0.0), (0.0, 1.0)):
        params = [nn.Parameter(torch.ones(2)) for _ in gradients]
        optimizer = descend.Adam(params, lr=0.0)
        for param, value in zip(params, gradients, strict=True):
            param.grad = torch.full((2,), value)
        optimizer.step()
        assert [optimizer.state[param]["step"].item() for param in params] == [1, 1]
        for param in params:
            param.grad.zero_()
        optimizer.step()
        assert [optimizer.state[param]["step"].item() for param in params] == [2, 2]


def test_a_step_at_lr_zero_of_another_group_counts():
    params = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer = descend.Adam([{"params": params[:1], "lr": 0.0}, {"params": params[1:]}])
    for param in params:
        param.grad = torch.zeros(2)
    optimizer.step()
    assert [optimizer.state[param]["step"].item() for param in params] == [1, 1]


@pytest.mark.parametrize("name", ["adamw", "sgd", "rprop"])
@pytest.mark.parametrize("mode", [FakeTensorMode, lambda: torch.device("meta")])
def test_tensors_without_data(mode, name):
    """A tool looks at the state to plan where it will lie."""
    with mode():
        model, optimizer = made(name)
        seen = look(model, optimizer)["state"]["0.weight"]
        for param in model.parameters():
            param.grad = torch.ones_like(param)
        optimizer.step()
    real_model, real = made(name)
    real.init_state()
    assert seen.keys() == real.state[real_model[0].weight].keys()


def test_a_scalar_parameter():
    param = nn.Parameter(torch.tensor(1.0))
    optimizer = descend.Adam([param], lr=0.0)
    param.grad = torch.tensor(0.0)
    optimizer.step()
    assert optimizer.state[param]["step"].item() == 0


def test_an_lr_that_only_groups_have():
    class Own(descend.Optimizer):
        rule = descend.SGD.rule

        def __init__(self, params):
            options = {"weight_decay": 0.0, "momentum": 0.9, "dampening": 0.5, "nesterov": False}
            super().__init__(params, {"lr": required, **options})

    model, _ = made("sgd")
    optimizer = Own([{"params": list(model.parameters()), "lr": 0.1}])
    look(model, optimizer)
    plain_model, plain = made("sgd", lr=0.1, dampening=0.5, nesterov=False, weight_decay=0)
    train(model, optimizer)
    train(plain_model, plain)
    for param, expected in zip(model.parameters(), plain_model.parameters(), strict=True):
        assert torch.equal(param, expected)


def test_only_what_has_no_state_and_is_not_frozen_gets_one():
    first, frozen, late = (nn.Parameter(torch.ones(2)) for _ in range(3))
    frozen.requires_grad_(False)
    optimizer = descend.AdamW([first, frozen, late])
    first.grad = torch.ones(2)
    optimizer.step()
    kept = copy.deepcopy(optimizer.state[first])
    optimizer.init_state()
    torch.testing.assert_close(optimizer.state[first], kept)
    assert frozen not in optimizer.state
    assert optimizer.state[late]["step"].item() == 0


def test_a_sparse_optimizer_and_one_with_a_closure():
    layer = nn.Embedding(4, 2, sparse=True)
    optimizer = descend.SparseAdam(layer.parameters())
    state = look(layer, optimizer)["state"]["weight"]
    assert {key: float(torch.as_tensor(value).abs().sum()) for key, value in state.items()} == {
        "step": 0.0,
        "exp_avg": 0.0,
        "exp_avg_sq": 0.0,
    }
    runs = []
    for ahead in (True, False):
        model, optimizer = made("lbfgs")
        if ahead:
            optimizer.init_state()
            assert look(model, optimizer)["state"]["0.weight"] == {"func_evals": 0, "n_iter": 0}

        def closure(model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = model(torch.ones(3, 4)).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)
        runs.append([param.tolist() for param in model.parameters()])
    assert runs[0] == runs[1]


def test_a_refused_init_state_changes_nothing():
    params = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer = descend.Adam([{"params": [param]} for param in params])
    optimizer.param_groups[1]["lr"] = -1.0
    with pytest.raises(HyperparameterError, match=r"lr=-1\.0"):
        optimizer.init_state()
    assert not optimizer.state

    class Own(descend.Optimizer):
        def step(self, closure=None):
            self.state[self.param_groups[0]["params"][0]]["seen"] = True

    with pytest.raises(NotImplementedError, match=r"define init_state\(self\)"):
        Own(params, {"lr": 0.1}).init_state()


@pytest.mark.parametrize("flat", [False, True])
def test_p72_a_frozen_parameter_keeps_its_state(flat):
    """torch #192202: DCP's load leaves it out of what it loads."""
    options = checkpoint.StateDictOptions(flatten_optimizer_state_dict=flat)
    model, optimizer = made("adamw")
    train(model, optimizer)
    model[0].requires_grad_(False)
    saved = copy.deepcopy(checkpoint.get_optimizer_state_dict(model, optimizer, options=options))
    kept = copy.deepcopy(optimizer.state[model[0].weight])
    checkpoint.set_optimizer_state_dict(model, optimizer, saved, options=options)
    torch.testing.assert_close(dict(optimizer.state[model[0].weight]), dict(kept), rtol=0, atol=0)

    # A new process: made before the freezing, the state is there to be loaded into.
    other_model, other = made("adamw")
    other.init_state()
    other_model[0].requires_grad_(False)
    template = checkpoint.get_optimizer_state_dict(other_model, other, options=options)
    entry = other.state[other_model[0].weight]
    if flat:
        assert template["state.0.weight.exp_avg"] is entry["exp_avg"]
    entry["exp_avg"].copy_(kept["exp_avg"])  # as DCP does with every tensor of the template
    checkpoint.set_optimizer_state_dict(other_model, other, template, options=options)
    assert torch.equal(other.state[other_model[0].weight]["exp_avg"], kept["exp_avg"])

    # What DCP saved, loaded without it: nothing is left out.
    if not flat:
        third_model, third = made("adamw")
        third_model[0].requires_grad_(False)
        third.load_state_dict(saved)
        torch.testing.assert_close(dict(third.state[third_model[0].weight]), dict(kept))

    # Another state without an entry is that of a parameter that had none.
    optimizer.load_state_dict(made("adamw")[1].state_dict())
    assert not optimizer.state[model[0].weight]
