"""The hyperparameters of a parameter group: which have changed since the step before."""

from collections.abc import Callable, Mapping
from itertools import compress
from operator import is_not, itemgetter
from typing import Any

import numpy as np
from torch import Tensor

from descend.checks import plain_number
from descend.engine.hyperparameters import Hyperparameter, Options, validate

FILLED = (Tensor, np.ndarray)
"""The types of a hyperparameter that may be filled in place from one step to the next."""


class GroupOptions:
    """The hyperparameters of a group as they were last seen.

    Args:
        owner: the optimizer's name.
        declared: what it declares.
        group: the group.
        index: which of the optimizer's groups it is.

    Attributes:
        keys: the group's, in order; where they change, this is of no more use.
        options: what rules read: the group's values, with tensors as numbers, and the default of
            what the group leaves out.

    Raises:
        HyperparameterError: a value is out of its range, or a name is misspelt.
    """

    def __init__(
        self,
        owner: str,
        declared: Mapping[str, Hyperparameter],
        group: dict[str, Any],
        index: int,
    ) -> None:
        self._owner, self._declared, self._where = owner, declared, f"group {index}"
        validate(owner, declared, group, self._where)
        self.keys = tuple(group)
        self._names = tuple(name for name in declared if name in group)
        self._left_out = {name: one.default for name, one in declared.items() if name not in group}
        self._values_of = _values_of(self._names)
        self._values = self._values_of(group)
        # Keys of the user's own, which a rule of the user's own may read.
        self._foreign = not group.keys() <= {*declared, "params", "param_names", "initial_lr"}
        self._tensors = [name for name in self._names if _holds_tensor(group[name])]
        self._read(group)

    def _read(self, group: dict[str, Any]) -> None:
        self.options: Options = group
        kept = group.get("capturable") or group.get("differentiable")
        if kept or self._tensors or self._left_out:
            # The step itself reads tensors where a CUDA graph or autograd has to see them.
            numbers = {} if kept else {name: _number(group[name]) for name in self._tensors}
            self.options = {**self._left_out, **group, **numbers}
        # A tensor may be filled in place; no comparison of objects tells.
        self._read_again = bool(self._tensors) or (self._foreign and self.options is not group)

    def changed(self, group: dict[str, Any]) -> list[str]:
        """Names of the hyperparameters that may have changed; they are validated, and no others.

        Raises:
            HyperparameterError: a value is out of its range.
        """
        values = self._values_of(group)
        changed = [*compress(self._names, map(is_not, values, self._values))]
        if not (changed or self._read_again):
            return changed
        self._values = values
        if self._tensors:
            changed = [*dict.fromkeys((*changed, *self._tensors))]
        self._tensors = [name for name in changed if _holds_tensor(group[name])]
        for name in changed:
            if name in self._tensors and group.get("capturable"):
                continue  # it is read on the device only
            if not self._declared[name].allowed.admits(group[name]):
                validate(self._owner, self._declared, {name: group[name]}, self._where)
        if self._tensors or self.options is not group:
            self._read(group)
        return changed


def _values_of(names: tuple[str, ...]) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
    if len(names) > 1:
        return itemgetter(*names)
    return lambda group: tuple(group[name] for name in names)


def _number(value: Any) -> Any:
    """A hyperparameter with tensors, and NumPy's arrays, read as numbers."""
    if isinstance(value, tuple):
        return tuple(map(plain_number, value))
    number = plain_number(value)
    return tuple(value.tolist()) if number is None else number


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, tuple):
        return any(isinstance(one, FILLED) for one in value)
    return isinstance(value, FILLED)
