"""Splitting a model's parameters into groups: each parameter in exactly one."""

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from types import EllipsisType
from typing import Any, TypeAlias

from torch import Tensor, nn

from descend.errors import ParameterError

Selector: TypeAlias = (
    str | nn.Module | Tensor | Iterable[Tensor] | Callable[[str, Tensor], bool] | EllipsisType
)
"""What picks parameters: a name pattern, a module, tensors, a predicate, or `...` for the rest."""


def param_groups(
    model: nn.Module, rules: Sequence[tuple[Selector, dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Split a model's parameters into groups, each parameter in exactly one.

    Definition: the groups are the parts of a partition of `model.named_parameters()`. A rule is a
    selector and the options of its group; groups come in the order of the rules, and parameters
    keep their names, so that a saved state finds them again in whatever order they are.

    Args:
        model: the model. A parameter used twice (tied weights) counts once.
        rules: pairs of a selector and the options of its group. A selector is a name pattern with
            `*` and `?` ("head.*"), a module, a tensor or several (by identity), a predicate
            `(name, parameter) -> bool`, or `...`: everything that no other rule picks.

    Returns:
        Groups for the constructor of an optimizer: `{"params": [(name, parameter)], **options}`.

    Raises:
        ParameterError: a parameter is in two groups or in none, or a rule picks nothing; the
            message names it.

    Example:
        >>> import torch, descend
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
        >>> groups = descend.param_groups(model, [
        ...     (lambda name, param: param.ndim < 2, {"weight_decay": 0.0}),
        ...     (model[1].weight, {"lr": 1e-2}),
        ...     (..., {}),
        ... ])
        >>> [[name for name, _ in group["params"]] for group in groups]
        [['0.bias', '1.bias'], ['1.weight'], ['0.weight']]
        >>> optimizer = descend.AdamW(groups, lr=1e-3)

    Source:
        Per-parameter options as in https://docs.pytorch.org/docs/stable/optim.html
    """
    named: list[tuple[str, Tensor]] = list(model.named_parameters())
    if not named:
        raise ParameterError("param_groups: the model has no parameters")
    picked = [
        set[str]() if selector is ... else _names(named, selector, _shown(selector, index))
        for index, (selector, _) in enumerate(rules)
    ]
    rest = [index for index, (selector, _) in enumerate(rules) if selector is ...]
    if len(rest) > 1:
        raise ParameterError(
            f"param_groups: rules {rest[0]} and {rest[1]} are both `...`; the rest is one group"
        )
    for name, _ in named:
        found = [index for index, names in enumerate(picked) if name in names]
        if len(found) > 1:
            first, second = (_shown(rules[index][0], index) for index in found[:2])
            raise ParameterError(
                f"param_groups: parameter {name!r} is picked by {first} and by {second}; "
                "make them exclude each other"
            )
        if not found:
            if not rest:
                raise ParameterError(
                    f"param_groups: parameter {name!r} is picked by no rule; "
                    "add one, or `(..., {})` for the rest"
                )
            picked[rest[0]].add(name)
    return [
        {"params": [(name, param) for name, param in named if name in names], **options}
        for names, (_, options) in zip(picked, rules, strict=True)
        if names
    ]


def _names(named: list[tuple[str, Tensor]], selector: Selector, shown: str) -> set[str]:
    if isinstance(selector, str):
        names = {name for name, _ in named if fnmatchcase(name, selector)}
    elif isinstance(selector, (nn.Module, Tensor)) or not callable(selector):
        wanted = _tensors(selector, shown)
        own = {id(param) for _, param in named}
        for tensor in wanted:
            if id(tensor) not in own:
                raise ParameterError(
                    f"param_groups: {shown} holds a tensor of shape {tuple(tensor.shape)} that is "
                    "no parameter of the model"
                )
        ids = {id(tensor) for tensor in wanted}
        names = {name for name, param in named if id(param) in ids}
    else:
        names = {name for name, param in named if selector(name, param)}
    if not names:
        known = ", ".join(name for name, _ in named[:5]) + (", ..." if len(named) > 5 else "")  # noqa: PLR2004
        raise ParameterError(f"param_groups: {shown} picks no parameter; the model has {known}")
    return names


def _tensors(selector: object, shown: str) -> list[Tensor]:
    if isinstance(selector, nn.Module):
        return list(selector.parameters())
    if isinstance(selector, Tensor):
        return [selector]
    tensors = []
    for tensor in selector if isinstance(selector, Iterable) else [selector]:
        if not isinstance(tensor, Tensor):
            raise ParameterError(
                f"param_groups: {shown} must be a name pattern, a module, tensors, a predicate or "
                f"`...`, got {tensor!r}"
            )
        tensors.append(tensor)
    return tensors


def _shown(selector: object, index: int) -> str:
    return f"rule {index} ({selector!r})" if isinstance(selector, str) else f"rule {index}"
