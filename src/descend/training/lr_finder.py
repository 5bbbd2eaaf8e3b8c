"""The learning-rate range test: the rate rises batch by batch, and the loss tells where to stay.

    copies of model, loss and optimizer -> a sweep over each of three orders of the data
    the mean of their losses -> a range and a suggestion (`range_test.py`) -> three short runs

Nothing of the caller's changes: copies are trained, on batches that are fetched as a `Run` fetches
them, and the random generators are put back.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from descend.checks import ABOVE_0, SEED, Choice, Range
from descend.errors import DivergedError, TrainerError, TrainerWarning
from descend.format import counted
from descend.spelling import spelled
from descend.training.copies import (
    batches_on_the_side,
    copied,
    generators_kept,
    gradients_refused,
)
from descend.training.group_rates import lr_factors, set_lrs
from descend.training.loaders import moved
from descend.training.range_test import RangeTest, ShortRun, kept_of, start_of
from descend.training.task import PAIR

ORDERS = 3
"""How many orders of the data are swept."""

FACTORS = (1 / 3, 1.0, 3.0)
"""The parts of the steepest descent's learning rate that short runs try."""

FEWEST_STEPS = 20
"""Of fewer, each would raise the learning rate too much to see where the loss falls."""

FEWEST_BATCHES = 10
"""With fewer in an epoch, a sweep meets each batch too often to tell learning from memory."""

_ALLOWED: dict[str, Any] = {
    "min_lr": ABOVE_0,
    "max_lr": ABOVE_0,
    "num_training": Range(FEWEST_STEPS, whole=True),
    "mode": Choice(("exponential", "linear")),
    "early_stop_threshold": Range(1, positive=True, optional=True),
    "seed": SEED,
}


MakeOptimizer: TypeAlias = Callable[[list[nn.Parameter], float], Optimizer]


class OnStep(Protocol):
    """A function that is told after each step which part it was of, and how many are done."""

    def __call__(self, text: str, done: int, total: int, /) -> object:
        """Show it."""


class Copy(NamedTuple):
    """A copy of all that a training changes.

    Args:
        step: takes a step on the next of some batches; the loss before. Raises DivergedError
            where that is not finite.
        set_lr: sets the learning rate of the steps that follow.

    Example:
        >>> Copy(step=lambda batches: float(next(batches)), set_lr=print).step(iter([0.5]))
        0.5
    """

    step: Callable[[Iterator[Any]], float]
    set_lr: Callable[[float], None]


@spelled
def lr_find(
    model: nn.Module,
    loader: Any,
    loss: Callable[[Any, Any], Tensor],
    make_optimizer: MakeOptimizer,
    *,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    num_training: int = 100,
    mode: str = "exponential",
    early_stop_threshold: float | None = 4.0,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> RangeTest:
    r"""Find a learning rate: train copies while it rises, and see where the loss falls.

    .. math::
        \gamma_i = \gamma_{min} (\gamma_{max} / \gamma_{min})^{i / (n - 1)}, \qquad
        \gamma^* = \arg\min_\gamma \; d L(\gamma) / d \log \gamma

    Three orders of the data are swept. Of the mean of their losses, smoothed, the suggestion is
    the learning rate of the steepest descent in its logarithm, or a third or three times that:
    whichever ends a short training with the lowest loss.

    The steepest descent asks where a step does most. The middle of fastai's valley moves with
    `min_lr`, as the loss falls a little even at the smallest rates. For 20 pairs of a model and an
    optimizer (`benchmarks/learning_rates.py`), the best of 26 rates of whole trainings is off by a
    factor of 4.5 from the steepest descent, in the mean; by 3.0 after the short runs; and by 58
    from the valley.

    Afterwards all is as it was, to the bit, also where an error or Ctrl-C ends it: model,
    gradients, modes, hooks, generators, the loader's place; only copies are trained. A dataset that
    changes itself when it is read, in this process, is the exception: it is not copied.

    Args:
        model: what is to be trained. The copies train in the modes that its modules are in; where
            it is in evaluation mode as a whole, they are put into training mode.
        loader: a DataLoader, or anything that gives batches (inputs, targets) each time anew. It
            is not iterated over: `ResumableLoader` makes the same batches, in three orders. Too
            short a one is gone through several times.
        loss: `loss(outputs, targets)`, the mean over the batch.
        make_optimizer: `make_optimizer(parameters, lr)` makes an optimizer of a list of parameters,
            which is in the order of `model.parameters()`. Each group has the lr that this function
            gives it at each lr: where groups have parts of lr, these stay, for Muon's `adamw_lr`
            too; a rate that does not follow lr stays where it is.
        min_lr: the first learning rate.
        max_lr: the last one.
        num_training: how many steps a sweep and a short run have.
        mode: how it rises: "exponential" or "linear".
        early_stop_threshold: a sweep ends where the averaged loss is so many times the lowest, and
            above that of the start; None: only where it is no finite number.
        seed: what the orders, and all that is drawn, follow from.
        on_step: called as `on_step(text, done, total)` after each step, for a progress bar.

    Returns:
        A `RangeTest`: `suggestion()`, `range`, `results`, `tried`, `plot(path=...)`; printed, it
        says all in a few lines.

    Raises:
        TrainerError: an argument cannot be used; model, loss or a stream of data cannot be copied.

    Warns:
        TrainerWarning: an epoch has fewer than 10 batches.

    Example:
        >>> x = torch.randn(400, 3)
        >>> data = torch.utils.data.TensorDataset(x, x @ torch.ones(3, 1))
        >>> loader = torch.utils.data.DataLoader(data, batch_size=20, shuffle=True)
        >>> found = lr_find(
        ...     torch.nn.Linear(3, 1),
        ...     loader,
        ...     torch.nn.functional.mse_loss,
        ...     lambda parameters, lr: torch.optim.SGD(parameters, lr=lr),
        ... )
        >>> 0.01 < found.suggestion() < 1
        True

    Source: L. Smith, Cyclical Learning Rates for Training Neural Networks, 2015,
    https://arxiv.org/abs/1506.01186; the names are those of Lightning's Tuner.lr_find.
    """
    _refuse_unusable(model, loss, make_optimizer)
    factors: list[dict[str, float]] = []

    def make_copy() -> Copy:
        own_model, own_loss = copied(model, loss)
        make = partial(_made, make_optimizer, [*own_model.parameters()])
        if not factors:
            found = lr_factors(lambda lr: make(lr).param_groups, min_lr, max_lr, "make_optimizer")
            factors.extend(found)
        optimizer = make(max_lr)
        step = partial(_step, own_model, own_loss, optimizer)
        return Copy(step, partial(set_lrs, optimizer, factors))

    with gradients_refused(model):
        return range_test(
            make_copy, loader, (model, loss), min_lr=min_lr, max_lr=max_lr,
            num_training=num_training, mode=mode, early_stop_threshold=early_stop_threshold,
            seed=seed, on_step=on_step,
        )  # fmt: skip


def range_test(
    make_copy: Callable[[], Copy],
    loader: Any,
    things: Sequence[object],
    *,
    min_lr: float,
    max_lr: float,
    num_training: int,
    mode: str,
    early_stop_threshold: float | None,
    seed: int,
    on_step: OnStep | None,
) -> RangeTest:
    """Sweep copies over three orders of the data, and confirm in short runs.

    Args:
        make_copy: makes what is trained, anew for each sweep and each short run.
        loader: as for `lr_find`, as all that follows.
        things: what may hold random generators that have to be put back.
        min_lr: the first learning rate.
        max_lr: the last one.
        num_training: steps of a sweep, and of a short run.
        mode: "exponential" or "linear".
        early_stop_threshold: how far above its lowest the loss may be.
        seed: of the orders.
        on_step: told after each step.

    Raises:
        TrainerError: as `lr_find`.
    """
    given = locals()
    for name, allowed in _ALLOWED.items():
        allowed.check(f"lr_find: {name}", given[name], TrainerError)
    if min_lr >= max_lr:
        raise TrainerError(f"lr_find: min_lr must be less than max_lr, got {min_lr} and {max_lr}")
    parts = [step / (num_training - 1) for step in range(num_training)]
    lrs = [min_lr + (max_lr - min_lr) * part for part in parts]
    if mode == "exponential":
        lrs = [min_lr * (max_lr / min_lr) ** part for part in parts]
    total, begun = (ORDERS + len(FACTORS)) * num_training, 0
    loader = getattr(loader, "given", loader)  # of a Run
    notes = [*_few_batches(loader, num_training)]

    def losses(text: str, rates: Sequence[float], order: int) -> list[float]:
        nonlocal begun
        seed_all(order)
        tell = None if on_step is None else lambda done: on_step(text, begun + done, total)
        with closing(batches_on_the_side(loader, (seed + order) % 2**32)) as batches:
            found = _sweep(make_copy(), batches, rates, early_stop_threshold, tell)
        begun += num_training
        return found

    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        generators_kept(loader, *things) as seed_all,
    ):
        orders = range(ORDERS)
        sweeps = [losses(f"order {order + 1} of {ORDERS}", lrs, order) for order in orders]
        test = RangeTest(lrs, sweeps, notes=notes, mode=mode)
        if test.why_none is not None:
            return test
        steepest, tried = test.suggestion("steepest"), []
        for lr in [one for factor in FACTORS if min_lr <= (one := factor * steepest) <= max_lr]:
            run = losses(f"short run at lr {lr:.3g}", [lr] * num_training, ORDERS)
            last = run[-num_training // 3 :]
            through = len(run) == num_training and math.isfinite(run[-1])
            tried.append(ShortRun(lr, sum(last) / len(last) if through else math.inf))
    return RangeTest(lrs, sweeps, tried, notes, mode)


def _refuse_unusable(model: object, loss: object, make_optimizer: object) -> None:
    given = {"model": model, "loss": loss, "make_optimizer": make_optimizer}
    for name, one in given.items():
        if not (isinstance(one, nn.Module) if name == "model" else callable(one)):
            kind = "torch.nn.Module" if name == "model" else "function"
            raise TrainerError(
                f"lr_find: {name} must be a {kind}, and is a {type(one).__name__}; such as "
                f"lr_find(model, loader, torch.nn.functional.cross_entropy, "
                f"lambda parameters, lr: descend.AdamW(parameters, lr=lr))"
            )


def _made(make_optimizer: MakeOptimizer, parameters: list[nn.Parameter], lr: float) -> Optimizer:
    """The optimizer of a copy's parameters, and of no others."""
    optimizer = make_optimizer(parameters, lr)
    if not isinstance(getattr(optimizer, "param_groups", None), list):
        raise TrainerError(
            f"lr_find: make_optimizer must return an optimizer, and returned a "
            f"{type(optimizer).__name__}"
        )
    known = {id(parameter) for parameter in parameters}
    if any(id(one) not in known for group in optimizer.param_groups for one in group["params"]):
        raise TrainerError(
            "lr_find: make_optimizer must make the optimizer of the parameters that it is given, "
            "which are a copy's; it made one of others, such as the model's own"
        )
    return optimizer


def _step(
    model: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    optimizer: Optimizer,
    batches: Iterator[Any],
) -> float:
    """Train on the next batch; the loss before. L-BFGS asks for it several times."""
    batch = next(batches)
    if not isinstance(batch, tuple | list) or len(batch) != PAIR:
        raise TrainerError(
            f"lr_find: the loader must give pairs (inputs, targets), and gives a "
            f"{type(batch).__name__}; Tuner(trainer).lr_find(module, loader) takes any batch"
        )
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    inputs, targets = moved(batch, device)
    first: list[float] = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(model(inputs), targets)
        if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
            raise TrainerError(
                "lr_find: the loss must return a tensor of one number that follows from the "
                "model's parameters"
            )
        first.append(value.item())
        if not math.isfinite(first[0]):
            raise DivergedError(f"the loss became {first[0]}")
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[arg-type]
    return first[0]


def _sweep(
    trained: Copy,
    batches: Iterator[Any],
    lrs: Sequence[float],
    threshold: float | None,
    tell: Callable[[int], object] | None,
) -> list[float]:
    """The losses at some learning rates, one after the other, up to where it diverges."""
    losses: list[float] = []
    average, lowest, kept = 0.0, math.inf, kept_of(len(lrs))
    for step, lr in enumerate(lrs, 1):
        trained.set_lr(lr)
        try:
            losses.append(trained.step(batches))
        except DivergedError:
            losses.append(math.inf)
        if tell is not None:
            tell(step)
        if not math.isfinite(losses[-1]):
            break
        average = kept * average + (1 - kept) * losses[-1]
        smoothed = average / (1 - kept**step)
        lowest = min(lowest, smoothed)
        start = start_of(losses, len(lrs))
        if threshold is not None and start < smoothed > lowest + (threshold - 1) * abs(lowest):
            break
    return losses


def _few_batches(loader: Any, steps: int) -> Iterator[str]:
    try:
        number = len(loader)
    except TypeError:  # of a stream
        return
    if number < FEWEST_BATCHES:
        text = (
            f"an epoch has {counted(number, 'batch', 'batches')}, so that a sweep of {steps} "
            f"steps meets each about {round(steps / max(number, 1))} times, and its loss falls by "
            f"memory too; with at least {FEWEST_BATCHES}, of a smaller batch_size or more data, it "
            f"tells more"
        )
        warnings.warn(f"lr_find: {text}", TrainerWarning, stacklevel=5)
        yield text
