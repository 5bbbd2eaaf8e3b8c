"""Threads, forks and interrupts around a step."""

import signal
import sys
import threading
from pathlib import Path

import pytest
import torch

import descend
from children import python
from optimizers.cases import (
    IDLE,
    NAMES,
    RICH,
    assert_close,
    assert_same_training,
    ours,
    parameters,
    tensor,
    threads,
    train,
)

HERE = Path(__file__).parent
SOURCES = Path(descend.__file__).parent


# Triton's interpreter patches its language module for the time of a launch: one thread only.
@pytest.mark.parametrize("backend", ["eager", "cpu"], indirect=True)
def test_python_threads_step_their_own_optimizers(backend):
    """Eight threads, started at once, end with the bits of eight runs in turn."""
    sizes, steps = [(3,), (100_001,)], 10
    work = [(name, seed) for name in ("adam", "sgd", "rmsprop", "adagrad") for seed in (0, 50)]

    def run(name, seed):
        params = parameters(sizes, torch.float32, seed)
        optimizer = ours(name)(params, **RICH[name])
        train(optimizer, params, steps, first=1 + seed)
        return optimizer, params

    results, failures, start = {}, [], threading.Barrier(len(work))

    def at_once(*key):
        try:
            start.wait(timeout=60)
            results[key] = run(*key)
        except BaseException as failure:
            failures.append(failure)

    with threads(2):
        running = [threading.Thread(target=at_once, args=key) for key in work]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    for failure in failures:
        raise failure
    for key in work:
        assert_same_training(*results[key], *run(*key), rtol=0, atol=0)


def test_any_number_of_threads_gives_the_same_bits():
    """Chunks are claimed in any order; no sum depends on it, the norm's neither."""
    results = []
    for count in (1, 2, 5):
        params = parameters([(200_001,), (7,), (70_000,)], torch.float32)
        optimizer = ours("adamw")(params, **RICH["adamw"], clip_norm=1.0)
        with threads(count):
            train(optimizer, params, 4)
        results.append((optimizer, params))
    for other in results[1:]:
        assert_same_training(*results[0], *other, rtol=0, atol=0)


class _InterruptAtLine:
    """A trace function that presses Ctrl-C when descend's code reaches its n-th line."""

    def __init__(self, number):
        self.left = number

    def __call__(self, frame, event, argument):
        if not frame.f_code.co_filename.startswith(str(SOURCES)):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(signal.SIGINT)
        return self


EVERY_LINE = pytest.param(1, marks=pytest.mark.slow, id="every line")
EVERY_NINTH = pytest.param(9, id="every ninth line")


@pytest.mark.parametrize("stride", [EVERY_NINTH, EVERY_LINE])
@pytest.mark.parametrize("name", NAMES)
def test_ctrl_c_at_any_line_of_a_step(backend, name, stride):
    """Wherever it strikes, the step has been taken wholly or not at all, and the next ones work."""
    steps = 3
    if backend == "gpu":
        stride *= 7  # the interpreter needs tens of ms for each launch
    shapes = [(5,), (3, 2)]
    options = {**RICH[name], "clip_norm": 1.0}

    def fresh():
        params = parameters(shapes, torch.float32)
        return ours(name)(params, **options), params

    reference = []
    for count in range(steps + 2):
        optimizer, params = fresh()
        train(optimizer, params, count)
        reference.append((optimizer, params))

    for completed in (0, 2):  # the first step makes the state; a later one only uses it
        # Each optimizer begins at another line: what they share is struck everywhere.
        number, struck, strikes = 1 + NAMES.index(name) % stride, True, 0
        while struck:
            optimizer, params = fresh()
            train(optimizer, params, completed)
            for index, param in enumerate(params):
                param.grad = tensor(1000 * (completed + 1) + index, shapes[index], torch.float32)
            tracer = _InterruptAtLine(number)
            struck = False
            sys.settrace(tracer)
            try:
                optimizer.step()
            except KeyboardInterrupt:
                struck = True
            finally:
                sys.settrace(None)
                grad_mode = torch.is_grad_enabled()
                torch.set_grad_enabled(True)  # no other test shall suffer
            struck = struck or tracer.left <= 0
            strikes += struck
            taken = completed + 1
            counted = optimizer.state.get(params[0], {}).get("step", 0)
            idle = completed < IDLE.get(name, 0) and counted > completed  # taken, and moved nothing
            if torch.equal(params[0], reference[completed][1][0]) and not idle:
                taken = completed
                optimizer.step()  # the step that was lost
                assert_same_training(optimizer, params, *reference[completed + 1], rtol=0, atol=0)
            else:
                assert_same_training(optimizer, params, *reference[taken], rtol=0, atol=0)
            train(optimizer, params, 1, first=completed + 2)
            assert_same_training(optimizer, params, *reference[completed + 2], rtol=0, atol=0)
            assert grad_mode, f"autograd was left off, line {number}"
            number += stride
        assert strikes > 2, "the trace hardly saw a line of descend"


def _run(script, *arguments, timeout=120):
    """What a script of this folder prints."""
    return python("-W", "error", HERE / script, *arguments, timeout=timeout).stdout


@pytest.mark.parametrize("backend_name", ["cpu", "eager"])
def test_ctrl_c_at_random_times(backend_name):
    """A real signal, from another thread, while threads share a large step or a small one flies."""
    for line in _run("interrupted.py", backend_name, 100_000, 300).splitlines():
        assert int(line.split()[0]) >= 3, f"too few interrupts fell into a step: {line}"


def test_p55_a_forked_child_steps():
    """After its parent stepped large tensors: an optimizer it inherits, and one it makes."""
    assert _run("forked.py", timeout=60).split() == ["inherited", "fresh"]


def test_descend_leaves_signal_handlers_alone(backend):
    before = signal.getsignal(signal.SIGINT)
    (param,) = parameters([(3,)])
    train(ours("adam")([param]), [param], 2)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_in_a_step_leaves_the_handler_alone(backend):
    before = signal.getsignal(signal.SIGINT)
    (param,) = parameters([(3,)])
    optimizer = ours("adam")([param])
    param.grad = torch.sparse_coo_tensor(
        [[0]], [1.0], (3,), dtype=torch.float64, check_invariants=True
    )
    with pytest.raises(RuntimeError):
        optimizer.step()
    assert signal.getsignal(signal.SIGINT) is before
    assert_close(param, parameters([(3,)])[0], rtol=0, atol=0)
