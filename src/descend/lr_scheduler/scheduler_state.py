"""The state of a scheduler: its parts as plain data, and the checks before a load."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from descend.checks import FINITE, Range, plain_number
from descend.errors import StateError
from descend.format import counted
from descend.states import mapped


def plain(value: Any) -> Any:
    """A part of a configuration as plain data: no tensors, no tuples, no counters."""
    return mapped(value, lambda leaf: leaf.tolist() if isinstance(leaf, Tensor) else leaf)


def bases_in(state: dict[str, Any]) -> dict[str, Any]:
    """The bases in a state, by hyperparameter; those of the lr stand where torch's do."""
    of_lr = {"lr": state["base_lrs"]} if "base_lrs" in state else {}
    return {**of_lr, **state.get("bases", {})}


def refuse_damaged(owner: str, state: Any, names: Iterable[str], least: int) -> None:
    """Raise where a state lacks one of some names, or its position or its bases are none."""
    if not isinstance(state, dict):
        raise StateError(f"{owner}: a state is a dict, got {type(state).__name__}")
    missing = [name for name in (*names, "last_epoch") if name not in state]
    if missing:
        raise StateError(
            f"{owner}: the state has no {missing[0]!r}, so it is not of a "
            f"{owner.partition('.')[0]}; it has {', '.join(map(repr, state))}"
        )
    epoch, fraction = state["last_epoch"], state.get("_fraction", 0)
    whole = plain_number(epoch)
    if not isinstance(whole, int) or whole < least:
        raise StateError(
            f"{owner}: last_epoch must be a whole number of at least {least}, got {epoch!r}"
        )
    if not Range(0, 1).admits(fraction):
        raise StateError(f"{owner}: _fraction must be a number from 0 to 1, got {fraction!r}")
    if not isinstance(state.get("bases", {}), dict):
        raise StateError(f"{owner}: bases must be a dict of lists, got {state['bases']!r}")
    for key, known in bases_in(state).items():
        if not isinstance(known, list) or not all(map(FINITE.admits, known)):
            raise StateError(
                f"{owner}: the bases of {key} must be a list of numbers, got {known!r}"
            )


def refuse_other(
    owner: str, state: dict[str, Any], config: dict[str, Any], keys: tuple[str, ...], count: int
) -> None:
    """Raise where a state is of another configuration, of other groups or hyperparameters."""
    for name, value in config.items():
        here, there = plain(value), plain(state[name])
        if there != here:
            raise StateError(
                f"{owner}: the state has {name}={there!r}, and this scheduler {name}={here!r}; "
                "make it the same, or load with strict=False to keep what is here"
            )
    for key, known in bases_in(state).items():
        if key not in (*keys, "lr"):
            raise StateError(
                f"{owner}: the state has bases of {key}, which this scheduler does not drive; "
                f"it drives {', '.join(keys)}"
            )
        if len(known) != count:
            raise StateError(
                f"{owner}: the state is of {counted(len(known), 'group')}, and the optimizer has "
                f"{count}; load with strict=False to take over those that are there"
            )
