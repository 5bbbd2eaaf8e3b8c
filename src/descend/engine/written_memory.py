"""Which memory a step writes: no two tensors may share any of it, and no gradient may lie in it.

A kernel updates its tensors at once and in any order. That is torch's step, one tensor after the
other, only where what one of them writes is nothing that another reads or writes.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import cache as remember
from typing import Any, NamedTuple

import numpy as np

from descend.engine import native
from descend.engine.kernel_words import APART, address, new_words, put
from descend.engine.step_inputs import Member
from descend.engine.tensor_layout import extent

COMPILED = ("compiled_apart.py", "kernel_words.py", "memory_access.py")
"""The files that make the function which tells ranges apart."""


class WrittenMemory(NamedTuple):
    """Ranges of addresses that are written, sorted and apart from each other.

    Args:
        starts: where each begins.
        ends: where each ends.
        total: how many there are; behind them there is room.
    """

    starts: "array[int]"
    ends: "array[int]"
    total: int

    def meets(self, start: int, end: int) -> bool:
        """Whether some of these addresses are written."""
        before = bisect_left(self.starts, end, 0, self.total)
        return end > start and before > 0 and self.ends[before - 1] > start


def set_apart(
    batches: "array[int]", most: int, others: Sequence[tuple[int, int]]
) -> WrittenMemory | None:
    """All memory that a step writes; None where two tensors share some, or a gradient lies in it.

    Args:
        batches: the addresses of the words of those with kernels.
        most: how many tensors these have at most.
        others: what is written beside them.
    """
    # New ones each time: the batches go on reading the old ones until these are known to be apart.
    starts, ends = (array("q", bytes(8 * (most + len(others)))) for _ in range(2))
    for index, (start, end) in enumerate(others):
        starts[index], ends[index] = start, end
    words = new_words(APART)
    put(
        words,
        APART,
        batches=address(batches),
        batch_total=len(batches),
        starts=address(starts),
        ends=address(ends),
        total=len(others),
    )
    apart = _compiled()(address(words))
    return WrittenMemory(starts, ends, words[APART.total]) if apart else None


@remember
def _compiled() -> Callable[[int], int]:
    def build() -> Any:
        from descend.engine import compiled_apart

        return compiled_apart.builder()

    return native.holding(native.address_of(f"apart\n{native.text_of(*COMPILED)}", build))


def entangled(members: list[Member]) -> set[int]:
    """The members (by index) that share written memory with another or with themselves.

    They must be taken one after the other, in order, as torch does; all others may run at once
    and in any order.
    """
    lines: list[tuple[int, int, int]] = []
    for index, member in enumerate(members):
        for start, end in map(extent, member.written()):
            if end > start:
                lines.append((start, end, index))
    lines.sort()
    starts, ends, owners = np.array(lines, dtype=np.int64).reshape(-1, 3).T
    shared: set[int] = set()
    # The highest end so far: a long range may reach over many that begin after it.
    reach = np.maximum.accumulate(ends) if len(ends) else ends
    for later in np.nonzero(starts[1:] < reach[:-1])[0] + 1:
        touching = np.nonzero(ends[:later] > starts[later])[0]
        shared.update(owners[touching].tolist(), [int(owners[later])])
    for index, member in enumerate(members):
        assert member.grad is not None
        start, end = extent(member.grad)
        before = int(np.searchsorted(starts, end))
        if end > start and before and reach[before - 1] > start:
            touching = np.nonzero((starts < end) & (ends > start))[0]
            shared.update(owners[touching].tolist(), [index] if len(touching) else [])
    return shared
