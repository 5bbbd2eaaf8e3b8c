"""Loading: matched by name, the right algorithm, filled in place, all or nothing, or in part."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import Parameter

import descend
from descend.errors import ShapeError, StateError
from descend.optimizers import CATALOGUE
from optimizers.any_optimizer import parameters, train


def model(*sizes, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(sizes))).double()


def fit(net, optimizer, steps=3):
    torch.manual_seed(1)
    inputs = torch.randn(8, net[0].in_features, dtype=torch.float64)
    for _ in range(steps):
        optimizer.zero_grad()
        net(inputs).square().mean().backward()
        optimizer.step()


def trained(net, lr=0.5, make=descend.SGD, groups=None, **options):
    options = options or {"momentum": 0.9}
    optimizer = make(groups or net.named_parameters(), lr=lr, **options)
    fit(net, optimizer)
    return optimizer


def contents(optimizer):
    """Everything that a load may change, by value; and the tensors it may not replace."""
    lr = [group["lr"] for group in optimizer.param_groups]
    kept = [one for one in lr if isinstance(one, torch.Tensor)]
    return copy.deepcopy(optimizer.state_dict()), list(map(id, optimizer.param_groups)), kept


def assert_unchanged(optimizer, before):
    (saved, groups, kept), (now, now_groups, now_kept) = before, contents(optimizer)
    assert now["param_groups"] == saved["param_groups"]
    torch.testing.assert_close(now["state"], saved["state"], rtol=0, atol=0)
    assert groups == now_groups
    assert all(a is b for a, b in zip(kept, now_kept, strict=True))


# P4: names.


def test_p4_groups_in_another_order_get_their_own_options():
    """torch gives the head's lr to the body."""
    net = model(3, 4, 2)
    body, head = ([("0." + n, p) for n, p in net[0].named_parameters()], [("1.w", net[1].weight)])
    source = descend.SGD(
        [{"params": body, "lr": 0.25}, {"params": head, "lr": 0.5}], lr=1.0, momentum=0.9
    )
    fit(net, source)
    other_net = copy.deepcopy(net)
    head = [("1.w", other_net[1].weight)]
    body = [("0." + n, p) for n, p in reversed(list(other_net[0].named_parameters()))]
    other = descend.SGD([{"params": head}, {"params": body}], lr=1.0, momentum=0.9)
    report = other.load_state_dict(source.state_dict())
    assert [group["lr"] for group in other.param_groups] == [0.5, 0.25]
    assert report.groups == {0: 1, 1: 0}
    for param, expected in ((head[0][1], net[1].weight), (body[0][1], net[0].bias)):
        assert torch.equal(
            other.state[param]["momentum_buffer"], source.state[expected]["momentum_buffer"]
        )


@pytest.mark.parametrize("named", ["both", "state", "optimizer", "neither"])
def test_p4_another_order_of_unequal_shapes_is_refused_naming_both(named):
    net = model(3, 4)
    params = list(net.named_parameters())
    shuffled = [(name, Parameter(param.detach().clone())) for name, param in reversed(params)]
    source = descend.SGD(
        params if named in ("both", "state") else [p for _, p in params], lr=0.5, momentum=0.9
    )
    fit(net, source)
    other = descend.SGD(
        shuffled if named in ("both", "optimizer") else [p for _, p in shuffled],
        lr=0.5,
        momentum=0.9,
    )
    before = contents(other)
    if named == "both":
        other.load_state_dict(source.state_dict())
        for name, param in shuffled:
            expected = source.state[dict(params)[name]]["momentum_buffer"]
            assert torch.equal(other.state[param]["momentum_buffer"], expected)
        return
    with pytest.raises(ShapeError) as error:
        other.load_state_dict(source.state_dict())
    place = {
        "state": "parameter 0 ('0.weight' in the state)",
        "optimizer": "parameter 0 ('0.bias' here)",
        "neither": "parameter 0",
    }[named]
    assert str(error.value) == (
        f"SGD: 'momentum_buffer' of {place} in the state is a tensor of shape (4, 3), but the "
        "parameter has shape (4,); the parameters were in another order, or the model was another "
        "one"
    )
    assert_unchanged(other, before)


def test_p4_other_names_are_refused_naming_both():
    source, other = trained(model(3, 4)), trained(nn.ModuleList([model(3, 4)])[0])
    saved = source.state_dict()
    saved["param_groups"][0]["param_names"] = ["0.weight", "0.scale"]
    before = contents(other)
    with pytest.raises(StateError) as error:
        other.load_state_dict(saved)
    assert str(error.value) == (
        "SGD: the state's parameters have other names than this optimizer's: not in the state: "
        "0.bias; only in the state: 0.scale; to load those that both have, pass strict=False"
    )
    assert_unchanged(other, before)


def test_p4_the_same_names_in_other_groups_are_refused():
    net = model(3, 4, 2)
    pairs = list(net.named_parameters())
    source = trained(net)
    other = descend.SGD([{"params": pairs[:2]}, {"params": pairs[2:]}], lr=0.1)
    before = contents(other)
    with pytest.raises(StateError, match=r"SGD: group 0, the one of '0.weight', has other param"):
        other.load_state_dict(source.state_dict())
    assert_unchanged(other, before)


def test_p4_names_that_do_not_fit_their_group_are_refused():
    source = trained(model(3, 4))
    saved = source.state_dict()
    saved["param_groups"][0]["param_names"] = ["0.weight"]
    before = contents(source)
    with pytest.raises(StateError, match="group 0 of the state has 2 parameters and 1 name;"):
        source.load_state_dict(saved)
    assert_unchanged(source, before)


def test_p4_a_compiled_models_names_are_the_models():
    net = model(3, 4)
    prefixed = [("_orig_mod." + name, param) for name, param in net.named_parameters()]
    source = trained(net, groups=prefixed)
    other = trained(model(3, 4, seed=1))
    report = other.load_state_dict(source.state_dict())
    assert report.matched == ("0.weight", "0.bias")


def test_names_come_along_where_there_were_none():
    """As in torch; later saves are matched by them."""
    net = model(3, 4)
    source = trained(net)
    for make in (descend.SGD, torch.optim.SGD):
        other = make(net.parameters(), lr=0.1, momentum=0.9)
        other.load_state_dict(copy.deepcopy(source.state_dict()))
        assert other.param_groups[0]["param_names"] == ["0.weight", "0.bias"]


def test_own_names_stay():
    net = model(3, 4)
    source = descend.SGD(net.parameters(), lr=0.5, momentum=0.9)
    other = descend.SGD(net.named_parameters(), lr=0.1, momentum=0.9)
    other.load_state_dict(source.state_dict())
    assert other.param_groups[0]["param_names"] == ["0.weight", "0.bias"]


# P5: the right algorithm.


def test_p5_an_optimizer_that_has_not_stepped_is_told_by_its_options():
    """No state yet that could tell; torch takes it, and fails at the next step."""
    for source, other in (("sgd", "adam"), ("adam", "sgd"), ("rmsprop", "adagrad")):
        saved = CATALOGUE[source](parameters()).state_dict()
        saved["state"] = {}
        optimizer = CATALOGUE[other](parameters())
        before = contents(optimizer)
        with pytest.raises(StateError, match=f"saved by .*{CATALOGUE[source].__name__}"):
            optimizer.load_state_dict(saved)
        assert_unchanged(optimizer, before)


@pytest.mark.parametrize("strict", [True, False])
def test_p5_adadelta_is_no_rmsprop(strict):
    """Adadelta keeps all that RMSprop keeps, and more."""
    params = parameters()
    source = descend.Adadelta(params)
    train("adadelta", source, params, 2)
    other = descend.RMSprop(parameters())
    with pytest.raises(StateError) as error:
        other.load_state_dict(source.state_dict(), strict=strict)
    assert str(error.value) == (
        "RMSprop: the state was saved by Adadelta: its groups lack alpha, momentum, centered; "
        "load it into that optimizer, or pass what RMSprop.state_dict() returned"
    )


@pytest.mark.parametrize(("source", "other"), [("Adam", "AdamW"), ("RAdam", "Adam")])
def test_p5_what_means_the_same_is_taken(source, other):
    params = parameters()
    first = getattr(descend, source)(params)
    train(source.lower(), first, params, 2)
    others = parameters()
    second = getattr(descend, other)(others)
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.state[others[0]]["exp_avg"], first.state[params[0]]["exp_avg"])


def test_p5_a_users_subclass_with_more_options_is_the_same_optimizer():
    class Mine(descend.Adam):
        def __init__(self, params, temperature: float = 2.0):
            super().__init__(params)
            for group in self.param_groups:
                group["temperature"] = temperature

    mine, plain = Mine(parameters()), descend.Adam(parameters())
    plain.load_state_dict(mine.state_dict())
    assert plain.param_groups[0]["temperature"] == 2.0
    mine.load_state_dict(descend.Adam(parameters()).state_dict())


def test_p5_what_users_keep_beside_the_options_does_not_matter():
    """Even under the name of another optimizer's option."""
    optimizer = descend.Adam(parameters())
    optimizer.param_groups[0].update(initial_lr=0.1, momentum=0.5, dampening=0.1, nesterov=True)
    saved = optimizer.state_dict()
    del saved["param_groups"][0]["decoupled_weight_decay"]  # an older file
    other = descend.Adam(parameters())
    other.load_state_dict(saved)
    assert other.param_groups[0]["dampening"] == 0.1


# P6: tensors among the options.


def test_p6_tensors_are_filled_and_handed_out_as_copies():
    lr, beta = torch.tensor(0.25, dtype=torch.float64), torch.tensor([[0.75]])
    optimizer = descend.Adam(parameters(), lr=lr, betas=(beta, torch.tensor(0.5)))
    betas = optimizer.param_groups[0]["betas"]
    saved = optimizer.state_dict()
    lr.fill_(0.125)
    beta.fill_(0.0)
    assert saved["param_groups"][0]["lr"].item() == 0.25
    assert saved["param_groups"][0]["betas"][0].item() == 0.75
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["lr"] is lr
    assert all(a is b for a, b in zip(optimizer.param_groups[0]["betas"], betas, strict=True))
    assert (lr.item(), beta.item()) == (0.25, 0.75)
    optimizer.load_state_dict(descend.Adam(parameters(), lr=0.5, betas=(0.1, 0.2)).state_dict())
    assert optimizer.param_groups[0]["lr"] is lr
    assert (lr.item(), round(betas[1].item(), 6)) == (0.5, 0.2)
    plain = descend.Adam(parameters(), lr=0.1)
    plain.load_state_dict(saved)
    plain.param_groups[0]["lr"].fill_(9.0)
    assert saved["param_groups"][0]["lr"].item() == 0.25


# P10: all or nothing.


def loads_that_fail():
    """What goes wrong, and where: before, in the middle, and after the change."""

    def hook_after(optimizer, saved):
        optimizer.register_load_state_dict_post_hook(lambda _: 1 / 0)

    def hook_before(optimizer, saved):
        optimizer.register_load_state_dict_pre_hook(lambda *_: 1 / 0)

    def hook_answers_nonsense(optimizer, saved):
        optimizer.register_load_state_dict_pre_hook(lambda *_: {"state": 3})

    def hook_between(optimizer, saved):
        optimizer.register_load_state_dict_post_hook(
            lambda o: o.param_groups[0].update(lr=7.0, new=1)
        )
        optimizer.register_load_state_dict_post_hook(lambda _: 1 / 0)

    class Unique:
        def __deepcopy__(self, memo):
            raise ZeroDivisionError

    def option_that_cannot_be_copied(optimizer, saved):
        saved["param_groups"][1]["odd"] = Unique()

    def entry_that_cannot_be_copied(optimizer, saved):
        saved["state"][3]["odd"] = Unique()

    def entry_that_is_no_dict(optimizer, saved):
        saved["state"][3] = 5

    def entry_of_none(optimizer, saved):
        saved["state"][3] = None

    def tensor_that_is_text(optimizer, saved):
        saved["state"][3]["exp_avg"] = "text"

    def count_that_is_a_vector(optimizer, saved):
        saved["state"][3]["step"] = torch.ones(3)

    def option_of_another_kind(optimizer, saved):
        saved["param_groups"][1]["betas"] = None

    return {name: value for name, value in locals().items() if name != "Unique"}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("case", loads_that_fail())
def test_p10_a_load_that_fails_anywhere_changes_nothing(case, strict):
    def made(seed):
        net = model(3, 4, 2, seed=seed)
        groups = [
            {"params": list(net[0].parameters()), "lr": torch.tensor(0.1 + seed)},
            {"params": list(net[1].parameters())},
        ]
        return net, trained(net, make=descend.Adam, groups=groups, betas=(0.5, 0.5))

    (_, source), (net, optimizer) = made(1), made(0)
    saved = copy.deepcopy(source.state_dict())
    before, values = contents(optimizer), [param.detach().clone() for param in net.parameters()]
    loads_that_fail()[case](optimizer, saved)
    with pytest.raises((ZeroDivisionError, ValueError)):
        optimizer.load_state_dict(saved, strict=strict)
    assert_unchanged(optimizer, before)
    for param, value in zip(net.parameters(), values, strict=True):
        assert torch.equal(param, value)
    for hooks in ("_optimizer_load_state_dict_pre_hooks", "_optimizer_load_state_dict_post_hooks"):
        getattr(optimizer, hooks).clear()
    optimizer.load_state_dict(source.state_dict())
    fit(net, optimizer)


def test_p10_a_subclass_that_refuses_a_load_changes_nothing():
    class Picky(descend.Adam):
        def __setstate__(self, state):
            super().__setstate__(state)
            raise ZeroDivisionError

    optimizer = Picky(parameters(), lr=0.5)
    before = contents(optimizer)
    with pytest.raises(ZeroDivisionError):
        optimizer.load_state_dict(descend.Adam(parameters(), lr=0.1).state_dict())
    assert_unchanged(optimizer, before)


# P11: in part, with a report.


def test_p11_everything_matched():
    source, other = trained(model(3, 4)), descend.SGD(model(3, 4).named_parameters(), lr=0.1)
    for strict in (True, False):
        report = other.load_state_dict(source.state_dict(), strict=strict)
        assert report.matched == ("0.weight", "0.bias")
        assert (report.missed, report.unused, report.groups) == ({}, {}, {0: 0})
    assert str(report) == (
        "state of 2 parameters loaded: 0.weight, 0.bias\n"
        "missed: none\n"
        "unused: none\n"
        "options loaded into: group 0"
    )


def test_p11_a_changed_network_by_name():
    """A head of another width, a new layer: the body's state and options come along."""
    net = model(3, 4, 2)
    source = trained(net)
    changed = model(3, 4, 5, 6, seed=1)
    other = trained(changed, lr=0.125)
    mine = {name: other.state[param]["momentum_buffer"] for name, param in named(changed)}
    report = other.load_state_dict(source.state_dict(), strict=False)
    assert report.matched == ("0.weight", "0.bias")
    assert str(report).splitlines() == [
        "state of 2 parameters loaded: 0.weight, 0.bias",
        "missed: 1.weight ('momentum_buffer' is a tensor of shape (2, 4), but the parameter has "
        "shape (5, 4)), 1.bias ('momentum_buffer' is a tensor of shape (2,), but the parameter has "
        "shape (5,)), 2.weight (not in the state), 2.bias (not in the state)",
        "unused: 1.weight ('momentum_buffer' is a tensor of shape (2, 4), but the parameter has "
        "shape (5, 4)), 1.bias ('momentum_buffer' is a tensor of shape (2,), but the parameter has "
        "shape (5,))",
        "options loaded into: group 0",
    ]
    assert other.param_groups[0]["lr"] == 0.5
    assert other.param_groups[0]["param_names"] == [name for name, _ in named(changed)]
    for name, param in named(changed):
        state = other.state[param]["momentum_buffer"]
        if name in report.matched:
            expected = source.state[dict(named(net))[name]]["momentum_buffer"]
            assert torch.equal(state, expected)
            assert state.data_ptr() != expected.data_ptr()
        else:
            assert state is mine[name]
    fit(changed, other)


def named(net):
    return list(net.named_parameters())


def test_p11_a_smaller_network_leaves_state_unused():
    source = trained(model(3, 4, 2))
    other = descend.SGD(model(3, 4).named_parameters(), lr=0.1, momentum=0.9)
    report = other.load_state_dict(source.state_dict(), strict=False)
    assert report.matched == ("0.weight", "0.bias")
    assert report.missed == {}
    assert report.unused == dict.fromkeys(("1.weight", "1.bias"), "not in this optimizer")
    assert len(other.state) == 2


def test_p11_without_names_by_position_where_shapes_agree():
    net = model(3, 4, 2)
    source = trained(net, groups=[{"params": list(net.parameters())}])
    changed = model(3, 4, 5, seed=1)
    other = descend.SGD(list(changed.parameters()), lr=0.125, momentum=0.9)
    report = other.load_state_dict(source.state_dict(), strict=False)
    assert report.matched == (0, 1)
    assert list(report.missed) == list(report.unused) == [2, 3]
    assert "shape (2, 4), but the parameter has shape (5, 4)" in report.missed[2]
    longer = model(3, 4, 2, 2)
    other = descend.SGD(list(longer.parameters()), lr=0.125, momentum=0.9)
    report = other.load_state_dict(source.state_dict(), strict=False)
    assert report.matched == (0, 1, 2, 3)
    assert report.missed == {4: "not in the state", 5: "not in the state"}


def test_p11_options_go_only_where_groups_correspond():
    """One saved group of all parameters; two groups of different lrs here: they keep theirs."""
    net = model(3, 4, 2)
    source = trained(net, lr=0.5)
    pairs = named(net)
    other = descend.SGD(
        [{"params": pairs[:2], "lr": 0.25}, {"params": pairs[2:], "lr": 0.125}], lr=1.0
    )
    report = other.load_state_dict(source.state_dict(), strict=False)
    assert report.groups == {}
    assert [group["lr"] for group in other.param_groups] == [0.25, 0.125]
    assert len(report.matched) == 4
    assert str(report).endswith("options loaded into: none")
    back = trained(model(3, 4, 2), lr=0.75)
    assert back.load_state_dict(other.state_dict(), strict=False).groups == {}
    assert back.param_groups[0]["lr"] == 0.75


def test_p11_a_group_of_the_same_parameters_gets_its_options_from_wherever_it_was():
    net = model(3, 4, 2)
    pairs = named(net)
    source = descend.SGD(
        [{"params": pairs[:2], "lr": 0.5}, {"params": pairs[2:], "lr": 0.25}], lr=1.0
    )
    new = [("extra", Parameter(torch.ones(2)))]
    other = descend.SGD(
        [{"params": new, "lr": 2.0}, {"params": pairs[3:]}, {"params": pairs[:2]}], lr=1.0
    )
    report = other.load_state_dict(source.state_dict(), strict=False)
    assert report.groups == {1: 1, 2: 0}
    assert [group["lr"] for group in other.param_groups] == [2.0, 0.25, 0.5]
    assert "options loaded into: group 1, group 2 (from group 0)" in str(report)


@pytest.mark.parametrize("strict", [True, False])
def test_p11_a_parameter_that_had_no_state_when_it_was_saved_has_none_then(strict):
    net = model(3, 4)
    source, other = trained(net), trained(net)
    saved = source.state_dict()
    del saved["state"][1]
    report = other.load_state_dict(saved, strict=strict)
    assert report.matched == ("0.weight", "0.bias")
    assert list(other.state) == [net[0].weight]


def test_p11_what_is_damaged_is_refused_all_the_same():
    source = trained(model(3, 4))
    saved = source.state_dict()
    saved["param_groups"][0]["lr"] = -1.0
    other = descend.SGD(model(3, 4, 2).named_parameters(), lr=0.1)
    before = contents(other)
    with pytest.raises(ValueError, match=r"lr=-1.0 in group 0 of the state"):
        other.load_state_dict(saved, strict=False)
    assert_unchanged(other, before)


DAMAGES = {
    "step nan": ({"step": float("nan")}, r"'step' of parameter '0.weight' in the state is nan"),
    "step inf": ({"step": torch.tensor(float("inf"))}, r"'step' .* is inf"),
    "step below 0": ({"step": -1.0}, r"'step' .* is -1.0"),
    "counter nan": ({"mu_product": torch.tensor(float("nan"))}, "'mu_product' .* is nan"),
    "whole numbers": ({"exp_avg": torch.ones(4, 3, dtype=torch.int64)}, "is a tensor of.*int64"),
    "complex": ({"exp_avg": torch.ones(4, 3, dtype=torch.complex64)}, "is a tensor of.*complex64"),
    "sparse": ({"exp_avg": torch.ones(4, 3).to_sparse()}, "sparse_coo"),
    "meta": ({"exp_avg": torch.ones(4, 3, device="meta")}, "on meta"),
}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_numbers_are_refused_and_change_nothing(damage, strict):
    change, message = DAMAGES[damage]
    saved = trained(model(3, 4), make=descend.NAdam, weight_decay=0.1).state_dict()
    saved["state"][0] = {**saved["state"][0], **change}
    other = trained(model(3, 4), lr=0.1, make=descend.NAdam, weight_decay=0.2)
    before = contents(other)
    with pytest.raises(StateError, match=message):
        other.load_state_dict(saved, strict=strict)
    assert_unchanged(other, before)


@pytest.mark.parametrize("names", [[0, 1], 5, "ab", [None, None]], ids=str)
def test_saved_names_that_are_no_strings_are_refused(names):
    saved = trained(model(3, 4)).state_dict()
    saved["param_groups"][0]["param_names"] = names
    other = trained(model(3, 4), lr=0.1)
    before = contents(other)
    with pytest.raises(StateError, match=r"'param_names' of group 0 .* must be a list of strings"):
        other.load_state_dict(saved)
    assert_unchanged(other, before)


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_p11_every_optimizer_loads_in_part(name):
    """One more parameter here than in the state. L-BFGS has one memory of all: it keeps its own."""
    params = parameters()
    source = CATALOGUE[name](params[:1], lr=0.02)
    train(name, source, params[:1], 2)
    others = parameters()
    other = CATALOGUE[name](others, lr=0.05)
    report = other.load_state_dict(source.state_dict(), strict=False)
    assert other.param_groups[0]["lr"] == 0.02
    if name == "lbfgs":
        assert (report.matched, list(report.missed), list(report.unused)) == ((), [0, 1], [0])
    else:
        assert (report.matched, report.missed) == ((0,), {1: "not in the state"})
    train(name, other, others, 2)


def test_indices_that_json_turned_into_text_are_refused():
    params = [Parameter(torch.ones(2))]
    optimizer = descend.Adam(params)
    params[0].grad = torch.ones(2)
    optimizer.step()
    saved = optimizer.state_dict()
    saved["state"] = {str(key): value for key, value in saved["state"].items()}
    with pytest.raises(descend.errors.StateError, match="'0' as text"):
        optimizer.load_state_dict(saved)
    assert optimizer.state[params[0]]["step"].item() == 1


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}])
def test_what_a_wrapper_keeps_beside_the_state_is_loaded(options):
    """Lookahead (timm, torch_optimizer) puts its slow weights there; plain SGD has no others."""
    net = model(2, 3)
    optimizer = trained(net, lr=0.1, **{"momentum": 0.0, **options})
    for param in net.parameters():
        optimizer.state[param]["lookahead_slow_buff"] = param.detach().clone()
    other = descend.SGD(net.named_parameters(), lr=0.1, **options)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for param in net.parameters():
        assert other.state[param].keys() == optimizer.state[param].keys()
        assert torch.equal(other.state[param]["lookahead_slow_buff"], param)


def test_a_group_that_is_held_across_a_load_is_filled():
    """torch's optimizer has new dicts then, and the old one keeps lr 0.5."""
    net = model(2, 2)
    state = trained(net, lr=0.25).state_dict()
    optimizer = trained(net, lr=0.5)
    (held,) = optimizer.param_groups
    optimizer.load_state_dict(state)
    assert held is optimizer.param_groups[0]
    assert held["lr"] == 0.25


# Programs that take parameters away and add others, with their state, in mid-run.


def thinned(make):
    """As splatting programs do: rows are pruned from a parameter and from its state, then added."""
    param = Parameter(torch.arange(12.0).view(6, 2))
    optimizer = make([{"params": [param], "lr": 0.1, "name": "points"}], lr=0.0, eps=1e-15)
    (group,) = optimizer.param_groups
    losses = []
    for step in range(9):
        (held,) = group["params"]
        loss = held.sin().sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step in (3, 6):
            with torch.no_grad():
                change = (lambda t: t[::2]) if step == 3 else (lambda t: torch.cat([t, 0 * t[:1]]))
                state = optimizer.state.pop(held)
                for name in ("exp_avg", "exp_avg_sq"):
                    state[name] = change(state[name])
                group["params"][0] = Parameter(change(held))
                optimizer.state[group["params"][0]] = state
    return losses


@pytest.mark.parametrize("name", ["Adam", "AdamW", "NAdam", "RAdam"])
def test_rows_of_a_parameter_and_its_state_come_and_go(name):
    ours, torchs = (thinned(getattr(module, name)) for module in (descend, torch.optim))
    assert ours == pytest.approx(torchs, rel=1e-5)


@pytest.mark.parametrize("count", [torch.zeros(1), torch.zeros(())])
def test_state_that_a_subclass_makes_in_its_constructor(count):
    """As asynchronous actor-critics do, to share it between processes."""

    def shared(base):
        class Shared(base):
            def __init__(self, params, lr):
                super().__init__(params, lr=lr)
                for param in self.param_groups[0]["params"]:
                    self.state[param] = {
                        "step": count.clone(),
                        "exp_avg": torch.zeros_like(param),
                        "exp_avg_sq": torch.zeros_like(param),
                    }
                    for tensor in self.state[param].values():
                        tensor.share_memory_()

        return Shared

    results = []
    for module in (descend, torch.optim):
        net = model(3, 2)
        net.share_memory()
        optimizer = shared(module.Adam)(net.parameters(), lr=0.1)
        held = [state["exp_avg"] for state in optimizer.state.values()]
        fit(net, optimizer)
        assert all(tensor.is_shared() and tensor.any() for tensor in held)
        results.append(torch.cat([param.detach().flatten() for param in net.parameters()]))
    torch.testing.assert_close(*results)
