"""What is trained without a module of its own: a model with a loss, or a task."""

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from descend.errors import TrainerError
from descend.optimizers import AdamW
from descend.training.module import Module
from descend.training.task import PAIR, Task, is_pair


class LossModule(Module):
    """A model with its loss, trained on pairs (input, target).

    Args:
        model: called with a batch of inputs.
        loss: `loss(outputs, targets)`.
        optimizer: one of its parameters, or a function of them that makes what
            `configure_optimizers` may return.

    Raises:
        TrainerError: loss or optimizer cannot be used.
    """

    def __init__(self, model: nn.Module, loss: Any, optimizer: Any) -> None:
        super().__init__()
        self.model, self.loss, self._optimizer = model, loss, optimizer

    def forward(self, inputs: Any) -> Any:
        """The outputs of the model."""
        return self.model(inputs)

    def training_step(self, batch: Any) -> torch.Tensor:
        """The loss of a batch."""
        loss = self._outputs_and_loss(batch)[1]
        self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: Any) -> None:
        """Log the loss."""
        loss = self._outputs_and_loss(batch)[1]
        self.log("validation_loss", loss, prog_bar=True)

    def test_step(self, batch: Any) -> None:
        """Log the loss."""
        self.log("test_loss", self._outputs_and_loss(batch)[1])

    def predict_step(self, batch: Any, batch_idx: int = 0, dataloader_idx: int = 0) -> Any:
        """The outputs; of a pair, for its inputs."""
        pair = isinstance(batch, list | tuple) and len(batch) == PAIR
        return self.model(batch[0] if pair else batch)

    def configure_optimizers(self) -> Any:
        """The optimizer that was given, or what makes it."""
        if isinstance(self._optimizer, Optimizer):
            return self._optimizer
        if not callable(self._optimizer):
            raise TrainerError(
                f"fit needs an optimizer for a {type(self.model).__name__}: such as optimizer="
                f"descend.AdamW(model.parameters(), lr=1e-3), or a function of the parameters"
            )
        return self._optimizer(self.model.parameters())

    def _outputs_and_loss(self, batch: Any) -> tuple[Any, torch.Tensor]:
        if not callable(self.loss):
            raise TrainerError(
                f"fit needs a loss for a {type(self.model).__name__}: loss(outputs, targets), such "
                f"as loss=torch.nn.functional.cross_entropy"
            )
        if not isinstance(batch, list | tuple) or len(batch) != PAIR:
            raise TrainerError(
                f"with loss=... the loader must give pairs (input, target), and gives a "
                f"{type(batch).__name__}; a descend.Module takes any batch"
            )
        outputs = self.model(batch[0])
        return outputs, self.loss(outputs, batch[1])


class TaskModule(LossModule):
    """A task: its model, loss, metrics and data.

    Args:
        task: to train.
        optimizer: as for `LossModule`; AdamW where there is none.
        batch_size: samples per batch.
    """

    def __init__(self, task: Task, optimizer: Any = None, batch_size: int = 64) -> None:
        super().__init__(task.model, task.loss, optimizer or AdamW)
        self.task, self.batch_size = task, batch_size
        self._seen: list[tuple[Any, Any]] = []

    def validation_step(self, batch: Any) -> None:
        """Log the loss, and keep what the metrics need."""
        self._measure("validation", batch)

    def test_step(self, batch: Any) -> None:
        """Log the loss, and keep what the metrics need."""
        self._measure("test", batch)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of all samples at once: the mean over batches is wrong for most."""
        self._log_metrics("validation")

    def on_test_epoch_end(self) -> None:
        """Log the metrics of all samples at once."""
        self._log_metrics("test")

    def train_dataloader(self) -> Any:
        """The training data, shuffled."""
        return self._loader(self.task.train, shuffle=True)

    def val_dataloader(self) -> Any:
        """The validation data."""
        return self._loader(self.task.validation)

    def test_dataloader(self) -> Any:
        """The test data, or None."""
        return None if self.task.test is None else self._loader(self.task.test)

    predict_dataloader = test_dataloader

    def _loader(self, data: Any, shuffle: bool = False) -> "DataLoader[Any]":
        dataset = TensorDataset(*data) if is_pair(data) else data
        return DataLoader(dataset, batch_size=self.batch_size, shuffle=shuffle)

    def _measure(self, part: str, batch: Any) -> None:
        outputs, loss = self._outputs_and_loss(batch)
        self.log(f"{part}_loss", loss, prog_bar=True)
        if self.task.metrics:
            self._seen.append((outputs, batch[1]))

    def _log_metrics(self, part: str) -> None:
        seen, self._seen = self._seen, []
        if not seen:
            return
        outputs, targets = (torch.cat(parts) for parts in zip(*seen, strict=True))
        for name, metric in self.task.metrics.items():
            self.log(f"{part}_{name}", metric(outputs, targets), prog_bar=True)
