"""Steps where something changes from one to the next, beside torch's."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import torch

from descend.bench.changes import USUAL, Change, Network
from descend.bench.contenders import OURS, Case, Contender, contenders, stepping
from descend.bench.contenders import cases as all_cases
from descend.bench.measurement import Part
from descend.bench.suite import CaseTimes, Timing, refuse_odd_values
from descend.bench.timing import TURN_NS, Clock, Spread, TakeSteps, measure, paired_ratio, spread
from descend.bench.workloads import Workload

DEFAULT = "torch default"
"""Whose values are right, where torch has such an optimizer."""

RTOL, ATOL = 1e-3, 1e-5
"""How near values are that are the same but for rounding, after so few steps."""


@dataclass(frozen=True)
class ChangeTimes(CaseTimes):
    """Steps where one thing changes from one to the next: a mean over them.

    Args:
        change: What changes, by name.
        about: The same in a few words.
        wrong: The contenders that compute other values than torch's default, or than descend where
            torch has none: all of them but descend are no measure and stand in no timing.
        first: Whether each step was the first of a new optimizer.
    """

    change: str
    about: str
    wrong: tuple[str, ...]
    first: bool = False

    @property
    def seconds_per_tensor(self) -> Spread:
        """Descend's time, divided by the number of tensors."""
        own = self.timings[0].seconds
        return Spread(*(value / self.tensors for value in (own.median, own.low, own.high)))


def changing_parts(changes: Sequence[Change], cases: Sequence[Case], rounds: int) -> list[Part]:
    """Return the parts of the measurement where something changes.

    Args:
        changes: Which.
        cases: With which optimizers, each as far as the change is measured with it; none for the
            `USUAL` ones.
        rounds: How many turns each contender takes in each part, at least 1.
    """
    known = all_cases()
    return [
        (
            f"{change.about}, {model.name}, {case.name}",
            partial(measure_change, change, model, case, rounds),
        )
        for change in changes
        for model in change.workloads
        for case in cases or [known[name] for name in change.only or USUAL if name in known]
        if case.name in (change.only or [case.name])
    ]


def measure_change(
    change: Change,
    workload: Workload,
    case: Case,
    rounds: int,
    *,
    turn_ns: int = TURN_NS,
    clock: Clock = time.perf_counter_ns,
) -> ChangeTimes:
    """Time one optimizer where one thing changes from step to step.

    Each contender has a network of its own, on which the same things happen. A turn is as long as
    the change needs to happen as often as it should.

    Args:
        change: What happens before each step, outside of the time.
        workload: The parameters' shapes.
        case: The optimizer and its options.
        rounds: How many turns each contender takes, at least 1.
        turn_ns: The length of a turn in nanoseconds, where that is longer.
        clock: The time in nanoseconds.

    Raises:
        ValueError: `rounds` is less than 1.
        DescendError: Values became infinite, NaN or subnormal, which would have distorted times.
    """
    workload = case.of(workload)
    networks: dict[str, Network] = {}
    runs: dict[str, TakeSteps] = {}
    for contender in contenders(case):
        network = Network(workload, change.layout)
        take = _first_steps if change.first else _steps
        try:
            run = take(change, contender, network, clock)
            run(change.cycle + 1)
        except (RuntimeError, TypeError):  # torch's other forms do not take everything
            if contender.name in (OURS, DEFAULT):
                raise
            continue
        networks[contender.name], runs[contender.name] = network, run
    right = networks.get(DEFAULT, networks[OURS])
    wrong = tuple(name for name, network in networks.items() if not _alike(network, right))
    for name in wrong:
        if name != OURS:
            del networks[name], runs[name]
    seconds = measure(runs, rounds, turn_ns, change.cycle)
    ended = [parameter for network in networks.values() for parameter in network.parameters]
    refuse_odd_values(case.name, workload.name, ended)
    return ChangeTimes(
        change=change.name,
        about=change.about,
        workload=workload.name,
        case=case.name,
        tensors=workload.tensors,
        timings=tuple(
            Timing(name, spread(taken), paired_ratio(taken, seconds[OURS]))
            for name, taken in seconds.items()
        ),
        wrong=wrong,
        first=change.first,
    )


def _steps(change: Change, contender: Contender, network: Network, clock: Clock) -> TakeSteps:
    """The steps of one optimizer."""
    optimizer = contender.make(_given(change, network))
    numbers = count()
    return stepping(
        contender.step_of(optimizer, network.parameters, scheduled=change.scheduled),
        lambda: change.before(network, next(numbers)),
        clock,
    )


def _first_steps(change: Change, contender: Contender, network: Network, clock: Clock) -> TakeSteps:
    """The first steps of as many optimizers, which make their states."""

    def run(count: int) -> int:
        total = 0
        for number in range(count):
            change.before(network, number)
            optimizer = contender.make(_given(change, network))
            start = clock()
            optimizer.step()
            total += clock() - start
        return total

    return run


def _given(change: Change, network: Network) -> Sequence[Any]:
    if change.grouped:
        return [{"params": [parameter]} for parameter in network.parameters]
    return network.parameters


def _alike(network: Network, other: Network) -> bool:
    pairs = zip(network.parameters, other.parameters, strict=True)
    return all(torch.allclose(one, two, RTOL, ATOL) for one, two in pairs)
