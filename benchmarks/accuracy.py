"""How exact each optimizer is after 1,000 steps, beside torch's: `python benchmarks/accuracy.py`.

Every contender gets the same parameters and gradients, in float32 or bfloat16; the oracle gets the
same numbers in float64. An error is a difference of the parameters from the oracle's, in units of
the dtype's epsilon times the root mean square of the oracle's parameters: about how many roundings
of a typical parameter it is.
"""

import argparse
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import prod
from typing import Any

import numpy as np
import torch

import tests_path  # noqa: F401
from descend.bench import Spread, spread
from descend.optimizers import CATALOGUE
from optimizers.cases import RICH
from oracles import ORACLES, lbfgs

SHAPE = (64, 64)
SMALL = {
    "lbfgs": (64,),  # its oracle has the matrix written out
    "muon": (16, 32),  # bfloat16 products take long on many CPUs
}
STEPS = 1000
SEEDS = 7
DTYPES = (torch.float32, torch.bfloat16)
MEASURES = {"largest": lambda error: np.abs(error).max(), "rms": lambda e: np.sqrt((e**2).mean())}


@dataclass(frozen=True)
class Accuracy:
    """The errors of one optimizer's implementations with one set of options on one dtype.

    `errors[contender][measure]` is the error of each seed.
    """

    name: str
    options: Mapping[str, Any]
    dtype: torch.dtype
    errors: Mapping[str, Mapping[str, Sequence[float]]]

    def spread(self, contender: str, measure: str) -> Spread:
        """The median and the quartiles over the seeds."""
        return spread(self.errors[contender][measure])

    def best_torch(self, measure: str) -> str | None:
        """The implementation of torch with the smallest median; None where torch has none."""
        theirs = [contender for contender in self.errors if contender != "descend"]
        return min(theirs, key=lambda one: self.spread(one, measure).median, default=None)

    def behind(self, measure: str) -> float | None:
        """By how much descend's median is above torch's best, in units of the noise.

        The noise is the range over the seeds, of the contender whose range is wider.
        """
        best = self.best_torch(measure)
        if best is None:
            return None
        ours, theirs = (self.errors[one][measure] for one in ("descend", best))
        noise = max(max(values) - min(values) for values in (ours, theirs))
        excess = float(np.median(ours) - np.median(theirs))
        return excess / noise if noise else (0.0 if excess <= 0 else float("inf"))


def contenders(name: str) -> dict[str, Callable[..., torch.optim.Optimizer]]:
    """The class of descend, and torch's in its default and its fused form, where it has them."""
    ours = CATALOGUE[name]
    found: dict[str, Callable[..., torch.optim.Optimizer]] = {"descend": ours}
    theirs = getattr(torch.optim, ours.__name__, None)
    if theirs is not None:
        found["torch default"] = theirs
        if "fused" in inspect.signature(theirs).parameters:
            found["torch fused"] = partial(theirs, fused=True)
    return found


def measure(
    name: str,
    options: Mapping[str, Any],
    dtype: torch.dtype,
    *,
    steps: int = STEPS,
    seeds: int = SEEDS,
) -> Accuracy:
    """Step one optimizer of the catalogue, torch's, and the oracle, on random gradients."""
    errors: dict[str, dict[str, list[float]]] = {
        contender: {measure: [] for measure in MEASURES} for contender in contenders(name)
    }
    ran = _minimized if name == "lbfgs" else _followed
    for seed in range(seeds):
        exact, ends = ran(name, options, dtype, seed, steps)
        unit = torch.finfo(dtype).eps * np.sqrt((exact**2).mean())
        for contender, end in ends.items():
            for what, of in MEASURES.items():
                errors[contender][what].append(float(of((end - exact) / unit)))
    return Accuracy(name, options, dtype, errors)


def _followed(
    name: str, options: Mapping[str, Any], dtype: torch.dtype, seed: int, steps: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Where the oracle and each contender end that follow the same random gradients."""
    numbers = torch.Generator().manual_seed(seed)
    shape = SMALL.get(name, SHAPE)
    start, *grads = (torch.randn(shape, generator=numbers).to(dtype) for _ in range(1 + steps))
    known = dict(options)
    if name == "sparseadam":  # its oracle takes NaN for what a gradient does not hold
        for t, grad in enumerate(grads):
            grad[t % 2 :: 2] = torch.nan
    if name == "adafactor":  # NumPy does not know bfloat16, whose epsilon is the default
        known = {"eps": (torch.finfo(dtype).eps, 1e-3), **known}
    oracle, exact = ORACLES[name], start.double().numpy()
    state = oracle.start(exact, **known)
    for t, grad in enumerate(grads, start=1):
        exact, state = oracle.step(exact, grad.double().numpy(), state, t, **known)

    ends = {}
    for contender, make in contenders(name).items():
        param = torch.nn.Parameter(start.clone())
        optimizer = make([param], **options)
        for grad in grads:
            param.grad = _sparse(grad) if name == "sparseadam" else grad.clone()
            optimizer.step()
        ends[contender] = param.detach().double().numpy()
    return exact, ends


def _sparse(grad: torch.Tensor) -> torch.Tensor:
    """The rows that hold no NaN."""
    (rows,) = torch.where(~grad[:, 0].isnan())
    return torch.sparse_coo_tensor(rows[None], grad[rows], grad.shape, check_invariants=True)


def _minimized(
    name: str, options: Mapping[str, Any], dtype: torch.dtype, seed: int, steps: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Where the oracle and each contender end that go down the same random bowl."""
    numbers = torch.Generator().manual_seed(seed)
    bottom, start = (torch.randn(SMALL[name], generator=numbers).to(dtype) for _ in range(2))
    curvature = torch.logspace(0, 2, *SMALL[name]).to(dtype)

    def loss_and_grad(point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        away, curved = point - bottom.to(point), curvature.to(point)
        # Not quite round, or L-BFGS is at the bottom at once.
        return (curved * away**2 / 2 + away**4).sum(), curved * away + 4 * away**3

    def in_float64(point: np.ndarray) -> tuple[float, np.ndarray]:
        loss, grad = loss_and_grad(torch.from_numpy(point))
        return loss.item(), grad.numpy()

    exact = lbfgs.minimize(in_float64, start.double().numpy(), steps, **options).end
    ends = {}
    for contender, make in contenders(name).items():
        param = torch.nn.Parameter(start.clone())
        optimizer = make([param], **options)

        def closure(param: torch.nn.Parameter = param) -> torch.Tensor:
            loss, param.grad = loss_and_grad(param.detach())
            return loss

        for _ in range(steps):
            optimizer.step(closure)
        ends[contender] = param.detach().double().numpy()
    return exact, ends


def settings() -> list[tuple[str, Mapping[str, Any]]]:
    """Every optimizer with its defaults; and with all its states in use, where that is more."""
    defaults: list[tuple[str, Mapping[str, Any]]] = [(name, {}) for name in CATALOGUE]
    rich = [(name, RICH[name]) for name in CATALOGUE if name in RICH]
    return sorted(defaults + rich, key=lambda setting: setting[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the status is 1 where descend is less exact than torch."""
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args(arguments)
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    table = Table(
        title=f"error after {STEPS} steps, the largest and the root mean square of "
        f"{prod(SHAPE)} parameters ({', '.join(f'{name} {prod(SMALL[name])}' for name in SMALL)}), "
        "in roundings of a typical parameter: "
        f"medians of {SEEDS} seeds, ± half the distance of the quartiles",
        caption="behind: descend's median above torch's best, in ranges over the seeds; up to 1 "
        "is noise",
    )
    shown = ("descend", "torch default", "torch fused")
    for column in ("optimizer", "dtype", *shown, "behind"):
        table.add_column(column, justify="right" if column == "behind" else "left")
    worse = 0
    with Live(table, console=Console(width=120)):
        for (name, options), dtype in product(settings(), DTYPES):
            row = measure(name, options, dtype)
            behind = [row.behind(what) for what in MEASURES]
            worse += any(excess is not None and excess > 1 for excess in behind)
            label = f"{name} {', '.join(f'{key}={value}' for key, value in options.items())}"
            table.add_row(
                label if dtype is DTYPES[0] else "",
                str(dtype).removeprefix("torch."),
                *("\n".join(_cell(row, one, what) for what in MEASURES) for one in shown),
                "\n".join("-" if excess is None else f"{excess:+.2f}" for excess in behind),
                end_section=dtype is DTYPES[-1],
            )
    return int(worse > 0)


def _cell(row: Accuracy, contender: str, what: str) -> str:
    if contender not in row.errors:
        return "-"
    found = row.spread(contender, what)
    return f"{found.median:.4g} ± {(found.high - found.low) / 2:.1g}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
