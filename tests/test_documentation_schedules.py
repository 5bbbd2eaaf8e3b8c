"""A public name of schedules and schedulers without its documentation fails here."""

import doctest
import importlib
import inspect
import re

import pytest
import torch

import descend

MODULES = {
    name: importlib.import_module(f"descend.{name}")
    for name in ("schedules", "lr_scheduler", "warmup", "swa_utils")
}
PUBLIC = {
    f"{module}.{name}": value
    for module, home in MODULES.items()
    for name, value in vars(home).items()
    if not name.startswith("_")
    and (inspect.isclass(value) or inspect.isfunction(value))
    and value.__module__.startswith(home.__name__)
}
CLASSES = {name: value for name, value in PUBLIC.items() if inspect.isclass(value)}
METHODS = {
    f"{name}.{method}": function
    for name, cls in CLASSES.items()
    for method, function in vars(cls).items()
    if inspect.isfunction(function) and not method.startswith("_")
}
PROPERTIES = {
    f"{name}.{entry}": value
    for name, cls in CLASSES.items()
    for entry, value in vars(cls).items()
    if isinstance(value, property) and not entry.startswith("_")
}

# What cannot be called in a way that is refused.
NEVER_RAISES = {
    "warmup.rho_fn",
    "warmup.rho_inf_fn",
    "swa_utils.get_swa_avg_fn",
    "swa_utils.get_swa_multi_avg_fn",
}


def parameters(value):
    """The names of a function's or a constructor's parameters, as its documentation has them."""
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return [
        stars.get(parameter.kind, "") + name
        for name, parameter in inspect.signature(value).parameters.items()
        if name != "self" and (parameter.kind not in stars or name not in ("args", "kwargs"))
    ]


def section(text, title):
    """The lines of a section."""
    found = re.search(rf"^{title}:(.*?)(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    return found.group(1) if found else ""


def assert_arguments_are_documented(name, value, text):
    documented = re.findall(r"^    (\*{0,2}\w+): \S", section(text, "Args"), re.MULTILINE)
    assert documented == parameters(value), f"{name}: what it takes and what it documents differ"


def test_the_public_names_are_those_that_are_meant():
    torchs = {
        name
        for name, value in vars(torch.optim.lr_scheduler).items()
        if inspect.isclass(value)
        and issubclass(value, torch.optim.lr_scheduler.LRScheduler)
        and name[0] != "_"
    }
    assert {f"lr_scheduler.{name}" for name in torchs} <= set(PUBLIC)
    assert {f"swa_utils.{name}" for name in ("AveragedModel", "SWALR", "update_bn")} <= set(PUBLIC)
    theirs = ("LinearWarmup", "ExponentialWarmup", "UntunedLinearWarmup", "RAdamWarmup")
    assert {f"warmup.{name}" for name in theirs} <= set(PUBLIC)
    assert {"schedules.Schedule", "schedules.cosine", "lr_scheduler.Scheduler"} <= set(PUBLIC)
    for name, module in MODULES.items():
        assert getattr(descend, name) is module


@pytest.mark.parametrize("name", MODULES)
def test_a_module_says_what_it_is_for(name):
    text = MODULES[name].__doc__
    assert text.split("\n", 1)[0].endswith(".")
    assert f"from descend.{name} import" in text or f"from descend import {name}" in text


@pytest.mark.parametrize("name", PUBLIC)
def test_help_begins_with_a_short_signature(name):
    assert len(str(inspect.signature(PUBLIC[name]))) < 600


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_says_what_it_is_takes_and_raises(name):
    value = PUBLIC[name]
    text = inspect.getdoc(value) or ""
    first = text.split("\n", 1)[0]
    assert first.endswith("."), f"{name} has no one-line description"
    assert len(first) <= 100
    if parameters(value):
        assert_arguments_are_documented(name, value, text)
    if name not in NEVER_RAISES:
        assert re.search(r"^ +\w+(Error|Warning): ", section(text, "Raises"), re.MULTILINE), (
            f"{name} does not say what it raises"
        )
    assert re.search(r"^Source:\s+\S", text, re.MULTILINE), f"{name} has no Source"
    assert ">>> " in section(text, "Example"), f"{name} has no Example"


@pytest.mark.parametrize("name", PUBLIC)
def test_examples_run(name):
    torch.manual_seed(0)
    module = name.split(".")[0]
    globs = {key.split(".")[1]: value for key, value in PUBLIC.items() if key.startswith(module)}
    runner = doctest.DocTestRunner()
    results = [
        runner.run(test)
        for test in doctest.DocTestFinder(recurse=inspect.isclass(PUBLIC[name])).find(
            PUBLIC[name], name, globs=dict(globs)
        )
    ]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) > 0


@pytest.mark.parametrize("name", METHODS)
def test_a_public_method_says_what_it_does_and_takes(name):
    text = inspect.getdoc(METHODS[name]) or ""
    first = text.split("\n\n", 1)[0]
    assert first.endswith((".", ":")), f"{name} has no description"
    # Where a base class documents the same arguments, they are not said twice.
    if parameters(METHODS[name]) and not _inherits_its_arguments(name):
        assert_arguments_are_documented(name, METHODS[name], text)


def _inherits_its_arguments(name):
    owner, _, method = name.rpartition(".")
    return any(
        parameters(vars(base)[method]) == parameters(METHODS[name])
        for base in PUBLIC[owner].__mro__[1:]
        if method in vars(base) and base.__module__.startswith("descend.")
    )


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_public_property_says_what_it_is(name):
    assert (inspect.getdoc(PROPERTIES[name]) or "").split("\n", 1)[0].endswith(".")


SHAPES = [
    name
    for name, value in PUBLIC.items()
    if name.startswith("schedules.")
    and inspect.isfunction(value)
    and name not in ("schedules.parse", "schedules.mistakes")
]


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_shows_its_definition(name):
    text = inspect.getdoc(PUBLIC[name])
    head = text[: text.index("Args:")]
    assert re.search(r"^    \S", head, re.MULTILINE), f"{name} has no formula"
