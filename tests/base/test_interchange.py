"""State dicts between descend and torch.optim: a run that changes hands goes on all the same."""

import copy
import inspect
import io

import pytest
import torch
from torch.nn import Parameter

from descend.optimizers import CATALOGUE
from optimizers.any_optimizer import IN_TORCH, parameters, torchs, train
from optimizers.cases import OPTIONS, assert_close, tensor

OWN = {
    "adafactor": [{"lr": 0.1}, {"lr": 0.1, "weight_decay": 0.1, "d": 1.5, "maximize": True}],
    "lbfgs": [
        {"lr": 0.1, "max_iter": 3},
        {"max_iter": 3, "history_size": 2, "line_search_fn": "strong_wolfe"},
    ],
    "muon": [{"lr": 0.05}, {"lr": 0.05, "nesterov": False, "momentum": 0.8}],
    "sparseadam": [{"lr": 0.1}, {"lr": 0.1, "betas": (0.5, 0.8), "maximize": True}],
}
CASES = [
    (name, options)
    for name in IN_TORCH
    for options in {**OPTIONS, **OWN}[name]
    if options.keys() <= inspect.signature(torchs(name)).parameters.keys()
]
LAST = dict(CASES)  # of each optimizer, the case with most of its options

# Six steps that move a parameter by its own size, in float64; in torch, counters are float32.
TOLERANCE = {
    "asgd": {"rtol": 1e-6, "atol": 1e-6},
    "nadam": {"rtol": 1e-6, "atol": 1e-6},
    # Its matrix iteration is in bfloat16, whose products may be summed in another order.
    "muon": {"rtol": 1e-2, "atol": 1e-3},
}


def saved_to_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def halves(name, first, second, build, through=copy.deepcopy):
    """Train three steps with one class, hand the state over, three more with another."""
    params = parameters()
    optimizer = build(first, params)
    train(name, optimizer, params, 3)
    saved = through(optimizer.state_dict())
    others = [Parameter(param.detach().clone()) for param in params]
    other = build(second, others)
    other.load_state_dict(saved)
    train(name, other, others, 3, first=3)
    return other, others


def assert_same(name, mine, theirs):
    (optimizer, params), (expected, expected_params) = mine, theirs
    tolerance = TOLERANCE.get(name, {})
    for param, other in zip(params, expected_params, strict=True):
        assert_close(param, other, **tolerance)
        state, other_state = optimizer.state.get(param, {}), expected.state.get(other, {})
        for key in state.keys() & other_state.keys():
            if isinstance(state[key], torch.Tensor):
                torch.testing.assert_close(
                    torch.as_tensor(state[key]),
                    torch.as_tensor(other_state[key]),
                    check_dtype=False,  # counters
                    **(tolerance or {"rtol": 1e-11, "atol": 1e-12}),
                )


def assert_changing_hands_changes_nothing(name, build, through=copy.deepcopy):
    """The four ways to share six steps between the two agree."""
    mine, theirs = CATALOGUE[name], torchs(name)
    stayed = halves(name, theirs, theirs, build)
    for first, second in ((theirs, mine), (mine, theirs), (mine, mine)):
        assert_same(name, halves(name, first, second, build, through), stayed)


def label(value):
    return value if isinstance(value, str) else "-".join(f"{k}={v}" for k, v in value.items())


@pytest.mark.parametrize(("name", "options"), CASES, ids=label)
def test_any_options(name, options):
    def build(cls, params):
        return cls(params, **options)

    assert_changing_hands_changes_nothing(name, build)


@pytest.mark.parametrize("name", IN_TORCH)
def test_options_come_with_the_state(name):
    """The other side is built with its defaults; flags of how to step stay as they are."""
    options = LAST[name]
    for first, second in ((torchs(name), CATALOGUE[name]), (CATALOGUE[name], torchs(name))):
        params = parameters()
        optimizer = first(params, **options)
        train(name, optimizer, params, 2)
        other = second([Parameter(param.detach().clone()) for param in params])
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        assert {key: other.param_groups[0][key] for key in options} == options


@pytest.mark.parametrize("name", IN_TORCH)
def test_through_a_file_that_holds_nothing_but_weights(name):
    options = LAST[name]
    assert_changing_hands_changes_nothing(
        name, lambda cls, params: cls(params, **options), saved_to_a_file
    )


@pytest.mark.parametrize("name", IN_TORCH)
def test_named_parameters(name):
    assert_changing_hands_changes_nothing(
        name, lambda cls, params: cls(zip("ab", params, strict=True), lr=0.05)
    )


@pytest.mark.parametrize("name", sorted(set(IN_TORCH) - {"lbfgs"}))  # torch's takes one group
def test_groups(name):
    def build(cls, params):
        optimizer = cls([{"params": params[:1], "lr": 0.02}], lr=0.05)
        optimizer.add_param_group({"params": params[1:]})
        return optimizer

    assert_changing_hands_changes_nothing(name, build)


@pytest.mark.parametrize("name", sorted(set(IN_TORCH) - {"lbfgs"}))
def test_a_group_added_in_mid_training(name):
    """Parameters whose counts differ, one with no state yet."""

    def build(cls, params):
        return cls([{"params": params[:1]}, {"params": params[1:], "lr": 0.03}], lr=0.02)

    def run(first, second):
        params = parameters()
        optimizer = first(params[:1], lr=0.02)
        train(name, optimizer, params[:1], 2)
        optimizer.add_param_group({"params": params[1:], "lr": 0.03})
        saved = saved_to_a_file(optimizer.state_dict())
        others = [Parameter(param.detach().clone()) for param in params]
        other = build(second, others)
        other.load_state_dict(saved)
        train(name, other, others, 3, first=2)
        return other, others

    mine, theirs = CATALOGUE[name], torchs(name)
    stayed = run(theirs, theirs)
    for first, second in ((theirs, mine), (mine, theirs), (mine, mine)):
        assert_same(name, run(first, second), stayed)


# torch's others refuse a tensor lr, or want it on a GPU.
TENSOR_LR = ["adagrad", "adam", "adamw", "lbfgs", "muon", "sgd", "sparseadam"]


@pytest.mark.parametrize("name", sorted(set(TENSOR_LR) & set(IN_TORCH)))
def test_a_tensor_lr(name):
    def build(cls, params):
        return cls(params, lr=torch.tensor(0.05, dtype=torch.float64))

    assert_changing_hands_changes_nothing(name, build)


@pytest.mark.parametrize("name", IN_TORCH)
def test_float32(name):
    """In single precision the counters of both have the parameter's, and the state is torch's."""
    options = LAST[name]

    def run(first, second):
        params = parameters(torch.float32)
        optimizer = first(params, **options)
        train(name, optimizer, params, 3)
        others = [Parameter(param.detach().clone()) for param in params]
        other = second(others, **options)
        other.load_state_dict(saved_to_a_file(optimizer.state_dict()))
        train(name, other, others, 3, first=3)
        return others

    stayed = run(torchs(name), torchs(name))
    for first, second in (
        (torchs(name), CATALOGUE[name]),
        (CATALOGUE[name], torchs(name)),
        (CATALOGUE[name], CATALOGUE[name]),
    ):
        for param, expected in zip(run(first, second), stayed, strict=True):
            assert_close(param, expected, **TOLERANCE.get(name, {}))


CAPTURABLE = sorted(
    name for name in IN_TORCH if "capturable" in torchs(name)(parameters()).defaults
)


@pytest.mark.parametrize("name", CAPTURABLE)
def test_counts_of_a_captured_step(name):
    """Whether counts are on the parameter's device is no matter of the file, either way."""

    def run(first, second):
        params = parameters()
        optimizer = CATALOGUE[name](params, lr=0.02, capturable=first)
        train(name, optimizer, params, 3)
        others = [Parameter(param.detach().clone()) for param in params]
        other = CATALOGUE[name](others, lr=0.02, capturable=second)
        other.load_state_dict(saved_to_a_file(optimizer.state_dict()))
        assert other.param_groups[0]["capturable"] is second
        train(name, other, others, 3, first=3)
        return other, others

    stayed = run(first=False, second=False)
    for first, second in ((True, False), (False, True), (True, True)):
        assert_same(name, run(first, second), stayed)
    # torch takes the flag from the file, and on a CPU cannot step with it.
    mine, params = run(first=True, second=True)
    saved = mine.state_dict()
    for group in saved["param_groups"]:
        group["capturable"] = False
    theirs = torchs(name)([Parameter(param.detach().clone()) for param in params])
    theirs.load_state_dict(copy.deepcopy(saved))
    for optimizer in (mine, theirs):
        train(name, optimizer, optimizer.param_groups[0]["params"], 2, first=6)
    assert_same(
        name,
        (mine, mine.param_groups[0]["params"]),
        (theirs, theirs.param_groups[0]["params"]),
    )


@pytest.mark.parametrize("name", IN_TORCH)
def test_states_are_equal_key_by_key(name):
    """What is saved after three steps: the same indices, keys, shapes and numbers."""
    saved = []
    for cls in (CATALOGUE[name], torchs(name)):
        params = parameters()
        optimizer = cls(params, lr=0.02)
        train(name, optimizer, params, 3)
        saved.append(optimizer.state_dict()["state"])
    mine, theirs = saved
    assert mine.keys() == theirs.keys()
    for index, entry in theirs.items():
        scratch = {"al"} if name == "lbfgs" else set()  # torch's room for one recursion
        assert [key for key in entry if key not in scratch] == list(mine[index])


def test_old_files_without_the_newest_options():
    """A file from before foreach, fused, maximize, ... : what it lacks stays as it is."""
    params = parameters()
    optimizer = torch.optim.AdamW(params, lr=0.02)
    train("adamw", optimizer, params, 3)
    saved = copy.deepcopy(optimizer.state_dict())
    kept = {"params", "lr", "betas", "eps", "weight_decay", "amsgrad"}
    saved["param_groups"] = [
        {key: value for key, value in group.items() if key in kept}
        for group in saved["param_groups"]
    ]
    for entry in saved["state"].values():
        entry["step"] = int(entry["step"])  # as it was before torch 1.12
    others = [Parameter(param.detach().clone()) for param in params]
    other = CATALOGUE["adamw"](others, maximize=True)
    other.load_state_dict(saved)
    assert other.param_groups[0]["maximize"] is True
    assert other.param_groups[0]["lr"] == 0.02
    other.param_groups[0]["maximize"] = False
    train("adamw", other, others, 3, first=3)
    train("adamw", optimizer, params, 3, first=3)
    assert_same("adamw", (other, others), (optimizer, params))


def test_a_bfloat16_parameter_keeps_its_float32_state_both_ways():
    """P3: torch rounds it to bfloat16 when it loads."""
    param = Parameter(tensor(0, (8,), torch.bfloat16))
    optimizer = CATALOGUE["adam"]([param])
    optimizer.state[param] = {
        "step": torch.tensor(3.0),
        "exp_avg": tensor(1, (8,), torch.float32),
        "exp_avg_sq": tensor(2, (8,), torch.float32).abs(),
    }
    other_param = Parameter(param.detach().clone())
    other = CATALOGUE["adam"]([other_param])
    other.load_state_dict(saved_to_a_file(optimizer.state_dict()))
    for key, value in optimizer.state[param].items():
        assert other.state[other_param][key].dtype == torch.float32
        assert torch.equal(other.state[other_param][key], value)
