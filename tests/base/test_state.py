"""State: what it holds, how it is saved, loaded, copied, exchanged with torch, changed by hand."""

import copy
import io
import pickle

import pytest
import torch

from optimizers.cases import (
    IN_TORCH,
    NAMES,
    RICH,
    TORCH,
    assert_close,
    assert_same_training,
    beside_torch,
    counts,
    give_gradients,
    ours,
    parameters,
    state_of,
    steps_on,
    tensor,
    train,
)

SHAPES = [(5, 3), (7,), ()]


def _trained(make, name, steps=3, **options):
    params = parameters(SHAPES)
    optimizer = make(params, **{**RICH[name], **options})
    train(optimizer, params, steps)
    return optimizer, params


def _snapshot(optimizer):
    return copy.deepcopy(optimizer.state_dict())


def assert_unchanged(optimizer, before):
    """Raise unless groups and state are what they were, bit for bit."""
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    assert after["state"].keys() == before["state"].keys()
    for index, state in before["state"].items():
        assert after["state"][index].keys() == state.keys()
        for key, value in state.items():
            assert_close(after["state"][index][key], value, key, rtol=0, atol=0)


@pytest.mark.parametrize("name", IN_TORCH)
def test_state_starts_when_torchs_does(name):
    """Adagrad's at construction, the others' at the first step."""
    mine, theirs = parameters(SHAPES), parameters(SHAPES)
    my_optimizer, their_optimizer = beside_torch(name, mine, theirs)
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)


@pytest.mark.parametrize("name", IN_TORCH)
def test_step_counts_are_what_torch_keeps(backend, name):
    (mine, my_params), (theirs, their_params) = (
        _trained(ours(name), name),
        _trained(getattr(torch.optim, TORCH[name].__name__), name),
    )
    for my_state, their_state in zip(
        state_of(mine, my_params), state_of(theirs, their_params), strict=True
    ):
        assert list(my_state) == list(their_state)
        if "step" in their_state:
            step = my_state["step"]
            assert (step.dtype, step.shape, step.device) == (
                their_state["step"].dtype,
                their_state["step"].shape,
                their_state["step"].device,
            )


@pytest.mark.parametrize("name", IN_TORCH)
def test_state_dict_has_torchs_shape(name):
    (mine, _), (theirs, _) = _trained(ours(name), name), _trained(TORCH[name], name)
    mine, theirs = mine.state_dict(), theirs.state_dict()
    assert set(theirs) <= set(mine)
    assert mine["state"].keys() == theirs["state"].keys()
    for group, expected in zip(mine["param_groups"], theirs["param_groups"], strict=True):
        assert group["params"] == expected["params"]
        assert set(expected) <= set(group)


@pytest.mark.parametrize("name", IN_TORCH)
def test_from_torch_and_on(backend, name):
    """torch trains and saves; descend loads and goes on as torch would have."""
    theirs, their_params = _trained(TORCH[name], name)
    my_params = [torch.nn.Parameter(param.detach().clone()) for param in their_params]
    mine = ours(name)(my_params)
    mine.load_state_dict(_snapshot(theirs))
    for key, value in RICH[name].items():
        assert mine.param_groups[0][key] == value
    steps = steps_on(backend)
    train(mine, my_params, steps, first=4)
    train(theirs, their_params, steps, first=4)
    assert_same_training(mine, my_params, theirs, their_params)


@pytest.mark.parametrize("name", IN_TORCH)
def test_to_torch_and_on(backend, name):
    """descend trains and saves; torch loads and goes on as descend would have."""
    mine, my_params = _trained(ours(name), name)
    their_params = [torch.nn.Parameter(param.detach().clone()) for param in my_params]
    theirs = TORCH[name](their_params)
    theirs.load_state_dict(_snapshot(mine))
    steps = steps_on(backend)
    train(mine, my_params, steps, first=4)
    train(theirs, their_params, steps, first=4)
    assert_same_training(mine, my_params, theirs, their_params)


@pytest.mark.parametrize("name", ["asgd", "nadam"])
def test_scalars_that_torch_keeps_in_float32(backend, name):
    """They come in as they are, become float64, and go out to torch, which rounds them again."""
    plain = getattr(torch.optim, TORCH[name].__name__)
    theirs, their_params = _trained(plain, name)
    my_params = [torch.nn.Parameter(param.detach().clone()) for param in their_params]
    mine = ours(name)(my_params)
    mine.load_state_dict(_snapshot(theirs))
    for key in counts(name)[1:]:
        mine_, theirs_ = mine.state[my_params[0]][key], theirs.state[their_params[0]][key]
        assert (mine_.dtype, theirs_.dtype) == (torch.float64, torch.float32)
        assert mine_.item() == theirs_.item()
    theirs = plain(their_params)
    theirs.load_state_dict(_snapshot(mine))
    train(mine, my_params, 5, first=4)
    train(theirs, their_params, 5, first=4)
    for my_param, their_param in zip(my_params, their_params, strict=True):
        # Roundings of float32, enlarged where NAdam divides by 1 - mu_product.
        assert_close(my_param, their_param, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("backend", "way"),
    [
        (backend, way)
        for way in ("state_dict", "deepcopy", "pickle", "torch.save", "torch.save whole")
        for backend in ("eager", "cpu", "gpu")
        # The last two pickle what the others do: not again in Triton's interpreter.
        if backend != "gpu" or not way.startswith("torch.save")
    ],
    indirect=["backend"],
)
@pytest.mark.parametrize("name", NAMES)
def test_a_copy_goes_on_as_the_original(backend, name, way):
    mine, params = _trained(ours(name), name, clip_norm=1.5, skip_nonfinite=True)
    if way in ("state_dict", "torch.save"):
        saved = mine.state_dict()
        if way == "torch.save":
            file = io.BytesIO()
            torch.save(saved, file)
            file.seek(0)
            saved = torch.load(file, weights_only=True)
        others = [torch.nn.Parameter(param.detach().clone()) for param in params]
        other = ours(name)(others, clip_norm=1.5, skip_nonfinite=True)
        other.load_state_dict(saved)
    else:
        whole = {"optimizer": mine, "params": params}
        if way == "deepcopy":
            whole = copy.deepcopy(whole)
        elif way == "pickle":
            whole = pickle.loads(pickle.dumps(whole))
        else:
            file = io.BytesIO()
            torch.save(whole, file)
            file.seek(0)
            whole = torch.load(file, weights_only=False)
        other, others = whole["optimizer"], whole["params"]
        assert other.param_groups[0]["params"][0] is others[0]
    assert all(one.data_ptr() != two.data_ptr() for one, two in zip(params, others, strict=True))
    train(mine, params, 3, first=4)
    train(other, others, 3, first=4)
    assert_same_training(other, others, mine, params, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_hooks_on_saving_and_loading(name):
    mine, _ = _trained(ours(name), name)
    mine.register_state_dict_post_hook(lambda _, saved: {**saved, "note": 1})
    saved = mine.state_dict()
    assert saved.pop("note") == 1
    loaded = []
    mine.register_load_state_dict_pre_hook(lambda *_: loaded.append("before"))
    mine.register_load_state_dict_post_hook(lambda *_: loaded.append("after"))
    mine.load_state_dict(saved)
    assert loaded == ["before", "after"]


@pytest.mark.parametrize("name", IN_TORCH)
def test_state_tensors_replaced_by_hand(backend, name):
    """A new tensor in `optimizer.state[p]`, of any layout, is what the next step reads."""
    mine, my_params = _trained(ours(name), name)
    theirs, their_params = _trained(TORCH[name], name)
    for optimizer, params in ((mine, my_params), (theirs, their_params)):
        for seed, param in enumerate(params):
            for key, value in list(optimizer.state[param].items()):
                if key not in counts(name):
                    new = tensor(seed, (*value.shape, 2)).abs()[..., 1] + 2.0
                    # A mean small enough for its mean square, or the variance is negative.
                    optimizer.state[param][key] = new / 10 if key == "grad_avg" else new
        train(optimizer, params, 3, first=4)
    assert_same_training(mine, my_params, theirs, their_params)


@pytest.mark.parametrize("name", [name for name in IN_TORCH if counts(name)])
def test_step_changed_by_hand(backend, name):
    mine, my_params = _trained(ours(name), name)
    theirs, their_params = _trained(TORCH[name], name)
    for optimizer, params in ((mine, my_params), (theirs, their_params)):
        optimizer.state[params[0]]["step"].fill_(100.0)
        optimizer.state[params[1]]["step"] = torch.tensor(7.0)
        train(optimizer, params, 3, first=4)
    assert_same_training(mine, my_params, theirs, their_params)
    assert mine.state[my_params[0]]["step"].item() == 103
    assert mine.state[my_params[1]]["step"].item() == 10


@pytest.mark.parametrize("name", IN_TORCH)
def test_state_cleared_by_hand_starts_anew(backend, name):
    mine, my_params = _trained(ours(name), name)
    theirs, their_params = _trained(TORCH[name], name)
    for optimizer, params in ((mine, my_params), (theirs, their_params)):
        optimizer.state.clear()
        train(optimizer, params, 3, first=4)
    assert_same_training(mine, my_params, theirs, their_params)


@pytest.mark.parametrize("name", NAMES)
def test_p1_a_load_copies(backend, name):
    source, source_params = _trained(ours(name), name)
    other = ours(name)(parameters(SHAPES), **RICH[name])
    saved = source.state_dict()
    other.load_state_dict(saved)
    before = _snapshot(other)
    train(source, source_params, 2, first=4)
    for state in saved["state"].values():
        for value in state.values():
            value.fill_(99.0)
    assert_unchanged(other, before)


@pytest.mark.parametrize("name", NAMES)
def test_p2_a_load_leaves_the_way_to_step(name):
    flags = [
        flag
        for flag in ("foreach", "fused", "differentiable", "capturable")
        if flag in ours(name).hyperparameters
    ]
    source = ours(name)(parameters(SHAPES), lr=0.5, foreach=True)
    other = ours(name)(parameters(SHAPES), foreach=False)
    before = {flag: other.param_groups[0].get(flag) for flag in flags}
    other.load_state_dict(source.state_dict())
    assert other.param_groups[0]["lr"] == 0.5
    assert {flag: other.param_groups[0].get(flag) for flag in flags} == before


@pytest.mark.parametrize("name", NAMES)
def test_p4_parameters_in_another_order_are_refused(backend, name):
    source, _ = _trained(ours(name), name)
    shuffled = parameters(list(reversed(SHAPES)))
    other = ours(name)(shuffled, **RICH[name])
    train(other, shuffled, 1)
    before = _snapshot(other)
    with pytest.raises(ValueError, match="shape"):
        other.load_state_dict(source.state_dict())
    assert_unchanged(other, before)


@pytest.mark.parametrize("name", NAMES)
def test_p4_named_parameters_are_matched_by_name(name):
    """Equal shapes in another order: nothing but the names can tell."""
    params = parameters([(3,), (3,)])
    source = ours(name)(zip("ab", params, strict=True), **RICH[name])
    train(source, params, 3)
    others = parameters([(3,), (3,)])
    other = ours(name)(zip("ba", others, strict=True), **RICH[name])
    other.load_state_dict(source.state_dict())
    assert other.param_groups[0]["param_names"] == ["b", "a"]
    for mine, theirs in zip(reversed(others), params, strict=True):
        for key, value in source.state[theirs].items():
            assert_close(other.state[mine][key], value, key, rtol=0, atol=0)


# Whose state means the same, as in torch: it goes on as the other's.
ALIKE = {"adam": ("adamw", "radam"), "adamw": ("adam", "radam")}
STRANGERS = [
    (name, source)
    for name in NAMES
    for source in NAMES
    if name != source and source not in ALIKE.get(name, ())
]


@pytest.mark.parametrize(("name", "source_name"), STRANGERS)
def test_p5_another_optimizers_state_is_refused_at_load(name, source_name):
    source, _ = _trained(ours(source_name), source_name)
    params = parameters(SHAPES)
    other = ours(name)(params, **RICH[name])
    train(other, params, 1)
    before = _snapshot(other)
    with pytest.raises(
        ValueError, match=f"(?s){ours(name).__name__}.*{ours(source_name).__name__}"
    ):
        other.load_state_dict(source.state_dict())
    assert_unchanged(other, before)


@pytest.mark.parametrize("name", NAMES)
def test_p6_a_tensor_lr_is_filled_not_replaced(name):
    my_lr = torch.tensor(0.25)
    mine = ours(name)(parameters(SHAPES), lr=my_lr)
    source = ours(name)(parameters(SHAPES), lr=torch.tensor(0.5))
    saved = source.state_dict()
    mine.load_state_dict(saved)
    assert mine.param_groups[0]["lr"] is my_lr
    assert my_lr.item() == 0.5
    handed_out = mine.state_dict()["param_groups"][0]["lr"]
    my_lr.fill_(0.75)
    assert float(handed_out) == 0.5


def _drop_second_group(saved):
    saved["param_groups"].pop()


def _add_parameter(saved):
    saved["param_groups"][0]["params"].append(9)


def _lose_a_state_entry(saved):
    state = saved["state"][1]
    del state[list(state)[1]]  # the first tensor after "step": no flag makes it optional


def _wrong_shape(saved):
    state = saved["state"][2]
    state[list(state)[-1]] = torch.zeros(4, 4)


def _bad_lr(saved):
    saved["param_groups"][-1]["lr"] = -1.0


def _no_groups(saved):
    del saved["param_groups"]


DAMAGES = [
    (name, damage)
    for name in NAMES
    for damage in [_drop_second_group, _add_parameter, _wrong_shape, _bad_lr, _no_groups]
    # SGD without a velocity is SGD before its first step, and so is Lion without a momentum.
    + ([_lose_a_state_entry] if counts(name) else [])
]


@pytest.mark.parametrize(
    ("name", "damage"), DAMAGES, ids=lambda value: getattr(value, "__name__", value).strip("_")
)
def test_p10_a_refused_load_changes_nothing(name, damage):
    def two_groups():
        params = parameters(SHAPES)
        return [{"params": params[:2], "lr": 0.1}, {"params": params[2:], "lr": 0.2}], params

    groups, params = two_groups()
    source = ours(name)(groups, **RICH[name])
    train(source, params, 3)
    saved = _snapshot(source)
    damage(saved)
    groups, params = two_groups()
    other = ours(name)(groups, **RICH[name])
    train(other, params, 1)
    before, values = _snapshot(other), [param.detach().clone() for param in params]
    with pytest.raises(ValueError):  # noqa: PT011 - its text is pinned in test_bad_inputs
        other.load_state_dict(saved)
    assert_unchanged(other, before)
    for param, value in zip(params, values, strict=True):
        assert_close(param, value, rtol=0, atol=0)
    give_gradients(params, 5)
    other.step()
