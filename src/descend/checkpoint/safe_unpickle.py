"""Torch files read without running code, whatever classes the objects in them are of.

torch's own reader of that kind gives up at the first class that it does not know. This one goes
on: for a class that is known to be harmless it makes plain data; of any other it makes nothing,
calls nothing, and leaves a `Foreign` in each object's place.
"""

import _compat_pickle
import pickle
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar

import torch
from torch import _weights_only_unpickler as torchs_own

from descend.checkpoint.harmless_classes import HARMLESS, Foreign, Later, StandIn

# Opcodes that push plain data, move what is on the stack, or name a class. All others that Python
# has are left out, or are below: what calls, and what writes into an object
INERT = (
    "PROTO", "FRAME", "MARK", "STOP", "POP", "POP_MARK", "DUP", "GLOBAL", "STACK_GLOBAL",
    "GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE",
    "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4",
    "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "LIST", "EMPTY_DICT",
    "DICT", "EMPTY_SET", "FROZENSET",
)  # fmt: skip
_Machine: Any = pickle._Unpickler
FOLLOWING = 2  # the protocol up to which modules have the names that they had in Python 2


def load_harmless(file: BinaryIO) -> Any:
    """Read a torch file, with a `Foreign` in place of each object of an unknown class.

    Args:
        file: at its start; `torch.load(file, weights_only=True)` has refused it for its classes.

    Raises:
        Exception: almost any, for a damaged file.
    """
    return torch.load(
        file, map_location="cpu", weights_only=False, pickle_module=_Pickle, mmap=False
    )


class Reader(_Machine):  # type: ignore[misc]
    """Python's machine for pickles, which builds plain data and calls only what torch's own does.

    Args:
        file: the pickle.
        encoding: is not used: text of Python 2 is Latin-1.
    """

    def __init__(self, file: BinaryIO, *, encoding: str = "") -> None:
        super().__init__(file, encoding="latin1")
        self._known = {
            **HARMLESS,
            **torchs_own._get_user_allowed_globals(),  # type: ignore[no-untyped-call]
            **torchs_own._get_allowed_globals(),
        }
        self._callable = {id(one) for one in self._known.values()}

    def find_class(self, module: str, name: str) -> Any:
        """Find what stands for a class or a function, by the name that it has in the file."""
        if self.proto <= FOLLOWING:
            new = _compat_pickle.NAME_MAPPING.get((module, name))
            module, name = new or (_compat_pickle.IMPORT_MAPPING.get(module, module), name)
        whole = f"{module}.{name}"
        if module in torchs_own._blocklisted_modules:
            return Foreign(whole)
        return self._known.get(whole, Foreign(whole))

    def _bytearray(self) -> None:
        length = int.from_bytes(self.read(8), "little")
        self.stack.append(bytearray(self.read(length)))  # Python makes room for it before it reads

    def _append(self) -> None:
        self._extend([self.stack.pop()])

    def _appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, items: list[Any]) -> None:
        into = self.stack[-1]
        if type(into) is Foreign:
            into.items = into.items if isinstance(into.items, list) else []
            into = into.items
        if type(into) is not list:
            raise pickle.UnpicklingError(f"a {type(into).__name__} is no list")
        into.extend(items)

    def _add_items(self) -> None:
        items = self.pop_mark()
        if type(self.stack[-1]) is not set:
            raise pickle.UnpicklingError(f"a {type(self.stack[-1]).__name__} is no set")
        self.stack[-1].update(items)

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update([key, value])

    def _set_items(self) -> None:
        self._update(self.pop_mark())

    def _update(self, items: list[Any]) -> None:
        into = self.stack[-1]
        if type(into) is Foreign:
            into.items = into.items if isinstance(into.items, dict) else {}
            into = into.items
        if type(into) not in (dict, OrderedDict, Counter):
            raise pickle.UnpicklingError(f"a {type(into).__name__} is no dict")
        into.update(zip(items[::2], items[1::2], strict=True))

    def _persistent(self) -> None:
        given = self.stack.pop()
        if type(given) is tuple and given[:1] == ("module",):  # the class, and its source
            self.stack.append(given[1])
            return
        if type(given) is not tuple or given[:1] != ("storage",):
            raise pickle.UnpicklingError("only storages are outside of the pickle")
        self.stack.append(self.persistent_load(given))

    def _reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(self._called(function, arguments))

    def _new(self) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        if kind is torch.nn.Parameter or type(kind) in (Foreign, StandIn):
            made = self._called(kind, arguments)
        elif isinstance(kind, type) and id(kind) in self._callable:
            made = kind.__new__(kind, *arguments)
        else:
            raise pickle.UnpicklingError(f"{kind!r} is no class that is known")
        self.stack.append(made)

    def _new_with_names(self) -> None:
        _, _, kind = self.stack.pop(), self.stack.pop(), self.stack.pop()
        if type(kind) is not Foreign:
            raise pickle.UnpicklingError(f"{kind!r} is called in an unknown way")
        self.stack.append(Foreign(kind.name))

    def _build(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        kind = type(made)
        if kind is Foreign:
            return
        if isinstance(made, Later):
            made.state = state
        elif kind is torch.Tensor:
            made.set_(*state)
        elif kind is OrderedDict:
            vars(made).update(state)
        elif (kind is torch.nn.Parameter or id(kind) in self._callable) and hasattr(
            made, "__setstate__"
        ):
            made.__setstate__(state)
        else:
            raise pickle.UnpicklingError(f"a {kind.__name__} cannot be given a state")

    def _called(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        if type(function) is Foreign:
            return Foreign(function.name)
        if function is not torch.nn.Parameter and id(function) not in self._callable:
            raise pickle.UnpicklingError(f"{function!r} is no function that is known")
        if function is torch._tensor._rebuild_from_type_v2 and type(arguments[1]) is Foreign:
            return self._called(arguments[0], arguments[2])  # a tensor of a subclass, as a tensor
        foreign = next((one for one in arguments if type(one) is Foreign), None)
        if foreign is not None:
            return Foreign(foreign.name)
        if type(function) is not StandIn:
            return function(*arguments)
        try:
            return function.make(*arguments)
        except ValueError:  # for what it cannot stand for
            return Foreign(function.name)

    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        **{code: _Machine.dispatch[code] for code in (getattr(pickle, name)[0] for name in INERT)},
        pickle.BYTEARRAY8[0]: _bytearray,
        pickle.APPEND[0]: _append, pickle.APPENDS[0]: _appends,
        pickle.ADDITEMS[0]: _add_items,
        pickle.SETITEM[0]: _set_item, pickle.SETITEMS[0]: _set_items,
        pickle.BINPERSID[0]: _persistent,
        pickle.REDUCE[0]: _reduce,
        pickle.NEWOBJ[0]: _new, pickle.NEWOBJ_EX[0]: _new_with_names,
        pickle.BUILD[0]: _build,
    }  # fmt: skip


class _Pickle:
    """A reader of pickles in the form of a module, which torch asks for."""

    Unpickler = Reader
    __name__ = "descend.checkpoint.safe_unpickle"

    @staticmethod
    def load(file: BinaryIO, **options: Any) -> Any:
        """Read one pickle."""
        return Reader(file).load()
