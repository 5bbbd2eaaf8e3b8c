"""A user's own optimizer: a class in a Python file, named as FILE.py:CLASS."""

from collections.abc import Callable

import torch

from descend.base.base_class import Optimizer
from descend.errors import OptimizerFileError
from descend.user_file import Named, load_named, needed


def load_optimizer(spec: str) -> type[Optimizer]:
    """Run a Python file and return one optimizer that it defines.

    The class is tried out: made with its defaults for a 2x2 parameter, and stepped once.

    Args:
        spec: the file and the name of a subclass of `descend.Optimizer` in it: "my_file.py:MyRule".

    Returns:
        The class; a rule of its own gets the kernels that any other gets.

    Raises:
        OptimizerFileError: the file cannot be used, has no such class, or the class cannot be made
            with its defaults or fails in its first step: where, and what is there instead.

    Example:
        >>> load_optimizer("my_file.py:MyRule")(model.parameters())

    Source: `module:name` as entry points have it, https://packaging.python.org/specifications.
    """
    found = load_named(
        spec,
        "a descend.Optimizer",
        OptimizerFileError,
        lambda value, module: _fits(value) and value.__module__ == module,
    )
    kind: type[Optimizer] = found.value
    if not _fits(kind):
        raise found.refused(kind, f"{found.name} is")
    _try_out(found, kind)
    return kind


def _fits(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Optimizer)


def _try_out(found: Named, kind: Callable[..., Optimizer]) -> None:
    """Raise where an optimizer cannot be made with its defaults, or fails in its first step."""
    missing = needed(kind)[1:]
    if missing:
        raise OptimizerFileError(
            f"{found.place}: {found.name} cannot be made without {' and '.join(missing)}: every "
            "argument of its constructor but params needs a default"
        )
    parameter = torch.nn.Parameter(torch.ones(2, 2))
    parameter.grad = torch.ones(2, 2)
    with found.trying(" cannot be made with its defaults"):
        optimizer = kind([parameter])
    with found.trying(" fails in its first step"):
        optimizer.step()
