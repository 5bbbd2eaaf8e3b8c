"""Contents of a checkpoint or a torch file: its state with the tensors only described."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from descend.checkpoint.hashing import hash_tensor
from descend.checkpoint.manifest import MANIFEST, STATE, read_manifest
from descend.checkpoint.storage_key import storage_key
from descend.checkpoint.tensors_file import TensorsFile
from descend.checkpoint.tree import unflatten
from descend.errors import CheckpointError
from descend.files import read_whole
from descend.format import dtype_name
from descend.states import joined, leaves


@dataclass(frozen=True)
class Held:
    """A tensor by what is known of it without reading it.

    It stands in a state in the place of the tensor, the NumPy array or the NumPy number.

    Args:
        name: the path to it, joined by dots.
        dtype: such as "float32"; None where what would say it is damaged.
        shape: or None, as above.
        hash: 32 hexadecimal digits, or None.
        same: the name of the one that it shares its memory with, if any.
        scalars: reads the tensors of one element that lie beside it, by name.

    Example:
        >>> Held("model.weight", "float32", (3, 4)).bytes
        48
    """

    name: str
    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    hash: str | None = None
    same: str | None = None
    scalars: Callable[[], Mapping[str, torch.Tensor]] = field(default=dict, repr=False)

    def numpy(self) -> "Held":
        """Itself, for an array."""
        return self

    def __getitem__(self, index: object) -> "Held":
        """Itself, for a number."""
        return self

    @property
    def elements(self) -> int | None:
        """How many numbers it holds."""
        return None if self.shape is None else math.prod(self.shape)

    @property
    def scalar(self) -> torch.Tensor | None:
        """The tensor itself, if it has one element and can be read."""
        return self.scalars().get(self.same or self.name) if self.elements == 1 else None

    @property
    def bytes(self) -> int | None:
        """How many bytes they take."""
        kind = getattr(torch, self.dtype or "", None)
        if self.elements is None or not isinstance(kind, torch.dtype):
            return None
        return self.elements * kind.itemsize


@dataclass(frozen=True)
class Content:
    """The content of a checkpoint or a torch file.

    Args:
        state: nested; a `Held` for each tensor of a checkpoint. Empty where it cannot be read.
        tensors: those of each object.
        manifest: what stands in it; empty for a torch file.

    Example:
        >>> Content({"epoch": 3}, {"epoch": []}, {}).state["epoch"]
        3
    """

    state: Mapping[str, Any]
    tensors: Mapping[str, Sequence[Held]]
    manifest: Mapping[str, Any]


def content_of(path: Path) -> Content:
    """Describe a checkpoint, as much of it as can be understood where it is damaged."""
    manifest = _json(path / MANIFEST)
    known = _known(manifest, cache(partial(_scalars, path)))
    try:
        text = read_whole(path / STATE).decode()
        read = unflatten(text, known)  # type: ignore[arg-type]
        state = {str(key): item for key, item in read.items()}
        tensors = {
            key: [leaf for _, leaf in leaves(item) if isinstance(leaf, Held)]
            for key, item in state.items()
        }
    except Exception:  # damaged JSON can be anything
        by_name: dict[str, list[Held]] = defaultdict(list)
        for name, tensor in known.items():
            by_name[name.partition(".")[0]].append(tensor)
        return Content({}, by_name, manifest)
    return Content(state, tensors, manifest)


def content_of_state(state: Mapping[Any, Any], *, hashed: bool = False) -> Content:
    """Describe a state, such as that of a torch file.

    Args:
        state: nested.
        hashed: whether the tensors shall have hashes, for which they are read.

    Raises:
        RecursionError: if it is nested without end.

    Example:
        >>> content_of_state({"model": {"w": torch.zeros(2)}}).tensors["model"][0].elements
        2
    """
    named = {str(key): item for key, item in state.items()}
    return Content(named, {key: _held(item, key, hashed) for key, item in named.items()}, {})


def entry(held: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An entry of a description that should be a mapping; an empty one where it is none."""
    found = held.get(name)
    return found if isinstance(found, dict) else {}


class _Unknown(dict[str, Held]):
    """Tensors by name; of those that a manifest does not know, only the name."""

    def __missing__(self, name: str) -> Held:
        return Held(str(name))


def _json(file: Path) -> dict[str, Any]:
    """A JSON object from a file; empty where there is none."""
    try:
        found = json.loads(read_whole(file))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _scalars(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of one element in a checkpoint, as far as they are whole."""
    found = {}
    # What is damaged is described all the same, and can be anything
    with suppress(Exception), TensorsFile(path, manifest := read_manifest(path)) as file:
        for name, kind in manifest["tensors"].items():
            if math.prod(kind["shape"]) == 1:
                with suppress(CheckpointError):
                    found[name] = file.tensor(name)
    return found


def _known(
    manifest: Mapping[str, Any], scalars: Callable[[], Mapping[str, torch.Tensor]]
) -> _Unknown:
    """The tensors of a manifest by name, which may be damaged."""
    known = _Unknown()
    for name, kind in entry(manifest, "tensors").items():
        try:
            shape = tuple(int(length) for length in kind["shape"])
            known[name] = Held(name, str(kind["dtype"]), shape, str(kind["hash"]), scalars=scalars)
        except (KeyError, TypeError, ValueError):
            known[name] = Held(name)
    for name, other in entry(manifest, "same").items():
        one = known[str(other)]
        known[name] = Held(name, one.dtype, one.shape, one.hash, one.name, scalars)
    return known


def _held(value: object, path: str, hashed: bool) -> list[Held]:
    """The tensors and arrays in a part of a state."""
    found: list[Held] = []
    first: dict[object, str] = {}
    for place, leaf in leaves(value, (path,)):
        name = joined(place)
        if isinstance(leaf, torch.Tensor):
            one = first.setdefault(storage_key(leaf), name)
            dtype = dtype_name(leaf.dtype)
            digest = _hash(leaf) if hashed else None
            same = one if one != name else None
            found.append(Held(name, dtype, tuple(leaf.shape), digest, same))
        elif isinstance(leaf, np.ndarray):
            found.append(Held(name, str(leaf.dtype), leaf.shape))
    return found


def _hash(tensor: torch.Tensor) -> str | None:
    try:
        return hash_tensor(tensor)
    except (RuntimeError, NotImplementedError):  # a sparse one has no bytes
        return None
