"""Files that define a task: a Task, or a function whose arguments make one."""

import sys

import pytest
import torch

from descend.errors import TaskError
from descend.training import seeded_task
from descend.training.task_file import load_task_file, task_file

HEAD = """
import functools, torch, descend
def made(model):
    x = torch.zeros(8, 4)
    y = x.sum(1, keepdim=True)
    return descend.Task(model=model, train=(x, y), validation=(x, y),
                        loss=torch.nn.functional.mse_loss)
"""
FUNCTION = (
    HEAD
    + """
def task(width: int = 3, dropout: float = 0.1, name: str = "relu", bias: bool = True,
         least: int | None = None, scale=1.5) -> descend.Task:
    return made(torch.nn.Linear(4, 1, bias))
"""
)


@pytest.fixture
def written(tmp_path):
    def write(text, name="t.py"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def weights(task):
    return [one.tolist() for one in task.model.parameters()]


def test_the_arguments_of_a_function_have_their_defaults(written):
    file = load_task_file(written(FUNCTION))
    assert file.arguments == {
        "width": 3, "dropout": 0.1, "name": "relu", "bias": True, "least": None, "scale": 1.5,
    }  # fmt: skip
    assert file.make(bias=False, least=4).model.bias is None
    assert file.check(dropout=1, scale=2) == {"dropout": 1.0, "scale": 2.0}
    assert isinstance(file.check(dropout=1)["dropout"], float)


@pytest.mark.parametrize(
    "definition",
    [
        "def build(width: int = 3) -> descend.Task: return made(torch.nn.Linear(4, 1))",
        "def build(width: int = 3) -> 'descend.Task': return made(torch.nn.Linear(4, 1))",
        "def task(width=3): return made(torch.nn.Linear(4, 1))",
        "task = lambda width=3: made(torch.nn.Linear(4, 1))",
        "@functools.cache\ndef task(width: 'int' = 3): return made(torch.nn.Linear(4, 1))",
        "task = functools.partial(lambda out, width=3: made(torch.nn.Linear(4, out)), 1)",
        # the one called task, beside those that it calls
        "def a() -> descend.Task: ...\ndef b() -> descend.Task: ...\n"
        "def task(width=3): return made(torch.nn.Linear(4, 1))",
    ],
)
def test_a_function_is_known_by_its_annotation_or_its_name(definition, written):
    file = load_task_file(written(HEAD + definition))
    assert file.arguments == {"width": 3}
    with pytest.raises(TaskError, match=r"width must be int, and is 'wide'"):
        file.make(width="wide")
    assert file.make(width=4).model.out_features == 1


def test_a_function_beside_a_task_is_how_that_was_made(written):
    build = "def build(width: int = 3) -> descend.Task: return made(torch.nn.Linear(4, 1))\n"
    assert load_task_file(written(f"{HEAD}{build}first = build()")).arguments == {}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"widht": 4}, "no argument 'widht'; did you mean width? known: width, dropout"),
        ({"width": 2.5}, "width must be int, and is 2.5"),
        ({"width": True}, "width must be int, and is True"),
        ({"bias": 1}, "bias must be bool, and is 1"),
        ({"name": 3}, "name must be str, and is 3"),
        ({"dropout": "much"}, "dropout must be float, and is 'much'"),
        ({"least": "x"}, "least must be int or None, and is 'x'"),
    ],
)
def test_an_argument_that_cannot_be_is_told(arguments, told, written):
    with pytest.raises(TaskError) as caught:
        load_task_file(written(FUNCTION)).make(**arguments)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def task(width): ...", "width has no default; give --arg width=VALUE"),
        ("def task(): return 3", "line 9: what task() returns is 3, and needed is a descend.Task"),
        ("def task(): ...", "line 9: what task() returns is None, and needed"),
        ("def task(width=0):\n    return 1 / width", "line 10: task(): ZeroDivisionError"),
        ("def task():\n    return made(3)", "line 6: task(): Task: model must be"),
        ("a = made(torch.nn.ReLU())\ndef task(): return a", "defines 2 tasks (a, task)"),
        ("def a() -> descend.Task: ...\ndef b() -> descend.Task: ...",
         "2 functions that return a task (a, b): call the one that is meant task"),
        ("", "defines no descend.Task: add one"),
    ],
)  # fmt: skip
def test_a_file_or_a_function_that_cannot_be_used_is_told_with_its_line(text, told, written):
    path = written(HEAD + "\n" + text)
    with pytest.raises(TaskError) as caught:
        load_task_file(path).make()
    assert told in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).count(str(path)) == 1


def test_a_task_has_no_arguments_and_says_how_to_give_it_some(written):
    file = load_task_file(written(HEAD + "task = made(torch.nn.ReLU())"))
    with pytest.raises(TaskError, match=r"def task\(width=...\) -> descend.Task gives it one"):
        file.make(width=3)
    with pytest.raises(TaskError, match="the digits that ship have no arguments"):
        seeded_task(None, {"width": 3}, 0)


LINEAR = "torch.nn.Linear(4, 1)"


@pytest.mark.parametrize(
    "text",
    [
        f"task = made({LINEAR})",
        f"def task(): return made({LINEAR})",
        # values that are drawn when the file is run
        f"torch.rand(3)\ntask = made({LINEAR})",
        f"start = torch.rand(1, 4)\ndef task():\n    task = made({LINEAR})\n"
        "    task.model.weight.data += start\n    return task",
        f"@functools.cache\ndef data(): return 3\ndef task(): data(); return made({LINEAR})",
    ],
)
def test_tasks_of_one_process_are_those_of_a_fresh_one(text, written):
    path = written(HEAD + text)
    fresh = {}
    for seed in (1, 2):
        torch.manual_seed(seed)
        file = load_task_file(path)
        torch.manual_seed(seed)
        fresh[seed] = weights(file.make())
    assert fresh[1] != fresh[2]
    for seed in (1, 2, 2, 1):
        assert weights(seeded_task(path, {}, seed)) == fresh[seed]


def test_a_file_is_run_once_where_nothing_hangs_on_the_seed(written):
    path = written(FUNCTION)
    first = task_file(path, 1)
    assert task_file(path, 2) is first
    path.write_text(FUNCTION + "torch.rand(1)\n")
    second = task_file(path, 1)
    assert second is not first
    assert task_file(path, 1) is second
    assert task_file(path, 2) is not second


def test_a_new_task_is_made_each_time(written):
    path = written(HEAD + f"task = made({LINEAR})")
    assert seeded_task(path, {}, 1) is not seeded_task(path, {}, 1)


def test_running_files_again_leaves_one_folder_on_the_path(written, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = written(FUNCTION)
    load_task_file(path)
    long = len(sys.path)
    load_task_file(path)
    assert len(sys.path) == long
    assert sys.path[0] == str(path.parent)


def test_a_task_that_was_made_under_another_seed_is_not_handed_out(written):
    path = written(HEAD + f"task = made({LINEAR})")
    made = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        file = load_task_file(path)
        torch.manual_seed(2)
        made.append(weights(file.make()))
    assert made[0] == made[1]
