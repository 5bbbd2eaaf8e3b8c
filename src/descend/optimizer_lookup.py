"""An optimizer by its name in a command: one of the catalogue, or FILE.py:CLASS; and its values."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from descend.errors import HyperparameterError
from descend.files import read_whole
from descend.spelling import hint

if TYPE_CHECKING:
    import torch

    from descend.engine.hyperparameters import Hyperparameter


def is_own(name: str) -> bool:
    """Whether a name is meant to be a class in a file of the user's."""
    return ":" in name or name.endswith(".py")


def plain_name(name: str) -> str:
    """The name as it is shown, saved and compared.

    Example:
        >>> plain_name("AdamW"), plain_name("My.py:Mine")
        ('adamw', 'My.py:Mine')
    """
    return name if is_own(name) else name.lower()


def own_file(name: str) -> Path | None:
    """The user's file that an optimizer is from, if it is from one.

    Example:
        >>> own_file("adamw") is None, own_file("mine.py:Mine").name
        (True, 'mine.py')
    """
    return Path(name.rpartition(":")[0]) if ":" in name else None


def find_optimizer(name: str, asked: str = "--optimizer ") -> Callable[..., torch.optim.Optimizer]:
    """The class of an optimizer.

    Args:
        name: one of the catalogue, or FILE.py:CLASS.
        asked: what stands before the name in a message.

    Raises:
        HyperparameterError: there is none of that name, or it takes no lr.
        OptimizerFileError: the file cannot be used.

    Example:
        >>> find_optimizer("sgd").__name__
        'SGD'
    """
    from descend.optimizers import CATALOGUE, load_optimizer

    if is_own(name):
        own = load_optimizer(name)
        if "lr" not in inspect.signature(own).parameters:
            raise HyperparameterError(
                f"{asked}{name}: its constructor takes no lr; descend train sets and shows it"
            )
        return own
    if name.lower() in CATALOGUE:
        return CATALOGUE[name.lower()]
    raise HyperparameterError(
        f"{asked}{name}: there is no such optimizer; {_near(name, CATALOGUE)}allowed: "
        f"{', '.join(CATALOGUE)}, or FILE.py:CLASS"
    )


def _near(name: str, known: Iterable[str]) -> str:
    """The question for a class of that name in a file here, or for the name most like it."""
    words = re.compile(rf"^class\s+({re.escape(name)})\b", re.IGNORECASE | re.MULTILINE)
    for path in sorted(Path().glob("*.py")):
        try:
            found = words.search(read_whole(path).decode(errors="replace"))
        except OSError:
            continue
        if found:
            return f"did you mean {path}:{found[1]}? "
        if path.stem.lower() == name.lower():
            return f"did you mean a class in {path}, as {path}:CLASS? "
    return hint(name, known)


def check_settings(
    rule: str,
    make: Callable[..., torch.optim.Optimizer],
    settings: Mapping[str, object],
    asked: str = "--set ",
) -> None:
    """Refuse what the optimizer does not take.

    Args:
        rule: the name of the optimizer.
        make: its class.
        settings: values by name.
        asked: what stands before a name in a message.

    Raises:
        HyperparameterError: names the value, what is allowed, and what to do.

    Example:
        >>> from descend.optimizers import SGD
        >>> check_settings("sgd", SGD, {"momentum": 0.9})
    """
    known = settable(make)
    for name, value in settings.items():
        if name == "lr":
            raise HyperparameterError("--set lr: the learning rate has an option of its own: --lr")
        if name not in known:
            raise HyperparameterError(
                f"{asked}{name}: {rule} has no such hyperparameter; {hint(name, known)}"
                f"allowed: {', '.join(known) or 'none'}"
            )
        declared = known[name]
        if declared is not None and not declared.allowed.admits(value):
            such = f", such as {asked}{name}={shown(declared.default)}"
            advice = declared.allowed.advice(value)
            raise HyperparameterError(
                f"{asked}{name}={shown(value)}: it must be {declared.allowed}"
                f"{such if isinstance(declared.default, tuple) else ''}"
                f"{f'; {advice}' if advice else ''}"
            )


def settable(make: Callable[..., torch.optim.Optimizer]) -> dict[str, Hyperparameter | None]:
    """The arguments of an optimizer beside lr, by name; None for those that are not declared."""
    declared = getattr(make, "hyperparameters", {})
    _, *takes = inspect.signature(make).parameters.values()
    return {
        one.name: declared.get(one.name)
        for one in takes
        if one.name != "lr" and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    }


def literal(text: str) -> object:
    """A value as Python has it, or a text.

    Example:
        >>> literal("0.9,0.95"), literal("true"), literal("relu")
        ((0.9, 0.95), True, 'relu')
    """
    words: dict[str, object] = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        value: object = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return value


def shown(value: object) -> str:
    """A value as --set takes it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
