"""The base class beside torch's: groups, gradients, the step, and subclasses of the user's own."""

import copy
import inspect
import pickle

import pytest
import torch
from torch.nn import Parameter
from torch.optim.optimizer import required

import descend
from descend.errors import HyperparameterError, ParameterError
from descend.optimizers import CATALOGUE

BOTH = [torch.optim.SGD, descend.SGD]


def params(*shapes):
    return [Parameter(torch.linspace(1, 2, 12)[: torch.Size(s).numel()].reshape(s)) for s in shapes]


def with_gradients(*shapes):
    made = params(*shapes)
    for param in made:
        param.grad = torch.ones_like(param)
    return made


def outcome(call):
    """What a call gives, or the built-in type of the exception that it raises."""
    try:
        return call()
    except Exception as error:
        kinds = (TypeError, KeyError, ValueError, RuntimeError, NotImplementedError)
        return next(kind for kind in kinds if isinstance(error, kind))


# Groups.


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_groups_are_copied(name):
    """torch's are the dicts that were given: a second optimizer takes the first's lr."""
    make = CATALOGUE[name]
    groups = [{"params": params((2, 2))}, {"params": params((3, 2)), "mine": [1]}]
    before = [dict(group) for group in groups]
    first, second = make(groups, lr=0.25), make(groups, lr=0.5)
    added = {"params": params((1, 1))[0]}
    first.add_param_group(added)
    assert [list(group) for group in groups] == [list(group) for group in before]
    assert list(added) == ["params"]
    assert [group["lr"] for group in first.param_groups] == [0.25] * 3
    assert [group["lr"] for group in second.param_groups] == [0.5] * 2
    assert first.param_groups[1]["mine"] is groups[1]["mine"]
    groups[0]["lr"] = 1.0
    first.param_groups[0]["params"].append(None)
    assert [group["lr"] for group in first.param_groups] == [0.25] * 3
    assert len(groups[0]["params"]) == 1


def test_a_generator_that_was_walked_before_is_refused():
    """As the group is copied, the list that it became stays with the first optimizer."""
    model = torch.nn.Linear(2, 1)
    groups = [{"params": model.parameters()}]
    descend.SGD(groups)
    with pytest.raises(ParameterError, match="group 0 are a generator that was walked before"):
        descend.SGD(groups)
    (group,) = descend.SGD([{"params": filter(None, [])}]).param_groups
    assert group["params"] == []


GROUPS = {
    "a list": lambda p: {"params": p},
    "a tuple": lambda p: {"params": tuple(p)},
    "a generator": lambda p: {"params": iter(p)},
    "one tensor": lambda p: {"params": p[0]},
    "none": lambda p: {"params": []},
    "a key of the user's": lambda p: {"params": p, "mine": [1]},
    "an option": lambda p: {"params": p, "momentum": 0.5},
    "pairs": lambda p: {"params": [("a", p[0]), ("b", p[1])]},
    "names given": lambda p: {"params": p, "param_names": ["a", "b"]},
}


@pytest.mark.parametrize("how", GROUPS)
def test_groups_have_what_torchs_have(how):
    def run(make):
        made = params((2,), (3,))
        optimizer = make([GROUPS[how](made)], lr=0.25, weight_decay=0.5)
        (group,) = optimizer.param_groups
        where = [[param is other for other in made].index(True) for param in group.pop("params")]
        return where, list(group.items())

    (mine, my_options), (theirs, their_options) = run(descend.SGD), run(torch.optim.SGD)
    assert mine == theirs
    own = {key for key, _ in my_options} - {key for key, _ in their_options}
    assert own <= {"capturable"}  # which torch's SGD lacks
    assert [(key, value) for key, value in my_options if key not in own] == their_options


def test_groups_of_another_optimizer_are_groups():
    """`Other(optimizer.param_groups)` is how people change the optimizer in mid-training."""
    named = dict(zip("ab", params((2,), (3,)), strict=True))
    first = torch.optim.SGD([{"params": list(named.items()), "lr": 0.5}], lr=0.1)
    second = descend.Adam([dict(group) for group in first.param_groups])
    (group,) = second.param_groups
    assert group["param_names"] == ["a", "b"]
    assert group["lr"] == 0.5
    second.add_param_group({"params": [("c", params((1,))[0])]})
    with pytest.raises(ParameterError, match="2 parameters and 1 name "):
        descend.SGD([{"params": params((2,), (3,)), "param_names": ["a"]}])


@pytest.mark.parametrize("name", [3, None, b"a"], ids=str)
def test_names_must_be_strings(name):
    with pytest.raises(TypeError, match="names of the parameters of group 0 must be strings"):
        descend.SGD([(name, params((2,))[0])])


def _with_a_bad_hook(make):
    optimizer = make(params((2,)))
    optimizer.register_step_pre_hook(lambda *_: 1)
    return optimizer


BAD = {
    "a tensor": lambda make: make(params((2,))[0]),
    "a number": lambda make: make(3),
    "a dict": lambda make: make({"params": params((2,))}),
    "nothing": lambda make: make([]),
    "numbers": lambda make: make([1.0]),
    "a group without params": lambda make: make([{"lr": 0.1}]),
    "a parameter after groups": lambda make: make([{"params": params((2,))}, *params((2,))]),
    "a set in a group": lambda make: make([{"params": set(params((2,)))}]),
    "None in a group": lambda make: make([{"params": None}]),
    "text in a group": lambda make: make([{"params": "ab"}]),
    "not a leaf": lambda make: make([params((2,))[0] * 2]),
    "the same in two groups": lambda make: make(2 * [{"params": params((2,))}]),
    "half named": lambda make: make([("a", params((2,))[0]), *params((2,))]),
    "named and unnamed groups": lambda make: make(
        [{"params": [("a", params((2,))[0])]}, {"params": params((2,))}]
    ),
    "a negative lr": lambda make: make(params((2,)), lr=-1.0),
    "nesterov alone": lambda make: make(params((2,)), nesterov=True),
    "fused and foreach": lambda make: make(params((2,)), fused=True, foreach=True),
    "fused and differentiable": lambda make: make(params((2,)), fused=True, differentiable=True),
    "an unknown argument": lambda make: make(params((2,)), betas=(0.9, 0.9)),
    "add a list": lambda make: make(params((2,))).add_param_group(params((2,))),
    "add no params": lambda make: make(params((2,))).add_param_group({}),
    "load other sizes": lambda make: make(params((2,))).load_state_dict(
        make(params((2,), (3,))).state_dict()
    ),
    "load other groups": lambda make: make(params((2,))).load_state_dict(
        {"state": {}, "param_groups": []}
    ),
    "load no state": lambda make: make(params((2,))).load_state_dict({"param_groups": []}),
    "load no groups": lambda make: make(params((2,))).load_state_dict({"state": {}}),
    "a hook's answer": lambda make: _with_a_bad_hook(make).step(),
}


@pytest.mark.parametrize("case", BAD)
def test_what_torch_raises_can_be_caught_as_torch_raises_it(case):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - its type is what is tested
        BAD[case](torch.optim.SGD)
    builtin = next(
        kind
        for kind in (TypeError, KeyError, ValueError, RuntimeError)
        if isinstance(caught.value, kind)
    )
    with pytest.raises(builtin) as mine:
        BAD[case](descend.SGD)
    if case != "an unknown argument":
        assert isinstance(mine.value, descend.errors.DescendError)
        assert str(mine.value)[:1] not in "\"'"  # KeyError shows its message in quotes


def test_a_set_of_parameters_is_taken_as_torch_takes_it():
    for make in BOTH:
        assert len(make(set(params((2,), (3,)))).param_groups[0]["params"]) == 2


def test_defaults_are_kept_and_printed_as_torch_prints_them():
    mine, theirs = (make(params((2,)), lr=0.5, momentum=0.25) for make in BOTH[::-1])
    own = mine.defaults.keys() - theirs.defaults.keys()
    assert {key: mine.defaults[key] for key in theirs.defaults} == theirs.defaults
    lines = [line for line in repr(mine).splitlines() if line.split(":")[0].strip() not in own]
    assert lines == repr(theirs).splitlines()


# zero_grad.


def test_zero_grad_does_what_torchs_does():
    def run(make):
        made = with_gradients((2,), (3,))
        made[1].grad = made[1].grad.clone().requires_grad_() * 2  # a gradient with a graph
        optimizer = make(made)
        grads = [param.grad for param in made]
        optimizer.zero_grad(set_to_none=False)
        first = [
            (param.grad is grad, param.grad.tolist(), param.grad.requires_grad)
            for param, grad in zip(made, grads, strict=True)
        ]
        optimizer.zero_grad()
        return first, [param.grad for param in made]

    assert run(descend.SGD) == run(torch.optim.SGD)


def labels(call):
    with torch.profiler.profile() as profile:
        call()
    return [event.key for event in profile.events() if event.key.startswith("Optimizer.")]


@pytest.mark.parametrize("name", sorted({"SGD", "AdamW"}))
def test_the_profiler_sees_torchs_labels(name):
    def run(module):
        optimizer = getattr(module, name)(with_gradients((2,)))

        def train():
            optimizer.step()
            optimizer.zero_grad()

        train()
        return labels(train)

    expected = run(torch.optim)
    assert expected == [f"Optimizer.step#{name}.step", f"Optimizer.zero_grad#{name}.zero_grad"]
    assert run(descend) == expected


def test_a_profiler_that_traces_python_finds_the_optimizer(monkeypatch):
    """It looks at `_optimizer_step_code`, which torch calls after the update, before the hooks."""
    optimizer, seen = descend.SGD(with_gradients((2,))), []
    monkeypatch.setattr(optimizer, "_optimizer_step_code", lambda: seen.append("code"))
    optimizer.register_step_post_hook(lambda *_: seen.append("hook"))
    labels(optimizer.step)
    assert seen == ["code", "hook"]


# step.


def test_the_step_has_torchs_signature():
    for make in (descend.SGD, descend.Optimizer):
        expected = inspect.signature(torch.optim.Optimizer.step).parameters
        found = inspect.signature(make.step).parameters
        assert list(found) == list(expected)
        assert [one.default for one in found.values()] == [one.default for one in expected.values()]
    assert list(inspect.signature(descend.SGD(params((2,))).step).parameters) == ["closure"]


def test_a_closure_is_called_with_gradients_enabled():
    optimizer = descend.SGD(with_gradients((2,)))
    with torch.no_grad():
        assert optimizer.step(torch.is_grad_enabled) is True
        assert optimizer.step(closure=torch.is_grad_enabled) is True
        assert not torch.is_grad_enabled()


# Subclasses of the user's own.


def plain(base):
    """What people write on torch's base class: everything by hand."""

    class Plain(base):
        def __init__(self, params, lr=required, factor=1.0):
            super().__init__(params, {"lr": lr, "factor": factor})

        @torch.no_grad()
        def step(self, closure=None):
            loss = None if closure is None else closure()
            for group in self.param_groups:
                for param in group["params"]:
                    if param.grad is not None:
                        state = self.state[param]
                        state.setdefault("step", torch.tensor(0.0)).add_(1)
                        total = state.setdefault("total", torch.zeros_like(param))
                        total.add_(param.grad, alpha=group["factor"])
                        param.sub_(total, alpha=group["lr"])
            return loss

    return Plain


def values(optimizer):
    state = optimizer.state_dict()
    return (
        [param.tolist() for group in optimizer.param_groups for param in group["params"]],
        {k: {n: v.tolist() for n, v in entry.items()} for k, entry in state["state"].items()},
        state["param_groups"],
    )


def test_a_subclass_with_nothing_but_a_step_of_its_own():
    def run(base):
        make, seen = plain(base), []
        optimizer = make(
            [{"params": with_gradients((2,)), "lr": 0.5}, {"params": params((3,)), "lr": 0.25}]
        )
        optimizer.register_step_pre_hook(lambda o, args, kwargs: seen.append((args[1:], kwargs)))
        assert optimizer.step(lambda: 7) == 7
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        optimizer.step()
        schedule.step()
        other = make([{"params": with_gradients((2,))}, {"params": params((3,))}], lr=1.0)
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # or torch aliases it (P1)
        other.step()
        optimizer.zero_grad()
        copied = copy.deepcopy(other)
        copied.param_groups[0]["params"][0].grad = torch.ones(2)
        copied.step()
        return (
            len(seen),
            labels(optimizer.step),
            *map(values, (optimizer, other, copied)),
            outcome(lambda: make(params((2,)))),
        )

    assert run(descend.Optimizer) == run(torch.optim.Optimizer)


def test_a_load_copies_the_state_of_a_subclass_without_a_rule():
    make = plain(descend.Optimizer)
    one, other = make(with_gradients((2,)), lr=1.0), make(with_gradients((2,)), lr=1.0)
    one.step()
    saved = one.state_dict()
    other.load_state_dict(saved)
    saved["state"][0]["total"].fill_(99.0)
    assert other.state[other.param_groups[0]["params"][0]]["total"].tolist() == [1.0, 1.0]


def test_neither_rule_nor_step():
    class Empty(descend.Optimizer):
        def __init__(self, params):
            super().__init__(params, {})

    optimizer = Empty(with_gradients((2,)))
    with pytest.raises(NotImplementedError, match=r"Empty has neither a rule nor a step of its"):
        optimizer.step()


def test_a_value_that_is_required():
    with pytest.raises(HyperparameterError, match="Plain: lr is not set in group 0, and has no"):
        plain(descend.Optimizer)(params((2,)))


class Kept(descend.Adam):
    """A subclass with things of its own."""

    def __init__(self, params, **options):
        super().__init__(params, **options)
        self.note = {"a": [1]}
        self._hidden = 3


@pytest.mark.parametrize(
    "way", [copy.deepcopy, copy.copy, lambda optimizer: pickle.loads(pickle.dumps(optimizer))]
)
def test_a_copy_keeps_what_a_subclass_holds(way):
    """torch keeps defaults, groups and state, and a step on the copy fails with AttributeError."""
    optimizer = Kept(with_gradients((2,)), clip_norm=0.5)
    optimizer.skipped_steps = 4
    torch.optim.lr_scheduler.StepLR(optimizer, 1)  # wraps `step`, which no pickle can hold
    optimizer.step()
    other = way(optimizer)
    assert (other.note, other._hidden) == ({"a": [1]}, 3)
    assert (other.clipping, other.skipped_steps) == (optimizer.clipping, 4)
    assert set(vars(optimizer)) - set(vars(other)) == {"step"}
    (param,) = other.param_groups[0]["params"]
    before, param.grad = param.tolist(), torch.ones(2)
    other.step()
    assert param.tolist() != before


def test_a_subclass_hears_of_a_load():
    """torch's load ends in `__setstate__`, where subclasses put options that old files lack."""

    class Later(descend.SGD):
        def __setstate__(self, state):
            super().__setstate__(state)
            for group in self.param_groups:
                group.setdefault("warmth", 5)

    optimizer = Later(params((2,)), clip_norm=1.0)
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups[0]["warmth"] == 5
    assert optimizer.clipping.norm == 1.0


def test_add_param_group_of_a_subclass_is_what_the_constructor_calls():
    class Counting(descend.SGD):
        calls = 0

        def add_param_group(self, group):
            type(self).calls += 1
            super().add_param_group({**group, "number": self.calls})

    optimizer = Counting([{"params": params((2,))}, {"params": params((3,))}])
    assert [group["number"] for group in optimizer.param_groups] == [1, 2]


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_repeated_groups_are_numbered_as_torch_numbers_them(name):
    """`param_groups.extend(...)`: a parameter has the number of its first place."""

    def numbers(make):
        optimizer = make([{"params": params((2, 2), (3, 2))}, {"params": params((1, 1))}])
        optimizer.param_groups.extend(optimizer.param_groups)
        return [group["params"] for group in optimizer.state_dict()["param_groups"]]

    assert numbers(CATALOGUE[name]) == numbers(torch.optim.SGD) == [[0, 1], [2], [0, 1], [2]]


def test_a_state_of_repeated_groups_is_loaded():
    optimizer = descend.Adam(with_gradients((2,), (3,)))
    optimizer.step()
    optimizer.param_groups.extend(optimizer.param_groups)
    saved = optimizer.state_dict()
    optimizer.load_state_dict(saved)
    for index, entry in optimizer.state_dict()["state"].items():
        assert torch.equal(entry["exp_avg"], saved["state"][index]["exp_avg"])
    assert len(optimizer.state_dict()["state"]) == 2
