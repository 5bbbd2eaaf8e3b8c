"""Two runs beside each other: what counts as a difference, and what is left out."""

import random
from pathlib import Path

import pytest
import torch

from descend.resume_check.logged_files import logged_files
from descend.resume_check.run_comparison import LeftOut, Outcome, compare, log_lines, varying


def outcome(lines, **state):
    return Outcome(state, lines)


def compared(a, b, ignore=()):
    left_out = varying(a, b, ignore)
    return left_out.names(), compare(a, b, left_out)


def run_state(size=10, **metrics):
    return {"step": 2, "log": size, "metrics": metrics, "random": {"torch": torch.zeros(3)}}


def test_times_that_differ_between_whole_runs_are_left_out_wherever_they_are():
    def one(seconds):
        return outcome(
            [{"step": n, "epoch": 1, "loss": 0.5, "seconds": seconds + n} for n in (1, 2)],
            model={"w": torch.ones(2)},
            progress={"epochs": [{"loss": 0.5, "seconds": seconds}, {"seconds": 4.0}]},
            run=run_state(len(str(seconds)), loss=0.5, seconds=seconds),
        )

    names, found = compared(one(0.25), one(0.375))
    assert names == ("seconds", "progress.epochs.*.seconds")
    assert found.equal
    assert (found.tensors, found.values) == (2, 3)
    assert found.keys == ("step", "epoch", "loss")
    # what was left out once is left out of the run with kills too, where more of it may differ
    left_out = varying(one(0.25), one(0.375), ())
    killed = one(0.5)
    killed.state["progress"]["epochs"][1]["seconds"] = 5.0
    assert compare(one(0.25), killed, left_out).equal


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda one: one.state["model"].update(w=torch.zeros(2)), "model.w"),
        (lambda one: one.state["model"].update(count=4), "model.count"),
        (lambda one: one.state["run"].update(step=3), "run.step"),
        (lambda one: one.state["run"]["random"].update(torch=torch.ones(3)), "run.random.torch"),
        (lambda one: one.state.pop("progress"), "progress"),
        (lambda one: one.state["progress"].update(more=1), "progress.more"),
    ],
)
def test_nothing_of_the_training_is_left_out(change, name):
    def one():
        return outcome(
            [{"step": 1, "epoch": 1, "loss": 0.5, "seconds": random.random()}],
            model={"w": torch.ones(2), "count": 3},
            progress={"best": 0.5},
            run=run_state(),
        )

    other = one()
    change(other)
    _, found = compared(one(), other)
    assert [one.name for one in found.state] == [name]


def test_keys_to_ignore_are_ignored_although_the_whole_runs_agree():
    a = outcome([{"step": 1, "elapsed": 3}], run=run_state(10, elapsed=3))
    b = outcome([{"step": 1, "elapsed": 12}], run=run_state(11, elapsed=12))
    nothing = varying(a, a, ())
    assert [one.name for one in compare(a, b, nothing).state] == [
        "run.log",
        "run.metrics.elapsed",
    ]
    ignored = varying(a, a, ["elapsed"])
    assert compare(a, b, ignored).equal


LINES = [{"step": n, "epoch": 1, "loss": n / 8, "lr": 0.1} for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (LINES, None),
        ([*LINES[:1], {**LINES[1], "lr": 0.2}, {}], (2, 2, ("lr",))),
        ([{**LINES[0], "loss": 1}, *LINES[1:]], (1, 1, ("loss",))),
        (LINES[:2], (3, 3, ("step", "epoch", "loss", "lr"))),
        ([*LINES, LINES[2]], (4, 3, ("step", "epoch", "loss", "lr"))),
        ([{**LINES[0], "more": None}, *LINES[1:]], (1, 1, ("more",))),
    ],
)
def test_the_first_difference_of_two_logs_is_found(other, expected):
    found = compare(outcome(LINES), outcome(other), LeftOut()).log
    assert (found and (found.line, found.step, found.keys)) == expected


def test_a_whole_number_and_a_fraction_of_one_value_differ():
    a, b = (outcome([{"step": 1, "n": n}]) for n in (1, 1.0))
    assert compare(a, b, LeftOut()).log.keys == ("n",)


def test_a_log_is_read_without_a_line_that_was_cut_short(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\nby hand \xff\n[2]\n{"step": 2')
    found = log_lines(tmp_path)
    assert found == [{"step": 1}, {"": "by hand \ufffd"}, {"": "[2]"}]


# --- a Trainer's run -------------------------------------------------------------------------


def trainer_state(seconds, average=1.0, left=5.0, wait=2):
    callbacks = {
        "EMA": {"average": torch.tensor([average])},
        "Timer": {"left": left},
        "EarlyStopping": {"wait": wait},
    }
    return {"seconds": seconds, "step": {"taken": 3}, "callbacks": callbacks}


def test_times_among_the_states_of_a_trainers_callbacks_are_left_out():
    one, other = (outcome([], trainer=trainer_state(n, left=9 - n)) for n in (1.0, 2.0))
    names, found = compared(one, other)
    assert names == ("trainer.callbacks.Timer.left", "trainer.seconds")
    assert found.equal
    left_out = varying(one, other, ())
    for change, name in (
        ({"average": 2.0}, "trainer.callbacks.EMA.average"),
        ({"wait": 3}, "trainer.callbacks.EarlyStopping.wait"),
    ):
        killed = outcome([], trainer=trainer_state(4.0, **change))
        assert [one.name for one in compare(one, killed, left_out).state] == [name]


def test_a_loggers_state_is_left_out_where_it_has_names_of_its_own():
    def one(name, mine=1):
        loggers = {"TensorBoardLogger": {"files": {f"events.{name}.vm": 9}}, "Mine": {"at": mine}}
        return outcome([], trainer={"epochs": 2, "loggers": loggers})

    names, found = compared(one(11), one(12))
    assert names == ("trainer.loggers.TensorBoardLogger",)
    assert (found.equal, found.values) == (True, 2)
    left_out = varying(one(11), one(12), ())
    assert compare(one(11), one(13), left_out).equal
    assert not compare(one(11), one(13, mine=2), left_out).equal
    assert compared(one(11), one(11))[0] == ()


def test_logs_of_loggers_are_compared_like_the_runs_own():
    def one(rows, values=(), **more):
        return Outcome(
            {}, [], {"metrics.csv": rows, "tensorboard": [dict(value) for value in values], **more}
        )

    rows = [{"step": "1", "loss": "0.5", "time": "3.1"}, {"step": "2", "loss": "0.25", "time": "4"}]
    assert compare(one(rows), one(rows), LeftOut()).others == {"metrics.csv": 2, "tensorboard": 0}
    later = [{**row, "time": "9"} for row in rows]
    names, found = compared(one(rows), one(later))
    assert (names, found.equal) == (("time",), True)
    values = [{"step": 1, "tag": "loss", "loss": 0.5}]
    for a, b, file, line, keys in (
        (one(rows), one(rows[:1]), "metrics.csv", 2, ("step", "loss", "time")),
        (one(rows), one([rows[0], {**rows[1], "loss": "0"}]), "metrics.csv", 2, ("loss",)),
        (one(rows, values), one(rows, values * 2), "tensorboard", 2, ("step", "tag", "loss")),
        (one(rows, values), one(rows, [{**values[0], "step": 3}]), "tensorboard", 1, ("step",)),
        (one(rows), one(rows, other=[{"a": 1}]), "other", 1, ("a",)),
    ):
        log = compare(a, b, LeftOut()).log
        assert (log.file, log.line, log.keys) == (file, line, keys)


def test_rows_and_events_are_read_from_the_folder_without_their_times(tmp_path):
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    (tmp_path / "metrics.csv").write_text("step,loss\n1,0.5\n2,\n")
    for part in range(2):
        writer = SummaryWriter(tmp_path / "tensorboard", filename_suffix=f".{part}")
        writer.add_scalar("loss", 0.5 + part, 1 + part)
        writer.add_text("hparams", "lr", 0)
        writer.close()
    path = sorted((tmp_path / "tensorboard").iterdir())[1]
    path.write_bytes(path.read_bytes() + b"\x40" + bytes(15))  # what a killed process began
    found = logged_files(tmp_path)
    assert found["metrics.csv"] == [{"step": "1", "loss": "0.5"}, {"step": "2", "loss": ""}]
    events = found["tensorboard"]
    assert [(one["step"], one["tag"]) for one in events] == [
        (1, "loss"), (0, "hparams/text_summary"), (2, "loss"), (0, "hparams/text_summary"),
    ]  # fmt: skip
    assert [one["loss"] for one in events if "loss" in one] == [0.5, 1.5]
    assert logged_files(Path(tmp_path / "nothing")) == {}
