"""Rows P20 to P28 of the known pains: what torch's schedulers do wrong, and what is seen here."""

import copy
import itertools
import json
import math
import random
import re
import warnings
from functools import partial

import pytest
import torch
from torch.nn import Parameter

import descend
from descend import lr_scheduler
from descend.errors import ScheduleError, ScheduleTypeError, StateError
from descend.schedules import constant, cosine, exponential, linear, value, warmup
from lr_scheduler.scheduler_cases import (
    BY_NAME,
    CASES,
    LRS,
    MAKERS,
    MODULES,
    PURE,
    Case,
    Warm,
    advance,
    each,
    every,
    optimizer_of,
    sequence,
    values_of,
)

MAKERS_TWO = {"torch.SGD": (torch.optim.SGD, 2), "descend.AdamW": (descend.AdamW, 3)}
END = 120


def parameter():
    return Parameter(torch.ones(1))


class Closed(lr_scheduler.LRScheduler):
    """A user's, as torch's closed ones."""

    def get_lr(self):
        return [base * 0.97**self.last_epoch for base in self.base_lrs]


class Recursive(lr_scheduler.LRScheduler):
    """A user's, as torch's chainable ones, with something of its own in the state."""

    def __init__(self, optimizer, last_epoch=-1):
        self.calls = 0
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        self.calls += 1
        if self.last_epoch == 0:
            return [group["lr"] for group in self.optimizer.param_groups]
        return [group["lr"] * (1 - 0.1 / self.calls) for group in self.optimizer.param_groups]


def expression(m, o):
    second = {0: exponential(0.99)} if len(o.param_groups) < 3 else [None, warmup(20), constant()]
    momentum = "momentum" if "momentum" in o.defaults else "beta1"
    return descend.Scheduler(
        o,
        lr=warmup(10) >> cosine(80) >> linear(20, 0.0, value(0.01)),
        weight_decay=second,
        **{momentum: linear(50, value(0.5), value(0.9))},
    )


MORE = [
    Case("Scheduler", expression, None, turns=(10, 90, 110)),
    Case("a user's, closed", lambda m, o: Closed(o), None),
    Case("a user's, recursive", lambda m, o: Recursive(o), None),
    Case(
        "a user's in a sequence",
        lambda m, o: m.SequentialLR(o, [m.ConstantLR(o, 0.5, 10), Recursive(o)], [10]),
        None,
        turns=(10,),
    ),
    Case(
        "a user's in a chain",
        lambda m, o: m.ChainedScheduler([Recursive(o), m.ConstantLR(o, 0.5, 10), Closed(o)]),
        None,
        turns=(10,),
    ),
    Case(
        "a plateau in a sequence",
        lambda m, o: m.SequentialLR(
            o,
            [m.LinearLR(o, 0.1, total_iters=8), m.ReduceLROnPlateau(o, "min", 0.5, 2, eps=0.0)],
            [8],
        ),
        None,
        turns=(8, 11, 14),
    ),
    Case(
        "a plateau in a chain",
        lambda m, o: m.ChainedScheduler(
            [m.ReduceLROnPlateau(o, "min", 0.5, 2, eps=0.0), m.ExponentialLR(o, 0.99)]
        ),
        None,
        turns=(3, 6),
    ),
]
ALL = [*CASES, *MORE]
every_case = every(ALL)


def everything(optimizer):
    """All hyperparameters that a scheduler may drive, of each group."""
    names = ("lr", "momentum", "betas", "weight_decay")
    return [
        {name: group[name] for name in names if name in group} for group in optimizer.param_groups
    ]


def run(scheduler, first, end=END):
    """What holds in each step, from where the scheduler is."""
    seen = []
    for step in range(first, end):
        if step > first:
            advance(scheduler, step)
        seen.append(everything(scheduler.optimizer))
    return seen


# P20: any order of building and loading.

ORDERS = ("BOS", "BSO", "OBS", "BS")  # build, load the optimizer, load the scheduler's state


def saved_in_each_step(case, module, make, groups):
    """An uninterrupted run: what holds in each step, and what would be saved there."""
    scheduler = case.build(MODULES[module], optimizer_of(make, groups))
    seen, states = [], []
    for step in range(END):
        if step:
            advance(scheduler, step)
        seen.append(everything(scheduler.optimizer))
        states.append(copy.deepcopy((scheduler.optimizer.state_dict(), scheduler.state_dict())))
    return seen, states


def resumed(case, module, make, groups, order, scale, states):
    """A scheduler rebuilt and loaded in some order, on an optimizer with perhaps another lr."""
    optimizer = optimizer_of(make, groups, scale)
    saved, state = copy.deepcopy(states)
    scheduler = None
    for what in order:
        if what == "B":
            scheduler = case.build(MODULES[module], optimizer)
        elif what == "O":
            optimizer.load_state_dict(saved)
        else:
            scheduler.load_state_dict(state)
    return scheduler


def all_epochs(case):
    """When to stop: at the beginning, around all that happens, and late."""
    around = {turn + by for turn in case.turns for by in (-1, 0, 1) if turn < END - 10}
    return sorted({0, 1, 2, 50, END - 20} | around)


def some_epochs(case):
    """The beginning, the first that happens, and late."""
    return sorted({0, 1, END - 20, *(turn for turn in case.turns[:1] if turn < END - 10)})


def matrix(case, module, make, groups, same, epochs=all_epochs):
    """The combinations that do not go on as the run that never stopped, and how many there are."""
    seen, states = saved_in_each_step(case, module, make, groups)
    bad = []
    combinations = list(itertools.product(epochs(case), ORDERS, (1.0, 10.0)))
    for epoch, order, scale in combinations:
        scheduler = resumed(case, module, make, groups, order, scale, states[epoch])
        end = min(END, epoch + 25)
        if not same(run(scheduler, epoch, end), seen[epoch:end]):
            bad.append((epoch, order, scale))
    return bad, len(combinations)


@pytest.mark.parametrize("maker", MAKERS_TWO)
@every_case
def test_p20_whatever_the_order_of_building_and_loading_the_rest_is_bit_identical(case, maker):
    assert_bit_identical(case, maker, some_epochs)


@pytest.mark.slow
@pytest.mark.parametrize("maker", MAKERS_TWO)
@every_case
def test_p20_wherever_it_stopped_the_rest_is_bit_identical(case, maker):
    assert_bit_identical(case, maker, all_epochs)


def assert_bit_identical(case, maker, epochs):
    make, groups = MAKERS_TWO[maker]
    if maker.startswith("descend") and "negative" in case.name:
        pytest.skip("descend's optimizers load no negative lr")
    if maker.startswith("descend") and case.name.startswith("MultiplicativeLR: one"):
        groups = 2  # the third makes it negative
    bad, count = matrix(case, "descend", make, groups, lambda a, b: a == b, epochs)
    assert bad == []
    assert count >= 24


@pytest.mark.parametrize("maker", ["torch.AdamW", "descend.SGD"])
@every_case
def test_p20_lr_tensors_in_any_order_too(case, maker):
    """Loading replaces the tensors of torch's optimizers, and fills those of descend's."""

    def begin(scale=1.0):
        tensors = [torch.tensor(lr * scale) for lr in LRS[:2]]
        groups = [{"params": [parameter()], "lr": lr} for lr in tensors]
        return MAKERS[maker](groups, lr=0.5, **({"momentum": 0.5} if "SGD" in maker else {}))

    if "negative" in case.name:
        pytest.skip("descend's optimizers load no negative lr")
    for at in (0, 9):
        source = case.build(lr_scheduler, begin())
        run(source, 0, at + 1)
        saved, state = copy.deepcopy((source.optimizer.state_dict(), source.state_dict()))
        rest = [values_of(source.optimizer)]
        for step in range(at + 1, at + 9):
            advance(source, step)
            rest.append(values_of(source.optimizer))
        for order in ORDERS:
            optimizer = begin(10.0)
            for what in order:
                if what == "B":
                    scheduler = case.build(lr_scheduler, optimizer)
                elif what == "O":
                    optimizer.load_state_dict(copy.deepcopy(saved))
                else:
                    scheduler.load_state_dict(copy.deepcopy(state))
            held = [group["lr"] for group in optimizer.param_groups]
            seen = [values_of(optimizer)]
            for step in range(at + 1, at + 9):
                advance(scheduler, step)
                seen.append(values_of(optimizer))
            assert seen == rest, (at, order)
            assert all(
                group["lr"] is lr for group, lr in zip(optimizer.param_groups, held, strict=True)
            )


def nearly(a, b):
    """Whether two runs have the same lrs and momenta, but for the last digits."""
    flat = [
        [x for step in run for group in step for x in (group["lr"], group.get("momentum", 0))]
        for run in (a, b)
    ]
    return flat[0] == pytest.approx(flat[1], rel=1e-9)


@pytest.mark.parametrize(
    "name",
    [
        "LambdaLR",
        "ConstantLR",
        "LinearLR",
        "CyclicLR",
        "OneCycleLR",
        "CosineAnnealingWarmRestarts",
        "SequentialLR: three",
        "ChainedScheduler",
    ],
)
def test_p20_the_matrix_finds_what_torch_does_wrong(name):
    """As the pains say: load the optimizer, build the scheduler, load the scheduler."""
    bad, count = matrix(BY_NAME[name], "torch", torch.optim.SGD, 2, nearly)
    assert {order for _, order, scale in bad if scale == 1.0} >= {"OBS"}
    assert 0 < len(bad) < count


@every_case
def test_p20_states_that_went_through_json_and_torch_save_load(case, tmp_path):
    source = case.build(lr_scheduler, optimizer_of(groups=2))
    run(source, 0, 24)
    state = source.state_dict()
    torch.save(state, tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    assert loaded == state
    rest = run(source, 23, 60)
    for restored in (json.loads(json.dumps(state)), loaded):
        scheduler = case.build(lr_scheduler, optimizer_of(groups=2, scale=7.0))
        scheduler.load_state_dict(restored)
        assert run(scheduler, 23, 60) == rest


def test_p20_a_state_is_a_copy():
    """Neither stepping nor writing into it changes the other."""
    for case in ALL:
        scheduler = case.build(lr_scheduler, optimizer_of(groups=2))
        run(scheduler, 0, 5)
        state = scheduler.state_dict()
        before = copy.deepcopy(state)
        run(scheduler, 4, 9)
        assert state == before, case
        scheduler.load_state_dict(state)
        assert state == before, case
        rest = scheduler.state_dict()
        for entry in state.values():
            if isinstance(entry, list | dict):
                entry.clear()
        assert scheduler.state_dict() == rest, case


PAIRS = {
    "linear and step": (
        lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=10),
        lambda o: lr_scheduler.StepLR(o, 7, 0.5),
    ),
    "constant and cosine": (
        lambda o: lr_scheduler.ConstantLR(o, 0.1, 10),
        lambda o: lr_scheduler.CosineAnnealingLR(o, 40),
    ),
    "cosine to a minimum and exponential": (
        lambda o: lr_scheduler.CosineAnnealingLR(o, 40, 0.001),
        lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    ),
    "plateau and exponential": (
        lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=2, factor=0.5),
        lambda o: lr_scheduler.ExponentialLR(o, 0.99),
    ),
    "cyclic and exponential": (
        lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 7),
        lambda o: lr_scheduler.ExponentialLR(o, 0.99),
    ),
    "lambda and milestones": (
        lambda o: lr_scheduler.LambdaLR(o, Warm(20)),
        lambda o: lr_scheduler.MultiStepLR(o, [10, 20]),
    ),
    "multiplicative and one cycle": (
        lambda o: lr_scheduler.MultiplicativeLR(o, lambda e: 0.99),
        lambda o: lr_scheduler.OneCycleLR(o, 0.1, 60),
    ),
    "a sequence and exponential": (
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.LinearLR(o, 0.1), lr_scheduler.CosineAnnealingLR(o, 30)], [5]
        ),
        lambda o: lr_scheduler.ExponentialLR(o, 0.99),
    ),
}


def orders_of_two():
    """Build 1 and 2, load the optimizer or not, load 1 and 2: all that make sense."""
    words = ("B1", "B2", "S1", "S2")
    for several in (words, (*words, "O")):
        for order in itertools.permutations(several):
            if order.index("B1") < order.index("S1") and order.index("B2") < order.index("S2"):
                yield order


def side_by_side(name, order, make, groups, scale, states):
    optimizer = optimizer_of(make, groups, scale)
    saved = copy.deepcopy(states)
    built = {}
    for what, number in (word if len(word) == 2 else "O0" for word in order):
        if what == "B":
            built[number] = PAIRS[name][int(number) - 1](optimizer)
        elif what == "O":
            optimizer.load_state_dict(saved["O"])
        else:
            built[number].load_state_dict(saved[number])
    return optimizer, built["1"], built["2"]


def run_two(optimizer, first, second, start, end):
    seen = []
    for step in range(start, end):
        if step > start:
            advance(first, step)
            advance(second, step)
        seen.append(everything(optimizer))
    return seen


@pytest.mark.parametrize("maker", MAKERS_TWO)
@pytest.mark.parametrize("name", PAIRS)
def test_p20_two_schedulers_side_by_side_in_any_order(name, maker):
    make, groups = MAKERS_TWO[maker]
    optimizer = optimizer_of(make, groups)
    first, second = (build(optimizer) for build in PAIRS[name])
    seen, states = [], []
    for step in range(20):
        if step:
            advance(first, step)
            advance(second, step)
        seen.append(everything(optimizer))
        parts = {"O": optimizer.state_dict(), "1": first.state_dict(), "2": second.state_dict()}
        states.append(copy.deepcopy(parts))
    bad = []
    for order, at, scale in itertools.product(orders_of_two(), (0, 10), (1.0, 10.0)):
        built_as_before = order.index("B1") < order.index("B2")
        if not built_as_before and "minimum" in name:
            continue  # it is no factor: what comes after it does not move its minimum
        three = side_by_side(name, order, make, groups, scale, states[at])
        end = at + 8
        rest = run_two(*three, at, end)
        same = rest == seen[at:end] if built_as_before else nearly(rest, seen[at:end])
        if not same:
            bad.append((order, at, scale))
    assert bad == []


def test_p20_an_optimizer_state_without_bases():
    """It is of a run that had no scheduler; the curve goes on from its own beginning."""
    plain = optimizer_of(groups=2).state_dict()
    for case in ALL:
        if "OneCycle" in case.name:
            continue  # torch's own keeps its levels in the groups; here they are not needed
        optimizer = optimizer_of(groups=2)
        expected = run(case.build(lr_scheduler, optimizer_of(groups=2)), 0, 40)
        scheduler = case.build(lr_scheduler, optimizer)
        state = scheduler.state_dict()
        optimizer.load_state_dict(copy.deepcopy(plain))
        scheduler.load_state_dict(state)
        assert run(scheduler, 0, 40) == expected, case
        optimizer = optimizer_of(groups=2)
        scheduler = case.build(lr_scheduler, optimizer)
        scheduler.load_state_dict(state)
        optimizer.load_state_dict(copy.deepcopy(plain))
        if everything(optimizer) == expected[0]:  # or it is as if written by hand
            assert run(scheduler, 0, 40) == expected, case


# P21: `last_epoch`.


def from_epoch(last_epoch):
    """Every scheduler that takes `last_epoch`, with it."""
    m = lr_scheduler
    return {
        "LambdaLR": lambda o: m.LambdaLR(o, lambda e: 0.5**e, last_epoch),
        "MultiplicativeLR": lambda o: m.MultiplicativeLR(o, lambda e: 0.9, last_epoch),
        "StepLR": lambda o: m.StepLR(o, 3, 0.5, last_epoch),
        "MultiStepLR": lambda o: m.MultiStepLR(o, [3, 8], 0.5, last_epoch),
        "ConstantLR": lambda o: m.ConstantLR(o, 0.5, 8, last_epoch),
        "LinearLR": lambda o: m.LinearLR(o, 0.5, 1.0, 16, last_epoch),
        "ExponentialLR": lambda o: m.ExponentialLR(o, 0.5, last_epoch),
        "PolynomialLR": lambda o: m.PolynomialLR(o, 16, 2.0, last_epoch),
        "CosineAnnealingLR": lambda o: m.CosineAnnealingLR(o, 16, 0.001, last_epoch),
        "WarmRestarts": lambda o: m.CosineAnnealingWarmRestarts(o, 3, 2, 0.001, last_epoch),
        "CyclicLR": lambda o: m.CyclicLR(o, 0.01, 0.1, 6, last_epoch=last_epoch),
        "OneCycleLR": lambda o: m.OneCycleLR(o, 0.1, 20, last_epoch=last_epoch),
        "SequentialLR": lambda o: m.SequentialLR(
            o, [m.ConstantLR(o, 0.5, 4), m.ExponentialLR(o, 0.5)], [4], last_epoch
        ),
        "Scheduler": lambda o: descend.Scheduler(
            o, lr=warmup(5) >> cosine(20), last_epoch=last_epoch
        ),
        "a user's": lambda o: Closed(o, last_epoch),
    }


@pytest.mark.parametrize("make", [torch.optim.SGD, descend.AdamW], ids=["torch", "descend"])
@pytest.mark.parametrize("name", from_epoch(7))
def test_p21_last_epoch_7_means_that_epoch_7_is_over_for_all(name, make):
    uninterrupted = from_epoch(-1)[name](optimizer_of(make, 2))
    seen = run(uninterrupted, 0, 30)
    optimizer = optimizer_of(make, 2)  # without "initial_lr", which torch asks for
    scheduler = from_epoch(7)[name](optimizer)
    assert scheduler.last_epoch == 8
    assert run(scheduler, 8, 30) == seen[8:]
    assert scheduler.base_lrs == uninterrupted.base_lrs


@pytest.mark.parametrize("name", from_epoch(7))
def test_p21_after_loading_the_optimizer_it_goes_on(name):
    """The groups remember their base; the lr that is there is of epoch 7."""
    source = optimizer_of(groups=2)
    scheduler = from_epoch(-1)[name](source)
    seen = run(scheduler, 0, 8)
    saved = copy.deepcopy(source.state_dict())
    seen += run(scheduler, 7, 20)[1:]
    optimizer = optimizer_of(groups=2, scale=3.0)
    optimizer.load_state_dict(saved)
    assert run(from_epoch(7)[name](optimizer), 8, 20) == seen[8:]


@pytest.mark.parametrize("bad", [-2, 7.0, True, None, "7"])
def test_p21_a_last_epoch_that_is_none_is_refused(bad):
    optimizer = optimizer_of()
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ScheduleError, match="last_epoch must be -1 or the number"):
        lr_scheduler.StepLR(optimizer, 3, last_epoch=bad)
    assert optimizer.state_dict() == before


# P22: groups that are added later.


@pytest.mark.parametrize("maker", MAKERS)
@every_case
def test_p22_a_group_added_later_goes_on_from_its_own_lr(case, maker):
    """As an lr that was written by hand: that is where the curve goes on from."""
    if "one for each group" in case.name or case.name == "Scheduler":
        pytest.skip("tested below")
    if "one cycle second" in case.name:
        pytest.skip("it sets the bases when it is built")
    optimizer = optimizer_of(MAKERS[maker], 2)
    scheduler = case.build(lr_scheduler, optimizer)
    run(scheduler, 0, 6)
    optimizer.add_param_group({"params": [parameter()], "lr": LRS[2]})
    assert scheduler.get_last_lr()[2] == LRS[2]  # from its next step on
    seen = run(scheduler, 5, 60)[1:]
    if "lateau" in case.name or case.name.startswith("a user's"):
        assert all(len(step) == 3 for step in seen)
        return  # what it says follows from what was measured, or said
    base = scheduler.base_lrs[2]
    optimizer = optimizer_of(MAKERS[maker], 3)
    scheduler = case.build(lr_scheduler, optimizer)
    run(scheduler, 0, 6)
    optimizer.param_groups[2]["lr"] = LRS[2]
    if case.name.startswith(("LambdaLR", "CosineAnnealingWarmRestarts")):  # what is written is lost
        scheduler.base_lrs[2] = base
        assert scheduler.get_lr()[2] == pytest.approx(LRS[2], rel=1e-9)
    assert seen == run(scheduler, 5, 60)[1:]


def test_p22_a_group_added_later_under_a_plateau_is_reduced_from_its_own_lr():
    optimizer = optimizer_of(groups=1)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    for loss in (1.0, 1.0, 1.0):
        scheduler.step(loss)
    optimizer.add_param_group({"params": [parameter()], "lr": 0.8})
    assert scheduler.get_last_lr() == [0.025, 0.8]
    scheduler.step(1.0)
    assert scheduler.get_last_lr() == [0.0125, 0.4]


def test_p22_a_group_added_to_a_schedule_of_all_groups_is_included():
    optimizer = optimizer_of(groups=1, weight_decay=0.5)
    scheduler = descend.Scheduler(optimizer, lr=linear(10), weight_decay=linear(10, value(0.1), 1))
    scheduler.seek(2)
    optimizer.add_param_group({"params": [parameter()], "lr": 0.5, "weight_decay": 0.25})
    scheduler.seek(6)
    assert optimizer.param_groups[1]["lr"] == 0.25  # 0.8 of it, and then 0.4
    decay = optimizer.param_groups[1]["weight_decay"]  # 0.08 and 0.2 of the base; 0.04 and 0.6
    assert decay == pytest.approx(0.04 + 0.6 * (0.25 - 0.08) / 0.2)


LISTS = {
    "LambdaLR": (
        lambda o: lr_scheduler.LambdaLR(o, each(o, lambda e: 0.5, lambda e: 0.25)),
        lambda s: s.lr_lambdas.append(lambda e: 0.5),
    ),
    "MultiplicativeLR": (
        lambda o: lr_scheduler.MultiplicativeLR(o, each(o, lambda e: 0.5, lambda e: 0.25)),
        lambda s: s.lr_lambdas.append(lambda e: 0.5),
    ),
    "CyclicLR": (
        lambda o: lr_scheduler.CyclicLR(o, each(o, 0.1, 0.2), each(o, 0.5, 0.6), 4),
        None,
    ),
    "OneCycleLR": (lambda o: lr_scheduler.OneCycleLR(o, each(o, 0.1, 0.2), 20), None),
    "ReduceLROnPlateau": (
        lambda o: lr_scheduler.ReduceLROnPlateau(o, "min", 0.5, 0, min_lr=each(o, 0.01, 0.02)),
        lambda s: setattr(s, "min_lrs", [0.01, 0.02, 0.03]),
    ),
}


def refused(call):
    """The message of the error, if there is one."""
    try:
        call()
    except ScheduleError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", LISTS)
def test_p22_lists_for_each_group_give_one_clear_error_and_change_nothing(name):
    build, repair = LISTS[name]
    optimizer = optimizer_of(groups=2)
    scheduler = build(optimizer)
    advance(scheduler, 1)
    optimizer.add_param_group({"params": [parameter()], "lr": 0.7})
    for step in range(2, 5):  # a plateau needs the list when it reduces
        before = everything(optimizer)[:2], scheduler.last_epoch, vars(scheduler).get("best")
        message = refused(lambda: advance(scheduler, step))  # noqa: B023
        if message:
            break
    assert re.search(f"{name}: .*(2 .*3 groups|3 groups and 2|3 groups, got 2)", message)
    assert "\n" not in message
    after = everything(optimizer)[:2], scheduler.last_epoch, vars(scheduler).get("best")
    assert after == before
    if repair is not None:
        repair(scheduler)
        advance(scheduler, step)
        assert scheduler.last_epoch == step
        assert len(scheduler.get_last_lr()) == 3


# P23: a value is a function of the step.


@pytest.mark.parametrize("name", ["LinearLR: long", "CosineAnnealingLR", "ExponentialLR"])
def test_p23_seeking_is_exact_over_100_000_steps(name):
    case = BY_NAME[name]
    scheduler = case.build(lr_scheduler, optimizer_of(groups=1))
    group = scheduler.optimizer.param_groups[0]
    stepped = [group["lr"]]
    for _ in range(99_999):
        scheduler.step()
        stepped.append(group["lr"])
    other = case.build(lr_scheduler, optimizer_of(groups=1))
    for step in [*random.Random(0).sample(range(100_000), 3000), 99_999, 0, 50_000]:
        other.seek(step)
        assert other.get_last_lr() == [stepped[step]]


@pytest.mark.slow
@every(PURE)
def test_p23_seeking_is_exact_over_100_000_steps_for_all(case):
    stepped = sequence(case.build(lr_scheduler, optimizer_of(groups=3)), 100_000)
    other = case.build(lr_scheduler, optimizer_of(groups=3))
    for step in [*random.Random(0).sample(range(100_000), 300), 99_999, 0, 50_000]:
        other.seek(step)
        assert values_of(other.optimizer) == [tuple(group) for group in stepped[step]]


@pytest.mark.parametrize("bad", [-1, math.nan, math.inf, "3", True, None])
def test_p23_a_time_that_is_none_is_refused_and_nothing_changes(bad):
    scheduler = BY_NAME["CosineAnnealingLR"].build(lr_scheduler, optimizer_of())
    scheduler.seek(5)
    before = everything(scheduler.optimizer), scheduler.state_dict()
    with pytest.raises(ScheduleError, match="epoch must be a number of at least 0"):
        scheduler.seek(bad)
    assert (everything(scheduler.optimizer), scheduler.state_dict()) == before


# P24: a state of another configuration.

OTHER = {
    "StepLR": (lambda m, o: m.StepLR(o, 3), lambda m, o: m.StepLR(o, 4), "step_size"),
    "MultiStepLR": (
        lambda m, o: m.MultiStepLR(o, [3, 5]),
        lambda m, o: m.MultiStepLR(o, [3, 3, 5]),
        "milestones",
    ),
    "ConstantLR": (lambda m, o: m.ConstantLR(o, 0.5), lambda m, o: m.ConstantLR(o, 0.4), "factor"),
    "LinearLR": (
        lambda m, o: m.LinearLR(o, 0.5),
        lambda m, o: m.LinearLR(o, 0.5, total_iters=6),
        "total_iters",
    ),
    "ExponentialLR": (
        lambda m, o: m.ExponentialLR(o, 0.9),
        lambda m, o: m.ExponentialLR(o, 0.99),
        "gamma",
    ),
    "PolynomialLR": (
        lambda m, o: m.PolynomialLR(o, 10),
        lambda m, o: m.PolynomialLR(o, 10, 2.0),
        "power",
    ),
    "CosineAnnealingLR": (
        lambda m, o: m.CosineAnnealingLR(o, 10),
        lambda m, o: m.CosineAnnealingLR(o, 20),
        "T_max",
    ),
    "CosineAnnealingWarmRestarts": (
        lambda m, o: m.CosineAnnealingWarmRestarts(o, 10),
        lambda m, o: m.CosineAnnealingWarmRestarts(o, 10, 2),
        "T_mult",
    ),
    "CyclicLR": (
        lambda m, o: m.CyclicLR(o, 0.1, 0.5, 5),
        lambda m, o: m.CyclicLR(o, 0.1, 0.6, 5),
        "max_lrs",
    ),
    "CyclicLR's mode": (
        lambda m, o: m.CyclicLR(o, 0.1, 0.5, 5),
        lambda m, o: m.CyclicLR(o, 0.1, 0.5, 5, mode="triangular2"),
        "mode",
    ),
    "OneCycleLR": (
        lambda m, o: m.OneCycleLR(o, 0.1, 10),
        lambda m, o: m.OneCycleLR(o, 0.1, 20),
        "total_steps",
    ),
    "OneCycleLR's phases": (
        lambda m, o: m.OneCycleLR(o, 0.1, 10),
        lambda m, o: m.OneCycleLR(o, 0.1, 10, pct_start=0.5),
        "_schedule_phases",
    ),
    "ReduceLROnPlateau": (
        lambda m, o: m.ReduceLROnPlateau(o, patience=3),
        lambda m, o: m.ReduceLROnPlateau(o, patience=4),
        "patience",
    ),
    "SequentialLR": (
        lambda m, o: m.SequentialLR(o, [m.ConstantLR(o), m.ExponentialLR(o, 0.9)], [3]),
        lambda m, o: m.SequentialLR(o, [m.ConstantLR(o), m.ExponentialLR(o, 0.9)], [4]),
        "milestones",
    ),
    "a part of SequentialLR": (
        lambda m, o: m.SequentialLR(o, [m.ConstantLR(o), m.ExponentialLR(o, 0.9)], [3]),
        lambda m, o: m.SequentialLR(o, [m.ConstantLR(o), m.ExponentialLR(o, 0.8)], [3]),
        "gamma",
    ),
    "ChainedScheduler": (
        lambda m, o: m.ChainedScheduler([m.ConstantLR(o), m.ExponentialLR(o, 0.9)]),
        lambda m, o: m.ChainedScheduler([m.ConstantLR(o, 0.9), m.ExponentialLR(o, 0.9)]),
        "factor",
    ),
}


@pytest.mark.parametrize("saved_by", ["descend", "torch"])
@pytest.mark.parametrize("name", OTHER)
def test_p24_another_configuration_is_refused_and_nothing_changes(name, saved_by):
    make, other, what = OTHER[name]
    source = make(MODULES[saved_by], optimizer_of(groups=2))
    for step in range(1, 4):
        advance(source, step)
    state = copy.deepcopy(source.state_dict())
    optimizer = optimizer_of(groups=2, scale=2.0)
    scheduler = other(lr_scheduler, optimizer)
    advance(scheduler, 1)
    before = everything(optimizer), scheduler.state_dict(), copy.deepcopy(optimizer.state_dict())
    with pytest.raises(StateError, match=what) as caught:
        scheduler.load_state_dict(state)
    assert "strict=False" in str(caught.value)
    assert before == (everything(optimizer), scheduler.state_dict(), optimizer.state_dict())


@pytest.mark.parametrize("name", [name for name in OTHER if "lateau" not in name])
def test_p24_not_strict_takes_the_position_and_the_bases_only(name):
    make, other, _ = OTHER[name]
    source = make(lr_scheduler, optimizer_of(groups=2))
    run(source, 0, 3)
    scheduler = other(lr_scheduler, optimizer_of(groups=2, scale=5.0))
    scheduler.load_state_dict(source.state_dict(), strict=False)
    expected = run(other(lr_scheduler, optimizer_of(groups=2)), 0, 30)
    assert run(scheduler, 2, 30) == expected[2:]


@pytest.mark.parametrize(
    "state",
    [
        None,
        [],
        "state",
        {},
        {"last_epoch": 3},
        {"gamma": 0.9, "last_epoch": "3"},
        {"gamma": 0.9, "last_epoch": 2.5},
        {"gamma": 0.9, "last_epoch": -5},
        {"gamma": 0.9, "last_epoch": 3, "base_lrs": [1.0, 2.0, 3.0]},
        {"gamma": 0.9, "last_epoch": 3, "base_lrs": ["a", "b"]},
        {"gamma": 0.9, "last_epoch": 3, "base_lrs": 0.1},
        {"gamma": 0.9, "last_epoch": 3, "bases": 0.1},
        {"gamma": 0.9, "last_epoch": 3, "_fraction": "a"},
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_p24_what_is_no_state_is_refused_and_nothing_changes(state, strict):
    if not strict and isinstance(state, dict) and state.get("base_lrs") == [1.0, 2.0, 3.0]:
        pytest.skip("not strict takes those that are there")
    scheduler = lr_scheduler.ExponentialLR(optimizer_of(groups=2), 0.9)
    scheduler.step()
    before = everything(scheduler.optimizer), scheduler.state_dict()
    with pytest.raises(StateError):
        scheduler.load_state_dict(state, strict=strict)
    assert (everything(scheduler.optimizer), scheduler.state_dict()) == before


def test_p24_a_state_of_another_class_is_refused():
    for case, other in itertools.permutations(
        [BY_NAME[name] for name in ("StepLR", "LinearLR", "CyclicLR", "OneCycleLR", "LambdaLR")], 2
    ):
        state = case.build(lr_scheduler, optimizer_of(groups=2)).state_dict()
        scheduler = other.build(lr_scheduler, optimizer_of(groups=2))
        if other.name != "LambdaLR":  # whose function no state holds
            with pytest.raises(StateError):
                scheduler.load_state_dict(state)


# P25: the lr that is there.


@pytest.mark.parametrize("make", [torch.optim.SGD, descend.SGD], ids=["torch", "descend"])
@pytest.mark.parametrize("name", [name for name in from_epoch(-1) if name not in ("CyclicLR",)])
@pytest.mark.parametrize("how", ["replaced", "deleted first", "both kept"])
def test_p25_a_new_scheduler_begins_with_the_lr_that_is_there(name, make, how):
    if name == "OneCycleLR":
        pytest.skip("it gives its own values")
    build = from_epoch(-1)[name]
    optimizer = optimizer_of(make, 2)
    scheduler = build(optimizer)
    run(scheduler, 0, 4)
    if how == "deleted first":
        del scheduler
    kept = scheduler if how == "both kept" else None
    for group, lr in zip(optimizer.param_groups, (0.4, 0.6), strict=True):
        group["lr"] = lr
    scheduler = build(optimizer)
    assert scheduler.base_lrs == [0.4, 0.6]
    expected = optimizer_of(make, 2)
    for group, lr in zip(expected.param_groups, (0.4, 0.6), strict=True):
        group["lr"] = lr
    lrs = [[group["lr"] for group in step] for step in run(scheduler, 0, 20)]
    assert lrs == [[group["lr"] for group in step] for step in run(build(expected), 0, 20)]
    del kept


# P26: refused when built; held at the end.


@pytest.mark.parametrize(
    "build",
    [
        lambda m, o: m.CosineAnnealingLR(o, 0),
        lambda m, o: m.CosineAnnealingLR(o, -3),
        lambda m, o: m.CosineAnnealingLR(o, math.nan),
        lambda m, o: m.CosineAnnealingLR(o, True),
        lambda m, o: m.CosineAnnealingLR(o, "10"),
        lambda m, o: m.CosineAnnealingWarmRestarts(o, 0),
        lambda m, o: m.CosineAnnealingWarmRestarts(o, 2.5),
        lambda m, o: m.CosineAnnealingWarmRestarts(o, 5, 0),
        lambda m, o: m.CosineAnnealingWarmRestarts(o, 5, 1.5),
        lambda m, o: m.CosineAnnealingWarmRestarts(o, 5, eta_min="0"),
        lambda m, o: m.StepLR(o, 0),
        lambda m, o: m.StepLR(o, -1),
        lambda m, o: m.LinearLR(o, 0.0),
        lambda m, o: m.LinearLR(o, 1.5),
        lambda m, o: m.LinearLR(o, 0.5, 1.5),
        lambda m, o: m.LinearLR(o, 0.5, -0.1),
        lambda m, o: m.ConstantLR(o, 1.5),
        lambda m, o: m.ConstantLR(o, -0.5),
        lambda m, o: m.MultiStepLR(o, ["3"]),
        lambda m, o: m.CyclicLR(o, 0.1, 0.2, 0),
        lambda m, o: m.CyclicLR(o, 0.1, 0.2, 4, -1),
        lambda m, o: m.CyclicLR(o, 0.1, 0.2, 4, mode="cats"),
        lambda m, o: m.CyclicLR(o, [0.1, 0.2, 0.3], 0.2, 4),
        lambda m, o: m.OneCycleLR(o, 0.1),
        lambda m, o: m.OneCycleLR(o, 0.1, 0),
        lambda m, o: m.OneCycleLR(o, 0.1, 10.5),
        lambda m, o: m.OneCycleLR(o, 0.1, epochs=3),
        lambda m, o: m.OneCycleLR(o, 0.1, 10, pct_start=1.5),
        lambda m, o: m.OneCycleLR(o, 0.1, 10, anneal_strategy="cats"),
        lambda m, o: m.OneCycleLR(o, 0.1, 10, div_factor=0),
        lambda m, o: m.ReduceLROnPlateau(o, factor=1.0),
        lambda m, o: m.ReduceLROnPlateau(o, mode="cats"),
        lambda m, o: m.ReduceLROnPlateau(o, threshold_mode="cats"),
        lambda m, o: m.ReduceLROnPlateau(o, min_lr=[0.1, 0.2, 0.3]),
        lambda m, o: m.LambdaLR(o, 0.5),
        lambda m, o: m.LambdaLR(o, [lambda e: 1.0]),
        lambda m, o: m.MultiplicativeLR(o, [lambda e: 1.0, None]),
        lambda m, o: m.SequentialLR(o, [], []),
        lambda m, o: m.ChainedScheduler([]),
        lambda m, o: m.StepLR("optimizer", 3),
        lambda m, o: m.OneCycleLR(None, 0.1, 10),
        lambda m, o: m.ReduceLROnPlateau(None),
        lambda m, o: m.LambdaLR(None, lambda e: 1.0),
    ],
)
def test_p26_what_would_fail_later_is_refused_when_built_and_nothing_changes(build):
    optimizer = optimizer_of(groups=2)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ScheduleError) as caught:
        build(lr_scheduler, optimizer)
    assert "\n" not in str(caught.value)
    assert optimizer.state_dict() == before
    lr_scheduler.ExponentialLR(optimizer, 0.5).step()
    assert [group["lr"] for group in optimizer.param_groups] == [LRS[0] / 2, LRS[1] / 2]


@pytest.mark.parametrize(
    "build",
    [
        lambda m, o: m.ExponentialLR(o, "0.5"),
        lambda m, o: m.ExponentialLR(o, math.nan),
        lambda m, o: m.StepLR(o, 3, None),
        lambda m, o: m.CosineAnnealingLR(o, 3, None),
        lambda m, o: m.CosineAnnealingLR(o, 3, math.nan),
        lambda m, o: m.ConstantLR(o, 0.5, None),
        lambda m, o: m.PolynomialLR(o, 3, math.nan),
        lambda m, o: m.MultiStepLR(o, None),
        lambda m, o: m.CyclicLR(o, "a", 0.1),
        lambda m, o: m.OneCycleLR(o, None, 10),
        lambda m, o: m.OneCycleLR(o, 0.1, 10, div_factor="25"),
        lambda m, o: m.ReduceLROnPlateau(o, factor="0.5"),
        lambda m, o: m.ReduceLROnPlateau(o, patience=None),
        lambda m, o: m.SequentialLR(o, [m.StepLR(o, 3)], None),
        lambda m, o: m.LambdaLR(o, lambda e: None),
    ],
)
def test_p26_an_argument_of_the_wrong_kind_is_refused_too(build):
    optimizer = optimizer_of(groups=2)
    before = everything(optimizer)
    with pytest.raises((ScheduleError, ScheduleTypeError)) as caught:
        build(lr_scheduler, optimizer)
    assert "\n" not in str(caught.value)
    assert everything(optimizer) == before


def test_p26_a_polynomial_of_negative_power_is_refused():
    with pytest.raises(ScheduleError, match="power"):
        lr_scheduler.PolynomialLR(optimizer_of(), 3, -1.0)


def test_p26_one_cycle_holds_its_last_value():
    for case in CASES:
        if not case.name.startswith("OneCycleLR"):
            continue
        scheduler = case.build(lr_scheduler, optimizer_of(groups=2))
        scheduler.seek(scheduler.total_steps - 1)
        last = everything(scheduler.optimizer)
        for _ in range(5):
            scheduler.step()
            assert everything(scheduler.optimizer) == last
        scheduler.seek(10 * scheduler.total_steps)
        assert everything(scheduler.optimizer) == last


def test_p26_a_part_of_another_optimizer_or_of_torch_is_refused():
    optimizer, other = optimizer_of(), optimizer_of()
    mine, others = lr_scheduler.StepLR(optimizer, 3), lr_scheduler.StepLR(other, 3)
    theirs = torch.optim.lr_scheduler.StepLR(optimizer_of(), 3)
    before = everything(optimizer)
    for parts, error, words in (
        ([mine, others], ScheduleError, "same optimizer"),
        ([mine, mine], ScheduleError, "there already"),
        ([mine, theirs], ScheduleTypeError, "use descend.lr_scheduler.StepLR"),
        ([mine, None], ScheduleTypeError, "index 1"),
    ):
        with pytest.raises(error, match=words):
            lr_scheduler.SequentialLR(optimizer, parts, [3])
        with pytest.raises(error, match=words):
            lr_scheduler.ChainedScheduler(parts, optimizer)
    two = [mine, lr_scheduler.StepLR(optimizer, 200)]
    for milestones in ([], [3, 4], [-3]):
        with pytest.raises(ScheduleError, match="milestones"):
            lr_scheduler.SequentialLR(optimizer, two, milestones)
    mine.step()
    assert everything(optimizer) == before
    mine.seek(3)
    assert optimizer.param_groups[0]["lr"] == LRS[0] * 0.1  # it still drives


# P27: the plateau.


def tensor_lr_optimizer(make, lr=0.5):
    options = {"capturable": True} if make is torch.optim.AdamW else {}
    return make([parameter()], lr=torch.tensor(lr), **options)


@pytest.mark.parametrize("maker", MAKERS)
def test_p27_a_plateau_fills_an_lr_tensor_in_place(maker):
    optimizer = MAKERS[maker]([parameter()], lr=torch.tensor(0.5))
    held = optimizer.param_groups[0]["lr"]
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    assert scheduler.get_last_lr() == [0.5]
    for loss in (1.0, 1.0, 2.0):
        scheduler.step(loss)
    assert optimizer.param_groups[0]["lr"] is held
    assert isinstance(held, torch.Tensor)
    assert held.item() == 0.125


def test_p27_a_plateau_knows_its_lr_before_the_first_step():
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer_of(groups=3))
    assert scheduler.get_last_lr() == list(LRS)
    assert scheduler.base_lrs == list(LRS)


def test_p27_a_plateau_stands_in_a_sequence_and_counts_in_its_turn_only():
    optimizer = optimizer_of()
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    warm = lr_scheduler.LinearLR(optimizer, 0.5, total_iters=4)
    scheduler = lr_scheduler.SequentialLR(optimizer, [warm, plateau], [4])
    seen = []
    for step in range(1, 10):
        seen.append(optimizer.param_groups[0]["lr"] / LRS[0])
        if step < 4:
            scheduler.step()  # no measure is needed before its turn
        else:
            scheduler.step(1.0)
    assert seen == pytest.approx([0.5, 0.625, 0.75, 0.875, 1.0, 1.0, 1.0, 0.5, 0.5])


def test_p27_without_a_measure_nothing_changes_and_the_message_says_what_to_do():
    optimizer = optimizer_of()
    scheduler = lr_scheduler.ChainedScheduler(
        [
            lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0),
            lr_scheduler.ExponentialLR(optimizer, 0.9),
        ]
    )
    scheduler.step(1.0)
    before = everything(optimizer), scheduler.state_dict()
    with pytest.raises(ScheduleError, match=r"step\(validation_loss\)"):
        scheduler.step()
    assert (everything(optimizer), scheduler.state_dict()) == before
    scheduler.step(1.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(LRS[0] * 0.81 * 0.5)


def test_p27_two_plateaus_in_a_chain():
    optimizer = optimizer_of()
    one = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    two = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=2)
    scheduler = lr_scheduler.ChainedScheduler([one, two])
    for loss in (1.0, 1.0, 1.0, 1.0):
        scheduler.step(loss)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(LRS[0] * 0.125 * 0.1)


@pytest.mark.parametrize(
    "bad",
    [
        None,
        "loss",
        [1.0],
        {},
        object(),
        1j,
        torch.ones(2),
    ],
)
@pytest.mark.parametrize("where", ["alone", "chain", "sequence"])
def test_p27_a_measure_that_is_none_is_refused_and_nothing_changes(bad, where):
    optimizer = optimizer_of()
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    scheduler = {
        "alone": lambda: plateau,
        "chain": lambda: lr_scheduler.ChainedScheduler([plateau]),
        "sequence": lambda: lr_scheduler.SequentialLR(optimizer, [plateau], []),
    }[where]()
    scheduler.step(torch.tensor(1.0))
    before = everything(optimizer), scheduler.state_dict()
    with pytest.raises(ScheduleError):
        scheduler.step(bad)
    assert (everything(optimizer), scheduler.state_dict()) == before


# P28: a step that the GradScaler skips.


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("name", ["StepLR: every 7", "OneCycleLR", "SequentialLR: three"])
def test_p28_a_step_that_the_grad_scaler_skips_warns_of_nothing(maker, name):
    param = parameter()
    optimizer = MAKERS[maker]([param], lr=0.1, **({"momentum": 0.5} if "SGD" in maker else {}))
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler = BY_NAME[name].build(lr_scheduler, optimizer)
        for gradient in (math.inf, 1.0, math.nan, 1.0):
            optimizer.zero_grad()
            before = param.detach().clone()
            scaler.scale((param * gradient).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
            assert torch.equal(param, before) == (not math.isfinite(gradient))
    assert scheduler.last_epoch == 4


def test_p28_torch_warns_there():
    optimizer = torch.optim.SGD([parameter()], lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 7)
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        scheduler.step()


@pytest.mark.parametrize("maker", MAKERS)
def test_p28_a_scheduler_does_not_wrap_the_optimizers_step(maker):
    optimizer = MAKERS[maker]([parameter()], lr=0.1)
    lr_scheduler.StepLR(optimizer, 7)
    assert "step" not in vars(optimizer)
    assert partial(optimizer.step).func.__func__ is type(optimizer).step
