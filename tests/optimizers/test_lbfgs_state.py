"""The memory of L-BFGS: exchanged with torch, copied, loaded, refused."""

import copy
import pickle

import pytest
import torch
from torch.nn import Parameter

from descend import LBFGS, SGD, Adam
from descend.errors import StateError
from optimizers.cases import tensor
from optimizers.minimizing import SEARCHES, START, Run, assert_state_is, rosenbrock


@SEARCHES
@pytest.mark.parametrize("first", [LBFGS, torch.optim.LBFGS])
@pytest.mark.parametrize("second", [LBFGS, torch.optim.LBFGS])
def test_training_goes_on_identically_on_the_other_side(first, second, search):
    options = {"lr": 0.3, "history_size": 4, "max_iter": 4, "line_search_fn": search}
    one = Run(first, rosenbrock, **options).steps(3)
    other = Run(second, rosenbrock, one.param.detach())
    other.optimizer.load_state_dict(copy.deepcopy(one.optimizer.state_dict()))
    one.losses.clear()
    assert one.steps(5).losses == other.steps(5).losses
    assert torch.equal(one.param, other.param)
    both = {type(run.optimizer): dict(run.state) for run in (one, other)}
    if LBFGS in both:
        assert_state_is(both[LBFGS], both.get(torch.optim.LBFGS, both[LBFGS]))


def test_a_longer_memory_is_cut_to_the_history_size():
    one = Run(LBFGS, rosenbrock, lr=0.3, history_size=10).steps(3)
    assert len(one.state["ro"]) == 10
    one.optimizer.param_groups[0].update(history_size=3, max_iter=1)
    one.steps(1)
    assert [len(one.state[key]) for key in ("old_dirs", "old_stps", "ro")] == [3, 3, 3]


@pytest.mark.parametrize("way", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_and_pickles(way):
    run = Run(LBFGS, rosenbrock, lr=0.3, max_iter=4).steps(3)
    run.param.grad = None
    other = Run(LBFGS, rosenbrock)
    other.optimizer = way(run.optimizer)
    (other.param,) = other.optimizer.param_groups[0]["params"]
    run.losses.clear()
    assert run.param is not other.param
    assert run.steps(3).losses == other.steps(3).losses


def test_p1_loading_copies():
    run = Run(LBFGS, rosenbrock, lr=0.3).steps(2)
    saved = run.optimizer.state_dict()
    kept = copy.deepcopy(saved["state"][0])
    other = Run(LBFGS, rosenbrock)
    other.optimizer.load_state_dict(saved)
    for vector in (other.state["d"], *other.state["old_dirs"], *other.state["ro"]):
        vector.fill_(7)
    assert_state_is(saved["state"][0], kept)


def test_a_state_dict_is_not_changed_by_later_steps():
    """Every iteration makes vectors of its own."""
    run = Run(LBFGS, rosenbrock, lr=0.3, max_iter=3).steps(2)
    saved = dict(run.optimizer.state_dict()["state"][0])
    kept = copy.deepcopy(saved)
    run.steps(2)
    assert_state_is(saved, kept)


SIZES = {"a": (2, 3), "b": (1,), "c": (4,), "d": (0, 3)}


def _named(names):
    """Parameters of different sizes, by name."""
    return [(name, Parameter(tensor(ord(name), SIZES[name]))) for name in names]


def _train(optimizer, named, steps):
    def closure():
        optimizer.zero_grad()
        by_name = dict(named)
        loss = rosenbrock(torch.cat([by_name[name].flatten() for name in sorted(by_name)]))
        loss.backward()
        return loss

    return [optimizer.step(closure).item() for _ in range(steps)]


@pytest.mark.parametrize("strict", [True, False])
def test_p4_parameters_in_another_order_are_matched_by_name(strict):
    one, other = _named("abcd"), _named("cdba")
    saved, optimizer = LBFGS(one, lr=0.1), LBFGS(other)
    _train(saved, one, 2)
    for name, param in other:
        param.data.copy_(dict(one)[name])
    optimizer.load_state_dict(saved.state_dict(), strict=strict)
    assert list(optimizer.state) == [other[0][1]]
    state, loaded = saved.state[one[0][1]], optimizer.state[other[0][1]]
    assert list(loaded) == list(state)
    for key in ("old_dirs", "old_stps"):
        for vector, moved in zip(state[key], loaded[key], strict=True):
            assert torch.equal(moved, torch.cat([vector[7:], vector[6:7], vector[:6]]))
    # The dot products add up in another order.
    assert _train(saved, one, 3) == pytest.approx(_train(optimizer, other, 3), rel=1e-7)


def test_a_memory_of_other_parameters_is_refused_and_changes_nothing():
    run = Run(LBFGS, rosenbrock, lr=0.3).steps(2)
    longer = Run(LBFGS, rosenbrock, torch.linspace(-1, 1, 11).double(), lr=0.3).steps(2)
    before = copy.deepcopy(dict(run.state))
    with pytest.raises(StateError, match=r"of 11 numbers.*parameters have 10"):
        run.optimizer.load_state_dict(longer.optimizer.state_dict())
    assert_state_is(dict(run.state), before)
    report = run.optimizer.load_state_dict(longer.optimizer.state_dict(), strict=False)
    assert report.missed
    assert_state_is(dict(run.state), before)


def test_a_load_that_is_not_strict_takes_a_memory_only_of_the_same_parameters():
    saved = LBFGS(one := _named("abc"), lr=0.1)
    _train(saved, one, 2)
    optimizer = LBFGS(other := _named("ab"), lr=0.1)
    _train(optimizer, other, 2)
    before = copy.deepcopy(dict(optimizer.state[other[0][1]]))
    report = optimizer.load_state_dict(saved.state_dict(), strict=False)
    assert report.matched == ()
    assert list(report.missed) == ["a", "b"]
    assert set(report.unused) == {"a", "b", "c"}
    assert_state_is(dict(optimizer.state[other[0][1]]), before)


def _changed(**changes):
    return lambda state: {**state, **changes}


def _without(name):
    return lambda state: {key: value for key, value in state.items() if key != name}


DAMAGES = {
    "a number missing": (_without("prev_loss"), "lacks 'prev_loss'"),
    "a vector missing": (_without("d"), "lacks 'd'"),
    "no count": (_changed(n_iter="many"), "'n_iter'.*'many'.*whole number"),
    "half a count": (_changed(n_iter=1.5), r"'n_iter'.*1\.5.*whole number"),
    "a count below 0": (_changed(n_iter=-1), "'n_iter'.*-1.*at least 0"),
    "no number": (_changed(t="far"), "'t'.*'far'.*a number"),
    "no vector": (_changed(d=3.0), r"'d'.*3\.0.*a vector"),
    "a matrix": (_changed(d=torch.ones(2, 5)), r"'d'.*\(2, 5\).*a vector"),
    "no list": (_changed(old_dirs=3), "'old_dirs'.*a list of vectors"),
    "one pair too few": (lambda state: {**state, "ro": state["ro"][1:]}, "differ in length"),
    "too short": (lambda state: {**state, "d": state["d"][1:]}, "of 9 numbers"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_memory_is_refused_and_changes_nothing(damage):
    run = Run(LBFGS, rosenbrock, lr=0.3).steps(2)
    before = copy.deepcopy(run.optimizer.state_dict())
    change, message = DAMAGES[damage]
    with pytest.raises(StateError, match=message):
        run.optimizer.load_state_dict({**before, "state": {0: change(before["state"][0])}})
    assert_state_is(dict(run.state), before["state"][0])


@pytest.mark.parametrize(
    ("other", "options"),
    [(torch.optim.Adam, {}), (torch.optim.SGD, {"momentum": 0.9})],
)
def test_p5_states_of_other_algorithms_are_refused_both_ways(other, options):
    run = Run(LBFGS, rosenbrock, lr=0.3).steps(2)
    theirs = Run(other, rosenbrock, lr=0.001, **options).steps(2)
    before = copy.deepcopy(run.optimizer.state_dict())
    with pytest.raises(StateError, match="LBFGS"):
        run.optimizer.load_state_dict(theirs.optimizer.state_dict())
    # Also where the groups do not tell.
    entry = theirs.optimizer.state_dict()["state"]
    with pytest.raises(StateError, match="LBFGS keeps 'func_evals'"):
        run.optimizer.load_state_dict({**before, "state": entry})
    assert_state_is(dict(run.state), before["state"][0])
    for make in (Adam, SGD):
        with pytest.raises(StateError, match=make.__name__):
            make([Parameter(START.clone())]).load_state_dict(before)


@pytest.mark.parametrize("first", [LBFGS, torch.optim.LBFGS])
@pytest.mark.parametrize("second", [LBFGS, torch.optim.LBFGS])
def test_a_state_before_any_iteration_comes_and_goes(first, second):
    run = Run(first, rosenbrock, torch.ones(10).double()).steps(1)  # the lowest point
    assert run.state["n_iter"] == 0
    other = Run(second, rosenbrock)
    other.optimizer.load_state_dict(run.optimizer.state_dict())
    assert other.steps(2).losses == Run(second, rosenbrock).steps(2).losses
    assert other.state["func_evals"] == 1 + len(other.losses)


def test_parameters_put_into_a_group_by_hand_are_noticed():
    run = Run(LBFGS, rosenbrock, lr=0.3).steps(2)
    run.optimizer.param_groups[0]["params"].append(Parameter(torch.ones(2)))
    with pytest.raises(StateError, match="add_param_group"):
        run.optimizer.step(lambda: pytest.fail("nothing must be evaluated"))


def test_a_checkpoint_of_ours_holds_a_memory(tmp_path):
    from descend.checkpoint import load, save

    run = Run(LBFGS, rosenbrock, lr=0.3, max_iter=4).steps(3)
    save(tmp_path / "c", run.optimizer.state_dict())
    other = Run(LBFGS, rosenbrock, run.param.detach())
    other.optimizer.load_state_dict(load(tmp_path / "c"))
    run.losses.clear()
    assert run.steps(3).losses == other.steps(3).losses
