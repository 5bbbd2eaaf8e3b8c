"""Misspelt arguments and names: what may have been meant is in the error."""

import importlib
import inspect

import pytest
import torch

import descend
from descend.errors import ArgumentError, DescendError
from descend.spelling import meant, spelled

MODULES = [
    "descend",
    *(
        f"descend.{name}"
        for name in [*descend.__all__, "grouping"]
        if name == "grouping" or inspect.ismodule(getattr(descend, name))
    ),
]


def public(module):
    """The names of a module that are its own to give, without its submodules."""
    found = importlib.import_module(module)
    names = found.__all__ if module == "descend" else vars(found)
    return [n for n in names if n[0] != "_" and not inspect.ismodule(getattr(found, n))]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_what_may_have_been_meant(module):
    found = importlib.import_module(module)
    names = public(module)
    for name in names:
        wrong = name[:-2] + name[-1] if len(name) > 4 else ""
        if wrong in names or not wrong:
            continue
        with pytest.raises(AttributeError, match="did you mean ") as caught:
            getattr(found, wrong)
        assert str(caught.value).startswith(f"module {module!r} has no attribute {wrong!r}; did")
    with pytest.raises(AttributeError) as caught:
        found.zzzzzzzz  # noqa: B018 - the access is the test
    assert str(caught.value) == f"module {module!r} has no attribute 'zzzzzzzz'"
    assert not hasattr(found, "__wrapped__")


RECORDS = {"Choice", "Difference", "Epoch", "Pair", "Restored", "Schedule", "Switch"}
"""Records of few fields, which descend itself makes or users write in a line."""

CALLED = {
    f"{module}.{name}": value
    for module in MODULES
    for name in public(module)
    for value in [getattr(importlib.import_module(module), name)]
    if callable(value)
    and getattr(value, "__module__", "").startswith("descend")
    and name not in RECORDS
    and not (isinstance(value, type) and issubclass(value, (BaseException, Warning)))
}


def keywords(value):
    """The arguments that a misspelling of can be told."""
    parameters = inspect.signature(value).parameters.values()
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return []
    return [
        one.name
        for one in parameters
        if one.kind in (one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD)
        and one.default is not one.empty
        and len(one.name) > 4
    ]


@pytest.mark.parametrize("name", [name for name, value in CALLED.items() if keywords(value)])
def test_a_misspelt_argument_is_told(name):
    for keyword in keywords(CALLED[name]):
        wrong = f"{keyword[:-2]}{keyword[-1]}"
        with pytest.raises(DescendError) as caught:
            CALLED[name](**{wrong: None})
        assert f"did you mean {keyword}?" in str(caught.value)


def test_an_abbreviation_is_told():
    params = [torch.nn.Parameter(torch.ones(2))]
    for wrong, right in [("learning_rate", "lr"), ("wd", "weight_decay"), ("beta1", "betas")]:
        with pytest.raises(ArgumentError, match=f"there is no '{wrong}'; did you mean {right}?"):
            descend.AdamW(params, **{wrong: 0.1})
    with pytest.raises(TypeError, match=r"AdamW: there is no 'nothing_like_it' \(known: params,"):
        descend.AdamW(params, nothing_like_it=1)


def test_a_subclass_is_checked_by_its_own_arguments():
    class Mine(descend.SGD):
        def __init__(self, params, speed=1.0):
            super().__init__(params, lr=speed)

    class Any(descend.SGD):
        def __init__(self, params, **options):
            super().__init__(params, **options)

    params = [torch.nn.Parameter(torch.ones(2))]
    assert Mine(params, speed=0.5).param_groups[0]["lr"] == 0.5
    with pytest.raises(ArgumentError, match="Mine: there is no 'sped'; did you mean speed"):
        Mine(params, sped=0.5)
    with pytest.raises(ArgumentError, match="SGD: there is no 'momntum'; did you mean momentum"):
        Any(params, momntum=0.5)


def test_what_is_alike():
    assert meant("adamw", ["AdamW", "Adam"]) == "AdamW"
    assert meant("lr", ["learning_rate"]) == "learning_rate"
    assert meant("x", ["y"]) == meant("zzz", []) == ""


def test_a_function_that_takes_all_names_is_left_alone():
    def takes_all(**names):
        return names

    assert spelled(takes_all) is takes_all
