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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1])
def test_a_handler_of_any_signal_waits(number):
    class StopError(Exception):
        pass

    def stop(number, frame):
        raise StopError

    before = signal.signal(number, stop)
    done = []

    def body():
        with interrupts.deferred():
            os.kill(os.getpid(), number)
            done.append("all")

    try:
        with pytest.raises(StopError):
            body()
        assert done == ["all"]
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)


def test_of_several_signals_each_is_handled():
    calls = []

    def note(number, frame):
        calls.append(number)
        raise RuntimeError(number)

    kinds = (signal.SIGUSR1, signal.SIGUSR2)

    def body():
        with interrupts.deferred():
            for number in kinds:
                os.kill(os.getpid(), number)

    before = [signal.signal(number, note) for number in kinds]
    try:
        with pytest.raises(RuntimeError):
            body()
        assert calls == [*kinds]
        assert [signal.getsignal(number) for number in kinds] == [note, note]
    finally:
        for number, handler in zip(kinds, before, strict=True):
            signal.signal(number, handler)
