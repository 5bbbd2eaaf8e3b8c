"""Suggested learning rates beside the best ones: `python benchmarks/learning_rates.py`.

`descend.lr_find` is asked for each pair of a model and an optimizer, and the model is trained at 26
learning rates, from 1e-5 to 18, four to a decade. The best one has the lowest loss on data that
was not trained on. About four minutes; `--models linear` takes one second for each pair.
"""

import argparse
import copy
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import descend
from descend.training import digits_task

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": descend.AdamW,
    "sgd": descend.SGD,
    "momentum": lambda parameters, lr: descend.SGD(parameters, lr=lr, momentum=0.9),
    "lion": descend.Lion,
    "muon": descend.Muon,
}
RATES = [10 ** (power / 4) for power in range(-20, 6)]
STEPS = {"cnn": 250}
DIVERGED = 1000.0
SEEDS = {"cnn": (10,)}


class Problem(NamedTuple):
    """A model to train: its data, a batch of them, and data that are held out."""

    model: nn.Module
    data: TensorDataset
    batch: int
    loss: Callable[[Any, Any], torch.Tensor]
    held_out: tuple[torch.Tensor, torch.Tensor]


def problems() -> Iterator[tuple[str, Callable[[], Problem]]]:
    """The problems by name, each to be built."""
    yield "cnn", lambda: digits(None)
    yield "mlp", lambda: digits([64, 64, 64, 10])
    yield "linear", linear
    yield "dropout", dropout


def digits(sizes: Sequence[int] | None) -> Problem:
    """The digits of `descend train`, with its network or a perceptron of some sizes."""
    torch.manual_seed(0)
    task = digits_task()
    model = task.model
    if sizes is not None:
        torch.manual_seed(1)
        layers = [
            one for pair in itertools.pairwise(sizes) for one in (nn.ReLU(), nn.Linear(*pair))
        ]
        model = nn.Sequential(nn.Flatten(), *layers[1:])
    assert task.test is not None
    held_out = [torch.cat(parts) for parts in zip(task.validation, task.test, strict=True)]
    return Problem(model, TensorDataset(*task.train), 64, task.loss, (held_out[0], held_out[1]))


def linear() -> Problem:
    """A linear regression whose inputs have different scales."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(1000, 20, generator=generator) * torch.logspace(-0.5, 0.5, 20)
    noise = 0.5 * torch.randn(1000, 1, generator=generator)
    y = x @ torch.randn(20, 1, generator=generator) + noise
    torch.manual_seed(2)
    data = TensorDataset(x[:800], y[:800])
    return Problem(nn.Linear(20, 1), data, 32, nn.functional.mse_loss, (x[800:], y[800:]))


def dropout() -> Problem:
    """Two classes of points, and a perceptron with dropout."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(900, 8, generator=generator)
    y = (x[:, :4].sum(1) > 0).long()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 2))
    data = TensorDataset(x[:600], y[:600])
    return Problem(model, data, 20, nn.functional.cross_entropy, (x[600:], y[600:]))


def loss_after(problem: Problem, optimizer: str, lr: float, steps: int, seed: int) -> float:
    """The loss on the held-out data after a training; a large one where it diverges."""
    model = copy.deepcopy(problem.model).train()
    stepped = OPTIMIZERS[optimizer](model.parameters(), lr=lr)
    torch.manual_seed(seed)
    loader = descend.ResumableLoader(DataLoader(problem.data, problem.batch, shuffle=True), seed)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    for x, y in itertools.islice(batches, steps):
        loss = problem.loss(model(x), y)
        if not loss.item() < DIVERGED:
            return DIVERGED
        stepped.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        stepped.step()
    model.eval()
    with torch.no_grad():
        loss = problem.loss(model(problem.held_out[0]), problem.held_out[1])
    return min(loss.item(), DIVERGED)


def compared(name: str, problem: Problem, optimizer: str) -> dict[str, float]:
    """The best rate, the suggested ones, the range, and the losses between rates as ratios."""
    found = descend.lr_find(
        problem.model,
        DataLoader(problem.data, problem.batch, shuffle=True),
        problem.loss,
        lambda parameters, lr: OPTIMIZERS[optimizer](parameters, lr=lr),
    )
    losses = [
        np.mean([loss_after(problem, optimizer, lr, STEPS.get(name, 400), seed)
                 for seed in SEEDS.get(name, (10, 11))])
        for lr in RATES
    ]  # fmt: skip
    row = {"best": RATES[int(np.argmin(losses))]}
    row |= {method: found.suggestion(method) for method in ("steepest", "valley", "confirmed")}
    row |= {"low": found.range[0], "high": found.range[1]}
    at = np.interp(math.log(row["confirmed"]), np.log(RATES), losses)
    return {**row, "loss": float(at / min(losses))}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for each pair, and the means."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    known = dict(problems())
    parser.add_argument("--models", nargs="*", choices=known, default=[*known])
    parser.add_argument("--optimizers", nargs="*", choices=OPTIMIZERS, default=[*OPTIMIZERS])
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    names = ("best", "steepest", "valley", "confirmed", "low", "high", "loss")
    print(f"{'':16}" + "".join(f"{name:>10}" for name in names))
    rows = []
    for name, optimizer in itertools.product(asked.models, asked.optimizers):
        rows.append(compared(name, known[name](), optimizer))
        cells = "".join(f"{rows[-1][one]:>10.2g}" for one in names)
        print(f"{f'{name} {optimizer}':16}{cells}", flush=True)
    for method in ("steepest", "valley", "confirmed"):
        off = np.mean([abs(math.log(row[method] / row["best"])) for row in rows])
        print(f"{method}: off by a factor of {math.exp(off):.1f} in the geometric mean")
    inside = sum(row["low"] <= row["best"] <= row["high"] for row in rows)
    median = np.median([row["loss"] for row in rows])
    print(f"the best is in the range {inside} times of {len(rows)}; the loss at the suggestion is "
          f"{median:.2f} times the best one's, in the median")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
