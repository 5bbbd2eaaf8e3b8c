"""The option --optimizer of `descend train`: a name of the catalogue, or FILE.py:CLASS."""

import inspect
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from descend.errors import HyperparameterError
from descend.files import read_whole
from descend.spelling import meant

if TYPE_CHECKING:
    import torch


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


def find_optimizer(name: str) -> Callable[..., "torch.optim.Optimizer"]:
    """What makes the optimizer of a name.

    Args:
        name: one of the catalogue, or FILE.py:CLASS.

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
                f"--optimizer {name}: its constructor takes no lr; descend train sets and shows it"
            )
        return own
    if name.lower() in CATALOGUE:
        return CATALOGUE[name.lower()]
    raise HyperparameterError(
        f"--optimizer {name}: there is no such optimizer; {_meant(name, CATALOGUE)}allowed: "
        f"{', '.join(CATALOGUE)}, or FILE.py:CLASS"
    )


def _meant(name: str, known: Iterable[str]) -> str:
    """A class of that name in a file here, or the name that is most like it."""
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
    close = meant(name, known)
    return f"did you mean {close}? " if close else ""
