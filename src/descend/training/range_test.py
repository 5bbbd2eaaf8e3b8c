"""The outcome of a learning-rate range test: a curve, and the rates that follow from it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from descend.checks import Choice
from descend.errors import TrainerError
from descend.figure_file import COLOURS, check_ending, save_figure
from descend.spelling import spelled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEMORY = 15
"""A running average looks back over so many parts of a sweep: of 100 steps, over 7."""

START = 10
"""The first of so many parts of a sweep tells the loss at the start."""

CERTAIN = 3.0
"""A fall is one of so many standard deviations of what it is measured with."""

BEGUN = 0.1
"""The part of its whole fall after which the loss is said to be falling."""

CLOSE = 0.01
"""The part of the best short run's fall within which another one ends as low."""

Array: TypeAlias = np.ndarray[Any, Any]

_METHOD = Choice(("confirmed", "steepest", "valley"))


class ShortRun(NamedTuple):
    """A short training at one learning rate.

    Args:
        lr: which.
        loss: the mean of the last third of its steps; infinite where it diverged.

    Example:
        >>> min([ShortRun(0.1, 0.5), ShortRun(0.3, 0.4)], key=lambda run: run.loss).lr
        0.3

    Source: as `RangeTest`.
    """

    lr: float
    loss: float


@spelled
@dataclass(frozen=True)
class RangeTest:
    """The outcome of a range test: losses at rising learning rates, and what follows from them.

    The losses of the orders are averaged step by step, up to where the first order diverged, and
    smoothed by an exponential average, as everywhere since fastai: here in both directions, so
    that the curve does not move to higher learning rates, and with peaks cut off, so that a
    divergence does not reach back.

    Args:
        lrs: the learning rate of each step, rising.
        sweeps: the losses of each order of the data, up to where it diverged.
        tried: the short runs that confirm a suggestion.
        notes: what should be known of it, in sentences.
        mode: how the learning rates rise: "exponential" or "linear".

    Example:
        >>> falling = [1 - step / 20 for step in range(20)]
        >>> test = RangeTest([2.0**n for n in range(-60, 0)], [[1.0] * 38 + falling + [2.0, 9.0]])
        >>> low, high = test.range
        >>> low < test.suggestion() < high
        True

    Source: L. Smith, Cyclical Learning Rates for Training Neural Networks, 2015,
    https://arxiv.org/abs/1506.01186, section 3.3, for the range; S. Gugger, How do you find a good
    learning rate, 2018, https://sgugger.github.io, for smoothing and steepest descent.
    """

    lrs: Sequence[float]
    sweeps: Sequence[Sequence[float]]
    tried: Sequence[ShortRun] = ()
    notes: Sequence[str] = ()
    mode: str = field(default="exponential", repr=False)

    @property
    def results(self) -> dict[str, list[float]]:
        """The curve as Lightning has it: {"lr": [...], "loss": [...]}, the loss smoothed."""
        lrs, losses = self._curve
        return {"lr": lrs.tolist(), "loss": losses.tolist()}

    @property
    def range(self) -> tuple[float, float]:
        """The learning rates between which the loss falls in all orders.

        From where it has begun to fall to where it is lowest: Smith's base and maximal learning
        rate. The suggestion is within.

        Raises:
            TrainerError: the loss does not fall.
        """
        self._refuse_level()
        ends = [_fall(_smoothed(self.lrs, [sweep])[1]) for sweep in self.sweeps]
        inside = self.suggestion()
        low, high = self.lrs[max(low for low, _ in ends)], self.lrs[min(high for _, high in ends)]
        return min(low, high, inside), max(low, high, inside)

    def suggestion(self, method: str = "confirmed") -> float:
        """The learning rate to train with.

        Args:
            method: "confirmed": of the short runs at a third of the steepest descent, at it, and
                at three times it, the one with the lowest loss, or a smaller one that ends as low;
                "steepest": where the loss falls most in the logarithm of the learning rate;
                "valley": the middle of the longest series of ever lower losses, as in fastai.

        Raises:
            TrainerError: the loss does not fall, so that there is nothing to suggest.
        """
        _METHOD.check("suggestion: method", method, TrainerError)
        self._refuse_level()
        if method == "confirmed" and self.tried:
            best = min(run.loss for run in self.tried)
            level = best + CLOSE * abs(self.start - best)
            return min(run.lr for run in self.tried if run.loss <= level)
        return (_valley if method == "valley" else _steepest)(*self._curve)

    @property
    def start(self) -> float:
        """The loss at the start, before a step was large enough to change it."""
        return start_of(_mean(self.sweeps), len(self.lrs))

    @property
    def why_none(self) -> str | None:
        """The reason why nothing is suggested; None where something is."""
        lrs, losses = self._curve
        low, high = f"{lrs[0]:.3g}", f"{lrs[-1]:.3g}"
        if self.tried and all(math.isinf(run.loss) for run in self.tried):
            return (
                f"all short runs diverged, at lr {', '.join(f'{run.lr:.3g}' for run in self.tried)}"
            )
        if len(losses) < len(self.lrs) / START or not np.isfinite(losses).all():
            return (
                f"the loss was no finite number, or diverged, within {len(losses)} steps, at lr "
                f"{high}; look for a division by zero in model and loss, or give a smaller min_lr "
                f"than {self.lrs[0]:g}"
            )
        start, lowest = self.start, int(np.argmin(losses))
        before = _mean(self.sweeps)[: max(lowest + 1, len(losses) // 2)]
        kept = kept_of(len(self.lrs))
        # The parts of a step's variance that are left in the mean at the start and in the average
        left = START / len(self.lrs) + (1 - kept) / (1 + kept)
        noise = np.std(np.diff(before)) * math.sqrt(left / 2)
        if start - losses[lowest] > max(CERTAIN * noise, 1e-6 * abs(start)):
            return None
        return (
            f"the loss falls at no lr from {low} to {high}: it is {start:.4g} at the start and "
            f"{losses[lowest]:.4g} at its lowest, which is no more than its noise; look whether "
            f"the loss depends on the parameters that the optimizer has, give a larger max_lr "
            f"than {self.lrs[-1]:g} or more steps than {len(self.lrs)} (num_training)"
        )

    def plot(self, suggest: bool = True, path: str | Path | None = None) -> "Figure":
        """Draw the losses over the learning rate, with range and suggestion.

        Args:
            suggest: whether to mark range, suggestion and short runs.
            path: a file to write too, PNG or SVG; an existing one is replaced.

        Returns:
            The figure; `figure.savefig` writes it as anything else.

        Raises:
            OutputError: the file cannot be written.
        """
        if path is not None:
            check_ending(Path(path))
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: it takes half a second
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.5, 4.5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for order, sweep in enumerate(self.sweeps):
            label = "the orders" if order == 0 else ""
            axes.plot(self.lrs[: len(sweep)], sweep, color="0.7", linewidth=0.7, label=label)
        lrs, losses = self._curve
        axes.plot(lrs, losses, color=COLOURS[0], linewidth=2, label="their mean, smoothed")
        if suggest and self.why_none is None:
            self._mark(axes)
        axes.set(
            xlabel="lr", ylabel="loss", xlim=(lrs[0], max(lrs[-1], 2 * lrs[0])), ylim=self.shown
        )
        axes.set_xscale("log" if self.mode == "exponential" else "linear")
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=5, frameon=False)
        if path is not None:
            save_figure(figure, Path(path))
        return figure

    @property
    def shown(self) -> tuple[float, float]:
        """From which to which loss a picture goes: a divergence would hide all else."""
        seen = np.array([*self._curve[1], *(run.loss for run in self.tried)])
        seen = seen[np.isfinite(seen)]
        low, high = (seen.min(), seen.max()) if len(seen) else (0.0, 1.0)
        room = 0.12 * (high - low) or 1.0
        return float(low - room), float(high + room)

    def __str__(self) -> str:
        """Suggestion, range, and the short runs, for a terminal."""
        if self.why_none is not None:
            return "\n".join([f"no suggestion: {self.why_none}", *self.notes])
        low, high = self.range
        runs = [
            f"lr {lr:.3g}: {'diverged' if math.isinf(loss) else f'loss {loss:.4g}'}"
            for lr, loss in self.tried
        ]
        return "\n".join(
            [
                f"lr {self.suggestion():.3g}, between {low:.3g} and {high:.3g}",
                f"steepest descent at {self.suggestion('steepest'):.3g}, valley at "
                f"{self.suggestion('valley'):.3g}",
                *([f"short runs: {', '.join(runs)}"] if runs else []),
                *self.notes,
            ]
        )

    def _mark(self, axes: Any) -> None:
        low, high = self.range
        axes.axvspan(low, high, color=COLOURS[2], alpha=0.12, linewidth=0, label="range")
        best = self.suggestion()
        axes.axvline(best, color=COLOURS[1], linewidth=1.5, label=f"suggestion: {best:.3g}")
        finite = [run for run in self.tried if math.isfinite(run.loss)]
        axes.plot(
            [run.lr for run in finite],
            [run.loss for run in finite],
            "o",
            color=COLOURS[1],
            label="end of a short run",
        )

    @cached_property
    def _curve(self) -> tuple[Array, Array]:
        return _smoothed(self.lrs, self.sweeps)

    def _refuse_level(self) -> None:
        if self.why_none is not None:
            raise TrainerError(f"lr_find: there is no lr to suggest: {self.why_none}")


def kept_of(steps: int) -> float:
    """The part of a running average that is kept at each of so many steps.

    Example:
        >>> kept_of(100)
        0.85
    """
    return 1 - MEMORY / max(steps, MEMORY)


def running_average(losses: Iterable[float], kept: float) -> Array:
    """The exponential average at each step, without the pull to zero at the start."""
    average, averages = 0.0, []
    for step, loss in enumerate(losses, 1):
        average = kept * average + (1 - kept) * loss
        averages.append(average / (1 - kept**step))
    return np.array(averages)


def start_of(losses: Sequence[float] | Array, steps: int) -> float:
    """The loss at the start of a sweep of so many steps."""
    return float(np.mean(losses[: max(steps // START, 1)]))


def _mean(sweeps: Sequence[Sequence[float]]) -> Array:
    """The mean of some orders, as long as the shortest."""
    shortest = min(map(len, sweeps))
    mean: Array = np.array([sweep[:shortest] for sweep in sweeps]).mean(axis=0)
    return mean


def _smoothed(lrs: Sequence[float], sweeps: Sequence[Sequence[float]]) -> tuple[Array, Array]:
    """The learning rates and the smoothed mean of the orders, up to what is no finite number."""
    mean = _mean(sweeps)
    finite = np.isfinite(mean)
    if finite.any() and not finite.all():
        mean = mean[: int(np.argmin(finite))]
    if not len(mean) or not finite.any():
        return np.array(lrs[:1]), np.array([math.nan])
    start, kept = start_of(mean, len(lrs)), kept_of(len(lrs))
    fall = max(start - running_average(mean, kept).min(), 0.0)
    mean = np.minimum(mean, start + fall)  # a divergence is cut off
    weights = np.array([1 - kept ** (step + 1) for step in range(len(mean))]) / (1 - kept)
    forward, backward = (running_average(one, kept) * weights for one in (mean, mean[::-1]))
    both = (forward + backward[::-1] - mean) / (weights + weights[::-1] - 1)
    return np.array(lrs[: len(mean)]), both


def _fall(losses: Array) -> tuple[int, int]:
    """The steps at which a curve has begun to fall, and is lowest."""
    lowest = int(np.argmin(losses))
    first = float(losses[: lowest + 1].max())
    above = np.nonzero(losses[: lowest + 1] >= first - BEGUN * (first - losses[lowest]))[0]
    return int(above[-1]), lowest


def _steepest(lrs: Array, losses: Array) -> float:
    """The learning rate at which the loss falls most, while it falls."""
    begun, lowest = _fall(losses)
    slope = np.gradient(losses, np.log(lrs))[begun : lowest + 1]
    return float(lrs[begun + int(np.argmin(slope))])


def _valley(lrs: Array, losses: Array) -> float:
    """The middle of the longest series of ever lower losses."""
    longest, before = np.ones(len(losses), dtype=int), np.full(len(losses), -1)
    for step, loss in enumerate(losses):
        higher = np.nonzero(losses[:step] > loss)[0]
        if len(higher):
            before[step] = higher[int(np.argmax(longest[higher]))]
            longest[step] = longest[before[step]] + 1
    end = start = int(np.argmax(longest))
    while before[start] >= 0:
        start = int(before[start])
    return float(lrs[(start + end) // 2])
