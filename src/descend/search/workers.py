"""Processes that train trials beside each other, each on its own threads."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context, parent_process
from types import ModuleType
from typing import Any, Generic, TypeVar

import torch

from descend.errors import SearchError
from descend.training.thread_count import threads_set

Key = TypeVar("Key")
DEATHS = 3  # of a process in one piece of work, before it is given up
NO_MORE_THAN = 61  # processes: what Windows can wait for

Work = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function of a module and its arguments, all of which pickle between processes."""


class Workers(Generic[Key]):
    """Does pieces of work in so many processes; with one, in this one.

    What comes out depends on neither number of them, since each computes on the same number of
    threads. Where a process dies, its piece is begun again in another: a trial goes on from its
    checkpoint. Where this process dies, by whatever, so do they.

    Args:
        jobs: how many processes.
        threads: on how many threads each computes.

    Example:
        >>> with Workers(jobs=1, threads=1) as workers:
        ...     dict(workers.run({"a": (abs, (-3,))}))
        {'a': 3}
    """

    def __init__(self, jobs: int, threads: int = 1) -> None:
        self.jobs, self.threads = jobs, threads
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers[Key]":
        """Nothing is started before there is work."""
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        """End the processes: each when its batch is done and saved, if it was in the middle."""
        self._end(signal.SIGTERM if kind is not None else None)

    def run(self, work: dict[Key, Work]) -> Iterator[tuple[Key, Any]]:
        """Do all of it, in the order given; each result as it comes.

        Args:
            work: functions and their arguments, by key.

        Raises:
            SearchError: a process died several times in one piece.
            Exception: what a function raised; the others are ended.
        """
        if self.jobs == 1:
            for key, (function, arguments) in work.items():
                with threads_set(self.threads):
                    found = function(*arguments)
                yield key, found
            return
        deaths = dict.fromkeys(work, 0)
        left = dict(work)
        while left:
            try:
                yield from self._each(left)
            except BrokenProcessPool:
                self._end(signal.SIGTERM)
                for key in [*left][: self.jobs]:  # among them is the one
                    deaths[key] += 1
                    if deaths[key] == DEATHS:
                        raise SearchError(
                            f"a process died {DEATHS} times in {key}: perhaps the memory of the "
                            f"machine is too small for {self.jobs} at once; give fewer --jobs"
                        ) from None

    def _each(self, left: dict[Key, Work]) -> Iterator[tuple[Key, Any]]:
        """Each result as it comes; what is done is taken out of what is left."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                min(self.jobs, NO_MORE_THAN), get_context("spawn"), _start, (self.threads,)
            )
        # No more at once than there are processes: a piece that waits in their queue could not
        # be told from one that a process died in
        waiting, running = iter([*left.items()]), dict[Future[Any], Key]()
        while True:
            for key, (function, arguments) in waiting:
                with _no_script():
                    running[self._pool.submit(function, *arguments)] = key
                if len(running) == self.jobs:
                    break
            if not running:
                return
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                key = running.pop(done)
                found = done.result()
                del left[key]
                yield key, found

    def _end(self, kind: signal.Signals | None) -> None:
        pool, self._pool = self._pool, None
        if pool is None:
            return
        if kind is not None:
            for process in [*(pool._processes or {})]:
                with suppress(ProcessLookupError):
                    os.kill(process, kind)
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _no_script() -> Iterator[None]:
    """Let processes start that do not run the user's script again.

    They need nothing of it, and a script without `if __name__ == "__main__":` would start its
    comparison in each of them.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _start(threads: int) -> None:
    """Make a process ready: its threads, and an end when the one above it is no more."""
    torch.set_num_threads(threads)
    # The one above stops for both; on Ctrl-C it lets this one save by SIGTERM
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def shared_out(jobs: int | None, threads: int) -> int:
    """How many processes to use: as asked, or one for each so many processors that are ours.

    Args:
        jobs: as asked; None for as many as there is room for.
        threads: of each.
    """
    if jobs is not None:
        return jobs
    try:
        processors = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        processors = os.cpu_count() or 1
    return max(1, processors // threads)
