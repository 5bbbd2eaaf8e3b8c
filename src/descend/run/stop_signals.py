"""Signals that end a program: acted on where the state is whole, or as an exception at once."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

KINDS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Notes the first Ctrl-C or SIGTERM; a second Ctrl-C interrupts at once.

    Only the main thread can be told of signals: elsewhere nothing is noted.

    Example:
        >>> signals = StopSignals()
        >>> signals.install()
        >>> signals.asked is None
        True
        >>> signals.remove()
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self.stopped_by: signal.Signals | None = None
        self._before: dict[signal.Signals, Callable[..., Any] | int | None] = {}

    def install(self) -> None:
        """Begin to note signals."""
        if threading.current_thread() is threading.main_thread() and not self._before:
            # One that is ignored, as nohup has it, goes on being ignored
            kinds = [kind for kind in KINDS if signal.getsignal(kind) is not signal.SIG_IGN]
            self._before = {kind: signal.signal(kind, self._note) for kind in kinds}

    def remove(self) -> None:
        """Put back what was there before."""
        for kind, before in self._before.items():
            signal.signal(kind, signal.SIG_DFL if before is None else before)
        self._before = {}

    def stop(self) -> None:
        """Stop the program as the noted signal would have; `stopped_by` tells that it was here."""
        self.stopped_by, self.asked = self.asked, None
        if self.stopped_by is signal.SIGTERM:
            sys.exit(128 + signal.SIGTERM)
        if self.stopped_by is signal.SIGINT:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: object) -> None:
        self.asked = signal.Signals(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if sys.stderr.isatty():
                # os.write: a print that was interrupted by the signal cannot be entered again
                os.write(2, b"\nstopping when the batch is done; Ctrl-C again stops at once\n")


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
