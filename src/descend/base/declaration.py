"""The declaration in an optimizer's constructor: the defaults of its groups, the documentation."""

import inspect
from collections.abc import Mapping
from textwrap import fill
from typing import Any

import torch

from descend.base import origin
from descend.engine import cautious
from descend.engine.hyperparameters import declared
from descend.engine.plan import Clipping

PLACE = "{arguments}"
"""The place in a docstring of the sections that every optimizer has."""

PARAMS = 'params: tensors, `(name, tensor)` pairs, or dicts with "params" and options of their own.'

RAISES = """
Raises:
    HyperparameterError: a value outside its range.
    ParameterError: parameters that cannot be optimized.
"""

EXAMPLE = """
Example:
    >>> import torch, descend
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = descend.{name}(model.parameters(), lr={lr})
    >>> model(torch.ones(4, 2)).sum().backward()
    >>> optimizer.step()
"""


def documented(cls: Any) -> str | None:
    """An optimizer's docstring with its arguments; with errors and an example if it has none."""
    text = inspect.cleandoc(cls.__doc__ or "")
    if PLACE not in text:
        return cls.__doc__ and str(cls.__doc__)
    table = declared(cls.__init__)
    lines = ["Args:", f"    {PARAMS}"]
    for hyper in table.values():
        entry = f"{hyper.name}: {hyper.meaning}; {hyper.allowed}. Default: {hyper.default!r}."
        lines.append(fill(entry, 96, initial_indent="    ", subsequent_indent="        "))
    if "\nRaises:" not in text:
        lines.append(RAISES.rstrip())
    if "\nExample:" not in text:
        lines.append(EXAMPLE.rstrip().format(name=cls.__name__, lr=table["lr"].default))
    return text.replace(PLACE, "\n".join(lines))


def beyond_torch(cls: Any) -> list[str]:
    """The options of an optimizer that torch's of the same name has not.

    Where torch has none, those that every elementwise rule takes: groups hold them where they are
    used, as groups of the others do.
    """
    theirs = getattr(torch.optim, cls.__name__, None)
    if theirs is None:
        return [name for name in cautious.OPTIONS if name in declared(cls.__init__)]
    known = (*inspect.signature(theirs.__init__).parameters, *origin.NEVER_IN_GROUPS)
    return [name for name in declared(cls.__init__) if name not in known]


def options(optimizer: Any, defaults: dict[str, Any]) -> dict[str, Any]:
    """The options that a constructor was given.

    Args:
        optimizer: whose constructor it is.
        defaults: what it passed on: the options; or its `locals()`, which are known by the
            optimizer among them.
    """
    if not any(value is optimizer for value in defaults.values()):
        return defaults
    last = optimizer.last_in_groups.split()
    order = sorted(
        optimizer.hyperparameters, key=lambda name: name in last and 1 + last.index(name)
    )
    return {name: defaults[name] for name in order if name in defaults}


def clipping(options: Mapping[str, Any]) -> Clipping:
    """The options of the optimizer as a whole, which no group holds."""
    limits = (options.get("clip_norm"), options.get("clip_value"))
    norm, value = (None if limit is None else float(limit) for limit in limits)
    return Clipping(norm, value, options.get("skip_nonfinite", False))
