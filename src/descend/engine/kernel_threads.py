"""The threads that share one kernel call.

Where torch's own OpenMP threads can be had (GNU OpenMP, on Linux), a kernel runs on them: they
have just computed the gradients and are still awake, and threads beside them would have to compete
for the cores. A forked child has lost them, and GNU OpenMP would wait for them for ever; there, and
on other systems, plain Python threads around a kernel that releases the interpreter lock do it.
"""

import ctypes
import os
from collections.abc import Callable
from functools import cache as remember
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

_tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()
_started = 0
_starting = Lock()
_forked = False


def _forget() -> None:
    """A forked child has none of its parent's threads."""
    global _tasks, _started, _starting, _forked
    _tasks, _started, _starting, _forked = SimpleQueue(), 0, Lock(), True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def spread(kernel: Callable[[int], None], at: int, threads: int) -> None:
    """Run `kernel(at)` on so many threads at once; return when all are done.

    The kernel must share its load by itself (with one atomic counter): any number of calls, at any
    time, finish it.

    Args:
        kernel: a compiled function, as `native.releasing` returns it.
        at: its argument.
        threads: how many threads, this one included.
    """
    parallel = None if _forked else _torchs()
    if parallel is None:
        together(lambda: kernel(at), threads)
    else:
        parallel(ctypes.cast(kernel, ctypes.c_void_p), at, threads, 0)  # type: ignore[arg-type]


@remember
def _torchs() -> Callable[..., None] | None:
    """GNU OpenMP's way to run a function on all threads of a team, if torch's threads are GNU's."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = {line.split()[-1] for line in maps.splitlines() if "/libgomp" in line}
    # Another package may have brought a GNU OpenMP of its own.
    mine = {path for path in found if "/torch" in path} if len(found) > 1 else found
    if len(mine) != 1:
        return None
    run: Any = ctypes.CDLL(mine.pop()).GOMP_parallel
    run.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_uint, ctypes.c_uint]
    run.restype = None
    parallel: Callable[..., None] = run
    return parallel


def together(work: Callable[[], None], threads: int) -> None:
    """Run `work` on this thread and on `threads - 1` others at once; return when all are done.

    `work` must share its load by itself (the kernels do, with one atomic counter): any number of
    calls, at any time, finish it. Where no more threads are to be had, fewer do it. Whatever is
    raised here meanwhile (Ctrl-C, a timeout) waits for the end: no thread may be left inside a
    kernel whose memory its caller gives up.
    """
    others = _start(threads - 1)
    ended: list[None] = []
    wake: SimpleQueue[None] = SimpleQueue()

    def share() -> None:
        try:
            work()
        finally:
            ended.append(None)
            wake.put(None)

    failure: BaseException | None = None
    given = 0
    try:
        for _ in range(others):
            _tasks.put(share)
            given += 1
        work()
    except BaseException as error:  # raised below
        failure = error
    while len(ended) < given:
        try:
            wake.get()
        except BaseException as error:  # raised below
            failure = error
    if failure is not None:
        raise failure


def _start(wanted: int) -> int:
    """See to it that so many threads serve; returns how many of them there are."""
    global _started  # noqa: PLW0603 - one set of threads per process
    if _started < wanted:
        with _starting:
            while _started < wanted:
                try:
                    Thread(target=_serve, args=(_tasks,), name="descend", daemon=True).start()
                except RuntimeError:  # the system has no more, or the interpreter is ending
                    break
                _started += 1
    return min(wanted, _started)


def _serve(tasks: SimpleQueue[Callable[[], None]]) -> None:
    while True:
        tasks.get()()
