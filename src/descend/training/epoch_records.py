"""The figures of the epochs of a task's training, and whether they say that it diverged."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from descend.errors import TaskError
from descend.training.callbacks.callback import Callback
from descend.training.optimization import refuse_diverged
from descend.training.task_module import TaskModule

VALIDATION = "validation_"  # before a metric's name; a module may say val_
FAR_ABOVE = 100  # times the first loss, or times 1 where that is less: no training ends there


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

    def figures(self) -> dict[str, Any]:
        """The figures by the names that the log has.

        Example:
            >>> list(Epoch(1, 0.7, 0.5, {"accuracy": 0.9}, 0.001, 0.2).figures())
            ['train_loss', 'validation_loss', 'validation_accuracy', 'lr', 'seconds']
        """
        return {
            "train_loss": self.train_loss,
            "validation_loss": self.validation_loss,
            **{f"validation_{name}": value for name, value in self.metrics.items()},
            "lr": self.lr,
            "seconds": round(self.seconds, 4),
        }


class EpochRecords(Callback):
    """Keeps the record of each epoch, logs it, and ends a training that diverged.

    Attributes:
        begins: called when it is known where the run starts.
        batch_done: called with the number of batches that are done in the epoch.
        epoch_done: called with each epoch's record, after it was logged.
        records: those of the epochs that are over, and of a part where the training ends in one.
        partial: whether the last record is of such a part.
        first: the loss of the first batch of all.
    """

    begins: Callable[[], None]
    batch_done: Callable[[int], None]
    epoch_done: Callable[[Epoch], None]

    def __init__(self) -> None:
        self.records: list[Epoch] = []
        self.partial = False
        self.first: float | None = None
        self.begins = lambda: None
        self.batch_done = lambda done: None
        self.epoch_done = lambda record: None
        self._losses, self._batches = 0.0, 0  # of the epoch under way, of a module that is no task
        self._seconds = self._since = 0.0  # of the epoch under way; up to when they are counted

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Begin to measure the time of an epoch."""
        self._since = time.monotonic()

    on_train_epoch_start = on_train_start

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        """Tell that the run is open."""
        self.begins()

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the first loss of all; have the validation data measured at the last step too."""
        if isinstance(module, TaskModule):
            loss = trainer.metrics.series["train_loss"].value
        else:
            loss = outputs["loss"]
            self._losses, self._batches = self._losses + float(loss), self._batches + 1
        if self.first is None:
            self.first = float(loss)
        if 0 <= trainer.max_steps <= trainer.step.taken:
            trainer.should_stop = True
        self._tick()
        self.batch_done(batch_idx + 1)

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """Keep the record."""
        found = dict(trainer.metrics.latest)
        if isinstance(module, TaskModule):
            metrics = list(module.task.metrics)
        else:
            found = self._of_module(found)
            metrics = [
                name.removeprefix(VALIDATION)
                for name in found
                if name.startswith(VALIDATION) and name != f"{VALIDATION}loss"
            ]
        number, lr = trainer.current_epoch + 1, float(trainer.step.lrs[0])
        refuse_diverged("validation", found["validation_loss"], f"after epoch {number}", lr)
        record = Epoch(
            number,
            found["train_loss"],
            found["validation_loss"],
            {name: found[f"{VALIDATION}{name}"] for name in metrics},
            lr,
            self._tick(),
        )
        self._seconds = 0.0
        if self.partial:  # more steps have gone on: this is the whole of that epoch, or more of it
            before = self.records.pop()
            record = replace(record, seconds=before.seconds + record.seconds)
        self.partial = trainer.state.epochs <= trainer.current_epoch
        self.records.append(record)
        logged = record.figures()
        if not isinstance(module, TaskModule):  # which has logged its own
            logged = {name: logged[name] for name in ("train_loss", "lr", "seconds")}
        trainer.log_values(logged)
        self.epoch_done(record)

    def state_dict(self) -> dict[str, Any]:
        """All of it, as plain data."""
        records = [asdict(record) for record in self.records]
        part: dict[str, Any] = {"partial": True} if self.partial else {}
        if self._batches:
            part |= {"losses": self._losses, "batches": self._batches}
        return {"records": records, "first": self.first, "seconds": self._seconds, **part}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.records = [Epoch(**record) for record in state["records"]]
        self.first, self._seconds = state["first"], state["seconds"]
        self.partial = state.get("partial", False)
        self._losses, self._batches = state.get("losses", 0.0), state.get("batches", 0)

    @property
    def epochs(self) -> int:
        """How many epochs are over."""
        return len(self.records) - self.partial

    @property
    def seconds(self) -> float:
        """How long the epochs and the batches have taken, in all processes."""
        return sum(record.seconds for record in self.records) + self._seconds

    def _of_module(self, latest: Mapping[str, float]) -> dict[str, float]:
        """The values of a module by the names that those of a task have.

        Raises:
            TaskError: it has not logged the loss on the validation data.
        """
        found = {
            f"{VALIDATION}{name.removeprefix('val_')}" if name.startswith("val_") else name: value
            for name, value in latest.items()
        }
        if f"{VALIDATION}loss" not in found:
            raise TaskError(
                f"the module logs no val_loss; logged: {', '.join(latest) or 'nothing'}; give its "
                f'validation_step self.log("val_loss", loss)'
            )
        found["train_loss"] = self._losses / max(1, self._batches)
        self._losses, self._batches = 0.0, 0
        return found

    def _tick(self) -> float:
        """The seconds of the epoch under way up to now."""
        now = time.monotonic()
        self._seconds, self._since = self._seconds + now - self._since, now
        return self._seconds

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
