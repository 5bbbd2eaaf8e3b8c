"""The place of a hyperparameter in the groups of an optimizer: reading, writing, and marks.

A hyperparameter is called by its key in the group; "beta1" and "beta2" stand for the two of
"betas".
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

Group = dict[str, Any]


def place_of(key: str) -> tuple[str, int | None]:
    """The key in a group under which a hyperparameter stands, and its place in a tuple there."""
    return ("betas", int(key[-1]) - 1) if key in ("beta1", "beta2") else (key, None)


def held(group: Group, key: str) -> Any:
    """The number, or the tensor with one, that stands in a group."""
    name, place = place_of(key)
    return group[name] if place is None else group[name][place]


def read(group: Group, key: str) -> float:
    """A hyperparameter of a group as a number."""
    return float(held(group, key))


def has_number(group: Group, key: str) -> bool:
    """Whether a group has such a hyperparameter, and it is a number or a tensor with one."""
    name, place = place_of(key)
    if name not in group or (place is not None and not isinstance(group[name], tuple | list)):
        return False
    value = held(group, key)
    if isinstance(value, Tensor):
        return value.numel() == 1
    return isinstance(value, float | int) and not isinstance(value, bool)


class TensorMark:
    """The sign of a tensor in a group: equal to what stands there until somebody writes.

    Writing is told by the tensor's version: to read its number again could wait for a GPU.

    Args:
        tensor: what stands in the group.
        number: the number that was written to it, or is in it.
    """

    __slots__ = ("number", "tensor", "version")

    def __init__(self, tensor: Tensor, number: float) -> None:
        self.tensor, self.version, self.number = tensor, tensor._version, number

    def __float__(self) -> float:
        """The number."""
        return self.number

    def __eq__(self, value: object) -> bool:
        """Whether a value in a group is the one that was marked."""
        if not isinstance(value, Tensor):
            return False
        if value is self.tensor and value._version == self.version:
            return True
        # A load writes too, but most often the same number.
        return float(value) == float(torch.tensor(self.number, dtype=value.dtype))

    __hash__ = None  # type: ignore[assignment]


def mark_of(value: Any) -> Any:
    """The sign of a value in a group, equal to what stands there until somebody else writes."""
    return TensorMark(value, float(value)) if isinstance(value, Tensor) else float(value)


def write(groups: list[Group], name: str, place: int | None, values: Iterable[float]) -> list[Any]:
    """Write a hyperparameter to the groups; tensors are filled in place.

    Groups may share a tensor, as a default of torch's optimizers; where their values differ, each
    is given its own.

    Args:
        groups: the optimizer's.
        name: the key in a group.
        place: the place in a tuple there, if there is one.
        values: for each group.

    Returns:
        The marks of what now stands in each group.
    """
    marks: list[Any] = []
    filled: dict[int, float] = {}
    for group, given in zip(groups, values):  # noqa: B905 - slow; the caller has counted
        value = given if type(given) is float else float(given)
        pair = group[name]
        there = pair if place is None else pair[place]
        new: Any = value
        mark: Any = value
        if type(there) is not float and isinstance(there, Tensor):
            new = there
            if filled.setdefault(id(there), value) != value:
                new = there.detach().clone()
            (new.detach() if new.requires_grad else new).fill_(value)
            mark = TensorMark(new, value)
        if new is not there:
            group[name] = new if place is None else (*pair[:place], new, *pair[place + 1 :])
        marks.append(mark)
    return marks
