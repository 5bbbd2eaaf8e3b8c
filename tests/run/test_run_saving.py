"""When a run saves, what it keeps, and what becomes of it on a failing disk or after damage."""

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

import descend
from descend.checkpoint import load
from descend.errors import CheckpointError, CheckpointWarning, RunError
from descend.run import metrics_log
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

NEVER = {"every_steps": None, "every_minutes": None, "every_epochs": None}


def checkpoints(folder):
    return sorted((Path(folder) / "checkpoints").glob("step-*"))


def newest(folder):
    return checkpoints(folder)[-1]


def damage(path):
    """Flip one bit in the middle of the tensors."""
    file = path / "tensors.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


# --- when --------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize(
    ("when", "steps"),
    [
        ({}, [0, 8]),
        ({"every_steps": 3}, [0, 3, 6, 8]),
        ({"every_epochs": 1}, [0, 4, 8]),
        ({"every_epochs": 2}, [0, 8]),
        ({"every_steps": 3, "every_epochs": 1}, [0, 3, 4, 6, 8]),
        ({"every_steps": 1, "every_epochs": 1}, [*range(9)]),
        ({"every_steps": 99}, [0, 8]),
    ],
)
def test_it_saves_after_steps_and_epochs_and_at_both_ends(tmp_path, when, steps, background):
    process(tmp_path, plain_parts, background=background, **NEVER | when)
    assert steps_of(tmp_path) == steps


@pytest.mark.parametrize(
    ("every", "epochs_each", "batch_size"), [(4, None, 4), (2, None, 4), (1, 3, 4), (1, None, 14)]
)
def test_f2_the_last_batch_of_an_epoch_counts_for_every_steps(
    tmp_path, every, epochs_each, batch_size
):
    def make():
        parts = plain_parts()
        parts.loader = loader(batch_size=batch_size)
        return parts

    run = process(
        tmp_path, make, epochs=4, **NEVER | {"every_steps": every, "every_epochs": epochs_each}
    )
    assert steps_of(tmp_path) == [*range(0, run.step + 1, every)]


class Clock:
    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def passing(clock, seconds):
    """Parts whose every step takes a time."""

    def pass_(run):
        clock.now += seconds

    return plain_parts(after_step=pass_)


def test_it_saves_after_minutes(tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    process(tmp_path, lambda: passing(clock, 21), epochs=2, **NEVER | {"every_minutes": 1})
    assert steps_of(tmp_path) == [0, 3, 6, 8]


def test_it_saves_after_minutes_whatever_the_batch(tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    process(tmp_path, lambda: passing(clock, 16), epochs=3, **NEVER | {"every_minutes": 1})
    assert steps_of(tmp_path) == [0, 4, 8, 12]


def test_the_minutes_count_from_the_last_save(tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    when = NEVER | {"every_minutes": 1.5, "every_steps": 3}
    process(tmp_path, lambda: passing(clock, 50), epochs=2, **when)
    assert steps_of(tmp_path) == [0, 2, 3, 5, 6, 8]


def test_time_before_the_loop_is_no_reason_to_save(tmp_path, monkeypatch):
    clock = Clock(monkeypatch)

    def make():
        parts = passing(clock, 1)
        parts.before = lambda run: setattr(clock, "now", clock.now + 3600)
        return parts

    process(tmp_path, make, **NEVER | {"every_minutes": 1})
    assert steps_of(tmp_path) == [0, 8]


def test_time_before_the_loop_goes_on_is_no_reason_to_save(tmp_path, monkeypatch):
    clock = Clock(monkeypatch)

    def make():
        parts = passing(clock, 1)
        parts.before = lambda run: setattr(clock, "now", clock.now + 3600)
        return parts

    process(tmp_path, make, die=3)
    process(tmp_path, make, **NEVER | {"every_minutes": 1})
    assert steps_of(tmp_path) == [0, 1, 2, 8]


@pytest.mark.parametrize("background", [True, False])
def test_save_in_the_body_saves_when_the_batch_is_done(tmp_path, background):
    def save(run):
        if run.step in (2, 4, 5):
            run.save()  # before the step of the optimizer
            run.save()

    def saving():
        return plain_parts(before_step=save)

    process(tmp_path / "mine", saving, background=background, **NEVER, die=7)
    assert steps_of(tmp_path / "mine") == [0, 2, 4, 5]
    process(tmp_path / "mine", plain_parts, **NEVER)
    process(tmp_path / "whole", plain_parts, **NEVER)
    assert end_of(tmp_path / "mine") == end_of(tmp_path / "whole")


def test_save_after_an_epoch_saves_when_its_body_is_done(tmp_path):
    def make():
        parts = plain_parts()

        def after(run):
            run.save()
            run.log(validation=1)

        parts.after = after
        return parts

    process(tmp_path, make, **NEVER)
    assert steps_of(tmp_path) == [0, 4, 8]
    state = load(checkpoints(tmp_path)[1])["run"]
    assert state["log"] == log_of(tmp_path).index(b'{"step": 5')


def test_save_outside_of_the_loop_saves_at_once(tmp_path):
    parts = plain_parts()
    run = descend.Run(tmp_path, loader=loader(), seed=3, **NEVER, **parts.objects)
    for batch in run:
        parts.body(run, batch)
        if run.step == 2:
            break
    run.save()
    assert steps_of(tmp_path) == [0, 2]
    assert load(tmp_path)["run"]["loader"]["position"] == 2


# --- what is kept ------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_the_newest_are_kept(tmp_path, keep):
    process(tmp_path, plain_parts, keep=keep)
    assert steps_of(tmp_path) == [*range(STEPS + 1 - keep, STEPS + 1)]


SCORES = {1: 0.5, 2: 0.9, 3: 0.2, 4: 0.2, 5: 0.9, 6: 0.7, 7: 0.4, 8: 0.5}


def scored(name="score"):
    return plain_parts(after_step=lambda run: run.log(**{name: SCORES[run.step]}))


@pytest.mark.parametrize(
    ("best", "step"),
    [("score", 3), (descend.checkpoint.Best("score", highest=True), 2)],
)
@pytest.mark.parametrize("background", [True, False])
def test_the_best_is_kept_too_the_oldest_of_equals(tmp_path, best, step, background):
    process(tmp_path, scored, keep=1, best=best, background=background)
    assert steps_of(tmp_path) == [step, 8]


def test_a_best_that_was_never_logged_is_told_at_the_end(tmp_path):
    with pytest.warns(
        CheckpointWarning, match=r"best='scroe': no such metric was logged, .* score"
    ):
        process(tmp_path, scored, keep=1, best="scroe")
    assert steps_of(tmp_path) == [8]


def test_the_best_is_known_to_the_next_process(tmp_path):
    for die in (4, 6, None):
        process(tmp_path, scored, keep=1, best="score", die=die)
    assert steps_of(tmp_path) == [3, 8]


@pytest.mark.parametrize("value", [float("nan"), "good", True, None])
def test_a_best_that_is_no_number_is_none(tmp_path, value):
    def make():
        return plain_parts(after_step=lambda run: run.log(score=value))

    process(tmp_path, make, keep=1, best="score")
    assert steps_of(tmp_path) == [8]


# --- a disk that fails -------------------------------------------------------------------------


class Disk:
    """Fails to write checkpoints where it is told to."""

    def __init__(self, monkeypatch):
        self.full = False
        write = descend.checkpoint.folder._write_parts

        def failing(folder, snapshot, about):
            if self.full:
                (folder / "half").write_text("half of it")
                raise OSError(28, "No space left on device")
            write(folder, snapshot, about)

        monkeypatch.setattr("descend.checkpoint.folder._write_parts", failing)


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


def failing_parts(disk, steps):
    """The disk is full while the bodies of some steps end."""

    def fill(run):
        while any(one.name == "descend save" for one in threading.enumerate()):
            time.sleep(0.001)  # so that each save meets the disk that is meant
        disk.full = run.step in steps

    return plain_parts(after_step=fill)


@pytest.mark.parametrize("background", [True, False])
def test_p40_a_save_that_fails_in_the_middle_leaves_the_older_ones_and_the_training(
    tmp_path, disk, background
):
    process(tmp_path / "whole", plain_parts)
    with pytest.warns(CheckpointWarning, match="No space left.*goes on, the newest") as seen:
        process(
            tmp_path / "mine", lambda: failing_parts(disk, {2, 3, 6}), background=background, keep=3
        )
    mine = [str(one.message) for one in seen]
    assert len(mine) == 3
    assert "step-00000002:" in mine[0]
    assert mine[0].endswith(f"{tmp_path}/mine/checkpoints/step-00000001")
    assert mine[1].endswith(f"{tmp_path}/mine/checkpoints/step-00000001")
    assert mine[2].endswith(f"{tmp_path}/mine/checkpoints/step-00000005")
    assert steps_of(tmp_path / "mine") == [5, 7, 8]
    assert end_of(tmp_path / "mine") == end_of(tmp_path / "whole")
    assert not list((tmp_path / "mine" / "checkpoints").glob(".*"))


@pytest.mark.parametrize("background", [True, False])
def test_p40_dying_after_saves_that_failed_goes_on_from_the_last_that_did_not(
    tmp_path, disk, background
):
    process(tmp_path / "whole", plain_parts)
    with pytest.warns(CheckpointWarning):
        process(
            tmp_path / "mine",
            lambda: failing_parts(disk, {4, 5, 6}),
            die=7,
            keep=1,
            background=background,
        )
    disk.full = False
    assert steps_of(tmp_path / "mine") == [3]
    process(tmp_path / "mine", plain_parts)
    assert end_of(tmp_path / "mine") == end_of(tmp_path / "whole")


def test_a_disk_that_is_full_from_the_start_warns_at_once_and_trains(tmp_path, disk):
    disk.full = True
    parts = plain_parts()
    run = descend.Run(tmp_path, loader=loader(), seed=3, **NEVER, **parts.objects)
    batches = iter(run)
    with pytest.warns(CheckpointWarning, match="there is no checkpoint yet"):
        batch = next(batches)
    disk.full = False
    while True:
        parts.body(run, batch)
        if (batch := next(batches, None)) is None:
            break
    assert steps_of(tmp_path) == [4]


def test_the_checkpoint_that_it_goes_on_from_is_the_newest_there_is(tmp_path, disk):
    process(tmp_path, plain_parts, die=4)
    with pytest.warns(CheckpointWarning, match="the newest checkpoint is .*step-00000003"):
        process(tmp_path, lambda: failing_parts(disk, {4}), die=6, every_epochs=None)


def test_a_disk_that_is_full_at_the_end_warns_and_leaves_what_there_was(tmp_path, disk):
    with pytest.warns(CheckpointWarning, match="the newest checkpoint is .*step-00000007"):
        run = process(tmp_path, lambda: failing_parts(disk, {8}))
    assert run.is_over
    assert steps_of(tmp_path)[-1] == 7
    disk.full = False
    process(tmp_path, plain_parts)
    process(tmp_path.with_name("whole"), plain_parts)
    assert end_of(tmp_path) == end_of(tmp_path.with_name("whole"))


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("step", [0, 3, 8])
def test_raise_stops_the_training_when_a_save_fails(tmp_path, disk, step, background):
    disk.full = step == 0
    with pytest.raises(CheckpointError, match="No space left"):
        process(
            tmp_path,
            lambda: failing_parts(disk, {step}),
            background=background,
            on_save_error="raise",
        )
    disk.full = False
    process(tmp_path, plain_parts)
    process(tmp_path.with_name("whole"), plain_parts)
    assert end_of(tmp_path) == end_of(tmp_path.with_name("whole"))


class Odd:
    """Holds whatever it is given, also what cannot be saved."""

    value = 1

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def test_a_state_that_can_no_longer_be_saved_warns_each_time(tmp_path):
    odd = Odd()
    run = descend.Run(tmp_path, loader=loader(), every_steps=1, odd=odd)

    def train():
        for _ in run:
            odd.value = steps_of if run.step in (2, 3) else run.step

    with pytest.warns(CheckpointWarning, match=r"cannot save odd\.value: it is a func") as seen:
        train()
    assert len(seen) == 2
    assert steps_of(tmp_path) == [0, 1, 4]


def test_a_failed_save_is_told_though_the_next_state_cannot_be_saved(tmp_path, disk):
    odd = Odd()
    run = descend.Run(tmp_path, loader=loader(), every_steps=1, odd=odd)

    def train():
        for _ in run:
            while any(one.name == "descend save" for one in threading.enumerate()):
                time.sleep(0.001)
            disk.full = run.step == 2
            odd.value = steps_of if run.step == 3 else 1

    with pytest.warns(CheckpointWarning) as seen:
        train()
    assert "step-00000002: " in str(seen[0].message)
    assert any("odd.value" in str(one.message) for one in seen)


def test_a_folder_that_is_gone_on_the_way_warns_and_trains(tmp_path):
    def remove(run):
        if run.step == 5:
            run._saver.wait()
            shutil.rmtree(tmp_path / "run")

    with pytest.warns(CheckpointWarning, match="cannot"):
        run = process(tmp_path / "run", lambda: plain_parts(after_step=remove))
    assert run.step == STEPS


# --- in the background -------------------------------------------------------------------------


def test_the_state_is_that_of_the_call_however_long_the_writing_takes(tmp_path, monkeypatch):
    """A slow disk: the training goes on while the copies are written."""
    write = descend.checkpoint.folder._write_parts
    slow = threading.Event()
    under_way = []

    def waiting(folder, snapshot, about):
        under_way.append(threading.current_thread())
        assert sum(one.is_alive() for one in set(under_way)) <= 2  # the main thread, and one save
        if about["step"] == 2:
            slow.wait(5)
        write(folder, snapshot, about)

    monkeypatch.setattr("descend.checkpoint.folder._write_parts", waiting)

    def let_go(run):
        if run.step == 5:
            slow.set()

    def make():
        return plain_parts(after_step=let_go)

    process(tmp_path / "slow", make, every_steps=2, every_epochs=None, die=6)
    process(tmp_path / "slow", plain_parts, every_steps=2, every_epochs=None)
    process(tmp_path / "whole", plain_parts, every_steps=2, every_epochs=None)
    assert end_of(tmp_path / "slow") == end_of(tmp_path / "whole")


def test_leaving_the_loop_waits_for_the_save_under_way(tmp_path, monkeypatch):
    write = descend.checkpoint.folder._write_parts

    def slow(folder, snapshot, about):
        time.sleep(0.1)
        write(folder, snapshot, about)

    monkeypatch.setattr("descend.checkpoint.folder._write_parts", slow)
    process(tmp_path, plain_parts, every_steps=2, die=3)
    assert steps_of(tmp_path) == [0, 2]
    assert not [one for one in threading.enumerate() if one.name == "descend save"]


# --- damage ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2, 3])
def test_p41_a_damaged_newest_one_is_passed_over_and_the_log_is_cut_to_the_older(tmp_path, number):
    process(tmp_path / "whole", plain_parts)
    process(tmp_path / "mine", plain_parts, die=7)
    for path in checkpoints(tmp_path / "mine")[-number:]:
        damage(path)
    with pytest.warns(CheckpointWarning, match="is not what was saved.*is used instead") as seen:
        run = process(tmp_path / "mine", plain_parts, die=1)
    assert len(seen) == number
    assert run.resumed_from.name == f"step-0000000{6 - number}"
    steps = [json.loads(line)["step"] for line in log_of(tmp_path / "mine").splitlines()]
    assert steps[: 6 - number] == [*range(1, 7 - number)]
    process(tmp_path / "mine", plain_parts)
    assert end_of(tmp_path / "mine") == end_of(tmp_path / "whole")


def test_p41_a_damaged_one_warns_once_and_never_again(tmp_path):
    process(tmp_path, plain_parts, die=7)
    damage(newest(tmp_path))
    with pytest.warns(CheckpointWarning, match="it is now called step-00000006.damaged"):
        process(tmp_path, plain_parts, die=6, every_steps=None)
    assert process(tmp_path, plain_parts, every_steps=None).step == STEPS
    assert steps_of(tmp_path)[-1] == 8


def test_p41_where_everything_is_damaged_nothing_is_started_over(tmp_path):
    process(tmp_path, plain_parts, keep=2)
    for path in checkpoints(tmp_path):
        damage(path)
    before = log_of(tmp_path)
    with pytest.raises(CheckpointError, match="none of the 2 is valid") as error:
        process(tmp_path, plain_parts)
    assert "step-00000007" in str(error.value)
    assert "step-00000008" in str(error.value)
    assert log_of(tmp_path) == before
    assert len(checkpoints(tmp_path)) == 2
    assert process(tmp_path, plain_parts, fresh=True).step == STEPS


def test_f2_half_a_checkpoint_of_a_process_that_died_is_removed(tmp_path):
    process(tmp_path / "whole", plain_parts)
    process(tmp_path / "mine", plain_parts, die=7)
    half = tmp_path / "mine" / "checkpoints" / ".step-00000007.99-1.tmp"
    shutil.copytree(newest(tmp_path / "mine"), half)
    (half / "manifest.json").unlink()
    process(tmp_path / "mine", plain_parts)
    assert not half.exists()
    assert end_of(tmp_path / "mine") == end_of(tmp_path / "whole")


# --- the log and the checkpoints ---------------------------------------------------------------


def test_a_log_without_checkpoints_is_not_written_over(tmp_path):
    process(tmp_path, plain_parts)
    before = log_of(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(RunError, match="fresh"):
        process(tmp_path, plain_parts)
    assert log_of(tmp_path) == before
    assert process(tmp_path, plain_parts, fresh=True).step == STEPS
    assert log_of(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (lambda content: b"", 0),
        (lambda content: content[:-30], 5),  # the disk lost its end
        (lambda content: content.replace(b'"loss"', b'"the loss"'), 6),
        (lambda content: content.replace(b"}\n", b"}\r\n"), 6),
        (lambda content: content.split(b"\n", 2)[2], 4),
        (lambda content: b"# my notes\n" + content[:-40], 5),
    ],
)
def test_a_log_that_somebody_changed_keeps_its_lines_up_to_the_checkpoint(tmp_path, change, kept):
    process(tmp_path, plain_parts, die=7)
    log = tmp_path / "metrics.jsonl"
    log.write_bytes(change(log.read_bytes()))
    with pytest.warns(CheckpointWarning, match="is not what it was at step 6"):
        process(tmp_path, plain_parts)
    steps = [json.loads(line)["step"] for line in log_of(tmp_path).splitlines()]
    assert steps[-2:] == [7, 8]
    assert len(steps) == len(set(steps))
    assert len(steps) == kept + 2


def test_a_log_that_was_removed_begins_again_where_the_run_goes_on(tmp_path):
    process(tmp_path, plain_parts, die=7)
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.warns(CheckpointWarning, match="has 0 bytes"):
        process(tmp_path, plain_parts)
    assert [json.loads(line)["step"] for line in log_of(tmp_path).splitlines()] == [7, 8]


def test_what_was_logged_after_the_newest_checkpoint_is_cut_and_logged_again(tmp_path):
    process(tmp_path, plain_parts, die=7, every_steps=5)
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 7, "lo')  # half a line of a process that died
    process(tmp_path, plain_parts, every_steps=5)
    assert [json.loads(line)["step"] for line in log_of(tmp_path).splitlines()] == [*range(1, 9)]


class FullLog:
    """metrics.jsonl cannot be written while `full`."""

    def __init__(self, monkeypatch):
        self.full = False
        opened = metrics_log.open_own

        def refusing(*args, **options):
            if self.full:
                raise OSError(28, "No space left on device")
            return opened(*args, **options)

        monkeypatch.setattr(metrics_log, "open_own", refusing)

    def full_in(self, *steps):
        """Parts, some of whose steps meet the full disk."""

        def fill(run):
            self.full = run.step in steps

        def free(run):
            self.full = False

        return plain_parts(before_step=fill, after_step=free)


def test_what_could_not_be_logged_is_there_once_a_checkpoint_is(tmp_path, monkeypatch):
    log = FullLog(monkeypatch)

    with pytest.warns(CheckpointWarning, match="kept in memory"):
        process(tmp_path, lambda: log.full_in(8))
    assert log_of(tmp_path).count(b"\n") == 8


def test_a_full_disk_for_the_log_repeats_and_loses_nothing(tmp_path, monkeypatch):
    log = FullLog(monkeypatch)

    with pytest.warns(CheckpointWarning, match="kept in memory") as seen:
        process(tmp_path / "mine", lambda: log.full_in(3, 4), every_steps=None)
    assert len(seen) == 1
    process(tmp_path / "whole", plain_parts)
    assert log_of(tmp_path / "mine") == log_of(tmp_path / "whole")


# --- what a failing save leaves behind ---------------------------------------------------------


def test_a_failed_save_at_the_end_of_a_loop_still_gives_the_signals_back(tmp_path, disk):
    before = [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)]
    parts = plain_parts()
    run = descend.Run(tmp_path, loader=loader(), on_save_error="raise", **parts.objects)
    batches = run.epochs()
    epoch = next(batches)
    next(epoch)
    run.save()
    disk.full = True
    next(epoch)
    try:
        with pytest.raises(CheckpointError):
            batches.close()
        assert [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)] == before
    finally:
        run._signals.remove()


def test_a_checkpoint_says_where_the_run_stood(tmp_path):
    process(tmp_path, plain_parts, die=7)
    manifest = json.loads((newest(tmp_path) / "manifest.json").read_text())
    about = manifest["about"]
    assert about.pop("metrics").keys() == {"loss"}
    assert about == {"step": 6, "epochs done": 1, "batches done": 2, "batches per epoch": 4,
                     "epochs": 2, "over": False,
                     "objects": {"model": "Linear", "optimizer": "SGD"}}  # fmt: skip


def test_p42_nothing_in_the_folder_is_a_pickle(tmp_path):
    process(tmp_path, plain_parts)
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.stat().st_size:
            assert path.suffix in (".json", ".jsonl", ".safetensors"), path
            assert not path.read_bytes().startswith((b"\x80", b"PK")), path


def test_objects_of_the_users_own_are_saved(tmp_path):
    class Total:
        def __init__(self):
            self.total, self.seen = 0.0, {}

        def state_dict(self):
            return {"total": self.total, "seen": self.seen}

        def load_state_dict(self, state):
            self.total, self.seen = state["total"], state["seen"]

    def make():
        total = Total()

        def add(run):
            total.total += float(torch.rand(1))
            total.seen[run.step] = (run.epoch, float("inf"))

        parts = plain_parts(after_step=add)
        parts.objects["total"] = total
        parts.after = lambda run: run.log(total=total.total, count=len(total.seen))
        return parts

    process(tmp_path / "whole", make)
    for step in (2, 3, 5, 6, 8):
        process(tmp_path / "mine", make, die=step)
    process(tmp_path / "mine", make)
    assert end_of(tmp_path / "mine") == end_of(tmp_path / "whole")
    assert os.listdir(tmp_path / "mine") != []
