"""Scripts as users write them, run unchanged, and again."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import descend

USERS = Path(__file__).parents[1] / "users"


@pytest.fixture
def run(tmp_path):
    def run(script):
        shutil.copy(USERS / script, tmp_path)
        environment = {
            **os.environ, "PYTHONPATH": str(Path(descend.__file__).parents[1]),
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_h1_a_module_a_data_module_callbacks_and_tensorboard(run, tmp_path):
    text = run("digits_module.py")
    assert text.index("Training is started!") < text.index("epoch  1/30") < text.index("is done.")
    assert re.search(r"epoch  1/30  val_loss [\d.]+  val_acc [\d.]+  train_loss_epoch", text)
    accuracy = float(re.search(r"test_acc ([\d.]+)", text)[1])
    assert accuracy > 0.95
    assert re.search(r"predicted \[(\d, ){19}\d\]", text)
    reason = re.search(r"^stopped in epoch \d+: (val_loss did not improve on .*)$", text, re.M)[1]
    assert [*(tmp_path / "runs" / "digits_module" / "tensorboard").glob("events.*")]
    again = run("digits_module.py")
    assert "runs/digits_module is over after" in again
    assert reason in again
    assert "Training is started!" not in again
    assert f"test_acc {accuracy:g}" in again
    assert again.splitlines()[-1] == text.splitlines()[-1]


def test_a_gan_of_two_optimizers_stepped_by_hand(run):
    text = run("gan.py")
    assert re.search(r"epoch 10/10  g_loss [\d.]+  d_loss [\d.]+", text)
    assert float(text.split()[-1]) == pytest.approx(3, abs=0.5)
    again = run("gan.py")
    assert "runs/gan is over" in again
    assert again.split()[-1] == text.split()[-1]  # what it draws after the training too


def test_a_loop_of_ones_own_with_early_stopping_and_a_finder(run):
    text = run("own_loop.py")
    assert re.search(r"lr [\d.e-]+ between \([\d.e-]+, [\d.e-]+\)", text)
    assert re.search(r"best 0\.\d+", text)
    again = run("own_loop.py")
    assert again.splitlines()[-1] == text.splitlines()[-1]
