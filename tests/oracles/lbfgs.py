"""L-BFGS, with the inverse Hessian written out as a matrix.

- J. Nocedal, S. Wright, "Numerical Optimization", 2nd edition, 2006: the update of the inverse
  Hessian, equation 7.16, applied from an initial matrix to the last few pairs; the line search,
  algorithms 3.5 and 3.6, with the cubic of equation 3.59.
- M. Schmidt, minFunc, 2005 (https://www.cs.ubc.ca/~schmidtm/Software/minFunc.html), for what the
  book leaves open, as torch has it: the first step, what ends a step, how far to extrapolate, when
  a trial is too near the end of the bracket.

It minimizes a function rather than following given gradients, so its interface is one of its own:

    minimize(function, point, steps, **hyper) -> Trace

where `function(point)` returns the loss and the gradient, and a step is up to max_iter iterations.
"""

from typing import NamedTuple

import numpy as np


class Trace(NamedTuple):
    """What was seen: every point that the function was asked for, its loss, and where it ended."""

    points: list
    losses: list
    end: np.ndarray
    iterations: int


class _StepEnd(Exception):  # noqa: N818 - no error
    """A step has ended."""


def minimize(
    function,
    point,
    steps,
    *,
    lr=1.0,
    max_iter=20,
    max_eval=None,
    tolerance_grad=1e-7,
    tolerance_change=1e-9,
    history_size=100,
    line_search_fn=None,
):
    """Take so many steps; a step ends by one of its limits, and the memory lives on."""
    max_eval = max_iter * 5 // 4 if max_eval is None else max_eval
    points, losses = [], []

    def evaluate(where):
        loss, grad = function(where)
        points.append(where)
        losses.append(loss)
        return loss, np.asarray(grad)

    pairs, last, iterations = [], None, 0  # last: the gradient before the last move, and the move
    point = np.asarray(point, dtype=np.float64)

    for _ in range(steps):
        before = len(losses)
        loss, grad = evaluate(point)
        try:
            if np.abs(grad).max() <= tolerance_grad:
                raise _StepEnd
            for count in range(1, max_iter + 1):
                iterations += 1
                if last is not None:
                    y, s = grad - last[0], last[1]
                    if y @ s > 1e-10:
                        pairs = [*pairs, (s, y)][-history_size:]
                direction = -_inverse_hessian(pairs, len(point)) @ grad
                length = lr if last is not None else min(1.0, 1.0 / np.abs(grad).sum()) * lr
                slope = grad @ direction
                if slope > -tolerance_change:
                    last = grad, 0 * direction
                    raise _StepEnd
                old_loss, old_grad = loss, grad
                if line_search_fn:
                    length, loss, grad = _strong_wolfe(
                        lambda t, x=point, d=direction: _along(evaluate, x, d, t),
                        (0.0, loss, slope, grad),
                        length,
                        tolerance_change / np.abs(direction).max(),
                        max_eval - (len(losses) - before),
                    )
                point = point + length * direction
                last = old_grad, length * direction
                if count == max_iter:
                    raise _StepEnd
                if not line_search_fn:
                    loss, grad = evaluate(point)
                if (
                    len(losses) - before >= max_eval
                    or np.abs(grad).max() <= tolerance_grad
                    or np.abs(length * direction).max() <= tolerance_change
                    or abs(loss - old_loss) < tolerance_change
                ):
                    raise _StepEnd
        except _StepEnd:
            continue
    return Trace(points, losses, point, iterations)


def _inverse_hessian(pairs, size):
    identity = np.eye(size)
    if not pairs:
        return identity
    s, y = pairs[-1]
    inverse = (s @ y) / (y @ y) * identity
    for s, y in pairs:
        rho = 1 / (s @ y)
        left = identity - rho * np.outer(s, y)
        inverse = left @ inverse @ left.T + rho * np.outer(s, s)
    return inverse


def _along(evaluate, point, direction, length):
    """A trial: length, loss, slope, gradient."""
    loss, grad = evaluate(point + length * direction)
    return length, loss, grad @ direction, grad


def _strong_wolfe(trial_at, start, length, shortest, rounds, c1=1e-4, c2=0.9):
    """Algorithm 3.5; returns length, loss and gradient."""

    def enough(trial):
        return trial[1] <= start[1] + c1 * trial[0] * start[2]

    def flat(trial):
        return abs(trial[2]) <= -c2 * start[2]

    def result(trial):
        return trial[0], trial[1], trial[3]

    previous, trial = start, trial_at(length)
    for count in range(rounds):
        if not enough(trial) or (count > 1 and trial[1] >= previous[1]):
            return result(_zoom(trial_at, enough, flat, previous, trial, shortest, rounds - count))
        if flat(trial):
            return result(trial)
        if trial[2] >= 0:
            return result(_zoom(trial_at, enough, flat, previous, trial, shortest, rounds - count))
        bounds = trial[0] + 0.01 * (trial[0] - previous[0]), 10 * trial[0]
        previous, trial = trial, trial_at(np.clip(_cubic(previous, trial, *bounds), *bounds))
    return result(min(start, trial, key=lambda one: one[1]))


def _zoom(trial_at, enough, flat, one, other, shortest, rounds):
    """Algorithm 3.6, on a bracket with a first and a second end; equally low: the first."""
    ends, crowded = [one, other], False
    for _ in range(rounds):
        low = int(ends[0][1] > ends[1][1])
        if abs(ends[0][0] - ends[1][0]) < shortest:
            break
        left, right = sorted((ends[0][0], ends[1][0]))
        length = np.clip(_cubic(*ends, left, right), left, right)
        tenth = (right - left) / 10
        if min(right - length, length - left) < tenth:
            if crowded or length in (left, right):
                nearer_right = right - length < length - left
                length, crowded = (right - tenth if nearer_right else left + tenth), False
            else:
                crowded = True
        else:
            crowded = False
        trial = trial_at(length)
        if not enough(trial) or trial[1] >= ends[low][1]:
            ends[1 - low] = trial
        elif flat(trial):
            return trial
        else:
            if trial[2] * (ends[1 - low][0] - ends[low][0]) >= 0:
                ends[1 - low] = ends[low]
            ends[low] = trial
    return min(ends, key=lambda end: end[1])


def _cubic(one, other, low, high):
    """Where the cubic through both is lowest, else the middle of the bounds; eq. 3.59."""
    (a, fa, ga, _), (b, fb, gb, _) = one, other
    d1 = ga + gb - 3 * (fa - fb) / (a - b)
    inside = d1**2 - ga * gb
    if inside < 0:
        return (low + high) / 2
    d2 = np.sign(b - a) * np.sqrt(inside)
    return b - (b - a) * (gb + d2 - d1) / (gb - ga + 2 * d2)
