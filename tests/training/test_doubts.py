"""Warnings of a trainer, each once, and not without a reason."""

import time
import warnings

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

import descend
from descend.errors import TrainerWarning
from descend.training import doubts

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
DATA = TensorDataset(X, X.sum(1, keepdim=True))


class Line(descend.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)
        self.spare = torch.nn.Linear(3, 1)
        self.spare.requires_grad_(False)

    def training_step(self, batch):
        return torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])

    def configure_optimizers(self):
        optimizer = descend.SGD(self.parameters(), lr=0.01)
        scheduler = descend.lr_scheduler.StepLR(optimizer, 10)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


def warned(module, loader=None, **options):
    """The warnings of a training."""
    options = {"max_epochs": 3, "enable_progress_bar": False} | options
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        descend.Trainer(**options).fit(module, loader or DataLoader(DATA, batch_size=4))
    return [str(one.message) for one in caught if one.category is TrainerWarning]


def test_an_ordinary_training_has_none():
    assert warned(Line()) == []


def test_parameters_without_a_gradient_are_named_once():
    module = Line()
    module.spare.requires_grad_(True)
    (text,) = warned(module)
    assert text.startswith("spare.weight, spare.bias got no gradient in the first backward pass")


def test_p68_modules_that_evaluate_are_named_once():
    module = Line()
    module.layer.eval()
    (text,) = warned(module)
    assert text.startswith("layer trains in evaluation mode")


def test_a_scheduler_that_is_stepped_by_hand_too_is_named_once():
    class Stepped(Line):
        def training_step(self, batch):
            self.lr_schedulers().step()
            return super().training_step(batch)

    texts = [text for text in warned(Stepped()) if "by hand" in text]
    assert len(texts) == 1
    assert texts[0].startswith("the StepLR is stepped by the trainer, each step, and by hand too")


class Slow(Dataset):
    def __len__(self):
        return 210

    def __getitem__(self, index):
        time.sleep(0.012)
        return DATA[index % 40]


@pytest.mark.parametrize("slow", [True, False])
def test_a_loader_that_is_waited_for_is_named(monkeypatch, slow):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    loader = DataLoader(Slow(), batch_size=4) if slow else DataLoader(DATA, batch_size=1)
    texts = warned(Line(), loader, max_epochs=2)
    assert len(texts) == slow
    assert all(text.endswith("num_workers=1, persistent_workers=True)") for text in texts)


def test_a_loader_that_takes_less_time_than_the_steps_is_not_named(monkeypatch):
    class Busy(Line):
        def training_step(self, batch):
            time.sleep(0.005)
            return super().training_step(batch)

    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr(doubts, "WORTH", 0)
    assert warned(Busy(), DataLoader(DATA, batch_size=1), max_epochs=2) == []


def test_a_parameter_that_has_no_gradient_later_only_is_not_named():
    class InTurn(Line):
        def training_step(self, batch, batch_idx):
            layer = self.spare if batch_idx % 2 else self.layer
            loss = super().training_step(batch) + 0 * self.spare(batch[0]).sum()
            return loss if batch_idx == 0 else layer(batch[0]).square().mean()

    module = InTurn()
    module.spare.requires_grad_(True)
    assert warned(module) == []
