"""Each scheduler beside torch's: values, signatures, classes, states."""

import copy
import inspect
import itertools
import random

import numpy as np
import pytest
import torch
from mpmath import mpf
from torch.nn import Parameter

from descend import lr_scheduler
from lr_scheduler.scheduler_cases import (
    CASES,
    END,
    LRS,
    MAKERS,
    MODULES,
    PURE,
    STEPS,
    Case,
    advance,
    closed_sequence,
    every,
    optimizer_of,
    sequence,
    values_of,
)
from scheduler_table import KEYS, NEAR, Row, row, truth

TORCH = MODULES["torch"]


every_case = every(CASES)
RIGHT = [case for case in CASES if case.wrong.get("stepped", END) is END]  # torch is, at first


def curve(case: Case, module: str, maker: str, groups: int, steps: int) -> np.ndarray:
    return sequence(case.build(MODULES[module], optimizer_of(MAKERS[maker], groups)), steps)


def assert_torchs(found: Row) -> None:
    """Each value is torch's, or torch is wrong there and it is right; the table says where."""
    for mode, difference in found.modes.items():
        where = f"{found.case}, {found.groups} groups, {mode}: {difference}"
        assert difference.fine, where
        if difference.torch_is_wrong:
            assert mode in found.case.wrong, f"{where}: the table should say why torch is wrong"
    assert not found.missed


@every_case
def test_c1_one_group_has_torchs_values(case):
    assert_torchs(row(case, 1, steps=1500))


@pytest.mark.parametrize("maker", MAKERS)
@every_case
def test_c1_three_groups_of_any_optimizer_have_torchs_values(case, maker):
    assert_torchs(row(case, 3, maker=maker, steps=150))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("maker", "groups"), [("torch.SGD", 1), ("torch.SGD", 3), ("descend.AdamW", 3)]
)
@every_case
def test_c1_values_are_torchs_over_10_000_steps(case, maker, groups):
    found = row(case, groups, maker=maker)
    assert_torchs(found)
    wrong = {mode for mode, difference in found.modes.items() if difference.torch_is_wrong}
    assert wrong == set(case.wrong) or maker != "torch.SGD"  # whose momentum is not a cycle's


@every(PURE)
def test_c1_values_are_those_of_the_formula(case):
    """Apart from torch, at random steps and at all that happens."""
    scheduler = case.build(lr_scheduler, optimizer_of(groups=3))
    first = values_of(scheduler.optimizer)
    steps = {0, 1, STEPS - 1, *random.Random(0).sample(range(STEPS), 60)}
    steps |= {turn + by for turn in case.turns for by in (-1, 0, 1)}
    for step in steps:
        scheduler.seek(step)
        for group, values in enumerate(values_of(scheduler.optimizer)):
            for key, value, start in zip(KEYS, values, first[group], strict=True):
                right = truth(case, group, key, step, start)
                # Near an end a difference of two large numbers is left: that is theirs.
                size = abs(right) + mpf(LRS[group]) / 1000
                assert abs(mpf(value) - right) <= NEAR * size, (step, key, group)


@every(PURE)
def test_seek_gives_exactly_the_values_of_stepping(case):
    stepped = curve(case, "descend", "descend.SGD", 2, 1000)
    scheduler = case.build(lr_scheduler, optimizer_of(MAKERS["descend.SGD"], 2))
    places = random.Random(1).sample(range(1000), 60)
    turns = [turn for turn in case.turns if turn < 1000]
    for step in [*places, *range(40, -1, -1), *turns[::-1]]:
        scheduler.seek(step)
        assert values_of(scheduler.optimizer) == [tuple(group) for group in stepped[step]], step
        assert scheduler.last_epoch == step
        if step < 999:
            advance(scheduler, step)
            assert values_of(scheduler.optimizer) == [tuple(group) for group in stepped[step + 1]]


@every(PURE)
def test_preview_is_what_comes_and_touches_nothing(case):
    scheduler = case.build(lr_scheduler, optimizer_of(MAKERS["torch.SGD"], 2))
    before = values_of(scheduler.optimizer), copy.deepcopy(scheduler.state_dict())
    shown = scheduler.preview(120)
    assert (values_of(scheduler.optimizer), scheduler.state_dict()) == before
    stepped = sequence(scheduler, 120)
    assert shown["lr"] == stepped[:, :, 0].tolist()
    if "momentum" in shown:
        assert shown["momentum"] == stepped[:, :, 1].tolist()


def classes():
    return [name for name in TORCH.__all__ if inspect.isclass(getattr(TORCH, name))]


@pytest.mark.parametrize("name", classes())
def test_signatures_and_defaults_are_torchs(name):
    ours, theirs = getattr(lr_scheduler, name), getattr(TORCH, name)
    mine, other = inspect.signature(ours).parameters, inspect.signature(theirs).parameters
    more = ["last_epoch"] if name == "ReduceLROnPlateau" else []  # some give it to all
    assert [(p.name, p.kind, p.default) for p in mine.values() if p.name not in more] == [
        (p.name, p.kind, p.default) for p in other.values()
    ]
    for method in ("step", "state_dict", "load_state_dict", "get_lr", "get_last_lr"):
        mine = list(inspect.signature(getattr(ours, method)).parameters)
        other = list(inspect.signature(getattr(theirs, method)).parameters)
        assert mine[: len(other)] == other or method == "step", method


@every_case
def test_all_are_instances_of_torchs_classes(case):
    made = case.build(lr_scheduler, optimizer_of(groups=2))
    assert isinstance(made, TORCH.LRScheduler)
    kind = type(case.build(TORCH, optimizer_of(groups=2)))
    assert kind.__name__ == type(made).__name__
    assert type(made).__module__.startswith("descend.")
    assert isinstance(made, TORCH.ReduceLROnPlateau) == (kind is TORCH.ReduceLROnPlateau)


@every_case
def test_attributes_are_torchs(case):
    """Those that programs read: what is there, and what it says."""
    schedulers = {}
    for module in MODULES:
        if "raises" in case.wrong.get("stepped", ""):
            return
        schedulers[module] = case.build(MODULES[module], optimizer_of(groups=2))
        for step in range(1, 8):
            advance(schedulers[module], step)
    ours, theirs = schedulers["descend"], schedulers["torch"]
    assert ours.get_last_lr() == pytest.approx([lr for lr, _ in values_of(ours.optimizer)])
    for name in ("last_epoch", "base_lrs", "T_cur", "T_i", "best", "num_bad_epochs", "min_lrs"):
        if hasattr(theirs, name) and "Sequential" not in type(theirs).__name__:
            assert getattr(ours, name) == pytest.approx(getattr(theirs, name)), name
    public = {name for name in vars(theirs) if not name.startswith("_")}
    assert {name for name in public if not hasattr(ours, name)} == set()


# States.


def pair(case: Case, module: str, scale: float = 1.0):
    optimizer = optimizer_of(MAKERS["torch.SGD"], 2, scale)
    return optimizer, case.build(MODULES[module], optimizer)


@every(RIGHT)
def test_torchs_state_goes_on_in_ours(case):
    for at, order in itertools.product((0, 1, 23), ("BOS", "BSO", "OBS")):
        source, theirs = pair(case, "torch")
        for step in range(1, at + 1):
            advance(theirs, step)
        saved, state = copy.deepcopy((source.state_dict(), theirs.state_dict()))
        rest = sequence(theirs, at + 60, at)
        optimizer = optimizer_of(MAKERS["torch.SGD"], 2, 3.0)
        for what in order:
            if what == "B":
                ours = case.build(lr_scheduler, optimizer)
            elif what == "O":
                optimizer.load_state_dict(saved)
            else:
                ours.load_state_dict(state)
        seen = sequence(ours, at + len(rest), at)
        np.testing.assert_allclose(seen, rest, rtol=1e-11, atol=1e-17, err_msg=f"{at} {order}")


def test_torchs_state_of_an_lr_tensor_goes_on_in_ours():
    """Its bases are tensors too."""
    for case in RIGHT:
        for make in (torch.optim.SGD, torch.optim.AdamW):
            tensors = [torch.tensor(lr, dtype=torch.float64) for lr in LRS[:2]]
            groups = [{"params": [Parameter(torch.ones(1))], "lr": lr} for lr in tensors]
            source = make(groups, lr=0.5, **({"momentum": 0.5} if make is torch.optim.SGD else {}))
            source._opt_called = True
            theirs = case.build(TORCH, source)
            for step in range(1, 10):
                advance(theirs, step)
            state = copy.deepcopy(theirs.state_dict())
            rest = sequence(theirs, 20, 9)
            ours = case.build(lr_scheduler, optimizer_of(make, 2, 3.0))
            ours.load_state_dict(state)
            seen = sequence(ours, 20, 9)
            np.testing.assert_allclose(seen, rest, rtol=1e-11, atol=1e-17, err_msg=case.name)


@pytest.mark.parametrize("at", [0, 1, 23])
@every(RIGHT)
def test_our_state_goes_on_in_torchs(case, at):
    source, ours = pair(case, "descend")
    for step in range(1, at + 1):
        advance(ours, step)
    saved, state = copy.deepcopy((source.state_dict(), ours.state_dict()))
    optimizer, theirs = pair(case, "torch")
    optimizer.load_state_dict(saved)
    theirs.load_state_dict(state)
    rest = sequence(theirs, at + 60, at)
    np.testing.assert_allclose(rest, sequence(ours, at + len(rest), at), rtol=1e-11, atol=1e-17)
    if case.closed and "closed" not in case.wrong:
        closed = closed_sequence(theirs, 60)
        expected = curve(case, "descend", "torch.SGD", 2, 60)[: len(closed)]
        np.testing.assert_allclose(closed, expected, rtol=1e-11, atol=1e-17)
