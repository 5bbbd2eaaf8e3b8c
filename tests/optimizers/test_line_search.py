"""The line search alone: the conditions it promises, and torch's, trial by trial."""

import math
import random

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.optim.lbfgs import _strong_wolfe

from descend.optimizers.lbfgs.line_search import DECREASE, FLATTENING, Trial, strong_wolfe

numbers = st.floats(-3, 3)


def waves(amplitudes, frequencies, phases, wall=0.01, digits=17):
    """A curve with hills and valleys, and its slope; with few digits, points are equally high."""
    parts = list(zip(amplitudes, frequencies, phases, strict=True))

    def value(t):
        return round(sum(a * math.sin(b * t + c) for a, b, c in parts) + wall * t**4, digits)

    def slope(t):
        return sum(a * b * math.cos(b * t + c) for a, b, c in parts) + 4 * wall * t**3

    return value, slope


def search(value, slope, first, rounds=25, shortest=1e-9):
    """What the search found, and every length it tried."""
    tried = []

    def evaluate(t):
        tried.append(t)
        return Trial(t, value(t), slope(t), torch.tensor([slope(t)], dtype=torch.float64))

    start = evaluate(0.0)
    end = strong_wolfe(evaluate, start, first, reach=1.0, shortest=shortest, rounds=rounds)
    return end, tried[1:]


def torchs(value, slope, first, rounds=25, shortest=1e-9):
    """The same of torch's search, along a direction of length 1."""
    tried = []

    def objective(x, t, d):
        t = float(t)
        tried.append(t)
        return value(t), torch.tensor([slope(t)], dtype=torch.float64)

    one = torch.ones(1, dtype=torch.float64)
    grad = one * slope(0.0)
    _, _, length, _ = _strong_wolfe(
        objective, None, first, one, value(0.0), grad, grad.dot(one),
        tolerance_change=shortest, max_ls=rounds,
    )  # fmt: skip
    return float(length), tried


def test_every_trial_is_torchs():
    """On many curves, so that each turn of the search is taken: walls, valleys, waves."""
    chance = random.Random(0)
    lengths, others = [], 0
    for _ in range(4000):
        count = chance.randint(1, 4)
        value, slope = waves(
            *([chance.uniform(-3, 3) * scale for _ in range(count)] for scale in (1, 4, 1)),
            wall=chance.choice([0, 0, 1e-3, 10]),
            digits=chance.choice([0, 1, 17]),
        )
        if slope(0.0) > -1e-3:
            continue
        first, rounds = 10 ** chance.uniform(-3, 1), chance.randint(0, 25)
        end, tried = search(value, slope, first, rounds)
        length, expected = torchs(value, slope, first, rounds)
        lengths.append(len(tried))
        others += [*tried, end.length] != pytest.approx([*expected, length], rel=1e-9)
    assert set(lengths) >= set(range(1, 12))
    # Torch divides and takes roots of tensors, which round otherwise; where the cubic has all but
    # no lowest point, or two ends are all but equally low, that decides.
    assert others < len(lengths) / 500


@given(st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=4), st.floats(0.01, 10))
def test_the_step_meets_the_strong_wolfe_conditions(parts, first):
    value, slope = waves(*zip(*parts, strict=True))
    assume(slope(0.0) < -1e-3)
    end, tried = search(value, slope, first, rounds=200)
    assert end.length in tried
    assert end.loss <= value(0.0) + DECREASE * end.length * slope(0.0)
    assert abs(end.slope) <= -FLATTENING * slope(0.0)


def test_a_bracket_that_moves_nothing_any_more_is_not_divided():
    """A kink, where no slope is flat."""

    def value(t):
        return abs(t - 1)

    def slope(t):
        return -1.0 if t < 1 else 1.0

    end, tried = search(value, slope, 3.0, rounds=1000, shortest=1e-3)
    assert end.loss == pytest.approx(0, abs=1e-3)
    assert len(tried) < 40


@pytest.mark.parametrize("cliff", [0.3, 3.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_beyond_a_cliff_everything_is_high(cliff, bad):
    end, tried = search(
        lambda t: bad if t > cliff else (t - 0.2) ** 2, lambda t: 2 * (t - 0.2), first=10.0
    )
    assert end.length <= cliff
    assert end.loss < 0.04
    assert all(map(math.isfinite, tried))


def test_nothing_found_is_the_start():
    end, tried = search(lambda t: math.nan if t else 0.0, lambda t: -1.0, first=1.0, rounds=9)
    assert (end.length, end.loss) == (0.0, 0.0)
    assert len(tried) == 10
