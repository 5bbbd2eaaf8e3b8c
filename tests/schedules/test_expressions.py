"""Expressions: what is printed is read back, what is malformed is pointed at, nothing is run."""

import math
import subprocess
import sys
from operator import itemgetter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from descend import schedules
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
from descend.schedules.expressions import DEEPEST, LONGEST, parse
from descend.schedules.schedule import SHAPES

times = st.one_of(st.integers(1, 10**6), st.floats(0.01, 1e5))
fractions = st.floats(0.1, 0.9)
numbers = st.one_of(st.integers(-3, 3), st.floats(-10, 10))
positive = st.one_of(st.integers(1, 9), st.floats(1e-7, 10))
levels = st.one_of(numbers, st.builds(value, numbers))
betas = st.floats(0.61, 0.9999)
smooth = st.sampled_from(["cosine", "linear"])
later = st.lists(
    st.tuples(st.integers(1, 9999).map(lambda quarters: quarters / 4), levels),
    max_size=3,
    unique_by=itemgetter(0),
).map(lambda points: sorted(points, key=itemgetter(0)))


def called(function, *required, **optional):
    """Calls of a function, each optional argument given or left out."""
    return st.builds(
        lambda args, kwargs: function(*args, **kwargs),
        st.tuples(*required),
        st.fixed_dictionaries({}, optional=optional),
    )


SIMPLE = {
    "constant": called(constant, factor=levels, steps=times),
    "linear": called(linear, times, start=levels, end=levels),
    "cosine": called(cosine, times, start=levels, end=levels),
    "polynomial": called(polynomial, times, positive, start=levels, end=levels),
    "piecewise": st.builds(
        lambda first, rest, between: piecewise([(0, first), *rest], between),
        levels,
        later,
        st.sampled_from(["linear", "cosine", "constant"]),
    ),
    "exponential": called(exponential, st.floats(0.5, 1), every=times),
    "step": called(step, times, gamma=st.floats(-1, 1)),
    "multistep": called(
        multistep, st.lists(times, min_size=1, max_size=4).map(sorted), gamma=numbers
    ),
    "inverse_sqrt": called(inverse_sqrt, times),
    "one_cycle": called(
        one_cycle, times, rise=st.floats(0, 1), start=positive, end=numbers, between=smooth
    ),
    "cyclic": called(
        cyclic,
        times,
        down=st.one_of(st.none(), times),
        low=numbers,
        mode=st.sampled_from(["triangular", "triangular2", "exp_range"]),
        gamma=st.floats(0.5, 1),
        every=times,
    ),
    "warm_restarts": called(
        warm_restarts, times, growth=st.one_of(st.integers(1, 3), st.floats(1.5, 3)), end=levels
    ),
    "wsd": called(wsd, times, times, times, end=numbers, between=smooth),
    "warmup": called(
        warmup,
        st.one_of(st.just(0), times),
        st.sampled_from(["linear", "cosine", "exponential", "constant"]),
        fractions,
    ),
    "untuned_linear": called(untuned_linear, beta2=betas),
    "untuned_exponential": called(untuned_exponential, beta2=betas),
    "rectified": called(rectified, beta2=betas),
}


def ended(schedule, steps):
    """A schedule that another can follow, or that can be repeated."""
    return until(schedule, steps) if schedule.length in (0, math.inf) else schedule


def clipped(schedule, low, high):
    pure = schedule.curve.factor or schedule.curve.absolute
    return clip(schedule, min(low, high), max(low, high)) if pure else schedule


def product(one, other):
    return one * other if one.curve.factor or other.curve.factor else one


COMBINED = {
    "value": lambda inner: inner.map(lambda one: value(one) if one.curve.factor else one),
    "until": lambda inner: st.builds(until, inner, times),
    "delay": lambda inner: st.builds(delay, inner, times),
    "repeat": lambda inner: st.builds(
        lambda one, steps, count: repeat(ended(one, steps), *count),
        inner,
        times,
        st.one_of(st.just(()), st.tuples(st.integers(1, 5))),
    ),
    "clip": lambda inner: st.builds(clipped, inner, numbers, numbers),
    ">>": lambda inner: st.builds(
        lambda one, steps, other: ended(one, steps) >> other, inner, times, inner
    ),
    "*": lambda inner: st.builds(product, inner, inner),
    "* number": lambda inner: st.builds(lambda one, number: one * number, inner, numbers),
}

any_schedule = st.recursive(
    st.one_of(*SIMPLE.values()),
    lambda inner: st.one_of(*(combined(inner) for combined in COMBINED.values())),
    max_leaves=6,
)


def test_the_strategy_makes_every_schedule_that_has_an_expression():
    public = {name for name in SHAPES if hasattr(schedules, name)}
    assert public - {"function"} == {*SIMPLE, *(name for name in COMBINED if name.isidentifier())}


def assert_round_trip(schedule):
    read = parse(str(schedule))
    assert read == schedule
    assert str(read) == str(schedule)
    assert read.length == pytest.approx(schedule.length, rel=1e-12)
    assert read.curve[2:] == schedule.curve[2:]
    for time in (0, 1, 2.5, 77, 1e5):
        assert read(time, base=0.3) == pytest.approx(schedule(time, base=0.3), rel=1e-9, abs=1e-300)


@given(any_schedule)
def test_what_is_printed_is_read_back(schedule):
    assert_round_trip(schedule)


@given(any_schedule, st.sampled_from([390, 0.5, 1 / 3, 1171.875]))
def test_what_is_printed_is_read_back_after_scaling(schedule, by):
    assert_round_trip(schedule.in_epochs(by))
    assert_round_trip(schedule.over(by))


@pytest.mark.parametrize("name", SIMPLE)
def test_every_function_is_read_back(name):
    @given(SIMPLE[name])
    def check(schedule):
        assert_round_trip(schedule)
        assert_round_trip(schedule.in_epochs(390))

    check()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("warmup(500) >> cosine(9500)", warmup(500) >> cosine(9500)),
        ("  warmup(10*50)>>cosine( 1e4 - 500 )\n", warmup(500) >> cosine(9500)),
        ("cosine(\n\t10,\n\tend=0.1/3,\n)", cosine(10, end=0.1 / 3)),
        ("cosine(10, end=+-1e-3)", cosine(10, end=-0.001)),
        ("(linear(5) >> constant()) * 0.5", (linear(5) >> constant()) * 0.5),
        ("2 * 0.25 * cosine(10)", cosine(10) * 0.5),
        ("cosine(10) * -1", cosine(10) * -1),
        ("linear(5) >> cosine(5) * 0.5 >> constant(0.1)", None),
        ("linear(5) >> (cosine(5) >> constant(0.1))", linear(5) >> cosine(5) >> constant(0.1)),
        ("multistep((30, 60, 3*30), 0.2)", multistep([30, 60, 90], 0.2)),
        ("piecewise({0: 0, 10: value(1)})", piecewise([(0, 0), (10, value(1))])),
        ("piecewise([(0, 0), [5, 1]], between='cosine')", piecewise({0: 0, 5: 1}, "cosine")),
        ('warmup(10, "cosine")', warmup(10, "cosine")),
        ("constant(0.1, inf)", constant(0.1)),
        ("cyclic(10, None, 0.5)", cyclic(10, low=0.5)),
        ("value(linear(10) >> cosine(10))", value(linear(10) >> cosine(10))),
        ("cosine(1_000)", cosine(1000)),
    ],
)
def test_what_can_be_written(text, expected):
    assert parse(text) == (
        linear(5) >> cosine(5) * 0.5 >> constant(0.1) if expected is None else expected
    )


def refusal(text):
    with pytest.raises(ScheduleError) as caught:
        parse(text)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("column ")
    return message


@pytest.mark.parametrize(
    ("text", "shown", "says"),
    [
        # misspelt
        ("warmup(500) >> cosin(9500)", "column 16 of warmup(500) >> «cosin»(9500)", "cosine?"),
        ("Linear(5)", "column 1 of «Linear»(5)", "did you mean linear? There are clip, constant"),
        ("exp(0.9)", "column 1 of «exp»(0.9)", "did you mean exponential?"),
        ("CosineAnnealingLR(9)", "column 1 of «CosineAnnealingLR»(9)", "did you mean cosine?"),
        ("OneCycleLR(9)", "column 1 of «OneCycleLR»(9)", "did you mean one_cycle?"),
        ("quadratic(9)", "column 1 of «quadratic»(9)", "no function quadratic. There are clip"),
        ("cosine(9, ends=1)", "column 11 of cosine(9, «ends»=1)", "did you mean end? It is cosine"),
        ("constant(9, infi)", "column 13 of constant(9, «infi»)", "did you mean inf?"),
        # arguments
        ("cosine()", "column 1 of «cosine()»", "cosine needs steps: cosine(steps, start=1.0"),
        ("cosine(end=0)", "column 1 of «cosine(end=0)»", "cosine needs steps"),
        ("wsd(1)", "column 1 of «wsd(1)»", "wsd needs stable and decay"),
        ("cosine(1, 2, 3, 4, 5)", "column 17 of cosine(1, 2, 3, «4», 5)", "takes 3 arguments"),
        ("inverse_sqrt(1, 2)", "column 17 of inverse_sqrt(1, «2»)", "takes 1 argument:"),
        ("cosine(9, steps=8)", "column 11 of cosine(9, «steps»=8)", "gets steps twice"),
        ("cosine(9, end=1, end=2)", "column 18 of cosine(9, end=1, «end»=2)", "gets end twice"),
        ("linear(5) >> cosine(-5)", "column 21 of linear(5) >> cosine(«-5»)", "at least 0, got -5"),
        ("cosine(9, end=value(cosine(9)))", "«value(cosine(9))»", "a number or value(number)"),
        ("warmup(9, 'cosin')", "column 11 of warmup(9, «'cosin'»)", "kind must be 'linear'"),
        ("warmup(9, cosine)", "column 11 of warmup(9, «cosine»)", "in quotes: 'cosine'"),
        ("warmup(9, 'constant')", "column 1 of «warmup(9, 'constant')»", "needs a start above 0"),
        ("multistep([3, 2])", "column 11 of multistep(«[3, 2]»)", "in rising order"),
        ("piecewise({0: 1, 0: 2})", "column 18 of piecewise({0: 1, «0»: 2})", "stands twice"),
        ("piecewise({'a': 1})", "column 12 of piecewise({«'a'»: 1})", "must be a number"),
        ("until(5, 5)", "column 7 of until(«5», 5)", "must be a schedule"),
        # combinations
        ("constant() >> cosine(5)", "column 1 of «constant()» >> cosine(5)", "until(constant()"),
        (
            "linear(5) >> (constant()) >> cosine(5)",
            "column 15 of linear(5) >> («constant()») >> cosine(5)",
            "never ends",
        ),
        (
            "linear(5) >> (linear(5) >> step(5)) >> cosine(5)",
            "column 15 of linear(5) >> («linear(5) >> step(5)») >> cosine(5)",
            "never ends",
        ),
        ("repeat(constant())", "column 1 of «repeat(constant())»", "never ends"),
        ("value(1) * value(2)", "column 1 of «value(1) * value(2)»", "both give values"),
        ("cosine(9) * inf", "column 1 of «cosine(9) * inf»", "must be finite"),
        ("cosine(9) >> 0.5", "column 14 of cosine(9) >> «0.5»", "constant(0.5) is one"),
        ("8 >> 1", "column 1 of «8» >> 1", "only schedules come after each other"),
        ("cosine(9) * 'a'", "column 13 of cosine(9) * «'a'»", "are multiplied"),
        ("cosine(9) / 2", "column 1 of «cosine(9) / 2»", "between numbers only"),
        ("cosine(9) + linear(9)", "column 1 of «cosine(9) + linear(9)»", "between numbers only"),
        ("-cosine(9)", "column 1 of «-cosine(9)»", "(...) * -1"),
        ("-'a'", "column 1 of «-'a'»", "before numbers only"),
        ("0.5", "column 1 of «0.5»", "constant(0.5)"),
        ("[cosine(9)]", "column 1 of «[cosine(9)]»", "it is no schedule"),
        ("None", "column 1 of «None»", "it is no schedule"),
        ("function(1)", "column 1 of «function»(1)", "make this schedule in Python"),
        ("join([cosine(9)])", "column 1 of «join»([cosine(9)])", "no function join"),
        ("multiply([cosine(9), 2])", "column 1 of «multiply»([", "no function multiply"),
        # syntax
        ("", "column 1 of «»", "it is empty"),
        (" \n ", "column 1 of «»   ", "it is empty"),
        ("cosine(10", "column 7 of cosine«(»10", "was never closed"),
        ("cosine(10))", "column 11 of cosine(10)«)»", "unmatched"),
        ("cosine(10]", "column 10 of cosine(10«]»", "does not match"),
        ("cosine(10 20)", "column 8 of cosine(«10 20»)", "perhaps a comma"),
        ("  cosine(10 20)", "column 10 of   cosine(«10 20»)", "perhaps a comma"),
        ("cosine(10) # x", "column 12 of cosine(10) «#» x", "'#' stands in no expression"),
        ("cosine(\0)", "column 8 of cosine(«\\x00»)", "'\\x00' stands in no expression"),
        ("linear(5) >>", "column 13 of linear(5) >>«»", "something should follow here"),
        ("  linear(5) *  ", "column 14 of   linear(5) *«»", "something should follow here"),
        (">> cosine(10)", "column 1 of «>>» cosine(10)", "missing or too much"),
        ("warmup(5) > cosine(5)", "column 1 of «warmup(5) > cosine(5)»", "is a >> b"),
        ("warmup(9, 'cosine)", "column 11 of warmup(9, «'»cosine)", "unterminated string"),
        ("cosine(end=1, 9)", "of cosine(end=1, 9", "positional argument follows keyword"),
        ("\n  cosin(5)", "column 4 of    «cosin»(5)", "did you mean cosine?"),
        ("(cosine)(5) >> cosin(5)", "column 16 of (cosine)(5) >> «cosin»(5)", "cosine?"),
    ],
)
def test_a_malformed_expression_is_pointed_at(text, shown, says):
    message = refusal(text)
    assert shown in message
    assert says in message


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('false')",
        "().__class__.__bases__",
        "cosine.__globals__",
        "cosine(9).values(9)",
        "math.inf",
        "descend.schedules.cosine(9)",
        "cosine(9)[0]",
        "[cosine(9)][0]",
        "cosine(9)(5)",
        "(lambda: cosine(9))()",
        "lambda: 1",
        "[x for x in y]",
        "{x for x in y}",
        "{1, 2}",
        "cosine(9) if 1 else linear(9)",
        "cosine(9) or linear(9)",
        "cosine(9) and linear(9)",
        "not cosine(9)",
        "f'{cosine}'",
        "cosine(f'{9}')",
        "warmup(9, b'cosine')",
        "cosine(9j)",
        "cosine(True)",
        "cosine(...)",
        "cosine(*[9])",
        "cosine(**{'steps': 9})",
        "piecewise({**{0: 1}})",
        "(x := cosine(9))",
        "cosine(9) ** 2",
        "cosine(9**9**9)",
        "cosine(9 // 2)",
        "cosine(9 << 2)",
        "cosine(9 >> 2)",
        "1 < 2",
        "await cosine(9)",
        "yield",
        "import os",
        "x = 5",
        "cosine(9) # a comment",
        "cosine(9); linear(9)",
        "cosine(9) \\\n >> linear(9)",
        "cosine(5 % 3)",
        "~5",
        "cosine(steps, 5)",
        "cosine(nan)",
        "cosine('9')",
        "1or 2",
        "`cosine`",
        "print('hello')",
        "eval('1')",
        "open('f')",
        "ｃｏｓｉｎｅ(10)",  # noqa: RUF001 - Python would read these letters as plain ones
        "cosine(٣)",
        "“cosine”",
        "cosine(10)\0",
        "\ud800",
        "cosine(10)\u2028>> linear(5)",
    ],
)
def test_anything_else_of_python_is_refused_and_never_run(text, capfd, recwarn):
    refusal(text)
    assert capfd.readouterr() == ("", "")
    assert not recwarn


def test_a_method_is_told_what_it_is_in_python():
    message = refusal("cosine(9).in_epochs(390)")
    assert message.startswith("column 10 of cosine(9)«.in_epochs»(390): the times of an expression")
    assert "parse(...).in_epochs(...)" in message


@pytest.mark.parametrize(
    "text",
    [
        "(" * 300,
        "[" * LONGEST,
        "(" * 100 + "1" + ")" * 100,
        "cosine(" * 3000,
        "delay(" * 60 + "cosine(9)" + ", 1)" * 60,
        "-" * 5000 + "1",
        "- " * 9000 + "1",
        "1" * LONGEST,
        "cosine(" + "9" * 400 + ")",
        "cosine(" + "*".join(["9" * 200] * 40) + ")",
        "cosine(1e308 * 10)",
        "cosine(1e400)",
        "constant(1, 1e400)",
        "cosine(1 / 0)",
        "cosine(9) * " + "9" * 400,
        "+".join(["1"] * 9000),
        "*".join(["cosine(9)"] * 60),
        ">>".join(["x"] * 6000),
        "not " * 4000 + "1",
        "lambda:" * 2000 + "1",
        "a if b else " * 1500 + "a",
        "a" + ".a" * 9000,
        "a" + "()" * 9000,
        "a>" * 9000 + "a",
        "cosine(5)" + " " * LONGEST,
        "x" * 10**7,
        "{1: [(" * 30 + "for",
        "repeat(until(linear(1e308), 1e308), 1e308) >> repeat(linear(1e308), 1e308) >> linear(5)",
    ],
    ids=lambda text: text[:20],
)
def test_huge_or_deep_input_is_an_error_and_no_crash(text):
    assert len(refusal(text)) < 5000


def test_the_limits_are_where_they_say():
    deep = "delay(" * (DEEPEST - 2) + "cosine(9)" + ", 1)" * (DEEPEST - 2)
    assert_round_trip(parse(deep))
    long = " >> ".join(["cosine(9)"] * 1000)
    assert str(parse(long)) == long
    assert parse(long)(4504.5) == pytest.approx(0.5)
    assert f"at most {LONGEST} are read" in refusal("cosine(5)" + " " * LONGEST)
    assert "deeper than" in refusal("delay(" * DEEPEST + "cosine(9)" + ", 1)" * DEEPEST)


def test_a_long_expression_is_shown_around_the_place():
    message = refusal(" >> ".join([*["cosine(9)"] * 100, "cosin(9)", *["cosine(9)"] * 100]))
    assert message.startswith("column 1301 of ...")
    assert ">> «cosin»(9) >> " in message
    assert len(message) < 500


@pytest.mark.parametrize("thing", [None, 5, b"cosine(9)", cosine(9)])
def test_something_else_than_a_string_is_refused(thing):
    with pytest.raises(ScheduleTypeError, match="must be a string"):
        parse(thing)


def test_a_schedule_of_a_function_prints_what_cannot_be_read():
    refusal(str(function(math.cos)))


WORDS = [
    *("cosine", "warmup", "value", "repeat", "piecewise", "end", "inf", "x", "lambda", "if", "for"),
    *(" ", "  ", "\n", "(", ")", "[", "]", "{", "}", ",", ":", "=", ">>", ">", "*", "**", "-", "/"),
    *("+", ".", "'", '"', "0", "1", "0.5", "1e-3", "1e400", "9" * 400, "'cosine'", "#", "\\", "é"),
]


@given(st.lists(st.sampled_from(WORDS), max_size=25).map("".join))
@example("cosine(")
def test_any_text_is_a_schedule_or_a_refusal(text):
    try:
        schedule = parse(text)
    except ScheduleError:
        refusal(text)
    else:
        assert_round_trip(schedule)


@given(any_schedule, st.data())
def test_a_spoilt_expression_is_a_schedule_or_a_refusal(schedule, data):
    text = str(schedule)
    place = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, 3))
    spoilt = text[:place] + data.draw(st.sampled_from(WORDS)) + text[place + length :]
    try:
        parse(spoilt)
    except ScheduleError:
        refusal(spoilt)


def test_reading_does_not_wait_for_torch():
    program = "import descend.schedules.expressions, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
