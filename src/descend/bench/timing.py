"""Paired, interleaved timing: every contender takes a turn in every round.

A machine's speed drifts, with its heat and with its other work. Contenders that take turns within
one round meet the same machine, so what is compared is the ratio *within* each round, and the
figure reported is the median of those ratios with its quartiles.
"""

import gc
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

TakeSteps = Callable[[int], int]
"""Take that many steps and return the nanoseconds that they took, all together."""

Clock = Callable[[], int]
"""The time in nanoseconds, from any origin: `time.perf_counter_ns` outside of tests."""

TURN_NS = 10_000_000
"""How long a turn should last, in nanoseconds: short steps are repeated to fill it."""

MOST_REPEATS = 2_000
"""The most steps in one turn."""

LONG = 5
"""A step that lasts so many turns is long: its turn begins without an untimed step."""


@dataclass(frozen=True)
class Spread:
    """A median and the quartiles around it.

    Args:
        median: The middle value.
        low: The lower quartile: a quarter of the values lie below.
        high: The upper quartile: a quarter of the values lie above.
    """

    median: float
    low: float
    high: float

    @property
    def noise(self) -> float:
        """Half the distance between the quartiles, as a fraction of the median."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the quartiles of some values.

    Args:
        values: At least one value; one alone is its own quartiles.

    Returns:
        The quartiles as linear interpolation between the sorted values gives them.

    Raises:
        ValueError: There are no values.

    Example:
        >>> spread([1.0, 2.0, 3.0, 4.0, 5.0])
        Spread(median=3.0, low=2.0, high=4.0)
    """
    if not values:
        raise ValueError("spread needs at least one value, got none")
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def paired_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Spread:
    """Return the spread of the ratios of two contenders, taken round by round.

    Args:
        numerator: One contender's times, one per round.
        denominator: The other's times in the same rounds.

    Returns:
        The median and the quartiles of `numerator[i] / denominator[i]`.

    Raises:
        ValueError: The two do not have the same number of rounds, or have none.

    Example:
        >>> paired_ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]).median
        2.0
    """
    return spread([a / b for a, b in zip(numerator, denominator, strict=True)])


def turn_order(contenders: int, round_index: int) -> list[int]:
    """Return the order in which contenders take their turns in one round.

    The rows of a Williams design: over `contenders` rounds each contender takes each position
    once, and over twice as many each follows each other one equally often. So none profits
    from always running after the same neighbour.

    Args:
        contenders: How many there are.
        round_index: Which round, counted from 0.

    Returns:
        The numbers from 0 to `contenders - 1`, each once.

    Example:
        >>> [turn_order(4, index) for index in range(2)]
        [[0, 1, 3, 2], [1, 2, 0, 3]]
    """
    zigzag = [
        (i + 1) // 2 if i % 2 else (contenders - i // 2) % contenders for i in range(contenders)
    ]
    order = [(place + round_index) % contenders for place in zigzag]
    return order[::-1] if (round_index // contenders) % 2 else order


def calibrate(run: TakeSteps, turn_ns: int = TURN_NS, multiple: int = 1) -> tuple[int, int]:
    """Return how many steps of a contender make one turn: untimed ones first, then timed ones.

    Args:
        run: The contender; it takes four steps here, the first two to warm up.
        turn_ns: The wanted length of a turn in nanoseconds.
        multiple: Of how many steps the timed ones are a multiple.

    Returns:
        One untimed step, or none before a step that lasts `LONG` turns; and as many timed ones as
        fill the turn, at least `multiple` and at most about `MOST_REPEATS`.
    """
    run(2)
    one = max(1, run(2) // 2)
    timed = min(MOST_REPEATS, max(1, round(turn_ns / one)))
    return int(one < LONG * turn_ns), -(-timed // multiple) * multiple


def measure(
    contenders: Mapping[str, TakeSteps], rounds: int, turn_ns: int = TURN_NS, multiple: int = 1
) -> dict[str, list[float]]:
    """Time contenders against each other, interleaved.

    In each round each contender takes one turn, in the order of `turn_order`. A turn begins with
    one step that is not timed, unless a step is long: it brings the contender's own data back into
    the caches and outlasts the spinning of the previous contender's idle threads. Python's garbage
    collector rests meanwhile.

    Args:
        contenders: What to time, by name.
        rounds: How many rounds, at least 1.
        turn_ns: The wanted length of a turn in nanoseconds.
        multiple: Of how many steps each turn is a multiple, where steps are not all alike.

    Returns:
        For each contender the seconds of one step (the mean of its turn), one entry per round.

    Raises:
        ValueError: `rounds` is less than 1.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    names = list(contenders)
    steps = {name: calibrate(run, turn_ns, multiple) for name, run in contenders.items()}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with collector_resting():
        for index in range(rounds):
            for place in turn_order(len(names), index):
                name = names[place]
                run, (untimed, timed) = contenders[name], steps[name]
                run(untimed)
                seconds[name].append(run(timed) / timed / 1e9)
    return seconds


@contextmanager
def collector_resting() -> Iterator[None]:
    """Collect garbage first, and then let Python's garbage collector rest."""
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
