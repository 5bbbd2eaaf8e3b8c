"""Steps where something changes from one to the next, beside torch's."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch

from descend.bench.changes import LINEAR, USUAL, Change, Network
from descend.bench.contenders import OURS, Case, Contender, contenders, stepping
from descend.bench.contenders import cases as contenders_cases
from descend.bench.suite import Machine, Timing, machine, refuse_odd_values
from descend.bench.targets import Target
from descend.bench.timing import TURN_NS, Clock, Run, Spread, measure, paired_ratio, spread
from descend.bench.workloads import Workload
from descend.training.thread_count import threads_set

DEFAULT = "torch default"
"""Whose values are right."""

FIRST_STEP = 20e-6
"""Promised: seconds of the first step, a tensor."""

RTOL, ATOL = 1e-3, 1e-5
"""How near values are that are the same but for rounding, after so few steps."""


@dataclass(frozen=True)
class ChangeTimes:
    """All contenders' steps for one case where one thing changes, measured in one run.

    Args:
        change: What changes, by name.
        about: The same in a few words.
        workload: The model, by name.
        case: The optimizer, by its case's name.
        tensors: How many parameter tensors the model has.
        timings: descend first, then torch's implementations: a mean over steps.
        wrong: The contenders that compute other values than torch's default: torch's among them
            are no measure and stand in no timing.
        first: Whether each step was the first of a new optimizer.
    """

    change: str
    about: str
    workload: str
    case: str
    tensors: int
    timings: tuple[Timing, ...]
    wrong: tuple[str, ...]
    first: bool = False

    @property
    def best_torch(self) -> Timing | None:
        """The fastest of torch's contenders; None where torch has no such optimizer."""
        return min(self.timings[1:], key=lambda timing: timing.seconds.median, default=None)

    @property
    def seconds_per_tensor(self) -> Spread:
        """Descend's time, divided by the number of tensors."""
        own = self.timings[0].seconds
        return Spread(*(value / self.tensors for value in (own.median, own.low, own.high)))


@dataclass(frozen=True)
class ChangingMeasurement:
    """Everything that one run of `descend bench --changing` measured.

    Args:
        machine: Where.
        rounds: How many turns each contender took.
        seconds: How long the run took.
        changes: One entry per change, workload and case.
        interrupted: Whether Ctrl-C ended the run: it holds what was measured before.
    """

    machine: Machine
    rounds: int
    seconds: float
    changes: tuple[ChangeTimes, ...]
    interrupted: bool = False


Part = tuple[Change, Workload, Case]


def changing_parts(changes: Sequence[Change], cases: Sequence[Case]) -> list[Part]:
    """List what `run_changing` measures, in its order.

    Args:
        changes: Which.
        cases: With which optimizers, each as far as the change is measured with it; none for the
            `USUAL` ones.
    """
    known = contenders_cases()
    return [
        (change, workload, case)
        for change in changes
        for workload in change.workloads
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
    networks: dict[str, Network] = {}
    runs: dict[str, Run] = {}
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


def run_changing(
    parts: Sequence[Part],
    *,
    rounds: int,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> ChangingMeasurement:
    """Measure steps where something changes.

    Args:
        parts: What `changing_parts` returned.
        rounds: How many turns each contender takes in each part, at least 1.
        threads: How many threads steps use; None for torch's own number.
        progress: Called with a few words before each part.

    Returns:
        What was measured: everything, or after Ctrl-C what was complete by then.

    Raises:
        ValueError: `rounds` is less than 1.
        DescendError: Values became infinite, NaN or subnormal.
    """
    began, interrupted = time.monotonic(), False
    found: list[ChangeTimes] = []
    with threads_set(threads):
        where = machine()
        try:
            for change, workload, case in parts:
                progress(f"{change.about}, {workload.name}, {case.name}")
                found.append(measure_change(change, workload, case, rounds))
        except KeyboardInterrupt:
            interrupted = True
    return ChangingMeasurement(
        machine=where,
        rounds=rounds,
        seconds=time.monotonic() - began,
        changes=tuple(found),
        interrupted=interrupted,
    )


def changing_targets(measurement: ChangingMeasurement) -> list[Target]:
    """Compare a measurement with what is promised: nothing is slower than the best of torch.

    Args:
        measurement: What `run_changing` returned.

    Returns:
        The change that descend is least ahead with, on each model and on all that have but one; and
        the longest first step, a tensor.
    """
    rows = measurement.changes
    sizes = [workload.name for workload in LINEAR]
    firsts = [one.seconds_per_tensor for one in rows if one.first]
    return [
        *(_slowest(size, [one for one in rows if one.workload == size]) for size in sizes),
        _slowest("other models", [one for one in rows if one.workload not in sizes]),
        Target(
            "the first step, a tensor",
            FIRST_STEP,
            "s",
            max(firsts, key=lambda one: one.median, default=None),
        ),
    ]


def _slowest(where: str, rows: Sequence[ChangeTimes]) -> Target:
    ratios = {
        (one.case, one.change): one.best_torch.ratio for one in rows if one.best_torch is not None
    }
    # By the upper quartile, because that is what the target is compared with.
    slowest = min(ratios, key=lambda row: ratios[row].high, default=None)
    return Target(
        f"the slowest of all, {where}, against torch's best",
        1,
        "x",
        ratios[slowest] if slowest else None,
        within_noise=True,
        of=(", ".join(slowest),) if slowest else (),
    )


def _steps(change: Change, contender: Contender, network: Network, clock: Clock) -> Run:
    """The steps of one optimizer."""
    optimizer = contender.make(_given(change, network))
    whole = contender.scheduled_step_of if change.scheduled else contender.step_of
    numbers = count()
    return stepping(
        whole(optimizer, network.parameters),
        lambda: change.before(network, next(numbers)),
        clock,
    )


def _first_steps(change: Change, contender: Contender, network: Network, clock: Clock) -> Run:
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
