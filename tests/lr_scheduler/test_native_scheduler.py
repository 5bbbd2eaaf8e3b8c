"""descend.Scheduler: any schedule, any hyperparameter, any group; torch's optimizers and ours."""

import copy
import gc
import itertools
import json
import math
import pickle
import weakref

import numpy
import pytest
import torch
from torch.nn import Parameter

import descend
from descend.errors import (
    DescendError,
    HyperparameterError,
    ScheduleError,
    ScheduleTypeError,
    StateError,
)
from descend.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from descend.optimizers import CATALOGUE
from descend.schedules import (
    constant,
    cosine,
    exponential,
    function,
    linear,
    piecewise,
    repeat,
    step,
    value,
    warmup,
)
from optimizers.any_optimizer import IN_TORCH, parameters, torchs, train

MAKERS = {
    "torch.SGD": torch.optim.SGD,
    "torch.AdamW": torch.optim.AdamW,
    "descend.SGD": descend.SGD,
    "descend.AdamW": descend.AdamW,
}
SGDS = (torch.optim.SGD, descend.SGD)
LRS = (0.5, 0.03, 0.007)
SCHEDULE = warmup(3) >> cosine(20, 1, 0.1) * 0.7


@pytest.fixture(params=MAKERS)
def make(request):
    """An optimizer of so many groups, each with its own lr and weight decay."""
    cls = MAKERS[request.param]

    def made(groups=1, **options):
        if cls in SGDS:
            options = {"momentum": 0.875, **options}
        return cls(
            [
                {"params": [Parameter(torch.ones(3))], "lr": lr, "weight_decay": lr / 10}
                for lr in LRS[:groups]
            ],
            lr=1.0,
            **options,
        )

    made.keys = ["lr", "weight_decay", "momentum" if cls in SGDS else "beta1"]
    made.keys += [] if cls in SGDS else ["beta2"]
    return made


def held(group, key):
    """A hyperparameter of a group."""
    if key in ("beta1", "beta2"):
        return float(group["betas"][key == "beta2"])
    return float(group[key])


def trace(scheduler, key, steps):
    """The values of the first group, stepped from where it is."""
    seen = []
    for _ in range(steps):
        seen.append(held(scheduler.optimizer.param_groups[0], key))
        scheduler.step()
    return seen


def options_of(optimizer):
    """All that the groups hold, apart from the parameters."""
    return [
        {key: copy.deepcopy(held) for key, held in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]


# C5: the same expression for any hyperparameter


@pytest.mark.parametrize(
    "schedule",
    [
        SCHEDULE,
        linear(9, value(0.5), value(0.125)),
        linear(9, 1, value(0.25)),
        step(4),
        repeat(warmup(5), 3),
        value(0.25),
    ],
    ids=str,
)
def test_c5_any_hyperparameter_by_the_same_expression(make, schedule):
    optimizer = make(2)
    for key in make.keys:
        bases = [held(group, key) for group in optimizer.param_groups]
        scheduler = descend.Scheduler(optimizer, **{key: schedule})
        for time in range(30):
            got = [held(group, key) for group in optimizer.param_groups]
            assert got == [schedule(time, base) for base in bases]
            scheduler.step()


def test_c5_all_of_them_at_once_and_apart(make):
    schedules = dict(zip(make.keys, [SCHEDULE, linear(9), value(0.25), step(4)], strict=False))
    together, apart = make(2), make(2)
    one = descend.Scheduler(together, **schedules)
    several = [descend.Scheduler(apart, **{key: given}) for key, given in schedules.items()]
    for _ in range(30):
        assert options_of(together) == options_of(apart)
        one.step()
        for scheduler in several:
            scheduler.step()


def test_c5_a_schedule_per_group(make):
    a, b = cosine(10), linear(10, 1, 0.1)
    for key in make.keys:
        for given, expected in (
            ([a, b, None], [a, b, constant()]),
            ((a, None, b), [a, constant(), b]),
            ({0: a, 2: b}, [a, constant(), b]),
            ({1: b}, [constant(), b, constant()]),
            (a, [a, a, a]),
        ):
            optimizer = make(3)
            bases = [held(group, key) for group in optimizer.param_groups]
            scheduler = descend.Scheduler(optimizer, **{key: given})
            for time in range(13):
                got = [held(group, key) for group in optimizer.param_groups]
                assert got == [one(time, base) for one, base in zip(expected, bases, strict=True)]
                scheduler.step()


def test_c5_what_is_not_scheduled_is_left_alone(make):
    optimizer = make(2)
    before = options_of(optimizer)
    scheduler = descend.Scheduler(optimizer, weight_decay=linear(9))
    for _ in range(12):
        scheduler.step()
    for old, new in zip(before, options_of(optimizer), strict=True):
        new.pop("initial_weight_decay")
        assert new.pop("weight_decay") == 0
        assert new == {key: held for key, held in old.items() if key != "weight_decay"}


def test_c5_a_group_that_is_added_later_is_included(make):
    for key in make.keys:
        optimizer = make(2)
        scheduler = descend.Scheduler(optimizer, **{key: SCHEDULE})
        for _ in range(7):
            scheduler.step()
        optimizer.add_param_group({"params": [Parameter(torch.ones(2))], "lr": 0.25})
        base = held(optimizer.param_groups[2], key) / SCHEDULE(7)  # from there the curve goes on
        for time in range(8, 30):
            scheduler.step()
            assert held(optimizer.param_groups[2], key) == pytest.approx(SCHEDULE(time, base))
        assert scheduler.state_dict()["last_epoch"] == 29


@pytest.mark.parametrize("given", [[SCHEDULE, SCHEDULE], {0: SCHEDULE, 1: SCHEDULE}], ids=type)
def test_c5_a_group_that_is_added_later_is_left_alone_where_each_has_its_own(make, given):
    optimizer = make(2)
    scheduler = descend.Scheduler(optimizer, lr=given)
    optimizer.add_param_group({"params": [Parameter(torch.ones(2))], "lr": 0.25})
    for time in range(1, 9):
        scheduler.step()
        lrs = [group["lr"] for group in optimizer.param_groups]
        assert lrs == [SCHEDULE(time, LRS[0]), SCHEDULE(time, LRS[1]), 0.25]


# The real effect: training with a schedule is training with the option written by hand


def hand(optimizer, key, schedule, bases, time):
    for group, base in zip(optimizer.param_groups, bases, strict=True):
        new = schedule(time, base)
        if key in ("beta1", "beta2"):
            pair = list(group["betas"])
            pair[key == "beta2"] = new
            group["betas"] = tuple(pair)
        else:
            group[key] = new


def assert_as_by_hand(name, cls, key, schedule, steps=8, **options):
    """Raise unless parameters and state are the same, bit for bit."""
    mine, theirs = parameters(), parameters()
    optimizer, other = cls(mine, **options), cls(theirs, **options)
    bases = [held(group, key) for group in other.param_groups]
    scheduler = descend.Scheduler(optimizer, **{key: schedule})
    for time in range(steps):
        train(name, optimizer, mine, 1, first=time)
        scheduler.step()
        hand(other, key, schedule, bases, time)
        train(name, other, theirs, 1, first=time)
        for one, two in zip(mine, theirs, strict=True):
            assert torch.equal(one, two)
            state, wanted = optimizer.state[one], other.state[two]
            assert state.keys() == wanted.keys()
            for entry in state:
                if isinstance(state[entry], torch.Tensor):
                    assert torch.equal(state[entry], wanted[entry]), entry
    constants = parameters()
    plain = cls(constants, **options)
    for time in range(steps):
        train(name, plain, constants, 1, first=time)
    return mine, constants


RATES = {"lbfgs": 0.25, "adadelta": 1.0, "sparseadam": 0.1, "adafactor": 0.1}


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_lr_of_every_optimizer_is_as_by_hand(name):
    schedule = piecewise([(0, 0.5), (3, 1), (7, 0.125)])
    cls = CATALOGUE[name]
    mine, constants = assert_as_by_hand(name, cls, "lr", schedule, lr=RATES.get(name, 0.02))
    assert not any(map(torch.equal, mine, constants))


@pytest.mark.parametrize("name", IN_TORCH)
def test_the_lr_of_every_optimizer_of_torchs_is_as_by_hand(name):
    schedule = piecewise([(0, 0.5), (3, 1), (7, 0.125)])
    assert_as_by_hand(name, torchs(name), "lr", schedule, lr=RATES.get(name, 0.02))


def _others():
    """Every other number that an optimizer has and that may change in mid-training."""
    for name, cls in CATALOGUE.items():
        group = cls(parameters()).param_groups[0]
        found = [
            key
            for key in ("weight_decay", "momentum", "alpha", "rho", "lambd", "eps")
            if isinstance(group.get(key), float | int)
        ]
        found += ["beta1", "beta2"] if isinstance(group.get("betas"), tuple) else []
        for key in found:
            yield name, key


@pytest.mark.parametrize(("name", "key"), list(_others()))
def test_any_other_option_of_every_optimizer_is_as_by_hand(name, key):
    low, high = {"eps": (1e-8, 1e-2), "weight_decay": (0.4, 0.05)}.get(key, (0.5, 0.9))
    if (name, key) == ("adopt", "eps"):
        high = 10.0  # It is the least that is divided by, not added: it must exceed the rest.
    schedule = linear(6, value(low), value(high))
    options = {"momentum": 0.5} if key == "momentum" else {}
    mine, constants = assert_as_by_hand(
        name, CATALOGUE[name], key, schedule, lr=RATES.get(name, 0.02), **options
    )
    # What Muon divides by is scaled away again by its iteration.
    assert (name, key) == ("muon", "eps") or not all(map(torch.equal, mine, constants))


@pytest.mark.parametrize("make", ["torch.SGD", "descend.SGD"], indirect=True)
def test_weight_decay_by_schedule_is_what_the_equation_says(make):
    optimizer = make(1, momentum=0)
    scheduler = descend.Scheduler(
        optimizer, weight_decay=linear(4, value(0.5), value(0.0)), lr=step(2, 0.5)
    )
    (param,) = optimizer.param_groups[0]["params"]
    expected = 1.0
    for time in range(6):
        param.grad = torch.full_like(param, 0.25)
        optimizer.step()
        scheduler.step()
        decay, lr = max(0.0, 0.5 - 0.125 * time), 0.5 * 0.5 ** (time // 2)
        expected -= lr * (0.25 + decay * expected)
        assert param.tolist() == pytest.approx([expected] * 3, rel=1e-6)  # float32


def test_asgd_uses_a_new_lr_one_step_late():
    for cls in (torch.optim.ASGD, descend.ASGD):
        param = Parameter(torch.zeros(1))
        optimizer = cls([param], lr=1.0, lambd=0.0, alpha=0.0)
        scheduler = descend.Scheduler(optimizer, lr=exponential(0.5))
        moved = []
        for _ in range(4):
            before = param.item()
            param.grad = torch.ones(1)
            optimizer.step()
            scheduler.step()
            moved.append(before - param.item())
        assert moved == [1.0, 1.0, 0.5, 0.25]


def test_rprops_lr_is_only_a_start():
    def trained(schedule):
        params = parameters()
        optimizer = descend.Rprop(params, lr=0.02)
        scheduler = descend.Scheduler(optimizer, lr=schedule)
        for time in range(5):
            train("rprop", optimizer, params, 1, first=time)
            scheduler.step()
        return params

    first, same, other = trained(constant()), trained(exponential(0.5)), trained(constant(0.5))
    assert all(map(torch.equal, first, same))
    assert not any(map(torch.equal, first, other))


def test_a_value_outside_the_range_is_refused_by_the_optimizer_that_would_use_it():
    param = Parameter(torch.ones(2))
    optimizer = descend.SGD([param], lr=1.0)
    scheduler = descend.Scheduler(optimizer, lr=linear(4, 0.5, -0.5))
    for _ in range(3):
        scheduler.step()
    param.grad = torch.ones(2)
    with pytest.raises(HyperparameterError, match=r"lr=-0.25 in group 0"):
        optimizer.step()
    assert param.tolist() == [1.0, 1.0]


# Tensors are filled in place


@pytest.mark.parametrize("cls", [torch.optim.Adam, torch.optim.AdamW, descend.Adam, descend.AdamW])
def test_lr_tensors_are_filled_in_place(cls):
    lr = torch.tensor(0.5)
    optimizer = cls([Parameter(torch.ones(2))], lr=lr)
    scheduler = descend.Scheduler(optimizer, lr=SCHEDULE)
    for time in range(200):
        assert optimizer.param_groups[0]["lr"] is lr
        assert lr == torch.tensor(SCHEDULE(time, 0.5))
        assert optimizer.param_groups[0]["initial_lr"] == 0.5
        scheduler.step()
    scheduler.load_state_dict(json.loads(json.dumps(scheduler.state_dict())))
    scheduler.seek(2)
    assert optimizer.param_groups[0]["lr"] is lr
    assert lr == torch.tensor(SCHEDULE(2, 0.5))


def test_weight_decay_tensors_are_filled_in_place():
    decay = torch.tensor(0.1)
    optimizer = torch.optim.Adam([Parameter(torch.ones(2))], weight_decay=decay)
    scheduler = descend.Scheduler(optimizer, weight_decay=SCHEDULE, lr=SCHEDULE)
    for time in range(50):
        assert optimizer.param_groups[0]["weight_decay"] is decay
        assert decay == torch.tensor(SCHEDULE(time, float(torch.tensor(0.1))))
        scheduler.step()
    assert optimizer.param_groups[0]["initial_weight_decay"] == float(torch.tensor(0.1))


@pytest.mark.parametrize("cls", [torch.optim.Adam, torch.optim.AdamW, descend.Adam, descend.AdamW])
@pytest.mark.parametrize("schedule", [SCHEDULE, linear(30, value(0.5), value(0.9))], ids=str)
def test_beta_tensors_are_filled_in_place(cls, schedule):
    beta1, beta2 = torch.tensor(0.9), torch.tensor(0.999)
    base = float(beta1)
    optimizer = cls([Parameter(torch.ones(2))], lr=0.1, betas=(beta1, beta2))
    scheduler = descend.Scheduler(optimizer, beta1=schedule)
    for time in range(50):
        assert optimizer.param_groups[0]["betas"][0] is beta1
        assert optimizer.param_groups[0]["betas"][1] is beta2
        assert beta1 == torch.tensor(schedule(time, base))
        assert optimizer.param_groups[0]["initial_beta1"] == base
        scheduler.step()
    assert beta2 == torch.tensor(0.999)


@pytest.mark.parametrize("cls", [torch.optim.AdamW, descend.AdamW])
def test_the_base_of_beta_tensors_does_not_drift(cls):
    betas = torch.tensor(0.9), torch.tensor(0.999)
    optimizer = cls([Parameter(torch.ones(2))], lr=0.1, betas=betas)
    scheduler = descend.Scheduler(optimizer, beta1=linear(1000, end=0.5))
    for time in range(500):
        scheduler.seek(time * 0.7)  # which looks whether anybody has written
    assert optimizer.param_groups[0]["initial_beta1"] == float(torch.tensor(0.9))
    betas[0].fill_(0.5)
    scheduler.seek(scheduler.last_epoch + scheduler._fraction)
    assert float(betas[0]) == pytest.approx(0.5)


@pytest.mark.parametrize("make", ["torch.AdamW", "descend.AdamW"], indirect=True)
def test_both_betas(make):
    a, b = linear(10, value(0.95), value(0.85)), linear(10, value(0.99), value(0.999))
    optimizer = make(2)
    one, other = descend.Scheduler(optimizer, beta1=a), descend.Scheduler(optimizer, beta2=b)
    for time in range(14):
        for group in optimizer.param_groups:
            assert group["betas"] == (a(time), b(time))
        one.step()
        other.step()


# Company


def product(time, base, *schedules):
    for schedule in schedules:
        base = schedule(time, base)
    return base


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_several_multiply_in_any_order_of_building_and_stepping(make, order):
    makes = [
        lambda optimizer: descend.Scheduler(optimizer, lr=SCHEDULE),
        lambda optimizer: StepLR(optimizer, 4, 0.5),
        lambda optimizer: descend.Scheduler(optimizer, lr=linear(40), weight_decay=linear(9)),
    ]
    optimizer = make(2)
    built = [makes[number](optimizer) for number in order]
    for time in range(30):
        for group, base in zip(optimizer.param_groups, LRS, strict=False):
            wanted = product(time, base, SCHEDULE, step(4, 0.5), linear(40))
            assert group["lr"] == pytest.approx(wanted, rel=1e-15)
            assert group["weight_decay"] == linear(9)(time, base / 10)
            assert group["initial_lr"] == base
        for scheduler in reversed(built) if time % 2 else built:
            scheduler.step()


def in_either_order(make, groups, makes, steps=12):
    """The groups at each step, two schedulers built in one order and then in the other."""
    for order in ((0, 1), (1, 0)):
        optimizer = make(groups)
        built = [makes[number](optimizer) for number in order]
        for time in range(steps):
            yield time, optimizer.param_groups
            for scheduler in built:
                scheduler.step()


def test_values_come_before_factors_in_either_order_of_building(make):
    values = linear(10, value(0.5), value(0.125))
    makes = [
        lambda optimizer: descend.Scheduler(optimizer, lr=values),
        lambda optimizer: descend.Scheduler(optimizer, lr=exponential(0.5)),
    ]
    for time, (group,) in in_either_order(make, 1, makes):
        assert group["lr"] == values(time) * 0.5**time


def test_what_goes_from_a_factor_to_a_value_comes_before_factors_too(make):
    ramp = linear(10, 1, value(0.25))
    makes = [
        lambda optimizer: descend.Scheduler(optimizer, lr=ramp),
        lambda optimizer: descend.Scheduler(optimizer, lr=exponential(0.5)),
    ]
    for time, (group,) in in_either_order(make, 1, makes):
        assert group["lr"] == ramp(time, LRS[0]) * 0.5**time


def test_the_order_is_that_of_each_hyperparameter(make):
    makes = [
        lambda optimizer: descend.Scheduler(optimizer, lr=linear(10), weight_decay=value(0.5)),
        lambda optimizer: descend.Scheduler(optimizer, lr=value(0.25), weight_decay=linear(5)),
    ]
    for time, (group,) in in_either_order(make, 1, makes):
        assert group["lr"] == 0.25 * linear(10)(time)
        assert group["weight_decay"] == 0.5 * linear(5)(time)


def test_a_group_with_a_value_and_one_with_a_factor_beside_another_scheduler(make):
    ramp = linear(10, 1, value(0.25))
    makes = [
        lambda optimizer: descend.Scheduler(optimizer, lr={0: ramp, 1: linear(10)}),
        lambda optimizer: descend.Scheduler(optimizer, lr=exponential(0.5)),
    ]
    for time, (first, second) in in_either_order(make, 2, makes):
        assert first["lr"] == ramp(time, LRS[0]) * 0.5**time
        assert second["lr"] == pytest.approx(linear(10)(time, LRS[1]) * 0.5**time)


def test_of_two_that_give_values_the_one_built_last_does(make):
    optimizer = make(1)
    first = descend.Scheduler(optimizer, lr=value(0.5))
    second = descend.Scheduler(optimizer, lr=value(0.25))
    third = descend.Scheduler(optimizer, lr=linear(10))
    for time in range(1, 5):
        first.step()
        third.step()
        second.step()
        assert first.get_last_lr() == [0.25 * linear(10)(time)]


def test_a_plateau_beside_it(make):
    optimizer = make(2)
    scheduler = descend.Scheduler(optimizer, lr=warmup(4), weight_decay=linear(20))
    plateau = ReduceLROnPlateau(optimizer, factor=0.5, patience=1, eps=0)
    reduced = 0
    for time, loss in enumerate([3, 2, 2, 2, 1, 1, 1, 1, 1, 0]):
        for group, base in zip(optimizer.param_groups, LRS, strict=False):
            assert group["lr"] == pytest.approx(warmup(4)(time, base) * 0.5**reduced, rel=1e-15)
            assert group["weight_decay"] == linear(20)(time, base / 10)
        plateau.step(loss)
        reduced = max(plateau.reductions, default=0)
        scheduler.step()
    assert plateau.reductions == [3, 3]


def test_it_stands_in_a_sequence_and_in_a_chain(make):
    optimizer = make(2)
    parts = [
        descend.Scheduler(optimizer, lr=warmup(3)),
        descend.Scheduler(optimizer, lr=cosine(10), weight_decay=linear(5)),
    ]
    sequence = SequentialLR(optimizer, parts, [3])
    for time in range(16):
        for group, base in zip(optimizer.param_groups, LRS, strict=False):
            assert group["lr"] == (warmup(3) >> cosine(10))(time, base)
            decay = linear(5)(time - 3, base / 10) if time >= 3 else base / 10
            assert group["weight_decay"] == decay
        sequence.step()
    optimizer = make(1)
    chain = ChainedScheduler(
        [CosineAnnealingLR(optimizer, 10), descend.Scheduler(optimizer, lr=warmup(3))]
    )
    for time in range(10):
        wanted = product(time, LRS[0], cosine(10), warmup(3))
        assert optimizer.param_groups[0]["lr"] == pytest.approx(wanted, rel=1e-14, abs=1e-16)
        chain.step()


def test_beside_a_scheduler_of_torchs_own():
    optimizer = torch.optim.SGD([Parameter(torch.ones(2))], lr=0.5, momentum=0.9)
    theirs = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    mine = descend.Scheduler(optimizer, momentum=linear(4))
    for time in range(4):
        (group,) = optimizer.param_groups
        assert (group["lr"], group["momentum"]) == (0.5**time * 0.5, linear(4)(time, 0.9))
        optimizer.step()
        theirs.step()
        mine.step()


def test_what_is_written_by_hand_is_where_it_goes_on(make):
    for key in make.keys:
        optimizer = make(2)
        scheduler = descend.Scheduler(optimizer, **{key: linear(20)})
        for _ in range(5):
            scheduler.step()
        old = held(optimizer.param_groups[1], key)
        hand(optimizer, key, constant(0.5), [old, old], 0)
        for time in range(6, 20):
            scheduler.step()
            for group in optimizer.param_groups:
                wanted = old * 0.5 * linear(20)(time) / linear(20)(5)
                assert held(group, key) == pytest.approx(wanted, rel=1e-12)


def test_a_value_has_no_base_to_go_on_from(make):
    optimizer = make(1)
    scheduler = descend.Scheduler(optimizer, lr=linear(20, value(0.5), value(0.1)))
    optimizer.param_groups[0]["lr"] = 7.0
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == linear(20, 0.5, 0.1)(1)


@pytest.mark.parametrize("make", ["torch.SGD"], indirect=True)
def test_dropped_it_drives_no_longer_and_holds_nothing(make):
    optimizer = make(1)
    scheduler = descend.Scheduler(optimizer, lr=linear(20), weight_decay=linear(20))
    other = descend.Scheduler(optimizer, lr=constant(0.5))
    dead = weakref.ref(scheduler), weakref.ref(optimizer)
    scheduler.seek(10)
    del scheduler
    gc.collect()
    assert dead[0]() is None
    before = optimizer.param_groups[0]["lr"]
    other.step()
    assert optimizer.param_groups[0]["lr"] == before == LRS[0] / 4  # it goes on from what was there
    del optimizer, other
    gc.collect()
    assert dead[1]() is None


# Seeking, previewing


def test_seeking_is_exact_in_any_order(make):
    optimizer = make(2)
    schedules = dict.fromkeys(make.keys, SCHEDULE)
    scheduler = descend.Scheduler(optimizer, **schedules)
    stepped = []
    for _ in range(30):
        stepped.append(options_of(optimizer))
        scheduler.step()
    for time in (7, 0, 29, 3, 3, 28, 12):
        scheduler.seek(time)
        assert options_of(optimizer) == stepped[time]
        assert scheduler.last_epoch == time
    scheduler.seek(10**15)
    assert optimizer.param_groups[0]["lr"] == SCHEDULE(10**15, LRS[0])
    scheduler.seek(2.5)
    assert optimizer.param_groups[1]["lr"] == SCHEDULE(2.5, LRS[1])
    scheduler.step(4)
    assert options_of(optimizer) == stepped[4]
    scheduler.step()
    assert options_of(optimizer) == stepped[5]


@pytest.mark.parametrize("make", ["torch.SGD"], indirect=True)
@pytest.mark.parametrize("time", [-1, math.nan, math.inf, True, "3", None, [3]], ids=repr)
def test_seeking_nowhere_is_refused_and_changes_nothing(make, time):
    scheduler = descend.Scheduler(make(1), lr=SCHEDULE)
    scheduler.step()
    before, state = options_of(scheduler.optimizer), scheduler.state_dict()
    with pytest.raises(ScheduleError, match="the epoch must be a number of at least 0"):
        scheduler.seek(time)
    assert (options_of(scheduler.optimizer), scheduler.state_dict()) == (before, state)


@pytest.mark.parametrize("make", ["torch.SGD"], indirect=True)
@pytest.mark.parametrize("time", [numpy.int64(3), numpy.float32(2.5)], ids=repr)
def test_numpys_numbers_may_be_sought(make, time):
    scheduler = descend.Scheduler(make(1), lr=SCHEDULE)
    scheduler.seek(time)
    assert scheduler.optimizer.param_groups[0]["lr"] == SCHEDULE(time.item(), LRS[0])
    json.dumps(scheduler.state_dict())


def test_a_preview_is_what_comes_and_touches_nothing(make):
    optimizer = make(2)
    schedules = dict.fromkeys(make.keys, SCHEDULE)
    scheduler = descend.Scheduler(optimizer, **{**schedules, "lr": {1: linear(7)}})
    scheduler.seek(5)
    before, state = options_of(optimizer), scheduler.state_dict()
    preview = scheduler.preview(30)
    assert (options_of(optimizer), scheduler.state_dict()) == (before, state)
    assert list(preview) == list(scheduler.keys)
    for time in range(30):
        scheduler.seek(time)
        for key in make.keys:
            got = [held(group, key) for group in optimizer.param_groups]
            assert preview[key][time] == got
    assert scheduler.preview(0) == {key: [] for key in make.keys}


def test_get_lr_is_its_own_part_and_get_last_lr_the_whole(make):
    optimizer = make(2)
    other = StepLR(optimizer, 1, 0.5)
    scheduler = descend.Scheduler(optimizer, lr=linear(10))
    other.step()
    scheduler.step()
    assert scheduler.get_lr() == [0.9 * lr for lr in LRS[:2]]
    assert scheduler.get_last_lr() == [group["lr"] for group in optimizer.param_groups]
    assert scheduler.get_last_lr() == pytest.approx([0.45 * lr for lr in LRS[:2]])
    assert scheduler.base_lrs == list(LRS[:2])
    only_decay = descend.Scheduler(make(2), weight_decay=linear(10))
    assert only_decay.get_lr() == only_decay.get_last_lr() == list(LRS[:2])


# Saving and resuming


def test_the_state_is_plain_data_and_comes_back(make):
    schedules = dict.fromkeys(make.keys, SCHEDULE)
    scheduler = descend.Scheduler(make(2), **{**schedules, "weight_decay": [linear(9), None]})
    for _ in range(5):
        scheduler.step()
    state = scheduler.state_dict()
    assert json.loads(json.dumps(state)) == state
    assert state["last_epoch"] == 5
    assert state["schedules"]["lr"] == str(SCHEDULE)
    assert state["schedules"]["weight_decay"] == {"0": "linear(9)"}
    other = descend.Scheduler(make(2), **{**schedules, "weight_decay": {0: linear(9)}})
    other.load_state_dict(json.loads(json.dumps(state)))
    assert other.state_dict() == state
    assert options_of(other.optimizer) == options_of(scheduler.optimizer)
    other.step()
    scheduler.step()
    assert options_of(other.optimizer) == options_of(scheduler.optimizer)


def test_the_state_shares_nothing_with_the_scheduler(make):
    scheduler = descend.Scheduler(make(2), lr={0: linear(9)}, weight_decay=linear(5))
    state = scheduler.state_dict()
    before = copy.deepcopy(state)
    scheduler.step()
    assert state == before
    scheduler.load_state_dict(state)
    state["base_lrs"][0] = state["bases"]["weight_decay"][0] = 99.0
    state["schedules"].clear()
    assert scheduler.state_dict() == before


@pytest.mark.parametrize(
    "order",
    [
        "build optimizer, build scheduler, load optimizer, load scheduler",
        "build optimizer, build scheduler, load scheduler, load optimizer",
        "build optimizer, load optimizer, build scheduler, load scheduler",
        "build optimizer, load optimizer, build scheduler where it was",
    ],
)
@pytest.mark.parametrize("moved", [False, True], ids=["same lr", "another lr in the script"])
def test_resumed_in_any_order_it_is_as_if_never_stopped(make, order, moved):
    schedules = dict.fromkeys(make.keys, SCHEDULE)
    schedules["weight_decay"] = linear(15, value(0.5), value(0.125))

    def run(optimizer, scheduler, first, last):
        seen = []
        for time in range(first, last):
            for number, group in enumerate(optimizer.param_groups):
                for param in group["params"]:
                    param.grad = torch.full_like(param, math.sin(7 * time + number))
            optimizer.step()
            scheduler.step()
            seen.append(
                [
                    {
                        key: group[key]
                        for key in group
                        if key in ("lr", "weight_decay", "momentum", "betas")
                    }
                    for group in options_of(optimizer)
                ]
            )
        return seen

    whole = make(2)
    expected = run(whole, descend.Scheduler(whole, **schedules), 0, 20)
    part = make(2)
    before = descend.Scheduler(part, **schedules)
    seen = run(part, before, 0, 8)
    saved = pickle.loads(pickle.dumps((part.state_dict(), before.state_dict())))
    values = [param.detach().clone() for group in part.param_groups for param in group["params"]]

    optimizer = make(2)
    if moved:
        for group in optimizer.param_groups:
            group["lr"] *= 3
    for group, kept in zip(optimizer.param_groups, values, strict=True):
        group["params"][0].data.copy_(kept)
    scheduler = None
    for act in order.split(", "):
        if act == "build scheduler":
            scheduler = descend.Scheduler(optimizer, **schedules)
        elif act == "build scheduler where it was":
            last = saved[1]["last_epoch"] - 1
            scheduler = descend.Scheduler(optimizer, **schedules, last_epoch=last)
        elif act == "load optimizer":
            optimizer.load_state_dict(saved[0])
        elif act == "load scheduler":
            scheduler.load_state_dict(saved[1])
    seen += run(optimizer, scheduler, 8, 20)
    assert seen == expected
    for one, other in zip(whole.param_groups, optimizer.param_groups, strict=True):
        assert torch.equal(one["params"][0], other["params"][0])


def test_a_copy_and_a_pickle_go_on_the_same(make):
    optimizer = make(2)
    scheduler = descend.Scheduler(optimizer, **dict.fromkeys(make.keys, SCHEDULE))
    for _ in range(5):
        scheduler.step()
    twins = [
        copy.deepcopy((optimizer, scheduler)),
        pickle.loads(pickle.dumps((optimizer, scheduler))),
    ]
    scheduler.step()
    expected = options_of(optimizer)
    for theirs, twin in twins:
        assert twin.optimizer is theirs
        twin.step()
        assert options_of(theirs) == expected
        twin.step()
    assert options_of(optimizer) == expected


def test_p24_another_expression_is_refused_unless_asked_for(make):
    state = descend.Scheduler(make(2), lr=cosine(100)).state_dict()
    state["last_epoch"], state["base_lrs"] = 5, [0.25, 0.125]
    optimizer = make(2)
    scheduler = descend.Scheduler(optimizer, lr=cosine(200))
    scheduler.step()
    before = options_of(optimizer)
    with pytest.raises(StateError, match=r"cosine\(100\).*cosine\(200\).*strict=False"):
        scheduler.load_state_dict(state)
    assert (options_of(optimizer), scheduler.last_epoch) == (before, 1)
    scheduler.load_state_dict(state, strict=False)
    assert scheduler.last_epoch == 5
    assert scheduler.state_dict()["schedules"] == {"lr": "cosine(200)"}
    assert [group["lr"] for group in optimizer.param_groups] == [
        cosine(200)(5, 0.25),
        cosine(200)(5, 0.125),
    ]


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ({"lr": cosine(10)}, {"lr": cosine(10, 1, 0.1)}),
        ({"lr": cosine(10)}, {"weight_decay": cosine(10)}),
        ({"lr": cosine(10)}, {"lr": cosine(10), "weight_decay": cosine(10)}),
        ({"lr": cosine(10)}, {"lr": [cosine(10), cosine(10)]}),
        ({"lr": {0: cosine(10)}}, {"lr": {1: cosine(10)}}),
    ],
)
def test_p24_any_difference_is_refused(make, mine, theirs):
    scheduler = descend.Scheduler(make(2), **mine)
    before = options_of(scheduler.optimizer)
    with pytest.raises(StateError, match="make it the same, or load with strict=False"):
        scheduler.load_state_dict(descend.Scheduler(make(2), **theirs).state_dict())
    assert options_of(scheduler.optimizer) == before


def test_a_state_of_another_kind_or_of_other_groups_is_refused(make):
    scheduler = descend.Scheduler(make(2), lr=cosine(10))
    before = options_of(scheduler.optimizer)
    for state, why in (
        (StepLR(make(2), 3).state_dict(), "no 'schedules', so it is not of a Scheduler"),
        (
            descend.Scheduler(make(3), lr=cosine(10)).state_dict(),
            "3 groups, and the optimizer has 2",
        ),
        ([], "a state is a dict, got list"),
        (None, "a state is a dict, got NoneType"),
        ({}, "no 'schedules'"),
    ):
        with pytest.raises(StateError, match=why):
            scheduler.load_state_dict(state)
        assert options_of(scheduler.optimizer) == before


@pytest.mark.parametrize("make", ["descend.AdamW"], indirect=True)
@pytest.mark.parametrize(
    "wrong",
    [
        {"last_epoch": None},
        {"last_epoch": "3"},
        {"last_epoch": 2.5},
        {"last_epoch": True},
        {"last_epoch": -1},
        {"last_epoch": -2},
        {"base_lrs": None},
        {"base_lrs": 5},
        {"base_lrs": ["a", "b"]},
        {"base_lrs": [math.nan, 1.0]},
        {"base_lrs": [0.1, None]},
        {"bases": None},
        {"bases": {"weight_decay": ["x", "y"]}},
        {"bases": {"weight_decay": [0.1]}},
        {"bases": {"momentum_of_another": [0.1, 0.2]}},
        {"_fraction": "x"},
        {"_fraction": 3.0},
    ],
    ids=str,
)
def test_a_damaged_state_is_refused_and_changes_nothing(make, wrong):
    scheduler = descend.Scheduler(make(2), lr=linear(10), weight_decay=linear(5))
    scheduler.step()
    state = {**scheduler.state_dict(), **wrong}
    before = options_of(scheduler.optimizer), scheduler.state_dict()
    with pytest.raises(StateError):
        scheduler.load_state_dict(state)
    assert (options_of(scheduler.optimizer), scheduler.state_dict()) == before


def test_a_state_of_weight_decay_leaves_the_lr_of_another_scheduler_alone(make):
    saved = descend.Scheduler(make(1), weight_decay=linear(5)).state_dict()
    optimizer = make(1)
    optimizer.param_groups[0]["lr"] = 2.0
    halving = StepLR(optimizer, 1, 0.5)
    decay = descend.Scheduler(optimizer, weight_decay=linear(5))
    decay.load_state_dict(saved)
    assert trace(halving, "lr", 3) == [2.0, 1.0, 0.5]


# Errors


@pytest.mark.parametrize("make", ["descend.AdamW"], indirect=True)
@pytest.mark.parametrize(
    ("given", "error", "why"),
    [
        ({}, ScheduleError, "give a schedule, such as lr=warmup"),
        ({"lr": 0.1}, ScheduleTypeError, "lr must be a schedule, such as .*got 0.1"),
        ({"lr": None}, ScheduleTypeError, "lr must be a schedule, such as .*got None"),
        ({"lr": "cosine(10)"}, ScheduleTypeError, r"got 'cosine\(10\)'; descend.schedules.parse"),
        ({"lr": cosine}, ScheduleTypeError, "lr must be a schedule"),
        ({"lr": math.cos}, ScheduleTypeError, "lr must be a schedule"),
        ({"lr": [cosine(1)]}, ScheduleError, "lr has 1 schedule, and the optimizer 2 groups"),
        ({"lr": [cosine(1)] * 3}, ScheduleError, "lr has 3 schedules, and the optimizer 2 groups"),
        ({"lr": [cosine(1), 3]}, ScheduleTypeError, "lr must be a schedule.*got 3"),
        ({"lr": {2: cosine(1)}}, ScheduleError, "group 2, and the optimizer has the groups 0 to 1"),
        ({"lr": {-1: cosine(1)}}, ScheduleError, "group -1, and"),
        ({"lr": {True: cosine(1)}}, ScheduleError, "group True, and"),
        ({"lr": {"0": cosine(1)}}, ScheduleError, "group '0', and"),
        ({"lr": {0: "x"}}, ScheduleTypeError, "lr must be a schedule.*got 'x'"),
        ({"lr": {}}, ScheduleError, "lr"),
        ({"lr": [None, None]}, ScheduleError, "lr"),
        (
            {"weight_deacy": cosine(1)},
            ScheduleError,
            "'weight_deacy'; did you mean weight_decay",
        ),
        ({"beta3": cosine(1)}, ScheduleError, "'beta3'; did you mean beta"),
        ({"params": cosine(1)}, ScheduleError, "params"),
        ({"foreach": cosine(1)}, ScheduleError, "foreach"),
        ({"maximize": cosine(1)}, ScheduleError, "maximize"),
        ({"lr": cosine(1), "last_epoch": 1.5}, ScheduleError, "last_epoch must be -1 or"),
        ({"lr": cosine(1), "last_epoch": -2}, ScheduleError, "last_epoch must be -1 or"),
        ({"lr": cosine(1), "weight_decay": "x"}, ScheduleTypeError, "weight_decay must be"),
    ],
    ids=lambda part: str(part).split(" at 0x")[0],
)
def test_what_cannot_be_scheduled_is_refused_and_changes_nothing(make, given, error, why):
    optimizer = make(2)
    before = options_of(optimizer)
    with pytest.raises(error, match=why):
        descend.Scheduler(optimizer, **given)
    assert options_of(optimizer) == before
    fine = descend.Scheduler(optimizer, lr=linear(2))
    assert trace(fine, "lr", 3) == [LRS[0], LRS[0] / 2, 0.0]


@pytest.mark.parametrize("make", ["torch.AdamW", "descend.AdamW"], indirect=True)
def test_betas_are_scheduled_one_by_one(make):
    with pytest.raises(ScheduleError, match="beta1"):
        descend.Scheduler(make(1), betas=cosine(10))


@pytest.mark.parametrize("wrong", [3, None, [], "optimizer", torch.nn.Linear(1, 1)], ids=repr)
def test_what_is_no_optimizer_is_refused(wrong):
    with pytest.raises(ScheduleTypeError, match="is not an Optimizer"):
        descend.Scheduler(wrong, lr=cosine(10))


@pytest.mark.parametrize("make", ["torch.AdamW"], indirect=True)
@pytest.mark.parametrize("bad", [lambda: "x", lambda: None, lambda: 1 / 0])
def test_a_function_that_fails_leaves_everything_as_it_was(make, bad):
    optimizer = make(2)
    scheduler = descend.Scheduler(
        optimizer,
        lr=linear(10),
        weight_decay=function(lambda time: bad() if time in (3, 6) else 1.0),
    )
    other = descend.Scheduler(optimizer, lr=linear(20))
    for _ in range(2):
        scheduler.step()
    before = options_of(optimizer), scheduler.state_dict()
    for act in (scheduler.step, lambda: scheduler.seek(6)):
        with pytest.raises((DescendError, ZeroDivisionError)):
            act()
        assert (options_of(optimizer), scheduler.state_dict()) == before
    scheduler.seek(4)
    other.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(LRS[0] * 0.6 * 0.95)


def test_it_is_a_scheduler_of_torchs(make):
    scheduler = descend.Scheduler(make(1), lr=cosine(10))
    assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
    assert isinstance(scheduler, descend.lr_scheduler.LRScheduler)
    assert descend.Scheduler is descend.lr_scheduler.Scheduler
