"""The whole measurement: step times of every case on every workload, start-up, and memory."""

import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from descend.bench.contenders import (
    OURS,
    SCALE,
    Case,
    contenders,
    share_states,
    stepping,
)
from descend.bench.limit import limits, moved_bytes, streams
from descend.bench.peak_memory import StepMemory, step_memory
from descend.bench.startup import StartUp, start_up
from descend.bench.timing import (
    TURN_NS,
    Clock,
    Run,
    Spread,
    measure,
    paired_ratio,
    spread,
)
from descend.bench.workloads import Backward, Workload, parameters
from descend.checkpoint.provenance import processor
from descend.errors import DescendError
from descend.training.thread_count import threads_set

SAMPLE = 4096
"""About how many elements of each tensor are looked at for subnormal numbers."""

CONSTANT = "descend, constant lr"
"""The name of descend's contender without a schedule."""

SMALLEST_LIMIT = 1 << 20
"""Workloads with fewer bytes of parameters have no streaming limit: they live in the caches."""


@dataclass(frozen=True)
class Timing:
    """One contender's step.

    Args:
        contender: `descend`, `torch default`, `torch foreach`, `torch fused`, `limit ...`, or what
            stands beside a user's own rule.
        seconds: One step.
        ratio: How many times as long as descend's step, paired by round. Above 1, descend is
            faster; for the limit it is the share of the limit that descend reaches.
    """

    contender: str
    seconds: Spread
    ratio: Spread


@dataclass(frozen=True)
class StepTimes:
    """All contenders' steps for one case on one workload, measured in one run.

    Args:
        case: The optimizer, by its case's name.
        workload: The model, by name.
        tensors: How many parameter tensors it has.
        parameters: How many parameters it has.
        timings: descend first, then torch's implementations: one step of the optimizer and one of
            its schedule, on new gradient tensors.
        constant: descend's step without a schedule, at a constant lr. Its ratio is how many times
            as long the step with the schedule is.
        limit: The streaming limit; None where there is none to compare with.
        limit_bytes: What the limit reads and writes per step, in bytes; None where there is none.
    """

    case: str
    workload: str
    tensors: int
    parameters: int
    timings: tuple[Timing, ...]
    constant: Timing
    limit: Timing | None
    limit_bytes: int | None

    def timing(self, contender: str) -> Timing | None:
        """Return one contender's timing, or None where it did not take part.

        Args:
            contender: Its name.
        """
        return next((timing for timing in self.timings if timing.contender == contender), None)

    @property
    def best_torch(self) -> Timing | None:
        """The torch contender with the lowest median; None where torch has no such optimizer."""
        theirs = [timing for timing in self.timings if timing.contender not in (OURS, SCALE)]
        return min(theirs, key=lambda timing: timing.seconds.median, default=None)


@dataclass(frozen=True)
class Machine:
    """Where and with what a measurement was taken.

    Args:
        processor: The CPU's model.
        cores: The cores that this process may use.
        threads: The threads that steps use.
        load: The system's load average over the last minute before the run; None where unknown.
        system: The operating system.
        python: Python's version.
        torch: torch's version.
        numba: Numba's version.
        descend: descend's version.
        dtype: The type of the parameters, gradients and states.
    """

    processor: str
    cores: int
    threads: int
    load: float | None
    system: str
    python: str
    torch: str
    numba: str
    descend: str
    dtype: str = "float32"

    @property
    def busy(self) -> bool:
        """Whether other programs used more than half of the cores before the run."""
        return self.load is not None and self.load > self.cores / 2


@dataclass(frozen=True)
class Measurement:
    """Everything that one run of `descend bench` measured.

    Args:
        machine: Where.
        rounds: How many turns each contender took.
        seconds: How long the run took.
        steps: One entry per case and workload.
        start_up: Imports and first steps; None where they were not asked for.
        memory: The extra memory of a step, per contender.
        interrupted: Whether Ctrl-C ended the run: it holds what was measured before.
    """

    machine: Machine
    rounds: int
    seconds: float
    steps: tuple[StepTimes, ...]
    start_up: StartUp | None
    memory: tuple[StepMemory, ...]
    interrupted: bool = False


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
    model = parameters(workload)
    backward = Backward(model)
    runs: dict[str, Run] = {}
    optimizers: list[torch.optim.Optimizer] = []
    ours, *theirs = contenders(case)
    constant = replace(ours, name=CONSTANT)
    for contender in (ours, *theirs, constant):
        optimizer = contender.make(model)
        contender.step_of(optimizer, model)()
        optimizers.append(optimizer)
        share_states(optimizer, owner=optimizers[0])
        whole = contender.step_of if contender is constant else contender.scheduled_step_of
        runs[contender.name] = stepping(whole(optimizer, model), backward, clock)
    # Clipping reads the gradients twice, as does what is not elementwise, and a small model never
    # leaves the caches.
    limited = case.elementwise and not case.clip and workload.nbytes >= SMALLEST_LIMIT
    groups = streams(optimizers[0], model) if limited else None
    bounds = limits(groups, torch.get_num_threads(), clock) if groups else {}
    seconds = measure({**runs, **bounds}, rounds, turn_ns)
    refuse_odd_values(case.name, workload.name, [*model, *states_of(optimizers)])

    def timing(name: str) -> Timing:
        return Timing(name, spread(seconds[name]), paired_ratio(seconds[name], seconds[OURS]))

    bound = min(map(timing, bounds), key=lambda one: one.seconds.median, default=None)
    return StepTimes(
        case=case.name,
        workload=workload.name,
        tensors=workload.tensors,
        parameters=workload.parameters,
        timings=tuple(timing(one.name) for one in (ours, *theirs)),
        constant=Timing(
            CONSTANT, spread(seconds[CONSTANT]), paired_ratio(seconds[OURS], seconds[CONSTANT])
        ),
        limit=bound,
        limit_bytes=moved_bytes(groups) if groups else None,
    )


def run(
    chosen_cases: Sequence[Case],
    chosen_workloads: Sequence[Workload],
    *,
    rounds: int,
    threads: int | None = None,
    start: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> Measurement:
    """Measure everything: each case on each workload, start-up once, memory on the largest model.

    Args:
        chosen_cases: The optimizers.
        chosen_workloads: The models, at least one.
        rounds: How many turns each contender takes on each model, at least 1.
        threads: How many threads steps use; None for torch's own number.
        start: Whether to measure memory and, unless all cases are a user's own, imports and first
            steps, each in new processes.
        progress: Called with a few words before each part: there are `parts(...)` of them.

    Returns:
        What was measured: everything, or after Ctrl-C what was complete by then.

    Raises:
        ValueError: `rounds` is less than 1.
        DescendError: Values became infinite, NaN or subnormal, or a measuring
            process failed.

    Example:
        >>> from descend.bench import WORKLOADS, cases, run
        >>> found = run([cases()["adamw"]], [WORKLOADS["mlp"]], rounds=3, start=False)
        >>> [timing.contender for timing in found.steps[0].timings]
        ['descend', 'torch default', 'torch foreach', 'torch fused']
    """
    began = time.monotonic()
    steps: list[StepTimes] = []
    begin: StartUp | None = None
    memory: list[StepMemory] = []
    interrupted = False
    with threads_set(threads):
        where = machine()
        try:
            for workload in chosen_workloads:
                for case in chosen_cases:
                    progress(f"{case.name} on {workload.name}")
                    steps.append(measure_steps(case, workload, rounds))
            if start:
                if _starts(chosen_cases):
                    progress("imports and first steps")
                    begin = start_up()
                largest = max(chosen_workloads, key=lambda workload: workload.parameters)
                for case in chosen_cases:
                    progress(f"memory of {case.name} on {largest.name}")
                    memory += step_memory(case.name, largest.name, torch.get_num_threads())
        except KeyboardInterrupt:
            interrupted = True
    return Measurement(
        machine=where,
        rounds=rounds,
        seconds=time.monotonic() - began,
        steps=tuple(steps),
        start_up=begin,
        memory=tuple(memory),
        interrupted=interrupted,
    )


def parts(cases: Sequence[Case], workloads: Sequence[Workload], *, start: bool = True) -> int:
    """Return how often `run` calls `progress`.

    Args:
        cases: What it measures.
        workloads: On which models.
        start: As for `run`.
    """
    return len(cases) * len(workloads) + start * (_starts(cases) + len(cases))


def _starts(cases: Sequence[Case]) -> bool:
    """Whether start-up belongs to what was asked for: it is descend's, and not of a user's rule."""
    return any(not case.own for case in cases)


def machine() -> Machine:
    """Describe this machine and the versions in use; threads are torch's at the moment."""
    from importlib.metadata import version

    affinity = getattr(os, "sched_getaffinity", None)
    return Machine(
        processor=processor(),
        cores=len(affinity(0)) if affinity else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        torch=torch.__version__,
        numba=version("numba"),
        descend=version("descend"),
    )


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
