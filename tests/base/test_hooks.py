"""Hooks: each is called when, with what and in the order that torch calls it; and they are kept."""

import copy
import functools
import gc
import io
import pickle
import weakref

import pytest
import torch
from torch.nn import Parameter
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

import descend
from children import python
from descend.errors import HookError

BOTH = [torch.optim.SGD, descend.SGD]


def made(make=descend.SGD):
    param = Parameter(torch.ones(2))
    param.grad = torch.ones(2)
    return make([param], lr=0.5)


def closure():
    return 7.0


CALLS = {
    "()": lambda optimizer: optimizer.step(),
    "(f)": lambda optimizer: optimizer.step(closure),
    "(closure=f)": lambda optimizer: optimizer.step(closure=closure),
    "(None)": lambda optimizer: optimizer.step(None),
    "(closure=None)": lambda optimizer: optimizer.step(closure=None),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_step_hook_sees_the_arguments_as_they_were_given(call):
    def seen_by(make):
        optimizer, seen = made(make), []

        def note(stepped, args, kwargs):
            assert stepped is optimizer
            assert args[0] is optimizer
            seen.append((args[1:], kwargs))

        optimizer.register_step_pre_hook(note)
        optimizer.register_step_post_hook(note)
        return CALLS[call](optimizer), seen

    assert seen_by(descend.SGD) == seen_by(torch.optim.SGD)


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize(
    "call", [lambda o: o.step(1, 2), lambda o: o.step(None, closure=None), lambda o: o.step(x=1)]
)
def test_a_step_with_wrong_arguments_is_a_type_error(call, hooked):
    optimizer = made()
    if hooked:
        optimizer.register_step_pre_hook(lambda *_: None)
    with pytest.raises(TypeError):
        call(optimizer)
    (param,) = optimizer.param_groups[0]["params"]
    assert param.tolist() == [1.0, 1.0]


def scenario_order(make):
    """Global and own hooks, before and after."""
    optimizer, seen = made(make), []
    (param,) = optimizer.param_groups[0]["params"]

    def note(label):
        return lambda *_: seen.append((label, param.tolist()))

    handles = [
        optimizer.register_step_pre_hook(note("own before 1")),
        optimizer.register_step_pre_hook(note("own before 2")),
        optimizer.register_step_post_hook(note("own after")),
        register_optimizer_step_pre_hook(note("any before")),
        register_optimizer_step_post_hook(note("any after")),
    ]
    optimizer.step()
    for handle in handles:
        handle.remove()
    optimizer.step()
    return seen


def scenario_arguments_replaced(make):
    """A pre-hook's answer goes to the next hook, to the step, and to the hooks after it."""
    optimizer, seen = made(make), []
    optimizer.register_step_pre_hook(lambda stepped, args, kwargs: ((stepped, closure), kwargs))
    optimizer.register_step_pre_hook(lambda _, args, kwargs: seen.append((len(args), kwargs)))
    optimizer.register_step_post_hook(lambda _, args, kwargs: seen.append((len(args), kwargs)))
    return seen, optimizer.step()


def scenario_another_optimizer(make):
    """A pre-hook may even send the step to another optimizer."""
    one, other = made(make), made(make)
    one.register_step_pre_hook(lambda stepped, args, kwargs: ((other,), kwargs))
    one.step()
    return [optimizer.param_groups[0]["params"][0].tolist() for optimizer in (one, other)]


def scenario_state_dict(make):
    """Hooks before and after state_dict, in the order of their registration; prepend."""
    optimizer, seen = made(make), []
    optimizer.register_state_dict_pre_hook(lambda o: seen.append(("before 1", o is optimizer)))
    optimizer.register_state_dict_pre_hook(lambda o: seen.append("before 2"))
    first = optimizer.register_state_dict_pre_hook(lambda o: seen.append("before 0"), prepend=True)
    optimizer.register_state_dict_post_hook(lambda o, saved: saved.update(note=[1]))
    optimizer.register_state_dict_post_hook(lambda o, saved: {**saved, "more": len(saved)})
    last = optimizer.register_state_dict_post_hook(
        lambda o, saved: seen.append(sorted(saved)), prepend=True
    )
    saved = optimizer.state_dict()
    first.remove()
    last.remove()
    optimizer.state_dict()
    return seen, saved["note"], saved["more"]


def scenario_load_state_dict(make):
    """The hook before gets a shallow copy of what was passed, and may give another."""
    optimizer, seen = made(make), []
    saved = optimizer.state_dict()
    saved["param_groups"][0]["lr"] = 0.25

    def before(o, got):
        seen.append(("before", o is optimizer, got is saved, got["state"] is saved["state"]))
        got["extra"] = 1

    def replace(o, got):
        seen.append(sorted(got))
        groups = [{**got["param_groups"][0], "lr": 0.125}]
        return {"state": got["state"], "param_groups": groups}

    optimizer.register_load_state_dict_pre_hook(replace)
    optimizer.register_load_state_dict_pre_hook(before, prepend=True)
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append(o.param_groups[0]["lr"]))
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append("first"), prepend=True)
    optimizer.load_state_dict(saved)
    return seen, sorted(saved)


@pytest.mark.parametrize(
    "scenario",
    [
        scenario_order,
        scenario_arguments_replaced,
        scenario_another_optimizer,
        scenario_state_dict,
        scenario_load_state_dict,
    ],
)
def test_as_torch_calls_them(scenario):
    expected = scenario(torch.optim.SGD)
    assert expected
    assert scenario(descend.SGD) == expected


@pytest.mark.parametrize("answer", [3, (1,), [(), {}]])
def test_a_pre_hook_that_answers_nonsense_is_named(answer):
    optimizer = made()
    optimizer.register_step_pre_hook(lambda *_: answer)
    with pytest.raises(RuntimeError, match=r"must return None or \(args, kwargs\), got"):
        optimizer.step()
    assert optimizer.param_groups[0]["params"][0].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("everywhere", [False, True])
def test_hooks_may_come_and_go_during_hooks(everywhere):
    """torch raises `OrderedDict mutated during iteration`."""
    optimizer, seen, handles = made(), [], []
    register = register_optimizer_step_pre_hook if everywhere else optimizer.register_step_pre_hook

    def once(*_):
        seen.append("once")
        handles[0].remove()
        handles.append(register(lambda *_: seen.append("later")))

    handles.append(register(once))
    try:
        optimizer.step()
        assert seen == ["once"]
        optimizer.step()
        assert seen == ["once", "later"]
    finally:
        for handle in handles:
            handle.remove()


def test_a_step_that_calls_the_step_it_extends_is_one_step():
    """Hooks and the profiler's label come once; torch calls the hooks of an extended SGD twice."""

    class Twice(descend.SGD):
        def step(self, closure=None):
            super().step()
            return super().step(closure)

    optimizer, seen = made(Twice), []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    handle = register_optimizer_step_post_hook(lambda *_: seen.append("any"))
    try:
        with torch.profiler.profile() as profile:
            assert optimizer.step(closure) == 7.0
    finally:
        handle.remove()
    assert seen == ["before", "after", "any"]
    labels = [event.key for event in profile.events() if event.key.startswith("Optimizer.step#")]
    assert labels == ["Optimizer.step#Twice.step"]
    assert optimizer.param_groups[0]["params"][0].tolist() == [0.0, 0.0]


def test_after_a_step_that_failed_hooks_are_called_again():
    optimizer, seen = made(), []
    optimizer.register_step_pre_hook(lambda *_: seen.append(1))
    with pytest.raises(ZeroDivisionError):
        optimizer.step(lambda: 1 / 0)
    optimizer.step()
    assert seen == [1, 1]


def test_a_removed_hook_is_let_go():
    optimizer = made()

    def hook(*_):
        pass

    kept = weakref.ref(hook)
    handle = optimizer.register_step_pre_hook(hook)
    optimizer.step()
    handle.remove()
    handle.remove()  # torch allows it twice
    del hook
    gc.collect()
    assert kept() is None


# P7: what becomes of them when an optimizer is copied or pickled.

noticed = []


def noted(optimizer, *_):
    noticed.append(optimizer)


class Noting:
    """A callable object; also its method is a hook."""

    def __init__(self):
        self.count = 0

    def __call__(self, *_):
        self.count += 1

    def note(self, *_):
        self.count += 1


def registered(optimizer, hook):
    """The hook in all six places."""
    return [
        optimizer.register_step_pre_hook(hook),
        optimizer.register_step_post_hook(hook),
        optimizer.register_state_dict_pre_hook(hook),
        optimizer.register_state_dict_post_hook(hook),
        optimizer.register_load_state_dict_pre_hook(hook),
        optimizer.register_load_state_dict_post_hook(hook),
    ]


def through_torch_save(optimizer):
    file = io.BytesIO()
    torch.save(optimizer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda optimizer: pickle.loads(pickle.dumps(optimizer)),
    "torch.save": through_torch_save,
}


def exercise(optimizer):
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("way", WAYS)
def test_p7_hooks_are_kept(way):
    optimizer = made()
    handles = registered(optimizer, noted)
    other = WAYS[way](optimizer)
    noticed.clear()
    exercise(other)
    assert noticed == [other] * 6
    for handle in handles:  # the original's
        handle.remove()
    exercise(optimizer)
    assert noticed == [other] * 6
    exercise(other)
    assert noticed == [other] * 12


class Counting(descend.SGD):
    """Its hook is a method of its own."""

    count = 0

    def add(self, *_):
        self.count += 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "hook",
    [Noting(), Noting().note, functools.partial(noted, 1), print],
    ids=lambda hook: str(hook)[:9],
)
def test_p7_whatever_can_be_called_is_kept(way, hook, capsys):
    optimizer = made()
    optimizer.register_step_post_hook(hook)
    other = WAYS[way](optimizer)
    (kept,) = other._optimizer_step_post_hooks.values()
    noticed.clear()
    other.step()
    noting = getattr(kept, "__self__", kept)
    assert len(noticed) + getattr(noting, "count", 0) + capsys.readouterr().out.count("SGD (") > 0


@pytest.mark.parametrize("way", WAYS)
def test_p7_a_hook_that_is_its_own_method(way):
    optimizer = made(Counting)
    optimizer.register_step_post_hook(optimizer.add)
    optimizer.step()
    other = WAYS[way](optimizer)
    other.step()
    mine, theirs = (1, 2) if way != "copy" else (2, 1)  # a shallow copy has the very same hook
    assert (optimizer.count, other.count) == (mine, theirs)


@pytest.mark.parametrize("way", ["deepcopy", "copy"])
def test_p7_a_copy_keeps_what_cannot_be_pickled(way):
    optimizer, seen = made(), []
    optimizer.register_step_pre_hook(lambda *_: seen.append(1))
    WAYS[way](optimizer).step()
    assert seen == [1]


def _local():
    def hook(*_):
        pass

    return hook


@pytest.mark.parametrize("way", ["pickle", "torch.save"])
@pytest.mark.parametrize(
    ("hook", "name"),
    [
        (lambda *_: None, "<lambda>"),
        (_local(), "_local.<locals>.hook"),
        (functools.partial(lambda *_: None), "<lambda>"),
    ],
)
def test_p7_a_hook_that_cannot_be_pickled_is_named(way, hook, name):
    optimizer = made()
    optimizer.register_step_pre_hook(noted)
    handle = optimizer.register_load_state_dict_post_hook(hook)
    with pytest.raises(HookError) as error:
        WAYS[way](optimizer)
    message = str(error.value)
    line = getattr(hook, "func", hook).__code__.co_firstlineno
    assert message == (
        f"SGD: the load_state_dict post-hook {__name__}.{name} of line {line} cannot be pickled: "
        "pickle stores a function as its module and name; define it at the top level of a module, "
        "or take it off first: handle.remove()"
    )
    handle.remove()
    WAYS[way](optimizer).step()


def test_p7_an_object_of_a_local_class_is_named():
    class Local:
        def __call__(self, *_):
            pass

    optimizer = made()
    optimizer.register_step_pre_hook(Local())
    with pytest.raises(HookError, match="Local cannot be pickled"):
        pickle.dumps(optimizer)


def test_p7_a_handle_that_is_pickled_along_still_removes_its_hook():
    optimizer = made()
    handle = optimizer.register_step_pre_hook(noted)
    other, other_handle = pickle.loads(pickle.dumps((optimizer, handle)))
    noticed.clear()
    other.step()
    assert len(noticed) == 1
    other_handle.remove()
    other.step()
    assert len(noticed) == 1


FRESH = """
import pickle, sys
optimizer = pickle.load(open(sys.argv[1], "rb"))
optimizer.register_step_pre_hook(lambda *_: print("new"))
optimizer.step()
"""


def test_p7_a_hook_registered_in_another_process_does_not_replace_it(tmp_path):
    """torch numbers handles from zero in each process."""
    optimizer = made()
    optimizer._optimizer_step_pre_hooks = type(optimizer._optimizer_step_pre_hooks)({0: print})
    file = tmp_path / "optimizer.pickle"
    file.write_bytes(pickle.dumps(optimizer))
    done = python("-c", FRESH, file)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("SGD (")
    assert lines[-1] == "new"
