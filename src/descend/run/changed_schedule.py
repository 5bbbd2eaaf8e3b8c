"""Schedulers that were given other arguments since the checkpoint: the step is the run's."""

from collections.abc import Mapping
from typing import Any

from descend.errors import StateError
from descend.lr_scheduler.scheduler_base import LRScheduler


class ChangedSchedule:
    """A scheduler that takes the position of a state, and keeps its own arguments if they differ.

    A longer training often has a longer curve: it goes on there, at the step of the run.

    Args:
        name: of the scheduler in the run.
        scheduler: one of descend's.

    Attributes:
        differs: what the state has otherwise, in words; None where all is the same.
    """

    def __init__(self, name: str, scheduler: LRScheduler) -> None:
        self._name, self._scheduler = name, scheduler
        self.differs: str | None = None

    def state_dict(self) -> dict[str, Any]:
        """That of the scheduler."""
        return self._scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go where the state is.

        Raises:
            StateError: it is of another kind of scheduler.
        """
        try:
            self._scheduler.load_state_dict(state)
        except StateError as error:
            self._scheduler.load_state_dict(state, strict=False)
            _, _, text = str(error).partition(": ")
            self.differs = f"{self._name}: {text.partition(';')[0]}"


def changeable(objects: Mapping[str, Any]) -> dict[str, ChangedSchedule]:
    """Those of some objects that are schedulers, for a load.

    Args:
        objects: by name.
    """
    return {
        name: ChangedSchedule(name, thing)
        for name, thing in objects.items()
        if isinstance(thing, LRScheduler)
    }
