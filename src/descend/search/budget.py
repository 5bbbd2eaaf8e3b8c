"""The plan of a comparison: how long, how many tries, how many seeds, within a budget.

Every contender has the same budget, its search included, and the same number of tries. Costs are
counted in full trainings of one contender; what trainings of several lengths share counts once.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from descend.errors import SearchError
from descend.format import counted, duration
from descend.search.ends import DECAY
from descend.search.statistics import seeds_needed

RUNGS: tuple[float, ...] = (1 / 3, 1.0)
"""Parts of the full length at which trainings end in the search."""
TRIES: tuple[int, ...] = (9, 4)
"""How many learning rates are tried, and how many of them are promoted: all, where the first rung
told too little."""
TIMES_DEFAULT = 30  # the first tries reach from 1/30 to 30 times the optimizer's own default
MORE = 2  # tries in each rung, beyond the edge where the best stands there, else beside it
ENDS = (1 / 8, 1 / 4, 1 / 2, 1.0)
"""Parts of the full length at which trainings end in the confirmation."""
MOST_TIMES = 3  # as many tries, where the budget is large
SHORTEST = 24  # steps of a full training: eight in the first rung
SHARE = 0.85  # of the time asked for that is planned; processes start, pages are written


@dataclass(frozen=True)
class Budget:
    """How much a comparison may take.

    Args:
        given: as it was given.
        seconds: of the whole comparison, on this machine.
        steps: of each contender, the search included.

    Example:
        >>> read_budget("5m").seconds, read_budget("3000steps").steps
        (300.0, 3000)

    Source: as for `Trial`.
    """

    given: str
    seconds: float | None = None
    steps: int | None = None


@dataclass(frozen=True)
class Plan:
    """How a comparison goes.

    Args:
        length: steps of a full training with AdamW.
        lengths: the same of each contender, at equal time.
        tries: how many trainings are in each rung of the search.
        seeds: of the confirmation.
    """

    length: int
    lengths: Mapping[str, int]
    tries: tuple[int, ...]
    seeds: tuple[int, ...]

    def in_words(self, times: Mapping[str, float], jobs: int, shared: bool) -> list[str]:
        """The work ahead, and about how long it takes."""
        each = trainings(self.tries, len(self.seeds), shared)
        steps = sum(times[name] * length * each for name, length in self.lengths.items())
        steps += times["adamw"] * self.length * len(self.seeds)
        short, full = self.tries
        return [
            f"{counted(len(self.lengths), 'contender')}, each with {short} learning rates, {full} "
            f"of them trained to the end, and {counted(len(self.seeds), 'fresh seed')}; a full "
            f"training has {counted(self.length, 'step')}: about {duration(steps / jobs)}"
        ]


def read_budget(text: str) -> Budget:
    """Read a budget: 90s, 5m, 2h, or 3000steps.

    Raises:
        SearchError: it cannot be read.
    """
    match = re.fullmatch(r"\s*([\d_.]+)\s*(s|sec|m|min|h|steps?)\s*", text)
    try:
        number = float(match[1]) if match else 0.0
    except ValueError:
        number = 0.0
    if match is None or number <= 0:
        raise SearchError(
            f"--budget {text}: it must be a time for the whole comparison, such as 90s, 5m or 2h, "
            f"or steps for each contender, such as 3000steps"
        )
    if match[2].startswith("step"):
        return Budget(text.strip(), steps=int(number))
    return Budget(text.strip(), seconds=number * {"s": 1, "m": 60, "h": 3600}[match[2][0]])


def trainings(tries: Sequence[int], seeds: int, shared: bool, searched: bool = True) -> float:
    """The cost of a contender, in full trainings.

    Args:
        tries: in each rung.
        seeds: of the confirmation.
        shared: whether trainings of several lengths share their trunks.
        searched: whether there is a search.
    """
    confirmed = before = 0.0
    search = MORE * sum(RUNGS)
    for count, part in zip(tries, RUNGS, strict=True):
        search += count * (part - before)
        before = part * (1 - DECAY) if shared else 0.0
    before = 0.0
    for part in ENDS:
        confirmed += part - before
        before = part * (1 - DECAY) if shared else 0.0
    return search * searched + seeds * confirmed


def make_plan(
    budget: Budget | None,
    task_steps: int,
    searched: Mapping[str, bool],
    *,
    shared: bool,
    seed: int,
    times: Mapping[str, float],
    fixed: float,
    jobs: int,
    seeds: int | None = None,
) -> Plan:
    """Divide a budget.

    Args:
        budget: None for as much as full trainings need.
        task_steps: the task's own length, which is not exceeded.
        searched: the contenders, and whether the learning rate of each is searched.
        shared: whether trainings of several lengths share their trunks.
        seed: of the search; those of the confirmation come after it.
        times: seconds a step of each contender takes, its part of the validations included.
        fixed: seconds that every training takes beside its steps.
        jobs: how many trainings run at once.
        seeds: how many in the confirmation; None for as many as a verdict needs.

    Raises:
        SearchError: the budget is too small, and how much is needed.
    """
    count = seeds or seeds_needed(max(1, len(searched) - 1))
    by_time = budget is None or budget.steps is None
    # Of a step of each contender in one of AdamW's
    costs = {name: times[name] / times["adamw"] if by_time else 1.0 for name in searched}

    def tried(factor: int) -> tuple[int, ...]:
        return tuple(number * factor for number in TRIES)

    def longest(factor: int) -> float:
        """The length that the budget allows with so many times the tries."""
        # As if all were promoted: it may come to that
        all_of = [tried(factor)[0]] * len(RUNGS)
        each = {name: trainings(all_of, count, shared, one) for name, one in searched.items()}
        if budget is None:
            return float(task_steps)
        if budget.steps is not None:
            return budget.steps / max(each.values())
        assert budget.seconds is not None
        pieces = count * (len(ENDS) + 1) + sum(all_of) + 2 * MORE
        left = budget.seconds * SHARE * jobs - fixed * pieces * len(searched)
        # At equal time each contender takes as long as AdamW, and so does the reference
        return left / (times["adamw"] * (sum(each.values()) + count))

    if longest(1) < SHORTEST:
        raise SearchError(_too_small(budget, longest(1), len(searched), count))
    factor = max(
        one for one in range(1, MOST_TIMES + 1) if one == 1 or longest(one) >= task_steps
    ) if budget else 1  # fmt: skip
    length = min(task_steps, int(longest(factor)))
    lengths = {name: max(SHORTEST, round(length / cost)) for name, cost in costs.items()}
    return Plan(length, lengths, tried(factor), tuple(range(seed + 1, seed + 1 + count)))


def _too_small(budget: Budget | None, length: float, contenders: int, seeds: int) -> str:
    if budget is None:
        return (
            f"a training of this task has {length:.0f} steps, and a comparison needs {SHORTEST}; "
            f"give the task more epochs"
        )
    assert length < SHORTEST
    if budget.steps is not None:
        needed = f"{round(budget.steps * SHORTEST / max(length, 1e-9)) + 1}steps"
    else:
        needed = "more time" if length <= 0 else duration(
            (budget.seconds or 0) * SHORTEST / length
        )  # fmt: skip
    return (
        f"--budget {budget.given} is too small for {counted(contenders, 'contender')} with "
        f"{counted(seeds, 'seed')} each: it allows trainings of {max(0, int(length))} steps, and "
        f"{SHORTEST} are the least; give {needed}, or fewer contenders"
    )
