"""What `descend bench` has to show on the machine at hand, and whether it does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import geometric_mean

from descend.bench.contenders import cases
from descend.bench.suite import Measurement, StepTimes, Timing
from descend.bench.timing import Spread

SIZES = {"mlp": "6 tensors", "convnet": "450 tensors", "transformer": "160 tensors", "wide": "42 M"}
"""What the targets call the workloads."""

UNFUSED = {"mlp": 6.0, "convnet": 4.0, "wide": 2.5}
"""The geometric means promised over the optimizers that torch has not fused."""

AT_MOST = "x at most"
"""The unit of a ratio that must not be above its target."""

Rows = Mapping[tuple[str, str], StepTimes]
"""All step times by case and workload."""


@dataclass(frozen=True)
class Target:
    """One figure that descend promises.

    Args:
        name: What is compared with what.
        target: The promised figure: a ratio, or seconds.
        unit: `x` for a ratio that has to be at least the target, `AT_MOST` for one that must not be
            above it, `s` for seconds that have to be less.
        measured: What was measured; None where the run did not hold it.
        within_noise: Whether the target counts as met where the upper quartile reaches it.
        of: The optimizers that the figure is of, where its name does not tell.
    """

    name: str
    target: float
    unit: str
    measured: Spread | None
    within_noise: bool = False
    of: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """`met`, `missed` or `not measured`."""
        if self.measured is None:
            return "not measured"
        if self.unit == "s":
            return "met" if self.measured.median < self.target else "missed"
        if self.unit == AT_MOST:
            return "met" if self.measured.median <= self.target else "missed"
        reached = self.measured.high if self.within_noise else self.measured.median
        return "met" if reached >= self.target else "missed"


def targets(measurement: Measurement) -> list[Target]:
    """Compare a measurement with everything that is promised.

    Args:
        measurement: What `run` returned, of whichever cases and workloads.

    Returns:
        All targets, in a fixed order, those not measured included.
    """
    by_name: Rows = {(steps.case, steps.workload): steps for steps in measurement.steps}

    def ratio(
        case: str, workload: str, choose: Callable[[StepTimes], Timing | None]
    ) -> Spread | None:
        steps = by_name.get((case, workload))
        timing = choose(steps) if steps else None
        return timing.ratio if timing else None

    start = measurement.start_up
    default, fused = _contender("torch default"), _contender("torch fused")
    return [
        Target("adamw, 6 tensors, against torch default", 8, "x", ratio("adamw", "mlp", default)),
        Target("adamw, 6 tensors, against torch fused", 3.5, "x", ratio("adamw", "mlp", fused)),
        Target(
            "adamw, 6 tensors, with a schedule over a constant lr",
            1.3,
            AT_MOST,
            ratio("adamw", "mlp", lambda steps: steps.constant),
        ),
        Target(
            "adamw, 450 tensors, against torch default", 6, "x", ratio("adamw", "convnet", default)
        ),
        Target("adamw, 450 tensors, against torch fused", 2, "x", ratio("adamw", "convnet", fused)),
        Target(
            "adamw, 42 M, against torch fused",
            1,
            "x",
            ratio("adamw", "wide", fused),
            within_noise=True,
        ),
        Target(
            "adamw, 42 M, share of the streaming limit",
            0.9,
            "x",
            ratio("adamw", "wide", lambda steps: steps.limit),
        ),
        Target(
            "adamw-clip, 42 M, against torch fused",
            1.3,
            "x",
            ratio("adamw-clip", "wide", fused),
        ),
        Target(
            "rmsprop, 42 M, against torch's best",
            2,
            "x",
            ratio("rmsprop", "wide", lambda steps: steps.best_torch),
        ),
        *(_unfused(by_name, workload, least) for workload, least in UNFUSED.items()),
        *(_slowest(by_name, workload) for workload in SIZES),
        Target("first step, cold", 2, "s", start.first_step_cold if start else None),
        Target("first step, cached", 0.6, "s", start.first_step_cached if start else None),
        Target(
            "import descend after import torch", 0.1, "s", start.import_descend if start else None
        ),
    ]


def _unfused(rows: Rows, workload: str, least: float) -> Target:
    """The geometric mean of torch's best over descend, where torch has no fused form."""
    bests = {
        steps.case: steps.best_torch.ratio
        for steps in _elementwise(rows, workload)
        if steps.best_torch and not steps.timing("torch fused")
    }
    return Target(
        f"unfused in torch, {SIZES[workload]}, geometric mean against torch's best",
        least,
        "x",
        _mean(list(bests.values())),
        of=tuple(bests),
    )


def _slowest(rows: Rows, workload: str) -> Target:
    """The optimizer that is least ahead of torch's best; if any is behind, this one is."""
    bests = {
        steps.case: steps.best_torch.ratio
        for steps in _elementwise(rows, workload)
        if steps.best_torch
    }
    # By the upper quartile, because that is what the target is compared with.
    slowest = min(bests, key=lambda case: bests[case].high, default=None)
    return Target(
        f"the slowest of all, {SIZES[workload]}, against torch's best",
        1,
        "x",
        bests[slowest] if slowest else None,
        within_noise=True,
        of=(slowest,) if slowest else (),
    )


def _elementwise(rows: Rows, workload: str) -> list[StepTimes]:
    """The steps of every elementwise case; none where the run left one out."""
    wanted = [(case.name, workload) for case in cases().values() if case.elementwise]
    return [rows[one] for one in wanted] if all(one in rows for one in wanted) else []


def _mean(ratios: Sequence[Spread]) -> Spread | None:
    """The geometric means of medians and of quartiles: as if all were slow, or fast, at once."""
    if not ratios:
        return None
    return Spread(
        median=geometric_mean(one.median for one in ratios),
        low=geometric_mean(one.low for one in ratios),
        high=geometric_mean(one.high for one in ratios),
    )


def _contender(name: str) -> Callable[[StepTimes], Timing | None]:
    return lambda steps: steps.timing(name)
