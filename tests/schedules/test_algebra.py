"""Schedules are their definitions: every shape and combinator, and every way to be wrong."""

import copy
import inspect
import itertools
import json
import math
import pickle
import random
import struct
from fractions import Fraction

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import descend.schedules as ds
from descend.errors import ScheduleError
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
from descend.schedules.schedule import SHAPES, Curve, Schedule, shape
from schedules import oracle


def absolute(number):
    return ("value", {"of": number})


def half(time):
    return 1 / (1 + time / 2)


# Every shape with several options, as `oracle` writes them.
SPECS = [
    ("constant", {}),
    ("constant", {"factor": 0.1, "steps": 100}),
    ("constant", {"factor": -3, "steps": 0.5}),
    ("constant", {"factor": absolute(0.3)}),
    ("linear", {"steps": 100}),
    ("linear", {"steps": 7, "start": 0.04, "end": 1}),
    ("linear", {"steps": 0.3, "start": 2, "end": -0.7}),
    ("linear", {"steps": 1e9, "start": absolute(0.1), "end": absolute(3e-5)}),
    ("linear", {"steps": 100, "start": 1, "end": absolute(0.01)}),
    ("cosine", {"steps": 100}),
    ("cosine", {"steps": 7, "start": 0.04, "end": 1}),
    ("cosine", {"steps": 0.7, "start": -1, "end": 2}),
    ("cosine", {"steps": 9500.5, "start": 1, "end": absolute(0.01)}),
    ("polynomial", {"steps": 100, "power": 1}),
    ("polynomial", {"steps": 100, "power": 2}),
    ("polynomial", {"steps": 7, "power": 0.5, "end": 0.1}),
    ("polynomial", {"steps": 100, "power": 17, "start": absolute(1e-3), "end": absolute(1e-4)}),
    ("piecewise", {"points": [(0, 0.0), (10, 1), (100, 0.1)]}),
    ("piecewise", {"points": [(0, 0.0), (10, 1), (100.5, absolute(0.1))], "between": "cosine"}),
    ("piecewise", {"points": [(0, 0.5), (0.1, 1), (0.7, 0.1)], "between": "constant"}),
    ("piecewise", {"points": [(0, absolute(2)), (8, absolute(1))], "between": "linear"}),
    ("piecewise", {"points": [(0, 0.5)]}),
    ("exponential", {"gamma": 0.95}),
    ("exponential", {"gamma": 0.5, "every": 10}),
    ("exponential", {"gamma": 1}),
    ("exponential", {"gamma": 1e-3, "every": 0.3}),
    ("step", {"every": 30}),
    ("step", {"every": 30, "gamma": 0.5}),
    ("step", {"every": 7, "gamma": -0.7}),
    ("step", {"every": 0.1, "gamma": 0.9}),
    ("step", {"every": 0.25, "gamma": 0}),
    ("multistep", {"milestones": [30, 80]}),
    ("multistep", {"milestones": [0, 0.5, 0.5, 90], "gamma": 0.3}),
    ("inverse_sqrt", {"steps": 4000}),
    ("inverse_sqrt", {"steps": 0.1}),
    ("function", {"of": half}),
    ("function", {"of": half, "steps": 20, "unit": 4}),
    ("one_cycle", {"steps": 1000}),
    ("one_cycle", {"steps": 7, "rise": 0.1, "start": 0.3, "end": 0}),
    ("one_cycle", {"steps": 1000, "rise": 0.45, "between": "linear"}),
    ("one_cycle", {"steps": 100, "rise": 0}),
    ("one_cycle", {"steps": 100, "rise": 1}),
    ("cyclic", {"up": 10}),
    ("cyclic", {"up": 10, "down": 3.5, "low": 0.3, "mode": "triangular2"}),
    ("cyclic", {"up": 2000, "low": 0.01, "mode": "exp_range", "gamma": 0.999}),
    ("cyclic", {"up": 5, "down": 2, "mode": "exp_range", "gamma": 0.9, "every": 3}),
    ("warm_restarts", {"steps": 10}),
    ("warm_restarts", {"steps": 10, "growth": 2}),
    ("warm_restarts", {"steps": 10, "growth": 1.5, "start": 0.7, "end": 0.1}),
    ("warm_restarts", {"steps": 0.3, "growth": 3, "start": absolute(0.7), "end": 0.1}),
    ("wsd", {"rise": 100, "stable": 800, "decay": 100}),
    ("wsd", {"rise": 3, "stable": 0.5, "decay": 10, "end": 0.1, "between": "cosine"}),
    ("warmup", {"steps": 500}),
    ("warmup", {"steps": 0}),
    ("warmup", {"steps": 7, "start": 0.3}),
    ("warmup", {"steps": 7, "start": 0.3, "kind": "cosine"}),
    ("warmup", {"steps": 7, "start": 0.001, "kind": "exponential"}),
    ("warmup", {"steps": 7, "start": 0.3, "kind": "constant"}),
    ("untuned_linear", {}),
    ("untuned_linear", {"beta2": 0.61}),
    ("untuned_exponential", {}),
    ("untuned_exponential", {"beta2": 0.61}),
    ("untuned_exponential", {"beta2": 0.999999}),
    ("rectified", {"beta2": 0.9}),
    ("rectified", {"beta2": 0.7}),
]
# A difference of two numbers near 2 / (1 - beta2): the formula loses digits.
NEAR = [("rectified", {}), ("rectified", {"beta2": 0.99}), ("rectified", {"beta2": 0.9999})]
COMBINED = [
    ("join", {"first": SPECS[4], "second": SPECS[9]}),
    ("join", {"first": ("warmup", {"steps": 0.3}), "second": SPECS[22]}),
    ("product", {"first": SPECS[4], "second": SPECS[7]}),
    ("product", {"first": SPECS[41], "second": SPECS[46]}),
    ("scale", {"schedule": SPECS[8], "by": -0.3}),
    ("until", {"schedule": ("exponential", {"gamma": 0.9}), "steps": 12.5}),
    ("until", {"schedule": SPECS[4], "steps": 1000}),
    ("repeat", {"schedule": ("linear", {"steps": 8, "start": 0.5})}),
    ("repeat", {"schedule": ("wsd", {"rise": 3, "stable": 4, "decay": 5}), "times": 3}),
    ("delay", {"schedule": ("cosine", {"steps": 10}), "steps": 2.5}),
    ("clip", {"schedule": ("exponential", {"gamma": 0.5}), "low": 0.1}),
    ("clip", {"schedule": ("linear", {"steps": 10}), "low": 0.25, "high": 0.75}),
    ("clip", {"schedule": SPECS[20], "low": 1.25, "high": 1.5}),
    ("value", {"of": 0.01}),
    ("value", {"of": ("cosine", {"steps": 10})}),
]


def name_of(spec):
    return oracle.built(spec).text


def bits(number):
    assert type(number) is float
    return struct.pack("d", number)


def times_of(spec):
    """0, whole numbers, fractions, what stands in the arguments and beside it, far beyond, huge."""
    end = oracle.length(spec)
    marks = [100.0 if end == math.inf else float(end)]
    for part in spec[1].values():
        if isinstance(part, list):
            marks += [float(entry[0] if isinstance(entry, tuple) else entry) for entry in part]
        elif isinstance(part, int | float) and 0 < part < math.inf:
            marks.append(float(part))
    times = {0, 5e-324, 1e-9, 1, 2, 3, 7, 10, 0.5, 1 / 3, 999, 1000.0, 12345.678, 1e6}
    for mark in marks:
        times |= {mark, math.nextafter(mark, 0), math.nextafter(mark, math.inf), mark / 3}
        times |= {mark / 2, mark * 0.999, mark + 1, 2 * mark, 3 * mark}
    return sorted(times | ({1e9, 2**53, 1e300} if end < math.inf else {1e9, 2**53}))


# The values


@pytest.mark.parametrize("spec", SPECS + COMBINED, ids=name_of)
@pytest.mark.parametrize("base", [1, 0.3])
def test_it_is_its_definition(spec, base):
    schedule = oracle.built(spec)
    for time in times_of(spec):
        # The fraction time / steps is rounded once, which a steep curve makes larger: wobble=1.
        # Else 8 roundings of the greatest level, one for each operation: 9e-16 of it.
        got = schedule(time, base=base)
        assert oracle.off(spec, time, got, base, wobble=1) <= 8, (time, got)


@pytest.mark.parametrize("spec", NEAR, ids=name_of)
def test_rectified_is_its_definition_to_the_digits_that_its_formula_keeps(spec):
    schedule = oracle.built(spec)
    rounding = 8 / (1 - spec[1].get("beta2", 0.999))  # of numbers of this size, not of 1
    for time in [0, 0.5, 1, 2, 3, 7, 20, 100, 1000, 10_000.25, 1e6]:
        assert oracle.off(spec, time, schedule(time), wobble=1) <= rounding, (time, schedule(time))


@pytest.mark.parametrize("beta2", [0.999999, 1 - 1e-12])
def test_rectified_next_to_1_is_right_or_refused(beta2):
    spec = ("rectified", {"beta2": beta2})
    try:
        schedule = oracle.built(spec)
    except ScheduleError:
        return
    for time in range(30):
        assert oracle.off(spec, time, schedule(time)) <= 8 / (1 - 0.9999)


@pytest.mark.parametrize("spec", SPECS + COMBINED, ids=name_of)
def test_its_length_is_right_and_it_stays_as_it_ends(spec):
    schedule, end = oracle.built(spec), oracle.length(spec)
    assert (
        abs(schedule.length - end) <= end * oracle.EPS
        if end < math.inf
        else (schedule.length == math.inf)
    )
    if end < math.inf:
        last = bits(schedule(schedule.length, base=0.7))
        for time in (math.nextafter(schedule.length, math.inf), schedule.length + 1, 1e9, 1e300):
            assert bits(schedule(time, base=0.7)) == last


@pytest.mark.parametrize(
    ("schedule", "time", "wanted"),
    [
        (linear(100), 100, 0.0),
        (linear(3, 0.7, 0.1), 0, 0.7),
        (linear(3, 0.7, 0.1), 3, 0.1),
        (cosine(100), 0, 1.0),
        (cosine(100), 50, 0.5),
        (cosine(100), 100, 0.0),
        (cosine(7, 0.3, 0.1), 7, 0.1),
        (polynomial(100, 0.9, 0.3, 0.1), 100, 0.1),
        (warmup(500), 0, 0.0),
        (warmup(500), 500, 1.0),
        (warmup(500, "cosine", start=0.125), 0, 0.125),
        (warmup(500, "exponential", start=0.1), 0, 0.1),
        (warmup(500, "constant", start=0.1), 499, 0.1),
        (warmup(500, "constant", start=0.1), 500, 1.0),
        (warmup(0), 0, 1.0),
        (one_cycle(1000), 0, 0.04),
        (one_cycle(1000), 300, 1.0),
        (one_cycle(1000), 1000, 4e-6),
        (one_cycle(1000, rise=0, start=0.5), 0, 1.0),
        (one_cycle(1000, rise=1), 1000, 1.0),
        (cyclic(10), 0, 0.1),
        (cyclic(10), 10, 1.0),
        (cyclic(10), 20, 0.1),
        (cyclic(10, 5), 15, 0.1),
        (cyclic(10, mode="triangular2", low=0.5), 30, 0.75),
        (warm_restarts(10), 10, 1.0),
        (warm_restarts(10, 2), 30, 1.0),
        (warm_restarts(10, 2), 10 * (2**40 - 1), 1.0),
        (step(30), 30, 0.1),
        (multistep([30, 80], 0.5), 29, 1.0),
        (multistep([30, 80], 0.5), 30, 0.5),
        (multistep([30, 30], 0.5), 30, 0.25),
        (inverse_sqrt(100), 0, 1.0),
        (piecewise({0: 0.25, 10: 1}), 10, 1.0),
        (piecewise({0: 0.25, 10: 1}, "constant"), 9, 0.25),
        (constant(2), 5, 2.0),
        (wsd(10, 10, 10), 20, 1.0),
        (wsd(10, 10, 10), 30, 0.0),
    ],
    ids=str,
)
def test_ends_and_peaks_are_exact(schedule, time, wanted):
    assert bits(schedule(time)) == bits(wanted)


@pytest.mark.parametrize("rise", [0.05, 0.1, 0.3, 0.45, 0.7, 1 / 3])
def test_one_cycle_ends_where_it_should_whatever_the_share(rise):
    for steps in range(1, 300):
        assert one_cycle(steps, rise, end=0)(steps) == 0
        assert one_cycle(steps, rise)(rise * steps) == 1


def test_rectified_and_untuned_warmups_are_those_of_their_papers():
    # RAdam's own beta2: the first step whose variance is known is the sixth (rho = 4.99...).
    assert oracle.rho(5, 0.999) < 5 < oracle.rho(6, 0.999) + 1e-2
    assert rectified(0.999)(0) == pytest.approx(float(oracle.level(("rectified", {}), 0)[0]), 1e-9)
    assert untuned_linear(0.99)(199) == untuned_linear(0.99)(10**6) == 1.0  # 2 / (1 - beta2) = 200
    assert untuned_linear(0.99)(198) < 1
    assert untuned_exponential(0.9)(9) == pytest.approx(1 - math.exp(-1), rel=1e-15)
    for warm in (rectified(), untuned_exponential(), untuned_linear()):
        values = warm.values(20_000)
        assert all(0 < a <= b <= 1 for a, b in itertools.pairwise(values))


def test_the_transformers_schedule():
    # Vaswani et al. 2017, equation 3: d^-0.5 min(n^-0.5, n w^-1.5), the peak at n = w.
    w = 4000
    schedule = warmup(w) >> inverse_sqrt(w)
    peak = w**-0.5
    for n in (1, 7, 1000, 3999, 4000, 4001, 16_000, 10**6):
        assert schedule(n) * peak == pytest.approx(min(n**-0.5, n * w**-1.5), rel=1e-15)


# Purity


@pytest.mark.parametrize("spec", SPECS + COMBINED + NEAR, ids=name_of)
def test_the_same_time_gives_the_same_bits_in_any_order(spec):
    schedule = oracle.built(spec)
    times = times_of(spec)
    first = {time: bits(schedule(time, base=0.3)) for time in times}
    shuffled = random.Random(0).sample(times, len(times))
    assert {time: bits(schedule(time, base=0.3)) for time in shuffled} == first
    assert {time: bits(oracle.built(spec)(time, base=0.3)) for time in times} == first


@pytest.mark.parametrize("spec", SPECS + COMBINED, ids=name_of)
def test_a_whole_time_may_be_int_or_float(spec):
    schedule = oracle.built(spec)
    for time in (0, 1, 7, 100, 1000, 10**6, 2**53):
        assert bits(schedule(time)) == bits(schedule(float(time)))


def test_whole_arguments_may_be_int_or_float():
    assert linear(10, 1, 0) == linear(10.0, 1.0, 0.0)
    assert hash(linear(10, 1, 0)) == hash(linear(10.0, 1.0, 0.0))
    assert str(warm_restarts(10.0, 2.0)) == "warm_restarts(10, 2)"
    assert warm_restarts(10.0, 2.0)(10 * (2**40 - 1)) == 1.0


@pytest.mark.parametrize("spec", SPECS + COMBINED, ids=name_of)
def test_values_are_those_of_each_step(spec):
    schedule = oracle.built(spec)
    assert schedule.values(30, base=0.3) == [schedule(time, base=0.3) for time in range(30)]
    assert schedule.values(0) == []
    assert schedule(3) == schedule(3, 1.0) == schedule(time=3, base=1)


# Combinators, nested at random. All numbers are multiples of 1/8, so that every sum of lengths is
# exact in floats too: on which side of a jump a time stands is decided, not rounded.

LENGTHS = st.integers(1, 80).map(lambda eighths: eighths / 8)
NUMBERS = st.integers(-16, 16).map(lambda eighths: eighths / 8)
ANY_LEVEL = NUMBERS | NUMBERS.map(absolute)


def with_levels(name, **arguments):
    return st.tuples(
        st.just(name),
        st.fixed_dictionaries(
            {"steps": LENGTHS, **arguments},
            optional={
                "start": ANY_LEVEL,
                "end": ANY_LEVEL,
            },
        ),
    )


def plain(name, **arguments):
    return st.tuples(st.just(name), st.fixed_dictionaries(arguments))


POINTS = st.lists(st.tuples(LENGTHS, ANY_LEVEL), max_size=4, unique_by=lambda point: point[0])
LEAVES = st.one_of(
    plain("constant", factor=ANY_LEVEL),
    plain("constant", factor=ANY_LEVEL, steps=LENGTHS),
    with_levels("linear"),
    with_levels("cosine"),
    with_levels("polynomial", power=st.integers(1, 3)),
    with_levels("warm_restarts", growth=st.sampled_from([1, 1.5, 2])),
    plain(
        "piecewise",
        points=POINTS.map(lambda points: [(0, 0.5), *sorted(points, key=lambda p: p[0])]),
        between=st.sampled_from(["linear", "cosine", "constant"]),
    ),
    plain("exponential", gamma=st.sampled_from([0.5, 0.875]), every=LENGTHS),
    plain("step", every=LENGTHS, gamma=st.sampled_from([-0.5, 0.1])),
    plain("multistep", milestones=st.lists(LENGTHS, min_size=1, max_size=3).map(sorted)),
    plain("inverse_sqrt", steps=LENGTHS),
    plain("one_cycle", steps=LENGTHS, rise=st.sampled_from([0, 0.25, 1])),
    plain("cyclic", up=LENGTHS, down=LENGTHS, mode=st.sampled_from(["triangular", "triangular2"])),
    plain("wsd", rise=LENGTHS, stable=LENGTHS, decay=LENGTHS),
    plain("warmup", steps=LENGTHS, kind=st.sampled_from(["linear", "cosine"])),
)


def factor_only(spec):
    return "'value'" not in repr(spec)


def ends(spec):
    return 0 < oracle.length(spec) < math.inf


def clipped(spec, low, width):
    mixed = not factor_only(spec) and not oracle.is_value(spec)
    return spec if mixed else ("clip", {"schedule": spec, "low": low, "high": low + abs(width)})


def longer(specs):
    finite, factors = specs.filter(ends), specs.filter(factor_only)
    return st.one_of(
        plain("join", first=finite, second=specs),
        plain("product", first=specs, second=factors),
        plain("product", first=factors, second=specs),
        plain("scale", schedule=specs, by=NUMBERS),
        plain("until", schedule=specs, steps=LENGTHS),
        plain("repeat", schedule=finite),
        plain("repeat", schedule=finite, times=st.integers(1, 4)),
        plain("delay", schedule=specs, steps=LENGTHS),
        plain("value", of=factors),
        st.builds(clipped, specs, NUMBERS, NUMBERS),
    )


NESTED = st.recursive(LEAVES, longer, max_leaves=6)
TIMES = st.integers(0, 16 * 60).map(lambda sixteenths: sixteenths / 16)


@settings(max_examples=150)
@given(NESTED, st.lists(TIMES, min_size=3, max_size=8), NUMBERS)
def test_nested_combinators_are_their_definitions(spec, times, base):
    schedule = oracle.built(spec)
    end = oracle.length(spec)
    assert schedule.length == (math.inf if end == math.inf else end)
    if end < math.inf:
        times = [*times, float(end), math.nextafter(end, math.inf), float(end) + 1]
    for time in times:
        # Some ten operations deep: 40 roundings of the greatest level, 5e-15 of it.
        got = schedule(time, base=base)
        assert oracle.off(spec, time, got, base=base) <= 40, (time, got)
        assert got == schedule(time, base=base)


@given(NESTED.filter(ends), NESTED.filter(ends), NESTED, st.lists(TIMES, max_size=5))
def test_joining_is_associative(a, b, c, times):
    a, b, c = map(oracle.built, (a, b, c))
    left, right = (a >> b) >> c, a >> (b >> c)
    assert left == right
    assert (left.text, hash(left), left.length) == (right.text, hash(right), right.length)
    for time in times:
        assert bits(left(time)) == bits(right(time))
    assert left.length == a.length + b.length + c.length
    assert left(a.length) == b(0)
    assert left(a.length + b.length) == c(0)


def test_equal_products_give_equal_bits():
    a, b, c = linear(30), cosine(70), exponential(0.9)
    for left, right in (
        ((a * b) * c, a * (b * c)),
        (a * 0.1 * 0.7, a * (0.1 * 0.7)),
        (0.1 * a * b, a * (b * 0.1)),
        (0.1 * a, a * 0.1),
    ):
        if left == right:
            assert left.values(30) == right.values(30)
            assert left.over(3).values(90) == right.over(3).values(90)


def test_a_chain_of_two_hundred_joins_is_one():
    whole = linear(1)
    for _ in range(199):
        whole = whole >> linear(1)
    assert whole.length == 200
    assert whole(199.5) == 0.5
    assert whole(200) == 0.0
    assert pickle.loads(pickle.dumps(whole)) == whole


# Text, equality, copies


@given(NESTED, st.lists(TIMES, max_size=3))
def test_copies_are_equal_and_give_the_same_bits(spec, times):
    schedule = oracle.built(spec)
    for other in (
        pickle.loads(pickle.dumps(schedule)),
        copy.deepcopy(schedule),
        copy.copy(schedule),
        eval(schedule.text, vars(ds).copy()),  # the text is the expression
    ):
        assert other == schedule
        assert hash(other) == hash(schedule)
        assert repr(other) == str(other) == schedule.text
        assert other.length == schedule.length
        for time in times:
            assert bits(other(time)) == bits(schedule(time))


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (constant(), "constant()"),
        (constant(1.0, 5), "constant(steps=5)"),
        (linear(100.0, end=0.5), "linear(100, end=0.5)"),
        (linear(100, 1, value(3e-5)), "linear(100, end=value(3e-05))"),
        (
            piecewise({0: 1, 10: value(0.5)}, "cosine"),
            "piecewise([[0, 1], [10, value(0.5)]], 'cosine')",
        ),
        (multistep((30, 80)), "multistep([30, 80])"),
        (warmup(5) >> cosine(5) >> constant(0), "warmup(5) >> cosine(5) >> constant(0)"),
        (warmup(5) >> (cosine(5) >> constant(0)), "warmup(5) >> cosine(5) >> constant(0)"),
        ((warmup(5) >> cosine(5)) * 0.5, "(warmup(5) >> cosine(5)) * 0.5"),
        (0.5 * cosine(5), "cosine(5) * 0.5"),
        (cosine(5) * -2, "cosine(5) * -2"),
        (warmup(5) * cosine(5) >> constant(0), "warmup(5) * cosine(5) >> constant(0)"),
        (repeat(warmup(5) >> cosine(5), 3), "repeat(warmup(5) >> cosine(5), 3)"),
        (clip(cosine(5), 0.1), "clip(cosine(5), 0.1)"),
        (function(math.sqrt, 10), "function(math.sqrt, 10)"),
        (untuned_linear(), "untuned_linear()"),
        (untuned_linear(0.999), "untuned_linear()"),
    ],
    ids=str,
)
def test_the_text_is_the_expression(schedule, text):
    assert str(schedule) == repr(schedule) == schedule.text == text


def test_other_schedules_are_not_equal():
    assert cosine(10) != cosine(11)
    assert cosine(10) != linear(10)
    assert cosine(10) != "cosine(10)"
    assert warmup(1) >> cosine(2) != warmup(1) * cosine(2)
    assert len({cosine(10), cosine(10.0), cosine(11)}) == 2


def test_functions_are_equal_only_to_themselves():
    def one(time):
        return 1.0

    assert function(one) == function(one)
    assert function(lambda time: 1.0) != function(lambda time: 2.0)


@pytest.mark.parametrize("field", ["name", "arguments", "text", "curve", "new"])
def test_it_cannot_be_changed(field):
    schedule = cosine(10)
    with pytest.raises(AttributeError):
        setattr(schedule, field, None)
    if field != "new":
        with pytest.raises(AttributeError):
            delattr(schedule, field)
    assert schedule == cosine(10)


def test_its_arguments_cannot_be_changed():
    schedule = cosine(10)
    with pytest.raises(TypeError):
        schedule.arguments["steps"] = 5
    milestones = [30, 80]
    decay = multistep(milestones)
    milestones.append(90)
    assert decay == multistep([30, 80])
    assert decay.over(2) == multistep([60, 160])


def test_its_text_is_plain_data():
    schedule = warmup(500) >> cosine(9500) * 0.1
    assert json.loads(json.dumps(str(schedule))) == "warmup(500) >> cosine(9500) * 0.1"


# Fractions of a run, and epochs


@pytest.mark.parametrize("steps", [100, 1000, 10_000, 300, 39_000, 10**8])
def test_whole_ends_of_fractions_are_exact(steps):
    for part in range(1, 100):
        share = part / 100
        schedule = (warmup(share) >> cosine(1 - share)).over(steps)
        assert schedule == warmup(part * steps // 100) >> cosine(steps - part * steps // 100)
        assert schedule.length == steps
        assert schedule(steps) == 0
        assert bits(schedule(part * steps // 100)) == bits(1.0)
    assert linear(0.29).over(100).length == 29
    assert (warmup(0.1) >> constant(1, 0.2) >> cosine(0.7)).over(10).length == 10


@pytest.mark.parametrize(
    ("schedule", "longer"),
    [
        (constant(0.5, 3), constant(0.5, 30)),
        (constant(0.5), constant(0.5)),
        (linear(3, 0.1, 2), linear(30, 0.1, 2)),
        (linear(3, 1, value(3)), linear(30, 1, value(3))),
        (cosine(0.29), cosine(2.9)),
        (polynomial(3, 2), polynomial(30, 2)),
        (piecewise([(0, 1), (3, 2)]), piecewise([(0, 1), (30, 2)])),
        (exponential(0.9), exponential(0.9, 10)),
        (step(3), step(30)),
        (multistep([3, 7.5]), multistep([30, 75])),
        (inverse_sqrt(3), inverse_sqrt(30)),
        (function(math.sqrt), function(math.sqrt, unit=10)),
        (function(math.sqrt, 3), function(math.sqrt, 30, 10)),
        (one_cycle(3), one_cycle(30)),
        (cyclic(3), cyclic(30, every=10)),
        (cyclic(3, 4, mode="exp_range"), cyclic(30, 40, mode="exp_range", every=10)),
        (warm_restarts(3, 2), warm_restarts(30, 2)),
        (wsd(1, 2, 3), wsd(10, 20, 30)),
        (warmup(3), warmup(30)),
        (until(exponential(0.5), 3), until(exponential(0.5, 10), 30)),
        (repeat(linear(3), 5), repeat(linear(30), 5)),
        (delay(linear(3), 5), delay(linear(30), 50)),
        (clip(linear(3), 0.5), clip(linear(30), 0.5)),
        (value(linear(3)), value(linear(30))),
        (value(3), value(3)),
        (warmup(1) >> linear(3), warmup(10) >> linear(30)),
        (warmup(1) * linear(3) * 3, warmup(10) * linear(30) * 3),
        # These follow from Adam's memory, which counts in steps.
        (untuned_linear(0.9), untuned_linear(0.9)),
        (untuned_exponential(0.9), untuned_exponential(0.9)),
        (rectified(0.9), rectified(0.9)),
    ],
    ids=str,
)
def test_over_makes_every_time_longer_and_nothing_else(schedule, longer):
    assert schedule.over(10) == longer
    assert schedule.in_epochs(10) == longer
    assert schedule.over(10).length == longer.length
    assert schedule.over(1) == schedule


def test_every_shape_is_tried_with_over():
    tried = {spec[0] for spec in SPECS + COMBINED} | {"multiply"}
    assert tried - {"scale", "product"} >= {
        name for name, made in SHAPES.items() if str(made.__module__).startswith("descend.")
    }


@given(NESTED, st.sampled_from([0.5, 2, 8, 1024]), st.lists(TIMES, min_size=3, max_size=6))
def test_over_is_evaluation_at_the_fraction(spec, steps, times):
    # Powers of two, so that the times stay exact; see `test_nested_combinators...` for the 40.
    longer = oracle.built(spec).over(steps)
    for time in times:
        got = longer(time * steps)
        assert oracle.off(spec, Fraction(time), got) <= 40, time


@pytest.mark.parametrize("steps", [7, 390, 12345, 0.3])
@pytest.mark.parametrize(
    "spec",
    [
        s
        for s in SPECS
        if s[0]
        in ("linear", "cosine", "exponential", "inverse_sqrt", "warmup", "polynomial", "one_cycle")
    ],
    ids=name_of,
)
def test_over_is_evaluation_at_the_fraction_to_rounding(spec, steps):
    schedule, longer = oracle.built(spec), oracle.built(spec).over(steps)
    for time in (0, 0.05, 0.3, 0.9, 2.2, 6.6):
        # The length in steps is rounded to 16 digits, and time * steps once.
        assert oracle.off(spec, time, longer(time * steps), wobble=8) <= 4
        assert oracle.off(spec, time, schedule(time), wobble=1) <= 4


def test_over_rounds_only_what_is_meant_to_be_whole():
    assert cosine(1 / 3).over(7).length == pytest.approx(7 / 3, rel=5e-16)
    assert cosine(0.5).over(1_000_000_001).length == 500_000_000.5
    assert cosine(0.25).over(10).length == 2.5
    assert cosine(1e-12).over(1).length == 1e-12
    assert piecewise([(0, 1), (1e-10, 2)]).over(2).length == 2e-10


# Errors

NAN, INF = math.nan, math.inf
NO_NUMBER = [NAN, -INF, True, "10", None, [10], 1j, cosine(10)]
ABOVE_0 = ("a finite number above 0", [0, -1, -0.5, INF, *NO_NUMBER])
FROM_0 = ("a finite number of at least 0", [-1, -5e-324, INF, *NO_NUMBER])
FROM_0_OR_ENDLESS = ("a number of at least 0", [-1, *NO_NUMBER])
FROM_0_OR_NONE = (
    "a finite number of at least 0",
    [-1, INF, *(b for b in NO_NUMBER if b is not None)],
)
FINITE = ("a finite number", [INF, *NO_NUMBER])
LEVEL = ("a finite number", [INF, *NO_NUMBER[:-1]])
NO_LEVEL = ("a number or value(number)", [cosine(10), value(cosine(10)), value(2) * 3])
SHARE = ("a finite number from 0 to 1", [-0.1, 1.1, INF, *NO_NUMBER])
FROM_1 = ("a finite number of at least 1", [0.5, 0, -1, INF, *NO_NUMBER])
BETA2 = ("a finite number above 0.6 and below 1", [0.6, 1, 0, 1.5, INF, *NO_NUMBER])
SCHEDULE = ("a schedule, such as cosine(1000)", [1, None, "cosine(10)", [cosine(10)], cosine])
TIMES_RISING = (
    "a list of times of at least 0, in rising order",
    [[80, 30], "30", 30, None, {30}],
)
TIME_AMONG = ("a finite number of at least 0", [[-1], [1, NAN], [INF], ["30"], [None], [True]])
POINT_LIST = (
    "a list of (time, level), the times rising from 0",
    [
        [],
        {},
        None,
        3,
        "ab",
        [(1, 1)],
        [(0, 1), (5, 2), (4, 1)],
        [0, 1],
        [(0, 1, 2)],
        ["ab"],
    ],
)

GOOD = {
    "constant": {},
    "linear": {"steps": 10},
    "cosine": {"steps": 10},
    "polynomial": {"steps": 10, "power": 2},
    "piecewise": {"points": [(0, 1), (5, 2)]},
    "exponential": {"gamma": 0.5},
    "step": {"every": 10},
    "multistep": {"milestones": [3]},
    "inverse_sqrt": {"steps": 10},
    "function": {"of": half},
    "one_cycle": {"steps": 10},
    "cyclic": {"up": 10},
    "warm_restarts": {"steps": 10},
    "wsd": {"rise": 1, "stable": 1, "decay": 1},
    "warmup": {"steps": 10},
    "untuned_linear": {},
    "untuned_exponential": {},
    "rectified": {},
    "value": {"of": 1},
    "until": {"schedule": cosine(10), "steps": 3},
    "repeat": {"schedule": cosine(10)},
    "delay": {"schedule": cosine(10), "steps": 3},
    "clip": {"schedule": cosine(10), "low": 0},
}


def words(*allowed):
    return " or ".join(map(repr, allowed)), ["sine", "", None, 1, True, ["cosine"], NAN]


WRONG = {
    ("constant", "factor"): [LEVEL, NO_LEVEL],
    ("constant", "steps"): [FROM_0_OR_ENDLESS],
    ("linear", "steps"): [FROM_0],
    ("linear", "start"): [LEVEL, NO_LEVEL],
    ("linear", "end"): [LEVEL, NO_LEVEL],
    ("cosine", "steps"): [FROM_0],
    ("cosine", "start"): [LEVEL, NO_LEVEL],
    ("cosine", "end"): [LEVEL, NO_LEVEL],
    ("polynomial", "steps"): [FROM_0],
    ("polynomial", "power"): [ABOVE_0],
    ("polynomial", "start"): [LEVEL, NO_LEVEL],
    ("polynomial", "end"): [LEVEL, NO_LEVEL],
    ("piecewise", "points"): [POINT_LIST],
    ("piecewise", "between"): [words("linear", "cosine", "constant")],
    ("exponential", "gamma"): [ABOVE_0],
    ("exponential", "every"): [ABOVE_0],
    ("step", "every"): [ABOVE_0],
    ("step", "gamma"): [FINITE],
    ("multistep", "milestones"): [TIMES_RISING, TIME_AMONG],
    ("multistep", "gamma"): [FINITE],
    ("inverse_sqrt", "steps"): [ABOVE_0],
    ("function", "of"): [("a function of the time", [None, 1, "f", [half]])],
    ("function", "steps"): [FROM_0_OR_ENDLESS],
    ("function", "unit"): [ABOVE_0],
    ("one_cycle", "steps"): [FROM_0],
    ("one_cycle", "rise"): [SHARE],
    ("one_cycle", "start"): [ABOVE_0],
    ("one_cycle", "end"): [FINITE],
    ("one_cycle", "between"): [words("cosine", "linear")],
    ("cyclic", "up"): [FROM_0],
    ("cyclic", "down"): [FROM_0_OR_NONE],
    ("cyclic", "low"): [FINITE],
    ("cyclic", "mode"): [words("triangular", "triangular2", "exp_range")],
    ("cyclic", "gamma"): [ABOVE_0],
    ("cyclic", "every"): [ABOVE_0],
    ("warm_restarts", "steps"): [ABOVE_0],
    ("warm_restarts", "growth"): [FROM_1],
    ("warm_restarts", "start"): [LEVEL, NO_LEVEL],
    ("warm_restarts", "end"): [LEVEL, NO_LEVEL],
    ("wsd", "rise"): [FROM_0],
    ("wsd", "stable"): [FROM_0],
    ("wsd", "decay"): [FROM_0],
    ("wsd", "end"): [FINITE],
    ("wsd", "between"): [words("cosine", "linear")],
    ("warmup", "steps"): [FROM_0],
    ("warmup", "kind"): [words("linear", "cosine", "exponential", "constant")],
    ("warmup", "start"): [SHARE],
    ("untuned_linear", "beta2"): [BETA2],
    ("untuned_exponential", "beta2"): [BETA2],
    ("rectified", "beta2"): [BETA2],
    ("value", "of"): [("a finite number", [INF, *NO_NUMBER[:-1]])],
    ("until", "schedule"): [SCHEDULE],
    ("until", "steps"): [FROM_0],
    ("repeat", "schedule"): [SCHEDULE],
    ("repeat", "times"): [
        ("a number of at least 1", [0, -1, 0.5, *NO_NUMBER]),
        ("a whole number", [1.5]),
    ],
    ("delay", "schedule"): [SCHEDULE],
    ("delay", "steps"): [FROM_0],
    ("clip", "schedule"): [SCHEDULE],
    ("clip", "low"): [FINITE],
    ("clip", "high"): [("", NO_NUMBER)],
}


def one_error(call):
    """The message of the one error of a call."""
    with pytest.raises(ScheduleError) as caught:
        call()
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
    assert "\n" not in str(error)
    return str(error)


@pytest.mark.parametrize(("name", "argument"), WRONG)
def test_a_wrong_argument_is_refused_by_name(name, argument):
    make = getattr(ds, name)
    assert isinstance(make(**GOOD[name]), Schedule)
    for allowed, wrong in WRONG[name, argument]:
        for bad in wrong:
            message = one_error(lambda bad=bad: make(**{**GOOD[name], argument: bad}))
            entry = bad[-1] if (allowed, wrong) == TIME_AMONG else bad
            assert message.startswith(f"{name}: {argument} must be "), (bad, message)
            assert allowed in message, (bad, message)
            if (name, argument) != ("piecewise", "points"):  # it may show the entry, or the times
                assert f"got {entry!r}" in message or f"got {entry}" in message, (bad, message)


def test_every_argument_of_every_shape_is_tried():
    public = {name for name in vars(ds) if name in SHAPES and getattr(ds, name) is SHAPES[name]}
    assert public == set(GOOD)
    everything = {
        (name, argument)
        for name in public
        for argument in inspect.signature(SHAPES[name]).parameters
    }
    assert everything == set(WRONG)


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (linear, ["linear(steps, start=1.0, end=0.0)", "needs steps"]),
        (lambda: linear(10, stop=3), ["linear(steps, start=1.0, end=0.0)", "no argument stop"]),
        (lambda: linear(1, 2, 3, 4), ["linear(steps, start=1.0, end=0.0)", "takes 3 arguments"]),
        (lambda: warmup(10, "exponential"), ["warmup", "'exponential'", "start above 0", "got 0"]),
        (lambda: warmup(10, "constant", 0), ["warmup", "'constant'", "start above 0", "got 0"]),
        (lambda: clip(cosine(10), 1, 0.5), ["clip", "low=1", "high=0.5"]),
        (
            lambda: clip(cosine(10, 1, value(0)), 1),
            ["clip", "cosine(10, end=value(0))", "its parts"],
        ),
        (lambda: value(value(1)), ["value(value(1))", "values already"]),
        (lambda: value(cosine(10, value(1), value(2))), ["gives values already"]),
        (lambda: repeat(exponential(0.5)), ["repeat(exponential(0.5))", "until(exponential(0.5)"]),
        (lambda: repeat(warmup(0)), ["repeat(warmup(0))"]),
        (lambda: exponential(0.5) >> cosine(10), ["exponential(0.5)", "never ends", "until("]),
        (lambda: value(1) * value(2), ["value(1) * value(2)", "both give values"]),
        (lambda: cosine(10) * NAN, ["cosine(10) * nan", "finite"]),
        (lambda: -INF * cosine(10), ["cosine(10) * -inf", "finite"]),
        (lambda: cosine(10).over(0), ["over(steps)", "above 0", "got 0"]),
        (lambda: cosine(10).over(-3), ["over(steps)", "above 0", "got -3"]),
        (lambda: cosine(10).over(NAN), ["over(steps)", "above 0", "got nan"]),
        (lambda: cosine(10).over(INF), ["over(steps)", "above 0", "got inf"]),
        (lambda: cosine(10).over(True), ["over(steps)", "above 0", "got True"]),
        (lambda: cosine(10).over("10"), ["over(steps)", "above 0", "got '10'"]),
        (lambda: cosine(10).in_epochs(None), ["in_epochs(steps_per_epoch)", "above 0", "got None"]),
        (lambda: cosine(10)(-1), ["cosine(10)", "time 0", "-1"]),
        (lambda: cosine(10)(-5e-324), ["cosine(10)", "time 0", "-5e-324"]),
        (lambda: cosine(10)(NAN), ["cosine(10)", "time 0", "nan"]),
        (lambda: function(lambda time: None)(3), ["<lambda>", "must return a number", "None", "3"]),
        (lambda: function(lambda time: "a")(3), ["<lambda>", "must return a number", "'a'"]),
        (lambda: function(lambda time: True)(3), ["<lambda>", "must return a number", "True"]),
    ],
)
def test_what_does_not_go_together_is_refused(call, parts):
    message = one_error(call)
    for part in parts:
        assert part in message


@pytest.mark.parametrize("time", ["3", None, [3], 1j, INF, cosine(3)], ids=repr)
@pytest.mark.parametrize(
    "schedule", [cosine(10), step(10), cyclic(10), warm_restarts(10, 1.5)], ids=str
)
def test_a_time_that_is_none_is_refused(schedule, time):
    message = one_error(lambda: schedule(time))
    assert str(schedule) in message
    assert f"{time!r}" in message


@pytest.mark.parametrize("steps", [-1, 2.5, "3", None], ids=repr)
def test_values_of_no_number_of_steps_are_refused(steps):
    assert repr(steps) in one_error(lambda: cosine(10).values(steps))


@pytest.mark.parametrize(
    "make",
    [
        lambda: linear(10**400),
        lambda: linear(10, 10**400),
        lambda: multistep([10**400]),
        lambda: cosine(10) * 10**400,
        lambda: cosine(10).over(10**400),
    ],
)
def test_a_number_too_large_for_a_float_is_refused(make):
    one_error(make)


@pytest.mark.parametrize(
    "schedule", [exponential(2), step(1, 2), cyclic(1, mode="exp_range", gamma=3)], ids=str
)
def test_what_grows_beyond_all_numbers_is_refused_or_infinite(schedule):
    assert 1e180 < schedule(631) < math.inf
    try:
        got = schedule(5001)
    except ScheduleError:
        return
    assert got == math.inf


@pytest.mark.parametrize("other", ["2", None, True, [cosine(10)], torch.ones(2)], ids=repr)
def test_operators_take_schedules_and_numbers_only(other):
    for call in (lambda: cosine(10) * other, lambda: other * cosine(10)):
        with pytest.raises(TypeError):
            call()
    for call in (lambda: cosine(10) >> other, lambda: other >> cosine(10)):
        with pytest.raises(TypeError):
            call()


def test_a_level_that_only_looks_like_one_is_refused(tmp_path):
    assert "end must be" in one_error(lambda: linear(10, end=tmp_path / "value"))
    assert "kind must be" in one_error(lambda: warmup(10, kind=numpy.array([1, 2])))


# NumPy's numbers count as numbers, with nothing left of NumPy; tensors are no arguments, because
# a schedule is the same for ever and a tensor is not; as a time they are numbers too.

NUMPY = [
    numpy.int64(3),
    numpy.int32(3),
    numpy.uint8(3),
    numpy.float64(3),
    numpy.float32(3),
    numpy.float64(2.5),
    numpy.float32(2.5),
]


@pytest.mark.parametrize("number", NUMPY, ids=repr)
def test_numpys_numbers_are_numbers(number):
    plain = number.item()
    for schedule, same in (
        (linear(number, end=number), linear(plain, end=plain)),
        (multistep([number]), multistep([plain])),
        (piecewise([(0, number), (number, 1)]), piecewise([(0, plain), (plain, 1)])),
        (value(number), value(plain)),
        (cosine(3) * number, cosine(3) * plain),
        (number * cosine(3), cosine(3) * plain),
        (cosine(3).over(number), cosine(3).over(plain)),
    ):
        assert isinstance(schedule, Schedule)
        assert schedule == same
        assert schedule.text == same.text
        assert type(schedule(1)) is float


@pytest.mark.parametrize(
    "number", [*NUMPY, torch.tensor(3), torch.tensor(2.5), torch.tensor(3.0)], ids=repr
)
def test_any_number_is_a_time(number):
    for schedule in (linear(10), cosine(7, 0.3), step(2), warm_restarts(2, 2), function(half)):
        got = schedule(number)
        assert type(got) is float
        assert got == schedule(number.item())


@pytest.mark.parametrize(
    "number", [torch.tensor(3), torch.tensor(3.0), numpy.bool_(True)], ids=repr
)
def test_tensors_and_truth_are_no_arguments(number):
    assert str(number.item()) in one_error(lambda: linear(number))
    assert str(number.item()) in one_error(lambda: linear(10, end=number))


@pytest.mark.parametrize(
    "number", [numpy.float32(0.5), numpy.int64(2), numpy.float64(0.25)], ids=repr
)
def test_a_function_may_return_numpys_numbers(number):
    got = function(lambda time: number)(3)
    assert type(got) is float
    assert got == number


# A shape of one's own


def test_a_shape_of_ones_own_is_like_any_other():
    from descend.schedules.arguments import Level, Time

    @shape
    def sawtooth_for_a_test(steps: Time, low: Level = 0.0) -> Curve:
        """Down in a line, again and again."""
        return Curve(lambda time: (1 - (1 - low) * (time % steps) / steps, 0.0))

    try:
        schedule = sawtooth_for_a_test(4)
        assert schedule.values(5) == [1.0, 0.75, 0.5, 0.25, 1.0]
        assert str(schedule.over(3)) == "sawtooth_for_a_test(12)"
        assert copy.deepcopy(schedule) == schedule
        assert (warmup(2) >> schedule * 0.5)(3) == 0.375
        assert sawtooth_for_a_test.__doc__.startswith("Down")
        assert one_error(lambda: sawtooth_for_a_test(0)).startswith(
            "sawtooth_for_a_test: steps must be a finite number above 0"
        )
    finally:
        del SHAPES["sawtooth_for_a_test"]


def test_a_shape_of_ones_own_with_postponed_annotations():
    source = (
        "from __future__ import annotations\n"
        "from descend.schedules.arguments import Time\n"
        "from descend.schedules.schedule import Curve, shape\n"
        "@shape\n"
        "def postponed_for_a_test(steps: Time) -> Curve:\n"
        "    return Curve(lambda time: (time / steps, 0.0), steps)\n"
    )
    scope = {"__name__": "mine"}
    try:
        exec(compile(source, "mine.py", "exec"), scope)
        made = scope["postponed_for_a_test"]
        assert made(0.5).over(10).text == "postponed_for_a_test(5)"
        one_error(lambda: made("a"))
    finally:
        SHAPES.pop("postponed_for_a_test", None)


def test_a_shape_of_ones_own_cannot_take_the_place_of_descends():
    before = SHAPES["cosine"]
    try:
        with pytest.raises(ScheduleError, match="cosine"):

            @shape
            def cosine(steps: float) -> Curve:
                return Curve(lambda time: (0.0, 0.0))

        assert ds.cosine(0.5).over(10)(0) == 1.0
        assert SHAPES["cosine"] is before
    finally:
        SHAPES["cosine"] = before
