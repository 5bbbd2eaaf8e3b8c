"""The streaming limit: how fast memory lets any optimizer step be.

A step has to read the parameters, the gradients and the states, and to write the parameters and
the states. The limit is the time of a kernel that does just this, over the very same buffers, with
one addition per value written: no optimizer with ordinary loads and stores can be faster, however
little it computes. What is added is `scale * grad`, and `scale` is 0 while measuring, which the
compiler cannot know: the values stay as they were.

Which loop streams fastest differs between processors, so there are three, and whichever proves
faster in the run is the limit: `wide` uses the vectors that LLVM prefers for this processor,
`narrow` uses 256-bit ones (some processors with 512-bit vectors read memory faster so), and `torch`
is torch's own addition, one stream of values after the other. In the first two each thread repeats
its sweeps by itself, so they hold no cost of starting and joining threads.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from descend.bench.timing import Clock, TakeSteps

LINE = 64
"""Shares are a multiple of so many elements."""

Streams = list[tuple[torch.Tensor, ...]]
"""For each parameter: itself, its gradient, and its states, all of one shape."""

Table = npt.NDArray[np.int64]
"""One row per piece of a parameter: its elements, then one address per stream."""


def streams(optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor]) -> Streams | None:
    """Return the tensors that a step of this optimizer streams through.

    Args:
        optimizer: It has taken a step, so that its states exist.
        parameters: Its parameters, with their gradients.

    Returns:
        One tuple per parameter, or None where there is no limit to compare with: not contiguous
        float32, or not equally many states for each parameter.
    """
    found: Streams = []
    for parameter in parameters:
        states = [
            value
            for value in optimizer.state.get(parameter, {}).values()
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape
        ]
        if parameter.grad is None:
            return None
        found.append((parameter.detach(), parameter.grad, *states))
    counts = {len(group) for group in found}
    dense = all(t.is_contiguous() and t.dtype == torch.float32 for group in found for t in group)
    return found if dense and len(counts) == 1 else None


def moved_bytes(groups: Streams) -> int:
    """Return the bytes that one sweep reads and writes: every stream once, all but gradients twice.

    Args:
        groups: What `streams` returned.

    Example:
        >>> one = torch.zeros(10)
        >>> moved_bytes([(one, one, one, one)])  # AdamW: 4 reads and 3 writes of 4 bytes
        280
    """
    return sum(4 * group[0].numel() * (2 * len(group) - 1) for group in groups)


def shares(groups: Streams, threads: int) -> list[Table]:
    """Divide the elements of all tensors into one unbroken, equal share for each thread.

    Args:
        groups: What `streams` returned.
        threads: How many threads there are.

    Returns:
        One table for each thread that has something to do, with one row per piece of a
        parameter: `[elements, address of the parameter, of the gradient, of each state]`.
    """
    total = sum(group[0].numel() for group in groups)
    # Whole cache lines: where a tensor begins on one, so does each of its pieces.
    length = -(-total // threads // LINE) * LINE
    rows: list[list[list[int]]] = [[] for _ in range(threads)]
    position = 0
    for group in groups:
        begin, size = 0, group[0].numel()
        while begin < size:
            end = min(size, begin + length - position % length)
            addresses = [tensor.data_ptr() + 4 * begin for tensor in group]
            rows[position // length].append([end - begin, *addresses])
            position += end - begin
            begin = end
    return [np.array(table, dtype=np.int64) for table in rows if table]


@cache
def kernel(states: int, *, narrow: bool = False) -> Callable[[Table, np.float32, int], None]:
    """Compile the streaming loop for a number of states per parameter.

    Args:
        states: How many states are read and written beside the parameter.
        narrow: Whether to use 256-bit vectors, whatever LLVM prefers.

    Returns:
        `kernel(table, scale, repeats)`: adds `scale * grad` to the parameter and to each state, for
        every row of the table, that many times, without holding Python's global lock.
    """
    import numba
    from numba import types
    from numba.extending import intrinsic

    from descend.engine import memory_access

    @intrinsic
    def choose_width(_):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        def generate(context, builder, _signature, _arguments):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            if narrow:
                # llvmlite knows only attributes without a value; LLVM reads this one all the same.
                set.add(builder.function.attributes, '"prefer-vector-width"="256"')
            return context.get_dummy_value()

        return types.void(), generate

    operands = 2 + states
    words: dict[str, Any] = {"choose_width": choose_width}
    for i in range(operands):
        words[f"load_{i}"] = memory_access.loader(torch.float32, None, i, operands)
        words[f"store_{i}"] = memory_access.storer(torch.float32, None, i, operands)
    exec(_source(operands), words)  # noqa: S102 - our own text
    return numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})(words["sweep"])  # type: ignore[no-any-return, unused-ignore]


def _source(operands: int) -> str:
    """The loop as text: operand 0 is the parameter, 1 its gradient, which is only read."""
    written = [i for i in range(operands) if i != 1]
    lines = [
        "def sweep(table, scale, repeats):",
        "    choose_width()",
        "    for _ in range(repeats):",
        "        for row in range(table.shape[0]):",
        *(f"            at_{i} = table[row, {1 + i}]" for i in range(operands)),
        "            for i in range(table[row, 0]):",
        "                added = scale * load_1(at_1, i)",
        *(f"                store_{i}(at_{i}, i, load_{i}(at_{i}, i) + added)" for i in written),
    ]
    return "\n".join(lines)


def limits(
    groups: Streams, threads: int, clock: Clock = time.perf_counter_ns
) -> Mapping[str, TakeSteps]:
    """Return the candidates for the streaming limit over some buffers.

    Args:
        groups: What `streams` returned; kept alive by the returned functions.
        threads: How many threads may stream.
        clock: The time in nanoseconds.

    Returns:
        `limit wide`, `limit narrow` and `limit torch`.
    """
    states = len(groups[0]) - 2
    tables = shares(groups, threads)
    return {
        "limit wide": _sweeps(groups, kernel(states), tables, clock),
        "limit narrow": _sweeps(groups, kernel(states, narrow=True), tables, clock),
        "limit torch": _additions(groups, clock),
    }


def _sweeps(
    groups: Streams,
    sweep: Callable[[Table, np.float32, int], None],
    tables: Sequence[Table],
    clock: Clock,
) -> TakeSteps:
    pool = ThreadPoolExecutor(max(1, len(tables) - 1), thread_name_prefix="descend-bench")

    # A thread's own hold on the buffers: Ctrl-C can end `run` while the others are still sweeping.
    def swept(table: Table, count: int, _alive: Streams = groups) -> None:
        sweep(table, np.float32(0), count)

    def run(count: int) -> int:
        start = clock()
        others = [pool.submit(swept, table, count) for table in tables[1:]]
        swept(tables[0], count)
        for other in others:
            other.result()
        return clock() - start

    return run


def _additions(groups: Streams, clock: Clock) -> TakeSteps:
    def run(count: int) -> int:
        start = clock()
        for _ in range(count):
            for parameter, gradient, *states in groups:
                parameter.add_(gradient, alpha=0)
                for state in states:
                    state.add_(0)
        return clock() - start

    return run
