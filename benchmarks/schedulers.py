"""The cost of a scheduler's step, and of torch's: `python benchmarks/schedulers.py`.

A scheduler has no data to read, so its cost is that of its Python. It is paid once per step or
epoch, and once per parameter group: so it is measured with one group and with many, and with the
learning rate as a number and as a tensor.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import click
import torch
from torch.optim import Optimizer

from descend.bench import (
    WORKLOADS,
    Measurement,
    Part,
    Spread,
    Target,
    measure_parts,
    paired_ratio,
    parameters,
    slowest,
    spread,
)
from descend.bench.contenders import OURS, stepping
from descend.bench.timing import MOST_REPEATS, TURN_NS, Clock, TakeSteps, measure
from descend.bench.workloads import Backward
from descend.cli.bench_output import Output, ratio, run_and_print, share, titled
from descend.cli.bench_output import spread as time_of
from descend.cli.options import json_option, option

TORCH, WARMUPS = "torch", "pytorch_warmup"
"""Whose scheduler stands beside descend's."""

REFERENCE = "mlp"
"""The model whose step of AdamW says how much a scheduler's step weighs: 6 tensors."""

LR = 0.1

Step = Callable[[], object]
Build = Callable[[Optimizer, int], Step]
"""From an optimizer and the number of steps to come to the function that takes one."""


@dataclass(frozen=True)
class Form:
    """A thing that a scheduler drives.

    Args:
        name: what the tables call it.
        groups: how many parameter groups there are.
        tensor: whether each learning rate is a tensor.
        least: how many times as long torch's step takes, as promised.
    """

    name: str
    groups: int
    tensor: bool
    least: float


# With one group up to 1.5 times torch's microseconds are the price of one path through every step.
FORMS = (
    Form("1 group", 1, False, 1 / 1.5),
    Form("50 groups", 50, False, 1),
    Form("1 group, lr a tensor", 1, True, 1 / 1.5),
    Form("50 groups, lr a tensor", 50, True, 1),
)
"""All that are measured. A step's share of AdamW's is told of the first."""


@dataclass(frozen=True)
class SchedulerCase:
    """A scheduler of descend, and what stands beside it.

    Args:
        name: the class, or what is put together.
        ours: builds descend's.
        theirs: builds the other.
        beside: whose the other is.
        optimizer: the class of the optimizer; each side has its own library's.
        tensors: whether the other works where the learning rate is a tensor.
    """

    name: str
    ours: Build
    theirs: Build
    beside: str = TORCH
    optimizer: str = "SGD"
    tensors: bool = True


@dataclass(frozen=True)
class SchedulerTimes:
    """One step of a scheduler and of the one beside it, measured in one run.

    Args:
        case: the scheduler, by its case's name.
        form: what it drives, by its form's name.
        groups: how many parameter groups.
        tensor: whether each learning rate is a tensor.
        beside: whose the other scheduler is.
        ours: one step of descend's, in seconds.
        theirs: one step of the other, in seconds.
        ratio: theirs over ours, paired by round: above 1, descend is faster.
        share: ours over a step of descend's AdamW on 6 tensors, paired by round; None where it was
            not measured.
    """

    case: str
    form: str
    groups: int
    tensor: bool
    beside: str
    ours: Spread
    theirs: Spread
    ratio: Spread
    share: Spread | None


def scheduler_cases() -> list[SchedulerCase]:
    """Every scheduler of torch by name, what is put together of them, and the warmups.

    Returns:
        The cases; those of pytorch_warmup only where it is installed.
    """
    found = [_pair(name, partial(_named, name)) for name in OPTIONS]
    found += [_pair("SequentialLR of three", _sequence), _pair("ChainedScheduler of two", _chain)]
    found.append(SchedulerCase("Scheduler(warmup >> cosine)", _native, _warmup_cosine))
    if find_spec(WARMUPS) is not None:
        found += [
            SchedulerCase(
                name,
                partial(_dampened, name, "descend.warmup", OURS),
                partial(_dampened, name, WARMUPS, TORCH),
                beside=WARMUPS,
                optimizer="AdamW",
                tensors=False,
            )
            for name in WARMUP_OPTIONS
        ]
    return found


def measure_scheduler(
    case: SchedulerCase,
    form: Form,
    rounds: int,
    *,
    turn_ns: int = TURN_NS,
    clock: Clock = time.perf_counter_ns,
) -> SchedulerTimes:
    """Time one scheduler's step beside the other's.

    Every schedule is as long as the run, so that none is at its end, where a step is cheaper.

    Args:
        case: the scheduler.
        form: what it drives.
        rounds: how many turns each contender takes, at least 1.
        turn_ns: the length of a turn in nanoseconds.
        clock: the time in nanoseconds.

    Raises:
        ValueError: `rounds` is less than 1.
    """
    steps = (rounds + 1) * (MOST_REPEATS + 1)
    runs: dict[str, TakeSteps] = {}
    for name, library, build in ((OURS, OURS, case.ours), (case.beside, TORCH, case.theirs)):
        optimizer = _optimizer(library, case.optimizer, form)
        step = build(optimizer, steps)
        optimizer.step()  # without gradients it does nothing, but torch's warn where it is left out
        runs[name] = _stepping(step, clock)
    if form == FORMS[0]:
        model = parameters(WORKLOADS[REFERENCE])
        runs["AdamW"] = stepping(_class(OURS, "AdamW")(model).step, Backward(model), clock)
    seconds = measure(runs, rounds, turn_ns)
    return SchedulerTimes(
        case=case.name,
        form=form.name,
        groups=form.groups,
        tensor=form.tensor,
        beside=case.beside,
        ours=spread(seconds[OURS]),
        theirs=spread(seconds[case.beside]),
        ratio=paired_ratio(seconds[case.beside], seconds[OURS]),
        share=paired_ratio(seconds[OURS], seconds["AdamW"]) if "AdamW" in seconds else None,
    )


def scheduler_parts(cases: Sequence[SchedulerCase], rounds: int) -> list[Part]:
    """Return the parts of the measurement: schedulers in all forms.

    Args:
        cases: which schedulers.
        rounds: how many turns each contender takes, at least 1.
    """
    return [
        (f"{case.name}, {form.name}", partial(measure_scheduler, case, form, rounds))
        for form in FORMS
        for case in cases
        if case.tensors or not form.tensor
    ]


def scheduler_targets(measurement: Measurement) -> list[Target]:
    """Compare a measurement with what is promised: how slow a scheduler's step is at the most.

    Args:
        measurement: of `scheduler_parts`.

    Returns:
        One target for each form, of the scheduler of torch's that descend's is least ahead of. The
        warmups of pytorch_warmup are measured, and nothing is promised of them.
    """
    rows = [one for one in measurement.of(SchedulerTimes) if one.beside == TORCH]
    return [
        slowest(
            f"a scheduler's step, {form.name}, the slowest",
            {one.case: one.ratio for one in rows if one.form == form.name},
            form.least,
        )
        for form in FORMS
    ]


def scheduler_entries(measurement: Measurement) -> Mapping[str, Any]:
    """Return the results as plain data.

    Args:
        measurement: of `scheduler_parts`.
    """
    return {"schedulers": [asdict(one) for one in measurement.of(SchedulerTimes)]}


def scheduler_tables(measurement: Measurement) -> Iterator[list[str]]:
    """Return the tables of the steps.

    Args:
        measurement: of `scheduler_parts`.
    """
    found = measurement.of(SchedulerTimes)
    for form in dict.fromkeys(one.form for one in found):
        rows = [one for one in found if one.form == form]
        columns, notes = ["scheduler", "descend", "torch", "torch over descend"], []
        if any(one.share for one in rows):
            columns.append("share of AdamW")
            notes.append("the share is descend's, of a step of its AdamW on 6 tensors")
        if any(one.beside != "torch" for one in rows):
            notes.append("in brackets: what stands in the place of torch")
        yield titled(
            f"one step of a scheduler, {form}",
            columns,
            [_scheduler_row(one)[: len(columns)] for one in rows],
            *notes,
        )


def _scheduler_row(one: SchedulerTimes) -> list[str]:
    name = one.case if one.beside == "torch" else f"{one.case} ({one.beside})"
    return [name, time_of(one.ours), time_of(one.theirs), ratio(one.ratio), share(one.share)]


def _stepping(step: Step, clock: Clock) -> TakeSteps:
    """Take steps and time them all together: one is about as short as reading the clock."""

    def run(count: int) -> int:
        start = clock()
        for _ in range(count):
            step()
        return clock() - start

    return run


def _optimizer(library: str, name: str, form: Form) -> Optimizer:
    def lr() -> float | torch.Tensor:
        return torch.tensor(LR) if form.tensor else LR

    groups = [
        {"params": [torch.nn.Parameter(torch.ones(1))], "lr": lr()} for _ in range(form.groups)
    ]
    options = {"momentum": 0.9} if name == "SGD" else {}
    optimizer: Optimizer = _class(library, name)(groups, **options)
    return optimizer


def _class(library: str, name: str, part: str = "") -> Any:
    """A class of descend, or of the same place in torch.optim."""
    root = "torch.optim" if library == TORCH else library
    return getattr(import_module(f"{root}{part}"), name)


def _pair(name: str, build: Callable[[str, Optimizer, int], Step]) -> SchedulerCase:
    """The same of both libraries."""
    return SchedulerCase(name, partial(build, OURS), partial(build, TORCH))


def _named(name: str, library: str, optimizer: Optimizer, steps: int) -> Step:
    part = ".swa_utils" if name == "SWALR" else ".lr_scheduler"
    scheduler = _class(library, name, part)(optimizer, **OPTIONS[name](steps))
    if name == "ReduceLROnPlateau":
        return partial(scheduler.step, 1.0)
    step: Step = scheduler.step
    return step


OPTIONS: dict[str, Callable[[int], dict[str, Any]]] = {
    "LambdaLR": lambda steps: {"lr_lambda": lambda step: 1.0 - 0.5 * step / steps},
    "MultiplicativeLR": lambda steps: {"lr_lambda": lambda step: 1.0 - 1.0 / steps},
    "StepLR": lambda steps: {"step_size": steps // 4},
    "MultiStepLR": lambda steps: {"milestones": [steps // 3, 2 * steps // 3]},
    "ConstantLR": lambda steps: {"total_iters": steps},
    "LinearLR": lambda steps: {"total_iters": steps},
    "ExponentialLR": lambda steps: {"gamma": 0.01 ** (1 / steps)},
    "PolynomialLR": lambda steps: {"total_iters": steps, "power": 2.0},
    "CosineAnnealingLR": lambda steps: {"T_max": steps},
    "CosineAnnealingWarmRestarts": lambda steps: {"T_0": steps // 7, "T_mult": 2},
    "CyclicLR": lambda steps: {"base_lr": 0.01, "max_lr": LR, "step_size_up": steps // 8},
    "OneCycleLR": lambda steps: {"max_lr": LR, "total_steps": steps},
    "ReduceLROnPlateau": lambda steps: {"patience": steps},
    "SWALR": lambda steps: {"swa_lr": 0.01, "anneal_epochs": steps},
}
"""The arguments of each of torch's schedulers, for so many steps."""

WARMUP_OPTIONS: dict[str, Callable[[int], dict[str, Any]]] = {
    "LinearWarmup": lambda steps: {"warmup_period": steps},
    "ExponentialWarmup": lambda steps: {"warmup_period": steps},
    "UntunedLinearWarmup": lambda steps: {},
    "UntunedExponentialWarmup": lambda steps: {},
    "RAdamWarmup": lambda steps: {},
}
"""The same of pytorch_warmup's."""


def _sequence(library: str, optimizer: Optimizer, steps: int) -> Step:
    part, third = partial(_class, library, part=".lr_scheduler"), steps // 3
    schedulers = [
        part("LinearLR")(optimizer, 0.1, 1.0, third),
        part("CosineAnnealingLR")(optimizer, third),
        part("ExponentialLR")(optimizer, 0.01 ** (1 / third)),
    ]
    step: Step = part("SequentialLR")(optimizer, schedulers, [third, 2 * third]).step
    return step


def _chain(library: str, optimizer: Optimizer, steps: int) -> Step:
    part = partial(_class, library, part=".lr_scheduler")
    schedulers = [
        part("LinearLR")(optimizer, 0.1, 1.0, steps),
        part("ExponentialLR")(optimizer, 0.01 ** (1 / steps)),
    ]
    step: Step = part("ChainedScheduler")(schedulers).step
    return step


def _native(optimizer: Optimizer, steps: int) -> Step:
    from descend.lr_scheduler import Scheduler
    from descend.schedules import cosine, warmup

    rise = steps // 2
    return Scheduler(optimizer, lr=warmup(rise) >> cosine(steps - rise)).step


def _warmup_cosine(optimizer: Optimizer, steps: int) -> Step:
    """The same as `_native`, of torch."""
    part, rise = partial(_class, TORCH, part=".lr_scheduler"), steps // 2
    schedulers = [
        part("LinearLR")(optimizer, 1e-8, 1.0, rise),
        part("CosineAnnealingLR")(optimizer, steps - rise),
    ]
    step: Step = part("SequentialLR")(optimizer, schedulers, [rise]).step
    return step


def _dampened(name: str, warmups: str, library: str, optimizer: Optimizer, steps: int) -> Step:
    """A warmup around a scheduler, in the way that both libraries document."""
    scheduler = _class(library, "CosineAnnealingLR", ".lr_scheduler")(optimizer, steps)
    warmup = getattr(import_module(warmups), name)(optimizer, **WARMUP_OPTIONS[name](steps))

    def step() -> None:
        with warmup.dampening():
            scheduler.step()

    return step


@click.command()
@option(
    "--rounds",
    default=21,
    help="How many turns each side takes. More give narrower spreads.",
)
@option(
    "--threads",
    help="How many threads AdamW's steps use. torch's own number by default.",
)
@json_option
def main(rounds: int, threads: int | None, as_json: bool) -> None:
    """Measure what a scheduler's step costs: a minute.

    Each scheduler that torch has, with 1 and with 50 parameter groups, and the learning rates
    numbers and tensors: beside torch's of the same name, beside pytorch_warmup's where that is
    installed, and as a share of a step of AdamW on 6 tensors. The two sides take turns.

    Ctrl-C ends the run; what was measured before it is printed.
    """
    parts = scheduler_parts(scheduler_cases(), rounds)
    output = Output(
        scheduler_entries,
        scheduler_targets,
        scheduler_tables,
        SchedulerTimes,
        ("pair of a scheduler and what it drives", "pairs of a scheduler and what it drives"),
    )
    run = partial(measure_parts, parts, rounds=rounds, threads=threads)
    sys.exit(run_and_print(run, len(parts), output, as_json, len(parts)))


if __name__ == "__main__":
    main()
