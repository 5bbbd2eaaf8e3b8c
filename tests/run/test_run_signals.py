"""Ctrl-C and SIGTERM: noted, saved where the state is whole, and the program ends as it should."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import descend
from descend.checkpoint import load
from run.small import (
    STEPS,
    end_of,
    loader,
    log_of,
    plain_parts,
    process,
    steps_of,
    surroundings,  # noqa: F401 - a fixture
)

INT, TERM = signal.SIGINT, signal.SIGTERM
ENDS = {INT: KeyboardInterrupt, TERM: SystemExit}
RARELY = {"every_steps": None, "every_minutes": None}


@pytest.fixture(autouse=True)
def handlers():
    """Whatever a test does, pytest has its own handlers back; the test must have left them."""
    before = {kind: signal.getsignal(kind) for kind in ENDS}
    yield before
    after = {kind: signal.getsignal(kind) for kind in ENDS}
    for kind, handler in before.items():
        signal.signal(kind, handler)
    assert after == before


def signalled(kind, at, where="body"):
    """Parts whose step `at` gets a signal."""

    def raise_at(run):
        if run.step == at:
            signal.raise_signal(kind)

    return plain_parts(**{"before_step" if where == "before the step" else "after_step": raise_at})


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize(
    ("at", "where"), [(1, "body"), (3, "before the step"), (4, "body"), (8, "before the step")]
)
@pytest.mark.parametrize("kind", ENDS)
def test_f2_a_signal_in_the_body_saves_when_the_batch_is_done(
    tmp_path, kind, at, where, background
):
    process(tmp_path / "whole", plain_parts)
    options = {**RARELY, "background": background}
    with pytest.raises(ENDS[kind]) as ended:
        process(tmp_path / "mine", lambda: signalled(kind, at, where), **options)
    if kind is TERM:
        assert ended.value.code == 143
    assert steps_of(tmp_path / "mine")[-1] == at
    assert log_of(tmp_path / "mine").count(b"\n") == at
    process(tmp_path / "mine", plain_parts)
    assert end_of(tmp_path / "mine") == end_of(tmp_path / "whole")


@pytest.mark.parametrize("kind", ENDS)
def test_f2_a_signal_in_each_step_of_a_chain(tmp_path, kind):
    process(tmp_path / "whole", plain_parts)
    for at in range(1, STEPS + 1):
        with pytest.raises(ENDS[kind]):
            process(tmp_path / "mine", lambda at=at: signalled(kind, at), **RARELY)
    run = process(tmp_path / "mine", plain_parts)
    assert run.is_over
    assert end_of(tmp_path / "mine") == end_of(tmp_path / "whole")


@pytest.mark.parametrize("kind", ENDS)
def test_f2_a_signal_in_a_save_is_acted_on_after_it(tmp_path, kind, monkeypatch):
    process(tmp_path / "whole", plain_parts)
    write = descend.checkpoint.folder._write_parts

    def interrupted(folder, snapshot, about):
        write(folder, snapshot, about)
        if about["step"] == 3:
            signal.raise_signal(kind)

    with monkeypatch.context() as patch:
        patch.setattr("descend.checkpoint.folder._write_parts", interrupted)
        with pytest.raises(ENDS[kind]):
            process(tmp_path / "mine", plain_parts, background=False)
    assert load(tmp_path / "mine")["run"]["step"] in (3, 4)
    process(tmp_path / "mine", plain_parts)
    assert end_of(tmp_path / "mine") == end_of(tmp_path / "whole")


def test_f2_a_signal_in_the_last_save_is_acted_on_after_it(tmp_path, monkeypatch):
    write = descend.checkpoint.folder._write_parts
    seen = []

    def interrupted(folder, snapshot, about):
        if about["step"] == STEPS:
            os.kill(os.getpid(), TERM)
            time.sleep(0.1)
        write(folder, snapshot, about)

    monkeypatch.setattr("descend.checkpoint.folder._write_parts", interrupted)
    before = signal.signal(TERM, lambda *args: seen.append(args))  # or pytest would be ended
    try:
        with pytest.raises(SystemExit):
            process(tmp_path, plain_parts, **RARELY)
    finally:
        signal.signal(TERM, before)
    assert steps_of(tmp_path)[-1] == STEPS
    assert seen == []


def validated(kind=None, epoch=1, *, logs_first=False, checks=True):
    """Parts with a validation that draws random numbers, in which a signal comes."""
    parts = plain_parts()

    def after(run):
        if logs_first:
            run.log(train=run.step)
        total = 0.0
        for number in range(3):
            total += float(torch.rand(1))
            if kind is not None and run.epoch == epoch and number == 1:
                signal.raise_signal(kind)
            if checks:
                run.check()
        run.log(validation=total)

    parts.after = after
    return parts


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize("epoch", [1, 2])
@pytest.mark.parametrize("checks", [True, False])
def test_f2_a_signal_in_a_validation(tmp_path, kind, epoch, checks):
    process(tmp_path / "whole", validated)
    with pytest.raises(ENDS[kind]):
        process(tmp_path / "mine", lambda: validated(kind, epoch, checks=checks))
    position = load(tmp_path / "mine")["run"]["loader"]
    assert (position["epoch"], position["position"]) == ((epoch - 1, 4) if checks else (epoch, 0))
    run = process(tmp_path / "mine", validated)
    assert run.is_over
    assert log_of(tmp_path / "mine") == log_of(tmp_path / "whole")
    assert end_of(tmp_path / "mine") == end_of(tmp_path / "whole")


@pytest.mark.parametrize("kind", ENDS)
def test_f2_check_after_a_log_repeats_no_line(tmp_path, kind):
    process(tmp_path / "whole", lambda: validated(logs_first=True))
    with pytest.raises(ENDS[kind]):
        process(tmp_path / "mine", lambda: validated(kind, logs_first=True))
    process(tmp_path / "mine", lambda: validated(logs_first=True))
    assert log_of(tmp_path / "mine") == log_of(tmp_path / "whole")


def test_f2_check_stops_again_in_the_process_that_goes_on_there(tmp_path):
    process(tmp_path / "whole", validated)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            process(tmp_path / "mine", lambda: validated(INT, 1))
        assert load(tmp_path / "mine")["run"]["loader"]["position"] == 4
    process(tmp_path / "mine", validated)
    assert end_of(tmp_path / "mine") == end_of(tmp_path / "whole")


def test_check_without_a_signal_does_nothing(tmp_path):
    run = descend.Run(tmp_path, loader=loader(), every_steps=1, keep=9)
    run.check()
    for _ in run:
        run.check()
    run.check()
    assert steps_of(tmp_path) == [0, 1, 2, 3, 4]


def test_a_second_ctrl_c_interrupts_at_once_and_saves_nothing_half_done(tmp_path):
    process(tmp_path / "whole", plain_parts)

    def raise_twice(run):
        if run.step == 6:
            signal.raise_signal(INT)
            signal.raise_signal(INT)
            raise AssertionError("not reached")

    with pytest.raises(KeyboardInterrupt):
        process(tmp_path / "mine", lambda: plain_parts(before_step=raise_twice), every_steps=2)
    assert steps_of(tmp_path / "mine")[-1] == 4
    process(tmp_path / "mine", plain_parts)
    assert end_of(tmp_path / "mine") == end_of(tmp_path / "whole")


def test_a_second_sigterm_changes_nothing(tmp_path):
    def raise_twice(run):
        if run.step == 3:
            signal.raise_signal(TERM)
            signal.raise_signal(TERM)

    with pytest.raises(SystemExit):
        process(tmp_path, lambda: plain_parts(before_step=raise_twice), **RARELY)
    assert steps_of(tmp_path)[-1] == 3


def test_a_signal_and_a_full_disk_end_the_program_all_the_same(tmp_path, monkeypatch):
    def full(folder, snapshot, about):
        raise OSError(28, "No space left on device")

    parts = signalled(TERM, 3)
    train = parts.body

    def body(run, batch):
        if run.step == 3:
            monkeypatch.setattr("descend.checkpoint.folder._write_parts", full)
        train(run, batch)

    parts.body = body
    with pytest.warns(UserWarning, match="No space left"), pytest.raises(SystemExit) as ended:
        process(tmp_path, lambda: parts, **RARELY)
    assert ended.value.code == 143
    assert steps_of(tmp_path) == [0]


@pytest.mark.parametrize("how", ["end", "break", "exception", "stop", "epochs"])
def test_the_handlers_are_those_from_before_however_the_loop_is_left(tmp_path, handlers, how):
    run = descend.Run(tmp_path, loader=loader())

    def body():
        inside = [signal.getsignal(kind) for kind in ENDS]
        assert inside != list(handlers.values())
        if how == "exception":
            raise ZeroDivisionError
        if how == "stop":
            run.stop()
        return how == "break"

    def go():
        if how == "epochs":
            for batches in run.epochs():
                for _ in batches:
                    body()
            return
        for _ in run:
            if body():
                break

    if how == "exception":
        with pytest.raises(ZeroDivisionError):
            go()
    else:
        go()
    assert {kind: signal.getsignal(kind) for kind in ENDS} == handlers


def test_outside_of_the_loop_signals_are_the_programs_own(tmp_path, handlers):
    run = descend.Run(tmp_path, loader=loader())
    assert {kind: signal.getsignal(kind) for kind in ENDS} == handlers
    list(run)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(INT)


def test_a_signal_that_the_program_ignores_stays_ignored(tmp_path):
    """As in `nohup`, or behind `&` in a script."""
    before = signal.signal(INT, signal.SIG_IGN)
    try:
        step = process(tmp_path, lambda: signalled(INT, 3), **RARELY).step
    except KeyboardInterrupt:
        step = "stopped"  # pytest itself would stop
    finally:
        signal.signal(INT, before)
    assert step == STEPS


def test_a_handler_of_the_users_own_is_there_again_afterwards(tmp_path):
    seen = []
    before = signal.signal(TERM, lambda *args: seen.append(args))
    try:
        process(tmp_path, plain_parts)
        signal.raise_signal(TERM)
    finally:
        signal.signal(TERM, before)
    assert len(seen) == 1


def test_in_another_thread_it_trains_and_leaves_signals_alone(tmp_path, handlers):
    process(tmp_path / "whole", plain_parts)
    failures = []

    def work():
        try:
            process(tmp_path / "mine", plain_parts)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failures == []
    assert {kind: signal.getsignal(kind) for kind in ENDS} == handlers
    assert end_of(tmp_path / "mine") == end_of(tmp_path / "whole")


# --- as a program ------------------------------------------------------------------------------

SCRIPT = """
import sys, time, torch
import run.small as small

def make():
    parts = small.plain_parts(); train = parts.body
    parts.loader = small.loader(num_workers=int(sys.argv[2]))
    def body(run, batch):
        train(run, batch)
        if run.step == 3:
            print("ready", flush=True)
        if run.step >= 3:
            time.sleep(0.3)
    parts.body = body
    return parts

if __name__ == "__main__":
    small.process(sys.argv[1], make, every_steps=None, epochs=20)
"""


def program(tmp_path, kind, workers, *, group):
    """Start a program, signal it in its third step, and give its exit status and its words."""
    (tmp_path / "script.py").write_text(SCRIPT)
    paths = [Path(__file__).parents[1], Path(descend.__file__).parents[1]]
    with subprocess.Popen(
        [sys.executable, tmp_path / "script.py", tmp_path / "run", str(workers)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "OMP_NUM_THREADS": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as started:
        assert started.stdout.readline() == "ready\n"
        (os.killpg if group else os.kill)(started.pid, kind)
        _, words = started.communicate(timeout=60)
    return started.returncode, words


STATUS = {TERM: 143, INT: -INT}  # a shell calls the latter 130


@pytest.mark.parametrize("kind", ENDS)
def test_f2_the_exit_status_is_that_of_the_signal(tmp_path, kind):
    status, words = program(tmp_path, kind, 0, group=False)
    assert status == STATUS[kind], words
    assert steps_of(tmp_path / "run")[-1] >= 3


@pytest.mark.parametrize("kind", [INT, TERM])
def test_f2_a_signal_to_the_workers_too_as_terminals_and_schedulers_send_it(tmp_path, kind):
    status, words = program(tmp_path, kind, 2, group=True)
    assert steps_of(tmp_path / "run")[-1] >= 3, words
    assert status == STATUS[kind], words
