"""Signals that end a program, as exceptions, as Ctrl-C is one."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def exit_on(*kinds: signal.Signals) -> Iterator[None]:
    """Let signals raise SystemExit, so that what is under way is tidied up and told of.

    One that is ignored, as nohup has it, or that has a handler already, keeps that.

    Args:
        kinds: which, such as `signal.SIGTERM`.
    """
    in_main = threading.current_thread() is threading.main_thread()
    ours = [kind for kind in kinds if in_main and signal.getsignal(kind) is signal.SIG_DFL]
    for kind in ours:
        signal.signal(kind, _exit)
    try:
        yield
    finally:
        for kind in ours:
            signal.signal(kind, signal.SIG_DFL)


def _exit(number: int, frame: object) -> None:
    sys.exit(128 + number)
