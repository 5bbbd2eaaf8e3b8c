"""AdamW on a task of the suite's kind: defaults beside larger learning rates."""

import re

import pytest

from suite_tasks import measured

TASK = """
import torch, descend

def task() -> descend.Task:
    x = torch.arange(60.0).remainder(7).reshape(-1, 2)
    y = x.sum(1, keepdim=True)
    return descend.Task(
        model=torch.nn.Linear(2, 1), train=(x[:20], y[:20]), validation=(x[20:], y[20:]),
        loss=torch.nn.functional.{loss}, batch_size=5, epochs=10,
    )
"""


def test_a_task_is_trained_in_all_ways(tmp_path):
    path = tmp_path / "small.py"
    path.write_text(TASK.format(loss="mse_loss"))
    opening, defaults, *tuned = measured(path, [1, 2], 1)
    assert opening.startswith("small: 3 parameters, 40 steps, ")
    default = float(re.search(r"constant  ([\d.]+) \+- [\d.]+$", defaults)[1])
    for line in tuned:
        full, half = (float(one) for one in re.findall(r"of the steps ([\d.]+) \+-", line))
        assert full < half
    assert len(tuned) == 4
    assert full < default


def test_a_task_that_fails_is_told(tmp_path):
    path = tmp_path / "small.py"
    path.write_text(TASK.format(loss="nll_loss"))
    with pytest.raises(RuntimeError, match=r"small: .*the loss, given"):
        [*measured(path, [1], 1)]
