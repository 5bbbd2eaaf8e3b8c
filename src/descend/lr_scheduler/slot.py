"""Where a hyperparameter stands in a group of an optimizer, and whether somebody has written it.

A hyperparameter is called by its key in the group; "beta1" and "beta2" stand for the two of
"betas".
"""

from typing import Any

import torch
from torch import Tensor

Group = dict[str, Any]


def slot(key: str) -> tuple[str, int | None]:
    """Where a hyperparameter stands: its key in a group, and its place in a tuple."""
    return ("betas", int(key[-1]) - 1) if key in ("beta1", "beta2") else (key, None)


def has(group: Group, key: str) -> bool:
    """Whether a group has such a hyperparameter.

    Args:
        group: of an optimizer.
        key: which hyperparameter.
    """
    name, place = slot(key)
    return name in group and (place is None or isinstance(group[name], tuple | list))


def held(group: Group, key: str) -> Any:
    """What stands in a group: a number, or a tensor with one.

    Args:
        group: of an optimizer.
        key: which hyperparameter.
    """
    name, place = slot(key)
    return group[name] if place is None else group[name][place]


def is_number(group: Group, key: str) -> bool:
    """Whether a hyperparameter of a group is a number, or a tensor with one.

    Args:
        group: of an optimizer.
        key: which hyperparameter.
    """
    value = held(group, key)
    if isinstance(value, Tensor):
        return value.numel() == 1
    return isinstance(value, float | int) and not isinstance(value, bool)


def read(group: Group, key: str) -> float:
    """A hyperparameter of a group as a number.

    Args:
        group: of an optimizer.
        key: which hyperparameter.
    """
    return float(held(group, key))


def mark_of(value: Any) -> Any:
    """What tells later whether somebody else has written: the number.

    Of a tensor its version too: to read its number again could wait for a GPU.

    Args:
        value: what stands in a group.
    """
    number = float(value)
    return (value, value._version, number) if isinstance(value, Tensor) else number


def number_of(mark: Any) -> float:
    """The number in a mark.

    Args:
        mark: what `mark_of` gave.
    """
    number: float = mark[2] if isinstance(mark, tuple) else mark
    return number


def differs(value: Any, mark: Any) -> bool:
    """Whether something else stands in a group than when it was marked.

    Args:
        value: what stands there.
        mark: what `mark_of` gave.
    """
    if type(value) is float:
        return bool(value != mark)
    if not isinstance(mark, tuple):
        return bool(float(value) != mark)
    if not isinstance(value, Tensor):
        return True
    if value is mark[0] and value._version == mark[1]:
        return False
    # A load writes too, but most often the same number.
    return float(value) != float(torch.tensor(mark[2], dtype=value.dtype))
