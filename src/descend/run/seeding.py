"""The seeding of samples: what each draws follows from its own seed, whoever fetches it.

To seed every generator before every sample takes longer than to fetch most samples. So one that
nothing draws from is only looked at, once for all samples of a batch.
"""

import ctypes
import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from typing import Any, TypeVar

import numpy as np
import torch
import xxhash

from descend.run.generators import (
    GLOBAL,
    is_generator,
    names_used,
    put_state,
    reachable,
    state_of,
)

ASIDE = np.random.MT19937(0)  # stands in for NumPy's global one
# By these names code reads the state of a generator and need not move it: by the first of any, by
# the second of one that it holds
READERS = {"bit_generator", "clone_state", "fork_rng", "get_bit_generator", "get_rng_state"}
READERS |= {"get_state", "getstate", "graphsafe_get_state", "initial_seed"}
COPIERS = {"copy", "deepcopy"}

HEAD = object.__basicsize__  # bytes of any object, in which its references are counted
# Those whose state should lie within the object, and how to move them
IN_MEMORY: dict[type, Callable[[Any], object]] = {
    random.Random: lambda generator: generator.random(),
    np.random.RandomState: lambda generator: generator.standard_normal(),  # two, one of them waits
    **{
        kind: lambda generator: generator.random_raw()
        for kind in (
            np.random.MT19937,
            np.random.PCG64,
            np.random.PCG64DXSM,
            np.random.Philox,
            np.random.SFC64,
        )
    },
}

Result = TypeVar("Result")


class Source:
    """A generator that can be drawn from: seeded, looked at, and put back.

    Args:
        generator: of Python, NumPy or torch.
        seed: seeds it from 128 bits.
    """

    def __init__(self, generator: Any, seed: Callable[[int], object]) -> None:
        self.generator = generator
        self.seed = seed
        self._look: object = None
        self._kept: Any = None

    def keep(self) -> None:
        """Remember where it stands."""
        look = self.look()
        if look != self._look:  # to ask for the state takes up to 30 times as long as to look
            self._look, self._kept = look, self.state()

    def has_moved(self) -> bool:
        """Whether it was drawn from, or seeded, since `keep`."""
        return self.look() != self._look

    def put_back(self) -> None:
        """Let it stand where it stood at `keep`."""
        self.put(self._kept)

    def put_aside(self) -> Callable[[], None]:
        """Make way for seeds; what is returned puts it back."""
        self.keep()
        return partial(self.put, self._kept)

    def look(self) -> object:
        """What differs once it was drawn from."""
        return _look(self.generator)

    def state(self) -> Any:
        """Its state."""
        return state_of(self.generator)

    def put(self, state: Any) -> None:
        """Let it stand where it stood."""
        put_state(self.generator, state)


class _GlobalNumpy(Source):
    def put_aside(self) -> Callable[[], None]:
        """Put another one in its place, which takes 1 us where setting its state takes 25.

        But that forgets a number from a normal distribution that waits to be drawn.
        """
        put_back = super().put_aside()
        before = np.random.get_bit_generator()  # type: ignore[attr-defined]
        if self._kept["has_gauss"] or before is ASIDE:  # the latter in a dataset with a loader
            return put_back
        np.random.set_bit_generator(ASIDE)  # type: ignore[attr-defined]
        return lambda: np.random.set_bit_generator(before)  # type: ignore[attr-defined]


class _Cuda(Source):
    """The global ones of all CUDA devices, once the process has used CUDA."""

    def look(self) -> object:
        return [bytes(state.numpy()) for state in self.state()]

    def state(self) -> Any:
        return torch.cuda.get_rng_state_all() if _uses_cuda() else []

    def put(self, state: Any) -> None:
        for device, one in enumerate(state):
            torch.cuda.set_rng_state(one, device)


def sources(*held: Any) -> list[Source]:
    """The global generators and some others, each with a share of its own in a seed.

    NumPy's and torch's are the same algorithm, and from the same bits a crop drawn from one would
    tell the flip drawn from the other.
    """
    python, numpy, of_torch = GLOBAL
    return [
        Source(python, python.seed),
        _GlobalNumpy(numpy, lambda seed: numpy.seed(seed % 2**32)),
        Source(of_torch, lambda seed: of_torch.manual_seed(seed >> 64)),
        _Cuda(None, _seed_cuda),
        *(Source(one, partial(_seed_held, one, number)) for number, one in enumerate(held, 1)),
    ]


class Seeding:
    """Seeds the generators that samples draw from, and notices which these are.

    Args:
        things: what draws: a dataset, a collate function.
        shared: whether anything else in this process draws from the global generators, so that they
            have to be put back.
    """

    def __init__(self, *things: object, shared: bool) -> None:
        found = reachable(*things)
        held = [thing for thing in found if is_generator(thing)]
        self.drawn: list[Source] = []
        self._quiet = sources(*held)
        if names_used(found) & (READERS | COPIERS if held else READERS):
            self.drawn, self._quiet = self._quiet, []
        self._shared = shared

    @contextmanager
    def batch(self) -> Iterator[None]:
        """The generators stand after the block where they stood before."""
        with ExitStack() as self._after:
            self._put_aside(self.drawn)
            yield

    def seed(self, seed: int) -> None:
        """Seed those that are drawn from."""
        for source in self.drawn:
            source.seed(seed)

    def tried(self, seed: int, work: Callable[[], Result]) -> Result:
        """What some work gives with all generators seeded; afterwards it is known which it needs.

        Those that are known to be drawn from stand where they stand.
        """
        self._put_aside(self._quiet)
        for source in self._quiet:
            source.seed(seed)
            source.keep()
        result = work()
        self._settle()
        return result

    def exactly(self, work: Callable[[], Result]) -> Result:
        """What some work gives; it is done again where it draws from one that was not seeded."""
        while True:
            for source in self._quiet:
                source.keep()
            try:
                result = work()
            except BaseException as error:
                if self._settle(put_back=True) or not isinstance(error, Exception):
                    raise
            else:
                if self._settle(put_back=True):
                    return result

    def _settle(self, put_back: bool = False) -> bool:
        """Note which have moved that seemed to be quiet; whether there are none."""
        moved = [source for source in self._quiet if source.has_moved()]
        for source in moved:
            self._quiet.remove(source)
            if put_back:
                source.put_back()
        self.drawn += moved
        if put_back:
            self._put_aside(moved)
        return not moved

    def _put_aside(self, some: list[Source]) -> None:
        if self._shared:
            for source in some:
                self._after.callback(source.put_aside())


def _seed_cuda(seed: int) -> None:
    if _uses_cuda():  # torch.manual_seed takes 200 us to ask for every other kind of device
        torch.cuda.manual_seed_all(seed >> 64)


def _seed_held(generator: Any, number: int, seed: int) -> None:
    own = xxhash.xxh3_64_intdigest(f"{seed} {number}".encode())
    if isinstance(generator, torch.Generator):
        generator.manual_seed(own)
    elif isinstance(generator, random.Random):
        generator.seed(own)
    elif isinstance(generator, np.random.RandomState):
        generator.seed(own % 2**32)
    else:
        generator.state = type(generator)(own).state


def _look(generator: Any) -> object:
    """What differs once a generator was drawn from; most times it is read from memory."""
    if isinstance(generator, torch.Generator):
        return bytes(generator.get_state().numpy())
    if type(generator) not in _shown_in_memory():
        return pickle.dumps(state_of(generator))
    if isinstance(generator, random.Random):
        return _memory(generator), generator.gauss_next  # type: ignore[attr-defined]
    if isinstance(generator, np.random.RandomState):
        return _memory(generator), _look(generator._bit_generator)
    return _memory(generator)


@cache
def _shown_in_memory() -> set[type]:
    """The kinds of generators of which an object's own memory differs once it has moved."""
    shown = set()
    for kind, move in IN_MEMORY.items():
        one = kind(0)
        move(one)
        before = _memory(one)
        move(one)
        if _memory(one) != before:
            shown.add(kind)
    return shown


def _memory(thing: object) -> bytes:
    return ctypes.string_at(id(thing) + HEAD, type(thing).__basicsize__ - HEAD)


def _uses_cuda() -> bool:
    return torch.cuda.is_initialized()  # type: ignore[no-untyped-call, no-any-return]
