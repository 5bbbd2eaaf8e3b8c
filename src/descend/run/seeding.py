"""The seeding of samples: what each draws follows from its own seed, whoever fetches it.

To seed every generator before every sample takes longer than to fetch most samples. So it is done
in the first batch, which shows what is drawn from; from there on, a generator that nothing draws
from is only looked at, once for all samples of a batch.
"""

import pickle
import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
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

# By these names code reads the state of a generator and need not move it: by the first of any, by
# the second of one that it holds
READERS = {"bit_generator", "clone_state", "fork_rng", "get_bit_generator", "get_rng_state"}
READERS |= {"get_state", "getstate", "graphsafe_get_state", "initial_seed"}
COPIERS = {"copy", "deepcopy"}

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

    def state(self) -> Any:
        """Its state."""
        return state_of(self.generator)

    def put(self, state: Any) -> None:
        """Let it stand where it stood."""
        put_state(self.generator, state)

    def is_at(self, state: Any) -> bool:
        """Whether it stands where it stood: nothing has drawn from it, or seeded it."""
        now = self.state()
        if isinstance(state, torch.Tensor):
            return torch.equal(now, state)
        if isinstance(state, tuple):  # Python's, which is compared faster than pickled
            return bool(now == state)
        return pickle.dumps(now) == pickle.dumps(state)


class _GlobalNumpy(Source):
    """NumPy's global one, in whose place the user can have put a kind that takes no seed."""

    def state(self) -> Any:
        return np.random.get_bit_generator(), super().state()  # type: ignore[attr-defined]

    def put(self, state: Any) -> None:
        np.random.set_bit_generator(state[0])  # type: ignore[attr-defined]
        super().put(state[1])

    def is_at(self, state: Any) -> bool:
        generator, numbers = self.state()
        return generator is state[0] and pickle.dumps(numbers) == pickle.dumps(state[1])


class _Cuda(Source):
    """The global ones of all CUDA devices, once the process has used CUDA."""

    def state(self) -> Any:
        return [one.numpy() for one in torch.cuda.get_rng_state_all()] if _uses_cuda() else []

    def put(self, state: Any) -> None:
        for device, one in enumerate(state):
            torch.cuda.set_rng_state(torch.from_numpy(one), device)


def sources(*held: Any) -> list[Source]:
    """The global generators and some others, each with a share of its own in a seed.

    NumPy's and torch's are the same algorithm, and from the same bits a crop drawn from one would
    tell the flip drawn from the other.
    """
    python, numpy, of_torch = GLOBAL
    return [
        Source(python, python.seed),
        _GlobalNumpy(numpy, _seed_numpy),
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

    Attributes:
        drawn: the generators to seed; before the first batch, all.
    """

    def __init__(self, *things: object, shared: bool) -> None:
        found = reachable(*things)
        held = [thing for thing in found if is_generator(thing)]
        self.drawn = sources(*held)
        self._quiet: list[Source] = []
        self._shared = shared
        self._seeded: list[Any] = []  # in the first batch, the states that a seed has put them in
        self._moved: set[Source] = set()  # those that the first batch has drawn from so far
        # What is read without being moved does not show, and neither does what is put back
        self._judging = not names_used(found) & (READERS | COPIERS if held else READERS)

    def seed(self, seed: int) -> None:
        """Seed those that are drawn from."""
        self._look()
        for source in self.drawn:
            source.seed(seed)
        if self._judging:
            self._seeded = [source.state() for source in self.drawn]

    def fetched(self, fetch: Callable[[], Result]) -> Result:
        """A batch; fetched again where it draws from a generator that was not seeded.

        The generators stand afterwards where they stood before.

        Args:
            fetch: calls `seed` before each sample.
        """
        self._seeded = []
        with ExitStack() as after:
            for source in self.drawn if self._shared else ():
                after.callback(source.put, source.state())
            while True:
                quiet = [(source, source.state()) for source in self._quiet]
                try:
                    result = fetch()
                except BaseException as error:
                    if not self._have_moved(quiet, after) or not isinstance(error, Exception):
                        raise
                else:
                    if not self._have_moved(quiet, after):
                        self._judge()
                        return result

    def _have_moved(self, quiet: Sequence[tuple[Source, Any]], after: ExitStack) -> bool:
        """Seed from now on those that seemed to be quiet and have moved; whether there are any."""
        moved = [(source, state) for source, state in quiet if not source.is_at(state)]
        for source, state in moved:
            self._quiet.remove(source)
            self.drawn.append(source)
            if self._shared:
                after.callback(source.put, state)
        return bool(moved)

    def _look(self) -> None:
        """In the first batch, note which have moved since they were seeded."""
        pairs = zip(self.drawn, self._seeded, strict=False)
        self._moved |= {source for source, state in pairs if not source.is_at(state)}

    def _judge(self) -> None:
        """After the first batch, seed only those that have moved."""
        if self._judging:
            self._look()
            self._quiet = [source for source in self.drawn if source not in self._moved]
            self.drawn = [source for source in self.drawn if source in self._moved]
            self._judging, self._seeded = False, []


def _seed_numpy(seed: int) -> None:
    bit_generator = np.random.get_bit_generator()  # type: ignore[attr-defined]
    if not isinstance(bit_generator, np.random.MT19937):
        np.random.set_bit_generator(np.random.MT19937(0))  # type: ignore[attr-defined]
    np.random.seed(seed % 2**32)


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


def _uses_cuda() -> bool:
    return torch.cuda.is_initialized()  # type: ignore[no-untyped-call, no-any-return]
