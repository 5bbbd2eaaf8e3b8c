"""Ctrl-C and SIGTERM noted when they come, and acted on where the state is whole."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

KINDS = (signal.SIGINT, signal.SIGTERM)


class StoppedError(KeyboardInterrupt):
    """Ctrl-C, acted on where the state was whole, and saved."""


class TerminatedError(SystemExit):
    """SIGTERM, acted on where the state was whole, and saved."""


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
        self._before: dict[signal.Signals, Callable[..., Any] | int | None] = {}

    def install(self) -> None:
        """Begin to note signals."""
        if threading.current_thread() is threading.main_thread() and not self._before:
            self._before = {kind: signal.signal(kind, self._note) for kind in KINDS}

    def remove(self) -> None:
        """Put back what was there before."""
        for kind, before in self._before.items():
            signal.signal(kind, signal.SIG_DFL if before is None else before)
        self._before = {}

    def stop(self) -> None:
        """Stop the program as the noted signal would have."""
        asked, self.asked = self.asked, None
        if asked is signal.SIGTERM:
            raise TerminatedError(128 + signal.SIGTERM)
        if asked is signal.SIGINT:
            raise StoppedError

    def _note(self, number: int, frame: object) -> None:
        self.asked = signal.Signals(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if sys.stderr.isatty():
                # os.write: a print that was interrupted by the signal cannot be entered again
                os.write(2, b"\nstopping when the batch is done; Ctrl-C again stops at once\n")
