"""The state of L-BFGS, as torch keeps it: one entry, for all parameters together."""

import copy
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from descend.base import origin
from descend.base.parameters import described
from descend.engine.rule import State
from descend.errors import ShapeError, StateError
from descend.optimizers.lbfgs.curvature import HISTORY
from descend.optimizers.lbfgs.flat import Flat


def _whole(value: Any) -> int:
    if not float(value).is_integer() or value < 0:
        raise ValueError
    return int(value)


def _scalar(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().clone().reshape(())
    return torch.tensor(float(value), dtype=torch.float64)


def _vector(value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.ndim != 1 or not value.is_floating_point():
        raise TypeError
    return value.detach().clone()


COUNTS = ("func_evals", "n_iter")
MEMORY = ("d", "t", *HISTORY, "H_diag", "prev_flat_grad", "prev_loss")
SCRATCH = "al"
"""The room for one recursion, which torch keeps besides."""

KINDS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "func_evals": (_whole, "a whole number of at least 0"),
    "n_iter": (_whole, "a whole number of at least 0"),
    "d": (_vector, "a vector"),
    "t": (float, "a number"),
    "old_dirs": (lambda value: list(map(_vector, value)), "a list of vectors"),
    "old_stps": (lambda value: list(map(_vector, value)), "a list of vectors"),
    "ro": (lambda value: list(map(_scalar, value)), "a list of numbers"),
    "H_diag": (_scalar, "a number"),
    "prev_flat_grad": (_vector, "a vector"),
    "prev_loss": (float, "a number"),
}
"""How an entry is copied out of a saved state, and what it must be."""


def check(owner: str, state: Mapping[str, Any], flat: Flat) -> None:
    """Refuse a memory of other parameters.

    Raises:
        ShapeError: a vector has another number of elements than the parameters.
    """
    for vector in _vectors(state):
        if vector.numel() != flat.size:
            raise ShapeError(
                f"{owner}: its memory is of {vector.numel()} numbers, and the parameters have "
                f"{flat.size}; add parameters with add_param_group, or start the memory anew with "
                "optimizer.state.clear()"
            )


def follow(state: State, flat: Flat) -> None:
    """Let a memory go where the parameters are, if their device or dtype has changed."""
    if any((v.dtype, v.device) != (flat.dtype, flat.device) for v in _vectors(state)):
        state.update(_each(state, lambda tensor: tensor.to(flat.device, flat.dtype)))


def arranged(state: Mapping[str, Any], sizes: list[int], places: list[int]) -> dict[str, Any]:
    """A memory whose parameters came in another order.

    Args:
        state: the memory.
        sizes: of the pieces of its vectors, as they come.
        places: the place of each piece in the order wanted.
    """
    order = sorted(range(len(places)), key=places.__getitem__)

    def arrange(tensor: Tensor) -> Tensor:
        pieces = torch.split(tensor, sizes) if tensor.ndim else ()
        return torch.cat([pieces[index] for index in order]) if pieces else tensor

    return {**state, **_each(state, arrange)}


def loaded_memory(owner: str, place: str, entry: object, flat: Flat) -> dict[str, Any]:
    """A copy of a saved memory, descend's or torch's, checked.

    Args:
        owner: the optimizer's name, for messages.
        place: how a message names the parameter that has it.
        entry: the saved state of that parameter.
        flat: this optimizer's parameters.

    Raises:
        ShapeError: it is of another number of elements than the parameters.
        StateError: it is another optimizer's, or damaged.
    """
    if not isinstance(entry, Mapping):
        raise StateError(
            f"{owner}: the state of {place} is {described(entry)}, but it must be a dict"
        )
    saved = {name: value for name, value in entry.items() if value is not None}
    saved.pop(SCRATCH, None)
    if not saved:
        return {}
    has = f"{owner}: the state of {place} has {', '.join(map(repr, saved))}, but "
    if not any(name in KINDS for name in saved):
        raise StateError(
            f"{has}{owner} keeps {', '.join(map(repr, KINDS))}; it was saved by "
            f"{origin.by_entry(saved.keys())}: load it into that one"
        )
    # The very first step may have found nothing to do.
    needed = (*COUNTS, *MEMORY) if saved.get("n_iter") else COUNTS
    missing = [name for name in needed if name not in saved]
    if missing:
        raise StateError(f"{has}lacks {', '.join(map(repr, missing))}; it is damaged")
    memory: dict[str, Any] = {}
    for name in needed:
        convert, kind = KINDS[name]
        try:
            memory[name] = tree_map_only(
                Tensor, lambda tensor: tensor.to(flat.device), convert(saved[name])
            )
        except (TypeError, ValueError, RuntimeError):
            raise StateError(
                f"{owner}: {name!r} of {place} in the state is {described(saved[name])}, "
                f"but it must be {kind}"
            ) from None
    if len({len(memory.get(name, ())) for name in HISTORY}) > 1:
        raise StateError(
            f"{owner}: {', '.join(map(repr, HISTORY))} of {place} in the state differ in length; "
            "it is damaged"
        )
    for vector in _vectors(memory):
        if vector.numel() != flat.size:
            raise ShapeError(
                f"{owner}: the memory of {place} in the state is of {vector.numel()} numbers, but "
                f"the parameters have {flat.size}; the model was another one"
            )
    own = {name: copy.deepcopy(value) for name, value in saved.items() if name not in KINDS}
    return {**memory, **own}


def _vectors(state: Mapping[str, Any]) -> Iterator[Tensor]:
    if "d" in state:
        yield state["d"]
        yield state["prev_flat_grad"]
    yield from chain(state.get("old_dirs", ()), state.get("old_stps", ()))


def _each(state: Mapping[str, Any], change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    return {name: tree_map_only(Tensor, change, state[name]) for name in MEMORY if name in state}
