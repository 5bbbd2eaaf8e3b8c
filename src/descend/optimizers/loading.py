"""Taking over a saved state: checked whole before anything of the optimizer changes."""

import copy
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from descend.engine.members import counted
from descend.engine.rule import AnyRule
from descend.errors import StateError

RUN_TIME = frozenset(("foreach", "fused", "capturable", "differentiable"))
"""Options that say how a step runs, not what it computes; a file never changes them."""

Group = dict[str, Any]


def loaded(
    owner: str,
    rule_of: Callable[[Tensor, Group], AnyRule],
    groups: list[Group],
    validate: Callable[[Group, str], None],
    state_dict: object,
) -> tuple[list[Group], "defaultdict[Any, Any]"]:
    """What an optimizer's options and state become.

    Args:
        owner: the optimizer's name, for messages.
        rule_of: which of its rules updates a parameter under its options.
        groups: its groups as they are; they are not changed.
        validate: refuses options that are out of range.
        state_dict: what `state_dict()` of descend or torch.optim returned.

    Returns:
        The options to put into each group, and the state; every tensor is a copy.

    Raises:
        StateError: the state is of another optimizer, or of other parameters.
        HyperparameterError: an option of the state is out of range.
    """
    saved = _groups_of(owner, state_dict)
    sizes = [len(group["params"]) for group in groups]
    theirs = [len(group["params"]) for group in saved]
    if sizes != theirs:
        raise StateError(
            f"{owner}: the state has {_counted(theirs)}, this optimizer has "
            f"{_counted(sizes)}; build it from the same parameters in the same groups"
        )
    options = []
    for index, group in enumerate(saved):
        kept = {
            key: copy.deepcopy(value)
            for key, value in group.items()
            if key not in RUN_TIME and key not in ("params", "param_names")
        }
        validate({**groups[index], **kept}, f"group {index} of the state")
        options.append(kept)
    complete = [{**group, **kept} for group, kept in zip(groups, options, strict=True)]
    owners = _owners(owner, groups, saved)
    state: defaultdict[Any, Any] = defaultdict(dict)
    assert isinstance(state_dict, Mapping)
    for key, entry in state_dict["state"].items():
        if key in owners:
            param, index = owners[key]
            place = f"parameter {key}"
            rule = rule_of(param, complete[index])
            state[param] = _entry(owner, rule, complete[index], param, place, entry)
        else:
            state[key] = copy.deepcopy(entry)
    return options, state


def _groups_of(owner: str, state_dict: object) -> list[Group]:
    if (
        not isinstance(state_dict, Mapping)
        or not isinstance(state_dict.get("state"), Mapping)
        or not isinstance(state_dict.get("param_groups"), list)
    ):
        raise StateError(
            f"{owner}: a state must be a dict with 'state' (a dict) and 'param_groups' "
            f"(a list), got {described(state_dict)}; pass what state_dict() returned"
        )
    saved: list[Group] = state_dict["param_groups"]
    for index, group in enumerate(saved):
        if not isinstance(group, Mapping) or not isinstance(group.get("params"), list):
            raise StateError(
                f"{owner}: group {index} of the state has no 'params'; "
                "pass what state_dict() returned"
            )
    return saved


def _owners(owner: str, groups: list[Group], saved: list[Group]) -> dict[Any, tuple[Tensor, int]]:
    """The parameter, and its group, that each index of the state stands for.

    By name where both sides know names and each has its own, else by position.
    """
    ids = [key for group in saved for key in group["params"]]
    params = [(param, index) for index, group in enumerate(groups) for param in group["params"]]
    if not all("param_names" in group for group in (*groups, *saved)):
        return dict(zip(ids, params, strict=True))
    # torch.compile puts a prefix before the names of the model that it wraps.
    mine, theirs = (
        [name.replace("_orig_mod.", "") for group in side for name in group["param_names"]]
        for side in (groups, saved)
    )
    if len(set(mine)) < len(mine) or len(set(theirs)) < len(theirs):
        return dict(zip(ids, params, strict=True))  # two models' parameters: names do not tell
    if sorted(mine) != sorted(theirs):
        missed = ", ".join(sorted(set(mine) - set(theirs))) or "none"
        unused = ", ".join(sorted(set(theirs) - set(mine))) or "none"
        raise StateError(
            f"{owner}: the state's parameters have other names than this optimizer's: "
            f"not in the state: {missed}; only in the state: {unused}"
        )
    by_name = dict(zip(mine, params, strict=True))
    return {key: by_name[name] for key, name in zip(ids, theirs, strict=True)}


def _entry(
    owner: str, rule: AnyRule, options: Group, param: Tensor, place: str, entry: object
) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        raise StateError(
            f"{owner}: the state of {place} is {described(entry)}, but it must be a dict of tensors"
        )
    values = {name: value for name, value in entry.items() if value is not None}
    known = (*rule.counts, *rule.states)
    flags = rule.flags(options)
    # What it does not know may be the user's own; not if it knows nothing, or counts no steps.
    strange = "step" in values and not rule.counts_steps
    if values and (strange or not any(name in known for name in values)):
        raise StateError(
            f"{owner}: the state of {place} has {', '.join(map(repr, entry))}, "
            f"but {owner} keeps {', '.join(map(repr, sorted(known)))}; it was saved by "
            "another optimizer: load it into that one"
        )
    missing = [name for name in rule.needed(param, flags) if name not in values]
    if values and missing:
        raise StateError(
            f"{owner}: the state of {place} has {', '.join(map(repr, values))}, "
            f"but lacks {', '.join(map(repr, missing))}; it is damaged, or was saved by another "
            "optimizer"
        )
    shapes = rule.shapes(param, flags)
    return {
        name: _count(owner, name, options, param, place, value)
        if name in rule.counts
        else _copied(owner, param, place, name, value, shapes.get(name, param.shape))
        if name in known
        else copy.deepcopy(value)  # the user's own
        for name, value in values.items()
    }


def _count(owner: str, name: str, options: Group, param: Tensor, place: str, value: Any) -> Tensor:
    try:
        count = float(value)
    except (TypeError, ValueError, RuntimeError):
        raise StateError(
            f"{owner}: {name!r} of {place} in the state is {described(value)}, "
            "but it must be a number"
        ) from None
    return counted(name, count, param.device if options.get("capturable") else torch.device("cpu"))


def _copied(
    owner: str, param: Tensor, place: str, name: str, value: Any, shape: tuple[int, ...]
) -> Tensor:
    if not isinstance(value, Tensor) or value.shape != shape:
        raise StateError(
            f"{owner}: {name!r} of {place} in the state is {described(value)}, "
            f"but the parameter has shape {tuple(param.shape)}; "
            "the parameters were in another order, or the model was another one"
        )
    if shape != param.shape:
        return value.detach().to(param.device, copy=True)
    return torch.empty_like(param, dtype=value.dtype, requires_grad=False).copy_(value.detach())


def described(value: object) -> str:
    """A value as an error message shows it."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, dict):
        return f"a dict with the keys {', '.join(map(repr, value)) or '(none)'}"
    return f"{value!r} ({type(value).__name__})"


def _counted(sizes: list[int]) -> str:
    groups = f"{len(sizes)} group{'s' * (len(sizes) != 1)}"
    return f"{groups} of {', '.join(map(str, sizes))} parameters" if sizes else groups
