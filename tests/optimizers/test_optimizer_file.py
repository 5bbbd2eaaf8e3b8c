"""An optimizer in a file of the user's: loaded, tried out, or refused with its place."""

import sys

import pytest
import torch

from descend.errors import OptimizerFileError
from descend.optimizers import load_optimizer

RULE = """\
from descend.engine.hyperparameters import LearningRate
from descend.engine.rule import Rule
from descend.optimizers import SGD, Optimizer


def update(param, grad, *, lr: float):
    return (param - lr * grad,)


def scalars(options, step):
    return {"lr": options["lr"]}


class MyRule(Optimizer):
    rule = Rule(update, scalars, counts_steps=False)

    def __init__(self, params, lr: LearningRate = 0.5):
        super().__init__(params, {"lr": lr})
"""

PATH = "my_file.py"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)


def write(text, tmp_path, name=PATH):
    (tmp_path / name).write_text(text)


def test_the_class_steps_in_a_kernel(tmp_path):
    write(RULE, tmp_path)
    kind = load_optimizer("my_file.py:MyRule")
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)
    optimizer = kind([parameter])
    optimizer.step()
    assert parameter.tolist() == [0.5] * 3
    assert [call["backend"] for call in optimizer.explain()] == ["cpu"]
    assert not (tmp_path / "__pycache__").exists()


def test_two_files_of_one_name_in_two_folders(tmp_path):
    for folder, lr in (("a", "0.5"), ("b", "0.25")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / PATH).write_text(RULE.replace("0.5", lr))
    kinds = [load_optimizer(f"{folder}/my_file.py:MyRule") for folder in "ab"]
    for kind, left in zip(kinds, (0.5, 0.75), strict=True):
        parameter = torch.nn.Parameter(torch.ones(1))
        parameter.grad = torch.ones(1)
        kind([parameter]).step()
        assert parameter.item() == left


def test_a_class_that_the_file_imports_is_as_good(tmp_path):
    write("from descend import Adam as Mine", tmp_path)
    assert load_optimizer("my_file.py:Mine").__name__ == "Adam"


OWN = "it defines MyRule"
NONE = "it defines none"
NEEDED = "needed is a descend.Optimizer"
NEEDS_LR = RULE.replace("lr: LearningRate = 0.5", "lr: LearningRate, rho")
REFUSES = RULE.replace("= 0.5", "= -0.5")
NO_SCALAR = RULE.replace('options["lr"]', "1 / 0")
FAILS = RULE + "\n    def step(self, closure=None):\n        return 1 / 0\n"
TANH = RULE.replace("    return", "    grad = torch.tanh(grad)\n    return", 1)
BAD = {
    "no word of a rule": ("import torch\n" + TANH, "my_file.py:MyRule",
        "my_file.py:8: in update(), `torch.tanh(grad)` cannot be compiled: "),
    "a misspelt name in a rule": (RULE.replace("(param -", "(missing -"), "my_file.py:MyRule",
        "my_file.py:7: in update(), `missing` cannot be compiled: "),
    "no such file": (None, "my_file.py:MyRule",
        "my_file.py: there is no such file; give a Python file that defines a descend.Optimizer"),
    "no Python file": (None, "my_file:MyRule",
        "my_file is not a Python file: its name must end in .py; it must define a "
        "descend.Optimizer"),
    "no class given": (RULE, "my_file.py",
        f"my_file.py: which name? {NEEDED}; give my_file.py:MyRule ({OWN})"),
    "no class there": ("x = 1", "my_file.py",
        f"my_file.py: which name? {NEEDED}; give my_file.py:NAME ({NONE})"),
    "misspelt": (RULE, "my_file.py:MyRul",
        f"my_file.py defines no 'MyRul'; did you mean MyRule? {NEEDED} ({OWN})"),
    "another name": ("x = 1", "my_file.py:MyRule",
        f"my_file.py defines no 'MyRule'; {NEEDED} ({NONE})"),
    "a number": (RULE + "\n\nMine = 3\n", "my_file.py:Mine",
        f"my_file.py, line 21: Mine is 3, and {NEEDED} ({OWN})"),
    "a function": (RULE, "my_file.py:update",
        f"my_file.py, line 6: update is of type function, and {NEEDED} ({OWN})"),
    "another class": (RULE + "\n\nclass Other:\n    MyRule = 1\n", "my_file.py:Other",
        f"my_file.py, line 21: Other is the class Other, and {NEEDED} ({OWN})"),
    "torch's class": ("from torch.optim import SGD", "my_file.py:SGD",
        f"my_file.py, line 1: SGD is the class SGD, and {NEEDED} ({NONE})"),
    "syntax error": ("x = 1\ny = = 2\n", "my_file.py:MyRule",
        "my_file.py, line 2: SyntaxError: invalid syntax"),
    "the file fails": ("x = 1\n1 / 0\n", "my_file.py:MyRule",
        "my_file.py, line 2: ZeroDivisionError: division by zero"),
    "the file exits": ("import sys\nsys.exit(0)", "my_file.py:MyRule",
        "my_file.py, line 2: the file ended the program (sys.exit)"),
    "arguments": (NEEDS_LR, "my_file.py:MyRule",
        "my_file.py, line 14: MyRule cannot be made without lr and rho: every argument of its "
        "constructor but params needs a default"),
    "the constructor fails": (REFUSES, "my_file.py:MyRule",
        "my_file.py, line 18: MyRule cannot be made with its defaults: MyRule: lr=-0.5 is not "
        "allowed: lr must be a finite number of at least 0, or a tensor of one such number; to "
        "climb the gradient, pass maximize=True"),
    "the scalars fail": (NO_SCALAR, "my_file.py:MyRule",
        "my_file.py, line 11: MyRule cannot be made with its defaults: ZeroDivisionError: division "
        "by zero"),
    "the step fails": (FAILS, "my_file.py:MyRule",
        "my_file.py, line 21: MyRule fails in its first step: ZeroDivisionError: division by zero"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_refused_with_its_place(tmp_path, name):
    text, spec, message = BAD[name]
    if text is not None:
        write(text, tmp_path)
    with pytest.raises(OptimizerFileError) as caught:
        load_optimizer(spec)
    if message.endswith(": "):  # the rest is the engine's
        assert str(caught.value).startswith(message)
    else:
        assert str(caught.value) == message
