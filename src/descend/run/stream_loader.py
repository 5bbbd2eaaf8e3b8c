"""Batches that can only be read from their start on: a stream, which may keep where it stands."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from descend.checks import COUNT_FROM_0, SEED
from descend.errors import RunError, StateError
from descend.run.batch_order import mixed
from descend.run.loader import LIMIT, ResumableLoader, refusal, refuse_other_loader
from descend.run.seeding import sources
from descend.spelling import spelled


class StreamLoader:
    """A loader that `ResumableLoader` cannot take: any iterable of batches, epoch by epoch.

    A DataLoader of an iterable-style dataset, torchdata's StatefulDataLoader, a loader with an
    `__iter__` of its own, a list of batches. Where it stands is known to the loader, if that has
    `state_dict` and `load_state_dict`; to its dataset, if that has them and there are no workers;
    or it is the place in a list. After any other, a run starts over or not at all.

    Iterating gives the rest of the epoch under way; a batch counts as done as soon as it is given.
    Nothing is fetched ahead, as the stream's state would be that of a batch later. So an epoch's
    last batch is known beforehand only where the loader has a length or `batches` says it.

    Exact after a resume is what the stream's own state says: torchdata's loader with workers, or
    over a dataset without a state, skips what was given, and may differ. What a dataset draws from
    the global generators while it gives samples in this process goes on where it was. Not so what
    is drawn in workers, or by an `__iter__` at its start: keep such numbers, or their generator, in
    the state.
    What the making of an iterator draws follows from (seed, epoch) and disturbs nothing else. A
    dataset's state counts a sample when it gives it: add to the place before the `yield`.

    Args:
        loader: what to iterate over anew in each epoch.
        seed: a whole number from 0 to 2**32 - 1.
        batches: after how many an epoch ends that has more; None: it has all.

    Attributes:
        length: how many batches an epoch has, if that is known; None otherwise.
        ended: whether all of the epoch under way were given, as far as that is known.
        resumes: whether another process can go on where this one stood.

    Raises:
        RunError: if it cannot be iterated over, or has no batches.

    Example:
        >>> loader = StreamLoader([[1, 2], [3, 4], [5]])
        >>> first = next(iter(loader))
        >>> list(loader)
        [[3, 4], [5]]

    Source: torchdata.stateful_dataloader, for loaders with a state.
    """

    @spelled
    def __init__(self, loader: Iterable[Any], seed: int = 0, *, batches: int | None = None) -> None:
        if not isinstance(loader, Iterable):
            raise RunError(
                f"loader must be an iterable of batches, and is a {type(loader).__name__}; such as "
                f"a DataLoader, a list of batches, or an object whose __iter__ yields them"
            )
        self.seed: int = SEED.check("seed", seed, RunError)
        self.epoch = 0
        self.position = 0
        self.given, self.dataset = loader, getattr(loader, "dataset", loader)
        limit = LIMIT.check("batches", batches, RunError)
        there = _length(loader)
        self.length: int | None = min((n for n in (there, limit) if n is not None), default=None)
        if self.length == 0:
            raise RunError("the loader has no batches: its length is 0")
        self._limit = None if limit is None or limit == there else limit
        self._source = state_source(loader)
        self.resumes = self._source is not None or isinstance(loader, list | tuple)
        self._exhausted = False  # the epoch under way
        self._cut = False  # the epoch before, by a limit or a `break`
        self._opened: Iterator[Any] | None = None

    @property
    def ended(self) -> bool:
        """Whether all batches of the epoch under way were given, as far as that is known."""
        return self._exhausted or self.position == self._limit

    def __iter__(self) -> Iterator[Any]:
        """The rest of the epoch under way. A batch counts as done when it is handed out."""
        for batch in self.rest():
            self.position += 1
            yield batch
        self.next_epoch()

    def rest(self) -> Iterator[Any]:
        """The batches of the epoch under way from `position` on; counting them is the caller's.

        Raises:
            RunError: if the epoch has none at all.
        """
        if self.ended:
            return
        begin, count = self.position, 0
        left = None if self._limit is None else self._limit - begin
        # Not `or`: an iterator of torch's has a length, and may raise when it is asked for it
        batches = self._iterator() if self._opened is None else self._opened
        self._opened = None
        for batch in islice(batches, left):
            count += 1
            yield batch
        if begin == count == 0:
            raise RunError(
                f"the loader, a {type(self.given).__name__}, gave no batches in epoch "
                f"{self.epoch + 1}; give one that begins anew each time it is iterated over, which "
                f"a generator or an iterator does not"
            )
        self._exhausted = left is None or count < left

    def next_epoch(self) -> None:
        """Go to the start of the next epoch."""
        self._cut = not self._exhausted
        self._exhausted, self._opened = False, None
        self.epoch, self.position = self.epoch + 1, 0

    def rewind(self) -> None:
        """Go back to the very start, as before each measurement on the same data."""
        self.epoch = self.position = 0
        self._exhausted, self._cut, self._opened = False, False, None

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, and what that depends on."""
        if self._cut and self.position == 0 and self._opened is None and self._source is not None:
            self._opened = self._iterator()  # else the state would be that amid the epoch before
        with self._apart():
            source = None if self._source is None else self._source.state_dict()
        where = {"epoch": self.epoch, "position": self.position, "ended": self._exhausted}
        return {**where, "source": source, **self._fixed()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go where another loader stood.

        Raises:
            StateError: if that one was of another kind, seed or length; or if it stood elsewhere
                than at the very beginning, and nothing here has a state to go there by.
        """
        refuse_other_loader(state, self._fixed())
        for name in ("epoch", "position"):
            COUNT_FROM_0.check(f"the {name} of a loader's state", state.get(name), StateError)
        epoch, position = state["epoch"], state["position"]
        if not self.resumes and (epoch or position):
            raise StateError(
                f"the loader, a {type(self.given).__name__}, can only be read from its start, and "
                f"{position} batches of epoch {epoch + 1} are done; start over (fresh=True of a "
                f"Run, resume=False of a Trainer), give a map-style dataset, or give the loader, "
                f"or without workers its dataset, state_dict and load_state_dict"
            )
        if self._source is not None:
            with self._apart():
                self._source.load_state_dict(state["source"])
        self.epoch, self.position = epoch, position
        self._exhausted, self._cut, self._opened = bool(state["ended"]), False, None

    def _fixed(self) -> dict[str, Any]:
        """The facts that may not change between two processes of one run."""
        source = self._source
        holder = "none" if source is None else "loader" if source is self.given else "dataset"
        return {
            "seed": self.seed,
            "batches": self.length,
            "state_of": holder,
            "workers": getattr(self.given, "num_workers", 0) if holder == "loader" else None,
        }

    def _iterator(self) -> Iterator[Any]:
        """A new one from where it stands; a loader with a state knows that itself."""
        with self._apart():
            if isinstance(self.given, list | tuple):
                return iter(self.given[self.position :])
            return iter(self.given)

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """The global generators seeded from (seed, epoch), and where they were afterwards.

        torch draws a seed for the workers with each iterator, and an uninterrupted process makes
        fewer of them than one that goes on.
        """
        with ExitStack() as after:
            for source in sources():
                after.callback(source.put, source.state())
                source.seed(mixed(self.seed, self.epoch, "stream"))
            yield


def state_source(loader: object) -> Any:
    """The object with the state of a stream: the loader, or its iterable-style dataset; or None.

    Workers have copies of the dataset, whose states nobody sees.
    """
    if _has_state(loader):
        return loader
    if isinstance(loader, DataLoader) and isinstance(loader.dataset, IterableDataset):
        return loader.dataset if loader.num_workers == 0 and _has_state(loader.dataset) else None
    return None


def loader_for_run(loader: Any, seed: int) -> ResumableLoader | StreamLoader:
    """A loader that a run can go on with, or one that is that already, as it is.

    Raises:
        RunError: if there is no going on with it.
    """
    if isinstance(loader, ResumableLoader | StreamLoader):
        return loader
    if refusal(loader) and state_source(loader) is not None:
        return StreamLoader(loader, seed)
    return ResumableLoader(loader, seed)


def _has_state(thing: object) -> bool:
    return all(callable(getattr(thing, name, None)) for name in ("state_dict", "load_state_dict"))


def _length(loader: Any) -> int | None:
    try:
        return len(loader)
    except (TypeError, NotImplementedError):  # as a DataLoader of a dataset without one raises
        return None
