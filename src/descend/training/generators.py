"""Random generators, the global ones and those that objects hold: found, seeded, put back."""

import gc
import random
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
import xxhash

ASIDE = np.random.MT19937(0)  # stands in for NumPy's global one
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


@contextmanager
def put_aside(*generators: Any) -> Iterator[None]:
    """Put the global generators, and some others, back after the block where they were before."""
    states = [(generator, _state(generator)) for generator in generators]
    python, of_torch = random.getstate(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if _uses_cuda() else []
    put_numpy_back = _numpy_aside()
    try:
        yield
    finally:
        put_numpy_back()
        random.setstate(python)
        torch.set_rng_state(of_torch)
        for device, state in enumerate(cuda):
            torch.cuda.set_rng_state(state, device)
        for generator, state in states:
            _put_back(generator, state)


def seed_global_generators(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators from 128 bits.

    Each takes bits of its own: NumPy's and torch's are the same algorithm, and from the same bits
    a crop drawn from one would tell the flip drawn from the other.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed >> 64)
    if _uses_cuda():  # torch.manual_seed takes 200 us to ask for every other kind of device
        torch.cuda.manual_seed_all(seed >> 64)


def seed_generators(generators: Iterable[Any], seed: int) -> None:
    """Seed those that `held_generators` found, each differently, from 128 bits."""
    for number, generator in enumerate(generators, start=1):
        own = xxhash.xxh3_64_intdigest(f"{seed} {number}".encode())
        if isinstance(generator, torch.Generator):
            generator.manual_seed(own)
        elif isinstance(generator, random.Random):
            generator.seed(own)
        elif isinstance(generator, np.random.RandomState):
            generator.seed(own % 2**32)
        else:
            generator.state = type(generator)(own).state


class KeptGenerator:
    """A generator as something with a state.

    Args:
        generator: of Python, NumPy or torch.
    """

    def __init__(self, generator: Any) -> None:
        self.generator = generator

    def state_dict(self) -> dict[str, Any]:
        """Where it stands."""
        return {"state": _state(self.generator)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go where another one stood."""
        _put_back(self.generator, state["state"])


def with_state(thing: Any) -> Any:
    """A generator as something with a state; anything else as it is."""
    generator = thing.bit_generator if isinstance(thing, np.random.Generator) else thing
    return KeptGenerator(generator) if is_generator(generator) else thing


def _numpy_aside() -> Callable[[], None]:
    """Put NumPy's global generator aside; what is returned puts it back.

    Setting its state takes 60 us, putting another one in its place takes 1; but that forgets a
    number from a normal distribution that waits to be drawn.
    """
    state = np.random.get_state(legacy=False)
    before = np.random.get_bit_generator()  # type: ignore[attr-defined]
    if state["has_gauss"] or before is ASIDE:  # the latter in a dataset with a loader in it
        return lambda: np.random.set_state(state)
    np.random.set_bit_generator(ASIDE)  # type: ignore[attr-defined]
    return lambda: np.random.set_bit_generator(before)  # type: ignore[attr-defined]


def _uses_cuda() -> bool:
    return torch.cuda.is_initialized()  # type: ignore[no-untyped-call, no-any-return]


def _state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    return generator.state


def _put_back(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, torch.Generator | np.random.RandomState):
        generator.set_state(state)
    else:
        generator.state = state


def _held(thing: object) -> Iterable[Any]:
    """What an object holds that may hold a generator."""
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
    """What a function closes over, has as defaults, and names among its globals."""
    if _library(function) in LIBRARIES:
        return []
    return [
        *(function.__closure__ or ()),
        function.__defaults__,
        function.__kwdefaults__,
        *(function.__globals__.get(name) for name in function.__code__.co_names),
    ]


def _of_class(kind: type) -> list[Any]:
    """What a class of somebody's own holds: its methods, and what all its objects share."""
    own = [base for base in kind.__mro__ if _library(base) not in LIBRARIES]
    return [value for base in own for value in vars(base).values()]


def _library(thing: type | FunctionType) -> str:
    return (thing.__module__ or "").partition(".")[0]
