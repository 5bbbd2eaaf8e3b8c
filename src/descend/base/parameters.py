"""Parameters as they are given: tensors, named tensors, or groups of either."""

from collections.abc import Iterable, Sequence
from types import GeneratorType
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor

from descend.errors import ParameterError, ParameterTypeError
from descend.format import counted

Params: TypeAlias = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]
"""Parameters for an optimizer: tensors, named tensors, or groups as dicts with "params"."""


def as_groups(owner: str, params: object) -> list[dict[str, Any]]:
    """The groups that a constructor was given; one group if it was given tensors.

    Raises:
        ParameterError: nothing is there, or it is nothing of that kind.
    """
    if isinstance(params, Tensor):
        raise ParameterTypeError(
            f"{owner}: params must be an iterable of tensors or dicts, got one tensor; "
            "put it into a list: [tensor]"
        )
    if isinstance(params, dict) or not isinstance(params, Iterable):
        raise ParameterTypeError(
            f"{owner}: params must be an iterable of tensors or dicts, got {described(params)}"
        )
    entries = list(params)
    if not entries:
        raise ParameterError(
            f"{owner}: got no parameters; model.parameters() can be walked only once, "
            "and a model may have none"
        )
    if isinstance(entries[0], dict):
        return cast(list[dict[str, Any]], entries)
    return [{"params": entries}]


def names_and_tensors(
    owner: str, index: int, group: dict[str, Any]
) -> tuple[list[str], list[Tensor]]:
    """The names of a group's parameters, none if they have none, and the parameters.

    Raises:
        ParameterError: the parameters are no list, or only some have names.
    """
    params = group["params"]
    if isinstance(params, (set, frozenset)):
        raise ParameterTypeError(
            f"{owner}: the parameters of group {index} are a set, whose order changes from run to "
            "run; pass a list"
        )
    if not isinstance(params, Iterable):
        raise ParameterTypeError(
            f"{owner}: the parameters of group {index} must be an iterable of tensors, "
            f"got {described(params)}"
        )
    if isinstance(params, GeneratorType) and params.gi_frame is None:
        raise ParameterError(
            f"{owner}: the parameters of group {index} are a generator that was walked before; "
            "model.parameters() can be walked only once: pass list(model.parameters())"
        )
    entries = [params] if isinstance(params, Tensor) else list(params)
    names = [entry[0] for entry in entries if isinstance(entry, tuple)]
    if names and len(names) != len(entries):
        raise ParameterError(
            f"{owner}: some parameters of group {index} have names and some have not; "
            "name all of them or none"
        )
    given = names or list(group.get("param_names") or ())  # a group of another optimizer
    for name in given:
        if not isinstance(name, str):
            raise ParameterTypeError(
                f"{owner}: the names of the parameters of group {index} must be strings, "
                f"got {described(name)}"
            )
    if names:
        return names, [entry[1] for entry in entries]
    if given and len(given) != len(entries):
        raise ParameterError(
            f"{owner}: group {index} has {counted(len(entries), 'parameter')} and "
            f"{counted(len(given), 'name')} in 'param_names'; give each its name, or leave "
            "'param_names' out"
        )
    return given, entries


def refuse_unfit(
    owner: str,
    tensors: Iterable[object],
    groups: Sequence[dict[str, Any]],
    computed: bool,
) -> None:
    """Refuse what an optimizer could not update.

    Args:
        owner: the optimizer's name, for messages.
        tensors: the parameters of a new group.
        groups: the groups that there are.
        computed: whether a parameter may be computed from other tensors.

    Raises:
        ParameterError: one is no dense tensor, is computed from others, or is there already.
    """
    known = {
        id(param): f"group {g}, parameter {i}"
        for g, group in enumerate(groups)
        for i, param in enumerate(group["params"])
    }
    for i, param in enumerate(tensors):
        place = f"group {len(groups)}, parameter {i}"
        if not isinstance(param, Tensor):
            raise ParameterTypeError(f"{owner}: {place} must be a tensor, got {described(param)}")
        if param.layout is not torch.strided:
            raise ParameterError(
                f"{owner}: {place} has the layout {param.layout}, and an optimizer updates "
                "dense (strided) tensors only; pass tensor.to_dense(), or keep the sparse one "
                "out of the optimizer"
            )
        if not computed and not (param.is_leaf or param.retains_grad):
            raise ParameterError(
                f"{owner}: {place} is not a leaf tensor: it was computed from others, so no "
                "gradient reaches it; pass the tensor it was computed from, or "
                "tensor.detach().requires_grad_()"
            )
        if id(param) in known:
            raise ParameterError(
                f"{owner}: {place} is {known[id(param)]} again; a tensor belongs to one group, once"
            )
        known[id(param)] = place


def described(value: object) -> str:
    """A value as an error message shows it."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, dict):
        return f"a dict with the keys {', '.join(map(repr, value)) or '(none)'}"
    return f"{value!r} ({type(value).__name__})"
