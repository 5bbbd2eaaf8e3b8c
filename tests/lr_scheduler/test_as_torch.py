"""Where schedulers once differed from torch's, and where they differ on purpose."""

import copy
import math
import warnings
from collections import OrderedDict, defaultdict

import numpy
import pytest
import torch
from torch.nn import Parameter

import descend
from descend import lr_scheduler, warmup
from descend.errors import ScheduleError
from descend.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from descend.schedules import (
    constant,
    cosine,
    cyclic,
    delay,
    linear,
    multistep,
    one_cycle,
    piecewise,
    polynomial,
    repeat,
    until,
    value,
    warm_restarts,
    wsd,
)
from descend.schedules import warmup as rising
from descend.swa_utils import SWALR

TORCH = torch.optim.lr_scheduler
MAKERS = {"torch": torch.optim.SGD, "descend": descend.SGD}


def one(make=descend.SGD, lr=1.0, **options):
    return make([Parameter(torch.ones(1))], lr=lr, **options)


def lr_of(optimizer, group=0):
    return float(optimizer.param_groups[group]["lr"])


def lrs(scheduler, steps):
    seen = []
    for _ in range(steps):
        seen.append(lr_of(scheduler.optimizer))
        scheduler.step()
    return seen


# Rebuilt in the middle while the old one lives.

REBUILT = {
    "ExponentialLR": lambda o, last=-1: ExponentialLR(o, 0.5, last),
    "CosineAnnealingLR": lambda o, last=-1: CosineAnnealingLR(o, 9, 0.1, last),
    "LinearLR": lambda o, last=-1: LinearLR(o, 0.25, 1.0, 6, last),
    "LambdaLR": lambda o, last=-1: LambdaLR(o, lambda epoch: 0.7**epoch, last),
    "CosineAnnealingWarmRestarts": lambda o, last=-1: CosineAnnealingWarmRestarts(
        o, 3, 2, last_epoch=last
    ),
    "CyclicLR": lambda o, last=-1: CyclicLR(o, 0.1, 1.0, 3, last_epoch=last),
    "OneCycleLR": lambda o, last=-1: OneCycleLR(o, 1.0, 20, last_epoch=last),
    "Scheduler": lambda o, last=-1: descend.Scheduler(
        o, lr=rising(3) >> cosine(9), momentum=linear(9, 1.0, 0.5), last_epoch=last
    ),
    "SequentialLR": lambda o, last=-1: SequentialLR(
        o, [ConstantLR(o, 0.5, 2), ExponentialLR(o, 0.5)], [2], last
    ),
    "LinearWarmup": lambda o, last=-1: warmup.LinearWarmup(o, 7, last),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("name", REBUILT)
@pytest.mark.parametrize("integer", [int, numpy.int64, torch.tensor])
def test_one_that_is_rebuilt_takes_over(name, make, integer):
    expected = lrs(REBUILT[name](one(make, momentum=0.5)), 12)
    scheduler = REBUILT[name](one(make, momentum=0.5))
    seen = []
    kept = []
    for _ in range(4):
        seen += lrs(scheduler, 3)[:2]
        # As skorch does in each `partial_fit`: where the epoch that is over was the second.
        kept.append(scheduler)
        epoch = len(seen) - 1
        scheduler.seek(epoch)
        scheduler = REBUILT[name](scheduler.optimizer, integer(epoch))
        assert scheduler.last_epoch == epoch + 1
        assert type(scheduler.last_epoch) is int
    assert seen == pytest.approx(expected[:8], rel=1e-12)
    assert lrs(scheduler, 4) == pytest.approx(expected[8:], rel=1e-12)


def test_several_that_are_rebuilt_take_over_one_each():
    def build(optimizer, last=-1):
        return StepLR(optimizer, 2, 0.5, last), StepLR(optimizer, 3, 0.5, last)

    def run(pair, steps):
        seen = []
        for _ in range(steps):
            for scheduler in pair:
                scheduler.step()
            seen.append(lr_of(pair[0].optimizer))
        return seen

    whole = run(build(one()), 9)
    first = build(one())
    begun = run(first, 4)
    again = build(first[0].optimizer, 3)
    assert lr_of(first[0].optimizer) == begun[-1]
    assert begun + run(again, 5) == whole


def test_one_that_was_replaced_and_is_stepped_again_goes_on_beside_the_new_one():
    old = ExponentialLR(one(), 0.5)
    new = ExponentialLR(old.optimizer, 0.5, old.last_epoch)
    assert lr_of(old.optimizer) == 0.5
    old.step()
    new.step()
    assert lr_of(old.optimizer) == 0.125


@pytest.mark.parametrize("last", [-1, 0, 4, numpy.int32(4)])
def test_a_plateau_takes_any_last_epoch(last):
    scheduler = ReduceLROnPlateau(one(), factor=0.5, patience=0, last_epoch=last)
    assert scheduler.last_epoch == last + 1
    for _ in range(2):
        scheduler.step(1.0)
    assert lr_of(scheduler.optimizer) == 0.5


@pytest.mark.parametrize("beside", [False, True])
def test_a_plateau_that_is_rebuilt_keeps_what_was_reduced(beside):
    optimizer = one()
    other = ExponentialLR(optimizer, 0.5) if beside else None
    old = ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    old.step(1.0)
    old.step(1.0)
    if other is not None:
        other.step()
    before = lr_of(optimizer)
    new = ReduceLROnPlateau(optimizer, factor=0.5, patience=0, last_epoch=old.last_epoch - 1)
    assert (lr_of(optimizer), new.last_epoch, new.best) == (before, 2, math.inf)
    if other is not None:
        other.step()
        assert lr_of(optimizer) == before / 2


# Integers of NumPy's and torch's, wherever an integer is asked for.

INTEGERS = {
    "StepLR": lambda o, n: StepLR(o, n(3)),
    "MultiStepLR": lambda o, n: MultiStepLR(o, [n(2), n(5)]),
    "ConstantLR": lambda o, n: ConstantLR(o, 0.5, n(3)),
    "LinearLR": lambda o, n: LinearLR(o, 0.5, 1.0, n(3)),
    "PolynomialLR": lambda o, n: PolynomialLR(o, n(9)),
    "CosineAnnealingLR": lambda o, n: CosineAnnealingLR(o, n(9)),
    "CosineAnnealingWarmRestarts": lambda o, n: CosineAnnealingWarmRestarts(o, n(3), n(2)),
    "CyclicLR": lambda o, n: CyclicLR(o, 0.1, 1.0, n(3), n(2)),
    "OneCycleLR": lambda o, n: OneCycleLR(o, 1.0, n(20)),
    "OneCycleLR, epochs": lambda o, n: OneCycleLR(o, 1.0, epochs=n(5), steps_per_epoch=n(4)),
    "SequentialLR": lambda o, n: SequentialLR(o, [StepLR(o, 1), StepLR(o, 2)], [n(4)]),
    "Scheduler": lambda o, n: descend.Scheduler(o, lr={n(0): cosine(9)}),
    "LinearWarmup": lambda o, n: warmup.LinearWarmup(o, n(5)),
    "ConstantWarmup": lambda o, n: warmup.ConstantWarmup(o, [n(5)]),
    "last_epoch": lambda o, n: StepLR(o, 3, last_epoch=n(4)),
    "last_step": lambda o, n: warmup.LinearWarmup(o, 9, n(4)),
}


@pytest.mark.parametrize("name", INTEGERS)
def test_any_integer_is_an_integer(name):
    wanted = lrs(INTEGERS[name](one(momentum=0.5), int), 12)
    for kind in (numpy.int64, numpy.uint8, torch.tensor):
        scheduler = INTEGERS[name](one(momentum=0.5), kind)
        assert lrs(scheduler, 12) == wanted, kind
        state = scheduler.state_dict()
        INTEGERS[name](one(momentum=0.5), int).load_state_dict(state)


# A group that is added in the middle.


@pytest.mark.parametrize(
    "build",
    [
        lambda m, o: m.StepLR(o, 4, 0.5),
        lambda m, o: m.MultiStepLR(o, [2, 6], 0.5),
        lambda m, o: m.ExponentialLR(o, 0.9),
        lambda m, o: m.CosineAnnealingLR(o, 30),
        lambda m, o: m.PolynomialLR(o, 20, 2.0),
        lambda m, o: m.LinearLR(o, 0.1, 1.0, 20),
    ],
)
@pytest.mark.parametrize("at", [1, 3, 5])
def test_a_group_that_is_added_in_the_middle_goes_on_as_with_torch(build, at):
    """As Lightning's `BaseFinetuning` adds them."""
    seen = []
    for m, make in ((TORCH, torch.optim.SGD), (lr_scheduler, descend.SGD)):
        optimizer = one(make)
        optimizer._opt_called = True
        scheduler = build(m, optimizer)
        values = []
        for step in range(12):
            if step == at:
                optimizer.add_param_group({"params": [Parameter(torch.ones(1))], "lr": 0.3})
            values.append([float(group["lr"]) for group in optimizer.param_groups])
            scheduler.step()
        seen.append(values)
    assert seen[1] == [pytest.approx(values, rel=1e-12) for values in seen[0]]


def test_an_lr_by_hand_that_no_base_gives_beside_a_plateau_holds_for_one_step():
    optimizer = one(descend.SGD)
    plateau = ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    decay = CosineAnnealingLR(optimizer, 9, eta_min=0.01)
    for _ in range(5):
        plateau.step(1.0)
        decay.step()
    optimizer.param_groups[0]["lr"] = 0.001  # below all that the cosine gives here
    plateau.step(0.5)
    decay.step()
    base = 0.5 ** sum(plateau.reductions)
    part = (1 + math.cos(math.pi * 6 / 9)) / 2
    assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(0.01 + (base - 0.01) * part)


# A run that is resumed with one of descend's and one of torch's.


def advanced(optimizer, schedulers, steps):
    seen = []
    for _ in range(steps):
        for scheduler in schedulers:
            scheduler.step()
        seen.append(float(optimizer.param_groups[0]["lr"]))
    return seen


@pytest.mark.parametrize("theirs_first", [False, True])
@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("optimizer_first", [False, True])
@pytest.mark.parametrize(
    "build",
    [
        lambda o: ExponentialLR(o, 0.9),
        lambda o: LinearLR(o, 0.5, 0.5, 5),
        lambda o: StepLR(o, 2, 0.5),
        lambda o: CosineAnnealingLR(o, 9, 0.01),
        lambda o: SequentialLR(o, [ConstantLR(o, 0.5, 2), ExponentialLR(o, 0.9)], [2]),
        lambda o: descend.Scheduler(o, lr=linear(9, 1, 0.3)),
    ],
)
def test_a_state_beside_torchs_scheduler_resumes(build, optimizer_first, by_hand, theirs_first):
    def made():
        optimizer = one(descend.SGD)
        optimizer._opt_called = True
        pair = [build(optimizer), TORCH.ConstantLR(optimizer, 0.97, 5)]
        return optimizer, pair[::-1] if theirs_first else pair

    optimizer, schedulers = made()
    advanced(optimizer, schedulers, 2)
    if by_hand:
        optimizer.param_groups[0]["lr"] *= 0.5
        advanced(optimizer, schedulers, 1)
    states = copy.deepcopy([one.state_dict() for one in (optimizer, *schedulers)])
    expected = advanced(optimizer, schedulers, 4)
    optimizer, schedulers = made()
    pairs = list(zip((optimizer, *schedulers), states, strict=True))
    for each, state in pairs if optimizer_first else pairs[::-1]:
        each.load_state_dict(state)
    assert advanced(optimizer, schedulers, 4) == pytest.approx(expected, rel=1e-12)


# An optimizer that wraps another, without `super().__init__()`.


class Delegating(torch.optim.Optimizer):
    """Everything is the other's, as in Accelerate's and Opacus'."""

    def __init__(self, optimizer):
        self.inner = optimizer

    param_groups = property(lambda self: self.inner.param_groups)
    state = property(lambda self: self.inner.state)
    defaults = property(lambda self: self.inner.defaults)

    def step(self, closure=None):
        return self.inner.step(closure)

    def state_dict(self):
        return self.inner.state_dict()

    def load_state_dict(self, state):
        self.inner.load_state_dict(state)


class Sharing(torch.optim.Optimizer):
    """The groups are the other's, the rest its own, as in implementations of Lookahead."""

    def __init__(self, optimizer):
        self._base = optimizer
        self.param_groups = optimizer.param_groups
        self.defaults = optimizer.defaults
        self.state = defaultdict(dict)
        self._optimizer_step_pre_hooks = OrderedDict()
        self._optimizer_step_post_hooks = OrderedDict()

    def step(self, closure=None):
        return self._base.step(closure)


class Twice(torch.optim.Optimizer):
    """One within another, both within a third, as a wrapper of a wrapper has it."""

    def __init__(self, optimizer):
        self.optimizer = Delegating(Sharing(optimizer))
        self.param_groups = self.optimizer.param_groups
        self.defaults = {}

    def step(self, closure=None):
        return self.optimizer.step(closure)


class Nothing(torch.optim.Optimizer):
    """No other optimizer within, and none of torch's attributes but the groups."""

    def __init__(self, optimizer):
        self.param_groups, self.state = optimizer.param_groups, {}
        self.defaults = optimizer.defaults


WRAPPERS = [Delegating, Sharing, Twice, Nothing]
EVERY = {
    "StepLR": lambda m, o: m.StepLR(o, 2, 0.5),
    "LambdaLR": lambda m, o: m.LambdaLR(o, lambda epoch: 0.9**epoch),
    "CosineAnnealingLR": lambda m, o: m.CosineAnnealingLR(o, 20),
    "SequentialLR": lambda m, o: m.SequentialLR(
        o, [m.LinearLR(o, 0.5, 1.0, 3), m.ExponentialLR(o, 0.9)], [3]
    ),
    "OneCycleLR": lambda m, o: m.OneCycleLR(o, 1.0, 40, cycle_momentum=False),
    "ReduceLROnPlateau": lambda m, o: m.ReduceLROnPlateau(o, factor=0.5, patience=1),
}


@pytest.mark.filterwarnings("ignore:Detected call")
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", EVERY)
def test_a_scheduler_of_a_wrapper_is_as_one_of_the_optimizer(name, wrapper, make):
    def run(m, optimizer):
        scheduler = EVERY[name](m, optimizer)
        measure = [1.0] if name == "ReduceLROnPlateau" else []
        seen = []
        for _ in range(15):
            seen.append(lr_of(optimizer))
            if wrapper is not Nothing:
                optimizer.step()
            scheduler.step(*measure)
        return seen

    wrapped = wrapper(one(make))
    expected = run(TORCH, one(torch.optim.SGD))
    assert run(lr_scheduler, wrapped) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("wrapper", [Delegating, Sharing, Twice])
def test_schedulers_of_the_wrapper_and_of_what_it_wraps_multiply(wrapper):
    optimizer = one()
    inside, outside = ExponentialLR(optimizer, 0.5), ExponentialLR(wrapper(optimizer), 0.1)
    inside.step()
    outside.step()
    assert lr_of(optimizer) == pytest.approx(0.05)
    assert inside._drivers["lr"] is outside._drivers["lr"]


def test_a_wrapper_that_its_optimizer_knows():
    optimizer = one()
    wrapped = Delegating(optimizer)
    optimizer.wrapper = wrapped
    assert lrs(ExponentialLR(wrapped, 0.5), 3) == [1.0, 0.5, 0.25]


def test_a_wrapper_that_loads_is_no_hand():
    optimizer = one()
    wrapped = Delegating(optimizer)
    scheduler = ExponentialLR(wrapped, 0.5)
    scheduler.step()
    state = copy.deepcopy((wrapped.state_dict(), scheduler.state_dict()))
    scheduler.step()
    wrapped.load_state_dict(state[0])
    again = ExponentialLR(wrapped, 0.5)
    del scheduler
    again.load_state_dict(state[1])
    assert lrs(again, 3) == [0.5, 0.25, 0.125]


def test_a_refused_scheduler_leaves_nothing_behind():
    for wrapper in WRAPPERS:
        optimizer = one()
        wrapped = wrapper(optimizer)
        before = dict(optimizer.param_groups[0]), set(vars(wrapped))
        for _ in range(2):
            with pytest.raises(ScheduleError, match="gamma"):
                StepLR(wrapped, 2, math.nan)
        assert (dict(optimizer.param_groups[0]), set(vars(wrapped))) == before


# A measure below zero.


def watched(mode, measures, **options):
    scheduler = ReduceLROnPlateau(one(), mode, 0.5, patience=0, **options)
    bests = []
    for measure in measures:
        scheduler.step(measure)
        bests.append(scheduler.best)
    return lr_of(scheduler.optimizer), bests


@pytest.mark.parametrize("mode", ["min", "max"])
def test_p76_a_relative_threshold_is_a_share_of_the_magnitude(mode):
    sign = -1.0 if mode == "min" else 1.0
    for level in (100.0, -100.0):  # of the measure, times the direction that is better
        better, worse = level + 2, level - 2
        lr, bests = watched(
            mode, [sign * m for m in (level, worse, level, level + 0.5, better)], threshold=0.01
        )
        assert bests == [sign * level] * 4 + [sign * better]
        assert lr == 0.5**3


def test_p76_where_torch_takes_a_worse_value_for_the_best():
    theirs = TORCH.ReduceLROnPlateau(one(torch.optim.SGD), "min", 0.5, patience=0)
    for measure in (-1.0, -0.99995, -0.9999):
        theirs.step(measure)
    assert lr_of(theirs.optimizer) == 1.0
    assert watched("min", (-1.0, -0.99995, -0.9999)) == (0.25, [-1.0] * 3)


def test_p76_zero_and_infinity():
    assert watched("min", (0.0, 0.0, -1e-9)) == (0.5, [0.0, 0.0, -1e-9])
    assert watched("max", (-math.inf, -5.0, -5.0)) == (0.25, [-math.inf, -5.0, -5.0])


# A phase of no steps.

EMPTY = {
    "linear": (linear(0), 0.0),
    "linear, up": (linear(0, 0.5, 1.0), 1.0),
    "linear, values": (linear(0, 1, value(0.25)), 0.25),
    "cosine": (cosine(0), 0.0),
    "polynomial": (polynomial(0, 2, end=0.5), 0.5),
    "constant": (constant(0.5, 0) >> constant(1.0), 1.0),
    "one_cycle": (one_cycle(0, end=0.125), 0.125),
    "wsd": (wsd(0, 0, 0, end=0.25), 0.25),
    "warmup": (rising(0), 1.0),
    "until": (until(cosine(9), 0), 1.0),
    "delay": (delay(constant(0.5), 0), 0.5),
    "repeat": (repeat(linear(0), 3), 0.0),
    "multistep": (multistep([]), 1.0),
    "piecewise": (piecewise([(0, 1.0), (0, 0.5)]), 0.5),
    "joined": (linear(0) >> cosine(0) >> constant(0.75), 0.75),
    "scaled": (wsd(0, 0.5, 0.5).over(0.5) * linear(0, 1, 0.5), 0.5),
}


@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_phase_is_a_phase_of_no_steps(name):
    schedule, wanted = EMPTY[name]
    assert schedule(0) == wanted
    again = descend.schedules.parse(str(schedule))
    assert (again, again(0)) == (schedule, wanted)


def test_an_empty_phase_changes_nothing_around_it():
    rest = cosine(9, end=0.1)
    for empty in (linear(0), cosine(0), constant(3.0, 0), rising(0), one_cycle(0), wsd(0, 0, 0)):
        assert (empty >> rest).values(12) == rest.values(12)
        assert (rest >> empty >> rest).values(24) == (rest >> rest).values(24)
    assert wsd(0, 5, 4).values(12) == (constant(1.0, 5) >> linear(4)).values(12)
    assert wsd(3, 0, 4).values(12) == (rising(3) >> linear(4)).values(12)
    assert wsd(3, 4, 0).values(12) == (rising(3) >> constant(1.0, 4) >> constant(0.0)).values(12)
    assert cyclic(0, 4, low=0.0).values(6) == [1.0, 0.75, 0.5, 0.25, 1.0, 0.75]
    assert cyclic(4, 0, low=0.0).values(6) == [0.0, 0.25, 0.5, 0.75, 0.0, 0.25]
    assert piecewise([(0, 1), (2, 0.5), (2, 1), (4, 0)]).values(5) == [1, 0.75, 1, 0.5, 0]


@pytest.mark.parametrize(
    "make", [lambda: warm_restarts(0), lambda: cyclic(0, 0), lambda: repeat(linear(0))]
)
def test_a_period_is_never_empty(make):
    with pytest.raises(ScheduleError):
        make()


def test_empty_phases_by_torchs_names():
    assert lrs(LinearLR(one(), 0.5, 0.25, 0), 3) == [0.25] * 3
    assert lrs(PolynomialLR(one(), 0), 2) == [0.0, 0.0]
    assert lrs(ConstantLR(one(), 0.5, 0), 2) == [1.0, 1.0]
    assert lrs(MultiStepLR(one(), []), 2) == [1.0, 1.0]
    assert lrs(CyclicLR(one(momentum=0.5), 0.0, 1.0, 4, 0), 5) == [0, 0.25, 0.5, 0.75, 0]
    assert lrs(SWALR(one(), 0.5, anneal_epochs=0), 2) == [0.5, 0.5]


@pytest.mark.parametrize("milestones", [[0], [0, 0], [2, 2], [0, 3], [3, 3]])
def test_a_sequence_with_an_empty_part(milestones):
    seen = []
    for m, make in ((TORCH, torch.optim.SGD), (lr_scheduler, descend.SGD)):
        optimizer = one(make)
        optimizer._opt_called = True
        builds = [
            lambda m, o: m.ConstantLR(o, 0.5, 9),
            lambda m, o: m.ExponentialLR(o, 0.9),
            lambda m, o: m.StepLR(o, 2, 0.5),
        ]
        parts = [build(m, optimizer) for build in builds[-len(milestones) - 1 :]]
        seen.append(lrs(m.SequentialLR(optimizer, parts, milestones), 8))
    assert seen[1] == pytest.approx(seen[0], rel=1e-12)


@pytest.mark.parametrize("name", ["LinearWarmup", "ExponentialWarmup", "ConstantWarmup"])
def test_a_warmup_of_no_steps(name):
    for period in (0, [0]):
        assert lrs(getattr(warmup, name)(one(), period), 3) == [1.0] * 3


# Tensors that the user fills in place.


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize(
    "build",
    [
        lambda o: StepLR(o, 2),
        lambda o: LambdaLR(o, lambda epoch: 0.5**epoch),
        lambda o: CosineAnnealingLR(o, 10),
        lambda o: CosineAnnealingWarmRestarts(o, 3),
        lambda o: OneCycleLR(o, torch.tensor(0.2), 9, cycle_momentum=False),
    ],
)
def test_the_base_is_none_of_the_users_tensors(make, build):
    """Which the user fills in place between steps that begin with the base."""
    lr = torch.tensor(0.1, dtype=torch.float64)
    optimizer = one(make, lr)
    optimizer.param_groups[0]["initial_lr"] = lr  # as older checkpoints share it
    scheduler = build(optimizer)
    first = scheduler.base_lrs[0], float(optimizer.param_groups[0]["initial_lr"])
    seen = []
    for epoch in (0, 1, 2):
        lr.mul_(0.3)
        scheduler.step(epoch)
        seen.append(lr_of(optimizer))
        assert (scheduler.base_lrs[0], float(optimizer.param_groups[0]["initial_lr"])) == first
    assert optimizer.param_groups[0]["lr"] is lr
    assert seen == pytest.approx(lrs(build(one(make, 0.1)), 3))


@pytest.mark.parametrize("make", [torch.optim.AdamW, descend.AdamW, descend.SGD])
@pytest.mark.parametrize(
    "build",
    [
        lambda o, n: CyclicLR(o, n(0.1), n(0.2), 4, base_momentum=n(0.8), max_momentum=n(0.9)),
        lambda o, n: OneCycleLR(o, n(0.2), 12, base_momentum=n(0.85), max_momentum=n(0.95)),
    ],
)
def test_momenta_may_be_tensors(make, build):
    def double(number):
        return torch.tensor(number, dtype=torch.float64)

    def run(kind):
        options = {"momentum": 0.5} if make is descend.SGD else {}
        optimizer = one(make, **options)
        scheduler = build(optimizer, kind)
        seen = []
        for _ in range(8):
            group = optimizer.param_groups[0]
            momentum = group["betas"][0] if "betas" in group else group["momentum"]
            assert type(momentum) is float
            seen.append((group["lr"], momentum, group["max_momentum"], group["base_momentum"]))
            optimizer.param_groups[0]["params"][0].grad = torch.ones(1)
            optimizer.step()
            scheduler.step()
        return seen

    assert run(double) == run(float)


def test_momenta_that_are_filled_in_place_later_are_not_read_again():
    high = torch.tensor(0.9)
    optimizer = one(momentum=0.5)
    scheduler = CyclicLR(optimizer, 0.1, 0.2, 4, max_momentum=high)
    high.mul_(0.5)
    scheduler.step()
    assert optimizer.param_groups[0]["max_momentum"] == pytest.approx(0.9)
    assert optimizer.param_groups[0]["momentum"] > 0.8


@pytest.mark.filterwarnings("ignore:The epoch parameter", "ignore:Detected call")
@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("name", ["StepLR", "CosineAnnealingLR", "OneCycleLR"])
def test_step_to_an_epoch_begins_with_the_base_whatever_was_written(name, resumed):
    seen = []
    for m, make in ((TORCH, torch.optim.SGD), (lr_scheduler, descend.SGD)):
        optimizer = one(make)
        scheduler = EVERY[name](m, optimizer)
        scheduler.step()
        optimizer.param_groups[0]["lr"] = 0.3
        scheduler.step()
        if resumed:
            states = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
            optimizer = one(make, 7.0)
            scheduler = EVERY[name](m, optimizer)
            optimizer.load_state_dict(states[0])
            scheduler.load_state_dict(states[1])
        values = [lr_of(optimizer)]
        for place in (5, 2, None, 0, None):
            scheduler.step(*([] if place is None else [place]))
            values.append(lr_of(optimizer))
        seen.append(values)
    assert seen[1] == pytest.approx(seen[0], rel=1e-12)


def test_a_damaged_state_of_moved_bases_is_refused():
    scheduler = StepLR(one(), 2)
    for bad in (3, {"lr": 3}, {"lr": ["x"]}):
        with pytest.raises(descend.errors.StateError):
            scheduler.load_state_dict({**scheduler.state_dict(), "bases": bad})


# Fractions of an epoch.


@pytest.mark.parametrize("growth", [1, 2, 3])
def test_warm_restarts_by_fractions_of_an_epoch_are_as_with_torch(growth):
    seen = []
    for m, make in ((TORCH, torch.optim.SGD), (lr_scheduler, descend.SGD)):
        optimizer = one(make)
        scheduler = m.CosineAnnealingWarmRestarts(optimizer, 4, growth, 0.01)
        values = []
        for place in (*(i / 7 for i in range(300)), 3, 26, 0.5, 11.25):
            scheduler.step(place)
            values.append((lr_of(optimizer), scheduler.T_cur, scheduler.T_i, scheduler.last_epoch))
            if place > 42:
                scheduler.step()
                values.append(
                    (lr_of(optimizer), scheduler.T_cur, scheduler.T_i, scheduler.last_epoch)
                )
        seen.append(values)
    for ours, theirs in zip(*seen[::-1], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-9)


# What is warned of.


@pytest.mark.parametrize("name", ["StepLR", "LambdaLR", "CosineAnnealingLR", "OneCycleLR"])
def test_torchs_deprecation_of_an_epoch_is_told(name):
    scheduler = EVERY[name](lr_scheduler, one())
    with pytest.warns(UserWarning, match="The epoch parameter in") as caught:
        scheduler.step(3)
    assert caught[0].filename == __file__
    assert str(caught[0].message) == lr_scheduler.EPOCH_DEPRECATION_WARNING
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler.seek(5)
        scheduler.step()
        CosineAnnealingWarmRestarts(one(), 3).step(1.5)
        descend.Scheduler(one(), lr=cosine(9)).step(1.5)
        warmup.LinearWarmup(one(), 9).dampen(3)


def test_a_plateau_tells_it_too():
    with pytest.warns(UserWarning, match="The epoch parameter in"):
        ReduceLROnPlateau(one()).step(1.0, 3)


def trained(optimizer, gradient=True):
    if gradient:
        param = optimizer.param_groups[0]["params"][0]
        (param * 2).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("name", [name for name in EVERY if name != "ReduceLROnPlateau"])
def test_a_step_before_the_optimizers_first_is_told(name, make):
    optimizer = one(make)
    scheduler = EVERY[name](lr_scheduler, optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler.step()
        trained(optimizer)
    with pytest.warns(UserWarning, match=r"step\(\) came before the optimizer's first") as caught:
        scheduler.step()
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            trained(optimizer)
            scheduler.step()
    assert not optimizer._optimizer_step_pre_hooks


def silent(make, loop):
    optimizer = one(make)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler = StepLR(optimizer, 3)
        loop(optimizer, scheduler)
    return optimizer


def in_order(optimizer, scheduler):
    for _ in range(4):
        trained(optimizer)
        scheduler.step()


def only_looked_at(optimizer, scheduler):
    for _ in range(9):
        scheduler.step()


def wound_forward(optimizer, scheduler):
    for _ in range(5):
        scheduler.step()
    in_order(optimizer, scheduler)


def by_hand(optimizer, scheduler):
    """Gradients that no backward pass has made."""
    for _ in range(4):
        optimizer.param_groups[0]["params"][0].grad = torch.ones(1)
        optimizer.step()
        scheduler.step()


def skipped(optimizer, scheduler):
    """As GradScaler, with `zero_grad` before or after the scheduler's step."""
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    param = optimizer.param_groups[0]["params"][0]
    for gradient in (math.inf, 1.0, math.nan, 1.0, 1.0):
        scaler.scale((param * gradient).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        scheduler.step()


def resumed(optimizer, scheduler):
    other = one(type(optimizer), momentum=0.5)
    other.param_groups[0]["params"][0].grad = torch.ones(1)
    other.step()
    optimizer.param_groups[0]["momentum"] = 0.5
    optimizer.load_state_dict(other.state_dict())
    scheduler.step()
    in_order(optimizer, scheduler)


def resumed_without_a_state(optimizer, scheduler):
    """Of an SGD without momentum nothing tells that it has stepped, but the scheduler's place."""
    scheduler.load_state_dict({**scheduler.state_dict(), "last_epoch": 4})
    scheduler.step()
    in_order(optimizer, scheduler)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize(
    "loop",
    [in_order, only_looked_at, wound_forward, by_hand, skipped, resumed, resumed_without_a_state],
)
def test_p28_what_may_be_right_is_not_warned_of(make, loop):
    silent(make, loop)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_the_hook_that_looks_for_it_goes_away(make):
    optimizer = silent(make, in_order)
    assert not optimizer._optimizer_step_pre_hooks
    copied = copy.deepcopy(one(make))
    StepLR(copied, 3)
    trained(copied)
    assert make is torch.optim.SGD or not copied._optimizer_step_pre_hooks


# What stays different on purpose.


def test_two_schedulers_of_one_optimizer_each_loaded_multiply():
    optimizer = one()
    first, second = ConstantLR(optimizer, 0.5, 3), ConstantLR(optimizer, 0.5, 3)
    states = first.state_dict(), second.state_dict()
    first.load_state_dict(states[0])
    second.load_state_dict(states[1])
    assert lr_of(optimizer) == 0.25
    for _ in range(3):
        first.step()
        second.step()
    assert lr_of(optimizer) == 1.0


def test_a_plateau_with_a_list_of_lowest_lrs_and_a_new_group():
    optimizer = one()
    scheduler = ReduceLROnPlateau(optimizer, min_lr=[0.1])
    optimizer.add_param_group({"params": [Parameter(torch.ones(1))]})
    with pytest.raises(ScheduleError, match="append one for each group that was added"):
        scheduler.step(1.0)
    scheduler.min_lrs.append(0.2)
    scheduler.step(1.0)


def test_an_optimizer_whose_step_is_replaced_is_not_warned_of():
    optimizer = one()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler = StepLR(optimizer, 3)
        before = optimizer.step
        optimizer.step = lambda closure=None: before(closure)
        in_order(optimizer, scheduler)


# What is written.


@pytest.mark.parametrize("keys", [["lr"], ["lr", "momentum"]])
def test_a_scheduler_writes_plain_floats_and_nothing_but_what_it_drives(keys):
    class Recorded(dict):
        def __setitem__(self, key, written):
            record.append((key, type(written)))
            super().__setitem__(key, written)

    record = []
    optimizer = one(momentum=0.5)
    scheduler = descend.Scheduler(optimizer, **{key: rising(3) >> cosine(9) for key in keys})
    optimizer.param_groups[0] = Recorded(optimizer.param_groups[0])
    for _ in range(5):
        record.clear()
        scheduler.step()
        assert record == [(key, float) for key in keys]


def test_what_a_users_curve_returns_is_written_as_a_float():
    class Own(lr_scheduler.LRScheduler):
        def curve(self, time, bases):
            return [numpy.float64(base) / (1 + time) for base in bases]

    optimizer = one()
    scheduler = Own(optimizer)
    for count in range(2, 5):
        scheduler.step()
        assert optimizer.param_groups[0]["lr"] == 1 / count
        assert type(optimizer.param_groups[0]["lr"]) is float


def test_a_chain_that_is_rebuilt_takes_over():
    def build(optimizer, last=-1):
        return ChainedScheduler(
            [StepLR(optimizer, 2, 0.5, last), ExponentialLR(optimizer, 0.9, last)]
        )

    whole = lrs(build(one()), 8)
    old = build(one())
    begun = lrs(old, 3)
    old.seek(2)
    new = build(old.optimizer, 2)
    assert begun + lrs(new, 5) == pytest.approx(whole, rel=1e-12)


def test_one_cycle_stays_at_its_last_value_where_torch_rises_and_then_raises():
    """torch #91765."""
    seen = {}
    for module in (torch.optim.lr_scheduler, lr_scheduler):
        optimizer = torch.optim.SGD([Parameter(torch.ones(1))], lr=0.1)
        scheduler = module.OneCycleLR(optimizer, 1.0, total_steps=10)
        rates = seen[module] = []
        for _ in range(11):
            optimizer.step()
            try:
                scheduler.step()
            except ValueError as error:
                rates.append(str(error))
            else:
                rates.append(optimizer.param_groups[0]["lr"])
    theirs, mine = seen.values()
    assert mine[:9] == pytest.approx(theirs[:9], rel=1e-12)
    assert theirs[9] > theirs[8]
    assert "Tried to step 11 times" in theirs[10]
    assert mine[8:] == [mine[8]] * 3
