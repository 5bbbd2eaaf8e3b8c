"""Schedulers written for torch do here what they do there, beside torch, over long runs."""

import copy
import gc
import warnings
import weakref

import pytest
import torch
from torch.nn import Parameter

import descend
from descend import lr_scheduler
from lr_scheduler.torch_style import CHANGES, EXTENDED, INNER, extended, written

TORCH = torch.optim.lr_scheduler
MODULES = {TORCH: written(TORCH), lr_scheduler: written(lr_scheduler)}
STEPS = 150

pytestmark = pytest.mark.filterwarnings("ignore:The epoch parameter")


def optimizer_of(make=torch.optim.SGD, tensors=False):
    lrs = [torch.tensor(lr, dtype=torch.float64) if tensors else lr for lr in (0.1, 0.03)]
    optimizer = make([{"params": [Parameter(torch.ones(1))], "lr": lr} for lr in lrs], 0.1, 0.9)
    optimizer._opt_called = True  # torch's would warn otherwise
    return optimizer


def lrs_of(optimizer):
    return [float(group["lr"]) for group in optimizer.param_groups]


def run(build, step, m, make=torch.optim.SGD, tensors=False, steps=STEPS, outer=None):
    optimizer = optimizer_of(make, tensors)
    scheduler = build(m, MODULES[outer or m], optimizer)
    seen = []
    for index in range(steps):
        seen.append(lrs_of(optimizer))
        (step or (lambda one, _: one.step()))(scheduler, index)
    initial = [float(group["initial_lr"]) for group in optimizer.param_groups]
    return seen, initial


def both_ways(first, second):
    """Two schedulers on one optimizer, in the order of building; the first is returned."""

    def build(m, w, optimizer):
        one, other = first(m, w, optimizer), second(m, w, optimizer)
        one.beside = other
        return one

    return build


def around(name):
    inner = INNER[name]
    yield "gradual, to the base", lambda m, w, o: w.Gradual(o, 1.0, 10, inner(m, o)), None
    yield "gradual, to 8 times", lambda m, w, o: w.Gradual(o, 8.0, 10, inner(m, o)), None
    yield (
        "gradual, by epochs",
        lambda m, w, o: w.Gradual(o, 8.0, 10, inner(m, o)),
        lambda s, index: s.step(index + 1),
    )
    yield "steps it in get_lr", lambda m, w, o: w.StepsInner(o, inner(m, o), 5), None
    yield "scales it", lambda m, w, o: w.Scales(o, inner(m, o), 5), None
    yield "hands over", lambda m, w, o: w.HandsOver(o, inner(m, o), 5), None
    yield "writes first", lambda m, w, o: w.WritesFirst(o, inner(m, o), 5), None
    yield "follows it", lambda m, w, o: w.Follows(o, inner(m, o)), None
    yield "follows another's", lambda m, w, o: w.Follows(o, inner(m, optimizer_of())), None
    rising = both_ways(lambda m, w, o: inner(m, o), lambda m, w, o: w.Rising(o, 10))
    yield (
        "warmup by iterations, then epochs",
        rising,
        lambda s, index: s.beside.step() if index < 10 else s.step(index // 5),
    )
    yield (
        "warmup, then it",
        rising,
        lambda s, index: s.beside.step() if index < 10 else s.step(),
    )
    if name != "CyclicLR":  # whose first value is the base of the optimizer, in torch
        beside = both_ways(lambda m, w, o: w.FromBefore(o), lambda m, w, o: inner(m, o))
        yield "beside it", beside, lambda s, _: (s.step(), s.beside.step())
        yield "beside it, after it", beside, lambda s, _: (s.beside.step(), s.step())


AROUND = [
    pytest.param(name, build, step, id=f"{name}-{what}")
    for name in INNER
    for what, build, step in around(name)
]


@pytest.mark.parametrize(("name", "build", "step"), AROUND)
@pytest.mark.parametrize("tensors", [False, True], ids=["numbers", "tensors"])
def test_one_around_a_scheduler_is_as_with_torch(name, build, step, tensors):
    theirs, initial = run(build, step, TORCH, tensors=tensors)
    for make in (torch.optim.SGD, descend.SGD):
        mine, mine_initial = run(build, step, lr_scheduler, make, tensors)
        assert_near(mine, theirs)
        assert mine_initial == initial


@pytest.mark.parametrize(("name", "build", "step"), AROUND)
@pytest.mark.parametrize("inner", MODULES, ids=["torch's", "descend's"])
def test_one_on_torchs_base_class_around_one_of_descends_and_the_other_way(
    name, build, step, inner
):
    """As a package has it that imports torch's, where only the import of its user was changed."""
    theirs, _ = run(build, step, TORCH)
    outer = next(m for m in MODULES if m is not inner)
    assert_near(run(build, step, inner, descend.SGD, outer=outer)[0], theirs)


def assert_near(mine, theirs):
    for index, (ours, there) in enumerate(zip(mine, theirs, strict=True)):
        assert ours == pytest.approx(there, rel=1e-8, abs=1e-14), index


ALONE = {
    "Gradual": lambda m, w, o: w.Gradual(o, 4.0, 10),
    "Restarts": lambda m, w, o: w.Restarts(o, 20, 1.5, 0.1, 0.001, 5),
    "Rising": lambda m, w, o: w.Rising(o, 30),
    "WritesBase": lambda m, w, o: w.WritesBase(o),
    "FromBefore": lambda m, w, o: w.FromBefore(o),
    "FromInitial": lambda m, w, o: w.FromInitial(o),
    "Writes": lambda m, w, o: w.Writes(o),
    "Bare": lambda m, w, o: w.Bare(o),
}


@pytest.mark.parametrize("name", ALONE)
def test_one_alone_is_as_with_torch(name):
    theirs, initial = run(ALONE[name], None, TORCH)
    mine, mine_initial = run(ALONE[name], None, lr_scheduler, descend.SGD)
    assert mine == theirs
    assert mine_initial == initial


def test_a_gradual_warmup_of_a_plateau():
    def build(m, w, optimizer):
        return w.GradualPlateau(optimizer, 4.0, 6, m.ReduceLROnPlateau(optimizer, "min", 0.5, 2))

    def step(scheduler, index):
        scheduler.step(5.0 - index if index < 9 else 1.0)

    theirs, mine = (run(build, step, m)[0] for m in MODULES)
    assert mine == [pytest.approx(lrs) for lrs in theirs]


def at_times(build, m, stops):
    """The lr in each step, and momentum, where some steps name an epoch."""
    optimizer = optimizer_of()
    scheduler = build(optimizer)
    seen = []
    for index in range(60):
        seen.append((*lrs_of(optimizer), *(group["momentum"] for group in optimizer.param_groups)))
        scheduler.step(*([index // 2] if stops else []))
    return seen


@pytest.mark.parametrize("epochs", [False, True], ids=["step()", "step(epoch)"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", EXTENDED)
def test_a_get_lr_that_asks_the_one_it_overrides_is_as_with_torch(name, change, epochs):
    theirs, mine = (at_times(extended(m, name, change), m, epochs) for m in MODULES)
    for index, (ours, there) in enumerate(zip(mine, theirs, strict=True)):
        assert ours == pytest.approx(there, rel=1e-9, abs=1e-14), index


@pytest.mark.parametrize("where", ["first", "second", "chain", "in a chain in a sequence"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", [name for name in EXTENDED if name != "CyclicLR"])
def test_one_in_a_sequence_or_a_chain_is_as_with_torch(name, change, where):
    seen = []
    for m in MODULES:
        optimizer = optimizer_of()
        if where == "second":
            parts = [m.ConstantLR(optimizer, 0.5, 3), extended(m, name, change)(optimizer)]
        else:
            parts = [extended(m, name, change)(optimizer), m.ExponentialLR(optimizer, 0.9)]
        if "chain" in where:
            scheduler = m.ChainedScheduler(parts)
        else:
            scheduler = m.SequentialLR(optimizer, parts, [7])
        if where == "in a chain in a sequence":
            last = m.StepLR(optimizer, 3)
            scheduler = m.ChainedScheduler([scheduler, last])
        values = []
        for _ in range(40):
            values.append(lrs_of(optimizer))
            scheduler.step()
        seen.append(values)
    theirs, mine = seen
    assert mine == [pytest.approx(lrs, rel=1e-9, abs=1e-14) for lrs in theirs]


@pytest.mark.parametrize("name", [name for name in ALONE if name != "Bare"])
def test_one_goes_on_from_its_state(name):
    first = optimizer_of(descend.SGD)
    scheduler = ALONE[name](lr_scheduler, MODULES[lr_scheduler], first)
    for _ in range(13):
        scheduler.step()
    saved = copy.deepcopy((first.state_dict(), scheduler.state_dict()))
    rest = []
    for _ in range(40):
        scheduler.step()
        rest.append(lrs_of(first))
    for order in ("OBS", "BOS", "BSO"):
        again = optimizer_of(descend.SGD)
        for what in order:
            if what == "B":
                other = ALONE[name](lr_scheduler, MODULES[lr_scheduler], again)
            elif what == "O":
                again.load_state_dict(saved[0])
            else:
                other.load_state_dict(copy.deepcopy(saved[1]))
        assert lrs_of(again) == lrs_of_state(saved[0]), order
        seen = []
        for _ in range(40):
            other.step()
            seen.append(lrs_of(again))
        assert seen == rest, order


def lrs_of_state(state):
    return [group["lr"] for group in state["param_groups"]]


def test_torchs_state_of_one_is_loaded():
    theirs = MODULES[TORCH].Rising(optimizer_of(), 30)
    for _ in range(9):
        theirs.step()
    optimizer = optimizer_of(descend.SGD)
    mine = MODULES[lr_scheduler].Rising(optimizer, 30)
    mine.load_state_dict(theirs.state_dict())
    assert lrs_of(optimizer) == lrs_of(theirs.optimizer)
    mine.step()
    theirs.step()
    assert lrs_of(optimizer) == lrs_of(theirs.optimizer)


def test_a_plateau_that_extends_reduce_lr():
    reduced = []

    class Telling(lr_scheduler.ReduceLROnPlateau):
        def _reduce_lr(self, epoch):
            reduced.append(epoch)
            super()._reduce_lr(epoch)

        def get_lr(self):  # for a log
            return [group["lr"] for group in self.optimizer.param_groups]

    optimizer = optimizer_of()
    scheduler = Telling(optimizer, factor=0.5, patience=1)
    for _ in range(6):
        scheduler.step(1.0)
    assert reduced == [3, 5]
    assert scheduler.get_lr() == pytest.approx([0.025, 0.0075])


def test_two_of_them_on_one_optimizer():
    def build(m, w, optimizer):
        return both_ways(lambda m, w, o: w.Rising(o, 10), lambda m, w, o: w.FromBefore(o))(
            m, w, optimizer
        )

    def step(scheduler, index):
        scheduler.step()
        scheduler.beside.step()

    assert run(build, step, lr_scheduler)[0] == run(build, step, TORCH)[0]


@pytest.mark.parametrize("name", ["Rising", "FromBefore", "FromInitial"])
def test_a_warmup_may_be_built_before_or_after_it(name):
    def run(order):
        optimizer = optimizer_of(descend.SGD)
        for what in order:
            if what == "W":
                warming = descend.warmup.LinearWarmup(optimizer, 5)
            else:
                scheduler = ALONE[name](lr_scheduler, MODULES[lr_scheduler], optimizer)
        seen = []
        for _ in range(8):
            seen.append(lrs_of(optimizer))
            with warming.dampening():
                scheduler.step()
        return seen

    alone, _ = run_alone(name)
    factors = [min(1.0, (step + 1) / 5) for step in range(8)]
    wanted = [[lr * by for lr in lrs] for lrs, by in zip(alone, factors, strict=True)]
    assert_near(run("WS"), wanted)
    assert_near(run("SW"), wanted)


def run_alone(name):
    return run(ALONE[name], None, lr_scheduler, descend.SGD, steps=8)


def test_dropping_one_frees_it_and_the_optimizer_at_once():
    w = MODULES[lr_scheduler]
    gc.collect()
    gc.disable()
    try:
        for build in (
            lambda o: w.Gradual(o, 1.0, 3, lr_scheduler.StepLR(o, 2)),
            lambda o: w.Scales(o, lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch), 3),
            lambda o: lr_scheduler.SequentialLR(
                o, [w.Rising(o, 3), lr_scheduler.StepLR(o, 2)], [3]
            ),
        ):
            optimizer = optimizer_of(descend.SGD)
            scheduler = build(optimizer)
            for _ in range(6):
                scheduler.step()
            scheduler.load_state_dict(scheduler.state_dict())
            seen = weakref.ref(optimizer), weakref.ref(scheduler)
            del optimizer, scheduler
            assert [one() for one in seen] == [None, None]
    finally:
        gc.enable()


def test_written_bases_hold_from_the_next_step_on():
    optimizer = optimizer_of()
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
    scheduler.base_lrs[0] = 4.0
    scheduler.step()
    assert lrs_of(optimizer) == [2.0, 0.015]
    assert scheduler.base_lrs == [4.0, 0.03]
    assert type(copy.deepcopy(scheduler.base_lrs)) is list


def test_a_part_that_raises_changes_nothing_of_its_own():
    class Fails(lr_scheduler.LRScheduler):
        def get_lr(self):
            if self.last_epoch == 2:
                raise ZeroDivisionError
            return [base * 0.5**self.last_epoch for base in self.base_lrs]

    optimizer = optimizer_of()
    whole = lr_scheduler.SequentialLR(
        optimizer, [Fails(optimizer), lr_scheduler.StepLR(optimizer, 2)], [5]
    )
    whole.step()
    with pytest.raises(ZeroDivisionError):
        whole.step()
    assert (whole.last_epoch, lrs_of(optimizer)) == (1, [0.05, 0.015])


def test_no_warning_of_a_get_lr_that_is_asked():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = optimizer_of()
        scheduler = MODULES[lr_scheduler].Rising(optimizer, 30)
        scheduler.step()
        assert scheduler.get_lr() == scheduler.get_last_lr() == lrs_of(optimizer)
