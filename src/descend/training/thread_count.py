"""How many threads torch computes with."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def threads_set(count: int | None) -> Iterator[None]:
    """Let torch compute with so many threads, and give them back.

    Args:
        count: how many; None for as many as it likes.
    """
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
