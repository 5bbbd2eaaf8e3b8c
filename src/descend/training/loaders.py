"""The loaders of a training or a measurement, as they were given in one of many ways."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler

from descend.errors import RunError, TrainerError
from descend.run.loader import ResumableLoader, refusal, worker_options
from descend.run.stream_loader import StreamLoader
from descend.swa_utils.batch_norm import on_device

Loader = ResumableLoader | StreamLoader
INFINITE = float("inf")


def given_loaders(given: Any, sources: Sequence[Any], name: str) -> Any:
    """The loaders that were given, or those that a data module or a module makes.

    Args:
        given: to `fit` and the like; None where the sources are to be asked.
        sources: data module and module, or None.
        name: of the method: "train_dataloader", ...
    """
    if given is not None:
        return given
    for source in sources:
        make = getattr(source, name, None)
        found = make() if callable(make) else None
        if found is not None:
            return found
    return None


def training_loader(given: Any, seed: int, limit: float, *, shuffle: bool = True) -> Loader:
    """The loader of a training.

    Args:
        given: a DataLoader, or anything that gives batches.
        seed: of the order.
        limit: a part of its batches, or how many.
        shuffle: whether one that shuffles may.

    Raises:
        TrainerError: there is none, or several.
        RunError: it has no batches.
    """
    if given is None:
        raise TrainerError(
            "there is nothing to train on: give fit a loader, a datamodule, or the module a "
            "train_dataloader()"
        )
    if isinstance(given, Mapping | list | tuple) and given and not _is_batches(given):
        raise TrainerError(
            "fit takes one training loader, and got several; join their datasets, such as by "
            "torch.utils.data.StackDataset, or draw from the others in training_step"
        )
    if not shuffle and isinstance(getattr(given, "sampler", None), RandomSampler):
        given = _in_order(given)
    if limit == 0:
        raise TrainerError("limit_train_batches=0 leaves nothing to train on; give at least 1")
    return _limited(given, seed, limit, "the training loader")


def measured_loaders(given: Any, limit: float, part: str) -> list[Loader]:
    """The loaders of a validation, a test or a prediction.

    Args:
        given: one, several, or None.
        limit: a part of the batches of each, or how many; 0: there are none.
        part: which of these, for a message.

    Raises:
        RunError: one has no batches.
    """
    if limit == 0 or given is None:
        return []
    if isinstance(given, Mapping):
        given = [*given.values()]
    several = isinstance(given, list | tuple) and not _is_batches(given)
    name = f"a loader of the {part}"
    return [_limited(one, 0, limit, name) for one in (given if several else [given])]


def batches_of(loader: Loader) -> float:
    """How many batches an epoch has; infinity where that is not known."""
    return INFINITE if loader.length is None else loader.length


def limited_count(number: float, limit: float, name: str) -> float:
    """How many of so many batches a limit leaves: a part of them, or a whole number.

    Raises:
        TrainerError: none is left, or nobody knows how many there are.
    """
    if isinstance(limit, int):
        return min(number, limit)
    if limit == 1.0:
        return number
    if number == INFINITE:
        raise TrainerError(
            f"a limit of {limit:g} is a part of {name}, which has no length; give a whole number "
            f"of batches"
        )
    left = int(number * limit)
    if left == 0:
        raise TrainerError(
            f"a limit of {limit:g} leaves none of the {number:g} batches of {name}; give a larger "
            f"part, or a whole number of batches"
        )
    return left


def _limited(given: Any, seed: int, limit: float, name: str) -> Loader:
    if not isinstance(given, Iterable) or isinstance(given, Dataset):
        raise TrainerError(
            f"{name} must be a torch.utils.data.DataLoader or another iterable of batches, and is "
            f"a {type(given).__name__}"
        )
    kind: Any = StreamLoader if refusal(given) else ResumableLoader
    try:
        loader: Loader = kind(given, seed)
    except RunError as error:
        raise RunError(f"{name} cannot be used: {error}") from error
    number = limited_count(batches_of(loader), limit, name)
    if number != batches_of(loader):
        loader = kind(given, seed, batches=int(number))
    return loader


def _is_batches(given: Any) -> bool:
    """Whether a list is one loader, made of batches, and not several loaders."""
    return (
        isinstance(given, list | tuple)
        and bool(given)
        and not any(isinstance(one, DataLoader | StreamLoader | ResumableLoader) for one in given)
    )


def _in_order(loader: "DataLoader[Any]") -> "DataLoader[Any]":
    """The same loader, which does not shuffle."""
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        drop_last=loader.drop_last,
        worker_init_fn=loader.worker_init_fn,
        **worker_options(loader),
    )


def moved(batch: Any, device: torch.device) -> Any:
    """A batch on a device; loaders give it on the CPU."""
    return batch if device.type == "cpu" else on_device(batch, device)
