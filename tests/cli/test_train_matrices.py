"""`descend train --optimizer muon`: hidden matrices by it, all else by AdamW."""

import pytest
import torch

from cli.commands import invoke
from descend.checkpoint import load
from descend.search.trial import Trial, made_ready, train_trial

TASK = """
import torch, descend
torch.set_num_threads(1)
x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
y = (x.sum(1) > 0).long()
def task(width: int = 8) -> descend.Task:
    return descend.Task(
        model=torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.ReLU(),
                                  torch.nn.Linear(width, width), torch.nn.Linear(width, 2)),
        train=(x[:30], y[:30]), validation=(x[30:], y[30:]),
        loss=torch.nn.functional.cross_entropy, batch_size=10,
    )
"""


@pytest.fixture(autouse=True)
def task_file(own_folder):
    (own_folder / "t.py").write_text(TASK)


def test_matrices_and_others_are_told_and_trained_as_in_a_trial(own_folder):
    options = ["t.py", "--optimizer", "muon", "--steps", "5", "--threads", "1"]
    shown = invoke("train", *options, "--out", "a").stdout
    assert "2 hidden matrices by muon, the other 4 of 6 by AdamW" in shown
    train_trial(Trial("t.py", {}, "muon", None, {}, {}, 5, 0), own_folder / "b")
    for name, value in load("a")["model"].items():
        assert torch.equal(value, load("b")["model"][name])
    ready = made_ready(Trial("t.py", {}, "muon", None, {}, {}, 5, 0))
    groups = ready.optimizer.param_groups
    assert [(len(one["params"]), bool(one.get("adamw"))) for one in groups] == [
        (2, False),
        (4, True),
    ]


def test_a_switch_that_is_set_is_for_all():
    shown = invoke("train", "t.py", "--optimizer", "muon", "--set", "adamw=none", "--steps", "1")
    assert "hidden" not in shown.stdout
    ready = made_ready(Trial("t.py", {}, "muon", None, {"adamw": None}, {}, 1, 0))
    assert len(ready.optimizer.param_groups) == 1


def test_other_optimizers_have_one_group():
    assert len(made_ready(Trial("t.py", {}, "sgd", 0.1, {}, {}, 1, 0)).optimizer.param_groups) == 1


def test_find_lr_has_the_groups_too(monkeypatch):
    from descend import Muon

    seen = []
    made = Muon.__init__

    def noted(self, params, *args, **kwargs):
        params = [*params]
        seen.append([len(group["params"]) for group in params])
        made(self, params, *args, **kwargs)

    monkeypatch.setattr(Muon, "__init__", noted)
    invoke("find-lr", "t.py", "--optimizer", "muon", "--steps", "20")
    assert seen
    assert all(sizes == [2, 4] for sizes in seen)
