"""The states of the random generators that a training draws from."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from descend.checks import SEED
from descend.errors import HyperparameterError

_last_seed: int | None = None


def random_states() -> dict[str, Any]:
    """The states of Python's, NumPy's and torch's global generators, and each CUDA device's.

    Returns:
        Plain data for a checkpoint. CUDA's are there once the process has used CUDA.

    Example:
        >>> states = random_states()
        >>> first = torch.rand(2)
        >>> restore_random_states(states)
        >>> bool((torch.rand(2) == first).all())
        True
    """
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Put the generators back; CUDA's as far as there are devices here for them."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        for device, state in zip(range(torch.cuda.device_count()), states["cuda"], strict=False):
            torch.cuda.set_rng_state(state, device)


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators, torch's on every device.

    What is drawn from then on, such as a model's first values, is the same in every process that
    draws the same. A `Trainer` that is given no seed takes this one.

    Args:
        seed: a whole number from 0 to 2**32 - 1: NumPy takes no larger one.

    Raises:
        HyperparameterError: for any other seed.

    Example:
        >>> seed_everything(3)
        >>> first = torch.rand(2)
        >>> seed_everything(3)
        >>> bool((torch.rand(2) == first).all())
        True

    Source: torch's notes on reproducibility, https://docs.pytorch.org/docs/stable/notes/randomness.
    """
    global _last_seed  # noqa: PLW0603 - as the generators themselves
    _last_seed = SEED.check("seed_everything: seed", seed, HyperparameterError)
    seed_generators(_last_seed)


def seed_generators(seed: int) -> None:
    """Do what `seed_everything` does, for descend's own ends: nothing takes it for the user's."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def last_seed() -> int | None:
    """The seed that `seed_everything` was called with last in this process; None if it was not."""
    return _last_seed


@contextmanager
def randomness_kept() -> Iterator[None]:
    """Let what is drawn and seeded inside change nothing outside: the generators, the last seed.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> with randomness_kept():
        ...     seed_everything(3)
        >>> torch.initial_seed()
        0
    """
    global _last_seed  # noqa: PLW0603 - as the generators themselves
    states, seed = random_states(), _last_seed
    try:
        yield
    finally:
        restore_random_states(states)
        _last_seed = seed
