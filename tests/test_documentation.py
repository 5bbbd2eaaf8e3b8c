"""A public name without its documentation fails here."""

import doctest
import inspect

import pytest
import torch

import descend

PUBLIC = {
    name: value
    for name, value in vars(descend).items()
    if not name.startswith("_") and not inspect.ismodule(value)
}
CLASSES = {n: v for n, v in PUBLIC.items() if inspect.isclass(v)}
OPTIMIZERS = descend.optimizers.CATALOGUE


def test_every_public_name_is_exported_on_purpose():
    assert {"SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Optimizer", "Task"} <= set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_say_what_they_are_take_and_raise(name):
    text = inspect.getdoc(PUBLIC[name]) or ""
    first = text.split("\n", 1)[0]
    assert first.endswith("."), f"{name} has no one-line description"
    if inspect.isclass(PUBLIC[name]) and issubclass(PUBLIC[name], BaseException):
        return
    for section in ("Args:", "Example:", "Source:"):
        assert section in text, f"{name} has no {section}"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_show_their_equation_and_document_every_argument(name):
    cls = OPTIMIZERS[name]
    text = inspect.getdoc(cls)
    assert ".. math::" in text
    assert "Raises:" in text
    assert "{hyperparameters}" not in text
    for argument in inspect.signature(cls.__init__).parameters:
        if argument != "self":
            assert f"{argument}: " in text, f"{name} does not document {argument}"


@pytest.mark.parametrize("name", CLASSES)
def test_public_methods_are_documented(name):
    for method, value in vars(CLASSES[name]).items():
        if inspect.isfunction(value) and not method.startswith("_"):
            assert inspect.getdoc(value), f"{name}.{method} has no documentation"


@pytest.mark.parametrize("name", PUBLIC)
def test_examples_run(name):
    torch.manual_seed(0)
    finder = doctest.DocTestFinder(recurse=False)
    runner = doctest.DocTestRunner()
    for test in finder.find(PUBLIC[name], name):
        result = runner.run(test)
        assert result.failed == 0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_scalars_come_in_the_order_of_the_update(name):
    rule = OPTIMIZERS[name].rule
    options = OPTIMIZERS[name]([torch.zeros(1)]).param_groups[0]
    assert tuple(rule.scalars(options, 3)) == rule.scalar_names


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_signature_is_torchs_then_descends_own(name):
    cls = OPTIMIZERS[name]
    ours = inspect.signature(cls.__init__).parameters
    theirs = inspect.signature(getattr(torch.optim, cls.__name__).__init__).parameters
    own = {"clip_norm", "clip_value", "skip_nonfinite"}
    assert [p for p in ours if p not in own] == list(theirs)
    for argument, parameter in theirs.items():
        assert ours[argument].default == parameter.default or argument in ("self", "params")
        assert ours[argument].kind == parameter.kind
