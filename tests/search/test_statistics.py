"""Paired comparisons: seldom separated where all are equal, mostly where they are not."""

import itertools
import math

import numpy as np
import pytest

from children import python
from descend.search.statistics import (
    FAMILY,
    NOT_SEPARATED,
    chance,
    fraction_of_time,
    interval,
    median_fraction,
    performance_profile,
    seeds_needed,
    verdicts,
)

NOISES = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "skewed": lambda rng, shape: rng.exponential(size=shape),
    "very skewed": lambda rng, shape: rng.lognormal(0, 1.5, size=shape),
    "heavy-tailed": lambda rng, shape: rng.standard_t(2, size=shape),
    "seldom far off": lambda rng, shape: (rng.random(shape) < 0.15) * 10 + rng.normal(size=shape),
    "light-tailed": lambda rng, shape: rng.uniform(size=shape),
}


def family(rng, noise, contenders, seeds):
    """Values of a baseline and some contenders: of one distribution, with a seed's luck shared."""
    luck = rng.standard_normal(seeds)
    drawn = NOISES[noise](rng, (contenders + 1, seeds)) + luck
    return {f"c{number}": [*map(float, row)] for number, row in enumerate(drawn)}


def separated(values, baseline="c0"):
    found = verdicts(values, baseline, highest=False)
    return {name for name, one in found.items() if one.verdict != NOT_SEPARATED}


def share_of_false_families(families):
    """How many families of equals have a contender separated, and the simulation's own error."""
    rng = np.random.default_rng(14)
    settings = itertools.cycle(itertools.product(NOISES, range(1, 6), range(5)))
    wrong = 0
    for _ in range(families):
        noise, contenders, more = next(settings)
        seeds = min(seeds_needed(contenders) + more, 9)
        wrong += bool(separated(family(rng, noise, contenders, seeds)))
    return wrong / families, 2 * math.sqrt(FAMILY * (1 - FAMILY) / families)


def test_p71_equals_are_seldom_separated():
    share, error = share_of_false_families(480)
    assert share <= FAMILY + error


@pytest.mark.slow
def test_p71_equals_are_seldom_separated_in_many_families():
    share, error = share_of_false_families(15_000)
    assert share <= FAMILY + error


@pytest.mark.parametrize("noise", NOISES)
def test_p71_a_large_difference_is_separated(noise):
    rng = np.random.default_rng(3)
    found = []
    for _ in range(60):
        values = family(rng, noise, 2, seeds_needed(2))
        off = np.subtract(*NOISES[noise](rng, (2, 500))).std()
        values["c1"] = [value - 3 * off for value in values["c1"]]
        found.append(verdicts(values, "c0", highest=False)["c1"])
    assert sum(one.verdict == "better" for one in found) >= 50
    assert not any(one.verdict == "worse" for one in found)
    assert all(one.high < 0 for one in found if one.verdict == "better")


def test_p71_which_way_is_better_is_the_metrics():
    values = {"a": [0.1 * seed for seed in range(7)], "b": [0.1 * seed + 1 for seed in range(7)]}
    assert verdicts(values, "a", highest=True)["b"].verdict == "better"
    assert verdicts(values, "a", highest=False)["b"].verdict == "worse"
    assert verdicts(values, "b", highest=False)["a"].verdict == "better"
    one = verdicts(values, "a", highest=True)["b"]
    assert (one.difference, one.low, one.high) == (pytest.approx(1), *[pytest.approx(1)] * 2)
    assert one.confidence == 0.95


def test_p71_equal_bits_are_never_separated():
    values = {name: [0.3, 0.1, 0.2, 0.5, 0.1, 0.9, 0.4] for name in "abc"}
    for one in verdicts(values, "a", highest=False).values():
        assert (one.difference, one.low, one.high, one.verdict) == (0, 0, 0, NOT_SEPARATED)


def test_p71_too_few_seeds_separate_nothing():
    for contenders in (1, 2, 5):
        for seeds in range(1, seeds_needed(contenders) + 1):
            values = {f"c{number}": [number * 100.0 + seed for seed in range(seeds)]
                      for number in range(contenders + 1)}  # fmt: skip
            enough = seeds == seeds_needed(contenders) or 2 ** (1 - seeds) <= FAMILY / contenders
            assert bool(separated(values)) == enough


def test_p71_holm_is_the_closure_of_bonferroni():
    """The oracle asks every subset of the contenders: one is separated if all that hold it are."""
    rng = np.random.default_rng(5)
    sizes = set()
    for _ in range(25):
        contenders = int(rng.integers(2, 5))
        values = family(rng, "normal", contenders, 9)
        for name in [*values][1:]:
            shift = rng.choice([0.0, 1.5, 2.5])
            values[name] = [value - shift for value in values[name]]
        names = [*values][1:]
        differences = {name: np.subtract(values[name], values["c0"]).tolist() for name in names}
        chances = {name: chance(one) for name, one in differences.items()}

        def below(name, level, differences=differences, chances=chances):
            low, high = interval(differences[name], 1 - level)
            return chances[name] <= level and (low > 0 or high < 0)

        subsets = [set(some) for count in range(1, contenders + 1)
                   for some in itertools.combinations(names, count)]  # fmt: skip
        refuted = [some for some in subsets if any(below(one, FAMILY / len(some)) for one in some)]
        oracle = {
            name for name in names if all(some in refuted for some in subsets if name in some)
        }
        assert separated(values) == oracle
        sizes.add(len(oracle))
    assert len(sizes) >= 3


def test_p71_the_interval_is_that_of_the_level():
    """Of three contenders, one is separated at 0.05/3 and one of the others then at 0.05/2."""
    base = np.random.default_rng(0).standard_normal(7)
    near = np.array([-0.1, 0.3, -0.2, 0.25, -0.3, 0.1, 0.2])
    values = {"a": base, "far": base + 5 + near, "near": base + near, "other": base - near}
    found = verdicts({name: one.tolist() for name, one in values.items()}, "a", highest=False)
    assert found["far"].confidence == pytest.approx(1 - FAMILY / 3)
    assert found["near"].confidence == pytest.approx(1 - FAMILY / 2)
    ends = interval(near.tolist(), 1 - FAMILY / 2)
    assert (found["near"].low, found["near"].high) == pytest.approx(ends)


def test_an_interval_covers_about_as_often_as_it_says():
    """Of 5 values; the percentiles at the level itself would cover 82 of 100 means."""
    rng = np.random.default_rng(1)
    ends = [interval(rng.standard_normal(5).tolist()) for _ in range(500)]
    assert 0.90 < np.mean([low <= 0 <= high for low, high in ends]) < 0.99


def test_an_interval_of_equal_values_has_no_width_and_of_one_value_no_end():
    assert interval([0.1] * 5) == (0.1, 0.1)
    assert interval([0.1]) == (-math.inf, math.inf)
    low, high = interval([1.0, 2.0], 0.95)
    assert (low, high) == (1, 2)
    assert interval([1.0, 2.0, 4.0, 3.0, 9.0]) == interval([1.0, 2.0, 4.0, 3.0, 9.0])


def test_the_chance_is_the_share_of_signs():
    rng = np.random.default_rng(2)
    for seeds in (2, 5, 8):
        one = rng.standard_normal(seeds) + 0.5
        means = [abs(np.mean(one * signs)) for signs in itertools.product([1, -1], repeat=seeds)]
        far = np.mean([mean >= abs(one.mean()) - 1e-12 for mean in means])
        assert chance(one.tolist()) == pytest.approx(far)
    assert chance([0.0] * 5) == 1


def test_seeds_needed():
    for contenders in range(1, 30):
        seeds = seeds_needed(contenders)
        assert 2 ** (1 - seeds) <= FAMILY / contenders
        assert seeds == 5 or 2 ** (2 - seeds) > FAMILY / contenders
    assert seeds_needed(0) == 5


def test_a_fraction_in_closed_form():
    """The loss is 1/length: the target 1/L is reached at L, and so is its logarithm."""
    ends = [(length, -math.log(length)) for length in (125, 250, 500, 1000)]
    for at in (125, 180, 250, 400, 999):
        found = fraction_of_time(ends, -math.log(at), 1000, 0.9, highest=False)
        assert found == pytest.approx(0.9 * at / 1000)
    rising = [(length, -value) for length, value in reversed(ends)]
    assert fraction_of_time(rising, math.log(400), 1000, highest=True) == pytest.approx(0.4)


def test_a_fraction_at_the_ends():
    ends = [(100, 0.5), (200, 0.3), (400, 0.1)]
    assert fraction_of_time(ends, 0.6, 400, highest=False) == 0.25  # the shortest; none is shorter
    assert fraction_of_time(ends, 0.05, 400, highest=False) is None
    assert fraction_of_time([], 0.05, 400, highest=False) is None
    broken = [(100, None), (200, 0.3), (400, None)]
    assert fraction_of_time(broken, 0.3, 400, highest=False) == 0.5
    assert fraction_of_time([(100, 0.5), (200, None), (400, 0.1)], 0.3, 400, highest=False) == 1
    again = [(100, 0.5), (200, 0.1), (400, 0.5)]  # the first that reaches it
    assert fraction_of_time(again, 0.1, 400, highest=False) == 0.5


def test_the_median_of_fractions_counts_what_was_not_reached_as_infinite():
    found = median_fraction([0.4, 0.5, 0.6, None, 0.45])
    assert found.median == 0.5
    assert found.low == 0.4
    assert found.high is None
    assert found.per_seed == [0.4, 0.5, 0.6, None, 0.45]
    none = median_fraction([None] * 5)
    assert (none.median, none.low, none.high) == (None, None, None)
    most = median_fraction([0.5, None, None, None, None])
    assert (most.median, most.high) == (None, None)
    even = median_fraction([0.4, 0.5, None, None])
    assert even.median is None
    one = median_fraction([0.5])
    assert (one.median, one.low, one.high) == (0.5, 0, None)


def test_the_interval_of_a_median_lies_between_its_values():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(150):
        found = median_fraction(rng.lognormal(size=7).tolist())
        assert found.low <= found.median <= found.high
        inside += found.low <= 1 <= found.high
    assert inside >= 0.93 * 150


def test_profiles_in_closed_form():
    found = performance_profile({"a": [1.0, 2.0, 4.0], "b": [2.0, 1.0, None], "c": [None] * 3})
    assert found == {
        "a": [(1.0, 2 / 3), (2.0, 1.0)],
        "b": [(1.0, 1 / 3), (2.0, 2 / 3)],
        "c": [],
    }
    assert performance_profile({"a": [None], "b": [None]}) == {"a": [], "b": []}


def test_without_scipy_the_error_says_how_to_install_it():
    code = (
        "import sys; sys.modules['scipy'] = None\n"
        "from descend.errors import SearchError\n"
        "from descend.search.statistics import interval\n"
        "try:\n    interval([1.0, 2.0])\nexcept SearchError as error:\n    print(error)"
    )
    assert "pip install 'descend[compare]'" in python("-c", code).stdout
