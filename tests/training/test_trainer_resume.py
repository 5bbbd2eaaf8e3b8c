"""A trainer that dies anywhere, in combinations: each goes on bit for bit."""

import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import mse_loss, softplus
from torch.utils.data import DataLoader, Dataset, IterableDataset

import descend
from descend.checkpoint import diff, load

SAMPLES, EPOCHS = 44, 3  # eleven batches an epoch
EVERY = 5  # so many batches between two deaths


class Noisy(Dataset):
    """Samples that draw from two generators."""

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        x = torch.randn(6, generator=torch.Generator().manual_seed(index))
        return x + 0.1 * torch.rand(6) + 0.1 * random.random(), x.sum(0, keepdim=True)


class Stream(IterableDataset):
    """The same, one after the other, with a state."""

    def __init__(self):
        self.place = 0

    def __iter__(self):
        while self.place < SAMPLES:
            self.place += 1
            yield Noisy()[self.place - 1]
        self.place = 0

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


class Network(descend.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.3),
            torch.nn.ReLU(), torch.nn.Linear(8, 1),
        )  # fmt: skip

    def training_step(self, batch, batch_idx):
        loss = mse_loss(self.net(batch[0]), batch[1])
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val_loss", mse_loss(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return descend.AdamW(self.parameters(), lr=3e-2)


class Plateau(Network):
    def configure_optimizers(self):
        optimizer = descend.AdamW(self.parameters(), lr=3e-2)
        scheduler = descend.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        config = {"scheduler": scheduler, "monitor": "val_loss"}
        return {"optimizer": optimizer, "lr_scheduler": config}


class Measured(Network):
    """With torchmetrics, whose sums are in no state_dict."""

    def __init__(self):
        super().__init__()
        torchmetrics = pytest.importorskip("torchmetrics")
        self.error = torchmetrics.MeanAbsoluteError()

    def training_step(self, batch, batch_idx):
        outputs = self.net(batch[0])
        self.error(outputs, batch[1])
        self.log("error", self.error, on_step=True, on_epoch=True)
        loss = mse_loss(outputs, batch[1])
        self.log("loss", loss, on_epoch=True)  # after it in each line of the log
        return loss


class Unfrozen(Network):
    """Fine-tuning: a layer learns from the second epoch on."""

    def __init__(self):
        super().__init__()
        self.net[0].requires_grad_(False)

    def on_train_epoch_start(self):
        if self.current_epoch == 1:
            self.net[0].requires_grad_(True)


class Gan(descend.Module):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.critic = torch.nn.Linear(4, 6), torch.nn.Linear(6, 1)

    def training_step(self, batch, batch_idx):
        generator, critic = self.optimizers()
        fake = self.generator(torch.randn(len(batch[0]), 4))
        real = softplus(-self.critic(batch[0])).mean()
        for optimizer, loss in (
            (critic, lambda: real + softplus(self.critic(fake.detach())).mean()),
            (generator, lambda: softplus(-self.critic(fake)).mean()),
        ):
            self.toggle_optimizer(optimizer)
            optimizer.zero_grad()
            self.manual_backward(loss())
            optimizer.step()
            self.untoggle_optimizer(optimizer)
        for scheduler in self.lr_schedulers():
            scheduler.step()
        self.log("real", real.detach())

    def configure_optimizers(self):
        optimizers = [
            descend.Adam(self.generator.parameters(), lr=1e-2),
            descend.Adam(self.critic.parameters(), lr=1e-2),
        ]
        return optimizers, [descend.lr_scheduler.LinearLR(one, 1.0, 0.1, 30) for one in optimizers]


class OneCycle(Network):
    def configure_optimizers(self):
        optimizer = descend.AdamW(self.parameters(), lr=1e-2)
        scheduler = descend.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=33)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


class Lbfgs(Network):
    def configure_optimizers(self):
        return descend.LBFGS(self.parameters(), lr=0.05, max_iter=3)


class Scheduled(Network):
    def configure_optimizers(self):
        optimizer = descend.Muon(self.parameters(), lr=0.01)
        schedule = descend.schedules.warmup(5) >> descend.schedules.cosine(28)
        return [optimizer], [descend.Scheduler(optimizer, lr=schedule)]


class Hooked(Network):
    """Logs in hooks."""

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.log("hooked", float(batch_idx))

    def on_train_epoch_end(self):
        self.log("ended", float(self.current_epoch))

    def on_validation_epoch_end(self):
        self.log("validated", float(self.global_step))


def of_stream():
    return DataLoader(Stream(), 4)


def of_worker():
    return DataLoader(Noisy(), 4, shuffle=True, num_workers=1)


CASES = {
    "accumulation": (Network, {"accumulate_grad_batches": 3}),
    "two validations": (Network, {
        "validations": 2, "val_check_interval": 0.5, "accumulate_grad_batches": 2,
    }),
    "plateau": (Plateau, {"val_check_interval": 4, "check_val_every_n_epoch": None}),
    "torchmetrics": (Measured, {"val_check_interval": 4}),
    "fine-tuning": (Unfrozen, {}),
    "GAN": (Gan, {}),
    "float16": (Network, {"precision": "16-mixed", "accumulate_grad_batches": 2}),
    "bfloat16": (Network, {"precision": "bf16-mixed", "gradient_clip_val": 0.5}),
    "one cycle": (OneCycle, {"gradient_clip_val": 0.1, "gradient_clip_algorithm": "value"}),
    "L-BFGS": (Lbfgs, {}),
    "Muon": (Scheduled, {}),
    "hooks": (Hooked, {"accumulate_grad_batches": 2}),
    "stream": (Network, {"loader": of_stream, "accumulate_grad_batches": 3}),
    "worker": (Network, {"loader": of_worker, "every": 12}),
    "limits": (Network, {"limit_train_batches": 7, "limit_val_batches": 2}),
    "overfitting": (Network, {"overfit_batches": 3}),
    "steps": (Network, {"max_steps": 25, "max_epochs": None}),
    "every second epoch": (Network, {"check_val_every_n_epoch": 2}),
}  # fmt: skip


class Died(BaseException):
    """Instead of a process's death."""


class Death(descend.Callback):
    """Comes after a batch, or as a signal in a validation."""

    def __init__(self, at, in_validation=False):
        self.at, self.in_validation = at, in_validation

    def on_train_batch_end(self, trainer, module, *rest):
        if not self.in_validation and trainer.run.step == self.at:
            raise Died

    def on_validation_batch_end(self, trainer, *rest, **named):
        if self.in_validation and trainer.run.step >= self.at and not trainer.sanity_checking:
            signal.raise_signal(signal.SIGTERM)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def process(folder, make, death=None, loader=None, validations=1, every=EVERY, **options):
    """What one process does; nothing may depend on its generators."""
    torch.manual_seed(0)
    module = make()
    noise = random.randrange(10**6)
    torch.manual_seed(noise)
    np.random.seed(noise)
    callbacks = [descend.EMA(0.9)] * hasattr(module, "net") + [death] * (death is not None)
    trainer = descend.Trainer(**{
        "folder": folder, "max_epochs": EPOCHS, "callbacks": callbacks, "every_steps": 1,
        "keep": 99, "log_every_n_steps": 1, "seed": 5, "enable_progress_bar": False, **options,
    })  # fmt: skip
    train = DataLoader(Noisy(), 4, shuffle=True) if loader is None else loader()
    val = [DataLoader(Noisy(), 10) for _ in range(validations)]
    trainer.fit(module, train, val if hasattr(module, "validation_step") else None)
    return trainer


def assert_equal(whole, other):
    states = [load(whole), load(other)]
    for state in states:
        state["trainer"].pop("seconds")
    differences = [(one.name, one.what) for one in diff(*states)]
    assert not differences, differences
    logs = [(Path(folder) / "metrics.jsonl").read_bytes() for folder in (whole, other)]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("name", CASES)
def test_f2_dying_after_any_batch_it_goes_on_bit_for_bit(name, tmp_path):
    make, options = CASES[name]
    whole = process(tmp_path / "whole", make, **options)
    died = 0
    for at in range(2, whole.run.step + 1, options.get("every", EVERY)):
        try:
            process(tmp_path / "chain", make, Death(at), **options)
        except Died:
            died += 1
    assert died
    process(tmp_path / "chain", make, **options)
    assert_equal(tmp_path / "whole", tmp_path / "chain")


@pytest.mark.parametrize("name", ["accumulation", "two validations", "plateau", "stream", "hooks"])
def test_f2_a_signal_in_a_validation_saves_what_was_before_it(name, tmp_path):
    make, options = CASES[name]
    process(tmp_path / "whole", make, **options)
    stopped = 0
    for at in (1, 8, 14, 25, 33):
        try:
            process(tmp_path / "chain", make, Death(at, in_validation=True), **options)
        except SystemExit:
            stopped += 1
    assert stopped >= 3
    process(tmp_path / "chain", make, **options)
    assert_equal(tmp_path / "whole", tmp_path / "chain")


@pytest.mark.parametrize("again", ["in another process", "with the same module"])
def test_f2_a_signal_in_the_last_batch_leaves_the_epoch_its_means(again, tmp_path):
    class Signal(descend.Callback):
        at = 0

        def on_train_batch_end(self, trainer, module, *rest):
            if trainer.run.step == self.at:
                signal.raise_signal(signal.SIGTERM)

    make, options = CASES["torchmetrics"]
    process(tmp_path / "whole", make, **options)
    torch.manual_seed(0)  # as in `process`
    module, death = make(), Signal()
    for death.at in (3, 11, 13, 22):  # an epoch has 11
        with pytest.raises(SystemExit):
            process(tmp_path / "chain", make if "process" in again else lambda: module, death,
                    **options)  # fmt: skip
    process(tmp_path / "chain", make, **options)
    assert_equal(tmp_path / "whole", tmp_path / "chain")


def test_more_steps_go_on_where_max_steps_ended_it_in_mid_epoch(tmp_path):
    process(tmp_path / "whole", Network, max_steps=30, max_epochs=None)
    for most in (5, 17, 30):
        process(tmp_path / "parts", Network, max_steps=most, max_epochs=None)
    states = [load(tmp_path / name) for name in ("whole", "parts")]
    for part in ("model", "optimizer"):
        assert not [*diff(states[0][part], states[1][part])]
