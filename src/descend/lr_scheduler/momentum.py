"""torch's schedulers that give lrs, and against them the momentum or the first beta."""

from typing import Any

from torch.optim import Optimizer

from descend.errors import ScheduleError
from descend.lr_scheduler.driver import Order, Values
from descend.lr_scheduler.group_values import place_of, write
from descend.lr_scheduler.scheduler_base import LRScheduler

Levels = list[tuple[list[tuple[float, float]], list[tuple[float, float]]]]
"""For each part of the curve, the two ends of the lr in each group, and those of the momentum."""


class WithMomentum(LRScheduler):
    """A scheduler of given lrs, and of the momentum or the first of the betas."""

    order = Order.VALUES
    form = "closed"
    cycle_momentum: bool
    _levels: tuple[int, Levels] | None = None
    _placed: tuple[int, float] | None = None  # while it writes

    def _choose_keys(self, optimizer: Optimizer) -> None:
        """Drive the lr, and "momentum" or "beta1", whichever the optimizer has."""
        self.keys = ("lr",)  # type: ignore[misc]
        if not isinstance(optimizer, Optimizer):  # the base class refuses it
            return
        if self.cycle_momentum:
            if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
                raise ScheduleError(
                    f"{type(self).__name__}: {type(optimizer).__name__} must have a momentum or "
                    "betas to cycle, and has none; give cycle_momentum=False"
                )
            self.use_beta1 = "betas" in optimizer.defaults
            self.keys = ("lr", "beta1" if self.use_beta1 else "momentum")  # type: ignore[misc]
        self._find_levels(len(optimizer.param_groups))  # which refuses lists of another length

    def _of_each(self, name: str, count: int | None = None) -> list[Any]:
        """An argument for each group; one for all is that of groups that were added, too."""
        count = len(self.optimizer.param_groups) if count is None else count
        return self._each(name, getattr(self, f"_{name}"), count)

    def _note(self, levels: list[dict[str, float]], always: bool = False) -> None:
        """Note the values in the groups, as torch does; the base too, if nobody else needs it."""
        groups, driver = self.optimizer.param_groups, self._drivers["lr"]
        alone = driver.foreign is None and driver.schedulers() in ([], [self])
        if self.cycle_momentum:
            for name in ("max_momentum", "base_momentum"):
                for group, value in zip(groups, self._of_each(name), strict=True):
                    group[name] = value
        for group, own in zip(groups, levels, strict=True):
            group.update({k: v for k, v in own.items() if alone or always or k != "initial_lr"})
        if alone or always:
            driver.first, driver.moved = [own["initial_lr"] for own in levels], {}
        if self._torch_style:
            vars(self)["base_lrs"] = [float(group["initial_lr"]) for group in groups]

    def _find_levels(self, count: int) -> Levels:
        """The ends between which the curves of so many groups go, from the arguments."""
        raise NotImplementedError

    def _place(self, time: float) -> tuple[int, float]:
        """The part of the curve at a time, and how far it is from the first end to the second."""
        raise NotImplementedError

    def _write(self) -> None:
        """Write both, from one place on the curve."""
        self._placed = self._place(self.last_epoch + self._fraction)
        try:
            super()._write()
        finally:
            self._placed = None

    def values(self, key: str, time: float, bases: Values) -> Values:
        """Given values, whatever the base: of the lr, or of the momentum."""
        if self._levels is None or self._levels[0] != len(bases):
            self._levels = (len(bases), self._find_levels(len(bases)))
        part, share = self._placed or self._place(time)
        ends = self._levels[1][part][key != "lr"]
        return [first + (second - first) * share for first, second in ends]

    def get_lr(self) -> list[Any]:
        """The lr of each group in this step; beside a scheduler written for torch, as torch's.

        Then it writes the momentum, too.
        """
        groups, time = self.optimizer.param_groups, self.last_epoch + self._fraction
        nothing = [0.0] * len(groups)
        lrs = self.values("lr", time, nothing)
        if self._as_torchs() and self.cycle_momentum:
            write(groups, *place_of(self.keys[1]), self.values(self.keys[1], time, nothing))
        return list(lrs)
