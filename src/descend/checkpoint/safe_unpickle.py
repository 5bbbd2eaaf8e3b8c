"""Torch files read without running code, whatever classes the objects in them are of.

torch's own reader of that kind gives up at the first class that it does not know. This one goes
on: for a class that is known to be harmless it makes plain data; of any other it makes nothing,
calls nothing, and leaves a `Foreign` in each object's place.
"""

import _compat_pickle
import pickle
import pickletools
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO

import torch
from torch import _weights_only_unpickler as torchs_own

from descend.checkpoint.harmless_classes import HARMLESS, Foreign, Later, StandIn

PUSHED = {  # opcodes that push their argument
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "BYTEARRAY8", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
}  # fmt: skip
CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set,
}  # fmt: skip
MADE: dict[str, Callable[[list[Any]], Any]] = {  # of all that is above the last mark
    "TUPLE": tuple, "LIST": list, "FROZENSET": frozenset,
    "DICT": lambda items: dict(zip(items[::2], items[1::2], strict=True)),
}  # fmt: skip
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
FOLLOWING = 2  # the protocol up to which modules have the names that they had in Python 2


def load_harmless(file: BinaryIO) -> Any:
    """What a torch file holds, with a `Foreign` in place of each object of an unknown class.

    Args:
        file: at its start; `torch.load(file, weights_only=True)` has refused it for its classes.

    Raises:
        Exception: almost any, for a damaged file.
    """
    return torch.load(
        file, map_location="cpu", weights_only=False, pickle_module=_Pickle, mmap=False
    )


class Reader:
    """A pickle's machine that builds plain data, and calls what torch has for tensors alone.

    Args:
        file: the pickle.
        encoding: is not used: text of Python 2 is Latin-1.
    """

    persistent_load: Callable[[Any], Any]  # torch sets it: what gives a storage

    def __init__(self, file: BinaryIO, *, encoding: str = "") -> None:
        self._file = file
        self._known = {
            **HARMLESS,
            **torchs_own._get_user_allowed_globals(),  # type: ignore[no-untyped-call]
            **torchs_own._get_allowed_globals(),
        }
        self._callable = {id(one) for one in self._known.values()}
        self._protocol = 0
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks under each mark
        self._memo: dict[int, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a class or a function, by the name that it has in the file."""
        if self._protocol <= FOLLOWING:
            new = _compat_pickle.NAME_MAPPING.get((module, name))
            module, name = new or (_compat_pickle.IMPORT_MAPPING.get(module, module), name)
        whole = f"{module}.{name}"
        if module in torchs_own._blocklisted_modules:
            return Foreign(whole)
        return self._known.get(whole, Foreign(whole))

    def load(self) -> Any:
        """Run the pickle."""
        for opcode, argument, _ in pickletools.genops(self._file):
            name = opcode.name
            if name in PUSHED:
                self._stack.append(argument)
            elif name in CONSTANTS:
                self._stack.append(CONSTANTS[name]())
            elif name in MADE:
                items = self._popped()
                self._stack.append(MADE[name](items))
            elif name in TUPLES:
                top = slice(-TUPLES[name], None)
                self._stack[top] = [tuple(self._stack[top])]
            elif name == "STOP":
                return self._stack.pop()
            else:
                step = getattr(self, f"_{name.lower()}", None)
                if step is None:
                    raise pickle.UnpicklingError(f"Unsupported operand {name}")
                step(argument)
        raise EOFError

    def _proto(self, version: int) -> None:
        self._protocol = version

    def _frame(self, length: int) -> None:
        pass

    def _mark(self, _: None) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _popped(self) -> list[Any]:
        """What is above the last mark."""
        items, self._stack = self._stack, self._below.pop()
        return items

    def _pop(self, _: None) -> None:
        self._stack = self._stack[:-1] or self._below.pop()

    def _pop_mark(self, _: None) -> None:
        self._popped()

    def _dup(self, _: None) -> None:
        self._stack.append(self._stack[-1])

    def _memoize(self, _: None) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _binput(self, number: int) -> None:
        self._memo[number] = self._stack[-1]

    def _binget(self, number: int) -> None:
        self._stack.append(self._memo[number])

    _put = _long_binput = _binput
    _get = _long_binget = _binget

    def _append(self, _: None) -> None:
        self._extend([self._stack.pop()])

    def _appends(self, _: None) -> None:
        self._extend(self._popped())

    def _extend(self, items: list[Any]) -> None:
        into = self._stack[-1]
        if type(into) is Foreign:
            into.items = into.items if isinstance(into.items, list) else []
            into = into.items
        if type(into) is not list:
            raise pickle.UnpicklingError(f"a {type(into).__name__} is no list")
        into.extend(items)

    def _additems(self, _: None) -> None:
        items = self._popped()
        if type(self._stack[-1]) is not set:
            raise pickle.UnpicklingError(f"a {type(self._stack[-1]).__name__} is no set")
        self._stack[-1].update(items)

    def _setitem(self, _: None) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._update([key, value])

    def _setitems(self, _: None) -> None:
        self._update(self._popped())

    def _update(self, items: list[Any]) -> None:
        into = self._stack[-1]
        if type(into) is Foreign:
            into.items = into.items if isinstance(into.items, dict) else {}
            into = into.items
        if type(into) not in (dict, OrderedDict, Counter):
            raise pickle.UnpicklingError(f"a {type(into).__name__} is no dict")
        into.update(zip(items[::2], items[1::2], strict=True))

    def _global(self, name: str) -> None:
        self._stack.append(self.find_class(*name.split(" ", 1)))

    def _stack_global(self, _: None) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if type(name) is not str or type(module) is not str:
            raise pickle.UnpicklingError("a class has a name that is none")
        self._stack.append(self.find_class(module, name))

    def _binpersid(self, _: None) -> None:
        given = self._stack.pop()
        if type(given) is tuple and given[:1] == ("module",):  # the class, and its source
            self._stack.append(given[1])
            return
        if type(given) is not tuple or given[:1] != ("storage",):
            raise pickle.UnpicklingError("only storages are outside of the pickle")
        self._stack.append(self.persistent_load(given))

    def _reduce(self, _: None) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._stack.append(self._called(function, arguments))

    def _newobj(self, _: None) -> None:
        arguments, kind = self._stack.pop(), self._stack.pop()
        if kind is torch.nn.Parameter or type(kind) in (Foreign, StandIn):
            made = self._called(kind, arguments)
        elif isinstance(kind, type) and id(kind) in self._callable:
            made = kind.__new__(kind, *arguments)
        else:
            raise pickle.UnpicklingError(f"{kind!r} is no class that is known")
        self._stack.append(made)

    def _newobj_ex(self, _: None) -> None:
        _, _, kind = self._stack.pop(), self._stack.pop(), self._stack.pop()
        if type(kind) is not Foreign:
            raise pickle.UnpicklingError(f"{kind!r} is called in an unknown way")
        self._stack.append(Foreign(kind.name))

    def _build(self, _: None) -> None:
        state, made = self._stack.pop(), self._stack[-1]
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


class _Pickle:
    """What torch takes for a module to read pickles with."""

    Unpickler = Reader
    __name__ = "descend.checkpoint.safe_unpickle"

    @staticmethod
    def load(file: BinaryIO, **options: Any) -> Any:
        """Read one pickle."""
        return Reader(file).load()
