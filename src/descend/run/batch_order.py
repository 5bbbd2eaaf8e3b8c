"""The order of an epoch's batches, as a function of (seed, epoch, position)."""

import copy
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from typing import Any, NamedTuple

import torch
import xxhash
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from descend.errors import RunError
from descend.run.generators import held_generators, is_generator, reachable
from descend.run.seeding import sources

# Samplers of torch's, whose order follows from their generator, or from the global one, alone
MEMORYLESS = (
    BatchSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)


class BatchRequest(NamedTuple):
    """A batch of an epoch, by its number in it, as a dataset is asked for it.

    Args:
        epoch: counted from 0.
        number: counted from 0.
        indices: into the dataset.
    """

    epoch: int
    number: int
    indices: list[Any]


class BatchOrder:
    """A batch sampler: the batches of an epoch from a position on.

    Args:
        loader: whose order it is. Its sampler is not used, but a copy.
        seed: what the order follows from, with the epoch.
        most: how many batches an epoch has at most; None: all.

    Raises:
        RunError: if the sampler has no length, or cannot be copied.
    """

    def __init__(self, loader: "DataLoader[Any]", seed: int, most: int | None = None) -> None:
        self.seed = seed
        self.samples = len(loader.dataset)  # type: ignore[arg-type]
        self.automatic = loader.batch_sampler is not None  # else the dataset makes its batches
        outer: Any = loader.batch_sampler if self.automatic else loader.sampler
        plain = self.automatic and type(outer) is BatchSampler
        # One that the user made hides its sampler and its size from the loader
        inner = outer.sampler if plain else outer
        self.batch_size: int | None = getattr(outer, "batch_size", None)
        self.drop_last: bool = getattr(outer, "drop_last", False)
        self.kind = _kind(inner, self.samples) if plain or not self.automatic else ""
        if self.kind:
            size = self.batch_size if self.automatic else None
            self._batches: _Permuted | _Sampled = _Permuted(self, size or 1)
        else:
            self.kind = type(inner).__name__
            self._batches = _Sampled(outer, loader.dataset, seed, by_batches=self.automatic)
        self._batches.length = min(self._batches.length, most or self._batches.length)
        self._epoch, self._position = 0, 0

    def start(self, epoch: int, position: int) -> None:
        """From where the next iteration gives batches."""
        self._epoch, self._position = epoch, position

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return self._batches.length

    def __iter__(self) -> Iterator[BatchRequest]:
        """The batches from where `start` said."""
        epoch, position = self._epoch, self._position  # workers ask for batches ahead of time
        for number, indices in enumerate(self._batches.of(epoch, position), start=position):
            yield BatchRequest(epoch, number, indices)


def _kind(sampler: Any, samples: int) -> str:
    """The order of a sampler that gives each sample once, which needs no copy of it; else none."""
    if type(sampler) is SequentialSampler and len(sampler) == samples:
        return "sequential"
    if type(sampler) is not RandomSampler or sampler.replacement:
        return ""
    return "shuffled" if sampler.num_samples == len(sampler.data_source) == samples else ""


class _Permuted:
    """The batches of an epoch that gives each sample once, as a function of the epoch."""

    def __init__(self, order: BatchOrder, size: int) -> None:
        self.seed, self.samples, self.size = order.seed, order.samples, size
        self.shuffled = order.kind == "shuffled"
        whole, rest = divmod(self.samples, size)
        self.length = whole + bool(rest and not order.drop_last)

    def of(self, epoch: int, position: int) -> Iterator[list[Any]]:
        """The indices of each batch of an epoch, from a position on."""
        order = torch.arange(self.samples)
        if self.shuffled:
            generator = torch.Generator().manual_seed(mixed(self.seed, epoch, "order") >> 64)
            order = torch.randperm(self.samples, generator=generator)
        for begin in range(position * self.size, self.length * self.size, self.size):
            yield order[begin : begin + self.size].tolist()


def mixed(seed: int, epoch: int, what: object) -> int:
    """A seed of 128 bits that follows from all three."""
    return xxhash.xxh3_128_intdigest(f"{seed} {epoch} {what}".encode())


class _Sampled:
    """The orders of a sampler of the user's, epoch by epoch, as a function of the epoch.

    A sampler can remember what it did: shuffle a list of its own in place, count its epochs. So a
    copy of it goes through all epochs before, where it does not know `set_epoch`.
    """

    def __init__(self, sampler: Any, dataset: Any, seed: int, *, by_batches: bool) -> None:
        self.seed, self.by_batches = seed, by_batches
        name = type(sampler.sampler if type(sampler) is BatchSampler else sampler).__name__
        try:
            self._untouched = _copied(sampler, dataset)
        except Exception as error:  # whatever its __deepcopy__ or __reduce_ex__ raises
            raise RunError(
                f"the sampler {name} cannot be copied ({error}), and the order of an epoch is "
                f"asked of a copy; let it hold no open files, locks or iterators"
            ) from error
        self._dataset = dataset
        try:
            self.length = len(self._untouched)
        except (TypeError, NotImplementedError) as error:
            raise RunError(
                f"the sampler {name} has no length ({error}): where an epoch "
                f"ends cannot be told; give it a __len__, which may be any for an endless one"
            ) from error
        self._last: tuple[int, list[Any]] = (-1, [])
        self._memoryless = False
        self._start_over()

    def of(self, epoch: int, position: int) -> Iterator[list[Any]]:
        """The indices of each batch of an epoch, from a position on."""
        for item in self._order(epoch)[position:]:
            yield list(item) if self.by_batches else [item]

    def _order(self, epoch: int) -> list[Any]:
        """The items that it gives in an epoch, as far as its length says."""
        if self._last[0] != epoch:
            if self._memoryless:
                self._next = epoch
            elif epoch < self._next:
                self._start_over()
            while self._next <= epoch:
                self._last = (self._next, self._ask(self._next))
                self._next += 1
        return self._last[1]

    def _start_over(self) -> None:
        self._copy, self._next = _copied(self._untouched, self._dataset), 0
        self._chain = [self._copy]
        for name in ("batch_sampler", "sampler") * 4:  # samplers wrap samplers
            inner = getattr(self._chain[-1], name, None)
            if inner is not None:
                self._chain.append(inner)
        self._set_epochs = [
            method for one in self._chain if callable(method := getattr(one, "set_epoch", None))
        ]
        self._memoryless = bool(self._set_epochs) or all(
            type(one) in MEMORYLESS for one in self._chain
        )
        self._sources = sources(*held_generators(self._copy))

    def _ask(self, epoch: int) -> list[Any]:
        seed = mixed(self.seed, epoch, "order")
        with ExitStack() as after:
            for source in self._sources:
                after.callback(source.put, source.state())
                source.seed(seed)
            for set_epoch in self._set_epochs:
                set_epoch(epoch)
            return list(islice(self._copy, self.length))


def _copied(sampler: Any, dataset: Any) -> Any:
    """A copy that shares the dataset and nothing else."""
    shared = {id(thing): thing for thing in reachable(dataset) if not is_generator(thing)}
    return copy.deepcopy(sampler, shared)
