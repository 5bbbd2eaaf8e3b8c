"""Order, pairing and statistics, with a clock that the tests turn themselves."""

import gc
from collections import Counter
from itertools import pairwise

import pytest

from descend.bench.timing import (
    MOST_REPEATS,
    Spread,
    calibrate,
    measure,
    paired_ratio,
    spread,
    turn_order,
)


@pytest.mark.parametrize("contenders", range(1, 8))
def test_each_contender_takes_each_position_equally_often(contenders):
    rounds = [turn_order(contenders, index) for index in range(contenders)]
    assert all(sorted(order) == list(range(contenders)) for order in rounds)
    assert all(len(set(column)) == contenders for column in zip(*rounds, strict=True))


@pytest.mark.parametrize("contenders", range(2, 8))
def test_each_contender_follows_each_other_equally_often(contenders):
    neighbours = Counter(
        pair
        for index in range(2 * contenders)
        for order in [turn_order(contenders, index)]
        for pair in pairwise(order)
    )
    assert len(neighbours) == contenders * (contenders - 1)
    assert set(neighbours.values()) == {2}


def test_spread_is_the_median_and_the_quartiles():
    assert spread([5.0, 1.0, 4.0, 2.0, 3.0]) == Spread(3.0, 2.0, 4.0)
    assert spread([7.0]) == Spread(7.0, 7.0, 7.0)


def test_spread_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"^spread needs at least one value, got none$"):
        spread([])


def test_noise_is_half_the_distance_of_the_quartiles_over_the_median():
    assert Spread(10.0, 9.0, 12.0).noise == pytest.approx(0.15)
    assert Spread(0.0, 0.0, 0.0).noise == 0.0


def test_ratios_are_taken_round_by_round():
    # The ratio of the medians would be 3 / 2; each round says 2, 1 or 3.
    assert paired_ratio([2.0, 3.0, 9.0], [1.0, 3.0, 3.0]).median == 2.0
    with pytest.raises(ValueError, match="zip"):
        paired_ratio([1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("step_ns", "turn_ns", "steps"),
    [
        (1_000, 10_000, (1, 10)),
        (30_000, 10_000, (1, 1)),
        (50_000, 10_000, (0, 1)),
        (1, 10**9, (1, MOST_REPEATS)),
        (0, 10, (1, 10)),
    ],
)
def test_short_steps_are_repeated_to_fill_a_turn_and_long_ones_begin_at_once(
    step_ns, turn_ns, steps
):
    assert calibrate(lambda count: count * step_ns, turn_ns) == steps


def test_a_turn_is_a_whole_number_of_cycles():
    assert calibrate(lambda count: count * 1_000, 10_000, 4) == (1, 12)
    assert calibrate(lambda count: count * 50_000, 10_000, 4) == (0, 4)


def test_a_machine_that_slows_down_changes_no_ratio():
    turns = []

    def contender(name, step_ns):
        def run(count):
            turns.append((name, count))
            # From the fourth round on, everything takes three times as long.
            return count * step_ns * (3 if len(turns) > 4 + 3 * 4 else 1)

        return run

    seconds = measure({"a": contender("a", 1000), "b": contender("b", 2000)}, 6, turn_ns=4000)
    assert [len(times) for times in seconds.values()] == [6, 6]
    assert seconds["a"] == [1e-6] * 3 + [3e-6] * 3
    assert paired_ratio(seconds["b"], seconds["a"]) == Spread(2.0, 2.0, 2.0)


def test_contenders_alternate_and_every_turn_begins_with_an_untimed_step():
    turns = []

    def contender(name, step_ns):
        def run(count):
            turns.append((name, count))
            return count * step_ns

        return run

    measure({"a": contender("a", 1000), "b": contender("b", 2000)}, 2, turn_ns=4000)
    calibration = [("a", 2), ("a", 2), ("b", 2), ("b", 2)]
    first = [("a", 1), ("a", 4), ("b", 1), ("b", 2)]
    second = [("b", 1), ("b", 2), ("a", 1), ("a", 4)]
    assert turns == calibration + first + second


def test_the_garbage_collector_rests_while_timing_and_wakes_up_after_an_error():
    seen = []

    def run(count):
        seen.append(gc.isenabled())
        if len(seen) == 4:
            raise KeyboardInterrupt
        return count

    with pytest.raises(KeyboardInterrupt):
        measure({"a": run}, 5)
    assert seen == [True, True, False, False]
    assert gc.isenabled()


def test_no_rounds_are_refused():
    with pytest.raises(ValueError, match=r"^rounds must be at least 1, got 0$"):
        measure({"a": lambda count: count}, 0)
