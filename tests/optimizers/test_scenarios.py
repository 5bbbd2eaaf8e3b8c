"""The acceptance scenarios about optimizers, one test per row, named after it.

P55 needs a process of its own and stands in test_concurrency.py; P1 to P10 stand in test_state.py.
"""

import copy
import math
import warnings

import pytest
import torch
from torch import nn

import descend
from optimizers.cases import (
    IDLE,
    IN_TORCH,
    NAMES,
    RICH,
    TORCH,
    assert_same_training,
    counts,
    give_gradients,
    ours,
    parameters,
    tensor,
    train,
)


def _network(seed=0):
    torch.manual_seed(seed)
    layers = nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)
    return nn.Sequential(*layers).double()


def _loss(model, seed):
    return model(tensor(seed, (8, 6))).pow(2).mean()


def _fit(model, optimizer, steps=5):
    for seed in range(steps):
        optimizer.zero_grad()
        _loss(model, seed).backward()
        optimizer.step()


@pytest.mark.parametrize("name", IN_TORCH)
def test_a1_groups_print_as_in_torch(name):
    one, two = parameters([(2,), (3,)]), parameters([(2,), (3,)])
    mine = ours(name)([{"params": one[:1]}, {"params": one[1:], "lr": 0.5}])
    theirs = TORCH[name]([{"params": two[:1]}, {"params": two[1:], "lr": 0.5}])
    for group, expected in zip(mine.param_groups, theirs.param_groups, strict=True):
        shown = {key: value for key, value in group.items() if key in expected and key != "params"}
        assert str(shown) == str({k: v for k, v in expected.items() if k != "params"})


@pytest.mark.parametrize("frozen_by", ["requires_grad", "left out"])
@pytest.mark.parametrize("name", NAMES)
def test_a2_a_frozen_middle_layer(backend, name, frozen_by):
    model = _network()
    middle = list(model[2].parameters())
    if frozen_by == "requires_grad":
        model[2].requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    params = [
        param
        for param in model.parameters()
        if frozen_by != "left out" or all(param is not other for other in middle)
    ]
    optimizer = ours(name)(params, **RICH[name])
    _fit(model, optimizer)
    for param in middle:
        assert frozen_by == "left out" or param.grad is None
        state = optimizer.state.get(param, {})
        assert not state.get("step", torch.zeros(())).item()
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]) == key.startswith("2."), key


def test_a3_backbone_and_head_by_identity_and_by_name(backend):
    """Backbone 1e-4, head 1e-3; no decay on biases."""

    def groups(model):
        head = {id(param) for param in model[4].parameters()}
        named = list(model.named_parameters())
        return [
            {
                "params": [p for n, p in named if id(p) not in head and not n.endswith("bias")],
                "lr": 1e-4,
            },
            {
                "params": [p for n, p in named if id(p) not in head and n.endswith("bias")],
                "lr": 1e-4,
                "weight_decay": 0.0,
            },
            {"params": [p for n, p in named if id(p) in head]},
        ]

    mine, theirs = _network(), _network()
    my_optimizer = descend.AdamW(groups(mine), lr=1e-3)
    their_optimizer = torch.optim.AdamW(groups(theirs), lr=1e-3)
    _fit(mine, my_optimizer)
    _fit(theirs, their_optimizer)
    assert_same_training(
        my_optimizer, list(mine.parameters()), their_optimizer, list(theirs.parameters())
    )


def test_a3_every_parameter_in_exactly_one_group():
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 3), torch.nn.LayerNorm(3), torch.nn.Linear(3, 3), torch.nn.Linear(3, 2)
    )

    def split(*rules):
        groups = descend.param_groups(model, rules)
        optimizer = descend.AdamW(groups, lr=1e-4)
        names = [name for group in optimizer.param_groups for name in group["param_names"]]
        assert sorted(names) == sorted(name for name, _ in model.named_parameters())
        return {
            name: (group["lr"], group["weight_decay"])
            for group in optimizer.param_groups
            for name in group["param_names"]
        }

    # By identity: a head, and everything except it.
    by_identity = split((model[3], {"lr": 1e-3}), (..., {}))
    assert {n for n, (lr, _) in by_identity.items() if lr == 1e-3} == {"3.weight", "3.bias"}
    # By predicate: no decay on biases and norms.
    by_predicate = split((lambda name, param: param.ndim < 2, {"weight_decay": 0.0}), (..., {}))
    assert {n for n, (_, decay) in by_predicate.items() if decay} == {
        "0.weight",
        "2.weight",
        "3.weight",
    }
    # By name pattern: lr decaying by depth.
    by_depth = split(*((f"{i}.*", {"lr": 1e-3 * 0.5 ** (3 - i)}) for i in range(4)))
    assert [by_depth[f"{i}.weight"][0] for i in range(4)] == [1.25e-4, 2.5e-4, 5e-4, 1e-3]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            lambda model: [("0.*", {})],
            "param_groups: parameter '1.weight' is picked by no rule; add one, or `(..., {})` for "
            "the rest",
        ),
        (
            lambda model: [("0.*", {}), (model[0].bias, {}), (..., {})],
            "param_groups: rule 1 is left with no parameter: '0.bias' already belongs to rule 0 "
            "('0.*'); the first match wins, so put the narrower rule first",
        ),
        (
            lambda model: [(model[0], {}), (model[0].bias, {}), (..., {})],
            "param_groups: parameter '0.bias' is named by rule 0 and by rule 1; a parameter "
            "belongs to one group, so name it once",
        ),
        (
            lambda model: [("haed.*", {}), (..., {})],
            "param_groups: rule 0 ('haed.*') picks no parameter; the model has 0.weight, 0.bias, "
            "1.weight, 1.bias",
        ),
        (
            lambda model: [([torch.ones(5)], {}), (..., {})],
            "param_groups: rule 0 holds a tensor of shape (5,) that is no parameter of the model",
        ),
        (
            lambda model: [(3, {}), (..., {})],
            "param_groups: rule 0 must be a name pattern, a module, a module type, a tensor, a "
            "predicate, or a list of these; or `...`; got 3",
        ),
        (
            lambda model: [(..., {}), (..., {})],
            "param_groups: rules 0 and 1 are both `...`; the rest is one group",
        ),
    ],
)
def test_a3_one_left_out_or_named_twice_is_an_error_that_names_it(rules, message):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    with pytest.raises(descend.errors.ParameterError) as error:
        descend.param_groups(model, rules(model))
    assert str(error.value) == message


@pytest.mark.parametrize("name", IN_TORCH)
def test_a4_a_group_added_in_mid_training(backend, name):
    def run(make):
        params = parameters([(4,), (3,)])
        optimizer = make(params[:1], **RICH[name])
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
        for seed in range(1, 4):
            train(optimizer, params[:1], 1, seed)
            schedule.step()
        optimizer.add_param_group({"params": params[1:], "lr": 0.3})
        for seed in range(4, 8):
            train(optimizer, params, 1, seed)
        return optimizer, params

    mine, my_params = run(ours(name))
    theirs, their_params = run(TORCH[name])
    assert_same_training(mine, my_params, theirs, their_params)
    assert mine.param_groups[1]["lr"] == 0.3
    if counts(name):
        assert mine.state[my_params[1]]["step"].item() == 4


@pytest.mark.parametrize("name", IN_TORCH)
def test_a5_lr_written_by_hand(backend, name):
    def run(make):
        params = parameters([(4,)])
        optimizer = make(params, **RICH[name])
        for seed in range(1, 6):
            optimizer.param_groups[0]["lr"] = 0.1 / seed
            train(optimizer, params, 1, seed)
        optimizer.param_groups[0]["lr"] = 0.0
        if name == "asgd":  # a step uses the rate that the one before it has left in the state
            train(optimizer, params, 1, 7)
        kept = params[0].detach().clone()
        train(optimizer, params, 1, 6)
        if name != "rprop":  # lr is where its step sizes start from
            assert torch.equal(params[0], kept)
        return optimizer, params

    assert_same_training(*run(ours(name)), *run(TORCH[name]))


@pytest.mark.parametrize("name", NAMES)
def test_a6_zero_grad(name):
    params = parameters([(4,), (3,)])
    optimizer = ours(name)(params, lr=0.1)
    give_gradients(params, 1)
    grads = [param.grad for param in params]
    optimizer.zero_grad(set_to_none=False)
    for param, grad in zip(params, grads, strict=True):
        assert param.grad is grad
        assert not grad.any()
    optimizer.zero_grad()
    assert [param.grad for param in params] == [None, None]


@pytest.mark.parametrize("name", NAMES)
def test_a7_a_closure_is_evaluated_once_and_its_loss_returned(backend, name):
    model = _network()
    optimizer = ours(name)(model.parameters(), lr=0.01)
    calls = []

    def closure():
        calls.append(1)
        optimizer.zero_grad()
        loss = _loss(model, 1)
        loss.backward()
        return loss

    for _ in range(IDLE.get(name, 0)):
        optimizer.step(closure)
    calls.clear()
    before = _loss(model, 1).item()
    returned = optimizer.step(closure)
    assert returned.item() == before
    assert calls == [1]
    assert _loss(model, 1).item() < before


@pytest.mark.parametrize("name", IN_TORCH)
def test_a8_state_dict_to_torch_and_back(backend, name):
    """descend, then torch, then descend: the run that never changed hands."""
    model, plain = _network(), _network()
    optimizer = ours(name)(model.parameters(), **RICH[name])
    whole = ours(name)(plain.parameters(), **RICH[name])
    for make in (TORCH[name], ours(name)):
        _fit(model, optimizer, 3)
        _fit(plain, whole, 3)
        saved = optimizer.state_dict()
        optimizer = make(model.parameters(), lr=0.9)
        optimizer.load_state_dict(saved)
    _fit(model, optimizer, 3)
    _fit(plain, whole, 3)
    assert_same_training(optimizer, list(model.parameters()), whole, list(plain.parameters()))


@pytest.mark.parametrize("name", IN_TORCH)
def test_a9_tied_weights_are_stepped_once(backend, name):
    def run(make):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)).double()
        model.apply(lambda m: nn.init.orthogonal_(m.weight) if isinstance(m, nn.Linear) else None)
        model[2].weight = model[0].weight
        params = list(model.parameters())
        assert len(params) == 3
        optimizer = make(params, **RICH[name])
        _fit(model, optimizer)
        assert model[2].weight is model[0].weight
        return optimizer, params

    assert_same_training(*run(ours(name)), *run(TORCH[name]))


@pytest.mark.parametrize("name", IN_TORCH)
def test_a10_gradients_accumulated_and_clipped(backend, name):
    def run(make, clip):
        model = _network()
        params = list(model.parameters())
        optimizer = make(params, **RICH[name], **({} if clip else {"clip_norm": 0.01}))
        for seed in range(0, 12, 3):
            optimizer.zero_grad()
            for part in range(3):
                (_loss(model, seed + part) / 3).backward()
            if clip:
                nn.utils.clip_grad_norm_(params, 0.01)
            optimizer.step()
        return optimizer, params

    by_hand, by_option = run(ours(name), clip=True), run(ours(name), clip=False)
    assert_same_training(*by_hand, *run(TORCH[name], clip=True))
    assert_same_training(*by_option, *run(TORCH[name], clip=True))


@pytest.mark.parametrize("name", IN_TORCH)
def test_g1_the_plain_loop(backend, name):
    """A loop written for torch.optim; nothing but the module it takes the optimizer from."""

    def run(make):
        model = _network()
        optimizer = make(model.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)
        averages = []
        for _ in range(4):
            total = 0.0
            for seed in range(3):
                optimizer.zero_grad()
                loss = _loss(model, seed)
                loss.backward()
                optimizer.step()
                total += loss.item()
            averages.append(total / 3)
            schedule.step()
        return averages, schedule.get_last_lr()

    averages, rates = run(getattr(descend, TORCH[name].__name__))
    expected, expected_rates = run(TORCH[name])
    assert averages == pytest.approx(expected, rel=1e-12)
    assert rates == expected_rates == [0.0025]
    assert averages[-1] < averages[0]


def _digits(count):
    """A stand-in for MNIST, which is not shipped: ten blurred shapes, moved about, in noise."""
    numbers = torch.Generator().manual_seed(0)
    coarse = torch.rand((10, 1, 7, 7), generator=numbers)
    shapes = nn.functional.interpolate(coarse, size=(28, 28), mode="bilinear")[:, 0]
    labels = torch.randint(10, (count,), generator=numbers)
    moves = torch.randint(-2, 3, (count, 2), generator=numbers).tolist()
    images = torch.stack(
        [
            shapes[label].roll(move, dims=(0, 1))
            for label, move in zip(labels.tolist(), moves, strict=True)
        ]
    )
    return (images + 0.3 * torch.randn(images.shape, generator=numbers))[:, None], labels


def _train_digits(optim, count, batch):
    images, labels = _digits(count)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 26 * 26, 10))
    optimizer = optim.Adam(
        [{"params": model[0].parameters(), "lr": 1e-4}, {"params": model[3].parameters()}], lr=1e-3
    )
    order = torch.Generator().manual_seed(0)

    def epoch():
        total = 0.0
        for chosen in torch.randperm(count, generator=order).split(batch):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(chosen)
        return total / count

    losses = [epoch() for _ in range(10)]
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3, gamma=0.1)
    for _ in range(10):
        losses.append(epoch())
        schedule.step()
    return losses, [group["lr"] for group in optimizer.param_groups]


def _assert_digits_learnt(count, batch):
    losses, rates = _train_digits(descend, count, batch)
    expected, expected_rates = _train_digits(torch.optim, count, batch)
    assert rates == expected_rates
    assert rates == pytest.approx([1e-7, 1e-6])
    # Float32, where a last-bit difference of one step grows over hundreds of steps of a network.
    assert losses == pytest.approx(expected, rel=2e-3)
    assert losses[0] > 2 * losses[9]
    assert losses[19] <= losses[9]


def test_g2_digits_small():
    """The 20 epochs of the row on a synthetic stand-in for MNIST, 600 digits and batches of 64."""
    _assert_digits_learnt(600, 64)


@pytest.mark.slow
def test_g2_digits():
    """The row at its full size, 10,000 digits in batches of 512; the digits are synthetic."""
    _assert_digits_learnt(10_000, 512)


BAD_GROUPS = [{"weight_deacy": 0.1}, {"lr": -1.0}, {"lr": math.nan}]


@pytest.mark.parametrize("bad", BAD_GROUPS, ids=lambda bad: next(iter(bad)) + str(bad))
@pytest.mark.parametrize("name", NAMES)
def test_p8_a_bad_group_is_refused(name, bad):
    """At construction, in add_param_group, and when written by hand; nothing has changed then."""
    params = parameters([(3,), (2,)])
    with pytest.raises(ValueError, match=next(iter(bad))):
        ours(name)([{"params": params, **bad}])
    optimizer = ours(name)(params[:1], lr=0.1)
    with pytest.raises(ValueError, match=next(iter(bad))):
        optimizer.add_param_group({"params": params[1:], **bad})
    assert len(optimizer.param_groups) == 1
    if "weight_deacy" not in bad:
        optimizer.param_groups[0].update(bad)
        give_gradients(params, 1)
        before = params[0].detach().clone()
        with pytest.raises(ValueError, match=next(iter(bad))):
            optimizer.step()
        assert torch.equal(params[0], before)


@pytest.mark.parametrize("name", ["adam", "adamax", "adamw", "lion", "nadam", "radam"])
def test_p8_betas_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match="betas"):
        ours(name)(parameters([(3,)]), betas=(2, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_p50_p51_dense_tensors_take_one_fused_pass_by_default(name, dtype):
    """No flag, no context: the compiled kernel is what runs, for every optimizer."""
    params = parameters([(5, 3), (7,), ()], dtype)
    optimizer = ours(name)(params, **RICH[name])
    train(optimizer, params, 3)
    (record,) = optimizer.explain()
    assert (record["backend"], record["tensors"], record["elements"]) == ("cpu", 3, 23)


def test_p50_and_a_forced_backend_is_what_runs(backend):
    params = parameters([(5, 3), (7,)], torch.float32)
    optimizer = ours("adam")(params)
    train(optimizer, params, 2)
    assert {record["backend"] for record in optimizer.explain()} == {backend}


@pytest.mark.parametrize("name", NAMES)
def test_p52_clipping_is_folded_into_the_step(name):
    """One kernel call still, and no gradient is rewritten (test_clipping proves the values)."""
    params = parameters([(5, 3), (7,)], torch.float32)
    optimizer = ours(name)(params, **RICH[name], clip_norm=0.1, clip_value=0.01)
    train(optimizer, params, 2)
    versions = [param.grad._version for param in params]
    optimizer.step()
    assert [param.grad._version for param in params] == versions
    (record,) = optimizer.explain()
    assert record["backend"] == "cpu"


@pytest.mark.parametrize("name", IN_TORCH)
def test_p53_one_kernel_call_for_all_groups_and_step_counts(name):
    """Groups of different lr and decay, parameters that have taken different numbers of steps."""
    count = 465

    def run(make):
        params = parameters([(1 + index % 5,) for index in range(count)], torch.float64)
        optimizer = make(
            [{"params": [p], "lr": 0.01 * (1 + i % 7)} for i, p in enumerate(params)],
            **{**RICH[name], **({} if name == "rprop" else {"weight_decay": 0.01})},
        )
        for seed in range(1, 4):
            give_gradients(params, seed)
            for param in params[seed::5]:
                param.grad = None
            optimizer.step()
        train(optimizer, params, 2, first=4)
        return optimizer, params

    mine, my_params = run(ours(name))
    (record,) = mine.explain()
    assert (record["tensors"], record["groups"]) == (count, count)
    assert_same_training(mine, my_params, *run(TORCH[name]))


def test_a_schedule_of_torch_does_not_warn_without_cause():
    """P28 for our optimizers: a scheduler sees that the optimizer has stepped."""
    params = parameters([(3,)])
    optimizer = ours("adam")(params)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(optimizer, params, 1)
        schedule.step()
