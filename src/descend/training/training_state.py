"""All of a trainer that has to survive: its counters, and the states of callbacks and loggers."""

import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from descend.errors import ResumeWarning, TrainerError
from descend.states import mapped

if TYPE_CHECKING:
    from descend.training.trainer import Trainer


class TrainingState:
    """The trainer's entry in a checkpoint.

    Args:
        trainer: whose.

    Attributes:
        validated: the batch after which the last validation was over.
        validating: whether one is under way.
        epochs: of how many epochs all batches are done.
        stopped: what ended the training early: "max_steps", "max_time", a callback's reason; or "".
        seconds: how long it has taken in the processes before this one.
        hparams: the module's own, with which `load_from_checkpoint` builds it.
    """

    def __init__(self, trainer: "Trainer") -> None:
        self._trainer = trainer
        self._frozen: dict[str, Any] | None = None
        self.validated = self.epochs = 0
        self.validating = False
        self.stopped = ""
        self.seconds = 0.0
        self.hparams: dict[str, Any] = {}

    def freeze(self) -> None:
        """Be what it is now, whatever the callbacks do in a validation: that is not saved half."""
        self.validating = True
        self._frozen = mapped(self.state_dict(), lambda leaf: leaf)

    def unfreeze(self) -> None:
        """Be what it is."""
        self._frozen, self.validating = None, False

    def state_dict(self) -> dict[str, Any]:
        """All of it, as plain data and tensors."""
        if self._frozen is not None:
            return self._frozen
        trainer = self._trainer
        return {
            "validated": self.validated,
            "validating": self.validating,
            "epochs": self.epochs,
            "stopped": self.stopped,
            "seconds": trainer.elapsed,
            "step": trainer.step.state_dict(),
            "metrics": trainer.metrics.state_dict(dict(_measuring(trainer.model))),
            "hparams": self.hparams,
            "callbacks": _states(trainer.callbacks),
            "loggers": _states(trainer.loggers),
            "measures": _measures(trainer.model),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there.

        Raises:
            TrainerError: two callbacks have one `state_key`.
        """
        self.validated, self.stopped = state["validated"], state["stopped"]
        self.validating, self.epochs = state["validating"], state["epochs"]
        self.seconds = state["seconds"]
        self._trainer.step.load_state_dict(state["step"])
        measures = dict(_measuring(self._trainer.model))
        self._trainer.metrics.load_state_dict(state["metrics"], measures)
        for name, measure in measures.items():
            measure.reset()  # of what a fit before, with the same module, has left in it
            for key, value in state.get("measures", {}).get(name, {}).items():
                setattr(measure, key, _on_device(value, getattr(measure, "device", None)))
        for kind, things in (
            ("callbacks", self._trainer.callbacks),
            ("loggers", self._trainer.loggers),
        ):
            saved = dict(state[kind])
            for key, thing in keyed(things).items():
                if key in saved and hasattr(thing, "load_state_dict"):
                    thing.load_state_dict(saved.pop(key))
            if saved:
                warnings.warn(
                    f"the run had {kind} that it goes on without: {', '.join(saved)}",
                    ResumeWarning,
                    stacklevel=2,
                )


def _measuring(module: Any) -> Iterator[tuple[str, Any]]:
    """The torchmetrics of a module, whose `state_dict` leaves their sums out."""
    for name, one in module.named_modules():
        if isinstance(getattr(one, "_defaults", None), dict) and hasattr(one, "_update_count"):
            yield name, one


def _measures(module: Any) -> dict[str, Any]:
    """The sums of each, in the middle of an epoch."""
    return {
        name: {key: getattr(one, key) for key in (*one._defaults, "_update_count")}
        for name, one in _measuring(module)
        if one._update_count
    }


def _on_device(value: Any, device: Any) -> Any:
    return mapped(value, lambda leaf: leaf.to(device) if hasattr(leaf, "to") else leaf)


def keyed(things: list[Any]) -> dict[str, Any]:
    """Callbacks or loggers by the names under which their states are saved.

    Raises:
        TrainerError: two have one name.
    """
    found: dict[str, Any] = {}
    for thing in things:
        key = str(getattr(thing, "state_key", type(thing).__name__))
        if key in found:
            raise TrainerError(
                f"two of {', '.join(type(one).__name__ for one in things)} have the state_key "
                f"{key!r}: give one of them another, by a property of that name"
            )
        found[key] = thing
    return found


def _states(things: list[Any]) -> dict[str, Any]:
    states = {key: thing.state_dict() for key, thing in keyed(things).items()
              if hasattr(thing, "state_dict")}  # fmt: skip
    return {key: state for key, state in states.items() if state}
