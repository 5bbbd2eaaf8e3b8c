"""Batches as a function of (seed, epoch, position), on torch's DataLoader."""

import atexit
import operator
import os
import signal
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from multiprocessing.util import Finalize
from typing import Any

import torch
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    StackDataset,
    Subset,
    TensorDataset,
    default_collate,
    get_worker_info,
)

from descend.checks import COUNT, COUNT_FROM_0, SEED, Range
from descend.errors import RunError, StateError
from descend.format import counted
from descend.run.batch_order import BatchOrder, BatchRequest, mixed
from descend.run.seeding import Seeding
from descend.spelling import spelled

LIMIT = replace(COUNT, optional=True)
STREAM = "descend.StreamLoader(loader) takes it for a run that need not go on"
GRACE = 30  # seconds that a worker outlives a SIGTERM
FIRST = 100  # at the end of a process: before multiprocessing closes the queues that tell workers


class ResumableLoader:
    """A DataLoader whose every batch follows from a seed, an epoch and a position in it.

        order = permutation(seed, epoch), or the dataset's own where the loader does not shuffle
        the random numbers for sample i follow from (seed, epoch, i)

    It takes torch's DataLoader apart and puts it together again with a sampler of its own. Each
    epoch's order is a function of the seed and the epoch, and before a sample is fetched, Python's,
    NumPy's and torch's generators, and those that the dataset holds, are seeded from (seed, epoch,
    index), as far as it draws from them. So the batches do not depend on the number of workers,
    drawing them disturbs no other random number, and where a training stands is one number: going
    on in the middle of an epoch fetches nothing before it.

    Iterating gives the rest of the epoch under way. A batch counts as done as soon as it is given,
    and an epoch with its last batch: in the body of the loop, and after leaving it early, the state
    says that the next one is next.

    Args:
        loader: a DataLoader of a map-style dataset. It is not changed. Of a sampler other than
            torch's two usual ones, a copy is asked for its order at the start of each epoch, with
            the generators seeded from (seed, epoch), and `set_epoch` called where it has that; its
            length says how many it gives at most. A dataset with `__getitems__` is seeded once per
            batch, from (seed, epoch, number of the batch).
        seed: a whole number from 0 to 2**32 - 1.
        batches: after how many an epoch ends that has more; None: it has all.

    Attributes:
        length: how many batches an epoch has.
        ended: whether all of the epoch under way are done.

    Raises:
        RunError: if it is no DataLoader, or one with an `__iter__` of its own; if it has no
            batches; if its sampler has no length, or cannot be copied; if its dataset is
            iterable-style: `StreamLoader` takes such a one.

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

    @spelled
    def __init__(
        self, loader: "DataLoader[Any]", seed: int = 0, *, batches: int | None = None
    ) -> None:
        if reason := refusal(loader):
            raise RunError(reason)
        self.seed: int = SEED.check("seed", seed, RunError)
        self.epoch = 0
        self.position = 0
        self.given, self.dataset = loader, loader.dataset
        self._order = BatchOrder(loader, self.seed, LIMIT.check("batches", batches, RunError))
        self._loader = _rebuilt(loader, self._order, self.seed)
        if len(self) == 0:
            raise RunError(
                f"the loader has no batches: its dataset has "
                f"{counted(self._order.samples, 'sample')}"
                + (
                    f", and drop_last leaves no batch of {self._order.batch_size}"
                    if self._order.samples and self._order.drop_last
                    else ""
                )
            )

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return len(self._order)

    @property
    def length(self) -> int:
        """The same, as `StreamLoader` has it."""
        return len(self._order)

    @property
    def ended(self) -> bool:
        """Whether all batches of the epoch under way are done."""
        return self.position >= len(self._order)

    def __iter__(self) -> Iterator[Any]:
        """The rest of the epoch under way. A batch counts as done when it is handed out."""
        epoch, given = self.epoch, self.position
        for batch in self.rest():
            self.position, given = self.position + 1, given + 1
            if self.ended:  # now: `zip` and `break` never ask for one more
                self.next_epoch()
            yield batch
        if (self.epoch, self.position) == (epoch, given):  # a sampler that gave fewer than it said
            self.next_epoch()

    def rest(self) -> Iterator[Any]:
        """The batches of the epoch under way from `position` on; counting them is the caller's."""
        if not self.ended:
            self._order.start(self.epoch, self.position)
            # So that what a worker's start draws is the same, however many epochs it was before
            self._loader.generator.manual_seed(mixed(self.seed, self.epoch, "workers") >> 64)
            batches = iter(self._loader)
            if self._loader.num_workers and batches not in _with_workers:
                _with_workers.add(batches)
                # At the end of a multiprocessing.Process, which runs nothing of atexit's
                Finalize(batches, _end, args=(weakref.ref(batches),), exitpriority=FIRST)
            yield from batches

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
        refuse_other_loader(state, self._fixed())
        batches = Range(0, len(self), closed=True, whole=True, hint=f"it has {len(self)} batches")
        for name, allowed in (("epoch", COUNT_FROM_0), ("position", batches)):
            allowed.check(f"the {name} of a loader's state", state.get(name), StateError)
        self.epoch, self.position = state["epoch"], state["position"]

    def _fixed(self) -> dict[str, Any]:
        """The facts that may not change between two processes of one run."""
        return {
            "seed": self.seed,
            "samples": self._order.samples,
            "batches": len(self),
            "batch_size": self._order.batch_size,
            "order": self._order.kind,
        }


# Iterators whose workers may be alive when the program ends: persistent ones, and those of a loop
# that an error ended, which holds them. Nothing but a second SIGTERM ends these workers at once.
_with_workers: "weakref.WeakSet[Any]" = weakref.WeakSet()


def _end(batches: "weakref.ref[Any]") -> None:
    alive = batches()
    if alive is not None:
        alive._shutdown_workers()


@atexit.register
def _end_workers(owner: int = os.getpid()) -> None:
    if os.getpid() == owner:  # and no fork of it, whose end is not the workers' business
        for batches in [*_with_workers]:
            batches._shutdown_workers()


class _Seeded:
    """The dataset by batches: fetched samples, each with random numbers of its own, collated."""

    def __init__(self, loader: "DataLoader[Any]", order: BatchOrder, seed: int) -> None:
        self.dataset: Any = loader.dataset
        self.collate = loader.collate_fn
        self.seed = seed
        self.automatic = order.automatic
        self.by_batches = self.automatic and _gives_batches(self.dataset)
        self.of_rows = self.collate is default_collate and _has_rows(self.dataset)
        self._seeding: Seeding | None = None

    def __getitems__(self, batch: BatchRequest) -> Any:
        """A batch, collated."""
        try:
            rows = _rows(self.dataset, batch.indices) if self.of_rows else None
            if rows is not None:
                return rows
            if self._seeding is None:  # not before: a worker's start can give it new generators
                shared = get_worker_info() is None
                self._seeding = Seeding(self.dataset, self.collate, shared=shared)
            fetch = self._whole if self.by_batches else self._sample_by_sample
            return self._seeding.fetched(partial(fetch, batch, self._seeding))
        except StopIteration as error:  # it would end the epoch in silence
            raise RuntimeError("the dataset raised StopIteration") from error

    def _whole(self, batch: BatchRequest, seeding: Seeding) -> Any:
        """One call for all of it is faster, and seeded once."""
        seeding.seed(mixed(self.seed, batch.epoch, f"batch {batch.number}"))
        return self.collate(self.dataset.__getitems__(batch.indices))

    def _sample_by_sample(self, batch: BatchRequest, seeding: Seeding) -> Any:
        samples = []
        for place, index in enumerate(batch.indices):
            if seeding.drawn:
                identity = _identity(index, batch.number, place)
                seeding.seed(mixed(self.seed, batch.epoch, identity))
            samples.append(self.dataset[index])
        return self.collate(samples if self.automatic else samples[0])


def _identity(index: Any, number: int, place: int) -> object:
    """The name of a sample in its seed: its index, or where that is no plain value, its place.

    The text of anything else can differ from process to process.
    """
    try:
        return operator.index(index)
    except TypeError:
        return repr(index) if isinstance(index, str) else f"{number} {place}"


def _gives_batches(dataset: Any) -> bool:
    """Whether it has a `__getitems__` of its own, not one that asks for sample after sample."""
    if type(dataset) is Subset:
        return _gives_batches(dataset.dataset)
    if type(dataset) is StackDataset:
        return any(_gives_batches(part) for part in _parts(dataset))
    return callable(getattr(dataset, "__getitems__", None))


def _parts(dataset: Any) -> list[Any]:
    parts = dataset.datasets
    return [*(parts.values() if isinstance(parts, dict) else parts)]


def _has_rows(dataset: Any) -> bool:
    """Whether its samples are rows of tensors."""
    if type(dataset) is Subset:
        return _has_rows(dataset.dataset)
    tensors = dataset.tensors if type(dataset) is TensorDataset else [dataset]
    return all(type(part) is torch.Tensor and part.layout is torch.strided for part in tensors)


def _rows(dataset: Any, indices: list[Any]) -> Any:
    """The batch that collating the samples would give, by one operation per tensor; or None."""
    if not all(type(index) is int and index >= 0 for index in indices):
        return None
    if type(dataset) is Subset:
        return _rows(dataset.dataset, [dataset.indices[index] for index in indices])
    tensors = dataset.tensors if type(dataset) is TensorDataset else [dataset]
    at = torch.tensor(indices)
    rows = [tensor.index_select(0, at.to(tensor.device)) for tensor in tensors]
    return rows if type(dataset) is TensorDataset else rows[0]


def _rebuilt(loader: "DataLoader[Any]", order: BatchOrder, seed: int) -> "DataLoader[Any]":
    """The same DataLoader with our order and our seeds."""
    return DataLoader(
        _Seeded(loader, order, seed),  # type: ignore[arg-type]
        batch_sampler=order,  # type: ignore[arg-type]
        collate_fn=_as_it_is,
        pin_memory=loader.pin_memory,
        worker_init_fn=partial(_start_worker, loader.worker_init_fn),
        # one of its own: torch draws the workers' base seed from it, else from the global one
        generator=torch.Generator(),
        **worker_options(loader),
    )


def worker_options(loader: "DataLoader[Any]") -> dict[str, Any]:
    """The arguments of a DataLoader that say how many workers it has, and what they are."""
    if not loader.num_workers:
        return {}
    return {
        "num_workers": loader.num_workers,
        "prefetch_factor": loader.prefetch_factor,
        "persistent_workers": loader.persistent_workers,
        "multiprocessing_context": loader.multiprocessing_context,
        "timeout": loader.timeout,
    }


def _start_worker(start: Callable[[int], None] | None, number: int) -> None:
    """Start a worker: it shows the user's code the dataset that it knows.

    A signal to the whole process group (Ctrl-C, a scheduler's SIGTERM) is the main process's to act
    on, which still needs its workers for the batch under way. So they do not die of it at once.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _last_a_while)
    info = get_worker_info()
    assert info is not None
    dataset: Any = info.dataset
    object.__setattr__(info, "dataset", dataset.dataset)  # it refuses plain assignments
    if start is not None:
        start(number)


def _last_a_while(*_: object) -> None:
    """Die of this signal later, and of the next at once: torch ends workers that hang by two."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.alarm(GRACE)


def _as_it_is(batch: Any) -> Any:
    return batch


def refuse_other_loader(state: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Refuse a state in which the facts that a position depends on are others.

    Raises:
        StateError: naming them.
    """
    other = [
        f"{name} was {state.get(name)!r} and is {here[name]!r}"
        for name in here
        if state.get(name) != here[name]
    ]
    if other:
        raise StateError(
            f"the loader gives other batches than the one that was saved: {', '.join(other)}; "
            f"give what was given then"
        )


def refusal(loader: object) -> str:
    """The reason why something cannot be a `ResumableLoader`, and what to do; "" where it can."""
    if not isinstance(loader, DataLoader):
        return (
            f"loader must be a torch.utils.data.DataLoader, and is a {type(loader).__name__}; "
            f"such as DataLoader(dataset, batch_size=32, shuffle=True); {STREAM}"
        )
    if isinstance(loader.dataset, IterableDataset) or not hasattr(loader.dataset, "__len__"):
        return (
            f"the loader's dataset, a {type(loader.dataset).__name__}, is iterable-style or has no "
            f"length: it can only be read from its start; give a map-style one, with __getitem__ "
            f"and __len__, or give it state_dict and load_state_dict; {STREAM}"
        )
    if type(loader).__iter__ is not DataLoader.__iter__:
        return (
            f"the loader, a {type(loader).__name__}, makes its batches in an __iter__ of its own, "
            f"which would be left out; give the DataLoader that it is made from, and do the rest "
            f"in its collate_fn or in the loop; {STREAM}"
        )
    return ""
