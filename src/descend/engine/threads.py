"""The threads that share one kernel call.

Plain Python threads around a kernel that releases the interpreter lock, rather than a threading
layer of Numba's or OpenMP's: a forked child simply starts its own, where GNU OpenMP would kill it.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

_pool: ThreadPoolExecutor | None = None
_size = 0


def _forget() -> None:
    """A forked child has none of its parent's threads."""
    global _pool, _size
    _pool, _size = None, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def together(work: Callable[[], None], threads: int) -> None:
    """Run `work` on this thread and on `threads - 1` others at once; return when all are done.

    `work` must share its load by itself (the kernels do, with one atomic counter): any number of
    calls, at any time, finish it.
    """
    global _pool, _size
    if threads > 1 and threads - 1 > _size:
        _pool, _size = ThreadPoolExecutor(threads - 1, thread_name_prefix="descend"), threads - 1
    others: list[Future[None]] = []
    # RuntimeError: the interpreter is shutting down and starts no more work; this thread does it.
    with suppress(RuntimeError):
        for _ in range(threads - 1):
            others.append(_pool.submit(work))  # type: ignore[union-attr]  # made just above
    work()
    for other in others:
        other.result()
