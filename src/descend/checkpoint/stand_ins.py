"""Plain data in place of the few harmless classes that people's torch files hold.

torch's reader without code (weights_only=True) knows tensors, dicts, lists and numbers. Files of
the wild also hold NumPy's numbers and arrays, argparse's Namespace, paths, defaultdicts. A stand-in
takes the name of such a class while a file is read: what it makes is plain data, and no function of
NumPy's or of anybody else's is ever called. What is of a class that is not here is left out.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from descend.checkpoint.foreign import Foreign

_lock = threading.Lock()  # torch keeps one list of allowed names for the whole process


class _Later:
    """What is known of an object only when the whole file has been read."""

    given: tuple[Any, ...] = ()  # what it was called with
    state: Any = None

    def __new__(cls, *args: Any) -> Any:
        """An empty one, whatever it is called with."""
        made = object.__new__(cls)
        made.given = args
        return made

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        """Note what the file says of it."""
        self.state = state


class _Namespace(_Later):
    """A namespace is the dict of its values."""


class _DType(_Later):
    """A dtype of NumPy's: its code and, in its state, its byte order."""

    def dtype(self) -> np.dtype[Any]:
        """The dtype, if it is one of numbers, booleans or strings."""
        code, order = self.given[0], self.state[1] if self.state else "="
        if not isinstance(code, str) or code[:1] not in "biufcUS" or not code[1:].isdigit():
            raise ValueError(f"NumPy array of dtype {code!r}")
        return np.dtype((">" if order == ">" else "<") + code)


class _Array(_Later):
    """An array of NumPy's."""

    def plain(self) -> np.ndarray[Any, Any]:
        _, shape, dtype, by_columns, content = self.state
        flat = np.frombuffer(content, dtype.dtype())
        # A copy in this machine's byte order
        kind = flat.dtype.newbyteorder("=")
        return flat.reshape(shape, order="F" if by_columns else "C").astype(kind)


class _Reconstruct:
    """The function that begins an array."""

    def __new__(cls, *args: Any) -> Any:
        return _CLASSES["numpy.ndarray"]()


class _Scalar:
    """The function that makes a number of NumPy's."""

    def __new__(cls, dtype: _DType, content: Any) -> Any:
        return np.frombuffer(content, dtype.dtype())[0]


class _Dict:
    """A kind of dict."""

    def __new__(cls, *args: Any) -> Any:
        return {}


class _Frozen:
    """A frozenset."""

    def __new__(cls, items: Any = ()) -> Any:
        return frozenset(items)


class _Text:
    """A kind of string."""

    def __new__(cls, text: str = "") -> Any:
        return str(text)


class _Path:
    """A path is its text."""

    def __new__(cls, *parts: str) -> Any:
        return "/".join(parts).replace("//", "/") or "."


class _NoBytes:
    """The empty bytes; all others torch knows."""

    def __new__(cls) -> Any:
        return b""


class _Name:
    """A class that is only named, such as the one that a defaultdict makes its values of."""

    def __new__(cls, *args: Any) -> Any:
        raise ValueError(f"{cls.__module__}.{cls.__qualname__} is to be called")


_KINDS: dict[str, type] = {
    "argparse.Namespace": _Namespace,
    "builtins.bytes": _NoBytes,
    "builtins.frozenset": _Frozen,
    "collections.defaultdict": _Dict,
    "lightning.fabric.utilities.data.AttributeDict": _Dict,
    "lightning.pytorch.utilities.parsing.AttributeDict": _Dict,
    "lightning_fabric.utilities.data.AttributeDict": _Dict,
    "numpy._core.multiarray._reconstruct": _Reconstruct,
    "numpy._core.multiarray.scalar": _Scalar,
    "numpy.core.multiarray._reconstruct": _Reconstruct,
    "numpy.core.multiarray.scalar": _Scalar,
    "numpy.dtype": _DType,
    "numpy.ndarray": _Array,
    "pathlib.PosixPath": _Path,
    "pathlib._local.PosixPath": _Path,  # Python 3.13
    "pathlib._local.WindowsPath": _Path,
    "pathlib.WindowsPath": _Path,
    "pytorch_lightning.utilities.parsing.AttributeDict": _Dict,
    "torch.torch_version.TorchVersion": _Text,
    "types.SimpleNamespace": _Namespace,
    **{f"builtins.{kind.__name__}": _Name for kind in (bool, dict, float, int, list, str, tuple)},
}


def _named(name: str, kind: type) -> type:
    """A class that torch takes for the one of that name."""
    module, _, own = name.rpartition(".")
    return type(own, (kind,), {"__module__": module, "__qualname__": own})


_CLASSES = {name: _named(name, kind) for name, kind in _KINDS.items()}


@contextmanager
def stand_ins() -> Iterator[None]:
    """Let `torch.load(weights_only=True)` take the stand-ins for the classes of their names."""
    with _lock:
        allowed = torch.serialization.get_safe_globals()
        taken = {
            one[1] if isinstance(one, tuple) else f"{one.__module__}.{one.__qualname__}"
            for one in allowed
        }
        # What the user allows is left to the user's own classes
        ours: list[Any] = [one for name, one in _CLASSES.items() if name not in taken]
        with torch.serialization.safe_globals(ours):
            yield


def plain(value: Any, path: str, left_out: dict[str, str]) -> Any:
    """What was read, with plain data in place of the stand-ins; dicts and lists are kept.

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
            return value.plain()
        except ValueError as error:  # of objects
            left_out[path] = str(error)
            return None
    if isinstance(value, Foreign | _Later | type):
        left_out[path] = _class_name(value)
        return None
    if isinstance(value, dict):
        _make_plain(value, path, left_out)
    elif isinstance(value, list):
        value[:] = [plain(item, f"{path}.{i}", left_out) for i, item in enumerate(value)]
    elif type(value) is tuple:
        return tuple(plain(item, f"{path}.{i}", left_out) for i, item in enumerate(value))
    elif isinstance(value, set | frozenset):
        return type(value)(plain(item, f"{path}.{i}", left_out) for i, item in enumerate(value))
    return value


def _make_plain(value: dict[Any, Any], path: str, left_out: dict[str, str]) -> None:
    for key in [*value]:
        where = f"{path}.{key}" if path else str(key)
        if isinstance(key, Foreign):
            left_out[f"{path}, a key"] = key.name
        else:
            kept = plain(value[key], where, left_out)
            if where not in left_out:
                value[key] = kept
                continue
        del value[key]


def _class_name(value: Any) -> str:
    """The name of the class that an object is of, or that is named itself."""
    if isinstance(value, Foreign):
        return value.name
    kind = value if isinstance(value, type) else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"
