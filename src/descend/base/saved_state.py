"""A saved state: its parts, and checked copies of them. Nothing of an optimizer changes here."""

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from descend import format
from descend.base import origin
from descend.base.load_report import LoadReport
from descend.base.matching import Label, Pair, Slot
from descend.base.parameters import described
from descend.engine.hyperparameters import Options
from descend.engine.rule import AnyRule, State
from descend.engine.step_inputs import counted
from descend.errors import ShapeError, StateError, StateKeyError

Group = dict[str, Any]


def parts(owner: str, state_dict: object) -> tuple[list[Group], Mapping[Any, Any]]:
    """The groups of a state, and its entries: `{index of a parameter: its state}`.

    Args:
        owner: the optimizer's name, for messages.
        state_dict: the state.

    Raises:
        StateError: it is no state, or damaged.
    """
    whole = (
        isinstance(state_dict, Mapping)
        and isinstance(state_dict.get("state"), Mapping)
        and isinstance(state_dict.get("param_groups"), list)
    )
    if not whole:
        raise StateKeyError(
            f"{owner}: a state must be a dict with 'state' (a dict) and 'param_groups' "
            f"(a list), got {described(state_dict)}; pass what state_dict() returned"
        )
    assert isinstance(state_dict, Mapping)
    groups: list[Group] = state_dict["param_groups"]
    for index, group in enumerate(groups):
        if not isinstance(group, Mapping) or not isinstance(group.get("params"), list):
            raise StateKeyError(
                f"{owner}: group {index} of the state has no 'params'; "
                "pass what state_dict() returned"
            )
        names = group.get("param_names")
        if names is None:
            continue
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
            raise StateError(
                f"{owner}: the 'param_names' of group {index} of the state must be a list of "
                f"strings, got {described(names)}; remove them to match by position"
            )
        if len(names) != len(group["params"]):
            raise StateError(
                f"{owner}: group {index} of the state has "
                f"{format.counted(len(group['params']), 'parameter')} and "
                f"{format.counted(len(names), 'name')}; it is damaged: "
                "remove its 'param_names' to match by position"
            )
    entries: Mapping[Any, Any] = state_dict["state"]
    indices = {key for group in groups for key in group["params"]}
    numbers = {str(key) for key in indices} - indices
    text = next((key for key in entries if key in numbers), None)
    if text is not None:
        raise StateError(
            f"{owner}: the state holds the index {text!r} as text and 'params' as a number, so "
            "nothing would be loaded for it; JSON makes text of numbers: turn the keys of 'state' "
            "back, int(key)"
        )
    return groups, entries


def options(group: Group, saved: Group, strict: bool, left_out: Group) -> Group:
    """A copy of the saved options that a group takes over.

    Args:
        group: the group.
        saved: the saved one.
        strict: names of parameters are taken over, too.
        left_out: the options that a saved group need not hold, with their defaults.
    """
    saved = {**{name: value for name, value in left_out.items() if name in group}, **saved}
    kept = {*origin.RUN_TIME, "params"}
    if not strict or "param_names" in group:
        kept.add("param_names")
    return {key: copy.deepcopy(value) for key, value in saved.items() if key not in kept}


def loaded(
    owner: str,
    pairs: list[Pair],
    entries: Mapping[Any, Any],
    kept: Mapping[Any, Any],
    strict: bool,
    load: Callable[[Slot, Any, str], Any],
) -> tuple[defaultdict[Any, Any], LoadReport]:
    """The state that an optimizer takes over, and the report of it.

    Args:
        owner: the optimizer's name, for messages.
        pairs: its parameters and the saved ones.
        entries: the saved states.
        kept: its state so far; without `strict`, what does not match keeps that.
        strict: a state that does not fit its parameter's shape is an error.
        load: a checked copy of one entry, for a parameter that a message names so.

    Raises:
        StateError: an entry is another optimizer's, or damaged, or (strict) of another shape.
    """
    state = defaultdict[Any, Any](dict, {} if strict else kept)
    matched: list[Label] = []
    missed: dict[Label, str] = {}
    unused: dict[Label, str] = {}
    for one, other in pairs:
        if one is None or other is None:
            if one is not None:
                missed[one.label] = "not in the state"
            if other is not None:
                unused[other.label] = "not in this optimizer"
            continue
        place = _place(one, other)
        try:
            if other.key in entries:
                state[one.key] = load(one, entries[other.key], place)
            elif isinstance(other.key, str) and not one.key.requires_grad and one.key in kept:
                # torch.distributed.checkpoint, whose keys are names, leaves out what is frozen.
                state[one.key] = kept[one.key]
            else:
                state.pop(one.key, None)
            matched.append(one.label)
        except ShapeError as error:
            if strict:
                raise
            text = str(error).removeprefix(f"{owner}: ").replace(f" of {place} in the state", "")
            missed[one.label] = unused[other.label] = text.partition("; ")[0]
    indices = {other.key for _, other in pairs if other is not None}
    state.update({k: copy.deepcopy(value) for k, value in entries.items() if k not in indices})
    return state, LoadReport(tuple(matched), missed, unused, {})


def _place(one: Slot, other: Slot) -> str:
    """A parameter as a message names it, on both sides."""
    if one.name is None:
        here = f"parameter {other.position}"
        return here if other.name is None else f"{here} ({other.name!r} in the state)"
    if other.name is None:
        return f"parameter {other.position} ({one.name!r} here)"
    return f"parameter {one.name!r}"


def entry(
    owner: str, rule: AnyRule, options: Options, param: Tensor, place: str, saved: object
) -> State:
    """A copy of the saved state of one parameter, checked against its rule.

    Args:
        owner: the optimizer's name, for messages.
        rule: what updates the parameter.
        options: the options that its group will have.
        param: the parameter.
        place: how a message names it.
        saved: its saved state.

    Raises:
        ShapeError: a tensor has another shape than the rule keeps for this parameter.
        StateError: the entries are another optimizer's, or something is missing or no number.
    """
    if not isinstance(saved, Mapping):
        raise StateError(
            f"{owner}: the state of {place} is {described(saved)}, but it must be a dict of tensors"
        )
    values = {name: value for name, value in saved.items() if value is not None}
    flags = rule.flags(options)
    needed = rule.needed(param, flags)
    known = (*dict.fromkeys((*rule.counts, *rule.states, *needed)),)
    # What it does not know may be the user's own, or a wrapper's (Lookahead); not if it knows
    # nothing of what it needs, or counts no steps, or if another optimizer keeps just that.
    unknown = [name for name in values if name not in known]
    savers = origin.by_entry(values.keys()) if unknown else ""
    alien = needed and len(unknown) == len(values)
    if unknown and (savers or alien or "step" in unknown):
        raise StateError(
            f"{owner}: the state of {place} has {', '.join(map(repr, saved))}, "
            f"but {owner} keeps {', '.join(map(repr, sorted(known)))}; it was saved by "
            f"{savers or 'another optimizer'}: load it into that one"
        )
    shapes = rule.shapes(param, flags)
    for name, shape in shapes.items():
        value = values.get(name)
        # First, as which entries there are may depend on the parameter's shape.
        if isinstance(value, Tensor) and value.shape != shape:
            raise _misshapen(owner, param, place, name, value)
    missing = [name for name in needed if name not in values]
    if values and missing:
        raise StateError(
            f"{owner}: the state of {place} has {', '.join(map(repr, values))}, "
            f"but lacks {', '.join(map(repr, missing))}; it is damaged, or was saved by "
            f"{origin.by_entry(values.keys()) or 'another optimizer'}"
        )
    return {
        name: _count(owner, name, options, param, place, value)
        if name in rule.counts
        else _copied(owner, param, place, name, value, shapes.get(name, param.shape))
        if name in known
        else copy.deepcopy(value)  # the user's own
        for name, value in values.items()
    }


def _count(
    owner: str, name: str, options: Options, param: Tensor, place: str, value: Any
) -> Tensor:
    try:
        count = float(value)
    except (TypeError, ValueError, RuntimeError):
        raise StateError(
            f"{owner}: {name!r} of {place} in the state is {described(value)}, "
            "but it must be a number"
        ) from None
    if math.isnan(count) or (name == "step" and not 0 <= count < math.inf):
        raise StateError(
            f"{owner}: {name!r} of {place} in the state is {count}; it is damaged, or saved after "
            "training had failed: load an earlier one"
        )
    return counted(name, count, param.device if options.get("capturable") else torch.device("cpu"))


def _misshapen(owner: str, param: Tensor, place: str, name: str, value: Tensor) -> ShapeError:
    return ShapeError(
        f"{owner}: {name!r} of {place} in the state is {described(value)}, "
        f"but the parameter has shape {tuple(param.shape)}; "
        "the parameters were in another order, or the model was another one"
    )


def _copied(
    owner: str, param: Tensor, place: str, name: str, value: Any, shape: tuple[int, ...]
) -> Tensor:
    if not isinstance(value, Tensor):
        raise StateError(
            f"{owner}: {name!r} of {place} in the state is {described(value)}, "
            "but it must be a tensor"
        )
    numbers = value.is_floating_point() or (value.is_complex() and param.is_complex())
    if not numbers or value.layout is not param.layout or (value.is_meta and not param.is_meta):
        raise StateError(
            f"{owner}: {name!r} of {place} in the state is a tensor of {value.dtype}, "
            f"{value.layout} on {value.device}, but the parameter is of {param.dtype}, "
            f"{param.layout}; it is damaged, or of another model"
        )
    if value.shape != shape:
        raise _misshapen(owner, param, place, name, value)
    if shape != param.shape:
        return value.detach().to(param.device, copy=True)
    return torch.empty_like(param, dtype=value.dtype, requires_grad=False).copy_(value.detach())
