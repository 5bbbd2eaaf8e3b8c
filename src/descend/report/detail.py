"""One checkpoint or torch file in detail, as plain data: its objects, values and tensors."""

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from descend.checkpoint.contents import Content, Held, entry
from descend.checkpoint.provenance import differences, provenance
from descend.errors import CheckpointError
from descend.format import counted
from descend.report.runs import about_run
from descend.report.scalars import is_value, plain_value
from descend.states import joined, leaves, walk

# What is of a machine and not of a program, which may set its threads and flags itself
SURROUNDINGS = ("torch", "numpy", "python", "system", "processor", "cpu capability", "devices",
                "cuda")  # fmt: skip


def detail(content: Content, listed: str | None) -> dict[str, Any]:
    """Describe what is in it.

    Args:
        content: of it; tensors of one element are read.
        listed: as `descend.report.described.describe_one` has it.
    """
    about = entry(content.manifest, "about")
    shown = ("step", "epochs done", "batches done", "batches per epoch", "metrics",
             "epochs", "over", "objects")  # fmt: skip
    produced = entry(content.manifest, "produced_by")
    document = {
        "run": about_run(content),
        "about": {key: value for key, value in about.items() if key not in shown},
        "values": {
            key: plain_value(value) for key, value in content.state.items() if is_value(value)
        },
        "objects": {
            key: _object(content.state.get(key), tensors)
            for key, tensors in content.tensors.items()
            if key not in content.state or not is_value(content.state[key])
        },
        "optimizers": {name: _groups(groups) for name, groups in _optimizers(content.state)},
        "waiting_gradients": _waiting(content.state),
        "produced_by": dict(produced),
        "different_here": _different_here(produced),
    }
    if listed is not None:
        document["tensors"] = _listed(content, listed)
    return document


def _object(value: object, tensors: Sequence[Held]) -> dict[str, Any]:
    """How much an object holds; of tensors that are the same memory, one counts."""
    own = [tensor for tensor in tensors if tensor.same is None]
    known = all(tensor.bytes is not None for tensor in own)
    return {
        "tensors": len(own),
        "shared": len(tensors) - len(own),
        "elements": sum(tensor.elements or 0 for tensor in own) if known else None,
        "bytes": sum(tensor.bytes or 0 for tensor in own) if known else None,
        "dtypes": sorted({tensor.dtype for tensor in own if tensor.dtype}),
        "values": sum(1 for _ in leaves(value)) - len(tensors) if value is not None else 0,
    }


def _optimizers(state: object) -> Iterator[tuple[str, list[Any]]]:
    """The parameter groups of every optimizer in a state, by its name."""
    for place, held in walk(state):
        groups = held.get("param_groups") if isinstance(held, Mapping) else None
        if isinstance(groups, list) and all(isinstance(group, Mapping) for group in groups):
            yield joined(place), groups


def _groups(groups: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each group's number of parameters and its hyperparameters."""
    return [
        {
            "parameters": len(group["params"]) if isinstance(group.get("params"), list) else None,
            **{
                str(key): plain_value(value)
                for key, value in group.items()
                if key not in ("params", "param_names", "parameters")
            },
        }
        for group in groups
    ]


def _waiting(state: Mapping[str, Any]) -> int:
    """How many gradients a run saved in the middle of an accumulation."""
    own = state.get("run")
    held = own.get("gradients") if isinstance(own, Mapping) else None
    lists = held.values() if isinstance(held, Mapping) else ()
    grads = [grad for listed in lists if isinstance(listed, list) for grad in listed]
    return sum(isinstance(one, Mapping) and one.get("values") is not None for one in grads)


def _different_here(produced: Mapping[str, Any]) -> list[str]:
    """How this machine and its versions differ from those that wrote a checkpoint."""
    there, here = ({k: of.get(k) for k in SURROUNDINGS} for of in (produced, provenance()))
    return differences(there, here) if produced else []


def _listed(content: Content, pattern: str) -> list[dict[str, Any]]:
    """The tensors whose names fit a pattern."""
    tensors = [tensor for held in content.tensors.values() for tensor in held]
    tensors.sort(key=lambda tensor: _natural(tensor.name))
    is_whole = "*" in pattern or "?" in pattern
    chosen = [
        tensor
        for tensor in tensors
        if (fnmatch.fnmatchcase(tensor.name, pattern) if is_whole else pattern in tensor.name)
    ]
    if pattern and not chosen:
        raise CheckpointError(
            f"--match {pattern}: none of its {counted(len(tensors), 'tensor')} fits"
            + (f"; they are called {tensors[0].name}, ..." if tensors else "")
        )
    return [
        {
            "name": tensor.name,
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "bytes": tensor.bytes,
            "hash": tensor.hash,
            "same_as": tensor.same,
        }
        for tensor in chosen
    ]


def _natural(name: str) -> list[tuple[int, str]]:
    """By which layer.2 comes before layer.10."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if number % 2 else (-1, part) for number, part in enumerate(parts)]
