"""The threads that share one kernel call.

Plain Python threads around a kernel that releases the interpreter lock, rather than a threading
layer of Numba's or OpenMP's: a forked child simply starts its own, where GNU OpenMP would kill it.
"""

import os
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Thread

_tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()
_started = 0
_starting = Lock()


def _forget() -> None:
    """A forked child has none of its parent's threads."""
    global _tasks, _started, _starting
    _tasks, _started, _starting = SimpleQueue(), 0, Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


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
