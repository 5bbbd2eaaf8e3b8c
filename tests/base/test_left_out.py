"""Groups are torch's: an option that torch has not is in them only where it is used."""

import copy
import pickle
from typing import ClassVar

import pytest
import torch

import descend
from descend.engine.hyperparameters import Switch
from descend.optimizers import CATALOGUE
from descend.schedules import constant, value
from optimizers.any_optimizer import IN_TORCH, parameters, torchs, train
from optimizers.cases import assert_close

BEYOND = [(name, key) for name in IN_TORCH for key in CATALOGUE[name].left_out]
OTHER = {
    "adamw": True,
    "adamw_betas": (0.5, 0.9),
    "adamw_eps": 1e-3,
    "adamw_lr": 0.01,
    "normalize": "rows",
    "orthogonalize": "polar-express",
}
"""Values that are not the defaults; all others are 0.25, or True."""

RUN_TIME = {"capturable", "differentiable"}


def another(name, key):
    allowed = CATALOGUE[name].hyperparameters[key].allowed
    return OTHER.get(key, True if isinstance(allowed, Switch) else 0.25)


def test_there_are_some():
    assert ("rprop", "weight_decay") in BEYOND
    assert ("muon", "adamw_lr") in BEYOND
    assert ("sgd", "capturable") in BEYOND


@pytest.mark.parametrize("name", IN_TORCH)
def test_groups_are_torchs(name):
    def made(cls):
        params = parameters()
        optimizer = cls(params)
        if name != "lbfgs":
            optimizer = cls([{"params": params[:1]}, {"params": params[1:], "lr": 0.5}])
            optimizer.add_param_group({"params": torch.nn.Parameter(torch.ones(2, 2))})
        return optimizer

    mine, theirs = made(CATALOGUE[name]), made(torchs(name))
    assert str(mine) == str(theirs)
    assert list(mine.defaults.items()) == list(theirs.defaults.items())
    for ours, other in zip(mine.param_groups, theirs.param_groups, strict=True):
        assert list(ours) == list(other)
    assert mine.state_dict()["param_groups"] == theirs.state_dict()["param_groups"]
    train(name, mine, mine.param_groups[0]["params"], 2)
    again = [copy.deepcopy(mine), pickle.loads(pickle.dumps(mine))]
    mine.load_state_dict(theirs.state_dict())
    for optimizer in (mine, *again):
        assert str(optimizer) == str(theirs)


@pytest.mark.parametrize(("name", "key"), BEYOND)
def test_what_is_not_the_default_is_in_the_group(name, key):
    chosen = another(name, key)
    default = CATALOGUE[name].hyperparameters[key].default
    params = parameters()
    optimizer = CATALOGUE[name](params, **{key: chosen})
    (group,) = optimizer.param_groups
    assert (group[key], optimizer.defaults[key]) == (chosen, chosen)
    plain = CATALOGUE[name](params)
    (other,) = plain.param_groups
    assert key not in other
    assert plain.options_of(other)[key] == default
    if key in RUN_TIME:
        return
    # A state that leaves it out is of one where it was at its default; and the other way round.
    plain_state, state = plain.state_dict(), optimizer.state_dict()
    optimizer.load_state_dict(plain_state)
    assert optimizer.options_of(group)[key] == default
    plain.load_state_dict(state)
    assert other[key] == chosen
    plain.load_state_dict(plain_state)
    assert plain.options_of(other)[key] == default


@pytest.mark.parametrize(("name", "key"), BEYOND)
def test_it_can_be_switched_on_in_mid_training(name, key):
    """As if it had been there from the start, at its default."""
    if key in RUN_TIME:
        pytest.skip("the state changes its place")
    mine, theirs = parameters(), parameters()
    optimizer = CATALOGUE[name](mine)
    reference = CATALOGUE[name](theirs)
    reference.param_groups[0][key] = CATALOGUE[name].hyperparameters[key].default
    for one, params in ((optimizer, mine), (reference, theirs)):
        train(name, one, params, 2)
        if key != "adamw":  # whose state is another
            one.param_groups[0][key] = another(name, key)
        train(name, one, params, 2, 2)
        one.param_groups[0].pop(key, None)
        train(name, one, params, 2, 4)
    for param, expected in zip(mine, theirs, strict=True):
        assert torch.equal(param, expected)


@pytest.mark.parametrize("name", ["rprop", "sparseadam"])
def test_it_can_be_scheduled(name):
    def run(schedule):
        params = parameters()
        optimizer = CATALOGUE[name](params)
        scheduler = descend.Scheduler(optimizer, weight_decay=schedule)
        optimizer.add_param_group({"params": torch.nn.Parameter(torch.ones(2, 2))})
        for step in range(3):
            train(name, optimizer, params, 1, step)
            scheduler.step()
            optimizer.load_state_dict(optimizer.state_dict())
        return optimizer, params

    optimizer, params = run(value(0.25))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.25, 0.25]
    expected = parameters()
    train(name, CATALOGUE[name](expected, weight_decay=0.25), expected, 3)
    for param, other in zip(params, expected, strict=True):
        assert_close(param, other)
    optimizer, params = run(constant(2))  # a factor of 0
    assert optimizer.param_groups[0]["weight_decay"] == 0.0


def test_muons_companion_can_be_scheduled():
    params = [torch.nn.Parameter(torch.ones(3))]
    optimizer = descend.Muon(params)
    descend.Scheduler(optimizer, adamw_eps=value(0.5))
    assert optimizer.param_groups[0]["adamw_eps"] == 0.5


def test_a_subclass_may_have_another_default():
    class Decayed(descend.Rprop):
        def __init__(self, params, lr=0.01, weight_decay: descend.rules.WeightDecay = 0.25):
            super().__init__(params, lr, weight_decay=weight_decay)

    mine, theirs = parameters(), parameters()
    optimizer, other = Decayed(mine), descend.Rprop(theirs, weight_decay=0.25)
    train("rprop", optimizer, mine, 4)
    train("rprop", other, theirs, 4)
    assert "weight_decay" not in optimizer.param_groups[0]
    for param, expected in zip(mine, theirs, strict=True):
        assert torch.equal(param, expected)


def test_a_refused_schedule_adds_nothing():
    optimizer = descend.Rprop(parameters())
    with pytest.raises(descend.errors.ScheduleError):
        descend.Scheduler(optimizer, weight_decay=value(0.25), nothing=value(0.25))
    assert "weight_decay" not in optimizer.param_groups[0]


def test_a_key_of_the_users_own_is_read_beside_what_is_left_out(backend):
    """A rule of the user's own may read it in every step."""

    def update(param, grad, *, lr, scale):
        return (param - lr * scale * grad,)

    class Rprop(descend.Optimizer):
        rule = descend.rules.Rule(
            update, lambda options, step: {"lr": options["lr"], "scale": options["scale"]}
        )
        left_out: ClassVar = {"weight_decay": 0.0}

        def __init__(
            self,
            params,
            lr: descend.rules.LearningRate = 1.0,
            weight_decay: descend.rules.WeightDecay = 0.0,
        ):
            super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "scale": 1.0})

    param = torch.nn.Parameter(torch.zeros(2))
    optimizer = Rprop([param])
    (group,) = optimizer.param_groups
    expected = 0.0
    for scale, rate in [(1.0, 1.0), (1.0, 1.0), (2.0, 1.0), (2.0, 0.5), (3.0, 0.5), (3.0, 0.25)]:
        group["scale"], group["lr"] = scale, rate
        param.grad = torch.ones(2)
        optimizer.step()
        expected -= scale * rate
        assert param.tolist() == [expected] * 2
    assert "weight_decay" not in group
