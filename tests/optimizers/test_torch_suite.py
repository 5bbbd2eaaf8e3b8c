"""torch's own list of inputs for its optimizers: the good work here, the bad are refused."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from descend.errors import DescendError
from descend.optimizers import CATALOGUE
from optimizers.any_optimizer import IN_TORCH, parameters, torchs, train
from optimizers.cases import assert_close

# torch computes with tensor lrs, and keeps the counters of these two, in float32; and a step is
# less than a tenth of a parameter.
FLOAT32 = {"rtol": 1e-8, "atol": 1e-8}
TOLERANCE = {
    # Its matrix iteration is in bfloat16, whose products may be summed in another order.
    "muon": {"rtol": 1e-2, "atol": 1e-4},
    "asgd": FLOAT32,
    "nadam": FLOAT32,
}


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """`{class name: (good inputs, bad inputs)}`, as torch_inputs.py writes them."""
    file = tmp_path_factory.mktemp("torch") / "inputs.pt"
    script = Path(__file__).with_name("torch_inputs.py")
    done = subprocess.run(
        [sys.executable, str(script), str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if "ImportError" in done.stderr or "ModuleNotFoundError" in done.stderr:
        pytest.skip(f"torch's test tools cannot be imported: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr[-2000:]
    return torch.load(file, weights_only=False)


def trained(name, cls, options):
    params = parameters()
    optimizer = cls(params, **copy.deepcopy(options))
    train(name, optimizer, params, 6)
    return optimizer, params


def plain_number(value):
    """A value, with numbers in place of tensors."""
    if isinstance(value, tuple):
        return tuple(map(plain_number, value))
    return value.item() if isinstance(value, torch.Tensor) else value


def assert_same(name, options, mine, theirs):
    (optimizer, params), (expected, expected_params) = mine, theirs
    tolerance = TOLERANCE.get(name, FLOAT32 if isinstance(options.get("lr"), torch.Tensor) else {})
    for param, other in zip(params, expected_params, strict=True):
        assert_close(param, other, **tolerance)
        state, other_state = optimizer.state.get(param, {}), expected.state.get(other, {})
        for key, value in other_state.items():
            if isinstance(value, torch.Tensor) and value.shape == other.shape:
                assert_close(state[key], value, key, **tolerance)


# torch 2.14 has `maximize`. What has no maximum it climbs to infinity, where descend stays at
# finite points: they are compared before that, or, where a single line search goes there, not at
# all
SHORTER = {("lbfgs", "maximize"): {"lr": 0.01, "max_iter": 2}}
ENDLESS = {("lbfgs", "maximize_strong_wolfe")}


@pytest.mark.parametrize("name", IN_TORCH)
def test_every_input_of_torchs_list_does_what_it_does_in_torch(listed, name):
    cls = CATALOGUE[name]
    good, _ = listed[cls.__name__]
    assert len(good) > 3
    for desc, given in good:
        options = given | SHORTER.get((name, desc), {})
        theirs = trained(name, torchs(name), options)
        moved = any(
            not torch.equal(param, start)
            for param, start in zip(theirs[1], parameters(), strict=True)
        )
        assert moved, desc
        if (name, desc) in ENDLESS:
            assert not all(param.isfinite().all() for param in theirs[1])
            assert all(param.isfinite().all() for param in trained(name, cls, options)[1])
            continue
        try:
            assert_same(name, options, trained(name, cls, options), theirs)
        except Exception as error:
            raise AssertionError(f"{cls.__name__}, {desc!r} ({options}): {error}") from error


STRICTER = {
    # torch warns that this "will cause an error in future", and steps the parameter twice.
    "a param group cannot have duplicate parameters": ValueError,
}
"""Refused here, where torch warns."""

EITHER = "lr and betas may be numbers or tensors, one by one, with any flag"
COMPLEX = "complex numbers are pairs of real ones, as in the other optimizers"
ACCEPTED = {
    ("adam", "lr as Tensor doesn't work with foreach & not capturable"): EITHER,
    ("adam", "betas must be either both floats or both Tensors"): EITHER,
    (
        "adam",
        r"betas\[0\] as a Tensor is not supported for capturable=False and foreach=True",
    ): EITHER,
    ("adafactor", "does not support complex parameters"): COMPLEX,
    ("muon", "does not support complex parameters"): COMPLEX,
    ("muon", "only support 2D parameters"): "more dimensions are one matrix for each first index",
    ("sparseadam", "complex not supported"): COMPLEX,
}
"""What torch refuses and descend takes, because ... (the test then tries that it works)."""
ACCEPTED |= {("adamw", desc): why for (name, desc), why in ACCEPTED.items() if name == "adam"}


def attempt(cls, params, options, at_construction):
    """Do what torch's tests do with a bad input."""
    made = parameters(torch.float32) if params is None else params
    optimizer = cls(made, **copy.deepcopy(options))
    if not at_construction:
        for param in made:
            param.grad = torch.ones_like(param)
        optimizer.step()


@pytest.mark.parametrize("name", IN_TORCH)
def test_every_bad_input_of_torchs_list_is_refused_as_torch_refuses_it(listed, name):
    cls = CATALOGUE[name]
    _, bad = listed[cls.__name__]
    assert len(bad) > 5
    for desc, params, options, at_construction, kind in bad:
        if (name, desc) in ACCEPTED:
            continue
        expected = STRICTER.get(desc, kind)
        with pytest.raises(expected) as caught:
            attempt(cls, params, options, at_construction)
        assert isinstance(caught.value, DescendError), desc


@pytest.mark.parametrize("name", sorted({name for name, _ in ACCEPTED}))
def test_what_is_accepted_here_alone_works(listed, name):
    """As torch does with the same values in a form that it takes; or down a bowl."""
    cls = CATALOGUE[name]
    theirs = torchs(name)
    inputs = [one for one in listed[cls.__name__][1] if (name, one[0]) in ACCEPTED]
    assert {desc for desc, *_ in inputs} == {desc for other, desc in ACCEPTED if other == name}
    for desc, params, options, at_construction, kind in inputs:
        with pytest.raises(kind):
            attempt(theirs, params, options, at_construction)
        if params is None:
            numbers = {k: plain_number(value) for k, value in options.items() if k != "foreach"}
            mine = trained(name, cls, options)
            assert_same(name, options, mine, trained(name, theirs, numbers))
        else:
            (start, *_), end = down_a_bowl(name, cls, params, options)
            assert end < start / 2, desc


def down_a_bowl(name, cls, params, options):
    """The distances from 1 + 1j (or 1) before each of 200 steps, and after them."""
    optimizer = cls(params, **options, lr=0.05)
    distances = []
    for _ in range(200):
        for param in params:
            goal = 1 + 1j if param.is_complex() else 1
            grad = 2 * (param.detach() - goal)
            param.grad = grad.to_sparse(1) if name == "sparseadam" else grad
            distances.append(float((param.detach() - goal).abs().square().sum()))
        optimizer.step()
    return distances, float((params[0].detach() - goal).abs().square().sum())
