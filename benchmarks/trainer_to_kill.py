"""A training with all that has a state: the script that `kill_trainer.py` kills.

Dropout, samples that draw random numbers, accumulation over three batches, early stopping, averaged
weights, a scheduler that waits for the validation, and TensorBoard.
"""

import argparse
import random
import warnings

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

import descend
from descend.checkpoint import digest

SAMPLES, BATCH = 420, 20


class Noisy(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Points of two classes, shifted anew each time they are drawn, by all three generators."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(count, 8, generator=generator)
        self.y = (self.x[:, :4].sum(1) > 0).long()

    def __len__(self) -> int:
        """How many points there are."""
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A point, and its class."""
        shift = random.gauss(0, 0.1) + np.random.normal(0, 0.1)
        return self.x[index] + 0.2 * torch.randn(8) + shift, self.y[index]


class Classifier(descend.Module):
    """A small network with dropout and batch normalization."""

    def __init__(self, hidden: int = 16, lr: float = 0.02) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(8, hidden),
            torch.nn.BatchNorm1d(hidden),
            torch.nn.ReLU(),
            torch.nn.Dropout(0.3),
            torch.nn.Linear(hidden, 2),
        )

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """The loss of a batch."""
        x, y = batch
        loss = cross_entropy(self.net(x), y)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        """The loss that early stopping and the scheduler watch."""
        x, y = batch
        self.log("val_loss", cross_entropy(self.net(x), y))

    def test_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        """How many are right."""
        x, y = batch
        self.log("accuracy", descend.accuracy(self.net(x), y))

    def configure_optimizers(self) -> dict[str, object]:
        """AdamW, whose lr falls where the validation gets no better."""
        optimizer = descend.AdamW(self.parameters(), lr=self.hparams.lr)
        plateau = descend.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss"},
        }


def main() -> None:
    """Train, test, and tell what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--every-steps", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    # Whether it takes long beside other processes is not what is compared
    warnings.filterwarnings("ignore", "[0-9]+% of the time goes into waiting for the loader")
    descend.seed_everything(given.seed)
    model = Classifier()
    stopping = descend.EarlyStopping("val_loss", patience=6)
    trainer = descend.Trainer(
        folder="run",
        max_epochs=given.epochs,
        every_steps=given.every_steps,
        accumulate_grad_batches=3,
        val_check_interval=0.5,
        log_every_n_steps=2,
        callbacks=[stopping, descend.EMA(0.95)],
        logger=True,
    )
    training = DataLoader(Noisy(SAMPLES, 0), batch_size=BATCH, shuffle=True)
    trainer.fit(model, training, DataLoader(Noisy(200, 1), batch_size=100))
    test = trainer.test(model, DataLoader(Noisy(200, 2), batch_size=100))
    print(f"state: {digest(model.state_dict())}, test: {test}, stopped: {stopping.reason}")


if __name__ == "__main__":
    main()
