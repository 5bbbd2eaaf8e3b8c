"""Plain data in place of the few harmless classes that people's torch files hold.

torch's reader without code (weights_only=True) knows tensors, dicts, lists and numbers. Files of
the wild also hold NumPy's numbers and arrays, argparse's Namespace, paths, defaultdicts. A stand-in
takes the place of such a class while a file is read: what it makes is plain data, and no function
of NumPy's or of anybody else's is ever called. What is of a class that is not here is left out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from descend.states import below


class Foreign:
    """A class that is not known to be harmless, or something that it would have made.

    Args:
        name: of the class, with its module.

    Attributes:
        items: what was put into it, where it is a kind of dict or list; else None.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.items: dict[Any, Any] | list[Any] | None = None


@dataclass(frozen=True, eq=False)
class StandIn:
    """A harmless class or function.

    Args:
        name: the one that it has in files, with its module.
        make: what is called in its place; it raises ValueError for what it cannot stand for.
    """

    name: str
    make: Callable[..., Any]


class Later:
    """An object that is known only when the file has given it its state."""

    def __init__(self, *given: Any) -> None:
        self.given = given
        self.state: Any = None


class _Namespace(Later):
    """A namespace is the dict of its values, which are its state."""


class _DType(Later):
    """A dtype of NumPy's: its code and, in its state, its byte order."""

    def dtype(self) -> np.dtype[Any]:
        """The dtype, if it is one of numbers, booleans or strings."""
        code, order = self.given[0], self.state[1] if self.state else "="
        if not isinstance(code, str) or code[:1] not in "biufcUS" or not code[1:].isdigit():
            raise ValueError(f"NumPy array of dtype {code!r}")
        return np.dtype((">" if order == ">" else "<") + code)


class _Array(Later):
    """An array of NumPy's, which is its state."""

    def array(self) -> np.ndarray[Any, Any]:
        """The array, copied in this machine's byte order."""
        _, shape, dtype, by_columns, content = self.state
        flat = np.frombuffer(content, dtype.dtype())
        kind = flat.dtype.newbyteorder("=")
        return flat.reshape(shape, order="F" if by_columns else "C").astype(kind)


def _scalar(dtype: _DType, content: Any) -> Any:
    return np.frombuffer(content, dtype.dtype())[0]


def _path(*parts: str) -> str:
    return "/".join(parts).replace("//", "/") or "."


def _empty_dict(*_: Any) -> dict[Any, Any]:
    return {}


def _never(*_: Any) -> NoReturn:
    """Stand for a class that is only named, as the one that a defaultdict makes its values of."""
    raise ValueError


_MAKES: dict[Callable[..., Any], tuple[str, ...]] = {
    _Namespace: ("argparse.Namespace", "types.SimpleNamespace"),
    _DType: ("numpy.dtype",),
    _Array: (
        "numpy.ndarray", "numpy._core.multiarray._reconstruct",
        "numpy.core.multiarray._reconstruct",
    ),
    _scalar: ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar"),
    _path: (
        "pathlib.PosixPath", "pathlib.WindowsPath",
        "pathlib._local.PosixPath", "pathlib._local.WindowsPath",  # Python 3.13
    ),
    _empty_dict: (
        "collections.defaultdict",
        "lightning.fabric.utilities.data.AttributeDict",
        "lightning.pytorch.utilities.parsing.AttributeDict",
        "lightning_fabric.utilities.data.AttributeDict",
        "pytorch_lightning.utilities.parsing.AttributeDict",
    ),
    frozenset: ("builtins.frozenset",),
    str: ("torch.torch_version.TorchVersion",),
    lambda: b"": ("builtins.bytes",),  # all others torch knows
    _never: tuple(
        f"builtins.{kind.__name__}" for kind in (bool, dict, float, int, list, str, tuple)
    ),
}  # fmt: skip

HARMLESS = {name: StandIn(name, make) for make, names in _MAKES.items() for name in names}


def without_stand_ins(value: Any, path: str, left_out: dict[str, str]) -> Any:
    """Put plain data in place of the stand-ins; dicts and lists are kept.

    Args:
        value: what was read.
        path: to it, joined by dots.
        left_out: gets the path and the class of each object that has no plain equal. In a dict its
            entry goes, elsewhere None takes its place.
    """
    if isinstance(value, Foreign) and value.items is not None:
        value = value.items  # a kind of dict or list
    if isinstance(value, _Namespace):
        value = {} if value.state is None else value.state
    if isinstance(value, _Array):
        try:
            return value.array()
        except ValueError as error:  # of objects
            left_out[path] = str(error)
            return None
    if isinstance(value, Foreign | StandIn | Later | type):
        left_out[path] = _class_name(value)
        return None
    if isinstance(value, dict):
        _make_plain(value, path, left_out)
    elif isinstance(value, list | set | frozenset) or type(value) is tuple:
        items = [without_stand_ins(v, f"{path}.{i}", left_out) for i, v in enumerate(value)]
        if not isinstance(value, list):
            return type(value)(items)
        value[:] = items
    return value


def _make_plain(value: dict[Any, Any], path: str, left_out: dict[str, str]) -> None:
    for key in [*value]:
        where = below(path, key)
        if isinstance(key, Foreign):
            left_out[f"{path}, a key"] = key.name
        else:
            kept = without_stand_ins(value[key], where, left_out)
            if where not in left_out:
                value[key] = kept
                continue
        del value[key]


def _class_name(value: Foreign | StandIn | Later | type) -> str:
    """The name of the class that an object is of, or that is named itself."""
    if isinstance(value, Foreign | StandIn):
        return value.name
    if isinstance(value, Later):
        return _MAKES[type(value)][0]
    return f"{value.__module__}.{value.__qualname__}"
