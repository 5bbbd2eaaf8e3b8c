"""`descend train --json`: one document on stdout, whatever ends the training."""

import json
import re
import signal

import pytest
from click.testing import CliRunner

from descend.checkpoint import digest, load
from descend.cli import main
from descend.format import counted

TASK = """
import os, signal, torch
from descend.training import Task
print("the task's own words")
x = torch.randn(40, 4)
y = (x.sum(1) > 0).long()
calls = [0]
def loss(outputs, targets):
    calls[0] += 1
    if calls[0] == STOP:
        for _ in range(TIMES):
            os.kill(os.getpid(), signal.SIGNAL)
    return torch.nn.functional.cross_entropy(outputs, targets) * FACTOR
def accuracy(outputs, targets):
    return (outputs.argmax(1) == targets).float().mean()
task = Task(
    model=torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2)),
    train=(x[:27], y[:27]),
    validation=(x[30:35], y[30:35]),
    test=(x[35:], y[35:]),
    loss=loss,
    metrics={"accuracy": accuracy, "nothing": lambda outputs, targets: float("nan")},
)
"""
# The calls of the loss: in each epoch 3 batches and 1 of validation; at the end 1 of the test
IN_TEST = 9


pytestmark = pytest.mark.usefixtures("own_folder")


def train(folder, *args, stop=0, kind="SIGINT", times=1, factor="1"):
    values = {"STOP": stop, "SIGNAL": kind, "TIMES": times, "FACTOR": factor}
    text = TASK
    for name, value in values.items():
        text = text.replace(name, str(value))
    (folder / "t.py").write_text(text)
    words = ["train", "t.py", "--epochs", "2", "--batch-size", "10", "--out", "run"]
    return CliRunner().invoke(main, [*words, *map(str, args)])


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


def document(result):
    return json.loads(result.stdout, parse_constant=refuse)


def without_seconds(text):
    return re.sub(r"\d+\.\d\d s$", "", text, flags=re.MULTILINE)


def test_it_holds_what_the_text_ends_with_and_the_text_goes_to_stderr(tmp_path):
    text = train(tmp_path)
    result = train(tmp_path, "--fresh", "--json")
    assert (text.exit_code, result.exit_code, text.stderr) == (0, 0, "")
    assert without_seconds(result.stderr) == without_seconds(text.stdout)
    found = document(result)
    lines = text.stdout.splitlines()
    assert lines[-1] == f"state: {found['state']}"
    assert lines[-2] == f"run folder: {found['folder']}"
    assert f"test accuracy: {100 * found['test']['accuracy']:.1f} %" in lines
    assert found["test"]["nothing"] is None  # a NaN
    logged = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert found["last"] == {key: logged[-2][key] for key in logged[-2] if key != "step"}
    assert {f"test_{name}": value for name, value in found["test"].items()} == {
        name: value for name, value in logged[-1].items() if name.startswith("test_")
    }
    assert (found["stopped"], found["why"], found["resumed_from"]) == (None, None, None)
    assert (found["epochs"], found["batches"], found["steps"]) == (2, 0, 6)
    assert (found["lr"], found["checkpoint"]) == (0.001, "run/checkpoints/step-00000006")
    assert found["seconds"] == pytest.approx(sum(one["seconds"] for one in logged[:2]), abs=1e-3)
    saved = load(found["checkpoint"])
    assert found["state"] == digest({key: saved[key] for key in ("model", "optimizer")})


def test_the_options_have_their_names_and_say_what_was_given(tmp_path):
    options = ["--schedule", "weight_decay: linear(2)", "--unit", "epoch", "--lr", "0.5"]
    found = document(train(tmp_path, *options, "--json"))
    assert found["options"] == {
        "task_file": "t.py", "data": None, "optimizer": "adamw", "lr": 0.5,
        "schedule": {"weight_decay": "linear(2)"}, "unit": "epoch", "epochs": 2,
        "batch_size": 10, "accumulate": 1, "seed": 0, "workers": 0, "device": None, "set": {},
        "keep": 3, "best": None, "every_steps": None, "out": "run", "fresh": False,
        "arg": {}, "from": None, "steps": None, "threads": None,
    }  # fmt: skip
    assert (found["lr"], found["last"]["lr"]) == (0.5, 0.5)


@pytest.mark.parametrize(("kind", "status", "word"), [
    ("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated"),
])  # fmt: skip
@pytest.mark.parametrize(("stop", "epochs", "batches"), [(1, 0, 1), (6, 1, 2), (8, 1, 3)])
def test_f2_a_stopped_one_says_where_it_stands_and_goes_on_from_there(
    tmp_path, kind, status, word, stop, epochs, batches
):
    stopped = train(tmp_path, "--json", stop=stop, kind=kind)
    found = document(stopped)
    assert (stopped.exit_code, found["stopped"]) == (status, word)
    assert stopped.stderr.endswith(f"descend: {found['why']}\n")
    done = f"{counted(epochs, 'epoch')} and {counted(batches, 'batch', 'batches')}"
    assert found["why"].startswith(f"{word} after {done}; run holds")
    assert (found["epochs"], found["batches"]) == (epochs, batches)
    assert found["steps"] == 3 * epochs + batches
    assert (found["test"], found["state"]) == (None, None)
    assert (found["last"] is None) is (epochs == 0)
    assert load(found["checkpoint"])["run"]["step"] == found["steps"]
    again = document(train(tmp_path, "--json"))
    assert again["resumed_from"] == found["checkpoint"]
    whole = document(train(tmp_path, "--json", "--fresh"))
    assert (again["state"], again["test"]) == (whole["state"], whole["test"])
    assert again["seconds"] > found["seconds"]


def test_f2_stopped_at_once_it_says_from_where_it_would_go_on(tmp_path):
    stopped = train(tmp_path, "--json", stop=6, times=2)
    found = document(stopped)
    assert (stopped.exit_code, found["stopped"], found["why"]) == (130, *["interrupted"] * 2)
    assert stopped.stderr.endswith("\ndescend: interrupted\n")
    assert (found["epochs"], found["batches"], found["steps"]) == (1, 1, 4)
    assert found["checkpoint"] == "run/checkpoints/step-00000003"
    assert document(train(tmp_path, "--json"))["resumed_from"] == found["checkpoint"]


@pytest.mark.parametrize(("kind", "status", "word"), [
    ("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated"),
])  # fmt: skip
def test_f2_stopped_while_the_test_data_are_measured_all_is_saved(tmp_path, kind, status, word):
    text = train(tmp_path, stop=IN_TEST, kind=kind)
    assert (text.exit_code, text.stderr) == (status, f"descend: {word}\n")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    stopped = train(tmp_path, "--fresh", "--json", stop=IN_TEST, kind=kind)
    found = document(stopped)
    assert (stopped.exit_code, found["stopped"]) == (status, word)
    assert (found["epochs"], found["batches"], found["test"]) == (2, 0, None)
    assert found["checkpoint"] == "run/checkpoints/step-00000006"
    assert document(train(tmp_path, "--json"))["stopped"] is None


def test_f2_stopped_at_once_before_the_first_step_it_leaves_nothing(tmp_path):
    stopped = train(tmp_path, "--json", stop=1, times=2)
    found = document(stopped)
    assert (stopped.exit_code, found["steps"], found["checkpoint"]) == (130, 0, None)
    assert not (tmp_path / "run").exists()


def test_one_that_diverged_says_so(tmp_path):
    result = train(tmp_path, "--json", factor="(float('nan') if calls[0] == 6 else 1)")
    found = document(result)
    assert (result.exit_code, found["stopped"]) == (1, "diverged")
    assert result.stderr.endswith(f"descend: error: {found['why']}\n")
    assert found["why"].startswith("the training loss became nan in batch 2 of 3 of epoch 2")
    assert (found["epochs"], found["batches"], found["state"]) == (1, 1, None)
    assert found["checkpoint"] == "run/checkpoints/step-00000003"


def test_a_complete_run_is_told_again(tmp_path):
    first, again = (document(train(tmp_path, "--json")) for _ in range(2))
    assert again["resumed_from"] == again["checkpoint"] == first["checkpoint"]
    changed = {key for key in first if first[key] != again[key]}
    assert changed == {"resumed_from"}


def test_input_that_cannot_be_used_is_no_document(tmp_path):
    result = train(tmp_path, "--json", "--optimizer", "adamm")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "did you mean adam?" in result.stderr


def test_sigterm_is_left_to_whom_it_belongs(tmp_path):
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        result = train(tmp_path, stop=IN_TEST, kind="SIGTERM")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (result.exit_code, came) == (0, [signal.SIGTERM])
