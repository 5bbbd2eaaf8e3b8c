"""The training loop: plain functions, and plain functions called back."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset, default_collate

from descend.checks import COUNT
from descend.errors import DescendError, DivergedError, ScheduleError, ScheduleTypeError, TaskError
from descend.run.loader import ResumableLoader
from descend.spelling import spelled
from descend.training.task import PAIR, Samples, Task, is_pair, sample_count
from descend.user_file import describe

OnBatch = Callable[[str, int, int], None]
FAR_ABOVE = 100  # times the first loss, or times 1 where that is less: no training ends there


class Stepped(Protocol):
    """A scheduler that counts steps, stepped after each step of the optimizer."""

    def step(self) -> object:
        """Go to the next step."""


@dataclass(frozen=True)
class Epoch:
    """The figures of one epoch of training.

    Args:
        epoch: its number, from 1.
        train_loss: the mean of the loss over the training samples, each measured in its batch,
            before that batch's step.
        validation_loss: the mean of the loss over the validation samples after the epoch.
        metrics: the task's metrics on the validation samples after the epoch, by name.
        lr: the learning rate of the first parameter group in the epoch's last step.
        seconds: how long the epoch took, its validation included.

    Example:
        >>> Epoch(1, 0.7, 0.5, {"accuracy": 0.9}, 0.001, 0.2).metrics["accuracy"]
        0.9

    Source: the terms are those of PyTorch's tutorials, https://pytorch.org/tutorials.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    metrics: dict[str, float]
    lr: float
    seconds: float


class Progress:
    """How far a training has come, as state that can be saved and loaded.

    Attributes:
        records: those of the epochs that are over.
        batches: how many batches of the epoch under way are done.
        total: the sum of the losses of the epoch under way, over its samples.
        seconds: how long it has taken so far.
        lr: the learning rate of its last step.
        first: the loss of the first batch of all.
    """

    batches: int
    total: float
    seconds: float
    lr: float

    def __init__(self) -> None:
        self.first: float | None = None
        self.records: list[Epoch] = []
        self._begin_epoch()

    def add(self, loss: float, samples: int, lr: float) -> None:
        """Count a batch."""
        if self.first is None:
            self.first = loss
        self.batches += 1
        self.total += loss * samples
        self.lr = lr

    def end_epoch(self, epoch: Epoch) -> None:
        """Keep the record of an epoch, and begin the next."""
        self.records.append(epoch)
        self._begin_epoch()

    def state_dict(self) -> dict[str, Any]:
        """All of it, as plain data."""
        return {**vars(self), "records": [asdict(record) for record in self.records]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.records = [Epoch(**record) for record in state["records"]]
        self.batches, self.total = state["batches"], state["total"]
        self.seconds, self.lr = state["seconds"], state["lr"]
        self.first = state.get("first")

    @property
    def divergence(self) -> str | None:
        """The sign that it diverged though every loss was finite, in words; or None."""
        if self.first is None or not self.records:
            return None
        last = self.records[-1]
        if last.train_loss <= FAR_ABOVE * max(abs(self.first), 1.0):
            return None
        return (
            f"the training loss was {self.first:.4g} in the first batch and {last.train_loss:.4g} "
            f"in epoch {last.epoch}, with lr {last.lr:g}: training diverged; try a lower lr"
        )

    def _begin_epoch(self) -> None:
        self.batches = 0
        self.total = self.seconds = self.lr = 0.0


@spelled
def fit(
    task: Task,
    optimizer: Optimizer,
    *,
    epochs: int,
    batch_size: int,
    seed: int = 0,
    scheduler: Stepped | None = None,
    on_batch: OnBatch | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> list[Epoch]:
    """Train the model of a task.

    Each epoch visits every training sample once, in batches in a new random order: zero the
    gradients, model, loss, backward, step. Then it measures the loss and the metrics on the
    validation data. Batches go to the device of the model's first parameter.

    Args:
        task: what to train; its model is changed in place.
        optimizer: what to step with; it holds the model's parameters.
        epochs: how often to visit every training sample, at least 1.
        batch_size: samples per step, at least 1; the last batch of an epoch can be smaller.
        seed: what the order of the samples, and what a dataset draws for each of them, follow
            from, as `ResumableLoader` says. Dropout and the like draw from torch's own generator:
            `torch.manual_seed` makes them repeat.
        scheduler: what drives the optimizer's hyperparameters: its `step()` is called after each
            step of the optimizer, before `on_batch`. A `descend.Scheduler`, or any other that
            counts steps; one that counts epochs is stepped in `on_epoch`.
        on_batch: called as `on_batch("train", done, batches)` after each step, and with
            "evaluate" after each batch measured. The state is whole when it is called: raising
            from it ends the training there.
        on_epoch: called with each epoch's record when the epoch is over.

    Returns:
        The epochs' records. The model is left in the mode (training or evaluation) it came in.

    Raises:
        ScheduleError: if the scheduler is none, or that of another optimizer.
        TaskError: if the task's model, data, loss or metrics fail, the cause chained; if a number
            cannot be used.
        DivergedError: if the loss becomes infinite or NaN; no step is taken with such a loss.

    Example:
        >>> optimizer = AdamW(task.model.parameters(), lr=1e-3)
        >>> fit(task, optimizer, epochs=3, batch_size=32)[-1].metrics

    Source: L. Bottou, F. Curtis and J. Nocedal, Optimization Methods for Large-Scale Machine
    Learning, SIAM Review 2018, section 4 (minibatches, random reshuffling).
    """
    epochs = COUNT.check("epochs", epochs, TaskError)
    batch_size = COUNT.check("batch_size", batch_size, TaskError)
    loader = ResumableLoader(training_loader(task, batch_size), seed)
    progress = Progress()
    train_epochs(
        task,
        optimizer,
        (iter(loader) for _ in range(epochs)),
        progress,
        batch_size=batch_size,
        scheduler=scheduler,
        on_batch=on_batch,
        on_epoch=on_epoch,
    )
    return progress.records


def training_loader(
    task: Task, batch_size: int, *, accumulate: int = 1, workers: int = 0
) -> "DataLoader[Any]":
    """The training data of a task in random order.

    Args:
        task: whose data.
        batch_size: samples per batch.
        accumulate: how many batches there are to a step. With more than one, the loader gives a
            list of them for each step.
        workers: how many processes fetch the samples; with none, this one does.
    """
    return DataLoader(
        _dataset(task.train),
        batch_size=batch_size * accumulate,
        shuffle=True,
        collate_fn=default_collate if accumulate == 1 else _Batches(batch_size),
        num_workers=workers,
        persistent_workers=workers > 0,
    )


@dataclass(frozen=True)
class _Batches:
    """Makes several batches of the samples of a step."""

    batch_size: int

    def __call__(self, samples: list[Any]) -> list[Any]:
        starts = range(0, len(samples), self.batch_size)
        return [default_collate(samples[at : at + self.batch_size]) for at in starts]


def train_epochs(
    task: Task,
    optimizer: Optimizer,
    epochs: Iterable[Iterator[Any]],
    progress: Progress,
    *,
    batch_size: int,
    accumulate: int = 1,
    scheduler: Stepped | None = None,
    on_batch: OnBatch | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> None:
    """Train on epochs that come from somewhere else, such as a `Run`: what `fit` does with each.

    Args:
        task: as for `fit`.
        optimizer: as for `fit`.
        epochs: the epochs, each the batches that are left of it, of `training_loader`.
        progress: how far the training has come before.
        batch_size: that of `training_loader`.
        accumulate: that of `training_loader`: a step follows the mean gradient of so many batches.
        scheduler: as for `fit`.
        on_batch: as for `fit`.
        on_epoch: as for `fit`.
    """
    _check_scheduler(scheduler, optimizer)
    samples, in_step = sample_count(task.train), batch_size * accumulate
    steps = -(-samples // in_step)
    training = task.model.training
    try:
        for rest in epochs:
            number = len(progress.records) + 1
            before, started = progress.seconds, time.perf_counter()
            task.model.train()
            for parts in _parts(task, rest if accumulate > 1 else ([batch] for batch in rest)):
                done = progress.batches + 1
                lr = float(optimizer.param_groups[0]["lr"])
                unit = "batch" if accumulate == 1 else "step"
                where = f"in {unit} {done} of {steps} of epoch {number}"
                here = min(in_step, samples - progress.batches * in_step)
                shares = [min(batch_size, here - at) / here for at in range(0, here, batch_size)]
                loss = _step(task, optimizer, parts, shares, (where, lr))
                if scheduler is not None:
                    scheduler.step()
                progress.add(loss, here, lr)
                progress.seconds = before + time.perf_counter() - started
                if on_batch is not None:
                    on_batch("train", done, steps)
            measured = evaluate(task, task.validation, batch_size=batch_size, on_batch=on_batch)
            validation_loss = measured.pop("loss")
            _check_finite("validation", validation_loss, f"after epoch {number}", progress.lr)
            seconds = before + time.perf_counter() - started
            record = Epoch(
                number, progress.total / samples, validation_loss, measured, progress.lr, seconds
            )
            progress.end_epoch(record)
            if on_epoch is not None:
                on_epoch(record)
    finally:
        task.model.train(training)


@spelled
def evaluate(
    task: Task, data: Samples, *, batch_size: int, on_batch: OnBatch | None = None
) -> dict[str, float]:
    """Measure the loss and the metrics of a task on some data, without training.

    The model is called in evaluation mode, without gradients, on batches in the data's order. What
    a dataset draws for a sample is the same each time.

    Args:
        task: what to measure.
        data: samples, in one of the forms that `Task` takes.
        batch_size: samples per call of the model, at least 1.
        on_batch: called as `on_batch("evaluate", done, batches)` after each batch.

    Returns:
        "loss", the mean of the loss over the samples, and each metric by its name.

    Raises:
        TaskError: if the task's model, data, loss or metrics fail, the cause chained; if a number
            cannot be used.

    Example:
        >>> evaluate(task, task.test, batch_size=256)["accuracy"]

    Source: as `fit`.
    """
    batch_size = COUNT.check("batch_size", batch_size, TaskError)
    training = task.model.training
    task.model.eval()
    total, samples = 0.0, sample_count(data)
    kept: list[tuple[object, object]] = []
    try:
        with torch.no_grad():
            loader = ResumableLoader(DataLoader(_dataset(data), batch_size=batch_size))
            batches = ([batch] for batch in loader)
            for done, ((inputs, targets),) in enumerate(_parts(task, batches), start=1):
                outputs, loss = _forward(task, inputs, targets)
                total += loss.item() * min(batch_size, samples - (done - 1) * batch_size)
                if task.metrics:
                    kept.append((outputs, targets))
                if on_batch is not None:
                    on_batch("evaluate", done, len(loader))
            measured = {"loss": total / samples}
            if task.metrics:
                measured |= _metrics(task, kept)
    finally:
        task.model.train(training)
    return measured


def _dataset(data: Samples) -> Any:
    return TensorDataset(*data) if is_pair(data) else data


def _parts(task: Task, steps: Iterator[Any]) -> Iterator[list[tuple[object, object]]]:
    """The batches of each step as inputs and targets on the device of the model."""
    parameter = next(task.model.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    over = object()
    while True:
        with _asking("reading the data"):
            batches: Any = next(steps, over)
            if batches is over:
                return
            for batch in batches:
                if not isinstance(batch, tuple | list) or len(batch) != PAIR:
                    raise TaskError("the dataset must give pairs (input, target), and gives others")
            parts = [(_to(batch[0], device), _to(batch[1], device)) for batch in batches]
        yield parts


def _step(
    task: Task,
    optimizer: Optimizer,
    parts: Sequence[tuple[object, object]],
    shares: Sequence[float],
    about: tuple[str, float],
) -> float:
    """Take one step; the loss before it. L-BFGS asks for the loss several times.

    Args:
        task: whose model and loss.
        optimizer: what steps.
        parts: the batches of the step.
        shares: of each in the samples of the step.
        about: where that is and with which lr, for an error.
    """
    started = False

    def closure() -> float:
        nonlocal started
        optimizer.zero_grad()
        total = 0.0
        for (inputs, targets), share in zip(parts, shares, strict=True):
            _, loss = _forward(task, inputs, targets)
            total += loss.item() * share
            if not started:  # later ones are trials: a line search comes back from one too far away
                _check_finite("training", total, *about)
            with _asking("the backward pass from the loss"):
                part = loss if share == 1 else loss * share
                part.backward()  # type: ignore[no-untyped-call]
        started = True
        return total

    return optimizer.step(closure)


def _forward(task: Task, inputs: object, targets: object) -> tuple[object, torch.Tensor]:
    """The model's outputs and their loss, a scalar tensor."""
    with _asking("the model", inputs):
        outputs = task.model(inputs)
    with _asking("the loss", outputs, targets):
        loss = task.loss(outputs, targets)
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        came = (
            f"a tensor of shape {tuple(loss.shape)}"
            if isinstance(loss, torch.Tensor)
            else f"a {type(loss).__name__}"
        )
        raise TaskError(
            f"the loss must return a tensor of one number, the mean over the batch, and returned "
            f"{came}"
        )
    return outputs, loss


def _metrics(task: Task, kept: list[tuple[object, object]]) -> dict[str, float]:
    """Each metric over all samples at once: the mean over batches is wrong for most metrics."""
    outputs = [output for output, _ in kept if isinstance(output, torch.Tensor)]
    targets = [target for _, target in kept if isinstance(target, torch.Tensor)]
    if len(outputs) < len(kept) or len(targets) < len(kept):
        raise TaskError(
            "metrics need outputs and targets that are tensors; leave the metrics out, or put "
            "what they measure into tensors"
        )
    with _asking("joining the outputs of all batches"):
        all_outputs, all_targets = torch.cat(outputs), torch.cat(targets)
    measured: dict[str, float] = {}
    for name, metric in task.metrics.items():
        with _asking(f"the metric {name!r}", all_outputs, all_targets):
            measured[name] = float(metric(all_outputs, all_targets))
    return measured


def _to(value: object, device: torch.device) -> object:
    return value.to(device) if isinstance(value, torch.Tensor) else value


def _check_finite(which: str, loss: float, where: str, lr: float) -> None:
    if not math.isfinite(loss):
        raise DivergedError(
            f"the {which} loss became {loss} {where}, with lr {lr:g}: training diverged; try a "
            f"lower lr, and look for a division by zero or a logarithm of zero in the model, the "
            f"loss and the data"
        )


def _check_scheduler(scheduler: object, optimizer: Optimizer) -> None:
    if scheduler is None:
        return
    if not callable(getattr(scheduler, "step", None)):
        raise ScheduleTypeError(
            f"fit: scheduler must have a step(), and is a {type(scheduler).__name__}; "
            f"descend.Scheduler(optimizer, lr=schedule) makes one of a schedule"
        )
    if getattr(scheduler, "optimizer", optimizer) is not optimizer:
        raise ScheduleError(
            f"fit: the scheduler, a {type(scheduler).__name__}, drives another optimizer than the "
            f"one that steps here; build it on this one"
        )


@contextmanager
def _asking(what: str, *given: object) -> Iterator[None]:
    """Tell which part of the task failed; the cause stays chained, with the user's frames."""
    try:
        yield
    except DescendError:
        raise
    except Exception as error:
        shapes = ", ".join(str(tuple(x.shape)) for x in given if isinstance(x, torch.Tensor))
        given_what = f", given {shapes}," if shapes else ""
        raise TaskError(f"{what}{given_what} failed: {describe(error)}") from error
