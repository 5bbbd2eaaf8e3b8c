"""Scenarios C1 and C2, and whatever else programs do with schedulers, the odd things included."""

import copy
import gc
import itertools
import json
import math
import pickle
import warnings
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import Parameter

import descend
from descend import lr_scheduler
from descend.errors import DescendError, ScheduleError, StateError
from descend.schedules import cosine, linear, value, warmup
from lr_scheduler.scheduler_cases import (
    BY_NAME,
    CASES,
    LRS,
    MAKERS,
    MODULES,
    PURE,
    Warm,
    advance,
    every,
    optimizer_of,
    sequence,
    values_of,
)

TORCH = MODULES["torch"]
MAKES = {"torch": torch.optim.SGD, "descend": descend.SGD}
every_case = every(CASES)
both_makes = pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)


def one(make=torch.optim.SGD, lr=1.0, **options):
    made = make([Parameter(torch.ones(1))], lr=lr, **options)
    made._opt_called = True  # torch's schedulers warn otherwise
    return made


def lr_of(optimizer, group=0):
    return float(optimizer.param_groups[group]["lr"])


def lrs(optimizer, scheduler, steps):
    """The lr of each step, from where the scheduler is."""
    seen = []
    for step in range(steps):
        if step:
            scheduler.step()
        seen.append(lr_of(optimizer))
    return seen


# C1: the loops that people write.


@pytest.mark.parametrize("maker", MAKERS)
def test_c1_per_epoch_after_the_optimizers_steps(maker):
    torch.manual_seed(0)
    net = nn.Linear(3, 1)
    optimizer = MAKERS[maker](net.parameters(), lr=0.1)
    scheduler = lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    used = []
    for _ in range(6):
        for _ in range(3):
            optimizer.zero_grad()
            net(torch.randn(4, 3)).square().mean().backward()
            optimizer.step()
        used.append(optimizer.param_groups[0]["lr"])
        scheduler.step()
    assert used == [0.1, 0.1, 0.05, 0.05, 0.025, 0.025]
    assert scheduler.get_last_lr() == [0.0125]


@both_makes
def test_c1_per_batch_and_the_step_uses_the_lr_of_that_batch(make):
    param = Parameter(torch.zeros(1))
    optimizer = make([param], lr=1.0)
    scheduler = lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=10, anneal_strategy="linear", cycle_momentum=False
    )
    expected = 0.0
    for _ in range(10):
        expected -= lr_of(optimizer)
        param.grad = torch.ones(1)
        optimizer.step()
        scheduler.step()
    assert param.item() == pytest.approx(expected)


@both_makes
def test_c1_a_plateau_in_a_loop(make):
    optimizer = one(make, lr=0.5)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, mode="min", factor=0.1, patience=5)
    for _ in range(6):
        scheduler.step(torch.tensor(10.0))
    assert lr_of(optimizer) == 0.5
    scheduler.step(10.0)
    assert lr_of(optimizer) == pytest.approx(0.05)


def test_c1_warm_restarts_with_fractions_of_epochs_are_torchs():
    for options in ({"T_0": 10}, {"T_0": 3, "T_mult": 2, "eta_min": 0.01}, {"T_0": 1, "T_mult": 3}):
        ours, theirs = one(), one()
        mine = lr_scheduler.CosineAnnealingWarmRestarts(ours, **options)
        other = TORCH.CosineAnnealingWarmRestarts(theirs, **options)
        for epoch in range(25):
            for batch in range(4):
                mine.step(epoch + batch / 4)
                other.step(epoch + batch / 4)
                if (mine.T_cur, mine.T_i) == (other.T_cur, other.T_i):  # not where theirs rounds
                    assert lr_of(ours) == pytest.approx(lr_of(theirs), rel=1e-12, abs=1e-18)
                    assert mine.last_epoch == other.last_epoch == epoch


def test_c1_warm_restarts_interleaved():
    """`step()` after `step(26)` is `step(27)`, as torch's documentation says."""
    optimizer = one()
    scheduler = lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 10, 2)
    expected = lr_scheduler.CosineAnnealingWarmRestarts(one(), 10, 2).preview(60)["lr"]
    for _ in range(20):
        scheduler.step()
    for asked, arrives in ((26, 26), (None, 27), (3, 3), (None, 4), (35, 35), (None, 36)):
        scheduler.step(asked)
        assert scheduler.last_epoch == arrives
        assert [lr_of(optimizer)] == expected[arrives]


def test_c1_a_fraction_stays_until_a_whole_epoch_is_asked_for():
    optimizer = one()
    scheduler = lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 10)
    scheduler.step(2.5)
    assert lr_of(optimizer) == pytest.approx((1 + math.cos(math.pi * 0.25)) / 2)
    scheduler.step()
    assert lr_of(optimizer) == pytest.approx((1 + math.cos(math.pi * 0.35)) / 2)
    state = copy.deepcopy(scheduler.state_dict())
    other = one()
    again = lr_scheduler.CosineAnnealingWarmRestarts(other, 10)
    again.load_state_dict(state)
    assert lr_of(other) == lr_of(optimizer)
    assert (again.T_cur, again.T_i) == (scheduler.T_cur, scheduler.T_i) == (3.5, 10)
    scheduler.step(4)
    assert lr_of(optimizer) == pytest.approx((1 + math.cos(math.pi * 0.4)) / 2)


# C2: what can be asked, and stopping anywhere.


@pytest.mark.parametrize("maker", ["torch.SGD", "descend.SGD", "descend.AdamW"])
@pytest.mark.parametrize(
    "name",
    [
        "StepLR: every 7",
        "CosineAnnealingLR: many waves",
        "LambdaLR: an object",
        "OneCycleLR: linear, one for each group",
        "SequentialLR: three",
        "ReduceLROnPlateau: impatient",
    ],
)
def test_c2_stop_at_any_epoch_and_continue(name, maker, tmp_path):
    """A training: its parameters end with the bits of the run that never stopped."""
    case = BY_NAME[name]
    options = {"momentum": 0.5} if "SGD" in maker else {}

    def begin():
        torch.manual_seed(0)
        net = nn.Linear(3, 2).double()
        groups = [{"params": [p], "lr": lr} for p, lr in zip(net.parameters(), LRS, strict=False)]
        optimizer = MAKERS[maker](groups, lr=0.5, **options)
        return net, optimizer, case.build(lr_scheduler, optimizer)

    def epochs(net, optimizer, scheduler, first, last):
        for epoch in range(first, last):
            numbers = torch.Generator().manual_seed(epoch)
            inputs = torch.randn(8, 3, generator=numbers, dtype=torch.float64)
            optimizer.zero_grad()
            net(inputs).square().mean().backward()
            optimizer.step()
            advance(scheduler, epoch + 1)
        return net.state_dict(), scheduler.get_last_lr()

    whole, whole_lr = epochs(*begin(), 0, 25)
    for stop in (0, 1, 7, 20, 24):
        net, optimizer, scheduler = begin()
        epochs(net, optimizer, scheduler, 0, stop)
        saved = {"net": net, "optimizer": optimizer, "scheduler": scheduler}
        torch.save({key: it.state_dict() for key, it in saved.items()}, tmp_path / "run.pt")
        net, optimizer, scheduler = begin()
        loaded = torch.load(tmp_path / "run.pt", weights_only=True)
        for key, it in (("scheduler", scheduler), ("net", net), ("optimizer", optimizer)):
            it.load_state_dict(loaded[key])
        ended, lr = epochs(net, optimizer, scheduler, stop, 25)
        assert lr == whole_lr
        for key, tensor in whole.items():
            assert torch.equal(ended[key], tensor), (stop, key)


@every_case
def test_c2_get_last_lr_is_what_the_next_step_uses(case):
    scheduler = case.build(lr_scheduler, optimizer_of(groups=2))
    for step in range(1, 50):
        assert scheduler.get_last_lr() == [
            group["lr"] for group in scheduler.optimizer.param_groups
        ]
        assert scheduler.last_epoch == step - 1
        advance(scheduler, step)


def test_c2_base_lrs_are_what_the_optimizer_had():
    for case in CASES:
        if "yclic" in case.name or "OneCycle" in case.name or "cycle" in case.name:
            continue
        scheduler = case.build(lr_scheduler, optimizer_of(groups=3))
        for step in range(1, 9):
            advance(scheduler, step)
        assert scheduler.base_lrs == list(LRS), case.name
        assert [g["initial_lr"] for g in scheduler.optimizer.param_groups] == list(LRS)


def test_c2_last_epoch_may_be_written():
    """As trainers do that count themselves."""
    for name in ("StepLR: every 7", "CosineAnnealingLR", "OneCycleLR", "SequentialLR: three"):
        scheduler = BY_NAME[name].build(lr_scheduler, optimizer_of())
        expected = sequence(BY_NAME[name].build(lr_scheduler, optimizer_of()), 40)
        scheduler.last_epoch = 29
        scheduler.step()
        assert scheduler.last_epoch == 30
        assert values_of(scheduler.optimizer) == [tuple(expected[30][0])]


def test_c2_get_lr_says_what_this_scheduler_makes_of_its_bases():
    """Without a warning, at any time, and nothing is written."""
    for case in CASES:
        scheduler = case.build(lr_scheduler, optimizer_of(groups=2))
        for step in range(1, 12):
            advance(scheduler, step)
        before = values_of(scheduler.optimizer)
        assert scheduler.get_lr() == pytest.approx([lr for lr, _ in before], rel=1e-12), case.name
        assert values_of(scheduler.optimizer) == before


# An lr that was written by hand.

CHAINABLE = {
    "StepLR": lambda m, o: m.StepLR(o, 4),
    "MultiStepLR": lambda m, o: m.MultiStepLR(o, [2, 6]),
    "ExponentialLR": lambda m, o: m.ExponentialLR(o, 0.9),
    "MultiplicativeLR": lambda m, o: m.MultiplicativeLR(o, lambda e: 0.9),
    "ConstantLR": lambda m, o: m.ConstantLR(o, 0.5, 5),
    "LinearLR": lambda m, o: m.LinearLR(o, 0.1, total_iters=6),
    "PolynomialLR": lambda m, o: m.PolynomialLR(o, 12, 2.0),
    "CosineAnnealingLR": lambda m, o: m.CosineAnnealingLR(o, 10, 0.01),
    "ChainedScheduler": lambda m, o: m.ChainedScheduler(
        [m.ExponentialLR(o, 0.9), m.ConstantLR(o, 0.5, 5)]
    ),
}


# With a minimum torch's recursions disturb each other.
FACTORS = [name for name in CHAINABLE if name != "CosineAnnealingLR"]


@both_makes
@pytest.mark.parametrize("name", CHAINABLE)
@pytest.mark.parametrize("at", [0, 1, 3, 5, 7])
def test_an_lr_written_by_hand_is_where_the_curve_goes_on_from_as_with_torch(name, make, at):
    seen = {}
    for module in MODULES:
        optimizer = one(make if module == "descend" else torch.optim.SGD)
        scheduler = CHAINABLE[name](MODULES[module], optimizer)
        values = []
        for step in range(11):  # after its minimum torch's cosine goes back to the old base
            if step == at:
                optimizer.param_groups[0]["lr"] = 0.8
            values.append(lr_of(optimizer))
            scheduler.step()
        seen[module] = values
    assert seen["descend"] == pytest.approx(seen["torch"], rel=1e-9)


# torch computes these from `base_lrs` in every step; programs warm up by hand beneath them.
FROM_THE_BASE = {
    "LambdaLR": lambda m, o: m.LambdaLR(o, lambda e: 1 - 0.09 * e),
    "CosineAnnealingWarmRestarts": lambda m, o: m.CosineAnnealingWarmRestarts(o, 4, 2, 0.01),
    "CyclicLR": lambda m, o: m.CyclicLR(o, 0.01, 0.1, 4),
    "OneCycleLR": lambda m, o: m.OneCycleLR(o, 0.1, 40),
    "SequentialLR": lambda m, o: m.SequentialLR(
        o, [m.LambdaLR(o, lambda e: 0.9**e), m.CosineAnnealingWarmRestarts(o, 4)], [5]
    ),
}


@both_makes
@pytest.mark.parametrize("name", FROM_THE_BASE)
@pytest.mark.parametrize("often", [False, True])
@pytest.mark.filterwarnings("ignore:The epoch parameter")  # torch's SequentialLR itself
def test_an_lr_written_by_hand_under_a_curve_from_the_base_holds_until_the_next_step(
    name, make, often
):
    """As YOLO's trainers do, which warm up by hand from `initial_lr` beneath a LambdaLR."""
    seen = {}
    for module in MODULES:
        optimizer = one(make if module == "descend" else torch.optim.SGD, momentum=0.5)
        scheduler = FROM_THE_BASE[name](MODULES[module], optimizer)
        group, values = optimizer.param_groups[0], []
        for step in range(12):
            if step in ((0, 1, 2, 5, 6) if often else (3,)):
                group["lr"] = group["initial_lr"] * (0.1 + 0.2 * step)
            values.append((lr_of(optimizer), group["initial_lr"]))
            if step == 7:  # what is saved does not tell of what was written
                scheduler.load_state_dict(scheduler.state_dict())
            scheduler.step()
        seen[module] = values
    assert seen["descend"] == [pytest.approx(pair, rel=1e-12) for pair in seen["torch"]]


def warmed_by_hand(scheduler, group, key, first, last, period=4):
    """A loop that warms up by hand from the base in the group, beneath a scheduler."""
    seen = []
    for step in range(first, last):
        if step < period:
            base = group["initial_lr"] if key == "group" else scheduler.base_lrs[0]
            group["lr"] = base * (step + 1) / period
        seen.append((float(group["lr"]), float(group["initial_lr"])))
        scheduler.step()
    return seen


@pytest.mark.filterwarnings("ignore:The epoch parameter")  # torch's SequentialLR itself
@both_makes
@pytest.mark.parametrize("key", ["group", "scheduler"])
@pytest.mark.parametrize("name", [*CHAINABLE, *FROM_THE_BASE])
def test_a_warmup_by_hand_from_the_initial_lr_is_as_with_torch(name, key, make):
    """What is written moves the curve, and never the base that the group keeps."""
    build = {**CHAINABLE, **FROM_THE_BASE}[name]
    seen = []
    for module, m in MODULES.items():
        optimizer = one(make if module == "descend" else torch.optim.SGD, momentum=0.5)
        scheduler = build(m, optimizer)
        if key == "scheduler" and not hasattr(scheduler, "base_lrs"):
            scheduler.base_lrs = [1.0]  # torch's chain has none
        seen.append(warmed_by_hand(scheduler, optimizer.param_groups[0], key, 0, 9))
    theirs, mine = seen
    assert mine == [pytest.approx(pair, rel=1e-9) for pair in theirs]


@pytest.mark.parametrize("order", ["BOS", "BSO", "OBS"])
@pytest.mark.parametrize("at", [0, 2, 5])
@pytest.mark.parametrize("name", [*CHAINABLE, "CosineAnnealingWarmRestarts", "LambdaLR"])
def test_a_warmup_by_hand_from_the_initial_lr_goes_on_from_states(name, at, order):
    """Built, and both states loaded, in any order."""
    build = {**CHAINABLE, **FROM_THE_BASE}[name]
    optimizer = one(descend.SGD)
    scheduler = build(lr_scheduler, optimizer)
    warmed_by_hand(scheduler, optimizer.param_groups[0], "group", 0, at)
    states = copy.deepcopy({"O": optimizer.state_dict(), "S": scheduler.state_dict()})
    rest = warmed_by_hand(scheduler, optimizer.param_groups[0], "group", at, 9)
    again = one(descend.SGD, lr=7.0)
    for what in order:
        if what == "B":
            other = build(lr_scheduler, again)
        else:
            (again if what == "O" else other).load_state_dict(states[what])
    assert warmed_by_hand(other, again.param_groups[0], "group", at, 9) == rest


def test_an_argument_that_is_changed_in_mid_run_is_that_of_the_whole_curve():
    """torch's goes on from the lr that is there: 0.05."""
    optimizer = one()
    scheduler = lr_scheduler.StepLR(optimizer, 2, gamma=0.1)
    scheduler.seek(3)
    scheduler.gamma = 0.5
    scheduler.step()
    assert lr_of(optimizer) == 0.25


def test_an_lr_written_by_hand_under_two_curves_from_the_base_is_lost_too():
    optimizer = one()
    first = lr_scheduler.LambdaLR(optimizer, lambda e: 0.5**e)
    second = lr_scheduler.LambdaLR(optimizer, lambda e: 0.25**e)
    optimizer.param_groups[0]["lr"] = 3.0
    first.step()
    second.step()
    assert lr_of(optimizer) == 0.125
    third = lr_scheduler.StepLR(optimizer, 100)  # goes on from what is there, and so do all
    optimizer.param_groups[0]["lr"] = 0.5
    third.step()
    assert lr_of(optimizer) == 0.5


def test_an_lr_written_by_hand_into_a_tensor_or_a_group():
    held = torch.tensor(1.0, dtype=torch.float64)
    optimizer = one(lr=held)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    scheduler.step()
    held.fill_(4.0)
    scheduler.step()
    assert held.item() == 2.0
    optimizer.param_groups[0]["lr"] = torch.tensor(8.0)  # another tensor
    scheduler.step()
    assert lr_of(optimizer) == 4.0
    optimizer.param_groups[0]["lr"] = 1.0  # a number
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert held.item() == 2.0


def test_an_lr_written_by_hand_goes_through_a_state():
    optimizer = one()
    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, 20)
    for step in range(12):
        if step == 5:
            optimizer.param_groups[0]["lr"] = 3.0
        scheduler.step()
    state = scheduler.state_dict()
    rest = lrs(optimizer, scheduler, 8)
    again = one(lr=0.5)
    other = lr_scheduler.CosineAnnealingLR(again, 20)
    other.load_state_dict(state)
    assert lrs(again, other, 8) == rest


def test_an_lr_written_by_hand_and_then_a_seek():
    """The whole curve is scaled: the values still depend on the time alone."""
    optimizer = one()
    scheduler = lr_scheduler.LinearLR(optimizer, 0.5, 1.0, 4)
    scheduler.seek(2)
    optimizer.param_groups[0]["lr"] = 1.5  # twice as much
    scheduler.seek(4)
    assert lr_of(optimizer) == 2.0
    scheduler.seek(0)
    assert lr_of(optimizer) == 1.0


def test_a_preview_goes_on_from_an_lr_written_by_hand():
    optimizer = one()
    scheduler = lr_scheduler.StepLR(optimizer, 2, gamma=0.5)
    scheduler.step()
    optimizer.param_groups[0]["lr"] = 0.25
    before = dict(optimizer.param_groups[0])
    foreseen = scheduler.preview(6)["lr"]
    assert optimizer.param_groups[0] == before
    assert [[lr] for lr in lrs(optimizer, scheduler, 5)] == foreseen[1:]


def test_lrs_of_many_groups_written_by_hand_take_no_longer_for_each():
    asked = []

    class Counted(lr_scheduler.LRScheduler):
        def curve(self, time, bases):
            asked.append(len(bases))
            return [base * 0.5**time for base in bases]

    optimizer = torch.optim.SGD([{"params": [Parameter(torch.ones(1))]} for _ in range(100)], lr=1)
    scheduler = Counted(optimizer)
    for index, group in enumerate(optimizer.param_groups):
        group["lr"] = 1.0 + index
    asked.clear()
    scheduler.step()
    assert len(asked) < 10
    assert [lr_of(optimizer, index) for index in range(100)] == [
        (1.0 + index) / 2 for index in range(100)
    ]


def test_an_lr_written_by_hand_back_to_what_was_loaded_is_by_hand():
    optimizer = one()
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimizer.load_state_dict(optimizer.state_dict())
    scheduler.step()
    optimizer.param_groups[0]["lr"] = 1.0
    fresh = lr_scheduler.ExponentialLR(optimizer, 0.1)
    assert fresh.base_lrs == [1.0]  # it begins with the lr that is there
    fresh.step()
    assert lr_of(optimizer) == 0.1


def test_an_lr_of_one_group_written_by_hand_leaves_the_others():
    optimizer = optimizer_of(groups=3)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    scheduler.step()
    optimizer.param_groups[1]["lr"] = 1.0
    scheduler.step()
    assert scheduler.get_last_lr() == [LRS[0] / 4, 0.5, LRS[2] / 4]


def test_an_lr_written_by_hand_near_a_minimum_does_not_explode_later():
    """torch's cosine goes up to 0.1 again, its base."""
    optimizer = one(lr=0.1)
    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, 100)
    highest = 0.0
    for step in range(201):
        if step == 99:
            optimizer.param_groups[0]["lr"] = 0.01
        highest = max(highest, lr_of(optimizer))
        scheduler.step()
    assert highest <= 0.1


def test_zero_written_by_hand_stays_zero():
    optimizer = one()
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    scheduler.step()
    optimizer.param_groups[0]["lr"] = 0.0
    for _ in range(3):
        scheduler.step()
        assert lr_of(optimizer) == 0.0


def test_momentum_written_by_hand_under_a_cycle():
    """Cycles give values: the next one is that of the curve."""
    optimizer = optimizer_of()
    scheduler = lr_scheduler.CyclicLR(optimizer, 0.01, 0.1, 4)
    expected = sequence(lr_scheduler.CyclicLR(optimizer_of(), 0.01, 0.1, 4), 6)
    scheduler.step()
    optimizer.param_groups[0]["momentum"] = 0.1
    for step in range(2, 6):
        scheduler.step()
        assert values_of(optimizer) == [tuple(expected[step][0])]


# Several schedulers.


@pytest.mark.parametrize("warm", ["LinearLR", "ConstantLR"])
@pytest.mark.parametrize("then", ["CosineAnnealingLR", "StepLR", "ExponentialLR", "PolynomialLR"])
@both_makes
def test_two_schedulers_stepped_in_turn_are_torchs(warm, then, make):
    seen = {}
    for module in MODULES:
        optimizer = one(make if module == "descend" else torch.optim.SGD)
        first = CHAINABLE[warm](MODULES[module], optimizer)
        second = CHAINABLE[then](MODULES[module], optimizer)
        values = []
        for epoch in range(15):
            values.append(lr_of(optimizer))
            if epoch < 5:
                first.step()
            else:
                second.step()
        seen[module] = values
    assert seen["descend"] == pytest.approx(seen["torch"], rel=1e-9)


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(FACTORS, 2)))
def test_two_schedulers_side_by_side_are_torchs(first, second):
    seen = {}
    for module in MODULES:
        optimizer = one()
        parts = [CHAINABLE[name](MODULES[module], optimizer) for name in (first, second)]
        values = []
        for _ in range(12):
            values.append(lr_of(optimizer))
            for part in parts:
                part.step()
        seen[module] = values
    assert seen["descend"] == pytest.approx(seen["torch"], rel=1e-9)


def test_warm_restarts_after_a_warmup_begin_with_the_optimizers_lr():
    """torch's go up to ten times the lr: their first value is multiplied by the warmup."""
    optimizer = one()
    warm = lr_scheduler.LinearLR(optimizer, 0.1, total_iters=5)
    restarts = lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 4)
    values = []
    for epoch in range(9):
        values.append(lr_of(optimizer))
        (warm if epoch < 5 else restarts).step()
    cosine_part = [(1 + math.cos(math.pi * t / 4)) / 2 for t in range(1, 4)]
    assert values == pytest.approx([0.1, 0.28, 0.46, 0.64, 0.82, 1.0, *cosine_part])


@pytest.mark.parametrize("built", ["at once", "later"])
@pytest.mark.parametrize(
    "second",
    [
        lambda m, o: m.CyclicLR(o, 0.1, 0.3, 1, 3),
        lambda m, o: m.OneCycleLR(o, 0.3, 30),
    ],
    ids=["CyclicLR", "OneCycleLR"],
)
def test_a_cycle_after_a_cosine_has_its_own_values_as_with_torch(second, built):
    """As in pytorch's issue 21965: two phases, and both schedulers are kept."""
    seen = {}
    for module, m in MODULES.items():
        optimizer = one(momentum=0.9)
        first = m.CosineAnnealingLR(optimizer, 20)
        then = second(m, optimizer) if built == "at once" else None
        values = []
        for step in range(40):
            if step < 20:
                first.step()
            else:
                then = then or second(m, optimizer)
                then.step()
                values.append(lr_of(optimizer))
        seen[module] = values
    assert seen["descend"] == pytest.approx(seen["torch"], rel=1e-9)


@both_makes
def test_a_scheduler_dropped_and_a_new_one_built(make):
    optimizer = one(make)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    scheduler.step()
    del scheduler
    assert lr_of(optimizer) == 0.5
    scheduler = lr_scheduler.LinearLR(optimizer, 0.5, total_iters=2)
    assert lrs(optimizer, scheduler, 4) == [0.25, 0.375, 0.5, 0.5]


@both_makes
def test_a_scheduler_replaced_under_the_same_name(make):
    """The old one still lives while the new one is built."""
    optimizer = one(make)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    scheduler.step()
    scheduler = lr_scheduler.StepLR(optimizer, 2, 0.1)
    assert lrs(optimizer, scheduler, 4) == pytest.approx([0.5, 0.5, 0.05, 0.05])


def test_one_of_two_dropped_and_the_other_goes_on_from_there():
    optimizer = one()
    first, second = (
        lr_scheduler.ConstantLR(optimizer, 0.5, 10),
        lr_scheduler.ExponentialLR(optimizer, 0.5),
    )
    for _ in range(2):
        first.step()
        second.step()
    assert lr_of(optimizer) == 0.125
    del first
    second.step()
    assert lr_of(optimizer) == 0.0625


@pytest.mark.parametrize("new", ["StepLR", "ExponentialLR", "LinearLR", "CosineAnnealingLR"])
def test_one_of_two_dropped_and_another_built_in_its_place(new):
    optimizer = one()
    stays = lr_scheduler.ConstantLR(optimizer, 0.5, 100)
    dropped = lr_scheduler.ExponentialLR(optimizer, 0.5)
    dropped.step()
    stays.step()
    assert lr_of(optimizer) == 0.25
    del dropped
    scheduler = CHAINABLE[new](lr_scheduler, optimizer)
    alone = one(lr=0.25)
    assert lrs(optimizer, scheduler, 6) == pytest.approx(
        lrs(alone, CHAINABLE[new](lr_scheduler, alone), 6)
    )


def test_a_scheduler_of_a_function_that_returns_leaves_nothing_behind():
    optimizer = one()

    def phase():
        scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
        for _ in range(2):
            scheduler.step()

    phase()
    phase()
    assert lr_of(optimizer) == 1 / 16


def test_the_parts_of_a_sequence_are_stepped_by_it_alone():
    optimizer = one()
    part = lr_scheduler.ExponentialLR(optimizer, 0.5)
    whole = lr_scheduler.SequentialLR(optimizer, [lr_scheduler.ConstantLR(optimizer), part], [2])
    before = lr_of(optimizer)
    with pytest.raises(ScheduleError, match="part of a SequentialLR"):
        part.step()
    assert lr_of(optimizer) == before
    assert whole.last_epoch == 0


def test_a_plateau_in_a_sequence_does_not_count_what_it_is_told_alone():
    optimizer = one()
    part = lr_scheduler.ReduceLROnPlateau(optimizer, patience=5)
    whole = lr_scheduler.SequentialLR(optimizer, [part, lr_scheduler.StepLR(optimizer, 2)], [9])
    before = whole.state_dict()
    with pytest.raises(ScheduleError, match="part of a SequentialLR"):
        part.step(1.0)
    assert whole.state_dict() == before


@pytest.mark.parametrize("name", ["best", "cooldown_counter", "num_bad_epochs"])
@pytest.mark.parametrize("damaged", [None, "x", [1.0], True])
def test_a_damaged_state_of_a_plateau_changes_nothing(name, damaged):
    scheduler = lr_scheduler.ReduceLROnPlateau(one())
    state = {**scheduler.state_dict(), "last_epoch": 4, name: damaged}
    if damaged is None:
        del state[name]
    with pytest.raises(StateError, match=name):
        scheduler.load_state_dict(state)
    assert scheduler.last_epoch == 0


@pytest.mark.parametrize("order", ["parts first", "whole first", "parts alone"])
def test_the_states_of_the_parts_may_be_loaded_too(order):
    def built():
        optimizer = one()
        parts = [
            lr_scheduler.ConstantLR(optimizer, 0.5, 10),
            lr_scheduler.ChainedScheduler([lr_scheduler.ExponentialLR(optimizer, 0.9)]),
        ]
        return optimizer, lr_scheduler.SequentialLR(optimizer, parts, [5]), parts

    optimizer, whole, parts = built()
    for at in range(9):
        resumed, whole_there, parts_there = built()
        resumed.load_state_dict(optimizer.state_dict())
        pairs = list(zip(parts_there, parts, strict=True))
        if order != "parts alone":
            pairs.insert(len(pairs) if order == "parts first" else 0, (whole_there, whole))
        for there, here in pairs:
            there.load_state_dict(here.state_dict())
        if order == "parts alone":
            whole_there.seek(at)
        expected = copy.deepcopy(whole)
        assert lrs(resumed, whole_there, 9) == lrs(expected.optimizer, expected, 9)
        whole.step()


def test_a_refused_sequence_leaves_its_parts_at_work():
    optimizer = one()
    part = lr_scheduler.StepLR(optimizer, 3)
    for milestones in ([], [-1], [2, 3]):
        with pytest.raises(ScheduleError):
            lr_scheduler.SequentialLR(
                optimizer, [part, lr_scheduler.StepLR(optimizer, 2)], milestones
            )
        assert lr_of(optimizer) == 1.0
    assert lrs(optimizer, part, 5) == pytest.approx([1.0, 1.0, 1.0, 0.1, 0.1])


def test_schedules_of_other_hyperparameters_do_not_disturb_each_other():
    optimizer = one(descend.AdamW, weight_decay=0.5)
    rate = lr_scheduler.ExponentialLR(optimizer, 0.5)
    decay = descend.Scheduler(
        optimizer, weight_decay=linear(4), beta2=linear(4, value(0.9), value(0.99))
    )
    for _ in range(2):
        rate.step()
        decay.step()
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.25, 0.25)
    assert group["betas"] == (0.9, pytest.approx(0.945))


# Tensors.


@every_case
@pytest.mark.parametrize("maker", ["torch.SGD", "descend.AdamW"])
def test_an_lr_tensor_is_filled_in_place_and_aliased_by_nothing(case, maker):
    tensors = [torch.tensor(lr, dtype=torch.float64) for lr in LRS[:2]]
    groups = [{"params": [Parameter(torch.ones(1))], "lr": lr} for lr in tensors]
    options = {"momentum": 0.5} if "SGD" in maker else {}
    optimizer = MAKERS[maker](groups, lr=0.5, **options)
    scheduler = case.build(lr_scheduler, optimizer)
    expected = sequence(case.build(lr_scheduler, optimizer_of(MAKERS[maker], 2)), 40)
    handed_out = []
    for step in range(40):
        if step:
            advance(scheduler, step)
        assert [group["lr"] for group in optimizer.param_groups] == tensors
        assert all(g["lr"] is t for g, t in zip(optimizer.param_groups, tensors, strict=True))
        assert [tensor.item() for tensor in tensors] == expected[step, :, 0].tolist()
        handed_out += scheduler.get_last_lr()
        for given in (*scheduler.get_last_lr(), *scheduler.get_lr(), *scheduler.base_lrs):
            assert all(given is not tensor for tensor in tensors)
            if isinstance(given, torch.Tensor):
                given.fill_(7.0)
    assert [float(lr) for lr in handed_out] == expected[:, :, 0].ravel().tolist()


def test_two_groups_with_the_same_lr_tensor():
    shared = torch.tensor(0.5, dtype=torch.float64)
    groups = [{"params": [Parameter(torch.ones(1))]} for _ in range(2)]
    optimizer = torch.optim.SGD(groups, lr=shared)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    for step in range(1, 4):
        scheduler.step()
        assert scheduler.get_last_lr() == [0.5**step / 2] * 2


SHARED = {
    "Scheduler": lambda o: descend.Scheduler(o, lr=[cosine(9), None]),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, [lambda t: 0.5**t, lambda t: 0.9**t]),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, [0.1, 0.4], 9),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.1, [0.5, 0.7], 3),
    "two": lambda o: (
        lr_scheduler.StepLR(o, 2),
        lr_scheduler.LambdaLR(o, [lambda t: 1.0, lambda t: 0.9**t]),
    )[1],
}


@pytest.mark.parametrize("name", SHARED)
def test_two_groups_with_the_same_lr_tensor_and_other_values(name):
    seen = []
    for lr in (torch.tensor(0.5, dtype=torch.float64), 0.5):
        groups = [{"params": [Parameter(torch.ones(1))]} for _ in range(2)]
        optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.9)
        optimizer._opt_called = True
        scheduler = SHARED[name](optimizer)
        seen.append([])
        for _ in range(7):
            seen[-1].append([lr_of(optimizer, group) for group in (0, 1)])
            scheduler.step()
        if torch.is_tensor(lr):
            assert optimizer.param_groups[0]["lr"] is lr
            saved = copy.deepcopy(optimizer.state_dict())
            optimizer.load_state_dict(saved)
            scheduler.step()
            assert lr_of(optimizer, 0) != lr_of(optimizer, 1)
    assert seen[0] == seen[1]


def test_two_groups_with_the_same_lr_tensor_keep_it_while_the_values_are_the_same():
    shared = torch.tensor(0.5, dtype=torch.float64)
    groups = [{"params": [Parameter(torch.ones(1))]} for _ in range(2)]
    optimizer = torch.optim.SGD(groups, lr=shared)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    for _ in range(3):
        scheduler.step()
    shared.fill_(0.5)
    scheduler.step()
    assert all(group["lr"] is shared for group in optimizer.param_groups)
    assert scheduler.get_last_lr() == [0.25, 0.25]


def test_a_float32_lr_tensor_over_many_steps_does_not_drift():
    """The base is kept in double precision; a recursion would gather float32's roundings."""
    optimizer = one(lr=torch.tensor(0.1))
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.999)
    for _ in range(1000):
        scheduler.step()
    exact = float(torch.tensor(0.1)) * 0.999**1000
    assert lr_of(optimizer) == torch.tensor(exact).item()


def test_tensor_arguments_are_not_aliased():
    base, top = torch.tensor(0.1), torch.tensor(0.5)
    cyclic = lr_scheduler.CyclicLR(one(), base, top, 4, cycle_momentum=False)
    one_cycle = lr_scheduler.OneCycleLR(one(), top, 10, cycle_momentum=False)
    before = cyclic.preview(8), one_cycle.preview(10)
    base.fill_(9.0)
    top.fill_(9.0)
    assert (cyclic.preview(8), one_cycle.preview(10)) == before
    assert all(type(x) is float for values in before for step in values["lr"] for x in step)


@pytest.mark.slow
@pytest.mark.parametrize("maker", ["torch.SGD", "torch.AdamW"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, by torch
def test_a_compiled_optimizer_step_sees_each_lr_without_compiling_anew(maker):
    torch._dynamo.reset()
    optimizer = MAKERS[maker]([Parameter(torch.ones(3))], lr=torch.tensor(0.5))
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph

    compiled = torch.compile(optimizer.step, backend=counting)
    other = MAKERS[maker]([Parameter(torch.ones(3))], lr=0.5)
    for turn in range(5):
        for optimized in (optimizer, other):
            optimized.param_groups[0]["params"][0].grad = torch.full((3,), turn + 1.0)
        compiled()
        other.step()
        scheduler.step()
        other.param_groups[0]["lr"] *= 0.5
        if turn == 1:
            known = len(graphs)
    assert 0 < known == len(graphs)
    torch.testing.assert_close(
        optimizer.param_groups[0]["params"][0], other.param_groups[0]["params"][0]
    )


@both_makes
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, by torch
def test_a_training_step_that_is_compiled_whole_steps_its_scheduler(make):
    """The scheduler is not traced: its numbers would be constants of the graph."""
    torch._dynamo.reset()
    seen = []
    for wrap in (lambda step: step, lambda step: torch.compile(step, backend="eager")):
        param = Parameter(torch.ones(3))
        optimizer = make([param], lr=0.5)
        scheduler = lr_scheduler.SequentialLR(
            optimizer,
            [
                lr_scheduler.ConstantLR(optimizer, 0.5, 2),
                lr_scheduler.ExponentialLR(optimizer, 0.5),
            ],
            [2],
        )

        def step(param=param, optimizer=optimizer, scheduler=scheduler):
            param.grad = None
            (param * 2).sum().backward()
            optimizer.step()
            scheduler.step()

        run = wrap(step)
        for _ in range(6):
            run()
        seen.append((param.detach().tolist(), scheduler.get_last_lr(), scheduler.last_epoch))
    assert seen[0] == seen[1]
    torch._dynamo.reset()


# What fails half-way changes nothing.


@pytest.mark.parametrize("where", ["alone", "chain", "sequence", "beside"])
@pytest.mark.parametrize("kind", ["LambdaLR", "MultiplicativeLR"])
def test_an_exception_inside_a_lambda_changes_nothing(where, kind):
    fuse = {"lit": False}

    def factor(epoch):
        if fuse["lit"]:
            raise ZeroDivisionError("the user's")
        return 0.5**epoch if kind == "LambdaLR" else 0.5

    def build(optimizer):
        parts = [getattr(lr_scheduler, kind)(optimizer, [lambda e: 1.0, factor])]
        if where == "alone":
            return parts[0]
        parts.append(lr_scheduler.ExponentialLR(optimizer, 0.9))
        if where == "beside":
            build.other = parts.pop()
            return parts[0]
        if where == "chain":
            return lr_scheduler.ChainedScheduler(parts[::-1])
        return lr_scheduler.SequentialLR(optimizer, parts, [20])

    optimizer = optimizer_of(groups=2)
    scheduler = build(optimizer)
    scheduler.step()
    before = values_of(optimizer), copy.deepcopy(scheduler.state_dict())
    fuse["lit"] = True
    for move in (scheduler.step, lambda: scheduler.seek(7)):
        with pytest.raises(ZeroDivisionError, match="the user's"):
            move()
        assert (values_of(optimizer), scheduler.state_dict()) == before
    fuse["lit"] = False
    scheduler.step()
    other = optimizer_of(groups=2)
    expected = build(other)
    expected.step()
    expected.step()
    assert values_of(optimizer) == values_of(other)


def test_an_exception_after_a_plateau_has_measured_takes_that_back():
    fuse = {"lit": False}

    def factor(epoch):
        if fuse["lit"]:
            raise ZeroDivisionError("the user's")
        return 1.0

    optimizer = one()
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    scheduler = lr_scheduler.ChainedScheduler([lr_scheduler.LambdaLR(optimizer, factor), plateau])
    scheduler.step(1.0)
    before = lr_of(optimizer), copy.deepcopy(scheduler.state_dict())
    fuse["lit"] = True
    with pytest.raises(ZeroDivisionError):
        scheduler.step(2.0)
    assert (lr_of(optimizer), scheduler.state_dict()) == before


def test_an_exception_while_building_leaves_an_optimizer_to_build_on():
    def factor(epoch):
        raise ZeroDivisionError("the user's")

    optimizer = one()
    with pytest.raises(ZeroDivisionError):
        lr_scheduler.LambdaLR(optimizer, factor)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    assert lrs(optimizer, scheduler, 3) == [1.0, 0.5, 0.25]


def test_a_user_s_get_lr_that_raises_changes_nothing():
    class Fails(lr_scheduler.LRScheduler):
        def get_lr(self):
            if self.last_epoch == 3:
                self.optimizer.param_groups[0]["lr"] = 99.0
                raise ZeroDivisionError("the user's")
            return [base * 0.5**self.last_epoch for base in self.base_lrs]

    optimizer = one()
    scheduler = Fails(optimizer)
    scheduler.seek(2)
    with pytest.raises(ZeroDivisionError):
        scheduler.step()
    assert (lr_of(optimizer), scheduler.last_epoch) == (0.25, 2)
    scheduler.seek(4)
    assert lr_of(optimizer) == 0.0625


# Copies.


def picklable(scheduler):
    """Whether no lambda is in it."""
    try:
        pickle.dumps(scheduler)
    except (pickle.PicklingError, AttributeError):
        return False
    return True


@pytest.mark.parametrize(
    "how", ["deepcopy", "deepcopy, scheduler first", "scheduler alone", "pickle"]
)
@both_makes
def test_copies_of_optimizer_and_scheduler_go_on_independently(how, make):
    for case in CASES:
        scheduler = case.build(lr_scheduler, optimizer_of(make, 2))
        for step in range(1, 8):
            advance(scheduler, step)
        if how == "deepcopy":
            optimizer, copied = copy.deepcopy((scheduler.optimizer, scheduler))
        elif how == "deepcopy, scheduler first":
            copied, optimizer = copy.deepcopy((scheduler, scheduler.optimizer))
        elif how == "scheduler alone":
            copied = copy.deepcopy(scheduler)
            optimizer = copied.optimizer
        else:
            if not picklable(scheduler):
                continue
            written = pickle.dumps((scheduler.optimizer, scheduler))
            optimizer, copied = pickle.loads(written)
        assert copied.optimizer is optimizer
        assert optimizer is not scheduler.optimizer
        before = values_of(scheduler.optimizer)
        rest = sequence(copied, 30, 7).tolist()
        assert values_of(scheduler.optimizer) == before, case.name
        assert sequence(scheduler, 30, 7).tolist() == rest, case.name


@both_makes
def test_a_copy_of_the_optimizer_alone_has_no_scheduler(make):
    optimizer = one(make)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    scheduler.step()
    copied = copy.deepcopy(optimizer)
    scheduler.step()
    assert (lr_of(copied), lr_of(optimizer)) == (0.5, 0.25)
    again = lr_scheduler.ExponentialLR(copied, 0.5)
    assert lrs(copied, again, 3) == [0.5, 0.25, 0.125]


@both_makes
def test_copies_of_two_schedulers_and_their_optimizer(make):
    optimizer = one(make)
    first, second = (
        lr_scheduler.LinearLR(optimizer, 0.1),
        lr_scheduler.ExponentialLR(optimizer, 0.5),
    )
    for _ in range(2):
        first.step()
        second.step()
    loaded = pickle.loads(pickle.dumps({"b": second, "optimizer": optimizer, "a": first}))
    triples = [
        (optimizer, first, second),
        copy.deepcopy((optimizer, first, second)),
        (loaded["optimizer"], loaded["a"], loaded["b"]),
    ]
    seen = []
    for an_optimizer, one_of_them, other in triples:
        values = []
        for _ in range(5):
            one_of_them.step()
            other.step()
            values.append(lr_of(an_optimizer))
        seen.append(values)
    assert seen[0] == seen[1] == seen[2]


# Memory.


@both_makes
def test_dropping_scheduler_and_optimizer_frees_both_at_once(make):
    gc.collect()
    gc.disable()
    try:
        for case in CASES:
            optimizer = optimizer_of(make, 2)
            scheduler = case.build(lr_scheduler, optimizer)
            for step in range(1, 5):
                advance(scheduler, step)
            scheduler.load_state_dict(scheduler.state_dict())
            seen = weakref.ref(optimizer), weakref.ref(scheduler)
            del optimizer
            assert seen[0]() is not None
            del scheduler
            assert [one() for one in seen] == [None, None], case.name
    finally:
        gc.enable()


@both_makes
def test_a_dropped_scheduler_leaves_no_reference_to_the_optimizer(make):
    optimizer = one(make)
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0)
    scheduler.step()
    del scheduler
    assert gc.get_referrers(optimizer) == []


# Users' own classes.


def users_classes(base):
    """Subclasses in torch's style, on torch's base class or on descend's."""

    class Closed(base):
        def get_lr(self):
            return [start * 0.9**self.last_epoch for start in self.base_lrs]

    class Recursive(base):
        def get_lr(self):
            if self.last_epoch == 0:
                return [group["lr"] for group in self.optimizer.param_groups]
            return [group["lr"] * 0.9 for group in self.optimizer.param_groups]

    class Both(Recursive):
        def _get_closed_form_lr(self):
            return [start * 0.9**self.last_epoch for start in self.base_lrs]

    class Own(base):
        def __init__(self, optimizer, last_epoch=-1):
            self.drops = 0
            self.seen = []
            super().__init__(optimizer, last_epoch)

        def get_lr(self):
            if self.last_epoch and self.last_epoch % 3 == 0:
                self.drops += 1
            self.seen.append(self.last_epoch)
            return [start * 0.5**self.drops for start in self.base_lrs]

    class OwnStep(Closed):
        def __init__(self, optimizer, last_epoch=-1):
            self.steps = 0
            super().__init__(optimizer, last_epoch)

        def step(self, epoch=None):
            self.steps += 1
            super().step()

    return {cls.__name__: cls for cls in (Closed, Recursive, Both, Own, OwnStep)}


USERS = {module: users_classes(MODULES[module].LRScheduler) for module in MODULES}
every_user = pytest.mark.parametrize("name", USERS["descend"])


@every_user
@both_makes
def test_a_users_class_in_torchs_style_is_torchs(name, make):
    seen = {}
    for module in MODULES:
        optimizer = optimizer_of(make if module == "descend" else torch.optim.SGD, 2)
        seen[module] = sequence(USERS[module][name](optimizer), 12)
    assert seen["descend"] == pytest.approx(seen["torch"], rel=1e-12)


@pytest.mark.parametrize("name", ["Closed", "Both", "OwnStep"])
def test_a_users_class_stands_in_a_sequence_as_with_torch(name):
    for place in ("first", "second"):
        seen = {}
        for module, m in MODULES.items():
            optimizer = optimizer_of(groups=2)
            parts = [USERS[module][name](optimizer), m.ConstantLR(optimizer, 0.5, 4)]
            whole = m.SequentialLR(optimizer, parts[:: 1 if place == "first" else -1], [5])
            seen[module] = sequence(whole, 12)
        assert seen["descend"] == pytest.approx(seen["torch"], rel=1e-12), place


def test_a_users_recursive_class_goes_on_in_a_sequence_as_with_torch():
    """From what the part before has left: 0.5 of it, here."""
    optimizer = one()
    parts = [lr_scheduler.ConstantLR(optimizer, 0.5, 9), USERS["descend"]["Recursive"](optimizer)]
    whole = lr_scheduler.SequentialLR(optimizer, parts, [3])
    assert lrs(optimizer, whole, 6) == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.45, 0.405])


@pytest.mark.parametrize("name", ["Recursive", "Both"])
def test_a_users_chainable_class_stands_in_a_chain_as_with_torch(name):
    seen = {}
    for module, m in MODULES.items():
        optimizer = optimizer_of(groups=2)
        parts = [USERS[module][name](optimizer), m.ConstantLR(optimizer, 0.5, 4)]
        seen[module] = sequence(m.ChainedScheduler(parts), 12)
    assert seen["descend"] == pytest.approx(seen["torch"], rel=1e-12)


@every_user
@pytest.mark.parametrize("where", ["alone", "sequence", "chain", "beside"])
def test_a_users_class_goes_on_from_a_state(name, where):
    def build(optimizer):
        user = USERS["descend"][name]
        if where == "alone":
            return user(optimizer)
        other = lr_scheduler.ConstantLR(optimizer, 0.5, 4)
        if where == "sequence":
            return lr_scheduler.SequentialLR(optimizer, [other, user(optimizer)], [4])
        if where == "chain":
            return lr_scheduler.ChainedScheduler([user(optimizer), other])
        scheduler = user(optimizer)
        scheduler.kept = None
        build.beside = other
        return scheduler

    for stop in (0, 1, 3, 4, 5, 9):
        optimizer = optimizer_of(groups=2)
        scheduler = build(optimizer)
        for _ in range(stop):
            scheduler.step()
        saved, state = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
        rest = sequence(scheduler, stop + 10, stop).tolist()
        for order in ("BOS", "BSO", "OBS", "BS"):
            if where == "beside" and order == "BS":
                continue  # the other one has no state here
            optimizer = optimizer_of(groups=2, scale=3.0)
            for what in order:
                if what == "B":
                    scheduler = build(optimizer)
                elif what == "O":
                    optimizer.load_state_dict(copy.deepcopy(saved))
                else:
                    scheduler.load_state_dict(copy.deepcopy(state))
            assert sequence(scheduler, stop + 10, stop).tolist() == rest, (stop, order)


def test_a_users_attributes_are_in_the_state():
    scheduler = USERS["descend"]["Own"](one())
    for _ in range(7):
        scheduler.step()
    state = scheduler.state_dict()
    assert (state["drops"], state["seen"]) == (2, list(range(8)))
    other = USERS["descend"]["Own"](one())
    other.load_state_dict(copy.deepcopy(state))
    assert (other.drops, other.seen) == (2, list(range(8)))


def test_a_users_own_step_is_called():
    scheduler = USERS["descend"]["OwnStep"](one())
    for _ in range(3):
        scheduler.step()
    assert scheduler.steps == 4  # torch's first step is the constructor's


def test_a_users_pure_class():
    class Halving(lr_scheduler.LRScheduler):
        def curve(self, time, bases):
            return [base * 0.5**time for base in bases]

    optimizer = optimizer_of(groups=2)
    scheduler = Halving(optimizer)
    assert scheduler.preview(3)["lr"] == [[lr * 0.5**t for lr in LRS[:2]] for t in range(3)]
    scheduler.seek(2.5)
    assert scheduler.get_last_lr() == [lr * 0.5**2.5 for lr in LRS[:2]]


def test_a_users_curve_may_return_a_tuple():
    class Halving(lr_scheduler.LRScheduler):
        def curve(self, time, bases):
            return tuple(base * 0.5**time for base in bases)

    optimizer = one()
    scheduler = Halving(optimizer)
    scheduler.step()
    optimizer.param_groups[0]["lr"] = 0.25
    optimizer.add_param_group({"params": [Parameter(torch.ones(1))], "lr": 1.0})
    scheduler.step()
    assert scheduler.get_last_lr() == [0.125, 0.5]


def test_a_users_curve_may_write_into_its_argument():
    class Halving(lr_scheduler.LRScheduler):
        def curve(self, time, bases):
            bases[0] *= 0.5**time
            return bases

    optimizer = one()
    assert lrs(optimizer, Halving(optimizer), 4) == [1.0, 0.5, 0.25, 0.125]


def test_a_users_values_that_are_not_one_for_each_group_are_refused():
    class Short(lr_scheduler.LRScheduler):
        keys = ("lr", "momentum")

        def values(self, key, time, bases):
            return bases[: 2 - time]

    groups = [{"params": [Parameter(torch.ones(1))]} for _ in range(2)]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    scheduler = Short(optimizer)
    with pytest.raises(ScheduleError, match="2 groups, and the curve gives 1 value;"):
        scheduler.step()
    assert scheduler.last_epoch == 0


def test_a_users_class_without_a_curve_says_what_is_missing():
    class Nothing(lr_scheduler.LRScheduler):
        pass

    with pytest.raises(NotImplementedError, match=r"neither curve\(time, bases\) nor get_lr"):
        Nothing(one())


def test_a_users_subclass_of_a_torch_class():
    """As people do who change one value of a known curve."""

    class Floor(lr_scheduler.CosineAnnealingLR):
        def get_lr(self):
            return [max(value, 0.3) for value in super().get_lr()]

    class TorchFloor(TORCH.CosineAnnealingLR):
        def get_lr(self):
            return [max(value, 0.3) for value in super().get_lr()]

    mine, theirs = one(), one()
    assert lrs(mine, Floor(mine, 10), 15) == pytest.approx(
        lrs(theirs, TorchFloor(theirs, 10), 15), rel=1e-12
    )


# Attributes changed in mid-run.


@pytest.mark.parametrize(
    ("name", "attribute", "to"),
    [
        ("StepLR: every 7", "gamma", 0.5),
        ("StepLR: every 7", "step_size", 3),
        ("MultiStepLR", "milestones", [2, 4, 20]),
        ("MultiStepLR", "gamma", 0.7),
        ("ConstantLR: long", "factor", 0.9),
        ("ConstantLR: long", "total_iters", 12),
        ("LinearLR: long", "total_iters", 30),
        ("LinearLR: long", "start_factor", 0.5),
        ("ExponentialLR", "gamma", 0.5),
        ("PolynomialLR: a square", "power", 1.0),
        ("CosineAnnealingLR", "T_max", 30),
        ("CosineAnnealingLR", "eta_min", 0.005),
        ("CosineAnnealingWarmRestarts", "T_0", 5),
        ("CyclicLR: exp_range", "gamma", 0.5),
        ("LambdaLR", "lr_lambdas", [Warm(20), Warm(30)]),
    ],
)
def test_an_attribute_changed_in_mid_run_holds_from_the_next_step(name, attribute, to):
    """The curve is then the one of a scheduler that was built so."""
    scheduler = BY_NAME[name].build(lr_scheduler, optimizer_of(groups=2))
    other = BY_NAME[name].build(lr_scheduler, optimizer_of(groups=2))
    for step in range(1, 11):
        advance(scheduler, step)
    held = values_of(scheduler.optimizer)
    for changed in (scheduler, other):
        setattr(changed, attribute, to)
    assert values_of(scheduler.optimizer) == held
    expected = sequence(other, 40)[11:].tolist()
    advance(scheduler, 11)
    assert sequence(scheduler, 40, 11).tolist() == expected
    assert scheduler.preview(40)["lr"][11:] == [[lr for lr, _ in step] for step in expected]


@both_makes
def test_base_lrs_written_in_mid_run_hold_from_the_next_step(make):
    optimizer = optimizer_of(make, 2)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    scheduler.step()
    scheduler.base_lrs = [1.0, 2.0]
    assert scheduler.get_last_lr() == [LRS[0] / 2, LRS[1] / 2]
    scheduler.step()
    assert scheduler.get_last_lr() == [0.25, 0.5]
    assert scheduler.base_lrs == [1.0, 2.0]


def test_base_lrs_appended_for_a_new_group_as_with_torch():
    """The workaround of today's tools does no harm."""
    optimizer = one()
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    scheduler.step()
    optimizer.add_param_group({"params": [Parameter(torch.ones(1))], "lr": 0.5, "initial_lr": 0.5})
    scheduler.base_lrs.append(0.5)
    scheduler.step()
    assert scheduler.get_last_lr() == [0.25, 0.25]


def test_min_lrs_appended_for_a_new_group_as_with_torch():
    optimizer = one(lr=0.5)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=0, min_lr=[0.1])
    scheduler.step(1.0)
    optimizer.add_param_group({"params": [Parameter(torch.ones(1))], "lr": 0.5})
    scheduler.min_lrs.append(0.2)
    scheduler.step(1.0)
    assert scheduler.get_last_lr() == [0.1, 0.2]


# Numbers at the edges.


@pytest.mark.parametrize(
    ("with_numpy", "plainly"),
    [
        (
            lambda m, o: m.CosineAnnealingLR(o, np.int64(10)),
            lambda m, o: m.CosineAnnealingLR(o, 10),
        ),
        (lambda m, o: m.StepLR(o, np.int32(3)), lambda m, o: m.StepLR(o, 3)),
        (lambda m, o: m.ExponentialLR(o, np.float32(0.5)), lambda m, o: m.ExponentialLR(o, 0.5)),
        (
            lambda m, o: m.LinearLR(o, 0.5, 1.0, np.int64(4)),
            lambda m, o: m.LinearLR(o, 0.5, 1.0, 4),
        ),
        (lambda m, o: m.MultiStepLR(o, np.array([3, 5])), lambda m, o: m.MultiStepLR(o, [3, 5])),
        (
            lambda m, o: m.CyclicLR(o, np.float32(0.25), np.float32(0.5), np.int64(4)),
            lambda m, o: m.CyclicLR(o, 0.25, 0.5, 4),
        ),
        (
            lambda m, o: m.OneCycleLR(o, np.float32(0.5), 10),
            lambda m, o: m.OneCycleLR(o, 0.5, 10),
        ),
        (
            lambda m, o: m.ReduceLROnPlateau(o, factor=np.float32(0.5), patience=np.int64(0)),
            lambda m, o: m.ReduceLROnPlateau(o, factor=0.5, patience=0),
        ),
    ],
)
def test_numbers_of_numpy_are_numbers_as_with_torch(with_numpy, plainly):
    with_numpy(TORCH, optimizer_of())
    scheduler = with_numpy(lr_scheduler, optimizer_of())
    expected = plainly(lr_scheduler, optimizer_of())
    assert sequence(scheduler, 12).tolist() == sequence(expected, 12).tolist()
    assert json.dumps(scheduler.state_dict()) == json.dumps(expected.state_dict())
    assert type(scheduler.optimizer.param_groups[0]["lr"]) is float


def test_an_lr_stays_a_number_whatever_the_arguments_are():
    optimizer = one()
    scheduler = lr_scheduler.ExponentialLR(optimizer, torch.tensor(0.5))
    scheduler.step()
    assert type(optimizer.param_groups[0]["lr"]) is float


@every(PURE)
def test_huge_epochs(case):
    scheduler = case.build(lr_scheduler, optimizer_of(groups=2))
    if any(word in case.name for word in ("growing", "negative", "a function of")):
        epochs = (10**5,)
    elif "Multiplicative" in case.name or "after nothing" in case.name:
        epochs = (10**5,)  # its product is made of each step
    else:
        epochs = (10**6, 10**9, 10**12)
    for epoch in epochs:
        scheduler.seek(epoch)
        assert all(map(math.isfinite, scheduler.get_last_lr()))
        assert scheduler.last_epoch == epoch
        scheduler.step()
        assert scheduler.last_epoch == epoch + 1
    scheduler.seek(3)
    expected = case.build(lr_scheduler, optimizer_of(groups=2))
    expected.seek(3)
    assert values_of(scheduler.optimizer) == values_of(expected.optimizer)


def test_an_lr_of_0():
    for case in CASES:
        optimizer = optimizer_of(groups=2, scale=0.0)
        scheduler = case.build(lr_scheduler, optimizer)
        for step in range(1, 60):
            advance(scheduler, step)
            assert all(map(math.isfinite, scheduler.get_last_lr()))
        state = scheduler.state_dict()
        again = case.build(lr_scheduler, optimizer_of(groups=2, scale=0.0))
        again.load_state_dict(state)
        assert values_of(again.optimizer) == values_of(optimizer), case.name


def test_a_group_without_parameters():
    groups = [{"params": [Parameter(torch.ones(1))]}, {"params": [], "lr": 0.5}]
    for make in (torch.optim.SGD, descend.SGD):
        optimizer = make(copy.deepcopy(groups), lr=1.0)
        scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
        scheduler.step()
        assert scheduler.get_last_lr() == [0.5, 0.25]


@pytest.mark.parametrize("name", ["ExponentialLR: a negative gamma", "StepLR: a negative gamma"])
def test_a_negative_gamma_on_descends_optimizers(name):
    """It is written, as with torch; what the optimizer makes of it is the optimizer's."""
    scheduler = BY_NAME[name].build(lr_scheduler, optimizer_of(descend.SGD, 2))
    theirs = BY_NAME[name].build(TORCH, optimizer_of(groups=2))
    assert sequence(scheduler, 30) == pytest.approx(sequence(theirs, 30), rel=1e-12)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
def test_measures_that_are_not_finite_are_torchs(loss, mode, threshold_mode):
    seen = {}
    for module, m in MODULES.items():
        optimizer = one()
        options = {"mode": mode, "threshold_mode": threshold_mode, "factor": 0.5, "patience": 1}
        scheduler = m.ReduceLROnPlateau(optimizer, **options)
        values = []
        for measured in (loss, loss, 1.0, 1.0, loss, loss, loss, 2.0, 0.5, loss):
            scheduler.step(measured)
            values.append((lr_of(optimizer), scheduler.best, scheduler.num_bad_epochs))
        seen[module] = values
    assert seen["descend"] == seen["torch"]


@pytest.mark.parametrize(
    "given", [1, True, 1.5, torch.tensor(1.5), torch.tensor([1.5]), "numpy"], ids=repr
)
def test_measures_of_any_kind_of_number(given):
    scheduler = lr_scheduler.ReduceLROnPlateau(one())
    scheduler.step(np.float32(1.5) if given == "numpy" else given)
    assert scheduler.best == (1.0 if isinstance(given, int) else 1.5)
    assert type(scheduler.best) is float


@pytest.mark.parametrize("count", [1, 3])
def test_a_plateaus_lowest_lr_and_smallest_change_are_torchs(count):
    for options in (
        {"min_lr": 0.02, "factor": 0.3},
        {"min_lr": [0.05, 0.001, 0.0][:count], "factor": 0.5},
        {"eps": 0.004, "factor": 0.5},
        {"min_lr": 0.05, "factor": 0.9, "eps": 0.003},
        {"min_lr": 0.5, "factor": 0.1},
    ):
        seen = {}
        for module, m in MODULES.items():
            scheduler = m.ReduceLROnPlateau(optimizer_of(groups=count), patience=0, **options)
            values = []
            for _ in range(20):
                scheduler.step(1.0)
                values.append([lr for lr, _ in values_of(scheduler.optimizer)])
            seen[module] = np.array(values)
        assert seen["descend"] == pytest.approx(seen["torch"], rel=1e-12), options


def test_a_plateau_notes_the_initial_lr_in_the_groups():
    """As every scheduler does; torch's plateau does not."""
    optimizer = one(lr=0.25)
    lr_scheduler.ReduceLROnPlateau(optimizer)
    assert optimizer.param_groups[0]["initial_lr"] == 0.25
    other = one(lr=0.25)
    torch.optim.lr_scheduler.ReduceLROnPlateau(other)
    assert "initial_lr" not in other.param_groups[0]


def test_a_plateau_reduces_what_was_written_by_hand():
    seen = {}
    for module, m in MODULES.items():
        optimizer = one()
        scheduler = m.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, min_lr=0.1)
        values = []
        for epoch in range(10):
            if epoch == 4:
                optimizer.param_groups[0]["lr"] = 4.0
            scheduler.step(1.0)
            values.append(lr_of(optimizer))
        seen[module] = values
    assert seen["descend"] == pytest.approx(seen["torch"], rel=1e-12)


def test_a_plateau_beside_another_is_torchs():
    for other in (lambda m, o: m.ExponentialLR(o, 0.9), lambda m, o: m.StepLR(o, 3)):
        seen = {}
        for module, m in MODULES.items():
            optimizer = optimizer_of(groups=2)
            plateau = m.ReduceLROnPlateau(optimizer, factor=0.5, patience=2)
            second = other(m, optimizer)
            values = []
            for step in range(1, 30):
                advance(plateau, step)
                advance(second, step)
                values.append([lr for lr, _ in values_of(optimizer)])
            seen[module] = np.array(values)
        assert seen["descend"] == pytest.approx(seen["torch"], rel=1e-9)


# Nothing is warned of, whatever the order.


def test_no_warning_where_torch_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = torch.optim.SGD([Parameter(torch.ones(1))], lr=1.0)
        scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
        scheduler.step()
        scheduler.seek(3)
        scheduler.get_lr()
        optimizer.step()
        lr_scheduler.SequentialLR(optimizer, [lr_scheduler.ConstantLR(optimizer)], []).step()


def test_the_errors_are_descends():
    with pytest.raises(DescendError):
        lr_scheduler.StepLR(one(), 0)
    with pytest.raises(ValueError, match="step_size"):
        lr_scheduler.StepLR(one(), 0)
    with pytest.raises(TypeError, match="is not an Optimizer"):
        lr_scheduler.StepLR(None, 3)


def test_a_torch_scheduler_beside_one_of_ours():
    """Each finds what the other wrote: ours goes on from there, torch's chainable one too."""
    optimizer = one()
    ours = lr_scheduler.ExponentialLR(optimizer, 0.5)
    theirs = TORCH.StepLR(optimizer, 2, 0.1)
    values = []
    for _ in range(5):
        values.append(lr_of(optimizer))
        ours.step()
        theirs.step()
    assert values == pytest.approx([1.0, 0.5, 0.025, 0.0125, 0.000625])


@pytest.mark.parametrize(
    "whole",
    ["ChainedScheduler", "SequentialLR"],
)
def test_torchs_composed_schedulers_of_ours(whole):
    """They are instances of torch's, so it takes them."""
    seen = {}
    for module, m in MODULES.items():
        optimizer = one()
        parts = [m.LinearLR(optimizer, 0.1, total_iters=4), m.CosineAnnealingLR(optimizer, 12)]
        if whole == "SequentialLR":
            scheduler = TORCH.SequentialLR(optimizer, parts, [4])
        else:
            scheduler = TORCH.ChainedScheduler(parts)
        seen[module] = lrs(optimizer, scheduler, 15)
    assert seen["descend"] == pytest.approx(seen["torch"], rel=1e-9)


def test_programs_that_read_torchs_private_last_lr():
    scheduler = lr_scheduler.ExponentialLR(one(), 0.5)
    scheduler.step()
    assert scheduler._last_lr == [0.5]


def test_one_expression_is_the_class():
    for expression, build in (
        (
            warmup(5, start=0.2) >> cosine(20),
            lambda o: lr_scheduler.SequentialLR(
                o,
                [
                    lr_scheduler.LinearLR(o, 0.2, total_iters=5),
                    lr_scheduler.CosineAnnealingLR(o, 20),
                ],
                [5],
            ),
        ),
        (cosine(20), lambda o: lr_scheduler.CosineAnnealingLR(o, 20)),
        (linear(20), lambda o: lr_scheduler.PolynomialLR(o, 20)),
    ):
        mine, other = one(), one()
        assert lrs(mine, descend.Scheduler(mine, lr=expression), 20) == pytest.approx(
            lrs(other, build(other), 20), rel=1e-12
        )


def test_multiplicative_factors_are_all_multiplied_wherever_an_epoch_is_named():
    lrs = []
    for module, schedulers in ((descend, lr_scheduler), (torch.optim, torch.optim.lr_scheduler)):
        optimizer = module.SGD([Parameter(torch.ones(1))], lr=1.0)
        scheduler = schedulers.MultiplicativeLR(optimizer, lambda epoch: 0.5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the deprecation
            scheduler.step(3)
        lrs.append(optimizer.param_groups[0]["lr"])
    assert lrs == [0.125, 0.5]
