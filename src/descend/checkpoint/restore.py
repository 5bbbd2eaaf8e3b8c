"""A saved state put back into the objects that it is of, all of them or none."""

import copy
import inspect
import os
from collections import OrderedDict
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.nn import Module
from torch.nn.parameter import is_lazy

from descend.base.all_or_nothing import all_or_nothing
from descend.checkpoint.state_source import locate_and_load
from descend.checkpoint.storage_key import storage_key
from descend.errors import CheckpointError, DescendError, MissingPartError
from descend.format import counted
from descend.spelling import spelled

EXTRA = "_extra_state"  # torch's ending of the names of what `get_extra_state` returned


class Stateful(Protocol):
    """An object with a state: a model, an optimizer, a scheduler, a scaler, an average."""

    def state_dict(self) -> Mapping[str, Any]:
        """The state, as plain data and tensors."""

    def load_state_dict(self, state_dict: Any, /) -> Any:
        """Take a state over."""


@dataclass(frozen=True)
class Restored:
    """The report of one model in `restore`.

    Args:
        matched: the names in the model that were filled from the checkpoint.
        missed: the names in the model that kept their values, each with the reason.
        unused: the names in the checkpoint that were left out, each with the reason.

    Example:
        >>> print(Restored(("body.weight",), {"head.weight": "not in the checkpoint"}, {}))
        1 loaded
        missed: head.weight (not in the checkpoint)
        unused: none

    Source: torch's `Module.load_state_dict`, which names the keys but not the shapes.
    """

    matched: tuple[str, ...]
    missed: Mapping[str, str]
    unused: Mapping[str, str]

    def __str__(self) -> str:
        """Three lines: how many were loaded, what was missed, what was unused."""

        def listed(reasons: Mapping[str, str]) -> str:
            return ", ".join(f"{name} ({why})" for name, why in reasons.items()) or "none"

        return (
            f"{len(self.matched)} loaded\nmissed: {listed(self.missed)}\n"
            f"unused: {listed(self.unused)}"
        )


@spelled
def restore(
    path: str | os.PathLike[str], /, *, strict: bool = True, **objects: Stateful
) -> dict[str, Any]:
    """Load a checkpoint into the objects that it is of, all of them or none.

    Weights alone are `restore(path, model=model)`. The objects keep their devices and precisions,
    whatever those were that they were saved from. A network that has changed since is
    `restore(path, model=model, strict=False)`: what fits is loaded, and the report says the rest.

    Args:
        path: a checkpoint, the folder of a run (its newest valid one), or a file of torch's.
        strict: whether everything must fit. If not, a model takes the tensors whose names and
            shapes are its own, of which there must be one at least; another object gets
            `strict=False` if it knows that; one that is not in the checkpoint is left as it is.
        objects: whatever has `state_dict` and `load_state_dict`, by its name in the checkpoint.

    Returns:
        For each object what became of it: a `Restored` for a model; for another what its
        `load_state_dict` returned, such as the `LoadReport` of an optimizer; None where it was
        not in the checkpoint.

    Raises:
        MissingPartError: if it holds no entry for an object, and `strict`.
        CheckpointError: if it cannot be loaded, or an object does not fit; the cause is chained.
            No object has then changed.

    Example:
        >>> import os, tempfile
        >>> from descend.checkpoint import save
        >>> there = os.path.join(tempfile.mkdtemp(), "checkpoint")
        >>> old = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
        >>> save(there, {"model": old.state_dict(), "epoch": 3})
        >>> new = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 5, bias=False))
        >>> print(restore(there, model=new, strict=False)["model"])
        2 loaded
        missed: 1.weight (shape (2, 4) in the checkpoint, (5, 4) in the model)
        unused: 1.weight (shape (2, 4) in the checkpoint, (5, 4) in the model), 1.bias (not in \
the model)

    Source: torch.nn.Module.load_state_dict.
    """
    if not objects:
        raise CheckpointError(
            "restore: give the objects by the names they have in the checkpoint, such as "
            "model=model; load reads a state alone"
        )
    refuse_stateless("restore", objects)
    try:
        used, state = locate_and_load(Path(path), [*objects], lenient=not strict)
    except MissingPartError as error:
        raise MissingPartError(
            f"restore: {error}; give the objects the names they have there, or strict=False"
        ) from error
    fitting = {name: thing for name, thing in objects.items() if name in state}
    reports = restore_all(str(used), state, fitting, strict=strict)
    return {name: reports.get(name) for name in objects}


def restore_all(
    source: str, state: Mapping[str, Any], objects: Mapping[str, Stateful], *, strict: bool = True
) -> dict[str, Any]:
    """Give each object its entry of the state; if one refuses, put the others back.

    Args:
        source: where the state is from, for the messages.
        state: holds an entry for each object.
        objects: by name.
        strict: as for `restore`.

    Returns:
        By name, what each made of it.

    Raises:
        CheckpointError: for the first object that refuses.
    """
    # Modules that certainly take it come last: nothing fails once one of them has changed, and of
    # the largest objects no copy is needed
    certain = [name for name, thing in objects.items() if _takes(thing, state[name], strict)]
    order = sorted(objects, key=lambda name: name in certain)
    before: dict[str, Any] = {}
    reports: dict[str, Any] = {}
    name = ""
    with ExitStack() as stack:
        for optimizer in _optimizers(objects.values()):
            stack.enter_context(all_or_nothing(optimizer))
        try:
            for name in order:
                if name not in certain and not _is_put_back_above(objects[name]):
                    before[name] = _copy_of_state(objects[name])
            for name in order:
                reports[name] = _load(name, objects[name], state[name], strict)
        except BaseException as error:
            begun = {*reports, name}
            lost = _put_back(objects, {name: before[name] for name in before if name in begun})
            lost += [name] * (name in certain and name in begun)
            if not isinstance(error, Exception):
                raise
            text = str(error) if isinstance(error, DescendError) else _described(error)
            rest = (
                f"{', '.join(lost)} may hold a part of it: build that anew"
                if lost
                else "nothing was changed"
            )
            raise CheckpointError(
                f"cannot restore {name} from {source}: {' '.join(text.split())}; {rest}"
            ) from error
    return {name: reports[name] for name in objects}


def refuse_stateless(what: str, objects: Mapping[str, object]) -> None:
    """Refuse what has no state_dict and load_state_dict."""
    for name, thing in objects.items():
        kind = f"a {type(thing).__name__}"
        if is_class := isinstance(thing, type):
            kind = f"the class {thing.__name__}"
        advice = (
            "give each thing in it by a name of its own, or models as a torch.nn.ModuleList"
            if isinstance(thing, list | tuple)
            else "give a model, an optimizer, a scheduler or the like"
        )
        for method in ("state_dict", "load_state_dict"):
            if is_class or not callable(getattr(thing, method, None)):
                raise CheckpointError(
                    f"{what}: {name} must have {method}(), and is {kind}; {advice}"
                )


def _load(name: str, thing: Stateful, state: Any, strict: bool) -> Any:
    if isinstance(thing, Module):
        return _load_module(name, thing, state, strict)
    if not strict and _knows_strict(thing):
        return thing.load_state_dict(state, strict=False)  # type: ignore[call-arg]
    return thing.load_state_dict(state)


def _knows_strict(thing: Stateful) -> bool:
    try:
        return "strict" in inspect.signature(thing.load_state_dict).parameters
    except (TypeError, ValueError):  # it is not written in Python
        return False


def _load_module(name: str, module: Module, state: Any, strict: bool) -> Restored:
    """Load a module; if not strictly, what fits."""
    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"it is a {type(state).__name__} there, and a model needs the tensors of a state_dict"
        )
    here = module.state_dict()
    empty = next((key for key, value in here.items() if _is_meta(value)), None)
    if empty is not None:
        raise CheckpointError(
            f"{empty} of the model is on the meta device, where nothing can be loaded to; call "
            f"{name}.to_empty(device=...) first"
        )
    unfit = {} if strict else {key: why for key in state if (why := _why_unfit(key, here, state))}
    how = {"strict": strict} if _knows_strict(module) else {}
    try:
        answer = module.load_state_dict(_without(state, unfit), **how)
    except RuntimeError as error:
        raise CheckpointError(f"{error}{_hint(name, here, state)}") from error
    unused = dict.fromkeys(getattr(answer, "unexpected_keys", ()), "not in the model")
    missing = {*getattr(answer, "missing_keys", ())}
    # A hook of the module's can have renamed some names, or filled in what an old state lacks
    taken = [key for key in state if key not in here and key not in unused and key not in unfit]
    stems = tuple(key.rpartition(".")[0] + "." if "." in key else "" for key in taken)
    matched = {
        key
        for key in here
        if key not in unfit
        and key not in missing
        and (key in state or (bool(stems) and key.startswith(stems)))
    }
    matched |= _tied_to(matched, here)
    if not (matched or strict) and here and state:
        raise CheckpointError(
            f"none of its {counted(len(state), 'name')} is one of the model's {len(here)} with the "
            f"same shape{_hint(name, here, state)}"
        )
    return Restored(
        tuple(key for key in here if key in matched),
        {key: unfit.get(key, "not in the checkpoint") for key in here if key not in matched},
        {key: unfit[key] for key in here if key in unfit} | unused,
    )


def _why_unfit(name: str, here: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """Why an entry of a state cannot go where the model has one of its name; empty if it can."""
    if name not in here or name.endswith(EXTRA):
        return ""  # the model says what it does not know; what it keeps itself, it can judge
    mine, saved = here[name], state[name]
    if not isinstance(mine, torch.Tensor):
        return ""
    if not isinstance(saved, torch.Tensor):
        return f"a {type(saved).__name__} in the checkpoint, a tensor in the model"
    if not is_lazy(mine) and mine.shape != saved.shape:
        return f"shape {tuple(saved.shape)} in the checkpoint, {tuple(mine.shape)} in the model"
    if saved.is_complex() and not mine.is_complex():
        return "complex in the checkpoint, real in the model"
    return ""


def _without(state: Mapping[str, Any], names: Collection[str]) -> Mapping[str, Any]:
    """A state without some names; with the versions of the modules that it is of."""
    left = OrderedDict((key, value) for key, value in state.items() if key not in names)
    if hasattr(state, "_metadata"):
        left._metadata = state._metadata  # type: ignore[attr-defined]
    return left


def _tied_to(matched: Collection[str], here: Mapping[str, Any]) -> set[str]:
    """The names whose tensors are the same memory as one that was loaded."""
    read = {name: storage_key(one) for name, one in here.items() if isinstance(one, torch.Tensor)}
    loaded = {read[name] for name in matched if name in read}
    return {name for name in read if read[name] in loaded}


def _hint(name: str, here: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """Advice where all names of one side begin with a word that the other's do not have."""
    for longer, shorter, advice in (
        (state, here, "the names in the checkpoint begin with {word!r}, as those of a model that "
         "is a part of another: give {name}=torch.nn.ModuleDict({{{part!r}: {name}}})"),
        (here, state, "the names in the model begin with {word!r}, as those of a model that is "
         "wrapped: give {name}={name}.{part}"),
    ):  # fmt: skip
        part = str(next(iter(longer), "")).partition(".")[0]
        word = f"{part}."
        if all(str(key).startswith(word) for key in longer) and (
            {str(key).removeprefix(word) for key in longer} & shorter.keys()
        ):
            if part == "_orig_mod":
                return "; one of the two is compiled: give the model that torch.compile was given"
            return f"; {advice.format(word=word, part=part, name=name)}"
    return ""


def _takes(thing: object, state: Any, strict: bool) -> bool:
    """Whether a module certainly takes a state."""
    if not (isinstance(thing, Module) and isinstance(state, Mapping) and _only_copies(thing)):
        return False
    here = thing.state_dict()
    if any(key.endswith(EXTRA) or _is_meta(value) for key, value in here.items()):
        return False
    fits = [key in state and not _why_unfit(key, here, state) for key in here]
    return all(fits) and here.keys() == state.keys() if strict else any(fits)


def _only_copies(thing: Module) -> bool:
    """Whether nothing but torch's own copying is at work when a module is loaded."""
    return type(thing).load_state_dict is Module.load_state_dict and not any(
        module._load_state_dict_pre_hooks
        or module._load_state_dict_post_hooks
        or not type(module)._load_from_state_dict.__module__.startswith("torch.nn.modules.")
        for module in thing.modules()
    )


def _is_meta(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.is_meta and not is_lazy(value)


def _optimizers(things: Collection[object]) -> list[torch.optim.Optimizer]:
    """The optimizers, also those that schedulers write to."""
    found = [*things, *(getattr(thing, "optimizer", None) for thing in things)]
    return list({id(one): one for one in found if isinstance(one, torch.optim.Optimizer)}.values())


def _is_put_back_above(thing: object) -> bool:
    """Whether `all_or_nothing` can put an object back: its loading replaces the state whole."""
    return isinstance(thing, torch.optim.Optimizer) and str(
        type(thing).load_state_dict.__module__
    ).startswith(("torch.optim.", "torch._compile", "torch._dynamo", "descend."))


def _copy_of_state(thing: Stateful) -> Any:
    """A state that outlasts a change; a model's on the CPU, where there is room."""
    state = thing.state_dict()
    if not isinstance(thing, Module):
        return copy.deepcopy(state)
    kept = copy.copy(state)  # with the versions of the modules
    for key, value in state.items():
        if not isinstance(value, torch.Tensor):
            kept[key] = copy.deepcopy(value)  # type: ignore[index]
        elif not (is_lazy(value) or value.is_meta):
            kept[key] = value.detach().to("cpu", copy=True)  # type: ignore[index]
    return kept


def _put_back(objects: Mapping[str, Stateful], before: Mapping[str, Any]) -> list[str]:
    """Give objects the states that they had; the names of those that refuse."""
    lost = []
    for name, saved in before.items():
        try:
            objects[name].load_state_dict(saved)
            _drop_foreign(objects[name], saved)
        except Exception:
            lost.append(name)
    return lost


def _drop_foreign(thing: Any, saved: Mapping[str, Any]) -> None:
    """Remove the attributes that one of torch's schedulers got from the state of another kind."""
    if not isinstance(thing, torch.optim.lr_scheduler.LRScheduler):
        return
    for name in thing.state_dict().keys() - saved.keys():
        vars(thing).pop(name, None)
    parts = getattr(thing, "_schedulers", ())
    for part, its in zip(parts, saved.get("_schedulers", ()), strict=False):
        _drop_foreign(part, its)


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
