"""Misspelt names: what may have been meant, in an error's text.

A constructor or a function of descend refuses an argument that it does not know with the one that
may be meant; so do the packages with names that they do not hold.
"""

import difflib
import inspect
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from types import ModuleType
from typing import Any, TypeVar, cast

from descend import errors

Called = TypeVar("Called", bound=Callable[..., Any])


def meant(name: str, known: Iterable[str]) -> str:
    """The known name that may have been meant; "" if none is alike.

    Args:
        name: the unknown one.
        known: those that there are.

    Example:
        >>> meant("learning_rate", ["params", "lr"]), meant("wieght_decay", ["lr", "weight_decay"])
        ('lr', 'weight_decay')
    """
    names = list(known)
    for one in names:  # an abbreviation of the other, which no measure of likeness sees
        if len(one) > 1 and len(name) > 1 and (_initials(name) == one or _initials(one) == name):
            return one
    return closest(name, names)


def closest(name: str, known: Iterable[str], alike: float = 0.6) -> str:
    """The known name with the most of the same letters; "" if none is alike.

    Args:
        name: the unknown one.
        known: those that there are.
        alike: how alike they must be at least (the ratio of `difflib`).

    Example:
        >>> closest("Cosin", ["cosine", "linear"])
        'cosine'
    """
    names = {one.lower(): one for one in reversed(list(known))}
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=alike)
    return names[close[0]] if close else ""


def hint(name: str, known: Iterable[str]) -> str:
    """The question in an error: "did you mean lr? "; "" if no known name is alike.

    Args:
        name: the unknown one.
        known: those that there are.
    """
    close = meant(name, known)
    return f"did you mean {close}? " if close else ""


def _initials(name: str) -> str:
    return "".join(word[:1] for word in name.split("_"))


def spelled(function: Called) -> Called:
    """Let a function refuse an argument that it does not know with the one that may be meant.

    Args:
        function: any; a class or its `__init__` too. One that takes all names is left alone.

    Returns:
        A function of the same name, documentation and signature; or the class.

    Raises:
        ArgumentError: by what is returned: it takes no argument of that name.
    """
    if isinstance(function, type):
        function.__init__ = spelled(function.__init__)  # type: ignore[misc]
        return function
    parameters = inspect.signature(function).parameters.values()
    kinds = {parameter.kind for parameter in parameters}
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return function
    known = {one.name for one in parameters if one.kind is not inspect.Parameter.POSITIONAL_ONLY}

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if not kwargs.keys() <= known:
            raise _unknown(function, [one.name for one in parameters], kwargs.keys() - known)
        return function(*args, **kwargs)

    return cast(Called, checked)


def shown_signature(function: Callable[..., object]) -> inspect.Signature:
    """The arguments as `help` shows them, without what they may be, which the documentation says.

    Args:
        function: any; of a method, all but `self`.
    """
    signature = inspect.signature(function)
    return signature.replace(
        parameters=[
            argument.replace(annotation=argument.empty)
            for argument in signature.parameters.values()
            if argument.name != "self"
        ],
        return_annotation=signature.empty,
    )


def _unknown(function: Callable[..., object], known: list[str], unknown: set[str]) -> Exception:
    owner = function.__qualname__.removesuffix(".__init__")
    known = [name for name in known if name != "self"]
    name = min(unknown)
    close = meant(name, known)
    hint = f"; did you mean {close}?" if close else ""
    return errors.ArgumentError(f"{owner}: there is no {name!r}{hint} (known: {', '.join(known)})")


def suggest(module: dict[str, object]) -> None:
    """Let a module say what may have been meant by a name that it does not hold.

    Type checkers do not see this, so that they go on refusing such names.

    Args:
        module: its `globals()`.
    """
    name = str(module["__name__"])
    module["__getattr__"] = lambda asked: refuse(name, asked)


def refuse(module: str, asked: str) -> object:
    """Raise for a name that a module does not hold.

    Args:
        module: its name.
        asked: the name that is not there.

    Raises:
        AttributeError: always.
    """
    here = sys.modules[module]
    listed = vars(here).get("__all__") or _names(here)
    close = "" if asked.startswith("_") else meant(asked, listed)
    hint = f"; did you mean {close}?" if close else ""
    raise AttributeError(
        f"module {module!r} has no attribute {asked!r}{hint}", name=asked, obj=here
    )


def _names(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    ]


suggest(vars(errors))
