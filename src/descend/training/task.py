"""A task to train: a model, its data, its loss and its metrics."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard

import numpy as np
import torch
from torch import nn
from torch.utils.data import IterableDataset

from descend.checks import COUNT
from descend.errors import TaskError
from descend.spelling import spelled

PAIR = 2


def accuracy(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    """The part of the rows whose largest output is that of the target class.

        accuracy = mean over n of [argmax_c outputs[n, c] == targets[n]]

    Args:
        outputs: scores or probabilities of shape (rows, classes), any floating dtype.
        targets: the right classes, whole numbers of shape (rows,).

    Returns:
        A number from 0 to 1.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
        0.5

    Source: top-1 accuracy, as every classification benchmark counts it.
    """
    if outputs.dim() != PAIR or targets.shape != outputs.shape[:1]:
        raise ValueError(
            f"accuracy takes outputs of shape (rows, classes) and targets of shape (rows,), and "
            f"got {tuple(outputs.shape)} and {tuple(targets.shape)}"
        )
    return float((outputs.argmax(1) == targets).double().mean())


class Samples(Protocol):
    """Data of a task: a pair of tensors `(inputs, targets)`, or a map-style dataset of pairs."""

    def __len__(self) -> int:
        """How many samples the dataset has."""

    def __getitem__(self, index: int, /) -> Any:
        """One sample: a pair (input, target)."""


@spelled
@dataclass(frozen=True, eq=False)
class Task:
    """A task to train: everything that `descend train my_task.py` needs to know.

    Training minimizes the mean of `loss(model(inputs), targets)` over `train`. After each epoch
    the loss and the metrics are measured on `validation`, and once at the end on `test`.

    Args:
        model: the module to train; it is called with one batch of inputs.
        train: the training data: a pair of tensors `(inputs, targets)` whose first dimension
            counts the samples, or a map-style dataset (with `__len__` and `__getitem__`) of pairs
            `(input, target)`, which are stacked into batches.
        validation: the data that is measured after each epoch, in the same form.
        loss: `loss(outputs, targets)`, the mean over the batch as a scalar tensor.
        metrics: `metric(outputs, targets)` by name; each is called once with the outputs and the
            targets of all samples, and returns a number. The one named "accuracy" is printed in
            percent.
        test: data that is measured once, after training, in the same form; or None.
        batch_size: samples per batch, where nobody says otherwise.
        epochs: how often to go through the training data, where nobody says otherwise.

    Raises:
        TaskError: if a part cannot be used: which one, what it is and what it must be.

    Example:
        >>> task = Task(
        ...     model=torch.nn.Linear(4, 3),
        ...     train=(torch.randn(90, 4), torch.randint(3, (90,))),
        ...     validation=(torch.randn(30, 4), torch.randint(3, (30,))),
        ...     loss=torch.nn.functional.cross_entropy,
        ...     metrics={"accuracy": accuracy},
        ... )

    Source: empirical risk minimization; V. Vapnik, Principles of Risk Minimization for Learning
    Theory, NeurIPS 1991.
    """

    model: nn.Module
    train: Samples
    validation: Samples
    loss: Callable[[Any, Any], torch.Tensor]
    metrics: Mapping[str, Callable[[Any, Any], Any]] = field(default_factory=dict)
    test: Samples | None = None
    batch_size: int = 64
    epochs: int = 20

    def __post_init__(self) -> None:
        """Refuse a part that cannot be used."""
        if not isinstance(self.model, nn.Module):
            raise TaskError(f"Task: model must be a torch.nn.Module, and is {_kind(self.model)}")
        _check_data("train", self.train)
        _check_data("validation", self.validation)
        if self.test is not None:
            _check_data("test", self.test)
        for name in ("batch_size", "epochs"):
            COUNT.check(f"Task: {name}", getattr(self, name), TaskError)
        if not callable(self.loss):
            raise TaskError(
                f"Task: loss must be a function of (outputs, targets), and is {_kind(self.loss)}"
            )
        if not isinstance(self.metrics, Mapping):
            raise TaskError(
                f"Task: metrics must be a dict of functions by name, and is {_kind(self.metrics)}"
            )
        for name, metric in self.metrics.items():
            if not isinstance(name, str) or name == "loss":
                raise TaskError(
                    f"Task: the metric {name!r} needs another name: a string, and not 'loss', "
                    f"which is measured anyway"
                )
            if not callable(metric):
                raise TaskError(
                    f"Task: the metric {name!r} must be a function of (outputs, targets), and is "
                    f"{_kind(metric)}"
                )


def is_pair(data: object) -> TypeGuard[tuple[torch.Tensor, torch.Tensor]]:
    """Whether the data is a pair of tensors `(inputs, targets)`, and not a dataset."""
    return (
        isinstance(data, tuple | list)
        and len(data) == PAIR
        and all(isinstance(part, torch.Tensor) for part in data)
    )


def sample_count(data: Samples) -> int:
    """The number of samples in the data of a task."""
    return len(data[0]) if is_pair(data) else len(data)


def _check_data(name: str, data: Any) -> None:
    allowed = (
        "a pair of tensors (inputs, targets), or a dataset with __len__ and __getitem__ that "
        "gives pairs (input, target)"
    )
    if is_pair(data):
        inputs, targets = data
        if inputs.dim() == 0 or targets.dim() == 0 or len(inputs) != len(targets):
            raise TaskError(
                f"Task: {name} must hold as many inputs as targets along the first dimension, and "
                f"has inputs of shape {tuple(inputs.shape)} and targets of shape "
                f"{tuple(targets.shape)}"
            )
    elif isinstance(data, tuple | list) and any(isinstance(part, np.ndarray) for part in data):
        raise TaskError(
            f"Task: {name} must be {allowed}, and holds NumPy arrays; torch.from_numpy(array) "
            f"makes tensors of them"
        )
    elif (
        isinstance(data, torch.Tensor | IterableDataset)
        or not hasattr(data, "__getitem__")
        or not hasattr(data, "__len__")
        or isinstance(data, str | bytes | Mapping)
    ):
        raise TaskError(f"Task: {name} must be {allowed}, and is {_kind(data)}")
    if sample_count(data) == 0:
        raise TaskError(f"Task: {name} must hold at least one sample, and is empty")


def _kind(value: object) -> str:
    """How to call a value in a message: its type, or "the class X" for a class."""
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
