"""`descend find-lr` as a user meets it: its chart, its picture, its document, its errors."""

import re
from functools import partial

import pytest
import torch

from cli import commands
from cli.tasks import TASK, interrupted
from descend.training import digits_task

invoke, document = partial(commands.invoke, "find-lr"), partial(commands.document, "find-lr")
pytestmark = pytest.mark.usefixtures("own_folder")

LINE = TASK.replace("randn(40, 4)", "randn(400, 4)").replace("[:30]", "[:360]").replace(
    "[30:]", "[360:]"
)  # fmt: skip
LEVEL = LINE.replace(
    "torch.nn.functional.cross_entropy", "lambda outputs, y: 0 * outputs.sum() + 1"
)
SHORT = ("line.py", "--steps", 40, "--min-lr", "1e-5", "--batch-size", 20)


@pytest.fixture(autouse=True)
def files(own_folder):
    for name, text in {"line": LINE, "level": LEVEL, "small": TASK}.items():
        (own_folder / f"{name}.py").write_text(text)


def test_h2_a_chart_a_picture_a_suggestion_and_the_command_to_go_on_with(own_folder):
    result = invoke(*SHORT, "--optimizer", "sgd", "--set", "momentum=0.9", "--out", "lr.png")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "loss"
    assert re.search(r"^ *lr +1e-05 .* 0\.001 .* 0\.1 ", result.stdout, re.MULTILINE)
    assert re.search(r"^lr \S+, between \S+ and \S+$", result.stdout, re.MULTILINE)
    assert re.search(r"^short runs: lr \S+: loss \S+, lr", result.stdout, re.MULTILINE)
    assert lines[-2] == "picture: lr.png"
    assert (own_folder / "lr.png").read_bytes().startswith(b"\x89PNG")
    found = re.fullmatch(
        r"go on with: descend train line\.py --optimizer sgd --set momentum=0\.9 --batch-size 20 "
        r"--lr (\S+)",
        lines[-1],
    )
    assert 1e-4 < float(found[1]) < 5
    before = {path.name for path in own_folder.iterdir()}
    assert before == {"line.py", "level.py", "small.py", "lr.png"}
    command = lines[-1].removeprefix("go on with: descend train ").split()
    assert commands.invoke("train", *command, "--epochs", 1).exit_code == 0


def test_the_digits_are_found_a_learning_rate_that_trains_them():
    found = document()
    assert found["range"][0] <= found["suggestion"] <= found["range"][1]
    assert 3e-4 < found["suggestion"] < 0.03
    assert found["command"] == f"descend train --lr {found['suggestion']:.3g}"
    assert len(found["tried"]) == 3
    assert len(found["orders"]) == 3
    assert found["notes"] == []
    assert found["why_none"] is None
    assert len(found["results"]["lr"]) == len(found["results"]["loss"]) > 50
    assert sum(one.numel() for one in digits_task().model.parameters()) > 10_000


def test_the_same_comes_out_twice_and_follows_the_seed():
    first, again, other = (
        document(*SHORT, "--seed", seed)["results"] for seed in (0, 0, 1)
    )  # fmt: skip
    assert first == again != other


def test_a_model_is_built_as_descend_train_builds_it(own_folder):
    torch.manual_seed(0)
    expected = torch.randn(400, 4)[0]
    (own_folder / "seen.py").write_text(LINE + "\nprint(float(x[0, 0]))\n")
    result = invoke("seen.py", *SHORT[1:])
    assert result.stdout.splitlines()[0] == str(float(expected[0]))


def test_where_nothing_falls_it_says_so():
    result = invoke("level.py", *SHORT[1:])
    assert result.exit_code == 1
    assert "go on with" not in result.stdout
    assert re.fullmatch(
        r"descend: error: no suggestion: the loss falls at no lr from 1e-05 to 10: .*\n",
        result.stderr,
    )
    found = document("level.py", *SHORT[1:], status=1)
    assert found["suggestion"] is found["range"] is found["command"] is None
    assert "falls at no lr" in found["why_none"]


def test_few_batches_are_warned_of():
    result = invoke("small.py", "--steps", 40)
    assert re.search(r"^descend: warning: lr_find: an epoch has 1 batch,", result.stderr)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--steps", 5), "--steps 5: it must be a whole number of at least 20"),
        (("--min-lr", 1, "--max-lr", 0.5), "--min-lr 1 must be less than --max-lr 0.5"),
        (("--min-lr", 0), "--min-lr 0: it must be"),
        (("--out", "lr.gif"), "end its name in .png or .svg"),
        (("--optimizer", "adamv"), "did you mean adam"),
        (("--set", "momentum=0.9"), "adamw has no such hyperparameter"),
        (("missing.py",), "descend: error: missing.py: there is no such file"),
    ],
)
def test_bad_inputs(arguments, words):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_error_in_the_file_is_told_with_its_line(own_folder):
    (own_folder / "broken.py").write_text(
        LINE.replace("torch.nn.functional.cross_entropy", "lambda outputs, y: outputs.nonsense")
    )
    result = invoke("broken.py")
    assert result.exit_code == 2
    assert re.search(r"broken\.py, line \d+: AttributeError", result.stderr)


def test_ctrl_c_ends_it(own_folder):
    (own_folder / "stopped.py").write_text(interrupted(LINE, 1))
    result = invoke("stopped.py", *SHORT[1:])
    assert result.exit_code == 130
    assert result.stderr == "descend: interrupted\n"


def test_the_settings_are_listed():
    assert "betas" in invoke("--set", "help").stdout
