"""Small trainings for the tests of callbacks: a module, its data, a trainer, an interruption."""

import os
import random
import signal

import pytest
import torch
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, Dataset

import descend

BATCHES = 6  # an epoch, the last one short


class Moved(Dataset):
    """Samples that are moved a little each time they are drawn."""

    def __init__(self, count=22):
        self.x = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        noise = 0.1 * torch.randn(4) + 0.1 * random.random()
        return self.x[index] + noise, self.x[index].sum(0, keepdim=True)


class Net(descend.Module):
    """A network with dropout and with buffers."""

    def __init__(self, dtype=torch.float32, lr=0.03):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.2),
            torch.nn.Linear(8, 1),
        ).to(dtype)  # fmt: skip
        self.dtype, self.lr = dtype, lr

    def loss(self, batch):
        x, y = batch
        return mse_loss(self.net(x.to(self.dtype)).float(), y)

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch), prog_bar=True)

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.loss(batch))

    def predict_step(self, batch, batch_idx):
        return self.net(batch[0])

    def configure_optimizers(self):
        return descend.AdamW(self.parameters(), lr=self.lr)


class Interrupt(descend.Callback):
    """Ctrl-C in a batch; -1: never."""

    def __init__(self, batch):
        self.batch = batch

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.run.step == self.batch:
            os.kill(os.getpid(), signal.SIGINT)


def loader(shuffle=True):
    return DataLoader(Moved(), batch_size=4, shuffle=shuffle)


def validation():
    return DataLoader(Moved(10), batch_size=4)


def trained(folder=None, *callbacks, net=None, **options):
    """A trainer after `fit`, and its module."""
    net = net or Net()
    options = {"max_epochs": 3, "enable_progress_bar": False, **options}
    trainer = descend.Trainer(folder=folder, callbacks=[*callbacks], **options)
    trainer.fit(net, loader(), validation())
    return trainer, net


def resumed(folder, make, batch, **options):
    """The same after Ctrl-C in a batch and a new start; the callbacks are made anew each time."""
    with pytest.raises(KeyboardInterrupt):
        trained(folder, *make(), Interrupt(batch), **options)
    callbacks = make()
    return *trained(folder, *callbacks, Interrupt(-1), **options), callbacks
