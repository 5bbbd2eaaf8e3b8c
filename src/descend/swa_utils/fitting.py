"""Whether a model is one that can be averaged into another: the same tensors in the same order."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import is_lazy

from descend.checkpoint.state_diff import kind_of
from descend.errors import ParameterError, ParameterTypeError
from descend.format import counted, first_names

WRAPPERS = frozenset(("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))
"""Parts of names that come from what is put around a model: parallel training, compiling."""


def refuse_other_kind(owner: str, model: object) -> None:
    """Raise unless something is a module.

    Args:
        owner: who asks, for the message.
        model: what was given.

    Raises:
        ParameterTypeError: it is none.
    """
    if not isinstance(model, Module):
        raise ParameterTypeError(
            f"{owner}: a model is a torch.nn.Module, got {type(model).__name__}"
        )


def refuse_unfit(
    here: Module, model: Module, averages: Sequence[Tensor], currents: Sequence[Tensor], kind: str
) -> None:
    """Raise unless the tensors of a model can be averaged into those that are here.

    Args:
        here: the module that holds the averages.
        model: the one that was given.
        averages: the parameters, or the buffers, of the one.
        currents: those of the other.
        kind: "parameter" or "buffer".

    Raises:
        ParameterError: they are others; with their names.
    """
    if len(averages) != len(currents):
        raise ParameterError(_count_differs(here, model, kind))
    for index, (average, current) in enumerate(zip(averages, currents, strict=True)):
        if is_lazy(average) or is_lazy(current):
            place = "averaged model" if is_lazy(average) else "model"
            name = _names(here if is_lazy(average) else model, kind)[index]
            raise ParameterError(
                f"update_parameters: the {kind} {name!r} of the {place} has no shape yet; run a "
                "batch through the model before it is averaged"
            )
        if average.shape != current.shape or not _same_kind(average.dtype, current.dtype):
            raise ParameterError(
                f"update_parameters: the {kind} {_names(model, kind)[index]!r} is "
                f"{kind_of(current)} in the model, and {_names(here, kind)[index]!r} in the "
                f"averaged one {kind_of(average)}; {_ADVICE}"
            )


def refuse_other_order(here: Module, model: Module, kind: str) -> None:
    """Raise if a model has the same names as the one here, in another order.

    Other names alone are no reason: a model may be wrapped, or renamed.

    Args:
        here: the module that holds the averages.
        model: the one that was given.
        kind: "parameter" or "buffer".

    Raises:
        ParameterError: so it is.
    """
    ours, theirs = _names(here, kind), _names(model, kind)
    if ours != theirs and sorted(ours) == sorted(theirs):
        index = next(i for i, pair in enumerate(zip(ours, theirs, strict=True)) if len({*pair}) > 1)
        raise ParameterError(
            f"update_parameters: the {kind}s of the model are in another order than those of the "
            f"averaged one: number {index} is {theirs[index]!r} there and {ours[index]!r} here; "
            f"{_ADVICE}"
        )


_ADVICE = "an average is made from the model that it follows"


def _count_differs(here: Module, model: Module, kind: str) -> str:
    ours, theirs = _names(here, kind), _names(model, kind)
    only_here = [repr(name) for name in ours if name not in theirs]
    only_there = [repr(name) for name in theirs if name not in ours]
    differing = "".join(
        f"only the {side} has {first_names(names)}; "
        for side, names in (("model", only_there), ("averaged one", only_here))
        if names
    )
    late = kind == "buffer" and only_there and not only_here
    hint = ", once the model has all its buffers" if late else ""
    return (
        f"update_parameters: the model has {counted(len(theirs), kind)}, and the averaged one "
        f"{len(ours)}; {differing}{_ADVICE}{hint}"
    )


def _names(module: Module, kind: str) -> list[str]:
    """The names of the parameters or buffers, without those of wrappers."""
    named = module.named_parameters() if kind == "parameter" else module.named_buffers()
    return [".".join(part for part in name.split(".") if part not in WRAPPERS) for name, _ in named]


def _same_kind(one: torch.dtype, other: torch.dtype) -> bool:
    """Whether both are booleans, whole, real or complex numbers."""
    return one == other or (
        one.is_floating_point == other.is_floating_point
        and one.is_complex == other.is_complex
        and (one is torch.bool) == (other is torch.bool)
    )
