"""A save cut short at any of its system calls: by the death of the process, or by an error."""

import io
import os
import pathlib
import signal
import sys
import threading
import traceback
import warnings
from contextlib import contextmanager

CALLS = {
    "open", "write", "close", "mkdir", "rename", "replace", "fsync", "chmod", "unlink", "rmdir",
    "scandir", "touch", "utime",
}  # fmt: skip


def calls_of(work, *, kill_at=None):
    """Do work in a forked child, which SIGKILL ends before its system call of that number.

    Returns:
        How many calls it made; None if it was killed.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pytest-xdist has threads
        child = os.fork()
    if child == 0:
        made = 0

        def watch(frame, event, function):
            nonlocal made
            if event == "c_call" and function.__name__ in CALLS:
                if made == kill_at:
                    signal.raise_signal(signal.SIGKILL)
                made += 1

        try:
            threading.setprofile(watch)
            sys.setprofile(watch)
            work()
            sys.setprofile(None)
            os.write(writer, str(made).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)  # by no means back into pytest
    os.close(writer)
    with open(reader, "rb") as answers:
        answer = answers.read()
    _, status = os.waitpid(child, 0)
    return None if os.WIFSIGNALED(status) else int(answer)


def kills(work):
    """Kill work at each of its system calls in turn: yields the number, before a kill is made.

    Example:
        for kill in kills(lambda: save(path, state)):
            ...                     # put everything as it was
            kill()
            ...                     # see what is left
    """
    count = calls_of(work)
    assert count > 0
    for number in range(count):

        def kill(number=number):
            assert calls_of(work, kill_at=number) is None

        yield kill


@contextmanager
def failing(at, error, *, lasting):
    """Let the system call of that number fail with an OSError, and all after it if lasting.

    Yields:
        A list that ends up with the name of each call that failed.
    """
    made, failed = 0, []

    def wrapped(name, function):
        def call(*args, **kwargs):
            nonlocal made
            made += 1
            if made - 1 == at or (lasting and made > at):
                failed.append(name)
                raise OSError(error, os.strerror(error))
            return function(*args, **kwargs)

        return call

    places = [(os, name) for name in sorted(CALLS) if hasattr(os, name)]
    places += [(io, "open"), (pathlib.Path, "open")]
    real = [(where, name, getattr(where, name)) for where, name in places]
    for where, name, function in real:
        setattr(where, name, wrapped(f"{where.__name__}.{name}", function))
    try:
        yield failed
    finally:
        for where, name, function in real:
            setattr(where, name, function)
