"""Every scheduler of torch 2.13 with its options: one table that the tests of schedulers share.

A case builds the same scheduler from torch's module or from descend's, on any optimizer. Its
formula is written out with mpmath, apart from both. Where torch is wrong, the case says why.
"""

import math
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from mpmath import mp, mpf
from torch.nn import Parameter

import descend
from descend import lr_scheduler, swa_utils

LRS = (0.1, 0.03, 0.007)  # of three groups
MOMENTUM = 0.5
STEPS = 10_000
MODULES = {"torch": torch.optim.lr_scheduler, "descend": lr_scheduler}
MAKERS = {
    "torch.SGD": torch.optim.SGD,
    "torch.AdamW": torch.optim.AdamW,
    "descend.SGD": descend.SGD,
    "descend.AdamW": descend.AdamW,
}
Formula = Callable[[int, Any, int], Any]  # from step, base and group to the value
NOWHERE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Case:
    """One scheduler with one set of options.

    `build(module, optimizer)` makes it; `formula` gives the lr, and `momentum` the momentum or the
    first beta. `wrong` says why torch is, when "stepped" or "closed", which is `step(epoch)`.
    """

    name: str
    build: Callable[[Any, torch.optim.Optimizer], Any]
    formula: Formula | None
    momentum: Formula | None = None
    wrong: Mapping[str, str] = field(default_factory=lambda: NOWHERE)
    closed: bool = True  # whether torch's `step(epoch)` goes to any epoch
    turns: tuple[int, ...] = ()  # steps at which something happens

    def __str__(self) -> str:
        return self.name


def optimizer_of(
    make: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
    groups: int = 1,
    scale: float = 1.0,
    **options: Any,
) -> torch.optim.Optimizer:
    """An optimizer of some groups, each with its own lr and one parameter."""
    if make in (torch.optim.SGD, descend.SGD):
        options = {"momentum": MOMENTUM, **options}
    lrs = [lr * scale for lr in LRS[:groups]]
    made = make([{"params": [Parameter(torch.ones(1))], "lr": lr} for lr in lrs], lr=0.5, **options)
    made._opt_called = True  # or torch's schedulers warn that the optimizer has not stepped
    return made


def values_of(optimizer: torch.optim.Optimizer) -> list[tuple[float, float]]:
    """The lr and the momentum, or first beta, of each group."""
    return [
        (float(group["lr"]), float(group["betas"][0] if "betas" in group else group["momentum"]))
        for group in optimizer.param_groups
    ]


def measure(step: int) -> float:
    """A loss that falls, stays, rises, and is sometimes no number."""
    if step % 97 == 50:
        return math.nan
    return 1.0 / (1 + step // 40) + 0.01 * math.sin(step)


def advance(scheduler: Any, step: int) -> None:
    """Step a scheduler into a step, with a measure if it takes one."""
    if getattr(scheduler, "_measuring", False) or isinstance(
        scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau
    ):
        scheduler.step(measure(step))
    else:
        scheduler.step()


def sequence(scheduler: Any, steps: int, first: int = 0) -> np.ndarray:
    """The values of each step, up to where the scheduler raises: (steps, groups, 2).

    Args:
        scheduler: a scheduler that is in step `first`.
        steps: up to which one, not included.
        first: the first one.
    """
    seen = []
    for step in range(first, steps):
        if step > first:
            try:
                advance(scheduler, step)
            except (ValueError, ZeroDivisionError, NotImplementedError):
                if isinstance(scheduler, lr_scheduler.LRScheduler):
                    raise
                break
        seen.append(values_of(scheduler.optimizer))
    return np.array(seen)


def closed_sequence(scheduler: Any, steps: int) -> np.ndarray:
    """The values of each step by `step(epoch)`, up to where that raises."""
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in range(steps):
            try:
                scheduler.step(step)
            except ValueError:
                break
            seen.append(values_of(scheduler.optimizer))
    return np.array(seen)


def each(optimizer: torch.optim.Optimizer, *values: Any) -> list[Any]:
    """One value for each group."""
    return list(values[: len(optimizer.param_groups)])


class Warm:
    """A function that is an object: its attributes are in the state."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __call__(self, epoch: int) -> float:
        return min(1.0, (epoch + 1) / self.steps)


# The formulas, from the papers and torch's documentation, in 50 digits.

mp.dps = 50


def exact(value: float | str) -> Any:
    """A double as what it is; a string as what it says."""
    return mpf(value)


def factor(of: Callable[[int], Any]) -> Formula:
    return lambda t, base, g: base * of(t)


def constant(by: float, total: int) -> Formula:
    return factor(lambda t: exact(by) if t < total else exact(1))


def linear(total: int, start: float = 1.0 / 3, end: float = 1.0) -> Formula:
    start, end = exact(start), exact(end)
    return factor(lambda t: start + (end - start) * min(t, total) / total)


def power(gamma: float, count: Callable[[int], int] = lambda t: t) -> Formula:
    return factor(lambda t: exact(gamma) ** count(t))


def polynomial(total: int, exponent: float = 1.0) -> Formula:
    left = lambda t: 1 - mpf(min(t, total)) / total  # noqa: E731
    return factor(lambda t: left(t) ** exact(exponent) if left(t) or exponent else mpf(1))


def wave(share: Any) -> Any:
    return (1 + mp.cos(mp.pi * share)) / 2


def cosine(half: float, least: float = 0.0) -> Formula:
    least = exact(least)
    return lambda t, base, g: least + (base - least) * wave(mpf(t) / half)


def restarts(first: int, mult: int = 1, least: float = 0.0) -> Formula:
    def at(t: int, base: Any, g: int) -> Any:
        period = first
        while t >= period:
            t, period = t - period, period * mult
        return exact(least) + (base - exact(least)) * wave(mpf(t) / period)

    return at


def joined(milestones: list[int], *parts: Formula) -> Formula:
    def at(t: int, base: Any, g: int) -> Any:
        index = sum(m <= t for m in milestones)
        return parts[index](t - ([0, *milestones][index]), base, g)

    return at


def product(*parts: Formula) -> Formula:
    def at(t: int, base: Any, g: int) -> Any:
        for part in parts:
            base = part(t, base, g)
        return base

    return at


def of_group(value: Any, g: int) -> Any:
    return exact(value[g] if isinstance(value, tuple) else value)


def zigzag(low: Any, high: Any, up: int, down: int, scale: Callable[[int, int], Any]) -> Formula:
    """From low to high and back; scale gets the cycle, from 1, and the step."""

    def at(t: int, base: Any, g: int) -> Any:
        cycle, place = divmod(t, up + down)
        height = mpf(place) / up if place <= up else mpf(up + down - place) / down
        bottom, top = of_group(low, g), of_group(high, g)
        return bottom + (top - bottom) * height * scale(cycle + 1, t)

    return at


def one_cycle(
    total: int,
    levels: tuple[Any, Any, Any],
    rise: float = 0.3,
    between: Callable[[Any], Any] = wave,
    three: bool = False,
) -> Formula:
    """From the first level to the second, and to the third; or by way of the first."""
    end = exact(float(rise * total)) - 1
    ends = (
        [end, exact(float(2 * rise * total)) - 2, mpf(total - 1)]
        if three
        else [end, mpf(total - 1)]
    )

    def at(t: int, base: Any, g: int) -> Any:
        first, second, last = (of_group(level, g) for level in levels)
        stops = [first, second, first, last] if three else [first, second, last]
        t = min(t, total - 1)
        start = mpf(0)
        for number, stop in enumerate(ends):
            if t <= stop or number == len(ends) - 1:
                passed = (t - start) / (stop - start) if stop != start else mpf(1)
                return stops[number + 1] + (stops[number] - stops[number + 1]) * between(passed)
            start = stop
        raise AssertionError

    return at


def straight(passed: Any) -> Any:
    return 1 - passed


def scaled(levels: Any, by: float, again: float = 1.0) -> Any:
    """Levels divided, as a program divides them."""
    if isinstance(levels, tuple):
        return tuple(level / by / again for level in levels)
    return levels / by / again


# The table.

DRIFT = "the recursion gathers rounding errors"
END = "runs on past its end, and then raises"
ARGUMENT = "the cosine of a large argument, or near its end, has few exact digits"
RATE = (0.05, 0.02, 0.01)  # per group
HALF = (0.5, 0.2, 0.1)
SLOW = (0.7, 0.75, 0.8)
FAST = (0.95, 0.9, 0.85)


def _simple() -> list[Case]:
    gently = lambda t: 0.9995**t  # noqa: E731
    return [
        Case("LambdaLR", lambda m, o: m.LambdaLR(o, gently), power(0.9995)),
        Case(
            "LambdaLR: an object",
            lambda m, o: m.LambdaLR(o, Warm(500)),
            factor(lambda t: exact(min(1.0, (t + 1) / 500))),
            turns=(499,),
        ),
        Case(
            "LambdaLR: one for each group",
            lambda m, o: m.LambdaLR(o, each(o, gently, lambda t: t // 30, lambda t: 1 / (1 + t))),
            lambda t, base, g: base * (exact(0.9995) ** t, mpf(t // 30), mpf(1) / (1 + t))[g],
            turns=(30, 60),
        ),
        Case(
            "MultiplicativeLR",
            lambda m, o: m.MultiplicativeLR(o, lambda t: 0.999),
            power(0.999),
            closed=False,
        ),
        Case(
            "MultiplicativeLR: one for each group",
            lambda m, o: m.MultiplicativeLR(
                o, each(o, lambda t: 0.999, lambda t: 1 - 1 / (t + 1), lambda t: -1.0)
            ),
            lambda t, base, g: base * (exact(0.999) ** t, mpf(1) / (t + 1), mpf(-1) ** t)[g],
            closed=False,
        ),
        Case("StepLR", lambda m, o: m.StepLR(o, 900), power(0.1, lambda t: t // 900)),
        Case(
            "StepLR: every 7",
            lambda m, o: m.StepLR(o, step_size=7, gamma=0.99),
            power(0.99, lambda t: t // 7),
            turns=(7, 14),
        ),
        Case(
            "StepLR: a negative gamma",
            lambda m, o: m.StepLR(o, 5, -1.0005),
            power(-1.0005, lambda t: t // 5),
            turns=(5, 10),
        ),
        Case(
            "StepLR: gamma 0",
            lambda m, o: m.StepLR(o, 10, 0.0),
            factor(lambda t: mpf(t < 10)),
            turns=(10, 20),
        ),
        Case(
            "MultiStepLR",
            lambda m, o: m.MultiStepLR(o, [30, 80]),
            power(0.1, lambda t: (t >= 30) + (t >= 80)),
            turns=(30, 80),
        ),
        Case(
            "MultiStepLR: one of them twice, out of order",
            lambda m, o: m.MultiStepLR(o, [5000, 20, 20, 3], gamma=0.3),
            power(0.3, lambda t: (t >= 3) + 2 * (t >= 20) + (t >= 5000)),
            turns=(3, 20),
        ),
        Case(
            "MultiStepLR: none",
            lambda m, o: m.MultiStepLR(o, []),
            factor(lambda t: 1),
        ),
        Case("ConstantLR", lambda m, o: m.ConstantLR(o), constant(1.0 / 3, 5), turns=(5,)),
        Case(
            "ConstantLR: long",
            lambda m, o: m.ConstantLR(o, 0.1, total_iters=60),
            constant(0.1, 60),
            turns=(60,),
        ),
        Case(
            "ConstantLR: factor 0",
            lambda m, o: m.ConstantLR(o, 0.0, total_iters=20),
            constant(0.0, 20),
            turns=(20,),
            wrong={"stepped": "raises: divides by the factor, which is 0"},
        ),
        Case(
            "ConstantLR: none",
            lambda m, o: m.ConstantLR(o, 0.5, total_iters=0),
            constant(0.5, 0),
            wrong={"stepped": "never takes the factor back"},
        ),
        Case("LinearLR", lambda m, o: m.LinearLR(o), linear(5), turns=(5,)),
        Case(
            "LinearLR: long",
            lambda m, o: m.LinearLR(o, 0.001, 0.7, 5000),
            linear(5000, 0.001, 0.7),
        ),
        Case(
            "LinearLR: down to 0",
            lambda m, o: m.LinearLR(o, 1.0, 0.0, 60),
            linear(60, 1.0, 0.0),
            turns=(60,),
        ),
        Case("ExponentialLR", lambda m, o: m.ExponentialLR(o, 0.999), power(0.999)),
        Case(
            "ExponentialLR: growing",
            lambda m, o: m.ExponentialLR(o, gamma=1.002),
            power(1.002),
        ),
        Case(
            "ExponentialLR: a negative gamma",
            lambda m, o: m.ExponentialLR(o, -0.9995),
            power(-0.9995),
        ),
        Case("PolynomialLR", lambda m, o: m.PolynomialLR(o), polynomial(5), turns=(5,)),
        Case(
            "PolynomialLR: a square",
            lambda m, o: m.PolynomialLR(o, 60, 2.0),
            polynomial(60, 2.0),
            turns=(60,),
        ),
        Case(
            "PolynomialLR: a root",
            lambda m, o: m.PolynomialLR(o, total_iters=9000, power=0.5),
            polynomial(9000, 0.5),
        ),
        Case(
            "PolynomialLR: power 0",
            lambda m, o: m.PolynomialLR(o, 10, 0.0),
            polynomial(10, 0.0),
            turns=(10,),
        ),
    ]


def _waves() -> list[Case]:
    return [
        Case(
            "CosineAnnealingLR",
            lambda m, o: m.CosineAnnealingLR(o, T_max=10_000),
            cosine(10_000),
        ),
        Case(
            "CosineAnnealingLR: many waves",
            lambda m, o: m.CosineAnnealingLR(o, 20, eta_min=0.001),
            cosine(20, 0.001),
            turns=(20, 40),
            wrong={"stepped": DRIFT, "closed": ARGUMENT},
        ),
        Case(
            "CosineAnnealingLR: many waves to 0",
            lambda m, o: m.CosineAnnealingLR(o, 12),
            cosine(12),
            turns=(12, 24),
            wrong={"stepped": DRIFT, "closed": ARGUMENT},
        ),
        Case(
            "CosineAnnealingLR: up",
            lambda m, o: m.CosineAnnealingLR(o, 50, eta_min=0.9),
            cosine(50, 0.9),
            turns=(50, 100),
            wrong={"stepped": DRIFT},
        ),
        Case(
            "CosineAnnealingLR: of length 1",
            lambda m, o: m.CosineAnnealingLR(o, 1, eta_min=0.01),
            cosine(1, 0.01),
        ),
        Case(
            "CosineAnnealingWarmRestarts",
            lambda m, o: m.CosineAnnealingWarmRestarts(o, T_0=17),
            restarts(17),
            turns=(17, 34),
        ),
        Case(
            "CosineAnnealingWarmRestarts: twice as long",
            lambda m, o: m.CosineAnnealingWarmRestarts(o, 10, 2, eta_min=0.001),
            restarts(10, 2, 0.001),
            turns=(10, 30, 70),
        ),
        Case(
            "CosineAnnealingWarmRestarts: three times as long",
            lambda m, o: m.CosineAnnealingWarmRestarts(o, 1, 3),
            restarts(1, 3),
            turns=(1, 4, 13, 40),
            wrong={"closed": "the logarithm at a restart is rounded down"},
        ),
    ]


def _cycles() -> list[Case]:
    gently = lambda x: 1 / (5 ** (x * 0.0001))  # noqa: E731
    halved = lambda cycle, t: mpf(2) ** (1 - cycle)  # noqa: E731
    always = lambda cycle, t: mpf(1)  # noqa: E731
    return [
        Case(
            "CyclicLR",
            lambda m, o: m.CyclicLR(o, 0.01, 0.1),
            zigzag(0.01, 0.1, 2000, 2000, always),
            zigzag(0.9, 0.8, 2000, 2000, always),
        ),
        Case(
            "CyclicLR: uneven, one for each group",
            lambda m, o: m.CyclicLR(
                o,
                each(o, *RATE),
                each(o, *HALF),
                step_size_up=15,
                step_size_down=25,
                base_momentum=each(o, *SLOW),
                max_momentum=each(o, *FAST),
            ),
            zigzag(RATE, HALF, 15, 25, always),
            zigzag(FAST, SLOW, 15, 25, always),
            turns=(15, 40, 55),
        ),
        Case(
            "CyclicLR: triangular2",
            lambda m, o: m.CyclicLR(o, 0.001, 0.1, 100, 300, mode="triangular2"),
            zigzag(0.001, 0.1, 100, 300, halved),
            zigzag(0.9, 0.8, 100, 300, halved),
            turns=(100, 400),
        ),
        Case(
            "CyclicLR: exp_range",
            lambda m, o: m.CyclicLR(o, 0.001, 0.1, 20, mode="exp_range", gamma=0.9994),
            zigzag(0.001, 0.1, 20, 20, lambda cycle, t: exact(0.9994) ** t),
            zigzag(0.9, 0.8, 20, 20, lambda cycle, t: exact(0.9994) ** t),
            turns=(20, 40, 60),
        ),
        Case(
            "CyclicLR: a function of the cycle",
            lambda m, o: m.CyclicLR(o, 0.01, 0.1, 30, scale_fn=gently, cycle_momentum=False),
            zigzag(0.01, 0.1, 30, 30, lambda cycle, t: exact(gently(cycle))),
            turns=(30, 60),
        ),
        Case(
            "CyclicLR: a function of the steps",
            lambda m, o: m.CyclicLR(o, 0.01, 0.1, 40, scale_fn=gently, scale_mode="iterations"),
            zigzag(0.01, 0.1, 40, 40, lambda cycle, t: exact(gently(t))),
            zigzag(0.9, 0.8, 40, 40, lambda cycle, t: exact(gently(t))),
            turns=(40, 80),
        ),
        Case(
            "OneCycleLR",
            lambda m, o: m.OneCycleLR(o, max_lr=0.1, total_steps=10_000),
            one_cycle(10_000, (0.1 / 25, 0.1, 0.1 / 25 / 1e4)),
            one_cycle(10_000, (0.95, 0.85, 0.95)),
        ),
        Case(
            "OneCycleLR: linear, one for each group",
            lambda m, o: m.OneCycleLR(
                o,
                each(o, *HALF),
                epochs=10,
                steps_per_epoch=12,
                pct_start=0.25,
                anneal_strategy="linear",
                base_momentum=each(o, *SLOW),
                max_momentum=each(o, *FAST),
                div_factor=10,
                final_div_factor=100,
            ),
            one_cycle(120, (scaled(HALF, 10), HALF, scaled(HALF, 10, 100)), 0.25, straight),
            one_cycle(
                120, ((0.95, 0.9, 0.85), (0.7, 0.75, 0.8), (0.95, 0.9, 0.85)), 0.25, straight
            ),
            turns=(29, 30, 119, 120),
            wrong={"stepped": END, "closed": END},
        ),
        Case(
            "OneCycleLR: three phases",
            lambda m, o: m.OneCycleLR(o, 0.1, 10_000, pct_start=0.4, three_phase=True),
            one_cycle(10_000, (0.1 / 25, 0.1, 0.1 / 25 / 1e4), 0.4, three=True),
            one_cycle(10_000, (0.95, 0.85, 0.95), 0.4, three=True),
        ),
        Case(
            "OneCycleLR: three phases, linear, without momentum",
            lambda m, o: m.OneCycleLR(
                o, 0.1, 100, anneal_strategy="linear", three_phase=True, cycle_momentum=False
            ),
            one_cycle(100, (0.1 / 25, 0.1, 0.1 / 25 / 1e4), 0.3, straight, three=True),
            turns=(29, 30, 58, 99, 100),
            wrong={"stepped": END, "closed": END},
        ),
        Case(
            "OneCycleLR: only down",
            lambda m, o: m.OneCycleLR(o, 0.1, 100, pct_start=0.0),
            one_cycle(100, (0.1 / 25, 0.1, 0.1 / 25 / 1e4), 0.0),
            one_cycle(100, (0.95, 0.85, 0.95), 0.0),
            turns=(99, 100),
            wrong={"stepped": END, "closed": END},
        ),
    ]


def _composed() -> list[Case]:
    def warm(m: Any, o: Any) -> Any:
        parts = [m.LinearLR(o, 0.01, total_iters=25), m.CosineAnnealingLR(o, 9_975, 1e-4)]
        return m.SequentialLR(o, parts, [25])

    def three(m: Any, o: Any) -> Any:
        parts = [m.ConstantLR(o, 0.1, 20), m.ExponentialLR(o, 0.9), m.StepLR(o, 40, 0.5)]
        return m.SequentialLR(o, parts, milestones=[20, 60])

    def absolute(m: Any, o: Any) -> Any:
        parts = [m.LinearLR(o, 0.5, total_iters=10), m.CosineAnnealingWarmRestarts(o, 15, 2)]
        return m.SequentialLR(o, parts, [10])

    def late(m: Any, o: Any) -> Any:
        """Its first one ends before the milestone, its last one begins with another factor."""
        parts = [m.PolynomialLR(o, 10, 2.0), m.MultiStepLR(o, [5, 9]), m.ConstantLR(o, 0.2, 30)]
        return m.SequentialLR(o, parts, [40, 55])

    def chain(m: Any, o: Any) -> Any:
        return m.ChainedScheduler(
            [m.ExponentialLR(o, 0.999), m.ConstantLR(o, 0.2, 40), m.StepLR(o, 300)], o
        )

    def warm_chain(m: Any, o: Any) -> Any:
        return m.ChainedScheduler(
            [m.LinearLR(o, 0.1, total_iters=30), m.CosineAnnealingLR(o, 11_000)]
        )

    def chain_in_sequence(m: Any, o: Any) -> Any:
        parts = [
            m.ChainedScheduler([m.LinearLR(o, 0.1, total_iters=5), m.ConstantLR(o, 0.1, 5)]),
            m.ConstantLR(o, 0.5, 5),
        ]
        return m.SequentialLR(o, parts, [5])

    def sequence_in_chain(m: Any, o: Any) -> Any:
        parts = [m.ConstantLR(o, 0.5, 10), m.ExponentialLR(o, 0.99)]
        return m.ChainedScheduler([m.SequentialLR(o, parts, [10]), m.StepLR(o, 25, 0.5)])

    def sequences(m: Any, o: Any) -> Any:
        first = m.SequentialLR(o, [m.ConstantLR(o, 0.5, 10), m.ConstantLR(o, 0.25, 10)], [10])
        second = m.SequentialLR(o, [m.LinearLR(o, 0.5), m.ExponentialLR(o, 0.999)], [8])
        return m.SequentialLR(o, [first, second], [20])

    def chain_second(m: Any, o: Any) -> Any:
        parts = m.ChainedScheduler([m.ExponentialLR(o, 0.999), m.StepLR(o, 10, 0.99)])
        return m.SequentialLR(o, [m.ConstantLR(o, 0.1, 12), parts], [12])

    def after_nothing(m: Any, o: Any) -> Any:
        """The one before ends at 0, where a product would stay."""
        parts = [m.PolynomialLR(o, 10, 2.0), m.MultiplicativeLR(o, lambda t: 0.999)]
        return m.SequentialLR(o, parts, [12])

    def cyclic_second(m: Any, o: Any) -> Any:
        return m.SequentialLR(
            o,
            [m.ConstantLR(o, 0.5, 10), m.CyclicLR(o, 0.01, 0.1, 20, cycle_momentum=False)],
            [10],
        )

    def momentum_second(m: Any, o: Any) -> Any:
        return m.SequentialLR(o, [m.ConstantLR(o, 0.5, 10), m.CyclicLR(o, 0.01, 0.1, 20)], [10])

    def one_cycle_second(m: Any, o: Any) -> Any:
        return m.SequentialLR(
            o,
            [m.ConstantLR(o, 0.5, 10), m.OneCycleLR(o, 0.1, 10_000, cycle_momentum=False)],
            [10],
        )

    up_and_down = zigzag(0.01, 0.1, 20, 20, lambda cycle, t: mpf(1))
    down_and_up = zigzag(0.9, 0.8, 20, 20, lambda cycle, t: mpf(1))
    cases = [
        Case(
            "SequentialLR: warmup, cosine",
            warm,
            joined([25], linear(25, 0.01), cosine(9_975, 1e-4)),
            turns=(25,),
        ),
        Case(
            "SequentialLR: three",
            three,
            joined([20, 60], constant(0.1, 20), power(0.9), power(0.5, lambda t: t // 40)),
            turns=(20, 60, 100),
        ),
        Case(
            "SequentialLR: warm restarts",
            absolute,
            joined([10], linear(10, 0.5), restarts(15, 2)),
            turns=(10, 25, 55),
        ),
        Case(
            "SequentialLR: after the end of a part",
            late,
            joined(
                [40, 55],
                polynomial(10, 2.0),
                power(0.1, lambda t: (t >= 5) + (t >= 9)),
                constant(0.2, 30),
            ),
            turns=(10, 40, 45, 55, 85),
        ),
        Case(
            "ChainedScheduler",
            chain,
            product(power(0.999), constant(0.2, 40), power(0.1, lambda t: t // 300)),
            turns=(40,),
        ),
        Case(
            "ChainedScheduler: warmup, cosine",
            warm_chain,
            product(linear(30, 0.1), cosine(11_000)),
            turns=(30,),
        ),
        Case(
            "SequentialLR: of a chain",
            chain_in_sequence,
            joined([5], product(linear(5, 0.1), constant(0.1, 5)), constant(0.5, 5)),
            turns=(5, 10),
        ),
        Case(
            "ChainedScheduler: of a sequence",
            sequence_in_chain,
            product(joined([10], constant(0.5, 10), power(0.99)), power(0.5, lambda t: t // 25)),
            turns=(10, 25),
        ),
        Case(
            "SequentialLR: of sequences",
            sequences,
            joined(
                [20],
                joined([10], constant(0.5, 10), constant(0.25, 10)),
                joined([8], linear(5, 0.5), power(0.999)),
            ),
            turns=(10, 20, 28),
            wrong={"stepped": "raises: a sequence inside cannot begin"},
        ),
        Case(
            "SequentialLR: a chain second",
            chain_second,
            joined([12], constant(0.1, 12), product(power(0.999), power(0.99, lambda t: t // 10))),
            turns=(12, 22),
            wrong={"stepped": "raises: a chain inside cannot begin"},
        ),
        Case(
            "SequentialLR: after nothing",
            after_nothing,
            joined([12], polynomial(10, 2.0), power(0.999)),
            turns=(10, 12),
            wrong={"stepped": "multiplies what the part before has left, which is 0"},
        ),
        Case(
            "SequentialLR: cyclic second",
            cyclic_second,
            joined([10], constant(0.5, 10), up_and_down),
            turns=(10, 30, 50),
        ),
        Case(
            "SequentialLR: cyclic momentum second",
            momentum_second,
            joined([10], constant(0.5, 10), up_and_down),
            joined([10], lambda t, base, g: exact(MOMENTUM), down_and_up),
            turns=(10, 30, 50),
            wrong={"stepped": "sets the momentum before its turn"},
        ),
        Case(
            "SequentialLR: one cycle second",
            one_cycle_second,
            joined(
                [10],
                constant(0.5, 10),
                one_cycle(10_000, (0.1 / 25, 0.1, 0.1 / 25 / 1e4)),
            ),
            turns=(10,),
            wrong={"stepped": "the part before goes on from the other's beginning"},
        ),
    ]
    return [replace(case, closed=False) for case in cases]


def _averaging() -> list[Case]:
    def swalr(m: Any) -> Any:
        return (torch.optim.swa_utils if m is torch.optim.lr_scheduler else swa_utils).SWALR

    def towards(levels: Any, total: int, share: Callable[[Any], Any]) -> Formula:
        def at(t: int, base: Any, g: int) -> Any:
            return base + (of_group(levels, g) - base) * share(mpf(min(t, total)) / total)

        return at

    cases = [
        Case(
            "SWALR",
            lambda m, o: swalr(m)(o, 0.05),
            towards(0.05, 10, lambda passed: 1 - wave(passed)),
            turns=(10,),
        ),
        Case(
            "SWALR: linear, one for each group",
            lambda m, o: swalr(m)(o, each(o, *RATE), 40, "linear"),
            towards(RATE, 40, lambda passed: passed),
            turns=(40,),
        ),
    ]
    return [replace(case, closed=False) for case in cases]


def _plateaus() -> list[Case]:
    def build(**options: Any) -> Any:
        return lambda m, o: m.ReduceLROnPlateau(o, **options)

    options = [
        ("", {}, ()),
        (": impatient", {"factor": 0.9, "patience": 2, "eps": 0.0}, (3, 10, 40)),
        (
            ": max",
            {"mode": "max", "factor": 0.8, "patience": 3, "cooldown": 5},
            (4, 5),
        ),
        (
            ": absolute",
            {"threshold_mode": "abs", "threshold": 0.02, "patience": 1, "factor": 0.7},
            (2, 3),
        ),
        (": at least", {"patience": 0, "factor": 0.5, "min_lr": 0.001, "mode": "min"}, (1, 2, 3)),
        (": at once 0", {"patience": 4, "factor": 0.0}, (5, 6)),
    ]
    cases = [
        Case("ReduceLROnPlateau" + name, build(**given), None, closed=False, turns=turns)
        for name, given, turns in options
    ]
    several = Case(
        "ReduceLROnPlateau: one for each group",
        lambda m, o: m.ReduceLROnPlateau(
            o, "max", 0.3, 6, 0.05, "abs", 2, each(o, 0.01, 0.001, 0.0), 1e-6
        ),
        None,
        closed=False,
        turns=(7, 16),
    )
    return [*cases, several]


CASES: list[Case] = [
    *_simple(),
    *_waves(),
    *_cycles(),
    *_composed(),
    *_averaging(),
    *_plateaus(),
]


def every(cases: list[Case]) -> Any:
    """A mark that runs a test with each case."""
    names = [re.sub(r"[^A-Za-z0-9_]+", "-", case.name) for case in cases]
    return pytest.mark.parametrize("case", cases, ids=names)


PURE = [case for case in CASES if case.formula is not None]  # of the step alone
BY_NAME = {case.name: case for case in CASES}
assert len(BY_NAME) == len(CASES)
