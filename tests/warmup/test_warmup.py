"""Warmups: beside pytorch_warmup, beside every scheduler, in every order."""

import contextlib
import copy
import doctest
import inspect
import itertools
import json
import math
import pickle
import random
import sys
import warnings

import mpmath
import pytest
import pytorch_warmup
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import Parameter

import descend
from descend import lr_scheduler, schedules, warmup
from descend.errors import ScheduleError, ScheduleTypeError, StateError

TORCHS = torch.optim.lr_scheduler
LRS = (0.1, 0.03, 0.007)
BETAS = ((0.9, 0.999), (0.8, 0.98), (0.9, 0.95))
PERIODS = (100, 37, 2000)
SPREAD = 1e-12  # relative, over thousands of steps: torch multiplies on and on

NAMES = ["BaseWarmup", "LinearWarmup", "ExponentialWarmup", "UntunedLinearWarmup"]
NAMES += ["UntunedExponentialWarmup", "RAdamWarmup", "rho_fn", "rho_inf_fn", "get_offset"]


def optimizer_of(make=torch.optim.AdamW, groups=1, tensor=None):
    """An optimizer of some groups, each with its own lr and betas; torch's has taken its step."""
    options = [{"lr": lr, "betas": betas} for lr, betas in zip(LRS, BETAS, strict=True)]
    if make in (torch.optim.SGD, descend.SGD):
        options = [{"lr": lr, "momentum": 0.9} for lr in LRS]
    if tensor is not None:
        options = [{**option, "lr": torch.tensor(option["lr"], dtype=tensor)} for option in options]
    made = make([{"params": [Parameter(torch.ones(1))], **o} for o in options[:groups]], lr=0.5)
    made._opt_called = True  # or torch's schedulers warn that the optimizer has not stepped
    return made


def lrs_of(optimizer):
    return [float(group["lr"]) for group in optimizer.param_groups]


def assert_near(got, expected, rel=SPREAD):
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=rel, abs=0.0)


def advance(scheduler, step):
    if scheduler is None:
        return
    if isinstance(scheduler, TORCHS.ReduceLROnPlateau) or getattr(scheduler, "_measuring", False):
        scheduler.step(1.0 / (1 + step // 4))
    else:
        scheduler.step()


def run(warming, scheduler, steps, first=0):
    """The lrs of each step."""
    seen = []
    for step in range(first, steps):
        if step > first:
            with warming.dampening():
                advance(scheduler, step)
        seen.append(lrs_of(warming.optimizer))
    return seen


def alone(scheduler, steps):
    """The lrs of each step, without a warmup."""
    seen = []
    for step in range(steps):
        if step > 0:
            advance(scheduler, step)
        seen.append(lrs_of(scheduler.optimizer))
    return seen


# Each scheduler, from torch's module or from descend's.

KINDS = {
    "LambdaLR": lambda m, o: m.LambdaLR(o, lambda epoch: 0.5 * 0.95**epoch),
    "MultiplicativeLR": lambda m, o: m.MultiplicativeLR(o, lambda epoch: 0.95),
    "StepLR": lambda m, o: m.StepLR(o, 3, gamma=0.5),
    "MultiStepLR": lambda m, o: m.MultiStepLR(o, [3, 5], gamma=0.5),
    "ConstantLR": lambda m, o: m.ConstantLR(o, 0.5, total_iters=4),
    "LinearLR": lambda m, o: m.LinearLR(o, 0.5, total_iters=4),
    "ExponentialLR": lambda m, o: m.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda m, o: m.PolynomialLR(o, 50, power=2.0),
    "CosineAnnealingLR": lambda m, o: m.CosineAnnealingLR(o, 40, eta_min=0.001),
    "CosineAnnealingWarmRestarts": lambda m, o: m.CosineAnnealingWarmRestarts(o, 7),
    "CyclicLR": lambda m, o: m.CyclicLR(o, 0.01, 0.1, 5),
    "OneCycleLR": lambda m, o: m.OneCycleLR(o, 0.1, 50),
    "ReduceLROnPlateau": lambda m, o: m.ReduceLROnPlateau(o, factor=0.5, patience=1),
    "SequentialLR": lambda m, o: m.SequentialLR(
        o, [m.LinearLR(o, 0.5, total_iters=4), m.CosineAnnealingLR(o, 40)], [6]
    ),
    "ChainedScheduler": lambda m, o: m.ChainedScheduler(
        [m.LinearLR(o, 0.5, total_iters=4), m.ExponentialLR(o, 0.9)]
    ),
}
OURS = {
    **{name: lambda o, make=make: make(lr_scheduler, o) for name, make in KINDS.items()},
    "Scheduler": lambda o: descend.Scheduler(
        o,
        lr=schedules.cosine(40),
        beta1=schedules.linear(40, schedules.value(0.9), schedules.value(0.8)),
    ),
    "SequentialLR with a plateau": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.StepLR(o, 2), KINDS["ReduceLROnPlateau"](lr_scheduler, o)], [5]
    ),
}
THEIRS = {name: lambda o, make=make: make(TORCHS, o) for name, make in KINDS.items()}

# Each warmup, from pytorch_warmup or from descend, for as many groups as there are.


def periods_of(optimizer):
    return list(PERIODS[: len(optimizer.param_groups)])


WARMUPS = {
    "LinearWarmup": lambda m, o: m.LinearWarmup(o, periods_of(o)),
    "ExponentialWarmup": lambda m, o: m.ExponentialWarmup(o, periods_of(o)),
    "UntunedLinearWarmup": lambda m, o: m.UntunedLinearWarmup(o),
    "UntunedExponentialWarmup": lambda m, o: m.UntunedExponentialWarmup(o),
    "RAdamWarmup": lambda m, o: m.RAdamWarmup(o),
}
OWN = {
    "ConstantWarmup": lambda m, o: m.ConstantWarmup(o, 10, factor=0.1),
    "LinearWarmup, one period": lambda m, o: m.LinearWarmup(o, 1000),
}

DECAYS = {
    "none": lambda m, o: None,
    "LambdaLR": lambda m, o: m.LambdaLR(o, lambda step: (step + 1) ** -0.5),
    "CosineAnnealingLR": lambda m, o: m.CosineAnnealingLR(o, 6000, eta_min=1e-4),
}


class Untruncated:
    """pytorch_warmup, with the untuned periods as the paper has them, not cut to an int."""

    LinearWarmup = pytorch_warmup.LinearWarmup
    ExponentialWarmup = pytorch_warmup.ExponentialWarmup
    RAdamWarmup = pytorch_warmup.RAdamWarmup

    class UntunedLinearWarmup(pytorch_warmup.LinearWarmup):
        def __init__(self, optimizer):
            periods = [2 / (1 - group["betas"][1]) for group in optimizer.param_groups]
            params = [{"warmup_period": period} for period in periods]
            pytorch_warmup.BaseWarmup.__init__(self, optimizer, params)

    class UntunedExponentialWarmup(pytorch_warmup.ExponentialWarmup):
        def __init__(self, optimizer):
            periods = [1 / (1 - group["betas"][1]) for group in optimizer.param_groups]
            params = [{"warmup_period": period} for period in periods]
            pytorch_warmup.BaseWarmup.__init__(self, optimizer, params)


# Beside pytorch_warmup.


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("name", WARMUPS)
def test_c4_the_lr_is_that_of_pytorch_warmup_over_5000_steps(name, decay, groups):
    theirs = optimizer_of(groups=groups)
    their_decay = DECAYS[decay](TORCHS, theirs)
    expected = run(WARMUPS[name](Untruncated, theirs), their_decay, 5000)
    ours = optimizer_of(groups=groups)
    warming = WARMUPS[name](warmup, ours)
    got = run(warming, DECAYS[decay](lr_scheduler, ours), 5000)
    for step, (here, there) in enumerate(zip(got, expected, strict=True)):
        for one, other in zip(here, there, strict=True):
            assert abs(one - other) <= SPREAD * other, step
    assert warming.last_step == 4999


@pytest.mark.parametrize("name", WARMUPS)
def test_c4_beside_torchs_scheduler_the_lr_is_that_of_pytorch_warmup(name):
    theirs, ours = optimizer_of(groups=3), optimizer_of(descend.AdamW, groups=3)
    their_decay, our_decay = (KINDS["StepLR"](TORCHS, optimizer) for optimizer in (theirs, ours))
    expected = run(WARMUPS[name](Untruncated, theirs), their_decay, 300)
    got = run(WARMUPS[name](warmup, ours), our_decay, 300)
    for here, there in zip(got, expected, strict=True):
        assert_near(here, there)


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_those_of_pytorch_warmup(name):
    ours, theirs = getattr(warmup, name), getattr(pytorch_warmup, name)
    pairs = [(ours, theirs)]
    if inspect.isclass(theirs):
        methods = ("__init__", "warmup_factor", "dampen", "dampening", "state_dict")
        pairs = [(getattr(ours, method), getattr(theirs, method)) for method in methods]
        assert issubclass(ours, warmup.BaseWarmup)
        assert issubclass(ours, descend.lr_scheduler.LRScheduler)
        assert ours.order is lr_scheduler.driver.Order.WARMUP
        for base in theirs.__mro__[1:-1]:
            assert issubclass(ours, getattr(warmup, base.__name__))
    for our, their in pairs:
        ours_take, theirs_take = (inspect.signature(f).parameters for f in (our, their))
        assert {n: p.default for n, p in ours_take.items()} == {
            n: p.default for n, p in theirs_take.items()
        }
        assert [p.kind for p in ours_take.values()] == [p.kind for p in theirs_take.values()]


def untuned(module, beta2, kind):
    optimizer = torch.optim.AdamW([Parameter(torch.ones(1))], lr=1.0, betas=(0.9, beta2))
    return getattr(module, kind)(optimizer)


@pytest.mark.parametrize("kind", ["UntunedLinearWarmup", "UntunedExponentialWarmup"])
@pytest.mark.parametrize("beta2", [0.5, 0.75, 0.9, 0.99609375, 0.9999])
def test_c4_where_the_untuned_period_is_whole_pytorch_warmup_agrees(kind, beta2):
    ours, theirs = (untuned(module, beta2, kind) for module in (warmup, pytorch_warmup))
    # Its 1 - exp(-x) loses the digits that x has below 1.
    rel = SPREAD if kind == "UntunedLinearWarmup" else 1e-11
    for _ in range(1000):
        assert_near(lrs_of(ours.optimizer), lrs_of(theirs.optimizer), rel)
        for warming in (ours, theirs):
            with warming.dampening():
                pass


@pytest.mark.parametrize(
    ("beta2", "linear", "exponential"),
    [(0.999, 1999, 999), (0.99, 199, 99), (0.98, 99, 49), (0.95, 39, 19), (0.97, 66, 33)],
)
def test_c4_the_untuned_period_is_the_papers_where_pytorch_warmup_cuts_it(
    beta2, linear, exponential
):
    for kind, cut, of_paper in (
        ("UntunedLinearWarmup", linear, 2 / (1 - beta2)),
        ("UntunedExponentialWarmup", exponential, 1 / (1 - beta2)),
    ):
        ours, theirs = (untuned(module, beta2, kind) for module in (warmup, pytorch_warmup))
        assert theirs.warmup_params == [{"warmup_period": cut}]
        assert ours.warmup_params == [{"warmup_period": of_paper}]
        assert lrs_of(ours.optimizer) != pytest.approx(lrs_of(theirs.optimizer), rel=1e-5)


@pytest.mark.parametrize("beta2", [0.61, 0.9, 0.95, 0.999, 0.9999, 0.999999])
def test_c4_the_untuned_factors_are_those_of_the_formula_and_of_the_schedules(beta2):
    exact = mpmath.mpf(1) - mpmath.mpf(beta2)
    with mpmath.workdps(50):
        for step in (0, 1, 7, 100, 1999, 12345):
            for kind, truth, schedule in (
                (
                    "UntunedLinearWarmup",
                    min(mpmath.mpf(1), exact * (step + 1) / 2),
                    schedules.untuned_linear(beta2),
                ),
                (
                    "UntunedExponentialWarmup",
                    1 - mpmath.exp(-exact * (step + 1)),
                    schedules.untuned_exponential(beta2),
                ),
            ):
                warming = untuned(warmup, beta2, kind)
                warming.seek(step)
                got = lrs_of(warming.optimizer)[0]
                assert abs(got - truth) <= 1e-15 * truth
                assert got == pytest.approx(schedule(step), rel=1e-15)
    if beta2 > 0.9999:  # the formula has no digits left
        with pytest.raises(ScheduleError, match=r"beta2 must be at most 0\.9999"):
            untuned(warmup, beta2, "RAdamWarmup")
        return
    warming = untuned(warmup, beta2, "RAdamWarmup")
    warming.seek(123)
    assert lrs_of(warming.optimizer) == [schedules.rectified(beta2)(123)]


@pytest.mark.parametrize("beta2", [0.601, 0.61, 0.7, 0.8, 0.9, 0.98, 0.999, 0.9999])
def test_c4_the_functions_of_radam_are_those_of_pytorch_warmup(beta2):
    limit = warmup.rho_inf_fn(beta2)
    assert limit == pytorch_warmup.rho_inf_fn(beta2)
    assert warmup.get_offset(beta2, limit) == pytorch_warmup.get_offset(beta2, limit)
    for count in (1, 2, 5, 10, 1000, 100_000):
        assert warmup.rho_fn(count, beta2, limit) == pytorch_warmup.rho_fn(count, beta2, limit)
        theirs = pytorch_warmup.rho_fn(count, beta2, limit + 1)
        assert warmup.rho_fn(count, beta2, limit + 1) == pytest.approx(theirs, rel=1e-12)


# Beside every scheduler.


@pytest.mark.parametrize("make", [torch.optim.AdamW, descend.AdamW])
@pytest.mark.parametrize("order", ["warmup first", "scheduler first"])
@pytest.mark.parametrize("name", OURS)
def test_c4_with_a_scheduler_of_descend_the_lr_is_the_product(name, order, make):
    expected = alone(OURS[name](optimizer_of(make, 3)), 30)
    optimizer = optimizer_of(make, 3)
    if order == "warmup first":
        warming = warmup.LinearWarmup(optimizer, 10)
        scheduler = OURS[name](optimizer)
    else:
        scheduler = OURS[name](optimizer)
        warming = warmup.LinearWarmup(optimizer, 10)
    for step in range(30):
        if step:
            with warming.dampening():
                advance(scheduler, step)
                assert_near(lrs_of(optimizer), expected[step], 0.0)
                assert scheduler.get_last_lr() == lrs_of(optimizer)
        product = [min(1.0, (step + 1) / 10) * lr for lr in expected[step]]
        assert_near(lrs_of(optimizer), product, 0.0)
        assert scheduler.get_last_lr() == warming.get_last_lr() == lrs_of(optimizer)
        assert_near(warming.lrs, expected[step], 0.0)


@pytest.mark.parametrize("make", [torch.optim.AdamW, descend.AdamW])
@pytest.mark.parametrize("name", THEIRS)
def test_c4_with_a_scheduler_of_torch_the_lr_is_the_product(name, make):
    reference = THEIRS[name](optimizer_of(make, 3))
    expected = alone(reference, 30)
    optimizer = optimizer_of(make, 3)
    scheduler = THEIRS[name](optimizer)
    noted = [group.get("initial_lr") for group in optimizer.param_groups]
    warming = warmup.ExponentialWarmup(optimizer, 10)
    for step in range(30):
        if step:
            with warming.dampening():
                advance(scheduler, step)
        product = [-math.expm1(-(step + 1) / 10) * lr for lr in expected[step]]
        assert_near(lrs_of(optimizer), product, 0.0)
        assert warming.get_last_lr() == lrs_of(optimizer)
        assert_near(warming.lrs, expected[step], 0.0)
    if noted[0] is not None:  # torch's schedulers go by it
        assert [group["initial_lr"] for group in optimizer.param_groups] == noted


@pytest.mark.parametrize("module", [TORCHS, lr_scheduler])
def test_c4_two_chained_schedulers_in_the_block(module):
    def chained(optimizer):
        return module.LinearLR(optimizer, 0.5, total_iters=20), module.ExponentialLR(optimizer, 0.9)

    plain, optimizer = optimizer_of(), optimizer_of()
    first, second = chained(plain)
    one, other = chained(optimizer)
    warming = warmup.LinearWarmup(optimizer, 7)
    for step in range(1, 30):
        first.step()
        second.step()
        with warming.dampening():
            one.step()
            other.step()
        assert_near(lrs_of(optimizer), [min(1, (step + 1) / 7) * lrs_of(plain)[0]])


@pytest.mark.parametrize("module", [TORCHS, lr_scheduler])
def test_c4_a_scheduler_that_starts_after_the_warmup(module):
    optimizer = optimizer_of()
    scheduler = module.StepLR(optimizer, 5, gamma=0.5)
    warming = warmup.LinearWarmup(optimizer, 8)
    for step in range(1, 40):
        with warming.dampening():
            if warming.last_step + 1 >= 8:
                scheduler.step()
        expected = 0.1 * min(1.0, (step + 1) / 8) * 0.5 ** (max(0, step - 7) // 5)
        assert_near(lrs_of(optimizer), [expected])


def test_c4_a_plateau_that_measures_each_epoch_and_a_warmup_of_each_step():
    for module, place in itertools.product((TORCHS, lr_scheduler), ("block", "outside")):
        optimizer = optimizer_of()
        plateau = module.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
        warming = warmup.LinearWarmup(optimizer, 40)
        for _epoch in range(6):
            for _ in range(4):
                with warming.dampening():
                    pass
            with warming.dampening():
                if place == "block":
                    plateau.step(1.0)
            if place == "outside":
                plateau.step(1.0)
        assert_near(lrs_of(optimizer), [0.1 * 0.5**5 * 31 / 40])


def test_c4_constant_then_jump():
    optimizer = optimizer_of(groups=3)
    warming = warmup.ConstantWarmup(optimizer, [2, 3, 1], factor=0.1)
    assert run(warming, None, 5) == [
        [0.1 * 0.1, 0.03 * 0.1, 0.007 * 0.1],
        [0.1 * 0.1, 0.03 * 0.1, 0.007],
        [0.1, 0.03 * 0.1, 0.007],
        [0.1, 0.03, 0.007],
        [0.1, 0.03, 0.007],
    ]
    assert warmup.ConstantWarmup(optimizer_of(), 5).warmup_factor(4, 5, 1 / 3) == 1 / 3


def test_c4_alone_as_any_scheduler():
    stepped, blocks, dampened, sought = (
        warmup.LinearWarmup(optimizer_of(groups=3), 10) for _ in range(4)
    )
    for step in range(1, 20):
        stepped.step()
        with blocks.dampening():
            pass
        dampened.dampen()
        sought.seek(step)
        expected = [lr * min(1.0, (step + 1) / 10) for lr in LRS]
        for warming in (stepped, blocks, dampened, sought):
            assert_near(lrs_of(warming.optimizer), expected, 0.0)
            assert warming.last_step == warming.last_epoch == step
            if warming is not sought:
                assert warming.state_dict()["_step_count"] == step + 1
            assert_near(warming.lrs, LRS, 0.0)
    assert stepped.preview(3)["lr"] == [[lr * (n / 10) for lr in LRS] for n in (1, 2, 3)]
    assert isinstance(stepped, TORCHS.LRScheduler)


def test_c4_between_two_steps():
    warming = warmup.LinearWarmup(optimizer_of(), 10)
    warming.step(2.5)
    assert_near(lrs_of(warming.optimizer), [0.1 * 3.5 / 10], 1e-15)
    with warming.dampening():
        pass
    assert_near(lrs_of(warming.optimizer), [0.1 * 4.5 / 10], 1e-15)


@given(
    st.sampled_from([name for name in OURS if "lateau" not in name]),
    st.sampled_from([*WARMUPS, *OWN]),
    st.booleans(),
    st.lists(st.sampled_from(["block", "block, empty", "step", "warmup", "seek"]), max_size=12),
    st.randoms(use_true_random=False),
)
def test_c4_whatever_is_stepped_the_lr_is_a_function_of_both_steps(kind, name, first, moves, draw):
    make = {**WARMUPS, **OWN}[name]
    optimizer, plain = optimizer_of(groups=3), optimizer_of(groups=3)
    if first:
        warming, scheduler = make(warmup, optimizer), OURS[kind](optimizer)
    else:
        scheduler, warming = OURS[kind](optimizer), make(warmup, optimizer)
    alone_there = OURS[kind](plain)
    for move in moves:
        if move.startswith("block"):
            with warming.dampening():
                if move == "block":
                    scheduler.step()
        elif move == "seek":
            warming.seek(draw.randint(0, 60))
        else:
            (scheduler if move == "step" else warming).step()
    if kind in ("ChainedScheduler", "SequentialLR"):
        for _ in range(scheduler.last_epoch):
            alone_there.step()
    else:
        alone_there.seek(scheduler.last_epoch)
    factors = [
        warming.warmup_factor(warming.last_step, **params) for params in warming.warmup_params
    ]
    bases = lrs_of(plain)
    expected = [lr * factor for lr, factor in zip(bases, factors, strict=True)]
    assert lrs_of(optimizer) == expected
    assert warming.lrs == bases


# A scheduler of torch that is built later.


def quietly(name, optimizer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return THEIRS[name](optimizer)


@pytest.mark.parametrize("name", THEIRS)
def test_a_scheduler_of_torch_that_is_built_later_is_right_or_refused(name):
    expected = alone(THEIRS[name](optimizer_of()), 20)
    optimizer = optimizer_of()
    warming = warmup.LinearWarmup(optimizer, 10)
    before = lrs_of(optimizer)
    scheduler = THEIRS[name](optimizer)
    written = lrs_of(optimizer)
    if written == before:
        for step in range(1, 20):
            with warming.dampening():
                advance(scheduler, step)
            assert_near(lrs_of(optimizer), [min(1, (step + 1) / 10) * expected[step][0]])
        return
    with pytest.raises(ScheduleError, match="built after the warmup"), warming.dampening():
        raise AssertionError
    assert lrs_of(optimizer) == written
    assert warming.last_step == 0


def test_a_scheduler_of_torch_that_is_built_later_is_right_after_a_load():
    def built():
        optimizer = optimizer_of()
        warming = warmup.LinearWarmup(optimizer, 10)
        return optimizer, warming, THEIRS["LambdaLR"](optimizer)

    optimizer = optimizer_of()
    scheduler = THEIRS["LambdaLR"](optimizer)
    warming = warmup.LinearWarmup(optimizer, 10)
    run(warming, scheduler, 4)
    states = [part.state_dict() for part in (optimizer, warming, scheduler)]
    resumed, warming_there, scheduler_there = built()
    for part, state in zip((resumed, warming_there, scheduler_there), states, strict=True):
        part.load_state_dict(state)
    assert run(warming_there, scheduler_there, 9, 3) == run(warming, scheduler, 9, 3)


# P29 and P30.


def test_p29_there_is_a_warmup():
    optimizer = optimizer_of()
    scheduler = descend.Scheduler(optimizer, lr=schedules.warmup(4) >> schedules.cosine(4))
    assert_near(scheduler.preview(9)["lr"][2], [0.05])
    warming = warmup.LinearWarmup(optimizer_of(), 4)
    assert [lrs for (lrs,) in warming.preview(5)["lr"]] == [0.025, 0.05, 0.1 * 0.75, 0.1, 0.1]


@pytest.mark.parametrize("make", [torch.optim.SGD, descend.SGD, torch.optim.AdamW, descend.AdamW])
def test_p29_a_schedule_for_weight_decay_beside_a_warmup(make):
    optimizer = optimizer_of(make)
    optimizer.param_groups[0]["weight_decay"] = 0.5
    warming = warmup.LinearWarmup(optimizer, 4)
    scheduler = descend.Scheduler(
        optimizer, weight_decay=schedules.linear(4, schedules.value(0.1), schedules.value(0.3))
    )
    seen = []
    for _ in range(5):
        seen.append((optimizer.param_groups[0]["weight_decay"], optimizer.param_groups[0]["lr"]))
        with warming.dampening():
            scheduler.step()
    decays, lrs = zip(*seen, strict=True)
    assert_near(decays, [0.1, 0.15, 0.2, 0.25, 0.3])
    assert_near(lrs, [0.025, 0.05, 0.075, 0.1, 0.1])


def test_p29_a_schedule_for_each_group_beside_a_warmup_for_each():
    optimizer = optimizer_of(groups=3)
    warming = warmup.LinearWarmup(optimizer, [1, 2, 4])
    scheduler = descend.Scheduler(
        optimizer, lr=[schedules.constant(), schedules.exponential(0.5), None]
    )
    run(warming, scheduler, 3)
    assert_near(lrs_of(optimizer), [0.1, 0.03 * 0.5**2, 0.007 * 3 / 4])


def built_first(module, schedulers, name):
    """The warmup is built before the scheduler, and both are stepped to beyond its end."""
    optimizer = optimizer_of()
    warming = module.LinearWarmup(optimizer, 10)
    scheduler = KINDS[name](schedulers, optimizer)
    run(warming, scheduler, 20)
    return lrs_of(optimizer)[0]


def test_p30_built_before_the_scheduler_the_lr_is_right():
    for name in KINDS:
        truth = alone(OURS[name](optimizer_of()), 20)[-1][0]
        assert built_first(warmup, lr_scheduler, name) == truth
    truth = 0.1 * 0.5 * 0.95**19
    assert built_first(pytorch_warmup, TORCHS, "LambdaLR") == pytest.approx(truth / 10)
    with pytest.raises(ScheduleError, match="build the warmup after it"):
        built_first(warmup, TORCHS, "LambdaLR")


def with_a_group_added(module, schedulers):
    optimizer = optimizer_of()
    scheduler = schedulers.StepLR(optimizer, 100)
    warming = module.LinearWarmup(optimizer, 10)
    run(warming, scheduler, 3)
    optimizer.add_param_group({"params": [Parameter(torch.ones(1))], "lr": 0.5})
    with warming.dampening():
        scheduler.step()
    return lrs_of(optimizer)


def test_p30_a_group_that_is_added_later_is_warmed():
    assert_near(with_a_group_added(pytorch_warmup, TORCHS), [0.04, 0.5])
    assert_near(with_a_group_added(warmup, lr_scheduler), [0.04, 0.5 * 4 / 10])
    assert_near(with_a_group_added(warmup, TORCHS), [0.04, 0.5 * 4 / 10])


def told(module, schedulers):
    optimizer = optimizer_of()
    scheduler = schedulers.ExponentialLR(optimizer, 0.98)
    warming = module.LinearWarmup(optimizer, 10)
    run(warming, scheduler, 4)
    return scheduler.get_last_lr()[0], lrs_of(optimizer)[0], warming


def test_p30_the_scheduler_tells_the_dampened_lr():
    said, true, _ = told(pytorch_warmup, TORCHS)
    assert said == pytest.approx(2.5 * true)
    said, true, warming = told(warmup, lr_scheduler)
    assert said == true == warming.get_last_lr()[0] == pytest.approx(0.1 * 0.98**3 * 0.4)
    _, true, warming = told(warmup, TORCHS)  # torch's scheduler knows its own only
    assert warming.get_last_lr()[0] == true == pytest.approx(0.1 * 0.98**3 * 0.4)


# Groups.


@pytest.mark.parametrize("name", ["UntunedLinearWarmup", "UntunedExponentialWarmup", "RAdamWarmup"])
def test_a_group_that_is_added_later_is_warmed_by_its_own_betas(name):
    optimizer = optimizer_of()
    warming = WARMUPS[name](warmup, optimizer)
    group = {"params": [Parameter(torch.ones(1))], "lr": LRS[1], "betas": BETAS[1]}
    optimizer.add_param_group(group)
    for _ in range(5):
        with warming.dampening():
            pass
    both = WARMUPS[name](warmup, optimizer_of(groups=2))
    both.seek(5)
    assert lrs_of(optimizer) == lrs_of(both.optimizer)
    assert warming.warmup_params == both.warmup_params
    assert warming.state_dict()["warmup_params"] == both.state_dict()["warmup_params"]


def test_a_group_that_is_added_later_where_each_has_its_own_period():
    optimizer = optimizer_of(groups=2)
    warming = warmup.LinearWarmup(optimizer, [5, 10])
    optimizer.add_param_group({"params": [Parameter(torch.ones(1))], "lr": 1.0})
    before = lrs_of(optimizer)
    with (
        pytest.raises(ScheduleError, match=r"3 groups and 2 .* append"),
        warming.dampening(),
    ):
        pass
    assert lrs_of(optimizer) == before
    assert warming.last_step == 0
    warming.warmup_params = [{"warmup_period": n} for n in (5, 10, 20)]
    with warming.dampening():
        pass
    assert_near(lrs_of(optimizer), [0.1 * 2 / 5, 0.03 * 2 / 10, 2 / 20])


@pytest.mark.parametrize("module", [TORCHS, lr_scheduler])
def test_a_group_that_is_added_in_the_block(module):
    optimizer = optimizer_of()
    scheduler = module.ExponentialLR(optimizer, 0.5)
    warming = warmup.LinearWarmup(optimizer, 10)
    with warming.dampening():
        scheduler.step()
        optimizer.add_param_group({"params": [Parameter(torch.ones(1))], "lr": 1.0})
    # The curve goes on from what is there when the group comes.
    assert_near(lrs_of(optimizer), [0.05 * 0.2, 0.2])
    with warming.dampening():
        scheduler.step()
    assert_near(lrs_of(optimizer), [0.025 * 0.3, 0.5 * 0.3])


# An lr that is written by hand, and lr tensors.


def test_an_lr_that_is_written_by_hand_goes_on_from_there():
    for make in (None, lambda o: lr_scheduler.ExponentialLR(o, 0.5)):
        optimizer = optimizer_of()
        scheduler = make and make(optimizer)
        warming = warmup.LinearWarmup(optimizer, 10)
        run(warming, scheduler, 4)
        held = lrs_of(optimizer)[0]
        optimizer.param_groups[0]["lr"] = held / 2
        with warming.dampening():
            advance(scheduler, 4)
        expected = held / 2 * 5 / 4 * (0.5 if scheduler else 1)
        assert_near(lrs_of(optimizer), [expected])


def test_dampen_takes_what_was_written_since_as_undampened():
    theirs, ours = optimizer_of(), optimizer_of()
    pairs = []
    for module, optimizer in ((pytorch_warmup, theirs), (warmup, ours)):
        scheduler = THEIRS["LambdaLR"](optimizer)
        pairs.append((scheduler, module.LinearWarmup(optimizer, 10)))
    for step in range(20):
        for scheduler, warming in pairs:
            scheduler.step()
            warming.dampen(*([step + 1] if step % 3 else []))
        assert_near(lrs_of(ours), lrs_of(theirs))
        assert [w.last_step for _, w in pairs] == [step + 1] * 2


@pytest.mark.parametrize("tensor", [None, torch.float64])
@pytest.mark.parametrize("block", [True, False])
@pytest.mark.parametrize("name", ["LambdaLR", "LinearLR"])
def test_an_lr_that_no_base_gives_is_dampened_and_holds_for_one_step(name, block, tensor):
    """Beside LambdaLR, which begins with the base; or where a curve has come to 0."""
    optimizer = optimizer_of(descend.SGD, 2, tensor)
    arguments = {"LambdaLR": (lambda step: 0.5**step,), "LinearLR": (1.0, 0.0, 1)}[name]
    scheduler = getattr(lr_scheduler, name)(optimizer, *arguments)
    warming = warmup.LinearWarmup(optimizer, 10)
    for step in range(1, 5):
        curve = scheduler.preview(5)["lr"][step]
        with warming.dampening() if block else contextlib.nullcontext():
            scheduler.step()
            if step % 2:
                group = optimizer.param_groups[1]
                group["lr"] = group["lr"] * 0 + 0.06  # a number or a tensor
        if not block:
            warming.dampen()
        expected = [curve[0], 0.06 if step % 2 else curve[1]]
        assert_near(lrs_of(optimizer), [lr * (step + 1) / 10 for lr in expected])


def test_dampen_beside_descends_scheduler_is_a_step():
    optimizer = optimizer_of()
    warming, scheduler = (
        warmup.LinearWarmup(optimizer, 10),
        lr_scheduler.ExponentialLR(optimizer, 0.5),
    )
    scheduler.step()
    warming.dampen()
    assert_near(lrs_of(optimizer), [0.05 * 0.2], 1e-15)
    warming.dampen(7)
    assert_near(lrs_of(optimizer), [0.05 * 0.8], 1e-15)


@pytest.mark.parametrize("step", [-1, math.nan, "3"])
def test_a_refused_dampen_takes_nothing_over(step):
    optimizer = optimizer_of()
    warming = warmup.LinearWarmup(optimizer, 10)
    before = position(warming)
    optimizer.param_groups[0]["lr"] = 0.05
    with pytest.raises(ScheduleError, match="must be a number of at least 0"):
        warming.dampen(step)
    assert lrs_of(optimizer) == [0.05]
    warming.step()
    assert_near(lrs_of(optimizer), [0.05 * 2])  # what was written counts as dampened still
    assert position(warming) != before


def test_groups_that_share_a_tensor_are_warmed_each_by_its_own_period():
    shared = torch.tensor(0.5, dtype=torch.float64)
    groups = [{"params": [Parameter(torch.ones(1))]} for _ in range(2)]
    optimizer = torch.optim.SGD(groups, lr=shared)
    warming = warmup.LinearWarmup(optimizer, [5, 10])
    for step in range(12):
        assert_near(lrs_of(optimizer), [0.5 * min(1, (step + 1) / n) for n in (5, 10)])
        with warming.dampening():
            pass


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("module", [TORCHS, lr_scheduler])
@pytest.mark.parametrize("make", [torch.optim.AdamW, descend.AdamW])
def test_lr_tensors_are_filled_in_place(make, module, dtype):
    optimizer, plain = optimizer_of(make, 2, tensor=dtype), optimizer_of(make, 2)
    held = [group["lr"] for group in optimizer.param_groups]
    warmed = []
    for one in (optimizer, plain):
        scheduler = module.LinearLR(one, 0.5, total_iters=10)
        warmed.append((warmup.LinearWarmup(one, 10), scheduler))
    for _step in range(1, 20):
        for warming, scheduler in warmed:
            with warming.dampening():
                scheduler.step()
        rel = SPREAD if dtype is torch.float64 else 1e-6
        assert_near(lrs_of(optimizer), lrs_of(plain), rel)
    for group, tensor in zip(optimizer.param_groups, held, strict=True):
        assert group["lr"] is tensor
    last = warmed[0][0].get_last_lr()
    assert all(isinstance(lr, torch.Tensor) for lr in last)
    assert all(lr is not tensor for lr, tensor in zip(last, held, strict=True))


@pytest.mark.parametrize("before", [TORCHS, lr_scheduler])
def test_an_lr_by_hand_and_a_new_scheduler_leave_the_warmup_at_work(before):
    optimizer = optimizer_of()
    earlier = before.LambdaLR(optimizer, lambda step: 0.5**step)
    warming = warmup.LinearWarmup(optimizer, 20)
    run(warming, earlier, 3)
    optimizer.param_groups[0]["lr"] = 0.5
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.9)
    run(warming, scheduler, 4)
    assert_near(lrs_of(optimizer), [0.5 * 0.9**3 * 6 / 20])


# The block.


class StopItError(Exception):
    pass


def stopped(warming, *moves):
    """A block that raises at its end."""
    with warming.dampening():
        for move in moves:
            move()
        raise StopItError


def position(scheduler):
    return json.dumps(scheduler.state_dict(), sort_keys=True, default=str)


@pytest.mark.parametrize("when", [1, 9])
@pytest.mark.parametrize("name", OURS)
def test_a_block_that_raises_puts_everything_back(name, when):
    optimizer, other = optimizer_of(groups=2), optimizer_of(groups=2)
    pairs = []
    for one in (optimizer, other):
        scheduler = OURS[name](one)
        pairs.append((warmup.LinearWarmup(one, 20), scheduler))
    (warming, scheduler), undisturbed = pairs
    for pair in pairs:
        run(*pair, when)
    before = [copy.deepcopy(group) for group in optimizer.param_groups], position(scheduler)
    before = (*before, position(warming))
    for _ in range(2):
        with pytest.raises(StopItError):
            stopped(warming, lambda: advance(scheduler, when), lambda: advance(scheduler, when + 1))
    for group, saved in zip(optimizer.param_groups, before[0], strict=True):
        for key, value in saved.items():
            if key != "params":
                assert group[key] == value
    assert (position(scheduler), position(warming)) == before[1:]
    assert run(warming, scheduler, 25, when) == run(*undisturbed, 25, when)


def test_a_block_that_raises_puts_the_lr_back_beside_torchs_schedulers():
    optimizer = optimizer_of(groups=2)
    scheduler = THEIRS["ExponentialLR"](optimizer)
    warming = warmup.LinearWarmup(optimizer, 20)
    run(warming, scheduler, 3)
    before = lrs_of(optimizer), warming.lrs, warming.last_step, position(warming)
    with pytest.raises(StopItError):
        stopped(warming, scheduler.step)
    assert (lrs_of(optimizer), warming.lrs, warming.last_step, position(warming)) == before
    with warming.dampening():
        scheduler.step()
    assert_near(lrs_of(optimizer), [lr * 0.9**3 * 4 / 20 for lr in LRS[:2]])


def test_a_block_that_raises_puts_the_base_back():
    optimizer = optimizer_of()
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    warming = warmup.LinearWarmup(optimizer, 20)
    run(warming, scheduler, 3)
    before = dict(optimizer.param_groups[0])

    def halve():
        optimizer.param_groups[0]["lr"] /= 2

    with pytest.raises(StopItError):
        stopped(warming, halve, scheduler.step)
    assert optimizer.param_groups[0] == before
    with warming.dampening():
        halve()
        scheduler.step()
    assert_near(lrs_of(optimizer), [0.1 / 2 * 0.5**3 * 4 / 20])


def test_a_block_that_raises_puts_back_what_a_scheduler_has_set_aside():
    def built():
        optimizer = optimizer_of()
        cycle = lr_scheduler.CyclicLR(optimizer, 0.1, 0.5, 10, cycle_momentum=False)
        decay = lr_scheduler.ExponentialLR(optimizer, 1e-4)
        warming = warmup.LinearWarmup(optimizer, 20)
        cycle.step()
        decay.step()
        cycle.step()
        return optimizer, cycle, decay, warming

    # The decay stands still, near 0, from here on: the next step of the cycle sets it aside.
    optimizer, cycle, decay, warming = built()
    other, _, falling, warm = built()
    with pytest.raises(StopItError):
        stopped(warming, cycle.step)
    assert lrs_of(optimizer) == lrs_of(other)
    for warmed in (warming, warm):
        with warmed.dampening():
            pass
    assert lrs_of(optimizer) == lrs_of(other)
    assert lrs_of(optimizer)[0] < 1e-5
    assert decay.state_dict() == falling.state_dict()


def test_a_block_that_raises_puts_a_momentum_by_hand_back():
    def built():
        optimizer = optimizer_of(torch.optim.SGD)
        cycle = lr_scheduler.OneCycleLR(optimizer, 0.5, 40)
        return optimizer, cycle, warmup.LinearWarmup(optimizer, 20)

    optimizer, cycle, warming = built()
    other, undisturbed, warm = built()
    for one, scheduler, warmed in ((optimizer, cycle, warming), (other, undisturbed, warm)):
        run(warmed, scheduler, 4)
        one.param_groups[0]["momentum"] = 0.5
    before = dict(optimizer.param_groups[0])
    with pytest.raises(StopItError):
        stopped(warming, cycle.step)
    assert optimizer.param_groups[0]["momentum"] == 0.5
    assert optimizer.param_groups[0]["lr"] == before["lr"]
    assert run(warming, cycle, 9, 4) == run(warm, undisturbed, 9, 4)
    assert optimizer.param_groups[0]["momentum"] == other.param_groups[0]["momentum"]


class Broken(warmup.LinearWarmup):
    def warmup_factor(self, step, warmup_period):
        if step == 3:
            raise StopItError
        return super().warmup_factor(step, warmup_period)


def test_a_factor_that_raises_takes_nothing_over():
    optimizer = optimizer_of()
    scheduler = THEIRS["ExponentialLR"](optimizer)
    warming = Broken(optimizer, 10)
    run(warming, scheduler, 3)
    before = lrs_of(optimizer), warming.lrs, position(warming)
    with pytest.raises(StopItError):
        run(warming, scheduler, 5, 3)
    assert (lrs_of(optimizer), warming.lrs, position(warming)) == before


def test_a_factor_that_raises_leaves_everything_as_it_was():
    optimizer = optimizer_of()
    warming, scheduler = Broken(optimizer, 10), lr_scheduler.ExponentialLR(optimizer, 0.5)
    run(warming, scheduler, 3)
    before = lrs_of(optimizer), warming.last_step, scheduler.last_epoch
    for move in (warming.step, warming.dampen, lambda: run(warming, scheduler, 5, 3)):
        with pytest.raises(StopItError):
            move()
        assert (lrs_of(optimizer), warming.last_step, scheduler.last_epoch) == before


def test_the_warmup_itself_cannot_be_stepped_in_its_block():
    optimizer = optimizer_of()
    warming = warmup.LinearWarmup(optimizer, 10)
    moves = {
        "step": warming.step,
        "dampen": warming.dampen,
        "dampening": lambda: warming.dampening().__enter__(),
    }
    for name, move in moves.items():
        refusal = rf"{name}\(\) was called in a block .* leave it out"
        with pytest.raises(ScheduleError, match=refusal), warming.dampening():
            move()
        assert warming.last_step == 0
        assert lrs_of(optimizer) == [0.1 * 0.1]
    warming.step()
    assert warming.last_step == 1


def test_a_warmup_in_a_scheduler_of_several_is_stepped_there():
    optimizer = optimizer_of()
    warming = warmup.LinearWarmup(optimizer, 10)
    chained = lr_scheduler.ChainedScheduler([warming, lr_scheduler.ExponentialLR(optimizer, 0.5)])
    chained.step()
    assert_near(lrs_of(optimizer), [0.05 * 0.2], 1e-15)
    with pytest.raises(ScheduleError, match="part of a ChainedScheduler"), warming.dampening():
        pass
    assert_near(lrs_of(optimizer), [0.05 * 0.2], 1e-15)


@pytest.mark.parametrize("module", [TORCHS, lr_scheduler])
def test_two_warmups_multiply(module):
    for inner, outer in ((0, 1), (1, 0)):
        optimizer = optimizer_of()
        scheduler = module.ExponentialLR(optimizer, 0.5)
        both = warmup.LinearWarmup(optimizer, 10), warmup.ExponentialWarmup(optimizer, 5)
        for step in range(1, 6):
            with both[outer].dampening(), both[inner].dampening():
                scheduler.step()
            factor = (step + 1) / 10 * -math.expm1(-(step + 1) / 5)
            assert_near(lrs_of(optimizer), [0.1 * 0.5**step * factor])


# Stop, and go on.


PARTS = ("optimizer", "scheduler", "warmup")


def resumed(make_optimizer, make_scheduler, make_warmup, order, at, steps):
    """The lrs from step `at` on of a run that went on, and of one that was loaded there."""

    def built():
        optimizer = make_optimizer()
        scheduler = make_scheduler(optimizer)
        return {"optimizer": optimizer, "scheduler": scheduler, "warmup": make_warmup(optimizer)}

    there = built()
    run(there["warmup"], there["scheduler"], at + 1)
    states = {name: copy.deepcopy(part.state_dict()) for name, part in there.items()}
    here = built()
    for name in order:
        here[name].load_state_dict(states[name])
    return [run(run_["warmup"], run_["scheduler"], steps, at) for run_ in (there, here)]


@pytest.mark.parametrize("order", list(itertools.permutations(PARTS)))
@pytest.mark.parametrize("make", [torch.optim.AdamW, descend.AdamW])
@pytest.mark.parametrize("kind", ["torch", "descend"])
def test_c4_after_loads_in_any_order_every_bit_is_the_same(kind, make, order):
    for (name, scheduler), at in zip(
        (THEIRS if kind == "torch" else OURS).items(), itertools.cycle((5, 1, 12))
    ):
        warming = random.Random(name).choice(list({**WARMUPS, **OWN}.values()))
        there, here = resumed(
            lambda: optimizer_of(make, 3),
            scheduler,
            lambda o, w=warming: w(warmup, o),
            order,
            at,
            25,
        )
        assert here == there, name


@pytest.mark.parametrize("name", [*WARMUPS, *OWN])
def test_c4_each_warmup_goes_on_bit_for_bit(name):
    for kind, order in itertools.product(
        (OURS["SequentialLR"], THEIRS["SequentialLR"]),
        (PARTS, PARTS[::-1]),
    ):
        make = {**WARMUPS, **OWN}[name]
        there, here = resumed(
            lambda: optimizer_of(groups=3), kind, lambda o, make=make: make(warmup, o), order, 7, 60
        )
        assert here == there


SET_ASIDE = (
    "build warmup",
    "load warmup",
    "load optimizer",
    "build scheduler",
    "load scheduler",
)


def builds_and_loads():
    """Every order of building and loading a scheduler and a warmup, and loading the optimizer."""
    steps = ["build scheduler", "load scheduler", "build warmup", "load warmup", "load optimizer"]
    for order in itertools.permutations(steps):
        if all(
            order.index(f"build {name}") < order.index(f"load {name}")
            for name in ("scheduler", "warmup")
        ):
            yield order


def in_order(order, kind, states):
    parts = {"optimizer": optimizer_of(groups=2)}
    makers = {"scheduler": kind, "warmup": lambda o: warmup.LinearWarmup(o, 10)}
    for step in order:
        verb, name = step.split()
        if verb == "build":
            parts[name] = makers[name](parts["optimizer"])
        else:
            parts[name].load_state_dict(copy.deepcopy(states[name]))  # torch's loads spoil them
    return parts


@pytest.mark.parametrize("name", OURS)
def test_c4_building_and_loading_in_any_order(name):
    there = in_order(["build scheduler", "build warmup"], OURS[name], {})
    run(there["warmup"], there["scheduler"], 5)
    states = {part: copy.deepcopy(made.state_dict()) for part, made in there.items()}
    expected = run(there["warmup"], there["scheduler"], 20, 4)
    for order in builds_and_loads():
        if order != SET_ASIDE:
            here = in_order(order, OURS[name], states)
            assert run(here["warmup"], here["scheduler"], 20, 4) == expected, order


def test_c4_a_scheduler_that_is_built_last_leaves_the_warmup_at_work():
    there = in_order(["build scheduler", "build warmup"], OURS["StepLR"], {})
    run(there["warmup"], there["scheduler"], 5)
    states = {part: copy.deepcopy(made.state_dict()) for part, made in there.items()}
    expected = run(there["warmup"], there["scheduler"], 20, 4)
    here = in_order(SET_ASIDE, OURS["StepLR"], states)
    assert run(here["warmup"], here["scheduler"], 20, 4) == expected


def test_p30_a_group_that_is_added_before_the_scheduler_is_built():
    optimizer = optimizer_of(groups=2)
    warming = warmup.LinearWarmup(optimizer, 10)
    optimizer.add_param_group({"params": [Parameter(torch.ones(1))], "lr": 0.5})
    run(warming, lr_scheduler.ExponentialLR(optimizer, 0.5), 3)
    assert_near(lrs_of(optimizer), [lr * 0.25 * 0.3 for lr in (0.1, 0.03, 0.5)])


def test_c4_an_optimizers_state_without_schedulers_may_be_loaded_last():
    plain, optimizer = optimizer_of(), optimizer_of()
    state = warmup.LinearWarmup(optimizer_of(), 10, last_step=3).state_dict()
    plain.param_groups[0]["lr"] = state["_last_lr"][0]
    warming = warmup.LinearWarmup(optimizer, 10)
    warming.load_state_dict(state)
    optimizer.load_state_dict(plain.state_dict())
    with warming.dampening():
        pass
    assert_near(lrs_of(optimizer), [0.06])


@pytest.mark.parametrize("name", THEIRS)
def test_c4_with_torchs_scheduler_built_first_any_order(name):
    there = in_order(["build scheduler", "build warmup"], THEIRS[name], {})
    run(there["warmup"], there["scheduler"], 5)
    states = {part: copy.deepcopy(made.state_dict()) for part, made in there.items()}
    expected = run(there["warmup"], there["scheduler"], 20, 4)
    for order in builds_and_loads():
        if order.index("build scheduler") < order.index("build warmup"):
            here = in_order(order, THEIRS[name], states)
            assert run(here["warmup"], here["scheduler"], 20, 4) == expected, order


@pytest.mark.parametrize("name", [*WARMUPS, *OWN])
def test_the_state_is_plain_data(name):
    optimizer = optimizer_of(groups=3)
    scheduler = THEIRS["ExponentialLR"](optimizer)
    warming = {**WARMUPS, **OWN}[name](warmup, optimizer)
    run(warming, scheduler, 5)
    state = warming.state_dict()
    assert json.loads(json.dumps(state)) == state
    assert state["last_step"] == 4
    assert state["lrs"] == warming.lrs
    assert state["warmup_params"] == warming.warmup_params


@pytest.mark.parametrize("kind", ["none", "torch", "torch's one cycle", "descend"])
@pytest.mark.parametrize("name", WARMUPS)
def test_the_state_of_pytorch_warmup_is_read(name, kind):
    makers = {
        "none": (lambda o: None, lambda o: None),
        "torch": (THEIRS["ExponentialLR"], THEIRS["ExponentialLR"]),
        "torch's one cycle": (THEIRS["OneCycleLR"], THEIRS["OneCycleLR"]),
        "descend": (THEIRS["ExponentialLR"], OURS["ExponentialLR"]),
    }[kind]
    theirs = optimizer_of(groups=3)
    their_scheduler = makers[0](theirs)
    their_warmup = WARMUPS[name](pytorch_warmup, theirs)
    run(their_warmup, their_scheduler, 5)
    states = {"optimizer": theirs.state_dict(), "warmup": their_warmup.state_dict()}
    if their_scheduler:
        states["scheduler"] = their_scheduler.state_dict()
    states = copy.deepcopy(states)
    expected = run(their_warmup, their_scheduler, 40, 4)
    # Its untuned periods are cut to an int.
    rel = 0.06 if "Untuned" in name else SPREAD
    for order in itertools.permutations(states):
        if kind == "none" and order[-1] == "optimizer":
            continue  # its groups have no base
        ours = optimizer_of(groups=3)
        scheduler = makers[1](ours)
        parts = {"optimizer": ours, "scheduler": scheduler, "warmup": WARMUPS[name](warmup, ours)}
        for part in order:
            parts[part].load_state_dict(states[part])
        got = run(parts["warmup"], scheduler, 40, 4)
        for here, there in zip(got, expected, strict=True):
            assert_near(here, there, rel)


def test_the_state_of_pytorch_warmup_is_read_where_torchs_scheduler_was_built_later():
    theirs, ours = optimizer_of(), optimizer_of()
    their_scheduler = THEIRS["OneCycleLR"](theirs)
    their_warmup = pytorch_warmup.LinearWarmup(theirs, 10)
    run(their_warmup, their_scheduler, 5)
    our_warmup = warmup.LinearWarmup(ours, 10)
    our_scheduler = THEIRS["OneCycleLR"](ours)
    pairs = [(theirs, ours), (their_scheduler, our_scheduler), (their_warmup, our_warmup)]
    for their, our in pairs:
        our.load_state_dict(copy.deepcopy(their.state_dict()))
    expected, got = (run(w, s, 40, 4) for w, s in zip(pairs[2], pairs[1], strict=True))
    for here, there in zip(got, expected, strict=True):
        assert_near(here, there)


def test_pytorch_warmup_reads_our_state():
    ours, theirs = optimizer_of(groups=2), optimizer_of(groups=2)
    our_warmup, their_warmup = (
        warmup.LinearWarmup(ours, 20),
        pytorch_warmup.LinearWarmup(theirs, 20),
    )
    run(our_warmup, None, 5)
    their_warmup.load_state_dict(our_warmup.state_dict())
    for one in (our_warmup, their_warmup):
        with one.dampening():
            pass
    assert_near(lrs_of(theirs), lrs_of(ours))


def test_a_state_of_another_configuration_is_refused_unless_asked_for():
    saved = warmup.LinearWarmup(optimizer_of(groups=2), 20)
    saved.seek(6)
    theirs = pytorch_warmup.LinearWarmup(optimizer_of(groups=2), 20, last_step=5)
    for state in (saved.state_dict(), theirs.state_dict()):
        here = warmup.LinearWarmup(optimizer_of(groups=2), 10)
        before = lrs_of(here.optimizer)
        with pytest.raises(StateError, match=r"warmup_params=.*20"):
            here.load_state_dict(state)
        assert lrs_of(here.optimizer) == before
        assert here.last_step == 0
        here.load_state_dict(state, strict=False)
        assert here.last_step == 6
        assert_near(lrs_of(here.optimizer), [0.1 * 0.7, 0.03 * 0.7])
        fewer = warmup.LinearWarmup(optimizer_of(groups=1), 20)
        with pytest.raises(StateError):
            fewer.load_state_dict(state)
        fewer.load_state_dict(state, strict=False)
        assert_near(lrs_of(fewer.optimizer), [0.1 * 0.35])


@pytest.mark.parametrize(
    "state",
    [
        {},
        None,
        {"last_step": 3, "warmup_params": [{"warmup_period": 20}]},
        {"last_step": "3", "warmup_params": [{"warmup_period": 20}], "lrs": [0.1]},
        {"last_step": 3, "lrs": [0.1]},
        {"last_epoch": 3, "base_lrs": [0.1]},
    ],
)
def test_a_state_that_is_none_is_refused(state):
    warming = warmup.LinearWarmup(optimizer_of(), 20)
    with pytest.raises(StateError, match=r"LinearWarmup.load_state_dict"):
        warming.load_state_dict(state)
    assert (warming.last_step, lrs_of(warming.optimizer)) == (0, [0.1 * (1 / 20)])


@pytest.mark.parametrize("bases", [5, [], {"lr": 0.1}, {"lr": {}}, {"lr": [""]}, {"lr": [None]}])
def test_a_damaged_state_changes_nothing(bases):
    warming = warmup.LinearWarmup(optimizer_of(), 20)
    state = {**warming.state_dict(), "last_epoch": 7, "bases": bases}
    for strict in (True, False):
        with pytest.raises(StateError, match=r"bases .*must be a \w+ of \w+"):
            warming.load_state_dict(state, strict)
        assert (warming.last_step, lrs_of(warming.optimizer)) == (0, [0.1 * (1 / 20)])


@pytest.mark.parametrize("at", [0, 3])
def test_last_step_starts_in_the_next_one(at):
    theirs, ours = optimizer_of(groups=2), optimizer_of(groups=2)
    pairs = (
        pytorch_warmup.LinearWarmup(theirs, 10, last_step=at),
        warmup.LinearWarmup(ours, 10, last_step=at),
    )
    for _ in range(10):
        assert_near(lrs_of(ours), lrs_of(theirs))
        assert pairs[0].last_step == pairs[1].last_step
        for warming in pairs:
            with warming.dampening():
                pass


def test_last_step_beside_torchs_scheduler_that_starts_there_too():
    seen = []
    for module in (pytorch_warmup, warmup):
        optimizer = optimizer_of()
        optimizer.param_groups[0]["initial_lr"] = 0.1
        scheduler = TORCHS.LambdaLR(optimizer, lambda epoch: 0.9**epoch, last_epoch=3)
        warming = module.LinearWarmup(optimizer, 10, last_step=3)
        seen.append(run(warming, scheduler, 20, 4))
    for here, there in zip(*seen, strict=True):
        assert_near(here, there)


def test_last_step_can_be_set():
    warming = warmup.LinearWarmup(optimizer_of(), 10)
    warming.last_step = 5
    with warming.dampening():
        pass
    assert_near(lrs_of(warming.optimizer), [0.07])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
@pytest.mark.parametrize("module", [TORCHS, lr_scheduler])
def test_a_copy_goes_on_by_itself(copied, module):
    optimizer = optimizer_of()
    both = module.StepLR(optimizer, 3), warmup.LinearWarmup(optimizer, 10)
    run(both[1], both[0], 4)
    scheduler, warming = copied(both)
    assert run(warming, scheduler, 20, 3) == run(both[1], both[0], 20, 3)
    assert warming.optimizer is not optimizer


# A user's own warmup, and arguments that are refused.


def test_a_warmup_of_ones_own():
    class Squared(warmup.BaseWarmup):
        def __init__(self, optimizer, period, last_step=-1):
            params = [{"period": period, "power": 2} for _ in optimizer.param_groups]
            super().__init__(optimizer, params, last_step)

        def warmup_factor(self, step, period, power):
            assert isinstance(step, int)
            return min(1, (step + 1) / period) ** power

    class Longer(warmup.UntunedLinearWarmup):
        def warmup_factor(self, step, warmup_period):
            return super().warmup_factor(step, 2 * warmup_period)

    optimizer = optimizer_of(groups=2)
    warming = Squared(optimizer, 10)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimizer.add_param_group({"params": [Parameter(torch.ones(1))], "lr": 0.5})
    run(warming, scheduler, 3)
    assert_near(lrs_of(optimizer), [lr * 0.25 * 0.09 for lr in (0.1, 0.03, 0.5)])
    warming.seek(4.0)
    longer = Longer(optimizer_of())
    assert_near(lrs_of(longer.optimizer), [0.1 / 4000])
    bare = warmup.BaseWarmup.__new__(warmup.BaseWarmup)
    with pytest.raises(NotImplementedError, match="warmup_factor"):
        bare.warmup_factor(1)


@pytest.mark.parametrize("name", ["LinearWarmup", "ExponentialWarmup", "ConstantWarmup"])
@pytest.mark.parametrize(
    ("period", "error"),
    [
        (-3, ScheduleError),
        ([5, -1], ScheduleError),
        ([5], ScheduleError),
        ([5, 5, 5], ScheduleError),
        (2.5, ScheduleTypeError),
        ("5", ScheduleTypeError),
        (True, ScheduleTypeError),
        ([5, 2.0], ScheduleTypeError),
        (None, ScheduleTypeError),
    ],
)
def test_a_period_that_is_none_is_refused(name, period, error):
    optimizer = optimizer_of(groups=2)
    before = [dict(group) for group in optimizer.param_groups]
    with pytest.raises(error, match=rf"{name}: warmup_period"):
        getattr(warmup, name)(optimizer, period)
    assert [dict(group) for group in optimizer.param_groups] == before


@pytest.mark.parametrize("factor", [-0.1, 1.1, math.nan, "0.5", None, True])
def test_a_factor_out_of_range_is_refused(factor):
    with pytest.raises(ScheduleError, match="factor must be a finite number from 0 to 1"):
        warmup.ConstantWarmup(optimizer_of(), 5, factor=factor)


@pytest.mark.parametrize("name", ["UntunedLinearWarmup", "UntunedExponentialWarmup", "RAdamWarmup"])
def test_an_optimizer_without_betas_is_told_what_to_use(name):
    with pytest.raises(ScheduleError, match="no betas; use LinearWarmup"):
        getattr(warmup, name)(optimizer_of(torch.optim.SGD))


@pytest.mark.parametrize("beta2", [0.0, 0.5, 0.6])
def test_a_beta_that_radam_cannot_use_is_refused(beta2):
    optimizer = torch.optim.AdamW([Parameter(torch.ones(1))], betas=(0.9, beta2))
    with pytest.raises(ScheduleError, match=r"above 0\.6"):
        warmup.RAdamWarmup(optimizer)
    with pytest.raises(ValueError, match=r"above 0\.6"):
        warmup.get_offset(beta2, warmup.rho_inf_fn(beta2))


@pytest.mark.parametrize("name", [*WARMUPS, "ConstantWarmup"])
def test_something_that_is_no_optimizer_is_refused(name):
    thing = type("Thing", (), {"param_groups": [{}]})()
    arguments = () if "Untuned" in name or "RAdam" in name else (5,)
    with pytest.raises(TypeError, match="not an Optimizer"):
        getattr(warmup, name)(thing, *arguments)


@pytest.mark.parametrize("beta2", [1.0, 1.5, -0.1, math.nan])
@pytest.mark.parametrize("name", ["UntunedLinearWarmup", "UntunedExponentialWarmup", "RAdamWarmup"])
def test_a_second_beta_out_of_range_is_refused(name, beta2):
    optimizer = optimizer_of()
    optimizer.param_groups[0]["betas"] = (0.9, beta2)
    with pytest.raises(ScheduleError, match="must be at least 0 and below 1, got"):
        getattr(warmup, name)(optimizer)


@pytest.mark.parametrize("given", [5, None, "ab", [5], [None], {"warmup_period": 5}])
def test_parameters_that_are_none_are_refused_and_nothing_changes(given):
    optimizer = optimizer_of()
    before = dict(optimizer.param_groups[0])
    with pytest.raises(ScheduleTypeError, match="warmup_params must be a list with a dict for"):
        warmup.BaseWarmup(optimizer, given)
    assert optimizer.param_groups[0] == before
    warming = warmup.LinearWarmup(optimizer, 5)
    with pytest.raises(ScheduleTypeError, match="warmup_params must be a list with a dict for"):
        warming.warmup_params = given
    assert warming.warmup_params == [{"warmup_period": 5}]


def test_no_parameters_are_refused_where_they_are_set():
    warming = warmup.LinearWarmup(optimizer_of(), 5)
    with pytest.raises(ScheduleError, match="0 entries, and the optimizer 1 group;"):
        warming.warmup_params = []
    warming.step()
    assert_near(lrs_of(warming.optimizer), [0.1 * 2 / 5])


def test_parameters_for_each_group_are_needed():
    with pytest.raises(ScheduleError, match="1 entry, and the optimizer 2 groups;"):
        warmup.BaseWarmup(optimizer_of(groups=2), [{}])


def test_nothing_keeps_an_optimizer_alive():
    import weakref

    optimizer = optimizer_of()
    warming = warmup.LinearWarmup(optimizer, 10)
    with warming.dampening():
        pass
    gone = weakref.ref(optimizer)
    del optimizer, warming
    assert gone() is None


# Documentation.


@pytest.mark.parametrize("name", [*NAMES, "ConstantWarmup"])
def test_names_say_what_they_are_take_and_raise(name):
    thing = getattr(warmup, name)
    text = inspect.getdoc(thing)
    assert text.split("\n", 1)[0].endswith(".")
    assert ".. math::" in text or name == "get_offset"
    for section in ("Args:", "Example:", "Source:"):
        assert section in text
    for argument in inspect.signature(thing).parameters:
        assert f"{argument}: " in text
    if inspect.isclass(thing):
        for method, value in vars(thing).items():
            if inspect.isfunction(value) and not method.startswith("_"):
                assert inspect.getdoc(value)


def test_examples_run():
    modules = [sys.modules[name] for name in sys.modules if name.startswith("descend.warmup.")]
    results = [doctest.testmod(module) for module in modules]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) > 30
