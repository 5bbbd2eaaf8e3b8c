"""Schedulers of torch that drive the momentum too: once they have it, against the lr."""

from typing import Any

from torch.optim import Optimizer

from descend.errors import ScheduleError
from descend.lr_scheduler.base import LRScheduler, spread
from descend.lr_scheduler.track import Values


class WithMomentum(LRScheduler):
    """A scheduler of given lrs, and of the momentum or the first of the betas."""

    rank = 0
    cycle_momentum: bool

    def _choose_momentum(self, optimizer: Optimizer) -> None:
        """Drive "momentum" or "beta1", whichever the optimizer has."""
        self.keys = ("lr",)  # type: ignore[misc]
        if not self.cycle_momentum or not isinstance(optimizer, Optimizer):
            return
        if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
            raise ScheduleError(
                f"{type(self).__name__}: {type(optimizer).__name__} must have a momentum or betas "
                "to cycle, and has none; give cycle_momentum=False"
            )
        self.use_beta1 = "betas" in optimizer.defaults
        self.keys = ("lr", "beta1" if self.use_beta1 else "momentum")  # type: ignore[misc]

    def _each(self, name: str, count: int) -> list[Any]:
        """An argument for each group."""
        return spread(type(self).__name__, name, getattr(self, f"_{name}"), count)

    def _checked(self, optimizer: Optimizer, *names: str) -> None:
        """Refuse a list that has not one entry for each group."""
        if isinstance(optimizer, Optimizer):
            for name in names:
                self._each(name, len(optimizer.param_groups))

    def values(self, key: str, time: float, bases: Values) -> Values:
        """The lr, or the momentum."""
        if key == "lr":
            return super().values(key, time, bases)
        return self.momentum_curve(time, len(bases))

    def momentum_curve(self, time: float, count: int) -> Values:
        """What the momentum of each group is, a pure function of the time.

        Args:
            time: from 0.
            count: how many groups there are.
        """
        raise NotImplementedError


