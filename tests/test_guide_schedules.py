"""What docs/schedules.md says: its code runs, its numbers come out, its table is complete."""

import ast
import inspect
import math
import re
import shlex
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import descend
from descend.cli import main
from descend.schedules import Schedule
from descend.schedules.schedule import SHAPES

DOCUMENT = Path(__file__).parents[1] / "docs" / "schedules.md"
TEXT = DOCUMENT.read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = re.findall(r"^descend (plot .*)$", TEXT, re.MULTILINE)


def run(code, names):
    """Run a block statement by statement, and compare what a comment says it gives.

    Returns:
        How many comments were compared.
    """
    lines = code.splitlines()
    compared = 0
    for statement in ast.parse(code).body:
        source = ast.unparse(statement)
        comment = lines[statement.end_lineno - 1][statement.end_col_offset :].partition("# ")[2]
        if not isinstance(statement, ast.Expr) or not comment:
            exec(compile(source, str(DOCUMENT), "exec"), names)
            continue
        got = eval(compile(source, str(DOCUMENT), "eval"), names)
        if not comment.endswith(("tenth", "once", "`until`")):
            assert repr(got) == comment, source
            compared += 1
    return compared


@pytest.fixture(scope="module")
def ran():
    """The blocks: how many comments of each were compared, and its names."""
    torch.manual_seed(0)
    before = dict(SHAPES)
    try:
        found = []
        for block in BLOCKS:
            names = {}
            found.append((run(block, names), names))
        yield found
    finally:
        SHAPES.clear()
        SHAPES.update(before)


def test_the_code_gives_what_it_says(ran):
    assert sum(compared for compared, _ in ran) >= 17
    names = {name: value for _, names in ran for name, value in names.items()}
    assert names["schedule"] == descend.schedules.parse("warmup(500) >> cosine(9500)")
    assert names["ema"].n_averaged == 3


def test_the_first_example_is_what_the_text_says(ran):
    names = ran[0][1]
    assert names["scheduler"].get_last_lr() == [pytest.approx(3 / 500 * 3e-4)]
    lrs = [lr for (lr,) in names["scheduler"].preview(10_001)["lr"]]
    assert (lrs[0], max(lrs), lrs[500], lrs[10_000]) == (0.0, 3e-4, 3e-4, 0.0)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_run(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, shlex.split(command.partition("#")[0]))
    assert result.exit_code == 0, result.output
    assert (tmp_path / "lr.png").exists() == ("lr.png" in command)


def test_the_training_command_names_an_expression_that_is_read():
    (expression,) = re.findall(r'descend train --schedule "([^"]*)"', TEXT)
    assert descend.schedules.parse(expression).length == 420


ROWS = re.findall(r"^\| `(\w+)\((.*?)\)` \| (.*?) \| (.*?) \|$", TEXT, re.MULTILINE)
ARGUMENTS = {
    "linear": {"steps": 7},
    "cosine": {"steps": 7, "end": 0.25},
    "polynomial": {"steps": 7, "power": 3},
    "exponential": {"gamma": 0.5, "every": 3},
    "step": {"every": 3},
    "inverse_sqrt": {"steps": 3},
    "constant": {"steps": 5},
    "warmup": {"steps": 7, "start": 0.25},
    "wsd": {"rise": 3, "stable": 4, "decay": 5},
    "function": {"of": math.sqrt, "steps": 9, "unit": 2},
    "one_cycle": {"steps": 9},
    "untuned_linear": {},
    "untuned_exponential": {"beta2": 0.9},
}


def test_the_table_has_every_shape_with_its_arguments_and_defaults():
    listed = {name: arguments for name, arguments, _, _ in ROWS}
    combinators = {"value", "until", "repeat", "delay", "clip", "join", "multiply"}
    meant = {
        name: make
        for name, make in SHAPES.items()
        if str(make.__module__).startswith("descend.schedules") and name not in combinators
    }
    assert set(listed) == set(meant)
    assert len(listed) == len(ROWS)
    for name, make in meant.items():
        words = [
            parameter.name
            if parameter.default is parameter.empty
            else f"{parameter.name}={parameter.default!r}"
            for parameter in inspect.signature(make).parameters.values()
        ]
        assert listed[name] == ", ".join(words)


@pytest.mark.parametrize(("name", "given"), ARGUMENTS.items())
def test_the_formulas_of_the_table_are_what_the_shapes_give(name, given):
    ((formula, end),) = ((factor, ends) for row, _, factor, ends in ROWS if row == name)
    make = getattr(descend.schedules, name)
    schedule = make(**given)
    words = {key: getattr(math, key) for key in ("sqrt", "cos", "pi", "exp", "floor")} | {
        "min": min,
        **vars(descend.schedules),
        **schedule.arguments,
    }
    if end != "never":
        assert eval(end.strip("`"), words) == schedule.length
    code = re.fullmatch(r"`([^`]*)`(?:[;,].*)?", formula)
    if code is None:
        assert name == "one_cycle"
        return
    for time in range(int(min(schedule.length, 12)) + 1):
        wanted = eval(code.group(1).replace("^", "**"), {**words, "t": time})
        if isinstance(wanted, Schedule):
            assert wanted == make(**given) or wanted.values(13) == schedule.values(13)
        else:
            assert schedule(time) == pytest.approx(wanted, rel=1e-14, abs=1e-16)


def test_every_row_of_the_pains_is_said():
    differences = DOCUMENT.with_name("differences.md").read_text("utf-8")
    table = differences.partition("## Schedulers")[2].partition("##")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 11  # P20 to P30, and more
    assert all(line.count("|") == 5 for line in rows)


def test_links_and_names_in_the_text_exist():
    for name in re.findall(r"`descend\.([\w.]+)`", TEXT):
        found = descend
        for part in name.split("."):
            found = getattr(found, part)
    for name in re.findall(r"`(\w+Warmup)`", TEXT):
        assert hasattr(descend.warmup, name)
    text = TEXT.partition("## A shape of your own")[2].partition("##")[0]
    for name in re.findall(r"`(Time\w*|Times|Factor|Positive|Share|Level)`", text):
        assert hasattr(descend.schedules.arguments, name)
