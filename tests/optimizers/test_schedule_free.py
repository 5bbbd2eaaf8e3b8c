"""Schedule-free optimizers: beside their authors' code, and in and out of evaluation mode."""

import copy
import warnings

import numpy as np
import pytest
import torch

import descend
from descend.errors import HyperparameterError, ModeError
from optimizers.cases import RICH, assert_close, give_gradients, ours, tensor, threads

NAMES = ["schedulefreeadamw", "schedulefreesgd"]
SHAPE, STEPS = (33, 7), 200
WARMED = {"weight_decay": 0.1, "warmup_steps": 50}
CASES = {
    "adamw": ("AdamW", {"lr": 0.01}),
    "adamw, warmed up": ("AdamW", {"lr": 0.01, "betas": (0.8, 0.95), **WARMED}),
    "adamw, weighted": ("AdamW", {"lr": 0.01, "r": 1.5, "weight_lr_power": 1.0, **WARMED}),
    "sgd": ("SGD", {"lr": 0.1}),
    "sgd, warmed up": ("SGD", {"lr": 0.1, "momentum": 0.8, **WARMED}),
    "sgd, weighted": ("SGD", {"lr": 0.1, "r": 1.5, "weight_lr_power": 1.0, **WARMED}),
}


def _trained(optimizer, param, steps=range(1, STEPS + 1), change=lambda step: None):
    for step in steps:
        param.grad = tensor(step, param.shape, param.dtype) + 0.3 * param.detach()
        change(step)
        optimizer.step()


@pytest.mark.parametrize(
    ("dtype", "close"),
    # float32: 200 steps of about 5 roundings of 6e-8, which mostly cancel
    [(torch.float64, 1e-12), (torch.float32, 2e-5)],
    ids=["float64", "float32"],
)
@pytest.mark.parametrize("case", CASES)
def test_200_steps_are_those_of_the_authors(case, dtype, close):
    """With evaluations in the middle, and a learning rate that a schedule changes."""
    authors = pytest.importorskip("schedulefree")
    kind, options = CASES[case]

    def trained(cls):
        param = torch.nn.Parameter(tensor(0, SHAPE, dtype))
        optimizer = cls([param], **options)
        optimizer.train()

        def change(step):
            optimizer.param_groups[0]["lr"] = options["lr"] * (1.5 + np.sin(step / 30))
            if step in (1, 2, 60, 150):
                optimizer.eval()
                optimizer.eval()
                optimizer.train()

        _trained(optimizer, param, change=change)
        y = param.detach().clone()
        optimizer.eval()
        return y, param.detach(), optimizer.state[param]["z"]

    mine = trained(getattr(descend, f"ScheduleFree{kind}"))
    theirs = trained(getattr(authors, f"{kind}ScheduleFree"))
    assert (mine[0] - mine[1]).abs().max() > 0.01
    torch.testing.assert_close(mine, theirs, rtol=close, atol=close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_eval_and_back_changes_no_bit(backend, device, name, dtype):
    """Nor does doing either twice."""
    trained = []
    for evaluates in (False, True):
        param = torch.nn.Parameter(tensor(0, SHAPE, dtype, device))
        optimizer = ours(name)([param], **RICH[name])
        for step in range(1, 7):
            param.grad = tensor(step, SHAPE, dtype, device)
            optimizer.step()
            if evaluates:
                before = param.detach().clone()
                optimizer.eval()
                x = param.detach().clone()
                optimizer.eval()
                assert torch.equal(param, x)
                assert step < 3 or not torch.equal(x, before)
                optimizer.train()
                optimizer.train()
                assert torch.equal(param, before)
        trained.append((param.detach(), optimizer.state[param]))
    assert torch.equal(trained[0][0], trained[1][0])
    assert list(trained[0][1]) == list(trained[1][1])
    assert all(map(torch.equal, trained[0][1].values(), trained[1][1].values()))


@pytest.mark.parametrize("name", NAMES)
def test_x_is_the_weighted_mean_of_z(name):
    param = torch.nn.Parameter(tensor(0, SHAPE))
    options = {"lr": 0.02, "warmup_steps": 5, "r": 0.5}
    optimizer = ours(name)([param], **options)
    points, weights = [], []
    for step in range(1, 21):
        param.grad = tensor(step, SHAPE)
        optimizer.step()
        points.append(optimizer.state[param]["z"].clone())
        weights.append(step**0.5 * (0.02 * min(step / 5, 1)) ** 2)
    optimizer.eval()
    mean = sum(weight * z for weight, z in zip(weights, points, strict=True)) / sum(weights)
    assert_close(param, mean)


@pytest.mark.parametrize("name", NAMES)
def test_x_stays_the_mean_where_a_schedule_changes_the_share_of_y(name):
    """As OneCycleLR does: the y of before has another share of x than the next."""
    param = torch.nn.Parameter(tensor(0, SHAPE))
    optimizer = ours(name)([param], lr=0.02)
    points = []
    for step in range(1, 21):
        share = 0.95 - 0.02 * step
        key, value = ("betas", (share, 0.999)) if "adam" in name else ("momentum", share)
        optimizer.param_groups[0][key] = value
        param.grad = tensor(step, SHAPE)
        optimizer.step()
        points.append(optimizer.state[param]["z"].clone())
    y = param.detach().clone()
    optimizer.eval()
    assert_close(param, sum(points) / len(points))
    assert_close(y, share * param + (1 - share) * points[-1])


@pytest.mark.parametrize("name", NAMES)
def test_a_step_in_evaluation_mode_is_refused(name):
    param = torch.nn.Parameter(tensor(0, SHAPE))
    optimizer = ours(name)([param], lr=0.1)
    _trained(optimizer, param, [1, 2])
    optimizer.eval()
    before, state = param.detach().clone(), copy.deepcopy(optimizer.state[param])
    with pytest.raises(ModeError, match=r"evaluation mode \(group 0\).*call optimizer.train\(\)"):
        optimizer.step()
    called = []
    with pytest.raises(ModeError):
        optimizer.step(lambda: called.append(1))
    assert not called
    assert torch.equal(param, before)
    assert all(map(torch.equal, state.values(), optimizer.state[param].values()))
    optimizer.train()
    optimizer.step()


@pytest.mark.parametrize("name", NAMES)
def test_a_model_loaded_in_evaluation_mode_is_not_undone(name):
    param = torch.nn.Parameter(tensor(0, SHAPE))
    optimizer = ours(name)([param], lr=0.1)
    _trained(optimizer, param, [1, 2, 3])
    optimizer.eval()
    x = tensor(7, SHAPE)
    with torch.no_grad():
        param.copy_(x)
    optimizer.train()
    assert_close(param, 0.9 * x + 0.1 * optimizer.state[param]["z"])
    assert "y" not in optimizer.state[param]


def _saved(how, optimizer, param, folder):
    """What becomes of a parameter and its optimizer on their way through a file, or a copy."""
    if how == "deepcopy":
        both = copy.deepcopy({"param": param, "optimizer": optimizer})
        return both["optimizer"], both["param"]
    new = torch.nn.Parameter(torch.zeros(SHAPE))
    other = type(optimizer)([new], lr=0.5)
    if how == "torch":
        torch.save({"param": param.detach(), "optimizer": optimizer.state_dict()}, folder / "it.pt")
        loaded = torch.load(folder / "it.pt", weights_only=True)
        with torch.no_grad():
            new.copy_(loaded["param"])
        other.load_state_dict(loaded["optimizer"])
    else:
        model = torch.nn.ParameterDict({"param": param})
        descend.checkpoint.save(folder / "it", {"model": model, "optimizer": optimizer})
        descend.checkpoint.restore(
            folder / "it", model=torch.nn.ParameterDict({"param": new}), optimizer=other
        )
    return other, new


@pytest.mark.parametrize("how", ["deepcopy", "torch", "descend"])
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", NAMES)
def test_a_copy_goes_on_to_the_bit_in_either_mode(tmp_path, name, mode, how):
    param = torch.nn.Parameter(tensor(0, SHAPE, torch.float32))
    optimizer = ours(name)([param], **RICH[name])
    _trained(optimizer, param, range(1, 9))
    getattr(optimizer, mode)()
    other, new = _saved(how, optimizer, param, tmp_path)
    assert new is not param
    assert torch.equal(new, param)
    assert [group["train_mode"] for group in other.param_groups] == [mode == "train"]
    for one, tensors in ((optimizer, param), (other, new)):
        one.train()
        _trained(one, tensors, range(9, 15))
    assert torch.equal(new, param)
    optimizer.eval()
    other.eval()
    assert torch.equal(new, param)


@pytest.mark.parametrize("name", NAMES)
def test_a_group_that_comes_later_is_in_the_mode_of_the_others(name):
    params = [torch.nn.Parameter(tensor(0, SHAPE)) for _ in range(3)]
    optimizer = ours(name)([params[0]], lr=0.1)
    optimizer.add_param_group({"params": [params[1]]})
    optimizer.eval()
    optimizer.add_param_group({"params": [params[2]]})
    assert [group["train_mode"] for group in optimizer.param_groups] == [False] * 3


@pytest.mark.parametrize("name", NAMES)
def test_state_made_ahead_starts_from_the_model_of_the_first_step(backend, device, name):
    """A model may be loaded between `init_state` and the first step."""
    trained = []
    for ahead in (False, True):
        param = torch.nn.Parameter(tensor(0, SHAPE, torch.float32, device))
        optimizer = ours(name)([param], **RICH[name])
        if ahead:
            optimizer.init_state()
            assert torch.equal(optimizer.state[param]["z"], param)
        with torch.no_grad():
            param.copy_(tensor(1, SHAPE, torch.float32))
        optimizer.eval()
        assert torch.equal(param.cpu(), tensor(1, SHAPE, torch.float32))
        optimizer.train()
        for step in range(3):
            param.grad = tensor(step, SHAPE, torch.float32, device)
            optimizer.step()
        trained.append(param.detach())
    assert torch.equal(*trained)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", NAMES)
def test_a_step_at_lr_0_with_zero_gradients_leaves_everything_new(name, mode):
    """torch.distributed.checkpoint takes one to see the state."""
    param = torch.nn.Parameter(tensor(0, SHAPE))
    optimizer = ours(name)([param], lr=0.1)
    getattr(optimizer, mode)()
    optimizer.param_groups[0]["lr"] = 0.0
    param.grad = torch.zeros(SHAPE, dtype=torch.float64)
    optimizer.step()
    assert torch.equal(param, tensor(0, SHAPE))
    state = optimizer.state[param]
    assert torch.equal(state["z"], param)
    assert (state["step"], state["weight_sum"], state["lr_max"]) == (0, 0, 0)


@pytest.mark.parametrize("power", [0.0, 2.0])
@pytest.mark.parametrize("name", NAMES)
def test_steps_at_lr_0_move_nothing_and_divide_by_nothing(backend, device, name, power):
    param = torch.nn.Parameter(tensor(0, SHAPE, device=device))
    optimizer = ours(name)([param], lr=0.0, weight_lr_power=power)
    for step in (1, 2):
        param.grad = tensor(step, SHAPE, device=device)
        optimizer.step()
    assert torch.equal(param.cpu(), tensor(0, SHAPE))
    optimizer.eval()
    assert torch.equal(param.cpu(), tensor(0, SHAPE))
    optimizer.train()
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()
    assert param.isfinite().all()
    assert (param.cpu() != tensor(0, SHAPE)).all()


def test_without_a_share_of_x_in_y_there_is_no_way_back():
    param = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(HyperparameterError, match=r"betas=\(0.0, 0.9\).*must be above 0, unless"):
        descend.ScheduleFreeAdamW([param], betas=(0.0, 0.9))
    with pytest.raises(HyperparameterError, match=r"momentum=0.*above 0 and at most 1"):
        descend.ScheduleFreeSGD([param], momentum=0)
    with pytest.raises(HyperparameterError, match=r"mu_y=0.*above 0 and at most 1"):
        descend.ScheduleFreeAdamW([param], mu_y=0)
    optimizer = descend.ScheduleFreeAdamW([param])
    optimizer.param_groups[0]["betas"] = (0.0, 0.9)
    param.grad = torch.ones(3)
    with pytest.raises(HyperparameterError, match="must be above 0"):
        optimizer.step()
    assert param.tolist() == [1.0] * 3


def test_primal_averaging_of_nothing_is_adamw():
    """mu_x 0: x, y and z are one; the same with AdamW's weight decay, which is at y."""
    options = {"lr": 0.02, "betas": (0.8, 0.9), "weight_decay": 0.1}
    params = [torch.nn.Parameter(tensor(0, SHAPE)) for _ in range(2)]
    optimizer = descend.ScheduleFreeAdamW([params[0]], mu_x=0.0, mu_y=0.7, **options)
    _trained(optimizer, params[0], range(1, 51))
    _trained(descend.AdamW([params[1]], **options), params[1], range(1, 51))
    assert_close(*params)


def test_the_gradient_goes_through_the_start_of_z():
    """`differentiable`: y and z both start from the parameter."""

    def stepped(param):
        param = param.clone()
        optimizer = descend.ScheduleFreeSGD([param], lr=0.3, differentiable=True)
        for _ in range(3):
            param.grad = param.detach() * 0 + 1
            optimizer.step()
        return param, optimizer.state[param]["z"]

    param = torch.rand(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(stepped, (param,))


@pytest.mark.parametrize("shape", [(300_007,), (50, 60, 70)])
def test_a_large_z_starts_as_the_parameter(shape):
    """It is copied in pieces, in the layout of the parameter."""
    with threads(2):
        param = torch.nn.Parameter(tensor(0, shape).permute(*reversed(range(len(shape)))))
        optimizer = descend.ScheduleFreeSGD([param], lr=0.1)
        optimizer.init_state()
    z = optimizer.state[param]["z"]
    assert torch.equal(z, param)
    assert z.stride() == param.stride()
    assert z.data_ptr() != param.data_ptr()


@pytest.mark.parametrize("name", NAMES)
def test_many_parameters_without_and_with_gradients(name):
    params = [torch.nn.Parameter(tensor(seed, (5,))) for seed in range(4)]
    optimizer = ours(name)(params, lr=0.1)
    give_gradients(params[:2], 1)
    optimizer.step()
    optimizer.eval()
    optimizer.train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        give_gradients(params[:3], 2)
        optimizer.step()
    assert [optimizer.state[param]["step"].item() for param in params[:3]] == [2, 2, 1]
    assert params[3] not in optimizer.state
