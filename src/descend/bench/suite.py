"""The steps of optimizers beside torch's, with start-up and memory, as `descend bench` has them."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from descend.bench.contenders import OURS, SCALE, Case, contenders, share_states, stepping
from descend.bench.limit import limits, moved_bytes, read_before, streams
from descend.bench.measurement import Part
from descend.bench.peak_memory import StepMemory, step_memory
from descend.bench.startup import start_up
from descend.bench.timing import TURN_NS, Clock, Spread, TakeSteps, measure, paired_ratio, spread
from descend.bench.workloads import Backward, Workload, parameters
from descend.errors import DescendError

SAMPLE = 4096
"""About how many elements of each tensor are looked at for subnormal numbers."""

CONSTANT = "descend, constant lr"
"""The name of descend's contender without a schedule."""

LIMIT = "streaming limit"
"""The name of what no optimizer can be faster than."""

SMALLEST_LIMIT = 1 << 20
"""Workloads with fewer bytes of parameters have no streaming limit: they live in the caches."""


@dataclass(frozen=True)
class Timing:
    """One contender's step.

    Args:
        contender: `descend`, `torch default`, `torch foreach`, `torch fused`, `published`,
            `limit ...`, or what stands beside a user's own rule.
        seconds: One step.
        ratio: How many times as long as descend's step, paired by round. Above 1, descend is
            faster; for the limit it is the share of the limit that descend reaches.
    """

    contender: str
    seconds: Spread
    ratio: Spread


@dataclass(frozen=True)
class CaseTimes:
    """All contenders' steps for one case on one workload, measured in one run.

    Args:
        case: The optimizer, by its case's name.
        workload: The model, by name.
        tensors: How many parameter tensors it has.
        timings: descend first, then torch's implementations, or the published one.
    """

    case: str
    workload: str
    tensors: int
    timings: tuple[Timing, ...]

    def timing(self, contender: str) -> Timing | None:
        """Return one contender's timing, or None where it did not take part.

        Args:
            contender: Its name.
        """
        return next((timing for timing in self.timings if timing.contender == contender), None)

    @property
    def best_other(self) -> Timing | None:
        """The contender with the lowest median but descend; None where no other has one such."""
        theirs = [timing for timing in self.timings if timing.contender not in (OURS, SCALE)]
        return min(theirs, key=lambda timing: timing.seconds.median, default=None)

    def as_entry(self) -> dict[str, Any]:
        """Return the fields as plain data; `best_other` by its name, or None."""
        return {**asdict(self), "best_other": self.best_other and self.best_other.contender}


@dataclass(frozen=True)
class StepTimes(CaseTimes):
    """One step of the optimizer and one of its schedule, on new gradient tensors.

    Args:
        parameters: How many parameters the model has.
        constant: descend's step without a schedule, at a constant lr. Its ratio is how many times
            as long the step with the schedule is.
        limit: The streaming limit; None where there is none to compare with.
        limit_bytes: What the limit reads and writes per step, in bytes; None where there is none.
    """

    parameters: int
    constant: Timing
    limit: Timing | None
    limit_bytes: int | None

    def timing(self, contender: str) -> Timing | None:
        """Return one contender's timing, of `CONSTANT` and `LIMIT` too."""
        if contender == LIMIT:
            return self.limit
        return self.constant if contender == CONSTANT else super().timing(contender)


def measure_steps(
    case: Case,
    workload: Workload,
    rounds: int,
    *,
    turn_ns: int = TURN_NS,
    clock: Clock = time.perf_counter_ns,
) -> StepTimes:
    """Time one case on one workload: descend, torch's implementations and the streaming limit.

    A step is what a training runs between `backward` and the next batch: `optimizer.step()` and
    `scheduler.step()`, on gradient tensors that are new in every step (`Backward` says how), each
    with the schedule of its own library. All of them step the same parameters with the same
    gradients and keep their states in the same memory, so that none has better pages than another.

    Args:
        case: The optimizer and its options.
        workload: The parameters' shapes.
        rounds: How many turns each contender takes, at least 1.
        turn_ns: The length of a turn in nanoseconds, where a step is shorter.
        clock: The time in nanoseconds.

    Raises:
        ValueError: `rounds` is less than 1.
        DescendError: Values became infinite, NaN or subnormal, which would have distorted times.
    """
    workload = case.of(workload)
    model = parameters(workload)
    backward = Backward(model)
    runs: dict[str, TakeSteps] = {}
    optimizers: list[torch.optim.Optimizer] = []
    ours, *theirs = contenders(case)
    constant = replace(ours, name=CONSTANT)
    for contender in (ours, *theirs, constant):
        optimizer = contender.make(model)
        contender.step_of(optimizer, model)()
        optimizers.append(optimizer)
        share_states(optimizer, owner=optimizers[0])
        step = contender.step_of(optimizer, model, scheduled=contender is not constant)
        runs[contender.name] = stepping(step, backward, clock)
    # Clipping reads the gradients twice, as does what is not elementwise, and a small model never
    # leaves the caches.
    limited = case.elementwise and not case.clip and workload.nbytes >= SMALLEST_LIMIT
    groups = streams(optimizers[0], model) if limited else None
    read = read_before(case.kind.rule, optimizers[0]) if groups else ()
    bounds = limits(groups, torch.get_num_threads(), clock, read) if groups else {}
    seconds = measure({**runs, **bounds}, rounds, turn_ns)
    refuse_odd_values(case.name, workload.name, [*model, *states_of(optimizers)])

    def timing(name: str) -> Timing:
        return Timing(name, spread(seconds[name]), paired_ratio(seconds[name], seconds[OURS]))

    return StepTimes(
        case=case.name,
        workload=workload.name,
        tensors=workload.tensors,
        parameters=workload.parameters,
        timings=tuple(timing(one.name) for one in (ours, *theirs)),
        constant=Timing(
            CONSTANT, spread(seconds[CONSTANT]), paired_ratio(seconds[OURS], seconds[CONSTANT])
        ),
        limit=min(map(timing, bounds), key=lambda one: one.seconds.median, default=None),
        limit_bytes=moved_bytes(groups, read) if groups else None,
    )


def step_parts(
    cases: Sequence[Case], workloads: Sequence[Workload], rounds: int, *, start: bool = True
) -> list[Part]:
    """Return the parts of the whole measurement.

    Args:
        cases: The optimizers.
        workloads: The models on which each is measured, at least one.
        rounds: How many turns each contender takes on each model, at least 1.
        start: Whether to measure memory, on the largest model, and, unless all cases are a user's
            own, imports and first steps, each in new processes.
    """
    parts: list[Part] = [
        (f"{case.name} on {model.name}", partial(measure_steps, case, model, rounds))
        for model in workloads
        for case in cases
    ]
    if start:
        if any(not case.own for case in cases):  # start-up is descend's, not of a user's rule
            parts.append(("imports and first steps", start_up))
        largest = max(workloads, key=lambda model: model.parameters).name
        parts += [
            (f"memory of {case.name} on {largest}", partial(_memory_of, case, largest))
            for case in cases
        ]
    return parts


def _memory_of(case: Case, workload: str) -> list[StepMemory]:
    return step_memory(case.name, workload, torch.get_num_threads())


def states_of(optimizers: Iterable[torch.optim.Optimizer]) -> Iterator[torch.Tensor]:
    """Yield every tensor that optimizers keep.

    Args:
        optimizers: Which.
    """
    for optimizer in optimizers:
        for states in optimizer.state.values():
            yield from (value for value in states.values() if isinstance(value, torch.Tensor))


def refuse_odd_values(case: str, workload: str, tensors: Iterable[torch.Tensor]) -> None:
    """Refuse values whose arithmetic takes longer or shorter than that of ordinary ones.

    Args:
        case: The optimizer, by its case's name.
        workload: The model, by name.
        tensors: Parameters and states at the end.

    Raises:
        DescendError: Some are infinite, NaN or subnormal.
    """
    for tensor in tensors:
        # Single numbers are the host's: one that decays to nothing slows no kernel down.
        if not tensor.is_floating_point() or not tensor.dim():
            continue
        values = tensor.detach().reshape(-1)
        # A NaN is the least and the greatest of its tensor. Subnormal numbers are looked for in a
        # sample: all elements have gradients of much the same magnitude.
        least, greatest = values.aminmax()
        sample = values[:: max(1, values.numel() // SAMPLE)].abs()
        tiny = torch.finfo(values.dtype).tiny
        finite = math.isfinite(least) and math.isfinite(greatest)
        if not finite or bool(((sample > 0) & (sample < tiny)).any()):
            raise DescendError(
                f"bench: {case} left infinite, NaN or subnormal values on {workload}, "
                "so its times mean nothing; use fewer --rounds"
            )
