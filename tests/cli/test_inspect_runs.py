"""`descend inspect` of runs: what each is of, and several beside each other."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

import descend
from cli.test_inspect import commands, document, go, main, rows, told  # noqa: F401
from descend.report.runs import runs_lines
from descend.report.tables import Screen
from run.small import log_of

TASK = """
import torch
from descend.training import Task, accuracy
x = torch.randn(40, 4)
y = (x.sum(1) > 0).long()
task = Task(torch.nn.Linear(4, 2), (x, y), (x, y), torch.nn.functional.cross_entropy,
            metrics={"accuracy": accuracy})
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Four runs in `runs`: of the digits, of a task, half of one, and of a script."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        Path("my_task.py").write_text(TASK)
        schedule = ("--schedule", "warmup(2) >> cosine(8)")
        accumulated = ("--batch-size", "4", "--accumulate", "2")
        for options in (
            ("--epochs", "1", "--seed", "3"),
            ("my_task.py", "--epochs", "2", *accumulated, *schedule, "--lr", "0.1"),
            ("my_task.py", "--epochs", "3", "--optimizer", "sgd", "--set", "momentum=0.9"),
        ):
            result = commands.invoke("train", *options)
            assert result.exit_code == 0, result.stderr
        go("runs/script", epochs=2)
    return folder


@pytest.fixture
def runs(trained, tmp_path, monkeypatch):
    """Copies of them, in the current folder."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


TASK_RUN = "runs/my_task-lr0.1-batch4-accumulate2-lr_warmup_2_cosine_8"


def facts(path):
    lines = [line for line in told(path).splitlines() if "  " in line.strip()]
    return {line.split()[0]: line.split(None, 1)[1] for line in reversed(lines)}


def test_a_run_tells_what_it_is_of(runs):
    found = facts(TASK_RUN)
    assert found["task"] == "my_task.py"
    assert found["schedule"] == "lr: warmup(2) >> cosine(8)"
    assert found["data"] == "40 samples, 8 to a step in 2 batches, shuffled, seed 0"
    assert found["run"] == "over"
    assert "optimizer   adamw, lr 0.1\n" in told(TASK_RUN)
    assert "optimizer   sgd, momentum=0.9\n" in told("runs/my_task-sgd-momentum_0.9")
    assert facts("runs/digits-seed3")["task"] == "the shipped digits"
    assert facts("runs/digits-seed3")["data"].endswith(" samples, 64 to a step, shuffled, seed 3")


def test_a_run_of_a_script_tells_its_objects(runs):
    found = facts("runs/script")
    assert found["objects"] == "model: Sequential, optimizer: AdamW"
    assert found["run"] == "over"
    assert "task" not in found


def test_a_run_that_is_not_over_says_how_much_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = torch.nn.Linear(1, 1)
    loader = torch.utils.data.DataLoader(list(range(6)), 2)
    for _ in descend.Run("mine", loader=loader, model=model, epochs=3, every_steps=1):
        break
    assert facts("mine")["run"] == "not over: 3 epochs asked for"
    assert document("mine")["newest"]["run"]["over"] is False
    assert document("mine")["newest"]["run"]["epochs"] == 3


def test_a_folder_of_runs_is_a_table_of_them(runs):
    text = told("runs")
    assert text.startswith("runs: a folder, 4 runs, 11 checkpoints\n")
    table = {row[0]: row[1:] for row in rows(text, "run optimizer")[:4]}
    assert table["digits-seed3"][:3] == ["adamw", "1/1", "over"]
    assert table["my_task-sgd-momentum_0.9"][:3] == ["sgd, momentum=0.9", "3/3", "over"]
    assert table["script"][:3] == ["AdamW", "2/2", "over"]
    for run in document("runs")["runs"]:
        lines = [json.loads(line) for line in log_of(run["path"]).splitlines()]
        for name, of in run["metrics"].items():
            values = [line[name] for line in lines if name in line]
            assert of == {"lowest": min(values), "highest": max(values), "last": values[-1]}
    assert "checkpoint" not in text.partition("\n\n")[2]


def test_the_best_accuracy_is_the_highest_and_the_best_loss_the_lowest(runs):
    text = told("runs")
    header = next(line for line in text.splitlines() if line.startswith("run "))
    names = header.split()[4:]
    (script,) = (row for row in rows(text, "run optimizer") if row[0] == "script")
    cells = dict(zip(names, script[4:], strict=True))
    assert cells["accuracy"] == "0.08, 0.08"
    assert cells["loss"] == "0.125, 0.125"
    assert cells["validation_loss"] == "-"
    log = Path("runs/script/metrics.jsonl")
    log.write_text(log.read_text() + '{"step": 9, "accuracy": 0.05, "loss": 3.0}\n')
    (script,) = (row for row in rows(told("runs"), "run optimizer") if row[0] == "script")
    cells = dict(zip(names, script[4:], strict=True))
    assert (cells["accuracy"], cells["loss"]) == ("0.08, 0.05", "0.125, 3")


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_the_table_of_runs_is_as_wide_as_the_terminal(runs, width):
    lines = runs_lines(document("runs")["runs"], Screen(True, width, "utf-8"))
    plain = [line.replace("\x1b[0m", "") for line in lines]
    assert sum(name in "".join(lines) for name in ("digits-seed3", "script", TASK_RUN[5:])) == 3
    if width >= 80:
        assert max(len(line.replace("\x1b[1m", "").replace("\x1b[2m", "").replace("\x1b[32m", ""))
                   for line in plain) <= width  # fmt: skip
    assert ("more metric" in " ".join(lines)) == (width < 200)


def test_odd_logs_are_read_as_far_as_they_go(runs):
    log = Path("runs/script/metrics.jsonl")
    log.write_bytes(b'[1]\n\xff\n{"loss": null, "word": "x", "on": true}\n{"loss": 2}\n{"loss": 1')
    (run,) = (run for run in document("runs")["runs"] if run["name"] == "script")
    assert run["metrics"] == {"loss": {"lowest": 2, "highest": 2, "last": 2}}
    log.unlink()
    (run,) = (run for run in document("runs")["runs"] if run["name"] == "script")
    assert run["metrics"] == {}


def test_the_log_of_a_run_is_read_only_where_it_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    go("runs/script", epochs=1)
    log = Path("runs/script/metrics.jsonl")
    log.unlink()
    os.mkfifo(log)  # hangs whoever opens it
    assert document("runs")["runs"][0]["metrics"] == {}


def test_lines_of_a_log_that_are_no_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    go("runs/script", epochs=1)
    log = Path("runs/script/metrics.jsonl")
    log.write_text("[" * 100_000 + '\n{"loss": 1%s}\n{"loss": 2}\n' % ("0" * 400))
    assert document("runs")["runs"][0]["metrics"]["loss"] == {"lowest": 2, "highest": 2, "last": 2}
    assert "2, 2" in told("runs")
