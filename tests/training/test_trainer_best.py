"""The best checkpoint of a trainer, and what it takes to be tested with."""

import os

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import descend
from descend.checkpoint import Best, load
from descend.checkpoint.manifest import read_manifest
from descend.checkpoint.series import checkpoints

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
LOADER = DataLoader(TensorDataset(X, X.sum(1, keepdim=True)), batch_size=4)
VALUES = [5.0, 3.0, 1.0, 4.0, 2.0, 6.0]  # of the validations, the third of which is best


class Line(descend.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)
        self.count = 0

    def training_step(self, batch):
        return torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])

    def validation_step(self, batch):
        pass

    def on_validation_epoch_end(self):
        if not self.trainer.sanity_checking:
            self.log("value", VALUES[self.count])
            self.count += 1

    def test_step(self, batch):
        self.log("weight", self.layer.weight.sum())

    def configure_optimizers(self):
        return descend.SGD(self.parameters(), lr=0.01)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.mark.parametrize(("best", "step"), [("value", 15), (Best("value", highest=True), 30)])
def test_the_best_of_validations_in_mid_epoch_is_kept_and_tested_with(tmp_path, best, step):
    trainer = descend.Trainer(
        folder=tmp_path, max_epochs=3, val_check_interval=5, best=best, keep=1,
        enable_progress_bar=False,
    )  # fmt: skip
    module = Line()
    trainer.fit(module, LOADER, LOADER)
    assert module.count == len(VALUES)
    kept = {
        read_manifest(one)["about"]["step"]: one for one in checkpoints(tmp_path / "checkpoints")
    }
    assert set(kept) == {step, 30}
    weight = load(kept[step])["model"]["layer.weight"].sum().item()
    assert trainer.test(module, LOADER, ckpt_path="best") == [{"weight": pytest.approx(weight)}]


def test_fast_dev_run_needs_no_length_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = descend.Trainer(
        folder="run", fast_dev_run=2, logger=descend.CSVLogger("logs"), enable_progress_bar=False
    )
    trainer.fit(Line(), LOADER, LOADER)
    assert (trainer.global_step, trainer.num_val_batches) == (2, [2])
    assert not [*tmp_path.iterdir()]
