"""A user's own optimizer: a class in a Python file, named as FILE.py:CLASS."""

import ast
import difflib
import inspect
from collections.abc import Callable
from pathlib import Path

import torch

from descend.base.optimizer import Optimizer
from descend.errors import OptimizerFileError
from descend.files import read_whole
from descend.user_file import describe, locate, names_place, run_file


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
    file, colon, name = spec.rpartition(":")
    path = Path(file if colon else spec)
    module = run_file(path, "a descend.Optimizer", OptimizerFileError)
    own = [
        key
        for key, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, Optimizer)
        and value.__module__ == module.__name__
    ]
    defined = f"it defines {', '.join(own)}" if own else "it defines no subclass of it"
    if not colon:
        raise OptimizerFileError(
            f"{path}: which descend.Optimizer in it? give {path}:{own[0] if own else 'CLASS'}; "
            f"{defined}"
        )
    if name not in vars(module):
        close = difflib.get_close_matches(name, own, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise OptimizerFileError(
            f"{path} defines no {name!r}, and a descend.Optimizer is needed{hint} ({defined})"
        )
    found = vars(module)[name]
    where = _where(path, name)
    if not (isinstance(found, type) and issubclass(found, Optimizer)):
        kind = "a class" if isinstance(found, type) else f"of type {type(found).__name__}"
        raise OptimizerFileError(
            f"{where}: {name} is {kind}, and must be a subclass of descend.Optimizer ({defined})"
        )
    _try_out(path, where, name, found)
    return found


def _try_out(path: Path, where: str, name: str, kind: Callable[..., Optimizer]) -> None:
    """Raise where an optimizer cannot be made with its defaults, or fails in its first step."""
    needed = [
        argument.name
        for argument in list(inspect.signature(kind).parameters.values())[1:]
        if argument.default is argument.empty
        and argument.kind not in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD)
    ]
    if needed:
        raise OptimizerFileError(
            f"{where}: {name} cannot be made without {' and '.join(needed)}: every argument of its "
            "constructor but params needs a default"
        )
    parameter = torch.nn.Parameter(torch.ones(2, 2))
    parameter.grad = torch.ones(2, 2)
    doing = "cannot be made with its defaults"
    try:
        optimizer = kind([parameter])
        doing = "fails in its first step"
        optimizer.step()
    except Exception as error:
        text, place = describe(error), locate(error, path)
        if not names_place(text, path):
            text = f"{where if place == str(path) else place}: {name} {doing}: {text}"
        raise OptimizerFileError(text) from error


def _where(path: Path, name: str) -> str:
    """The file, and the line that last gave the name its meaning."""
    lines = [
        statement.lineno
        for statement in ast.parse(read_whole(path)).body
        if name in _bound(statement)
    ]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a statement of a module binds there."""
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {statement.name}
    names = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name)
    return names
