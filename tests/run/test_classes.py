"""A run that goes on with objects of other classes says which: its bits differ from there on."""

import functools
import warnings

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import descend
from descend.errors import ResumeWarning
from descend.run.classes import classes, swapped
from run.small import X, Y, loader, surroundings  # noqa: F401 - a fixture


class OwnLoader(DataLoader):
    pass


class OwnData(TensorDataset):
    pass


class Wrapper(torch.optim.Optimizer):
    """As Accelerate wraps an optimizer."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    param_groups = property(lambda self: self.optimizer.param_groups)
    state = property(lambda self: self.optimizer.state, lambda self, state: None)

    def state_dict(self):
        return self.optimizer.state_dict()

    def load_state_dict(self, state):
        self.optimizer.load_state_dict(state)


def collate(samples):
    return torch.utils.data.default_collate(samples)


def parts(  # what a script builds
    activation=torch.nn.ReLU,
    optimizer=descend.AdamW,
    schedule=torch.optim.lr_scheduler.StepLR,
    loading=DataLoader,
    data=TensorDataset,
    wrap=lambda optimizer: optimizer,
    how=None,
):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), activation(), torch.nn.Linear(4, 1))
    steps = wrap(optimizer(model.parameters(), lr=0.01))
    inner = getattr(steps, "optimizer", steps)
    schedules = torch.optim.lr_scheduler.ChainedScheduler([schedule(inner, 3)], inner)
    batches = loading(data(X, Y), 4, collate_fn=how)
    return {"loader": batches, "model": model, "optimizer": steps, "schedule": schedules}


def train(folder, until, **others):
    run = descend.Run(folder, epochs=2, every_steps=1, **parts(**others))
    for _ in run:
        if run.step == until:
            return run
    return run


SWAPS = {
    "optimizer": ({"optimizer": torch.optim.AdamW}, "optimizer", "descend.AdamW", "torch.AdamW"),
    "a module": ({"activation": torch.nn.Tanh}, "model.1", "torch.ReLU", "torch.Tanh"),
    "a scheduler in another": (
        {"schedule": descend.lr_scheduler.StepLR}, "schedule.0", "torch.StepLR", "descend.StepLR"),
    "a loader": ({"loading": OwnLoader}, "loader", "torch.DataLoader", "run.OwnLoader"),
    "a dataset": ({"data": OwnData}, "loader.dataset", "torch.TensorDataset", "run.OwnData"),
    "what collates": (
        {"how": collate}, "loader.collate_fn", "torch.default_collate", "run.collate"),
}  # fmt: skip


@pytest.mark.parametrize("name", SWAPS)
@pytest.mark.parametrize("reverse", [False, True])
def test_a_swapped_class_is_told(tmp_path, name, reverse):
    other, where, *names = SWAPS[name]
    first, second = ({}, other) if not reverse else (other, {})
    was, now = names[::-1] if reverse else names
    train(tmp_path, 3, **first)
    words = f"from step 2, but not as it was saved: {where} {was} there, {now} here: from here on"
    with pytest.warns(ResumeWarning, match=words) as told:
        run = train(tmp_path, None, **second)
    assert len(told) == 1
    assert run.is_over


def test_the_optimizer_in_a_wrapper_counts(tmp_path):
    train(tmp_path, 3, wrap=Wrapper)
    words = "optimizer.optimizer descend.AdamW there, torch.AdamW here"
    with pytest.warns(ResumeWarning, match=words):
        train(tmp_path, None, wrap=Wrapper, optimizer=torch.optim.AdamW)


def test_the_same_classes_are_no_reason_to_warn(tmp_path):
    for until in (3, 5, None):
        train(tmp_path, until)


def test_a_lazy_module_is_what_it_becomes():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Lazy modules are a new feature")
        model = torch.nn.LazyLinear(1)
        before = classes({"model": model}, loader())
        model(X)
        assert swapped(before, classes({"model": model}, loader())) == []


def test_a_checkpoint_that_does_not_know_its_classes_is_gone_on_from(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("descend.run.run.classes", lambda *given: {})
        train(tmp_path, 3)
    train(tmp_path, None, optimizer=torch.optim.AdamW)


def test_what_has_moved_from_the_script_to_a_module_is_the_same():
    saved = {"model": {"": "__main__.Net", "body": "__main__.Block"}}
    assert swapped(saved, {"model": {"": "nets.Net", "body": "nets.Other"}}) == [
        "model.body __main__.Block there, nets.Other here"
    ]
    other = swapped({"model": {"": "a.Net"}}, {"model": {"": "b.Net"}})
    assert other == ["model a.Net there, b.Net here"]
    assert swapped(saved, {"net": {"": "nets.Net"}}) == []  # other names are another matter
    many = {"model": {str(i): "a.B" for i in range(9)}}
    assert swapped(many, {"model": {str(i): "a.C" for i in range(9)}})[5:] == ["4 more classes"]


def test_a_function_is_told_by_its_name_and_a_partial_by_its_class():
    named = {"collate_fn": functools.partial(collate)}
    assert classes({}, loader(**named))["loader"]["collate_fn"] == "functools.partial"
    assert classes({}, loader(collate_fn=collate))["loader"]["collate_fn"].endswith(".collate")
