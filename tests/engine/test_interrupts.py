"""Ctrl-C waits for the end of what belongs together, and then acts as it would have."""

import os
import signal
import threading

import pytest

from descend.engine import interrupts


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_comes_after_the_block():
    done = []

    def body():
        with interrupts.deferred():
            interrupt()
            done.append("first")
            done.append("second")
        done.append("never")

    with pytest.raises(KeyboardInterrupt):
        body()
    assert done == ["first", "second"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_users_own_handler_is_called_and_kept():
    calls = []

    def handler(number, frame):
        calls.append(number)

    before = signal.signal(signal.SIGINT, handler)
    try:
        with interrupts.deferred():
            interrupt()
            assert calls == []
        assert calls == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_exception_in_the_block_is_not_lost_to_nothing():
    def body():
        with interrupts.deferred():
            raise ValueError("of the block")

    with pytest.raises(ValueError, match="of the block"):
        body()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_leave_signals_alone():
    handlers = []

    def work():
        with interrupts.deferred():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]
