"""The values that a training logs: those of a batch, and their means over an epoch."""

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from descend.errors import TrainerError

REDUCTIONS: dict[str, tuple[float, Callable[[float, float], float]]] = {
    "mean": (0.0, operator.add),
    "sum": (0.0, operator.add),
    "min": (math.inf, min),
    "max": (-math.inf, max),
}
"""The value that an epoch begins with, and how another one is added; a mean's is weighted."""

LOADER = "/dataloader_idx_"  # before its number, where there are several


@dataclass
class Series:
    """One name that is logged.

    Args:
        options: how it is logged: prog_bar, logger, on_step, on_epoch, reduce_fx.
        total: the reduced values of the epoch under way; of a mean, times their weights.
        weight: the samples in it.
        value: of the last batch.
        metric: an object that computes the value of the epoch itself; or None.
    """

    options: tuple[bool, bool, bool, bool, str]
    total: Any
    weight: float = 0.0
    value: Any = None
    metric: Any = None

    @property
    def known(self) -> bool:
        """Whether there is a value."""
        return self.value is not None or self.metric is not None

    def step_value(self) -> float:
        """The value of the last batch."""
        if self.metric is None:
            return float(self.value)
        of_batch = getattr(self.metric, "_forward_cache", None)  # as torchmetrics names it
        return _detached(self.metric.compute() if of_batch is None else of_batch)

    def epoch_value(self) -> float:
        """The value of the epoch."""
        if self.metric is not None:
            return _detached(self.metric.compute())
        mean = self.options[4] == "mean" and self.weight
        return float(self.total) / self.weight if mean else float(self.total)


@dataclass
class Metrics:
    """All that a training or a measurement logs.

    The loop sets `batch`, and asks for `of_step` and `end_epoch`.

    Attributes:
        kept: the newest value of each name that is not under way.
        bar: those of them that are shown beside the progress bar.
        part: "train", or what is measured: then the mean over the epoch is logged by default.
        batch: the batch under way, whose samples weigh a mean; None between batches.
        suffix: after each name, where there are several loaders.
    """

    kept: dict[str, float] = field(default_factory=dict)
    bar: dict[str, float] = field(default_factory=dict)
    part: str = "train"
    batch: Any = None
    suffix: str = ""
    series: dict[str, Series] = field(default_factory=dict)

    def log(
        self,
        name: str,
        value: Any,
        prog_bar: bool,
        logger: bool,
        on_step: bool | None,
        on_epoch: bool | None,
        reduce_fx: str,
        batch_size: int | None,
        add_dataloader_idx: bool,
    ) -> None:
        """Take a value; the arguments are those of `Module.log`."""
        if self.suffix and add_dataloader_idx:
            name += self.suffix
        in_step = self.part == "train" and self.batch is not None
        options = (
            prog_bar,
            logger,
            in_step if on_step is None else on_step,
            (not in_step) if on_epoch is None else on_epoch,
            reduce_fx,
        )
        one = self.series.get(name)
        if one is None:
            if not isinstance(name, str):
                raise TrainerError(f"log: a name must be a text, got {name!r}")
            one = self.series[name] = self._new(name, value, options)
        elif one.options != options:
            raise TrainerError(
                f"log({name!r}): it was logged with other options before ({_named(one.options)}), "
                f"and now with {_named(options)}; give it another name"
            )
        if one.metric is not None:
            return
        if type(value) is torch.Tensor and value.numel() == 1:
            # On another device than the CPU, asking for the number would wait for it
            value = value.item() if value.device.type == "cpu" else value.detach()
        elif type(value) is not float:
            value = _number(name, value)
        one.value = value
        if options[3]:
            if reduce_fx == "mean":
                weight = (batch_size or samples_in(self.batch)) if self.batch is not None else 1
                one.weight += weight
                value = value * weight
            one.total = REDUCTIONS[reduce_fx][1](one.total, value)
            if self.batch is None and not options[2]:  # in a hook; a callback's may monitor it
                self.kept[name] = one.epoch_value()

    @property
    def latest(self) -> dict[str, float]:
        """The newest value of each name: what callbacks and schedulers monitor."""
        found = dict(self.kept)
        for name, one in self.series.items():
            if one.options[2] and one.known:
                found[name] = one.step_value()
                if one.options[3]:
                    found[_ending(name, "_step")] = found[name]
        return found

    @property
    def shown(self) -> dict[str, float]:
        """The newest values of those that are shown beside the progress bar."""
        under_way = {
            _ending(name, "_step") if one.options[3] else name: one.step_value()
            for name, one in self.series.items()
            if one.options[0] and one.options[2] and one.known
        }
        return {**self.bar, **under_way}

    def of_step(self) -> dict[str, float]:
        """The values of the batch that is done, for the loggers."""
        return {
            _ending(name, "_step") if one.options[3] else name: one.step_value()
            for name, one in self.series.items()
            if one.options[1] and one.options[2] and one.known
        }

    def end_epoch(self) -> dict[str, float]:
        """The values of the epoch that is over, for the loggers; the next one begins."""
        found = {}
        self.kept, self.bar = self.latest, self.shown
        for name, one in self.series.items():
            prog_bar, logger, on_step, on_epoch, _ = one.options
            if not on_epoch or not one.known:
                continue
            value = one.epoch_value()
            full = _ending(name, "_epoch") if on_step else name
            self.kept[name] = self.kept[full] = value
            if prog_bar:
                self.bar[full] = value
            if logger:
                found[full] = value
            if one.metric is not None:
                one.metric.reset()
        self.series.clear()
        return found

    @contextmanager
    def measuring(self, part: str) -> Iterator[None]:
        """Log a measurement apart from the epoch of training that it interrupts."""
        self.kept, self.bar = self.latest, self.shown  # its hooks see them too
        before = self.part, self.batch, self.suffix, self.series
        self.part, self.batch, self.suffix, self.series = part, None, "", {}
        try:
            yield
        finally:
            self.part, self.batch, self.suffix, self.series = before

    def state_dict(self, measures: Mapping[str, Any]) -> dict[str, Any]:
        """The sums of the epoch under way and the latest values.

        Args:
            measures: the objects that compute values themselves, by the name of each.
        """
        names = {id(one): name for name, one in measures.items()}
        return {
            "kept": dict(self.kept),
            "bar": dict(self.bar),
            "series": {
                name: {
                    "options": list(one.options),
                    "total": float(one.total),
                    "weight": one.weight,
                    "value": None if one.value is None else float(one.value),
                    "metric": names.get(id(one.metric)),
                }
                for name, one in self.series.items()
                if one.metric is None or id(one.metric) in names
            },
        }

    def load_state_dict(self, state: Mapping[str, Any], measures: Mapping[str, Any]) -> None:
        """Go on from there, with these objects."""
        self.kept, self.bar = dict(state["kept"]), dict(state["bar"])
        found: dict[Any, Any] = {None: None}
        found.update(measures)
        self.series = {
            name: Series(
                tuple(one["options"]), one["total"], one["weight"], one["value"],
                found[one.get("metric")],
            )
            for name, one in state["series"].items()
            if one.get("metric") in found
        }  # fmt: skip

    def _new(self, name: str, value: Any, options: tuple[bool, bool, bool, bool, str]) -> Series:
        if options[4] not in REDUCTIONS:
            raise TrainerError(
                f"log({name!r}): reduce_fx must be one of {', '.join(REDUCTIONS)}, got "
                f"{options[4]!r}"
            )
        computes = callable(getattr(value, "compute", None)) and hasattr(value, "reset")
        return Series(options, REDUCTIONS[options[4]][0], metric=value if computes else None)


def _detached(value: Any) -> float:
    return float(value.detach() if isinstance(value, torch.Tensor) else value)


def samples_in(batch: Any) -> int:
    """How many samples a batch has: the length of the first tensor in it; 1 where there is none.

    Example:
        >>> samples_in({"x": [torch.zeros(8, 3)], "y": torch.zeros(8)})
        8
    """
    first = _first_tensor(batch)
    return len(first) if first is not None and first.dim() else 1


def _first_tensor(batch: Any) -> torch.Tensor | None:
    if isinstance(batch, torch.Tensor):
        return batch
    if isinstance(batch, Mapping):
        batch = batch.values()
    elif not isinstance(batch, list | tuple):
        return None
    return next((one for one in map(_first_tensor, batch) if one is not None), None)


def _ending(name: str, ending: str) -> str:
    """A name with something added to it, before the number of its loader."""
    name, loader, number = name.partition(LOADER)
    return f"{name}{ending}{loader}{number}"


def _number(name: str, value: Any) -> float:
    """A number that is logged, or an error."""
    if isinstance(value, torch.Tensor) and value.numel() != 1:
        raise TrainerError(
            f"log({name!r}): the value must be one number, and has shape {tuple(value.shape)}; log "
            f"its mean, or each by a name of its own"
        )
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TrainerError(
            f"log({name!r}): the value must be a number or a tensor of one element, and is a "
            f"{type(value).__name__}"
        ) from None


def _named(options: tuple[Any, ...]) -> str:
    names = ("prog_bar", "logger", "on_step", "on_epoch", "reduce_fx")
    return ", ".join(f"{name}={value}" for name, value in zip(names, options, strict=True))
