"""The strong Wolfe line search: a step length that gains enough and goes far enough."""

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

DECREASE = 1e-4
"""The share of the decrease that the slope promises, which a step must bring (c1)."""

FLATTENING = 0.9
"""The largest share of the slope that may be left where a step ends (c2)."""

MARGIN = 0.1
"""How near an end of the bracket, as a share of its length, a trial brings too little news."""


class Trial(NamedTuple):
    """One point of the search line.

    Args:
        length: the step length that leads there.
        loss: the loss there.
        slope: its derivative by the step length.
        grad: its gradient.
    """

    length: float
    loss: float
    slope: float
    grad: Tensor


def strong_wolfe(
    evaluate: Callable[[float], Trial],
    start: Trial,
    length: float,
    *,
    reach: float,
    shortest: float,
    rounds: int,
) -> Trial:
    r"""A step along a descent direction that meets the strong Wolfe conditions.

    .. math::
        f(t) \le f(0) + c_1 t f'(0), \qquad |f'(t)| \le -c_2 f'(0)

    A point whose loss or slope is not finite counts as infinitely high: the search comes back from
    it, and never ends there.

    Args:
        evaluate: tries a step length.
        start: what is known at length 0; its loss is finite, its slope below 0.
        length: the first step length to try, above 0.
        reach: how far a step of length 1 moves a parameter at most.
        shortest: a bracket that moves parameters by less than this is not divided further.
        rounds: how many more step lengths to try after the first.

    Returns:
        The step that meets the conditions; or, after so many rounds, the lowest point of the
        bracket, which may be the start.

    Source:
        J. Nocedal and S. Wright, "Numerical optimization", 2nd edition, 2006, algorithms 3.5 and
        3.6; the rules of extrapolation and progress are those of M. Schmidt's minFunc,
        https://www.cs.ubc.ca/~schmidtm/Software/minFunc.html, as torch has them.
    """
    line = _Line(evaluate, start)
    before, trial, used = start, line.tried(length), 0
    while used < rounds:
        if line.too_high(trial) or (used > 1 and trial.loss >= before.loss):
            break
        if line.flat(trial):
            return trial
        if trial.slope >= 0:
            break
        low, high = trial.length + 0.01 * (trial.length - before.length), 10 * trial.length
        before, trial = trial, line.tried(_lowest(before, trial, low, high))
        used += 1
    else:
        return start if start.loss <= trial.loss else trial
    return _narrowed(line, [before, trial], reach, shortest, rounds - used)


class _Line(NamedTuple):
    """The line that is searched, and the conditions on it."""

    evaluate: Callable[[float], Trial]
    start: Trial

    def tried(self, length: float) -> Trial:
        trial = self.evaluate(length)
        finite = math.isfinite(trial.loss) and math.isfinite(trial.slope)
        return trial if finite else trial._replace(loss=math.inf)

    def too_high(self, trial: Trial) -> bool:
        return trial.loss > self.start.loss + DECREASE * trial.length * self.start.slope

    def flat(self, trial: Trial) -> bool:
        return abs(trial.slope) <= -FLATTENING * self.start.slope


def _narrowed(line: _Line, ends: list[Trial], reach: float, shortest: float, rounds: int) -> Trial:
    """A step that meets the conditions, from between two lengths where there is one.

    Args:
        line: the line.
        ends: the two, changed in place.
        reach: how far a step of length 1 moves a parameter at most.
        shortest: a bracket that moves parameters by less than this is not divided further.
        rounds: how many step lengths to try.
    """
    best = _lower(ends)
    crowded = False
    for _ in range(rounds):
        if not abs(ends[1].length - ends[0].length) * reach >= shortest:
            break
        left, right = sorted(end.length for end in ends)
        length = _lowest(ends[0], ends[1], left, right)
        margin = MARGIN * (right - left)
        near = min(right - length, length - left) < margin
        if near and (crowded or not left < length < right):
            length = right - margin if right - length < length - left else left + margin
            near = False
        crowded = near
        trial = line.tried(length)
        if line.too_high(trial) or trial.loss >= ends[best].loss:
            ends[1 - best] = trial
            best = _lower(ends)
            continue
        if line.flat(trial):
            return trial
        if trial.slope * (ends[1 - best].length - ends[best].length) >= 0:
            ends[1 - best] = ends[best]
        ends[best] = trial
    return ends[best]


def _lower(ends: list[Trial]) -> int:
    return 0 if ends[0].loss <= ends[1].loss else 1


def _lowest(one: Trial, other: Trial, low: float, high: float) -> float:
    """Where the cubic through two points and their slopes is lowest, kept within bounds.

    The middle of the bounds where there is no such place.

    Source: Nocedal and Wright, equation 3.59.
    """
    left, right = sorted((one, other), key=lambda trial: trial.length)
    width = right.length - left.length
    if width > 0:
        chord = left.slope + right.slope - 3 * (right.loss - left.loss) / width
        square = chord * chord - left.slope * right.slope
        if square >= 0:
            root = math.sqrt(square)
            bend = right.slope - left.slope + 2 * root
            if bend != 0:
                length = right.length - width * ((right.slope + root - chord) / bend)
                if math.isfinite(length):
                    return min(max(length, low), high)
    return (low + high) / 2
