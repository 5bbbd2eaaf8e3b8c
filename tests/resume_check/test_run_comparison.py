"""Two runs beside each other: what counts as a difference, and what is left out."""

import random

import pytest
import torch

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
