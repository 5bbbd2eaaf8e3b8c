"""`descend watch`: the curves of runs in the terminal."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import descend
from cli import commands
from descend.report.run_charts import run_status
from descend.report.run_log import RunLog

HOME = Path(descend.__file__).parents[1]


def write(folder, steps, **curves):
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "metrics.jsonl", "a") as file:
        for step in steps:
            line = {"step": step, "epoch": 1 + step // 10}
            line |= {name: curve(step) for name, curve in curves.items()}
            file.write(json.dumps(line) + "\n")


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    write(tmp_path / "runs" / "a", range(1, 41), val_loss=lambda s: 1 / s, val_acc=lambda s: s / 50)
    write(tmp_path / "runs" / "b", range(1, 21), val_loss=lambda s: 2 / s)
    return tmp_path / "runs"


def test_runs_are_drawn_over_each_other_with_their_best_and_last_values(runs):
    result = commands.invoke("watch", "runs/a", "runs/b", "--once")
    assert (result.exit_code, result.stderr) == (0, "")
    text = result.stdout
    assert text.index("val_loss") < text.index("val_acc")
    assert "* a: 1 at step 1, 0.025 at step 40" in text
    assert "o b: 2 at step 1, 0.1 at step 20" in text
    assert "a: step 40, epoch 5; stopped; last line" in text
    assert "val_loss best 0.025 last 0.025; val_acc best 0.8 last 0.8" in text
    assert "b: no finite number" in text  # it has no val_acc


def test_a_metric_can_be_chosen_and_a_misspelt_one_is_named(runs):
    text = commands.invoke("watch", "runs/a", "--metric", "val_acc").stdout
    assert "val_acc" in text
    assert "val_loss" not in text
    result = commands.invoke("watch", "runs/a", "--metric", "val_ac")
    assert result.exit_code == 2
    assert "no run has it; did you mean val_acc? logged: val_loss, val_acc" in result.stderr
    assert commands.invoke("watch", "runs").exit_code == 2


def test_it_draws_anew_as_a_run_grows_until_ctrl_c(runs):
    main, terminal = pty.openpty()
    environment = {
        **os.environ,
        "PYTHONPATH": str(HOME),
        "TERM": "xterm",
        "COLUMNS": "100",
        "LINES": "50",
    }
    command = [sys.executable, "-m", "descend", "watch", "runs/a"]
    process = subprocess.Popen(
        command, cwd=runs.parent, env=environment, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    seen = ""

    def wait_for(text):
        nonlocal seen
        end = time.monotonic() + 60
        while text not in seen:
            assert time.monotonic() < end, seen
            if select.select([main], [], [], 0.1)[0]:
                seen += os.read(main, 1 << 16).decode()

    wait_for("step 40, epoch 5")
    write(runs / "a", range(41, 61), val_loss=lambda s: 1 / s)
    wait_for("step 60, epoch 7")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    os.close(main)


def test_a_log_that_was_cut_and_has_grown_again_is_read_anew(runs):
    log = RunLog(runs / "a")
    log.read()
    lines = (runs / "a" / "metrics.jsonl").read_text().splitlines(keepends=True)
    again = [line.replace('"val_loss": ', '"val_loss": 1') for line in lines[5:]]
    (runs / "a" / "metrics.jsonl").write_text("".join(lines[:5] + again) + '{"step": 4')
    assert log.read()
    steps = log.curves["val_loss"].steps
    assert len(steps) == len(set(steps))
    assert not log.read()  # half a line is none


def test_a_run_that_is_held_is_training_and_one_that_stopped_early_says_why(runs, tmp_path):
    code = "import sys, time; from pathlib import Path; from descend.run.lock import lock; "
    code += "held = lock(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", code, runs / "a"], stdout=subprocess.PIPE
    ) as holder:
        try:
            holder.stdout.readline()
            assert run_status(runs / "a") == "training"
        finally:
            holder.kill()
    assert run_status(runs / "a") == "stopped"

    class Still(descend.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch):
            self.log("loss", 1.0)
            return self.layer(batch).sum()

        def configure_optimizers(self):
            return descend.SGD(self.parameters(), lr=0.1)

    stopping = descend.EarlyStopping("loss", patience=1)
    trainer = descend.Trainer(
        folder=tmp_path / "early", max_epochs=9, callbacks=stopping, enable_progress_bar=False
    )
    trainer.fit(Still(), torch.utils.data.DataLoader(torch.ones(4, 1)))
    assert run_status(tmp_path / "early").startswith("over: loss did not improve")
