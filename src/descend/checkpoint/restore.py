"""A saved state put back into the objects that it is of, all of them or none."""

import copy
import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from descend.checkpoint.source import locate_and_load
from descend.errors import CheckpointError, DescendError


class Stateful(Protocol):
    """Whatever has a state: models, optimizers, schedulers, scalers, averages."""

    def state_dict(self) -> Mapping[str, Any]:
        """The state, as plain data and tensors."""

    def load_state_dict(self, state_dict: Any, /) -> Any:
        """Take a state over."""


@dataclass(frozen=True)
class Restored:
    """What became of one object in `restore`.

    Args:
        matched: the names in the model that were filled from the checkpoint.
        missed: the names in the model that kept their values, each with the reason.
        unused: the names in the checkpoint that were left out, each with the reason.

    Example:
        >>> print(Restored(("body.weight",), {"head.weight": "not in the checkpoint"}, {}))
        1 loaded
        missed: head.weight (not in the checkpoint)
        unused: none

    Source: torch's `Module.load_state_dict`, which names the keys but not the shapes.
    """

    matched: tuple[str, ...]
    missed: Mapping[str, str]
    unused: Mapping[str, str]

    def __str__(self) -> str:
        """Three lines: how many were loaded, what was missed, what was unused."""

        def listed(reasons: Mapping[str, str]) -> str:
            return ", ".join(f"{name} ({why})" for name, why in reasons.items()) or "none"

        return (
            f"{len(self.matched)} loaded\nmissed: {listed(self.missed)}\n"
            f"unused: {listed(self.unused)}"
        )


def restore(
    path: str | os.PathLike[str], *, strict: bool = True, **objects: Stateful
) -> dict[str, Any]:
    """Load a checkpoint into the objects that it is of, all of them or none.

    Weights alone are `restore(path, model=model)`. The objects stay on their devices, whatever
    the device was that they were saved from. A network that has changed since is
    `restore(path, model=model, strict=False)`: what fits is loaded, and the report says the rest.

    Args:
        path: a checkpoint, the folder of a run (its newest valid one), or a file of torch's.
        strict: whether everything must fit. If not, a model takes the tensors whose names and
            shapes are its own; another object gets `strict=False` if it knows that; one that is
            not in the checkpoint is left as it is.
        objects: whatever has `state_dict` and `load_state_dict`, by its name in the checkpoint.

    Returns:
        For each object what became of it: a `Restored` for a model; for another what its
        `load_state_dict` returned, such as the `LoadReport` of an optimizer; None where it was
        not in the checkpoint.

    Raises:
        CheckpointError: if the checkpoint cannot be loaded, or an object does not fit; the cause
            is chained. No object has then changed.

    Example:
        >>> print(restore("runs/mine", model=model, strict=False)["model"])
        2 loaded
        missed: none
        unused: none

    Source: torch.nn.Module.load_state_dict.
    """
    refuse_stateless("restore", objects)
    used, state = locate_and_load(Path(path))
    missing = [name for name in objects if name not in state]
    if missing and strict:
        raise CheckpointError(
            f"cannot restore {', '.join(missing)} from {used}: it holds {', '.join(state)}; give "
            f"the objects the names they have there, or strict=False"
        )
    fitting = {name: thing for name, thing in objects.items() if name in state}
    reports = restore_all(str(used), state, fitting, strict=strict)
    return {name: reports.get(name) for name in objects}


def restore_all(
    source: str, state: Mapping[str, Any], objects: Mapping[str, Stateful], *, strict: bool = True
) -> dict[str, Any]:
    """Give each object its entry of the state; if one refuses, put the others back.

    Args:
        source: where the state is from, for the messages.
        state: holds an entry for each object.
        objects: by name.
        strict: as for `restore`.

    Returns:
        By name, what each made of it.

    Raises:
        CheckpointError: for the first object that refuses.
    """
    before = {
        name: copy.deepcopy(dict(thing.state_dict()))
        for name, thing in objects.items()
        if not (isinstance(thing, torch.nn.Module) and _fits(thing, state[name]))
    }
    reports: dict[str, Any] = {}
    name = ""
    try:
        # Modules that fit come last: nothing can fail once one of them has changed
        for name in sorted(objects, key=lambda name: name not in before):
            reports[name] = _load(objects[name], state[name], strict)
    except Exception as error:
        for other, saved in before.items():
            if other in reports or other == name:
                objects[other].load_state_dict(saved)
        text = str(error) if isinstance(error, DescendError) else f"{type(error).__name__}: {error}"
        raise CheckpointError(
            f"cannot restore {name} from {source}: {' '.join(text.split())}; nothing was changed"
        ) from error
    return {name: reports[name] for name in objects}


def refuse_stateless(what: str, objects: Mapping[str, object]) -> None:
    """Refuse what has no state_dict and load_state_dict."""
    for name, thing in objects.items():
        for method in ("state_dict", "load_state_dict"):
            if not callable(getattr(thing, method, None)) or isinstance(thing, type):
                raise CheckpointError(
                    f"{what}: {name} must have {method}(), and is "
                    + (f"the class {thing.__name__}" if isinstance(thing, type) else
                       f"a {type(thing).__name__}")
                    + "; give a model, an optimizer, a scheduler or the like"
                )  # fmt: skip


def _load(thing: Stateful, state: Any, strict: bool) -> Any:
    if isinstance(thing, torch.nn.Module):
        if not strict:
            return _load_what_fits(thing, state)
        thing.load_state_dict(state)
        return Restored(tuple(state), {}, {})
    if not strict and "strict" in inspect.signature(thing.load_state_dict).parameters:
        return thing.load_state_dict(state, strict=False)  # type: ignore[call-arg]
    return thing.load_state_dict(state)


def _load_what_fits(module: torch.nn.Module, state: Mapping[str, Any]) -> Restored:
    """Load the tensors whose names and shapes are the module's own."""
    here = module.state_dict()
    matched: dict[str, Any] = {}
    missed = {name: "not in the checkpoint" for name in here if name not in state}
    unused = {name: "not in the model" for name in state if name not in here}
    for name in [name for name in here if name in state]:
        mine, saved = _shape(here[name]), _shape(state[name])
        if mine == saved:
            matched[name] = state[name]
        else:
            missed[name] = unused[name] = f"shape {saved} in the checkpoint, {mine} in the model"
    module.load_state_dict(matched, strict=False)
    return Restored(tuple(name for name in here if name in matched), missed, unused)


def _fits(module: torch.nn.Module, state: Any) -> bool:
    """Whether a module certainly takes a state."""
    here = module.state_dict()
    return (
        isinstance(state, Mapping)
        and here.keys() == state.keys()
        and all(
            isinstance(here[name], torch.Tensor) and _shape(here[name]) == _shape(state[name])
            for name in here
        )
    )


def _shape(value: object) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None
