"""A module and what makes its data, trained as a task is."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch.optim import Optimizer

from descend.checkpoint.randomness import random_states, restore_random_states
from descend.errors import TaskError
from descend.lr_scheduler import Scheduler
from descend.training.data_module import DataModule
from descend.training.loaders import given_loaders
from descend.training.module import Module

EPOCHS = 20  # where nobody says otherwise, as of a Task


@dataclass(frozen=True, eq=False)
class ModuleTask:
    """A module and what makes its data.

    Args:
        model: the module. What its `configure_optimizers` returns is not used.
        make_data: the class of its data.
        epochs: how often to go through the training data, where nobody says otherwise.
        began: the random generators' states where the module was begun to be made.

    Example:
        >>> ModuleTask(Net(), Digits).epochs
        20
    """

    model: Module
    make_data: type[DataModule]
    epochs: int = EPOCHS
    began: dict[str, Any] = field(default_factory=random_states)

    def data(self, batch_size: int | None, workers: int) -> DataModule:
        """The data, read and split: by the same numbers whatever the module has drawn.

        Args:
            batch_size: samples per batch, of data whose constructor takes it; None for their own.
            workers: how many processes fetch the samples: as `num_workers`, where there are any.

        Raises:
            TaskError: its constructor does not take what is given.
        """
        given: dict[str, Any] = {} if batch_size is None else {"batch_size": batch_size}
        given |= {"num_workers": workers} if workers else {}
        kind = self.make_data
        takes = inspect.signature(kind).parameters
        for name in given:
            if name not in takes:
                option = {"batch_size": "--batch-size", "num_workers": "--workers"}[name]
                raise TaskError(
                    f"{option} {given[name]}: the constructor of {kind.__name__} takes no {name}; "
                    f"give it one, or leave {option} out"
                )
        restore_random_states(self.began)
        data = kind(**given)
        data.prepare_data = _once(data.prepare_data)  # type: ignore[method-assign]
        data.setup = _once(data.setup)  # type: ignore[method-assign]
        data.prepare_data()
        data.setup("fit")
        return data

    def trained_by(self, optimizer: Optimizer, scheduler: Scheduler | None) -> Module:
        """The module, which an optimizer trains in place of its own.

        Raises:
            TaskError: it takes its steps by hand.
        """
        if not self.model.automatic_optimization:
            raise TaskError(
                f"{type(self.model).__name__} takes its steps by hand (automatic_optimization = "
                f"False), so that no other optimizer can train it; start its own script"
            )
        found = optimizer if scheduler is None else ([optimizer], [scheduler])
        self.model.__dict__["configure_optimizers"] = lambda: found
        return self.model

    def loader(self, data: DataModule, part: str) -> Any:
        """The loader of a part, "train", "val" or "test", that the data or the module make."""
        return given_loaders(None, (data, self.model), f"{part}_dataloader")


def _once(method: Callable[..., None]) -> Callable[..., None]:
    """A method that does nothing when it is called with the same again, as by the trainer."""
    done = set[tuple[Any, ...]]()

    def called(*given: Any) -> None:
        if given not in done:
            done.add(given)
            method(*given)

    return called
