"""Adafactor, Muon and SOAP, which step whole tensors: what holds for the one as for the other."""

import copy
import dataclasses
import math
import sys

import pytest
import torch

import descend
from children import python
from descend.bench.peak_memory import KEEPING_NOTHING
from descend.errors import GradientError, StateError
from descend.optimizers import CATALOGUE, SOAP, Adafactor, Muon
from optimizers.cases import (
    TOLERANCE,
    assert_close,
    assert_same_training,
    give_gradients,
    parameters,
    tensor,
    train,
)

EXACT = {"rtol": 0, "atol": 0}

both = pytest.mark.parametrize("make", [Adafactor, Muon], ids=lambda make: make.__name__)
"""Those that torch has too."""

each = pytest.mark.parametrize("make", [Adafactor, Muon, SOAP], ids=lambda make: make.__name__)


def torchs(make):
    """The class of torch of that name."""
    return getattr(torch.optim, make.__name__)


LAYOUTS = {
    "transposed": ((5, 6), lambda t: t.T.contiguous().T),
    "channels last": ((4, 3, 2, 5), lambda t: t.contiguous(memory_format=torch.channels_last)),
    "sliced": ((5, 6), lambda t: torch.stack([t, t], -1)[..., 0]),
    "expanded": ((5, 6), lambda t: t[:1].expand(5, 6)),
    "negated": ((5, 6), lambda t: torch.complex(t, -t).conj().imag),
}

# Whose step on plain tensors a layout is compared with: torch's Muon takes matrices only.
PLAIN = {
    Adafactor: (torch.optim.Adafactor, TOLERANCE[torch.float64]),
    Muon: (Muon, EXACT),
    SOAP: (SOAP, EXACT),
}


@each
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_of_a_gradient_changes_no_value(request, layout, cut, make):
    if cut:
        request.getfixturevalue("small_blocks")
    shape, lay = LAYOUTS[layout]
    plain, tolerance = PLAIN[make]
    mine, reference = parameters([shape]), parameters([shape])
    my_optimizer, reference_optimizer = make(mine, lr=0.1), plain(reference, lr=0.1)
    for seed in range(1, 9):
        grad = lay(tensor(seed, shape))
        mine[0].grad, reference[0].grad = grad, grad.clone(memory_format=torch.contiguous_format)
        kept = grad.clone()
        my_optimizer.step()
        reference_optimizer.step()
        assert torch.equal(mine[0].grad, kept)
    assert_same_training(my_optimizer, mine, reference_optimizer, reference, **tolerance)


@each
@pytest.mark.parametrize("layout", ["transposed", "channels last", "sliced"])
def test_the_layout_of_a_parameter_changes_no_value(layout, make):
    shape, lay = LAYOUTS[layout]
    plain, tolerance = PLAIN[make]
    mine, reference = [torch.nn.Parameter(lay(tensor(0, shape)))], parameters([shape])
    my_optimizer, reference_optimizer = make(mine, lr=0.1), plain(reference, lr=0.1)
    strides = mine[0].stride()
    train(my_optimizer, mine, 8)
    train(reference_optimizer, reference, 8)
    assert_same_training(my_optimizer, mine, reference_optimizer, reference, **tolerance)
    assert mine[0].stride() == strides


@both
def test_a_tensor_lr_is_read_at_every_step_and_filled_by_a_load(make):
    mine, theirs = parameters([(5, 3)]), parameters([(5, 3)])
    my_lr, their_lr = torch.tensor(0.05), torch.tensor(0.05)
    my_optimizer, their_optimizer = make(mine, lr=my_lr), torchs(make)(theirs, lr=their_lr)
    for seed in range(1, 5):
        train(my_optimizer, mine, 1, seed)
        train(their_optimizer, theirs, 1, seed)
        my_lr.mul_(0.5)
        their_lr.mul_(0.5)
    # torch's Adafactor rounds a relative step that is lr to float32 in one place more; its Muon
    # scales lr by the shape in float32.
    assert_same_training(my_optimizer, mine, their_optimizer, theirs, rtol=1e-6, atol=1e-8)
    my_optimizer.load_state_dict(their_optimizer.state_dict())
    assert my_optimizer.param_groups[0]["lr"] is my_lr


GROUPS = {
    Adafactor: {
        (5, 3): {"lr": 0.3, "d": 2.0},
        (4,): {"eps": (0.1, 0.2), "weight_decay": 0.1, "beta2_decay": -0.5},
    },
    Muon: {
        (5, 3): {"lr": 0.3, "momentum": 0.5, "ns_steps": 3},
        (3, 4): {"nesterov": False, "weight_decay": 0.0, "adjust_lr_fn": "match_rms_adamw"},
    },
}


@both
def test_groups_have_their_own_options(make):
    mine, theirs = parameters(GROUPS[make]), parameters(GROUPS[make])
    my_optimizer, their_optimizer = (
        cls(
            {"params": [param], **group}
            for param, group in zip(params, GROUPS[make].values(), strict=True)
        )
        for cls, params in ((make, mine), (torchs(make), theirs))
    )
    train(my_optimizer, mine, 8)
    train(their_optimizer, theirs, 8)
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)
    for my_group, their_group in zip(
        my_optimizer.param_groups, their_optimizer.param_groups, strict=True
    ):
        assert list(my_group)[: len(their_group)] == list(their_group)
        for key in set(their_group) - {"params"}:
            assert my_group[key] == their_group[key]


@each
@pytest.mark.parametrize("where", [0, 1], ids=["matrix", "vector"])
def test_a_nonfinite_step_is_left_out(make, where):
    params = parameters([(5, 3), (4,)])
    optimizer = make(params, skip_nonfinite=True)
    train(optimizer, params, 2)
    before = copy.deepcopy((params, optimizer.state_dict()["state"]))
    give_gradients(params, 3)
    params[where].grad.view(-1)[0] = math.inf
    optimizer.step()
    assert optimizer.skipped_steps == 1
    for param, kept in zip(params, before[0], strict=True):
        assert torch.equal(param, kept)
    for index, kept in before[1].items():
        for key, value in kept.items():
            assert torch.equal(optimizer.state_dict()["state"][index][key], value)


@each
@pytest.mark.parametrize("unscale", [False, True])
def test_a_grad_scaler_changes_nothing(unscale, make):
    """Scaled by a power of two, all is exact; torch's Adafactor refuses to unscale in its step."""
    results = []
    for enabled in (True, False):
        params = parameters([(5, 3), (4,)], torch.float32)
        optimizer = make(params, lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=enabled)
        for seed in range(1, 6):
            optimizer.zero_grad()
            loss = sum((p * tensor(seed, p.shape, p.dtype)).sum() for p in params)
            scaler.scale(loss).backward()
            if enabled and seed == 3:
                params[0].grad[0, 0] = math.inf
            if unscale:
                scaler.unscale_(optimizer)
            if enabled or seed != 3:
                scaler.step(optimizer)
            scaler.update()
        results.append((optimizer, params))
    (mine, my_params), (reference, params) = results
    assert mine.state[my_params[1]]["step"].item() == 4
    assert torch.equal(my_params[0], params[0])
    if make is Muon:
        # The companion's kernel has one more factor, and may fuse other pairs of operations.
        assert_close(my_params[1], params[1], rtol=5 * 2.0**-23, atol=2.0**-23)
    else:
        assert_same_training(mine, my_params, reference, params, **EXACT)


# By class: shapes that torch's takes too, and options that are not the defaults.
EXCHANGED = {
    Adafactor: (
        [(7, 5), (17,), (), (1,), (3, 4, 5), (2, 3, 2, 3), (1, 7), (7, 1), (6, 1, 1)],
        {"lr": 0.2, "weight_decay": 0.1, "d": 1.5},
    ),
    Muon: (
        [(7, 5), (5, 7), (6, 6), (1, 9), (9, 1), (1, 1), (20, 64), (64, 20)],
        {"lr": 0.2, "weight_decay": 0.2, "momentum": 0.8},
    ),
}


@both
@pytest.mark.parametrize("direction", ["from torch", "to torch"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_training_goes_on_identically_on_the_other_side(direction, dtype, make):
    source, target = (torchs(make), make) if direction == "from torch" else (make, torchs(make))
    shapes, options = EXCHANGED[make]
    first, second, reference = (parameters(shapes, dtype) for _ in range(3))
    before, alone = source(first, **options), make(reference, **options)
    train(before, first, 5)
    after = target(second)
    for mine, theirs in zip(second, first, strict=True):
        mine.data.copy_(theirs.data)
    after.load_state_dict(before.state_dict())
    assert options.items() <= after.param_groups[0].items()
    for param, other in zip(second, first, strict=True):
        assert list(after.state[param]) == list(before.state[other])
        for key, value in before.state[other].items():
            assert after.state[param][key].dtype is (torch.float32 if key == "step" else dtype)
            assert torch.equal(after.state[param][key], value)
            if target is make:  # torch keeps the very tensors
                assert after.state[param][key].data_ptr() != value.data_ptr()
    if dtype is not torch.bfloat16:  # torch computes in bfloat16
        train(alone, reference, 10)
        train(after, second, 5, first=6)
        for mine, theirs in zip(second, reference, strict=True):
            assert_close(mine, theirs)


def _saved(make, shape):
    (param,) = parameters([shape])
    optimizer = make([param])
    train(optimizer, [param], 2)
    return optimizer.state_dict()


@each
@pytest.mark.parametrize(
    ("saved", "here"),
    [((4, 3), (3, 4)), ((4, 3), (4,)), ((4,), (4, 3)), ((4,), (5,)), ((2, 4, 3), (4, 3))],
    ids=str,
)
def test_a_state_of_another_shape_or_rule_is_refused(saved, here, make):
    (param,) = parameters([here])
    optimizer = make([param])
    train(optimizer, [param], 1)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(StateError, match=make.__name__):
        optimizer.load_state_dict(_saved(make, saved))
    for key, value in before["state"][0].items():
        assert torch.equal(optimizer.state[param][key], value)


@each
def test_another_optimizers_state_is_refused(make):
    params = parameters([(4, 3)])
    sgd, adam = descend.SGD(params, momentum=0.9), descend.Adam(params)
    train(adam, params, 1)
    with pytest.raises(StateError, match=make.__name__):
        make(params).load_state_dict(adam.state_dict())
    with pytest.raises(StateError, match="SGD"):
        sgd.load_state_dict(_saved(make, (4,)))


@each
def test_a_copy_trains_on(make):
    params = parameters([(5, 3), (4,)])
    optimizer = make(params)
    train(optimizer, params, 2)
    twin_params, twin = copy.deepcopy((params, optimizer))
    train(optimizer, params, 3, first=3)
    train(twin, twin_params, 3, first=3)
    assert_same_training(optimizer, params, twin, twin_params, **EXACT)


@each
def test_a_sparse_gradient_is_refused_and_changes_nothing(make):
    params = parameters([(4, 3), (3,)])
    before = [param.detach().clone() for param in params]
    optimizer = make(params)
    give_gradients(params, 1)
    params[0].grad = torch.eye(4, 3, dtype=torch.float64).to_sparse()
    said = rf"{make.__name__}, group 0, parameter 0: .* is sparse"
    with pytest.raises(GradientError, match=said):
        optimizer.step()
    for param, kept in zip(params, before, strict=True):
        assert torch.equal(param, kept)
    assert not optimizer.state


EXTRA = """
import sys
import torch
import descend
from descend.bench.peak_memory import _forget_peak, _status_bytes
torch.set_num_threads(1)
name, dtype, *shape = sys.argv[1:]
# torch's last: its large temporaries are never memory that a step before has left.
for module in (descend, torch.optim):
    param = torch.nn.Parameter(torch.ones(*map(int, shape), dtype=getattr(torch, dtype)))
    param.grad = torch.full_like(param, 0.5)
    optimizer = getattr(module, name)([param])
    for _ in range(2):
        optimizer.step()
    if _forget_peak():
        before = _status_bytes("VmRSS")
        optimizer.step()
        print(max(0, _status_bytes("VmHWM") - before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process its peak")
@pytest.mark.parametrize(
    ("name", "dtype", "shape", "most", "torchs"),
    [
        # Parameters of 53 MiB, which no allocator keeps at hand. A few blocks of 4 MiB: one for
        # float32, up to four where 16-bit tensors are widened to it.
        ("Adafactor", "float32", (4096, 3418), 32, 50),
        ("Adafactor", "bfloat16", (8192, 3418), 32, 50),
        # 64 MiB: two matrices of 32 MiB in bfloat16, the iteration's and the next one, and a few
        # blocks; torch has, for instance, the float32 momentum that looks ahead.
        ("Muon", "float32", (64, 262144), 64 + 20, 64 + 40),
    ],
)
def test_a_step_takes_no_temporary_of_the_parameters_size(name, dtype, shape, most, torchs):
    done = python("-c", EXTRA, name, dtype, *shape, environment=KEEPING_NOTHING)
    if not done.stdout:
        pytest.skip("this system does not let a process forget its peak")
    ours, theirs = (int(line) / 2**20 for line in done.stdout.split())
    assert ours < most
    assert theirs > torchs  # which shows that the measurement sees temporaries


@pytest.mark.parametrize("name", ["muon", "soap"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.complex64])
def test_equal_shapes_are_worked_on_together_as_each_alone(name, dtype, monkeypatch):
    """Of several groups, shapes and steps, with a clip and with gradients that are not there."""
    shapes = [(6, 4), (6, 4), (4, 6), (6, 4), (3, 2, 2), (6, 4), (3, 2, 2), (5,), (0, 4), (0, 4)]
    calls = []
    rule = CATALOGUE[name].rule
    together = rule.together
    counted = dataclasses.replace(
        rule, together=lambda params, *rest: calls.append(len(params)) or together(params, *rest)
    )

    def trained(alone):
        params = [torch.nn.Parameter(tensor(seed, one, dtype)) for seed, one in enumerate(shapes)]
        groups = [{"params": params[:5]}, {"params": params[5:], "lr": 0.02}]
        monkeypatch.setattr(
            CATALOGUE[name], "rule", dataclasses.replace(rule, together=None) if alone else counted
        )
        optimizer = CATALOGUE[name](groups, lr=0.05, clip_norm=3.0)
        for step in range(12):
            for index, param in enumerate(params):
                grad = tensor(100 * step + index, param.shape, dtype)
                param.grad = None if index == step else grad
            optimizer.step()
        return params, optimizer

    alone, together_ = trained(alone=True), trained(alone=False)
    assert max(calls) == 3
    # Products of stacks add up in another order; those of Muon are in bfloat16 (complex64), and a
    # rounding there moves an element by 2**-8 of a step of 0.05.
    close = 3e-2 if dtype is torch.bfloat16 else 1e-2 if name == "muon" else 1e-4
    if dtype is torch.float64 and name == "soap":
        close = 1e-9
    for mine, other in zip(together_[0], alone[0], strict=True):
        torch.testing.assert_close(mine, other, rtol=close, atol=close)
    assert len(together_[1].state) == len(alone[1].state)


@pytest.mark.parametrize("name", ["muon", "soap"])
def test_parameters_that_share_memory_are_not_worked_on_together(name, monkeypatch):
    """Each must see what the ones before it have done, as in torch."""
    rule = CATALOGUE[name].rule

    def refused(*arguments):
        raise AssertionError("taken together")

    monkeypatch.setattr(CATALOGUE[name], "rule", dataclasses.replace(rule, together=refused))
    memory = tensor(0, (6, 4), torch.float32)
    params = [torch.nn.Parameter(memory[:4]), torch.nn.Parameter(memory[2:])]
    optimizer = CATALOGUE[name](params, lr=0.05)
    for _ in range(3):
        for param in params:
            param.grad = torch.ones_like(param)
        optimizer.step()
