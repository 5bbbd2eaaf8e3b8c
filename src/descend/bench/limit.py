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

import numpy as np
import numpy.typing as npt
import torch

from descend.bench.timing import Clock, Run

LINE = 64
"""Shares are a multiple of so many elements."""

MOST_STATES = 3
"""The most states per parameter for which there is a limit."""

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
        float32, more than `MOST_STATES` states, or not equally many for each parameter.
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
    if len(counts) != 1 or max(counts) - 2 > MOST_STATES or not dense:
        return None
    return found


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
            padding = [0] * (2 + MOST_STATES - len(addresses))
            rows[position // length].append([end - begin, *addresses, *padding])
            position += end - begin
            begin = end
    return [np.array(table, dtype=np.int64) for table in rows if table]


@cache
def kernel(states: int, *, narrow: bool = False) -> Callable[[Table, np.float32, int], None]:
    """Compile the streaming loop for a number of states per parameter.

    Args:
        states: How many states are read and written beside the parameter, at most `MOST_STATES`.
        narrow: Whether to use 256-bit vectors, whatever LLVM prefers.

    Returns:
        `kernel(table, scale, repeats)`: adds `scale * grad` to the parameter and to each state, for
        every row of the table, that many times, without holding Python's global lock.
    """
    import numba
    from numba import types
    from numba.extending import intrinsic

    from descend.engine import memory

    operands = 2 + states
    load = [memory.loader(torch.float32, None, i, operands) for i in range(2 + MOST_STATES)]
    store = [memory.storer(torch.float32, None, i, operands) for i in range(2 + MOST_STATES)]
    load_param, load_grad, load_first, load_second, load_third = load
    store_param, _, store_first, store_second, store_third = store

    @intrinsic
    def choose_width(_):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        def generate(context, builder, _signature, _arguments):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            if narrow:
                # llvmlite knows only attributes without a value; LLVM reads this one all the same.
                set.add(builder.function.attributes, '"prefer-vector-width"="256"')
            return context.get_dummy_value()

        return types.void(), generate

    def sweep(table, scale, repeats):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        choose_width()
        for _ in range(repeats):
            for row in range(table.shape[0]):
                param, grad = table[row, 1], table[row, 2]
                first, second, third = table[row, 3], table[row, 4], table[row, 5]
                # `states` is a constant of the compiled loop: no branch remains in it.
                for i in range(table[row, 0]):
                    added = scale * load_grad(grad, i)
                    store_param(param, i, load_param(param, i) + added)
                    if states > 0:
                        store_first(first, i, load_first(first, i) + added)
                    if states > 1:
                        store_second(second, i, load_second(second, i) + added)
                    if states == MOST_STATES:
                        store_third(third, i, load_third(third, i) + added)

    return numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})(sweep)  # type: ignore[no-any-return, unused-ignore]


def limits(groups: Streams, threads: int, clock: Clock = time.perf_counter_ns) -> Mapping[str, Run]:
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
) -> Run:
    pool = ThreadPoolExecutor(max(1, len(tables) - 1), thread_name_prefix="descend-bench")
    nothing = np.float32(0)

    def run(count: int, _alive: Streams = groups) -> int:
        start = clock()
        others = [pool.submit(sweep, table, nothing, count) for table in tables[1:]]
        sweep(tables[0], nothing, count)
        for other in others:
            other.result()
        return clock() - start

    return run


def _additions(groups: Streams, clock: Clock) -> Run:
    def run(count: int) -> int:
        start = clock()
        for _ in range(count):
            for parameter, gradient, *states in groups:
                parameter.add_(gradient, alpha=0)
                for state in states:
                    state.add_(0)
        return clock() - start

    return run
