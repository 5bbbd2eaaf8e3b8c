"""The figures that descend promises, and whether the machine at hand has them."""

from collections.abc import Sequence
from statistics import geometric_mean

from descend.bench.changes import LINEAR
from descend.bench.changing import ChangeTimes
from descend.bench.contenders import cases
from descend.bench.measurement import AT_MOST, Measurement, Target, slowest
from descend.bench.startup import StartUp
from descend.bench.suite import CONSTANT, LIMIT, StepTimes
from descend.bench.timing import Spread

SIZES = {"mlp": "6 tensors", "convnet": "450 tensors", "transformer": "160 tensors", "wide": "42 M"}
"""The names of the workloads in the targets."""

UNFUSED = {"mlp": 6.0, "convnet": 4.0, "wide": 2.5}
"""The geometric means promised over the optimizers that torch has not fused."""

FIRST_STEP = 20e-6
"""Promised: seconds of the first step, a tensor."""

DEFAULT, FUSED, BEST = "torch default", "torch fused", "torch's best"
OTHER = "the best other"
"""torch's best, or the published one of what torch has not."""

PROMISES = (
    ("adamw", "mlp", f"against {DEFAULT}", 8, "x", DEFAULT),
    ("adamw", "mlp", f"against {FUSED}", 3.5, "x", FUSED),
    ("adamw", "mlp", "with a schedule over a constant lr", 1.3, AT_MOST, CONSTANT),
    ("adamw", "convnet", f"against {DEFAULT}", 6, "x", DEFAULT),
    ("adamw", "convnet", f"against {FUSED}", 2, "x", FUSED),
    ("adamw", "wide", f"against {FUSED}", 1, "x", FUSED),
    ("adamw", "wide", "share of the streaming limit", 0.9, "x", LIMIT),
    ("adamw-clip", "wide", f"against {FUSED}", 1.3, "x", FUSED),
    ("rmsprop", "wide", f"against {BEST}", 2, "x", BEST),
)
"""Of a case on a workload: the comparison, the figure, its unit, and the contender beside it. One
that is promised to be no slower may be so within noise."""


def targets(measurement: Measurement) -> list[Target]:
    """Compare a measurement of steps with everything that is promised.

    Args:
        measurement: Of `step_parts`, of whichever cases and workloads.

    Returns:
        All targets, in a fixed order, those not measured included.
    """
    steps = {(one.case, one.workload): one for one in measurement.of(StepTimes)}
    start = next(iter(measurement.of(StartUp)), None)
    found = []
    for case, workload, what, figure, unit, beside in PROMISES:
        ratio = _ratio(steps.get((case, workload)), beside)
        name = f"{case}, {SIZES[workload]}, {what}"
        found.append(Target(name, figure, unit, ratio, within_noise=figure == 1))
    whole = {workload: _elementwise(measurement.of(StepTimes), workload) for workload in SIZES}
    return [
        *found,
        *(_unfused(whole[workload], workload, least) for workload, least in UNFUSED.items()),
        *(
            slowest(
                f"the slowest of all, {SIZES[workload]}, against {OTHER}",
                {one.case: one.best_other.ratio for one in rows if one.best_other},
            )
            for workload, rows in whole.items()
        ),
        Target("first step, cold", 2, "s", start.first_step_cold if start else None),
        Target("first step, cached", 0.6, "s", start.first_step_cached if start else None),
        Target(
            "import descend after import torch", 0.1, "s", start.import_descend if start else None
        ),
    ]


def changing_targets(measurement: Measurement) -> list[Target]:
    """Compare a measurement of changes with what is promised: none is slower than the best other.

    Args:
        measurement: Of `changing_parts`.

    Returns:
        The change that descend is least ahead with, on each model and on all that have but one; and
        the longest first step, a tensor.
    """
    rows = measurement.of(ChangeTimes)
    sizes = [workload.name for workload in LINEAR]
    firsts = [one.seconds_per_tensor for one in rows if one.first]
    longest = max(firsts, key=lambda one: one.median, default=None)
    by_model = {size: [one for one in rows if one.workload == size] for size in sizes}
    by_model["other models"] = [one for one in rows if one.workload not in sizes]
    return [
        *(
            slowest(
                f"the slowest of all, {where}, against {OTHER}",
                {
                    f"{one.case}, {one.change}": one.best_other.ratio
                    for one in some
                    if one.best_other
                },
            )
            for where, some in by_model.items()
        ),
        Target("the first step, a tensor", FIRST_STEP, "s", longest),
    ]


def _ratio(steps: StepTimes | None, beside: str) -> Spread | None:
    if steps is None:
        return None
    timing = steps.best_other if beside == BEST else steps.timing(beside)
    return timing.ratio if timing else None


def _unfused(rows: Sequence[StepTimes], workload: str, least: float) -> Target:
    """The geometric mean of torch's best over descend, where torch has no fused form."""
    bests = {
        one.case: one.best_other.ratio
        for one in rows
        if one.best_other and one.timing(DEFAULT) and not one.timing(FUSED)
    }
    # Of medians and of quartiles: as if all were slow, or fast, at once
    mean = (
        Spread(
            *(
                geometric_mean(getattr(one, quartile) for one in bests.values())
                for quartile in ("median", "low", "high")
            )
        )
        if bests
        else None
    )
    name = f"unfused in torch, {SIZES[workload]}, geometric mean against {BEST}"
    return Target(name, least, "x", mean, of=tuple(bests))


def _elementwise(rows: Sequence[StepTimes], workload: str) -> list[StepTimes]:
    """The steps of every elementwise case; none where the run left one out."""
    found = {one.case: one for one in rows if one.workload == workload}
    wanted = [case.name for case in cases().values() if case.elementwise]
    return [found[name] for name in wanted] if found.keys() >= {*wanted} else []
