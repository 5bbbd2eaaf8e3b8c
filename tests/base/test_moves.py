"""State goes where its parameters go: other devices, other dtypes, new tensors under old names."""

import copy

import pytest
import torch
from torch import nn

import descend
from descend.optimizers import CATALOGUE
from optimizers.any_optimizer import IN_TORCH, parameters, train
from optimizers.cases import assert_close


def tensors(value):
    """All tensors in a nest."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [one for entry in value for one in tensors(entry)] if isinstance(value, list) else []


def trained(name, dtype=torch.float64, steps=3, **options):
    params = parameters(dtype)
    optimizer = CATALOGUE[name](params, lr=0.02, **options)
    train(name, optimizer, params, steps)
    return optimizer, params


COUNTS = {"step", "mu_product", "eta", "mu", "weight_sum", "lr_max", "x_share"}


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_to_moves_the_state_and_leaves_the_counts(name):
    """The meta device stands for any other."""
    optimizer, params = trained(name)
    assert optimizer.to("meta") is optimizer
    moved = 0
    for param in params:
        assert param.device.type == "cpu"
        for key, value in optimizer.state.get(param, {}).items():
            for tensor in tensors(value):
                assert tensor.device.type == ("cpu" if key in COUNTS else "meta"), key
                moved += key not in COUNTS
    assert moved or name == "sgd"  # which keeps nothing without momentum


@pytest.mark.parametrize("device", ["meta", torch.device("meta"), torch.device("meta", 0)])
def test_to_takes_what_torch_takes_for_a_device(device):
    optimizer, params = trained("adam")
    assert optimizer.to(device).state[params[0]]["exp_avg"].device.type == "meta"


def test_to_moves_counts_that_live_with_the_parameter():
    optimizer, params = trained("adam", capturable=True)
    optimizer.to("meta")
    assert optimizer.state[params[0]]["step"].device.type == "meta"


def test_to_a_device_that_is_not_there_changes_nothing():
    optimizer, params = trained("adam")
    state = {key: value for param in params for key, value in optimizer.state[param].items()}
    with pytest.raises((RuntimeError, AssertionError)):
        optimizer.to("cuda:99")
    with pytest.raises(RuntimeError, match="banana"):
        optimizer.to("banana")
    after = {key: value for param in params for key, value in optimizer.state[param].items()}
    assert all(state[key] is after[key] for key in state)


def test_to_before_the_first_step_and_of_a_subclass_without_a_rule():
    class Own(descend.Optimizer):
        def __init__(self, params):
            super().__init__(params, {})

        def step(self, closure=None):
            for param in self.param_groups[0]["params"]:
                self.state[param] = {"step": torch.ones(()), "kept": [torch.ones(2)], "note": "x"}

    params = parameters()
    optimizer = Own(params).to("meta")
    assert len(optimizer.state) == 0
    optimizer.step()
    state = optimizer.to("meta").state[params[0]]
    assert state["step"].device.type == "cpu"
    assert state["kept"][0].device.type == "meta"
    assert state["note"] == "x"


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_a_model_moved_with_to_trains_on(name):
    """`to` with the device that everything is on already: nothing changes, bit for bit."""
    (one, params), (other, others) = trained(name), trained(name)
    other.to("cpu")
    train(name, one, params, 2, first=3)
    train(name, other, others, 2, first=3)
    for param, expected in zip(others, params, strict=True):
        assert torch.equal(param, expected)


# Module.double(), .half() and .to() change the data of the same Parameter objects.

CONVERSIONS = {
    "double": (torch.float32, torch.float64, {"rtol": 1e-5, "atol": 1e-6}),  # from float32
    "float": (torch.float64, torch.float32, {"rtol": 1e-5, "atol": 1e-6}),
    # Parameters up to 3 are rounded to 8 bits in each step, gradients up to 3 too.
    "bfloat16": (torch.float32, torch.bfloat16, {"rtol": 0, "atol": 0.06}),
}


@pytest.mark.parametrize(
    ("name", "conversion"),
    [
        (name, conversion)
        for name in sorted(CATALOGUE)
        for conversion in CONVERSIONS
        if (name, conversion) != ("lbfgs", "bfloat16")  # in 8 bits its iterations end elsewhere
    ],
)
def test_parameters_converted_after_some_steps(backend, name, conversion):
    """The state keeps its dtype; torch's default implementation raises for most."""
    before, after, tolerance = CONVERSIONS[conversion]
    if name == "muon":
        # bfloat16 inside: an input that differs by a rounding may round to its neighbour.
        tolerance = {"rtol": 0, "atol": 0.06}
    optimizer, params = trained(name, before)
    for param in params:
        param.data = param.data.to(after)
        param.grad = None
    train(name, optimizer, params, 3, first=3)
    _, expected = trained(name, torch.float64, steps=6)
    for param, other in zip(params, expected, strict=True):
        assert param.dtype == after
        assert_close(param.double(), other, **tolerance)


def test_a_model_made_double_and_moved_by_its_own_methods():
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = descend.AdamW(model.parameters(), lr=0.1)
    before = list(model.parameters())
    for dtype, change in (
        (torch.float32, lambda: model),
        (torch.float64, model.double),
        (torch.bfloat16, model.bfloat16),
        (torch.float32, lambda: model.to("cpu", torch.float32)),
    ):
        optimizer.zero_grad()
        assert change() is model
        model(torch.ones(4, 3, dtype=dtype)).square().sum().backward()
        start = model.weight.detach().clone()
        optimizer.step()
        assert not torch.equal(model.weight, start)
        assert all(a is b for a, b in zip(model.parameters(), before, strict=True))
    assert optimizer.state[model.weight]["step"].item() == 4


def test_tensors_swapped_under_their_parameters():
    """`torch.__future__.set_swap_module_params_on_conversion`: the same objects, all else new."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    plain = copy.deepcopy(model)
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        results = []
        for one, swap in ((model, True), (plain, False)):
            optimizer = descend.AdamW(one.parameters(), lr=0.1)
            for step in range(4):
                optimizer.zero_grad()
                if step == 2 and swap:
                    one.to(torch.float64)
                elif step == 2:
                    for param in one.parameters():
                        param.data = param.data.double()
                inputs = torch.ones(4, 3, dtype=one.weight.dtype)
                one(inputs).square().sum().backward()
                optimizer.step()
            results.append([param.detach() for param in one.parameters()])
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)
    for mine, expected in zip(*results, strict=True):
        torch.testing.assert_close(mine, expected)


def test_a_state_dict_assigned_to_the_model_leaves_the_optimizer_with_the_old_parameters():
    """As in torch. `explain()` shows that the step had nothing to do."""
    model = nn.Linear(3, 2)
    optimizer = descend.SGD(model.parameters(), lr=0.1)
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    assert optimizer.explain()
    optimizer.zero_grad()
    model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True)
    model(torch.ones(4, 3)).sum().backward()
    before = model.weight.detach().clone()
    optimizer.step()
    assert torch.equal(model.weight, before)
    assert optimizer.explain() == []
    again = descend.SGD(model.parameters(), lr=0.1)
    again.load_state_dict(optimizer.state_dict())
    again.step()
    assert not torch.equal(model.weight, before)


def test_every_optimizer_of_torch_is_here():
    assert len(IN_TORCH) == 15
