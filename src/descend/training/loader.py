"""Batches as a function of (seed, epoch, position), on torch's DataLoader."""

import copy
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
import xxhash
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
    get_worker_info,
)

from descend.checkpoint.randomness import random_states, restore_random_states
from descend.errors import RunError, StateError

LARGEST_SEED = 2**32 - 1  # NumPy takes no larger one
Key = tuple[int, Any]  # an epoch, and an index into the dataset


class ResumableLoader:
    """A DataLoader whose every batch follows from a seed, an epoch and a position in it.

        order = permutation(seed, epoch), or the dataset's own where the loader does not shuffle
        the random numbers for sample i follow from (seed, epoch, i)

    It takes torch's DataLoader apart and puts it together again with a sampler of its own. Each
    epoch's order is a function of the seed and the epoch, and before a sample is fetched, Python's,
    NumPy's and torch's generators are seeded from (seed, epoch, index). So the batches do not
    depend on the number of workers, drawing them disturbs no other random number, and where a
    training stands is one number: going on in the middle of an epoch fetches nothing before it.

    Iterating gives the rest of the epoch under way, and moves on to the next when it is over.

    Args:
        loader: a DataLoader of a map-style dataset. It is not changed. A sampler other than torch's
            two usual ones is asked for its order at the start of each epoch, with the generators
            seeded from (seed, epoch), and `set_epoch` called where it has that.
        seed: a whole number from 0 to 2**32 - 1.

    Raises:
        RunError: if it is no DataLoader, has no batches, or its dataset is iterable-style: such a
            one can only be read from its start.

    Example:
        >>> samples = torch.arange(6)
        >>> loader = ResumableLoader(DataLoader(samples, batch_size=2, shuffle=True), seed=0)
        >>> all_of_it = [batch.tolist() for batch in loader]
        >>> loader.load_state_dict({**loader.state_dict(), "epoch": 0, "position": 2})
        >>> [batch.tolist() for batch in loader] == all_of_it[2:]
        True

    Source: torch.utils.data; counter-based random numbers, J. Salmon et al., Parallel Random
    Numbers: As Easy as 1, 2, 3, SC 2011.
    """

    def __init__(self, loader: "DataLoader[Any]", seed: int = 0) -> None:
        _refuse_unusable(loader, seed)
        self.seed = seed
        self.epoch = 0
        self.position = 0
        self.dataset = loader.dataset
        self._order = _Order(loader, seed)
        self._loader = _rebuilt(loader, self._order, seed)
        if len(self) == 0:
            raise RunError(
                f"the loader has no batches: its dataset has {_length(loader.dataset)} samples"
            )

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        """The rest of the epoch under way."""
        for batch in self.rest():
            yield batch
            self.position += 1
        self.next_epoch()

    def rest(self) -> Iterator[Any]:
        """The batches of the epoch under way from `position` on; counting them is the caller's."""
        self._order.start(self.epoch, self.position)
        if self.position < len(self):
            yield from self._loader

    def next_epoch(self) -> None:
        """Go to the start of the next epoch."""
        self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, and what that depends on."""
        return {"epoch": self.epoch, "position": self.position, **self._fixed()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go where another loader stood.

        Raises:
            StateError: if that one gave other batches: another seed, dataset length, batch size or
                order, so that its position means nothing here.
        """
        here = self._fixed()
        other = [
            f"{name} was {state.get(name)!r} and is {here[name]!r}"
            for name in here
            if state.get(name) != here[name]
        ]
        if other:
            raise StateError(
                f"the loader gives other batches than the one that was saved: {'; '.join(other)}; "
                f"give what was given then, or start a new run"
            )
        self.epoch, self.position = int(state["epoch"]), int(state["position"])

    def _fixed(self) -> dict[str, Any]:
        """What may not change between two processes of one run."""
        return {
            "seed": self.seed,
            "samples": _length(self.dataset),
            "batches": len(self),
            "batch_size": self._order.batch_size,
            "order": self._order.kind,
        }


class _Batched(Protocol):
    def __getitems__(self, indices: list[Any]) -> Any: ...


class _Order:
    """The batch sampler: the batches of keys from a position on, in the order of an epoch."""

    def __init__(self, loader: "DataLoader[Any]", seed: int) -> None:
        self.seed = seed
        self.automatic = loader.batch_sampler is not None  # else the dataset gives whole batches
        sampler = loader.sampler
        plain = loader.batch_sampler is None or type(loader.batch_sampler) is BatchSampler
        self.kind = "sampler"
        if plain and type(sampler) is SequentialSampler:
            self.kind = "sequential"
        elif (
            plain
            and type(sampler) is RandomSampler
            and not sampler.replacement
            and sampler.num_samples == _length(loader.dataset)
        ):
            self.kind = "shuffled"
        self.samples = _length(loader.dataset)
        self.batch_size: int | None = loader.batch_size
        self.drop_last = loader.drop_last
        # A copy: seeding it must not reach into what else the user does with it
        self.custom = copy.copy(loader.batch_sampler if self.automatic else loader.sampler)
        self._epoch, self._position = 0, 0

    def start(self, epoch: int, position: int) -> None:
        """From where the next iteration gives batches."""
        self._epoch, self._position = epoch, position

    def __len__(self) -> int:
        if self.kind == "sampler":
            return len(self.custom)  # type: ignore[arg-type]
        if not self.automatic:
            return self.samples
        assert self.batch_size is not None
        return (
            self.samples // self.batch_size
            if self.drop_last
            else -(-self.samples // self.batch_size)
        )

    def __iter__(self) -> Iterator[Any]:
        epoch, position = self._epoch, self._position  # workers ask for batches ahead of time
        self._position = 0
        if self.kind == "sampler":
            for item in self._sampled(epoch)[position:]:
                yield [(epoch, i) for i in item] if self.automatic else (epoch, item)
            return
        order = self._permutation(epoch)
        for number in range(position, len(self)):
            if not self.automatic:
                yield (epoch, int(order[number]))
                continue
            assert self.batch_size is not None
            part = order[number * self.batch_size : (number + 1) * self.batch_size]
            yield [(epoch, index) for index in part.tolist()]

    def _permutation(self, epoch: int) -> torch.Tensor:
        if self.kind == "sequential":
            return torch.arange(self.samples)
        generator = torch.Generator().manual_seed(_mixed(self.seed, epoch, "order"))
        return torch.randperm(self.samples, generator=generator)

    def _sampled(self, epoch: int) -> list[Any]:
        """What a sampler of the user's gives in an epoch."""
        samplers = [self.custom, getattr(self.custom, "sampler", None)]
        with _own_randomness(_mixed(self.seed, epoch, "order")) as seed:
            for sampler in samplers:
                if callable(set_epoch := getattr(sampler, "set_epoch", None)):
                    set_epoch(epoch)
                if isinstance(generator := getattr(sampler, "generator", None), torch.Generator):
                    generator.manual_seed(seed)
            return list(islice(self.custom, len(self)))  # type: ignore[arg-type]


class _Seeded:
    """A dataset by keys (epoch, index), that seeds the generators before each sample."""

    def __init__(self, dataset: Any, collate: Any, seed: int) -> None:
        self.dataset = dataset
        self.collate = collate
        self.seed = seed

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "dataset":
            raise AttributeError(name)  # pickle asks before there is a dataset
        return getattr(self.dataset, name)  # for a worker_init_fn that looks at the dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> Any:
        """A whole batch of a dataset that makes its own."""
        with _own_randomness(self._seed_of(key)):
            return self.collate(self.dataset[key[1]])

    def __getitems__(self, keys: Sequence[Key]) -> Any:
        """The batch of some keys, collated."""
        if type(self.dataset) is TensorDataset and self.collate is default_collate:
            return _rows(self.dataset, [index for _, index in keys])
        with _own_randomness(self._seed_of(keys[0]) if keys else 0):
            together = getattr(self.dataset, "__getitems__", None)
            if together is not None:  # one call for all: faster, and seeded once
                return self.collate(together([index for _, index in keys]))
            samples = []
            for key in keys:
                _seed(self._seed_of(key))
                samples.append(self.dataset[key[1]])
            return self.collate(samples)

    def _seed_of(self, key: Key) -> int:
        epoch, index = key
        return _mixed(self.seed, epoch, index if isinstance(index, int) else repr(index))


def _rows(dataset: TensorDataset, indices: list[int]) -> list[torch.Tensor]:
    """What collating the samples would give, in one operation per tensor."""
    at = torch.tensor(indices)
    return [tensor[at.to(tensor.device)] for tensor in dataset.tensors]


def _rebuilt(loader: "DataLoader[Any]", order: _Order, seed: int) -> "DataLoader[Any]":
    """The same DataLoader with our order and our seeds."""
    workers: dict[str, Any] = {}
    if loader.num_workers:
        workers = {
            "prefetch_factor": loader.prefetch_factor,
            "persistent_workers": loader.persistent_workers,
            "multiprocessing_context": loader.multiprocessing_context,
            "timeout": loader.timeout,
        }
    how: dict[str, Any] = {"batch_sampler": order}
    if not order.automatic:
        how = {"batch_size": None, "sampler": order}
    return DataLoader(
        _Seeded(loader.dataset, loader.collate_fn, seed),  # type: ignore[arg-type]
        num_workers=loader.num_workers,
        collate_fn=_as_it_is,
        pin_memory=loader.pin_memory,
        worker_init_fn=loader.worker_init_fn,
        # one of its own: torch draws the workers' base seed from it, else from the global one
        generator=torch.Generator().manual_seed(seed),
        **workers,
        **how,
    )


def _as_it_is(batch: Any) -> Any:
    return batch


@contextmanager
def _own_randomness(seed: int) -> Iterator[int]:
    """Seed the generators for the block; outside of workers, put them back after it."""
    if get_worker_info() is not None:
        _seed(seed)
        yield seed
        return
    before = random_states()
    _seed(seed)
    try:
        yield seed
    finally:
        restore_random_states(before)


def _seed(seed: int) -> None:
    """Seed the generators of the CPU: `torch.manual_seed` takes 200 us to ask for every device."""
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)


def _mixed(seed: int, epoch: int, what: int | str) -> int:
    """A seed of 32 bits that follows from all three."""
    return xxhash.xxh3_64_intdigest(f"{seed} {epoch} {what}".encode()) & LARGEST_SEED


def _length(dataset: Any) -> int:
    return len(dataset)


def _refuse_unusable(loader: object, seed: object) -> None:
    if not isinstance(loader, DataLoader):
        raise RunError(
            f"loader must be a torch.utils.data.DataLoader, and is a {type(loader).__name__}; "
            f"such as DataLoader(dataset, batch_size=32, shuffle=True)"
        )
    if isinstance(loader.dataset, IterableDataset) or not hasattr(loader.dataset, "__len__"):
        raise RunError(
            f"the loader's dataset, a {type(loader.dataset).__name__}, is iterable-style or has no "
            f"length: it can only be read from its start; give a map-style one, with __getitem__ "
            f"and __len__"
        )
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= LARGEST_SEED:
        raise RunError(f"seed must be a whole number from 0 to {LARGEST_SEED}, and is {seed!r}")
