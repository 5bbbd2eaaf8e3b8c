"""`descend train` with a task's arguments, so many steps, and the options of a file."""

import json
from dataclasses import asdict

import pytest
import torch

from cli.commands import document, invoke
from descend.checkpoint import load
from descend.search.trial import Trial, train_trial

TASK = """
import torch, descend
def task(width: int = 3, dropout: float = 0.5, name: str = "relu") -> descend.Task:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 4, generator=generator)
    y = x.sum(1, keepdim=True)
    return descend.Task(
        model=torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.ReLU(),
                                  torch.nn.Dropout(dropout), torch.nn.Linear(width, 1)),
        train=(x[:30], y[:30]), validation=(x[30:40], y[30:40]), test=(x[40:], y[40:]),
        loss=torch.nn.functional.mse_loss, batch_size=7,
    )
"""  # 5 steps an epoch


@pytest.fixture(autouse=True)
def task_file(own_folder):
    (own_folder / "t.py").write_text(TASK)
    return own_folder / "t.py"


def train(*args, **more):
    return document("train", "t.py", *args, **more)


def test_arguments_make_the_task_and_the_name_of_the_folder():
    shown = invoke("train", "t.py", "--arg", "width=8", "--arg", "name=42", "--steps", "1")
    assert "t.py, width 8, name 42: 30 training" in shown.stdout
    assert "49 parameters" in shown.stdout
    assert train("--arg", "width=8", "--steps", "1")["folder"] == "runs/t-width_8"


def test_help_lists_the_arguments():
    shown = invoke("train", "t.py", "--arg", "help").stdout
    assert "width           3        int" in shown
    assert "dropout         0.5      float" in shown
    assert invoke("find-lr", "t.py", "--arg", "help").stdout == shown
    assert "none is given" in invoke("train", "--arg", "help").stdout


@pytest.mark.parametrize("command", ["train", "find-lr"])
@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["t.py", "--arg", "widht=3"], "no argument 'widht'; did you mean width?"),
        (["t.py", "--arg", "width=wide"], "width must be int, and is 'wide'"),
        (["t.py", "--arg", "width"], "--arg width: it must be NAME=VALUE"),
        (["t.py", "--arg", "width=1", "--arg", "width=2"], "width has a value already"),
        (["--arg", "width=1"], "--arg width: the digits that ship have no arguments"),
    ],
)
def test_an_argument_that_cannot_be_is_refused(command, given, told):
    result = invoke(command, *given)
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_run_with_other_arguments_does_not_go_on():
    train("--arg", "dropout=0.1", "--steps", "1", "--out", "r")
    result = invoke("train", "t.py", "--arg", "dropout=0.2", "--steps", "2", "--out", "r")
    assert "--arg was dropout=0.1 and is dropout=0.2" in result.stderr


def test_the_validation_data_are_measured_at_the_last_step():
    shown = invoke("train", "t.py", "--steps", "7").stdout
    assert "epoch 2/2" in shown
    assert "measured after 7 steps, where the training ends: within epoch 2" in shown
    assert "goes on" not in shown
    again = invoke("train", "t.py", "--steps", "7").stdout
    assert "is complete with 7 steps: more --steps go on" in again
    whole = invoke("train", "t.py", "--steps", "10", "--fresh").stdout
    assert "measured after" not in whole


def test_more_steps_go_on_to_the_same_bits():
    once = train("--steps", "13", "--out", "once")
    for steps in ("3", "5", "7", "13"):
        parts = train("--steps", steps, "--out", "parts")
        assert (parts["steps"], parts["epochs"], parts["batches"]) == (
            int(steps), int(steps) // 5, int(steps) % 5
        )  # fmt: skip
    assert parts["state"] == once["state"]
    assert parts["last"]["validation_loss"] == once["last"]["validation_loss"]
    assert parts["last"]["epoch"] == once["last"]["epoch"] == 3
    ended = train("--epochs", "3", "--out", "parts")
    assert (ended["epochs"], ended["steps"]) == (3, 15)
    assert ended["state"] == train("--epochs", "3", "--out", "epochs")["state"]


def test_steps_count_windows_of_several_batches():
    assert train("--steps", "4", "--accumulate", "2")["steps"] == 4
    assert train("--steps", "4", "--accumulate", "2")["epochs"] == 1


def test_steps_and_epochs_exclude_each_other():
    result = invoke("train", "t.py", "--steps", "3", "--epochs", "2")
    assert "--steps 3 and --epochs 2 exclude each other" in result.stderr


TRIAL = Trial(
    task="t.py",
    arguments={"width": 5, "name": "7"},
    optimizer="sgd",
    lr=0.1,
    settings={"momentum": 0.9},
    schedules={"lr": "warmup(3) >> linear(9)", "momentum": "linear(12, 1, 0.9)"},
    steps=12,
    seed=3,
)
OPTIONS = [
    "--arg", "width=5", "--arg", "name=7", "--optimizer", "sgd", "--lr", "0.1",
    "--set", "momentum=0.9", "--schedule", "warmup(3) >> linear(9)",
    "--schedule", "momentum:linear(12, 1, 0.9)", "--steps", "12", "--seed", "3", "--threads", "1",
]  # fmt: skip


@pytest.mark.parametrize("draws", [False, True])
def test_a_command_ends_with_the_state_of_its_trial(draws, task_file, own_folder):
    if draws:  # values at the top of the file, of the global generators
        task_file.write_text(TASK.replace("def task", "torch.rand(3)\ndef task"))
    (own_folder / "best.json").write_text(json.dumps(asdict(TRIAL)))
    torch.set_num_threads(1)
    record = train_trial(TRIAL, own_folder / "trial")
    assert not record.error
    typed = train(*OPTIONS)
    read = document("train", "--from", "best.json", "--threads", "1", "--out", "read")
    assert typed["last"]["validation_loss"] == record.value
    ends = [load(path) for path in ("trial", typed["folder"], "read")]
    assert typed["state"] == read["state"]
    for one in ends[1:]:
        assert [*one["model"]] == [*ends[0]["model"]]
        for name, value in one["model"].items():
            assert torch.equal(value, ends[0]["model"][name])
    assert read["options"]["lr"] == 0.1
    assert read["options"]["arg"] == {"width": "5", "name": "7"}


def test_options_beside_a_file_win(own_folder):
    (own_folder / "best.json").write_text(json.dumps(asdict(TRIAL)))
    given = ["--from", "best.json", "--lr", "0.02", "--set", "nesterov=true", "--arg", "width=6"]
    options = document("train", *given)["options"]
    assert options["lr"] == 0.02
    assert options["set"] == {"momentum": 0.9, "nesterov": True}
    assert options["arg"] == {"width": "6", "name": "7"}
    assert (options["steps"], options["seed"], options["optimizer"]) == (12, 3, "sgd")
    ended = document("train", "--from", "best.json", "--epochs", "3")
    assert (ended["epochs"], ended["options"]["steps"]) == (3, None)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "it holds no JSON"),
        ("[1]", "it must hold an object"),
        ('{"lrr": 1}', "there is no 'lrr'; did you mean lr? known: task, optimizer"),
        ('{"lr": -1}', "lr must be a finite number above 0, or None, got -1"),
        ('{"steps": 1.5}', "steps must be a whole number of at least 1, got 1.5"),
        ('{"seed": -1}', "seed must be"),
        ('{"optimizer": 3}', "optimizer must be a text, got 3"),
        ('{"settings": [1]}', "settings must be an object of values by name, got [1]"),
        ('{"schedules": {"lr": "rise("}}', "the schedule of lr: "),
        ('{"schedules": {"lr": 3}}', "the schedule of lr: "),
        (None, "it cannot be read"),
    ],
)
def test_a_file_of_options_that_cannot_be_used_is_told(content, told, own_folder):
    if content is not None:
        (own_folder / "best.json").write_text(content)
    result = invoke("train", "--from", "best.json")
    assert result.exit_code == 2
    assert result.stderr.startswith("descend: error: --from best.json: ")
    assert told in result.stderr


def test_a_unit_cannot_count_the_steps_of_a_file(own_folder):
    (own_folder / "best.json").write_text(json.dumps(asdict(TRIAL)))
    result = invoke("train", "--from", "best.json", "--unit", "epoch")
    assert "--unit epoch: the times of the schedules in best.json are steps" in result.stderr
