"""Random generators of Python, NumPy and torch: those that objects hold, and their states."""

import gc
import random
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

KINDS = (torch.Generator, random.Random, np.random.RandomState, np.random.BitGenerator)
# The global ones, which whoever seeds at all sees to
GLOBAL = [random.random.__self__, np.random.random.__self__, torch.default_generator]  # type: ignore[attr-defined]
LEAVES = (str, bytes, bytearray, int, float, complex, torch.Tensor, np.ndarray, ModuleType, type)
# Loggers, threads, annotations: they hold half of the interpreter, and no generator of a dataset
OPAQUE = sys.stdlib_module_names - {"builtins", "collections", "functools", "random"}
LIBRARIES = sys.stdlib_module_names | {"torch", "numpy"}  # whose classes draw from no globals
# A training's samples need not be looked at one by one to find what draws for all of them
LARGEST_CONTAINER = 1000
MOST_OBJECTS = 20_000


def held_generators(*things: object) -> list[Any]:
    """The generators of Python, NumPy and torch that objects hold, but for the global ones.

    It looks into attributes, containers of up to 1,000 items, what functions close over, and the
    globals that functions and methods name. NumPy's `Generator` is found as its bit generator.

    Args:
        things: where to look, such as a dataset.

    Returns:
        Each generator once, in an order that follows from how the objects are built.

    Example:
        >>> held_generators({"draw": random.Random(0).random})
        [<random.Random object at ...>]
    """
    return [thing for thing in reachable(*things) if is_generator(thing)]


def names_used(things: Iterable[object]) -> set[str]:
    """The names of globals and attributes in the code of functions, and those of library functions.

    Args:
        things: what to look through, such as what `reachable` found.
    """
    names: set[str] = set()
    for thing in things:
        if isinstance(thing, FunctionType) and _library(thing) not in LIBRARIES:
            names.update(_names(thing.__code__))
        elif isinstance(thing, FunctionType | BuiltinFunctionType | MethodType):
            names.add(thing.__name__)  # its own, by whatever name it was imported
    return names


def is_generator(thing: object) -> bool:
    """Whether it is one that can be seeded."""
    if isinstance(thing, np.random.RandomState):  # of any other, its bit generator can
        return bool(thing.get_state(legacy=False)["bit_generator"] == "MT19937")
    return isinstance(thing, KINDS) and not isinstance(thing, random.SystemRandom)


def reachable(*things: object) -> list[Any]:
    """The objects that some objects hold, nearest first, themselves among them.

    The global generators are left out.
    """
    waiting, seen = deque(things), {id(thing) for thing in (*things, *GLOBAL)}
    found: list[Any] = []
    while waiting and len(found) < MOST_OBJECTS:
        thing = waiting.popleft()
        found.append(thing)
        if is_generator(thing):
            continue
        for held in _held(thing):
            if id(held) not in seen and not isinstance(held, LEAVES) and held is not None:
                seen.add(id(held))
                waiting.append(held)
    return found


class KeptGenerator:
    """A generator as something with a state.

    Args:
        generator: of Python, NumPy or torch.
    """

    def __init__(self, generator: Any) -> None:
        self.generator = generator

    def state_dict(self) -> dict[str, Any]:
        """Where it stands."""
        return {"state": state_of(self.generator)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go where another one stood."""
        put_state(self.generator, state["state"])


def with_state(thing: Any) -> Any:
    """A generator as something with a state; anything else as it is."""
    generator = thing.bit_generator if isinstance(thing, np.random.Generator) else thing
    return KeptGenerator(generator) if is_generator(generator) else thing


def state_of(generator: Any) -> Any:
    """The state of a generator."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    return generator.state


def put_state(generator: Any, state: Any) -> None:
    """Let a generator stand where another one stood."""
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, torch.Generator | np.random.RandomState):
        generator.set_state(state)
    else:
        generator.state = state


def _held(thing: object) -> Iterable[Any]:
    """The objects held by another that may hold a generator."""
    if isinstance(thing, FunctionType):
        return _named(thing)
    if isinstance(thing, list | tuple | set | frozenset | dict):
        is_namespace = isinstance(thing, dict) and "__builtins__" in thing
        if is_namespace or len(thing) > LARGEST_CONTAINER:
            return ()
        return [*thing.values()] if isinstance(thing, dict) else [*thing]
    if _library(type(thing)) in OPAQUE:
        return ()
    return [*gc.get_referents(thing), *_of_class(type(thing))]


def _named(function: FunctionType) -> list[Any]:
    """The objects that a function closes over, has as defaults, and names among its globals."""
    if _library(function) in LIBRARIES:
        return []
    return [
        *(function.__closure__ or ()),
        function.__defaults__,
        function.__kwdefaults__,
        *_globals(function),
    ]


def _globals(function: FunctionType) -> Iterable[Any]:
    """The globals that a function names, also within the modules of somebody's own."""
    names = _names(function.__code__)
    for name in names:
        value = function.__globals__.get(name)
        yield value
        if isinstance(value, ModuleType) and _top(value.__name__) not in LIBRARIES:
            yield from (vars(value).get(inner) for inner in names)


def _names(code: CodeType) -> list[str]:
    """The globals and attributes that code names, that of the functions within it too."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return [*code.co_names, *(name for one in inner for name in _names(one))]


def _of_class(kind: type) -> list[Any]:
    """The attributes of a class of somebody's own: its methods, and what all its objects share."""
    own = [base for base in kind.__mro__ if _library(base) not in LIBRARIES]
    return [value for base in own for value in vars(base).values()]


def _library(thing: type | FunctionType) -> str:
    return _top(thing.__module__ or "")


def _top(module: str) -> str:
    return module.partition(".")[0]
