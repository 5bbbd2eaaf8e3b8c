"""What a user may pass as parameters: tensors, named tensors, or groups of either."""

from collections.abc import Iterable
from types import GeneratorType
from typing import Any, TypeAlias, cast

from torch import Tensor

from descend.errors import ParameterError, ParameterTypeError
from descend.format import counted

Params: TypeAlias = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]
"""What an optimizer optimizes: tensors, named tensors, or groups as dicts with "params"."""


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


def described(value: object) -> str:
    """A value as an error message shows it."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, dict):
        return f"a dict with the keys {', '.join(map(repr, value)) or '(none)'}"
    return f"{value!r} ({type(value).__name__})"
