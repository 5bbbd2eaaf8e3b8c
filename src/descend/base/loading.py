"""Taking over a saved state: checked whole before anything of the optimizer changes."""

import copy
import math
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from descend import format
from descend.base import origin
from descend.base.given import described
from descend.base.load_report import LoadReport
from descend.base.matching import Label, Pair, Slot, groups_in_common, named, paired, slots
from descend.engine.rule import AnyRule, State
from descend.engine.step_inputs import counted
from descend.errors import ShapeError, StateError, StateKeyError

if TYPE_CHECKING:
    from descend.base.optimizer import Optimizer

Group = dict[str, Any]


class Loaded(NamedTuple):
    """What an optimizer becomes: the options to put into each group, the state, the report."""

    options: list[Group]
    state: "defaultdict[Any, Any]"
    report: LoadReport


def loaded(optimizer: "Optimizer", state_dict: object, strict: bool) -> Loaded:
    """What an optimizer's options and state become; the optimizer itself is not changed.

    Args:
        optimizer: the one that loads.
        state_dict: what `state_dict()` of descend or torch.optim returned.
        strict: every parameter of either side must be one of the other's, in the same groups.
            Otherwise what does not match is left out.

    Raises:
        StateError: the state is of another optimizer, or (strict) of other parameters.
        HyperparameterError: an option of the state is out of range.
    """
    owner, groups = type(optimizer).__name__, optimizer.param_groups
    saved, entries = _parts(owner, state_dict)
    _refuse_other_optimizer(optimizer, saved)
    mine, theirs = slots(groups), slots(saved)
    pairs = paired(mine, theirs)
    shared = groups_in_common(pairs)
    if strict:
        _refuse_other_parameters(owner, groups, saved, pairs)
        # By order, those without parameters.
        shared |= zip(
            [index for index in range(len(groups)) if index not in shared],
            [index for index in range(len(saved)) if index not in shared.values()],
            strict=True,
        )
    options: list[Group] = [{} for _ in groups]
    for index, source in shared.items():
        options[index] = _options(groups[index], saved[source], strict, optimizer.left_out)
        complete = {**groups[index], **options[index]}
        optimizer._validate(complete, f"group {source} of the state")
    state: defaultdict[Any, Any] = defaultdict(dict, {} if strict else optimizer.state)
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
        complete = optimizer.options_of({**groups[one.group], **options[one.group]})
        place = _place(one, other)
        try:
            if other.key in entries:
                state[one.key] = optimizer._load_entry(one.key, complete, entries[other.key], place)
            else:
                state.pop(one.key, None)
            matched.append(one.label)
        except ShapeError as error:
            if strict:
                raise
            text = str(error).removeprefix(f"{owner}: ").replace(f" of {place} in the state", "")
            why = text.partition("; ")[0]
            missed[one.label] = unused[other.label] = why
    state.update(_frozen(optimizer, pairs, entries))
    if left_out := optimizer._settle(state, pairs):
        missed |= dict.fromkeys(matched, left_out)
        unused = {other.label: left_out for one, other in pairs if one and other} | unused
        matched = []
    indices = {slot.key for slot in theirs}
    numbers = {str(key) for key in indices} - indices
    texts = [key for key in entries if key in numbers]
    if texts:
        raise StateError(
            f"{owner}: the state holds the index {texts[0]!r} as text and 'params' as a number, so "
            "nothing would be loaded for it; JSON makes text of numbers: turn the keys of 'state' "
            "back, int(key)"
        )
    state.update({k: copy.deepcopy(value) for k, value in entries.items() if k not in indices})
    return Loaded(options, state, LoadReport(tuple(matched), missed, unused, shared))


def _parts(owner: str, state_dict: object) -> tuple[list[Group], Mapping[Any, Any]]:
    """The groups and the entries of a state."""
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
    return groups, state_dict["state"]


def _refuse_other_optimizer(optimizer: "Optimizer", saved: list[Group]) -> None:
    """Raise if the options are another optimizer's, and some of this one's are not there."""
    owner, declared = type(optimizer).__name__, optimizer.hyperparameters
    options = {key for group in saved for key in group}
    missing = [key for key in origin.lacking(type(optimizer), options) if key in optimizer.defaults]
    known, names = origin.by_options(options)
    if missing and known > len(declared.keys() & options):
        raise StateError(
            f"{owner}: the state was saved by {names}: its groups lack "
            f"{', '.join(missing)}; load it into that optimizer, or pass what {owner}.state_dict() "
            "returned"
        )


def _refuse_other_parameters(
    owner: str, groups: list[Group], saved: list[Group], pairs: list[Pair]
) -> None:
    sizes, theirs = ([len(group["params"]) for group in side] for side in (groups, saved))
    if named(slots(groups), slots(saved)):
        missed = sorted(str(one.name) for one, other in pairs if one and not other)
        unused = sorted(str(other.name) for one, other in pairs if other and not one)
        if missed or unused:
            raise StateError(
                f"{owner}: the state's parameters have other names than this optimizer's: "
                f"not in the state: {', '.join(missed) or 'none'}; "
                f"only in the state: {', '.join(unused) or 'none'}; "
                "to load those that both have, pass strict=False"
            )
        shared = groups_in_common(pairs)
        apart = next((one for one, _ in pairs if one and one.group not in shared), None)
        if apart is not None:
            raise StateError(
                f"{owner}: group {apart.group}, the one of {apart.name!r}, has other parameters in "
                "the state; put the same parameters into the same groups, or pass strict=False to "
                "load their state and keep this optimizer's options"
            )
        sizes, theirs = sorted(sizes), sorted(theirs)
    if sizes != theirs:
        raise StateError(
            f"{owner}: the state has {_counted(theirs)}, this optimizer has {_counted(sizes)}; "
            "build it from the same parameters in the same groups, or pass strict=False to load "
            "what matches"
        )


def _options(group: Group, saved: Group, strict: bool, left_out: Group) -> Group:
    """A copy of the saved options that a group takes over; what was left out was at its default."""
    saved = {**{name: value for name, value in left_out.items() if name in group}, **saved}
    kept = {*origin.RUN_TIME, "params"}
    if not strict or "param_names" in group:
        kept.add("param_names")
    return {key: copy.deepcopy(value) for key, value in saved.items() if key not in kept}


def _frozen(
    optimizer: "Optimizer", pairs: list[Pair], entries: Mapping[Any, Any]
) -> dict[Tensor, Any]:
    """The state that frozen parameters keep where torch.distributed.checkpoint has left it out.

    Its keys are names; any other state without an entry is that of a parameter that had none.
    """
    return {
        one.key: optimizer.state[one.key]
        for one, other in pairs
        if one is not None
        and other is not None
        and isinstance(other.key, str)
        and other.key not in entries
        and not one.key.requires_grad
        and one.key in optimizer.state
    }


def _place(one: Slot, other: Slot) -> str:
    """A parameter as a message names it, on both sides."""
    if one.name is None:
        here = f"parameter {other.position}"
        return here if other.name is None else f"{here} ({other.name!r} in the state)"
    if other.name is None:
        return f"parameter {other.position} ({one.name!r} here)"
    return f"parameter {one.name!r}"


def loaded_entry(
    owner: str, rule: AnyRule, options: Group, param: Tensor, place: str, entry: object
) -> State:
    """A copy of the saved state of one parameter, checked against its rule.

    Args:
        owner: the optimizer's name, for messages.
        rule: what updates the parameter.
        options: the options that its group will have.
        param: the parameter.
        place: how a message names it.
        entry: its saved state.

    Raises:
        ShapeError: a tensor has another shape than the rule keeps for this parameter.
        StateError: the entries are another optimizer's, or something is missing or no number.
    """
    if not isinstance(entry, Mapping):
        raise StateError(
            f"{owner}: the state of {place} is {described(entry)}, but it must be a dict of tensors"
        )
    values = {name: value for name, value in entry.items() if value is not None}
    known = (*rule.counts, *rule.states)
    flags = rule.flags(options)
    needed = rule.needed(param, flags)
    # What it does not know may be the user's own, or a wrapper's (Lookahead); not if it knows
    # nothing of what it needs, or counts no steps, or if another optimizer keeps just that.
    unknown = [name for name in values if name not in known]
    savers = origin.by_entry(values.keys()) if unknown else ""
    alien = needed and len(unknown) == len(values)
    if unknown and (savers or alien or "step" in unknown):
        raise StateError(
            f"{owner}: the state of {place} has {', '.join(map(repr, entry))}, "
            f"but {owner} keeps {', '.join(map(repr, sorted(known)))}; it was saved by "
            f"{savers or 'another optimizer'}: load it into that one"
        )
    missing = [name for name in needed if name not in values]
    if values and missing:
        raise StateError(
            f"{owner}: the state of {place} has {', '.join(map(repr, values))}, "
            f"but lacks {', '.join(map(repr, missing))}; it is damaged, or was saved by "
            f"{origin.by_entry(values.keys()) or 'another optimizer'}"
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
    if math.isnan(count) or (name == "step" and not 0 <= count < math.inf):
        raise StateError(
            f"{owner}: {name!r} of {place} in the state is {count}; it is damaged, or saved after "
            "training had failed: load an earlier one"
        )
    return counted(name, count, param.device if options.get("capturable") else torch.device("cpu"))


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
        raise ShapeError(
            f"{owner}: {name!r} of {place} in the state is {described(value)}, "
            f"but the parameter has shape {tuple(param.shape)}; "
            "the parameters were in another order, or the model was another one"
        )
    if shape != param.shape:
        return value.detach().to(param.device, copy=True)
    return torch.empty_like(param, dtype=value.dtype, requires_grad=False).copy_(value.detach())


def _counted(sizes: list[int]) -> str:
    groups = format.counted(len(sizes), "group")
    return f"{groups} of {', '.join(map(str, sizes))} parameters" if sizes else groups
