"""Who takes part: descend's optimizer, and what torch, or else a package, has of the same one."""

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from typing import Any

import torch

from descend import lr_scheduler, optimizers
from descend.bench import packages
from descend.bench.timing import Clock, TakeSteps
from descend.bench.workloads import Workload
from descend.engine.rule import Rule

CLIP_NORM = 1.0
"""The largest global norm of the gradients in the cases that clip."""

OURS = "descend"
"""The name of descend's contender."""

PUBLISHED = "published"
"""The name of a package's contender, where torch has no such optimizer (`packages.py`)."""

SCALE = "AdamW, torch fused"
"""The contender beside a user's own rule, which torch has not: a step whose speed is known."""

SHORT = ("adagrad", "adam", "adamw", "adamw-clip", "rmsprop", "sgd", "sgd-momentum")
"""The cases of the short run."""

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    # Gradients that stay the same for ever would let its estimate grow for ever.
    "prodigy": {"d_coef": 0.0},
}
"""Options that cases do not leave at their defaults."""

UNMEASURED = {
    "lbfgs": "it takes its steps with a closure, and the time is the model's",
    "sparseadam": "it takes sparse gradients, and the models here have dense ones",
}
"""The optimizers of the catalogue that are no case, and why."""

ASKED_FOR = ("muon", "soap")
"""The cases that `--all` leaves out: their time is that of matrix products, which are torch's."""


@dataclass(frozen=True)
class Case:
    """One optimizer with its options, as it is measured.

    Args:
        name: What `descend bench --optimizer` calls it, or FILE.py:CLASS.
        kind: descend's class.
        options: Keyword arguments for both descend's class and torch's.
        clip: Whether gradients are clipped to a global norm of `CLIP_NORM` as part of each step.
        own: Whether it is a user's own, of which torch has nothing.
    """

    name: str
    kind: type[optimizers.Optimizer]
    options: Mapping[str, Any] = field(default_factory=dict)
    clip: bool = False
    own: bool = False

    @property
    def elementwise(self) -> bool:
        """Whether a step is one pass over memory, which has a streaming limit."""
        return isinstance(getattr(self.kind, "rule", None), Rule)

    def of(self, workload: Workload) -> Workload:
        """Return what is stepped of a workload: all of it; by Muon its matrices.

        Args:
            workload: The model. torch's Muon refuses everything else, where descend's takes it.
        """
        if self.name != "muon":
            return workload
        shapes = [(shape[0], prod(shape[1:])) for shape in workload.shapes if len(shape) > 1]
        return replace(workload, shapes=tuple(shapes))


@dataclass(frozen=True)
class Contender:
    """One implementation of a case's optimizer.

    Args:
        name: `OURS`, `torch default`, `torch foreach`, `torch fused`, `PUBLISHED` or `SCALE`.
        make: Builds the optimizer for given parameters.
        clips_before: Whether `torch.nn.utils.clip_grad_norm_` has to run before each step.
    """

    name: str
    make: Callable[[Sequence[torch.Tensor]], torch.optim.Optimizer]
    clips_before: bool = False

    def step_of(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: Sequence[torch.Tensor],
        *,
        scheduled: bool = False,
    ) -> Callable[[], object]:
        """Return one step of this contender: the clipping, if any, the update, and the schedule's.

        `clip_grad_norm_` scales the gradients in place, so from the second step on their norm is
        at the limit already. Neither it nor descend takes less time then: both multiply, whatever
        the factor.

        Args:
            optimizer: What `make` returned.
            parameters: The parameters it was made for.
            scheduled: Whether one step of a schedule follows, so that lr always changes: descend's
                `LambdaLR`, or torch's for all others, with the same function. A user's own rule may
                have no lr, and no schedule then.
        """
        steps: list[Callable[[], object]] = []
        if scheduled and "lr" in optimizer.param_groups[0]:
            library = lr_scheduler if self.name == OURS else torch.optim.lr_scheduler
            steps.append(library.LambdaLR(optimizer, falling).step)
        steps.insert(0, optimizer.step)  # which torch's scheduler has wrapped
        if self.clips_before:
            steps.insert(0, partial(torch.nn.utils.clip_grad_norm_, parameters, CLIP_NORM))
        if len(steps) == 1:
            return optimizer.step

        def take() -> None:
            for step in steps:
                step()

        return take


def falling(step: int) -> float:
    """A schedule's factor that is another one at every step and never zero.

    Args:
        step: Counted from 0.

    Example:
        >>> falling(0), falling(10_000)
        (1.0, 0.5)
    """
    return 10_000 / (10_000 + step)


def cases() -> dict[str, Case]:
    """Return every case of the catalogue, by name.

    Returns:
        One for each optimizer of `descend.optimizers.CATALOGUE` but the `UNMEASURED`, with its
        default options; `sgd-momentum` (momentum 0.9); and `adamw-clip` (clipping by global norm
        within the step).
    """
    built: dict[str, Case] = {}
    for key, kind in optimizers.CATALOGUE.items():
        if key in UNMEASURED:
            continue
        built[key] = Case(key, kind, OPTIONS.get(key, {}))
        if key == "sgd":
            built["sgd-momentum"] = Case("sgd-momentum", kind, {"momentum": 0.9})
        if key == "adamw":
            built["adamw-clip"] = Case("adamw-clip", kind, clip=True)
    return built


def find_case(name: str) -> Case:
    """Return the case of a name.

    Args:
        name: One from `cases()`, or the FILE.py:CLASS of a user's own rule.

    Raises:
        OptimizerFileError: The user's file or class cannot be used.
    """
    if name in (known := cases()):
        return known[name]
    return Case(name, optimizers.load_optimizer(name), own=True)


def contenders(case: Case) -> list[Contender]:
    """Return the implementations that can be measured for a case.

    Args:
        case: The optimizer and its options.

    Returns:
        descend first; then, where torch has a class of the same name, its default (no flags), its
        `foreach=True` and its `fused=True`, as far as the class takes the flag and has a CPU
        kernel. Where torch has none, the `PUBLISHED` one, if its package is installed. Beside a
        user's own rule, `SCALE`.
    """
    clipping = {"clip_norm": CLIP_NORM} if case.clip else {}
    found = [Contender(OURS, partial(_make, case.kind, {**case.options, **clipping}))]
    if case.own:
        return [*found, Contender(SCALE, partial(_make, torch.optim.AdamW, {"fused": True}))]
    theirs = getattr(torch.optim, case.kind.__name__, None)
    if theirs is None:
        if case.name in packages.PACKAGES and not packages.missing(case.name):
            # A package's lr may be another one by default, and takes the same time.
            lr = inspect.signature(case.kind).parameters["lr"].default
            make_theirs = partial(packages.make, case.name, lr=lr, **case.options)
            found.append(Contender(PUBLISHED, make_theirs))
        return found
    found.append(Contender("torch default", partial(_make, theirs, case.options), case.clip))
    for flag in ("foreach", "fused"):
        make = partial(_make, theirs, {**case.options, flag: True})
        if flag in inspect.signature(theirs).parameters and _works(make):
            found.append(Contender(f"torch {flag}", make, case.clip))
    return found


def stepping(
    step: Callable[[], object],
    before: Callable[[], object],
    clock: Clock = time.perf_counter_ns,
) -> TakeSteps:
    """Return a function that takes steps and times them alone.

    Args:
        step: Takes one step.
        before: Called before each step, outside of the time: it does what the rest of a training
            does between two steps, such as `Backward`.
        clock: The time in nanoseconds.
    """

    def run(count: int) -> int:
        total = 0
        for _ in range(count):
            before()
            start = clock()
            step()
            total += clock() - start
        return total

    return run


def share_states(optimizer: torch.optim.Optimizer, owner: torch.optim.Optimizer) -> None:
    """Let an optimizer keep its states in the same memory as another one.

    How fast a large tensor streams depends on the physical pages that it happened to get, by more
    than optimizers differ. So contenders are compared over the very same buffers.

    Args:
        optimizer: It has taken a step. Each of its states of a parameter's shape, dtype and layout
            is replaced by the owner's state of the same name, if that one is alike.
        owner: An optimizer of the same parameters that has taken a step too.
    """
    for parameter, states in optimizer.state.items():
        for name, value in states.items():
            other = owner.state.get(parameter, {}).get(name)
            if isinstance(value, torch.Tensor) and isinstance(other, torch.Tensor):
                alike = value.shape == other.shape == parameter.shape
                if alike and (value.dtype, value.stride()) == (other.dtype, other.stride()):
                    states[name] = other


def _make(
    kind: Callable[..., torch.optim.Optimizer],
    options: Mapping[str, Any],
    parameters: Sequence[torch.Tensor],
) -> torch.optim.Optimizer:
    return kind(parameters, **options)


def _works(make: Callable[[Sequence[torch.Tensor]], torch.optim.Optimizer]) -> bool:
    probe = torch.nn.Parameter(torch.ones(2))
    probe.grad = torch.ones(2)
    try:
        make([probe]).step()
    except (RuntimeError, NotImplementedError):
        return False
    return True
