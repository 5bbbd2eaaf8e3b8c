"""Paired comparisons over seeds: intervals, Holm's correction, fractions of a time, profiles.

All contenders train with the same seeds: equal initial weights, equal order of the data. So what
is compared is the *difference within* each seed, in which that luck cancels.

A contender is **separated** from the baseline if both hold at its level:

- the sign-flip test of its differences: were the two equally good, each difference could as well
  have the other sign, and of all 2^n ways to choose the signs at most that share has a mean as far
  from zero. This is exact for any noise, as long as both have the same; with n seeds no level
  below 2^(1-n) can be reached;
- the bootstrap's interval of the mean difference excludes zero. Alone it is wrong too often with
  so few seeds: in 6 to 9 of 100 families of equals, where 5 are allowed.

The level is Holm's: 0.05 over the contenders that are still to be separated. So in a family of
equals at most 5 of 100 comparisons separate any contender at all.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from descend.errors import SearchError

FAMILY = 0.05
"""The share of comparisons among equals in which any contender is separated."""

CONFIDENCE = 0.95
"""That of an interval that stands alone."""

FEWEST = 5  # seeds
SEED = 0  # of the resampling: the same values have the same interval
RESAMPLES = 20_000
FLIPS = 9_999  # all of them up to 13 seeds, a sample beyond
NOT_SEPARATED = "not separated"


@dataclass(frozen=True)
class Separation:
    """A contender beside the baseline.

    Args:
        difference: the mean over seeds of its value less the baseline's.
        low: the lower end of the interval of the difference.
        high: the upper one; both are infinite where one seed is all there is.
        confidence: of that interval: one less Holm's level, by which it was decided.
        verdict: "better", "worse" or "not separated".
    """

    difference: float
    low: float
    high: float
    confidence: float
    verdict: str


@dataclass(frozen=True)
class Fraction:
    """The part of the reference's time that a contender needs to the target, over seeds.

    Args:
        median: None where half of the seeds or more did not reach it.
        low: the lower end of its interval.
        high: the upper one; either is None where it is infinite.
        per_seed: of each seed; None where the target was not reached.
    """

    median: float | None
    low: float | None
    high: float | None
    per_seed: list[float | None]


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The interval of a mean: the bootstrap's percentiles, at a level expanded for few values.

    Args:
        values: one a seed, such as the differences of two contenders.
        confidence: such as 0.95.

    Returns:
        Its ends. Of equal values both are that value; of one value nothing is known, and they are
        infinite.

    Raises:
        SearchError: SciPy is not installed.

    Example:
        >>> interval([0.1, 0.1, 0.1])
        (0.1, 0.1)

    Source: Hesterberg, What Teachers Should Know About the Bootstrap, The American Statistician
        69(4), 2015, section 5.2.
    """
    return _resampled(values, np.mean, confidence)


def verdicts(
    values: Mapping[str, Sequence[float]], baseline: str, *, highest: bool
) -> dict[str, Separation]:
    """Compare contenders with a baseline, by Holm's step-down method.

    Args:
        values: by contender, one a seed, in the same order of seeds. A training that diverged has
            the value of an untrained model.
        baseline: the contender that the others are compared with.
        highest: whether higher values are better.

    Returns:
        For each but the baseline, how it compares. See the module for the rule.

    Raises:
        SearchError: SciPy is not installed.

    Example:
        >>> values = {"adamw": [3, 3.1, 3.2, 3.3, 3.1, 3], "lion": [2, 2.2, 2.1, 2.4, 2.3, 2]}
        >>> verdicts(values, "adamw", highest=False)["lion"].verdict
        'better'

    Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of
        Statistics 6(2), 1979.
    """
    beside = values[baseline]
    differences = {
        name: [mine - other for mine, other in zip(own, beside, strict=True)]
        for name, own in values.items()
        if name != baseline
    }
    chances = {name: chance(one) for name, one in differences.items()}
    found: dict[str, Separation] = {}
    left = [*differences]
    while left:
        level = FAMILY / len(left)
        tested = {name: _separation(differences[name], level, chances[name], highest=highest)
                  for name in left}  # fmt: skip
        separated = {name: one for name, one in tested.items() if one.verdict != NOT_SEPARATED}
        found |= separated or tested
        left = [name for name in left if name not in found]
    return {name: found[name] for name in differences}


def _separation(
    differences: Sequence[float], level: float, chance: float, *, highest: bool
) -> Separation:
    low, high = interval(differences, 1 - level)
    mean = math.fsum(differences) / len(differences)
    verdict = NOT_SEPARATED
    if chance <= level and (low > 0 or high < 0):
        verdict = "better" if (mean > 0) == highest else "worse"
    return Separation(mean, low, high, 1 - level, verdict)


def chance(differences: Sequence[float]) -> float:
    """The share of all choices of signs whose mean is as far from zero: the sign-flip test's p.

    Args:
        differences: one a seed.

    Returns:
        From 2^(1-n) to 1.

    Raises:
        SearchError: SciPy is not installed.

    Example:
        >>> chance([1.0, 2.0, 3.0, 4.0, 5.0])
        0.0625

    Source: Fisher, The Design of Experiments, 1935, section 21.
    """
    if len(differences) == 1 or not any(differences):  # equal bits
        return 1.0
    found = scipy_stats().permutation_test(
        (np.asarray(differences, dtype=float),), np.mean, vectorized=True,
        permutation_type="samples", n_resamples=FLIPS, random_state=SEED,
    )  # fmt: skip
    return float(found.pvalue)


def seeds_needed(contenders: int) -> int:
    """The least number of seeds with which a contender can be separated at all.

    Args:
        contenders: how many are compared with the baseline.

    Returns:
        The least n of at least 5 with 2^(1-n) <= 0.05 / contenders.

    Example:
        >>> [seeds_needed(contenders) for contenders in (1, 2, 3, 5, 8)]
        [6, 7, 7, 8, 9]
    """
    seeds = FEWEST
    while 2 ** (1 - seeds) * contenders > FAMILY:
        seeds += 1
    return seeds


def fraction_of_time(
    ends: Sequence[tuple[int, float | None]],
    target: float,
    reference_length: int,
    cost: float = 1.0,
    *,
    highest: bool,
) -> float | None:
    """The part of the reference's time after which a training ends at the target, of one seed.

    Args:
        ends: the length of each training in steps, and its value at its own end; None where it
            diverged.
        target: the value to reach.
        reference_length: the steps of the reference.
        cost: the time of a step over that of a step of the reference.
        highest: whether higher values are better.

    Returns:
        The shortest length that reaches the target, times the cost, over the reference's length;
        None where none does. Between the longest that missed it just before and that one, the
        value is taken as linear in the logarithm of the length. Below the shortest there is no
        knowledge: where that one reaches the target, its own length stands.

    Example:
        >>> fraction_of_time([(125, 0.5), (250, 0.3), (500, 0.1)], 0.3, 1000, highest=False)
        0.25
    """
    sign = -1 if highest else 1
    before: tuple[int, float] | None = None
    for length, value in sorted(ends, key=lambda end: end[0]):
        if value is None:
            before = None
        elif sign * value > sign * target:
            before = length, value
        else:
            reached = float(length)
            if before is not None:
                part = (before[1] - target) / (before[1] - value)
                reached = before[0] * (length / before[0]) ** part
            return reached * cost / reference_length
    return None


def median_fraction(per_seed: Sequence[float | None]) -> Fraction:
    """The median of fractions over seeds and its interval; an unreached target is infinite.

    Args:
        per_seed: of each seed, from `fraction_of_time`.

    Raises:
        SearchError: SciPy is not installed.

    Example:
        >>> median_fraction([0.5, 0.5, 0.5])
        Fraction(median=0.5, low=0.5, high=0.5, per_seed=[0.5, 0.5, 0.5])
    """
    reached = [one for one in per_seed if one is not None]
    if not reached:
        return Fraction(None, None, None, [*per_seed])
    # Between two infinities NumPy knows no percentile: a number above all stands for infinity
    above = 1e6 * max(reached)
    values = [above if one is None else one for one in per_seed]
    low, high = _resampled(values, np.median, CONFIDENCE)
    found = float(np.median(values)), max(low, 0.0), high
    most = max(reached) * (1 + 1e-9)  # percentiles are rounded
    median, lower, upper = (one if one <= most else None for one in found)
    return Fraction(median, lower, upper, [*per_seed])


def is_later(per_seed: Sequence[float | None], baseline: Sequence[float | None]) -> bool:
    """Whether a target is reached later than by the baseline, beyond the interval over seeds.

    Args:
        per_seed: of each seed, from `fraction_of_time`; None where it was not reached.
        baseline: the same of the other, with the same seeds.

    Raises:
        SearchError: SciPy is not installed.

    Example:
        >>> is_later([0.5, 0.6, None], [0.4, 0.4, 0.4]), is_later([0.3, 0.2], [0.4, None])
        (True, False)
    """
    pairs = [pair for pair in zip(per_seed, baseline, strict=True) if pair[1] is not None]
    if any(ours is None for ours, _ in pairs):
        return True
    differences = [ours - other for ours, other in pairs if ours is not None and other is not None]
    return bool(differences) and interval(differences)[0] > 0


def performance_profile(
    costs: Mapping[str, Sequence[float | None]],
) -> dict[str, list[tuple[float, float]]]:
    """Performance profiles of contenders over tasks: where each is within a factor of the best.

    Args:
        costs: by contender, one a task in the same order, such as the time to the target; None
            where it was not reached.

    Returns:
        By contender, the steps of its profile: factors from 1, and the share of the tasks on which
        its cost is at most so many times the least of all. It is 0 below the first.

    Example:
        >>> performance_profile({"adamw": [1.0, 1.0], "muon": [0.5, None]})
        {'adamw': [(1.0, 0.5), (2.0, 1.0)], 'muon': [(1.0, 0.5)]}

    Source: Dolan & Moré, Benchmarking Optimization Software with Performance Profiles,
        Mathematical Programming 91, 2002.
    """
    tasks = [[one for one in task if one is not None] for task in zip(*costs.values(), strict=True)]
    best = [min(task, default=math.inf) for task in tasks]
    profiles = {}
    for name, own in costs.items():
        factors = [one / least for one, least in zip(own, best, strict=True) if one is not None]
        profiles[name] = [
            (factor, sum(one <= factor for one in factors) / len(tasks))
            for factor in sorted(set(factors))
        ]
    return profiles


def _resampled(
    values: Sequence[float], statistic: Callable[..., object], confidence: float
) -> tuple[float, float]:
    """The bootstrap's percentiles of a statistic of NumPy's, at the expanded level."""
    if len(values) == 1:
        return -math.inf, math.inf
    if len(set(values)) == 1:
        return values[0], values[0]
    found = scipy_stats().bootstrap(
        (np.asarray(values, dtype=float),), statistic, vectorized=True,
        confidence_level=_expanded(confidence, len(values)), n_resamples=RESAMPLES,
        method="percentile", random_state=SEED,
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)


def _expanded(confidence: float, count: int) -> float:
    """The level at which percentiles of so few values cover as often as the confidence says.

    Resampling underestimates the variance by (n-1)/n, and takes the normal's tails for Student's.
    """
    stats = scipy_stats()
    quantile = stats.t.ppf((1 + confidence) / 2, count - 1) * math.sqrt(count / (count - 1))
    return float(1 - 2 * stats.norm.sf(quantile))


def scipy_stats() -> ModuleType:
    """SciPy's statistics.

    Raises:
        SearchError: it is not installed.
    """
    try:
        from scipy import stats
    except ImportError as error:
        raise SearchError(
            f"a comparison needs SciPy, which is not installed ({error}); "
            f"pip install 'descend[compare]'"
        ) from error
    return stats  # type: ignore[no-any-return]
