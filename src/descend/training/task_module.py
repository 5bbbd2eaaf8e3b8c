"""Modules for whoever has none: of a model with a loss, and of a task."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate

from descend.checks import COUNT
from descend.errors import DescendError, TaskError, TrainerError
from descend.optimizers import AdamW
from descend.training.module import Module
from descend.training.task import PAIR, Task, is_pair, sample_count
from descend.user_file import describe


class LossModule(Module):
    """A model with its loss, trained on pairs (input, target).

    Args:
        model: called with a batch of inputs.
        loss: `loss(outputs, targets)`, the mean over the batch.
        optimizer: one of its parameters, or a function of them that makes what
            `configure_optimizers` may return.
    """

    def __init__(self, model: nn.Module, loss: Any, optimizer: Any) -> None:
        super().__init__()
        self.model, self.loss, self.optimizer = model, loss, optimizer

    def forward(self, inputs: Any) -> Any:
        """The outputs of the model."""
        return self.model(inputs)

    def training_step(self, batch: Any) -> torch.Tensor:
        """The loss of a batch."""
        loss = self._outputs_and_loss(batch)[1]
        self.log("train_loss", loss.detach(), on_step=True, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: Any) -> None:
        """Log the loss."""
        self.log("validation_loss", self._outputs_and_loss(batch)[1], prog_bar=True)

    def test_step(self, batch: Any) -> None:
        """Log the loss."""
        self.log("test_loss", self._outputs_and_loss(batch)[1])

    def predict_step(self, batch: Any, batch_idx: int = 0, dataloader_idx: int = 0) -> Any:
        """The outputs; of a pair, for its inputs."""
        pair = isinstance(batch, list | tuple) and len(batch) == PAIR
        return self.model(batch[0] if pair else batch)

    def configure_optimizers(self) -> Any:
        """The optimizer that was given, or what makes it.

        Raises:
            TrainerError: none was given.
        """
        if isinstance(self.optimizer, Optimizer):
            return self.optimizer
        if not callable(self.optimizer):
            raise TrainerError(
                f"fit needs an optimizer for a {type(self.model).__name__}: such as optimizer="
                f"descend.AdamW(model.parameters(), lr=1e-3), or a function of the parameters"
            )
        return self.optimizer(self.model.parameters())

    def _outputs_and_loss(self, batch: Any) -> tuple[Any, torch.Tensor]:
        if not callable(self.loss):
            raise TrainerError(
                f"fit needs a loss for a {type(self.model).__name__}: loss(outputs, targets), such "
                f"as loss=torch.nn.functional.cross_entropy"
            )
        if not isinstance(batch, list | tuple) or len(batch) != PAIR:
            raise TaskError("the dataset must give pairs (input, target), and gives others")
        inputs, targets = batch
        with asking("the model", inputs):
            outputs = self.model(inputs)
        with asking("the loss", outputs, targets):
            loss = self.loss(outputs, targets)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            shape = tuple(loss.shape) if isinstance(loss, torch.Tensor) else ()
            came = f"a tensor of shape {shape}" if shape else f"a {type(loss).__name__}"
            raise TaskError(
                f"the loss must return a tensor of one number, the mean over the batch, and "
                f"returned {came}"
            )
        return outputs, loss


class TaskModule(LossModule):
    """A task: its model, loss, metrics and data.

    Args:
        task: to train.
        optimizer: as for `LossModule`; AdamW where there is none.
        batch_size: samples per batch; the task's own where it is None.
        workers: how many processes fetch the training samples.
    """

    def __init__(
        self, task: Task, optimizer: Any = None, batch_size: int | None = None, workers: int = 0
    ) -> None:
        super().__init__(task.model, task.loss, optimizer or AdamW)
        self.task = task
        own = task.batch_size if batch_size is None else batch_size
        self.batch_size: int = COUNT.check("batch_size", own, TaskError)
        self._workers = workers
        self._seen: list[tuple[Any, Any]] = []

    def training_step(self, batch: Any, batch_idx: int = 0) -> torch.Tensor:
        """The loss of a batch, so that a step follows the mean over the samples of all its batches.

        The trainer divides it by the number of batches of a step, of which the last one can be
        smaller, and the last step can have fewer.
        """
        loss = self._outputs_and_loss(batch)[1]
        self.log("train_loss", loss.detach(), on_epoch=True, on_step=False, logger=False)
        accumulate = self.trainer.accumulate_grad_batches
        if accumulate == 1:
            return loss
        samples = sample_count(self.task.train)
        before = batch_idx * self.batch_size
        begin = batch_idx // accumulate * accumulate * self.batch_size
        in_step = min(accumulate * self.batch_size, samples - begin)
        here = min(self.batch_size, samples - before)
        share = here * accumulate / in_step
        return loss if share == 1 else loss * share

    def on_fit_start(self) -> None:
        """Train, whatever the model did before."""
        self.train()

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

    def on_exception(self, exception: BaseException) -> None:
        """Forget what a measurement had kept."""
        self._seen = []

    def train_dataloader(self) -> Any:
        """The training data, shuffled."""
        return self._loader(self.task.train, shuffle=True, workers=self._workers)

    def val_dataloader(self) -> Any:
        """The validation data."""
        return self._loader(self.task.validation)

    def test_dataloader(self) -> Any:
        """The test data, or None."""
        return None if self.task.test is None else self._loader(self.task.test)

    predict_dataloader = test_dataloader

    def _loader(self, data: Any, shuffle: bool = False, workers: int = 0) -> "DataLoader[Any]":
        pair = is_pair(data)
        return DataLoader(
            TensorDataset(*data) if pair else _Reading(data),
            batch_size=self.batch_size,
            shuffle=shuffle,
            collate_fn=default_collate if pair else _collated,
            num_workers=workers,
            persistent_workers=workers > 0,
        )

    def _measure(self, part: str, batch: Any) -> None:
        outputs, loss = self._outputs_and_loss(batch)
        self.log(f"{part}_loss", loss, logger=part == "test")
        if self.task.metrics:
            self._seen.append((outputs, batch[1]))

    def _log_metrics(self, part: str) -> None:
        """Log each metric over all samples."""
        seen, self._seen = self._seen, []
        if not seen:
            return
        if not all(isinstance(one, torch.Tensor) for pair in seen for one in pair):
            raise TaskError(
                "metrics need outputs and targets that are tensors; leave the metrics out, or put "
                "what they measure into tensors"
            )
        with asking("joining the outputs of all batches"):
            outputs, targets = (torch.cat(parts) for parts in zip(*seen, strict=True))
        for name, metric in self.task.metrics.items():
            with asking(f"the metric {name!r}", outputs, targets):
                value = float(metric(outputs, targets))
            self.log(f"{part}_{name}", value, logger=part == "test")


class _Reading(Dataset[Any]):
    """The user's dataset, whose errors say that they came in reading it."""

    def __init__(self, data: Any) -> None:
        self.data = data
        if callable(getattr(data, "__getitems__", None)):
            self.__getitems__ = self._batch

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> Any:
        with asking("reading the data"):
            return self.data[index]

    def _batch(self, indices: Any) -> Any:
        with asking("reading the data"):
            return self.data.__getitems__(indices)


def _collated(samples: list[Any]) -> Any:
    with asking("reading the data"):
        return default_collate(samples)


@contextmanager
def asking(what: str, *given: object) -> Iterator[None]:
    """Tell which part of a task failed; the cause stays chained, with the user's frames.

    Raises:
        TaskError: whatever it raised.
    """
    try:
        yield
    except DescendError:
        raise
    except Exception as error:
        shapes = ", ".join(str(tuple(x.shape)) for x in given if isinstance(x, torch.Tensor))
        given_what = f", given {shapes}," if shapes else ""
        raise TaskError(f"{what}{given_what} failed: {describe(error)}") from error
