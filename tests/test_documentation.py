"""A public name without its documentation fails here."""

import ast
import doctest
import inspect
import re
from pathlib import Path

import pytest
import torch

import descend
from descend.engine.rule import Rule

PUBLIC = {
    name: getattr(descend, name)
    for name in descend.__all__
    if not inspect.ismodule(getattr(descend, name))
}
PUBLIC |= {f"checkpoint.{n}": v for n, v in vars(descend.checkpoint).items()
           if n[0] != "_" and (inspect.isfunction(v) or inspect.isclass(v))}  # fmt: skip
CLASSES = {n: v for n, v in PUBLIC.items() if inspect.isclass(v)}
OPTIMIZERS = descend.optimizers.CATALOGUE

# What `descend.rules` gives to those who write a rule of their own.
FOR_RULES = {
    name: value
    for name, value in vars(descend.rules).items()
    if name[0] != "_" and (inspect.isclass(value) or inspect.isfunction(value))
}
DECLARATIONS = {
    name: value for name, value in vars(descend.rules).items() if hasattr(value, "__metadata__")
}

# Arguments that an optimizer of descend may have where torch's has not; `adamw...` is Muon's.
OWN = {
    "adamw",
    "adamw_betas",
    "adamw_eps",
    "adamw_lr",
    "cautious",
    "cautious_weight_decay",
    "clip_norm",
    "clip_value",
    "skip_nonfinite",
    "maximize",
    "normalize",
    "normalize_beta",
    "orthogonalize",
    "weight_decay",
    "foreach",
    "capturable",
    "differentiable",
}


def test_every_public_name_is_exported_on_purpose():
    assert {"SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Optimizer", "Task"} <= set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_say_what_they_are_take_and_raise(name):
    text = inspect.getdoc(PUBLIC[name]) or ""
    first = text.split("\n", 1)[0]
    assert first.endswith("."), f"{name} has no one-line description"
    if inspect.isclass(PUBLIC[name]) and issubclass(PUBLIC[name], BaseException):
        return
    takes = {*inspect.signature(PUBLIC[name]).parameters} - {"args", "kwargs"}
    for section in ("Args:" if takes else "", "Example:", "Source:"):
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


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_help_begins_with_a_plain_signature(name):
    shown = str(inspect.signature(OPTIMIZERS[name]))
    assert shown.startswith("(params, lr=")
    assert len(shown) < 600
    arguments = inspect.signature(OPTIMIZERS[name]).parameters
    declared = inspect.signature(OPTIMIZERS[name].__init__).parameters
    assert list(arguments) == list(declared)[1:]
    assert all(one.default == declared[key].default for key, one in arguments.items())


@pytest.mark.parametrize("name", CLASSES)
def test_public_methods_are_documented(name):
    for method, value in vars(CLASSES[name]).items():
        if inspect.isfunction(value) and not method.startswith("_"):
            assert inspect.getdoc(value), f"{name}.{method} has no documentation"


def what_checkpoints_are_of():
    """A model, and checkpoints of it in the folder where the examples run."""
    model = torch.nn.Linear(2, 2)
    state = {"model": model.state_dict(), "epoch": 3}
    for path in (Path("checkpoint"), Path("runs/mine/checkpoints/step-00000042")):
        path.parent.mkdir(parents=True, exist_ok=True)
        descend.checkpoint.save(path, state)
    descend.checkpoint.save_torch("old.pth", state)
    return {"model": model, "load": descend.checkpoint.load}


@pytest.mark.parametrize("name", PUBLIC)
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    given = what_checkpoints_are_of() if name.startswith("checkpoint.") else {}
    finder = doctest.DocTestFinder(recurse=False)
    runner = doctest.DocTestRunner()
    for test in finder.find(PUBLIC[name], name, extraglobs=given):
        result = runner.run(test)
        assert result.failed == 0


@pytest.mark.parametrize("name", FOR_RULES)
def test_what_rule_writers_use_is_documented(name):
    value = FOR_RULES[name]
    text = inspect.getdoc(value) or ""
    assert text.split("\n", 1)[0].endswith("."), f"{name} has no one-line description"
    if inspect.isclass(value) and issubclass(value, BaseException):
        return
    assert "Example:" in text, f"{name} has no example"
    if inspect.isclass(value):
        for argument in inspect.signature(value).parameters:
            assert f"{argument}: " in text, f"{name} does not document {argument}"


@pytest.mark.parametrize("name", DECLARATIONS)
def test_declarations_have_a_range_and_a_meaning(name):
    allowed, meaning = DECLARATIONS[name].__metadata__
    assert str(allowed)
    assert len(meaning.split()) > 3


@pytest.mark.parametrize("name", ["descend.rules", *FOR_RULES])
def test_examples_for_rule_writers_run(name):
    found = doctest.DocTestFinder(recurse=False).find(FOR_RULES.get(name, descend.rules), name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    results = [runner.run(test) for test in found]
    assert sum(result.failed for result in results) == 0
    if name != "RuleError":
        assert sum(result.attempted for result in results) > 0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_scalars_come_in_the_order_of_the_update(name):
    rule = getattr(OPTIMIZERS[name], "rule", None)
    if not isinstance(rule, Rule):
        pytest.skip("it has no scalars")
    optimizer = OPTIMIZERS[name]([torch.zeros(1)])
    options = optimizer.options_of(optimizer.param_groups[0])
    starts = (rule.start(counter, options) for counter in rule.counters)
    names = rule.measure.names if rule.measure is not None else ()
    sums = dict.fromkeys(names, torch.zeros(1, dtype=torch.float64))
    found = rule.numbers(options, (3, *starts), sums)
    assert tuple(found) == (*rule.scalar_names, *rule.counters)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_signature_is_torchs_then_descends_own(name):
    cls = OPTIMIZERS[name]
    ours = inspect.signature(cls.__init__).parameters
    if not hasattr(torch.optim, cls.__name__):
        pytest.skip("torch has no such optimizer")
    theirs = inspect.signature(getattr(torch.optim, cls.__name__).__init__).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    for argument, parameter in theirs.items():
        assert ours[argument].default == parameter.default or argument in ("self", "params")
        assert ours[argument].kind == parameter.kind
    for argument, parameter in ours.items():
        assert argument in theirs or (argument in OWN and parameter.kind is parameter.KEYWORD_ONLY)


HERE = Path(__file__).parent


def codes_of_tests():
    """The codes (`P43`) that the names of the tests begin with, each with such a test."""
    codes = {}
    for path in HERE.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            begins = re.match(r"test_((?:[a-z]\d+_)+)", getattr(node, "name", None) or "")
            for code in begins[1].upper().strip("_").split("_") if begins else ():
                codes.setdefault(code, f"{path.relative_to(HERE)}: {node.name}")
    return codes


def test_every_code_in_the_name_of_a_test_has_its_row_and_every_row_its_test():
    tests = codes_of_tests()
    rows = re.findall(r"^\| ([A-Z]\d+) \|", (HERE / "README.md").read_text("utf-8"), re.MULTILINE)
    assert len(rows) == len(set(rows)), "tests/README.md has a code twice"
    without_row = {code: test for code, test in tests.items() if code not in rows}
    assert not without_row, "tests/README.md has no row for these codes"
    without_test = [code for code in rows if code not in tests]
    assert not without_test, "no test is named after these rows of tests/README.md"


SOURCES = {
    str(path.relative_to(Path(descend.__file__).parent)): ast.parse(path.read_text("utf-8"))
    for path in sorted(Path(descend.__file__).parent.rglob("*.py"))
}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
LONGEST = 70


def docstrings(tree):
    """All strings that stand alone: of the module, of classes and functions, under attributes."""
    for node in ast.walk(tree):
        value = node.value if isinstance(node, ast.Expr) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield node.lineno, inspect.cleandoc(value.value)


def test_a_docstring_and_its_returns_begin_with_a_noun_or_a_verb_not_with_what():
    vague = [
        f"{path}:{line}: {text.splitlines()[0]}"
        for path, tree in SOURCES.items()
        for line, text in docstrings(tree)
        if re.search(r"\A\s*What\b|^(?:Returns|Yields):\n\s*What\b", text, re.MULTILINE)
    ]
    assert not vague, "\n".join(vague)


def test_every_package_has_its_folder_of_tests_by_the_same_name():
    packages = {Path(path).parts[0] for path in SOURCES if "/" in path}
    without = [name for name in packages if not any((HERE / name).glob("test_*.py"))]
    assert not without, "see tests/README.md"


def test_no_two_source_files_share_a_name():
    names = [Path(path).name for path in SOURCES]
    twice = {name for name in names if names.count(name) > 1} - {"__init__.py", "__main__.py"}
    assert not twice


def length(function):
    """The lines from `def` to the end, without those of the docstring."""
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        documentation = function.body[0]
        lines -= documentation.end_lineno - documentation.lineno + 1
    return lines


def test_no_function_is_longer_than_a_reader_can_see_at_once():
    long = [
        f"{path}:{node.lineno}: {node.name} has {length(node)} lines, without its docstring"
        for path, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, FUNCTIONS) and length(node) > LONGEST
    ]
    assert not long, "\n".join(long)
