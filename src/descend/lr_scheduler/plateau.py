"""ReduceLROnPlateau."""

import math
import warnings
from typing import Any, Literal, SupportsFloat

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import EPOCH_DEPRECATION_WARNING

from descend.checks import Choice, Range, plain_number
from descend.errors import ScheduleError, ScheduleTypeError, StateError
from descend.format import counted
from descend.lr_scheduler.driver import Driver, Values, drivers_of
from descend.lr_scheduler.group_values import read
from descend.lr_scheduler.scheduler_base import LRScheduler
from descend.lr_scheduler.torch_style import write_lrs


class ReduceLROnPlateau(LRScheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
    r"""Lower by a factor when a measure has stopped improving.

    .. math::
        \eta_t = \max(\eta_0 \, f^k, \eta_{min})

    with k how often it was reduced so far. It composes with other schedulers of the same optimizer,
    and stands in a `SequentialLR` or a `ChainedScheduler`, whose `step` then takes the measure.

    Args:
        optimizer: whose groups it drives.
        mode: "min" if smaller is better, "max" if larger is.
        factor: f, below 1.
        patience: how many epochs without improvement are borne; one more reduces.
        threshold: how much better counts as an improvement.
        threshold_mode: "rel": by that part of the best, of its magnitude where that is below 0;
            "abs": by that much.
        cooldown: epochs after a reduction that are not counted.
        min_lr: the lowest lr; or a list, one for each group.
        eps: a reduction by less is left out.
        last_epoch: the last epoch that is over; -1 to begin. One that is built in the middle goes
            on from the lr that is there, and measures anew.

    Attributes:
        best: the best measure so far.
        num_bad_epochs: epochs without improvement since the last one, or the last reduction.
        reductions: how often the lr of each group was reduced.

    Raises:
        ScheduleError: an argument is out of range.

    Example:
        >>> import torch, descend
        >>> optimizer = descend.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> scheduler = descend.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
        >>> for loss in (3.0, 2.0, 2.0):
        ...     scheduler.step(loss)
        >>> scheduler.get_last_lr()
        [0.5]

    Source: torch.optim.lr_scheduler.ReduceLROnPlateau.
    """

    made_of_others = True
    _measuring = True
    falls = True
    config = ("mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "eps")
    own_config = ("default_min_lr", "_own_min_lrs")
    threshold: float
    default_min_lr: float | None

    def __init__(
        self,
        optimizer: Optimizer,
        mode: Literal["min", "max"] = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: Literal["rel", "abs"] = "rel",
        cooldown: int = 0,
        min_lr: list[float] | float = 0,
        eps: float = 1e-8,
        last_epoch: int = -1,
    ) -> None:
        self.mode = self._checked("mode", mode, Choice(("min", "max")))
        self.factor = self._checked("factor", factor, Range(0, 1))
        self.patience = self._checked("patience", patience)
        self.threshold = self._checked("threshold", threshold)
        self.threshold_mode = self._checked(
            "threshold_mode", threshold_mode, Choice(("rel", "abs"))
        )
        self.cooldown = self._checked("cooldown", cooldown)
        self.eps = self._checked("eps", eps)
        lowest = self._checked_each("min_lr", min_lr)
        self.default_min_lr = None if isinstance(lowest, list) else lowest
        groups = getattr(optimizer, "param_groups", ())
        self.min_lrs: list[float] = self._each("min_lr", lowest, len(groups))
        self.mode_worse = math.inf if mode == "min" else -math.inf
        self.reductions: list[int] = []
        self._reset()
        super().__init__(optimizer, last_epoch)

    def _join(self, key: str, resumed: bool) -> Driver:
        """The driver, with this scheduler on it: from the lr that is there, reduced or not."""
        driver = drivers_of(self.optimizer).get(key)
        old = self._predecessor(driver) if driver is not None and resumed else None
        if driver is not None and old is not None:
            driver.rebase(self.optimizer.param_groups)
            driver.remove(old)
            if driver.schedulers():
                self.reductions = list(old.reductions)
        return super()._join(key, False)

    def _initial_step(self) -> None:
        """Begin; nothing is measured yet."""
        self._is_initial = False
        self._step_count = 1
        self.last_epoch += 1
        self._write()

    def _reset(self) -> None:
        """Forget what was measured; what was reduced stays so."""
        self.best = self.mode_worse
        self.cooldown_counter = 0
        self.num_bad_epochs = 0

    @property
    def _own_min_lrs(self) -> list[float] | None:
        """The lowest lrs, if each group was given its own."""
        return list(self.min_lrs) if self.default_min_lr is None else None

    def _lowest(self, count: int) -> list[float]:
        """The lowest lr of each group; of those that were added, the one for all."""
        missing = count - len(self.min_lrs)
        if missing > 0 and self.default_min_lr is None:
            raise ScheduleError(
                f"{type(self).__name__}: got {counted(count, 'group')} and "
                f"{counted(len(self.min_lrs), 'lowest lr')}; append one for each group that was "
                "added to scheduler.min_lrs"
            )
        if missing > 0:
            self.min_lrs += [self.default_min_lr or 0.0] * missing
        return self.min_lrs

    @property
    def in_cooldown(self) -> bool:
        """Whether epochs are not counted now."""
        return self.cooldown_counter > 0

    def curve(self, time: float, bases: Values) -> Values:
        """The base, reduced so many times."""
        counts = self.reductions + [0] * (len(bases) - len(self.reductions))
        if not any(counts):
            return bases
        return [
            min(base, max(base * self.factor**count, lowest))
            for base, count, lowest in zip(bases, counts, self._lowest(len(bases)), strict=False)
        ]

    def step(self, metrics: SupportsFloat, epoch: int | None = None) -> None:  # type: ignore[override]
        """Measure, after each epoch, and reduce if it is time.

        Args:
            metrics: the measure; a NaN is no improvement.
            epoch: the number of the epoch, if it is not the next one.

        Raises:
            ScheduleTypeError: `metrics` is no number; nothing has changed.
            ScheduleError: it is part of another scheduler.
        """
        self._refuse_part()
        if epoch is not None:
            warnings.warn(EPOCH_DEPRECATION_WARNING, UserWarning, stacklevel=2)
        if self._observe(metrics, self.last_epoch + 1 if epoch is None else epoch):
            self._reduce_lr(self.last_epoch)
        self._step_count += 1

    def _reduce_lr(self, epoch: int) -> None:
        """Reduce, and write; a subclass may extend it by torch's name."""
        if self._drivers["lr"].foreign is None:
            self._rebase()
            self._reduce()
            self._write()
            return
        # Beside a scheduler that was written for torch: from the lr that is there, as torch's.
        now = [read(group, "lr") for group in self.optimizer.param_groups]
        pairs = zip(now, self._lowest(len(now)), strict=True)
        write_lrs(self, [self._reduced(lr, least) for lr, least in pairs])

    def _reduced(self, lr: float, least: float) -> float:
        """An lr, lowered once; the same where it would fall by less than `eps`."""
        lower = max(lr * self.factor, least)
        return lower if lr - lower > self.eps else lr

    def seek(self, time: float) -> None:
        """A plateau cannot seek: what it does follows from what was measured.

        Args:
            time: any.

        Raises:
            ScheduleError: always.
        """
        raise ScheduleError(
            f"{type(self).__name__}: it follows what is measured, so no time can be sought; load "
            "a state instead"
        )

    def _observe(self, metrics: SupportsFloat, epoch: int) -> bool:
        """Take note of the measure of an epoch, and say whether it is time to reduce."""
        try:
            current = float(metrics)
        except (TypeError, ValueError, RuntimeError):  # a tensor of several elements, for one
            raise ScheduleTypeError(
                f"{type(self).__name__}: step takes the measure, a number, got {metrics!r}; "
                "such as step(validation_loss)"
            ) from None
        self._lowest(len(self.optimizer.param_groups))
        self.last_epoch = epoch
        if self._is_better(current, self.best):
            self.best = current
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs <= self.patience:
            return False
        self.cooldown_counter = self.cooldown
        self.num_bad_epochs = 0
        return True

    def _reduce(self) -> None:
        """Count a reduction of each group whose lr can still fall; nothing is written."""
        groups = self.optimizer.param_groups
        lowest = self._lowest(len(groups))
        self.reductions += [0] * (len(groups) - len(self.reductions))
        for index, group in enumerate(groups):
            now = read(group, "lr")
            self.reductions[index] += self._reduced(now, lowest[index]) != now

    def _is_better(self, a: float, best: float) -> bool:
        """Whether a measure is an improvement."""
        if self.threshold_mode == "abs":
            return a < best - self.threshold if self.mode == "min" else a > best + self.threshold
        margin = self.threshold * abs(best) if math.isfinite(best) else 0.0
        return a < best - margin if self.mode == "min" else a > best + margin

    def state_dict(self) -> dict[str, Any]:
        """The state as plain data, with the measures and the reductions."""
        return {
            **super().state_dict(),
            "best": self.best,
            "cooldown_counter": self.cooldown_counter,
            "num_bad_epochs": self.num_bad_epochs,
            "reductions": list(self.reductions),
            "mode_worse": self.mode_worse,
            "min_lrs": list(self.min_lrs),
        }

    def _refuse_unfit(self, state: Any, strict: bool, place: str = "") -> None:
        """Raise where a state cannot be loaded, or what was measured is no number."""
        super()._refuse_unfit(state, strict, place)
        for name in ("best", "cooldown_counter", "num_bad_epochs"):
            value = state.get(name)
            if plain_number(value) is None:
                raise StateError(
                    f"{type(self).__name__}.load_state_dict{place}: {name} must be a number, got "
                    f"{value!r}"
                )

    def _take_over(self, state: dict[str, Any]) -> None:
        """Set the measures; torch's state knows no reductions, so its lr is the base."""
        last = state.get("_last_lr")
        known = "base_lrs" in state or last is None
        super()._take_over(state if known else {**state, "base_lrs": last})
        self.best = state["best"]
        self.cooldown_counter = state["cooldown_counter"]
        self.num_bad_epochs = state["num_bad_epochs"]
        self.reductions = list(state.get("reductions", ()))
