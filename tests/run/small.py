"""Small runs for the tests: parts that a process builds, and processes that die."""

import os
import random
import re
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

import descend
from descend.checkpoint import digest, load

SAMPLES, BATCH = 14, 4  # four batches an epoch, the last one short
STEPS = 8  # of two epochs


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    """No waiting for the disk: nothing here pulls a plug. Signal handlers as they were."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(kind) for kind in kinds]
    yield
    for kind, handler in zip(kinds, before, strict=True):
        signal.signal(kind, handler)


generator = torch.Generator().manual_seed(1)
X = torch.randn(SAMPLES, 3, generator=generator)
Y = X.sum(1, keepdim=True)


def loader(batch_size=BATCH, samples=SAMPLES, shuffle=True, **options):
    return DataLoader(TensorDataset(X[:samples], Y[:samples]), batch_size, shuffle, **options)


class Augmented(Dataset):
    """Noise from all three generators in each sample."""

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        noise = torch.rand(3) + random.random() + np.random.rand()
        return X[index] + 0.1 * noise.float(), Y[index]


def mse(model, x, y):
    return torch.nn.functional.mse_loss(model(x).float(), y)


@dataclass
class Parts:
    """What a script builds anew in each process.

    Args:
        objects: what the run saves.
        body: of the loop.
        after: of the loop over epochs.
        before: once the run is there.
    """

    objects: dict[str, Any]
    body: Callable[[Any, Any], None]
    after: Callable[[Any], None] | None = None
    before: Callable[[Any], None] = lambda run: None
    loader: Any = field(default_factory=loader)


def plain_parts(before_step=lambda run: None, after_step=lambda run: None):
    """A linear model, SGD with momentum, and a log."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    optimizer = descend.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def body(run, batch):
        before_step(run)
        loss = mse(model, *batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        run.log(loss=loss)
        after_step(run)

    return Parts({"model": model, "optimizer": optimizer}, body)


class Died(BaseException):
    """Instead of a process's death, where nothing is told of it."""


processes = count()


def process(folder, make, *, die=None, epochs=2, **options):
    """What one process does: build everything, and train until it dies or the run is over."""
    noise = next(processes)  # nothing may depend on what the generators were in a new process
    random.seed(noise)
    np.random.seed(noise)
    torch.manual_seed(noise)
    parts = make()
    run = descend.Run(
        folder,
        loader=parts.loader,
        seed=3,
        epochs=epochs,
        **{"every_steps": 1, "keep": 99} | options,
        **parts.objects,
    )
    parts.before(run)
    if parts.after is None:
        for batch in run:
            if run.step == die:
                break
            parts.body(run, batch)
        return run
    for batches in run.epochs():
        for batch in batches:
            if run.step == die:
                return run
            parts.body(run, batch)
        parts.after(run)
    return run


def log_of(folder):
    return (Path(folder) / "metrics.jsonl").read_bytes()


def steps_of(folder):
    """The steps of the checkpoints, the newest last."""
    found = [
        re.fullmatch(r"step-(\d{8})(?:-\d+)?", name.name)
        for name in (Path(folder) / "checkpoints").iterdir()
    ]
    return sorted(int(match[1]) for match in found if match)


def end_of(folder):
    """Everything that a run ends with, random generators and the run's own state among it."""
    log = Path(folder) / "metrics.jsonl"
    return digest(load(folder)), log.read_bytes() if log.exists() else b""


def assert_exact(make, *, steps=STEPS, stride=1, **options):
    """Die in each step, in a chain of processes; end with the bits of one that never did."""
    with tempfile.TemporaryDirectory() as top:
        whole, chain = Path(top) / "whole", Path(top) / "chain"
        process(whole, make, **options)
        for step in range(2, steps + 1, stride):
            process(chain, make, die=step, **options)
        run = process(chain, make, **options)
        assert run.is_over
        assert run.resumed_from is not None
        expected, found = load(whole), load(chain)
        differences = [str((d.name, d.what)) for d in descend.checkpoint.diff(expected, found)]
        assert not differences, "\n".join(differences)
        assert end_of(chain) == end_of(whole)
