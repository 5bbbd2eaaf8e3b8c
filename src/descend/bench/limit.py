"""The streaming limit: how fast memory lets any optimizer step be.

A step has to read the parameters, the gradients and the states, and to write the parameters and
the states. The limit is the time of a kernel that does just this, over the very same buffers, with
one addition per value written: no optimizer with ordinary loads and stores can be faster, however
little it computes. A rule with a measure reads some of them once more, in a pass before the update,
and so does each sweep of the limit, with one addition per value read. (It is a pass over all
tensors, as the engine's is: a small tensor that were updated while it is still in a cache would be
read from memory once.) What is added to values is `scale * grad`, and `scale` is 0 while measuring,
which the compiler cannot know: the values stay as they were.

Which loop streams fastest differs between processors, so there are three, and whichever proves
faster in the run is the limit: `wide` uses the vectors that LLVM prefers for this processor,
`narrow` uses 256-bit ones (some processors with 512-bit vectors read memory faster so), and `torch`
is torch's own addition, one stream of values after the other. In the first two each thread repeats
its sweeps by itself, so they hold no cost of starting and joining threads.
"""

import ast
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
import torch

from descend.bench.timing import Clock, TakeSteps
from descend.engine.rule import AnyRule, Rule
from descend.engine.rule_arguments import FIRST

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
            if _streamed(value, parameter)
        ]
        if parameter.grad is None:
            return None
        found.append((parameter.detach(), parameter.grad, *states))
    counts = {len(group) for group in found}
    dense = all(t.is_contiguous() and t.dtype == torch.float32 for group in found for t in group)
    return found if dense and len(counts) == 1 else None


def _streamed(value: object, parameter: torch.Tensor) -> TypeGuard[torch.Tensor]:
    """Whether an entry of a parameter's state has a value for each of its elements."""
    return isinstance(value, torch.Tensor) and value.shape == parameter.shape


def read_before(rule: AnyRule, optimizer: torch.optim.Optimizer) -> tuple[int, ...]:
    """Return which streams a rule reads once more, in the pass in which it measures.

    They are the arguments that its terms name: a compiler drops the others. One that they name
    under a flag alone counts too.

    Args:
        rule: The optimizer's.
        optimizer: It has taken a step.

    Returns:
        Their places in a group of `streams`, in order; none where the rule measures nothing.
    """
    if not isinstance(rule, Rule) or rule.measure is None:
        return ()
    operands = {*FIRST, *rule.measure.arguments.states}
    if rule.measure.written is not None:
        body = ast.Module(rule.measure.written.function.body, [])
        operands &= {node.id for node in ast.walk(body) if isinstance(node, ast.Name)}
    parameter, states = next(iter(optimizer.state.items()))
    names = [name for name, value in states.items() if _streamed(value, parameter)]
    return tuple(i for i, name in enumerate((*FIRST, *names)) if name in operands)


def moved_bytes(groups: Streams, read: Sequence[int] = ()) -> int:
    """Return the bytes that one sweep reads and writes: every stream once, all but gradients twice.

    Args:
        groups: What `streams` returned.
        read: What `read_before` returned: they are read once more.

    Example:
        >>> one = torch.zeros(10)
        >>> moved_bytes([(one, one, one, one)])  # AdamW: 4 reads and 3 writes of 4 bytes
        280
    """
    return sum(4 * group[0].numel() * (2 * len(group) - 1 + len(read)) for group in groups)


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
def kernel(
    states: int, read: tuple[int, ...] = (), *, narrow: bool = False
) -> Callable[[Table, np.float32, int], float]:
    """Compile the streaming loop for a number of states per parameter.

    Args:
        states: How many states are read and written beside the parameter.
        read: The places of the streams that are read first, in a pass over the whole table.
        narrow: Whether to use 256-bit vectors, whatever LLVM prefers.

    Returns:
        `kernel(table, scale, repeats)`: adds `scale * grad` to the parameter and to each state, for
        every row of the table, that many times, without holding Python's global lock. It returns
        the sum of all that was read first, so that no compiler may leave that out.
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
    words: dict[str, Any] = {"choose_width": choose_width, "zero": np.float32(0)}
    for i in range(operands):
        words[f"load_{i}"] = memory_access.loader(torch.float32, None, i, operands)
        words[f"store_{i}"] = memory_access.storer(torch.float32, None, i, operands)
    exec(_source(operands, read), words)  # noqa: S102 - our own text
    # A sum may be taken in any order: that is what makes it one of vectors.
    compiled = numba.njit(nogil=True, error_model="numpy", fastmath={"contract", "reassoc"})
    return compiled(words["sweep"])  # type: ignore[no-any-return, unused-ignore]


def _source(operands: int, read: Sequence[int]) -> str:
    """The loops as text: operand 0 is the parameter, 1 its gradient, which is only read."""
    written = [i for i in range(operands) if i != 1]

    def loop(used: Iterable[int], *body: str) -> list[str]:
        return [
            "        for row in range(table.shape[0]):",
            *(f"            at_{i} = table[row, {1 + i}]" for i in used),
            "            for i in range(table[row, 0]):",
            *(f"                {line}" for line in body),
        ]

    lines = [
        "def sweep(table, scale, repeats):",
        "    choose_width()",
        "    total = zero",
        "    for _ in range(repeats):",
        *(loop(read, *(f"total += load_{i}(at_{i}, i)" for i in read)) if read else []),
        *loop(
            range(operands),
            "added = scale * load_1(at_1, i)",
            *(f"store_{i}(at_{i}, i, load_{i}(at_{i}, i) + added)" for i in written),
        ),
        "    return total",
    ]
    return "\n".join(lines)


def limits(
    groups: Streams,
    threads: int,
    clock: Clock = time.perf_counter_ns,
    read: tuple[int, ...] = (),
) -> Mapping[str, TakeSteps]:
    """Return the candidates for the streaming limit over some buffers.

    Args:
        groups: What `streams` returned; kept alive by the returned functions.
        threads: How many threads may stream.
        clock: The time in nanoseconds.
        read: What `read_before` returned.

    Returns:
        `limit wide`, `limit narrow` and `limit torch`.
    """
    states = len(groups[0]) - 2
    tables = shares(groups, threads)
    return {
        "limit wide": _sweeps(groups, kernel(states, read), tables, clock),
        "limit narrow": _sweeps(groups, kernel(states, read, narrow=True), tables, clock),
        "limit torch": _additions(groups, clock, read),
    }


def _sweeps(
    groups: Streams,
    sweep: Callable[[Table, np.float32, int], float],
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


def _additions(groups: Streams, clock: Clock, read: Sequence[int]) -> TakeSteps:
    first = [group[i] for group in groups for i in read]

    def run(count: int) -> int:
        start = clock()
        for _ in range(count):
            for tensor in first:
                tensor.sum()
            for parameter, gradient, *states in groups:
                parameter.add_(gradient, alpha=0)
                for state in states:
                    state.add_(0)
        return clock() - start

    return run
