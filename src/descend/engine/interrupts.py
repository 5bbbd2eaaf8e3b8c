"""Signals between two Python operations that belong together."""

import signal
import threading

# What `signal` offers makes an enum of each number and handler: 3 us a call, and there are many.
from _signal import getsignal  # type: ignore[import-not-found]
from _signal import signal as set_handler
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeAlias

_NUMBERS = sorted(map(int, signal.valid_signals()))

_Pending: TypeAlias = list[tuple[int, FrameType | None]]


@contextmanager
def deferred() -> Iterator[None]:
    """Hold back the handlers of signals until the block has ended, then let them act.

    A step is several operations (parameter, state, step count). A handler that raises between
    them, as that of Ctrl-C does, would leave a parameter that has moved beside a state that has
    not. Only the main thread receives signals, so in any other this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: known for number in _NUMBERS if callable(known := getsignal(number))}
    pending: _Pending = []

    def hold(number: int, frame: FrameType | None) -> None:
        pending.append((number, frame))

    try:
        for number in handlers:
            set_handler(number, hold)
        yield
    finally:
        raised = _restore(handlers)
        try:
            _act(handlers, pending)
        finally:
            if raised is not None:
                raise raised


def _restore(handlers: Mapping[int, Callable[..., Any]]) -> BaseException | None:
    """Put back every handler, even if one that is back already raises meanwhile."""
    raised = None
    while True:
        try:
            for number, handler in handlers.items():
                set_handler(number, handler)
            break
        except BaseException as error:  # returned; it is not this function's
            raised = error
    return raised


def _act(handlers: Mapping[int, Callable[..., Any]], pending: _Pending) -> None:
    """Call the handler of each signal that came, whatever the one before it raised."""
    if pending:
        (number, frame), *others = pending
        try:
            handlers[number](number, frame)
        finally:
            _act(handlers, others)
