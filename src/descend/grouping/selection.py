"""Selectors of a model's parameters, and whose a parameter is when several pick it."""

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from types import EllipsisType
from typing import Any, TypeAlias

from torch import Tensor, nn

from descend.errors import ParameterError

Named: TypeAlias = tuple[str, nn.Parameter]
"""A parameter under its name, as `named_parameters()` gives it."""

_One: TypeAlias = str | nn.Module | type[nn.Module] | Tensor | Callable[[str, Any], bool]

Selector: TypeAlias = _One | Iterable["Selector"]
"""A choice of parameters: one of these, or several in a list.

- a name pattern with `*` and `?`: "head.*"
- a module, or a tensor: by identity
- a module type: what such modules own themselves, `nn.Embedding`
- a predicate: `(name, parameter) -> bool`

A tied parameter has several names; it is picked if one of them is.
"""

SHOWN = 5
"""How many parameters a message lists."""


def named(owner: str, model: nn.Module) -> list[Named]:
    """The model's parameters, each once, under its first name."""
    pairs = list(model.named_parameters())
    if not pairs:
        raise ParameterError(f"{owner}: the model has no parameters")
    return pairs


def selected(owner: str, model: nn.Module, selector: Selector, place: str) -> set[int]:
    """The ids of the parameters that a selector picks.

    Args:
        owner: the function that was called, for messages.
        model: the model.
        selector: what picks.
        place: what the selector is in the call, for messages: "rule 0".

    Returns:
        Ids (`id(parameter)`); at least one.

    Raises:
        ParameterError: the selector, or one in its list, is none or picks nothing.
    """
    return _selected(owner, model, _flat(owner, selector, place), place)


def partition(
    owner: str, model: nn.Module, selectors: Sequence[Selector | EllipsisType], noun: str, rest: str
) -> list[list[Named]]:
    """Every parameter of the model to one selector: to the first that picks it.

    Args:
        owner: the function that was called, for messages.
        model: the model.
        selectors: in the order of their precedence; `...`, wherever it stands, gets what is left.
        noun: what a selector is in the call, for messages: "rule".
        rest: how to write the one that takes the rest, for messages.

    Returns:
        The parameters of each selector, in the model's order; only `...` may have none.

    Raises:
        ParameterError: names the parameter that no selector picks, or that two name by identity,
            or the selector that is left with none.
    """
    pairs = named(owner, model)
    flat = [
        [] if selector is ... else _flat(owner, selector, f"{noun} {index}", "; or `...`")
        for index, selector in enumerate(selectors)
    ]
    picked = [
        set[int]() if selector is ... else _selected(owner, model, ones, f"{noun} {index}")
        for index, (selector, ones) in enumerate(zip(selectors, flat, strict=True))
    ]
    shown = [_shown(f"{noun} {index}", selector) for index, selector in enumerate(selectors)]
    _refuse_named_twice(owner, pairs, flat, shown)
    open_ended = [index for index, selector in enumerate(selectors) if selector is ...]
    if len(open_ended) > 1:
        raise ParameterError(
            f"{owner}: {noun}s {open_ended[0]} and {open_ended[1]} are both `...`; "
            "the rest is one group"
        )
    parts: list[list[Named]] = [[] for _ in selectors]
    whose = {}
    for name, param in pairs:
        found = [index for index, ids in enumerate(picked) if id(param) in ids] or open_ended
        if not found:
            raise ParameterError(
                f"{owner}: parameter {name!r} is picked by no {noun}; "
                f"add one, or `{rest}` for the rest"
            )
        parts[found[0]].append((name, param))
        whose[id(param)] = found[0]
    for index, ids in enumerate(picked):
        if ids and not parts[index]:
            name, param = next(pair for pair in pairs if id(pair[1]) in ids)
            raise ParameterError(
                f"{owner}: {shown[index]} is left with no parameter: {name!r} already belongs to "
                f"{shown[whose[id(param)]]}; the first match wins, so put the narrower {noun} first"
            )
    return parts


def _flat(owner: str, selector: Selector, place: str, also: str = "") -> list[_One]:
    """The selectors of a list, or the one that it is; an iterator is walked here, once."""
    if isinstance(selector, (str, nn.Module, Tensor)):
        return [selector]
    if isinstance(selector, type):
        if issubclass(selector, nn.Module):
            return [selector]
    elif callable(selector):
        return [selector]
    elif isinstance(selector, Iterable):
        return [one for inner in selector for one in _flat(owner, inner, place)]
    raise ParameterError(
        f"{owner}: {place} must be a name pattern, a module, a module type, a tensor, a predicate, "
        f"or a list of these{also}; got {selector!r}"
    )


def _selected(owner: str, model: nn.Module, ones: list[_One], place: str) -> set[int]:
    everywhere = list(model.named_parameters(remove_duplicate=False))
    known = ", ".join(name for name, _ in everywhere[:SHOWN])
    known += ", ..." if len(everywhere) > SHOWN else ""
    ids = set[int]()
    for one in ones:
        tensors = _by_identity(one)
        if isinstance(one, str):
            found = {id(param) for name, param in everywhere if fnmatchcase(name, one)}
        elif isinstance(one, type):
            owning = [module for module in model.modules() if isinstance(module, one)]
            found = {id(p) for module in owning for p in module.parameters(recurse=False)}
        elif isinstance(one, (nn.Module, Tensor)):
            found = {id(tensor) for tensor in tensors}
        else:
            found = {id(param) for name, param in everywhere if one(name, param)}
        for tensor in tensors:
            if all(tensor is not param for _, param in everywhere):
                raise ParameterError(
                    f"{owner}: {place} holds a tensor of shape {tuple(tensor.shape)} that is "
                    "no parameter of the model"
                )
        if not found:
            raise ParameterError(
                f"{owner}: {_shown(place, one)} picks no parameter; the model has {known}"
            )
        ids |= found
    if not ids:
        raise ParameterError(f"{owner}: {place} picks no parameter; the model has {known}")
    return ids


def _by_identity(one: _One) -> list[Tensor]:
    """The very tensors that a module or a tensor names."""
    if isinstance(one, nn.Module):
        return list(one.parameters())
    return [one] if isinstance(one, Tensor) else []


def _refuse_named_twice(
    owner: str, pairs: list[Named], flat: list[list[_One]], shown: list[str]
) -> None:
    """Patterns overlap on purpose; whoever hands over the same tensor twice has made a mistake."""
    names = {id(param): name for name, param in pairs}
    first: dict[int, int] = {}
    for index, ones in enumerate(flat):
        for tensor in (tensor for one in ones for tensor in _by_identity(one)):
            other = first.setdefault(id(tensor), index)
            if other != index:
                raise ParameterError(
                    f"{owner}: parameter {names[id(tensor)]!r} is named by {shown[other]} and by "
                    f"{shown[index]}; a parameter belongs to one group, so name it once"
                )


def _shown(place: str, selector: object) -> str:
    if isinstance(selector, str):
        return f"{place} ({selector!r})"
    return f"{place} ({selector.__name__})" if isinstance(selector, type) else place
