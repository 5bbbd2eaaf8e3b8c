"""Advice: sensible schedules get none, each mistake its one line."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from descend.errors import ScheduleError, ScheduleTypeError
from descend.schedules import (
    clip,
    constant,
    cosine,
    cyclic,
    delay,
    exponential,
    function,
    inverse_sqrt,
    linear,
    multistep,
    one_cycle,
    piecewise,
    polynomial,
    rectified,
    repeat,
    step,
    until,
    untuned_exponential,
    untuned_linear,
    value,
    warm_restarts,
    warmup,
    wsd,
)
from descend.schedules.arguments import Factor, Time
from descend.schedules.lint import mistakes
from descend.schedules.schedule import SHAPES, Curve, shape
from schedules.test_expressions import any_schedule

EPOCH = 390  # 50,000 images in batches of 128, the last one left out
RUN = 90 * EPOCH


def in_epochs(schedule):
    return schedule.in_epochs(EPOCH)


SENSIBLE = [
    # what papers and tutorials do, in steps
    (constant(), 1000, 10),
    (value(0.01), 1000, 10),
    (linear(10_000), 10_000, 100),
    (cosine(10_000, end=0.1), 10_000, 100),
    (warmup(500) >> cosine(9500), 10_000, 100),
    (warmup(500, "cosine") >> cosine(8000, 1, 0.1) >> constant(0.1), 10_000, 100),
    (warmup(9000) >> cosine(1000), 10_000, 100),
    (warmup(500) * cosine(10_000), 10_000, 100),
    ((warmup(0.05) >> cosine(0.95)).over(10_000), 10_000, 100),
    (polynomial(10_000, 0.9), 10_000, 100),
    (polynomial(10_000, 4), 10_000, 100),
    (one_cycle(10_000), 10_000, 100),
    (wsd(500, 8500, 1000), 10_000, 100),
    (warmup(4000) >> inverse_sqrt(4000), 100_000, 1000),
    (exponential(0.9999), 100_000, 1000),
    (exponential(0.9999), 150_000, 1000),
    (step(1000, 0.9), 50_000, 500),
    (piecewise([(0, 0), (500, 1), (9000, 0.1), (10_000, 0)]), 10_000, 100),
    (delay(cosine(7000), 3000), 10_000, 100),
    (until(exponential(0.999), 3000) >> linear(7000, 0.05, 0), 10_000, 100),
    (clip(exponential(0.999), 0.01), 10_000, 100),
    (clip(cosine(10_000), 0.1), 10_000, 100),
    (cosine(10_000) * 0.5, 10_000, 100),
    (cosine(10_000) * constant(0.5), 10_000, 100),
    (cosine(10_000) * step(3000, 0.5), 10_000, 100),
    (cosine(3000, end=0.1), 10_000, 100),
    (linear(1000, end=0.7), 10_000, 100),
    (until(one_cycle(10_000), 1000), 1000, 100),
    (until(warmup(5000), 1000), 1000, 100),
    (until(linear(400, 1, 0) >> warmup(5000) >> constant(), 1000), 1000, 100),
    (until(warmup(5000), 800) >> cosine(200), 1000, 100),
    (until(step(2000), 500) >> cosine(500, 0.1), 1000, 100),
    (exponential(1.01), 1000, 100),  # looks for an lr
    (warmup(1000), 1000, 100),
    (cosine(100), 100, 1),
    (cosine(10), 10, None),
    # in epochs
    (in_epochs(step(30)), RUN, EPOCH),
    (in_epochs(multistep([30, 60, 80])), RUN, EPOCH),
    (in_epochs(multistep([100, 150])), 200 * EPOCH, EPOCH),
    (in_epochs(multistep([60, 120, 160, 180])), 200 * EPOCH, EPOCH),
    (in_epochs(exponential(0.95)), RUN, EPOCH),
    (in_epochs(exponential(0.9)), 200 * EPOCH, EPOCH),
    (in_epochs(warmup(5) >> cosine(85)), RUN, EPOCH),
    (in_epochs(warm_restarts(10, 2)), 70 * EPOCH, EPOCH),
    (in_epochs(cyclic(4)), 88 * EPOCH, EPOCH),
    (warmup(500) >> in_epochs(step(30)), RUN, EPOCH),
    # the last batch counted or not
    (cosine(9984), 10_000, 100),
    (cosine(10_050), 10_000, 100),
    (one_cycle(9950), 10_000, 100),
    (linear(10_000), 9920, 100),
    (linear(9920), 10_000, 100),
    (warmup(10_000), 9920, 100),
    (linear(10_000, 0, 1) >> inverse_sqrt(500), 9920, 100),
    (in_epochs(warmup(5) >> cosine(85)), 90 * 391, 391),
    (in_epochs(warmup(5) >> linear(85)), 90 * 389, 389),
    (in_epochs(warm_restarts(10, 2)), 70 * 391, 391),
    # warmups that other schedulers are multiplied with, and short ones
    (warmup(500), 10_000, 100),
    (warmup(5) >> constant(), RUN, EPOCH),
    (warmup(90) >> constant(), RUN, EPOCH),
    (warmup(90), RUN, EPOCH),
    (linear(90, 0, 1), RUN, EPOCH),
    (untuned_linear(), 10_000, 100),
    (untuned_exponential(), 10_000, 100),
    (untuned_linear() * cosine(10_000), 10_000, 100),
    (rectified() * cosine(10_000), 10_000, 100),
    # cycles
    (cyclic(2000), 12_000, 100),
    (cyclic(2000, mode="triangular2"), 12_000, 100),
    (repeat(cosine(1000), 10), 10_000, 100),
    (repeat(cosine(1000)), 10_000, 100),
    (repeat(linear(5, 0.1, 1) >> linear(5, 1, 0.1), 10), 100, None),
    (warm_restarts(10), 10_005, None),
    (warm_restarts(1000), 9700, 100),
    (cyclic(5), 5000, 50),
    # frozen and thawed on purpose
    (constant(1, 3000) >> constant(0), 10_000, 100),
    (constant(1, 3000) >> value(0), 10_000, 100),
    (constant(1, 3000) >> constant(0, 7000), 10_000, 100),
    (warmup(500) >> cosine(2000) >> constant(0), 10_000, 100),
    (warmup(500) >> cosine(1000, 1, 0.1) >> constant(0.1), 10_000, 100),
    (constant(0, 1000) >> constant(1), 10_000, 100),
    # values
    (value(linear(10_000, 0.1, 0.01)), 10_000, 100),
    (value(linear(1000, 1e-3, 9e-4)), 10_000, 100),
    (linear(10_000, 1, value(1e-5)), 10_000, 100),
    # nobody knows what a function does
    (function(lambda time: 1 / (1 + time)), 10_000, 100),
    (function(lambda time: 1 / (1 + time), steps=20_000), 10_000, 100),
]


@pytest.mark.parametrize(("schedule", "steps", "epoch"), SENSIBLE, ids=str)
def test_sensible_schedules_get_no_warning(schedule, steps, epoch):
    assert mistakes(schedule, steps, epoch) == []
    assert mistakes(schedule, steps) == []


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        ("momentum", linear(300, value(0.85), value(0.95))),
        ("beta2", linear(1000, value(0.9), value(0.99))),
        ("weight_decay", linear(1000)),
        ("weight_decay", cosine(500, 1, 0.1)),
        ("weight_decay", exponential(0.99)),
    ],
    ids=str,
)
def test_what_is_not_the_lr_may_come_to_rest_early(name, schedule):
    assert mistakes(schedule, RUN, EPOCH, name) == []


@given(
    st.integers(200, 10**7),
    st.floats(0.01, 0.9),
    st.sampled_from(["linear", "cosine"]),
    st.sampled_from([cosine, linear, lambda steps: polynomial(steps, 2)]),
    st.sampled_from([None, 10, 390, 5000]),
)
def test_a_warmup_and_a_decay_that_fill_the_run_get_no_warning(steps, part, kind, decay, epoch):
    rise = max(1, round(part * steps))
    assert mistakes(warmup(rise, kind) >> decay(steps - rise), steps, epoch) == []


MISTAKES = [
    # a warmup longer than the run
    (warmup(5000), 1000, "warmup(5000) lasts until step 5000, and the run ends at step 1000 with"),
    (warmup(5000) >> cosine(5000), 1000, "with 0.2 of the base; shorten it"),
    (warmup(5000) * cosine(1000), 1000, "warmup(5000) lasts until step 5000"),
    (constant(0.1, 500) >> warmup(900) >> constant(), 1000, "warmup(900) lasts until step 1400"),
    (until(warmup(5000) >> constant(), 6000), 1000, "warmup(5000) lasts until step 5000"),
    (repeat(warmup(900) >> cosine(900)), 500, "warmup(900) lasts until step 900"),
    (delay(warmup(900), 500), 1000, "warmup(900) lasts until step 1400"),
    (wsd(2000, 1000, 1000), 1000, "wsd(2000, 1000, 1000) lasts until step 2000"),
    (untuned_linear(), 1000, "untuned_linear() lasts until step 2000"),
    (rectified() * cosine(500), 500, "rectified() lasts until step 2000"),
    # a peak that is never reached
    (
        one_cycle(10_000),
        2000,
        "one_cycle(10000) comes to its peak, the base, at step 3000,",
    ),
    (cyclic(5000), 3000, "comes to its peak, the base, at step 5000"),
    (linear(5000, 0, 1) >> cosine(5000), 1000, "comes to its peak, the base, at step 5000"),
    (linear(5000, 0, 1) >> inverse_sqrt(500), 1000, "comes to its peak, the base, at step 5000"),
    (piecewise([(0, 0), (5000, 2), (9000, 0)]), 3000, "peak, 2 of the base, at step 5000"),
    (value(linear(500, 0, 0.1) >> cosine(500)), 300, "peak, 1, at step 500"),
    # the schedule cut off by the end of the run
    (
        cosine(10_000),
        5000,
        "cosine(10000) ends with 0 at step 10000, and the run ends at step 5000 with 0.5 of the "
        "base; shorten it",
    ),
    (warmup(500) >> cosine(10_000), 10_000, "at step 10000 with 0.006156 of the base"),
    (warmup(500) >> cosine(9500) >> constant(0.01), 5000, "ends with 0.01 of the base at step"),
    (linear(10_000), 9850, "ends with 0 at step 10000"),
    (until(one_cycle(10_000), 5000), 3500, "at step 5000, and the run ends at step 3500"),
    (linear(5000, 0, 1), 1000, "ends with the base at step 5000, and the run ends at step 1000"),
    (wsd(500, 8500, 1000), 9000, "and the run ends at step 9000 with the base"),
    (multistep([5000, 9000, 12_000]), 10_000, "ends with 0.001 of the base at step 12000"),
    (value(linear(10_000, 0.1, 0.01)), 5000, "ends with 0.01 at step 10000, and the run ends at"),
    (linear(10_000, 1, value(0.01)), 5000, "with 0.5 of the base + 0.005"),
    (cosine(10_000) * untuned_linear(), 5000, "ends with 0 at step 10000"),
    (until(exponential(0.999), 3000), 2000, "ends with 0.04971 of the base at step 3000"),
    (delay(cosine(9000), 3000), 10_000, "ends with 0 at step 12000"),
    (clip(cosine(20_000), 0.1), 10_000, "ends with 0.1 of the base at step 20000"),
    (repeat(cosine(1000), 15), 10_300, "ends with 0 at step 15000"),
    (step(11_700), 10_000, "step(11700) first falls at step 11700, and the run ends at step 10000"),
    (warmup(1000) >> step(9500), 10_000, "step(9500) first falls at step 10500"),
    (warm_restarts(3000), 10_000, "ends at step 9000 and 12000, and the run ends at step 10000"),
    (warmup(500) >> warm_restarts(3000), 10_000, "ends at step 9500 and 12500"),
    (warm_restarts(20_000), 10_000, "a cycle of warm_restarts(20000) ends at step 20000, and the"),
    (cyclic(2000), 10_000, "ends at step 8000 and 12000, and the run ends at step 10000 with the"),
    (warm_restarts(1000), 9600, "ends at step 9000 and 10000"),
    (repeat(cosine(1000)), 10_500, "ends at step 10000 and 11000"),
    # over long before the run ends
    (
        cosine(5000),
        10_000,
        "cosine(5000) is over at step 5000 and stays at 0 until the run ends at step 10000; "
        "lengthen it to 10000 steps",
    ),
    (linear(9850), 10_000, "is over at step 9850 and stays at 0"),
    (linear(1500, end=0.3), 10_000, "is over at step 1500 and stays at 0.3 of the base"),
    (cosine(9500), 10_000, "is over at step 9500 and stays at 0"),
    (warmup(500) >> cosine(8000), 10_000, "is over at step 8500 and stays at 0"),
    (cosine(5000) * rectified(), 10_000, "is over at step 5000 and stays at 0"),
    (one_cycle(9000), 10_000, "stays at 4e-06 of the base"),
    (value(linear(5000, 0.1, 0)), 10_000, "stays at 0"),
    (cosine(1000, end=0.1), 10_000, "is over at step 1000 and stays at 0.1 of the base"),
    (exponential(0.95), 10_000, "exponential(0.95) has come to nothing by step 225, 9.723e-06 of"),
    (value(exponential(0.95) * 1e-3), 10_000, "has come to nothing by step 225, 9.723e-09, and"),
    (exponential(0.95) * 1e3, 10_000, "has come to nothing by step 225, 0.009723 of the base"),
    (step(30), 10_000, "has come to nothing by step 180"),
    (warmup(500) >> exponential(0.95), 10_000, "has come to nothing by step 725"),
    (cosine(3000) * step(5000, 0.5), 10_000, "has come to nothing by step 29"),
    # no float can hold it
    (exponential(2), RUN, "exponential(2) is too large for a number at step"),
    (cyclic(5, mode="exp_range", gamma=2), RUN, "is too large for a number at step"),
]


def one_mistake(*args, **kwargs):
    found = mistakes(*args, **kwargs)
    assert len(found) == 1, found
    assert "\n" not in found[0]
    return found[0]


@pytest.mark.parametrize(("schedule", "steps", "says"), MISTAKES, ids=str)
def test_a_mistake_gets_its_one_line(schedule, steps, says):
    warning = one_mistake(schedule, steps)
    assert says in warning
    assert warning.startswith("lr: ")
    assert ".in_epochs" not in warning


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [
        (schedule, steps)
        for schedule, steps, _ in MISTAKES
        if "untuned" not in str(schedule)
        and "rectified" not in str(schedule)  # they count in steps
    ],
    ids=str,
)
def test_advice_is_the_same_for_a_run_a_thousand_times_as_long(schedule, steps):
    short, long = one_mistake(schedule, steps), one_mistake(schedule.in_epochs(1000), steps * 1000)
    assert short.split("; ")[-1][:10] == long.split("; ")[-1][:10]


EPOCHS_AS_STEPS = [
    (cosine(90), "lr"),
    (cosine(90, end=0.1), "lr"),
    (warmup(5) >> cosine(85), "lr"),
    (one_cycle(90), "lr"),
    (wsd(5, 80, 5), "lr"),
    (piecewise([(0, 0), (5, 1), (90, 0)]), "lr"),
    (multistep([30, 60, 80]), "lr"),
    (multistep([45, 70]), "lr"),
    (step(30), "lr"),
    (exponential(0.95), "lr"),
    (exponential(0.97), "lr"),
    (warm_restarts(10), "lr"),
    (cyclic(5), "lr"),
    (repeat(linear(10)), "lr"),
    (cosine(90), "weight_decay"),
    (linear(90, value(0.9), value(0.99)), "momentum"),
]


@pytest.mark.parametrize(("schedule", "name"), EPOCHS_AS_STEPS, ids=str)
def test_epochs_in_place_of_steps_are_told_with_the_fix(schedule, name):
    warning = one_mistake(schedule, RUN, EPOCH, name)
    assert warning.endswith("; if its times are epochs, .in_epochs(390) makes them steps")
    assert warning.startswith(f"{name}: ")
    assert mistakes(in_epochs(schedule), RUN, EPOCH, name) == []


@pytest.mark.parametrize(
    "schedule",
    [
        in_epochs(cosine(90)),
        in_epochs(warmup(5) >> cosine(85)),
        in_epochs(one_cycle(90)),
        in_epochs(multistep([30, 60, 80])),
        in_epochs(step(30)),
        warmup(500) >> cosine(RUN - 500),
    ],
    ids=str,
)
@pytest.mark.parametrize("where", ["the run", "the schedule"])
def test_steps_in_place_of_epochs_are_told_with_the_fix(schedule, where):
    run = (schedule, 90) if where == "the run" else (in_epochs(schedule), RUN)
    warning = one_mistake(*run, EPOCH)
    steps = run[1]
    assert f"if the run has {steps} epochs, these are {steps * EPOCH} steps" in warning
    assert "leave out .in_epochs(390)" in warning
    assert mistakes(schedule, RUN, EPOCH) == []


@pytest.mark.parametrize(
    ("schedule", "steps", "epoch"),
    [
        (cosine(10_000), 100, 390),  # a short trial of a long run
        (warmup(500) >> constant(), 26, 390),
        (step(11_700), 1000, 390),
        (cosine(300), RUN, EPOCH),
        (exponential(0.5), RUN, EPOCH),
        (cosine(5000), 10_000, 1),
        (cosine(10_000), 5000, 1),
    ],
    ids=str,
)
def test_what_another_unit_does_not_mend_is_not_blamed_on_it(schedule, steps, epoch):
    warning = one_mistake(schedule, steps, epoch)
    assert ".in_epochs" not in warning


def test_two_mistakes_are_two_lines():
    found = mistakes(cosine(5000) * step(30_000), 20_000)
    assert len(found) == 2


def test_a_function_is_asked_for_the_steps_of_the_run_and_no_others():
    asked = []

    def table(time):
        asked.append(time)
        return 0.5

    assert mistakes(warmup(100) >> function(table, steps=5000) >> repeat(linear(7)), 1000) == []
    assert all(time == int(time) and 0 <= time <= 900 for time in asked)
    assert asked


@pytest.fixture
def own_shapes():
    before = dict(SHAPES)

    @shape
    def slow_start(steps: Time) -> Curve:
        return Curve(lambda time: (min(time / steps, 1.0), 0.0), warm=steps)

    @shape
    def teeth(steps: Time) -> Curve:
        return Curve(lambda time: (1 - time % steps / steps, 0.0), cycle=(steps, 1))

    @shape
    def cliff(steps: Time) -> Curve:
        return Curve(lambda time: (1.0 if time < steps else 0.5, 0.0), turns=(steps,))

    @shape
    def floor(factor: Factor) -> Curve:
        return Curve(lambda time: (factor, 0.0), level=True)

    yield slow_start, teeth, cliff, floor
    SHAPES.clear()
    SHAPES.update(before)


def test_a_shape_of_ones_own_is_known_by_its_curve_like_any_other(own_shapes):
    slow_start, teeth, cliff, floor = own_shapes
    assert "slow_start(500) lasts until step 500" in one_mistake(slow_start(500), 400)
    assert "slow_start(500) lasts until step 700" in one_mistake(delay(slow_start(500), 200), 400)
    assert mistakes(slow_start(500), 10_000) == []
    assert "a cycle of teeth(300) ends at step 900 and 1200" in one_mistake(teeth(300), 1000)
    assert "teeth(10) begins again every 10 steps" in one_mistake(teeth(10), RUN, EPOCH)
    assert "cliff(5000) first falls at step 5000" in one_mistake(cliff(5000), 1000)
    assert mistakes(cosine(2000) >> floor(0.0), 10_000) == []


def test_long_schedules_are_shortened():
    warning = one_mistake(multistep(range(1, 1000)), 500)
    assert len(warning) < 250


@given(any_schedule, st.sampled_from([1, 7, 1000, 35_100, 10**9]), st.sampled_from([None, 1, 390]))
def test_any_schedule_and_any_run_can_be_asked_about(schedule, steps, epoch):
    found = mistakes(schedule, steps, epoch, "momentum")
    assert len(found) == len(set(found))
    assert all("\n" not in warning and warning.startswith("momentum: ") for warning in found)
    assert mistakes(schedule, steps, epoch, "momentum") == found


def test_numpys_numbers_are_numbers():
    told = mistakes(cosine(5000), np.int64(10_000), np.float32(100))
    assert told == mistakes(cosine(5000), 10_000, 100) != []


@pytest.mark.parametrize("steps", [0, -1, float("nan"), float("inf"), True, None, "90"])
def test_a_run_without_steps_is_refused(steps):
    with pytest.raises(ScheduleError, match="mistakes: steps must be a finite number above 0, got"):
        mistakes(cosine(90), steps)


@pytest.mark.parametrize("epoch", [0, -1, float("nan"), True, "390"])
def test_an_epoch_without_steps_is_refused(epoch):
    with pytest.raises(ScheduleError, match="steps_per_epoch must be a finite number above 0, got"):
        mistakes(cosine(90), 90, epoch)


def test_something_else_than_a_schedule_is_refused():
    with pytest.raises(ScheduleTypeError, match="must be a schedule, got 'cosine"):
        mistakes("cosine(90)", 90)
