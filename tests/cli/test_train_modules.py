"""`descend train` on a file of a `Module` and its `DataModule`."""

import json
from pathlib import Path

import pytest
import torch

import descend
from cli.commands import document, invoke
from descend.checkpoint import load
from descend.search.trial import Trial, made_ready, train_trial

TASK = """
import torch, descend
from torch.utils.data import DataLoader, TensorDataset, random_split

class Base(descend.Module):
    def _loss(self, batch):
        return torch.nn.functional.mse_loss(self(batch[0]), batch[1])

class Net(Base):
    def __init__(self, width: int = 8, lr: float = 0.1):
        super().__init__()
        self.save_hyperparameters()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(4, width), torch.nn.ReLU(), torch.nn.Linear(width, 1))
    def forward(self, x):
        return self.layers(x)
    def training_step(self, batch, batch_idx):
        return self._loss(batch)
    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self._loss(batch))
        self.log("val_half", self._loss(batch) / 2)
    def test_step(self, batch, batch_idx):
        self.log("test_loss", self._loss(batch))
    def configure_optimizers(self):
        raise AssertionError("replaced")

class Data(descend.DataModule):
    setups = []
    def __init__(self, batch_size: int = 7):
        super().__init__()
        self.batch_size = batch_size
    def setup(self, stage):
        self.setups.append(stage)
        x = torch.randn(40, 4)
        self.parts = random_split(TensorDataset(x, x.sum(1, keepdim=True)), [30, 10])
    def train_dataloader(self):
        return DataLoader(self.parts[0], self.batch_size, shuffle=True)
    def val_dataloader(self):
        return DataLoader(self.parts[1], 10)
    def test_dataloader(self):
        return DataLoader(self.parts[1], 10)
"""
STEPS = ["--threads", "1", "--steps", "7"]


@pytest.fixture(autouse=True)
def task_file(own_folder):
    (own_folder / "t.py").write_text(TASK)
    return own_folder / "t.py"


def test_a_module_is_trained_by_the_optimizer_of_the_command():
    shown = invoke("train", "t.py", "--arg", "width=6", "--optimizer", "sgd", *STEPS).stdout
    assert "t.py, width 6: Net, 5 training batches; 37 parameters" in shown
    assert "sgd, lr 0.001, batches of 7" in shown
    assert "validation half" in shown
    assert "test loss: " in shown
    [folder] = Path("runs").iterdir()
    values = set().union(*map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()))
    assert {"train_loss", "val_loss", "val_half", "lr", "seconds"} <= values
    assert "validation_loss" not in values
    assert (folder / "curves.png").exists()


def test_a_command_ends_with_the_state_of_its_trial(own_folder):
    trial = Trial("t.py", {"width": 6}, "sgd", 0.01, {}, {"lr": "linear(7)"}, 7, 2, batch_size=10)
    torch.set_num_threads(1)
    record = train_trial(trial, own_folder / "trial")
    assert not record.error
    assert record.value is not None
    assert record.start is not None
    assert record == train_trial(trial, own_folder / "trial")
    typed = document(
        "train", "t.py", "--arg", "width=6", "--optimizer", "sgd", "--lr", "0.01",
        "--schedule", "linear(7)", "--seed", "2", "--batch-size", "10", *STEPS,
    )  # fmt: skip
    assert typed["last"]["validation_loss"] == record.value
    model = load("trial")["model"]
    assert all(
        torch.equal(value, model[name]) for name, value in load(typed["folder"])["model"].items()
    )
    half = train_trial(trial, own_folder / "half", metric="validation_half")
    assert half.value == pytest.approx(record.value / 2)


def test_it_goes_on_to_the_same_bits():
    once = document("train", "t.py", *STEPS, "--out", "once")
    document("train", "t.py", "--threads", "1", "--steps", "3", "--out", "parts")
    parts = document("train", "t.py", *STEPS, "--out", "parts")
    assert parts["state"] == once["state"]
    best = document("train", "t.py", *STEPS, "--best", "val_loss", "--out", "best")
    assert best["state"] == once["state"]


def test_the_data_hang_on_nothing_that_the_module_draws():
    """Nor do the first weights hang on the data: a comparison of widths is paired."""
    splits = []
    for width in (3, 9):
        ready = made_ready(Trial("t.py", {"width": width}, "sgd", None, {}, {}, 5, 1))
        splits.append(ready.data.parts[0].indices)
        descend.Trainer(max_steps=1, enable_progress_bar=False).fit(ready.module, ready.data)
        assert ready.data.setups == ["fit"]
        ready.data.setups.clear()
    assert splits[0] == splits[1]
    other = made_ready(Trial("t.py", {}, "sgd", None, {}, {}, 5, 2))
    assert other.data.parts[0].indices != splits[0]


def test_a_batch_size_that_the_data_do_not_take_is_refused(task_file):
    task_file.write_text(TASK.replace("batch_size: int = 7", "").replace("= batch_size", "= 7"))
    result = invoke("train", "t.py", "--batch-size", "5")
    assert "--batch-size 5: the constructor of Data takes no batch_size" in result.stderr
    assert invoke("train", "t.py", "--steps", "1").exit_code == 0
    result = invoke("train", "t.py", "--workers", "2")
    assert "--workers 2: the constructor of Data takes no num_workers" in result.stderr


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("class Data(descend.DataModule)", "class Data", "defines no descend.DataModule, and one"),
        ("class Data", "class Other(Base): ...\nclass Data", "2 descend.Module (Net, Other)"),
        ('self.log("val_loss"', 'self.log("valid"', "the module logs no val_loss; logged: "),
        ("self.save_hyper", "self.automatic_optimization = False\n        self.save_hyper",
         "Net takes its steps by hand"),
        ("self.save_hyper", "raise KeyError(3)\n        self.save_hyper",
         "t.py, line 12: Net(): KeyError: 3"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_told(old, new, told, task_file):
    task_file.write_text(TASK.replace(old, new))
    result = invoke("train", "t.py")
    assert result.exit_code == 2
    assert told in result.stderr


def test_find_lr_says_who_takes_a_module():
    assert "this is a Module; descend.Tuner(trainer)" in invoke("find-lr", "t.py").stderr
