"""`descend verify-resume` of scripts that train with a Trainer."""

import json
from functools import partial
from pathlib import Path

import pytest

from children import python
from cli import commands
from descend.resume_check.logged_files import logged_files

SCRIPT = """
import time
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset
import descend

torch.set_num_threads(1)


class Noisy(Dataset):
    def __init__(self, count, seed):
        self.x = torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))
        self.y = (self.x[:, :4].sum(1) > 0).long()

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index] + 0.2 * torch.randn(8), self.y[index]


class Net(descend.Module):
    def __init__(self, lr: float = 0.05):
        super().__init__()
        self.save_hyperparameters()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Dropout(0.3), torch.nn.Linear(16, 2)
        )

    def training_step(self, batch, batch_idx):
        x, y = batch
        time.sleep(0.01)
        return self.noted("train_loss", F.cross_entropy(self.net(x), y))

    def noted(self, name, loss):
        self.log(name, loss, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.noted("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def test_step(self, batch, batch_idx):
        self.noted("test_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def predict_step(self, batch, batch_idx):
        return self.net(batch[0]).argmax(1)

    def configure_optimizers(self):
        optimizer = descend.AdamW(self.parameters(), lr=self.hparams.lr)
        plateau = descend.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        return {"optimizer": optimizer,
                "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss"}}


callbacks = [descend.EarlyStopping("val_loss", patience=1), descend.EMA(0.8)]
# more callbacks
loggers = [descend.TensorBoardLogger(), descend.CSVLogger()]
descend.seed_everything(1)
trainer = descend.Trainer(
    folder="runs/mine", max_epochs=4, accumulate_grad_batches=3, log_every_n_steps=1,
    callbacks=callbacks, logger=loggers,
)
validation = DataLoader(Noisy(40, 1), batch_size=20)
trainer.fit(Net(), DataLoader(Noisy(70, 0), batch_size=10, shuffle=True), validation)
trainer.test(dataloaders=validation)
print("predicted", sum(one.sum().item() for one in trainer.predict(dataloaders=validation)))
"""

invoke = partial(commands.invoke, "verify-resume")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def script(*changes):
    text = SCRIPT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    Path("my_script.py").write_text(text)
    return "my_script.py"


def test_p44_a_trainer_with_callbacks_that_tests_and_predicts_is_found_bit_exact():
    got = invoke("--kills", 3, "--json", script())
    assert got.exit_code == 0, got.output
    document = json.loads(got.stdout)
    assert document["verdict"] == "bit-exact"
    assert {"trainer.loggers.TensorBoardLogger", "trainer.seconds"} <= {*document["left_out"]}
    compared = document["compared"]
    assert sorted(compared["objects"]) == ["model", "optimizer", "run", "scheduler", "trainer"]
    assert {"train_loss_step", "train_loss_epoch", "val_loss", "test_loss"} <= {*compared["keys"]}
    assert min(compared["others"]["tensorboard"], compared["others"]["metrics.csv"]) > 9
    assert not Path("runs").exists()


def test_p44_a_callback_that_keeps_something_to_itself_is_found():
    forgetful = """
class Decay(descend.Callback):
    factor = 1.0

    def on_before_optimizer_step(self, trainer, module, optimizer):
        Decay.factor *= 0.9
        for parameter in module.parameters():
            parameter.grad *= Decay.factor


callbacks.append(Decay())
"""
    got = invoke("--kills", 1, "--every-steps", 1, script(("# more callbacks", forgetful)))
    assert got.exit_code == 1, got.output
    assert "my_script.py does NOT resume bit for bit." in got.output
    assert "an attribute of a Callback that has no state_dict" in got.output


def test_p44_a_trainer_without_a_folder_has_nothing_to_resume():
    got = invoke(script(('folder="runs/mine", max_epochs=4', "max_epochs=1"),
                        (", logger=loggers", "")))  # fmt: skip
    assert got.exit_code == 2, got.output
    assert "makes no descend.Run and fits no descend.Trainer in a folder" in got.stderr
    assert "descend.Trainer(folder=FOLDER).fit(module, loader)" in got.stderr


def test_a_script_that_is_run_again_tests_the_same_and_keeps_the_line_of_the_test():
    """Killed between the last save and the test, too."""
    name = script(
        ("time.sleep(0.01)", ""), ("batch[0]).argmax", "batch[0] + torch.randn(8)).argmax")
    )
    log = Path("runs/mine/metrics.jsonl")
    first = python(name)
    whole = log.read_bytes()
    assert b"test_loss" in whole
    files = logged_files(Path("runs/mine"))
    assert any(one["tag"] == "test_loss" for one in files["tensorboard"])
    assert files["metrics.csv"][-1]["test_loss"]
    for _ in range(2):
        again = python(name)
        assert log.read_bytes() == whole
        assert logged_files(Path("runs/mine")) == files
        assert again.stdout.splitlines()[-1] == first.stdout.splitlines()[-1]
    log.write_bytes(b"".join(line for line in whole.splitlines(True) if b"test_loss" not in line))
    python(name)
    assert log.read_bytes() == whole
