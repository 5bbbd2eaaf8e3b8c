"""Every optimizer has all its places: CONTRIBUTING.md, "A new optimizer"."""

from pathlib import Path

import pytest
import torch

import descend
from descend.optimizers import CATALOGUE
from optimizers.cases import OPTIONS
from oracles import ORACLES
from readme_tables import described, optimizer_rows

ROOT = Path(__file__).parents[2]
BASES = ("(Optimizer", "(Adam", "(ScheduleFree")
"""What ends the first line of an optimizer's class."""
OWN_TESTS = {"adafactor", "lbfgs", "muon", "soap", "sparseadam"}
"""Not elementwise, or of sparse gradients: each has a file of tests of its own."""


def missing(name):
    """What an optimizer lacks, with the place where it belongs."""
    cls = CATALOGUE[name]
    kind = cls.__name__
    if kind not in descend.__all__:
        yield f"src/descend/__init__.pyi: from descend.optimizers import {kind} as {kind}"
    if name not in ORACLES and name != "lbfgs":
        yield f"tests/oracles/{name}.py: start(param, **hyper) and step(param, grad, state, t, ...)"
    if name in OWN_TESTS:
        file = ROOT / "tests" / "optimizers" / f"test_{name}.py"
        if not (file.exists() or file.with_name("test_sparse_adam.py").exists()):
            yield f"tests/optimizers/test_{name}.py"
    elif name not in OPTIONS:
        yield (
            f"tests/optimizers/cases.py: OPTIONS[{name!r}], each option alone and in company; or, "
            "of what is not elementwise, its name in OWN_TESTS and a file of its own tests"
        )
    if not optimizer_rows().get(f"`{kind}`", [""])[-1]:
        yield (
            f"README.md: a row of `{kind}` under Optimizers, whose last cell says when to take it; "
            "python benchmarks/readme_tables.py --optimizers prints the others"
        )


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_an_optimizer_has_all_its_places(name):
    lacking = list(missing(name))
    assert not lacking, "\n".join([f"{CATALOGUE[name].__name__} lacks:", *lacking])


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_the_readme_tells_what_an_optimizer_keeps(name):
    kind = CATALOGUE[name]
    shown = optimizer_rows()[f"`{kind.__name__}`"]
    assert shown[:4] == described(name)
    if name in OPTIONS:  # elementwise: the same for a single matrix, after a step
        param = torch.nn.Parameter(torch.ones(4, 2))
        param.grad = torch.ones(4, 2)
        optimizer = kind([param])
        optimizer.step()
        kept = {key: value for key, value in optimizer.state[param].items() if value.ndim}
        assert shown[2] == (", ".join(f"`{key}`" for key in kept) or "none")
        assert shown[3] == f"{sum(value.nbytes for value in kept.values()) / param.numel():g}"


def test_every_file_is_in_the_catalogue():
    folder = ROOT / "src" / "descend" / "optimizers"
    defined = {
        kind
        for file in folder.rglob("*.py")
        for line in file.read_text("utf-8").splitlines()
        if line.startswith("class ") and line.rstrip(":)").endswith(BASES)
        for kind in [line.split("(")[0].removeprefix("class ")]
    }
    known = {cls.__name__ for cls in CATALOGUE.values()}
    for kind in sorted(defined - known - {base.removeprefix("(") for base in BASES}):
        pytest.fail(
            f"{kind} lacks:\nsrc/descend/optimizers/__init__.py: its import as {kind}; the "
            "catalogue is made of these imports"
        )


def test_nothing_is_tried_that_is_not_there():
    assert set(OPTIONS) <= set(CATALOGUE)
    assert set(ORACLES) <= set(CATALOGUE)
    assert set(CATALOGUE) >= OWN_TESTS
