"""metrics.jsonl: what a line may hold, what becomes of lines on a full disk, and of cut files."""

import enum
import json
import math
import os
import re
import stat
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import descend
from descend.errors import CheckpointWarning, OutputError, RunError
from descend.run import metrics_log
from descend.run.metrics_log import MetricsLog, json_values
from run.small import loader, surroundings  # noqa: F401 - a fixture


def lines(path):
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]


def steps(path):
    return [line["step"] for line in lines(path)]


# --- values ------------------------------------------------------------------------------------


class Kind(enum.IntEnum):
    ONE = 1


VALUES = [
    (1.5, 1.5),
    (-0.0, -0.0),
    (5e-324, 5e-324),
    (0.1, 0.1),
    (3, 3),
    (2**80, 2**80),
    (True, True),
    (None, None),
    ("wärm\n", "wärm\n"),
    (math.nan, None),
    (math.inf, None),
    (-math.inf, None),
    (torch.tensor(0.5), 0.5),
    (torch.tensor([[2]]), 2),
    (torch.tensor(1.5, dtype=torch.bfloat16), 1.5),
    (torch.tensor(True), True),
    (torch.tensor(math.nan), None),
    (torch.ones(1, requires_grad=True) * 3, 3.0),
    (np.float32(0.1), float(np.float32(0.1))),
    (np.float64(0.1), 0.1),
    (np.float64(math.inf), None),
    (np.int64(7), 7),
    (np.bool_(False), False),
    (np.array([0.25]), 0.25),
    (np.array(4), 4),
    (Kind.ONE, 1),
]


@pytest.mark.parametrize(("value", "logged"), VALUES, ids=[repr(value) for value, _ in VALUES])
def test_a_value_is_logged_exactly_as_plain_json(tmp_path, value, logged):
    log = MetricsLog(tmp_path / "m.jsonl")
    log.write(json_values({"value": value}))
    (line,) = lines(tmp_path / "m.jsonl")
    assert repr(line["value"]) == repr(logged)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_comes_back_bit_for_bit(value):
    assert repr(json.loads(json.dumps(json_values({"x": value})))["x"]) == repr(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.ones(2), r"log: loss must be one number, and has shape \(2,\)"),
        (torch.ones(0), r"has shape \(0,\)"),
        (torch.ones(3, 1), r"has shape \(3, 1\)"),
        (np.ones(2), r"has shape \(2,\)"),
        ([1.0], "must be a number, a string or a boolean, and is a list"),
        ({"a": 1}, "and is a dict"),
        (1j, "and is a complex"),
        (torch.tensor(1j), "and is a complex"),
        (Decimal("1.5"), "and is a Decimal"),
        (b"bytes", "and is a bytes"),
        (len, "and is a builtin_function_or_method"),
    ],
)
def test_what_is_no_number_is_refused_by_its_name_and_nothing_is_logged(tmp_path, value, message):
    run = descend.Run(tmp_path, loader=loader(), every_steps=1)
    for _ in run:
        with pytest.raises(RunError, match=message):
            run.log(fine=1, loss=value)
        break
    assert not (tmp_path / "metrics.jsonl").exists()
    run.save()
    assert descend.checkpoint.load(tmp_path)["run"]["metrics"] == {}


@pytest.mark.parametrize("name", ["step", "epoch"])
def test_the_names_that_each_line_has_are_refused(tmp_path, name):
    run = descend.Run(tmp_path, loader=loader())
    for _ in run:
        with pytest.raises(RunError, match=f"log: {name} stands in each line already"):
            run.log(**{name: 3})
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_line_says_step_and_epoch_first_and_is_there_at_once(tmp_path):
    run = descend.Run(tmp_path, loader=loader(), epochs=2)
    for count, _ in enumerate(run, 1):
        run.log(loss=torch.tensor(0.5), b="x")
        assert (tmp_path / "metrics.jsonl").read_bytes().count(b"\n") == count
    first = (tmp_path / "metrics.jsonl").read_bytes().splitlines()[0]
    assert first == b'{"step": 1, "epoch": 1, "loss": 0.5, "b": "x"}'
    assert [line["epoch"] for line in lines(tmp_path / "metrics.jsonl")] == [1] * 4 + [2] * 4


def test_names_of_all_kinds(tmp_path):
    run = descend.Run(tmp_path, loader=loader())
    for _ in run:
        run.log(**{"loss/train": 1, "Verlust ü": 2, "": 3, "$tensor": "model.weight"})
    assert lines(tmp_path / "metrics.jsonl")[0]["$tensor"] == "model.weight"
    again = descend.Run(tmp_path, loader=loader(), epochs=2)
    list(again)
    assert again.step == 8


# --- a disk that is full -----------------------------------------------------------------------


class Disk:
    """Takes so many bytes more; -1: all."""

    def __init__(self, monkeypatch):
        self.room = -1
        disk, opened = self, metrics_log.open_own

        class File:
            def __init__(self, file):
                self.file = file

            def __enter__(self):
                return self

            def __exit__(self, *error):
                self.file.close()

            def write(self, content):
                if disk.room < 0:
                    return self.file.write(content)
                if disk.room == 0:
                    raise OSError(28, "No space left on device")
                content, disk.room = content[: disk.room], max(0, disk.room - len(content))
                return self.file.write(content)

            def __getattr__(self, name):
                return getattr(self.file, name)

        monkeypatch.setattr(metrics_log, "open_own", lambda *a, **k: File(opened(*a, **k)))


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


@pytest.mark.parametrize("room", [0, 1, 7, 12])
def test_lines_wait_while_the_disk_is_full_and_come_in_their_order(tmp_path, disk, room):
    path = tmp_path / "m.jsonl"
    log = MetricsLog(path)
    log.write({"step": 1})
    disk.room = room
    with pytest.warns(CheckpointWarning, match=r"No space left|bytes were written") as seen:
        [log.write({"step": step}) for step in (2, 3, 4)]
    assert len(seen) == 1  # once, and not for each line
    assert path.read_bytes() == b'{"step": 1}\n' + (b'{"step": 2}\n' if room == 12 else b"")
    assert log.size == path.stat().st_size
    disk.room = -1
    log.write({"step": 5})
    assert steps(path) == [1, 2, 3, 4, 5]
    assert log.size == path.stat().st_size
    disk.room = 0
    with pytest.warns(CheckpointWarning, match="kept in memory"):  # anew
        log.write({"step": 6})


def test_a_folder_that_is_gone_is_waited_for_too(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    log = MetricsLog(folder / "m.jsonl")
    log.write({"step": 1})
    os.rename(folder, tmp_path / "elsewhere")
    with pytest.warns(CheckpointWarning, match="cannot be written"):
        log.write({"step": 2})
    os.rename(tmp_path / "elsewhere", folder)
    log.write({"step": 3})
    assert steps(folder / "m.jsonl") == [1, 2, 3]


# --- cutting -----------------------------------------------------------------------------------


def written(path, count):
    log = MetricsLog(path)
    sizes = [0]
    for step in range(1, count + 1):
        log.write({"step": step, "loss": step / 3})
        sizes.append(log.size)
    return sizes


@pytest.mark.parametrize("step", range(5))
def test_it_is_cut_to_any_earlier_size_and_goes_on_from_there(tmp_path, step):
    path = tmp_path / "m.jsonl"
    size = written(path, 4)[step]
    before = path.read_bytes()
    log = MetricsLog(path)
    log.cut(size, step)
    assert path.read_bytes() == before[:size]
    assert log.size == size
    log.write({"step": step + 1})
    assert steps(path) == [*range(1, step + 2)]


@pytest.mark.parametrize("tail", [b"{", b'{"step": 5', b"\x00\x00\x00", b"\n\n", b'{"step": 3}\n'])
def test_whatever_came_after_is_forgotten(tmp_path, tail):
    path = tmp_path / "m.jsonl"
    size = written(path, 4)[4]
    with path.open("ab") as file:
        file.write(tail)
    MetricsLog(path).cut(size, 4)
    assert steps(path) == [1, 2, 3, 4]


@pytest.mark.parametrize("missing", [1, 5, 40, 120])
def test_a_file_that_lost_its_end_keeps_its_whole_lines(tmp_path, missing):
    path = tmp_path / "m.jsonl"
    size = written(path, 4)[4]
    content = path.read_bytes()[:-missing]
    path.write_bytes(content)
    log = MetricsLog(path)
    with pytest.warns(CheckpointWarning, match=f"has {len(content)} bytes, and had {size}"):
        log.cut(size, 4)
    assert steps(path) == [*range(1, content.count(b"\n") + 1)]
    log.write({"step": 5})
    assert steps(path)[-1] == 5


def test_a_file_that_somebody_wrote_into_keeps_the_lines_of_the_run(tmp_path):
    path = tmp_path / "m.jsonl"
    size = written(path, 4)[2]
    content = path.read_bytes()
    path.write_bytes(b"notes\n[1]\n{}\n" + b'{"step": "x"}\n\xff\n' + content)
    with pytest.warns(CheckpointWarning, match="its lines up to that step are kept"):
        MetricsLog(path).cut(size, 2)
    assert steps(path) == [1, 2]


def test_no_file_and_nothing_logged_is_nothing_to_cut(tmp_path):
    MetricsLog(tmp_path / "m.jsonl").cut(0, 0)
    assert not (tmp_path / "m.jsonl").exists()


def test_a_repaired_file_is_never_half_there(tmp_path, monkeypatch):
    """It dies in the writing: what was there before is there still, or all of the new."""
    path = tmp_path / "m.jsonl"
    size = written(path, 4)[4]
    path.write_bytes(b"# mine\n" + path.read_bytes()[:-3])
    before = path.read_bytes()

    def dying(line, step):
        if line.startswith(b'{"step": 3'):
            raise KeyboardInterrupt
        return True

    monkeypatch.setattr(metrics_log, "_is_until", dying)
    with (
        pytest.warns(CheckpointWarning, match=re.escape(str(path))),
        pytest.raises(KeyboardInterrupt),
    ):
        MetricsLog(path).cut(size, 4)
    monkeypatch.undo()
    assert path.read_bytes() == before


# --- what is no file of the run's own ----------------------------------------------------------


@pytest.fixture
def foreign(tmp_path):
    """A file of somebody else's, which must stay what it is."""
    file = tmp_path / "foreign.txt"
    file.write_text("mine\n")
    yield file
    assert file.read_text() == "mine\n"


PLACES = ["metrics.jsonl", ".lock"]


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("hard", [False, True], ids=["symbolic", "hard"])
def test_a_link_to_another_file_is_refused(tmp_path, foreign, name, hard):
    folder = tmp_path / "run"
    folder.mkdir()
    (os.link if hard else os.symlink)(foreign, folder / name)
    what = "has a second name" if hard else "is a symbolic link, and no regular file"
    with pytest.raises(OutputError, match=f"cannot be used for a run: {name} {what}"):
        descend.Run(folder, loader=loader())
    assert (folder / name).exists()


@pytest.mark.parametrize("name", PLACES)
def test_a_link_to_nothing_makes_no_file_there(tmp_path, name):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / name).symlink_to(tmp_path / "nothing")
    with pytest.raises(OutputError, match="is a symbolic link"):
        descend.Run(folder, loader=loader())
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("what", ["a named pipe", "a folder", "a socket"])
def test_what_is_no_file_is_refused(tmp_path, name, what):
    folder = tmp_path / "run"
    folder.mkdir()
    if what == "a named pipe":
        os.mkfifo(folder / name)
    elif what == "a folder":
        (folder / name).mkdir()
    else:
        os.mknod(folder / name, stat.S_IFSOCK | 0o600)
    with pytest.raises(OutputError, match=f"{name} is {what}, and no regular file"):
        descend.Run(folder, loader=loader())


def test_a_link_that_comes_later_is_not_written_to(tmp_path, foreign):
    run = descend.Run(tmp_path / "run", loader=loader(), epochs=1)
    path = tmp_path / "run" / "metrics.jsonl"
    for _ in run:
        if run.step == 2:
            path.unlink()
            path.symlink_to(foreign)
            with pytest.warns(CheckpointWarning, match="is a symbolic link, and no regular file"):
                run.log(loss=1)
            path.unlink()
        else:
            run.log(loss=1)
    assert steps(path) == [2, 3, 4]


def test_a_run_that_goes_on_cuts_no_other_file(tmp_path, foreign):
    for batch in (run := descend.Run(tmp_path / "run", loader=loader(), every_steps=1)):
        del batch
        run.log(loss=1)
    path = tmp_path / "run" / "metrics.jsonl"
    path.unlink()
    path.symlink_to(foreign)
    with pytest.raises(OutputError, match="is a symbolic link"):
        descend.Run(tmp_path / "run", loader=loader(), epochs=2)
    again = descend.Run(tmp_path / "run", loader=loader(), epochs=2, fresh=True)
    list(again)
    assert not path.is_symlink()


def test_a_repair_overwrites_no_file_that_has_its_name_beside(tmp_path, foreign):
    path = tmp_path / "m.jsonl"
    size = written(path, 4)[4]
    path.write_bytes(b"# mine\n" + path.read_bytes()[:-3])
    (tmp_path / ".m.jsonl.tmp").symlink_to(foreign)
    with pytest.warns(CheckpointWarning, match="its lines up to that step are kept"):
        MetricsLog(path).cut(size, 4)
    assert steps(path) == [1, 2, 3]


def test_a_large_hole_in_the_log_takes_no_memory(tmp_path, monkeypatch):
    path = tmp_path / "m.jsonl"
    size = written(path, 4)[4]
    monkeypatch.setattr(metrics_log, "LONGEST", 100)
    os.truncate(path, size + 100_000)
    MetricsLog(path).cut(size, 4)
    assert steps(path) == [1, 2, 3, 4]
    content = path.read_bytes()
    path.write_bytes(bytes(1000) + content)
    with pytest.warns(CheckpointWarning, match="its lines up to that step are kept"):
        MetricsLog(path).cut(size, 4)
    assert steps(path)[-3:] == [2, 3, 4]  # the first is in one line with the hole


def test_the_log_is_on_the_disk_before_the_checkpoint_that_counts_on_it(tmp_path, monkeypatch):
    """A machine that dies after the save must find the lines that the checkpoint was saved with."""
    fsync, rename, done = os.fsync, os.rename, []

    def noted_fsync(descriptor):
        status = os.fstat(descriptor)
        done.append(("fsync", status.st_ino, status.st_size))
        fsync(descriptor)

    def noted_rename(source, target):
        done.append(("rename", Path(target).name))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    run = descend.Run(tmp_path, loader=loader(), every_steps=1, keep=99, background=False)
    path, sizes = tmp_path / "metrics.jsonl", []
    for _ in run:
        run.log(loss=0.5)
        sizes.append(path.stat().st_size)
    assert len(sizes) == 4
    for step, size in enumerate(sizes, 1):
        saved = done.index(("rename", f"step-{step:08d}"))
        before = done.index(("rename", f"step-{step - 1:08d}"))
        assert ("fsync", path.stat().st_ino, size) in done[before:saved]


@pytest.mark.parametrize("odd", [b"[" * 100_000, b'{"step": Infinity}', b'{"step": []}', b"\xff"])
def test_a_line_without_a_step_is_none_of_the_log(tmp_path, odd):
    (tmp_path / "log").write_bytes(odd + b"\n")
    assert not MetricsLog(tmp_path / "log").holds_only(0)
