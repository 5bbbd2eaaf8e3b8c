"""The usual ways to train faster: each an argument, and each the same after a resume."""

import os
import random

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import descend
from descend.checkpoint import diff, load


class Noisy(Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, index):
        x = torch.randn(4, generator=torch.Generator().manual_seed(index))
        return x + 0.1 * torch.rand(4) + random.random(), x.sum(0, keepdim=True)


class Network(descend.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.Dropout(0.2), torch.nn.ReLU(), torch.nn.Linear(8, 1)
        )

    def training_step(self, batch):
        return torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return descend.AdamW(self.parameters(), lr=0.01)


class Died(BaseException):
    pass


class Death(descend.Callback):
    def __init__(self, at):
        self.at = at

    def on_train_batch_end(self, trainer, *rest):
        if trainer.run.step == self.at:
            raise Died


FASTER = {
    "mixed precision": ({"precision": "bf16-mixed"}, {}),
    "accumulation": ({"accumulate_grad_batches": 4}, {}),
    "clipping": ({"gradient_clip_val": 0.1}, {}),
    "workers": ({}, {"num_workers": 2, "persistent_workers": True}),
    "pinned memory": ({}, {"pin_memory": True}),
    "all": (
        {"precision": "bf16-mixed", "accumulate_grad_batches": 2, "gradient_clip_val": 0.5},
        {"num_workers": 1, "pin_memory": True},
    ),
}


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")
@pytest.mark.parametrize("name", FASTER)
def test_h6_a_way_to_train_faster_is_an_argument_and_exact_on_resume(name, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    options, of_loader = FASTER[name]

    def train(folder, at=None):
        torch.manual_seed(0)
        trainer = descend.Trainer(
            folder=tmp_path / folder, max_epochs=2, every_steps=1, enable_progress_bar=False,
            callbacks=[Death(at)], **options,
        )  # fmt: skip
        trainer.fit(Network(), DataLoader(Noisy(), batch_size=3, shuffle=True, **of_loader))

    train("whole")
    for at in (3, 10):
        with pytest.raises(Died):
            train("chain", at)
    train("chain")
    states = [load(tmp_path / folder) for folder in ("whole", "chain")]
    for state in states:
        state["trainer"].pop("seconds")
    assert not [(one.name, one.what) for one in diff(*states)]
